//! The file tree of an instance: the layers of its image with the instance's ids, and what it writes on top.

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_image_store::mount::{MountError, Mounts, Upper};
use bennu_image_store::{LayerRecord, Store};

use super::volume;

/// What is to be mounted.
#[derive(Debug, Clone)]
pub(super) struct Wanted<'a> {
    /// The layers of the image, the lowest first.
    pub(super) layers: &'a [LayerRecord],
    /// The directory of the instance.
    pub(super) dir: &'a Path,
    /// Where what it writes to its root goes; `None` where it may not write: then memory is enough, for the mount
    /// points that the image does not have.
    pub(super) upper: Option<PathBuf>,
    /// Where the user namespace of the instance is; `None` where it has the host's users.
    pub(super) users: Option<PathBuf>,
}

/// Why a tree was not mounted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RootfsError {
    /// A directory can't be made, or the user namespace not be opened.
    #[error("prepare {}", path.display())]
    Io {
        /// The directory.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// A layer is not what it should be, or can't be mounted.
    #[error(transparent)]
    Mount(#[from] MountError),
}

/// Where the tree of an instance appears.
pub(super) fn path(dir: &Path) -> PathBuf {
    dir.join("rootfs")
}

/// Mounts the tree and returns where it is.
pub(super) async fn mount(
    store: &Arc<Store>,
    mounts: &Mounts,
    wanted: Wanted<'_>,
) -> Result<PathBuf, RootfsError> {
    let target = path(wanted.dir);
    let top = wanted.upper.unwrap_or_else(|| wanted.dir.join("upper"));
    let (upper, work) = (top.join("data"), top.join("work"));
    // The container's root is no user of the host's, so it has to be let through.
    for (dir, mode) in [(&target, 0o755), (&top, 0o711), (&upper, 0o755), (&work, 0o700)] {
        volume::make_dir(dir, mode).map_err(|source| RootfsError::Io { path: dir.clone(), source })?;
    }
    let open = |path: PathBuf| File::open(&path).map_err(|source| RootfsError::Io { path, source });
    let users = wanted.users.map(open).transpose()?.map(OwnedFd::from);
    let (store, mounts, layers) = (store.clone(), mounts.clone(), wanted.layers.to_vec());
    let mounted = tokio::task::spawn_blocking(move || {
        let upper = Upper { upper: &upper, work: &work };
        mounts.mount_image(&store, &layers, &target, Some(upper), users.as_ref()).map(|_checked| target)
    });
    let joined =
        mounted.await.map_err(|error| RootfsError::Io { path: path(wanted.dir), source: error.into() })?;
    Ok(joined?)
}
