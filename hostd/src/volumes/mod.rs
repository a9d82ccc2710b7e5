//! What happens to the data of volumes: snapshots by calendar, by hand and before a new generation; going back to one;
//! archives.
//!
//! ```text
//! reconcile: every round     ──► due (pure) ──► take, remove
//!            before activation ► generation  ──► take, remove
//! API: take, remove, restore, import ──► change: stop who uses the volume, swap it, let the reconciler start them again
//! ```
//!
//! **Invariant:** a volume is swapped while nothing that this daemon started uses it, and while it starts nothing:
//! whoever swaps holds what [`Core::take_in_hand`](crate::core::Core::take_in_hand) gives, as the reconciler does while it acts.

mod change;
mod due;
mod generation;
mod scheduled;

pub use change::{Hands, import, restore};
pub(crate) use generation::before_activation;
pub use generation::restore_to_generation;
pub(crate) use scheduled::tend;

use std::io;

use bennu_api::{Happening, Problem, ProblemKind, Snapshot, SnapshotName, Snapshots, Why};
use bennu_manifests::model::Name;
use futures_util::Stream;
use jiff::Timestamp;

use crate::core::{Core, chain};
use crate::host::{ArchiveError, DataError, VolumeError};

/// The snapshots of a volume.
///
/// # Errors
/// Where there is no such volume, or it can't be read.
pub async fn snapshots(core: &Core, volume: &Name) -> Result<Snapshots, Problem> {
    exists(core, volume).await?;
    let snapshots = core.host.snapshots_told(volume).map_err(of_volume)?;
    Ok(Snapshots { volume: volume.clone(), snapshots })
}

/// Takes a snapshot of a volume, which is kept until somebody removes it.
///
/// # Errors
/// Where there is no such volume, or the file system says no.
pub async fn take(core: &Core, volume: &Name) -> Result<Snapshot, Problem> {
    let _hands = core.take_in_hand().await;
    let name = core.host.take_snapshot(volume, Timestamp::now(), Why::Hand).await.map_err(of_volume)?;
    core.events.add(Happening::SnapshotTaken { volume: volume.clone(), snapshot: name });
    Ok(Snapshot { name, taken: name.taken, own: None })
}

/// Removes a snapshot, whatever it was taken for.
///
/// # Errors
/// Where there is no such snapshot, or the file system says no.
pub async fn remove(core: &Core, volume: &Name, snapshot: SnapshotName) -> Result<(), Problem> {
    let _hands = core.take_in_hand().await;
    core.host.remove_snapshot(volume, snapshot).await.map_err(of_volume)
}

/// A tar of a snapshot, or of the volume as it is at this moment.
///
/// # Errors
/// Where there is no such volume or snapshot, or tar can't be run.
pub async fn export(
    core: &Core,
    volume: &Name,
    snapshot: Option<SnapshotName>,
) -> Result<impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static + use<>, Problem> {
    core.host.export_volume(volume, snapshot).await.map_err(of_data)
}

async fn exists(core: &Core, volume: &Name) -> Result<(), Problem> {
    if core.seen().await?.volumes.contains_key(volume) {
        return Ok(());
    }
    Err(of_volume(VolumeError::NoVolume { volume: volume.clone() }))
}

fn of_volume(error: VolumeError) -> Problem {
    let kind = match &error {
        VolumeError::NoVolume { .. } | VolumeError::NoSnapshot { .. } => ProblemKind::NotFound,
        _ => ProblemKind::Failed,
    };
    Problem::new(kind, chain(&error))
}

fn of_data(error: DataError) -> Problem {
    let kind = match error {
        DataError::Volume(error) => return of_volume(error),
        DataError::Archive(ArchiveError::Refused { .. } | ArchiveError::CutShort(_)) => ProblemKind::Invalid,
        DataError::Archive(_) => ProblemKind::Failed,
    };
    Problem::new(kind, chain(&error))
}
