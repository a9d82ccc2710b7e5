//! How a runtime that was started already is given the configuration of its container.
//!
//! systemd needs about as long to have a runtime run as all else of a start takes. So both are done at once: what the runtime finds in
//! the place of its configuration leads to a pipe of this daemon (pipe(7)), at which it waits.
//!
//! ```text
//!                 awaited                         give: into the pipe, then in its place
//! config.json: link ──► pipe of the daemon ─────► config.json: file
//!                         │ dropped                     ▲
//!                         ▼                             └── each later start reads it
//!                       the runtime reads nothing, and fails
//! ```
//! **Invariants:** where the configuration is a file, all that it names was made. Where a daemon ends before, its pipe ends with it, so
//! no runtime waits for nobody; and its successor sees that the instance is only partly there.

use std::fs;
use std::io::{self, PipeReader, PipeWriter, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::fcntl::{FcntlArg, OFlag, fcntl};

/// The name of a configuration in its bundle (OCI runtime specification, `bundle.md`).
const CONFIG: &str = "config.json";

/// A configuration that a runtime may wait for.
#[derive(Debug)]
pub(super) struct Awaited {
    config: PathBuf,
    /// `None` once all is written: a runtime reads to the end.
    writer: Option<PipeWriter>,
    /// Open for as long as runtimes may come.
    _reader: PipeReader,
}

impl Awaited {
    /// Has a runtime that looks into this bundle, which has no configuration, wait for one.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub(super) fn new(bundle: &Path) -> io::Result<Self> {
        let config = bundle.join(CONFIG);
        let (reader, writer) = io::pipe()?;
        // Whoever opens this has an end of the pipe of its own (proc_pid_fd(5)).
        symlink(format!("/proc/{}/fd/{}", std::process::id(), reader.as_raw_fd()), &config)?;
        Ok(Self { config, writer: Some(writer), _reader: reader })
    }

    /// Gives the file at `described`, which is on the same file system, as configuration: to a runtime that waits for it, and to all
    /// that come later. It can be given once.
    ///
    /// # Errors
    /// Whatever the kernel says. The instance is only partly there then.
    pub(super) fn give(&mut self, described: &Path) -> io::Result<()> {
        let mut writer = self.writer.take().ok_or(io::ErrorKind::BrokenPipe)?;
        let text = fs::read(described)?;
        // All of it has to fit: nobody may be there yet who reads.
        let capacity = fcntl(&writer, FcntlArg::F_GETPIPE_SZ)?;
        if usize::try_from(capacity).unwrap_or(0) < text.len() {
            let wanted = i32::try_from(text.len()).map_err(io::Error::other)?;
            fcntl(&writer, FcntlArg::F_SETPIPE_SZ(wanted))?;
        }
        fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        writer.write_all(&text)?;
        let linked = self.config.with_extension("new");
        fs::hard_link(described, &linked)?;
        fs::rename(&linked, &self.config)
        // The end of `writer` is what the runtime waits for.
    }
}

/// Whether a bundle has its configuration, and no runtime waits for it.
pub(super) fn was_given(bundle: &Path) -> bool {
    fs::symlink_metadata(bundle.join(CONFIG)).is_ok_and(|config| config.is_file())
}

#[cfg(test)]
mod tests {
    use std::thread::{self, JoinHandle};
    use std::time::Duration;

    use super::*;

    struct Bundle {
        dir: tempfile::TempDir,
        awaited: Awaited,
    }

    impl Bundle {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let awaited = Awaited::new(dir.path()).unwrap();
            Self { dir, awaited }
        }

        /// A runtime that has opened the configuration, as far as one can tell.
        fn reader(&self) -> JoinHandle<Vec<u8>> {
            let config = self.dir.path().join(CONFIG);
            let reader = thread::spawn(move || fs::read(config).unwrap());
            thread::sleep(Duration::from_millis(50));
            assert!(!reader.is_finished(), "it waits");
            reader
        }

        fn give(&mut self, text: &[u8]) {
            let described = self.dir.path().join("described.json");
            fs::write(&described, text).unwrap();
            self.awaited.give(&described).unwrap();
        }
    }

    #[test]
    fn a_runtime_that_waits_and_all_that_come_later_read_the_same() {
        let mut bundle = Bundle::new();
        let reader = bundle.reader();
        assert!(!was_given(bundle.dir.path()));
        bundle.give(b"{}");
        assert!(was_given(bundle.dir.path()));
        assert_eq!(reader.join().unwrap(), b"{}", "it comes to the end, while others may still begin");
        assert_eq!(fs::read(bundle.dir.path().join(CONFIG)).unwrap(), b"{}", "who comes now finds a file");
    }

    #[test]
    fn what_is_larger_than_a_pipe_needs_nobody_who_reads() {
        let mut bundle = Bundle::new();
        let large = vec![b'x'; 300 << 10];
        bundle.give(&large);
        assert_eq!(fs::read(bundle.dir.path().join(CONFIG)).unwrap(), large);
    }

    #[test]
    fn where_it_is_not_given_a_runtime_reads_nothing_and_it_is_seen() {
        let bundle = Bundle::new();
        let reader = bundle.reader();
        drop(bundle.awaited);
        assert_eq!(reader.join().unwrap(), b"");
        assert!(!was_given(bundle.dir.path()));
        assert!(fs::read(bundle.dir.path().join(CONFIG)).is_err(), "one that comes now waits for nobody");
        assert!(!was_given(&bundle.dir.path().join("none")));
    }
}
