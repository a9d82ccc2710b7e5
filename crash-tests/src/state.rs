//! Which states a power cut may leave, decided from the log alone.
//!
//! What came before a flush is on the disk. Of what came after the last one, any part may be there, and one write may be there
//! up to the middle.

use crate::log::Entry;

/// One state of the disk after a power cut.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// The entries of the log that had been issued when the power went.
    pub issued: usize,
    /// All entries before this one are on the disk.
    pub durable: usize,
    /// The entries behind them that are there, too, in order; all of them are below `issued`.
    pub arrived: Vec<usize>,
    /// How many bytes of the last entry that arrived are there, where not all are.
    pub torn: Option<usize>,
}

impl State {
    /// The entries that are on the disk, in order, each with the bytes of it that are there where not all are.
    pub fn applied(&self) -> impl Iterator<Item = (usize, Option<usize>)> {
        let last = self.arrived.last().copied();
        let arrived = self.arrived.iter().copied();
        (0..self.durable).chain(arrived).map(move |index| (index, self.torn.filter(|_| last == Some(index))))
    }
}

/// Numbers that look random and are the same for the same seed (SplitMix64, Steele, Lea and Flood, "Fast splittable
/// pseudorandom number generators", 2014).
#[derive(Debug, Clone)]
pub struct Random(pub u64);

impl Random {
    /// A number below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % bound as u64).expect("below a usize")
    }
}

/// The states to try: one at each flush, and some more between each flush and the next, cut at a random place, with a random part of
/// what was not flushed, every third of them with a torn write. `samples` says how many, given what was asked for between the two.
/// `unit` is the smallest piece, in bytes, that the file system believes to be written whole.
pub fn states(
    log: &[Entry],
    samples: impl Fn(&[Entry]) -> usize,
    unit: usize,
    random: &mut Random,
) -> Vec<State> {
    let mut states = Vec::new();
    let mut begin = 0;
    while begin < log.len() {
        let end = log[begin..].iter().position(|e| *e == Entry::Flush).map_or(log.len(), |n| begin + n);
        for sample in 0..samples(&log[begin..end]) {
            // Nothing was issued since the flush: there is but one state.
            if end == begin {
                break;
            }
            let issued = begin + 1 + random.below(end - begin);
            states.push(sampled(log, begin, issued, (sample % 3 == 2).then_some(unit), random));
        }
        let issued = (end + 1).min(log.len());
        states.push(State { issued, durable: end, arrived: Vec::new(), torn: None });
        begin = end + 1;
    }
    states
}

fn sampled(log: &[Entry], begin: usize, issued: usize, unit: Option<usize>, random: &mut Random) -> State {
    // Half the time most of it arrived, half the time little of it.
    let odds = if random.below(2) == 0 { 3 } else { 1 };
    let arrived = |index: &usize, random: &mut Random| {
        matches!(log[*index], Entry::Write { durable: true, .. }) || random.below(4) < odds
    };
    let arrived: Vec<usize> = (begin..issued).filter(|index| arrived(index, random)).collect();
    let mut torn = None;
    if let (Some(unit), Some(last)) = (unit, arrived.last())
        && let Entry::Write { bytes, durable: false, .. } = &log[*last]
        && bytes.len > unit
    {
        torn = Some((1 + random.below(bytes.len.div_ceil(unit) - 1)) * unit);
    }
    State { issued, durable: begin, arrived, torn }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::log::Piece;

    fn write(at: u64, durable: bool) -> Entry {
        Entry::Write { at, bytes: Piece { from: 0, len: 8192 }, durable }
    }

    fn writes(log: &[Entry], state: &State) -> Vec<usize> {
        let applied = state.applied().map(|(index, _)| index);
        applied.filter(|index| log[*index] != Entry::Flush).collect()
    }

    #[test]
    fn what_was_flushed_is_in_every_later_state_and_what_was_not_issued_in_none() {
        let log =
            [write(0, false), Entry::Flush, write(1, false), write(2, true), write(3, false), Entry::Flush];
        let states = states(&log, |_| 200, 4096, &mut Random(1));
        assert_eq!(states.len(), 402);
        for state in &states {
            let applied = writes(&log, state);
            assert!(applied.iter().all(|index| *index < state.issued), "{state:?}");
            assert!(state.issued <= 2 || applied.contains(&0), "{state:?}");
            assert!(state.issued <= 3 || applied.contains(&3), "{state:?}");
        }
        assert_eq!(states.last().map(|state| writes(&log, state)), Some(vec![0, 2, 3, 4]));
    }

    #[test]
    fn writes_are_reordered_left_out_and_torn() {
        let log = [write(0, false), write(1, false), write(2, false)];
        let states = states(&log, |_| 200, 4096, &mut Random(1));
        for applied in [&[][..], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
            assert!(states.iter().any(|state| writes(&log, state) == applied), "{applied:?}");
        }
        assert!(states.iter().any(|state| state.torn == Some(4096)));
        assert!(states.iter().all(|state| state.torn.is_none_or(|bytes| bytes == 4096)));
    }
}
