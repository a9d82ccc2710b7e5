//! The manifest as the rest of the system sees it: checked once, unable to hold nonsense.
//!
//! Values of these types are made by [`crate::check()`] alone. Every name, bound and cross-reference has been
//! checked there; later stages rely on it and never check again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::str::FromStr;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// One signed document: what a host is to be, whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// Who it is for, which one it is, and how long it may be applied.
    pub header: Header,
    /// How to reach registries that need more than HTTPS and a public certificate, by `HOST[:PORT]`.
    pub registries: BTreeMap<String, Registry>,
    /// Networks by name. Every container that names none joins `default`, which always exists here.
    pub networks: BTreeMap<Name, Network>,
    /// Volumes by name.
    pub volumes: BTreeMap<Name, Volume>,
    /// Containers by name.
    pub containers: BTreeMap<Name, Container>,
}

/// The signed header.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Header {
    /// The stream of manifests that this one belongs to; `serial` grows within it.
    pub name: Name,
    /// Strictly growing within `name`; the same serial with other bytes is refused.
    pub serial: u64,
    /// When its author says it was signed; a lower bound for the host's idea of the time.
    pub signed_at: Timestamp,
    /// From this moment it is never newly applied. What runs goes on running.
    pub expires: Timestamp,
    /// The hosts it is for.
    pub audience: Audience,
    /// Accept that this manifest declares no container at all where the host runs some.
    pub allow_empty: bool,
}

/// The hosts that a manifest is for; all conditions must hold.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Audience {
    /// The architecture, in the words of OCI (`amd64`, `arm64`); `None` is any.
    pub arch: Option<String>,
    /// Labels that the host must carry with these values.
    pub labels: BTreeMap<String, String>,
}

/// How to reach one registry.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Registry {
    /// Speak HTTP without TLS. What is pulled is still checked against the signed digest.
    pub plain_http: bool,
}

/// A bridge network on the host, with names between its containers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Network {
    /// The IPv4 subnet; `None` lets the host choose one that is free.
    pub subnet: Option<Subnet>,
    /// Whether containers on it are kept from reaching anything beyond it.
    pub internal: bool,
}

/// An IPv4 subnet in CIDR notation with a clear host part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// The network address.
    pub address: Ipv4Addr,
    /// The prefix length in bits, 8 to 30.
    pub prefix: u8,
}

/// A named place for data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Volume {
    /// How long what is written there lives.
    pub life: VolumeLife,
    /// Says that leaving this volume out of a later manifest, or this entry itself, may destroy its data.
    pub destroy: bool,
}

/// How long a volume lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum VolumeLife {
    /// Survives everything but its own removal.
    Keep,
    /// Fresh at every boot.
    Scratch,
}

/// One container, wholly resolved.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Container {
    /// The image, pinned by digest.
    pub image: ImageRef,
    /// Replaces the image's entry point.
    pub entrypoint: Option<Vec<String>>,
    /// Replaces the image's command.
    pub command: Option<Vec<String>>,
    /// Added to the image's environment, and stronger than it.
    pub environment: BTreeMap<String, String>,
    /// `USER[:GROUP]`, names or numbers; replaces the image's.
    pub user: Option<String>,
    /// Replaces the image's working directory; absolute and without `..`.
    pub working_directory: Option<String>,
    /// What is published on the host.
    pub ports: Vec<Port>,
    /// Networks it joins, at least one.
    pub networks: Vec<Name>,
    /// Further names it answers to on its networks.
    pub aliases: Vec<Name>,
    /// Volumes and where they appear.
    pub volumes: Vec<VolumeMount>,
    /// Memory-backed places.
    pub tmpfs: Vec<Tmpfs>,
    /// Whether the root file system is read-only; the default.
    pub read_only_root: bool,
    /// Linux capabilities beyond the small default set, as `NET_ADMIN` (without `CAP_`).
    pub add_capabilities: Vec<String>,
    /// Limits that the kernel keeps.
    pub limits: Limits,
    /// When it is started again after it ended.
    pub restart: Restart,
    /// Containers that are started before this one and stopped after it.
    pub depends_on: Vec<Name>,
    /// How it is asked to stop; a signal name as `SIGTERM`. `None`: the image's, else `SIGTERM`.
    pub stop_signal: Option<String>,
    /// How long it has to stop before it is killed, in milliseconds.
    pub stop_timeout_ms: u64,
}

/// A published port.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Port {
    /// The host's address; `None` is all IPv4 addresses.
    pub address: Option<IpAddr>,
    /// The port on the host, 1 to 65535.
    pub host: u16,
    /// The port in the container, 1 to 65535.
    pub container: u16,
    /// The transport.
    pub protocol: Protocol,
}

/// A transport protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// A volume and where it appears in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeMount {
    /// The declared volume.
    pub volume: Name,
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A memory-backed file system in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// The most it may hold, in bytes.
    pub size: u64,
}

/// Limits of one container; `None` is no limit of its own.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Limits {
    /// Bytes of memory.
    pub memory: Option<u64>,
    /// Thousandths of one CPU (1500 is one and a half).
    pub cpu_millis: Option<u64>,
    /// Processes and threads.
    pub pids: Option<u64>,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whenever it ends.
    #[default]
    Always,
    /// When it ends with a code other than 0 or by a signal.
    OnFailure,
    /// Never.
    No,
}

/// A name of a container, volume, network or stream: 1 to 40 of `a-z`, `0-9`, `-`, beginning with a letter and
/// not ending with `-` (a DNS label of RFC 1123, section 2.1, kept short so that unit and interface names fit).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(String);

/// A string that is no [`Name`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a name is 1 to 40 of a-z, 0-9 and '-', begins with a letter and does not end with '-'")]
pub struct NotAName;

impl Name {
    /// The longest name, in bytes.
    pub const MAX: usize = 40;

    /// The name as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Name {
    type Err = NotAName;

    fn from_str(text: &str) -> Result<Self, NotAName> {
        let bytes = text.as_bytes();
        let allowed = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-';
        let sound = (1..=Self::MAX).contains(&bytes.len())
            && bytes.iter().all(allowed)
            && bytes[0].is_ascii_lowercase()
            && bytes[bytes.len() - 1] != b'-';
        if sound { Ok(Self(text.to_owned())) } else { Err(NotAName) }
    }
}

/// A SHA-256 digest, written `sha256:` and 64 lower-case hexadecimal digits (OCI image specification, descriptor.md,
/// "Digests"; other algorithms are not taken).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// A string that is no [`Digest`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a digest is 'sha256:' and 64 hexadecimal digits in lower case")]
pub struct NotADigest;

impl Digest {
    /// A digest from its 32 bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 hexadecimal digits alone.
    pub fn hex(&self) -> String {
        self.0.iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The first 12 hexadecimal digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }
}

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let hex = text.strip_prefix("sha256:").ok_or(NotADigest)?.as_bytes();
        if hex.len() != 64 {
            return Err(NotADigest);
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(hex.chunks_exact(2)) {
            *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
        }
        Ok(Self(bytes))
    }
}

fn nibble(digit: u8) -> Result<u8, NotADigest> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(NotADigest),
    }
}

/// `HOST[:PORT]/NAME[:TAG]@DIGEST`: an image, pinned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ImageRef {
    /// `HOST[:PORT]` of the registry.
    pub registry: String,
    /// The repository in it, as `library/nginx`.
    pub repository: String,
    /// The tag it had when it was pinned; for people only.
    pub tag: Option<String>,
    /// What is pulled.
    pub digest: Digest,
}

impl Subnet {
    /// The first address after the last one of the subnet, as a number; it may lie beyond 32 bits.
    fn end(&self) -> u64 {
        u64::from(self.address.to_bits()) + (1 << (32 - self.prefix))
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        u64::from(self.address.to_bits()) < other.end() && u64::from(other.address.to_bits()) < self.end()
    }
}

/// A string that is no [`Subnet`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subnet is an IPv4 network address, '/' and a prefix length of 8 to 30, as 10.20.0.0/24")]
pub struct NotASubnet;

impl FromStr for Subnet {
    type Err = NotASubnet;

    fn from_str(text: &str) -> Result<Self, NotASubnet> {
        let (address, prefix) = text.split_once('/').ok_or(NotASubnet)?;
        let address: Ipv4Addr = address.parse().map_err(|_| NotASubnet)?;
        let plain = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with('0');
        let prefix = prefix.parse().ok().filter(|bits| plain && (8..=30).contains(bits)).ok_or(NotASubnet)?;
        let host_part = u32::MAX >> prefix;
        if address.to_bits() & host_part != 0 {
            return Err(NotASubnet);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Subnet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Display for ImageRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        write!(f, "@{}", self.digest)
    }
}

/// Types whose one text form serves people, TOML and JSON alike.
macro_rules! serde_as_text {
    ($($type:ty),*) => {$(
        impl Serialize for $type {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'_, str>>::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    )*};
}
pub(crate) use serde_as_text;

serde_as_text!(Name, Digest, ImageRef, Subnet);
