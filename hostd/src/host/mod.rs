//! The host's verbs: everything that `hostd` does to the machine goes through here.
//!
//! ```text
//! container + image ──► spec (config.json), unit (typed properties), network (netavark's request)   pure
//!                             │
//! start ──► record ──► namespaces ──► net ──► rootfs ──► volume ──► bus (StartTransientUnit)        effects
//! stop  ──► bus (StopUnit) ──► net ──► unmount ──► remove
//! observe ◄── bus, records, volumes, ports, store
//! ```
//!
//! Every verb may be repeated, and may be killed at any point and then be repeated. **Invariants:** no verb decides
//! anything; what an image or a manifest says is only ever data (no text units, no shell, no specifiers); an instance
//! of which anything is there has a record or a unit, so it is seen.

mod bus;
mod command;
mod containers;
mod describe;
mod exec;
mod idrange;
mod instance;
mod logs;
mod namespaces;
mod net;
mod network;
mod observe;
mod paths;
mod ports;
mod private;
mod probe;
mod record;
mod rootfs;
mod ruleset;
mod seccomp;
mod spec;
mod stats;
mod unit;
mod user;
mod volume;

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use bennu_image_store::Store;
use bennu_image_store::mount::{MountError, Mounts};
use bennu_manifests::model::{Name, VolumeLife};
use bennu_planner::Instance;
use futures_util::Stream;

pub use bus::BusError;
pub use command::CommandError;
pub use exec::ExecError;
pub use instance::{RefreshError, StartError, StartInstance, StopError};
pub use logs::{LogsError, LogsOf, LogsWanted};
pub use net::{JoinError, NetworkError};
pub use observe::ObserveError;
pub use paths::Paths;
pub use ports::PublishError;
pub use probe::Probing;
pub use rootfs::RootfsError;
pub use ruleset::NotIpv4;
pub use spec::SpecError;
pub use user::NoUser;
pub use volume::VolumeError;

/// The host that the daemon runs on.
#[derive(Debug)]
pub struct Host {
    paths: Paths,
    store: Arc<Store>,
    mounts: Mounts,
    bus: bus::Bus,
    volumes: volume::Volumes,
    ports: ports::Ports,
    /// The id of this boot.
    boot: String,
}

/// Why the host's verbs can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no systemd to talk to.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// The volumes are not in order.
    #[error("prepare the volumes")]
    Volumes(#[from] VolumeError),
    /// The directory of mounts can't be made.
    #[error("prepare the mounts of images")]
    Mounts(#[from] MountError),
    /// A directory can't be made, or the boot's id not be read.
    #[error("prepare {}", path.display())]
    Prepare {
        /// The file or directory.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}

impl Host {
    /// Connects to systemd, makes the daemon's directories and clears away what earlier boots left.
    ///
    /// # Errors
    /// Where there is no systemd, or a directory can't be made.
    pub async fn connect(paths: Paths, store: Arc<Store>) -> Result<Self, ConnectError> {
        let prepare = |path: PathBuf| move |source| ConnectError::Prepare { path, source };
        // Containers' processes pass through on the way to their own part: they may enter, not look.
        for dir in [&paths.run, &paths.instances()] {
            volume::make_dir(dir, 0o711).map_err(prepare(dir.clone()))?;
        }
        for dir in [paths.networks(), paths.netavark(), paths.crun()] {
            volume::make_dir(&dir, 0o700).map_err(prepare(dir.clone()))?;
        }
        let boot_id = PathBuf::from("/proc/sys/kernel/random/boot_id");
        let boot = std::fs::read_to_string(&boot_id).map_err(prepare(boot_id))?;
        let volumes = volume::Volumes::new(&paths.state, boot.trim());
        volumes.prepare().await?;
        exec::end_orphans();
        let mounts = Mounts::new(&paths.run.join("mounts"))?;
        let bus = bus::Bus::connect().await?;
        let boot = boot.trim().to_owned();
        Ok(Self { paths, store, mounts, bus, volumes, ports: ports::Ports::default(), boot })
    }

    /// The id of this boot (proc_sys_kernel(5), `random/boot_id`).
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// Makes an empty volume; one that is there stays as it is.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn create_volume(&self, name: &Name, life: VolumeLife) -> Result<(), VolumeError> {
        self.volumes.create(name, life).await
    }

    /// Destroys a volume and all data in it; one that is not there is no error.
    ///
    /// # Errors
    /// Whatever the file system says.
    pub async fn destroy_volume(&self, name: &Name) -> Result<(), VolumeError> {
        self.volumes.destroy(name).await
    }

    /// Where a volume is on the host.
    pub fn volume_path(&self, name: &Name, life: VolumeLife) -> PathBuf {
        self.volumes.path(name, life)
    }

    /// Publishes exactly these ports, in one transaction.
    ///
    /// # Errors
    /// Where one can't be published; nothing has changed then.
    pub async fn publish(&self, ports: &[bennu_planner::Published]) -> Result<(), PublishError> {
        self.ports.publish(ports).await
    }

    /// Runs a command inside a container; it is not empty. The stream ends with how it ended. When the stream is
    /// dropped before, the command and all that it started are killed.
    ///
    /// # Errors
    /// Where it can't be started.
    pub fn exec(
        &self,
        instance: &Instance,
        command: &[String],
    ) -> Result<impl Stream<Item = bennu_api::ExecOutput> + Send + 'static + use<>, ExecError> {
        let (dir, runtime_state) = (self.paths.instance(instance), self.paths.crun());
        exec::exec(exec::Places { dir: &dir, runtime_state: &runtime_state }, instance, command)
    }

    /// Whether a pattern for [`Host::logs`] is one.
    ///
    /// # Errors
    /// Where it is none, with what is wrong.
    pub async fn check_pattern(&self, pattern: &str) -> Result<(), CommandError> {
        logs::check_pattern(pattern).await
    }

    /// What containers or the daemon wrote, oldest first.
    ///
    /// # Errors
    /// Where the journal can't be read.
    pub fn logs(
        &self,
        wanted: &LogsWanted,
    ) -> Result<impl Stream<Item = bennu_api::LogLine> + Send + 'static + use<>, LogsError> {
        logs::logs(wanted)
    }
}
