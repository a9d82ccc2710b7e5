//! What answers now, so that a generation can be asked whether the same answers afterwards, without anyone having written a check.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use bennu_manifests::model::Protocol;
use bennu_planner::update::Baseline;
use bennu_planner::{Published, Seen};

/// How long a port has to take a connection.
const ANSWER: Duration = Duration::from_secs(2);
/// How many ports are asked at most.
const MAX_PORTS: usize = 64;
/// The service that throws away what it gets (RFC 863). A packet to it makes the kernel ask for the router's address.
const DISCARD: u16 = 9;
/// How long the kernel has to learn it.
const LEARN: Duration = Duration::from_millis(1500);

/// What of all that may be asked answers now.
pub(super) async fn observe(seen: &Seen) -> Baseline {
    let mut ports = std::collections::BTreeSet::new();
    for published in seen.published.iter().filter(|p| p.protocol == Protocol::Tcp).take(MAX_PORTS) {
        if takes_connections(published).await {
            ports.insert(published.port);
        }
    }
    Baseline { ports, gateway: gateway_answers().await }
}

/// What of `before` does not answer any more; ports that are not published any more are not missed.
pub(super) async fn missing(before: &Baseline, seen: &Seen) -> Option<String> {
    let asked =
        seen.published.iter().filter(|p| p.protocol == Protocol::Tcp && before.ports.contains(&p.port));
    for published in asked.take(MAX_PORTS) {
        if !takes_connections(published).await {
            return Some(format!("port {} took connections before and does not any more", published.port));
        }
    }
    if before.gateway && !gateway_answers().await {
        return Some("the router answered before and does not any more".to_owned());
    }
    None
}

async fn takes_connections(published: &Published) -> bool {
    let address = SocketAddr::from((published.to, published.to_port));
    matches!(tokio::time::timeout(ANSWER, tokio::net::TcpStream::connect(address)).await, Ok(Ok(_)))
}

/// Whether the router of the default route answers on the link: only it can tell its hardware address.
async fn gateway_answers() -> bool {
    let Some(gateway) = std::fs::read_to_string("/proc/net/route").ok().as_deref().and_then(default_gateway)
    else {
        return false;
    };
    let asked = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))
        .and_then(|socket| socket.send_to(&[], (gateway, DISCARD)));
    if asked.is_err() {
        return false;
    }
    let known = || {
        let table = std::fs::read_to_string("/proc/net/arp").unwrap_or_default();
        is_known(&table, gateway)
    };
    if known() {
        return true;
    }
    tokio::time::sleep(LEARN).await;
    known()
}

/// The router of the first default route in `/proc/net/route`: hexadecimal numbers in the machine's order of bytes (Linux,
/// `net/ipv4/fib_trie.c`, `fib_route_seq_show`).
fn default_gateway(routes: &str) -> Option<Ipv4Addr> {
    routes.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (to, gateway) = (fields.next()?, fields.next()?);
        let gateway = u32::from_str_radix(gateway, 16).ok()?;
        (to == "00000000" && gateway != 0).then(|| Ipv4Addr::from(gateway.to_ne_bytes()))
    })
}

/// Whether `/proc/net/arp` knows the hardware address: flag 0x2, `ATF_COM` of Linux' `include/uapi/linux/if_arp.h`.
fn is_known(table: &str, address: Ipv4Addr) -> bool {
    table.lines().skip(1).any(|line| {
        let mut fields = line.split_ascii_whitespace();
        let of = fields.next().and_then(|field| field.parse::<IpAddr>().ok());
        let flags = fields.nth(1).and_then(|field| u32::from_str_radix(field.strip_prefix("0x")?, 16).ok());
        of == Some(address.into()) && flags.is_some_and(|flags| flags & 0x2 != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_router_is_read_from_the_kernels_table() {
        let routes = "Iface\tDestination\tGateway\tFlags\n\
                      eth0\t0002000A\t00000000\t0001\neth0\t00000000\t0202000A\t0003\n";
        assert_eq!(default_gateway(routes), Some(Ipv4Addr::new(10, 0, 2, 2)));
        assert_eq!(default_gateway("Iface\tDestination\tGateway\n"), None);
    }

    #[test]
    fn a_neighbour_is_known_when_its_hardware_address_is() {
        let table = "IP address HW type Flags HW address Mask Device\n\
                     10.0.2.2 0x1 0x2 52:55:0a:00:02:02 * eth0\n10.0.2.3 0x1 0x0 00:00:00:00:00:00 * eth0\n";
        assert!(is_known(table, Ipv4Addr::new(10, 0, 2, 2)));
        assert!(!is_known(table, Ipv4Addr::new(10, 0, 2, 3)));
        assert!(!is_known(table, Ipv4Addr::new(10, 0, 2, 4)));
    }
}
