//! What is on the host: one question to systemd, a few small directories, the mounts, the interfaces of each container, and
//! two messages to the kernel.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;
use std::sync::Arc;

use bennu_image_store::StoreError;
use bennu_manifests::model::{Digest, ImageRef};
use bennu_planner::{Astray, Health, Instance, Seen, SeenInstance, State};

use super::bus::{BusError, UnitStatus};
use super::known::Known;
use super::parts;
use super::ports::PublishError;
use super::volume::VolumeError;
use super::{Host, handover, strangers, unit};

/// Why it is not known what is on the host.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ObserveError {
    /// The image store can't be read.
    #[error("look what is in the image store")]
    Images(#[from] StoreError),
    /// systemd can't be asked.
    #[error("look which containers there are")]
    Units(#[from] BusError),
    /// A directory of records can't be read.
    #[error("read {what}")]
    Records {
        /// What they are of.
        what: &'static str,
        /// What went wrong.
        source: io::Error,
    },
    /// The volumes can't be read.
    #[error("look which volumes there are")]
    Volumes(#[from] VolumeError),
    /// The table of published ports can't be read.
    #[error("look which ports are published")]
    Ports(#[from] PublishError),
}

/// An instance of which anything is there.
#[derive(Debug, Clone)]
pub(super) struct Found {
    pub(super) record: Option<Arc<Known>>,
    /// What systemd says of it; `None` also where its runtime waits for parts that were not made: by a daemon that was killed, nobody
    /// makes them any more.
    pub(super) unit: Option<UnitStatus>,
}

impl Host {
    /// What is on the host; what checks of containers say is not known here.
    ///
    /// # Errors
    /// Where any part of it can't be looked at: half a picture would have a plan tear down the other half.
    pub async fn observe(&self) -> Result<Seen, ObserveError> {
        let images = self.store.images()?.into_iter().map(|image| image.digest).collect();
        let found = self.found().await?;
        let units = strangers::among(&strangers::slice(), |unit| {
            unit::instance_of(unit).is_some_and(|instance| found.contains_key(&instance))
        });
        let units =
            units.map_err(|source| ObserveError::Records { what: "the containers' slice", source })?;
        let damaged = self.damaged(&found).await?;
        let seen = |(instance, found): (&Instance, &Found)| {
            (instance.clone(), SeenInstance { damaged: damaged.contains(instance), ..seen(found) })
        };
        let instances = found.iter().map(seen).collect();
        let networks =
            self.networks().map_err(|source| ObserveError::Records { what: "networks", source })?;
        let (published, firewall) = self.look_at_firewall(&networks).await?;
        let astray = Astray { firewall, names: self.names.are_lost(), units };
        let volumes = self.volumes.list()?;
        let quotas = self.volumes.quotas(&volumes)?;
        let settings = self
            .settings
            .look()
            .map_err(|source| ObserveError::Records { what: "settings of the host", source })?;
        Ok(Seen { images, instances, networks, volumes, quotas, published, settings, astray })
    }

    /// The running instances that a part is missing of.
    async fn damaged(&self, found: &BTreeMap<Instance, Found>) -> Result<BTreeSet<Instance>, ObserveError> {
        // What has ended, or is started again after a pause, has its parts as well until it is cleared away.
        let whole = found.iter().filter(|(_, found)| {
            matches!(
                state(found.unit.as_ref()),
                State::Running | State::Completed | State::Restarting | State::Failed
            )
        });
        let parts = whole.filter_map(|(instance, found)| {
            let (dir, volumes) = (self.paths.instance(instance), self.paths.volumes(instance));
            let parts = found.record.as_ref()?.parts(&dir, &volumes);
            Some(parts.map(|parts| (instance.clone(), parts)))
        });
        let failed = |source| ObserveError::Records { what: "what instances are made of", source };
        let parts: Vec<_> = parts.collect::<io::Result<_>>().map_err(failed)?;
        let missing = {
            let mounted = self.mounted.clone();
            tokio::task::spawn_blocking(move || parts::missing(&mounted, &parts)).await
        };
        let mut missing = missing.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(failed)?;
        missing.retain(|instance| state(found[instance].unit.as_ref()) == State::Running);
        Ok(missing)
    }

    /// Every instance that has a directory or a unit.
    pub(super) async fn found(&self) -> Result<BTreeMap<Instance, Found>, ObserveError> {
        let units = self.bus.units("bennu-*.service").await?;
        let units = units.into_iter().filter_map(|status| Some((unit::instance_of(&status.name)?, status)));
        let mut units: BTreeMap<_, _> = units.collect();
        let records = |source| ObserveError::Records { what: "instances", source };
        let mut names = names(&self.paths.instances()).map_err(records)?;
        names.extend(units.keys().cloned());
        self.records.keep(&names);
        let found = |instance: Instance| {
            let dir = self.paths.instance(&instance);
            // A record that can't be read is as none: what is left of the instance is cleared away.
            let record = self.records.of(&instance, &dir.join("record.json"));
            let unit = units.remove(&instance).filter(|_| handover::was_given(&dir.join("bundle")));
            (instance, Found { record, unit })
        };
        Ok(names.into_iter().map(found).collect())
    }
}

/// The instances that have a directory.
pub(super) fn names(dir: &Path) -> io::Result<BTreeSet<Instance>> {
    let mut names = BTreeSet::new();
    for entry in std::fs::read_dir(dir)? {
        names.extend(entry?.file_name().to_str().and_then(|name| name.parse().ok()));
    }
    Ok(names)
}

fn seen(found: &Found) -> SeenInstance {
    match found.record.as_ref().map(|known| &known.record) {
        Some(record) => SeenInstance {
            fingerprint: record.fingerprint,
            image: record.image.clone(),
            addresses: record.networks.iter().map(|m| (m.network.clone(), m.address)).collect(),
            addresses6: record
                .networks
                .iter()
                .filter_map(|m| Some((m.network.clone(), m.address6?)))
                .collect(),
            state: state(found.unit.as_ref()),
            damaged: false,
            health: Health::Unchecked,
            ready: false,
            overdue: false,
            contents: record.contents,
        },
        // A unit that nobody knows the origin of, or a directory without a record: only partly there, whatever runs,
        // and made from nothing that could be wanted.
        None => SeenInstance {
            fingerprint: Digest::from_bytes([0; 32]),
            image: ImageRef {
                registry: "unknown.invalid".to_owned(),
                repository: "unknown".to_owned(),
                tag: None,
                digest: Digest::from_bytes([0; 32]),
            },
            addresses: BTreeMap::new(),
            addresses6: BTreeMap::new(),
            state: State::Stopped,
            damaged: false,
            health: Health::Unchecked,
            ready: false,
            overdue: false,
            contents: Digest::from_bytes([0; 32]),
        },
    }
}

/// What an instance does, from the words of systemd (systemd(1), "UNITS"; the sub-states of a service).
pub(super) fn state(unit: Option<&UnitStatus>) -> State {
    let Some(unit) = unit else { return State::Stopped };
    match (unit.active.as_str(), unit.sub.as_str(), unit.job.as_str()) {
        (_, _, "stop") => State::Stopped,
        ("active" | "reloading" | "refreshing", "exited", _) => State::Completed,
        ("active" | "reloading" | "refreshing", ..) => State::Running,
        ("activating", "auto-restart" | "auto-restart-queued", _) => State::Restarting,
        ("activating", ..) => State::Starting,
        // It ended by itself: nobody asked for it to stop. What follows is its restart policy's affair.
        ("deactivating", ..) => State::Restarting,
        ("failed", ..) => State::Failed,
        _ => State::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    fn unit(active: &str, sub: &str, job: &str) -> UnitStatus {
        let [active, sub, job] = [active, sub, job].map(str::to_owned);
        UnitStatus { name: "bennu-web-3.service".into(), active, sub, job }
    }

    #[track_caller]
    fn check(active: &str, sub: &str, job: &str, expected: State) {
        assert_eq!(state(Some(&unit(active, sub, job))), expected, "{active} {sub} {job}");
    }

    #[test]
    fn systemds_words_become_states() {
        check("active", "running", "", State::Running);
        check("active", "exited", "", State::Completed);
        check("activating", "start", "start", State::Starting);
        check("activating", "start-post", "", State::Starting);
        check("activating", "auto-restart", "", State::Restarting);
        check("activating", "auto-restart-queued", "start", State::Restarting);
        check("failed", "failed", "", State::Failed);
        check("inactive", "dead", "", State::Stopped);
        assert_eq!(state(None), State::Stopped);
    }

    #[test]
    fn ending_by_itself_is_not_being_stopped() {
        check("deactivating", "stop-post", "", State::Restarting);
        check("deactivating", "stop-sigterm", "stop", State::Stopped);
        check("active", "running", "stop", State::Stopped);
    }

    #[test]
    fn a_unit_without_a_record_is_only_partly_there() {
        let found = Found { record: None, unit: Some(unit("active", "running", "")) };
        assert_eq!(seen(&found).state, State::Stopped);
        let found = Found { record: Some(Known::of(record())), unit: Some(unit("active", "running", "")) };
        assert_eq!(seen(&found).state, State::Running);
        assert_eq!(seen(&found).fingerprint, record().fingerprint);
    }

    #[test]
    fn directories_that_name_no_instance_are_passed_over() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["web-3", "web", "x-01", ".hidden-1"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        assert_eq!(names(dir.path()).unwrap(), ["web-3".parse().unwrap()].into());
    }
}
