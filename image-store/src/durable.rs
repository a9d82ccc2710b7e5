//! Writing files so that a power cut leaves the old bytes or the new ones.
//!
//! The order is always: write a temporary file beside the target, fsync it, rename it over the target, fsync the
//! directory. Without the first fsync the name may point to nothing; without the second the rename may be lost.
//! A failed fsync is never tried again: the kernel may have dropped the dirty pages already, so the file is thrown
//! away instead.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// The beginning of every temporary name, so that leftovers are known as such.
pub const TEMPORARY_PREFIX: &str = ".tmp-";

/// Replaces `path` with `bytes`, durably: when this returns `Ok`, the new bytes survive a power cut; when it returns
/// an error, or never returns, the old ones are there. The file has mode 0644.
///
/// # Errors
/// Whatever the file system says; the temporary file is removed then.
pub fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    replace_with_mode(path, bytes, 0o644)
}

/// As [`replace`], with the permission bits `mode`; what is secret is never readable by others, not even for a moment.
///
/// # Errors
/// Whatever the file system says; the temporary file is removed then.
pub fn replace_with_mode(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    replace_by(path, mode, |file| file.write_all(bytes))
}

/// As [`replace_with_mode`], for what is too large to be in memory: `write` writes it.
///
/// # Errors
/// Whatever `write` or the file system says; the temporary file is removed then.
pub fn replace_by(path: &Path, mode: u32, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let directory = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let temporary = directory.join(temporary_name());
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&temporary)?;
    let written = write(&mut file).and_then(|()| file.sync_all());
    drop(file);
    let result = written.and_then(|()| std::fs::rename(&temporary, path));
    if let Err(error) = result {
        // The first error is the one worth telling; a leftover is found by its prefix.
        let _ = std::fs::remove_file(&temporary);
        return Err(error);
    }
    sync_dir(directory)
}

/// Makes the names in `directory` durable.
///
/// # Errors
/// Whatever `open` or `fsync` says.
pub fn sync_dir(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes the file at `path` durably; one that is not there is no error, and is durably not there afterwards: whoever removed
/// it may have been killed before the fsync.
///
/// # Errors
/// Whatever the file system says.
pub fn remove(path: &Path) -> io::Result<()> {
    let parent = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => match sync_dir(parent) {
            // Not even its directory is there.
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        },
        other => other.and_then(|()| sync_dir(parent)),
    }
}

/// Creates `directory` where it is missing, and makes its name durable in any case: whoever created it may have been killed
/// before the fsync.
///
/// # Errors
/// Whatever the file system says.
pub fn create_dir(directory: &Path) -> io::Result<()> {
    match std::fs::create_dir(directory) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => {}
        other => other?,
    }
    sync_dir(directory.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// A name that no other writer of this machine uses now.
pub(crate) fn temporary_name() -> PathBuf {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    let count = COUNTER.fetch_add(1, Ordering::Relaxed);
    PathBuf::from(format!("{TEMPORARY_PREFIX}{}-{count}", std::process::id()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_has_the_new_bytes_and_leaves_nothing_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        replace(&path, b"old").expect("written");
        replace(&path, b"new").expect("written");
        assert_eq!(std::fs::read(&path).expect("read"), b"new");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn a_failed_replacement_leaves_the_old_file_and_no_temporary_one() {
        let dir = tempfile::tempdir().expect("a directory");
        // A directory cannot be replaced by a file, so the rename is what fails.
        let path = dir.path().join("taken");
        std::fs::create_dir(&path).expect("made");
        assert!(replace(&path, b"new").is_err());
        assert!(path.is_dir());
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 1);
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        let dir = tempfile::tempdir().expect("a directory");
        remove(&dir.path().join("nothing")).expect("no error");
    }
}
