//! A native layer becomes a blob again: from parts and what is here, or from the whole.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::Native;
use super::growing::{COPY_BUFFER, Growing, GrowthError};
use super::layout::{FRAME_BLOCKS, FRAME_BYTES, GROUP_BLOCKS};
use super::local::{Local, Place};
use super::plan::{self, Piece, ranges};
use crate::registry::document::Descriptor;
use crate::source::{Source, SourceError, blocking};
use crate::space::Shortage;

/// Requests that are under way at once.
const REQUESTS_AT_ONCE: usize = 4;
/// The largest image that is put together from parts, in blocks: beyond 8 GiB the list of parts would take too much memory.
const MAX_BLOCKS: u64 = 1 << 21;

/// Why a blob could not be made from parts. All but the last three mean that the whole layer has to be fetched.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NativeError {
    #[error("nothing of it is here, or the server gives no parts of files")]
    NotWorthIt,
    #[error("its index does not add up")]
    Index,
    #[error("its parts do not make the blob that the manifest names")]
    Mismatch,
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("it does not fit")]
    NoRoom(#[source] Shortage),
    #[error("could not write the blob")]
    Write(#[source] io::Error),
}

impl From<GrowthError> for NativeError {
    fn from(error: GrowthError) -> Self {
        match error {
            GrowthError::Mismatch => Self::Mismatch,
            GrowthError::Write(error) => Self::Write(error),
        }
    }
}

/// A layer in a source, of which parts can be asked for.
#[derive(Clone, Copy)]
pub(crate) struct Parts<'a> {
    pub(crate) source: &'a Source,
    pub(crate) layer: &'a Descriptor,
}

impl Parts<'_> {
    async fn get(&self, range: Range<u64>) -> Result<Bytes, NativeError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        self.source.range(self.layer, range).await?.ok_or(NativeError::NotWorthIt)
    }
}

/// How a blob will be put together.
#[derive(Debug)]
pub(crate) struct Plan {
    pieces: Vec<Piece>,
    ranges: Vec<Range<u64>>,
    /// Bytes that were fetched to make the plan.
    pub(crate) index_bytes: u64,
}

impl Plan {
    /// Bytes of the layer that will be fetched.
    pub(crate) fn frame_bytes(&self) -> u64 {
        self.ranges.iter().map(|range| range.end - range.start).sum()
    }

    /// The plan, where it takes less than the whole layer of `size` bytes by a sixteenth: the whole comes with one request and takes
    /// less work.
    pub(crate) fn worth_it(self, size: u64) -> Result<Self, NativeError> {
        let most = size - size / 16;
        if self.index_bytes + self.frame_bytes() < most { Ok(self) } else { Err(NativeError::NotWorthIt) }
    }

    /// Bytes of the blob that nothing on this machine has.
    pub(crate) fn new_bytes(&self) -> u64 {
        let of_piece = |piece: &Piece| match piece {
            Piece::Fetched(frame) => frame.content() as u64,
            Piece::Here { .. } => 0,
        };
        self.pieces.iter().map(of_piece).sum()
    }
}

/// Asks for the index as far as it is needed, and looks for what is here.
pub(crate) async fn plan(native: &Native, parts: Parts<'_>, local: &Local) -> Result<Plan, NativeError> {
    let layout = native.layout;
    if local.is_empty() || layout.blocks > MAX_BLOCKS {
        return Err(NativeError::NotWorthIt);
    }
    let table = parts.get(layout.table()).await?;
    let mut index_bytes = table.len() as u64;
    let groups = plan::table(&layout, &table).ok_or(NativeError::Index)?;
    let mut places: HashMap<u64, Option<Place>> = groups.iter().map(|group| (group.short, None)).collect();
    let places = look(local, move |local| {
        local.groups(&mut places);
        places
    })
    .await;

    let missing = (0..layout.groups()).filter(|number| places[&groups[*number as usize].short].is_none());
    let mut frames: HashMap<u64, Vec<plan::Wanted>> = HashMap::new();
    for run in runs(missing) {
        let bytes = parts.get(layout.details(run.clone())).await?;
        index_bytes += bytes.len() as u64;
        let mut rest = &bytes[..];
        for number in run {
            let len = layout.details(number..number + 1);
            let (mine, others) =
                rest.split_at_checked((len.end - len.start) as usize).ok_or(NativeError::Index)?;
            rest = others;
            let group = &groups[number as usize];
            frames.insert(number, plan::details(&layout, number, group, mine).ok_or(NativeError::Index)?);
        }
    }
    let mut blocks: HashMap<u64, Option<Place>> =
        frames.values().flatten().flat_map(|frame| &frame.leaves).map(|leaf| (*leaf, None)).collect();
    let blocks = look(local, move |local| {
        local.blocks(&mut blocks);
        blocks
    })
    .await;

    let mut pieces = Pieces(Vec::new());
    for number in 0..layout.groups() {
        match places[&groups[number as usize].short] {
            Some(from) => pieces.here(from, layout.blocks_of(number) as u32),
            None => {
                for frame in frames.remove(&number).unwrap_or_default() {
                    match frame.leaves.iter().map(|leaf| blocks[leaf]).collect::<Option<Vec<Place>>>() {
                        Some(here) => here.into_iter().for_each(|from| pieces.here(from, 1)),
                        None => pieces.0.push(Piece::Fetched(frame)),
                    }
                }
            }
        }
    }
    let fetched = pieces.0.iter().filter_map(|piece| match piece {
        Piece::Fetched(frame) => Some(frame.range.clone()),
        Piece::Here { .. } => None,
    });
    let ranges = ranges(fetched);
    Ok(Plan { pieces: pieces.0, ranges, index_bytes })
}

/// Numbers in order, joined to runs; a run has at most so many groups as 1 MiB of details.
fn runs(numbers: impl Iterator<Item = u64>) -> Vec<Range<u64>> {
    let mut runs: Vec<Range<u64>> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some(run) if run.end == number && run.end - run.start < 900 => run.end += 1,
            _ => runs.push(number..number + 1),
        }
    }
    runs
}

async fn look<T: Send + 'static>(local: &Local, work: impl FnOnce(&Local) -> T + Send + 'static) -> T {
    let local = local.clone();
    match blocking(move || Ok::<_, std::convert::Infallible>(work(&local))).await {
        Ok(found) => found,
        Err(never) => match never {},
    }
}

struct Pieces(Vec<Piece>);

impl Pieces {
    /// Adds blocks that are here, to the piece before where they go on in the same place.
    fn here(&mut self, from: Place, count: u32) {
        match self.0.last_mut() {
            Some(Piece::Here { from: before, blocks })
                if before.blob == from.blob && before.block + *blocks == from.block =>
            {
                *blocks += count;
            }
            _ => self.0.push(Piece::Here { from, blocks: count }),
        }
    }
}

/// Fetches what the plan says, puts the blob together in `out` and checks it. `progress` is told of every byte that came.
pub(crate) async fn from_parts(
    native: Native,
    plan: Plan,
    parts: Parts<'_>,
    local: &Local,
    out: File,
    spill: &Path,
    progress: impl Fn(u64),
) -> Result<(), NativeError> {
    let (bytes, incoming) = mpsc::channel(1);
    let (local, spill) = (local.clone(), spill.to_owned());
    let pieces = plan.pieces;
    let writing = tokio::task::spawn_blocking(move || write(&native, pieces, &local, incoming, &out, &spill));
    let mut answers = stream::iter(plan.ranges)
        .map(|range| async move { (range.start, parts.get(range).await) })
        .buffered(REQUESTS_AT_ONCE);
    let mut failed = None;
    while let Some((start, answer)) = answers.next().await {
        match answer {
            Ok(answer) => {
                progress(answer.len() as u64);
                if bytes.send((start, answer)).await.is_err() {
                    break; // The writer gave up and will say why.
                }
            }
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    drop(bytes);
    let written = writing.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
    failed.map_or(written, Err)
}

fn write(
    native: &Native,
    pieces: Vec<Piece>,
    local: &Local,
    mut incoming: mpsc::Receiver<(u64, Bytes)>,
    out: &File,
    spill: &Path,
) -> Result<(), NativeError> {
    let mut blob = Growing::new(out, spill);
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(NativeError::Write)?;
    let mut buffer = vec![0; COPY_BUFFER];
    let mut answer = (0, Bytes::new());
    for piece in pieces {
        match piece {
            Piece::Here { from, blocks } => {
                blob.copy_blocks(local.file(from), from.block, blocks, &mut buffer)?;
            }
            Piece::Fetched(frame) => {
                while answer.0 + answer.1.len() as u64 <= frame.range.start {
                    // A channel that closed early is a request that failed, which is told instead.
                    answer = incoming.blocking_recv().ok_or(NativeError::Mismatch)?;
                }
                let from = frame.range.start.checked_sub(answer.0).ok_or(NativeError::Mismatch)? as usize;
                let len = (frame.range.end - frame.range.start) as usize;
                let compressed = answer.1.get(from..from + len).ok_or(NativeError::Mismatch)?;
                let content = &mut buffer[..FRAME_BYTES];
                let n = decompressor
                    .decompress_to_buffer(compressed, content)
                    .map_err(|_| NativeError::Mismatch)?;
                if n != frame.content() {
                    return Err(NativeError::Mismatch);
                }
                blob.append(&buffer[..n]).map_err(NativeError::Write)?;
            }
        }
    }
    Ok(blob.finish(native)?)
}

/// Makes the blob from the bytes of the whole layer.
pub(crate) fn from_stream(
    native: &Native,
    layer: impl Read,
    out: &File,
    spill: &Path,
) -> Result<(), Assembled> {
    // Frames say how large they are; none of ours needs more than its 16 KiB.
    let mut decoder = zstd::stream::read::Decoder::new(layer).map_err(Assembled::Read)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(Assembled::Read)?;
    let mut blob = Growing::new(out, spill);
    let mut buffer = vec![0; COPY_BUFFER];
    let mut left = native.extent.image_bytes();
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match decoder.read(&mut buffer[filled..]).map_err(Assembled::Read)? {
                0 => break,
                n => filled += n,
            }
        }
        if filled == 0 {
            break;
        }
        left = left.checked_sub(filled as u64).ok_or(Assembled::Mismatch)?;
        blob.append(&buffer[..filled]).map_err(Assembled::Write)?;
    }
    if left > 0 {
        return Err(Assembled::Mismatch);
    }
    blob.finish(native).map_err(|error| match error {
        GrowthError::Write(error) => Assembled::Write(error),
        GrowthError::Mismatch => Assembled::Mismatch,
    })
}

/// The window that a frame may ask for, as a power of two: the smallest that zstd lets us set beyond that of a frame.
const MAX_WINDOW_LOG: u32 = 17;

/// Why the whole layer does not make the blob.
#[derive(Debug)]
pub(crate) enum Assembled {
    Read(io::Error),
    Write(io::Error),
    Mismatch,
}

const _: () = assert!(COPY_BUFFER >= FRAME_BYTES && GROUP_BLOCKS.is_multiple_of(FRAME_BLOCKS));
