//! What a host is, as it was observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use bennu_manifests::model::{
    Digest, ImageRef, Name, Network, NetworkKind, NotAName, Protocol, Subnet, Subnet6, VolumeLife,
};
use serde::{Deserialize, Serialize};

use crate::settings::Setting;

/// What a host is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Images that are wholly in the store.
    pub images: BTreeSet<Digest>,
    /// Container instances of which anything is there.
    pub instances: BTreeMap<Instance, SeenInstance>,
    /// Networks that are set up.
    pub networks: BTreeMap<Name, SeenNetwork>,
    /// Volumes that exist. Of those that survive a boot it is not seen whether they go back with a generation:
    /// [`VolumeLife::Keep`] stands for both.
    pub volumes: BTreeMap<Name, VolumeLife>,
    /// How full volumes are, as far as the file system counts it.
    #[serde(default)]
    pub quotas: BTreeMap<Name, Quota>,
    /// What is published now.
    pub published: BTreeSet<Published>,
    /// What was set of the host itself in this boot, as it is now.
    #[serde(default)]
    pub settings: BTreeMap<Setting, String>,
    /// What nobody declared, and what is not as it was made.
    #[serde(default)]
    pub astray: Astray,
}

impl Seen {
    /// The instances of a container or a job, the oldest first.
    pub(crate) fn instances_of(
        &self,
        name: &Name,
    ) -> impl DoubleEndedIterator<Item = (&Instance, &SeenInstance)> {
        let bound = |generation, replica| Instance { name: name.clone(), generation, replica };
        self.instances.range(bound(0, 0)..=bound(u64::MAX, u32::MAX))
    }

    /// Those of one replica of a container, the oldest first.
    pub(crate) fn instances_in(
        &self,
        (name, replica): (&Name, u32),
    ) -> impl DoubleEndedIterator<Item = (&Instance, &SeenInstance)> {
        self.instances_of(name).filter(move |(instance, _)| instance.replica == replica)
    }
}

/// What somebody changed by hand, or what fell over, beside instances, networks and volumes.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Astray {
    /// Whether the rules that keep networks apart, or what the kernel needs for them, are not as they were made.
    pub firewall: bool,
    /// Whether nobody answers containers that ask for each other's names.
    pub names: bool,
    /// Units, or control groups, in the containers' slice that are of no container.
    pub units: BTreeSet<String>,
}

/// How full a volume is. What its snapshots alone hold counts for neither number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Bytes that it holds, metadata of the file system included; `None` while they are being counted.
    pub used: Option<u64>,
    /// The most bytes that it may hold; `None` is without limit.
    pub limit: Option<u64>,
}

/// One instance, as it was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenInstance {
    /// The fingerprint of what it was made from.
    pub fingerprint: Digest,
    /// Its image.
    pub image: ImageRef,
    /// Its address on each of its networks.
    pub addresses: BTreeMap<Name, Ipv4Addr>,
    /// Its IPv6 address on each of its networks that has such ones.
    #[serde(default)]
    pub addresses6: BTreeMap<Name, Ipv6Addr>,
    /// What it does.
    pub state: State,
    /// Whether a part of it that it was made with (a mount, a namespace, an interface) is not there any more.
    #[serde(default)]
    pub damaged: bool,
    /// What its health check says.
    pub health: Health,
    /// Whether its readiness check has held since it was started.
    pub ready: bool,
    /// Whether it has been there for longer than it may take to become healthy and ready.
    pub overdue: bool,
    /// The [`contents()`](crate::contents()) that it was given last.
    pub contents: Digest,
}

impl SeenInstance {
    /// Whether it has this address on one of its networks.
    pub fn has_address(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.addresses.values().any(|own| *own == address),
            IpAddr::V6(address) => self.addresses6.values().any(|own| *own == address),
        }
    }
}

/// What the health check of an instance says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Health {
    /// It has none.
    #[default]
    Unchecked,
    /// It has not held yet, and has not failed for good.
    Starting,
    /// It holds.
    Healthy,
    /// It failed as often as it may.
    Unhealthy,
}

/// What an instance does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum State {
    /// Being started.
    Starting,
    /// Running.
    Running,
    /// Ended, and waiting to be started again by its restart policy.
    Restarting,
    /// Ended with code 0, and not to be started again by its restart policy.
    Completed,
    /// Ended with another code or a signal, and not to be started again by its restart policy.
    Failed,
    /// Stopped, being stopped, or only partly there.
    Stopped,
}

/// One network, as it was observed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenNetwork {
    /// Its subnet.
    pub subnet: Subnet,
    /// Its IPv6 subnet, where it has one.
    #[serde(default)]
    pub subnet6: Option<Subnet6>,
    /// The router's declared address.
    #[serde(default)]
    pub gateway: Option<IpAddr>,
    /// Whether it leads nowhere but to itself.
    pub internal: bool,
    /// What it is; never one that has no addresses of its own.
    #[serde(default)]
    pub kind: NetworkKind,
    /// Whether containers on it are kept from each other.
    #[serde(default)]
    pub isolated: bool,
    /// The host's interface that it is on, where it is beside the host.
    #[serde(default)]
    pub parent: Option<String>,
    /// The VLAN on that interface.
    #[serde(default)]
    pub vlan: Option<u64>,
    /// The largest packet, in bytes.
    #[serde(default)]
    pub mtu: Option<u64>,
}

impl SeenNetwork {
    /// What a declared network is to be in this subnet.
    pub fn of(network: &Network, subnet: Subnet) -> Self {
        Self {
            subnet,
            subnet6: network.subnet6,
            gateway: network.gateway,
            internal: network.internal,
            kind: network.kind,
            isolated: network.isolated,
            parent: network.parent.clone(),
            vlan: network.vlan,
            mtu: network.mtu,
        }
    }

    /// The router's address: the declared one, else the first of the subnet.
    pub fn router(&self) -> Ipv4Addr {
        match self.gateway {
            Some(IpAddr::V4(declared)) => declared,
            _ => Ipv4Addr::from_bits(self.subnet.address.to_bits() + 1),
        }
    }

    /// The router's IPv6 address, where the network has such ones: the declared one, else the first of the subnet.
    pub fn router6(&self) -> Option<Ipv6Addr> {
        let subnet = self.subnet6?;
        match self.gateway {
            Some(IpAddr::V6(declared)) => Some(declared),
            _ => Some(Ipv6Addr::from_bits(subnet.address.to_bits() + 1)),
        }
    }
}

/// One published port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; `None` is all addresses of the kind that `to` is of.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub port: u16,
    /// The container's address, of the kind that `address` is of.
    pub to: IpAddr,
    /// The container's port.
    pub to_port: u16,
}

/// The name of a container instance: `<name>-<generation>`, and `.<replica>` behind it for all but the first replica. What
/// it was made from never changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The declared name.
    pub name: Name,
    /// The generation that made it.
    pub generation: u64,
    /// Which of the container's replicas it is, from 1.
    pub replica: u32,
}

/// A string that names no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnInstance;

impl fmt::Display for NotAnInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "an instance is '<name>-<generation>', and '.<replica>' behind it for all but the first replica",
        )
    }
}

impl std::error::Error for NotAnInstance {}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.generation)?;
        if self.replica > 1 { write!(f, ".{}", self.replica) } else { Ok(()) }
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        let (name, number) = text.rsplit_once('-').ok_or(NotAnInstance)?;
        let name = name.parse().map_err(|NotAName| NotAnInstance)?;
        let (generation, replica) = number.split_once('.').unwrap_or((number, "1"));
        let generation = generation.parse().map_err(|_| NotAnInstance)?;
        let replica = replica.parse().ok().filter(|replica| *replica > 0).ok_or(NotAnInstance)?;
        let instance = Self { name, generation, replica };
        // One spelling only: `web-07`, `web-+7` and `web-7.1` are not instances.
        if instance.to_string() == text { Ok(instance) } else { Err(NotAnInstance) }
    }
}

impl Serialize for Instance {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Instance {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}
