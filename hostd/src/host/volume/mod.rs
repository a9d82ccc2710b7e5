//! Volumes: directories for data that outlives instances.
//!
//! ```text
//! STATE/volumes/NAME            kept
//! STATE/scratch/BOOT-ID/NAME    fresh at each boot
//! STATE/snapshots/NAME/…        what volumes were at some moments; read-only
//!
//! mod (make, list, destroy) ──► snapshots (take, remove, put in a volume's place) ──► archive (tar out and in)
//!                          └──► quota (limit, count)                  adopt (who owns a new one)      btrfs (the verbs)
//! ```
//!
//! On btrfs each one is a subvolume of its own, elsewhere a plain directory, which has neither limit nor snapshots. A name
//! that begins with a dot is none of a volume: it is one that is being destroyed or has no volume's place yet, or another
//! part of the daemon's.

mod adopt;
mod archive;
mod btrfs;
mod quota;
mod snapshots;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fs::DirBuilder;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bennu_api::SnapshotName;
use bennu_image_store::durable;
use bennu_manifests::model::{Name, VolumeLife};

use super::command::CommandError;

pub(super) use adopt::adopt;
pub use archive::ArchiveError;
pub(super) use archive::Archives;
pub(super) use snapshots::{Incoming, Still};

/// How the directory of a volume that is being destroyed begins.
const DOOMED: &str = ".destroyed-";

/// How that of what may take a volume's place begins, and that of what was replaced.
const INCOMING: &str = ".incoming-";

/// Why something was not done to a volume.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VolumeError {
    /// The file system said no.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// btrfs-progs said no.
    #[error("{what} {}", path.display())]
    Btrfs {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: CommandError,
    },
    /// Only a subvolume can do that.
    #[error("{what} {}: it is no subvolume of btrfs", path.display())]
    NotBtrfs {
        /// What was to be done.
        what: &'static str,
        /// To what.
        path: PathBuf,
    },
    /// There is no such volume.
    #[error("there is no volume {volume}")]
    NoVolume {
        /// Its name.
        volume: Name,
    },
    /// It is gone after the next boot.
    #[error("take a snapshot of volume {volume}: it is empty after each boot")]
    NotKept {
        /// The volume.
        volume: Name,
    },
    /// There is no such snapshot.
    #[error("there is no snapshot {snapshot} of volume {volume}")]
    NoSnapshot {
        /// The volume.
        volume: Name,
        /// The snapshot.
        snapshot: SnapshotName,
    },
    /// There are as many as there may be.
    #[error(
        "take a snapshot of volume {volume}: there are too many; remove some (`hostctl volumes rm-snapshot`)"
    )]
    TooManySnapshots {
        /// The volume.
        volume: Name,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { what, path, source }
}

/// Removes what was not wholly made or destroyed in a directory of volumes.
async fn remove_doomed(dir: &Path) -> Result<(), VolumeError> {
    let found = entries(dir).map_err(io_error("read", dir))?;
    let left = |name: &String| [DOOMED, INCOMING, archive::CELL].iter().any(|begin| name.starts_with(begin));
    for name in found.into_iter().filter(left) {
        remove(&dir.join(name)).await?;
    }
    Ok(())
}

/// Where volumes are.
#[derive(Debug, Clone)]
pub(super) struct Volumes {
    keep: PathBuf,
    scratch: PathBuf,
    snapshots: PathBuf,
    boot: String,
}

impl Volumes {
    /// The volumes under `state` in the boot with this id.
    pub(super) fn new(state: &Path, boot: &str) -> Self {
        let [keep, scratch, snapshots] = ["volumes", "scratch", "snapshots"].map(|name| state.join(name));
        Self { keep, scratch, snapshots, boot: boot.to_owned() }
    }

    /// The directory of what outlives this boot.
    pub(super) fn kept(&self) -> PathBuf {
        self.keep.clone()
    }

    /// The directory of what lives as long as this boot.
    pub(super) fn scratch(&self) -> PathBuf {
        self.scratch.join(&self.boot)
    }

    /// Where a volume is, whether it exists or not.
    pub(super) fn path(&self, name: &Name, life: VolumeLife) -> PathBuf {
        match life {
            VolumeLife::Keep | VolumeLife::Snapshot => self.keep.join(name.as_str()),
            VolumeLife::Scratch => self.scratch().join(name.as_str()),
        }
    }

    /// Makes the directory of what outlives this boot, and removes what was not wholly destroyed there.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn prepare(&self) -> Result<(), VolumeError> {
        make_dir(&self.keep, 0o711).map_err(io_error("make", &self.keep))?;
        remove_doomed(&self.keep).await
    }

    /// The same for what lives as long as this boot; what earlier ones left goes, too.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn prepare_scratch(&self) -> Result<(), VolumeError> {
        for dir in [&self.scratch, &self.scratch()] {
            make_dir(dir, 0o711).map_err(io_error("make", dir))?;
        }
        let old = entries(&self.scratch).map_err(io_error("read", &self.scratch))?;
        for boot in old.into_iter().filter(|boot| boot != &self.boot) {
            remove_deep(&self.scratch.join(boot)).await?;
        }
        remove_doomed(&self.scratch()).await
    }

    /// The volumes that exist.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) fn list(&self) -> Result<BTreeMap<Name, VolumeLife>, VolumeError> {
        let mut found = BTreeMap::new();
        for (dir, life) in [(&self.scratch(), VolumeLife::Scratch), (&self.keep, VolumeLife::Keep)] {
            let names = entries(dir).map_err(io_error("read", dir))?;
            found.extend(names.iter().filter_map(|name| name.parse().ok()).map(|name| (name, life)));
        }
        Ok(found)
    }

    /// Makes an empty volume; one that is there stays as it is.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn create(&self, name: &Name, life: VolumeLife) -> Result<(), VolumeError> {
        let path = self.path(name, life);
        let parent = path.parent().unwrap_or(&path);
        if !path.exists() {
            if btrfs::is_btrfs(parent) {
                btrfs::create(&path).await?;
            } else {
                make_dir(&path, 0o755).map_err(io_error("make", &path))?;
            }
        }
        durable::sync_dir(&path).and_then(|()| durable::sync_dir(parent)).map_err(io_error("sync", &path))
    }

    /// Destroys a volume with all data in it, and its snapshots; one that is not there is no error. From the first moment on
    /// there is no volume of that name any more.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn destroy(&self, name: &Name) -> Result<(), VolumeError> {
        // First, because nobody would know of them once the volume is gone.
        self.remove_snapshots(name).await?;
        for life in [VolumeLife::Keep, VolumeLife::Scratch] {
            let path = self.path(name, life);
            let doomed = path.with_file_name(format!("{DOOMED}{name}"));
            remove(&doomed).await?;
            match std::fs::rename(&path, &doomed) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(io_error("rename", &path))?,
            }
            if let Some(parent) = path.parent() {
                durable::sync_dir(parent).map_err(io_error("sync", parent))?;
            }
            remove(&doomed).await?;
        }
        Ok(())
    }
}

/// Makes a directory and those above it; one that is there gets the mode.
pub(super) fn make_dir(path: &Path, mode: u32) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(mode).create(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

fn entries(dir: &Path) -> io::Result<Vec<String>> {
    let names = std::fs::read_dir(dir)?.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    names.collect()
}

/// Removes everything that is in a directory.
pub(super) async fn remove_below(dir: &Path) -> Result<(), VolumeError> {
    for name in entries(dir).map_err(io_error("read", dir))? {
        remove_deep(&dir.join(name)).await?;
    }
    Ok(())
}

/// Removes a directory and everything in it, subvolumes first, which btrfs removes at once however much is in them.
async fn remove_deep(dir: &Path) -> Result<(), VolumeError> {
    for name in entries(dir).map_err(io_error("read", dir))? {
        remove(&dir.join(name)).await?;
    }
    remove(dir).await
}

/// Removes a directory and everything in it, at once where it is a subvolume.
async fn remove(path: &Path) -> Result<(), VolumeError> {
    if btrfs::is_subvolume(path)
        && let Err(error) = btrfs::delete(path).await
    {
        // Another subvolume may be in it; file by file it takes longer.
        tracing::debug!("{error}");
    }
    let doomed = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&doomed)).await;
    match removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}
