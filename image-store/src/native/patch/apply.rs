//! A patch becomes a blob.

use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;

use zstd::stream::read::Decoder;

use super::Patch;
use super::list::{List, MAX_LIST, Piece};
use crate::leaves::Extent;
use crate::native::Native;
use crate::native::growing::{COPY_BUFFER, Growing, GrowthError};
use crate::verity::BLOCK;

/// Why there is no blob. All but the last mean that it has to come in another way.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PatchError {
    #[error("the patch cannot be read")]
    Read(#[source] io::Error),
    #[error("the patch does not add up, or needs more memory than it says")]
    List,
    #[error("the patch does not make the blob that the manifest names")]
    Mismatch,
    #[error("could not write the blob")]
    Write(#[source] io::Error),
}

impl From<GrowthError> for PatchError {
    fn from(error: GrowthError) -> Self {
        match error {
            GrowthError::Mismatch => Self::Mismatch,
            GrowthError::Write(error) => Self::Write(error),
        }
    }
}

/// How many times as many blocks as both images have the references may have together: no patch that adds up needs more, and it bounds
/// what a hostile one has us read.
const MAX_REREAD: u64 = 4;
/// The window of the first frame of a segment, as a power of two: that of [`MAX_LIST`].
const LIST_WINDOW_LOG: u32 = MAX_LIST.ilog2();

/// Reads a patch to its end, makes the blob of it and of the blob that it is for, and checks what came of it. Takes as much memory as
/// the patch says that it needs, a list and some buffers.
pub(crate) fn apply(
    native: &Native,
    patch: &Patch,
    old: &File,
    mut bytes: impl BufRead,
    out: &File,
    spill: &Path,
) -> Result<(), PatchError> {
    let here = old.metadata().ok().and_then(|old| Extent::of_blob(old.len())).ok_or(PatchError::Mismatch)?;
    let mut target = Target { blob: Growing::new(out, spill), buffer: vec![0; COPY_BUFFER] };
    let mut left = native.extent.image;
    let mut readable = MAX_REREAD * (here.image_bytes() + native.extent.image_bytes());
    while left > 0 {
        let list = read_list(&mut bytes, here.image, left)?;
        left -= list.blocks();
        readable = readable.checked_sub(list.reference_bytes()).ok_or(PatchError::List)?;
        if list.memory() > patch.memory {
            return Err(PatchError::List);
        }
        apply_segment(&list, old, &mut bytes, &mut target)?;
    }
    ended(&mut bytes)?;
    Ok(target.blob.finish(native)?)
}

/// What is being made.
struct Target<'a> {
    blob: Growing<'a>,
    buffer: Vec<u8>,
}

fn apply_segment(
    list: &List,
    old: &File,
    bytes: &mut impl BufRead,
    Target { blob, buffer }: &mut Target<'_>,
) -> Result<(), PatchError> {
    let mut reference = Vec::with_capacity(list.reference_bytes() as usize);
    for run in &list.reference {
        let from = reference.len();
        reference.resize(from + run.count as usize * BLOCK, 0);
        // What rotted since is as good as what is not here.
        let read = old.read_exact_at(&mut reference[from..], u64::from(run.first) * BLOCK as u64);
        read.map_err(|_| PatchError::Mismatch)?;
    }
    let mut decoder = Decoder::with_ref_prefix(bytes, &reference).map_err(PatchError::Read)?.single_frame();
    decoder.window_log_max(list.window_log()).map_err(PatchError::Read)?;
    for piece in &list.pieces {
        match piece {
            Piece::Kept(run) => blob.copy_blocks(old, run.first, run.count, buffer)?,
            Piece::Content(count) => {
                let mut left = u64::from(*count) * BLOCK as u64;
                while left > 0 {
                    let want = left.min(COPY_BUFFER as u64) as usize;
                    decoder.read_exact(&mut buffer[..want]).map_err(PatchError::Read)?;
                    blob.append(&buffer[..want]).map_err(PatchError::Write)?;
                    left -= want as u64;
                }
            }
        }
    }
    ended(&mut decoder)
}

fn read_list(bytes: &mut impl BufRead, old: u64, left: u64) -> Result<List, PatchError> {
    let mut decoder = Decoder::with_buffer(bytes).map_err(PatchError::Read)?.single_frame();
    decoder.window_log_max(LIST_WINDOW_LOG).map_err(PatchError::Read)?;
    let mut list = Vec::new();
    (&mut decoder).take(MAX_LIST as u64 + 1).read_to_end(&mut list).map_err(PatchError::Read)?;
    if list.len() > MAX_LIST {
        return Err(PatchError::List);
    }
    List::decode(&list, old, left).ok_or(PatchError::List)
}

/// Refuses more than there should be.
fn ended(reader: &mut impl Read) -> Result<(), PatchError> {
    match reader.read(&mut [0]).map_err(PatchError::Read)? {
        0 => Ok(()),
        _ => Err(PatchError::List),
    }
}
