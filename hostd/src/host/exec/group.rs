//! The control group of one command, and its end.

use std::fs::{File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::host::runtime;

/// How the control groups of commands begin.
pub(in crate::host) const PREFIX: &str = "exec-";

/// The most commands that run in one container at the same time.
pub(super) const MAX_RUNNING: u32 = 64;

/// How long a command has after `SIGHUP` before it is killed.
const HANG_UP: Duration = Duration::from_secs(2);

/// How often it is looked whether it has ended.
const LOOK: Duration = Duration::from_millis(50);

/// A control group below the container's own. No controller is enabled in it, so it may hold processes beside those of
/// the container's (cgroup-v2, "No Internal Process Constraint"), whose limits hold for it too.
pub(super) struct Group(PathBuf);

impl Group {
    /// A new group; `None` where there are as many as there may be.
    pub(super) fn create(unit: &Path) -> io::Result<Option<Self>> {
        for number in 0..MAX_RUNNING {
            let path = unit.join(format!("{PREFIX}{number}"));
            // One that a daemon before this one left empty is as good as a new one; a busy one stays.
            let _ = std::fs::remove_dir(&path);
            match std::fs::create_dir(&path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => return other.map(|()| Some(Self(path))),
            }
        }
        Ok(None)
    }

    /// Its name, which no other command in the same container has at the same time.
    pub(super) fn name(&self) -> &str {
        self.0.file_name().and_then(|name| name.to_str()).unwrap_or_default()
    }

    /// Who writes `0` here is in it.
    pub(super) fn procs(&self) -> io::Result<File> {
        OpenOptions::new().write(true).open(self.0.join("cgroup.procs"))
    }

    /// Tells everything in it that nobody is there any more, and kills a little later what goes on even so.
    pub(super) async fn hang_up(self) {
        for pid in self.processes() {
            let _ = kill(pid, Signal::SIGHUP);
        }
        let ended = async {
            while !self.processes().is_empty() {
                tokio::time::sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(HANG_UP, ended).await;
    }

    fn processes(&self) -> Vec<Pid> {
        let text = std::fs::read_to_string(self.0.join("cgroup.procs")).unwrap_or_default();
        // 0 is a process of another namespace, which there is none of here, and would be ourselves for kill(2).
        text.lines().filter_map(|line| line.parse().ok()).filter(|&pid| pid > 0).map(Pid::from_raw).collect()
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

/// Ends the commands in all units of a slice.
pub(super) fn end_groups(slice: &Path) {
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    for unit in below(slice).filter(|path| path.is_dir()) {
        let of_containers = runtime::groups(&unit);
        let orphans = of_containers
            .iter()
            .flat_map(|group| below(group))
            .filter(|path| path.is_dir() && is_group(path));
        orphans.for_each(|path| drop(Group(path)));
    }
}

fn is_group(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name.to_string_lossy().starts_with(PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(Group::create(unit.path()).unwrap().unwrap().name(), "exec-5");
    }

    #[test]
    fn commands_that_nobody_waits_for_are_ended_and_the_container_is_not() {
        let slice = tempfile::tempdir().unwrap();
        let unit = slice.path().join("bennu-web-1.service");
        for group in ["exec-3", "init", "container/exec-5"] {
            std::fs::create_dir_all(unit.join(group)).unwrap();
        }
        end_groups(slice.path());
        assert!(unit.join("container/exec-5/cgroup.kill").exists(), "whichever runtime made the container");
        let left: Vec<_> =
            std::fs::read_dir(&unit).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        // The file stands for the kernel's, which takes the directory's processes with it.
        assert_eq!(std::fs::read(unit.join("exec-3/cgroup.kill")).unwrap(), b"1");
        assert_eq!(left.len(), 3);
        assert!(!unit.join("init/cgroup.kill").exists() && !unit.join("cgroup.kill").exists());
    }

    #[tokio::test]
    async fn a_command_whose_client_went_away_is_told_by_sighup_and_may_end_by_itself() {
        use std::os::unix::process::ExitStatusExt as _;
        let unit = tempfile::tempdir().unwrap();
        let group = Group::create(unit.path()).unwrap().unwrap();
        let mut child = tokio::process::Command::new("sleep").arg("1000").spawn().unwrap();
        std::fs::write(group.0.join("cgroup.procs"), child.id().unwrap().to_string()).unwrap();
        let (path, end) = (group.0.clone(), group.hang_up());
        let (status, ()) = tokio::join!(child.wait(), end);
        assert_eq!(status.unwrap().signal(), Some(Signal::SIGHUP as i32));
        assert_eq!(std::fs::read(path.join("cgroup.kill")).unwrap(), b"1", "and what stayed is killed");
    }
}
