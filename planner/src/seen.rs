//! What a host is, as it was observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use bennu_manifests::model::{
    Digest, ImageRef, Name, Network, NetworkKind, NotAName, Protocol, Subnet, VolumeLife,
};
use serde::{Deserialize, Serialize};

/// What a host is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// Images that are wholly in the store.
    pub images: BTreeSet<Digest>,
    /// Container instances of which anything is there.
    pub instances: BTreeMap<Instance, SeenInstance>,
    /// Networks that are set up.
    pub networks: BTreeMap<Name, SeenNetwork>,
    /// Volumes that exist.
    pub volumes: BTreeMap<Name, VolumeLife>,
    /// What is published now.
    pub published: BTreeSet<Published>,
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
    /// What it does.
    pub state: State,
    /// What its health check says.
    pub health: Health,
    /// Whether its readiness check has held since it was started.
    pub ready: bool,
    /// Whether it has been there for longer than it may take to become healthy and ready.
    pub overdue: bool,
    /// The [`contents()`](crate::contents()) that it was given last.
    pub contents: Digest,
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
            internal: network.internal,
            kind: network.kind,
            isolated: network.isolated,
            parent: network.parent.clone(),
            vlan: network.vlan,
            mtu: network.mtu,
        }
    }
}

/// One published port and where it leads.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Published {
    /// The transport.
    pub protocol: Protocol,
    /// The host's address; `None` is all IPv4 addresses.
    pub address: Option<IpAddr>,
    /// The host's port.
    pub port: u16,
    /// The container's address.
    pub to: Ipv4Addr,
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
