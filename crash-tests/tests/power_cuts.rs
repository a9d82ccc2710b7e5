//! F1: the power goes at every flush of every scenario, and at random places in between.
//!
//! `BENNU_CRASH_SAMPLES` says how many states are tried between two flushes, thrice as many for every sixth pair (1 without it), `BENNU_CRASH_SEED` which.

use std::cell::Cell;
use std::path::Path;
use std::process::Command;

use crash_tests::check::{check, expected};
use crash_tests::disk::{FILE_SYSTEMS, FileSystem, Place, Recording, can_record};
use crash_tests::log::Entry;
use crash_tests::scenario::{Failure, SCENARIOS, Scenario};
use crash_tests::state::{Random, State, states};

const PROGRAMS: [&str; 4] = ["qemu-storage-daemon", "mount", "mkfs.ext4", "mkfs.btrfs"];

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |value| value.parse().expect("a number"))
}

/// Records a scenario; `wrapper` stands before the command of its process.
fn record(
    place: &Place,
    file_system: &FileSystem,
    scenario: &Scenario,
    wrapper: &[&str],
) -> Result<Recording, Failure> {
    place.record(file_system, |mounted, marks, at| {
        let program = [env!("CARGO_BIN_EXE_crash-tests")];
        let mut words = wrapper.iter().chain(&program);
        let mut command = Command::new(words.next().expect("a program"));
        command.args(words).arg(scenario.name).arg(mounted.join("store")).arg(marks).arg(at.to_string());
        let output = command.output()?;
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() { Ok(()) } else { Err(format!("the scenario failed: {said}").into()) }
    })
}

/// What is wrong after a power cut that leaves this state.
fn faults(
    place: &Place,
    file_system: &FileSystem,
    scenario: &Scenario,
    recording: &Recording,
    state: &State,
) -> Vec<String> {
    let disk = recording.disk(place, state).expect("memory for a disk");
    let promised = expected(scenario, recording.acknowledged(state.issued));
    let look = |mounted: &Path| Ok(check(&mounted.join("store"), &promised));
    place
        .mounted_at(&disk, file_system, look)
        .unwrap_or_else(|error| vec![format!("the disk cannot be used: {error}")])
}

/// Tries every state of all scenarios on one file system, and gives how many there were.
fn cut(file_system: &FileSystem) -> usize {
    let place = Place::new().expect("a mount namespace");
    let (samples, seed) = (number("BENNU_CRASH_SAMPLES", 1), number("BENNU_CRASH_SEED", 20_260_821));
    let (mut total, mut all_bad) = (0, Vec::new());
    for scenario in SCENARIOS {
        let recording = record(&place, file_system, scenario, &[]).expect("recorded");
        assert_eq!(recording.acknowledged(recording.entries.len()), scenario.steps.len());
        let samples = usize::try_from(samples).expect("a small number");
        // Every sixth pair of flushes, and then three states, of which one is torn: what a cut leaves in between differs little from
        // one pair to the next.
        let epochs = Cell::new(0);
        let sampled = |_: &[Entry]| if epochs.replace(epochs.get() + 1) % 6 == 0 { 3 * samples } else { 0 };
        let states = states(&recording.entries, sampled, file_system.unit, &mut Random(seed));
        let mut bad = Vec::new();
        for state in &states {
            let faults = faults(&place, file_system, scenario, &recording, state);
            if !faults.is_empty() {
                let done = recording.acknowledged(state.issued);
                bad.push(format!("after {} entries, {done} steps acknowledged: {faults:?}", state.issued));
            }
        }
        let (disk, steps) = (file_system.name, scenario.name);
        println!("{disk}: {steps}: {} states, {} bad, seed {seed}", states.len(), bad.len());
        // A few of each are enough to see what it is.
        all_bad.extend(bad.into_iter().take(3).map(|fault| format!("{steps}: {fault}")));
        total += states.len();
    }
    println!("{}: {total} states", file_system.name);
    assert!(all_bad.is_empty(), "{}: {all_bad:#?}", file_system.name);
    total
}

#[test]
fn f1_a_power_cut_on_ext4_loses_nothing_that_was_acknowledged() {
    if can_record(&PROGRAMS) {
        assert!(cut(&FILE_SYSTEMS[0]) >= 300, "too few states to say anything");
    }
}

#[test]
fn f1_a_power_cut_on_ext4_that_hides_no_missing_fsync_loses_nothing_that_was_acknowledged() {
    if can_record(&PROGRAMS) {
        assert!(cut(&FILE_SYSTEMS[1]) >= 300, "too few states to say anything");
    }
}

#[test]
fn f1_a_power_cut_on_btrfs_loses_nothing_that_was_acknowledged() {
    if can_record(&PROGRAMS) {
        assert!(cut(&FILE_SYSTEMS[2]) >= 300, "too few states to say anything");
    }
}

/// The same store and the same checks, but the kernel is never asked to write anything out.
#[test]
fn f1_a_store_that_never_syncs_is_found_out_on_each_file_system() {
    if !can_record(&[&PROGRAMS[..], &["strace"]].concat()) {
        return;
    }
    let lazy = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "inject=fsync,fdatasync,syncfs:retval=0"];
    let place = Place::new().expect("a mount namespace");
    for file_system in &FILE_SYSTEMS {
        let scenario = &SCENARIOS[0];
        let recording = record(&place, file_system, scenario, &lazy).expect("recorded");
        let states = states(&recording.entries, |_| 10, file_system.unit, &mut Random(1));
        let bad = states
            .iter()
            .filter(|state| !faults(&place, file_system, scenario, &recording, state).is_empty())
            .count();
        println!(
            "{}: {bad} of {} states of a store that never syncs are bad",
            file_system.name,
            states.len()
        );
        assert!(bad > 0, "nobody noticed that {} was never synced", file_system.name);
    }
}
