//! What has to be fetched. Nothing here acts.

use std::ops::Range;

use super::layout::{FRAME_BLOCKS, FRAME_BYTES, FRAME_LENGTH, GROUP_BLOCKS, Layout, SHORT_LEAF, TABLE_ENTRY};
use super::local::Place;

/// Bytes between two frames that are fetched along, because a request of its own would cost more: about what its headers and
/// those of the answer take.
const GAP: u64 = 1 << 10;
/// The most bytes that are asked for at once.
const MAX_RANGE: u64 = 1 << 20;

/// An entry of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first bytes of its digest.
    pub(crate) short: u64,
    /// Where its frames are.
    pub(crate) start: u64,
    pub(crate) bytes: u64,
}

/// Reads the table; `None` where it does not fit the layout.
pub(crate) fn table(layout: &Layout, bytes: &[u8]) -> Option<Vec<Group>> {
    let mut start = 0;
    let groups: Vec<Group> = bytes
        .chunks_exact(TABLE_ENTRY as usize)
        .map(|entry| {
            let short = u64::from_le_bytes(entry[..8].try_into().expect("8 bytes"));
            let bytes = u64::from(u32::from_le_bytes(entry[8..].try_into().expect("4 bytes")));
            let group = Group { short, start, bytes };
            start += bytes;
            group
        })
        .collect();
    (groups.len() as u64 == layout.groups() && start == layout.frames).then_some(groups)
}

/// What is known about a frame that may have to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Its first block.
    pub(crate) block: u64,
    /// Where it is in the layer.
    pub(crate) range: Range<u64>,
    /// The first bytes of the leaf of each of its blocks.
    pub(crate) leaves: Vec<u64>,
}

impl Wanted {
    /// Bytes of its content.
    pub(crate) fn content(&self) -> usize {
        self.leaves.len() * FRAME_BYTES / FRAME_BLOCKS as usize
    }
}

/// Reads the details of one group; `None` where they do not fit the table.
pub(crate) fn details(layout: &Layout, number: u64, group: &Group, bytes: &[u8]) -> Option<Vec<Wanted>> {
    let blocks = layout.blocks_of(number) as usize;
    let (shorts, lengths) = bytes.split_at_checked(blocks * SHORT_LEAF as usize)?;
    let shorts: Vec<u64> = shorts.as_chunks::<8>().0.iter().map(|short| u64::from_le_bytes(*short)).collect();
    let mut at = group.start;
    let frames: Vec<Wanted> = shorts
        .chunks(FRAME_BLOCKS as usize)
        .zip(lengths.chunks_exact(FRAME_LENGTH as usize))
        .enumerate()
        .map(|(i, (leaves, length))| {
            let start = at;
            at += u64::from(u16::from_le_bytes(length.try_into().expect("2 bytes")));
            Wanted {
                block: number * GROUP_BLOCKS + i as u64 * FRAME_BLOCKS,
                range: start..at,
                leaves: leaves.to_vec(),
            }
        })
        .collect();
    (frames.len() == blocks.div_ceil(FRAME_BLOCKS as usize) && at == group.start + group.bytes)
        .then_some(frames)
}

/// Joins ranges that are in order: those that lie close together, up to a bound for each.
pub(crate) fn ranges(wanted: impl IntoIterator<Item = Range<u64>>) -> Vec<Range<u64>> {
    let mut joined: Vec<Range<u64>> = Vec::new();
    for range in wanted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end + GAP && range.end - last.start <= MAX_RANGE => {
                last.end = range.end;
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Where each piece of the image comes from, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many blocks, which lie here in a row.
    Here { from: Place, blocks: u32 },
    /// A frame.
    Fetched(Wanted),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_joined_where_they_lie_close_and_never_beyond_the_bound() {
        assert_eq!(ranges([0..10, 10..20, 20 + GAP..5000, 9000..9001]), [0..5000, 9000..9001]);
        assert_eq!(
            ranges([0..MAX_RANGE, MAX_RANGE..MAX_RANGE + 1]),
            [0..MAX_RANGE, MAX_RANGE..MAX_RANGE + 1]
        );
        assert_eq!(ranges([]), []);
    }

    #[test]
    fn a_table_or_details_that_do_not_add_up_are_refused() {
        let blocks = 130;
        let layout = Layout::new(blocks, 1000 + 8 + Layout::index_bytes(blocks)).expect("it can be");
        let entry = |short: u64, bytes: u32| [&short.to_le_bytes()[..], &bytes.to_le_bytes()].concat();
        let good = [entry(1, 960), entry(2, 40)].concat();
        let groups = table(&layout, &good).expect("sound");
        assert_eq!(groups[1], Group { short: 2, start: 960, bytes: 40 });
        assert_eq!(table(&layout, &[entry(1, 960), entry(2, 41)].concat()), None);
        assert_eq!(table(&layout, &good[..12]), None);

        let last = [&7u64.to_le_bytes()[..], &8u64.to_le_bytes(), &40u16.to_le_bytes()].concat();
        let frames = details(&layout, 1, &groups[1], &last).expect("sound");
        assert_eq!(frames, [Wanted { block: 128, range: 960..1000, leaves: vec![7, 8] }]);
        assert_eq!(frames[0].content(), 8192);
        assert_eq!(details(&layout, 1, &groups[1], &last[..17]), None);
        assert_eq!(details(&layout, 1, &Group { bytes: 41, ..groups[1] }, &last), None);
        assert_eq!(details(&layout, 1, &groups[1], &[]), None);
    }
}
