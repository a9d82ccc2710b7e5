//! The one loop: look, plan, act, look again.
//!
//! It is level-triggered: it runs when a manifest was accepted and when a timer falls due, starts from what it sees, and
//! may be killed at any point.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bennu_api::{Activity, Happening, Phase};
use bennu_image_store::policy;
use bennu_manifests::model::{ImageRef, Manifest, Restart};
use bennu_planner::{Health, Reason, Seen, State, Step, WaitsFor, Wanted, plan};
use jiff::Timestamp;

use crate::carry_out::{carry_out, line};
use crate::core::{Core, chain};
use crate::fetch::{Staging, fetch};
use crate::foresee::Looked;
use crate::forward::Forwards;
use crate::health::Monitor;
use crate::ledger::Applicable;
use crate::update::{self, Advanced, UpdateError};
use crate::{kills, pins, volumes};

/// How often a host that is as it should be is looked at for drift.
const DRIFT: Duration = Duration::from_secs(30);

/// How often something on trial, or something that waits, is looked at.
const TRIAL: Duration = Duration::from_secs(5);

/// How soon after an action it is looked whether what was started still runs.
const SETTLE: Duration = Duration::from_secs(1);

/// The first wait after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two attempts.
const BACKOFF_LAST: Duration = Duration::from_secs(60);

/// How a round ended.
enum Round {
    /// Everything declared is there and runs, or nothing is declared yet.
    Whole {
        /// When the next job or snapshot is due, where there is one.
        next: Option<Timestamp>,
    },
    /// Something was done; look again soon.
    Acted,
    /// What is missing comes by itself: containers have to become healthy, or to end.
    Waiting,
    /// A newer manifest was accepted; begin again at once.
    Superseded,
    /// The machine is about to start again.
    Restarting,
    /// It did not work.
    Failed { generation: u64, reason: String },
}

/// Runs for as long as the daemon does.
pub async fn run(core: &Arc<Core>) {
    let mut failures = 0u32;
    loop {
        let round = round(core).await;
        core.now().activity = Activity::Idle;
        let wait = match round {
            Round::Superseded => Duration::ZERO,
            Round::Whole { next } if core.phase().await == Phase::Settled => until(next).min(DRIFT),
            // What is on trial is looked at often: a trial may be short.
            Round::Whole { next } => until(next).min(TRIAL),
            Round::Acted | Round::Waiting => SETTLE,
            // The daemon is ended on the way.
            Round::Restarting => DRIFT,
            Round::Failed { generation, reason } => {
                let wait = backoff(failures);
                failures = failures.saturating_add(1);
                note_failure(core, generation, reason, wait).await;
                wait
            }
        };
        if core.now().failure.is_none() {
            failures = 0;
        }
        tokio::select! {
            () = core.accepted.notified() => failures = 0,
            () = core.health.changed.notified() => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

/// How long it is until a moment; no time at all where it has passed.
fn until(moment: Option<Timestamp>) -> Duration {
    let left = moment.map(|moment| Duration::try_from(moment - Timestamp::now()).unwrap_or_default());
    left.unwrap_or(Duration::MAX)
}

fn backoff(failures: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << failures.min(16)).min(BACKOFF_LAST)
}

async fn note_failure(core: &Core, generation: u64, reason: String, wait: Duration) {
    let known = {
        let mut now = core.now();
        now.retry_at = Some(Timestamp::now() + wait);
        now.failure.replace(reason.clone()).as_deref() == Some(&reason)
    };
    if known {
        return;
    }
    if let Err(error) = core.ledger.lock().await.record(generation, Err(&reason)) {
        tracing::error!(error = chain(&error), "write down a failure");
    }
    core.events.add(Happening::Failed { generation, reason });
}

/// Fetches for what is pending, then makes the host what is active. While the one fails the other goes on.
async fn round(core: &Arc<Core>) -> Round {
    if core.phase().await == Phase::Restarting {
        return Round::Restarting;
    }
    let (mut active, pending) = core.generations().await;
    let (mut failed, mut activated) = (None, None);
    if let Some(pending) = pending {
        match stage(core, &pending).await {
            Ok(Advanced::Active(looked)) => (active, activated) = (Some(pending), Some(looked)),
            Ok(Advanced::Waits(why)) => core.updates().why = why,
            Ok(Advanced::GivenUp) => {}
            Ok(Advanced::Restarting) => return Round::Restarting,
            Err(Staging::Superseded) => return Round::Superseded,
            Err(Staging::Failed(reason)) => {
                failed = Some(Round::Failed { generation: pending.generation.number, reason });
            }
        }
    }
    let was_activated = activated.is_some();
    let kept = match active {
        Some(active) => keep(core, &active, activated).await,
        None => Round::Whole { next: None },
    };
    // All of it is held as what comes next until something else is to come; nobody waits for this.
    if was_activated && let Err(error) = pins::follow(core).await {
        tracing::error!(error = chain(&error), "pin what the generations need");
    }
    let judged = judged(core, &kept).await;
    update::release_lock(core).await;
    match judged {
        Ok(false) => failed.unwrap_or(kept),
        Ok(true) => Round::Acted,
        Err(error) => {
            let generation = core.generations().await.0.map_or(0, |active| active.generation.number);
            Round::Failed { generation, reason: chain(&error) }
        }
    }
}

/// Has the generation on trial judged by how the round went. While something is being done nothing is decided.
async fn judged(core: &Core, kept: &Round) -> Result<bool, UpdateError> {
    let whole = match kept {
        Round::Whole { .. } => Ok(()),
        Round::Failed { reason, .. } => Err(reason.clone()),
        Round::Acted | Round::Waiting => {
            Err(core.now().failure.clone().unwrap_or_else(|| "it is being set up".into()))
        }
        Round::Superseded | Round::Restarting => return Ok(false),
    };
    update::judge(core, whole).await
}

/// Everything that a generation needs is brought into the store and verified; then it is the active one. Nothing that
/// runs is touched.
async fn stage(core: &Core, pending: &Applicable) -> Result<Advanced, Staging> {
    let failed = |error: &dyn std::error::Error| Staging::Failed(chain(error));
    let number = pending.generation.number;
    // While it waits, everything for it is there and held.
    if core.updates().staged == Some(number) {
        return update::advance(core, pending).await.map_err(|e| failed(&e));
    }
    core.updates().phase = Phase::Staging;
    // Whatever it names has to be there and for this host, whether it is needed now or not.
    core.client(pending).map_err(|e| failed(&e))?;
    let seen = core.host.observe().await.map_err(|e| failed(&e))?;
    require_signatures(core, pending).await?;
    fetch(core, pending, &seen).await?;
    core.host.give_ids(&pending.manifest).map_err(|e| failed(&e))?;
    // What is active may be held by that name alone still.
    pins::follow(core).await.map_err(|e| failed(&e))?;
    core.store.pin(pins::NEXT, &pins::images(&pending.manifest)).map_err(|e| failed(&e))?;
    core.updates().staged = Some(number);
    update::advance(core, pending).await.map_err(|e| failed(&e))
}

/// Demands the signatures that the generation's own policies ask for, also of images that are in the store already: they
/// may have come without. What the active generation runs under the same policy was asked before, and is not asked again,
/// so that a registry is not needed for what does not change.
async fn require_signatures(core: &Core, pending: &Applicable) -> Result<(), Staging> {
    let failed = |error: &dyn std::error::Error| Staging::Failed(chain(error));
    let manifest = &pending.manifest;
    if manifest.image_policies.is_empty() {
        return Ok(());
    }
    let policies =
        policy::declared(manifest, core.ledger.lock().await.trust()).map_err(|error| failed(&error))?;
    let active = core.generations().await.0;
    let held = active.filter(|active| active.manifest.image_policies == manifest.image_policies);
    let asked = |image: &ImageRef| {
        held.as_ref().is_some_and(|held| held.manifest.images().any(|known| known == image))
    };
    let images: BTreeSet<&ImageRef> = manifest.images().collect();
    let client = core.client(pending).map_err(|e| failed(&e))?;
    for image in images.into_iter().filter(|image| !asked(image)) {
        let kept = core.store.signatures(&image.digest).map_err(|e| failed(&e))?;
        tokio::select! {
            signed = policy::require(&client, &policies, image, &kept) => drop(signed.map_err(|e| failed(&e))?),
            () = core.accepted.notified() => return Err(Staging::Superseded),
        }
    }
    Ok(())
}

/// Makes the host what the active generation says, as far as one look and one plan reach. That by which it was decided for counts as that
/// look while it is fresh.
async fn keep(core: &Arc<Core>, active: &Applicable, looked: Option<Box<Looked>>) -> Round {
    let generation = active.generation.number;
    let fail = |reason: String| Round::Failed { generation, reason };
    let mut hands = core.take_in_hand().await;
    let looked = looked.filter(|looked| looked.is_fresh(core.turns()));
    core.now().made = Some(active.manifest.clone());
    // Before anything is started, so that its first words are on their way, too.
    Forwards::follow(core, &active.manifest);
    kills::tell(core);
    // Told in the end: a journal that is not as declared holds up no container.
    let journal = core.host.keep_logs(&active.manifest).await;
    let mut seen = match looked {
        Some(looked) => looked.seen,
        None => match core.host.observe().await {
            Ok(seen) => seen,
            Err(error) => return fail(chain(&error)),
        },
    };
    Monitor::follow(core, &active.manifest, &seen);
    core.health.judge(&active.manifest, &mut seen);
    // What was in the store when the generation became active may have been found damaged since.
    match fetch(core, active, &seen).await {
        Ok(()) => {}
        Err(Staging::Superseded) => return Round::Superseded,
        Err(Staging::Failed(reason)) => return fail(reason),
    }
    let due = match core.jobs().look(&active.manifest, &seen, Timestamp::now()) {
        Ok(due) => due,
        Err(error) => return fail(format!("write down what became of jobs: {error}")),
    };
    let next_snapshot = volumes::tend(core, &mut hands, &active.manifest, &seen, Timestamp::now()).await;
    let next = [due.next, next_snapshot].into_iter().flatten().min();
    for (job, run) in due.ended {
        core.events.add(Happening::JobEnded { job, run });
    }
    let rejected = core.rejections().in_force(&active.manifest, generation);
    let (manifest, completed) = (&active.manifest, &due.completed);
    let wanted = Wanted { generation, manifest, rejected: &rejected, due: &due.now, completed };
    let mut plan = plan(wanted, &seen);
    plan.steps.retain(|step| !matches!(step, Step::Fetch { .. }));
    let steps = &plan.steps;
    let was_whole = core.now().settled == Some(generation);
    for step in steps.iter().filter(|step| was_whole && is_drift(step)) {
        core.events.add(Happening::Drift { what: line(step) });
    }
    if let Err(reason) = carry_out(core, active, steps).await {
        return fail(reason);
    }
    if let Some(waiting) = plan.waiting.iter().find(|waiting| waiting.waits_for == WaitsFor::Somebody) {
        return fail(format!("{}: {}", waiting.what, waiting.why));
    }
    if steps.iter().any(|step| !is_of_jobs(&active.manifest, step)) {
        core.now().converged = None;
        return Round::Acted;
    }
    if let Some(waiting) = plan.waiting.first() {
        let mut now = core.now();
        now.converged = None;
        now.failure = Some(format!("{}: {}", waiting.what, waiting.why));
        return Round::Waiting;
    }
    let journal = journal.err().map(|error| chain(&error));
    match unsettled(&active.manifest, &seen).or(journal) {
        Some(reason) => fail(reason),
        None => match whole(core, generation, &seen).await {
            Round::Whole { .. } if !steps.is_empty() => Round::Acted,
            Round::Whole { .. } => Round::Whole { next },
            other => other,
        },
    }
}

/// Whether a step puts right what was as it should be. Jobs come and go, and what fell ill by itself was changed by nobody.
fn is_drift(step: &Step) -> bool {
    let job =
        matches!(step, Step::Start { reason: Reason::Due, .. } | Step::Stop { reason: Reason::Finished, .. });
    !job && !matches!(step, Step::Restart { reason: Reason::Unhealthy, .. })
}

/// Whether a step is about a job: those come and go on a host that is as it should be.
fn is_of_jobs(manifest: &Manifest, step: &Step) -> bool {
    match step {
        Step::Start { instance, .. } | Step::Stop { instance, .. } => {
            manifest.jobs.contains_key(&instance.name)
        }
        _ => false,
    }
}

/// The first declared container that is there and does not run as it should.
fn unsettled(manifest: &Manifest, seen: &Seen) -> Option<String> {
    seen.instances.iter().find_map(|(i, s)| {
        let container = manifest.containers.get(&i.name)?;
        match (s.state, s.health) {
            (State::Restarting, _) => Some(format!(
                "container {i} ended, and is started again after a pause; `hostctl logs {}` may say why",
                i.name
            )),
            (State::Starting, _) => Some(format!("container {i} is being started")),
            (State::Failed, _) if container.restart != Restart::No => Some(format!(
                "container {i} ended {} times within a short time and is given up; `hostctl logs {}` may say why",
                container.restart_attempts + 1,
                i.name
            )),
            (State::Running, Health::Starting) => Some(format!("container {i} is not healthy yet")),
            (State::Running, Health::Unhealthy) => Some(format!("container {i} is not healthy")),
            (State::Running, _) if container.readiness.is_some() && !s.ready => {
                Some(format!("container {i} is not ready yet"))
            }
            (State::Running | State::Completed | State::Failed | State::Stopped, _) => None,
        }
    })
}

async fn whole(core: &Core, generation: u64, seen: &Seen) -> Round {
    let first = {
        let mut now = core.now();
        now.failure = None;
        now.retry_at = None;
        now.settled = Some(generation);
        now.converged.replace(generation) != Some(generation)
    };
    if first {
        if let Err(error) = core.ledger.lock().await.record(generation, Ok(Timestamp::now())) {
            tracing::error!(error = chain(&error), "write down that a generation converged");
        }
        update::settle_receipt(core, generation, seen).await;
        core.events.add(Happening::Converged { generation });
        collect(core).await;
    }
    Round::Whole { next: None }
}

/// Removes images that neither the active generation nor the one before it needs. While another generation is pending
/// nothing is removed: what has arrived for it is held by nothing yet.
async fn collect(core: &Core) {
    if core.generations().await.1.is_some() {
        return;
    }
    let store = core.store.clone();
    match tokio::task::spawn_blocking(move || store.gc()).await {
        Ok(Ok(freed)) => {
            tracing::info!(images = freed.images.len(), bytes = freed.bytes, "removed what nothing needs")
        }
        Ok(Err(error)) => tracing::warn!(error = chain(&error), "remove what nothing needs"),
        Err(error) => tracing::error!(%error, "remove what nothing needs"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_a_minute() {
        let waits: Vec<_> = [0, 1, 2, 5, 6, 7, u32::MAX].map(|n| backoff(n).as_secs()).into();
        assert_eq!(waits, [1, 2, 4, 32, 60, 60, 60]);
    }
}
