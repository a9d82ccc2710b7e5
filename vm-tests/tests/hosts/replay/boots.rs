//! Some of the states, chosen where it is most dangerous, are booted.

use std::path::{Path, PathBuf};
use std::process::Command;

use crash_tests::host::replay::{Judged, Recording};
use crash_tests::state::{Random, State, states};
use serde_json::Value;
use vm_tests::host::on_host_from;
use vm_tests::{Failure, Host, run};

use super::{BLOCK, SEED, Tally, plain, recorded, samples};
use crate::updates::status;

/// A place where the power goes, and what the host has to be in the end.
struct Place {
    name: &'static str,
    /// The step whose end was acknowledged last.
    after: usize,
    is_here: fn(&State, &Judged) -> bool,
    /// The generation.
    becomes: u64,
}

/// The tries that the entry of the new OS has left; `None` where there is none.
fn tries(judged: &Judged) -> Option<u32> {
    let mut names = judged.boot.entries.iter().map(|entry| entry.name);
    names.find(|name| name.generation == 2).and_then(|name| name.tries).map(|(left, _)| left)
}

fn on_the_way(judged: &Judged) -> bool {
    judged.found.pointer.attempt.as_ref().is_some_and(|attempt| attempt.os.is_some() && !attempt.arrived)
}

/// In the order of the log.
const PLACES: [Place; 8] = [
    Place {
        name: "the attempt is written down, and a write to the boot partition is on its way",
        after: 2,
        is_here: |state, judged| on_the_way(judged) && tries(judged).is_none() && !state.arrived.is_empty(),
        becomes: 2,
    },
    Place {
        name: "there is an entry for the new OS, and it was not started yet",
        after: 2,
        is_here: |_, judged| on_the_way(judged) && tries(judged) == Some(3),
        becomes: 2,
    },
    Place {
        name: "the loader has counted",
        after: 2,
        is_here: |_, judged| on_the_way(judged) && tries(judged) == Some(2),
        becomes: 2,
    },
    Place {
        name: "the new OS is kept, and its entry is still that of a trial",
        after: 2,
        is_here: |_, judged| judged.found.pointer.kept == Some(2) && tries(judged) == Some(2),
        becomes: 2,
    },
    Place {
        name: "a rejection is written down, and what was rejected is still active",
        after: 5,
        is_here: |_, judged| {
            judged.found.reached.rejected.contains(&3) && judged.found.pointer.active == Some(3)
        },
        becomes: 2,
    },
    Place {
        name: "what is rolled back is written down, and nothing has changed yet",
        after: 6,
        is_here: |_, judged| {
            judged.found.reached.rejected.contains(&2) && judged.found.pointer.active == Some(2)
        },
        becomes: 1,
    },
    Place {
        name: "the host is on its way back to the old OS",
        after: 6,
        is_here: |_, judged| judged.found.pointer.returning,
        becomes: 1,
    },
    Place {
        name: "the new trust document is in force, and nobody was told",
        after: 8,
        is_here: |_, judged| judged.found.reached.trust == 2,
        becomes: 1,
    },
];

#[test]
fn f07_hosts_whose_power_went_while_another_os_was_brought_boot_and_settle() -> Result<(), Failure> {
    boot(&PLACES[..2], "f07_hosts_whose_power_went_while_another_os_was_brought_boot_and_settle")
}

#[test]
fn f07_hosts_whose_power_went_in_a_trial_boot_and_settle() -> Result<(), Failure> {
    boot(&PLACES[2..5], "f07_hosts_whose_power_went_in_a_trial_boot_and_settle")
}

#[test]
fn f07_hosts_whose_power_went_on_the_way_back_boot_and_settle() -> Result<(), Failure> {
    boot(&PLACES[5..], "f07_hosts_whose_power_went_on_the_way_back_boot_and_settle")
}

fn boot(places: &[Place], name: &str) -> Result<(), Failure> {
    let (recording, fixture) = recorded()?;
    let directory = tempfile::tempdir()?;
    let disks = disks(&recording, places, directory.path())?;
    for (place, disk) in places.iter().zip(&disks) {
        println!("booting where {}", place.name);
        on_host_from(fixture.clone(), disk, name, |host| settles(host, place))?;
        std::fs::remove_file(disk)?;
    }
    Ok(())
}

/// Makes a disk of the first state at each place.
fn disks(recording: &Recording, places: &[Place], directory: &Path) -> Result<Vec<PathBuf>, Failure> {
    let mut chosen = states(&recording.entries, samples(recording, 4, 0), BLOCK, &mut Random(SEED));
    chosen.retain(|state| {
        let after = recording.acknowledged(state.issued);
        places.iter().any(|place| place.after == after)
    });
    let mut disks: Vec<Option<PathBuf>> = vec![None; places.len()];
    let (mut tally, mut failed) = (Tally::default(), None);
    let acknowledged = |state: &State| recording.acknowledged(state.issued);
    let judged = recording.judge(&chosen, acknowledged, |state, raw, judged| {
        tally.judged(state, &judged);
        for (number, place) in places.iter().enumerate() {
            let here = place.after == judged.acknowledged && (place.is_here)(state, &judged);
            if here && disks[number].is_none() {
                let disk = directory.join(format!("{number}.qcow2"));
                let made = run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(raw).arg(&disk));
                failed = made.err().or(failed.take());
                disks[number] = Some(disk);
            }
        }
    });
    judged.map_err(plain)?;
    assert!(tally.bad.is_empty(), "{:#?}", tally.bad);
    if let Some(error) = failed {
        return Err(error.into());
    }
    let found = disks.into_iter().zip(places);
    found
        .map(|(disk, place)| disk.ok_or_else(|| format!("no state was found where {}", place.name).into()))
        .collect()
}

/// The host becomes what it has to, without help, and has what it promised.
fn settles(host: &mut Host, place: &Place) -> Result<(), Failure> {
    let settled = |status: &Value| {
        status["update"]["phase"] == "settled"
            && status["converged"] == true
            && status["generation"]["number"] == place.becomes
            && status["update"]["kept"] == place.becomes
    };
    let status = status(host, "the host to settle", settled)?;
    let rejected: Vec<u64> = status["update"]["rejected"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|one| one["generation"].as_u64())
        .collect();
    let expected: &[u64] = match place.after {
        2 => &[],
        5 => &[3],
        _ => &[3, 2],
    };
    assert_eq!(rejected, expected, "{status}");
    if place.after >= 4 {
        let data = host.hostctl().run(&["exec", "one", "--", "cat", "/data/written"])?.done()?;
        assert_eq!(data.stdout, "written\n");
    }
    Ok(())
}
