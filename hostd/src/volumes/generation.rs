//! Volumes that go back with their generation (`life = "snapshot"`).

use std::collections::BTreeSet;

use bennu_api::{HistoryEntry, Replaced, Why};
use bennu_manifests::model::{Manifest, Name, VolumeLife};
use jiff::Timestamp;
use tokio::sync::MutexGuard;

use super::change::{Hands, swap};
use super::due::{left_behind, left_by};
use super::scheduled::take;
use crate::core::{Core, chain};
use crate::ledger::Applicable;

/// Keeps the state in which the active generation leaves its volumes, before another generation becomes active. Containers
/// run meanwhile: it is what a power cut at this moment would leave.
///
/// # Errors
/// Where a snapshot can't be taken, in words. Then the other generation must not become active: there would be no way back.
pub(crate) async fn before_activation(
    core: &Core,
    active: &Applicable,
    pending: &Manifest,
    history: &[HistoryEntry],
    now: Timestamp,
) -> Result<(), String> {
    let names = going_back(&active.manifest).chain(going_back(pending)).collect::<BTreeSet<_>>();
    if names.is_empty() {
        return Ok(());
    }
    let there = core.host.observe().await.map_err(|error| chain(&error))?.volumes;
    let keep_from = keep_from(active.generation.number, history);
    for name in names.into_iter().filter(|name| there.contains_key(*name)) {
        let said = |error| format!("keep volume {name} as it is: {}", chain(&error));
        take(core, name, now, Why::Generation(active.generation.number)).await.map_err(said)?;
        let taken = core.host.snapshots(name).map_err(said)?;
        for useless in left_behind(&taken, keep_from) {
            // One too many does no harm; it goes the next time.
            if let Err(error) = core.host.remove_snapshot(name, useless).await {
                super::scheduled::failed(core, name, &error);
            }
        }
    }
    Ok(())
}

/// Puts every volume that goes back with its generation into the state in which generation `number` left it, and says
/// which did. Whatever uses them is stopped first. What they held before is kept as what the active generation left, by the
/// same rules. A volume that the generation did not know stays as it is.
///
/// # Errors
/// Where something does not stop or a volume can't be put back, in words. It can be repeated.
pub async fn restore_to_generation(
    core: &Core,
    hands: &MutexGuard<'_, Hands>,
    active: &Applicable,
    number: u64,
    now: Timestamp,
) -> Result<Vec<Replaced>, String> {
    let mut replaced = Vec::new();
    for name in going_back(&active.manifest) {
        let said = |error| format!("put volume {name} back: {}", chain(&error));
        let taken = core.host.snapshots(name).map_err(said)?;
        let Some(snapshot) = left_by(&taken, number) else { continue };
        let prepared = core.host.prepare_snapshot(name, snapshot).await.map_err(said)?;
        let why = Why::Generation(active.generation.number);
        let one = swap(core, hands, name, prepared, now, why).await;
        replaced.push(one.map_err(|problem| format!("put volume {name} back: {}", problem.message))?);
    }
    Ok(replaced)
}

fn going_back(manifest: &Manifest) -> impl Iterator<Item = &Name> {
    let going = manifest.volumes.iter().filter(|(_, v)| v.life == VolumeLife::Snapshot && !v.destroy);
    going.map(|(name, _)| name)
}

/// The generation that a rollback leads to: the last one up to the active one that was whole.
fn keep_from(active: u64, history: &[HistoryEntry]) -> u64 {
    let good = history.iter().filter(|entry| entry.converged.is_some()).map(|entry| entry.generation.number);
    good.filter(|number| *number <= active).max().unwrap_or(active)
}
