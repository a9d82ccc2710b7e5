//! Whether a host whose power went has what it promised, and becomes the old or the new generation.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bennu_manifests::HostFacts;
use bennu_manifests::model::{Digest, Name};
use bennu_planner::update::Pointer;
use hostd::ledger::Ledger;
use hostd::provision::Identity;
use hostd::update::Updates;

use super::boot::{BootPartition, Machine};
use super::promise::Promise;
use super::records;
use crate::scenario::Failure;

/// The stream of the manifests.
const STREAM: &str = "test";
/// What was written to the volume `data`, and how the file is called.
const DATA: (&str, &str) = ("written", "written\n");

/// What was found that may never be less again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reached {
    /// The highest serial.
    pub serial: u64,
    /// The version of the trust document in force.
    pub trust: u64,
    /// What was rejected.
    pub rejected: BTreeSet<u64>,
    /// What was accepted.
    pub accepted: BTreeSet<u64>,
}

impl Reached {
    fn lost(&self, later: &Self) -> bool {
        later.serial < self.serial
            || later.trust < self.trust
            || !later.rejected.is_superset(&self.rejected)
            || !later.accepted.is_superset(&self.accepted)
    }
}

/// A host whose power went.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Found {
    /// What may never be less again.
    pub reached: Reached,
    /// Which generations count.
    pub pointer: Pointer,
    /// What is wrong, in words.
    pub faults: Vec<String>,
}

/// Looks at the state partition, mounted at `state`, of a machine with this boot partition. `reached` is what was there at the last
/// flush.
///
/// # Errors
/// Where something can't be read that has to be.
pub fn judge(
    state: &Path,
    boot: &BootPartition,
    promise: &Promise,
    reached: &Reached,
) -> Result<Found, Failure> {
    let identity = Identity::load(state, None)?;
    let facts = HostFacts { arch: hostd::os::arch().to_owned(), labels: identity.provision.labels.clone() };
    let ledger = Ledger::open(&state.join("ledger"), &identity.trust, &facts)?;
    let run = tempfile::tempdir()?;
    let updates = Updates::open(&state.join("ledger"), run.path())?;
    let store = state.join("store");
    let here = Reached {
        serial: ledger.floors().serials.get(&STREAM.parse::<Name>()?).map_or(0, |(serial, _)| *serial),
        trust: ledger.trust().version,
        rejected: updates.rejected.all().iter().map(|known| known.generation).collect(),
        accepted: ledger.history().map(|entry| entry.generation.number).collect(),
    };
    let mut faults = promised(&here, promise);
    if reached.lost(&here) {
        faults.push(format!("{reached:?} was there, and now {here:?} is"));
    }
    faults.extend(records::broken(&store)?.iter().map(|record| format!("{record} is broken")));
    if promise.written && !is_written(&state.join("volumes/data")) {
        faults.push("what was written to a volume is lost".to_owned());
    }
    come_up(&ledger, &here, &store, boot, promise, &mut faults)?;
    Ok(Found { reached: here, pointer: ledger.pointer().clone(), faults })
}

fn promised(found: &Reached, promise: &Promise) -> Vec<String> {
    let mut faults = Vec::new();
    let mut expect = |holds: bool, what: String| faults.extend((!holds).then_some(what));
    expect(promise.serial.contains(&found.serial), format!("the serial is {}", found.serial));
    expect(promise.trust.contains(&found.trust), format!("the trust document is version {}", found.trust));
    let lost: Vec<_> = promise.rejected.iter().filter(|number| !found.rejected.contains(number)).collect();
    expect(lost.is_empty(), format!("it is forgotten that {lost:?} were rejected"));
    let known = |number: &&u64| promise.rejected.contains(number) || promise.rejecting == Some(**number);
    let wrong: Vec<_> = found.rejected.iter().filter(|number| !known(number)).collect();
    expect(wrong.is_empty(), format!("{wrong:?} were rejected by nobody"));
    faults
}

/// Boots the machine as the loader and the daemon would, and looks what it becomes.
fn come_up(
    ledger: &Ledger,
    found: &Reached,
    store: &Path,
    boot: &BootPartition,
    promise: &Promise,
    faults: &mut Vec<String>,
) -> Result<(), Failure> {
    let pointer = ledger.pointer().clone();
    let roots: BTreeMap<u64, Digest> =
        ledger.history().filter_map(|entry| Some((entry.generation.number, entry.root?))).collect();
    let may_be = |allowed: &[u64], generation: Option<u64>| allowed.contains(&generation.unwrap_or(0));
    if !may_be(promise.kept, pointer.kept) {
        faults.push(format!("generation {:?} is what was kept", pointer.kept));
    }
    let tried = pointer.attempt.as_ref().and_then(|attempt| attempt.os);
    let mut machine = Machine { pointer, rejected: found.rejected.clone(), roots, boot: boot.clone() };
    let running = match machine.boot() {
        Ok(running) => running,
        Err(why) => {
            faults.push(why);
            return Ok(());
        }
    };
    let active = machine.pointer.active;
    if !may_be(promise.active, active) {
        faults.push(format!("it comes up as generation {active:?}"));
    }
    let root = active.and_then(|number| machine.roots.get(&number).copied()).or(tried);
    if root.is_some_and(|root| root != running) {
        faults.push(format!("it comes up as generation {active:?} on {running}, not on {root:?}"));
    }
    if !store.join("blobs/sha256").join(running.hex()).exists() {
        faults.push(format!("the root {running} is not in the store"));
    }
    if let Some(active) = active
        && let Some(generation) = ledger.generation(active)?
    {
        for image in generation.manifest.images() {
            if !records::has_image(store, &image.digest)? {
                faults.push(format!("an image of generation {active} is lost: {}", image.digest));
            }
        }
    }
    Ok(())
}

/// Whether the data is somewhere in the volume.
fn is_written(volume: &Path) -> bool {
    let Ok(list) = fs::read_dir(volume) else { return false };
    list.flatten().any(|item| {
        let path = item.path();
        match item.file_name() == DATA.0 {
            true => fs::read_to_string(path).is_ok_and(|text| text == DATA.1),
            false => is_written(&path),
        }
    })
}
