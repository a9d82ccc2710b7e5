//! Snapshots of volumes, and a volume that goes back to one.
//!
//! ```text
//! STATE/volumes/data                              what containers see
//! STATE/snapshots/data/20260131T120000Z-hand      a read-only snapshot
//! STATE/volumes/.incoming-data-1                  what takes its place in one step; disposable before and after
//! ```

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bennu_api::{Snapshot, SnapshotName, Why};
use bennu_image_store::durable;
use bennu_manifests::model::{Name, VolumeLife};
use jiff::Timestamp;

use super::btrfs::{self, Access};
use super::{INCOMING, VolumeError, Volumes, entries, io_error, make_dir, quota, remove};

/// The most snapshots of one volume: a schedule keeps at most 1000, and a few by hand fit beside them.
const MAX_SNAPSHOTS: usize = 2000;

impl Volumes {
    /// The snapshots of a volume, the oldest first.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(in crate::host) fn snapshots(&self, name: &Name) -> Result<Vec<SnapshotName>, VolumeError> {
        let dir = self.snapshots_of(name);
        let found = match entries(&dir) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
            other => other.map_err(io_error("read", &dir))?,
        };
        let mut found: Vec<SnapshotName> = found.iter().filter_map(|name| name.parse().ok()).collect();
        found.sort_unstable();
        Ok(found)
    }

    /// What people are told of the snapshots of a volume, the oldest first.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(in crate::host) fn snapshots_told(&self, name: &Name) -> Result<Vec<Snapshot>, VolumeError> {
        let told = |snapshot: SnapshotName| {
            let counted = quota::counted(&self.snapshot(name, snapshot))?;
            Ok(Snapshot { name: snapshot, taken: snapshot.taken, own: counted.and_then(|c| c.own) })
        };
        self.snapshots(name)?.into_iter().map(told).collect()
    }

    /// Takes a read-only snapshot of a volume, whether something writes to it or not: it is what a power cut at this
    /// moment would leave.
    ///
    /// # Errors
    /// Where there is no such volume, there are too many snapshots, or the file system says no.
    pub(in crate::host) async fn take_snapshot(
        &self,
        name: &Name,
        now: Timestamp,
        why: Why,
    ) -> Result<SnapshotName, VolumeError> {
        let path = self.subvolume("take a snapshot of", name)?;
        if !self.is_kept(&path) {
            return Err(VolumeError::NotKept { volume: name.clone() });
        }
        let taken = self.snapshots(name)?;
        if taken.len() >= MAX_SNAPSHOTS {
            return Err(VolumeError::TooManySnapshots { volume: name.clone() });
        }
        let mut snapshot = SnapshotName::new(now, why);
        while taken.contains(&snapshot) {
            snapshot =
                snapshot.later().map_err(|_| VolumeError::TooManySnapshots { volume: name.clone() })?;
        }
        let dir = self.snapshots_of(name);
        for dir in [&self.snapshots, &dir] {
            make_dir(dir, 0o700).map_err(io_error("make", dir))?;
        }
        btrfs::snapshot(&path, &self.snapshot(name, snapshot), Access::ReadOnly).await?;
        sync(&dir)?;
        sync(&self.snapshots)?;
        Ok(snapshot)
    }

    /// Removes a snapshot.
    ///
    /// # Errors
    /// Where there is no such snapshot, or the file system says no.
    pub(in crate::host) async fn remove_snapshot(
        &self,
        name: &Name,
        snapshot: SnapshotName,
    ) -> Result<(), VolumeError> {
        let path = self.existing_snapshot(name, snapshot)?;
        btrfs::delete(&path).await?;
        sync(&self.snapshots_of(name))
    }

    /// Removes every snapshot of a volume.
    pub(super) async fn remove_snapshots(&self, name: &Name) -> Result<(), VolumeError> {
        let dir = self.snapshots_of(name);
        for snapshot in self.snapshots(name)? {
            remove(&self.snapshot(name, snapshot)).await?;
        }
        remove(&dir).await?;
        match durable::sync_dir(&self.snapshots) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(io_error("sync", &self.snapshots)(error))
            }
            _ => Ok(()),
        }
    }

    /// A writable copy of a snapshot that can take the volume's place.
    ///
    /// # Errors
    /// Where there is no such snapshot, or the file system says no.
    pub(in crate::host) async fn copy_of(
        &self,
        name: &Name,
        snapshot: SnapshotName,
    ) -> Result<Incoming, VolumeError> {
        let from = self.existing_snapshot(name, snapshot)?;
        let incoming = self.incoming(name)?;
        btrfs::snapshot(&from, &incoming.path, Access::Writable).await?;
        Ok(incoming)
    }

    /// An empty subvolume that can take the volume's place.
    ///
    /// # Errors
    /// Where there is no such volume, or the file system says no.
    pub(in crate::host) async fn empty(&self, name: &Name) -> Result<Incoming, VolumeError> {
        let incoming = self.incoming(name)?;
        btrfs::create(&incoming.path).await?;
        Ok(incoming)
    }

    /// Puts what is incoming in the volume's place, in one step, with the volume's limit. What the volume held before is
    /// kept as a snapshot for this reason, whose name this returns; where it held nothing, or is fresh at each boot, there
    /// is none. Nothing may use the volume.
    ///
    /// # Errors
    /// Whatever the file system says; the volume is what it was then, or wholly what was incoming.
    pub(in crate::host) async fn replace(
        &self,
        name: &Name,
        incoming: Incoming,
        now: Timestamp,
        why: Why,
    ) -> Result<Option<SnapshotName>, VolumeError> {
        let path = self.subvolume("replace", name)?;
        let limit = quota::counted(&path)?.and_then(|counted| counted.quota.limit);
        quota::limit(&incoming.path, limit).await?;
        let before = match self.is_kept(&path) && !self.is_empty(name)? {
            true => Some(self.take_snapshot(name, now, why).await?),
            false => None,
        };
        // What was written into it is on disk before it counts.
        sync_all(&incoming.path)?;
        btrfs::exchange(&incoming.path, &path).map_err(io_error("put in its place", &path))?;
        sync(path.parent().unwrap_or(&path))?;
        // What is incoming now is what was there before; it goes when it is dropped.
        Ok(before)
    }

    /// Whether a volume holds nothing.
    ///
    /// # Errors
    /// Where there is no such volume, or it can't be read.
    pub(in crate::host) fn is_empty(&self, name: &Name) -> Result<bool, VolumeError> {
        let path = self.subvolume("look into", name)?;
        let mut entries = std::fs::read_dir(&path).map_err(io_error("read", &path))?;
        Ok(entries.next().is_none())
    }

    /// How full each of these volumes is, as far as somebody counts.
    ///
    /// # Errors
    /// Where the kernel does not say.
    pub(in crate::host) fn quotas(
        &self,
        volumes: &BTreeMap<Name, VolumeLife>,
    ) -> Result<BTreeMap<Name, bennu_planner::Quota>, VolumeError> {
        let mut quotas = BTreeMap::new();
        for (name, life) in volumes {
            let counted = quota::counted(&self.path(name, *life))?;
            quotas.extend(counted.map(|counted| (name.clone(), counted.quota)));
        }
        Ok(quotas)
    }

    /// Lets a volume hold at most so many bytes; `None` is without limit.
    ///
    /// # Errors
    /// Where there is no such volume, or the file system says no.
    pub(in crate::host) async fn limit(&self, name: &Name, size: Option<u64>) -> Result<(), VolumeError> {
        quota::limit(&self.subvolume("limit", name)?, size).await
    }

    /// Looks after the counting of all volumes.
    pub(in crate::host) async fn tend(&self) {
        quota::tend(&self.keep).await;
    }

    /// What can be read of a volume while it is used: a snapshot that is there, or one of this moment.
    ///
    /// # Errors
    /// Where there is none, or the file system says no.
    pub(in crate::host) async fn still(
        &self,
        name: &Name,
        snapshot: Option<SnapshotName>,
    ) -> Result<Still, VolumeError> {
        if let Some(snapshot) = snapshot {
            return Ok(Still { path: self.existing_snapshot(name, snapshot)?, _taken: None });
        }
        let path = self.subvolume("export", name)?;
        let taken = self.incoming(name)?;
        btrfs::snapshot(&path, &taken.path, Access::ReadOnly).await?;
        Ok(Still { path: taken.path.clone(), _taken: Some(taken) })
    }

    fn incoming(&self, name: &Name) -> Result<Incoming, VolumeError> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let path = self.subvolume("replace", name)?;
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        Ok(Incoming { path: path.with_file_name(format!("{INCOMING}{name}-{number}")) })
    }

    /// Where a volume is, which is a subvolume.
    fn subvolume(&self, what: &'static str, name: &Name) -> Result<PathBuf, VolumeError> {
        let found = [VolumeLife::Keep, VolumeLife::Scratch].map(|life| self.path(name, life));
        let path = found.into_iter().find(|path| path.exists());
        let path = path.ok_or_else(|| VolumeError::NoVolume { volume: name.clone() })?;
        if btrfs::is_subvolume(&path) { Ok(path) } else { Err(VolumeError::NotBtrfs { what, path }) }
    }

    /// Whether what is in this volume survives a boot.
    fn is_kept(&self, path: &Path) -> bool {
        path.starts_with(&self.keep)
    }

    fn snapshots_of(&self, name: &Name) -> PathBuf {
        self.snapshots.join(name.as_str())
    }

    fn snapshot(&self, name: &Name, snapshot: SnapshotName) -> PathBuf {
        self.snapshots_of(name).join(snapshot.to_string())
    }

    fn existing_snapshot(&self, name: &Name, snapshot: SnapshotName) -> Result<PathBuf, VolumeError> {
        let path = self.snapshot(name, snapshot);
        let missing = || VolumeError::NoSnapshot { volume: name.clone(), snapshot };
        if btrfs::is_subvolume(&path) { Ok(path) } else { Err(missing()) }
    }
}

/// A subvolume that is to take a volume's place; removed when it is dropped, whichever of the two it is then.
#[derive(Debug)]
pub(in crate::host) struct Incoming {
    pub(super) path: PathBuf,
}

impl Drop for Incoming {
    fn drop(&mut self) {
        let path = std::mem::take(&mut self.path);
        // Where there is no runtime any more the next start of the daemon removes it.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                if let Err(error) = remove(&path).await {
                    tracing::warn!("{error}");
                }
            });
        }
    }
}

/// A state of a volume that nothing writes to.
#[derive(Debug)]
pub(in crate::host) struct Still {
    pub(super) path: PathBuf,
    _taken: Option<Incoming>,
}

fn sync(dir: &Path) -> Result<(), VolumeError> {
    durable::sync_dir(dir).map_err(io_error("sync", dir))
}

/// Waits until everything that was written to the file system is on disk.
fn sync_all(dir: &Path) -> Result<(), VolumeError> {
    let synced = std::fs::File::open(dir).and_then(|dir| Ok(nix::unistd::syncfs(dir)?));
    synced.map_err(io_error("sync", dir))
}
