//! How a patch is divided: which blocks of the new image make a segment, and which of the old one are its reference.
//!
//! ```text
//!  gone blocks of the old image    ├──────── reference of 1 ───────┤
//!                                             ├──────── reference of 2 ───────┤
//!                                                        ├──────── reference of 3 ───────┤
//!  content of the new image        ├───── 1 ─────┼───── 2 ─────┼───── 3 ─────┤
//! ```
//! Both images have their files in the order of their paths, so what a file was is gone about where the file is new. How far the one is
//! from the other is seen by the blocks that stay between them. References overlap, for no file ends where a segment does.

use std::collections::{HashMap, HashSet};

use bennu_manifests::model::Digest;

use super::list::{List, Piece, Run};

/// How large a segment may be, in blocks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    /// The most of content.
    pub(super) content: u32,
    /// The most of reference.
    pub(super) reference: u32,
}

/// The sizes of every patch that is made: 32 MiB and 64 MiB, so that none needs more than 96 MiB of memory.
pub(super) const SIZES: Sizes = Sizes { content: 8 << 10, reference: 16 << 10 };

/// The segments that lead from one image to another, each image given by its leaves.
pub(super) fn segments(old: &[Digest], new: &[Digest], sizes: Sizes) -> Vec<List> {
    let pieces = pieces(old, new);
    let gone = Gone::between(old, new);
    let content: u32 = pieces.iter().map(|piece| piece.content()).sum();
    // All of about the same size, rather than a last one of next to nothing.
    let each = content.div_ceil(content.div_ceil(sizes.content).max(1));
    let mut before = 0;
    let segment = |pieces: Vec<Piece>| {
        let proportional = u64::from(before + each / 2) * u64::from(gone.blocks) / u64::from(content.max(1));
        before += each;
        let middle = gone.beside(&pieces).unwrap_or(proportional as u32);
        List { reference: gone.around(middle, sizes.reference), pieces }
    };
    cut(&pieces, each).into_iter().map(segment).collect()
}

/// Where the blocks of the new image come from.
fn pieces(old: &[Digest], new: &[Digest]) -> Vec<Piece> {
    let mut places: HashMap<&Digest, u32> = HashMap::with_capacity(old.len());
    for (leaf, block) in old.iter().zip(0..) {
        places.entry(leaf).or_insert(block);
    }
    let mut pieces: Vec<Piece> = Vec::new();
    for leaf in new {
        match (pieces.last_mut(), places.get(leaf)) {
            // A block that is there several times goes on with the run where it can.
            (Some(Piece::Kept(run)), Some(_)) if old.get((run.first + run.count) as usize) == Some(leaf) => {
                run.count += 1;
            }
            (_, Some(first)) => pieces.push(Piece::Kept(Run { first: *first, count: 1 })),
            (Some(Piece::Content(count)), None) => *count += 1,
            (_, None) => pieces.push(Piece::Content(1)),
        }
    }
    pieces
}

/// Cuts pieces where `each` blocks of content are full and more follow.
fn cut(pieces: &[Piece], each: u32) -> Vec<Vec<Piece>> {
    let mut segments = vec![Vec::new()];
    let mut room = each;
    for piece in pieces {
        let mut left = piece.content();
        if left == 0 {
            segments.last_mut().expect("there is a first").push(*piece);
        }
        while left > 0 {
            if room == 0 {
                segments.push(Vec::new());
                room = each;
            }
            let part = left.min(room);
            segments.last_mut().expect("there is a first").push(Piece::Content(part));
            (left, room) = (left - part, room - part);
        }
    }
    segments
}

/// What the new image does not have any more, each block once.
struct Gone {
    /// In order, each with the number of blocks that are gone before it.
    runs: Vec<(u32, Run)>,
    blocks: u32,
}

impl Gone {
    fn between(old: &[Digest], new: &[Digest]) -> Self {
        let mut known: HashSet<&Digest> = new.iter().collect();
        let mut gone = Self { runs: Vec::new(), blocks: 0 };
        for (leaf, block) in old.iter().zip(0..) {
            if !known.insert(leaf) {
                continue;
            }
            match gone.runs.last_mut() {
                Some((_, run)) if run.first + run.count == block => run.count += 1,
                _ => gone.runs.push((gone.blocks, Run { first: block, count: 1 })),
            }
            gone.blocks += 1;
        }
        gone
    }

    /// How many blocks are gone before that which most of what stays between the contents of a segment is beside: the median, so that
    /// blocks that are the same in many places do not matter. `None` where nothing stays there.
    fn beside(&self, pieces: &[Piece]) -> Option<u32> {
        let last = pieces.iter().rposition(|piece| piece.content() > 0)?;
        let kept = pieces[..last].iter().skip_while(|piece| piece.content() == 0);
        let mut beside: Vec<(u32, u32)> = kept
            .filter_map(|piece| match piece {
                Piece::Kept(run) => Some((self.before(run.first), run.count)),
                Piece::Content(_) => None,
            })
            .collect();
        beside.sort_unstable();
        let half = beside.iter().map(|(_, count)| u64::from(*count)).sum::<u64>().div_ceil(2);
        let mut passed = 0;
        let median = beside.iter().find(|(_, count)| {
            passed += u64::from(*count);
            passed >= half
        });
        median.map(|(before, _)| *before)
    }

    /// How many blocks are gone before this one.
    fn before(&self, block: u32) -> u32 {
        let next = self.runs.partition_point(|(_, run)| run.first < block);
        self.runs.get(next).map_or(self.blocks, |(before, _)| *before)
    }

    /// As many of the blocks that are gone as there may be, as near as possible to the one with this number.
    fn around(&self, middle: u32, most: u32) -> Vec<Run> {
        let count = self.blocks.min(most);
        let begin = middle.saturating_sub(count / 2).min(self.blocks - count);
        let end = begin + count;
        let part = |(before, run): &(u32, Run)| {
            let (from, to) = (begin.max(*before), end.min(before + run.count));
            (from < to).then(|| Run { first: run.first + from - before, count: to - from })
        };
        self.runs.iter().filter_map(part).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verity::BLOCK;

    fn leaves(numbers: &[u8]) -> Vec<Digest> {
        numbers.iter().map(|number| Digest::from_bytes([*number; 32])).collect()
    }

    const fn run(first: u32, count: u32) -> Run {
        Run { first, count }
    }

    const fn kept(first: u32, count: u32) -> Piece {
        Piece::Kept(run(first, count))
    }

    #[test]
    fn what_both_have_is_kept_and_what_is_gone_is_the_reference() {
        let segments = segments(&leaves(&[1, 2, 3, 4, 5, 4]), &leaves(&[9, 1, 2, 8, 8, 4, 5, 1]), SIZES);
        let pieces = vec![Piece::Content(1), kept(0, 2), Piece::Content(2), kept(3, 2), kept(0, 1)];
        assert_eq!(segments, [List { pieces, reference: vec![run(2, 1)] }]);
    }

    #[test]
    fn a_block_that_is_gone_several_times_is_in_the_reference_once() {
        let list = &segments(&leaves(&[7, 7, 7, 6]), &leaves(&[1]), SIZES)[0];
        assert_eq!(list.reference, [run(0, 1), run(3, 1)]);
        let nothing = &segments(&[], &leaves(&[1]), SIZES)[0];
        assert_eq!((nothing.reference_bytes(), nothing.pieces.len()), (0, 1));
    }

    #[test]
    fn an_image_that_has_nothing_new_is_one_segment() {
        let same = leaves(&[1, 2, 3]);
        assert_eq!(segments(&same, &same, SIZES), [List { pieces: vec![kept(0, 3)], reference: Vec::new() }]);
    }

    #[test]
    fn content_is_cut_into_equal_parts_and_each_has_what_is_gone_near_it() {
        let old: Vec<u8> = (0..12).collect();
        let new: Vec<u8> = (100..112).collect();
        let segments = segments(&leaves(&old), &leaves(&new), Sizes { content: 5, reference: 6 });
        let of = |first| List { pieces: vec![Piece::Content(4)], reference: vec![run(first, 6)] };
        assert_eq!(segments, [of(0), of(3), of(6)]);
    }

    #[test]
    fn what_stays_between_says_where_the_reference_is() {
        // Much is new before 1, where nothing is gone: by proportion the second reference would be 14 and 15.
        let old = [1, 2, 10, 3, 11, 4, 12, 13, 14, 15, 16, 17];
        let new = [90, 91, 92, 93, 1, 94, 95, 96, 97, 2, 20, 3, 21, 4];
        let sizes = Sizes { content: 8, reference: 2 };
        let segments = segments(&leaves(&old), &leaves(&new), sizes);
        let [first, second] = &segments[..] else { panic!("{segments:?}") };
        assert_eq!(first.pieces, [Piece::Content(4), kept(0, 1), Piece::Content(1)]);
        assert_eq!(first.reference, [run(2, 1), run(4, 1)]);
        let pieces =
            [Piece::Content(3), kept(1, 1), Piece::Content(1), kept(3, 1), Piece::Content(1), kept(5, 1)];
        assert_eq!(second.pieces, pieces);
        assert_eq!(second.reference, [run(2, 1), run(4, 1)]);
    }

    #[test]
    fn no_segment_is_larger_than_the_sizes_say() {
        // A third stays, a third is gone, a third moves.
        let old: Vec<Digest> = (0..900_u32).map(|number| Digest::of(&number.to_le_bytes())).collect();
        let number = |i: u32| match i % 3 {
            0 => i,
            1 => 10_000 + i,
            _ => (i * 7) % 900,
        };
        let new: Vec<Digest> = (0..900).map(|i| Digest::of(&number(i).to_le_bytes())).collect();
        for content in 1..40 {
            let sizes = Sizes { content, reference: 3 * content };
            let segments = segments(&old, &new, sizes);
            assert_eq!(segments.iter().map(List::blocks).sum::<u64>(), 900);
            for list in &segments {
                assert!(list.content_bytes() <= u64::from(content) * BLOCK as u64);
                assert!(list.reference_bytes() <= u64::from(3 * content) * BLOCK as u64);
                assert_eq!(List::decode(&list.encode(), 900, 900).as_ref(), Some(list));
            }
        }
    }

    #[test]
    fn the_largest_segment_needs_96_mib() {
        let list =
            List { pieces: vec![Piece::Content(SIZES.content)], reference: vec![run(0, SIZES.reference)] };
        assert_eq!(list.memory(), 96 << 20);
        assert!(list.memory() <= super::super::MAX_MEMORY);
    }
}
