//! Who answers containers that ask for each other's names: `aardvark-dns`, one process for all networks.
//!
//! `netavark` writes down which names there are, starts the program when the first container joins a network, and tells it of
//! changes. What it does not do is start it again when it has died between two joins: then it is done here, the same way.

use std::io;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;

use super::Host;

/// Debian installs it where podman looks for it.
pub(super) const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";

/// What its process is called: the first 15 bytes of its name (proc_pid_comm(5)).
const PROCESS: &str = "aardvark-dns";

/// In netavark's directory: one file for each network that has names, and the number of the process.
const DIRECTORY: &str = "aardvark-dns";
const PID_FILE: &str = "aardvark.pid";

/// How long it has to be ready.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why nobody answers containers that ask for names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// The program can't be started.
    #[error("start {AARDVARK}")]
    Start(#[source] io::Error),
    /// One that was started before can't be ended.
    #[error("end process {process}, a {AARDVARK} that is not the one in use")]
    Stray {
        /// Its number.
        process: i32,
    },
    /// It was started and ended, or was not ready in time.
    #[error("start {AARDVARK}: {how}")]
    Ended {
        /// How it ended.
        how: String,
    },
}

impl Host {
    /// Starts what answers for names, unless it runs.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn serve_names(&self) -> Result<(), NamesError> {
        let netavark = self.paths.netavark();
        let _alone = self.netavark.lock().await;
        if !are_lost(&netavark) {
            return Ok(());
        }
        // One that nobody knows any more would keep the addresses of the networks to itself.
        let dir = netavark.join(DIRECTORY);
        end(|| serving(&dir, Path::new("/proc"))).await?;
        // A scope of its own, or it would be ended with this daemon. It leaves its parent and keeps what it was given to
        // write to, so nothing is read from it.
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--scope", AARDVARK, "--config"]).arg(netavark.join(DIRECTORY));
        command.args(["-p", "53", "run"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        match tokio::time::timeout(DEADLINE, command.status()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(NamesError::Ended { how: status.to_string() }),
            Ok(Err(source)) => Err(NamesError::Start(source)),
            Err(_) => {
                Err(NamesError::Ended { how: format!("it was not ready within {} s", DEADLINE.as_secs()) })
            }
        }
    }
}

/// Whether there are names and nobody answers for them. What can't be read counts for nothing, as on a host without networks.
pub(super) fn are_lost(netavark: &Path) -> bool {
    let dir = netavark.join(DIRECTORY);
    let Ok(entries) = std::fs::read_dir(&dir) else { return false };
    let names = entries.flatten().any(|entry| entry.file_name() != PID_FILE);
    names && !runs(&dir.join(PID_FILE), Path::new("/proc"))
}

/// Kills processes until there are none any more.
async fn end(processes: impl Fn() -> Vec<Pid>) -> Result<(), NamesError> {
    let deadline = Instant::now() + DEADLINE;
    while let Some(process) = processes().first().copied() {
        if Instant::now() > deadline {
            return Err(NamesError::Stray { process: process.as_raw() });
        }
        // It may end by itself meanwhile.
        let _ = kill(process, Signal::SIGKILL);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The processes that answer for the names in this directory, which they were told of.
fn serving(dir: &Path, proc: &Path) -> Vec<Pid> {
    let entries = std::fs::read_dir(proc).into_iter().flatten().flatten();
    let processes = entries.filter(|entry| {
        let read = |name| std::fs::read(entry.path().join(name)).unwrap_or_default();
        let arguments = read("cmdline");
        let mut arguments = arguments.split(|byte| *byte == 0);
        read("comm").trim_ascii_end() == PROCESS.as_bytes()
            && arguments.any(|argument| argument == dir.as_os_str().as_encoded_bytes())
    });
    processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().map(Pid::from_raw)).collect()
}

fn runs(pid_file: &Path, proc: &Path) -> bool {
    let pid = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<u32>().ok());
    let comm = pid.and_then(|pid| std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok());
    comm.is_some_and(|comm| comm.trim_end() == PROCESS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_lost_where_there_are_some_and_the_process_is_another_one_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (names, proc) = (dir.path().join(DIRECTORY), dir.path().join("proc"));
        assert!(!are_lost(dir.path()), "no network");
        std::fs::create_dir_all(&names).unwrap();
        std::fs::create_dir_all(proc.join("7")).unwrap();
        std::fs::write(names.join(PID_FILE), "1").unwrap();
        assert!(!are_lost(dir.path()), "a network without names");
        std::fs::write(names.join("default"), "10.90.0.1\n").unwrap();
        assert!(are_lost(dir.path()), "process 1 is another program");
        let runs_as = |pid: &str, comm: &str| {
            std::fs::write(names.join(PID_FILE), pid).unwrap();
            std::fs::write(proc.join("7/comm"), comm).unwrap();
            runs(&names.join(PID_FILE), &proc)
        };
        assert!(runs_as("7\n", "aardvark-dns\n"));
        assert!(!runs_as("7", "sleep\n"));
        assert!(!runs_as("8", "aardvark-dns\n"));
        assert!(!runs_as("none", "aardvark-dns\n"));
    }
    #[test]
    fn only_those_that_serve_our_names_are_ended() {
        let proc = tempfile::tempdir().unwrap();
        let dir = Path::new("/run/bennu/netavark/aardvark-dns");
        for (pid, comm, argument) in [
            ("7", "aardvark-dns\n", "/run/bennu/netavark/aardvark-dns"),
            ("8", "aardvark-dns\n", "/run/containers/networks/aardvark-dns"),
            ("9", "sleep\n", "/run/bennu/netavark/aardvark-dns"),
            ("self", "aardvark-dns\n", "/run/bennu/netavark/aardvark-dns"),
        ] {
            let process = proc.path().join(pid);
            std::fs::create_dir(&process).unwrap();
            std::fs::write(process.join("comm"), comm).unwrap();
            std::fs::write(process.join("cmdline"), format!("{AARDVARK}\0--config\0{argument}\0run\0"))
                .unwrap();
        }
        assert_eq!(serving(dir, proc.path()), [Pid::from_raw(7)]);
    }
}
