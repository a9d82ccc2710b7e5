//! Where everything is.

use std::path::{Path, PathBuf};

use bennu_manifests::model::Name;
use bennu_planner::Instance;

/// The two directories that the daemon writes to.
///
/// ```text
/// state/scrubbed.json         when every blob of the store was read last
/// state/ids.json              which ids belong to which container
/// state/volumes/NAME          volumes that are kept
/// state/scratch/BOOT-ID/      what lives as long as this boot: volumes, and what containers write to their root
/// run/instances/INSTANCE/     record.json, bundle/config.json, files/, ns/, layers/, rootfs/, pid
/// run/networks/NAME.json      networks that are set up
/// run/netavark/, run/crun/    what those programs know
/// ```
#[derive(Debug, Clone)]
pub struct Paths {
    /// What survives a boot.
    pub state: PathBuf,
    /// What does not: a memory-backed directory.
    pub run: PathBuf,
}

impl Paths {
    pub(super) fn ids(&self) -> PathBuf {
        self.state.join("ids.json")
    }

    pub(super) fn instances(&self) -> PathBuf {
        self.run.join("instances")
    }

    pub(super) fn instance(&self, instance: &Instance) -> PathBuf {
        self.instances().join(instance.to_string())
    }

    pub(super) fn networks(&self) -> PathBuf {
        self.run.join("networks")
    }

    pub(super) fn network(&self, network: &Name) -> PathBuf {
        self.networks().join(format!("{network}.json"))
    }

    pub(super) fn netavark(&self) -> PathBuf {
        self.run.join("netavark")
    }

    pub(super) fn crun(&self) -> PathBuf {
        self.run.join("crun")
    }

    /// Where an instance writes what it writes to its root, given the directory of this boot. No volume has such a name.
    pub(super) fn upper(scratch: &Path, instance: &Instance) -> PathBuf {
        scratch.join(".upper").join(instance.to_string())
    }
}
