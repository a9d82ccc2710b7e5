//! Who answers containers that ask for each other's names: `aardvark-dns`, one process for all networks.
//!
//! It reads a file for each network, again whenever it is told to, and keeps its own number beside them (aardvark-dns 1.14, `config.md` and
//! `src/config/mod.rs`): on the first line of a file are the addresses at which it answers, and on each further one what it answers of an
//! instance. A network's file is there from its first instance until the network is removed: without any file the program ends.
//!
//! ```text
//! 10.20.0.1,fd00:20::1
//! web-3 10.20.0.2 fd00:20::2 web,www 192.0.2.53
//! ```

use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bennu_manifests::model::{Name, NetworkKind};
use bennu_planner::Instance;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::process::Command;
use tokio::sync::Mutex;

use super::command::{CommandError, run};
use super::network;
use super::record::{Membership, Record};

/// Debian installs it where podman looks for it.
const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";

/// What its process is called: the first 15 bytes of its name (proc_pid_comm(5)).
const PROCESS: &str = "aardvark-dns";

/// The number of the process, beside the files of networks.
const PID_FILE: &str = "aardvark.pid";

/// How the file's name ends of a network that leads nowhere but to itself: what is asked there of others is asked nobody.
const INTERNAL: &str = "%int";

/// How long it has to be ready.
const DEADLINE: Duration = Duration::from_secs(30);

/// Why nobody answers containers that ask for names.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NamesError {
    /// It can't be written down who has which name.
    #[error("write {}", file.display())]
    Write {
        /// The file of a network.
        file: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The program does not start.
    #[error("start what answers for names")]
    Start(#[from] CommandError),
    /// One that was started before can't be ended.
    #[error("end process {process}, a {AARDVARK} that is not the one in use")]
    Stray {
        /// Its number.
        process: i32,
    },
}

/// The names of all networks, and who answers for them.
#[derive(Debug)]
pub(super) struct Names {
    dir: PathBuf,
    /// Held while files change and while the process is started.
    alone: Mutex<()>,
}

impl Names {
    /// Those whose files are in `dir`, which exists and holds nothing else.
    pub(super) fn new(dir: PathBuf) -> Self {
        Self { dir, alone: Mutex::default() }
    }

    /// Has an instance be found by its names on its networks; says whether somebody answers for them.
    ///
    /// # Errors
    /// Where they can't be written down. It can be repeated.
    pub(super) async fn add(&self, record: &Record) -> Result<bool, NamesError> {
        let _alone = self.alone.lock().await;
        let mut any = false;
        for membership in served(record) {
            let file = self.file(&membership.network, membership.spec.internal);
            any |= self.change(&file, |text| Some(with(text, record, membership)))?;
        }
        Ok(!any || self.tell())
    }

    /// Has an instance be found no more, on whatever network.
    ///
    /// # Errors
    /// Where that can't be written down. It can be repeated.
    pub(super) async fn remove(&self, instance: &Instance) -> Result<(), NamesError> {
        let _alone = self.alone.lock().await;
        let mut any = false;
        for file in self.files() {
            any |= self.change(&file, |text| Some(without(text?, instance)))?;
        }
        if any {
            self.tell();
        }
        Ok(())
    }

    /// Forgets a network that is removed.
    ///
    /// # Errors
    /// Where its file can't be removed. It can be repeated.
    pub(super) async fn forget(&self, network: &Name) -> Result<(), NamesError> {
        let _alone = self.alone.lock().await;
        let mut any = false;
        for internal in [false, true] {
            let file = self.file(network, internal);
            match std::fs::remove_file(&file) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                other => {
                    other.map_err(|source| NamesError::Write { file, source })?;
                    any = true;
                }
            }
        }
        if any && self.files().is_empty() {
            // It would end by itself, and whoever is added meanwhile would take it for one that goes on.
            return end(|| serving(&self.dir, Path::new("/proc"))).await;
        }
        if any {
            self.tell();
        }
        Ok(())
    }

    /// Starts what answers for names, unless it runs. The bridges of all networks that have names are there.
    ///
    /// # Errors
    /// Where it does not start.
    pub(super) async fn serve(&self) -> Result<(), NamesError> {
        let _alone = self.alone.lock().await;
        if self.are_lost() { self.start().await } else { Ok(()) }
    }

    /// Whether there are names and nobody answers for them.
    pub(super) fn are_lost(&self) -> bool {
        !self.files().is_empty() && self.process(Path::new("/proc")).is_none()
    }

    /// The files of networks; none where they can't be listed, as on a host without networks.
    fn files(&self) -> Vec<PathBuf> {
        let entries = std::fs::read_dir(&self.dir).into_iter().flatten().flatten();
        entries.filter(|entry| entry.file_name() != PID_FILE).map(|entry| entry.path()).collect()
    }

    fn file(&self, network: &Name, internal: bool) -> PathBuf {
        self.dir.join(format!("{network}{}", if internal { INTERNAL } else { "" }))
    }

    /// Makes a file what it is to be, given what it is; says whether it was changed. It is whole whenever it is read.
    fn change(
        &self,
        file: &Path,
        wanted: impl FnOnce(Option<&str>) -> Option<String>,
    ) -> Result<bool, NamesError> {
        let failed = |source| NamesError::Write { file: file.to_owned(), source };
        let text = match std::fs::read_to_string(file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            other => Some(other.map_err(failed)?),
        };
        match wanted(text.as_deref()) {
            Some(wanted) if Some(&wanted) != text.as_ref() => {
                // Beside the directory: every file in it is taken for that of a network.
                let temporary = self.dir.with_extension("new");
                std::fs::write(&temporary, wanted).map_err(failed)?;
                std::fs::rename(&temporary, file).map_err(failed)?;
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    /// Has the process read the files again; says whether there is one.
    fn tell(&self) -> bool {
        self.process(Path::new("/proc")).is_some_and(|process| kill(process, Signal::SIGHUP).is_ok())
    }

    /// The process that answers, if it runs.
    fn process(&self, proc: &Path) -> Option<Pid> {
        let pid: u32 = std::fs::read_to_string(self.dir.join(PID_FILE)).ok()?.trim().parse().ok()?;
        let comm = std::fs::read_to_string(proc.join(pid.to_string()).join("comm")).ok()?;
        (comm.trim_end() == PROCESS).then_some(Pid::from_raw(i32::try_from(pid).ok()?))
    }

    async fn start(&self) -> Result<(), NamesError> {
        // One that nobody knows any more would keep the addresses of the networks to itself.
        end(|| serving(&self.dir, Path::new("/proc"))).await?;
        // A scope of its own, or it would be ended with this daemon. It leaves its parent, and what it was given to write to, when it answers.
        let mut command = Command::new("systemd-run");
        command.args(["--quiet", "--scope", AARDVARK, "--config"]).arg(&self.dir).args(["-p", "53", "run"]);
        Ok(run(command, b"", DEADLINE).await.map(drop)?)
    }
}

/// The networks of an instance on which names are answered: those that have a bridge, at whose address it is asked.
pub(super) fn served(record: &Record) -> impl Iterator<Item = &Membership> {
    record.networks.iter().filter(|membership| membership.spec.kind == NetworkKind::Bridge)
}

/// A network's file with what is to be answered of an instance.
fn with(text: Option<&str>, record: &Record, membership: &Membership) -> String {
    let joined = |addresses: &mut dyn Iterator<Item = String>| addresses.collect::<Vec<_>>().join(",");
    let mut text = match text {
        Some(text) => without(text, &record.instance),
        None => {
            format!("{}\n", joined(&mut network::routers(&membership.spec).map(|server| server.to_string())))
        }
    };
    let names = joined(&mut [&record.instance.name].into_iter().chain(&record.aliases).map(Name::to_string));
    let address6 = membership.address6.map(|address| address.to_string()).unwrap_or_default();
    text.push_str(&format!("{} {} {address6} {names}", record.instance, membership.address));
    if !record.dns_servers.is_empty() {
        text.push(' ');
        text.push_str(&joined(&mut record.dns_servers.iter().map(IpAddr::to_string)));
    }
    text.push('\n');
    text
}

/// A network's file without an instance.
fn without(text: &str, instance: &Instance) -> String {
    let instance = instance.to_string();
    let stays = |line: &&str| line.split(' ').next() != Some(instance.as_str());
    text.lines().filter(stays).map(|line| format!("{line}\n")).collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    #[test]
    fn names_are_lost_where_there_are_some_and_the_process_is_another_one_or_none() {
        let dir = tempfile::tempdir().unwrap();
        let (names, proc) = (Names::new(dir.path().join("names")), dir.path().join("proc"));
        assert!(!names.are_lost(), "no network");
        std::fs::create_dir_all(&names.dir).unwrap();
        std::fs::create_dir_all(proc.join("7")).unwrap();
        std::fs::write(names.dir.join(PID_FILE), "1").unwrap();
        assert!(!names.are_lost(), "a network without names");
        std::fs::write(names.dir.join("default"), "10.90.0.1\n").unwrap();
        assert!(names.are_lost(), "process 1 is another program");
        let runs_as = |pid: &str, comm: &str| {
            std::fs::write(names.dir.join(PID_FILE), pid).unwrap();
            std::fs::write(proc.join("7/comm"), comm).unwrap();
            names.process(&proc)
        };
        assert_eq!(runs_as("7\n", "aardvark-dns\n"), Some(Pid::from_raw(7)));
        for (pid, comm) in [("7", "sleep\n"), ("8", "aardvark-dns\n"), ("none", "aardvark-dns\n")] {
            assert_eq!(runs_as(pid, comm), None, "{pid} {comm}");
        }
    }

    #[test]
    fn a_file_says_where_it_is_asked_and_what_is_answered_of_each_instance() {
        let mut record = record();
        let [front, back] = [0, 1].map(|number| record.networks[number].clone());
        let first = with(None, &record, &front);
        assert_eq!(first, "10.20.0.1\nweb-3 10.20.0.2  web,www\n");
        assert_eq!(with(None, &record, &back), "10.21.0.1,fd00:21::1\nweb-3 10.21.0.2 fd00:21::2 web,www\n");
        record.dns_servers = vec!["192.0.2.53".parse().unwrap(), "2001:db8::53".parse().unwrap()];
        let again = with(Some(&first), &record, &front);
        assert_eq!(again, "10.20.0.1\nweb-3 10.20.0.2  web,www 192.0.2.53,2001:db8::53\n");
        record.instance = "web-30".parse().unwrap();
        let two = with(Some(&first), &record, &front);
        assert_eq!(two.lines().count(), 3, "another one whose name begins the same: {two}");
        assert_eq!(without(&two, &record.instance), first);
        assert_eq!(without(&first, &"web-3".parse().unwrap()), "10.20.0.1\n", "the network stays");
    }

    #[tokio::test]
    async fn what_is_removed_leaves_no_name_and_what_is_forgotten_no_file() {
        let dir = tempfile::tempdir().unwrap();
        let names = Names::new(dir.path().join("names"));
        std::fs::create_dir(&names.dir).unwrap();
        let record = record();
        for membership in &record.networks {
            let file = names.file(&membership.network, membership.spec.internal);
            assert!(names.change(&file, |text| Some(with(text, &record, membership))).unwrap());
        }
        let files = || {
            let mut files: Vec<_> =
                std::fs::read_dir(&names.dir).unwrap().map(|file| file.unwrap().file_name()).collect();
            files.sort();
            files
        };
        assert_eq!(files(), ["back%int", "default"]);
        names.remove(&record.instance).await.unwrap();
        let text = std::fs::read_to_string(names.dir.join("back%int")).unwrap();
        assert_eq!(text, "10.21.0.1,fd00:21::1\n");
        names.remove(&record.instance).await.unwrap();
        for network in ["back", "default", "none"] {
            names.forget(&network.parse().unwrap()).await.unwrap();
        }
        assert_eq!(files(), [""; 0]);
    }

    #[test]
    fn only_those_that_serve_our_names_are_ended() {
        let proc = tempfile::tempdir().unwrap();
        let dir = Path::new("/run/bennu/names");
        for (pid, comm, argument) in [
            ("7", "aardvark-dns\n", "/run/bennu/names"),
            ("8", "aardvark-dns\n", "/run/containers/networks/aardvark-dns"),
            ("9", "sleep\n", "/run/bennu/names"),
            ("self", "aardvark-dns\n", "/run/bennu/names"),
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
