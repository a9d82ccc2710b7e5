//! Looking whether a store is what it should be.

use std::path::PathBuf;

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::Serialize;

use crate::names;
use crate::store::{Store, entries};
use crate::store_error::StoreError;

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

impl Store {
    /// Checks records, pins and lengths; reads no blob.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be looked at; what is wrong with it is no error but a [`Finding`].
    pub fn verify(&self) -> Result<Vec<Finding>, StoreError> {
        // A collection in the middle of it would look like damage.
        let _lock = self.lock(FlockArg::LockShared)?;
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
        for name in self.pin_names()? {
            let holds = match self.pinned_by(&name) {
                Ok(holds) => holds,
                Err(StoreError::Damaged { path, fault }) => {
                    findings.push(Finding::Record { path, fault });
                    continue;
                }
                Err(error) => return Err(error),
            };
            for digest in holds.into_iter().flatten() {
                if !names.image(&digest).exists() && !names.blob(&digest).exists() {
                    findings.push(Finding::DanglingPin { name: name.clone(), digest });
                }
            }
        }
        Ok(findings)
    }
}
