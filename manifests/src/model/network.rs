//! Networks.

use serde::{Deserialize, Serialize};
use std::net::IpAddr;

use super::{Subnet, Subnet6};
use crate::document::Wrong;
use crate::language::{
    Reader, Words, each, flag, integer, optional, or_empty, otherwise, section_of, table, word,
};
use crate::values::{self, MAX_ENTRIES, address, dns_domain, dns_option, interface_name};

table! {
    /// A network, with names between its containers.
    #[derive(Default)]
    pub struct Network {
        /// What it is. The others than `bridge` need the threshold of the `os` role.
        pub kind: NetworkKind = "kind", crate::language::os(otherwise(word("kind of network", NetworkKind::WORDS), NetworkKind::Bridge, "\"bridge\"")), "\"macvlan\"";
        /// The IPv4 subnet: network address, `/` and a prefix length of 8 to 30. Left out, the host chooses one that is
        /// free.
        pub subnet: Option<Subnet> = "subnet", optional(values::subnet()), "\"10.30.0.0/24\"";
        /// The IPv6 subnet: network address, `/` and a prefix length of 48 to 124. Left out, the network has no IPv6.
        pub subnet6: Option<Subnet6> = "subnet6", optional(values::subnet6()), "\"fd00:20::/64\"";
        /// The router's address, in the subnet of its kind. On a `bridge` the host has it; beside the host it is that of the
        /// router there. Left out, it is the first of the subnet.
        pub gateway: Option<IpAddr> = "gateway", optional(address()), "\"10.30.0.1\"";
        /// Whether containers on it are kept from reaching anything beyond it.
        pub internal: bool = "internal", otherwise(flag(), false, "false"), "true";
        /// Whether containers on it are kept from reaching each other.
        pub isolated: bool = "isolated", otherwise(flag(), false, "false"), "true";
        /// The host's interface that a `macvlan` or `ipvlan` network is on.
        pub parent: Option<String> = "parent", optional(interface_name()), "\"eth0\"";
        /// The VLAN on that interface.
        pub vlan: Option<u64> = "vlan", optional(integer(1..=4094)), "20";
        /// The largest packet, in bytes. Left out, it is that of the way out.
        pub mtu: Option<u64> = "mtu", optional(integer(1280..=65535)), "1450";
    }
}

impl Network {
    /// Whether a machine on it may have an address: it lies in a declared subnet, and is neither the first address of an
    /// IPv4 or IPv6 subnet nor the last one of an IPv4 subnet (RFC 1122, section 3.2.1.3; RFC 4291, section 2.6.1).
    pub(crate) fn may_have(&self, address: IpAddr) -> bool {
        match address {
            IpAddr::V4(address) => self.subnet.is_some_and(|subnet| {
                let last = subnet.address.to_bits() | (u32::MAX >> subnet.prefix);
                subnet.holds(address) && address != subnet.address && address.to_bits() != last
            }),
            IpAddr::V6(address) => {
                self.subnet6.is_some_and(|subnet| subnet.holds(address) && address != subnet.address)
            }
        }
    }

    /// The router's address among those of one kind: what is declared, else the first of the subnet after the network's own.
    pub(crate) fn router(&self, v6: bool) -> Option<IpAddr> {
        let first = match v6 {
            false => self.subnet.map(|subnet| IpAddr::from((subnet.address.to_bits() + 1).to_be_bytes())),
            true => self.subnet6.map(|subnet| IpAddr::from((subnet.address.to_bits() + 1).to_be_bytes())),
        };
        self.gateway.filter(|gateway| gateway.is_ipv6() == v6).or(first)
    }
}

/// What a network is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NetworkKind {
    /// A switch on the host; the way out leads through the host.
    #[default]
    Bridge,
    /// Containers are neighbours of the host, each with a hardware address.
    Macvlan,
    /// Containers are neighbours of the host, with its hardware address.
    Ipvlan,
    /// The host's own network, without anything between.
    Host,
    /// Loopback alone.
    None,
}

impl NetworkKind {
    const WORDS: Words<Self> = &[
        ("bridge", Self::Bridge, "a switch on the host; the way out leads through the host"),
        ("macvlan", Self::Macvlan, "containers are neighbours of the host, each with a hardware address"),
        ("ipvlan", Self::Ipvlan, "containers are neighbours of the host, with its hardware address"),
        ("host", Self::Host, "the host's own network, without anything between"),
        ("none", Self::None, "loopback alone"),
    ];
}

table! {
    /// How a container resolves names beside those of its networks.
    #[derive(Default)]
    pub struct Dns {
        /// Servers, by address. Left out, they are the host's.
        pub servers: Vec<IpAddr> = "servers", or_empty(each(address(), 8)), "[\"9.9.9.9\"]";
        /// Domains in which short names are looked for.
        pub search: Vec<String> = "search", or_empty(each(dns_domain(), 16)), "[\"example.org\"]";
        /// Options of the resolver (resolv.conf(5)).
        pub options: Vec<String> = "options", or_empty(each(dns_option(), MAX_ENTRIES)), "[\"ndots:2\"]";
    }
}

pub(crate) fn reader() -> impl Reader<Out = Network> {
    section_of::<Network>("network.NAME", |network| {
        let beside = matches!(network.kind, NetworkKind::Macvlan | NetworkKind::Ipvlan);
        if beside && network.parent.is_none() {
            let wrong = Wrong::new("a network beside the host must say on which interface it is");
            return Err(wrong.hint("add `parent = \"eth0\"`"));
        }
        if !beside && (network.parent.is_some() || network.vlan.is_some()) {
            return Err(Wrong::new("`parent` and `vlan` are for networks of kind `macvlan` and `ipvlan`"));
        }
        if beside && network.subnet.is_none() {
            let wrong =
                Wrong::new("a network beside the host must say which addresses its containers may have");
            return Err(wrong.hint(
                "add `subnet = \"…\"`: addresses of the parent's own network that nobody else gives out",
            ));
        }
        let bare = matches!(network.kind, NetworkKind::Host | NetworkKind::None);
        if bare && (network.subnet.is_some() || network.subnet6.is_some() || network.gateway.is_some()) {
            return Err(Wrong::new("a network of kind `host` or `none` has no addresses of its own"));
        }
        if network.gateway.is_some_and(|gateway| !network.may_have(gateway)) {
            let wrong = Wrong::new("the gateway is no address for a machine in the network's subnet");
            return Err(wrong.hint("name a `subnet` or `subnet6` that holds it"));
        }
        Ok(())
    })
}
