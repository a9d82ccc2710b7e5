//! Running a command inside a container, for somebody who waits for what it writes.
//!
//! The command is the container's in every way: it is in its namespaces, has no more rights than its first process, and
//! counts against its limits. Everything that it started ends with it.

#![expect(
    unsafe_code,
    reason = "a process enters a control group between fork and exec, which only `pre_exec` allows"
)]

use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::{CommandExt as _, ExitStatusExt as _};
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bennu_api::ExecOutput;
use bennu_planner::Instance;
use futures_util::{Stream, stream};
use oci_spec::runtime::{Process, Spec};
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::process::{Child, ChildStderr, ChildStdout, Command};

use super::unit::{self, CRUN};

/// The largest piece of output, in bytes.
const CHUNK: usize = 32 << 10;

/// How the control groups of commands begin.
const GROUP: &str = "exec-";

/// How long output is waited for after the command has ended: something that it started may hold the pipes open.
const DRAIN: Duration = Duration::from_secs(1);

/// The most commands that run in one container at the same time.
const MAX_RUNNING: u32 = 64;

/// Why a command was not run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ExecError {
    /// The container's specification can't be read.
    #[error("read how container {instance} was made")]
    Spec {
        /// The container.
        instance: Instance,
        /// What went wrong.
        source: io::Error,
    },
    /// So many commands run there already.
    #[error("run a command in container {instance}: {MAX_RUNNING} run there already")]
    TooMany {
        /// The container.
        instance: Instance,
    },
    /// It can't be started.
    #[error("run a command in container {instance}")]
    Run {
        /// The container.
        instance: Instance,
        /// What went wrong.
        source: io::Error,
    },
}

/// Held from the moment when a group is made until a process is in it: before, it looks like one that was left behind.
static MAKING: Mutex<()> = Mutex::new(());

/// Where the parts of an instance are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places<'a> {
    /// Its directory.
    pub(super) dir: &'a Path,
    /// The runtime's own directory.
    pub(super) runtime_state: &'a Path,
}

/// Runs `command`, which is not empty. The stream ends with how it ended; when the stream is dropped before, the command
/// and all that it started are killed. As long as nobody takes from the stream, the command waits.
pub(super) fn exec(
    places: Places<'_>,
    instance: &Instance,
    command: &[String],
) -> Result<impl Stream<Item = ExecOutput> + Send + 'static + use<>, ExecError> {
    let spec = |source| ExecError::Spec { instance: instance.clone(), source };
    let run = |source| ExecError::Run { instance: instance.clone(), source };
    let process = process(&places.dir.join("bundle/config.json"), command).map_err(spec)?;
    let unit = Path::new("/sys/fs/cgroup").join(unit::SLICE).join(unit::name(instance));
    let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    let group =
        Group::create(&unit).map_err(run)?.ok_or(ExecError::TooMany { instance: instance.clone() })?;
    let description = Description::write(places.dir, &group, &process).map_err(run)?;
    let mut enter = group.procs().map_err(run)?;
    let mut crun = std::process::Command::new(CRUN);
    crun.arg(format!("--root={}", places.runtime_state.display()))
        .args(["--cgroup-manager=disabled", "exec", "--process"])
        .arg(&description.0)
        .arg(instance.to_string())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    // SAFETY: between fork and exec only write(2) is called, on a descriptor that was opened before, with bytes that are
    // not on the heap; nothing is allocated and no lock is taken. "0" is whoever writes it (cgroups(7), "cgroup.procs").
    unsafe { crun.pre_exec(move || enter.write_all(b"0")) };
    let mut child = Command::from(crun).kill_on_drop(true).spawn().map_err(run)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let running = Running { stdout, stderr, child, status: None, _description: description, _group: group };
    Ok(stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        match running.next().await {
            end @ ExecOutput::Exit { .. } => Some((end, None)),
            output => Some((output, Some(running))),
        }
    }))
}

/// Ends the commands that a daemon before this one ran: nobody waits any more for what they write.
pub(super) fn end_orphans() {
    end_groups(&Path::new("/sys/fs/cgroup").join(unit::SLICE));
}

fn end_groups(slice: &Path) {
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for unit in below(slice).filter(|path| path.is_dir()) {
        let orphans = below(&unit).filter(|path| path.is_dir() && is_group(path));
        orphans.for_each(|path| drop(Group(path)));
    }
}

fn is_group(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(GROUP))
}

/// The container's first process, with another command.
fn process(config: &Path, command: &[String]) -> io::Result<Process> {
    let spec: Spec = serde_json::from_slice(&std::fs::read(config)?)?;
    let mut process = spec.process().clone().ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
    process.set_args(Some(command.to_vec()));
    process.set_terminal(Some(false));
    Ok(process)
}

/// A control group below the container's own. No controller is enabled in it, so it may hold processes beside those of
/// the container's (cgroup-v2, "No Internal Process Constraint"), whose limits hold for it too.
struct Group(PathBuf);

impl Group {
    /// A new group; `None` where there are as many as there may be.
    fn create(unit: &Path) -> io::Result<Option<Self>> {
        for number in 0..MAX_RUNNING {
            let path = unit.join(format!("{GROUP}{number}"));
            // One that a daemon before this one left empty is as good as a new one; a busy one stays.
            let _ = std::fs::remove_dir(&path);
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| Some(Self(path))),
            }
        }
        Ok(None)
    }

    fn procs(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // All at once, also what forks meanwhile (cgroup-v2, "cgroup.kill"). The directory may be busy for a moment
        // still; the next command takes it over then.
        let _ = std::fs::write(self.0.join("cgroup.kill"), b"1");
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// What the runtime is told of the process. A file, so that no argument is taken for an option.
struct Description(PathBuf);

impl Description {
    fn write(dir: &Path, group: &Group, process: &Process) -> io::Result<Self> {
        let name = group.0.file_name().ok_or(io::ErrorKind::InvalidInput)?;
        let path = dir.join(name).with_extension("json");
        std::fs::write(&path, serde_json::to_vec(process)?)?;
        Ok(Self(path))
    }
}

impl Drop for Description {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

struct Running {
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    child: Child,
    status: Option<ExitStatus>,
    _description: Description,
    _group: Group,
}

enum Step {
    Out(Option<Vec<u8>>),
    Err(Option<Vec<u8>>),
    Ended(io::Result<ExitStatus>),
    Drained,
}

impl Running {
    async fn next(&mut self) -> ExecOutput {
        loop {
            if let (None, None, Some(status)) = (&self.stdout, &self.stderr, self.status) {
                return ExecOutput::Exit { code: code(status) };
            }
            let ended = self.status.is_some();
            let step = tokio::select! {
                bytes = chunk(&mut self.stdout), if self.stdout.is_some() => Step::Out(bytes),
                bytes = chunk(&mut self.stderr), if self.stderr.is_some() => Step::Err(bytes),
                status = self.child.wait(), if !ended => Step::Ended(status),
                () = tokio::time::sleep(DRAIN), if ended => Step::Drained,
            };
            match step {
                Step::Out(Some(bytes)) => return ExecOutput::Stdout { data: BASE64_STANDARD.encode(bytes) },
                Step::Err(Some(bytes)) => return ExecOutput::Stderr { data: BASE64_STANDARD.encode(bytes) },
                Step::Out(None) => self.stdout = None,
                Step::Err(None) => self.stderr = None,
                Step::Ended(Ok(status)) => self.status = Some(status),
                Step::Ended(Err(_)) => return ExecOutput::Exit { code: 255 },
                Step::Drained => (self.stdout, self.stderr) = (None, None),
            }
        }
    }
}

/// What can be read now; `None` at the end.
async fn chunk(from: &mut Option<impl AsyncRead + Unpin>) -> Option<Vec<u8>> {
    let mut buffer = vec![0; CHUNK];
    let read = from.as_mut()?.read(&mut buffer).await.ok().filter(|&read| read > 0)?;
    buffer.truncate(read);
    Some(buffer)
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(255)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_has_the_rights_of_the_first_process() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("config.json");
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":101,"gid":102},"args":["serve"],"cwd":"/srv",
            "env":["A=b"],"noNewPrivileges":true,"capabilities":{"bounding":["CAP_KILL"]}}}"#;
        std::fs::write(&config, text).unwrap();
        let process = process(&config, &["--version".to_owned()]).unwrap();
        assert_eq!(process.args().as_deref(), Some(&["--version".to_owned()][..]));
        assert_eq!((process.user().uid(), process.no_new_privileges()), (101, Some(true)));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
    }

    #[test]
    fn groups_are_numbered_and_their_number_is_bounded() {
        let unit = tempfile::tempdir().unwrap();
        let busy = |_| {
            let group = Group::create(unit.path()).unwrap().unwrap();
            // A directory that is not empty stands for a group that holds a process.
            std::fs::write(group.0.join("busy"), b"").unwrap();
            group
        };
        let groups: Vec<_> = (0..MAX_RUNNING).map(busy).collect();
        assert!(Group::create(unit.path()).unwrap().is_none());
        std::fs::remove_file(groups[5].0.join("busy")).unwrap();
        assert!(Group::create(unit.path()).unwrap().unwrap().0.ends_with("exec-5"));
    }

    #[test]
    fn commands_that_nobody_waits_for_are_ended_and_the_container_is_not() {
        let slice = tempfile::tempdir().unwrap();
        let unit = slice.path().join("bennu-web-1.service");
        for group in ["exec-3", "init"] {
            std::fs::create_dir_all(unit.join(group)).unwrap();
        }
        end_groups(slice.path());
        let left: Vec<_> =
            std::fs::read_dir(&unit).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // The file stands for the kernel's, which takes the directory's processes with it.
        assert_eq!(std::fs::read(unit.join("exec-3/cgroup.kill")).unwrap(), b"1");
        assert_eq!(left.len(), 2);
        assert!(!unit.join("init/cgroup.kill").exists() && !unit.join("cgroup.kill").exists());
    }

    #[test]
    fn a_signal_ends_in_128_and_its_number() {
        assert_eq!(code(ExitStatus::from_raw(9)), 137);
        assert_eq!(code(ExitStatus::from_raw(7 << 8)), 7);
    }
}
