//! The disk of a host in any state, as a file. Each is a copy that shares its blocks with the one before, so that it costs no time.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use rustix::fs::ioctl_ficlone;

use super::boot::END;
use crate::disk::{succeed, unmount};
use crate::log::Entry;
use crate::scenario::Failure;
use crate::state::State;

/// The size of the file system for the copies, in bytes; sparse.
const ROOM: u64 = 32 << 30;
/// Nobody cuts the power of the machine that makes the copies: what is flushed need not reach its disk, and nothing needs a sum.
const IN_MEMORY: &str = "loop,nobarrier,nodatasum,nodiscard,commit=300";
/// Bytes behind the state partition (`docs/boot.md`).
const TAIL: u64 = 1 << 20;

/// A place for copies of one disk, seen by the calling thread and its children alone.
#[derive(Debug)]
pub struct Copies {
    directory: tempfile::TempDir,
    /// All entries before this one are on the first copy.
    durable: usize,
    base: File,
}

impl Copies {
    /// Gives the calling thread a mount namespace of its own, and copies of the raw disk in the file `disk` in it.
    ///
    /// # Errors
    /// Where the thread may not, as who is not root may not, or a program fails.
    pub fn new(disk: &Path) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        let (image, copies) = (directory.path().join("image"), directory.path().join("copies"));
        File::create(&image)?.set_len(ROOM)?;
        succeed(Command::new("mkfs.btrfs").arg("-q").arg(&image))?;
        fs::create_dir(&copies)?;
        fs::create_dir(directory.path().join("state"))?;
        succeed(Command::new("mount").args(["-t", "btrfs", "-o", IN_MEMORY]).arg(&image).arg(&copies))?;
        let base = copies.join("base");
        succeed(Command::new("cp").arg("--sparse=always").arg(disk).arg(&base))?;
        let base = File::options().read(true).write(true).open(base)?;
        Ok(Self { directory, durable: 0, base })
    }

    /// Makes the disk in that state. States come in the order of the log.
    ///
    /// # Errors
    /// Where it can't be written, or an earlier state was asked for.
    pub fn copy(&mut self, entries: &[Entry], log: &File, state: &State) -> Result<PathBuf, Failure> {
        if state.durable < self.durable {
            return Err("states come in the order of the log".into());
        }
        for entry in &entries[self.durable..state.durable] {
            write(&self.base, entry, log, None)?;
        }
        self.durable = state.durable;
        let path = self.directory.path().join("copies/state");
        let _absent_at_first = fs::remove_file(&path);
        let file = File::create_new(&path)?;
        ioctl_ficlone(&file, &self.base)?;
        for (index, torn) in state.applied().skip(state.durable) {
            write(&file, &entries[index], log, torn)?;
        }
        Ok(path)
    }

    /// Mounts the state partition of a disk, and does `work` with its path, whatever comes of it.
    ///
    /// # Errors
    /// Where it can't be mounted or unmounted, or the work fails.
    pub fn mounted<T>(
        &self,
        disk: &Path,
        work: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let target = self.directory.path().join("state");
        let size = fs::metadata(disk)?.len() - END - TAIL;
        let options = format!("loop,offset={END},sizelimit={size},nobarrier,nodiscard");
        succeed(Command::new("mount").args(["-t", "btrfs", "-o", &options]).arg(disk).arg(&target))?;
        let done = work(&target);
        unmount(&target)?;
        done
    }
}

impl Drop for Copies {
    fn drop(&mut self) {
        // The namespace ends with the thread in any case.
        for place in ["state", "copies"] {
            let _ = umount2(&self.directory.path().join(place), MntFlags::MNT_DETACH);
        }
    }
}

fn write(file: &File, entry: &Entry, log: &File, torn: Option<usize>) -> io::Result<()> {
    let Entry::Write { at, bytes, .. } = entry else { return Ok(()) };
    let written = bytes.read(log)?;
    file.write_all_at(&written[..torn.unwrap_or(written.len())], *at)
}
