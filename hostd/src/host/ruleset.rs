//! From networks and published ports to one nftables transaction.
//!
//! ```text
//! prerouting (from outside), output (from the host itself)
//!     └─► a map from protocol and port, or address, protocol and port, to the container's address and port
//! forward ──────► from an internal network: only answers; to the addresses by which clouds tell their machines: nothing
//!                 towards a container: what was led there by a map, and answers; nothing else
//! postrouting ──► what leaves a container's network for another place leaves with the host's address, and
//!                 what a container or the host itself sends to a published port comes back the same way
//! ```
//!
//! The text is built from numbers, addresses and names of interfaces that were made here. The chains are made when they are
//! not there and the maps are filled anew, all in one transaction: a port moves from one instance to another at one moment,
//! and connections that are established stay where they are, since the kernel asks the maps for the first packet of a
//! connection only.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use bennu_manifests::model::Protocol;
use bennu_planner::Published;
use serde_json::Value;

use super::network::INTERFACE_PREFIX;

/// The table, of family `inet`; nobody else writes to it.
const TABLE: &str = "inet bennu";

/// Its family and name apart.
pub(super) const FAMILY: &str = "inet";
const NAME: &str = "bennu";

/// The types of the addresses of both kinds, and what their maps end in.
const KINDS: [(&str, &str); 2] = [("ipv4_addr", ""), ("ipv6_addr", "6")];

/// The transaction (nft(8), "INPUT FILE FORMATS") after which exactly `ports` are published; `internal` are the bridges that
/// lead nowhere but to themselves.
pub(super) fn transaction(internal: &BTreeSet<String>, ports: &[Published]) -> String {
    let mut text = structure(internal);
    let wanted = elements(ports);
    for map in MAPS {
        let _ = writeln!(text, "flush map {TABLE} {map}");
        let list: Vec<&str> =
            wanted.iter().filter(|(of, _)| *of == map).map(|(_, element)| element.as_str()).collect();
        if !list.is_empty() {
            let _ = writeln!(text, "add element {TABLE} {map} {{ {} }}", list.join(", "));
        }
    }
    text
}

const MAPS: [&str; 4] = ["anywhere", "addressed", "anywhere6", "addressed6"];

/// The elements of the maps, each with the name of its map.
fn elements(ports: &[Published]) -> BTreeSet<(&'static str, String)> {
    let element = |port: &Published| {
        let lookup = format!("{} . {}", word(port.protocol), port.port);
        let to = format!("{} . {}", port.to, port.to_port);
        match (port.address, port.to) {
            (None, IpAddr::V4(_)) => ("anywhere", format!("{lookup} : {to}")),
            (None, IpAddr::V6(_)) => ("anywhere6", format!("{lookup} : {to}")),
            (Some(address @ IpAddr::V4(_)), _) => ("addressed", format!("{address} . {lookup} : {to}")),
            (Some(address @ IpAddr::V6(_)), _) => ("addressed6", format!("{address} . {lookup} : {to}")),
        }
    };
    ports.iter().map(element).collect()
}

/// The maps, chains and rules, without what is published: made where they are missing, and as they should be where
/// they are not. With them nothing new reaches a container from outside its network but through a published port.
pub(super) fn structure(internal: &BTreeSet<String>) -> String {
    // One before the priorities that others use for the same purpose, so that it is decided here.
    let lookups = [
        "dnat ip to ip daddr . meta l4proto . th dport map @addressed",
        "dnat ip6 to ip6 daddr . meta l4proto . th dport map @addressed6",
        "meta nfproto ipv4 fib daddr type local dnat ip to meta l4proto . th dport map @anywhere",
        "meta nfproto ipv6 fib daddr type local dnat ip6 to meta l4proto . th dport map @anywhere6",
    ];
    // Whoever answers for names does so at port 53 of each bridge's own address, which is the host's: a container that
    // publishes that port must not take the questions of all others.
    let names = "iifname BRIDGES meta l4proto { tcp, udp } th dport 53 fib daddr . iif type local return";
    let from_outside = [&[names][..], &lookups].concat();
    let chains: [(&str, &str, &[&str]); 5] = [
        // 127.0.0.0/8 is routable on the bridges for the host's own connections to published ports; a container must
        // not reach the host's loopback that way. Before the connection tracker, which knows the answers' true address.
        ("raw", "filter hook prerouting priority -300", &["iifname BRIDGES ip daddr 127.0.0.0/8 drop"]),
        ("prerouting", "nat hook prerouting priority -101", &from_outside),
        ("output", "nat hook output priority -101", &lookups),
        (
            "forward",
            "filter hook forward priority -1",
            &[
                "ct state established,related accept",
                "iifname @internal drop",
                // Where clouds answer each of their machines with its secrets: those are the host's.
                "iifname BRIDGES ip daddr 169.254.0.0/16 drop",
                "iifname BRIDGES ip6 daddr fd00:ec2::254 drop",
                "ct status dnat accept",
                "oifname BRIDGES drop",
            ],
        ),
        // What a container, or the host by its loopback address, sends to a published port has to come back through
        // here, else the answer would come from an address that nobody asked. Nobody beyond the host knows the addresses
        // of its containers, so what they begin leaves with the host's.
        (
            "postrouting",
            "nat hook postrouting priority 99",
            &[
                "ct status dnat ip saddr 127.0.0.0/8 oifname BRIDGES masquerade",
                "ct status dnat iifname BRIDGES oifname BRIDGES masquerade",
                "iifname BRIDGES oifname != BRIDGES masquerade",
            ],
        ),
    ];
    let mut text = format!("add table {TABLE}\nadd set {TABLE} internal {{ type ifname; }}\n");
    for (kind, end) in KINDS {
        let to = format!("inet_proto . inet_service : {kind} . inet_service");
        let _ = writeln!(text, "add map {TABLE} anywhere{end} {{ type {to}; }}");
        let _ = writeln!(text, "add map {TABLE} addressed{end} {{ type {kind} . {to}; }}");
    }
    let _ = writeln!(text, "flush set {TABLE} internal");
    if !internal.is_empty() {
        let names: Vec<_> = internal.iter().map(|name| format!("\"{name}\"")).collect();
        let _ = writeln!(text, "add element {TABLE} internal {{ {} }}", names.join(", "));
    }
    let bridges = format!("\"{INTERFACE_PREFIX}*\"");
    for (chain, hook, rules) in chains {
        let _ = writeln!(text, "add chain {TABLE} {chain} {{ type {hook}; policy accept; }}");
        let _ = writeln!(text, "flush chain {TABLE} {chain}");
        for rule in rules {
            let _ = writeln!(text, "add rule {TABLE} {chain} {}", rule.replace("BRIDGES", &bridges));
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

/// The table without what is published and without the kernel's numbers of its parts, out of the answer of
/// `nft --json list ruleset inet` (libnftables-json(5)); nothing where the table is not there. Two equal texts are equal rules.
pub(super) fn rules(listing: &Value) -> String {
    let of_table = |object: &Value| {
        let (kind, body) = object.as_object()?.iter().next()?;
        let ours = if kind == "table" { body["name"] == NAME } else { body["table"] == NAME };
        let mut body = body.as_object().filter(|_| ours)?.clone();
        body.remove("handle");
        if kind == "map" {
            body.remove("elem");
        }
        if let Some(Value::Array(elements)) = body.get_mut("elem") {
            elements.sort_by_key(Value::to_string);
        }
        Some(format!("{kind} {}\n", Value::Object(body)))
    };
    listing["nftables"].as_array().into_iter().flatten().filter_map(of_table).collect()
}

/// What is published, from the same answer. An element that is not of the form made here is left out, so that the next plan
/// differs and puts it right.
pub(super) fn published(listing: &Value) -> BTreeSet<Published> {
    let objects = listing["nftables"].as_array().into_iter().flatten();
    let maps = objects.filter_map(|object| object.get("map")).filter(|map| map["table"] == NAME);
    maps.flat_map(|map| map["elem"].as_array().into_iter().flatten()).filter_map(element).collect()
}

fn element(pair: &Value) -> Option<Published> {
    let key = pair[0]["concat"].as_array()?;
    let (address, key) = match key.as_slice() {
        [address, rest @ ..] if rest.len() == 2 => (Some(ip(address)?), rest),
        rest => (None, rest),
    };
    let [protocol, port] = key else { return None };
    let [to, to_port] = pair[1]["concat"].as_array()?.as_slice() else { return None };
    let protocol = match protocol.as_str()? {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return None,
    };
    Some(Published { protocol, address, port: number(port)?, to: ip(to)?, to_port: number(to_port)? })
}

fn ip(value: &Value) -> Option<IpAddr> {
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
        let internal = ["bn-0123456789ab".to_owned()].into();
        let text = transaction(
            &internal,
            &[
                port(Protocol::Tcp, None, 8080, "10.20.0.2", 80),
                port(Protocol::Udp, None, 53, "10.20.0.3", 5353),
                port(Protocol::Tcp, Some("192.0.2.1"), 443, "10.20.0.2", 443),
                port(Protocol::Tcp, None, 8080, "fd00:1::2", 80),
                port(Protocol::Udp, Some("2001:db8::1"), 53, "fd00:1::2", 53),
            ],
        );
        insta::assert_snapshot!(text);
    }

    #[test]
    fn with_nothing_published_the_maps_are_emptied() {
        let text = transaction(&BTreeSet::new(), &[]);
        assert!(text.contains("flush map inet bennu anywhere\n"), "{text}");
        assert!(text.contains("flush map inet bennu addressed6\n"), "{text}");
        assert!(!text.contains("add element"), "{text}");
    }

    fn listing() -> Value {
        serde_json::json!({"nftables": [
            {"metainfo": {"json_schema_version": 1}},
            {"table": {"family": "inet", "name": "bennu", "handle": 4}},
            {"set": {"family": "inet", "name": "internal", "table": "bennu", "handle": 9, "elem": ["bn-b", "bn-a"]}},
            {"map": {"family": "inet", "name": "anywhere", "table": "bennu", "handle": 1, "elem": [
                [{"concat": ["tcp", 8080]}, {"concat": ["10.20.0.2", 80]}],
                [{"concat": ["sctp", 9]}, {"concat": ["10.20.0.2", 9]}]]}},
            {"map": {"family": "inet", "name": "addressed6", "table": "bennu", "elem": [
                [{"concat": ["2001:db8::1", "udp", 53]}, {"concat": ["fd00:1::3", 5353]}]]}},
            {"map": {"family": "inet", "name": "other", "table": "netavark", "elem": [
                [{"concat": ["tcp", 1]}, {"concat": ["10.20.0.9", 1]}]]}},
            {"rule": {"family": "inet", "table": "bennu", "chain": "forward", "handle": 7, "expr": [{"drop": null}]}},
        ]})
    }

    #[test]
    fn a_listing_is_read_back_and_what_is_foreign_left_out() {
        let expected = [
            port(Protocol::Tcp, None, 8080, "10.20.0.2", 80),
            port(Protocol::Udp, Some("2001:db8::1"), 53, "fd00:1::3", 5353),
        ];
        assert_eq!(published(&listing()), expected.into());
        assert_eq!(published(&serde_json::json!({})), BTreeSet::new());
    }

    #[test]
    fn rules_are_the_same_whatever_their_numbers_and_what_is_published_and_differ_where_one_is_gone() {
        let rules_of = |change: &dyn Fn(&mut Vec<Value>)| {
            let mut listing = listing();
            change(listing["nftables"].as_array_mut().unwrap());
            rules(&listing)
        };
        let before = rules_of(&|_| {});
        assert!(before.contains("forward") && before.contains("bn-a"), "{before}");
        assert_eq!(rules_of(&|all| all[6]["rule"]["handle"] = 99.into()), before);
        assert_eq!(rules_of(&|all| all[3]["map"]["elem"] = serde_json::json!([])), before);
        assert_eq!(rules_of(&|all| all[2]["set"]["elem"] = serde_json::json!(["bn-a", "bn-b"])), before);
        assert_eq!(rules_of(&|all| drop(all.remove(5))), before, "a table of others is none of ours");
        assert_ne!(rules_of(&|all| drop(all.remove(6))), before);
        assert_ne!(rules_of(&|all| all[2]["set"]["elem"] = serde_json::json!(["bn-a"])), before);
        assert_eq!(rules(&serde_json::json!({})), "");
    }
}
