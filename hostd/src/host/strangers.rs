//! What runs in the containers' slice and is of no container: somebody put it there by hand.
//!
//! It is found by its control group, whether systemd knows of it or not; a unit without a process is none of ours.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::bus::BusError;
use super::{Host, unit};

/// How many are looked at in one round; more are found in the next ones.
const MOST: usize = 256;

/// How long a unit has to stop; systemd kills it after 90 s at the latest, unless it says otherwise.
const STOP: Duration = Duration::from_secs(120);

/// How long what was killed has to be gone.
const GONE: Duration = Duration::from_secs(10);

/// How often it is looked whether it is.
const LOOK: Duration = Duration::from_millis(20);

/// Why something that is no container was not removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemoveError {
    /// systemd does not stop it.
    #[error(transparent)]
    Stop(#[from] BusError),
    /// Its control group can't be ended.
    #[error("end all that runs in control group {unit}")]
    Kill {
        /// The control group.
        unit: String,
        /// What the kernel said.
        source: io::Error,
    },
}

/// The control group of the slice that all containers are in.
pub(super) fn slice() -> PathBuf {
    Path::new("/sys/fs/cgroup").join(unit::SLICE)
}

/// The groups in the slice that `is_known` does not know; none where there is no slice.
///
/// # Errors
/// Where it can't be read.
pub(super) fn among(slice: &Path, is_known: impl Fn(&str) -> bool) -> io::Result<BTreeSet<String>> {
    let entries = match std::fs::read_dir(slice) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        other => other?,
    };
    let mut strangers = BTreeSet::new();
    for entry in entries {
        let entry = entry?;
        // Names that are no text can't be made by systemd, and are ended under the name that is shown.
        let name = entry.file_name().to_string_lossy().into_owned();
        if entry.file_type()?.is_dir() && !is_known(&name) && strangers.len() < MOST {
            strangers.insert(name);
        }
    }
    Ok(strangers)
}

impl Host {
    /// Stops a unit of the containers' slice, and ends all that runs in its control group; with nothing there it does nothing.
    ///
    /// # Errors
    /// Where something of it does not end.
    pub async fn remove_stranger(&self, unit: &str) -> Result<(), RemoveError> {
        if [".service", ".scope", ".slice"].iter().any(|kind| unit.ends_with(kind)) {
            self.bus.stop(unit, STOP).await?;
        }
        let kill = |source| RemoveError::Kill { unit: unit.to_owned(), source };
        end(&slice().join(unit)).await.map_err(kill)
    }
}

/// Kills all processes in a control group and removes it.
async fn end(group: &Path) -> io::Result<()> {
    let begun = tokio::time::Instant::now();
    loop {
        match std::fs::write(group.join("cgroup.kill"), "1").and_then(|()| remove(group)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            // Killed processes are gone a moment later.
            Err(_) if begun.elapsed() < GONE => tokio::time::sleep(LOOK).await,
            other => return other,
        }
    }
}

/// Removes a group and those in it, the innermost first (cgroups(7): a group's files are not removed).
fn remove(group: &Path) -> io::Result<()> {
    for entry in std::fs::read_dir(group)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove(&entry.path())?;
        }
    }
    std::fs::remove_dir(group)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_of_no_container_is_found_and_files_and_containers_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        let slice = dir.path().join("bennu.slice");
        assert_eq!(among(&slice, |_| false).unwrap(), BTreeSet::new(), "no slice, no stranger");
        for name in ["bennu-web-1.service", "miner.service", "run-r1.scope", "by-hand"] {
            std::fs::create_dir_all(slice.join(name)).unwrap();
        }
        std::fs::write(slice.join("cgroup.procs"), "").unwrap();
        let found = among(&slice, |unit| unit == "bennu-web-1.service").unwrap();
        assert_eq!(found, ["miner.service", "run-r1.scope", "by-hand"].map(str::to_owned).into());
    }

    #[test]
    fn no_more_are_named_than_one_round_takes() {
        let dir = tempfile::tempdir().unwrap();
        for number in 0..MOST + 10 {
            std::fs::create_dir(dir.path().join(number.to_string())).unwrap();
        }
        assert_eq!(among(dir.path(), |_| false).unwrap().len(), MOST);
    }
}
