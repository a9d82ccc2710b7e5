//! What `netavark` is told to do, and what it answers.
//!
//! The words are those of netavark's own types (`network_info`, `networks`; netavark 1.14, `src/network/types.rs`). It
//! makes the bridge when the first container joins a network and removes it when the last one has left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use bennu_image_store::sha256;
use bennu_manifests::model::Name;
use bennu_planner::SeenNetwork;
use serde::{Deserialize, Serialize};

use super::record::{Membership, Record};

/// How the interfaces of all networks of this host begin.
pub(super) const INTERFACE_PREFIX: &str = "bn-";

/// The name of a network's bridge: at most 15 bytes (`IFNAMSIZ` less its zero byte), so it is made from a hash.
pub(super) fn interface(network: &Name) -> String {
    format!("{INTERFACE_PREFIX}{}", sha256::digest(network.as_str().as_bytes()).short())
}

/// The host's own address on a network: the first one of the subnet.
pub(super) fn gateway(network: &SeenNetwork) -> Ipv4Addr {
    Ipv4Addr::from_bits(network.subnet.address.to_bits() + 1)
}

/// What `netavark setup` and `netavark teardown` read from standard input.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    container_id: String,
    container_name: &'a Name,
    networks: BTreeMap<&'a Name, PerNetwork<'a>>,
    network_info: BTreeMap<&'a Name, NetworkInfo<'a>>,
}

#[derive(Debug, Serialize)]
struct PerNetwork<'a> {
    interface_name: String,
    static_ips: [Ipv4Addr; 1],
    aliases: &'a [Name],
}

#[derive(Debug, Serialize)]
struct NetworkInfo<'a> {
    name: &'a Name,
    id: String,
    driver: &'static str,
    network_interface: String,
    subnets: [Subnet; 1],
    ipv6_enabled: bool,
    internal: bool,
    dns_enabled: bool,
    ipam_options: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct Subnet {
    subnet: String,
    gateway: Ipv4Addr,
}

/// The request for one instance; the same for setting up and for taking down.
pub(super) fn request(record: &Record) -> Request<'_> {
    let per_network = |number: usize, membership: &Membership| PerNetwork {
        interface_name: format!("eth{number}"),
        static_ips: [membership.address],
        aliases: &record.aliases,
    };
    let memberships = || record.networks.iter().enumerate();
    Request {
        container_id: record.instance.to_string(),
        container_name: &record.instance.name,
        networks: memberships().map(|(n, m)| (&m.network, per_network(n, m))).collect(),
        network_info: memberships().map(|(_, m)| (&m.network, info(&m.network, &m.spec))).collect(),
    }
}

fn info<'a>(network: &'a Name, spec: &SeenNetwork) -> NetworkInfo<'a> {
    NetworkInfo {
        name: network,
        id: sha256::digest(network.as_str().as_bytes()).hex(),
        driver: "bridge",
        network_interface: interface(network),
        subnets: [Subnet { subnet: spec.subnet.to_string(), gateway: gateway(spec) }],
        ipv6_enabled: false,
        internal: spec.internal,
        dns_enabled: true,
        // The addresses are the plan's; netavark only insists on being told of somebody who gives them out.
        ipam_options: BTreeMap::from([("driver", "host-local")]),
    }
}

/// The part of netavark's answer that is used: by network.
#[derive(Debug, Deserialize)]
pub(super) struct Answer(BTreeMap<Name, StatusBlock>);

#[derive(Debug, Deserialize)]
struct StatusBlock {
    #[serde(default)]
    dns_server_ips: Vec<IpAddr>,
}

impl Answer {
    /// The content of the container's `/etc/resolv.conf` (resolv.conf(5), which reads at most three servers).
    pub(super) fn resolv_conf(&self) -> String {
        let servers = self.0.values().flat_map(|status| &status.dns_server_ips);
        servers.take(3).map(|server| format!("nameserver {server}\n")).collect()
    }
}

/// The content of the container's `/etc/hosts` (hosts(5)).
pub(super) fn hosts(record: &Record) -> String {
    let own = record.networks.iter().map(|m| format!("{}\t{}\n", m.address, record.instance.name));
    let local = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    std::iter::once(local).chain(own).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;

    #[test]
    fn a_request_names_all_that_netavark_needs() {
        insta::assert_snapshot!(serde_json::to_string_pretty(&request(&record())).unwrap());
    }

    #[test]
    fn interface_names_fit_and_differ() {
        let long = interface(&"a".repeat(40).parse().unwrap());
        assert!(long.len() <= 15, "{long}");
        assert_ne!(long, interface(&"b".parse().unwrap()));
    }

    #[test]
    fn resolv_conf_names_the_servers_that_netavark_answered() {
        let answer = r#"{"default":{"dns_search_domains":["dns.podman"],"dns_server_ips":["10.20.0.1"],"interfaces":{}}}"#;
        let answer: Answer = serde_json::from_str(answer).unwrap();
        assert_eq!(answer.resolv_conf(), "nameserver 10.20.0.1\n");
    }

    #[test]
    fn hosts_knows_the_container_itself() {
        let text = hosts(&record());
        assert!(text.contains("10.20.0.2\tweb\n") && text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
    }
}
