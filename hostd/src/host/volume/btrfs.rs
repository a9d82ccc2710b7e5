//! What btrfs can do with directories that are subvolumes. `btrfs` of btrfs-progs is run here and nowhere else.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::sys::statfs::{BTRFS_SUPER_MAGIC, statfs};
use tokio::process::Command;

use super::{VolumeError, io_error};
use crate::host::command::run;

/// How long btrfs-progs has for anything that it is asked to do. Nothing of it grows with what is in a subvolume, but a
/// snapshot waits until what was written before it is on disk.
const DEADLINE: Duration = Duration::from_secs(300);

/// The inode of the root of every subvolume (btrfs on-disk format, `BTRFS_FIRST_FREE_OBJECTID`).
const ROOT_INODE: u64 = 256;

/// Whether a file system is btrfs.
pub(super) fn is_btrfs(path: &Path) -> bool {
    statfs(path).is_ok_and(|fs| fs.filesystem_type() == BTRFS_SUPER_MAGIC)
}

/// Whether a directory is the root of a subvolume.
pub(super) fn is_subvolume(path: &Path) -> bool {
    std::fs::symlink_metadata(path).is_ok_and(|m| m.is_dir() && m.ino() == ROOT_INODE) && is_btrfs(path)
}

/// Makes an empty subvolume.
pub(super) async fn create(path: &Path) -> Result<(), VolumeError> {
    btrfs("make subvolume", &["subvolume", "create", "--"], &[path]).await
}

/// Makes `to` what `from` is now: all at one moment, and without copying data.
pub(super) async fn snapshot(from: &Path, to: &Path, access: Access) -> Result<(), VolumeError> {
    let arguments: &[&str] = match access {
        Access::ReadOnly => &["subvolume", "snapshot", "-r", "--"],
        Access::Writable => &["subvolume", "snapshot", "--"],
    };
    btrfs("take snapshot", arguments, &[from, to]).await
}

/// Whether a snapshot can be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Access {
    ReadOnly,
    Writable,
}

/// Removes a subvolume at once, however much is in it.
pub(super) async fn delete(path: &Path) -> Result<(), VolumeError> {
    btrfs("delete subvolume", &["subvolume", "delete", "--"], &[path]).await
}

/// Puts each of two directories in the other one's place. There is no moment at which either place is empty.
pub(super) fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    Ok(renameat2(AT_FDCWD, one, AT_FDCWD, other, RenameFlags::RENAME_EXCHANGE)?)
}

/// Runs `btrfs` with these arguments and paths.
pub(super) async fn btrfs(
    what: &'static str,
    arguments: &[&str],
    paths: &[&Path],
) -> Result<(), VolumeError> {
    let mut command = Command::new("btrfs");
    command.args(arguments).args(paths);
    let path = paths.last().map(|path| path.to_path_buf()).unwrap_or_default();
    run(command, b"", DEADLINE).await.map(drop).map_err(|source| VolumeError::Btrfs { what, path, source })
}

/// The kernel's directory about a mounted file system, and the number of the subvolume that `path` is in.
pub(super) fn place_in_kernel(path: &Path) -> Result<(PathBuf, u64), VolumeError> {
    let place = || {
        let dir = File::open(path)?;
        let id: String = ioctl::file_system_id(&dir)?.iter().map(|byte| format!("{byte:02x}")).collect();
        // RFC 9562, section 4: 8-4-4-4-12 hex digits.
        let id = [&id[..8], &id[8..12], &id[12..16], &id[16..20], &id[20..]].join("-");
        Ok((Path::new("/sys/fs/btrfs").join(id), ioctl::subvolume(&dir)?))
    };
    place().map_err(io_error("ask the file system about", path))
}

mod ioctl {
    #![expect(unsafe_code, reason = "two ioctls that no crate wraps; their structures are laid out here")]

    use std::fs::File;
    use std::io;
    use std::os::fd::AsRawFd as _;

    /// `struct btrfs_ioctl_ino_lookup_args` of `include/uapi/linux/btrfs.h`.
    #[repr(C)]
    pub(super) struct Lookup {
        tree: u64,
        object: u64,
        name: [u8; 4080],
    }

    /// `struct btrfs_ioctl_fs_info_args` of `include/uapi/linux/btrfs.h`, as far as it is read.
    #[repr(C)]
    pub(super) struct Info {
        max_device: u64,
        devices: u64,
        id: [u8; 16],
        rest: [u8; 992],
    }

    nix::ioctl_readwrite!(ino_lookup, 0x94, 18, Lookup);
    nix::ioctl_read!(fs_info, 0x94, 31, Info);

    /// The number of the subvolume that a file is in.
    pub(super) fn subvolume(file: &File) -> io::Result<u64> {
        // Tree 0 asks for that of the file itself.
        let mut lookup = Lookup { tree: 0, object: super::ROOT_INODE, name: [0; 4080] };
        // SAFETY: `lookup` has the layout that the kernel reads and writes for this number, and outlives the call.
        unsafe { ino_lookup(file.as_raw_fd(), &raw mut lookup) }?;
        Ok(lookup.tree)
    }

    /// The UUID of the file system that a file is on.
    pub(super) fn file_system_id(file: &File) -> io::Result<[u8; 16]> {
        let mut info = Info { max_device: 0, devices: 0, id: [0; 16], rest: [0; 992] };
        // SAFETY: `info` has the size and layout that the kernel writes for this number, and outlives the call.
        unsafe { fs_info(file.as_raw_fd(), &raw mut info) }?;
        Ok(info.id)
    }
}
