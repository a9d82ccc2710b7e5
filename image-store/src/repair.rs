//! Making a bad blob good again from what is on this machine, or putting it aside.
//!
//! ```text
//!  leaves bad, image right ──► leaves made from the image ─┐
//!  blocks bad, leaves right ─► each from any blob that ────┼─► a new file, its whole digest compared ──► the old name
//!                              has the same leaf           │
//!  neither, or not all found ──► quarantine/ ◄─────────────┘   the next pull brings it anew
//! ```
//! A blob is never written in place: fs-verity forbids it, and a power cut must find the old file or the new one. Who has the old
//! one mounted keeps it until it is mounted again.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use bennu_manifests::model::Digest;
use nix::fcntl::{FlockArg, OFlag};
use serde::Serialize;

use crate::blob::{Temporary, is_damage};
use crate::durable;
use crate::leaves::{self, Extent};
use crate::scrub::Damage;
use crate::store::Store;
use crate::store_error::StoreError;
use crate::verity::{self, BLOCK};

/// The feature that a store has from the first blob on that is put aside.
pub(crate) const QUARANTINE: &str = "quarantine";
/// Bytes that are copied at a time; a whole number of blocks.
const COPY_BUFFER: usize = 1 << 18;

/// What became of a bad blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Repair {
    /// Nothing is wrong with it, or it is gone, or somebody else has just replaced it.
    Sound,
    /// It was made again from this machine's own blobs. What has it mounted reads the bad file until it is mounted again.
    Mended {
        /// Blocks that were made again, those of leaves included.
        blocks: u64,
    },
    /// It could not be mended, and stays where it is: a pin holds it by its own digest, and no image could bring it back.
    Kept,
    /// It lies in `quarantine/`; as far as the store is concerned it is missing.
    Quarantined {
        /// Images that have it, by the digest they were asked for: pulling one of them brings it back.
        images: Vec<Digest>,
    },
}

impl Store {
    /// Looks at a blob again, and where it is bad mends it or puts it aside.
    ///
    /// # Errors
    /// [`StoreError`]; the blob is as it was then.
    pub fn repair(&self, blob: &Digest) -> Result<Repair, StoreError> {
        self.writable()?;
        let path = self.inner.names.blob(blob);
        let Some(seen) = identified(&path).map_err(StoreError::io("look at", path))? else {
            return Ok(Repair::Sound);
        };
        let ControlFlow::Continue(damage) = self.examine(blob, &mut ()) else {
            unreachable!("nobody stops this look");
        };
        let mended = match damage {
            None => return Ok(Repair::Sound),
            Some(Damage::Leaves) => self.mend(blob, &[])?,
            Some(Damage::Blocks { blocks }) => self.mend(blob, &blocks)?,
            Some(Damage::Lost | Damage::Unreadable { .. }) => None,
        };
        if let Some(blocks) = mended {
            return Ok(Repair::Mended { blocks });
        }
        let images = self.images_with(blob)?;
        // The root of an OS that is bad in places still boots, or says why not.
        if images.is_empty() && self.may_be_pinned(blob)? {
            return Ok(Repair::Kept);
        }
        if !self.quarantine(blob, &seen)? {
            return Ok(Repair::Sound);
        }
        Ok(Repair::Quarantined { images })
    }

    /// Images whose records name the blob. Records that cannot be believed name nothing.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn images_with(&self, blob: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut images = Vec::new();
        for digest in self.digests_in(&self.inner.names.images())? {
            match self.recorded_image(&digest) {
                Ok(Some(image)) if image.layers.iter().any(|layer| layer.blob == *blob) => {
                    images.push(digest)
                }
                Ok(_) | Err(StoreError::Damaged { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(images)
    }

    /// Blobs that were put aside, sorted.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn quarantined(&self) -> Result<Vec<Digest>, StoreError> {
        match self.digests_in(&self.inner.names.quarantine()) {
            Err(StoreError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        }
    }

    /// Makes the blob anew with these blocks replaced, or, where none are bad, with its leaves made from its image. Says how
    /// many blocks are new; `None` where not all of them could be found.
    fn mend(&self, blob: &Digest, bad: &[u64]) -> Result<Option<u64>, StoreError> {
        let path = self.inner.names.blob(blob);
        let old = File::open(&path).map_err(StoreError::io("open", &path))?;
        let temporary = self.temporary()?;
        let writing = || StoreError::io("write", &temporary.path);
        let len = old.metadata().map_err(StoreError::io("look at", &path))?.len();
        let Some(extent) = Extent::of_blob(len) else { return Ok(None) };
        let computed = copy(&old, &temporary.file, extent.image_bytes()).map_err(writing())?;
        let (leaves, blocks) = if bad.is_empty() {
            (computed, extent.leaves)
        } else {
            let leaves = match leaves::read(&old, blob) {
                Ok(leaves) => leaves,
                Err(error) if is_damage(&error) || error.kind() == io::ErrorKind::InvalidData => {
                    return Ok(None);
                }
                Err(error) => return Err(StoreError::io("read", path)(error)),
            };
            if !self.fill(&temporary, &leaves, bad)? {
                return Ok(None);
            }
            (leaves, bad.len() as u64)
        };
        let written = temporary.file.write_all_at(&leaves::encode(&leaves), extent.image_bytes());
        written.map_err(writing())?;
        // Where the file system has no fs-verity nobody else would notice that this is not the blob.
        let reader = File::open(&temporary.path).map_err(StoreError::io("open", &temporary.path))?;
        let (found, _) = verity::digest(reader).map_err(StoreError::io("read", &temporary.path))?;
        if found != *blob {
            return Ok(None);
        }
        self.install_blob(temporary, blob)?;
        Ok(Some(blocks))
    }

    /// Writes what should stand in the blocks `bad`, from any blob that has it, the bad one included. Whether all were found.
    fn fill(&self, out: &Temporary, leaves: &[Digest], bad: &[u64]) -> Result<bool, StoreError> {
        let mut wanted: HashMap<Digest, Vec<u64>> = HashMap::new();
        for block in bad {
            wanted.entry(leaves[*block as usize]).or_default().push(*block);
        }
        let mut block = vec![0; BLOCK];
        for source in self.digests_in(&self.inner.names.blobs())? {
            let Ok(file) = File::open(self.inner.names.blob(&source)) else { continue };
            // Blobs that are damaged themselves offer what they have: each block is looked at.
            let Ok(offered) = leaves::read(&file, &source) else { continue };
            for (number, leaf) in (0_u64..).zip(&offered) {
                if !wanted.contains_key(leaf)
                    || file.read_exact_at(&mut block, number * BLOCK as u64).is_err()
                    || leaves::leaf(&block) != *leaf
                {
                    continue;
                }
                for target in wanted.remove(leaf).into_iter().flatten() {
                    let written = out.file.write_all_at(&block, target * BLOCK as u64);
                    written.map_err(StoreError::io("write", &out.path))?;
                }
                if wanted.is_empty() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    /// Whether a pin holds the blob by its own digest, or cannot be read.
    fn may_be_pinned(&self, blob: &Digest) -> Result<bool, StoreError> {
        match self.pins() {
            Ok(pins) => Ok(pins.iter().any(|(_, holds)| holds.contains(blob))),
            Err(StoreError::Damaged { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Takes a blob from its name, durably, if it still is the file `seen`: a pull or another repair may have replaced it since.
    /// It stays in `quarantine/`: what is good of it may still be of use.
    fn quarantine(&self, blob: &Digest, seen: &File) -> Result<bool, StoreError> {
        let names = &self.inner.names;
        let (from, directory) = (names.blob(blob), names.quarantine());
        // Nobody gives a file its name meanwhile.
        let _lock = self.lock(FlockArg::LockExclusive)?;
        if !is_at(seen, &from).map_err(StoreError::io("look at", &from))? {
            return Ok(false);
        }
        self.add_feature(QUARANTINE)?;
        durable::create_dir(&directory).map_err(StoreError::io("create", &directory))?;
        let to = directory.join(blob.hex());
        std::fs::rename(&from, &to).map_err(StoreError::io("move aside", &from))?;
        // The new name first: a power cut may leave both, never none that is known.
        for directory in [directory, names.blobs()] {
            durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        }
        Ok(true)
    }
}

/// The file at `path`, not to be read: even one that fs-verity does not let us open has an identity, and as long as this lives
/// no other file gets the same.
fn identified(path: &Path) -> io::Result<Option<File>> {
    match File::options().read(true).custom_flags(OFlag::O_PATH.bits()).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        other => other.map(Some),
    }
}

/// Whether `file` is what `path` names.
fn is_at(file: &File, path: &Path) -> io::Result<bool> {
    let named = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        other => other?,
    };
    let file = file.metadata()?;
    Ok((file.dev(), file.ino()) == (named.dev(), named.ino()))
}

/// Copies the first `len` bytes, a block that cannot be read as zeros, and gives the leaf of each block.
fn copy(from: &File, to: &File, len: u64) -> io::Result<Vec<Digest>> {
    let mut buffer = vec![0; COPY_BUFFER];
    let mut computed = Vec::with_capacity((len / BLOCK as u64) as usize);
    let mut at = 0;
    while at < len {
        let piece = &mut buffer[..COPY_BUFFER.min((len - at) as usize)];
        leaves::read_or_zeros(from, piece, at);
        computed.extend(piece.chunks(BLOCK).map(leaves::leaf));
        to.write_all_at(piece, at)?;
        at += piece.len() as u64;
    }
    Ok(computed)
}
