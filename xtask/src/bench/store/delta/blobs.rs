//! What tools for images of file systems would fetch: from the bytes of an old blob and a new one.

use std::collections::{BTreeMap, HashSet};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_manifests::model::Digest;

use crate::Failure;
use crate::bench::program::succeed;

const BLOCK: usize = 4096;
/// Bytes in a block of the squashfs that a RAUC bundle is (RAUC manual, "Adaptive Updates": 64 KiB and zstd are advised).
const BUNDLE_BLOCK: usize = 64 << 10;
/// What mksquashfs compresses with if nothing is said (`zstd`, level 15).
const BUNDLE_LEVEL: &str = "-15";

/// The image of a blob and that of the one that takes its place, as files.
pub(super) struct Pair {
    old: PathBuf,
    new: PathBuf,
    /// Bytes of our patch.
    pub(super) patch: u64,
}

impl Pair {
    /// Copies what is before the leaves of two blobs (docs/store-format.md), which nobody sends.
    pub(super) fn copied(folder: &Path, old: &Path, new: &Path, patch: u64) -> Result<Self, Failure> {
        let image = |blob: &Path| -> Result<PathBuf, Failure> {
            let copy = folder.join(blob.file_name().unwrap_or_default());
            fs::write(&copy, fs::read(blob)?)?;
            let blocks = fs::metadata(&copy)?.len() / BLOCK as u64;
            fs::File::options()
                .write(true)
                .open(&copy)?
                .set_len((blocks - blocks.div_ceil(129)) * BLOCK as u64)?;
            Ok(copy)
        };
        Ok(Self { old: image(old)?, new: image(new)?, patch })
    }

    /// The blocks that only the new blob has, each once, as one zstd frame of the level of the native layer.
    pub(super) fn changed(&self, folder: &Path) -> Result<u64, Failure> {
        let (old, new) = (fs::read(&self.old)?, fs::read(&self.new)?);
        let mut known: HashSet<Digest> = old.chunks(BLOCK).map(Digest::of).collect();
        let mut changed = fs::File::create(folder.join("changed"))?;
        for block in new.chunks(BLOCK).filter(|block| known.insert(Digest::of(block))) {
            changed.write_all(block)?;
        }
        let out = folder.join("changed.zst");
        succeed(Command::new("zstd").args(["-q", "-f", "-12", "-o"]).arg(&out).arg(folder.join("changed")))?;
        Ok(fs::metadata(out)?.len())
    }

    /// What `zstd --patch-from` makes of the whole blobs, at the level of our patches.
    pub(super) fn patch_from(&self, folder: &Path) -> Result<u64, Failure> {
        let out = folder.join("patch.zst");
        let from = format!("--patch-from={}", self.old.display());
        succeed(Command::new("zstd").args(["-q", "-f", "-19", &from, "-o"]).arg(&out).arg(&self.new))?;
        Ok(fs::metadata(out)?.len())
    }

    /// The index of the new blob, and the chunks that the old one does not have.
    pub(super) fn casync(&self, folder: &Path) -> Result<u64, Failure> {
        let make = |name: &str, blob: &Path| -> Result<(u64, BTreeMap<String, u64>), Failure> {
            let (store, index) = (folder.join(format!("{name}.castr")), folder.join(format!("{name}.caibx")));
            // What an earlier pair left there would count as known.
            let _nothing_there = fs::remove_dir_all(&store);
            succeed(
                Command::new("casync")
                    .arg("make")
                    .arg(format!("--store={}", store.display()))
                    .arg(&index)
                    .arg(blob),
            )?;
            let mut chunks = BTreeMap::new();
            for group in fs::read_dir(&store)? {
                for chunk in fs::read_dir(group?.path())? {
                    let chunk = chunk?;
                    chunks.insert(chunk.file_name().to_string_lossy().into_owned(), chunk.metadata()?.len());
                }
            }
            Ok((fs::metadata(index)?.len(), chunks))
        };
        let (_, old) = make("old", &self.old)?;
        let (index, new) = make("new", &self.new)?;
        let missing = new.iter().filter(|(name, _)| !old.contains_key(*name));
        Ok(index + missing.map(|(_, size)| size).sum::<u64>())
    }

    /// The list of digests, and each block of the bundle with a block that the old blob does not have. Computed from how the method
    /// is described (RAUC manual, "Adaptive Updates"): its client installs to partitions of a booted system alone.
    pub(super) fn rauc(&self, folder: &Path) -> Result<u64, Failure> {
        let (old, new) = (fs::read(&self.old)?, fs::read(&self.new)?);
        let known: HashSet<Digest> = old.chunks(BLOCK).map(Digest::of).collect();
        let pieces = folder.join("pieces");
        let _nothing_there = fs::remove_dir_all(&pieces);
        fs::create_dir(&pieces)?;
        for (number, piece) in new.chunks(BUNDLE_BLOCK).enumerate() {
            if piece.chunks(BLOCK).any(|block| !known.contains(&Digest::of(block))) {
                fs::write(pieces.join(number.to_string()), piece)?;
            }
        }
        let mut fetched = (new.len() / BLOCK * 32) as u64;
        if fs::read_dir(&pieces)?.next().is_some() {
            let compress = ["-q", "--rm", "-r", "--no-check", BUNDLE_LEVEL];
            succeed(Command::new("zstd").args(compress).arg(&pieces))?;
            for piece in fs::read_dir(&pieces)? {
                // A block that does not get smaller is stored as it is.
                fetched += piece?.metadata()?.len().min(BUNDLE_BLOCK as u64);
            }
        }
        Ok(fetched)
    }
}
