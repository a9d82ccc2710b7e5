//! What has to be fetched. Nothing here acts.

use std::ops::Range;

use super::layout::{FRAME_ENTRY, Layout, MAX_FRAME, SHORT_LEAF, SKIPPABLE_HEADER, TABLE_ENTRY, UNIT_LENGTH};
use super::local::Place;
use crate::erofs::records;
use crate::verity::BLOCK;

/// Bytes between two frames that are fetched along, because a request of its own would cost more: about what its headers and
/// those of the answer take.
const GAP: u64 = 1 << 10;
/// The most bytes that are asked for at once.
const MAX_RANGE: u64 = 1 << 20;

/// An entry of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Group {
    /// The first bytes of its digest.
    pub(crate) short: u64,
    /// Whether its units are records; blocks else.
    pub(crate) of_records: bool,
    pub(crate) units: u64,
    pub(crate) frames: u64,
    /// Where its frames are.
    pub(crate) bytes: Range<u64>,
    /// Where its details are.
    pub(crate) details: Range<u64>,
}

/// Reads the table; `None` where it does not fit the layout.
pub(crate) fn table(layout: &Layout, bytes: &[u8]) -> Option<Vec<Group>> {
    let (mut at, mut blocks, mut pieces) = (0, 0, 0);
    let mut groups = Vec::with_capacity(bytes.len() / TABLE_ENTRY as usize);
    for entry in bytes.as_chunks::<{ TABLE_ENTRY as usize }>().0 {
        let (short, rest) = entry.split_first_chunk::<8>()?;
        let (length, rest) = rest.split_first_chunk::<4>()?;
        let number = |from: usize| u64::from(u16::from_le_bytes([rest[from], rest[from + 1]]));
        let (units, frames) = (number(0), number(2));
        let of_records = blocks == layout.data;
        let end = at + u64::from(u32::from_le_bytes(*length));
        if frames == 0 || frames > units {
            return None;
        }
        *(if of_records { &mut pieces } else { &mut blocks }) += units;
        if blocks > layout.data {
            return None;
        }
        groups.push(Group {
            short: u64::from_le_bytes(*short),
            of_records,
            units,
            frames,
            bytes: at..end,
            details: 0..0,
        });
        at = end;
    }
    // A record takes a byte at least, and has a name or ends a directory that has one.
    let enough = blocks == layout.data && (pieces > 0) == (layout.data < layout.blocks);
    if !enough || pieces > 2 * records::MAX_NAMES || bytes.len() as u64 != layout.table {
        return None;
    }
    at += SKIPPABLE_HEADER;
    for group in &mut groups {
        let unit = SHORT_LEAF + if group.of_records { UNIT_LENGTH } else { 0 };
        group.details = at..at + group.units * unit + group.frames * FRAME_ENTRY;
        at = group.details.end;
    }
    (at + layout.table == layout.size).then_some(groups)
}

/// What is known about a frame that may have to be fetched.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wanted {
    /// Where it is in the layer.
    pub(crate) range: Range<u64>,
    /// The first bytes of the leaf of each of its units.
    pub(crate) leaves: Vec<u64>,
    /// Bytes of its content.
    pub(crate) content: usize,
}

/// Reads the details of one group; `None` where they do not fit the table.
pub(crate) fn details(group: &Group, bytes: &[u8]) -> Option<Vec<Wanted>> {
    let (shorts, rest) = bytes.split_at_checked((group.units * SHORT_LEAF) as usize)?;
    let lengths = if group.of_records { (group.units * UNIT_LENGTH) as usize } else { 0 };
    let (lengths, entries) = rest.split_at_checked(lengths)?;
    let mut shorts = shorts.as_chunks::<8>().0.iter().map(|short| u64::from_le_bytes(*short));
    let mut lengths = lengths.as_chunks::<4>().0.iter().map(|length| u32::from_le_bytes(*length) as usize);
    let mut start = group.bytes.start;
    let mut frames = Vec::with_capacity(group.frames as usize);
    for entry in entries.as_chunks::<{ FRAME_ENTRY as usize }>().0 {
        let entry = u32::from_le_bytes(*entry);
        let (units, end) = ((entry >> 24) as usize, start + u64::from(entry & 0x00ff_ffff));
        let leaves: Vec<u64> = shorts.by_ref().take(units).collect();
        let content = match group.of_records {
            true => lengths.by_ref().take(units).try_fold(0_usize, |sum, length| sum.checked_add(length))?,
            false => units * BLOCK,
        };
        if leaves.is_empty() || leaves.len() < units || content == 0 || content > MAX_FRAME {
            return None;
        }
        frames.push(Wanted { range: start..end, leaves, content });
        start = end;
    }
    let all = frames.len() as u64 == group.frames && shorts.next().is_none();
    (all && start == group.bytes.end).then_some(frames)
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

/// Where each piece of the blocks and then of the records comes from, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    /// So many blocks, which lie here in a row.
    Blocks { from: Place, blocks: u32 },
    /// So many bytes of records that are here.
    Records { from: u64, bytes: u64 },
    /// A frame.
    Fetched { range: Range<u64>, content: usize },
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

    fn entry(short: u64, bytes: u32, units: u16, frames: u16) -> Vec<u8> {
        [&short.to_le_bytes()[..], &bytes.to_le_bytes(), &units.to_le_bytes(), &frames.to_le_bytes()].concat()
    }

    #[test]
    fn a_table_that_does_not_add_up_is_refused() {
        let details = 60 * 8 + 3 * 4 + 40 * 8 + 4 + 2 * 12 + 2 * 4;
        let layout = Layout::new(130, 100, 48, 1000 + 8 + details + 48).expect("it can be");
        let of = |entries: [Vec<u8>; 3]| table(&layout, &entries.concat());
        let groups = of([entry(1, 900, 60, 3), entry(2, 60, 40, 1), entry(3, 40, 2, 2)]).expect("sound");
        let ranges: Vec<_> = groups.iter().map(|group| (group.of_records, group.bytes.clone())).collect();
        assert_eq!(ranges, [(false, 0..900), (false, 900..960), (true, 960..1000)]);
        assert_eq!(groups[0].details, 1008..1008 + 60 * 8 + 12);
        assert_eq!(groups[2].details.end + 48, layout.size);
        for (what, entries) in [
            ("frames that are longer", [entry(1, 900, 60, 3), entry(2, 60, 40, 1), entry(3, 41, 2, 2)]),
            ("a block more", [entry(1, 900, 61, 3), entry(2, 60, 40, 1), entry(3, 32, 2, 2)]),
            ("a block fewer", [entry(1, 900, 59, 3), entry(2, 60, 40, 1), entry(3, 48, 2, 2)]),
            ("no records", [entry(1, 900, 60, 3), entry(2, 60, 39, 1), entry(3, 64, 1, 1)]),
            ("a group of nothing", [entry(1, 900, 60, 3), entry(2, 60, 40, 1), entry(3, 72, 0, 0)]),
            ("more frames than units", [entry(1, 900, 60, 3), entry(2, 60, 40, 1), entry(3, 36, 2, 3)]),
        ] {
            assert_eq!(of(entries), None, "{what}");
        }
        assert_eq!(table(&layout, &entry(1, 900, 60, 3)), None, "a part of it");
    }

    #[test]
    fn details_that_do_not_add_up_are_refused() {
        let group =
            |of_records| Group { short: 1, of_records, units: 3, frames: 2, bytes: 100..150, details: 0..0 };
        let shorts = [7_u64, 8, 9].map(u64::to_le_bytes).concat();
        let frames = |frames: &[(u32, u32)]| -> Vec<u8> {
            frames.iter().flat_map(|(units, bytes)| (units << 24 | bytes).to_le_bytes()).collect()
        };
        let blocks = |of: &[(u32, u32)]| details(&group(false), &[shorts.clone(), frames(of)].concat());
        let sound = blocks(&[(2, 40), (1, 10)]).expect("sound");
        assert_eq!(sound[0], Wanted { range: 100..140, leaves: vec![7, 8], content: 8192 });
        assert_eq!(sound[1], Wanted { range: 140..150, leaves: vec![9], content: 4096 });
        for bad in [
            &[(2, 40), (1, 11)][..],
            &[(2, 40), (2, 10)],
            &[(1, 40), (1, 10)],
            &[(3, 50)],
            &[(3, 50), (0, 0)],
        ] {
            assert_eq!(blocks(bad), None, "{bad:?}");
        }
        let records = |lengths: [u32; 3]| {
            let lengths = lengths.map(u32::to_le_bytes).concat();
            details(&group(true), &[shorts.clone(), lengths, frames(&[(1, 20), (2, 30)])].concat())
        };
        assert_eq!(records([5, 6, 7]).expect("sound")[1].content, 13);
        for bad in [[0, 6, 7], [5, 1 << 18, 1], [5, u32::MAX, u32::MAX]] {
            assert_eq!(records(bad), None, "{bad:?}");
        }
        assert_eq!(details(&group(true), &shorts), None);
        assert_eq!(details(&group(false), &shorts[1..]), None);
    }
}
