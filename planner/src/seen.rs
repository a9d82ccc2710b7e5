//! What a host is, as it was observed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use bennu_manifests::model::{Digest, ImageRef, Name, NotAName, Protocol, Subnet, VolumeLife};
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

/// The name of a container instance: `<name>-<generation>`. What it was made from never changes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Instance {
    /// The declared name.
    pub name: Name,
    /// The generation that made it.
    pub generation: u64,
}

/// A string that names no instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotAnInstance;

impl fmt::Display for NotAnInstance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an instance is '<name>-<generation>'")
    }
}

impl std::error::Error for NotAnInstance {}

impl fmt::Display for Instance {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.name, self.generation)
    }
}

impl FromStr for Instance {
    type Err = NotAnInstance;

    fn from_str(text: &str) -> Result<Self, NotAnInstance> {
        let (name, number) = text.rsplit_once('-').ok_or(NotAnInstance)?;
        let name = name.parse().map_err(|NotAName| NotAnInstance)?;
        let generation = number.parse::<u64>().map_err(|_| NotAnInstance)?;
        // One spelling only: `web-07` and `web-+7` are not instances.
        if generation.to_string() != number {
            return Err(NotAnInstance);
        }
        Ok(Self { name, generation })
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
