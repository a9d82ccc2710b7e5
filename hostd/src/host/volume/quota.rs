//! How much a volume may hold, and how much it holds.
//!
//! A quota group of btrfs counts for each subvolume what it *references*: what is in it, whether a snapshot shares it or
//! not. So a limit means the same with and without snapshots, and a volume that was restored is counted at once. The
//! counting costs time at each write, so it begins with the first volume that has a size; `docs/decisions/0005` weighs it.

use std::io;
use std::path::Path;

use bennu_planner::Quota;

use super::btrfs::{self, btrfs};
use super::{VolumeError, io_error};

/// What the kernel counts for a subvolume.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counted {
    /// What is in it and how much may be.
    pub(super) quota: Quota,
    /// Bytes that nothing else shares; `None` while they are being counted.
    pub(super) own: Option<u64>,
}

/// What is counted for a subvolume; `None` where nobody counts, which includes file systems other than btrfs.
///
/// # Errors
/// Where the kernel does not say.
pub(super) fn counted(subvolume: &Path) -> Result<Option<Counted>, VolumeError> {
    if !btrfs::is_subvolume(subvolume) {
        return Ok(None);
    }
    let (file_system, number) = btrfs::place_in_kernel(subvolume)?;
    let groups = file_system.join("qgroups");
    let group = groups.join(format!("0_{number}"));
    let read = || {
        // Linux, Documentation of sysfs-fs-btrfs: all of these are decimal numbers; bit 0 of the flags says that
        // `max_referenced` is in force (`BTRFS_QGROUP_LIMIT_MAX_RFER`).
        let Some(referenced) = number_in(&group.join("referenced"))? else { return Ok(None) };
        let own = number_in(&group.join("exclusive"))?.unwrap_or_default();
        let limited = number_in(&group.join("limit_flags"))?.is_some_and(|flags| flags & 1 != 0);
        let limit = number_in(&group.join("max_referenced"))?.filter(|_| limited);
        let sure = number_in(&groups.join("inconsistent"))? == Some(0);
        let quota = Quota { used: sure.then_some(referenced), limit };
        Ok(Some(Counted { quota, own: sure.then_some(own) }))
    };
    read().map_err(io_error("read how full", subvolume))
}

/// Lets a subvolume hold at most so many bytes from now on; `None` is without limit.
///
/// # Errors
/// Where it is no subvolume, or the file system says no.
pub(super) async fn limit(subvolume: &Path, size: Option<u64>) -> Result<(), VolumeError> {
    if !btrfs::is_subvolume(subvolume) {
        return Err(VolumeError::NotBtrfs { what: "limit", path: subvolume.to_owned() });
    }
    if counted(subvolume)?.is_none() {
        if size.is_none() {
            return Ok(());
        }
        // What is there already is counted in the background.
        btrfs("begin to count", &["quota", "enable"], &[subvolume]).await?;
    }
    let size = size.map_or("none".to_owned(), |size| size.to_string());
    btrfs("limit", &["qgroup", "limit", &size], &[subvolume]).await
}

/// Counts again where the file system has lost count, as it does when something large is removed; and forgets groups of
/// subvolumes that are gone. It goes on in the background.
pub(super) async fn tend(dir: &Path) {
    let Ok((file_system, _)) = btrfs::place_in_kernel(dir) else { return };
    let groups = file_system.join("qgroups");
    if !groups.exists() {
        return;
    }
    if number_in(&groups.join("inconsistent")).is_ok_and(|value| value == Some(1))
        && let Err(error) = btrfs("count again", &["quota", "rescan"], &[dir]).await
    {
        // It counts already, most likely.
        tracing::debug!("{error}");
    }
    if let Err(error) = btrfs("forget old quota groups of", &["qgroup", "clear-stale"], &[dir]).await {
        tracing::debug!("{error}");
    }
}

fn number_in(file: &Path) -> io::Result<Option<u64>> {
    match std::fs::read_to_string(file) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
        Ok(text) => text.trim().parse().map(Some).map_err(io::Error::other),
    }
}
