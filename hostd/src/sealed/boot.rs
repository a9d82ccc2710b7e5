//! The roots that the initrd finds, on a host whose store it can't read.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use bennu_image_store::durable;
use bennu_manifests::model::Digest;
use bennu_planner::update::Room;

use crate::disk;

/// Where blobs are in a store (`docs/store-format.md`).
pub(super) fn blobs_of(store: &Path) -> PathBuf {
    store.join("blobs/sha256")
}

/// Where they are in the file system that the initrd mounts.
pub(super) fn blobs(state: &Path) -> PathBuf {
    blobs_of(&state.join("store"))
}

/// What is wanted beside the bytes of a root: the hash tree that the initrd has made of it, a 127th of them at most (fs-verity, blocks of
/// 4096 bytes and hashes of 32), and what btrfs notes of its own.
const BESIDE_SHARE: u64 = 100;
const BESIDE: u64 = 8 << 20;

/// The roots beside those of the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Roots {
    blobs: PathBuf,
}

impl Roots {
    /// Those of this host; `None` where the initrd reads the store itself.
    pub(crate) fn of_host() -> Option<Self> {
        super::is_sealed().then(|| Self { blobs: blobs(Path::new(super::BOOT)) })
    }

    fn has(&self, root: &Digest) -> bool {
        self.blob(root).exists()
    }

    /// What has to be written for a root to be there, a copy of the file at `from`, and what is free.
    ///
    /// # Errors
    /// Where that file can't be looked at.
    pub(crate) fn room(&self, root: &Digest, from: &Path) -> io::Result<Room> {
        let needed = match self.has(root) {
            true => 0,
            false => std::fs::metadata(from).map(|file| file.len() + file.len() / BESIDE_SHARE + BESIDE)?,
        };
        // What a write that was cut short left goes before the next one.
        let left: u64 =
            self.leftovers()?.iter().map(|path| path.metadata().map_or(0, |file| file.len())).sum();
        Ok(Room { place: "the partition of the roots", needed, free: disk::free(&self.blobs) + left })
    }

    fn leftovers(&self) -> io::Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        for entry in std::fs::read_dir(&self.blobs)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().starts_with(durable::TEMPORARY_PREFIX) {
                found.push(entry.path());
            }
        }
        Ok(found)
    }

    /// Has a root be there: a copy of the file at `from`, whole or not at all. What is there already is left; the initrd checks it.
    ///
    /// # Errors
    /// Whatever the file systems say.
    pub(crate) fn add(&self, root: &Digest, from: &Path) -> io::Result<()> {
        if self.has(root) {
            return Ok(());
        }
        for path in self.leftovers()? {
            durable::remove(&path)?;
        }
        let mut source = File::open(from)?;
        durable::replace_by(&self.blob(root), 0o600, |file| io::copy(&mut source, file).map(drop))
    }

    /// Removes all other roots, and what a write that was cut short left.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(crate) fn keep_only(&self, roots: &BTreeSet<Digest>) -> io::Result<()> {
        let kept: BTreeSet<String> = roots.iter().map(Digest::hex).collect();
        for entry in std::fs::read_dir(&self.blobs)? {
            let entry = entry?;
            if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
                durable::remove(&entry.path())?;
            }
        }
        Ok(())
    }

    fn blob(&self, root: &Digest) -> PathBuf {
        self.blobs.join(root.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_root_is_there_as_a_whole_until_nothing_boots_it_any_more() {
        let (dir, store) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let roots = Roots { blobs: dir.path().to_owned() };
        let [a, b] = [0xaa, 0xbb].map(|byte| Digest::from_bytes([byte; 32]));
        let blob = store.path().join("blob");
        assert!(roots.add(&a, &blob).is_err() && !roots.has(&a), "the store does not have it");
        std::fs::write(&blob, "a root").unwrap();
        let needed = || roots.room(&a, &blob).unwrap().needed;
        assert_eq!(needed(), 6 + BESIDE);
        let leftover = dir.path().join(format!("{}half", durable::TEMPORARY_PREFIX));
        File::create(&leftover).unwrap().set_len(1 << 40).unwrap();
        assert!(roots.room(&a, &blob).unwrap().free >= 1 << 40, "it goes before anything is written");
        for root in [&a, &b, &a] {
            roots.add(root, &blob).unwrap();
        }
        assert!(!leftover.exists());
        assert_eq!(std::fs::read_to_string(dir.path().join(b.hex())).unwrap(), "a root");
        assert_eq!(needed(), 0);
        std::fs::write(dir.path().join(format!("{}x", durable::TEMPORARY_PREFIX)), "half").unwrap();
        roots.keep_only(&[b].into()).unwrap();
        assert!(!roots.has(&a) && roots.has(&b));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
