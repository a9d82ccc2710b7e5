//! Where what lives as long as a boot is: a file system that nobody can read once the machine has stopped.
//!
//! ```text
//!  STATE/scratch.img ──► dm-crypt, with a key out of the kernel's random numbers ──► btrfs ──► STATE/scratch
//! ```
//! The key is in the memory of the kernel and nowhere else, so after a boot the file is noise, and it is not emptied but made a new file
//! system with a new key. Its blocks are reserved: a disk that is full with what is kept leaves what is thrown away as it is, where
//! writes into a hole would fail as if the disk were broken.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::statvfs::statvfs;
use rustix::fs::{AtFlags, FallocateFlags, IFlags, StatxAttributes, StatxFlags};
use rustix::mount::{MountFlags, UnmountFlags};
use tokio::process::Command;

use super::command::{CommandError, run};
use super::volume::{VolumeError, make_dir, remove_below};

/// The name of the mapping (`/dev/mapper/NAME`).
const NAME: &str = "bennu-scratch";
/// The part of the state partition that is set apart.
const SHARE: u64 = 4;
/// The most that is set apart, in bytes.
const MOST: u64 = 64 << 30;
/// The least that a host can do with, in bytes: twice what btrfs asks for (mkfs.btrfs(8), 109 MiB without `--mixed`).
const LEAST: u64 = 256 << 20;
/// What sizes are a multiple of.
const UNIT: u64 = 1 << 20;
/// How long a program has. None of them does more the larger the file is.
const DEADLINE: Duration = Duration::from_secs(120);

/// Why there is no place for what is thrown away.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ScratchError {
    /// Something can't be read, written or mounted.
    #[error("{what} {}", path.display())]
    Io {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// What earlier versions left can't be removed.
    #[error(transparent)]
    Clear(#[from] VolumeError),
    /// There is no room for it.
    #[error("{} needs {} MiB, and the disk is full", path.display(), LEAST >> 20)]
    Full {
        /// The file.
        path: PathBuf,
    },
    /// A program failed.
    #[error("{what} {}", path.display())]
    Program {
        /// What was being done.
        what: &'static str,
        /// To what.
        path: PathBuf,
        /// What it said.
        source: CommandError,
    },
}

fn io_error(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ScratchError {
    let path = path.to_owned();
    move |source| ScratchError::Io { what, path, source }
}

/// Makes the file system and mounts it; one that an earlier daemon mounted in this boot stays as it is.
///
/// # Errors
/// [`ScratchError`]; nothing is mounted then.
pub(super) async fn open(state: &Path) -> Result<(), ScratchError> {
    let (place, image) = (state.join("scratch"), state.join("scratch.img"));
    make_dir(&place, 0o711).map_err(io_error("make", &place))?;
    if is_mounted(&place).map_err(io_error("look at", &place))? {
        return Ok(());
    }
    // Before there was such a file, boots had directories here.
    remove_below(&place).await?;
    // A daemon was ended before it mounted it.
    close(state).await?;
    let device = Path::new("/dev/mapper").join(NAME);
    let seen = statvfs(state).map_err(io::Error::from).map_err(io_error("measure", state))?;
    let bytes = |blocks: u64| blocks * seen.fragment_size();
    reserve(&image, size(bytes(seen.blocks()), bytes(seen.blocks_available()))).map_err(
        |error| match error.kind() {
            io::ErrorKind::StorageFull => ScratchError::Full { path: image.clone() },
            _ => io_error("reserve", &image)(error),
        },
    )?;
    // Nobody derives this key from anything, so there is nothing to hash (cryptsetup-open(8), "PLAIN"). Blocks have the size of a
    // page: one of 512 bytes would be encrypted by itself.
    let plain = ["open", "--type=plain", "--batch-mode", "--cipher=aes-xts-plain64", "--key-size=512"];
    let key = ["--key-file=/dev/urandom", "--sector-size=4096"];
    program("encrypt", &image, "cryptsetup", &[&plain[..], &key].concat(), Some(&[&image, Path::new(NAME)]))
        .await?;
    // Whatever was under another key is noise under this one. What is lost with a boot needs no second copy of its metadata.
    let make = ["--quiet", "--nodiscard", "--metadata=single", "--force"];
    program("make a file system on", &device, "mkfs.btrfs", &make, Some(&[&device])).await?;
    let flags = MountFlags::NOATIME | MountFlags::NOSUID | MountFlags::NODEV;
    rustix::mount::mount(&device, &place, "btrfs", flags, None)
        .map_err(|error| io_error("mount", &place)(error.into()))
}

/// Unmounts it, and forgets its key; one that is not there is no error.
///
/// # Errors
/// [`ScratchError`]; where something is in use there.
pub(super) async fn close(state: &Path) -> Result<(), ScratchError> {
    let place = state.join("scratch");
    if is_mounted(&place).map_err(io_error("look at", &place))? {
        let unmounted = rustix::mount::unmount(&place, UnmountFlags::NOFOLLOW);
        unmounted.map_err(|error| io_error("unmount", &place)(error.into()))?;
    }
    let device = Path::new("/dev/mapper").join(NAME);
    if !device.exists() {
        return Ok(());
    }
    program("close", &device, "cryptsetup", &["close", NAME], None).await
}

/// How many bytes are set apart of a partition of which so many are free.
fn size(total: u64, free: u64) -> u64 {
    (total / SHARE).min(free / 2).clamp(LEAST, MOST) / UNIT * UNIT
}

/// Whether something is mounted on a directory (statx(2), `STATX_ATTR_MOUNT_ROOT`).
fn is_mounted(dir: &Path) -> io::Result<bool> {
    let seen = rustix::fs::statx(rustix::fs::CWD, dir, AtFlags::empty(), StatxFlags::BASIC_STATS)?;
    Ok(seen.stx_attributes.contains(StatxAttributes::MOUNT_ROOT))
}

/// Makes the file and has so many bytes reserved for it. One that is there keeps what it has, and does with that where there is no
/// room for more.
fn reserve(image: &Path, wanted: u64) -> io::Result<()> {
    let file =
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(image)?;
    let has = file.metadata()?.len();
    if has == 0 {
        write_in_place(&file)?;
    }
    if wanted > has
        && let Err(error) = rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, wanted)
    {
        // A part of it may have been reserved.
        file.set_len(has)?;
        if has < LEAST || error != rustix::io::Errno::NOSPC {
            return Err(error.into());
        }
    }
    file.sync_all()
}

/// Has btrfs write into the blocks that are reserved and not into others (ioctl_iflags(2), `FS_NOCOW_FL`); other file systems do that
/// anyway.
fn write_in_place(file: &File) -> io::Result<()> {
    let flags = rustix::fs::ioctl_getflags(file)?;
    match rustix::fs::ioctl_setflags(file, flags | IFlags::NOCOW) {
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL) => Ok(()),
        other => Ok(other?),
    }
}

async fn program(
    what: &'static str,
    path: &Path,
    name: &str,
    arguments: &[&str],
    paths: Option<&[&Path]>,
) -> Result<(), ScratchError> {
    let mut command = Command::new(name);
    // Device mapper makes its device itself (libdevmapper): udev has all devices of the machine to tell of at this time of a boot.
    command.env("DM_DISABLE_UDEV", "1");
    command.args(arguments).args(paths.into_iter().flatten());
    let path = path.to_owned();
    let ended = run(command, b"", DEADLINE).await;
    ended.map(drop).map_err(|source| ScratchError::Program { what, path, source })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quarter_is_set_apart_within_bounds() {
        let empty = |total| size(total, total);
        assert_eq!(empty(8 << 30), 2 << 30);
        assert_eq!(empty(512 << 20), LEAST);
        assert_eq!(empty(4 << 40), MOST);
        assert_eq!(empty((4 << 30) + 4095), 1 << 30);
        assert_eq!(size(8 << 30, 1 << 30), 512 << 20, "half of what is free is left to what is kept");
        assert_eq!(size(8 << 30, 0), LEAST);
    }

    #[test]
    fn a_file_is_reserved_once_and_grows_and_never_shrinks() {
        let dir = tempfile::tempdir().unwrap();
        let image = dir.path().join("scratch.img");
        let len = || std::fs::metadata(&image).unwrap().len();
        reserve(&image, 3 * UNIT).unwrap();
        assert_eq!(len(), 3 * UNIT);
        let blocks = std::os::unix::fs::MetadataExt::blocks(&std::fs::metadata(&image).unwrap());
        assert!(blocks * 512 >= 3 * UNIT, "no block is left to be found: {blocks}");
        reserve(&image, 5 * UNIT).unwrap();
        reserve(&image, UNIT).unwrap();
        assert_eq!(len(), 5 * UNIT);
    }

    #[test]
    fn a_mount_is_told_from_a_directory() {
        assert!(is_mounted(Path::new("/proc")).unwrap());
        assert!(!is_mounted(Path::new("/proc/self")).unwrap());
    }
}
