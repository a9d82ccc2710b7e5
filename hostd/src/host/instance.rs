//! Making an instance of a container and starting it; stopping one and removing all that it left.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::time::Duration;

use bennu_image_store::Image;
use bennu_manifests::model::{self, Container, Digest, Manifest, Name, NetworkKind, Runtime};
use bennu_planner::{Instance, SeenNetwork};
use futures_util::StreamExt as _;
use futures_util::future::{Either, select};

use super::bus::{BusError, Job};
use super::describe::Described;
use super::handover::Awaited;
use super::idrange::IdsError;
use super::net::JoinError;
use super::record::{self, Membership, Record};
use super::rootfs::{self, RootfsError};
use super::spec::{self, SpecError};
use super::user::NoUser;
use super::{Host, Paths, kills, logs, namespaces, network, private, runtime, unit, volume};
use crate::contents::{Contents, ContentsError};

/// How long systemd has beyond the time that a container has to start or stop.
const MARGIN: Duration = Duration::from_secs(30);

/// How long an instance without a readable record has to stop; longer than any that has one.
const STOP_UNKNOWN: Duration = Duration::from_secs(600);

/// How many of the latest log lines a failure to start tells.
const LAST_LINES: u32 = 5;

/// How many lines of the daemon are remembered of a generation that was taken back.
const EVIDENCE: u32 = 20;

/// What an instance is made from.
#[derive(Debug, Clone, Copy)]
pub struct StartInstance<'a> {
    /// Its name.
    pub instance: &'a Instance,
    /// What is declared.
    pub container: &'a Container,
    /// Its image, which is in the store.
    pub image: &'a Image,
    /// The fingerprint of what it is made from.
    pub fingerprint: Digest,
    /// The program that makes it.
    pub runtime: Runtime,
    /// Its address on each of its networks.
    pub addresses: &'a BTreeMap<Name, Ipv4Addr>,
    /// Its IPv6 address on each of its networks that has such ones.
    pub addresses6: &'a BTreeMap<Name, Ipv6Addr>,
    /// The networks that are set up.
    pub networks: &'a BTreeMap<Name, SeenNetwork>,
    /// What its networks are: `host` or `none` where it is on such a one, which is its only one then.
    pub network_kind: NetworkKind,
    /// The declared volumes.
    pub volumes: &'a BTreeMap<Name, model::Volume>,
    /// Its configs and secrets.
    pub contents: &'a Contents,
    /// What the manifest says of them: [`bennu_planner::contents`].
    pub contents_digest: Digest,
    /// How long it may run, where that has a bound.
    pub deadline: Option<Duration>,
}

/// Why an instance was not started. What had been made of it is removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// What an earlier attempt left can't be removed.
    #[error("clear away what is left of {instance}")]
    Leftovers {
        /// The instance.
        instance: Instance,
        /// What went wrong.
        source: Box<StopError>,
    },
    /// It has no address on one of its networks, or the network is not there.
    #[error("join {instance} to network {network}: it is not set up")]
    NoNetwork {
        /// The instance.
        instance: Instance,
        /// The network.
        network: Name,
    },
    /// It does not get ids of its own.
    #[error(transparent)]
    Ids(#[from] IdsError),
    /// The file system or the kernel said no.
    #[error("{what} for {instance}")]
    Io {
        /// What was being made.
        what: &'static str,
        /// The instance.
        instance: Instance,
        /// What it said.
        source: io::Error,
    },
    /// It can't be joined to its networks.
    #[error("join {instance} to its networks")]
    Network {
        /// The instance.
        instance: Instance,
        /// What went wrong.
        source: JoinError,
    },
    /// Its image can't be mounted.
    #[error("mount the image of {instance}")]
    Rootfs {
        /// The instance.
        instance: Instance,
        /// What went wrong.
        source: RootfsError,
    },
    /// There is no such user in it.
    #[error(transparent)]
    User(#[from] NoUser),
    /// It does not get its configs and secrets.
    #[error(transparent)]
    Contents(#[from] ContentsError),
    /// It can't be described to the runtime.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// Its unit does not start.
    #[error("start {instance}{}", said.iter().map(|line| format!("\n  {line}")).collect::<String>())]
    Unit {
        /// The instance.
        instance: Instance,
        /// The last lines that it wrote.
        said: Vec<String>,
        /// What systemd said.
        source: BusError,
    },
}

/// Why an instance was not stopped, or not all that it left was removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StopError {
    /// Its unit does not stop.
    #[error("stop {instance}")]
    Unit {
        /// The instance.
        instance: Instance,
        /// What systemd said.
        source: BusError,
    },
    /// It is on its networks still, or found by its names.
    #[error("take {instance} off its networks")]
    Network {
        /// The instance.
        instance: Instance,
        /// What went wrong.
        source: JoinError,
    },
    /// The file system or the kernel said no.
    #[error("remove what is left of {instance}")]
    Io {
        /// The instance.
        instance: Instance,
        /// What it said.
        source: io::Error,
    },
}

/// Why an instance was not told of its new configs and secrets.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RefreshError {
    /// They can't be written.
    #[error("write the configs and secrets of {instance}")]
    Io {
        /// The instance.
        instance: Instance,
        /// What went wrong.
        source: io::Error,
    },
    /// There is no such signal.
    #[error("send signal {signal}: there is none of that name")]
    Signal {
        /// Its name.
        signal: String,
    },
    /// systemd does not send it.
    #[error(transparent)]
    Unit(#[from] BusError),
}

impl Host {
    /// Makes an instance of a container and starts it. When this returns its program runs; whether it goes on running
    /// is another question.
    ///
    /// # Errors
    /// Where any part of it can't be made. What had been made is removed then.
    pub async fn start(&self, start: &StartInstance<'_>) -> Result<(), StartError> {
        let instance = start.instance;
        let leftovers =
            |source| StartError::Leftovers { instance: instance.clone(), source: Box::new(source) };
        if self.paths.instance(instance).exists() {
            self.stop(instance).await.map_err(leftovers)?;
        }
        let is_taken = Cell::new(false);
        let started = self.start_anew(start, &is_taken).await;
        if !is_taken.get() {
            return started;
        }
        // There is a unit of which nothing else was left. What has been made meanwhile goes with it.
        self.stop(instance).await.map_err(leftovers)?;
        self.start_anew(start, &is_taken).await
    }

    /// Starts an instance of which nothing is there; says whether there is a unit of its name.
    async fn start_anew(&self, start: &StartInstance<'_>, is_taken: &Cell<bool>) -> Result<(), StartError> {
        let instance = start.instance;
        let record = self.record(start)?;
        let mut prepared = self.prepare(start, &record);
        let started = match &mut prepared {
            Ok(config) => self.make(start, &record, config, is_taken).await,
            Err(_) => Ok(()),
        };
        if (prepared.is_err() || started.is_err())
            && let Err(error) = self.stop(instance).await
        {
            tracing::warn!("{error}");
        }
        // Closed only now: a runtime that waits at it would complain of nothing else than that.
        prepared.and(started)
    }

    /// Makes the places that the parts of an instance are made in.
    fn prepare(&self, start: &StartInstance<'_>, record: &Record) -> Result<Awaited, StartError> {
        let instance = start.instance;
        let io = |what| move |source| StartError::Io { what, instance: instance.clone(), source };
        let dir = self.paths.instance(instance);
        volume::make_dir(&dir, 0o711).map_err(io("make a directory"))?;
        // Before anything else is made: from here on the instance is seen, and cleared away if this goes no further.
        record::write(&dir.join("record.json"), record).map_err(io("write a record"))?;
        for (name, mode) in [("bundle", 0o700), ("ns", 0o700), ("files", 0o711)] {
            volume::make_dir(&dir.join(name), mode).map_err(io("make a directory"))?;
        }
        runtime::share_filters(start.runtime, &self.paths.runtime(), &self.paths.runtime_of(instance))
            .map_err(io("share filters of system calls"))?;
        Awaited::new(&dir.join("bundle")).map_err(io("have the runtime wait"))
    }

    /// Makes the parts of an instance while systemd has its runtime run.
    async fn make(
        &self,
        start: &StartInstance<'_>,
        record: &Record,
        config: &mut Awaited,
        is_taken: &Cell<bool>,
    ) -> Result<(), StartError> {
        let io = |what| move |source| StartError::Io { what, instance: start.instance.clone(), source };
        let unit = async {
            let begun = self.begin_unit(start).await;
            is_taken.set(begun.as_ref().is_err_and(BusError::is_taken));
            let failed =
                |source| StartError::Unit { instance: start.instance.clone(), said: Vec::new(), source };
            let unit = begun.map_err(failed)?;
            self.has_started(start, unit).await
        };
        let (host_start, own_network) = (record.host_start, record.network_kind != NetworkKind::Host);
        let namespaces = blocking(move || namespaces::create(host_start, own_network));
        let made = async {
            let namespaces = namespaces.await.map_err(io("make namespaces"))?;
            let described = async {
                let kept = namespaces.keep(&self.paths.instance(start.instance).join("ns"));
                kept.map_err(io("keep namespaces"))?;
                self.describe_tree(start, record).await
            };
            // Both come to their end, whatever becomes of the other: what is half done could not be cleared away.
            let (joined, described) = tokio::join!(self.join_by(start, record, &namespaces), described);
            joined?;
            config.give(&described?).map_err(io("hand over the configuration"))
        };
        match select(pin!(made), pin!(unit)).await {
            // What systemd would say of it is only a consequence.
            Either::Left((made, unit)) => match made {
                Ok(()) => unit.await,
                failed => failed,
            },
            // It comes to its end all the same: what is half done could not be cleared away.
            Either::Right((unit, made)) => made.await.and(unit),
        }
    }

    async fn join_by(
        &self,
        start: &StartInstance<'_>,
        record: &Record,
        namespaces: &namespaces::Made,
    ) -> Result<(), StartError> {
        let Some(namespace) = namespaces.network() else { return Ok(()) };
        let failed = |source| StartError::Network { instance: start.instance.clone(), source };
        self.join(record, namespace).await.map_err(failed)
    }

    /// Mounts the tree of an instance, and says where it is described what is to run in it.
    async fn describe_tree(&self, start: &StartInstance<'_>, record: &Record) -> Result<PathBuf, StartError> {
        let StartInstance { instance, container, .. } = *start;
        let io = |what| move |source| StartError::Io { what, instance: instance.clone(), source };
        let dir = self.paths.instance(instance);
        let scratch = self.volumes.scratch();
        let upper = (!container.read_only_root).then(|| Paths::upper(&scratch, instance));
        let layers = &start.image.layers;
        let users = record.host_start.map(|_| namespaces::of_users(&dir));
        let mounting = rootfs::Wanted { layers, dir: &dir, upper, users };
        let mounted = rootfs::mount(&self.store, &self.mounts, mounting).await;
        let rootfs = mounted.map_err(|source| StartError::Rootfs { instance: instance.clone(), source })?;
        let resolv_conf = match record.network_kind {
            NetworkKind::None => String::new(),
            kind => {
                let hosts = std::fs::read_to_string("/etc/resolv.conf").map_err(io("read resolv.conf"))?;
                match kind {
                    NetworkKind::Host => hosts,
                    _ => network::resolv_conf(record, container.dns.as_ref(), &hosts),
                }
            }
        };
        write_files(&dir.join("files"), container, record, &resolv_conf).map_err(io("write its files"))?;
        self.describe(start, record, &rootfs, &dir).map_err(|error| match error {
            Described::Io(source) => io("put the parts together")(source),
            Described::User(error) => error.into(),
            Described::Spec(error) => error.into(),
            Described::Contents(error) => error.into(),
        })
    }

    fn record(&self, start: &StartInstance<'_>) -> Result<Record, StartError> {
        let StartInstance { instance, container, .. } = *start;
        let membership = |network: &Name| {
            let missing = || StartError::NoNetwork { instance: instance.clone(), network: network.clone() };
            let spec = start.networks.get(network).ok_or_else(missing)?.clone();
            let address = *start.addresses.get(network).ok_or_else(missing)?;
            let address6 = start.addresses6.get(network).copied();
            Ok(Membership { network: network.clone(), spec, address, address6 })
        };
        // A network without addresses of its own is the only one, and is not joined.
        let bare = matches!(start.network_kind, NetworkKind::Host | NetworkKind::None);
        let networks = container.networks.iter().filter(|_| !bare);
        Ok(Record {
            instance: instance.clone(),
            fingerprint: start.fingerprint,
            image: container.image.clone(),
            runtime: start.runtime,
            networks: networks.map(membership).collect::<Result<_, StartError>>()?,
            network_kind: start.network_kind,
            aliases: container.aliases.clone(),
            dns_servers: container.dns.as_ref().map(|dns| dns.servers.clone()).unwrap_or_default(),
            mac_address: container.mac_address.clone(),
            contents: start.contents_digest,
            host_start: match spec::has_own_users(container) {
                true => self.ids.of([&instance.name])?.first().copied(),
                false => None,
            },
            stop_timeout_ms: container.stop_timeout_ms,
        })
    }

    /// Gives all containers of a manifest their ids, so that this is done and on disk when they start.
    ///
    /// # Errors
    /// [`IdsError`]
    pub fn give_ids(&self, manifest: &Manifest) -> Result<(), IdsError> {
        let own = manifest.programs().filter(|(_, container)| spec::has_own_users(container));
        self.ids.of(own.map(|(name, _)| name)).map(drop)
    }

    /// Has systemd start the unit of an instance.
    async fn begin_unit(&self, start: &StartInstance<'_>) -> Result<Job, BusError> {
        let StartInstance { instance, container, image, .. } = *start;
        let image_stop_signal =
            image.config.config().as_ref().and_then(|config| config.stop_signal().as_deref());
        let properties = unit::properties(&unit::Wanted {
            instance,
            container,
            runtime: start.runtime,
            deadline: start.deadline,
            image_stop_signal,
            dir: &self.paths.instance(instance),
            hostd: &self.program,
            runtime_state: &self.paths.runtime_of(instance),
            state: &self.paths.state,
        });
        self.bus.start(&unit::name(instance), &properties).await
    }

    /// Waits until the unit of an instance has started.
    async fn has_started(&self, start: &StartInstance<'_>, unit: Job) -> Result<(), StartError> {
        let instance = start.instance;
        match unit.ended(unit::START_TIMEOUT + MARGIN).await {
            Ok(()) => Ok(()),
            Err(source) => {
                let said = last_lines(instance).await;
                Err(StartError::Unit { instance: instance.clone(), said, source })
            }
        }
    }

    /// Stops the program of an instance and starts it again.
    ///
    /// # Errors
    /// Where it does not stop or start.
    pub async fn restart(&self, instance: &Instance, container: &Container) -> Result<(), BusError> {
        let time = Duration::from_millis(container.stop_timeout_ms);
        self.bus.restart(&unit::name(instance), time + unit::START_TIMEOUT + MARGIN).await
    }

    /// Writes the configs and secrets of an instance again, and tells it by a signal.
    ///
    /// # Errors
    /// Where they can't be written, or it can't be told. It can be repeated.
    pub async fn refresh(
        &self,
        instance: &Instance,
        container: &Container,
        contents: &Contents,
        digest: Digest,
    ) -> Result<(), RefreshError> {
        let dir = self.paths.instance(instance);
        let io = |source| RefreshError::Io { instance: instance.clone(), source };
        private::refresh(&dir, container, contents).map_err(io)?;
        let signal = unit::signal(&container.on_change)
            .ok_or_else(|| RefreshError::Signal { signal: container.on_change.clone() })?;
        self.bus.signal(&unit::name(instance), signal).await?;
        // Written last: where anything before failed, it is done again.
        let path = dir.join("record.json");
        if let Some(record) = record::read::<Record>(&path).map_err(io)? {
            record::write(&path, &Record { contents: digest, ..record }).map_err(io)?;
        }
        Ok(())
    }

    /// What the daemon wrote last, as evidence of what went wrong.
    pub async fn evidence(&self) -> Vec<String> {
        last_of(logs::LogsOf::Hostd, EVIDENCE, |_| true).await
    }

    /// The last lines that an instance wrote.
    pub async fn last_lines(&self, instance: &Instance) -> Vec<String> {
        last_lines(instance).await
    }

    /// Stops an instance and removes all that it left; with nothing there it does nothing.
    ///
    /// # Errors
    /// Where something does not stop or can't be removed. It can be repeated.
    pub async fn stop(&self, instance: &Instance) -> Result<(), StopError> {
        let dir = self.paths.instance(instance);
        let record = record::read::<Record>(&dir.join("record.json")).unwrap_or_default();
        let time =
            record.as_ref().map_or(STOP_UNKNOWN, |record| Duration::from_millis(record.stop_timeout_ms));
        let unit = |source| StopError::Unit { instance: instance.clone(), source };
        self.bus.stop(&unit::name(instance), time + unit::START_TIMEOUT + MARGIN).await.map_err(unit)?;
        // What the unit wrote down when it ended goes with the directory.
        let kills = kills::of(&dir, instance);
        let network = |source| StopError::Network { instance: instance.clone(), source };
        self.leave(instance, record.as_ref(), dir.join("ns/net")).await.map_err(network)?;
        let upper = Paths::upper(&self.volumes.scratch(), instance);
        let (mounts, volumes) = (self.mounts.clone(), self.paths.volumes(instance));
        // systemd has removed it with the unit, if there was one.
        let known = self.paths.runtime_of(instance);
        let removed = blocking(move || {
            namespaces::unmount_below(&dir)?;
            namespaces::unmount_below(&volumes)?;
            remove_empty(&volumes)?;
            // Its tree is unmounted; the layers that nobody else uses are now, too.
            mounts.unmount_image(&rootfs::path(&dir)).map_err(io::Error::other)?;
            // Its directory last: while that is there, so may the rest be.
            [upper, known, dir].iter().try_for_each(|dir| match std::fs::remove_dir_all(dir) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            })
        });
        removed.await.map_err(|source| StopError::Io { instance: instance.clone(), source })?;
        self.kills.keep(instance, kills);
        Ok(())
    }
}

/// Waits for what a thread of its own does.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}

/// Removes a directory of directories that are empty, or not there. What holds anything is an error: it could be a volume.
fn remove_empty(dir: &Path) -> io::Result<()> {
    let entries = match std::fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        other => other?,
    };
    for entry in entries {
        std::fs::remove_dir(entry?.path())?;
    }
    std::fs::remove_dir(dir)
}

/// Where the host has the rules of all time zones (Debian's `tzdata`).
const ZONES: &str = "/usr/share/zoneinfo";

fn write_files(files: &Path, container: &Container, record: &Record, resolv_conf: &str) -> io::Result<()> {
    let hostname = format!("{}\n", spec::hostname(&record.instance.name, container));
    let hosts = network::hosts(record, container);
    for (name, content) in [("resolv.conf", resolv_conf), ("hosts", &hosts), ("hostname", &hostname)] {
        std::fs::write(files.join(name), content)?;
    }
    let Some(zone) = &container.time_zone else { return Ok(()) };
    let named = |error: io::Error| io::Error::new(error.kind(), format!("time zone {zone}: {error}"));
    std::fs::copy(Path::new(ZONES).join(zone), files.join("localtime")).map(drop).map_err(named)
}

/// The last lines that the instance's unit wrote, the runtime's complaints among them.
async fn last_lines(instance: &Instance) -> Vec<String> {
    last_of(logs::LogsOf::Container(instance.name.clone()), LAST_LINES, |line| {
        line.instance == instance.to_string()
    })
    .await
}

/// The last messages of somebody, of those that count.
async fn last_of(of: logs::LogsOf, lines: u32, counts: impl Fn(&bennu_api::LogLine) -> bool) -> Vec<String> {
    let wanted = logs::LogsWanted { of, lines, follow: false, since: None, until: None, grep: None };
    let Ok(lines) = logs::logs(&wanted) else {
        return Vec::new();
    };
    let own = lines.filter(|line| std::future::ready(counts(line)));
    let said = own.map(|line| line.message).collect();
    tokio::time::timeout(MARGIN, said).await.unwrap_or_default()
}
