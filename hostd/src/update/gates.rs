//! Asking the gates: what each of them needs to know is gathered here, and decided in [`bennu_planner::update`].

use std::path::Path;

use bennu_planner::update::{
    Attempt, Gate, GateFacts, Lock, Room, gates, may_ask_for_lock, only_lock_is_closed,
};
use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::{OsImage, UpdateError, boot_rooms, fleet_lock};
use crate::core::Core;
use crate::disk;
use crate::ledger::Applicable;

/// Below the directory of the daemon: each file in it says no to changes, and its name says who does.
const INHIBITORS: &str = "inhibit";
/// How many of their names are told.
const MAX_INHIBITORS: usize = 16;

/// What the gates are asked about.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// What is to become active.
    pub pending: &'a Applicable,
    /// How it was tried before.
    pub before: Option<&'a Attempt>,
    /// Whether the machine has to start again for it.
    pub restarts: bool,
    /// The OS that it is started with then.
    pub starts: Option<OsImage>,
}

/// Asks all gates, and takes the lock where it is the only one that is left. In the end is said what keeps the host from changing, for a
/// person.
///
/// # Errors
/// Where it can't be looked at what another OS would be started from.
pub(super) async fn pass(core: &Core, facts: &Facts<'_>) -> Result<Result<(), String>, UpdateError> {
    let lock = core.updates().lock.clone();
    let mut answers = ask(core, facts, &lock, &[]).await;
    let mut rooms = Vec::new();
    // Looked at when nothing else is in the way: it takes a mount, and a host may wait for days.
    if let Some(os) = facts.starts.as_ref().filter(|_| only_lock_is_closed(&answers)) {
        rooms = boot_rooms(core, os)?;
        answers = ask(core, facts, &lock, &rooms).await;
    }
    if may_ask_for_lock(&answers, Timestamp::now()) {
        let lock = fleet_lock::take(core, facts.pending).await;
        core.updates().lock = lock.clone();
        answers = ask(core, facts, &lock, &rooms).await;
    }
    let closed: Vec<String> =
        answers.iter().filter(|gate| !gate.open).map(|gate| format!("{}: {}", gate.gate, gate.why)).collect();
    core.updates().gates = answers;
    Ok(if closed.is_empty() { Ok(()) } else { Err(closed.join("; ")) })
}

async fn ask(core: &Core, facts: &Facts<'_>, lock: &Lock, boot_rooms: &[Room]) -> Vec<Gate> {
    let inhibitors = inhibitors(core.host.run_directory());
    let generation = facts.pending.generation.number;
    gates(&GateFacts {
        updates: facts.pending.manifest.update.as_ref(),
        now: Timestamp::now(),
        runs: core.ledger.lock().await.active().is_some(),
        restarts: facts.restarts,
        free_space: disk::free(core.store.root()),
        boot_rooms,
        approved: core.updates().approved.contains(&generation),
        inhibitors: &inhibitors,
        attempts: facts.before.map_or(0, |before| before.tries),
        not_before: facts.before.and_then(|before| before.not_before),
        lock,
        zones: |name| TimeZone::get(name).ok(),
    })
}

/// Names of the files that say no.
fn inhibitors(run: &Path) -> Vec<String> {
    let Ok(list) = std::fs::read_dir(run.join(INHIBITORS)) else { return Vec::new() };
    let mut names: Vec<_> =
        list.take(MAX_INHIBITORS).flatten().map(|f| f.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_file_in_the_directory_of_inhibitors_says_no() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(inhibitors(dir.path()), Vec::<String>::new());
        std::fs::create_dir(dir.path().join(INHIBITORS)).expect("made");
        std::fs::write(dir.path().join(INHIBITORS).join("backup"), "").expect("written");
        assert_eq!(inhibitors(dir.path()), ["backup"]);
    }
}
