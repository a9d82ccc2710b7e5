//! Layers and images as mounted trees. Linux 6.12 or newer, and the privilege to mount.
//!
//! ```text
//!  RUN/layers/HEX   one EROFS mount for each blob, shared by all images      ─┐ clones with the ids of a container,
//!  RUN/users/KEY    which layers the image at a target uses                   │ attached for a moment in RUN/lower,
//!  TARGET           overlayfs                                                ◄┘ seen by one thread, kept alive by overlayfs
//! ```
//! A blob is opened once, measured through that descriptor, and mounted through it too, so what was measured is what is
//! mounted, whatever happens to its name in between.

mod overlay;
mod sys;
mod userns;

use std::collections::BTreeSet;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

pub use userns::{Namespaces, namespaces};

use crate::blob::{self, Checked};
use crate::durable;
use crate::record::LayerRecord;
use crate::sha256;
use crate::store::Store;
use crate::store_error::StoreError;

/// Ids of a container on the host: 0 is `host_start`, and so on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IdMap {
    /// The host's id for the container's 0.
    pub host_start: u32,
    /// How many ids there are.
    pub count: u32,
}

/// Directories that take what is written to an image; both on one file system, `work` for overlayfs alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Upper<'a> {
    /// What is written. Where it is empty it gets owner and mode of the image's root.
    pub upper: &'a Path,
    /// An empty directory.
    pub work: &'a Path,
}

/// Why a mount, or its undoing, failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MountError {
    /// The blob is not what its name says. It was not mounted.
    #[error("the blob is refused")]
    Refused(#[source] StoreError),
    /// The blob could not be opened or measured.
    #[error(transparent)]
    Store(StoreError),
    /// An image without layers.
    #[error("the image has no layers")]
    NoLayers,
    /// The system failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

impl MountError {
    fn io<E: Into<io::Error>>(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(E) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source: source.into() }
    }
}

/// The mounts of one store on one host, kept in a directory that a reboot empties.
#[derive(Debug, Clone)]
pub struct Mounts {
    run: PathBuf,
}

/// `RUN/users/KEY`
#[derive(Debug, Serialize, Deserialize)]
struct User {
    target: PathBuf,
    layers: BTreeSet<Digest>,
}

/// Mounts the EROFS blob at `path` on the directory `target`, read-only and without devices, after its fs-verity digest was
/// found to be `blob`.
///
/// # Errors
/// [`MountError`]
pub fn mount_layer(path: &Path, blob: &Digest, target: &Path) -> Result<Checked, MountError> {
    let file = File::open(path).map_err(StoreError::io("open", path)).map_err(MountError::Store)?;
    let checked = blob::seal(&file, blob, path).map_err(|error| match error {
        error @ StoreError::Damaged { .. } => MountError::Refused(error),
        error => MountError::Store(error),
    })?;
    let mount = overlay::open_erofs(&file).map_err(MountError::io("mount", path))?;
    sys::attach(&mount, target).map_err(MountError::io("mount on", target))?;
    Ok(checked)
}

/// Mounts the directory `source` a second time, on the directory `target`, where what belongs to an id on disk belongs to
/// the same id of the user namespace `namespace`. What is mounted below `source` is not there.
///
/// # Errors
/// [`MountError`]; nothing is mounted at `target` then.
pub fn mount_with_ids(source: &Path, target: &Path, namespace: &OwnedFd) -> Result<(), MountError> {
    let mount = sys::clone_with_ids(source, namespace).map_err(MountError::io("map the ids of", source))?;
    sys::attach(&mount, target).map_err(MountError::io("mount on", target))
}

impl Mounts {
    /// Mounts below `run`, a directory on a file system that is empty after a boot, such as `/run/host/bennu/images`. It is made
    /// where it is missing.
    ///
    /// # Errors
    /// [`MountError`]
    pub fn new(run: &Path) -> Result<Self, MountError> {
        for directory in ["layers", "users", "lower", "empty"] {
            let path = run.join(directory);
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&path)
                .map_err(MountError::io("create", path))?;
        }
        Ok(Self { run: run.to_owned() })
    }

    /// Mounts an image on the directory `target`: its layers (the lowest first) from `store`, read-only where `upper` is
    /// `None`, always without devices. With a user namespace, `ids`, what belongs to an id in the image belongs to the same id of that. What
    /// is mounted at `target` already, by an earlier call, is left alone.
    ///
    /// # Errors
    /// [`MountError`]; nothing stays mounted at `target`.
    pub fn mount_image(
        &self,
        store: &Store,
        layers: &[LayerRecord],
        target: &Path,
        upper: Option<Upper<'_>>,
        ids: Option<&OwnedFd>,
    ) -> Result<Checked, MountError> {
        if layers.is_empty() {
            return Err(MountError::NoLayers);
        }
        // Until it is mounted nobody else could know that it is in use.
        let _kept = store.lock(FlockArg::LockShared).map_err(MountError::Store)?;
        let _lock = self.lock()?;
        let record = self.user_path(target);
        let user =
            User { target: target.to_owned(), layers: layers.iter().map(|layer| layer.blob).collect() };
        let bytes = serde_json::to_vec(&user).expect("paths of ours are text");
        // The record comes first: a mount without one would never be undone.
        durable::replace(&record, &bytes).map_err(MountError::io("write", &record))?;
        let result = self.mount_layers(store, layers).and_then(|(paths, checked)| {
            if !is_mount_point(target).map_err(MountError::io("look at", target))? {
                overlay::mount(&self.run, &paths, target, upper, ids)?;
            }
            Ok(checked)
        });
        if result.is_err() {
            // The first error is the one worth telling; layers that stay are unmounted with the next image.
            let _ = std::fs::remove_file(&record);
            let _ = self.unmount_unused(&user.layers);
        }
        result
    }

    /// Unmounts what [`Mounts::mount_image`] mounted on `target`, and the layers that no other image uses. Nothing there is no
    /// error.
    ///
    /// # Errors
    /// [`MountError`]; a target in use among them.
    pub fn unmount_image(&self, target: &Path) -> Result<(), MountError> {
        let _lock = self.lock()?;
        if is_mount_point(target).map_err(MountError::io("look at", target))? {
            sys::unmount(target).map_err(MountError::io("unmount", target))?;
        }
        let record = self.user_path(target);
        let user = read_user(&record)?;
        match std::fs::remove_file(&record) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            other => other.map_err(MountError::io("remove", &record))?,
        }
        self.unmount_unused(&user.map(|user| user.layers).unwrap_or_default())
    }

    /// Targets that have an image mounted, or had one when something broke off.
    ///
    /// # Errors
    /// [`MountError`]
    pub fn targets(&self) -> Result<Vec<PathBuf>, MountError> {
        let mut targets: Vec<PathBuf> = self.users()?.into_iter().map(|user| user.target).collect();
        targets.sort_unstable();
        Ok(targets)
    }

    /// Makes sure that every layer is mounted, and gives where, with the weakest of their checks.
    fn mount_layers(
        &self,
        store: &Store,
        layers: &[LayerRecord],
    ) -> Result<(Vec<PathBuf>, Checked), MountError> {
        let mut weakest = Checked::ByKernel;
        let mut paths = Vec::with_capacity(layers.len());
        for layer in layers {
            let path = self.layer_path(&layer.blob);
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => other.map_err(MountError::io("create", &path))?,
            }
            let blob = store.blob_path(&layer.blob);
            let checked = if is_mount_point(&path).map_err(MountError::io("look at", &path))? {
                // It was measured when it was mounted; only whether the kernel goes on checking has to be known.
                let file = File::open(&blob).map_err(MountError::io("open", &blob))?;
                match crate::verity::measure(&file).map_err(MountError::io("measure", &blob))? {
                    crate::verity::Measured::Digest(_) => Checked::ByKernel,
                    _ => Checked::AtImportOnly,
                }
            } else {
                mount_layer(&blob, &layer.blob, &path)?
            };
            if checked == Checked::AtImportOnly {
                weakest = checked;
            }
            paths.push(path);
        }
        Ok((paths, weakest))
    }

    fn unmount_unused(&self, layers: &BTreeSet<Digest>) -> Result<(), MountError> {
        let used: BTreeSet<Digest> = self.users()?.into_iter().flat_map(|user| user.layers).collect();
        for layer in layers.difference(&used) {
            let path = self.layer_path(layer);
            if !path.exists() {
                continue;
            }
            if is_mount_point(&path).map_err(MountError::io("look at", &path))? {
                sys::unmount(&path).map_err(MountError::io("unmount", &path))?;
            }
            std::fs::remove_dir(&path).map_err(MountError::io("remove", &path))?;
        }
        Ok(())
    }

    fn users(&self) -> Result<Vec<User>, MountError> {
        let directory = self.run.join("users");
        let mut users = Vec::new();
        for entry in std::fs::read_dir(&directory).map_err(MountError::io("list", &directory))? {
            let path = entry.map_err(MountError::io("list", &directory))?.path();
            users.extend(read_user(&path)?);
        }
        Ok(users)
    }

    fn layer_path(&self, blob: &Digest) -> PathBuf {
        self.run.join("layers").join(blob.hex())
    }

    fn user_path(&self, target: &Path) -> PathBuf {
        self.run.join("users").join(sha256::digest(target.as_os_str().as_encoded_bytes()).hex())
    }

    fn lock(&self) -> Result<Flock<File>, MountError> {
        let path = self.run.join("lock");
        let file = File::options().read(true).write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(MountError::io("open", &path))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| MountError::io("lock", path)(errno))
    }
}

fn read_user(path: &Path) -> Result<Option<User>, MountError> {
    match std::fs::read(path) {
        // A record that is not whole is that of a mount that never came about.
        Ok(bytes) => Ok(serde_json::from_slice(&bytes).ok()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(MountError::io("read", path)(error)),
    }
}

/// Whether something is mounted on `path`; a path that does not exist has nothing. A directory that is mounted a second time
/// from its own file system is not noticed.
///
/// # Errors
/// Where the path cannot be looked at.
pub fn is_mount_point(path: &Path) -> io::Result<bool> {
    let here = match std::fs::symlink_metadata(path) {
        Ok(here) => here,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    let above = std::fs::metadata(path.join(".."))?;
    // `..` of a mounted root leads out of it, to another device.
    Ok(here.dev() != above.dev())
}
