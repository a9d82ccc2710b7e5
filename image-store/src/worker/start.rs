//! A child, its pipes, and its end.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStderr, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::fs::OFlags;
use serde::de::DeserializeOwned;

use super::report::{self, Report};
use super::role::Task;
use super::{NAME, Program, WorkerError};

/// Bytes that wait in a pipe, where the system lets them: few changes from one process to the other.
const PIPE: usize = 1 << 20;
/// How long a child that has said its last word may take to end.
const ENDING: Duration = Duration::from_secs(1);

/// A child at work. It is killed, and waited for, when this goes.
#[derive(Debug)]
pub(super) struct Running {
    child: Child,
    said: Timed<ChildStderr>,
    patience: Duration,
}

/// The end of a pipe at which nobody waits for longer than so long.
#[derive(Debug)]
pub(super) struct Timed<P> {
    pipe: P,
    patience: Duration,
}

impl Program {
    /// Starts a child that writes to `out`, and gives the end of the pipe that it reads from.
    pub(super) fn start(&self, task: &Task, out: Stdio) -> Result<(Running, Timed<ChildStdin>), WorkerError> {
        let task = serde_json::to_string(task).map_err(|error| WorkerError::Start(error.into()))?;
        let mut child = Command::new(&self.path)
            .arg0(NAME)
            .arg(task)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .map_err(WorkerError::Start)?;
        let (stdin, stderr) =
            (child.stdin.take().expect("it was asked for"), child.stderr.take().expect("it was asked for"));
        let said = Timed { pipe: stderr, patience: self.patience };
        let running = Running { child, said, patience: self.patience };
        rustix::fs::fcntl_setfl(&stdin, OFlags::NONBLOCK).map_err(|error| WorkerError::Pipe(error.into()))?;
        widen(&stdin);
        Ok((running, Timed { pipe: stdin, patience: self.patience }))
    }
}

/// A user may have only so much in pipes; what there is will do.
fn widen(pipe: impl AsFd) {
    let _ = rustix::pipe::fcntl_setpipe_size(pipe, PIPE);
}

impl Running {
    /// The end of the pipe that it writes to, where it has one.
    pub(super) fn output(&mut self) -> Option<ChildStdout> {
        let output = self.child.stdout.take();
        output.iter().for_each(widen);
        output
    }

    /// How long it is waited for.
    pub(super) fn patience(&self) -> Duration {
        self.patience
    }

    /// What it says at its end, which comes once its input has ended.
    pub(super) fn report<T: DeserializeOwned>(&mut self) -> Result<Report<T>, WorkerError> {
        let said = report::read(&mut self.said).map_err(|error| failed(error, self.patience))?;
        if let Some(report) = said {
            return match report {
                Report::Unconfined(why) => Err(WorkerError::Confine(why)),
                report => Ok(report),
            };
        }
        // What it wrote is no report: it is dead, or about to be.
        let deadline = Instant::now() + ENDING;
        loop {
            match self.child.try_wait().map_err(WorkerError::Pipe)? {
                Some(status) if !status.success() => return Err(WorkerError::Ended { status }),
                None if Instant::now() < deadline => std::thread::sleep(Duration::from_millis(2)),
                _ => return Err(WorkerError::Untrue("its report is none")),
            }
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // One that is gone already is only waited for.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl<P: AsFd> Timed<P> {
    /// Reads from `pipe` for no longer than so long at a time.
    pub(super) fn new(pipe: P, patience: Duration) -> Self {
        Self { pipe, patience }
    }

    /// Waits until the pipe can be used; [`io::ErrorKind::TimedOut`] where that takes too long.
    fn ready(&self, how: PollFlags) -> io::Result<()> {
        let patience = Timespec::try_from(self.patience).map_err(|_| io::ErrorKind::InvalidInput)?;
        loop {
            match rustix::event::poll(&mut [PollFd::new(&self.pipe, how)], Some(&patience)) {
                Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl<P: AsFd + Read> Read for Timed<P> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.ready(PollFlags::IN)?;
        self.pipe.read(buf)
    }
}

impl Timed<ChildStdin> {
    /// Writes all of it. Gives whether the child took it; one that reads no more has something to say.
    pub(super) fn give(&mut self, mut bytes: &[u8]) -> Result<bool, WorkerError> {
        while !bytes.is_empty() {
            match self.pipe.write(bytes) {
                Ok(n) => bytes = &bytes[n..],
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.ready(PollFlags::OUT).map_err(|error| failed(error, self.patience))?;
                }
                Err(error) => return Err(WorkerError::Pipe(error)),
            }
        }
        Ok(true)
    }
}

/// What a pipe that failed means.
pub(super) fn failed(error: io::Error, patience: Duration) -> WorkerError {
    match error.kind() {
        io::ErrorKind::TimedOut => WorkerError::Stalled(patience),
        _ => WorkerError::Pipe(error),
    }
}

/// The same file as the standard output of a child.
pub(super) fn as_output(file: &File) -> Result<Stdio, WorkerError> {
    Ok(OwnedFd::from(file.try_clone().map_err(WorkerError::Start)?).into())
}
