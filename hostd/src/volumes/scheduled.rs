//! Snapshots by calendar.

use std::time::{Duration, Instant};

use bennu_api::{Happening, SnapshotName, Why};
use bennu_manifests::model::{Manifest, Name, Snapshots};
use bennu_planner::Seen;
use jiff::Timestamp;

use super::change::Hands;
use super::due::due;
use crate::calendar::zone;
use crate::core::{Core, chain};
use crate::host::VolumeError;

/// How often the counting of volumes is looked after.
const COUNTING: Duration = Duration::from_secs(600);

/// Takes and removes the snapshots that are due, and says when the next one is. What fails is told and tried again at the
/// next look: no container has to wait for it.
pub(crate) async fn tend(
    core: &Core,
    hands: &mut Hands,
    manifest: &Manifest,
    seen: &Seen,
    now: Timestamp,
) -> Option<Timestamp> {
    if hands.tended.is_none_or(|tended| tended.elapsed() > COUNTING) {
        hands.tended = Some(Instant::now());
        core.host.tend_volumes().await;
    }
    let mut next: Option<Timestamp> = None;
    for (name, volume) in &manifest.volumes {
        let Some(schedule) = volume.snapshots.as_ref().filter(|_| !volume.destroy) else { continue };
        if !seen.volumes.contains_key(name) {
            continue;
        }
        match one(core, name, schedule, zone(manifest), now).await {
            Ok(at) => next = [next, at].into_iter().flatten().min(),
            Err(error) => failed(core, name, &error),
        }
    }
    next
}

async fn one(
    core: &Core,
    name: &Name,
    schedule: &Snapshots,
    zone: &str,
    now: Timestamp,
) -> Result<Option<Timestamp>, VolumeError> {
    let due = due(schedule, zone, &core.host.snapshots(name)?, now);
    if due.take {
        take(core, name, now, Why::Schedule).await?;
    }
    for snapshot in due.remove {
        core.host.remove_snapshot(name, snapshot).await?;
    }
    Ok(due.next)
}

pub(super) async fn take(
    core: &Core,
    name: &Name,
    now: Timestamp,
    why: Why,
) -> Result<SnapshotName, VolumeError> {
    let snapshot = core.host.take_snapshot(name, now, why).await?;
    core.events.add(Happening::SnapshotTaken { volume: name.clone(), snapshot });
    Ok(snapshot)
}

pub(super) fn failed(core: &Core, name: &Name, error: &VolumeError) {
    let reason = chain(error);
    tracing::warn!(volume = %name, "{reason}");
    core.events.add(Happening::SnapshotFailed { volume: name.clone(), reason });
}
