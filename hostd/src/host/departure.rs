//! Ending the program of an instance while the machine stops. What it leaves goes away with the machine, so nothing is removed, only unmounted.
//!
//! systemd has a job to stop each unit by then, and does not begin with it before the daemon has ended: the units are ordered so
//! (unit.rs). It can't be asked to stop one of them earlier, but signals reach their processes.

use std::path::Path;
use std::time::Duration;

use bennu_planner::Instance;

use super::bus::BusError;
use super::record::{self, Record};
use super::{Host, ObserveError, namespaces, scratch, unit};

/// How often it is looked whether a program has ended.
const LOOK: Duration = Duration::from_millis(20);

/// How long the kernel has to end what is killed.
const KILLED: Duration = Duration::from_secs(5);

impl Host {
    /// Whether the machine stops, or starts again.
    ///
    /// # Errors
    /// Where systemd can't be asked.
    pub async fn machine_stops(&self) -> Result<bool, BusError> {
        self.bus.machine_stops().await
    }

    /// The instances that have a directory or a unit.
    ///
    /// # Errors
    /// Where they can't be listed.
    pub async fn instances(&self) -> Result<Vec<Instance>, ObserveError> {
        Ok(self.found().await?.into_keys().collect())
    }

    /// Has the program of an instance end as a stop would: by its signal and within its time, or killed then.
    ///
    /// # Errors
    /// Where systemd can't be asked.
    pub async fn end(&self, instance: &Instance) -> Result<(), BusError> {
        let (name, group) = (unit::name(instance), unit::group(instance));
        let record = record::read::<Record>(&self.paths.instance(instance).join("record.json"));
        let time = record.ok().flatten().map(|record| Duration::from_millis(record.stop_timeout_ms));
        if !has_processes(&group) {
            return Ok(());
        }
        let asked = async { self.bus.signal(&name, self.bus.stop_signal(&name).await?).await };
        let asked = asked.await;
        // Its first process may have ended just now: then systemd has nobody to send the signal to, and that is as well.
        if asked.is_ok() && ended(&group, time.unwrap_or(KILLED)).await || !has_processes(&group) {
            return Ok(());
        }
        self.bus.kill_all(&name).await?;
        ended(&group, KILLED).await;
        asked
    }

    /// Unmounts all that is mounted for instances, and what is thrown away with the boot; all programs have ended. Nobody else does: systemd leaves
    /// alone what is mounted there, also when the machine stops. Tells what is still mounted, and why: what is written is on the disk
    /// nevertheless once the machine has stopped, since systemd has it all written out (sync(2)) before.
    pub async fn put_away(&self) -> Vec<String> {
        let unmounted = namespaces::unmount_below(&self.paths.mounts);
        let unmounted = unmounted.map_err(|error| format!("{}: {error}", self.paths.mounts.display()));
        let closed = scratch::close(&self.paths.state).await.map_err(|error| crate::core::chain(&error));
        [unmounted.err(), closed.err()].into_iter().flatten().collect()
    }
}

/// Whether a control group or one below it has processes (Linux, `Documentation/admin-guide/cgroup-v2.rst`, `cgroup.events`).
fn has_processes(group: &Path) -> bool {
    let events = std::fs::read_to_string(group.join("cgroup.events"));
    events.is_ok_and(|events| events.lines().any(|line| line == "populated 1"))
}

/// Waits until a control group has no processes, and tells whether that came within the time.
async fn ended(group: &Path, within: Duration) -> bool {
    let gone = async {
        while has_processes(group) {
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::time::timeout(within, gone).await.is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_group_has_ended_when_it_has_no_processes_or_is_gone() {
        let dir = tempfile::tempdir().unwrap();
        let (group, moment) = (dir.path().join("unit"), Duration::from_millis(60));
        assert!(ended(&group, moment).await, "gone");
        std::fs::create_dir(&group).unwrap();
        std::fs::write(group.join("cgroup.events"), "populated 1\nfrozen 0\n").unwrap();
        assert!(!ended(&group, moment).await);
        std::fs::write(group.join("cgroup.events"), "populated 0\nfrozen 0\n").unwrap();
        assert!(ended(&group, moment).await);
    }
}
