//! A new file system for each run, so that no run finds what another one left.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::statvfs::statvfs;

use crate::Failure;
use crate::bench::program::succeed;

/// Length of the sparse file that the file system is in: more than any image unpacked twice.
const SIZE: u64 = 8 << 30;

/// Which file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Ext4,
    /// Where files can share blocks.
    Btrfs,
}

impl Kind {
    /// The program that makes one, and the options that it is mounted with. Nothing initialises the inode tables of ext4 while it
    /// is mounted, which would be counted as the work of whoever is measured.
    fn commands(self) -> (&'static [&'static str], &'static str) {
        match self {
            Self::Ext4 => (&["mkfs.ext4", "-q", "-E", "lazy_itable_init=1"], "loop,noinit_itable"),
            Self::Btrfs => (&["mkfs.btrfs", "-q"], "loop"),
        }
    }
}

/// A file system on a loop device; it is gone when this value is dropped.
#[derive(Debug)]
pub(super) struct Scratch {
    folder: tempfile::TempDir,
}

/// What a file system holds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Used {
    /// Bytes of blocks that are not free.
    pub(super) bytes: u64,
    /// Nothing on a file system that does not count them.
    pub(super) inodes: u64,
}

impl Scratch {
    /// Makes and mounts one. Its path is short, because a socket's path has at most 108 bytes.
    ///
    /// # Errors
    /// Where this process may not mount, or there is no loop device.
    pub(super) fn mount(kind: Kind) -> Result<Self, Failure> {
        let folder = tempfile::Builder::new().prefix("bb").tempdir_in("/tmp")?;
        let image = folder.path().join("image");
        File::create(&image)?.set_len(SIZE)?;
        let (make, options) = kind.commands();
        succeed(Command::new(make[0]).args(&make[1..]).arg(&image))?;
        std::fs::create_dir(folder.path().join("m"))?;
        let scratch = Self { folder };
        succeed(Command::new("mount").args(["-o", options]).arg(&image).arg(scratch.path()))?;
        Ok(scratch)
    }

    /// Where it is mounted.
    pub(super) fn path(&self) -> PathBuf {
        self.folder.path().join("m")
    }

    /// What it holds once all is written.
    ///
    /// # Errors
    /// Where it cannot be asked.
    pub(super) fn used(&self) -> Result<Used, Failure> {
        succeed(Command::new("sync").arg("--file-system").arg(self.path()))?;
        let seen = statvfs(&self.path())?;
        Ok(Used {
            bytes: (seen.blocks() - seen.blocks_free()) * seen.fragment_size(),
            inodes: seen.files() - seen.files_free(),
        })
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // A peer may have mounted something below; the folder itself is removed by its own destructor.
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let mut below: Vec<&str> = mounts
            .lines()
            .filter_map(|line| line.split(' ').nth(1))
            .filter(|path| Path::new(path).starts_with(self.folder.path()))
            .collect();
        below.sort_by_key(|path| std::cmp::Reverse(path.len()));
        for path in below {
            if let Err(failure) = succeed(Command::new("umount").arg(path)) {
                eprintln!("warning: {failure}");
            }
        }
    }
}

/// Forgets what the kernel keeps of files, as far as it can.
///
/// # Errors
/// Where this process may not.
pub(super) fn drop_caches() -> Result<(), Failure> {
    nix::unistd::sync();
    Ok(std::fs::write("/proc/sys/vm/drop_caches", "3\n")?)
}
