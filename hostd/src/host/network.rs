//! What a container's networks are made of: interfaces, bridges, and the files that tell it of names.

use std::fmt;
use std::net::IpAddr;

use bennu_image_store::sha256;
use bennu_manifests::model::{Container, Dns, Name, NetworkKind};
use bennu_planner::{Instance, SeenNetwork};

use super::names;
use super::record::{Membership, Record};

/// How the interfaces of all networks of this host begin.
pub(super) const INTERFACE_PREFIX: &str = "bn-";

/// The name of a network's bridge: at most 15 bytes (`IFNAMSIZ` less its zero byte), so it is made from a hash.
pub(super) fn interface(network: &Name) -> String {
    format!("{INTERFACE_PREFIX}{}", sha256::digest(network.as_str().as_bytes()).short())
}

/// An interface that an instance is to have in its network namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Interface {
    /// Its name there.
    pub name: String,
    /// What it is on.
    pub on: On,
    /// Its addresses, each with the length of its network's prefix.
    pub addresses: Vec<(IpAddr, u8)>,
    /// By whom the way out leads: one at most of each kind.
    pub routers: Vec<IpAddr>,
    /// What decides between the ways out of several networks: the lowest is taken.
    pub metric: u32,
    /// Its fixed hardware address.
    pub mac: Option<[u8; 6]>,
    /// The largest packet beside the host, in bytes; `None` where that is as it is for the parent. On a bridge it is the bridge's.
    pub mtu: Option<u32>,
}

/// What an interface is on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum On {
    /// A bridge of the host, with the other end of a pair.
    Bridge {
        /// The bridge.
        bridge: Bridge,
        /// What the other end is called on the host.
        end: String,
    },
    /// An interface of the host, beside which it is a neighbour of its own.
    Beside {
        /// The host's.
        parent: String,
        /// `Macvlan` or `Ipvlan`.
        kind: NetworkKind,
        /// What it is called until it is where it belongs.
        passing: String,
    },
}

impl fmt::Display for On {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bridge { bridge, .. } => write!(f, "{}", bridge.name),
            Self::Beside { parent, .. } => write!(f, "{parent}"),
        }
    }
}

/// The bridge of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Bridge {
    /// Its name.
    pub name: String,
    /// Its hardware address. A bridge without one of its own takes that of an interface on it, and changes it as they come and go.
    pub mac: [u8; 6],
    /// The host's addresses there.
    pub addresses: Vec<(IpAddr, u8)>,
    /// The largest packet, in bytes; `None` where that is as it is for the host's own way out.
    pub mtu: Option<u32>,
}

/// The metric of the way out by an instance's first network; each further one has one more. The kernel's own is 0, and 1024 for IPv6, so what a
/// container sets itself without one goes before.
const METRIC: u32 = 100;

/// The interfaces that an instance is to have, `eth0` upwards in the order in which its networks are declared.
pub(super) fn interfaces(record: &Record) -> Vec<Interface> {
    let interface = |(number, membership): (usize, &Membership)| {
        let Membership { network, spec, .. } = membership;
        let end = end(&record.instance, network);
        // Two interfaces must not have the same.
        let declared = record.mac_address.as_deref().filter(|_| number == 0).and_then(hardware_address);
        let (on, mac) = match spec.kind {
            NetworkKind::Macvlan | NetworkKind::Ipvlan => {
                let on = On::Beside { parent: parent(network, spec), kind: spec.kind, passing: end };
                (on, declared)
            }
            NetworkKind::Bridge | NetworkKind::Host | NetworkKind::None => {
                let [a, b, c, d] = membership.address.octets();
                // Who gets an address that another one had is found by those who knew that one.
                let mac = declared.unwrap_or([0x02, 0x42, a, b, c, d]);
                (On::Bridge { bridge: bridge(network, spec), end }, Some(mac))
            }
        };
        Interface {
            name: format!("eth{number}"),
            on,
            addresses: with_prefixes(spec, membership.addresses()),
            routers: if spec.internal { Vec::new() } else { routers(spec).collect() },
            metric: METRIC.saturating_add(u32::try_from(number).unwrap_or(u32::MAX)),
            mac,
            mtu: mtu(spec),
        }
    };
    record.networks.iter().enumerate().map(interface).collect()
}

/// The bridge of a network that has one.
pub(super) fn bridge(network: &Name, spec: &SeenNetwork) -> Bridge {
    let name = interface(network);
    let hash = sha256::digest(name.as_bytes());
    let [a, b, c, d, e, ..] = *hash.as_bytes();
    Bridge {
        name,
        // It belongs to no manufacturer (IEEE 802, "locally administered").
        mac: [0x02, a, b, c, d, e],
        addresses: with_prefixes(spec, routers(spec)),
        mtu: mtu(spec),
    }
}

/// The router's addresses on a network. On a bridge that is the host, and who answers for names.
pub(super) fn routers(spec: &SeenNetwork) -> impl Iterator<Item = IpAddr> + use<> {
    [Some(IpAddr::V4(spec.router())), spec.router6().map(IpAddr::V6)].into_iter().flatten()
}

fn with_prefixes(spec: &SeenNetwork, addresses: impl Iterator<Item = IpAddr>) -> Vec<(IpAddr, u8)> {
    let with_prefix = |address| match address {
        IpAddr::V4(_) => Some((address, spec.subnet.prefix)),
        IpAddr::V6(_) => Some((address, spec.subnet6?.prefix)),
    };
    addresses.filter_map(with_prefix).collect()
}

fn mtu(spec: &SeenNetwork) -> Option<u32> {
    spec.mtu.and_then(|mtu| u32::try_from(mtu).ok())
}

/// What the host's end of an instance's interface on a network is called. Nobody else's rules are about what begins so: udev and networkd leave it alone.
pub(super) fn end(instance: &Instance, network: &Name) -> String {
    format!("veth{}", &sha256::digest(format!("{instance} {network}").as_bytes()).hex()[..11])
}

/// A hardware address as it is written: six bytes, each of two hexadecimal digits, with colons between them.
fn hardware_address(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text.split(':').map(|byte| u8::from_str_radix(byte, 16).ok()).collect();
    bytes?.try_into().ok()
}

/// The interface that a network beside the host is on: its parent, or the VLAN there, which is made for it.
pub(super) fn parent(network: &Name, spec: &SeenNetwork) -> String {
    match spec.vlan {
        Some(_) => interface(network),
        None => spec.parent.clone().unwrap_or_default(),
    }
}

/// The content of the container's `/etc/resolv.conf` (resolv.conf(5), which reads at most three servers). Where its networks have servers those
/// are named, which ask the declared ones; else the declared ones, else those of the host, whose `/etc/resolv.conf` is `hosts`.
pub(super) fn resolv_conf(record: &Record, dns: Option<&Dns>, hosts: &str) -> String {
    let mut servers: Vec<IpAddr> =
        names::served(record).flat_map(|membership| routers(&membership.spec)).collect();
    if servers.is_empty() {
        servers = dns.map(|dns| dns.servers.clone()).unwrap_or_default();
    }
    if servers.is_empty() {
        servers = name_servers(hosts);
    }
    let mut text: String = servers.iter().take(3).map(|server| format!("nameserver {server}\n")).collect();
    let lists = dns.map(|dns| [("search", &dns.search), ("options", &dns.options)]);
    for (word, list) in lists.into_iter().flatten().filter(|(_, list)| !list.is_empty()) {
        text.push_str(&format!("{word} {}\n", list.join(" ")));
    }
    text
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
    fn interfaces_are_those_of_the_networks_in_their_order() {
        insta::assert_debug_snapshot!(interfaces(&record()));
    }

    #[test]
    fn only_the_first_interface_has_the_fixed_address_and_what_is_beside_the_host_has_no_bridge() {
        let mut record = Record { mac_address: Some("02:00:5e:10:00:01".into()), ..record() };
        record.networks[1].spec.kind = NetworkKind::Macvlan;
        record.networks[1].spec.parent = Some("lan0".into());
        let interfaces = interfaces(&record);
        let macs: Vec<_> = interfaces.iter().map(|interface| interface.mac).collect();
        assert_eq!(macs, [Some([2, 0, 0x5e, 0x10, 0, 1]), None]);
        let record = Record { mac_address: None, ..record };
        assert_eq!(super::interfaces(&record)[0].mac, Some([2, 0x42, 10, 20, 0, 2]), "as its address is");
        assert_eq!(interfaces[1].on.to_string(), "lan0");
        assert!(matches!(&interfaces[1].on, On::Beside { passing, .. } if passing.len() <= 15));
    }

    #[test]
    fn interface_names_fit_and_differ() {
        let long = interface(&"a".repeat(40).parse().unwrap());
        assert!(long.len() <= 15, "{long}");
        assert_ne!(long, interface(&"b".parse().unwrap()));
    }

    #[test]
    fn resolv_conf_names_the_servers_of_its_networks() {
        let record = record();
        let servers = "nameserver 10.20.0.1\nnameserver 10.21.0.1\nnameserver fd00:21::1\n";
        assert_eq!(resolv_conf(&record, None, "nameserver 9.9.9.9\n"), servers);
        let dns = Dns {
            servers: vec!["192.0.2.1".parse().unwrap()],
            search: vec!["a.example".into(), "b".into()],
            options: vec!["ndots:2".into()],
        };
        let expected = format!("{servers}search a.example b\noptions ndots:2\n");
        assert_eq!(resolv_conf(&record, Some(&dns), ""), expected, "the servers ask the declared one");
    }

    #[test]
    fn resolv_conf_without_servers_on_its_networks_names_the_declared_ones_or_those_of_the_host() {
        let mut record = record();
        record.networks.iter_mut().for_each(|membership| membership.spec.kind = NetworkKind::Ipvlan);
        let hosts = "# made by somebody\nnameserver 127.0.0.53\nnameserver 192.0.2.53\nsearch example.org\n";
        assert_eq!(resolv_conf(&record, None, hosts), "nameserver 192.0.2.53\n");
        let dns = Dns { servers: vec!["2001:db8::53".parse().unwrap()], search: vec![], options: vec![] };
        assert_eq!(resolv_conf(&record, Some(&dns), hosts), "nameserver 2001:db8::53\n");
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
