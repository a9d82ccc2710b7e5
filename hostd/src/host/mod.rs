//! The host's verbs: everything that `hostd` does to the machine goes through here.
//!
//! ```text
//! container + image ──► spec (config.json), unit (typed properties), network (interfaces)   pure
//!                             │
//! start ──► record ─┬► namespaces ─┬► net ────────────────┬► handover ──► the runtime goes on      effects
//!                   │              └► rootfs ──► describe ─┘
//!                   └► bus (StartTransientUnit) ──► the runtime waits
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
mod copy;
mod data;
mod debug;
mod departure;
mod describe;
mod exec;
mod grow;
mod handover;
mod idrange;
mod inspect;
mod instance;
mod journal;
mod kills;
mod known;
mod links;
mod logs;
mod measure;
mod names;
mod namespaces;
mod net;
mod network;
mod observe;
mod parts;
mod paths;
mod ports;
mod private;
mod probe;
mod record;
mod rootfs;
mod ruleset;
mod runtime;
mod scratch;
mod seccomp;
mod settings;
mod spec;
mod stats;
mod strangers;
mod unit;
mod user;
mod volume;

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_image_store::Store;
use bennu_image_store::mount::{MountError, Mounts};
use bennu_manifests::model::{Manifest, Name};
use bennu_planner::Instance;
use futures_util::Stream;

pub use bus::BusError;
pub use command::CommandError;
pub use copy::CopyError;
pub use data::{DataError, Prepared};
pub use debug::DebugError;
pub use exec::{ExecError, Input, Output, Running, Talk};
pub use idrange::IdsError;
pub use inspect::InspectError;
pub use instance::{RefreshError, StartError, StartInstance, StopError};
pub use journal::JournalError;
pub use kills::{Kills, NOTE, note};
pub use links::LinkError;
pub use logs::{Entry, From as LogsFrom, LogsError, LogsOf, LogsWanted};
pub use names::NamesError;
pub use net::{JoinError, NetworkError};
pub use observe::ObserveError;
pub use paths::Paths;
pub use ports::PublishError;
pub use probe::Probing;
pub use rootfs::RootfsError;
pub use settings::SettingsError;
pub use spec::SpecError;
pub use strangers::RemoveError;
pub use user::NoUser;
pub use volume::{ArchiveError, VolumeError};

/// The host that the daemon runs on.
#[derive(Debug)]
pub struct Host {
    paths: Paths,
    store: Arc<Store>,
    mounts: Mounts,
    bus: bus::Bus,
    volumes: volume::Volumes,
    ports: ports::Ports,
    kills: kills::Watch,
    ids: idrange::Ids,
    settings: settings::Settings,
    names: names::Names,
    records: known::Records,
    mounted: Arc<parts::Mounted>,
    /// Held while a bridge is made.
    bridges: tokio::sync::Mutex<()>,
    /// The id of this boot.
    boot: String,
    /// The daemon's own program.
    program: PathBuf,
}

/// Why the host's verbs can't be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// There is no systemd to talk to.
    #[error(transparent)]
    Bus(#[from] BusError),
    /// There is no place for what is thrown away.
    #[error("prepare what lives as long as a boot")]
    Scratch(#[from] scratch::ScratchError),
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

/// The id of this boot (proc_sys_kernel(5), `random/boot_id`).
fn boot_id() -> Result<String, ConnectError> {
    let path = PathBuf::from("/proc/sys/kernel/random/boot_id");
    let text = std::fs::read_to_string(&path).map_err(|source| ConnectError::Prepare { path, source })?;
    Ok(text.trim().to_owned())
}

/// Has the state fill its disk, and makes the place for what lives as long as this boot, before anything is started. Most of it is the work of
/// other programs, beside which the daemon can go on.
///
/// # Errors
/// Where there is no such place.
pub async fn prepare_disk(state: &Path) -> Result<(), ConnectError> {
    // Before a part of it is set apart. A disk that stays as it is holds nothing up.
    if let Err(error) = grow::fill(state).await {
        tracing::warn!("{}", crate::core::chain(&error));
    }
    scratch::open(state).await?;
    Ok(volume::Volumes::new(state, &boot_id()?).prepare_scratch().await?)
}

impl Host {
    /// Connects to systemd, makes the daemon's directories and clears away what earlier boots left.
    ///
    /// # Errors
    /// Where there is no systemd, or a directory can't be made.
    pub async fn connect(paths: Paths, store: Arc<Store>) -> Result<Self, ConnectError> {
        let prepare = |path: PathBuf| move |source| ConnectError::Prepare { path, source };
        // Containers' processes pass through on the way to their own part: they may enter, not look.
        let volumes = paths.mounts.join("volumes");
        for dir in [&paths.run, &paths.mounts, &paths.instances(), &paths.debug(), &volumes] {
            volume::make_dir(dir, 0o711).map_err(prepare(dir.clone()))?;
        }
        for dir in [paths.networks(), paths.names(), paths.runtime(), paths.consoles()] {
            volume::make_dir(&dir, 0o700).map_err(prepare(dir.clone()))?;
        }
        let boot = boot_id()?;
        let volumes = volume::Volumes::new(&paths.state, &boot);
        volumes.prepare().await?;
        exec::end_orphans();
        let mounts = Mounts::new(&paths.images())?;
        debug::clear(&paths.debug(), &mounts);
        let bus = bus::Bus::connect().await?;
        let ports = ports::Ports::new(paths.firewall());
        let program = std::env::current_exe().map_err(prepare("/proc/self/exe".into()))?;
        let kills = kills::Watch::new().map_err(prepare("the watch over control groups".into()))?;
        let (ids, names) = (idrange::Ids::new(paths.ids()), names::Names::new(paths.names()));
        let settings = settings::Settings::new(Path::new("/"), paths.settings());
        let mounted = parts::Mounted::new().map_err(prepare("/proc/self/mountinfo".into()))?;
        let (mounted, bridges) = (Arc::new(mounted), Default::default());
        Ok(Self {
            paths,
            store,
            mounts,
            bus,
            volumes,
            ports,
            kills,
            ids,
            settings,
            names,
            records: known::Records::default(),
            mounted,
            bridges,
            boot,
            program,
        })
    }

    /// The id of this boot (proc_sys_kernel(5), `random/boot_id`).
    pub fn boot(&self) -> &str {
        &self.boot
    }

    /// The directory in memory that the daemon writes to.
    pub fn run_directory(&self) -> &Path {
        &self.paths.run
    }

    /// What is wrong with a manifest where this operating system does not have the program to make its containers.
    pub fn missing_runtime(&self, manifest: &Manifest) -> Option<String> {
        runtime::missing(manifest, &runtime::there())
    }

    /// Has the machine start again, orderly. It goes on for a while after this returned.
    ///
    /// # Errors
    /// Where systemd does not take it.
    pub async fn restart_machine(&self) -> Result<(), BusError> {
        self.bus.reboot().await
    }

    /// Runs a command inside a container; it is not empty. The stream ends with how it ended. When the stream is
    /// dropped before, the command and all that it started get `SIGHUP`, and are killed a little later.
    ///
    /// # Errors
    /// Where it can't be started.
    pub async fn exec(
        &self,
        instance: &Instance,
        command: &[String],
    ) -> Result<impl Stream<Item = bennu_api::ExecOutput> + Send + 'static + use<>, ExecError> {
        let (running, _no_input) =
            self.talk(instance, Talk { command, input: false, terminal: None }).await?;
        Ok(exec::told(running))
    }

    /// Runs a command inside a container that is talked with.
    ///
    /// # Errors
    /// Where it can't be started.
    pub async fn talk(&self, instance: &Instance, talk: Talk<'_>) -> Result<(Running, Input), ExecError> {
        let dir = self.paths.instance(instance);
        let record = record::read::<record::Record>(&dir.join("record.json"));
        let record = record.map_err(|source| ExecError::Spec { instance: instance.clone(), source })?;
        let runtime = record.map(|record| record.runtime).unwrap_or_default();
        let (runtime_state, consoles) = (self.paths.runtime_of(instance), self.paths.consoles());
        let group = runtime::group(runtime, &unit::group(instance));
        let places = exec::Places {
            dir: &dir,
            runtime,
            runtime_state: &runtime_state,
            consoles: &consoles,
            group: &group,
        };
        exec::talk(places, instance, talk).await
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

    /// Where it is remembered what a receiver of logs has got.
    pub fn forward_place(&self, receiver: &Name) -> PathBuf {
        self.paths.state.join("forward").join(format!("{receiver}.json"))
    }

    /// All that containers and the daemon write, from somewhere on.
    ///
    /// # Errors
    /// Where the journal can't be read.
    pub fn follow_logs(
        &self,
        from: &LogsFrom,
    ) -> Result<impl Stream<Item = Entry> + Send + 'static + use<>, LogsError> {
        logs::follow(from)
    }
}
