//! Other data in a volume's place.

use std::io;
use std::sync::Arc;
use std::time::Instant;

use bennu_api::{Happening, Problem, ProblemKind, Replaced, SnapshotName, Why};
use bennu_manifests::model::{Manifest, Name};
use futures_util::Stream;
use jiff::Timestamp;
use tokio::sync::MutexGuard;

use super::{of_data, of_volume};
use crate::core::{Core, failed};
use crate::host::Prepared;

/// Held by whoever starts or stops containers or swaps volumes.
#[derive(Debug, Default)]
pub struct Hands {
    /// When the counting of volumes was looked after last.
    pub(super) tended: Option<Instant>,
}

/// Puts a volume back into the state of a snapshot. The containers that use it are stopped, and started again by the
/// reconciler.
///
/// # Errors
/// Where there is no such volume or snapshot, a container does not stop, or the file system says no.
pub async fn restore(core: &Arc<Core>, volume: &Name, snapshot: SnapshotName) -> Result<Replaced, Problem> {
    let prepared = core.host.prepare_snapshot(volume, snapshot).await.map_err(of_volume)?;
    finish(core, volume, true, prepared).await
}

/// Puts the contents of a tar in a volume's place, which is empty unless `replace` says that it need not be.
///
/// # Errors
/// Where there is no such volume, it is not empty, the tar is not whole or not taken, or as for [`restore`].
pub async fn import<B: AsRef<[u8]>>(
    core: &Arc<Core>,
    volume: &Name,
    replace: bool,
    archive: impl Stream<Item = io::Result<B>> + Unpin,
) -> Result<Replaced, Problem> {
    // Asked before anything is read, and again when nothing uses the volume any more.
    refuse_full(core, volume, replace)?;
    let prepared = core.host.prepare_archive(volume, archive).await.map_err(of_data)?;
    finish(core, volume, replace, prepared).await
}

/// Swaps, to the end, also where nobody waits for it any more.
async fn finish(
    core: &Arc<Core>,
    volume: &Name,
    replace: bool,
    prepared: Prepared,
) -> Result<Replaced, Problem> {
    let (core, volume) = (core.clone(), volume.clone());
    let done = tokio::spawn(async move {
        let hands = core.take_in_hand().await;
        refuse_full(&core, &volume, replace)?;
        swap(&core, &hands, &volume, prepared, Timestamp::now(), Why::Replaced).await
    });
    done.await.map_err(failed)?
}

/// Stops what uses a volume and puts what is prepared in its place.
pub(super) async fn swap(
    core: &Core,
    _hands: &MutexGuard<'_, Hands>,
    volume: &Name,
    prepared: Prepared,
    now: Timestamp,
    why: Why,
) -> Result<Replaced, Problem> {
    // What is stopped is started again in any case, and is no drift.
    core.now().converged = None;
    core.accepted.notify_one();
    let stopped = stop_users(core, volume).await?;
    let before = core.host.replace_volume(volume, prepared, now, why).await.map_err(of_volume)?;
    let replaced = Replaced { volume: volume.clone(), before, stopped };
    core.events.add(Happening::VolumeReplaced { replaced: replaced.clone() });
    Ok(replaced)
}

/// Stops every instance that may use a volume, and says of which containers they were.
async fn stop_users(core: &Core, volume: &Name) -> Result<Vec<Name>, Problem> {
    let active = core.generations().await.0;
    let mut stopped = Vec::new();
    for instance in core.seen().await?.instances.keys() {
        // Nobody knows what one uses that is not declared any more; it is to go anyway.
        if active.as_ref().is_none_or(|active| may_use(&active.manifest, &instance.name, volume)) {
            core.host.stop(instance).await.map_err(failed)?;
            stopped.push(instance.name.clone());
        }
    }
    stopped.dedup();
    Ok(stopped)
}

fn may_use(manifest: &Manifest, program: &Name, volume: &Name) -> bool {
    let declared = manifest.programs().find(|(name, _)| *name == program);
    declared.is_none_or(|(_, container)| container.volumes.iter().any(|mount| mount.volume == *volume))
}

fn refuse_full(core: &Core, volume: &Name, replace: bool) -> Result<(), Problem> {
    let empty = core.host.is_empty_volume(volume).map_err(of_volume)?;
    if empty || replace {
        return Ok(());
    }
    Err(Problem::new(
        ProblemKind::Invalid,
        format!(
            "volume {volume} holds data; say --replace to put the archive in its place (what it holds is kept as a snapshot)"
        ),
    ))
}
