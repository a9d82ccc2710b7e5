//! What was built before, under keys that say what it was built from.

use crate::BuildError;
use crate::command::at;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// How many entries of each kind are kept: the current one, and enough to go back and forth between branches.
const KEPT: usize = 3;

/// Where an entry is made.
const UNFINISHED: &str = "unfinished";

/// Folder for what builds make: `$BENNU_CACHE`, else `$XDG_CACHE_HOME/bennu`, else `~/.cache/bennu`.
#[must_use]
pub fn cache_dir() -> PathBuf {
    let of = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    of("BENNU_CACHE")
        .or_else(|| of("XDG_CACHE_HOME").map(|base| base.join("bennu")))
        .or_else(|| of("HOME").map(|home| home.join(".cache/bennu")))
        .unwrap_or_else(|| std::env::temp_dir().join("bennu-cache"))
}

/// One kind of thing in the cache: a folder of entries, each a folder named by its key.
#[derive(Debug)]
pub(crate) struct Shelf {
    folder: PathBuf,
    kept: usize,
    /// Held as long as the shelf: two builds of the same thing at once would only do the work twice.
    _lock: File,
}

impl Shelf {
    /// Opens the shelf `kind` below `cache`, waiting for another process that uses it.
    pub(crate) fn open(cache: &Path, kind: &str) -> Result<Self, BuildError> {
        let folder = cache.join(kind);
        fs::create_dir_all(&folder).map_err(at("create", &folder))?;
        let path = folder.join("lock");
        let lock = File::create(&path).map_err(at("create", &path))?;
        lock.lock().map_err(at("lock", &path))?;
        Ok(Self { folder, kept: KEPT, _lock: lock })
    }

    /// The same shelf, of which so many entries are kept.
    pub(crate) fn keeping(self, kept: usize) -> Self {
        Self { kept, ..self }
    }

    /// The entry of this key: found, or made by `make` in an empty folder that takes the key as its name only
    /// once it is complete. Says whether it was found.
    pub(crate) fn entry(
        &self,
        key: &str,
        make: impl FnOnce(&Path) -> Result<(), BuildError>,
    ) -> Result<(PathBuf, bool), BuildError> {
        let entry = self.folder.join(key);
        if entry.is_dir() {
            self.was_of_use(&entry)?;
            return Ok((entry, true));
        }
        let made = self.put(|folder| make(folder).map(|()| key.to_owned()))?;
        Ok((made, false))
    }

    /// A new entry, made in an empty folder by `make`, which gives back the key. What was under that key already, stays instead.
    pub(crate) fn put(
        &self,
        make: impl FnOnce(&Path) -> Result<String, BuildError>,
    ) -> Result<PathBuf, BuildError> {
        let unfinished = self.folder.join(UNFINISHED);
        remove(&unfinished)?;
        fs::create_dir(&unfinished).map_err(at("create", &unfinished))?;
        let entry = self.folder.join(make(&unfinished)?);
        match entry.is_dir() {
            true => remove(&unfinished)?,
            false => fs::rename(&unfinished, &entry).map_err(at("rename", &unfinished))?,
        }
        self.was_of_use(&entry)?;
        Ok(entry)
    }

    /// Notes that an entry was of use now, and removes those that were not for the longest time.
    pub(crate) fn was_of_use(&self, entry: &Path) -> Result<(), BuildError> {
        // The time of the folder tells when.
        File::open(entry)
            .and_then(|folder| folder.set_modified(std::time::SystemTime::now()))
            .map_err(at("touch", entry))?;
        self.prune()
    }

    /// The entry that was of use most lately, of those whose keys begin so.
    pub(crate) fn newest(&self, begin: &str) -> Result<Option<PathBuf>, BuildError> {
        let begins = |path: &PathBuf| {
            path.file_name().is_some_and(|key| key.as_encoded_bytes().starts_with(begin.as_bytes()))
        };
        Ok(self.entries()?.into_iter().map(|(_, path)| path).rfind(begins))
    }

    /// Removes all but the entries that were of use most lately.
    fn prune(&self) -> Result<(), BuildError> {
        let entries = self.entries()?;
        let surplus = entries.len().saturating_sub(self.kept);
        entries.iter().take(surplus).try_for_each(|(_, path)| remove(path))
    }

    /// All entries, by when they were last of use; what was never finished is none.
    fn entries(&self) -> Result<Vec<(SystemTime, PathBuf)>, BuildError> {
        let mut entries = Vec::new();
        for item in fs::read_dir(&self.folder).map_err(at("list", &self.folder))? {
            let item = item.map_err(at("list", &self.folder))?;
            let meta = item.metadata().map_err(at("look at", &item.path()))?;
            if meta.is_dir() && item.file_name() != UNFINISHED {
                entries.push((meta.modified().map_err(at("look at", &item.path()))?, item.path()));
            }
        }
        entries.sort();
        Ok(entries)
    }
}

fn remove(folder: &Path) -> Result<(), BuildError> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(at("remove", folder)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf(cache: &Path) -> Shelf {
        Shelf::open(cache, "things").expect("a temporary folder is writable")
    }

    #[test]
    fn an_entry_is_made_once_and_then_found() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let shelf = shelf(cache.path());
        let (entry, found) = shelf
            .entry("k", |folder| fs::write(folder.join("x"), "1").map_err(at("write", folder)))
            .expect("made");
        assert!(!found);
        assert_eq!(fs::read_to_string(entry.join("x")).expect("written"), "1");
        let (_, found) = shelf.entry("k", |_| panic!("made twice")).expect("found");
        assert!(found);
    }

    #[test]
    fn a_failed_entry_leaves_nothing_under_its_key() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let shelf = shelf(cache.path());
        let failed = shelf.entry("k", |folder| {
            fs::write(folder.join("half"), "").map_err(at("write", folder))?;
            Err(BuildError::Incomplete { what: "kernel".into() })
        });
        assert!(failed.is_err());
        let (entry, found) = shelf.entry("k", |_| Ok(())).expect("made");
        assert!(!found && !entry.join("half").exists());
    }

    #[test]
    fn the_newest_of_a_kind_is_the_one_of_use_most_lately_and_never_an_unfinished_one() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let shelf = shelf(cache.path());
        let put = |key: &str| shelf.put(|_| Ok(key.to_owned())).expect("made");
        let (older, newer) = (put("k-1"), put("k-2"));
        let long_ago = SystemTime::UNIX_EPOCH;
        File::open(&older).and_then(|folder| folder.set_modified(long_ago)).expect("touched");
        put("other");
        let failed = shelf.put(|_| Err(BuildError::Incomplete { what: "kernel".into() }));
        assert!(failed.is_err());
        assert_eq!(shelf.newest("k-").expect("listed"), Some(newer));
        shelf.was_of_use(&older).expect("touched");
        assert_eq!(shelf.newest("k-").expect("listed"), Some(older));
        assert_eq!(shelf.newest("un").expect("listed"), None);
    }

    #[test]
    fn what_is_made_again_under_its_key_leaves_what_is_there() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let shelf = shelf(cache.path());
        let made = |text: &'static str| {
            shelf.put(move |folder| {
                fs::write(folder.join("x"), text).map_err(at("write", folder))?;
                Ok("k".to_owned())
            })
        };
        let first = made("1").expect("made");
        assert_eq!(made("2").expect("made"), first);
        assert_eq!(fs::read_to_string(first.join("x")).expect("written"), "1");
    }

    #[test]
    fn only_the_entries_of_use_most_lately_stay() {
        let cache = tempfile::tempdir().expect("temporary folder");
        let shelf = shelf(cache.path());
        let old = std::time::SystemTime::UNIX_EPOCH;
        for (age, key) in ["a", "b", "c"].iter().enumerate() {
            let (entry, _) = shelf.entry(key, |_| Ok(())).expect("made");
            File::open(&entry)
                .and_then(|f| f.set_modified(old + std::time::Duration::from_secs(age as u64)))
                .expect("touched");
        }
        shelf.entry("a", |_| Ok(())).expect("found");
        shelf.entry("d", |_| Ok(())).expect("made");
        let kept: Vec<bool> =
            ["a", "b", "c", "d"].iter().map(|k| cache.path().join("things").join(k).is_dir()).collect();
        assert_eq!(kept, [true, false, true, true]);
    }
}
