//! A blob becomes a native layer.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use bennu_manifests::model::Digest;

use super::layout::{FRAME_BLOCKS, FRAME_BYTES, GROUP_BLOCKS, GROUP_FRAMES, Layout, SKIPPABLE_MAGIC};
use crate::leaves;
use crate::sha256::Sha256;
use crate::verity::BLOCK;

/// A layer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Its SHA-256 digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
}

/// Writes the blob called `name` as a native layer, its frames compressed at `level` (1 to 22). The same blob and level give the
/// same bytes with the same version of zstd.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where the blob is not what its name says, else what reading and writing say.
pub fn encode(blob: &File, name: &Digest, level: i32, out: impl Write) -> io::Result<Encoded> {
    let leaves = leaves::read(blob, name)?;
    let mut out = Hashing { out, hash: Sha256::new(), size: 0 };
    let mut compressor = zstd::bulk::Compressor::new(level)?;
    // The content and the checksum are known otherwise: by the blob's digest.
    compressor.set_parameter(zstd::zstd_safe::CParameter::ContentSizeFlag(true))?;
    let (mut details, mut table) = (Vec::new(), Vec::new());
    let mut buffer = vec![0; FRAME_BYTES];
    for (group, of_group) in leaves.chunks(GROUP_BLOCKS as usize).enumerate() {
        let mut lengths = Vec::with_capacity(GROUP_FRAMES as usize * 2);
        let mut group_bytes = 0;
        for (frame, of_frame) in of_group.chunks(FRAME_BLOCKS as usize).enumerate() {
            let content = &mut buffer[..of_frame.len() * BLOCK];
            let block = group as u64 * GROUP_BLOCKS + frame as u64 * FRAME_BLOCKS;
            blob.read_exact_at(content, block * BLOCK as u64)?;
            if content.chunks(BLOCK).zip(of_frame).any(|(block, leaf)| leaves::leaf(block) != *leaf) {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    "a block is not what the blob's name says",
                ));
            }
            let compressed = compressor.compress(content)?;
            let length = u16::try_from(compressed.len()).expect("16 KiB never become more than 64 KiB");
            lengths.extend_from_slice(&length.to_le_bytes());
            group_bytes += u32::from(length);
            out.write_all(&compressed)?;
        }
        of_group.iter().for_each(|leaf| details.extend_from_slice(&leaf.as_bytes()[..8]));
        details.extend_from_slice(&lengths);
        table.extend_from_slice(&group_digest(of_group).as_bytes()[..8]);
        table.extend_from_slice(&group_bytes.to_le_bytes());
    }
    let index =
        u32::try_from(Layout::index_bytes(leaves.len() as u64)).map_err(|_| io::ErrorKind::FileTooLarge)?;
    debug_assert_eq!(index as usize, details.len() + table.len(), "both count the same way");
    out.write_all(&SKIPPABLE_MAGIC.to_le_bytes())?;
    out.write_all(&index.to_le_bytes())?;
    out.write_all(&details)?;
    out.write_all(&table)?;
    out.flush()?;
    Ok(Encoded { digest: out.hash.finish(), size: out.size })
}

/// The digest of a group: that of its leaves, filled up with zeros to a block, which is its node of the Merkle tree.
pub(crate) fn group_digest(leaves: &[Digest]) -> Digest {
    crate::sha256::digest(&leaves::encode(leaves))
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
