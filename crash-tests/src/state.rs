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
    /// The entries that are on the disk, in order; all of them are below `issued`.
    pub applied: Vec<usize>,
    /// How many bytes of the last applied entry are there, where not all are.
    pub torn: Option<usize>,
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

/// The states to try: one at each flush, and `samples` more between each flush and the next, cut at a random place, with a random
/// part of what was not flushed, every third of them with a torn write. `unit` is the smallest piece, in bytes, that the file
/// system believes to be written whole.
pub fn states(log: &[Entry], samples: usize, unit: usize, random: &mut Random) -> Vec<State> {
    let mut states = Vec::new();
    let mut durable = Vec::new();
    let mut begin = 0;
    while begin < log.len() {
        let end = log[begin..].iter().position(|e| *e == Entry::Flush).map_or(log.len(), |n| begin + n);
        for sample in 0..samples {
            // Nothing was issued since the flush: there is but one state.
            if end == begin {
                break;
            }
            let issued = begin + 1 + random.below(end - begin);
            states.push(sampled(log, &durable, begin, issued, (sample % 3 == 2).then_some(unit), random));
        }
        durable.extend((begin..end).filter(|index| !matches!(log[*index], Entry::Flush)));
        let issued = (end + 1).min(log.len());
        states.push(State { issued, applied: durable.clone(), torn: None });
        begin = end + 1;
    }
    states
}

fn sampled(
    log: &[Entry],
    durable: &[usize],
    begin: usize,
    issued: usize,
    unit: Option<usize>,
    random: &mut Random,
) -> State {
    // Half the time most of it arrived, half the time little of it.
    let odds = if random.below(2) == 0 { 3 } else { 1 };
    let arrived = |index: &usize, random: &mut Random| {
        matches!(log[*index], Entry::Write { durable: true, .. }) || random.below(4) < odds
    };
    let mut applied = durable.to_vec();
    applied.extend((begin..issued).filter(|index| arrived(index, random)));
    let mut torn = None;
    if let (Some(unit), Some(last)) = (unit, applied.last())
        && *last >= begin
        && let Entry::Write { bytes, durable: false, .. } = &log[*last]
        && bytes.len() > unit
    {
        torn = Some((1 + random.below(bytes.len().div_ceil(unit) - 1)) * unit);
    }
    State { issued, applied, torn }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(at: u64, durable: bool) -> Entry {
        Entry::Write { at, bytes: vec![1; 8192], durable }
    }

    #[test]
    fn what_was_flushed_is_in_every_later_state_and_what_was_not_issued_in_none() {
        let log =
            [write(0, false), Entry::Flush, write(1, false), write(2, true), write(3, false), Entry::Flush];
        let states = states(&log, 200, 4096, &mut Random(1));
        assert_eq!(states.len(), 402);
        for state in &states {
            assert!(state.applied.iter().all(|index| *index < state.issued), "{state:?}");
            assert!(state.issued <= 2 || state.applied.contains(&0), "{state:?}");
            assert!(state.issued <= 3 || state.applied.contains(&3), "{state:?}");
        }
        assert_eq!(states.last().map(|s| s.applied.as_slice()), Some(&[0, 2, 3, 4][..]));
    }

    #[test]
    fn writes_are_reordered_left_out_and_torn() {
        let log = [write(0, false), write(1, false), write(2, false)];
        let states = states(&log, 200, 4096, &mut Random(1));
        for applied in [&[][..], &[0], &[1], &[2], &[0, 1], &[0, 2], &[1, 2], &[0, 1, 2]] {
            assert!(states.iter().any(|state| state.applied == applied), "{applied:?}");
        }
        assert!(states.iter().any(|state| state.torn == Some(4096)));
        assert!(states.iter().all(|state| state.torn.is_none_or(|bytes| bytes == 4096)));
    }
}
