//! A process that is followed from system call to system call, and one call of it that fails, or that it is killed at.
//!
//! Only calls that change files, and only those on files below one directory, are counted, over all threads together: the N-th is
//! the same call in every run where the threads take turns in the same order, and some call of the store in any case.
//!
//! Linux, `ptrace(2)`, on x86-64.

use std::collections::HashMap;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::libc;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;

use crate::scenario::Failure;

/// What happens at the chosen call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The process is killed before the call is done.
    Kill,
    /// The call is not done, and fails with this.
    Error(Errno),
}

/// A call that was counted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Its name.
    pub name: &'static str,
    /// The file that it is about, in the directory.
    pub path: PathBuf,
    /// Whether it was made to fail.
    pub failed: bool,
}

/// How a run went.
#[derive(Debug)]
pub struct Run {
    /// All counted calls, in order.
    pub calls: Vec<Call>,
    /// The exit code; `None` where the process was killed.
    pub code: Option<i32>,
}

/// Where a call says which file it is about.
enum About {
    /// A descriptor, the first argument.
    Descriptor,
    /// A path, this argument.
    Path(usize),
}

/// The calls that are counted.
const CALLS: [(libc::c_long, &str, About); 17] = [
    (libc::SYS_openat, "openat", About::Path(1)),
    (libc::SYS_write, "write", About::Descriptor),
    (libc::SYS_pwrite64, "pwrite64", About::Descriptor),
    (libc::SYS_ftruncate, "ftruncate", About::Descriptor),
    (libc::SYS_fchmod, "fchmod", About::Descriptor),
    (libc::SYS_fsync, "fsync", About::Descriptor),
    (libc::SYS_fdatasync, "fdatasync", About::Descriptor),
    (libc::SYS_syncfs, "syncfs", About::Descriptor),
    (libc::SYS_rename, "rename", About::Path(0)),
    (libc::SYS_renameat, "renameat", About::Path(1)),
    (libc::SYS_renameat2, "renameat2", About::Path(1)),
    (libc::SYS_unlink, "unlink", About::Path(0)),
    (libc::SYS_unlinkat, "unlinkat", About::Path(1)),
    (libc::SYS_mkdir, "mkdir", About::Path(0)),
    (libc::SYS_mkdirat, "mkdirat", About::Path(1)),
    (libc::SYS_chmod, "chmod", About::Path(0)),
    (libc::SYS_copy_file_range, "copy_file_range", About::Descriptor),
];
/// The longest path that is read, in bytes (`PATH_MAX`).
const MAX_PATH: usize = 4096;

/// Runs `command` to its end, with the fault at the call with this number, counted from 0, below `directory`. What the
/// program says goes to `said`.
///
/// # Errors
/// Where the process cannot be started or followed.
pub fn run(
    command: &[&Path],
    directory: &Path,
    said: &Path,
    fault: Option<(usize, Fault)>,
) -> Result<Run, Failure> {
    let said = File::create(said)?;
    // It stops itself before it becomes the program, so that nothing is missed.
    let child = Command::new("sh")
        .args(["-c", r#"kill -STOP $$; exec "$@""#, "sh"])
        .args(command)
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(said)
        .spawn()?;
    let main = Pid::from_raw(i32::try_from(child.id())?);
    waitpid(main, Some(WaitPidFlag::WUNTRACED))?;
    let options = Options::PTRACE_O_TRACESYSGOOD | Options::PTRACE_O_TRACECLONE | Options::PTRACE_O_EXITKILL;
    ptrace::seize(main, options)?;
    kill(main, Signal::SIGCONT)?;
    Tracer { main, directory, fault, calls: Vec::new(), inside: HashMap::new() }.follow()
}

struct Tracer<'a> {
    main: Pid,
    directory: &'a Path,
    fault: Option<(usize, Fault)>,
    calls: Vec<Call>,
    /// Threads that are inside of a call, and the error that it is to give.
    inside: HashMap<Pid, Option<Errno>>,
}

impl Tracer<'_> {
    fn follow(mut self) -> Result<Run, Failure> {
        // Children of this thread only: others may follow processes of their own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            let (thread, signal) = match waitpid(None, Some(flags))? {
                WaitStatus::Exited(pid, code) if pid == self.main => {
                    return Ok(Run { calls: self.calls, code: Some(code) });
                }
                WaitStatus::Signaled(pid, ..) if pid == self.main => {
                    return Ok(Run { calls: self.calls, code: None });
                }
                WaitStatus::PtraceSyscall(thread) => {
                    // A thread that was killed meanwhile has nothing to say any more.
                    ignore_gone(self.at_call(thread))?;
                    (thread, None)
                }
                WaitStatus::PtraceEvent(thread, ..) => (thread, None),
                WaitStatus::Stopped(thread, signal) => (thread, Some(signal)),
                _ => continue,
            };
            ignore_gone(ptrace::syscall(thread, signal))?;
        }
    }

    /// At the beginning of a call, or at its end.
    fn at_call(&mut self, thread: Pid) -> Result<(), Errno> {
        if let Some(error) = self.inside.remove(&thread) {
            if let Some(error) = error {
                let mut registers = ptrace::getregs(thread)?;
                registers.rax = (-i64::from(error as i32)) as u64;
                ptrace::setregs(thread, registers)?;
            }
            return Ok(());
        }
        let mut registers = ptrace::getregs(thread)?;
        let mut error = None;
        if let Some((name, path)) = self.counted(thread, &registers) {
            let chosen = self.fault.filter(|(number, _)| *number == self.calls.len());
            self.calls.push(Call { name, path, failed: chosen.is_some() });
            match chosen.map(|(_, fault)| fault) {
                None => {}
                Some(Fault::Kill) => kill(self.main, Signal::SIGKILL)?,
                Some(Fault::Error(errno)) => {
                    error = Some(errno);
                    // No call has this number, so nothing is done.
                    registers.orig_rax = u64::MAX;
                    ptrace::setregs(thread, registers)?;
                }
            }
        }
        self.inside.insert(thread, error);
        Ok(())
    }

    /// The name of a call that is counted, and the file that it is about.
    fn counted(&self, thread: Pid, registers: &libc::user_regs_struct) -> Option<(&'static str, PathBuf)> {
        let number = i64::try_from(registers.orig_rax).ok()?;
        let (_, name, about) = CALLS.iter().find(|(known, ..)| *known == number)?;
        let path = match about {
            About::Descriptor => {
                let link = format!("/proc/{thread}/fd/{}", registers.rdi);
                std::fs::read_link(link).ok()?
            }
            About::Path(argument) => {
                let at = [registers.rdi, registers.rsi][*argument];
                let mut bytes = vec![0; MAX_PATH];
                let memory = File::open(format!("/proc/{thread}/mem")).ok()?;
                // A path at the end of a mapping has less behind it.
                let read = memory.read_at(&mut bytes, at).ok()?;
                let end = bytes[..read].iter().position(|byte| *byte == 0)?;
                PathBuf::from(std::str::from_utf8(&bytes[..end]).ok()?)
            }
        };
        let below = path.strip_prefix(self.directory).ok()?;
        Some((name, below.to_owned()))
    }
}

fn ignore_gone(result: Result<(), Errno>) -> Result<(), Errno> {
    match result {
        Err(Errno::ESRCH) => Ok(()),
        other => other,
    }
}
