//! Networks: records of what was set up, and `netavark` for the interfaces.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_manifests::model::{Name, NetworkKind};
use bennu_planner::SeenNetwork;
use tokio::process::Command;

use super::command::{CommandError, run};
use super::network::{self, Answer};
use super::ports::PublishError;
use super::record::{self, Record};
use super::{Host, Paths};

/// Debian installs both where podman looks for them.
const NETAVARK: &str = "/usr/lib/podman/netavark";
const AARDVARK: &str = "/usr/lib/podman/aardvark-dns";

/// How long netavark has.
const DEADLINE: Duration = Duration::from_secs(120);

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
        source: CommandError,
    },
    /// What is left of its bridge can't be removed.
    #[error("remove the bridge of network {network}")]
    Bridge {
        /// The network.
        network: Name,
        /// What went wrong.
        source: CommandError,
    },
}

impl Host {
    /// Sets a network up; one that is there becomes what is asked for.
    ///
    /// # Errors
    /// Where it can't be written down, or the chains can't be made.
    pub async fn create_network(&self, network: &Name, spec: &SeenNetwork) -> Result<(), NetworkError> {
        let chains = |source| NetworkError::Chains { network: network.clone(), source };
        self.ports.prepare().await.map_err(chains)?;
        if let (Some(parent), Some(vlan)) = (&spec.parent, spec.vlan) {
            self.create_vlan(network, parent, vlan).await?;
        }
        // A bridge is made when the first container joins.
        let failed = |source| NetworkError::Record { network: network.clone(), source };
        record::write(&self.paths.network(network), spec).map_err(failed)
    }

    /// Makes the interface of a VLAN; one that is there stays.
    async fn create_vlan(&self, network: &Name, parent: &str, vlan: u64) -> Result<(), NetworkError> {
        let interface = network::interface(network);
        if interface_exists(&interface) {
            return Ok(());
        }
        let failed =
            |source| NetworkError::Vlan { network: network.clone(), parent: parent.to_owned(), source };
        let mut add = Command::new("ip");
        add.args([
            "link",
            "add",
            "link",
            parent,
            "name",
            &interface,
            "type",
            "vlan",
            "id",
            &vlan.to_string(),
        ]);
        run(add, b"", DEADLINE).await.map_err(failed)?;
        let mut up = Command::new("ip");
        up.args(["link", "set", "dev", &interface, "up"]);
        run(up, b"", DEADLINE).await.map_err(failed).map(drop)
    }

    /// Takes a network down that no container is on any more; one that is not there is no error.
    ///
    /// # Errors
    /// Where something of it can't be removed.
    pub async fn remove_network(&self, network: &Name) -> Result<(), NetworkError> {
        let interface = network::interface(network);
        if interface_exists(&interface) {
            let mut command = Command::new("ip");
            command.args(["link", "delete", "dev", &interface]);
            let failed = |source| NetworkError::Bridge { network: network.clone(), source };
            run(command, b"", DEADLINE).await.map_err(failed)?;
        }
        match std::fs::remove_file(self.paths.network(network)) {
            Err(source) if source.kind() != io::ErrorKind::NotFound => {
                Err(NetworkError::Record { network: network.clone(), source })
            }
            _ => Ok(()),
        }
    }

    /// The networks that are set up.
    pub(super) fn networks(&self) -> io::Result<BTreeMap<Name, SeenNetwork>> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(self.paths.networks())? {
            let path = entry?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.and_then(|name| name.parse().ok()) else { continue };
            // A record that is none counts for none, so the network is set up anew.
            found.extend(record::read(&path).unwrap_or_default().map(|spec| (name, spec)));
        }
        Ok(found)
    }
}

/// Joins an instance to its networks.
pub(super) async fn join(paths: &Paths, record: &Record, namespace: &Path) -> Result<Answer, JoinError> {
    if record.networks.is_empty() {
        return Ok(Answer::default());
    }
    let output = netavark(paths, "setup", record, namespace).await?;
    let answer = serde_json::from_slice(&output)?;
    let bridges = || record.networks.iter().filter(|m| m.spec.kind == NetworkKind::Bridge);
    for membership in bridges().filter(|m| m.spec.isolated) {
        let interface = network::interface(&membership.network);
        isolate(&interface).map_err(|source| JoinError::Isolate { interface, source })?;
    }
    for membership in bridges().filter(|m| !m.spec.internal) {
        // So that the host's own loopback address leads to published ports too; see the chain `raw`.
        let interface = network::interface(&membership.network);
        let knob = PathBuf::from("/proc/sys/net/ipv4/conf").join(&interface).join("route_localnet");
        std::fs::write(knob, "1").map_err(|source| JoinError::Loopback { interface, source })?;
    }
    Ok(answer)
}

/// Keeps the ports of a bridge from each other; what they send to the bridge itself still arrives (bridge(8), "isolated").
fn isolate(bridge: &str) -> io::Result<()> {
    for port in std::fs::read_dir(Path::new("/sys/class/net").join(bridge).join("brif"))? {
        std::fs::write(port?.path().join("isolated"), "1")?;
    }
    Ok(())
}

/// Takes an instance off its networks.
pub(super) async fn leave(paths: &Paths, record: &Record, namespace: &Path) -> Result<(), JoinError> {
    if record.networks.is_empty() {
        return Ok(());
    }
    netavark(paths, "teardown", record, namespace).await.map(drop)
}

/// Why an instance is not on its networks, or is still.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JoinError {
    /// `netavark` did not do it.
    #[error("run netavark")]
    Netavark(#[from] CommandError),
    /// It answered something else than it should.
    #[error("understand what netavark answers")]
    Answer(#[from] serde_json::Error),
    /// Containers on it can't be kept from each other.
    #[error("keep what is on {interface} from each other")]
    Isolate {
        /// The bridge.
        interface: String,
        /// What went wrong.
        source: io::Error,
    },
    /// The host's loopback address can't be made to lead to published ports.
    #[error("let the host's loopback addresses reach {interface}")]
    Loopback {
        /// The bridge.
        interface: String,
        /// What went wrong.
        source: io::Error,
    },
}

async fn netavark(
    paths: &Paths,
    verb: &str,
    record: &Record,
    namespace: &Path,
) -> Result<Vec<u8>, JoinError> {
    let request = serde_json::to_vec(&network::request(record))?;
    let mut command = Command::new(NETAVARK);
    command
        .env("NETAVARK_FW", "nftables")
        .arg("--config")
        .arg(paths.netavark())
        .args(["--rootless", "false", "--aardvark-binary", AARDVARK, verb])
        .arg(namespace);
    Ok(run(command, &request, DEADLINE).await?)
}

fn interface_exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}
