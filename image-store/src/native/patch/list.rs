//! The first frame of a segment: where each of its blocks comes from, and which blocks of the old image are its reference.

use crate::verity::BLOCK;

/// Stands in the place of a block of the old image for blocks that are in the patch.
const CONTENT: u32 = u32::MAX;
/// Bytes of an entry.
const ENTRY: usize = 8;
/// The most bytes of a list: a million entries, far more than any segment takes.
pub(super) const MAX_LIST: usize = 8 << 20;
/// The smallest window that zstd lets us set (`ZSTD_WINDOWLOG_ABSOLUTEMIN`), as a power of two.
pub(super) const MIN_WINDOW_LOG: u32 = 10;

/// Blocks that lie in a row in the old image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    pub(super) first: u32,
    pub(super) count: u32,
}

/// Blocks of the new image, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece {
    /// They are those of the old image.
    Kept(Run),
    /// So many are in the patch.
    Content(u32),
}

impl Piece {
    /// How many blocks they are.
    pub(super) fn blocks(self) -> u32 {
        match self {
            Self::Kept(run) => run.count,
            Self::Content(count) => count,
        }
    }

    /// How many of them are in the patch.
    pub(super) fn content(self) -> u32 {
        match self {
            Self::Kept(_) => 0,
            Self::Content(count) => count,
        }
    }
}

/// What the first frame of a segment says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct List {
    pub(super) pieces: Vec<Piece>,
    pub(super) reference: Vec<Run>,
}

impl List {
    /// Blocks of the new image that the segment makes.
    pub(super) fn blocks(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.blocks())).sum()
    }

    /// Bytes of the blocks that are in the patch.
    pub(super) fn content_bytes(&self) -> u64 {
        self.pieces.iter().map(|piece| u64::from(piece.content())).sum::<u64>() * BLOCK as u64
    }

    /// Bytes of the reference.
    pub(super) fn reference_bytes(&self) -> u64 {
        self.reference.iter().map(|run| u64::from(run.count)).sum::<u64>() * BLOCK as u64
    }

    /// The largest window that the content may be compressed with, as a power of two.
    pub(super) fn window_log(&self) -> u32 {
        self.content_bytes().max(1).next_power_of_two().ilog2().max(MIN_WINDOW_LOG)
    }

    /// Bytes that whoever applies the segment has in memory: the reference, and a window.
    pub(super) fn memory(&self) -> u64 {
        self.reference_bytes() + (1 << self.window_log())
    }

    /// The list as it is written.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes =
            u32::try_from(self.pieces.len()).expect("images have fewer blocks").to_le_bytes().to_vec();
        let mut entry = |first: u32, count: u32| {
            bytes.extend_from_slice(&first.to_le_bytes());
            bytes.extend_from_slice(&count.to_le_bytes());
        };
        for piece in &self.pieces {
            match piece {
                Piece::Kept(run) => entry(run.first, run.count),
                Piece::Content(count) => entry(CONTENT, *count),
            }
        }
        self.reference.iter().for_each(|run| entry(run.first, run.count));
        bytes
    }

    /// Reads a list that makes something, at most `left` blocks, of an image of `old` blocks; `None` where it does not.
    pub(super) fn decode(bytes: &[u8], old: u64, left: u64) -> Option<Self> {
        let (pieces, entries) = bytes.split_first_chunk::<4>()?;
        let (entries, rest) = entries.as_chunks::<ENTRY>();
        let pieces = u32::from_le_bytes(*pieces) as usize;
        if !rest.is_empty() || pieces > entries.len() {
            return None;
        }
        let number = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().expect("half of an entry"));
        let run = |entry: &[u8; ENTRY]| {
            let run = Run { first: number(&entry[..4]), count: number(&entry[4..]) };
            (run.count > 0 && u64::from(run.first) + u64::from(run.count) <= old).then_some(run)
        };
        let piece = |entry: &[u8; ENTRY]| match (number(&entry[..4]), number(&entry[4..])) {
            (CONTENT, 0) => None,
            (CONTENT, count) => Some(Piece::Content(count)),
            _ => run(entry).map(Piece::Kept),
        };
        let (of_pieces, of_reference) = entries.split_at(pieces);
        let pieces = of_pieces.iter().map(piece).collect::<Option<Vec<_>>>()?;
        let reference = of_reference.iter().map(run).collect::<Option<Vec<_>>>()?;
        let list = Self { pieces, reference };
        (1..=left).contains(&list.blocks()).then_some(list)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn run(first: u32, count: u32) -> Run {
        Run { first, count }
    }

    #[test]
    fn a_list_is_read_as_it_was_written() {
        let pieces =
            vec![Piece::Content(1), Piece::Kept(run(0, 2)), Piece::Content(2), Piece::Kept(run(3, 3))];
        let list = List { pieces, reference: vec![run(2, 1), run(5, 1)] };
        assert_eq!((list.blocks(), list.content_bytes(), list.reference_bytes()), (8, 3 * 4096, 2 * 4096));
        assert_eq!(list.encode().len(), 4 + 6 * ENTRY);
        assert_eq!(List::decode(&list.encode(), 6, 8).as_ref(), Some(&list));
        assert_eq!(List::decode(&list.encode(), 6, 9), Some(list), "others may follow");
    }

    #[test]
    fn memory_is_the_reference_and_a_window_for_the_content() {
        let memory = |content: u32, reference: u32| {
            List { pieces: vec![Piece::Content(content)], reference: vec![run(0, reference)] }.memory()
        };
        assert_eq!(memory(1, 1), 2 * 4096);
        assert_eq!(memory(5, 2), (8 + 2) * 4096, "windows are powers of two");
        assert_eq!(List { pieces: vec![Piece::Kept(run(0, 9))], reference: Vec::new() }.memory(), 1024);
    }

    #[test]
    fn t14_a_list_that_does_not_add_up_is_refused() {
        let entries = |pieces: u32, entries: &[(u32, u32)]| {
            let entries = entries.iter().flat_map(|(a, b)| [a.to_le_bytes(), b.to_le_bytes()].concat());
            pieces.to_le_bytes().into_iter().chain(entries).collect::<Vec<u8>>()
        };
        let good = entries(2, &[(4, 2), (CONTENT, 3), (0, 6)]);
        assert!(List::decode(&good, 6, 5).is_some());
        for (bytes, old, left, why) in [
            (good.clone(), 5, 5, "a run beyond the end of the old image"),
            (good.clone(), 6, 4, "more blocks than the new image has left"),
            (good[..good.len() - 1].to_vec(), 6, 5, "half an entry"),
            (Vec::new(), 6, 5, "nothing"),
            (entries(0, &[(0, 6)]), 6, 5, "a segment of nothing"),
            (entries(4, &[(4, 2), (CONTENT, 3), (0, 6)]), 6, 5, "fewer entries than it says"),
            (entries(3, &[(4, 2), (4, 0), (CONTENT, 3)]), 6, 5, "a run of nothing"),
            (entries(2, &[(4, 2), (CONTENT, 0)]), 6, 5, "content of nothing"),
            (entries(2, &[(4, 2), (CONTENT, 3), (CONTENT, 1)]), 6, 5, "a reference to what is new"),
            (entries(1, &[(4, 2), (4, 0)]), 6, 5, "a reference to nothing"),
            (entries(1, &[(u32::MAX - 1, u32::MAX)]), 6, 5, "a run that overflows"),
            (entries(2, &[(CONTENT, u32::MAX), (CONTENT, u32::MAX)]), 6, 5, "content that overflows"),
        ] {
            assert_eq!(List::decode(&bytes, old, left), None, "{why}");
        }
    }
}
