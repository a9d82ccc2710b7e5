//! Which names a power cut may still take back, so that only those cost an fsync.
//!
//! A name is seen by everyone from the rename on, and durable once its directory was fsynced. Who is killed in between leaves a name
//! that nobody may count on. So whoever gives a name to a blob or to the record of an image says so before, with an empty file
//! `tmp/naming-…`, and takes that away after the fsync. Without such a file, what is seen is durable; it is looked for after what it
//! is about was seen.
//!
//! The file itself is never fsynced: after a power cut everything that is seen is durable.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::path::PathBuf;

use crate::claim::Claim;
use crate::durable;
use crate::store::{Store, entries};
use crate::store_error::StoreError;

/// The beginning of the names of these files.
const PREFIX: &str = "naming-";

/// Somebody is about to give names.
#[derive(Debug)]
pub(crate) struct Naming {
    path: PathBuf,
    /// So that an opening does not take it for one that was left.
    _claim: Claim,
}

/// Whether a file in `tmp/` says that names may not be durable.
pub(crate) fn is_naming(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(PREFIX.as_bytes())
}

impl Store {
    /// Says that names are about to be given; the caller holds the store's lock.
    pub(crate) fn begin_naming(&self) -> Result<Naming, StoreError> {
        let name = durable::temporary_name();
        let name = name.to_string_lossy();
        let number = name.trim_start_matches(durable::TEMPORARY_PREFIX);
        let path = self.inner.names.temporary().join(format!("{PREFIX}{number}"));
        let file = OpenOptions::new().write(true).create_new(true).open(&path);
        let claim = file.and_then(Claim::on).map_err(StoreError::io("create", &path))?;
        Ok(Naming { path, _claim: claim })
    }

    /// Makes the names of blobs and after them those of the records of images durable, where they may not be: whoever gave them
    /// may be at it still, or may have been killed.
    pub(crate) fn settle_names(&self) -> Result<(), StoreError> {
        if entries(&self.inner.names.temporary())?.iter().any(|name| is_naming(name)) {
            self.sync_names()?;
        }
        Ok(())
    }

    /// As [`Self::settle_names`], whether it is needed or not.
    pub(crate) fn sync_names(&self) -> Result<(), StoreError> {
        for directory in [self.inner.names.blobs(), self.inner.names.images()] {
            durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        }
        Ok(())
    }
}

impl Naming {
    /// The names are durable.
    pub(crate) fn end(self) {
        // One that stays costs others a sync that they do not need.
        let _ = std::fs::remove_file(&self.path);
    }
}

#[cfg(test)]
mod tests {
    use crate::worker::Confinement;

    use super::*;

    #[test]
    fn who_is_killed_while_giving_a_name_leaves_a_word_that_the_next_opening_acts_on() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Confinement::None).expect("a store");
        let named = || entries(&dir.path().join("tmp")).expect("listed").iter().any(|name| is_naming(name));
        let naming = store.begin_naming().expect("begun");
        Store::open(dir.path(), Confinement::None).expect("opened");
        assert!(named(), "it was taken from somebody who is at it");
        naming.end();
        assert!(!named());
        // As one leaves it who is killed: the lock goes, the file stays.
        drop(store.begin_naming().expect("begun"));
        store.settle_names().expect("synced");
        assert!(named(), "others may have seen the same name and not it");
        Store::open(dir.path(), Confinement::None).expect("opened");
        assert!(!named());
    }
}
