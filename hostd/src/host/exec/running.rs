//! A command that runs: what it writes, what it is told, and how it ends.

use std::io;
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::time::Duration;

use bennu_api::Size;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, ChildStderr, ChildStdin, ChildStdout};

use super::Cleanup;
use super::group::Group;
use super::terminal::Terminal;

/// The largest piece of output, in bytes.
const CHUNK: usize = 32 << 10;

/// How long output is waited for after the command has ended: something that it started may hold the pipes open.
const DRAIN: Duration = Duration::from_secs(1);

/// The code of a command of which it is not known how it ended.
const UNKNOWN: i32 = 255;

/// A command that runs. When it is dropped before its end, it and all that it started get `SIGHUP`, and are killed a
/// little later. As long as nobody asks for what it writes, it waits.
pub struct Running {
    terminal: Option<Terminal>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    child: Child,
    status: Option<ExitStatus>,
    /// Both are there until the end.
    group: Option<Group>,
    cleanup: Option<Cleanup>,
}

impl std::fmt::Debug for Running {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Running")
            .field("child", &self.child)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

/// What a command did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// It wrote to standard output, or to its terminal.
    Stdout(Vec<u8>),
    /// It wrote to standard error.
    Stderr(Vec<u8>),
    /// It ended, with this code: 128 and the signal's number where a signal ended it.
    Exit(i32),
}

/// The way to a command's input.
#[derive(Debug)]
pub struct Input(Way);

#[derive(Debug)]
enum Way {
    /// It gets none.
    None,
    Pipe(ChildStdin),
    Terminal(Terminal),
}

impl Running {
    pub(super) fn new(mut child: Child, terminal: Option<Terminal>, group: Group, cleanup: Cleanup) -> Self {
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        Self { terminal, stdout, stderr, child, status: None, group: Some(group), cleanup: Some(cleanup) }
    }

    /// The way to its input; the first time, and only where it gets any.
    pub(super) fn input(&mut self, wanted: bool) -> Input {
        let pipe = self.child.stdin.take();
        Input(match (&self.terminal, pipe) {
            (Some(terminal), _) if wanted => Way::Terminal(terminal.clone()),
            (None, Some(pipe)) if wanted => Way::Pipe(pipe),
            _ => Way::None,
        })
    }

    /// Gives its terminal another size; without a terminal nothing.
    ///
    /// # Errors
    /// Whatever the kernel says.
    pub fn resizer(&self) -> impl Fn(Size) -> io::Result<()> + Send + Sync + use<> {
        let terminal = self.terminal.clone();
        move |size| terminal.as_ref().map_or(Ok(()), |terminal| terminal.resize(size))
    }

    /// What it does next. An exit is the last. When this is given up before it is done, nothing is lost.
    pub async fn next(&mut self) -> Output {
        loop {
            if let (None, None, None, Some(status)) =
                (&self.terminal, &self.stdout, &self.stderr, self.status)
            {
                // What it started and left behind ends with it.
                drop((self.group.take(), self.cleanup.take()));
                return Output::Exit(code(status));
            }
            let ended = self.status.is_some();
            let step = tokio::select! {
                bytes = typed(&self.terminal), if self.terminal.is_some() => Step::Typed(bytes),
                bytes = chunk(&mut self.stdout), if self.stdout.is_some() => Step::Out(bytes),
                bytes = chunk(&mut self.stderr), if self.stderr.is_some() => Step::Err(bytes),
                status = self.child.wait(), if !ended => Step::Ended(status),
                () = tokio::time::sleep(DRAIN), if ended => Step::Drained,
            };
            match step {
                Step::Typed(Some(bytes)) | Step::Out(Some(bytes)) => return Output::Stdout(bytes),
                Step::Err(Some(bytes)) => return Output::Stderr(bytes),
                Step::Typed(None) => self.terminal = None,
                Step::Out(None) => self.stdout = None,
                Step::Err(None) => self.stderr = None,
                Step::Ended(Ok(status)) => self.status = Some(status),
                Step::Ended(Err(_)) => return Output::Exit(UNKNOWN),
                Step::Drained => (self.terminal, self.stdout, self.stderr) = (None, None, None),
            }
        }
    }
}

enum Step {
    Typed(Option<Vec<u8>>),
    Out(Option<Vec<u8>>),
    Err(Option<Vec<u8>>),
    Ended(io::Result<ExitStatus>),
    Drained,
}

impl Drop for Running {
    fn drop(&mut self) {
        let (Some(group), cleanup) = (self.group.take(), self.cleanup.take()) else { return };
        // Closes our end of the terminal, by which the kernel tells its foreground.
        self.terminal = None;
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        runtime.spawn(async move {
            group.hang_up().await;
            drop(cleanup);
        });
    }
}

impl Input {
    /// Hands on bytes; waits as long as the command does not take them.
    ///
    /// # Errors
    /// Where it takes nothing any more.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.0 {
            Way::None => Ok(()),
            Way::Pipe(pipe) => pipe.write_all(bytes).await,
            Way::Terminal(terminal) => terminal.write_all(bytes).await,
        }
    }

    /// Nothing more comes. A terminal is told by the character that means so where a line begins (termios(3), `VEOF`).
    pub async fn end(&mut self) {
        if let Way::Terminal(terminal) = &self.0 {
            let _ = terminal.write_all(b"\x04").await;
        } else {
            self.0 = Way::None;
        }
    }
}

async fn typed(terminal: &Option<Terminal>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
    let read = terminal.as_ref()?.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
    buffer.truncate(read);
    Some(buffer)
}

/// What can be read now; `None` at the end.
async fn chunk(from: &mut Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
    let read = from.as_mut()?.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
    buffer.truncate(read);
    Some(buffer)
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_ends_in_128_and_its_number() {
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
    }
}
