//! What is known of instances from one look to the next: a record is read again only where it is another file, and what its
//! instance was made with is gathered once. A host with many containers is looked at often, and mostly nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::Metadata;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use bennu_planner::Instance;

use super::parts::Parts;
use super::record::{self, Record};

/// A record, with what follows from it.
#[derive(Debug)]
pub(super) struct Known {
    pub(super) record: Record,
    file: File,
    parts: OnceLock<Arc<Parts>>,
}

/// Which file it was. Records are put in each other's place whole, so another one is another file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct File {
    inode: u64,
    size: u64,
    /// When it was written last, in seconds and nanoseconds.
    written: (i64, i64),
}

impl File {
    fn of(metadata: &Metadata) -> Self {
        let written = (metadata.mtime(), metadata.mtime_nsec());
        Self { inode: metadata.ino(), size: metadata.size(), written }
    }
}

impl Known {
    /// What the instance was made with, which is not asked before all of it was.
    ///
    /// # Errors
    /// As [`Parts::of`]; it is gathered the next time then.
    pub(super) fn parts(&self, dir: &Path, volumes: &Path) -> io::Result<Arc<Parts>> {
        if let Some(parts) = self.parts.get() {
            return Ok(parts.clone());
        }
        let parts = Arc::new(Parts::of(dir, volumes, &self.record)?);
        Ok(self.parts.get_or_init(|| parts).clone())
    }
}

/// All that are known.
#[derive(Debug, Default)]
pub(super) struct Records(Mutex<BTreeMap<Instance, Arc<Known>>>);

impl Records {
    /// The record of an instance in this file. One that can't be read is as none.
    pub(super) fn of(&self, instance: &Instance, path: &Path) -> Option<Arc<Known>> {
        // Looked at before it is read: what is put in its place meanwhile is read the next time.
        let file = File::of(&std::fs::metadata(path).ok()?);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = all.get(instance).filter(|known| known.file == file) {
            return Some(known.clone());
        }
        let record = record::read(path).ok()??;
        let known = Arc::new(Known { record, file, parts: OnceLock::new() });
        all.insert(instance.clone(), known.clone());
        Some(known)
    }

    /// Forgets those that are not there any more.
    pub(super) fn keep(&self, there: &BTreeSet<Instance>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|instance, _| there.contains(instance));
    }
}

#[cfg(test)]
impl Known {
    /// A record of no file.
    pub(super) fn of(record: Record) -> Arc<Self> {
        let file = File { inode: 0, size: 0, written: (0, 0) };
        Arc::new(Self { record, file, parts: OnceLock::new() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    #[test]
    fn a_record_is_read_again_where_it_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let (path, records, instance) =
            (dir.path().join("record.json"), Records::default(), record().instance);
        assert!(records.of(&instance, &path).is_none());
        record::write(&path, &record()).unwrap();
        let first = records.of(&instance, &path).unwrap();
        assert_eq!(first.record, record());
        assert!(Arc::ptr_eq(&first, &records.of(&instance, &path).unwrap()));
        let other = Record { host_start: Some(2 << 20), ..record() };
        record::write(&path, &other).unwrap();
        assert_eq!(records.of(&instance, &path).unwrap().record, other, "of the same size");
        std::fs::write(&path, "{").unwrap();
        assert!(records.of(&instance, &path).is_none());
        record::write(&path, &record()).unwrap();
        assert!(records.of(&instance, &path).is_some());
        records.keep(&BTreeSet::new());
        assert!(records.0.lock().unwrap().is_empty());
    }

    #[test]
    fn what_an_instance_was_made_with_is_gathered_once() {
        let dir = tempfile::tempdir().unwrap();
        let (path, records) = (dir.path().join("record.json"), Records::default());
        record::write(&path, &record()).unwrap();
        let known = records.of(&record().instance, &path).unwrap();
        assert!(known.parts(dir.path(), &path).is_err(), "no directory");
        let parts = known.parts(dir.path(), dir.path()).unwrap();
        assert_eq!(*parts, Parts::of(dir.path(), dir.path(), &record()).unwrap());
        assert!(Arc::ptr_eq(&parts, &known.parts(dir.path(), dir.path()).unwrap()));
    }
}
