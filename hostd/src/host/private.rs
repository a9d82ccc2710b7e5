//! What an instance has for itself in memory: its secrets, configs, and nodes of its devices, with its own user as owner.
//!
//! They lie on a file system of their own, which is never swapped out, and which allows nodes of devices to be used: the
//! daemon's own directory does neither. It goes when the instance is unmounted.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use bennu_manifests::model::{Container, Device, FileMount};
use nix::mount::{MsFlags, mount};
use nix::sys::stat::{Mode, SFlag, mknod};

use super::user::User;
use super::volume::make_dir;
use crate::contents::Contents;

/// What fits on it; the bounds of a manifest are far below.
const SIZE: &str = "mode=0711,size=128M,noswap";

/// Where it is in the directory of an instance.
const NAME: &str = "private";

/// What is put there for an instance.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// What is declared.
    pub container: &'a Container,
    /// Its configs and secrets.
    pub contents: &'a Contents,
    /// Its user, in ids of the container.
    pub user: &'a User,
    /// The first id of its range on the host; 0 where it has the host's users.
    pub host_start: u32,
}

/// Where things appear in the container, and where they are on the host.
#[derive(Debug, Default)]
pub(super) struct Placed {
    pub(super) files: BTreeMap<PathBuf, PathBuf>,
    pub(super) devices: BTreeMap<PathBuf, PathBuf>,
}

/// Makes what an instance has for itself; without anything to put there nothing is mounted.
///
/// # Errors
/// Where a device is not there, or the file system says no.
pub(super) fn place(dir: &Path, wanted: &Wanted<'_>) -> io::Result<Placed> {
    let container = wanted.container;
    let mut placed = Placed::default();
    if container.configs.is_empty() && container.secrets.is_empty() && container.devices.is_empty() {
        return Ok(placed);
    }
    let private = dir.join(NAME);
    make_dir(&private, 0o711)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    mount(Some("tmpfs"), &private, Some("tmpfs"), flags, Some(SIZE))?;
    for (index, (mount, bytes)) in files(container, wanted.contents).enumerate() {
        let path = private.join(file_name(index));
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path)?;
        file.write_all(bytes)?;
        let (uid, gid) = owner(mount, wanted.user);
        std::os::unix::fs::fchown(&file, Some(wanted.host_start + uid), Some(wanted.host_start + gid))?;
        let mode = u32::from_str_radix(&mount.mode, 8).map_err(io::Error::other)?;
        file.set_permissions(std::fs::Permissions::from_mode(mode))?;
        placed.files.insert(PathBuf::from(&mount.target), path);
    }
    for (index, device) in container.devices.iter().enumerate() {
        let path = private.join(format!("device-{index}"));
        make_node(&path, device, wanted)?;
        placed.devices.insert(PathBuf::from(&device.target), path);
    }
    Ok(placed)
}

/// Writes the files again, with what is in them now. A program that reads one at this moment may see a part of it.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn refresh(dir: &Path, container: &Container, contents: &Contents) -> io::Result<()> {
    for (index, (_, bytes)) in files(container, contents).enumerate() {
        // The mount in the container holds on to this file, so it is written again and not replaced.
        let path = dir.join(NAME).join(file_name(index));
        OpenOptions::new().write(true).truncate(true).open(path)?.write_all(bytes)?;
    }
    Ok(())
}

fn file_name(index: usize) -> String {
    format!("file-{index}")
}

fn files<'a>(
    container: &'a Container,
    contents: &'a Contents,
) -> impl Iterator<Item = (&'a FileMount, &'a [u8])> {
    let configs = container.configs.iter().map(|mount| (mount, contents.config(&mount.source)));
    let secrets = container.secrets.iter().map(|mount| (mount, contents.secret(&mount.source)));
    configs.chain(secrets).map(|(mount, bytes)| (mount, bytes.unwrap_or_default()))
}

/// Who owns a file in the container: who is declared, else its user.
fn owner(mount: &FileMount, user: &User) -> (u32, u32) {
    let declared = mount.owner.as_deref().and_then(|owner| owner.split_once(':'));
    let parsed = declared.and_then(|(uid, gid)| Some((uid.parse().ok()?, gid.parse().ok()?)));
    parsed.unwrap_or((user.uid, user.gid))
}

/// Makes a node of a device of the host that the container's user may use. Which of its accesses the kernel lets through is
/// the unit's affair.
fn make_node(path: &Path, device: &Device, wanted: &Wanted<'_>) -> io::Result<()> {
    let named = |error: io::Error| io::Error::new(error.kind(), format!("device {}: {error}", device.source));
    let there = std::fs::metadata(&device.source).map_err(named)?;
    let kind = match there.file_type() {
        kind if kind.is_char_device() => SFlag::S_IFCHR,
        kind if kind.is_block_device() => SFlag::S_IFBLK,
        _ => return Err(named(io::Error::new(io::ErrorKind::InvalidInput, "it is no device"))),
    };
    mknod(path, kind, Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IRGRP | Mode::S_IWGRP, there.rdev())?;
    let User { uid, gid, .. } = wanted.user;
    std::os::unix::fs::lchown(path, Some(wanted.host_start + uid), Some(wanted.host_start + gid))?;
    // What the mask of the daemon took away.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))
}
