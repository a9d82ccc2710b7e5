//! What is known of an instance between two looks: written before anything of it is made, removed after everything of it
//! is gone. It lies on a memory-backed file system, so it never outlives the boot that it describes.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use bennu_manifests::model::{Digest, ImageRef, Name, NetworkKind, Runtime};
use bennu_planner::{Instance, SeenNetwork};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// The largest record, in bytes; far above what the bounds of a manifest allow.
const MAX: u64 = 1 << 20;

/// One instance.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// Its name.
    pub instance: Instance,
    /// What it was made from.
    pub fingerprint: Digest,
    /// Its image.
    pub image: ImageRef,
    /// The program that made it.
    #[serde(default)]
    pub runtime: Runtime,
    /// The networks that it joined, in the order of its interfaces.
    pub networks: Vec<Membership>,
    /// What they are; `host` or `none` where it joined none for that reason.
    #[serde(default)]
    pub network_kind: NetworkKind,
    /// Further names that it answers to on its networks.
    pub aliases: Vec<Name>,
    /// Whom the servers of names of its networks ask what they do not know; none where that is as for the host.
    #[serde(default)]
    pub dns_servers: Vec<IpAddr>,
    /// The fixed hardware address of its first interface.
    #[serde(default)]
    pub mac_address: Option<String>,
    /// The configs and secrets that it was given last.
    pub contents: Digest,
    /// The first id of its range on the host; `None` where it has the host's users.
    pub host_start: Option<u32>,
    /// How long it has to stop, in milliseconds.
    pub stop_timeout_ms: u64,
}

/// One network that an instance joined.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Membership {
    /// The network.
    pub network: Name,
    /// What the network was then.
    pub spec: SeenNetwork,
    /// The instance's address on it.
    pub address: Ipv4Addr,
    /// Its IPv6 address on it, where the network has such ones.
    #[serde(default)]
    pub address6: Option<Ipv6Addr>,
}

impl Membership {
    /// Its addresses of both kinds.
    pub(super) fn addresses(&self) -> impl Iterator<Item = IpAddr> + use<> {
        [Some(IpAddr::V4(self.address)), self.address6.map(IpAddr::V6)].into_iter().flatten()
    }
}

/// Writes a value for this boot: the file is whole or not there at all, also when the writer is killed. Nothing is
/// synced, since a memory-backed file system has nothing to sync to.
///
/// # Errors
/// Whatever the file system says.
pub(super) fn write<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("new");
    std::fs::write(&temporary, serde_json::to_vec(value)?)?;
    std::fs::rename(&temporary, path)
}

/// Reads a value back; `None` where there is none.
///
/// # Errors
/// Where it can't be read, is larger than a record can be, or is none.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> io::Result<Option<T>> {
    use io::Read as _;
    let file = match std::fs::File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let mut bytes = Vec::new();
    file.take(MAX + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "it is larger than a record can be"));
    }
    Ok(Some(serde_json::from_slice(&bytes)?))
}

#[cfg(test)]
pub(super) mod tests {
    use bennu_manifests::model::Network;

    use super::*;

    pub(in crate::host) fn record() -> Record {
        let membership = |network: &str, subnet: &str, internal, address: &str| Membership {
            network: network.parse().unwrap(),
            spec: SeenNetwork::of(
                &Network {
                    internal,
                    subnet6: internal.then(|| "fd00:21::/64".parse().unwrap()),
                    ..Network::default()
                },
                subnet.parse().unwrap(),
            ),
            address: address.parse().unwrap(),
            address6: internal.then(|| "fd00:21::2".parse().unwrap()),
        };
        Record {
            instance: "web-3".parse().unwrap(),
            fingerprint: Digest::from_bytes([7; 32]),
            image: format!("registry.example/web:1@sha256:{}", "ab".repeat(32)).parse().unwrap(),
            networks: vec![
                membership("default", "10.20.0.0/24", false, "10.20.0.2"),
                membership("back", "10.21.0.0/24", true, "10.21.0.2"),
            ],
            runtime: Runtime::Crun,
            network_kind: NetworkKind::Bridge,
            aliases: vec!["www".parse().unwrap()],
            contents: Digest::from_bytes([8; 32]),
            dns_servers: Vec::new(),
            mac_address: None,
            host_start: Some(1 << 20),
            stop_timeout_ms: 10_000,
        }
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_its_absence_is_no_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        assert_eq!(read::<Record>(&path).unwrap(), None);
        write(&path, &record()).unwrap();
        assert_eq!(read(&path).unwrap(), Some(record()));
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn what_is_too_large_or_no_record_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("record.json");
        std::fs::write(&path, b"{}").unwrap();
        assert!(read::<Record>(&path).is_err());
        std::fs::write(&path, vec![b' '; MAX as usize + 1]).unwrap();
        assert_eq!(read::<Record>(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
