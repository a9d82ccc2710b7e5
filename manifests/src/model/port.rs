//! Published ports.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

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
