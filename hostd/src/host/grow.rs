//! Has the state fill its disk: what is written to a disk is as large as a disk image, and a disk is mostly larger, or is made larger
//! later.
//!
//! ```text
//! sysfs: partition, disk ──► room behind it ──► systemd-repart: partition table ──► systemd-growfs: file system
//! ```
//! Each of the two is done where it is needed, so what a power cut ended in between is done at the next start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use tokio::process::Command;

use super::command::{CommandError, run};
use crate::disk::{self, Place, ReadError, read_error};
use crate::sealed;

/// What there has to be for it to be worth the while, in bytes; far above what a partition table needs at the end of a disk (34
/// sectors; UEFI specification 2.10, section 5.3.1), and what LUKS needs at the beginning of a partition (16 MiB).
const LEAST: u64 = 64 << 20;

/// systemd keeps it where it keeps what only units start.
const GROW_FILE_SYSTEM: &str = "/usr/lib/systemd/systemd-growfs";

/// How long either program has. None of them moves data.
const DEADLINE: Duration = Duration::from_secs(120);

/// Why the state stays as large as it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub(super) enum GrowError {
    /// It is not known how large it is.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// A program failed.
    #[error("have {} fill its disk", path.display())]
    Program {
        /// The device or directory.
        path: PathBuf,
        /// What it said.
        source: CommandError,
    },
}

/// Has the partition that is mounted at `state` fill its disk, and the file system its partition. What is on no partition stays.
///
/// # Errors
/// [`GrowError`]; nothing that is there is lost.
pub(super) async fn fill(state: &Path) -> Result<(), GrowError> {
    let Some(device) = disk::device_at(state)? else { return Ok(()) };
    let look = || Place::of(Path::new(disk::BLOCK), &device);
    let Some(place) = look()? else { return Ok(()) };
    if place.behind() >= LEAST {
        let disk = place.disk_device();
        let mut command = Command::new("systemd-repart");
        command.args(sealed::REPART).arg(sealed::definitions()).arg(&disk);
        run(command, b"", DEADLINE).await.map_err(|source| GrowError::Program { path: disk, source })?;
    }
    let place = look()?.unwrap_or(place);
    let seen = statvfs(state).map_err(|error| read_error(state)(error.into()))?;
    if place.size.saturating_sub(seen.blocks() * seen.fragment_size()) >= LEAST {
        let mut command = Command::new(GROW_FILE_SYSTEM);
        command.arg(state);
        let grown = run(command, b"", DEADLINE).await;
        grown.map_err(|source| GrowError::Program { path: state.to_owned(), source })?;
        tracing::info!("{} has {} MiB now", state.display(), place.size >> 20);
    }
    Ok(())
}
