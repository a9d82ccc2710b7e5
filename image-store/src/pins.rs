//! What must not be collected.

use std::path::PathBuf;

use bennu_manifests::model::Digest;
use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::names;
use crate::store::{Store, entries, exists, read_record, write_json};
use crate::store_error::StoreError;

/// A pin: what it holds.
#[derive(Debug, Serialize, Deserialize)]
struct PinRecord {
    /// Digests of images, or fs-verity digests of blobs.
    holds: Vec<Digest>,
}

/// What a pin holds, its sum not looked at; for fuzzers.
pub(crate) fn read(bytes: &[u8]) -> Result<Vec<Digest>, serde_json::Error> {
    serde_json::from_slice(bytes).map(|pin: PinRecord| pin.holds)
}

impl Store {
    /// Makes `name` hold `digests` (images, or blobs by fs-verity digest) and nothing else, durably. Where it does so already, nothing
    /// is written.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NothingToPin`] where one is not there.
    pub fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let _lock = self.lock(FlockArg::LockShared)?;
        for digest in digests {
            if self.image(digest)?.is_none() && !exists(&self.inner.names.blob(digest))? {
                return Err(StoreError::NothingToPin { digest: *digest });
            }
        }
        // Whoever brought them may have been killed before their names were durable; a pin is a promise that they are.
        self.settle_names()?;
        let mut holds = digests.to_vec();
        holds.sort_unstable();
        holds.dedup();
        // One that can't be read is written anew. One that is as it should be may not be durable yet: whoever wrote it may have been
        // killed before the fsync.
        if self.pinned_by(name).is_ok_and(|held| held.as_ref() == Some(&holds)) {
            let directory = self.inner.names.pins();
            return durable::sync_dir(&directory).map_err(StoreError::io("write", directory));
        }
        write_json(&path, &PinRecord { holds })
    }

    /// Removes a pin; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn unpin(&self, name: &str) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let _lock = self.lock(FlockArg::LockShared)?;
        durable::remove(&path).map_err(StoreError::io("remove", path))
    }

    /// Whether there is a pin of this name, readable or not.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn has_pin(&self, name: &str) -> Result<bool, StoreError> {
        exists(&self.pin_path(name)?)
    }

    /// All pins by name, and what they hold.
    ///
    /// # Errors
    /// [`StoreError`]; a pin that cannot be read is one, so that nothing is collected for want of it.
    pub fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, StoreError> {
        let pins = self.pin_names()?.into_iter().filter_map(|name| {
            let holds = self.pinned_by(&name).transpose()?;
            Some(holds.map(|holds| (name, holds)))
        });
        pins.collect()
    }

    /// The names of all pins, sorted.
    pub(crate) fn pin_names(&self) -> Result<Vec<String>, StoreError> {
        let names = entries(&self.inner.names.pins())?.into_iter().filter_map(|name| name.into_string().ok());
        let mut names: Vec<String> = names.filter(|name| names::is_pin_name(name)).collect();
        names.sort_unstable();
        Ok(names)
    }

    /// What one pin holds; `None` where there is none.
    pub(crate) fn pinned_by(&self, name: &str) -> Result<Option<Vec<Digest>>, StoreError> {
        let path = self.pin_path(name)?;
        let Some(bytes) = read_record(&path)? else { return Ok(None) };
        let pin: Result<PinRecord, _> = serde_json::from_slice(&bytes);
        pin.map(|pin| Some(pin.holds)).map_err(|error| StoreError::Damaged { path, fault: error.to_string() })
    }

    fn pin_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !names::is_pin_name(name) {
            return Err(StoreError::PinName { name: name.escape_debug().to_string() });
        }
        Ok(self.inner.names.pin(name))
    }
}
