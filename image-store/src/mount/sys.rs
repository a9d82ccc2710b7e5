//! The few system calls that no crate wraps, and two that are used everywhere here.

#![expect(unsafe_code, reason = "mount_setattr is not wrapped by any crate in use")]

use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use nix::libc;
use nix::sched::{CloneFlags, unshare};
use rustix::fs::CWD;
use rustix::io::Errno;
use rustix::mount::{
    MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags, mount_change, move_mount, open_tree,
};

/// Gives this thread a tree of mounts of its own, a copy of the one that it was in: what is mounted there is seen by no other
/// thread, and gone with this one.
pub(super) fn leave_mounts() -> io::Result<()> {
    unshare(CloneFlags::CLONE_NEWNS)?;
    let apart = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    Ok(mount_change("/", apart)?)
}

/// Puts a mount that is nowhere yet on `target`.
pub(super) fn attach(mount: &OwnedFd, target: &Path) -> io::Result<()> {
    Ok(move_mount(mount, "", CWD, target, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)?)
}

/// How long a mount in use is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// Unmounts what is on `target`, unless it is in use. A child that another thread forked a moment ago holds a copy of every
/// descriptor until it executes its program or ends, so what is in use for a moment is waited for.
pub(super) fn unmount(target: &Path) -> io::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match rustix::mount::unmount(target, UnmountFlags::NOFOLLOW) {
            Err(Errno::BUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(5)),
            other => return Ok(other?),
        }
    }
}

/// A clone of the mount at `path`, nowhere in the tree yet, with the ids of the user namespace.
pub(super) fn clone_with_ids(path: &Path, namespace: &OwnedFd) -> io::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let clone = open_tree(CWD, path, flags)?;
    let attr = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_IDMAP,
        attr_clr: 0,
        propagation: 0,
        userns_fd: namespace.as_fd().as_raw_fd() as u64,
    };
    // SAFETY: the path is an empty C string, `attr` has the layout and length that are announced, and both outlive the call.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            clone.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH as libc::c_uint,
            &raw const attr,
            size_of::<libc::mount_attr>(),
        )
    };
    if result == 0 { Ok(clone) } else { Err(io::Error::last_os_error()) }
}
