//! The power goes at every write of an update: a host is recorded once, and judged in each state that a cut may leave.

mod boots;
mod record;

use std::collections::BTreeMap;

use crash_tests::host::promise::PROMISES;
use crash_tests::host::replay::{Judged, Recording};
use crash_tests::log::Entry;
use crash_tests::state::{Random, State, states};
use vm_tests::Failure;

use record::recorded;

/// Chooses the random states.
const SEED: u64 = 20_261_122;
/// The smallest piece that is torn: FAT believes in sectors.
const SECTOR: usize = 512;
/// The smallest piece that btrfs believes to be written whole.
const BLOCK: usize = 4096;

/// The same error where it need not go to another thread.
fn plain(error: crash_tests::scenario::Failure) -> Failure {
    error
}

/// So many random states between two flushes, more where something is written to the boot partition.
fn samples(recording: &Recording, boot: usize, other: usize) -> impl Fn(&[Entry]) -> usize {
    move |entries| {
        let of_boot = entries.iter().any(|entry| recording.is_of_boot_partition(entry));
        if of_boot { boot } else { other }
    }
}

/// States with the steps that were acknowledged before them, counted.
#[derive(Default)]
struct Tally {
    states: BTreeMap<usize, usize>,
    bad: Vec<String>,
    bad_states: usize,
}

impl Tally {
    fn add(&mut self, state: &State, acknowledged: usize, faults: &[String]) {
        *self.states.entry(acknowledged).or_default() += 1;
        if !faults.is_empty() {
            self.bad_states += 1;
            let after = PROMISES[acknowledged].after;
            self.bad.push(format!("{} entries were issued, {after}: {faults:?}", state.issued));
        }
    }

    fn judged(&mut self, state: &State, judged: &Judged) {
        self.add(state, judged.acknowledged, &judged.found.faults);
    }

    fn all(&self) -> usize {
        self.states.values().sum()
    }

    fn print(&self, what: &str) {
        for (acknowledged, states) in &self.states {
            println!("{what}: {states} states where {} was the last", PROMISES[*acknowledged].after);
        }
        println!("{what}: {} states, {} bad, seed {SEED}", self.all(), self.bad_states);
    }
}

#[test]
fn f01_the_power_goes_at_any_write_of_an_update_and_what_was_promised_holds() -> Result<(), Failure> {
    let (recording, _) = recorded()?;
    let states = states(&recording.entries, samples(&recording, 6, 2), BLOCK, &mut Random(SEED));
    let mut tally = Tally::default();
    let acknowledged = |state: &State| recording.acknowledged(state.issued);
    let judged = recording.judge(&states, acknowledged, |state, _, judged| tally.judged(state, &judged));
    judged.map_err(plain)?;
    tally.print("whole hosts");
    assert!(tally.bad.is_empty(), "{:#?}", &tally.bad[..tally.bad.len().min(10)]);
    assert!(tally.all() >= 1000, "too few states to say anything");
    assert_eq!(tally.states.len(), PROMISES.len(), "a step without a state: {:?}", tally.states);
    Ok(())
}

#[test]
fn f10_whatever_a_cut_does_to_the_boot_partition_the_loader_starts_a_whole_boot_image() -> Result<(), Failure>
{
    let (recording, _) = recorded()?;
    let mut states = states(&recording.entries, samples(&recording, 60, 0), SECTOR, &mut Random(SEED));
    // Where nothing was written to it since the state before it is the same.
    let mut seen = 0;
    states.retain(|state| {
        let since = std::mem::replace(&mut seen, state.durable)..state.issued;
        recording.entries[since].iter().any(|entry| recording.is_of_boot_partition(entry))
    });
    let mut tally = Tally::default();
    let read = recording.boot_partitions(&states, |state, _, faults| {
        tally.add(state, recording.acknowledged(state.issued), &faults);
    });
    read.map_err(plain)?;
    tally.print("boot partitions");
    assert!(tally.bad.is_empty(), "{:#?}", &tally.bad[..tally.bad.len().min(10)]);
    assert!(tally.all() >= 1000, "too few states to say anything");
    Ok(())
}

/// The same host, but the disk has lost what it confirmed since the step before: each promise has to be missed.
#[test]
fn f01_a_host_that_lost_what_it_had_promised_is_found_out() -> Result<(), Failure> {
    let (recording, _) = recorded()?;
    let all = states(&recording.entries, |_| 0, BLOCK, &mut Random(SEED));
    // What nothing more is promised by than by the one before is left out.
    let steps: Vec<usize> = (1..PROMISES.len()).filter(|step| *step != 8).collect();
    let mut chosen = Vec::new();
    for step in &steps {
        let before = recording.mark(step - 1).unwrap_or(0);
        chosen.push(all.iter().find(|state| state.durable >= before).ok_or("there are more states")?.clone());
    }
    let mut missed = Vec::new();
    let promised = |state: &State| steps[chosen.iter().position(|one| one == state).expect("one of them")];
    let judged = recording.judge(&chosen, promised, |_, _, judged| {
        println!("{}: {:?}", PROMISES[judged.acknowledged].after, judged.found.faults);
        if judged.found.faults.is_empty() {
            missed.push(judged.acknowledged);
        }
    });
    judged.map_err(plain)?;
    assert_eq!(missed, Vec::<usize>::new(), "nobody noticed that these steps were lost");
    Ok(())
}

/// The same host, but nothing was flushed while the new OS was brought to the boot partition.
#[test]
fn f10_a_boot_partition_that_is_never_flushed_is_found_out() -> Result<(), Failure> {
    let (recording, _) = recorded()?;
    let mark = |step| recording.mark(step).ok_or("a step without a mark");
    let (begin, end) = (mark(2)?, mark(3)?);
    let of_boot = (begin..end).filter(|index| recording.is_of_boot_partition(&recording.entries[*index]));
    let of_boot: Vec<usize> = of_boot.collect();
    let mut random = Random(SEED);
    let cut = |_| {
        let issued = 1 + random.below(of_boot.len());
        let arrived = of_boot[..issued].iter().copied().filter(|_| random.below(4) > 0).collect();
        State { issued: of_boot[issued - 1] + 1, durable: begin, arrived, torn: None }
    };
    let states: Vec<State> = (0..200).map(cut).collect();
    let mut tally = Tally::default();
    let read = recording.boot_partitions(&states, |state, _, faults| tally.add(state, 2, &faults));
    read.map_err(plain)?;
    tally.print("boot partitions without a flush");
    assert!(tally.bad_states > 0, "nobody noticed that nothing was flushed");
    Ok(())
}
