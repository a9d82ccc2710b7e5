//! A volume as a tar: out of it, and into a new one.
//!
//! GNU tar does it, which keeps owners, times, holes, extended attributes and access lists. An archive comes from a stranger
//! and what is in a volume from a container, so tar runs in a cell: a root of its own that holds `/usr`, read-only, and
//! that one directory, and no network. Whatever it is led to do, there is nothing else to do it to.

#![expect(
    unsafe_code,
    reason = "a process gets a root of its own between fork and exec, which only `pre_exec` allows"
)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};

use futures_util::{Stream, StreamExt as _, stream};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::statvfs::statvfs;
use nix::unistd::{chdir, chroot};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStdout, Command};
use tokio::task::JoinHandle;

use super::{Incoming, Still, make_dir};

/// How the directory of a cell begins.
pub(super) const CELL: &str = ".cell-";

/// Where cells find the program (Debian's `tar`).
const TAR: &str = "/usr/bin/tar";

/// What an import leaves free for everything else on the file system, in bytes.
const RESERVE: u64 = 256 << 20;

/// After how many bytes it is looked again whether there is room.
const LOOK: u64 = 32 << 20;

/// The largest piece of an archive that is passed on at once, in bytes.
const CHUNK: usize = 128 << 10;

/// The most that is kept of what tar complains about, in bytes; the rest is read and dropped.
const MAX_SAID: u64 = 4 << 10;

/// Why an archive was not made or not taken.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArchiveError {
    /// tar can't be run.
    #[error("run tar")]
    Run(#[source] io::Error),
    /// tar says no.
    #[error("the archive is not taken: {said}")]
    Refused {
        /// The end of what it said, on one line.
        said: String,
    },
    /// The archive ended before its end.
    #[error("the archive was cut short")]
    CutShort(#[source] io::Error),
    /// There is no room for it.
    #[error("the archive is larger than what is free on this host")]
    NoRoom,
}

/// Where cells are made.
#[derive(Debug)]
pub(in crate::host) struct Archives {
    /// A directory that exists, in which names that begin with [`CELL`] are free.
    pub(in crate::host) cells: PathBuf,
}

/// The bytes of an archive. When it is dropped before its end, tar is killed.
pub(in crate::host) struct Packed {
    child: Child,
    stdout: ChildStdout,
    said: JoinHandle<String>,
    _cell: Cell,
    _still: Still,
}

impl Archives {
    /// Begins to pack what is still.
    ///
    /// # Errors
    /// Where tar can't be run.
    pub(in crate::host) fn pack(&self, still: Still) -> Result<Packed, ArchiveError> {
        let cell = Cell::create(&self.cells).map_err(ArchiveError::Run)?;
        let options =
            ["--create", "--file=-", "--format=posix", "--numeric-owner", "--sparse", "--xattrs", "--acls"];
        let mut command = cell.tar(&still.path, MsFlags::MS_RDONLY).map_err(ArchiveError::Run)?;
        command.args(options).args(["--xattrs-include=*", "."]).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().map_err(ArchiveError::Run)?;
        let taken = child.stdout.take().zip(child.stderr.take());
        let (stdout, stderr) = taken.ok_or_else(|| ArchiveError::Run(io::ErrorKind::BrokenPipe.into()))?;
        let said = tokio::spawn(last_words(stderr));
        Ok(Packed { child, stdout, said, _cell: cell, _still: still })
    }

    /// Unpacks an archive into what is empty yet.
    ///
    /// # Errors
    /// Where it is no whole archive, holds what can't be made, or does not fit. What was made is there then.
    pub(in crate::host) async fn unpack<B: AsRef<[u8]>>(
        &self,
        into: &Incoming,
        mut archive: impl Stream<Item = io::Result<B>> + Unpin,
    ) -> Result<(), ArchiveError> {
        let into = &into.path;
        let cell = Cell::create(&self.cells).map_err(ArchiveError::Run)?;
        let mut command = cell.tar(into, MsFlags::empty()).map_err(ArchiveError::Run)?;
        command.args(["--extract", "--file=-", "--numeric-owner", "--same-owner", "--same-permissions"]);
        command.args(["--xattrs", "--xattrs-include=*", "--acls", "--delay-directory-restore"]);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().map_err(ArchiveError::Run)?;
        let taken = child.stdin.take().zip(child.stderr.take());
        let (mut stdin, stderr) = taken.ok_or_else(|| ArchiveError::Run(io::ErrorKind::BrokenPipe.into()))?;
        let said = tokio::spawn(last_words(stderr));
        let (mut written, mut looked) = (0u64, 0u64);
        room(into)?;
        while let Some(bytes) = archive.next().await {
            let bytes = bytes.map_err(ArchiveError::CutShort)?;
            // Where tar has ended before, how it ended tells why.
            if stdin.write_all(bytes.as_ref()).await.is_err() {
                break;
            }
            written += bytes.as_ref().len() as u64;
            if written - looked >= LOOK {
                looked = written;
                room(into)?;
            }
        }
        drop(stdin);
        let status = child.wait().await.map_err(ArchiveError::Run)?;
        let said = said.await.unwrap_or_default();
        if status.success() { Ok(()) } else { Err(ArchiveError::Refused { said }) }
    }
}

impl Packed {
    /// The archive, piece by piece; an error instead of its end where it is not whole.
    pub(in crate::host) fn into_stream(self) -> impl Stream<Item = io::Result<Vec<u8>>> + Send + 'static {
        stream::unfold(Some(self), |packed| async move {
            let mut packed = packed?;
            match packed.next().await {
                Ok(Some(bytes)) => Some((Ok(bytes), Some(packed))),
                Ok(None) => None,
                Err(error) => Some((Err(error), None)),
            }
        })
    }

    async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        let mut buffer = vec![0; CHUNK];
        let read = self.stdout.read(&mut buffer).await?;
        buffer.truncate(read);
        if read > 0 {
            return Ok(Some(buffer));
        }
        if self.child.wait().await?.success() {
            return Ok(None);
        }
        let said = (&mut self.said).await.unwrap_or_default();
        Err(io::Error::other(format!("the volume can't be read to its end: {said}")))
    }
}

fn room(dir: &Path) -> Result<(), ArchiveError> {
    let fs = statvfs(dir).map_err(|errno| ArchiveError::Run(errno.into()))?;
    let free = fs.blocks_available().saturating_mul(fs.fragment_size());
    if free > RESERVE { Ok(()) } else { Err(ArchiveError::NoRoom) }
}

/// The beginning of what tar complains about, on one line.
async fn last_words(mut from: impl AsyncRead + Unpin) -> String {
    let mut kept = Vec::new();
    // What can't be read is not there; the exit code tells that something was wrong.
    let _ = (&mut from).take(MAX_SAID).read_to_end(&mut kept).await;
    let _ = tokio::io::copy(&mut from, &mut tokio::io::sink()).await;
    String::from_utf8_lossy(&kept).split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The root that tar sees. What is mounted there is mounted in tar's own mount namespace, and vanishes with it.
#[derive(Debug)]
struct Cell(PathBuf);

impl Cell {
    fn create(cells: &Path) -> io::Result<Self> {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let cell = Self(cells.join(format!("{CELL}{}", NUMBER.fetch_add(1, Ordering::Relaxed))));
        for dir in ["usr", "data"] {
            make_dir(&cell.0.join(dir), 0o700)?;
        }
        // Where programs expect their interpreter and libraries (file-hierarchy(7), "Compatibility Symlinks").
        for dir in ["lib", "lib64"] {
            match symlink(Path::new("usr").join(dir), cell.0.join(dir)) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        Ok(cell)
    }

    /// tar, to be run in the cell with `data` as its working directory.
    fn tar(&self, data: &Path, access: MsFlags) -> io::Result<Command> {
        let c = |path: &Path| CString::new(path.as_os_str().as_bytes()).map_err(io::Error::other);
        let (root, usr, here) = (c(&self.0)?, c(&self.0.join("usr"))?, c(&self.0.join("data"))?);
        let data = c(data)?;
        let enter = move || {
            let namespaces = CloneFlags::CLONE_NEWNS
                | CloneFlags::CLONE_NEWNET
                | CloneFlags::CLONE_NEWIPC
                | CloneFlags::CLONE_NEWUTS;
            unshare(namespaces)?;
            let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
            mount(None::<&str>, c"/", None::<&str>, private, None::<&str>)?;
            let bare = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
            for (source, target, flags) in [
                (c"/usr", &usr, bare | MsFlags::MS_RDONLY),
                (data.as_c_str(), &here, bare | MsFlags::MS_NOEXEC | access),
            ] {
                mount(Some(source), target.as_c_str(), None::<&str>, MsFlags::MS_BIND, None::<&str>)?;
                // A bind mount takes its flags when it is mounted again (mount(2), "Remounting an existing mount").
                let again = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | flags;
                mount(None::<&str>, target.as_c_str(), None::<&str>, again, None::<&str>)?;
            }
            chroot(root.as_c_str())?;
            Ok(chdir(c"/data")?)
        };
        let mut command = std::process::Command::new(TAR);
        command.env_clear().env("LC_ALL", "C.UTF-8").stderr(Stdio::piped());
        // SAFETY: between fork and exec only system calls are made, with strings that were made before; nothing is
        // allocated and no lock is taken.
        unsafe { command.pre_exec(enter) };
        let mut command = Command::from(command);
        command.kill_on_drop(true);
        Ok(command)
    }
}

impl Drop for Cell {
    fn drop(&mut self) {
        // Nothing is in it but two empty directories and two links: no other mount namespace sees more.
        for name in ["lib", "lib64"] {
            let _ = std::fs::remove_file(self.0.join(name));
        }
        for dir in [&self.0.join("usr"), &self.0.join("data"), &self.0] {
            let _ = std::fs::remove_dir(dir);
        }
    }
}
