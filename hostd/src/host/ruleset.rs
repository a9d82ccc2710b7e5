//! From published ports to one nftables transaction.
//!
//! ```text
//! prerouting (from outside), output (from the host itself)
//!     └─► a map from protocol and port, or address, protocol and port, to the container's address and port
//! forward ──────► towards a container: what was led there by a map, and answers; nothing else
//! postrouting ──► what a container or the host itself sends to a published port comes back the same way
//! ```
//!
//! The text is built from numbers and addresses alone. The chains are made when they are not there and the maps are
//! filled anew, all in one transaction: a port moves from one instance to another at one moment, and connections that
//! are established stay where they are, since the kernel asks the maps for the first packet of a connection only.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr};

use bennu_manifests::model::Protocol;
use bennu_planner::Published;
use serde_json::Value;

use super::network::INTERFACE_PREFIX;

/// The table, of family `ip`; nobody else writes to it.
pub(super) const TABLE: &str = "bennu";

/// A port that can't be published.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("publish port {port} on {address}: containers have IPv4 addresses only")]
pub struct NotIpv4 {
    /// The address on the host.
    pub address: IpAddr,
    /// The port on the host.
    pub port: u16,
}

/// The transaction (nft(8), "INPUT FILE FORMATS") after which exactly `ports` are published.
///
/// # Errors
/// Where one is to be published on an IPv6 address.
pub(super) fn transaction(ports: &[Published]) -> Result<String, NotIpv4> {
    let (mut anywhere, mut addressed) = (BTreeSet::new(), BTreeSet::new());
    for port in ports {
        let protocol = word(port.protocol);
        let to = format!("{} . {}", port.to, port.to_port);
        match port.address {
            None => anywhere.insert(format!("{protocol} . {} : {to}", port.port)),
            Some(IpAddr::V4(address)) => {
                addressed.insert(format!("{address} . {protocol} . {} : {to}", port.port))
            }
            Some(address) => return Err(NotIpv4 { address, port: port.port }),
        };
    }
    let mut text = structure();
    for (map, elements) in [("anywhere", anywhere), ("addressed", addressed)] {
        let _ = writeln!(text, "flush map ip {TABLE} {map}");
        if !elements.is_empty() {
            let list: Vec<_> = elements.into_iter().collect();
            let _ = writeln!(text, "add element ip {TABLE} {map} {{ {} }}", list.join(", "));
        }
    }
    Ok(text)
}

/// The maps, chains and rules, without what is published: made where they are missing, and as they should be where
/// they are not. With them nothing new reaches a container from outside its network but through a published port.
pub(super) fn structure() -> String {
    // One before the priorities that others use for the same purpose, so that it is decided here.
    let lookups = [
        "dnat ip to ip daddr . meta l4proto . th dport map @addressed",
        "fib daddr type local dnat ip to meta l4proto . th dport map @anywhere",
    ];
    let chains: [(&str, &str, &[&str]); 5] = [
        // 127.0.0.0/8 is routable on the bridges for the host's own connections to published ports; a container must
        // not reach the host's loopback that way. Before the connection tracker, which knows the answers' true address.
        ("raw", "filter hook prerouting priority -300", &["iifname BRIDGES ip daddr 127.0.0.0/8 drop"]),
        ("prerouting", "nat hook prerouting priority -101", &lookups),
        ("output", "nat hook output priority -101", &lookups),
        (
            "forward",
            "filter hook forward priority -1",
            &["ct state established,related accept", "ct status dnat accept", "oifname BRIDGES drop"],
        ),
        // What a container, or the host by its loopback address, sends to a published port has to come back through
        // here, else the answer would come from an address that nobody asked.
        (
            "postrouting",
            "nat hook postrouting priority 99",
            &[
                "ct status dnat ip saddr 127.0.0.0/8 oifname BRIDGES masquerade",
                "ct status dnat iifname BRIDGES oifname BRIDGES masquerade",
            ],
        ),
    ];
    let mut text = format!(
        "add table ip {TABLE}\n\
         add map ip {TABLE} anywhere {{ type inet_proto . inet_service : ipv4_addr . inet_service; }}\n\
         add map ip {TABLE} addressed {{ type ipv4_addr . inet_proto . inet_service : ipv4_addr . inet_service; }}\n"
    );
    let bridges = format!("\"{INTERFACE_PREFIX}*\"");
    for (chain, hook, rules) in chains {
        let _ = writeln!(text, "add chain ip {TABLE} {chain} {{ type {hook}; policy accept; }}");
        let _ = writeln!(text, "flush chain ip {TABLE} {chain}");
        for rule in rules {
            let _ = writeln!(text, "add rule ip {TABLE} {chain} {}", rule.replace("BRIDGES", &bridges));
        }
    }
    text
}

fn word(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// What is published, from the answer of `nft --json list table` (libnftables-json(5)). An element that is not of the
/// form made here is left out, so that the next plan differs and puts it right.
pub(super) fn published(listing: &Value) -> BTreeSet<Published> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let maps = objects.filter_map(|object| object.get("map")).filter(|map| map["table"] == TABLE);
    maps.flat_map(|map| map["elem"].as_array().into_iter().flatten()).filter_map(element).collect()
}

fn element(pair: &Value) -> Option<Published> {
    let key = pair[0]["concat"].as_array()?;
    let (address, key) = match key.as_slice() {
        [address, rest @ ..] if rest.len() == 2 => (Some(IpAddr::V4(ipv4(address)?)), rest),
        rest => (None, rest),
    };
    let [protocol, port] = key else { return None };
    let [to, to_port] = pair[1]["concat"].as_array()?.as_slice() else { return None };
    let protocol = match protocol.as_str()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Published { protocol, address, port: number(port)?, to: ipv4(to)?, to_port: number(to_port)? })
}

fn ipv4(value: &Value) -> Option<Ipv4Addr> {
    value.as_str()?.parse().ok()
}

fn number(value: &Value) -> Option<u16> {
    value.as_u64()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(protocol: Protocol, address: Option<&str>, port: u16, to: &str, to_port: u16) -> Published {
        let address = address.map(|a| a.parse().unwrap());
        Published { protocol, address, port, to: to.parse().unwrap(), to_port }
    }

    #[test]
    fn a_transaction_makes_the_chains_and_fills_the_maps() {
        let text = transaction(&[
            port(Protocol::Tcp, None, 8080, "10.20.0.2", 80),
            port(Protocol::Udp, None, 53, "10.20.0.3", 5353),
            port(Protocol::Tcp, Some("192.0.2.1"), 443, "10.20.0.2", 443),
        ]);
        insta::assert_snapshot!(text.unwrap());
    }

    #[test]
    fn with_nothing_published_the_maps_are_emptied() {
        let text = transaction(&[]).unwrap();
        assert!(text.contains("flush map ip bennu anywhere\n"), "{text}");
        assert!(!text.contains("add element"), "{text}");
    }

    #[test]
    fn an_ipv6_address_is_refused() {
        let wanted = port(Protocol::Tcp, Some("2001:db8::1"), 80, "10.20.0.2", 80);
        assert_eq!(
            transaction(&[wanted]),
            Err(NotIpv4 { address: "2001:db8::1".parse().unwrap(), port: 80 })
        );
    }

    #[test]
    fn a_listing_is_read_back_and_what_is_foreign_left_out() {
        let listing = serde_json::json!({"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"map": {"family": "ip", "name": "anywhere", "table": "bennu", "elem": [
                [{"concat": ["tcp", 8080]}, {"concat": ["10.20.0.2", 80]}],
                [{"concat": ["sctp", 9]}, {"concat": ["10.20.0.2", 9]}]]}},
            {"map": {"family": "ip", "name": "addressed", "table": "bennu", "elem": [
                [{"concat": ["192.0.2.1", "udp", 53]}, {"concat": ["10.20.0.3", 5353]}]]}},
            {"map": {"family": "inet", "name": "other", "table": "netavark", "elem": [
                [{"concat": ["tcp", 1]}, {"concat": ["10.20.0.9", 1]}]]}},
        ]});
        let expected = [
            port(Protocol::Tcp, None, 8080, "10.20.0.2", 80),
            port(Protocol::Udp, Some("192.0.2.1"), 53, "10.20.0.3", 5353),
        ];
        assert_eq!(published(&listing), expected.into());
        assert_eq!(published(&serde_json::json!({})), BTreeSet::new());
    }
}
