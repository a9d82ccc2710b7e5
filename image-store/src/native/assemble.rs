//! A native layer becomes a blob again: from parts and what is here, or from the whole.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt};
use tokio::sync::mpsc;

use super::Native;
use super::growing::{COPY_BUFFER, GrowthError};
use super::kept::Kept;
use super::layout::MAX_FRAME;
use super::local::{Local, Place};
use super::plan::{self, Group, Piece, Wanted, ranges};
use super::target::Target;
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
    /// Records that are here.
    kept: Option<Kept>,
    /// Bytes that are made of records.
    made: u64,
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

    /// Bytes of the blob that nothing on this machine has, at most.
    pub(crate) fn new_bytes(&self) -> u64 {
        let of_piece = |piece: &Piece| match piece {
            Piece::Fetched { content, .. } => *content as u64,
            Piece::Blocks { .. } | Piece::Records { .. } => 0,
        };
        self.made + self.pieces.iter().map(of_piece).sum::<u64>()
    }
}

/// Asks for the index as far as it is needed, and looks for what is here. Records that do not fit into memory wait in an unnamed file in
/// `spill`.
pub(crate) async fn plan(
    native: &Native,
    parts: Parts<'_>,
    local: &Local,
    spill: &Path,
) -> Result<Plan, NativeError> {
    let layout = native.layout;
    if local.is_empty() || layout.blocks > MAX_BLOCKS {
        return Err(NativeError::NotWorthIt);
    }
    let table = parts.get(layout.table()).await?;
    let mut index_bytes = table.len() as u64;
    let groups = plan::table(&layout, &table).ok_or(NativeError::Index)?;
    let wanted = groups.iter().filter(|group| !group.of_records).map(|group| (group.short, None));
    let mut places: HashMap<u64, Option<Place>> = wanted.collect();
    let (spill, image) = (spill.to_owned(), native.extent.image_bytes());
    let (places, kept) = look(local, move |local| {
        let found = local.groups(&mut places);
        let kept = (layout.data < layout.blocks).then(|| Kept::of(local, &found, image, &spill));
        (places, kept)
    })
    .await;
    let group_here = |group: &Group| match &kept {
        Some(kept) if group.of_records => {
            kept.group(group.short).map(|at| Piece::Records { from: at.start, bytes: at.end - at.start })
        }
        _ => places
            .get(&group.short)
            .copied()
            .flatten()
            .map(|from| Piece::Blocks { from, blocks: group.units as u32 }),
    };
    let here: Vec<Option<Piece>> = groups.iter().map(group_here).collect();

    let missing = (0..groups.len()).filter(|number| here[*number].is_none());
    let mut frames: HashMap<usize, Vec<Wanted>> = HashMap::new();
    for run in runs(missing, &groups) {
        let bytes = parts.get(groups[run.start].details.start..groups[run.end - 1].details.end).await?;
        index_bytes += bytes.len() as u64;
        let mut rest = &bytes[..];
        for number in run {
            let group = &groups[number];
            let len = (group.details.end - group.details.start) as usize;
            let (mine, others) = rest.split_at_checked(len).ok_or(NativeError::Index)?;
            rest = others;
            frames.insert(number, plan::details(group, mine).ok_or(NativeError::Index)?);
        }
    }
    let of_blocks = frames.iter().filter(|(number, _)| !groups[**number].of_records);
    let leaves = of_blocks.flat_map(|(_, frames)| frames).flat_map(|frame| &frame.leaves);
    let mut blocks: HashMap<u64, Option<Place>> = leaves.map(|leaf| (*leaf, None)).collect();
    let blocks = look(local, move |local| {
        local.blocks(&mut blocks);
        blocks
    })
    .await;
    let unit_here = |group: &Group, leaf: &u64| match &kept {
        Some(kept) if group.of_records => {
            kept.unit(*leaf).map(|at| Piece::Records { from: at.start, bytes: at.end - at.start })
        }
        _ => blocks.get(leaf).copied().flatten().map(|from| Piece::Blocks { from, blocks: 1 }),
    };

    let mut pieces = Pieces(Vec::new());
    for (number, (group, here)) in groups.iter().zip(here).enumerate() {
        if let Some(here) = here {
            pieces.add(here);
            continue;
        }
        for frame in frames.remove(&number).unwrap_or_default() {
            match frame.leaves.iter().map(|leaf| unit_here(group, leaf)).collect::<Option<Vec<Piece>>>() {
                Some(here) => here.into_iter().for_each(|piece| pieces.add(piece)),
                None => pieces.add(Piece::Fetched { range: frame.range, content: frame.content }),
            }
        }
    }
    let fetched = pieces.0.iter().filter_map(|piece| match piece {
        Piece::Fetched { range, .. } => Some(range.clone()),
        Piece::Blocks { .. } | Piece::Records { .. } => None,
    });
    let ranges = ranges(fetched);
    Ok(Plan { pieces: pieces.0, ranges, kept, made: layout.made_bytes(), index_bytes })
}

/// Numbers of groups in order, joined to runs of at most 1 MiB of details, or of one group.
fn runs(numbers: impl Iterator<Item = usize>, groups: &[Group]) -> Vec<Range<usize>> {
    let mut runs: Vec<Range<usize>> = Vec::new();
    for number in numbers {
        let bytes = |run: &Range<usize>| groups[number].details.end - groups[run.start].details.start;
        match runs.last_mut() {
            Some(run) if run.end == number && bytes(run) <= 1 << 20 => run.end += 1,
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
    /// Adds a piece, to the one before where it goes on in the same place.
    fn add(&mut self, piece: Piece) {
        match (self.0.last_mut(), &piece) {
            (Some(Piece::Blocks { from: before, blocks }), Piece::Blocks { from, blocks: more })
                if before.blob == from.blob && before.block.checked_add(*blocks) == Some(from.block) =>
            {
                *blocks += more;
            }
            (Some(Piece::Records { from: before, bytes }), Piece::Records { from, bytes: more })
                if *before + *bytes == *from =>
            {
                *bytes += more;
            }
            _ => self.0.push(piece),
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
    let (pieces, kept) = (plan.pieces, plan.kept);
    let writing = tokio::task::spawn_blocking(move || {
        let target = Target::new(&native, &out, &spill);
        write(target, pieces, &local, kept.as_ref(), incoming)
    });
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
    mut target: Target<'_>,
    pieces: Vec<Piece>,
    local: &Local,
    kept: Option<&Kept>,
    mut incoming: mpsc::Receiver<(u64, Bytes)>,
) -> Result<(), NativeError> {
    let mut decompressor = zstd::bulk::Decompressor::new().map_err(NativeError::Write)?;
    let mut buffer = vec![0; COPY_BUFFER.max(MAX_FRAME)];
    let mut answer = (0, Bytes::new());
    for piece in pieces {
        match piece {
            Piece::Blocks { from, blocks } => {
                target.copy_blocks(local.file(from), from.block, blocks, &mut buffer[..COPY_BUFFER])?;
            }
            Piece::Records { from, bytes } => {
                let kept = kept.ok_or(NativeError::Mismatch)?;
                for at in (from..from + bytes).step_by(COPY_BUFFER) {
                    let part = &mut buffer[..COPY_BUFFER.min((from + bytes - at) as usize)];
                    kept.read(at, part).map_err(|_| NativeError::Mismatch)?;
                    target.take(part)?;
                }
            }
            Piece::Fetched { range, content } => {
                while answer.0 + answer.1.len() as u64 <= range.start {
                    // A channel that closed early is a request that failed, which is told instead.
                    answer = incoming.blocking_recv().ok_or(NativeError::Mismatch)?;
                }
                let from = range.start.checked_sub(answer.0).ok_or(NativeError::Mismatch)? as usize;
                let len = (range.end - range.start) as usize;
                let compressed = answer.1.get(from..from + len).ok_or(NativeError::Mismatch)?;
                let n = decompressor
                    .decompress_to_buffer(compressed, &mut buffer[..content])
                    .map_err(|_| NativeError::Mismatch)?;
                if n != content {
                    return Err(NativeError::Mismatch);
                }
                target.take(&buffer[..n])?;
            }
        }
    }
    Ok(target.finish()?)
}
