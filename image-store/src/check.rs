//! Looking whether a store is what it should be.

use std::fs::File;
use std::path::PathBuf;

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::Serialize;

use crate::durable;
use crate::names;
use crate::store::{Store, entries};
use crate::store_error::StoreError;
use crate::verity;

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Finding {
    /// A record that cannot be believed.
    Record {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        fault: String,
    },
    /// A record whose blob is missing or has another length.
    MissingBlob {
        /// The record.
        path: PathBuf,
        /// The blob.
        blob: Digest,
    },
    /// A pin that holds what is not there.
    DanglingPin {
        /// The pin.
        name: String,
        /// What it holds.
        digest: Digest,
    },
    /// A file that the format does not know.
    Unknown {
        /// The file.
        path: PathBuf,
    },
}

/// A blob whose content is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BadBlob {
    /// Its name.
    pub blob: Digest,
    /// The digest of what is there; `None` where it cannot be read, as fs-verity makes it be.
    pub found: Option<Digest>,
    /// Why it could not be read.
    pub error: Option<String>,
}

impl Store {
    /// Checks records, pins and lengths; reads no blob.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be looked at; what is wrong with it is no error but a [`Finding`].
    pub fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        let names = &self.inner.names;
        let mut findings = Vec::new();
        for directory in [names.blobs(), names.layers(), names.images()] {
            for name in entries(&directory)? {
                if names::digest_of(&name).is_none() {
                    findings.push(Finding::Unknown { path: directory.join(name) });
                }
            }
        }
        for diff_id in self.digests_in(&names.layers())? {
            let path = names.layer(&diff_id);
            match self.recorded_layer(&diff_id) {
                Ok(Some(layer)) if !self.has_blob(&layer)? => {
                    findings.push(Finding::MissingBlob { path, blob: layer.blob });
                }
                Ok(_) => {}
                Err(StoreError::Damaged { path, fault }) => findings.push(Finding::Record { path, fault }),
                Err(error) => return Err(error),
            }
        }
        for digest in self.digests_in(&names.images())? {
            match self.image(&digest) {
                Ok(Some(_)) => {}
                Ok(None) => {
                    let fault = "not all of its layers are there".to_owned();
                    findings.push(Finding::Record { path: names.image(&digest), fault });
                }
                Err(StoreError::Damaged { path, fault }) => findings.push(Finding::Record { path, fault }),
                Err(error) => return Err(error),
            }
        }
        for (name, holds) in self.pins()? {
            for digest in holds {
                if !names.image(&digest).exists() && !names.blob(&digest).exists() {
                    findings.push(Finding::DanglingPin { name: name.clone(), digest });
                }
            }
        }
        Ok(findings)
    }

    /// Reads every blob and computes its digest anew. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be listed; a blob that cannot be read is a [`BadBlob`].
    pub fn scrub(&self) -> Result<Vec<BadBlob>, StoreError> {
        let mut bad = Vec::new();
        for blob in self.digests_in(&self.inner.names.blobs())? {
            match File::open(self.inner.names.blob(&blob)).and_then(verity::digest) {
                Ok((found, _)) if found == blob => {}
                Ok((found, _)) => bad.push(BadBlob { blob, found: Some(found), error: None }),
                Err(error) => bad.push(BadBlob { blob, found: None, error: Some(error.to_string()) }),
            }
        }
        Ok(bad)
    }

    /// Removes blobs that a scrub found bad, so that the next pull fetches them again. The records stay: they say what is
    /// missing.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::Busy`] while another operation runs.
    pub fn discard(&self, bad: &[BadBlob]) -> Result<(), StoreError> {
        self.writable()?;
        let _lock = self.lock(FlockArg::LockExclusiveNonblock)?;
        for blob in bad {
            let path = self.inner.names.blob(&blob.blob);
            durable::remove(&path).map_err(StoreError::io("remove", path))?;
        }
        Ok(())
    }
}
