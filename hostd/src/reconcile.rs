//! The one loop: look, plan, act, look again.
//!
//! It is level-triggered: it runs when a manifest was accepted and when a timer falls due, starts from what it sees, and
//! may be killed at any point.

use std::collections::BTreeSet;
use std::time::Duration;

use bennu_api::{Activity, Happening};
use bennu_image_store::policy;
use bennu_manifests::model::{ImageRef, Manifest};
use bennu_planner::{Seen, State, Step, Wanted, plan};
use jiff::Timestamp;

use crate::core::{Core, chain};
use crate::fetch::{Staging, fetch};
use crate::host::StartInstance;
use crate::image_policy;
use crate::ledger::Applicable;
use crate::pins;

/// How often a host that is as it should be is looked at for drift.
const DRIFT: Duration = Duration::from_secs(30);

/// How soon after an action it is looked whether what was started still runs.
const SETTLE: Duration = Duration::from_secs(1);

/// The first wait after a failure; it doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// The longest wait between two attempts.
const BACKOFF_LAST: Duration = Duration::from_secs(60);

/// How a round ended.
enum Round {
    /// Everything declared is there and runs, or nothing is declared yet.
    Whole,
    /// Something was done; look again soon.
    Acted,
    /// A newer manifest was accepted; begin again at once.
    Superseded,
    /// It did not work.
    Failed { generation: u64, reason: String },
}

/// Runs for as long as the daemon does.
pub async fn run(core: &Core) {
    let mut failures = 0u32;
    loop {
        let round = round(core).await;
        core.now().activity = Activity::Idle;
        let wait = match round {
            Round::Superseded => Duration::ZERO,
            Round::Whole => DRIFT,
            Round::Acted => SETTLE,
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
            () = tokio::time::sleep(wait) => {}
        }
    }
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
async fn round(core: &Core) -> Round {
    let (mut active, pending) = core.generations().await;
    let mut failed = None;
    if let Some(pending) = pending {
        match stage(core, &pending).await {
            Ok(()) => active = Some(pending),
            Err(Staging::Superseded) => return Round::Superseded,
            Err(Staging::Failed(reason)) => {
                failed = Some(Round::Failed { generation: pending.generation.number, reason });
            }
        }
    }
    let kept = match active {
        Some(active) => keep(core, &active).await,
        None => Round::Whole,
    };
    failed.unwrap_or(kept)
}

/// Everything that a generation needs is brought into the store and verified; then it is the active one. Nothing that
/// runs is touched.
async fn stage(core: &Core, pending: &Applicable) -> Result<(), Staging> {
    let failed = |error: &dyn std::error::Error| Staging::Failed(chain(error));
    let number = pending.generation.number;
    // Whatever it names has to be there and for this host, whether it is needed now or not.
    core.client(pending).map_err(|e| failed(&e))?;
    let seen = core.host.observe().await.map_err(|e| failed(&e))?;
    require_signatures(core, pending).await?;
    fetch(core, pending, &seen).await?;
    let mut ledger = core.ledger.lock().await;
    pins::advance(&core.store, ledger.active(), ledger.history(), &pending.manifest)
        .map_err(|e| failed(&e))?;
    ledger.activate(number).map_err(|e| failed(&e))
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
        image_policy::all(manifest, core.ledger.lock().await.trust()).map_err(|error| failed(&error))?;
    let active = core.generations().await.0;
    let held = active.filter(|active| active.manifest.image_policies == manifest.image_policies);
    let asked = |image: &ImageRef| {
        held.as_ref().is_some_and(|held| held.manifest.containers.values().any(|c| c.image == *image))
    };
    let images: BTreeSet<&ImageRef> =
        manifest.containers.values().map(|container| &container.image).collect();
    let client = core.client(pending).map_err(|e| failed(&e))?;
    for image in images.into_iter().filter(|image| !asked(image)) {
        tokio::select! {
            signed = policy::require(&client, &policies, image) => drop(signed.map_err(|e| failed(&e))?),
            () = core.accepted.notified() => return Err(Staging::Superseded),
        }
    }
    Ok(())
}

/// Makes the host what the active generation says, as far as one look and one plan reach.
async fn keep(core: &Core, active: &Applicable) -> Round {
    let generation = active.generation.number;
    let fail = |reason: String| Round::Failed { generation, reason };
    let seen = match core.host.observe().await {
        Ok(seen) => seen,
        Err(error) => return fail(chain(&error)),
    };
    // What was in the store when the generation became active may have been found damaged since.
    match fetch(core, active, &seen).await {
        Ok(()) => {}
        Err(Staging::Superseded) => return Round::Superseded,
        Err(Staging::Failed(reason)) => return fail(reason),
    }
    let plan = plan(Wanted { generation, manifest: &active.manifest }, &seen);
    let steps: Vec<_> = plan.steps.iter().filter(|step| !matches!(step, Step::Fetch { .. })).collect();
    let was_whole = core.now().converged == Some(generation);
    for (index, step) in steps.iter().enumerate() {
        if was_whole {
            core.events.add(Happening::Drift { what: step.to_string().trim_start().to_owned() });
        }
        let line = step.to_string().trim_start().to_owned();
        core.now().activity = Activity::Applying { step: line.clone(), number: index + 1, of: steps.len() };
        if let Err(reason) = apply(core, active, step).await {
            return fail(format!("{line}: {reason}"));
        }
        core.events.add(Happening::Applied { step: Box::new((*step).clone()) });
    }
    if let Some(waiting) = plan.waiting.first() {
        return fail(format!("{}: {}", waiting.what, waiting.why));
    }
    if !steps.is_empty() {
        core.now().converged = None;
        return Round::Acted;
    }
    match unsettled(&active.manifest, &seen) {
        Some(reason) => fail(reason),
        None => whole(core, generation).await,
    }
}

/// The first declared container that is there and does not run as it should.
fn unsettled(manifest: &Manifest, seen: &Seen) -> Option<String> {
    seen.instances.iter().filter(|(i, _)| manifest.containers.contains_key(&i.name)).find_map(
        |(i, s)| match s.state {
            State::Restarting => Some(format!(
                "container {i} ended, and is started again after a pause; `hostctl logs {}` may say why",
                i.name
            )),
            State::Starting => Some(format!("container {i} is being started")),
            State::Running | State::Completed | State::Failed | State::Stopped => None,
        },
    )
}

async fn whole(core: &Core, generation: u64) -> Round {
    let first = {
        let mut now = core.now();
        now.failure = None;
        now.retry_at = None;
        now.converged.replace(generation) != Some(generation)
    };
    if first {
        if let Err(error) = core.ledger.lock().await.record(generation, Ok(Timestamp::now())) {
            tracing::error!(error = chain(&error), "write down that a generation converged");
        }
        core.events.add(Happening::Converged { generation });
        collect(core).await;
    }
    Round::Whole
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

async fn apply(core: &Core, active: &Applicable, step: &Step) -> Result<(), String> {
    let host = &core.host;
    let said = |error: &dyn std::error::Error| chain(error);
    match step {
        Step::Fetch { .. } => Ok(()),
        Step::CreateVolume { volume, life } => host.create_volume(volume, *life).await.map_err(|e| said(&e)),
        Step::DestroyVolume { volume } => host.destroy_volume(volume).await.map_err(|e| said(&e)),
        Step::CreateNetwork { network, spec } => {
            host.create_network(network, spec).await.map_err(|e| said(&e))
        }
        Step::RemoveNetwork { network, .. } => host.remove_network(network).await.map_err(|e| said(&e)),
        Step::Stop { instance, .. } => host.stop(instance).await.map_err(|e| said(&e)),
        Step::Publish { ports } => host.publish(ports).await.map_err(|e| said(&e)),
        Step::Start { instance, image, fingerprint, addresses, .. } => {
            let Some(container) = active.manifest.containers.get(&instance.name) else {
                return Err("the plan names a container that the manifest does not".into());
            };
            let found = core.store.image(&image.digest).map_err(|e| said(&e))?;
            let image = found.ok_or("its image is not in the store any more")?;
            let seen = host.observe().await.map_err(|e| said(&e))?;
            let start = StartInstance {
                instance,
                container,
                image: &image,
                fingerprint: *fingerprint,
                addresses,
                networks: &seen.networks,
                volumes: &active.manifest.volumes,
            };
            host.start(&start).await.map_err(|e| said(&e))
        }
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
