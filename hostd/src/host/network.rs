//! What `netavark` is told to do, and what it answers.
//!
//! The words are those of netavark's own types (`network_info`, `networks`; netavark 1.14, `src/network/types.rs`). It
//! makes the bridge when the first container joins a network and removes it when the last one has left.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bennu_image_store::sha256;
use bennu_manifests::model::{Container, Dns, Name, NetworkKind};
use bennu_planner::SeenNetwork;
use serde::{Deserialize, Serialize};

use super::record::{Membership, Record};

/// How the interfaces of all networks of this host begin.
pub(super) const INTERFACE_PREFIX: &str = "bn-";

/// The name of a network's bridge: at most 15 bytes (`IFNAMSIZ` less its zero byte), so it is made from a hash.
pub(super) fn interface(network: &Name) -> String {
    format!("{INTERFACE_PREFIX}{}", sha256::digest(network.as_str().as_bytes()).short())
}

/// What `netavark setup` and `netavark teardown` read from standard input.
#[derive(Debug, Serialize)]
pub(super) struct Request<'a> {
    container_id: String,
    container_name: &'a Name,
    networks: BTreeMap<&'a Name, PerNetwork<'a>>,
    /// Whom the names' servers of its networks ask what they do not know themselves.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    dns_servers: &'a [IpAddr],
    network_info: BTreeMap<&'a Name, NetworkInfo<'a>>,
}

#[derive(Debug, Serialize)]
struct PerNetwork<'a> {
    interface_name: String,
    static_ips: Vec<IpAddr>,
    aliases: &'a [Name],
    #[serde(skip_serializing_if = "Option::is_none")]
    static_mac: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct NetworkInfo<'a> {
    name: &'a Name,
    id: String,
    driver: &'static str,
    network_interface: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    options: BTreeMap<&'static str, String>,
    subnets: Vec<Subnet>,
    ipv6_enabled: bool,
    internal: bool,
    dns_enabled: bool,
    ipam_options: BTreeMap<&'static str, &'static str>,
}

#[derive(Debug, Serialize)]
struct Subnet {
    subnet: String,
    gateway: IpAddr,
}

/// The request for one instance; the same for setting up and for taking down.
pub(super) fn request(record: &Record) -> Request<'_> {
    let per_network = |number: usize, membership: &Membership| PerNetwork {
        interface_name: format!("eth{number}"),
        static_ips: membership.addresses().collect(),
        aliases: &record.aliases,
        // Two interfaces must not have the same.
        static_mac: record.mac_address.as_deref().filter(|_| number == 0),
    };
    let memberships = || record.networks.iter().enumerate();
    Request {
        container_id: record.instance.to_string(),
        container_name: &record.instance.name,
        dns_servers: &record.dns_servers,
        networks: memberships().map(|(n, m)| (&m.network, per_network(n, m))).collect(),
        network_info: memberships().map(|(_, m)| (&m.network, info(&m.network, &m.spec))).collect(),
    }
}

fn info<'a>(network: &'a Name, spec: &SeenNetwork) -> NetworkInfo<'a> {
    let (driver, network_interface) = match spec.kind {
        NetworkKind::Macvlan => ("macvlan", parent(network, spec)),
        NetworkKind::Ipvlan => ("ipvlan", parent(network, spec)),
        NetworkKind::Bridge | NetworkKind::Host | NetworkKind::None => ("bridge", interface(network)),
    };
    NetworkInfo {
        name: network,
        id: sha256::digest(network.as_str().as_bytes()).hex(),
        driver,
        network_interface,
        options: spec.mtu.map(|mtu| ("mtu", mtu.to_string())).into_iter().collect(),
        subnets: subnets(spec),
        ipv6_enabled: spec.subnet6.is_some(),
        internal: spec.internal,
        // Who answers about names listens on the bridge, so only networks that have one are served.
        dns_enabled: driver == "bridge",
        // The addresses are the plan's; netavark only insists on being told of somebody who gives them out.
        ipam_options: BTreeMap::from([("driver", "host-local")]),
    }
}

fn subnets(spec: &SeenNetwork) -> Vec<Subnet> {
    let v4 = Subnet { subnet: spec.subnet.to_string(), gateway: spec.router().into() };
    let v6 = spec.subnet6.zip(spec.router6());
    let v6 = v6.map(|(subnet, router)| Subnet { subnet: subnet.to_string(), gateway: router.into() });
    [v4].into_iter().chain(v6).collect()
}

/// The interface that a network beside the host is on: its parent, or the VLAN there, which is made for it.
pub(super) fn parent(network: &Name, spec: &SeenNetwork) -> String {
    match spec.vlan {
        Some(_) => interface(network),
        None => spec.parent.clone().unwrap_or_default(),
    }
}

/// The part of netavark's answer that is used: by network.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Answer(BTreeMap<Name, StatusBlock>);

#[derive(Debug, Deserialize)]
struct StatusBlock {
    #[serde(default)]
    dns_server_ips: Option<Vec<IpAddr>>,
}

impl Answer {
    /// The content of the container's `/etc/resolv.conf` (resolv.conf(5), which reads at most three servers). Where its
    /// networks have servers those are named, which ask the declared ones; else the declared ones, else those of the host,
    /// whose `/etc/resolv.conf` is `hosts`.
    pub(super) fn resolv_conf(&self, dns: Option<&Dns>, hosts: &str) -> String {
        let mut servers: Vec<IpAddr> =
            self.0.values().flat_map(|status| status.dns_server_ips.iter().flatten()).copied().collect();
        if servers.is_empty() {
            servers = dns.map(|dns| dns.servers.clone()).unwrap_or_default();
        }
        if servers.is_empty() {
            servers = name_servers(hosts);
        }
        let mut text: String =
            servers.iter().take(3).map(|server| format!("nameserver {server}\n")).collect();
        let lists = dns.map(|dns| [("search", &dns.search), ("options", &dns.options)]);
        for (word, list) in lists.into_iter().flatten().filter(|(_, list)| !list.is_empty()) {
            text.push_str(&format!("{word} {}\n", list.join(" ")));
        }
        text
    }
}

/// The servers that a `resolv.conf` names and that can be reached from another network than the host's own.
fn name_servers(text: &str) -> Vec<IpAddr> {
    let words = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver")?.trim().parse().ok());
    words.filter(|server: &IpAddr| !server.is_loopback()).collect()
}

/// What stands for the host as a container reaches it, in place of an address.
const HOST_GATEWAY: &str = "host-gateway";

/// The content of the container's `/etc/hosts` (hosts(5)).
pub(super) fn hosts(record: &Record, container: &Container) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    let name = &record.instance.name;
    let own = match &container.hostname {
        Some(hostname) => format!("{hostname} {name}"),
        None => name.to_string(),
    };
    for address in record.networks.iter().flat_map(Membership::addresses) {
        text.push_str(&format!("{address}\t{own}\n"));
    }
    let host = record.networks.first().map(|membership| membership.spec.router().to_string());
    for (name, address) in &container.extra_hosts {
        let address = if address == HOST_GATEWAY { host.as_deref() } else { Some(address.as_str()) };
        // Without any network there is no way to the host, and so no address of it.
        text.extend(address.map(|address| format!("{address}\t{name}\n")));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::record::tests::record;
    use crate::host::spec::tests::container;

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
        assert_eq!(answer.resolv_conf(None, "nameserver 9.9.9.9\n"), "nameserver 10.20.0.1\n");
        let dns = Dns {
            servers: vec![],
            search: vec!["a.example".into(), "b".into()],
            options: vec!["ndots:2".into()],
        };
        let expected = "nameserver 10.20.0.1\nsearch a.example b\noptions ndots:2\n";
        assert_eq!(answer.resolv_conf(Some(&dns), ""), expected);
    }

    #[test]
    fn resolv_conf_without_servers_on_its_networks_names_the_declared_ones_or_those_of_the_host() {
        let answer: Answer = serde_json::from_str(r#"{"lan":{"dns_server_ips":null}}"#).unwrap();
        let hosts = "# made by somebody\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch example.org\n";
        assert_eq!(answer.resolv_conf(None, hosts), "nameserver 192.0.2.53\n");
        let dns = Dns { servers: vec!["2001:db8::53".parse().unwrap()], search: vec![], options: vec![] };
        assert_eq!(answer.resolv_conf(Some(&dns), hosts), "nameserver 2001:db8::53\n");
    }

    #[test]
    fn hosts_knows_the_container_itself_and_what_is_declared() {
        let mut container = container();
        let text = hosts(&record(), &container);
        assert!(text.contains("10.20.0.2\tweb\n") && text.starts_with("127.0.0.1\tlocalhost\n"), "{text}");
        container.hostname = Some("web.example.org".into());
        container.extra_hosts = [("db.example", "10.9.9.9"), ("the-host", "host-gateway")]
            .map(|(name, address)| (name.to_owned(), address.to_owned()))
            .into();
        let text = hosts(&record(), &container);
        for line in ["10.20.0.2\tweb.example.org web\n", "10.9.9.9\tdb.example\n", "10.20.0.1\tthe-host\n"] {
            assert!(text.contains(line), "{line:?} in {text}");
        }
    }
}
