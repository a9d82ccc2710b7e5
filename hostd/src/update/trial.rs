//! The trial of a generation: kept when it does its work, taken back when it does not.

use std::time::Duration;

use bennu_api::{Happening, Phase, RejectedGeneration};
use bennu_planner::update::{Attempt, Pointer, Rearm, TrialPolicy, TrialSeen, Verdict};
use jiff::Timestamp;

use super::clock::Trial;
use super::{UpdateError, baseline, contents, give_volumes_back, receipt, restart, write_entries};
use crate::core::Core;
use crate::os;

/// The pause before a generation is tried once more that did not do its work.
const PAUSE: Duration = Duration::from_secs(60);

/// What was at fault, with what is known of it.
#[derive(Debug)]
pub(super) enum Fault {
    /// The OS did not come up.
    Boot(Vec<String>),
    /// The generation did not do its work.
    Work(Vec<String>),
    /// Somebody did not want it.
    Nobody,
}

/// Decides on the generation on trial; `whole` is whether everything that it declares is there and does its work, or what is
/// not. Whether something was decided is returned.
///
/// # Errors
/// [`UpdateError`]; it is decided anew in the next round.
pub(crate) async fn judge(core: &Core, whole: Result<(), String>) -> Result<bool, UpdateError> {
    let (active, pointer) = {
        let ledger = core.ledger.lock().await;
        (ledger.active().cloned(), ledger.pointer().clone())
    };
    let Some(active) = active else { return Ok(false) };
    let generation = active.generation.number;
    // A host on its way back runs on an OS that is not its generation's.
    if let (Some(root), Ok(()), false) = (core.running_root(), &whole, pointer.returning) {
        core.ledger.lock().await.runs_on(generation, root)?;
    }
    let Some(attempt) = pointer.on_trial().cloned() else {
        // The first generation of a host has nothing to go back to, and is kept as soon as it is whole.
        if whole.is_ok() && pointer.kept.is_none() {
            keep(core, generation).await?;
            return Ok(true);
        }
        return Ok(false);
    };
    let good = match whole {
        Ok(()) => match core.host.observe().await {
            Ok(seen) => baseline::missing(&attempt.baseline, &seen).await.map_or(Ok(()), Err),
            Err(error) => Err(crate::core::chain(&error)),
        },
        Err(why) => Err(why),
    };
    let (running_for, good_for) = core.updates().clock.look(Trial::of(&attempt), good.is_ok());
    let policy = TrialPolicy::of(active.manifest.update.as_ref());
    let confirm_left = attempt.confirm_by.map(|by| left(by, policy.confirm_within, running_for));
    let confirmed = attempt.confirmed;
    let good = good.map(|()| good_for.unwrap_or_default());
    match bennu_planner::update::judge(&policy, &TrialSeen { running_for, good, confirmed, confirm_left }) {
        Verdict::Wait { why } => {
            let mut updates = core.updates();
            (updates.phase, updates.why) = (Phase::Trial, why);
            Ok(false)
        }
        Verdict::Keep => keep(core, generation).await.map(|()| true),
        Verdict::Reject { why } => take_back(core, attempt, &why).await.map(|()| true),
    }
}

/// The daemon has started, perhaps in the middle of a trial. Where it ended too often in it the generation is taken back, before
/// anything is done for it; whether the machine is about to start again is returned.
///
/// # Errors
/// [`UpdateError`]; it is decided anew at the next start.
pub(super) async fn started(core: &Core) -> Result<bool, UpdateError> {
    let Some(attempt) = core.ledger.lock().await.pointer().on_trial().cloned() else { return Ok(false) };
    let ends = core.updates().clock.started(Trial::of(&attempt));
    let Some(why) = bennu_planner::update::restless(ends) else { return Ok(false) };
    let restarts = core.runs_another_os_than_was_kept().await;
    os::with_time_for(take_back(core, attempt, &why)).await?;
    Ok(restarts)
}

/// How long somebody has left to confirm: by the clock on the wall, and by the one that never jumps.
fn left(by: Timestamp, within: Option<Duration>, running_for: Duration) -> Duration {
    let by_wall = Duration::try_from(by - Timestamp::now()).unwrap_or_default();
    within.map_or(by_wall, |within| by_wall.min(within.saturating_sub(running_for)))
}

async fn keep(core: &Core, generation: u64) -> Result<(), UpdateError> {
    {
        let mut ledger = core.ledger.lock().await;
        if let Some(root) = core.running_root() {
            ledger.runs_on(generation, root)?;
        }
        ledger.point(Pointer::keeping)?;
    }
    core.settled();
    core.events.add(Happening::Kept { generation });
    crate::pins::follow(core).await.map_err(super::NotAnOs::Store)?;
    // What it was kept for is on disk; entries that can't be written now are written at the next start.
    if let Err(error) = write_entries(core, Rearm::Running).await {
        tracing::error!(error = crate::core::chain(&error), "write the boot entries");
    }
    Ok(())
}

/// Takes the generation on trial back; it is tried again where its manifest asks for more than one attempt.
async fn take_back(core: &Core, attempt: Attempt, why: &str) -> Result<(), UpdateError> {
    let generation = attempt.generation;
    let attempts = {
        let ledger = core.ledger.lock().await;
        ledger.active().and_then(|active| active.manifest.update.as_ref().map(|u| u.attempts)).unwrap_or(1)
    };
    let tries = attempt.tries + 1;
    let restarts = core.runs_another_os_than_was_kept().await;
    let kept = core.ledger.lock().await.pointer().kept.unwrap_or(generation);
    receipt::of_return(core, generation, kept, restarts, why).await;
    if tries < attempts {
        let not_before = Timestamp::now().checked_add(PAUSE).ok();
        tracing::warn!(generation, tries, why, "taken back, to be tried again");
        give_volumes_back(core, generation, kept).await?;
        let again = Attempt { tries, not_before, confirmed: false, ..attempt };
        core.ledger.lock().await.point(|pointer| pointer.put_off(again, restarts))?;
    } else {
        let evidence = core.host.evidence().await;
        reject(core, generation, why, Fault::Work(evidence)).await?;
        give_volumes_back(core, generation, kept).await?;
        core.ledger.lock().await.point(|pointer| pointer.taken_back(restarts))?;
    }
    leave(core, generation, why, restarts).await
}

/// Goes on with what was kept: at once, or after the machine has started again.
async fn leave(core: &Core, generation: u64, why: &str, restarts: bool) -> Result<(), UpdateError> {
    if !restarts {
        core.settled();
    }
    // Another generation is to be whole now.
    core.now().converged = None;
    core.events.add(Happening::TakenBack { generation, reason: why.to_owned() });
    write_entries(core, Rearm::Running).await?;
    if restarts { restart(core).await } else { Ok(()) }
}

/// Writes down that a generation was rejected.
pub(super) async fn reject(core: &Core, generation: u64, why: &str, fault: Fault) -> Result<(), UpdateError> {
    let applicable = core.ledger.lock().await.generation(generation)?;
    let Some(applicable) = applicable else { return Ok(()) };
    let manifest = &applicable.manifest;
    let (os, evidence) = match fault {
        Fault::Boot(evidence) => (manifest.os_image().map(|image| image.digest), evidence),
        Fault::Work(evidence) => (None, evidence),
        Fault::Nobody => (None, Vec::new()),
    };
    let rejected = RejectedGeneration {
        generation,
        serial: applicable.generation.serial,
        manifest: applicable.generation.manifest,
        contents: contents(manifest),
        os,
        when: Timestamp::now(),
        why: why.to_owned(),
        evidence,
    };
    core.updates().rejected.add(rejected).map_err(UpdateError::Rejected)?;
    core.ledger.lock().await.record(generation, Err(&format!("taken back: {why}")))?;
    Ok(())
}

/// Somebody says that the generation on trial is good. `None` where none is on trial.
///
/// # Errors
/// Where it can't be written down.
pub async fn confirm(core: &Core) -> Result<Option<u64>, UpdateError> {
    let mut ledger = core.ledger.lock().await;
    let Some(attempt) = ledger.pointer().on_trial().cloned() else {
        return Ok(None);
    };
    let generation = attempt.generation;
    ledger.point(|pointer| pointer.attempting(Attempt { confirmed: true, ..attempt }))?;
    drop(ledger);
    core.accepted.notify_one();
    Ok(Some(generation))
}

/// Somebody wants the generation before back: what is on trial is taken back, or else what was kept is given up. `None` where
/// there is none to go back to.
///
/// # Errors
/// [`UpdateError`]
pub async fn roll_back(core: &Core) -> Result<Option<(u64, u64)>, UpdateError> {
    let why = "somebody ran `hostctl rollback`";
    let (pointer, active_root, to_root) = {
        let ledger = core.ledger.lock().await;
        let pointer = ledger.pointer().clone();
        let to = pointer.way_back().and_then(|number| ledger.root_of(number));
        (pointer, core.running_root(), to)
    };
    let restarts = to_root.is_some() && to_root != active_root;
    if restarts {
        // Before the ledger names what was before, which is for the machine after it has started again.
        core.updates().phase = Phase::Restarting;
    }
    let gone = go_back(core, &pointer, restarts, why).await;
    if restarts && !matches!(gone, Ok(Some(_))) {
        core.settled();
    }
    core.accepted.notify_one();
    gone
}

/// Goes back to the generation before, where there is one.
async fn go_back(
    core: &Core,
    pointer: &Pointer,
    restarts: bool,
    why: &str,
) -> Result<Option<(u64, u64)>, UpdateError> {
    let (from, to) = match (&pointer.attempt, pointer.kept, pointer.previous, pointer.active) {
        (Some(attempt), Some(kept), ..) => {
            receipt::of_return(core, attempt.generation, kept, restarts, why).await;
            reject(core, attempt.generation, why, Fault::Nobody).await?;
            give_volumes_back(core, attempt.generation, kept).await?;
            core.ledger.lock().await.point(|pointer| pointer.taken_back(restarts))?;
            (attempt.generation, kept)
        }
        (None, _, Some(previous), Some(active)) => {
            receipt::of_return(core, active, previous, restarts, why).await;
            reject(core, active, why, Fault::Nobody).await?;
            give_volumes_back(core, active, previous).await?;
            core.ledger.lock().await.point(|pointer| pointer.fallen_back(previous, restarts))?;
            (active, previous)
        }
        _ => return Ok(None),
    };
    leave(core, from, why, restarts).await?;
    Ok(Some((from, to)))
}
