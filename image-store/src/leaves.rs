//! The leaves that every blob carries behind its image: SHA-256 of each of the image's blocks.
//!
//! ```text
//!  block 0 …                     N              N + ceil(N / 128)
//!  ┌───────────────────────────┬──────────────────┐
//!  │ EROFS image, N blocks     │ N × 32 bytes,    │   fs-verity covers both, so the name of a blob vouches for its leaves
//!  │                           │ then zeros       │
//!  └───────────────────────────┴──────────────────┘
//! ```
//! With them a blob tells by itself which of its blocks are bad and what should stand there, and which of its blocks another
//! version has too; and where they are bad themselves, they are made anew from the image. Nothing beside the blob has to be
//! kept, or could be lost.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bennu_manifests::model::Digest;

use crate::sha256;
use crate::spill::Spill;
use crate::verity::{BLOCK, Merkle};

/// Bytes of a leaf.
pub const LEAF: usize = 32;
/// Leaves in a block.
pub const PER_BLOCK: u64 = (BLOCK / LEAF) as u64;
/// Bytes that are read at a time; a whole number of blocks.
const READ_BUFFER: usize = 1 << 18;
/// Bytes of leaves that are looked at together, those of 128 MiB; a whole number of blocks. Few in tests, so that a small blob has
/// more.
const LEAVES_BUFFER: usize = if cfg!(test) { BLOCK } else { 1 << 20 };
/// The most blocks that are remembered as not fitting their leaves: 4 GiB of them, which take 40 MiB. A blob with more is lost.
const MAX_WRONG: usize = 1 << 20;
/// Leaves that wait in memory while a blob is written, in bytes: those of 512 MiB.
pub(crate) const LEAVES_IN_MEMORY: usize = 4 << 20;

/// How a blob is divided.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Blocks of the image.
    pub image: u64,
    /// Blocks of leaves behind them.
    pub leaves: u64,
}

impl Extent {
    /// The division of a blob whose image has so many blocks.
    pub const fn of_image(blocks: u64) -> Self {
        Self { image: blocks, leaves: blocks.div_ceil(PER_BLOCK) }
    }

    /// The division of a blob of so many bytes; `None` where no blob has that length.
    pub const fn of_blob(bytes: u64) -> Option<Self> {
        if bytes == 0 || !bytes.is_multiple_of(BLOCK as u64) {
            return None;
        }
        let blocks = bytes / BLOCK as u64;
        // 128 blocks and their block of leaves are 129, and what is left over needs a block of leaves besides its own.
        let extent =
            Self { image: blocks - blocks.div_ceil(PER_BLOCK + 1), leaves: blocks.div_ceil(PER_BLOCK + 1) };
        if Self::of_image(extent.image).leaves == extent.leaves { Some(extent) } else { None }
    }

    /// Bytes of the image, which is where the leaves begin.
    pub const fn image_bytes(&self) -> u64 {
        self.image * BLOCK as u64
    }

    /// Bytes of the whole blob.
    pub const fn bytes(&self) -> u64 {
        (self.image + self.leaves) * BLOCK as u64
    }
}

/// What is wrong with a blob, or that nothing is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Health {
    /// It is what its name says.
    Sound,
    /// Its leaves are right, and these blocks of its image are not; sorted.
    BadBlocks(Vec<u64>),
    /// Its image is right, and its leaves are not: they can be made again from it.
    BadLeaves,
    /// Neither can be told from the other.
    Lost,
}

/// The leaf of one block.
pub fn leaf(block: &[u8]) -> Digest {
    sha256::digest(block)
}

/// Reads all blocks of a blob through `read`, which gives the bytes at an offset or fails for those that cannot be read, and
/// says what is wrong with it. `pace` is told of every piece before it is read.
///
/// # Errors
/// What `pace` says. A block that cannot be read is a bad block, no error.
pub fn examine<E>(
    blob: &File,
    bytes: u64,
    name: &Digest,
    mut pace: impl FnMut(usize) -> Result<(), E>,
) -> Result<Health, E> {
    let Some(extent) = Extent::of_blob(bytes) else { return Ok(Health::Lost) };
    // The tree over what is there, and over what should be there if the leaves that are stored are right.
    let (mut found, mut promised) = (Merkle::new(), Merkle::new());
    let mut wrong: Vec<(u64, Digest)> = Vec::new();
    let (mut buffer, mut leaves) = (vec![0; READ_BUFFER], vec![0; LEAVES_BUFFER]);
    let pieces = || (0..extent.leaves * BLOCK as u64).step_by(LEAVES_BUFFER);
    let of_piece = |at: u64| LEAVES_BUFFER.min((extent.leaves * BLOCK as u64 - at) as usize);
    for from in pieces() {
        let stored = &mut leaves[..of_piece(from)];
        pace(stored.len())?;
        read_or_zeros(blob, stored, extent.image_bytes() + from);
        let (stored, _) = stored.as_chunks::<LEAF>();
        let mut block = from / LEAF as u64;
        let end = extent.image.min(block + stored.len() as u64);
        let mut stored = stored.iter();
        while block < end {
            let want = READ_BUFFER.min((end - block) as usize * BLOCK);
            pace(want)?;
            read_or_zeros(blob, &mut buffer[..want], block * BLOCK as u64);
            found.update_noting(&buffer[..want], |leaf| {
                let stored = stored.next().expect("there is a leaf for each block");
                promised.push_leaf(stored);
                if leaf.as_bytes() != stored {
                    wrong.push((block, *leaf));
                }
                block += 1;
            });
            if wrong.len() > MAX_WRONG {
                return Ok(Health::Lost);
            }
        }
    }
    // Both trees go on with the leaves themselves.
    let (mut rest, mut as_stored) = (wrong.iter().peekable(), wrong.is_empty());
    for from in pieces() {
        let stored = &mut leaves[..of_piece(from)];
        read_or_zeros(blob, stored, extent.image_bytes() + from);
        promised.update(stored);
        let used = (extent.image * LEAF as u64).saturating_sub(from).min(stored.len() as u64) as usize;
        as_stored &= stored[used..].iter().all(|byte| *byte == 0);
        stored[used..].fill(0);
        let end = (from + used as u64) / LEAF as u64;
        while let Some((block, leaf)) = rest.next_if(|(block, _)| *block < end) {
            let at = (block * LEAF as u64 - from) as usize;
            stored[at..at + LEAF].copy_from_slice(leaf.as_bytes());
        }
        found.update(stored);
    }
    if found.finish(None) == *name {
        return Ok(if as_stored { Health::Sound } else { Health::BadLeaves });
    }
    if promised.finish(None) != *name {
        return Ok(Health::Lost);
    }
    Ok(Health::BadBlocks(wrong.into_iter().map(|(block, _)| block).collect()))
}

/// Fills `buffer` from `at`, block by block where the whole cannot be read; what cannot be read at all becomes zeros.
pub(crate) fn read_or_zeros(file: &File, buffer: &mut [u8], at: u64) {
    if file.read_exact_at(buffer, at).is_ok() {
        return;
    }
    for (i, block) in buffer.chunks_mut(BLOCK).enumerate() {
        if file.read_exact_at(block, at + (i * BLOCK) as u64).is_err() {
            block.fill(0);
        }
    }
}

/// Computes the leaves of a blob while its image is written, and its name at the end.
#[derive(Debug)]
pub(crate) struct Namer {
    merkle: Merkle,
    leaves: Spill,
}

impl Namer {
    /// Nothing was written yet. What does not fit into memory waits in an unnamed file in `spill`.
    pub(crate) fn new(spill: &Path) -> Self {
        Self::with_leaves(Spill::new(spill, LEAVES_IN_MEMORY))
    }

    /// Nothing was written yet. The leaves wait in `leaves`, which is empty.
    pub(crate) fn with_leaves(leaves: Spill) -> Self {
        Self { merkle: Merkle::new(), leaves }
    }

    /// Bytes written so far.
    pub(crate) fn len(&self) -> u64 {
        self.merkle.len()
    }

    /// The next bytes of the image.
    pub(crate) fn update(&mut self, bytes: &[u8]) -> io::Result<()> {
        let Self { merkle, leaves } = self;
        merkle.update_noting(bytes, |leaf| leaves.add(leaf.as_bytes()));
        leaves.settle()
    }

    /// The name of what was written so far, as if that were the blob.
    pub(crate) fn peek(&self) -> Digest {
        self.merkle.peek()
    }

    /// Writes the leaves behind the image, which must be whole blocks. `first` stands for its first block, where that became
    /// known only at the end. Gives the name and the bytes of the blob.
    pub(crate) fn finish(
        mut self,
        first: Option<&[u8; BLOCK]>,
        mut out: impl Write,
    ) -> io::Result<(Digest, u64)> {
        let mut buffer = vec![0; BLOCK];
        let (mut at, len) = (0, self.leaves.len());
        while at < len {
            let want = BLOCK.min((len - at) as usize);
            self.leaves.read(at, &mut buffer[..want])?;
            if let Some(first) = first.filter(|_| at == 0) {
                buffer[..LEAF].copy_from_slice(leaf(first).as_bytes());
            }
            buffer[want..].fill(0);
            self.merkle.update(&buffer);
            out.write_all(&buffer)?;
            at += want as u64;
        }
        let size = self.merkle.len();
        Ok((self.merkle.finish(first), size))
    }
}

/// The leaves of a blob's image, as they are stored: checked against the blob's name, without reading its image.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where they are not those that the name vouches for, else what reading says.
pub fn read(blob: &File, name: &Digest) -> io::Result<Vec<Digest>> {
    let damaged =
        || io::Error::new(io::ErrorKind::InvalidData, "the leaves are not those of the blob's name");
    let extent = Extent::of_blob(blob.metadata()?.len()).ok_or_else(damaged)?;
    let mut stored = vec![0; (extent.leaves * BLOCK as u64) as usize];
    blob.read_exact_at(&mut stored, extent.image_bytes())?;
    let mut merkle = Merkle::new();
    let leaves = stored.as_chunks::<LEAF>().0.iter().take(extent.image as usize);
    let leaves: Vec<Digest> = leaves.map(|leaf| Digest::from_bytes(*leaf)).collect();
    leaves.iter().for_each(|leaf| merkle.push_leaf(leaf.as_bytes()));
    merkle.update(&stored);
    if merkle.finish(None) == *name { Ok(leaves) } else { Err(damaged()) }
}

/// The bytes that stand behind an image with these leaves.
pub fn encode(leaves: &[Digest]) -> Vec<u8> {
    let mut bytes: Vec<u8> = leaves.iter().flat_map(|leaf| *leaf.as_bytes()).collect();
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::convert::Infallible;

    fn blob(blocks: u64) -> (File, Digest, u64) {
        let mut file = tempfile::tempfile().expect("a file");
        let image: Vec<u8> = (0..blocks as usize * BLOCK).map(|i| (i / 7 + i / BLOCK * 13) as u8).collect();
        let leaves: Vec<Digest> = image.chunks(BLOCK).map(leaf).collect();
        let whole = [image, encode(&leaves)].concat();
        file.write_all(&whole).expect("written");
        let (name, len) = crate::verity::digest(whole.as_slice()).expect("read");
        (file, name, len)
    }

    fn health(file: &File, len: u64, name: &Digest) -> Health {
        examine(file, len, name, |_| Ok::<_, Infallible>(())).unwrap_or_else(|never| match never {})
    }

    #[test]
    fn the_length_of_a_blob_says_how_it_is_divided() {
        for image in (1..1000).chain([1 << 20, (1 << 24) + 77]) {
            let extent = Extent::of_image(image);
            assert_eq!(Extent::of_blob(extent.bytes()), Some(extent), "{image} blocks");
        }
        for bytes in [0, 1, 4095, 4096, 4097, 130 * 4096, 259 * 4096] {
            assert_eq!(Extent::of_blob(bytes), None, "{bytes} bytes");
        }
    }

    #[test]
    fn leaves_are_read_back_and_believed_only_if_the_name_vouches_for_them() {
        for blocks in [1, 2, 127, 128, 129, 300] {
            let (file, name, _) = blob(blocks);
            let leaves = read(&file, &name).expect("sound");
            assert_eq!(leaves.len() as u64, blocks);
            file.write_all_at(b"x", blocks * BLOCK as u64 + 40).expect("written");
            assert_eq!(read(&file, &name).map_err(|e| e.kind()), Err(io::ErrorKind::InvalidData), "{blocks}");
        }
    }

    #[test]
    fn bad_blocks_are_named_and_bad_leaves_are_told_from_them() {
        let (file, name, len) = blob(300);
        assert_eq!(health(&file, len, &name), Health::Sound);
        file.write_all_at(b"spoiled", 17 * BLOCK as u64 + 5).expect("written");
        file.write_all_at(b"spoiled", 299 * BLOCK as u64).expect("written");
        assert_eq!(health(&file, len, &name), Health::BadBlocks(vec![17, 299]));

        let (file, name, len) = blob(300);
        file.write_all_at(b"spoiled", 301 * BLOCK as u64).expect("written");
        assert_eq!(health(&file, len, &name), Health::BadLeaves);
        // The padding behind the leaves counts as well.
        let (file, name, len) = blob(300);
        file.write_all_at(b"x", len - 1).expect("written");
        assert_eq!(health(&file, len, &name), Health::BadLeaves);

        file.write_all_at(b"spoiled", 0).expect("written");
        assert_eq!(health(&file, len, &name), Health::Lost);
        file.set_len(len - 1).expect("cut");
        assert_eq!(health(&file, len - 1, &name), Health::Lost);
    }
}
