//! Where everything is.

use std::path::{Path, PathBuf};

use bennu_manifests::model::Name;
use bennu_planner::Instance;

/// The directories that the daemon writes to.
///
/// ```text
/// state/scrubbed.json         when every blob of the store was read last
/// state/ids.json              which ids belong to which container
/// state/forward/NAME.json     what a receiver of logs has got
/// state/volumes/NAME          volumes that are kept
/// state/scratch/BOOT-ID/      what lives as long as this boot: volumes, and what containers write to their root
/// mounts/instances/INSTANCE/  record.json, kills.json, config.json, bundle/config.json, files/, ns/, layers/, rootfs/, pid
/// mounts/volumes/INSTANCE/NAME  volumes, with the ids of the instance
/// mounts/images/              layers, and which tree is made of which
/// run/networks/NAME.json      networks that are set up
/// run/settings.json           what of the host itself was set, and what it was before
/// run/firewall.json           how the rules were made
/// run/journal                 what journald was told to keep
/// run/oom-kills.json          which kills were told
/// run/names/                  who answers to which name on which network
/// run/runtime/INSTANCE/       what the runtime knows; systemd removes it whenever the unit ends
/// run/runtime/.cache/         filters of system calls, for all instances
/// mounts/debug/NUMBER/        debugging shells: bundle, tree, and what the runtime knows
/// run/consoles/               where terminals are handed over
/// ```
#[derive(Debug, Clone)]
pub struct Paths {
    /// What survives a boot.
    pub state: PathBuf,
    /// What does not: a memory-backed directory.
    pub run: PathBuf,
    /// Another one, for all that is mounted, and what goes with it.
    pub mounts: PathBuf,
}

impl Paths {
    pub(super) fn ids(&self) -> PathBuf {
        self.state.join("ids.json")
    }

    pub(super) fn instances(&self) -> PathBuf {
        self.mounts.join("instances")
    }

    pub(super) fn instance(&self, instance: &Instance) -> PathBuf {
        self.instances().join(instance.to_string())
    }

    /// Where the volumes of an instance with users of its own are mounted. It lies beside the instance's directory, which is
    /// removed with all that is in it.
    pub(super) fn volumes(&self, instance: &Instance) -> PathBuf {
        self.mounts.join("volumes").join(instance.to_string())
    }

    /// Where images are mounted.
    pub(super) fn images(&self) -> PathBuf {
        self.mounts.join("images")
    }

    pub(super) fn networks(&self) -> PathBuf {
        self.run.join("networks")
    }

    pub(super) fn network(&self, network: &Name) -> PathBuf {
        self.networks().join(format!("{network}.json"))
    }

    pub(super) fn settings(&self) -> PathBuf {
        self.run.join("settings.json")
    }

    pub(super) fn firewall(&self) -> PathBuf {
        self.run.join("firewall.json")
    }

    pub(super) fn names(&self) -> PathBuf {
        self.run.join("names")
    }

    pub(super) fn runtime(&self) -> PathBuf {
        self.run.join("runtime")
    }

    /// Where the runtime keeps what it knows of an instance, and of nothing else: so it goes away as a whole.
    pub(super) fn runtime_of(&self, instance: &Instance) -> PathBuf {
        self.runtime().join(instance.to_string())
    }

    /// Where debugging shells are made.
    pub(super) fn debug(&self) -> PathBuf {
        self.mounts.join("debug")
    }

    /// Where the runtime hands over terminals.
    pub(super) fn consoles(&self) -> PathBuf {
        self.run.join("consoles")
    }

    /// Where an instance writes what it writes to its root, given the directory of this boot. No volume has such a name.
    pub(super) fn upper(scratch: &Path, instance: &Instance) -> PathBuf {
        scratch.join(".upper").join(instance.to_string())
    }
}
