//! One run of a program, and what it took.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use crate::Failure;

/// One run of a program.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Run {
    /// Its exit code; none where a signal ended it.
    pub(super) code: Option<i32>,
    /// From its start to its end, in seconds.
    pub(super) seconds: f64,
    /// User and system time of the program and of the children it waited for, in seconds.
    pub(super) processor: f64,
    /// The most memory that they held together, in KiB: pages that several of them share are counted once. It is looked at every
    /// 10 ms, so it is never less than what the largest of them held.
    pub(super) peak: i64,
    /// The end of what it wrote to standard error.
    pub(super) said: String,
}

/// The most that is kept of what a program says.
const MAX_SAID: usize = 2000;

/// Runs a program as the only child of this process, and prints a [`Run`]. This process is small and has one child, so what
/// the kernel counts of its children is what the program took.
///
/// # Errors
/// Where the program cannot be started.
pub(super) fn child(command: &[String]) -> Result<(), Failure> {
    use nix::sys::resource::{UsageWho, getrusage};
    use nix::sys::time::TimeValLike as _;
    let (program, arguments) = command.split_first().expect("clap asks for one");
    let began = Instant::now();
    let child = Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let (id, done) = (child.id(), AtomicBool::new(false));
    let (ended, together) = std::thread::scope(|scope| {
        let watcher = scope.spawn(|| most_held(id, &done));
        // Before the watcher is waited for, which may have begun to sleep a moment ago.
        let ended = child.wait_with_output().map(|ended| (ended, began.elapsed().as_secs_f64()));
        done.store(true, Ordering::Relaxed);
        (ended, watcher.join().expect("a thread that only reads"))
    });
    let (ended, seconds) = ended?;
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN)?;
    let microseconds = usage.user_time().num_microseconds() + usage.system_time().num_microseconds();
    let kept = &ended.stderr[ended.stderr.len().saturating_sub(MAX_SAID)..];
    let run = Run {
        code: ended.status.code(),
        seconds,
        processor: microseconds as f64 / 1e6,
        peak: usage.max_rss().max(together),
        said: String::from_utf8_lossy(kept).into_owned(),
    };
    println!("{}", serde_json::to_string(&run)?);
    Ok(())
}

/// How often memory is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// The most KiB that a process and its descendants held together until `done`.
fn most_held(root: u32, done: &AtomicBool) -> i64 {
    let mut most = 0;
    while !done.load(Ordering::Relaxed) {
        most = most.max(held(root));
        std::thread::sleep(LOOK);
    }
    most
}

/// KiB that a process and its descendants hold: their proportional sets (proc_pid_smaps(5)). Who is gone holds nothing.
fn held(process: u32) -> i64 {
    let read = |path: String| std::fs::read_to_string(path).unwrap_or_default();
    let rollup = read(format!("/proc/{process}/smaps_rollup"));
    let own =
        rollup.lines().find_map(|line| line.strip_prefix("Pss:")?.trim().strip_suffix(" kB")?.parse().ok());
    let tasks = std::fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
    let children = tasks.map(|task| read(format!("{}/children", task.path().display())));
    let below: i64 =
        children.map(|ids| ids.split(' ').filter_map(|id| id.parse().ok()).map(held).sum::<i64>()).sum();
    own.unwrap_or(0) + below
}

/// Runs a program in a process of its own that measures it.
///
/// # Errors
/// Where it cannot be started.
pub(super) fn run(command: &Command) -> Result<Run, Failure> {
    // Not by its name: a build during a long run replaces the file.
    let mut measured = Command::new("/proc/self/exe");
    measured.args(["bench", "measure", "--"]).arg(command.get_program()).args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => measured.env(name, value),
            None => measured.env_remove(name),
        };
    }
    if let Some(folder) = command.get_current_dir() {
        measured.current_dir(folder);
    }
    let output = measured.output()?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
    }
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// The run in the middle by time, with the most memory that any of them held.
pub(super) fn middle(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
    Run { peak, ..runs.swap_remove(runs.len() / 2) }
}
