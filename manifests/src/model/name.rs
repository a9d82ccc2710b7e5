//! Names, digests, references and subnets: values with one text form.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

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

/// An IPv4 subnet in CIDR notation with a clear host part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet {
    /// The network address.
    pub address: Ipv4Addr,
    /// The prefix length in bits, 8 to 30.
    pub prefix: u8,
}

impl Subnet {
    /// The first address after the last one of the subnet, as a number; it may lie beyond 32 bits.
    fn end(&self) -> u64 {
        u64::from(self.address.to_bits()) + (1 << (32 - self.prefix))
    }

    /// Whether the address lies in it.
    pub fn holds(&self, address: Ipv4Addr) -> bool {
        let address = u64::from(address.to_bits());
        (u64::from(self.address.to_bits())..self.end()).contains(&address)
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        u64::from(self.address.to_bits()) < other.end() && u64::from(other.address.to_bits()) < self.end()
    }
}

/// An IPv6 subnet in CIDR notation with a clear host part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Subnet6 {
    /// The network address.
    pub address: Ipv6Addr,
    /// The prefix length in bits, 48 to 124.
    pub prefix: u8,
}

impl Subnet6 {
    /// Whether the address lies in it.
    pub fn holds(&self, address: Ipv6Addr) -> bool {
        (address.to_bits() ^ self.address.to_bits()) >> (128 - self.prefix) == 0
    }

    /// Whether the two have an address in common.
    pub fn overlaps(&self, other: &Self) -> bool {
        self.holds(other.address) || other.holds(self.address)
    }
}

/// A string that is no [`Subnet6`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subnet is an IPv6 network address, '/' and a prefix length of 48 to 124, as fd00:20::/64")]
pub struct NotASubnet6;

impl FromStr for Subnet6 {
    type Err = NotASubnet6;

    fn from_str(text: &str) -> Result<Self, NotASubnet6> {
        let (address, prefix) = text.split_once('/').ok_or(NotASubnet6)?;
        let address: Ipv6Addr = address.parse().map_err(|_| NotASubnet6)?;
        let plain = prefix.bytes().all(|b| b.is_ascii_digit()) && !prefix.starts_with('0');
        let prefix = prefix.parse().ok().filter(|bits| plain && (48..=124).contains(bits));
        let prefix: u8 = prefix.ok_or(NotASubnet6)?;
        if address.to_bits() & (u128::MAX >> prefix) != 0 {
            return Err(NotASubnet6);
        }
        Ok(Self { address, prefix })
    }
}

impl fmt::Display for Subnet6 {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.prefix)
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

serde_as_text!(Name, Digest, ImageRef, Subnet, Subnet6);
