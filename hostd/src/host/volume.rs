//! Volumes: directories for data that outlives instances.
//!
//! ```text
//! STATE/volumes/NAME            kept
//! STATE/scratch/BOOT-ID/NAME    fresh at each boot
//! ```
//!
//! On btrfs each one is a subvolume of its own, elsewhere a plain directory. A name that begins with a dot is none of a
//! volume: it is one that is being destroyed, or another part of the daemon's.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_image_store::durable;
use bennu_manifests::model::{Name, Volume, VolumeLife};
use nix::fcntl::OFlag;
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use tokio::process::Command;

use super::command::{CommandError, run};
use super::{idrange, user};

/// How long btrfs-progs has to make or delete a subvolume.
const DEADLINE: Duration = Duration::from_secs(120);

/// How the directory of a volume that is being destroyed begins.
const DOOMED: &str = ".destroyed-";

/// Why a volume was not made or destroyed.
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
    #[error("make subvolume {}", path.display())]
    Subvolume {
        /// The subvolume.
        path: PathBuf,
        /// What it said.
        source: CommandError,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { what, path, source }
}

/// Where volumes are.
#[derive(Debug, Clone)]
pub(super) struct Volumes {
    keep: PathBuf,
    scratch: PathBuf,
    boot: String,
}

impl Volumes {
    /// The volumes under `state` in the boot with this id.
    pub(super) fn new(state: &Path, boot: &str) -> Self {
        Self { keep: state.join("volumes"), scratch: state.join("scratch"), boot: boot.to_owned() }
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

    /// Makes the directories, and removes what earlier boots left and what was not wholly destroyed.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn prepare(&self) -> Result<(), VolumeError> {
        for (dir, mode) in [(&self.keep, 0o711), (&self.scratch, 0o711), (&self.scratch(), 0o711)] {
            make_dir(dir, mode).map_err(io_error("make", dir))?;
        }
        let old = entries(&self.scratch).map_err(io_error("read", &self.scratch))?;
        for boot in old.into_iter().filter(|boot| boot != &self.boot) {
            let dir = self.scratch.join(boot);
            // Subvolumes first, which btrfs removes at once however much is in them.
            for name in entries(&dir).map_err(io_error("read", &dir))? {
                remove(&dir.join(name)).await?;
            }
            remove(&dir).await?;
        }
        for dir in [&self.keep, &self.scratch()] {
            let doomed = entries(dir).map_err(io_error("read", dir))?;
            for name in doomed.into_iter().filter(|name| name.starts_with(DOOMED)) {
                remove(&dir.join(name)).await?;
            }
        }
        Ok(())
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
            if is_btrfs(parent) {
                let mut command = Command::new("btrfs");
                command.args(["subvolume", "create", "--"]).arg(&path);
                let failed = |source| VolumeError::Subvolume { path: path.clone(), source };
                run(command, b"", DEADLINE).await.map_err(failed)?;
            } else {
                make_dir(&path, 0o755).map_err(io_error("make", &path))?;
            }
        }
        durable::sync_dir(&path).and_then(|()| durable::sync_dir(parent)).map_err(io_error("sync", &path))
    }

    /// Destroys a volume and all data in it; one that is not there is no error. From the first moment on there is no
    /// volume of that name any more.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub(super) async fn destroy(&self, name: &Name) -> Result<(), VolumeError> {
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

/// Gives a volume that holds nothing yet its owner and mode: those that are declared, else those of the directory that it is
/// mounted over, so that a program which is not root can use it as if it had been part of the image.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn adopt(
    volume: &Path,
    declared: &Volume,
    rootfs: &File,
    target: &Path,
    host_start: u32,
) -> io::Result<()> {
    if std::fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let covered = match user::open_in_root(rootfs, target, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        other => Some(File::from(other?).metadata()?),
    };
    // In the mounted tree the ids are the range's on the host; on disk they are the container's.
    let inside = |id: u32| id.checked_sub(host_start).filter(|&id| id < idrange::COUNT);
    let covered_by = covered.as_ref().map(|there| (inside(there.uid()), inside(there.gid())));
    let declared_owner = declared.owner.as_deref().and_then(|owner| owner.split_once(':'));
    let declared_owner = declared_owner.map(|(uid, gid)| (uid.parse().ok(), gid.parse().ok()));
    if let Some((uid, gid)) = declared_owner.or(covered_by) {
        std::os::unix::fs::lchown(volume, uid, gid)?;
    }
    let declared_mode = declared.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
    if let Some(mode) = declared_mode.or(covered.map(|there| there.mode() & 0o7777)) {
        std::fs::set_permissions(volume, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

fn is_btrfs(dir: &Path) -> bool {
    statfs(dir).is_ok_and(|fs| fs.filesystem_type() == BTRFS_SUPER_MAGIC)
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

/// Removes a directory and everything in it, at once where it is a subvolume.
async fn remove(path: &Path) -> Result<(), VolumeError> {
    // The first inode of a subvolume has this number (btrfs on-disk format, BTRFS_FIRST_FREE_OBJECTID).
    if is_btrfs(path) && std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.ino() == 256) {
        let mut command = Command::new("btrfs");
        command.args(["subvolume", "delete", "--recursive", "--"]).arg(path);
        if let Err(error) = run(command, b"", DEADLINE).await {
            tracing::warn!("delete subvolume {}, file by file then: {error}", path.display());
        }
    }
    let doomed = path.to_owned();
    let removed = tokio::task::spawn_blocking(move || std::fs::remove_dir_all(&doomed)).await;
    match removed.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("remove", path)(error)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Name {
        text.parse().unwrap()
    }

    /// A volume that says no more than how long it lives.
    fn plain() -> Volume {
        let (size, owner, mode, snapshots) = (None, None, None, None);
        Volume { life: VolumeLife::Keep, size, owner, mode, snapshots, protected: false, destroy: false }
    }

    async fn volumes(state: &Path, boot: &str) -> Volumes {
        let volumes = Volumes::new(state, boot);
        volumes.prepare().await.unwrap();
        volumes
    }

    #[tokio::test]
    async fn a_kept_volume_survives_a_boot_and_a_scratch_one_does_not() {
        let state = tempfile::tempdir().unwrap();
        let first = volumes(state.path(), "boot-1").await;
        first.create(&name("data"), VolumeLife::Keep).await.unwrap();
        first.create(&name("tmp"), VolumeLife::Scratch).await.unwrap();
        std::fs::write(first.path(&name("data"), VolumeLife::Keep).join("x"), "kept").unwrap();
        std::fs::write(first.path(&name("tmp"), VolumeLife::Scratch).join("x"), "gone").unwrap();
        let both = BTreeMap::from([(name("data"), VolumeLife::Keep), (name("tmp"), VolumeLife::Scratch)]);
        assert_eq!(volumes(state.path(), "boot-1").await.list().unwrap(), both);
        let second = volumes(state.path(), "boot-2").await;
        assert_eq!(second.list().unwrap(), BTreeMap::from([(name("data"), VolumeLife::Keep)]));
        assert_eq!(std::fs::read_dir(state.path().join("scratch")).unwrap().count(), 1);
    }

    #[tokio::test]
    async fn making_a_volume_again_leaves_its_data_alone() {
        let state = tempfile::tempdir().unwrap();
        let volumes = volumes(state.path(), "boot").await;
        volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
        let file = volumes.path(&name("data"), VolumeLife::Keep).join("x");
        std::fs::write(&file, "data").unwrap();
        volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
        assert_eq!(std::fs::read_to_string(file).unwrap(), "data");
    }

    #[tokio::test]
    async fn destroying_leaves_nothing_and_can_be_repeated() {
        let state = tempfile::tempdir().unwrap();
        let volumes = volumes(state.path(), "boot").await;
        volumes.create(&name("data"), VolumeLife::Keep).await.unwrap();
        std::fs::write(volumes.path(&name("data"), VolumeLife::Keep).join("x"), "data").unwrap();
        volumes.destroy(&name("data")).await.unwrap();
        volumes.destroy(&name("data")).await.unwrap();
        assert_eq!(std::fs::read_dir(state.path().join("volumes")).unwrap().count(), 0);
    }

    #[tokio::test]
    async fn what_was_half_destroyed_is_no_volume_and_is_removed_later() {
        let state = tempfile::tempdir().unwrap();
        let first = volumes(state.path(), "boot").await;
        std::fs::create_dir_all(state.path().join("volumes/.destroyed-data/deep")).unwrap();
        assert_eq!(first.list().unwrap(), BTreeMap::new());
        volumes(state.path(), "boot").await;
        assert_eq!(std::fs::read_dir(state.path().join("volumes")).unwrap().count(), 0);
    }

    #[test]
    fn an_empty_volume_takes_on_the_mode_of_what_it_covers_and_a_full_one_does_not() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let covered = image.path().join("lib");
        std::fs::create_dir(&covered).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        set(&covered, 0o1750);
        let root = File::open(image.path()).unwrap();
        adopt(volume.path(), &plain(), &root, Path::new("/lib"), 1 << 20).unwrap();
        assert_eq!(mode(volume.path()), 0o1750);
        std::fs::write(volume.path().join("x"), "data").unwrap();
        set(&covered, 0o700);
        adopt(volume.path(), &plain(), &root, Path::new("/lib"), 1 << 20).unwrap();
        assert_eq!(mode(volume.path()), 0o1750);
        adopt(volume.path(), &plain(), &root, Path::new("/none"), 1 << 20).unwrap();
    }

    #[test]
    fn declared_permissions_are_stronger_than_those_of_what_is_covered() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(image.path().join("lib")).unwrap();
        let root = File::open(image.path()).unwrap();
        let declared = Volume { mode: Some("0700".to_owned()), ..plain() };
        for target in ["/lib", "/none"] {
            std::fs::set_permissions(volume.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            adopt(volume.path(), &declared, &root, Path::new(target), 1 << 20).unwrap();
            assert_eq!(std::fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o700, "{target}");
        }
    }
}
