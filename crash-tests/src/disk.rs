//! Small disks: one whose every write is recorded, and one that is made from a state.
//!
//! Everything lies on a tmpfs in a mount namespace of the calling thread, so nothing is left when that ends, however it ends.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::log::{self, Entry};
use crate::scenario::{Failure, MARK};
use crate::state::State;

/// Bytes of memory that a thread's disks may take.
const MEMORY: &str = "size=768m";
/// The largest log, in bytes; sparse.
const MAX_LOG: u64 = 512 << 20;

/// A file system and how it is mounted.
#[derive(Debug, Clone, Copy)]
pub struct FileSystem {
    /// What tests print.
    pub name: &'static str,
    /// Its type, as `mount` wants it.
    pub kind: &'static str,
    /// Options of `mount`.
    pub options: &'static str,
    /// The command that makes it, but for the file.
    pub make: &'static [&'static str],
    /// Bytes.
    pub size: u64,
    /// The smallest piece that it believes to be written whole, in bytes.
    pub unit: usize,
}

const MAKE_EXT4: &[&str] =
    &["mkfs.ext4", "-q", "-F", "-J", "size=4", "-E", "lazy_itable_init=0,lazy_journal_init=0"];

/// The size of ext4's superblock, which is written in place under one checksum: a torn one cannot be mounted before `e2fsck` took a
/// backup of it, whatever was stored (Linux, `Documentation/filesystems/ext4/super.rst`, `s_checksum`).
const EXT4_UNIT: usize = 1024;

/// The file systems that are tried. Discarded blocks are not part of the model, so nothing is discarded.
pub const FILE_SYSTEMS: [FileSystem; 3] = [
    FileSystem {
        name: "ext4",
        kind: "ext4",
        options: "nodiscard",
        make: MAKE_EXT4,
        size: 32 << 20,
        unit: EXT4_UNIT,
    },
    // Without the habit that hides a missing fsync before a rename.
    FileSystem {
        name: "ext4, noauto_da_alloc",
        kind: "ext4",
        options: "nodiscard,noauto_da_alloc",
        make: MAKE_EXT4,
        size: 32 << 20,
        unit: EXT4_UNIT,
    },
    FileSystem {
        name: "btrfs",
        kind: "btrfs",
        options: "nodiscard",
        make: &["mkfs.btrfs", "-q", "-f"],
        size: 128 << 20,
        unit: 4096,
    },
];

/// A place for disks, seen by the calling thread and its children alone.
#[derive(Debug)]
pub struct Place {
    directory: tempfile::TempDir,
}

impl Place {
    /// Gives the calling thread a mount namespace of its own, and a place in it.
    ///
    /// # Errors
    /// Where the thread may not, as who is not root may not.
    pub fn new() -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        unshare(CloneFlags::CLONE_NEWNS)?;
        mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>)?;
        mount(Some("disks"), directory.path(), Some("tmpfs"), MsFlags::empty(), Some(MEMORY))?;
        let place = Self { directory };
        fs::create_dir(place.mounted())?;
        Ok(place)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Where disks are mounted.
    pub fn mounted(&self) -> PathBuf {
        self.path("mounted")
    }

    /// Makes an empty file system in a file.
    ///
    /// # Errors
    /// Where a program fails.
    pub fn make(&self, file_system: &FileSystem) -> Result<PathBuf, Failure> {
        let path = self.path("base");
        File::create(&path)?.set_len(file_system.size)?;
        let (program, arguments) = file_system.make.split_first().expect("a command");
        succeed(Command::new(program).args(arguments).arg(&path))?;
        Ok(path)
    }

    /// Mounts `device`, does `work` with the path, and unmounts it, whatever comes of it.
    ///
    /// # Errors
    /// Where it cannot be mounted or unmounted, or the work fails.
    pub fn mounted_at<T>(
        &self,
        device: &Path,
        file_system: &FileSystem,
        work: impl FnOnce(&Path) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let target = self.mounted();
        let options = format!("loop,sizelimit={},{}", file_system.size, file_system.options);
        succeed(
            Command::new("mount").args(["-t", file_system.kind, "-o", &options]).arg(device).arg(&target),
        )?;
        let done = work(&target);
        unmount(&target)?;
        done
    }

    /// Runs `work` on an empty file system whose writes are recorded, and gives the first bytes of the disk and the log. `work`
    /// is told where the file system is mounted, and the file and the place in it where marks go.
    ///
    /// # Errors
    /// Where the recorder or the work fails.
    pub fn record(
        &self,
        file_system: &FileSystem,
        work: impl FnOnce(&Path, &Path, u64) -> Result<(), Failure>,
    ) -> Result<Recording, Failure> {
        let base = self.make(file_system)?;
        let before = Blocks::read(&base)?;
        OpenOptions::new().write(true).open(&base)?.set_len(file_system.size + MARK)?;
        let (log, export) = (self.path("log"), self.path("export"));
        File::create(&log)?.set_len(MAX_LOG)?;
        File::create(&export)?;
        let recorder = Recorder::start(self, &base, &log, &export)?;
        self.mounted_at(&export, file_system, |mounted| work(mounted, &export, file_system.size))?;
        recorder.stop()?;
        let (entries, bytes) = log::read(&log, file_system.size + MARK)?;
        // It lives as long as it is open.
        fs::remove_file(&log)?;
        Ok(Recording { before, entries, log: bytes, size: file_system.size })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Disks of a test that failed; the namespace ends with the thread in any case.
        let _ = umount2(&self.mounted(), MntFlags::MNT_DETACH);
        let _ = umount2(self.directory.path(), MntFlags::MNT_DETACH);
    }
}

/// What was on a disk before, and all that was asked of it since.
#[derive(Debug)]
pub struct Recording {
    before: Blocks,
    /// The log.
    pub entries: Vec<Entry>,
    log: File,
    size: u64,
}

impl Recording {
    /// How many steps were acknowledged when the first `issued` entries had been.
    pub fn acknowledged(&self, issued: usize) -> usize {
        let marks = self.entries[..issued].iter().filter_map(|entry| match entry {
            Entry::Write { at, bytes, .. } if *at >= self.size => bytes.read(&self.log).ok(),
            _ => None,
        });
        marks.map(|mark| crate::scenario::marked(&mark)).max().unwrap_or(0)
    }

    /// Makes a disk in that state, in a file of `place`.
    ///
    /// # Errors
    /// Where it cannot be written.
    pub fn disk(&self, place: &Place, state: &State) -> io::Result<PathBuf> {
        let path = place.path("state");
        // A new file: the one before was written to by the file system.
        let _ = fs::remove_file(&path);
        let file = File::create_new(&path)?;
        file.set_len(self.size)?;
        for (at, bytes) in &self.before.0 {
            file.write_all_at(bytes, *at)?;
        }
        for (index, torn) in state.applied() {
            let Entry::Write { at, bytes, .. } = &self.entries[index] else { continue };
            if *at < self.size {
                let bytes = bytes.read(&self.log)?;
                file.write_all_at(&bytes[..torn.unwrap_or(bytes.len())], *at)?;
            }
        }
        Ok(path)
    }
}

/// The parts of a file that are not zero, by their place.
#[derive(Debug)]
struct Blocks(Vec<(u64, Vec<u8>)>);

impl Blocks {
    fn read(path: &Path) -> io::Result<Self> {
        let bytes = fs::read(path)?;
        let blocks = bytes.chunks(4096).zip((0..).step_by(4096));
        let blocks = blocks.filter(|(block, _)| block.iter().any(|byte| *byte != 0));
        Ok(Self(blocks.map(|(block, at)| (at, block.to_vec())).collect()))
    }
}

/// `qemu-storage-daemon`, while it records.
#[derive(Debug)]
struct Recorder(Child);

impl Recorder {
    fn start(place: &Place, base: &Path, log: &Path, export: &Path) -> Result<Self, Failure> {
        let ready = place.path("ready");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new("qemu-storage-daemon");
        command.arg("--blockdev").arg(format!("driver=file,node-name=disk,filename={}", base.display()));
        command.arg("--blockdev").arg(format!("driver=file,node-name=log,filename={}", log.display()));
        command
            .args(["--blockdev", "driver=blklogwrites,node-name=both,file=disk,log=log,log-sector-size=512"]);
        let export = export.display();
        command
            .arg("--export")
            .arg(format!("type=fuse,id=export,node-name=both,mountpoint={export},writable=on"));
        command.arg("--pidfile").arg(&ready);
        let mut recorder = Self(command.stdin(Stdio::null()).spawn()?);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ready.exists() {
            if recorder.0.try_wait()?.is_some() || Instant::now() > deadline {
                return Err("the recorder does not start".into());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(recorder)
    }

    /// Ends it, so that its log is whole.
    fn stop(mut self) -> Result<(), Failure> {
        nix::sys::signal::kill(
            nix::unistd::Pid::from_raw(i32::try_from(self.0.id())?),
            nix::sys::signal::Signal::SIGTERM,
        )?;
        self.0.wait()?;
        Ok(())
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        // One that was stopped is gone already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Unmounts, waiting for children that other threads forked a moment ago: each has a copy of every descriptor until it executes
/// its program.
pub(crate) fn unmount(target: &Path) -> Result<(), Failure> {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match umount2(target, MntFlags::empty()) {
            Err(Errno::EBUSY) if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
            other => return Ok(other?),
        }
    }
}

pub(crate) fn succeed(command: &mut Command) -> Result<(), Failure> {
    let output = command.stdin(Stdio::null()).output()?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(format!("{} failed: {said}", command.get_program().display()).into())
}

/// Whether this machine has what recording needs. Where it has not, it says so; `BENNU_TESTS_MUST_RUN` makes that a failure.
pub fn can_record(programs: &[&str]) -> bool {
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let missing = programs.iter().find(|name| !std::env::split_paths(&paths).any(|p| p.join(name).exists()));
    let why = match missing {
        Some(name) => format!("the program {name} is not installed"),
        None if !nix::unistd::geteuid().is_root() => "mounting needs root".to_owned(),
        None => return true,
    };
    assert!(std::env::var_os("BENNU_TESTS_MUST_RUN").is_none(), "this test has to run: {why}");
    println!("skipped: {why}");
    false
}
