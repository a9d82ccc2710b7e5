//! Two blobs become a patch.

use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;

use bennu_manifests::model::Digest;
use zstd::stream::write::Encoder;

use super::divide::{SIZES, Sizes, segments};
use super::list::{List, MAX_LIST, MIN_WINDOW_LOG, Piece, Run};
use crate::leaves;
use crate::verity::BLOCK;

/// A blob of the store, open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blob<'a> {
    pub(super) name: &'a Digest,
    pub(super) file: &'a File,
    pub(super) leaves: &'a [Digest],
}

/// How a patch would be made: its segments.
#[derive(Debug)]
pub(super) struct Sketch(Vec<List>);

impl Sketch {
    /// What leads from one blob to another; `None` where the images are so shuffled that a list would be too long.
    pub(super) fn between(old: Blob<'_>, new: Blob<'_>) -> Option<Self> {
        Self::divided(old, new, SIZES)
    }

    /// The same with segments of other sizes.
    pub(super) fn divided(old: Blob<'_>, new: Blob<'_>, sizes: Sizes) -> Option<Self> {
        let segments = segments(old.leaves, new.leaves, sizes);
        segments.iter().all(|list| list.encode().len() <= MAX_LIST).then_some(Self(segments))
    }

    /// Bytes that whoever applies the patch has in memory: what the largest segment needs.
    pub(super) fn memory(&self) -> u64 {
        self.0.iter().map(List::memory).max().unwrap_or_default()
    }

    /// Writes the patch, compressed at `level` (1 to 22). The same blobs and level give the same bytes with the same version of zstd.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`] where a blob is not what its name says, else what reading and writing say.
    pub(super) fn write(
        &self,
        old: Blob<'_>,
        new: Blob<'_>,
        level: i32,
        mut out: impl Write,
    ) -> io::Result<()> {
        let mut at = 0;
        for list in &self.0 {
            write_segment(list, old, new, &mut at, level, &mut out)?;
        }
        out.flush()
    }
}

/// Writes one segment, which begins at block `at` of the new image, and moves `at` to its end.
fn write_segment(
    list: &List,
    old: Blob<'_>,
    new: Blob<'_>,
    at: &mut u32,
    level: i32,
    mut out: impl Write,
) -> io::Result<()> {
    let mut encoder = Encoder::new(&mut out, level)?;
    encoder.write_all(&list.encode())?;
    encoder.finish()?;

    let mut reference = vec![0; list.reference_bytes() as usize];
    let mut rest = &mut reference[..];
    for run in &list.reference {
        let (mine, others) = rest.split_at_mut(run.count as usize * BLOCK);
        read(old, *run, mine)?;
        rest = others;
    }
    let mut encoder = Encoder::with_ref_prefix(&mut out, level, &reference)?;
    // So that matches reach from the end of the content to the beginning of the reference.
    let both = list.content_bytes() + list.reference_bytes();
    encoder.window_log(both.next_power_of_two().ilog2().max(MIN_WINDOW_LOG))?;
    encoder.long_distance_matching(true)?;
    // A frame of known length has no larger window than that.
    encoder.set_pledged_src_size(Some(list.content_bytes()))?;
    let mut buffer = vec![0; BLOCK];
    for piece in &list.pieces {
        let end = *at + piece.blocks();
        if let Piece::Content(_) = piece {
            for first in *at..end {
                read(new, Run { first, count: 1 }, &mut buffer)?;
                encoder.write_all(&buffer)?;
            }
        }
        *at = end;
    }
    encoder.finish()?;
    Ok(())
}

/// Reads blocks, and checks them.
fn read(blob: Blob<'_>, run: Run, out: &mut [u8]) -> io::Result<()> {
    blob.file.read_exact_at(out, u64::from(run.first) * BLOCK as u64)?;
    let leaves = &blob.leaves[run.first as usize..][..run.count as usize];
    if out.chunks(BLOCK).zip(leaves).any(|(block, leaf)| leaves::leaf(block) != *leaf) {
        let fault = format!("a block of {} is not what the blob's name says", blob.name);
        return Err(io::Error::new(io::ErrorKind::InvalidData, fault));
    }
    Ok(())
}
