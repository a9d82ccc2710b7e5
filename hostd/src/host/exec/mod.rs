//! Running a command inside a container, for somebody who waits for what it writes or talks with it.
//!
//! The command is the container's in every way: it is in its namespaces, has no more rights than its first process, and
//! counts against its limits. Everything that it started ends with it.
//!
//! ```text
//! group      its control group, within the container's          running    what it writes and is told, and its end
//! terminal   the one that it gets, where it asks for one
//! ```

#![expect(
    unsafe_code,
    reason = "a process enters a control group between fork and exec, which only `pre_exec` allows; and a terminal is \
              waited for, whose descriptor stays the same"
)]

mod group;
mod running;
mod terminal;

use std::ffi::OsString;
use std::io::{self, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::{Mutex, PoisonError};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bennu_api::{ExecOutput, Terminal as WantedTerminal};
use bennu_manifests::model::Runtime;
use bennu_planner::Instance;
use futures_util::{Stream, stream};
use oci_spec::runtime::{BoxBuilder, Process};
use tokio::process::Command;

use super::debug::Left;
use super::describe::config_of;
use super::inspect::read_spec;
use super::{runtime, strangers};
pub(super) use group::PREFIX;
use group::{Group, MAX_RUNNING};
pub use running::{Input, Output, Running};
use terminal::{Console, Terminal};

/// The longest name of a terminal, in bytes.
const MAX_TERMINAL: usize = 64;

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
    /// The runtime that made it.
    pub(super) runtime: Runtime,
    /// The runtime's own directory.
    pub(super) runtime_state: &'a Path,
    /// Where terminals are handed over; only the daemon enters it.
    pub(super) consoles: &'a Path,
    /// The control group that those of commands are made in.
    pub(super) group: &'a Path,
}

/// A command that is to be run.
#[derive(Debug, Clone, Copy)]
pub struct Talk<'a> {
    /// The program and its arguments, at least one.
    pub command: &'a [String],
    /// Whether it gets input; else it is at its end at once.
    pub input: bool,
    /// The terminal that it gets.
    pub terminal: Option<&'a WantedTerminal>,
}

/// What goes away with a command.
#[derive(Default)]
pub(super) struct Cleanup {
    /// What the runtime was told of it.
    pub(super) file: Option<PathBuf>,
    /// What else was made for it.
    pub(super) left: Option<Left>,
}

impl Drop for Cleanup {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = std::fs::remove_file(file);
        }
    }
}

/// What a command writes, and how it ended.
pub(super) fn told(running: Running) -> impl Stream<Item = ExecOutput> + Send + 'static + use<> {
    stream::unfold(Some(running), |running| async move {
        let mut running = running?;
        Some(match running.next().await {
            Output::Stdout(bytes) => {
                (ExecOutput::Stdout { data: BASE64_STANDARD.encode(bytes) }, Some(running))
            }
            Output::Stderr(bytes) => {
                (ExecOutput::Stderr { data: BASE64_STANDARD.encode(bytes) }, Some(running))
            }
            Output::Exit(code) => (ExecOutput::Exit { code }, None),
        })
    })
}

/// Runs a command that is talked with.
pub(super) async fn talk(
    places: Places<'_>,
    instance: &Instance,
    talk: Talk<'_>,
) -> Result<(Running, Input), ExecError> {
    let spec = |source| ExecError::Spec { instance: instance.clone(), source };
    let process = process(&config_of(places.dir), &talk).map_err(spec)?;
    let arguments = |group: &str, console: Option<OsString>, cleanup: &mut Cleanup| {
        // A file, so that no argument is taken for an option.
        let described = places.dir.join(group).with_extension("json");
        cleanup.file = Some(described.clone());
        std::fs::write(&described, serde_json::to_vec(&process)?)?;
        let mut arguments = vec!["exec".into()];
        arguments.extend(console);
        arguments.extend(runtime::stay_in(places.runtime, group));
        arguments.extend(["--process".into(), described.into(), instance.to_string().into()]);
        Ok(arguments)
    };
    start(places, instance, &talk, arguments).await
}

/// Ends the commands that a daemon before this one ran: nobody waits any more for what they write.
pub(super) fn end_orphans() {
    group::end_groups(&strangers::slice());
}

/// The container's first process, with another command.
fn process(config: &Path, talk: &Talk<'_>) -> io::Result<Process> {
    let spec = read_spec(config)?;
    let mut process = spec.process().clone().ok_or(io::Error::from(io::ErrorKind::InvalidData))?;
    process.set_args(Some(talk.command.to_vec()));
    at_terminal(&mut process, talk.terminal);
    Ok(process)
}

/// Gives a process a terminal, or none.
pub(super) fn at_terminal(process: &mut Process, terminal: Option<&WantedTerminal>) {
    process.set_terminal(Some(terminal.is_some()));
    let Some(terminal) = terminal else { return };
    let size = BoxBuilder::default()
        .height(u64::from(terminal.size.rows))
        .width(u64::from(terminal.size.columns))
        .build();
    process.set_console_size(size.ok());
    let sound = |c: char| c.is_ascii_alphanumeric() || "-+._".contains(c);
    let named = !terminal.name.is_empty() && terminal.name.len() <= MAX_TERMINAL;
    let name = if named && terminal.name.chars().all(sound) { &terminal.name } else { "xterm" };
    let mut variables = process.env().clone().unwrap_or_default();
    variables.retain(|variable| !variable.starts_with("TERM="));
    variables.push(format!("TERM={name}"));
    process.set_env(Some(variables));
}

/// Runs the runtime in a control group of its own within the container's. `arguments` are what it is told beside where
/// its state is, given the name of the group and the option for a terminal.
pub(super) async fn start(
    places: Places<'_>,
    instance: &Instance,
    talk: &Talk<'_>,
    arguments: impl FnOnce(&str, Option<OsString>, &mut Cleanup) -> io::Result<Vec<OsString>>,
) -> Result<(Running, Input), ExecError> {
    let run = |source| ExecError::Run { instance: instance.clone(), source };
    let handed_over = runtime::hands_over_terminals(places.runtime);
    let wanted = talk.terminal;
    let console = wanted.filter(|_| handed_over).map(|_| Console::listen(places.consoles));
    let console = console.transpose().map_err(run)?;
    let pair = wanted.filter(|_| !handed_over).map(|wanted| Terminal::pair(wanted.size));
    let (own, end) = pair.transpose().map_err(run)?.unzip();
    let (mut child, group, cleanup) = {
        let _making = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
        let group = Group::create(places.group)
            .map_err(run)?
            .ok_or(ExecError::TooMany { instance: instance.clone() })?;
        let mut cleanup = Cleanup::default();
        let mut enter = group.procs().map_err(run)?;
        let option = console.as_ref().map(|console| {
            let mut option = OsString::from("--console-socket=");
            option.push(console.path());
            option
        });
        let (stdin, stdout) = match end {
            Some(end) => (end.try_clone().map_err(run)?.into(), end.into()),
            None if talk.input && console.is_none() => (Stdio::piped(), Stdio::piped()),
            None => (Stdio::null(), Stdio::piped()),
        };
        let mut program = runtime::command(places.runtime, places.runtime_state);
        program
            .args(arguments(group.name(), option, &mut cleanup).map_err(run)?)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(Stdio::piped());
        let at_terminal = own.is_some();
        // SAFETY: between fork and exec only write(2), setsid(2) and ioctl(2) are called, on descriptors that were opened
        // before, with bytes that are not on the heap; nothing is allocated and no lock is taken. "0" is whoever writes it
        // (cgroups(7), "cgroup.procs").
        unsafe {
            program.pre_exec(move || {
                enter.write_all(b"0")?;
                if at_terminal { terminal::take_standard_input() } else { Ok(()) }
            });
        }
        (Command::from(program).kill_on_drop(true).spawn().map_err(run)?, group, cleanup)
    };
    let terminal = match &console {
        // Where the runtime ends before it hands one over, it says why on its standard error.
        Some(console) => tokio::select! {
            received = console.receive() => Some(received.map_err(run)?),
            _ = child.wait() => None,
        },
        None => own,
    };
    if let (Some(terminal), Some(wanted)) = (&terminal, talk.terminal) {
        terminal.resize(wanted.size).map_err(run)?;
    }
    let mut running = Running::new(child, terminal, group, cleanup);
    let input = running.input(talk.input);
    Ok((running, input))
}

#[cfg(test)]
mod tests {
    use bennu_api::Size;

    use super::*;

    fn config(dir: &Path) -> PathBuf {
        let config = dir.join("config.json");
        let text = r#"{"ociVersion":"1.0.2","process":{"user":{"uid":101,"gid":102},"args":["serve"],"cwd":"/srv",
            "env":["A=b","TERM=dumb"],"noNewPrivileges":true,"capabilities":{"bounding":["CAP_KILL"]}}}"#;
        std::fs::write(&config, text).unwrap();
        config
    }

    #[test]
    fn a_command_has_the_rights_of_the_first_process() {
        let dir = tempfile::tempdir().unwrap();
        let command = ["--version".to_owned()];
        let talk = Talk { command: &command, input: false, terminal: None };
        let process = process(&config(dir.path()), &talk).unwrap();
        assert_eq!(process.args().as_deref(), Some(&command[..]));
        assert_eq!((process.user().uid(), process.no_new_privileges()), (101, Some(true)));
        assert_eq!(process.capabilities().as_ref().unwrap().bounding().as_ref().unwrap().len(), 1);
        assert_eq!(process.terminal(), Some(false));
    }

    #[test]
    fn a_terminal_has_its_size_and_a_name_that_is_one() {
        let dir = tempfile::tempdir().unwrap();
        let command = ["sh".to_owned()];
        let environment = |name: &str| {
            let terminal = WantedTerminal { name: name.to_owned(), size: Size { rows: 50, columns: 132 } };
            let talk = Talk { command: &command, input: true, terminal: Some(&terminal) };
            let process = process(&config(dir.path()), &talk).unwrap();
            let size = process.console_size().unwrap();
            assert_eq!((process.terminal(), size.height(), size.width()), (Some(true), 50, 132));
            process.env().clone().unwrap()
        };
        assert_eq!(environment("tmux-256color"), ["A=b", "TERM=tmux-256color"]);
        for bad in ["", "a b", "x=y", "é", "a\0", &"x".repeat(65)] {
            assert_eq!(environment(bad), ["A=b", "TERM=xterm"], "{bad:?}");
        }
    }
}
