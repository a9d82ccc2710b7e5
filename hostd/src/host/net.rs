//! Networks: records of what was set up, and how instances join and leave them.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use bennu_manifests::model::{Name, NetworkKind};
use bennu_planner::{Instance, Published, SeenNetwork};

use super::Host;
use super::links::{self, LinkError};
use super::names::{self, NamesError};
use super::network::{self, Bridge, On};
use super::ports::PublishError;
use super::record::{self, Membership, Record};

/// Why a network was not set up or taken down.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// Its record can't be written or removed.
    #[error("write down network {network}")]
    Record {
        /// The network.
        network: Name,
        /// What went wrong.
        source: io::Error,
    },
    /// The chains that keep containers apart can't be made.
    #[error("keep network {network} apart from others")]
    Chains {
        /// The network.
        network: Name,
        /// What went wrong.
        source: PublishError,
    },
    /// The interface of its VLAN can't be made.
    #[error("make the interface of network {network} on {parent}")]
    Vlan {
        /// The network.
        network: Name,
        /// The interface that it is to be on.
        parent: String,
        /// What went wrong.
        source: LinkError,
    },
    /// Its bridge, or the interface of its VLAN, can't be removed.
    #[error("remove the bridge of network {network}")]
    Bridge {
        /// The network.
        network: Name,
        /// What went wrong.
        source: LinkError,
    },
    /// Names on it are answered still.
    #[error("have nobody answer for names on network {network}")]
    Names {
        /// The network.
        network: Name,
        /// What went wrong.
        source: NamesError,
    },
}

impl Host {
    /// Sets a network up; one that is there becomes what is asked for.
    ///
    /// # Errors
    /// Where it can't be written down, or the chains can't be made.
    pub async fn create_network(&self, network: &Name, spec: &SeenNetwork) -> Result<(), NetworkError> {
        if let (Some(parent), Some(vlan)) = (&spec.parent, spec.vlan) {
            let vlan = u16::try_from(vlan).unwrap_or(u16::MAX);
            let made = links::make_vlan(&network::interface(network), parent, vlan).await;
            made.map_err(|source| NetworkError::Vlan {
                network: network.clone(),
                parent: parent.clone(),
                source,
            })?;
        }
        // A bridge is made when the first container joins.
        let failed = |source| NetworkError::Record { network: network.clone(), source };
        record::write(&self.paths.network(network), spec).map_err(failed)?;
        self.keep_apart(network).await
    }

    /// Makes the rules for the networks that are set up now.
    async fn keep_apart(&self, network: &Name) -> Result<(), NetworkError> {
        let networks =
            self.networks().map_err(|source| NetworkError::Record { network: network.clone(), source })?;
        let chains = |source| NetworkError::Chains { network: network.clone(), source };
        self.ports.prepare(&internal(&networks)).await.map_err(chains)
    }

    /// Takes a network down that no container is on any more; one that is not there is no error.
    ///
    /// # Errors
    /// Where something of it can't be removed.
    pub async fn remove_network(&self, network: &Name) -> Result<(), NetworkError> {
        // First: who answers for names starts on all bridges that it has names of, or not at all.
        let names = |source| NetworkError::Names { network: network.clone(), source };
        self.names.forget(network).await.map_err(names)?;
        let bridge = |source| NetworkError::Bridge { network: network.clone(), source };
        links::delete(&network::interface(network)).await.map_err(bridge)?;
        match std::fs::remove_file(self.paths.network(network)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::Record { network: network.clone(), source })
            }
            _ => self.keep_apart(network).await,
        }
    }

    /// Joins an instance to its networks, by way of its network namespace. A bridge is made by the first that joins it.
    pub(super) async fn join(&self, record: &Record, namespace: PathBuf) -> Result<(), JoinError> {
        let interfaces = network::interfaces(record);
        for interface in &interfaces {
            if let On::Bridge { bridge, .. } = &interface.on {
                self.make_bridge(bridge).await?;
            }
        }
        // Names need no more than the bridges. They are told before the instance is whole: one of which they are missing would be missed by nobody.
        let linked = async {
            links::make(interfaces, namespace).await?;
            for setting in own_settings(record) {
                std::fs::write(&setting, "1").map_err(|source| JoinError::Setting { setting, source })?;
            }
            Ok::<_, JoinError>(())
        };
        let (linked, named) = tokio::join!(linked, self.name(record));
        linked.and(named)
    }

    /// Has an instance be found by its names on its networks.
    async fn name(&self, record: &Record) -> Result<(), JoinError> {
        match self.names.add(record).await? {
            true => Ok(()),
            false => self.serve_names().await,
        }
    }

    async fn make_bridge(&self, bridge: &Bridge) -> Result<(), LinkError> {
        // Whoever finds one must find it whole.
        let _alone = self.bridges.lock().await;
        links::make_bridge(bridge).await
    }

    /// Takes an instance off its networks; it may have joined none, or only some of them, or have no record any more.
    pub(super) async fn leave(
        &self,
        instance: &Instance,
        record: Option<&Record>,
        namespace: PathBuf,
    ) -> Result<(), JoinError> {
        // Nobody is to be sent to what goes away. One is tried whatever becomes of the other.
        let names = self.names.remove(instance).await;
        if let Some(record) = record {
            links::remove(network::interfaces(record), namespace).await?;
        }
        Ok(names?)
    }

    /// Starts what answers for names, unless it runs.
    ///
    /// # Errors
    /// Where it does not start.
    pub async fn serve_names(&self) -> Result<(), JoinError> {
        // It starts on all bridges that it has names of, or not at all; somebody may have removed one that no container is on.
        for (network, spec) in self.networks().map_err(JoinError::Networks)? {
            if spec.kind == NetworkKind::Bridge {
                self.make_bridge(&network::bridge(&network, &spec)).await?;
            }
        }
        Ok(self.names.serve().await?)
    }

    /// Publishes exactly these ports, and makes all rules and all that the kernel needs for them as they should be.
    ///
    /// # Errors
    /// Where `nft` fails, or the kernel says no.
    pub async fn publish(&self, ports: &[Published]) -> Result<(), PublishError> {
        let networks = self.networks().map_err(PublishError::Remember)?;
        for setting in settings(networks.iter()) {
            set(&setting).map_err(PublishError::Setting)?;
        }
        self.ports.publish(&internal(&networks), ports).await
    }

    /// What is published, and whether the rules, or what the kernel needs for them, are not as they were made.
    ///
    /// # Errors
    /// Where they can't be read.
    pub(super) async fn look_at_firewall(
        &self,
        networks: &BTreeMap<Name, SeenNetwork>,
    ) -> Result<(BTreeSet<Published>, bool), PublishError> {
        let lost = settings(networks.iter())
            .iter()
            .any(|setting| std::fs::read_to_string(setting).is_ok_and(|value| value.trim() != "1"));
        let (published, changed) = self.ports.look(&internal(networks)).await?;
        Ok((published, changed || lost))
    }

    /// The networks that are set up. One whose VLAN has no interface any more is not.
    ///
    /// # Errors
    /// Where the records of networks can't be read.
    pub fn networks(&self) -> io::Result<BTreeMap<Name, SeenNetwork>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.paths.networks())? {
            let path = entry?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.and_then(|name| name.parse().ok()) else { continue };
            // A record that is none counts for none, so the network is set up anew.
            let spec: Option<SeenNetwork> = record::read(&path).unwrap_or_default();
            let spec = spec.filter(|spec| spec.vlan.is_none() || links::exists(&network::interface(&name)));
            found.extend(spec.map(|spec| (name, spec)));
        }
        Ok(found)
    }
}

/// The bridges of the networks that lead nowhere but to themselves.
fn internal(networks: &BTreeMap<Name, SeenNetwork>) -> BTreeSet<String> {
    let internal = networks.iter().filter(|(_, spec)| spec.internal && spec.kind == NetworkKind::Bridge);
    internal.map(|(name, _)| network::interface(name)).collect()
}

/// What has to be 1 for the bridges that are there: forwarding between interfaces; on bridges that lead beyond themselves
/// the host's own loopback address leads to published ports too (see the chain `raw`); what is on an isolated one reaches
/// the bridge itself and no other (bridge(8), "isolated").
fn settings<'a>(networks: impl Iterator<Item = (&'a Name, &'a SeenNetwork)>) -> BTreeSet<PathBuf> {
    let mut settings = BTreeSet::new();
    for (name, spec) in networks.filter(|(_, spec)| spec.kind == NetworkKind::Bridge) {
        let ports = Path::new("/sys/class/net").join(network::interface(name)).join("brif");
        let Ok(ports) = std::fs::read_dir(ports) else { continue };
        if spec.isolated {
            settings.extend(ports.flatten().map(|port| port.path().join("isolated")));
        }
        settings.extend(forwarding(name, spec));
    }
    settings
}

/// The same for the interfaces of one instance, which are there and of which nothing may be missing; those of others come and go.
fn own_settings(record: &Record) -> BTreeSet<PathBuf> {
    let of = |membership: &Membership| {
        let Membership { network, spec, .. } = membership;
        let end = Path::new("/sys/class/net").join(network::end(&record.instance, network));
        let isolated = spec.isolated.then(|| end.join("brport/isolated"));
        isolated.into_iter().chain(forwarding(network, spec)).collect::<Vec<_>>()
    };
    names::served(record).flat_map(of).collect()
}

fn forwarding(network: &Name, spec: &SeenNetwork) -> Vec<PathBuf> {
    if spec.internal {
        return Vec::new();
    }
    let v4 = Path::new("/proc/sys/net/ipv4");
    let v6 = spec.subnet6.map(|_| PathBuf::from("/proc/sys/net/ipv6/conf/all/forwarding"));
    let own = v4.join("conf").join(network::interface(network)).join("route_localnet");
    [Some(v4.join("ip_forward")), Some(own), v6].into_iter().flatten().collect()
}

/// Makes it 1. What is one of an interface's may have gone with it: others stop meanwhile.
fn set(setting: &Path) -> io::Result<()> {
    match std::fs::write(setting, "1") {
        Err(error) if matches!(error.raw_os_error(), Some(nix::libc::ENOENT | nix::libc::ENODEV)) => Ok(()),
        other => other,
    }
}

/// Why an instance is not on its networks, or is still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// An interface or a bridge can't be made or removed.
    #[error(transparent)]
    Link(#[from] LinkError),
    /// It is not found by its names, or is still.
    #[error(transparent)]
    Names(#[from] NamesError),
    /// It is not known which networks there are.
    #[error("read which networks are set up")]
    Networks(#[source] io::Error),
    /// What the kernel needs for it can't be set.
    #[error("set {}", setting.display())]
    Setting {
        /// The file of the setting.
        setting: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
}
