//! What takes minutes to make is kept outside the checkout, under a key made of everything that went into it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::{Error, IoContext};

/// The directory of `kind` and `key`, made by `make` unless it is there.
///
/// Several processes may ask at once: one makes it, the others wait. What `make` left behind when it failed or was
/// killed is never seen under the key. Of each kind the `keep` entries that were last asked for stay; the others are
/// removed when a new one is made.
///
/// # Errors
/// What `make` returns, or where the cache cannot be written.
pub fn get_or_make(
    kind: &str,
    key: &str,
    keep: usize,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    get_or_make_in(&directory().join(kind), key, keep, make)
}

/// Where the harness keeps things.
pub fn directory() -> PathBuf {
    bennu_os_image::cache_dir().join("vm-tests")
}

fn get_or_make_in(
    shelf: &Path,
    key: &str,
    keep: usize,
    make: impl FnOnce(&Path) -> Result<(), Error>,
) -> Result<PathBuf, Error> {
    let (locks, finished) = (shelf.join("locks"), shelf.join(key));
    fs::create_dir_all(&locks).doing("make", &locks)?;
    if !finished.is_dir() {
        let _held = lock(&locks.join(key))?;
        if !finished.is_dir() {
            let making =
                tempfile::Builder::new().prefix(".making-").tempdir_in(shelf).doing("make", shelf)?;
            make(making.path())?;
            fs::rename(making.keep(), &finished).doing("rename to", &finished)?;
            prune(shelf, keep.saturating_sub(1), &finished)?;
        }
    }
    // The time of the directory tells when it was last asked for.
    let opened = File::open(&finished).doing("open", &finished)?;
    opened.set_modified(SystemTime::now()).doing("touch", &finished)?;
    Ok(finished)
}

/// Removes all entries but `new` and the `keep` that were last asked for.
fn prune(shelf: &Path, keep: usize, new: &Path) -> Result<(), Error> {
    let mut entries = Vec::new();
    for entry in fs::read_dir(shelf).doing("list", shelf)? {
        let path = entry.doing("list", shelf)?.path();
        let hidden = path.file_name().is_some_and(|name| name.to_string_lossy().starts_with('.'));
        if !hidden && path != new && path != shelf.join("locks") {
            let modified = fs::metadata(&path).and_then(|m| m.modified()).doing("look at", &path)?;
            entries.push((modified, path));
        }
    }
    entries.sort();
    let surplus = entries.len().saturating_sub(keep);
    entries.iter().take(surplus).try_for_each(|(_, path)| fs::remove_dir_all(path).doing("remove", path))
}

/// Waits for a lock that ends with the returned file or with this process.
///
/// # Errors
/// Where the file cannot be made or locked.
pub fn lock(path: &Path) -> Result<File, Error> {
    let file = File::create(path).doing("make", path)?;
    file.lock().doing("lock", path)?;
    Ok(file)
}

/// Bytes as lower-case hexadecimal digits.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shelf() -> tempfile::TempDir {
        tempfile::tempdir().expect("a temporary directory")
    }

    #[test]
    fn what_was_made_is_found() {
        let shelf = shelf();
        let write = |directory: &Path| fs::write(directory.join("x"), "1").doing("write", directory);
        let made = get_or_make_in(shelf.path(), "k", 2, write).expect("it is made");
        let found = get_or_make_in(shelf.path(), "k", 2, |_| panic!("made twice")).expect("it is found");
        assert_eq!(made, found);
        assert_eq!(fs::read_to_string(found.join("x")).expect("it was written"), "1");
    }

    #[test]
    fn what_failed_halfway_is_not_there() {
        let shelf = shelf();
        let fail = |directory: &Path| {
            fs::write(directory.join("half"), "").doing("write", directory)?;
            Err(Error::Answer { who: "nobody".into(), text: String::new() })
        };
        assert!(get_or_make_in(shelf.path(), "k", 2, fail).is_err());
        let made = get_or_make_in(shelf.path(), "k", 2, |_| Ok(())).expect("it is made");
        assert!(!made.join("half").exists());
    }

    #[test]
    fn only_the_last_ones_are_kept() {
        let shelf = shelf();
        for key in ["a", "b", "c"] {
            get_or_make_in(shelf.path(), key, 2, |_| Ok(())).expect("it is made");
        }
        let there = |key: &str| shelf.path().join(key).is_dir();
        assert!(!there("a") && there("b") && there("c"));
    }
}
