//! All about one container.

use std::net::Ipv4Addr;

use bennu_manifests::model::Name;
use serde::{Deserialize, Serialize};

use crate::Container;

/// What is declared of a container, and what came of it. Nothing secret is in it: secrets are told by their names.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Inspected {
    /// The declared name.
    #[cfg_attr(test, schemars(with = "String"))]
    pub name: Name,
    /// What the active manifest declares of it, with all that it leaves out filled in; `None` where it does not declare it
    /// any more.
    pub declared: Option<serde_json::Value>,
    /// Its instances, the oldest first: one where nothing is being replaced, none where it does not run.
    pub instances: Vec<InspectedInstance>,
}

/// One instance of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct InspectedInstance {
    /// What it does and uses, as `ps` tells it: state, health, process, restarts, image, ports, addresses, limits.
    #[serde(flatten)]
    pub container: Container,
    /// Its systemd unit.
    pub unit: String,
    /// Its control group, below `/sys/fs/cgroup`.
    pub cgroup: String,
    /// The first id of its range on the host; `None` where it has the host's users.
    pub first_id: Option<u32>,
    /// Networks that it joined, in the order of its interfaces.
    pub networks: Vec<Joined>,
    /// Names that it answers to on its networks, beside its own.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub aliases: Vec<Name>,
    /// The fingerprint of what it was made from.
    pub fingerprint: String,
    /// The program and its arguments.
    pub arguments: Vec<String>,
    /// Its working directory.
    pub working_directory: String,
    /// The user and the group that its program began as, inside.
    pub user: (u32, u32),
    /// Names of its variables. Values may be secret, and are not told.
    pub variables: Vec<String>,
    /// What its root may do (capabilities(7)).
    pub capabilities: Vec<String>,
    /// Whether its file tree can't be written.
    pub read_only_root: bool,
    /// What is mounted in it, in the order of mounting.
    pub mounts: Vec<Mounted>,
}

/// A network that an instance joined.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Joined {
    /// The network.
    #[cfg_attr(test, schemars(with = "String"))]
    pub network: Name,
    /// Its address there.
    pub address: Ipv4Addr,
}

/// Something that is mounted in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Mounted {
    /// Where it appears.
    pub target: String,
    /// What it is: `volume`, `bind`, or a file system of the kernel's.
    pub kind: String,
    /// The name of the volume, or where it comes from on the host; empty where that says nothing.
    pub source: String,
    /// How it is mounted (OCI runtime specification, `config.md`, "Mounts").
    pub options: Vec<String>,
}
