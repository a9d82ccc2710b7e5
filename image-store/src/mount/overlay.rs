//! Stacking layers with overlayfs.

use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};

use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, fsconfig_create, fsconfig_set_flag, fsconfig_set_string,
    fsmount, fsopen,
};

use super::{MountError, Upper, sys};
use crate::layer::{IMPLIED, OPAQUE};

/// A mount of the EROFS image in `file` that is nowhere in the tree yet.
pub(super) fn open_erofs(file: &File) -> io::Result<OwnedFd> {
    let context = fsopen("erofs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    // The kernel opens this path itself, and by it the very file that was measured.
    fsconfig_set_string(&context, "source", format!("/proc/self/fd/{}", file.as_raw_fd()))?;
    fsconfig_set_flag(&context, "ro")?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY | MountAttrFlags::MOUNT_ATTR_NODEV;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// Mounts `layers` (mount points, the lowest first) on `target`.
///
/// overlayfs finds its layers by path, so clones of them with other ids have to be somewhere in a tree while it is told of them. That
/// is a tree of its own, which nobody else sees: in the host's, service managers would make a unit of each of these mounts.
pub(super) fn mount(
    run: &Path,
    layers: &[PathBuf],
    target: &Path,
    upper: Option<Upper<'_>>,
    ids: Option<&OwnedFd>,
) -> Result<(), MountError> {
    let stacked = std::thread::scope(|scope| {
        let stacking = || {
            sys::leave_mounts().map_err(MountError::io("copy the tree of mounts for", target))?;
            stacked(run, layers, target, upper, ids)
        };
        scope.spawn(stacking).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })?;
    sys::attach(&stacked, target).map_err(MountError::io("mount on", target))
}

/// The layers as one mount that is nowhere yet. What is mounted on the way stays in the tree of this thread.
fn stacked(
    run: &Path,
    layers: &[PathBuf],
    target: &Path,
    upper: Option<Upper<'_>>,
    ids: Option<&OwnedFd>,
) -> Result<OwnedFd, MountError> {
    let layers = seen(layers)?;
    let mut lower = match ids {
        None => Lower { paths: layers.to_vec(), base: None },
        Some(ids) => Lower::with_ids(run, layers, ids)?,
    };
    let described = described_root(&lower.paths)?;
    match upper {
        Some(Upper { upper, .. }) => {
            let top = lower.paths.last().expect("an image without layers was refused");
            let root = described.as_ref().unwrap_or(top);
            prepare_upper(upper, root).map_err(MountError::io("prepare", upper))?;
        }
        // The root of an overlay is that of its topmost layer, which may say nothing about it.
        None => {
            if let Some(root) = described.filter(|root| Some(root) != lower.paths.last()) {
                lower.add_root(run, &root)?;
            }
        }
    }
    stack(run, &lower.paths, upper).map_err(MountError::io("stack the layers for", target))
}

fn stack(run: &Path, layers: &[PathBuf], upper: Option<Upper<'_>>) -> io::Result<OwnedFd> {
    let context = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_set_string(&context, "source", "bennu")?;
    // One call for each, the topmost first: a single option with all of them would have to fit into a page.
    for layer in layers.iter().rev() {
        fsconfig_set_string(&context, "lowerdir+", layer)?;
    }
    let mut attributes = MountAttrFlags::MOUNT_ATTR_NODEV;
    match upper {
        Some(Upper { upper, work }) => {
            fsconfig_set_string(&context, "upperdir", upper)?;
            fsconfig_set_string(&context, "workdir", work)?;
        }
        None => {
            attributes |= MountAttrFlags::MOUNT_ATTR_RDONLY;
            // overlayfs wants two lower directories where there is no upper one.
            if layers.len() == 1 {
                fsconfig_set_string(&context, "lowerdir+", run.join("empty"))?;
            }
        }
    }
    fsconfig_create(&context)?;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}

/// The layers that are seen at all: overlayfs does not look whether the root of a layer is opaque.
fn seen(layers: &[PathBuf]) -> Result<&[PathBuf], MountError> {
    for (i, layer) in layers.iter().enumerate().rev() {
        match rustix::fs::getxattr(layer, OPAQUE, &mut [0; 1]) {
            Ok(_) => return Ok(&layers[i..]),
            Err(rustix::io::Errno::NODATA) => {}
            Err(errno) => return Err(MountError::io("look at", layer)(io::Error::from(errno))),
        }
    }
    Ok(layers)
}

/// The topmost layer that says anything about the root; none of them may.
fn described_root(layers: &[PathBuf]) -> Result<Option<PathBuf>, MountError> {
    for layer in layers.iter().rev() {
        match rustix::fs::getxattr(layer, IMPLIED, &mut [0; 1]) {
            Ok(_) => {}
            Err(rustix::io::Errno::NODATA) => return Ok(Some(layer.clone())),
            Err(errno) => return Err(MountError::io("look at", layer)(io::Error::from(errno))),
        }
    }
    Ok(None)
}

/// The root of an overlay is its upper directory, so an empty one has to look like the root of the image.
fn prepare_upper(upper: &Path, top: &Path) -> io::Result<()> {
    if std::fs::read_dir(upper)?.next().is_some() {
        return Ok(());
    }
    let root = std::fs::metadata(top)?;
    chown(upper, Some(root.uid()), Some(root.gid()))?;
    std::fs::set_permissions(upper, std::fs::Permissions::from_mode(root.mode() & 0o7777))
}

/// Lower directories.
struct Lower {
    paths: Vec<PathBuf>,
    /// Where those of them are that nobody else has, in memory.
    base: Option<PathBuf>,
}

impl Lower {
    fn with_ids(run: &Path, layers: &[PathBuf], ids: &OwnedFd) -> Result<Self, MountError> {
        let mut lower = Self { paths: Vec::with_capacity(layers.len()), base: None };
        for layer in layers {
            let clone = sys::clone_with_ids(layer, ids).map_err(MountError::io("map ids of", layer))?;
            lower.attach(run, &clone)?;
        }
        Ok(lower)
    }

    /// Puts an empty directory on top that looks like `root`.
    fn add_root(&mut self, run: &Path, root: &Path) -> Result<(), MountError> {
        let mount = open_empty().map_err(MountError::io("make a root in", run))?;
        let path = self.attach(run, &mount)?;
        prepare_upper(&path, root).map_err(MountError::io("prepare", path))
    }

    /// Adds a mount on top, at a path of its own.
    fn attach(&mut self, run: &Path, mount: &OwnedFd) -> Result<PathBuf, MountError> {
        let base = match &self.base {
            Some(base) => base.clone(),
            None => {
                let base = run.join("lower");
                let empty = open_empty().and_then(|empty| sys::attach(&empty, &base));
                empty.map_err(MountError::io("mount on", &base))?;
                self.base.insert(base).clone()
            }
        };
        let path = base.join(self.paths.len().to_string());
        std::fs::create_dir(&path).map_err(MountError::io("create", &path))?;
        sys::attach(mount, &path).map_err(MountError::io("mount on", &path))?;
        self.paths.push(path.clone());
        Ok(path)
    }
}

/// An empty file system in memory that is nowhere in the tree yet.
fn open_empty() -> io::Result<OwnedFd> {
    let context = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC)?;
    fsconfig_create(&context)?;
    let attributes = MountAttrFlags::MOUNT_ATTR_NODEV | MountAttrFlags::MOUNT_ATTR_NOSUID;
    Ok(fsmount(&context, FsMountFlags::FSMOUNT_CLOEXEC, attributes)?)
}
