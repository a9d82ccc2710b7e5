//! Daemons that some peers need, and what they take.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crate::Failure;

/// A daemon and its children; it is ended when this value is dropped.
#[derive(Debug)]
pub(super) struct Daemon {
    child: Child,
}

/// What a daemon took since it was started.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Taken {
    /// User and system time, in seconds.
    pub(super) processor: f64,
    /// The most memory that each of its processes held, together, in KiB.
    pub(super) peak: i64,
}

impl Daemon {
    /// Starts a daemon, and waits until `ready` succeeds.
    ///
    /// # Errors
    /// Where it ends, or is not ready in time; with what it said.
    pub(super) fn start(
        mut command: Command,
        log: &std::path::Path,
        mut ready: Command,
    ) -> Result<Self, Failure> {
        let out = fs::File::create(log)?;
        command.stdin(Stdio::null()).stdout(out.try_clone()?).stderr(out);
        let child = command.spawn().map_err(|error| format!("cannot start {command:?}: {error}"))?;
        let daemon = Self { child };
        ready.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let waited = vm_tests::wait::until("the daemon to answer", Duration::from_secs(30), || {
            Ok(ready.status().is_ok_and(|status| status.success()).then_some(()))
        });
        match waited {
            Ok(()) => Ok(daemon),
            Err(error) => {
                Err(format!("{error}; it said: {}", fs::read_to_string(log).unwrap_or_default()).into())
            }
        }
    }

    /// What it and its descendants took up to now.
    pub(super) fn taken(&self) -> Taken {
        let mut taken = Taken::default();
        let mut family = vec![self.child.id()];
        while let Some(process) = family.pop() {
            let read = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
            taken.processor += processor(&read("stat"));
            taken.peak += high_water(&read("status"));
            let tasks = fs::read_dir(format!("/proc/{process}/task")).into_iter().flatten().flatten();
            for task in tasks {
                let children = fs::read_to_string(task.path().join("children")).unwrap_or_default();
                family.extend(children.split_whitespace().filter_map(|id| id.parse::<u32>().ok()));
            }
        }
        taken
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Asked politely it ends its own children.
        let id = nix::unistd::Pid::from_raw(self.child.id().cast_signed());
        let _ended_already = nix::sys::signal::kill(id, nix::sys::signal::Signal::SIGTERM);
        let ended = vm_tests::wait::until("the daemon to end", Duration::from_secs(20), || {
            Ok(self.child.try_wait().ok().flatten())
        });
        if ended.is_err() {
            let _ended_already = self.child.kill();
            let _status = self.child.wait();
        }
    }
}

/// Fields 14 to 17 of `/proc/PID/stat` (proc_pid_stat(5)): user and system time, its own and that of children it waited for, in
/// ticks of 10 ms. The second field may hold spaces and ends with the last parenthesis.
fn processor(stat: &str) -> f64 {
    let fields = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let ticks = fields.split(' ').skip(11).take(4).filter_map(|field| field.parse::<f64>().ok());
    ticks.sum::<f64>() / 100.0
}

/// `VmHWM` of `/proc/PID/status`, in KiB.
fn high_water(status: &str) -> i64 {
    let value = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    value.and_then(|value| value.trim().strip_suffix(" kB")?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_counts_itself_and_the_children_it_waited_for() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 100 20 3 7 20 0 1 0 5";
        assert!((processor(stat) - 1.3).abs() < 1e-9);
    }

    #[test]
    fn the_most_memory_is_read_from_the_status() {
        assert_eq!(high_water("Name:\tx\nVmHWM:\t   2048 kB\nVmRSS:\t 1 kB\n"), 2048);
        assert_eq!(high_water("Name:\tkthread\n"), 0);
    }
}
