//! Where a registry may lead us: by a redirect, or by the address of its token server.
//!
//! A registry is a stranger, and addresses that only this machine or its own link can reach are not for strangers to name:
//! behind them are services that ask nobody who he is, as those where clouds keep a machine's credentials.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::http::is_loopback;

/// Names of services of clouds, for where a proxy asks for the address.
const METADATA_NAMES: [&str; 2] = ["metadata.google.internal", "metadata.goog"];
/// Addresses of services of clouds outside of the link-local ones: Alibaba, Azure, Oracle; AWS and Google by IPv6.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
];

/// Whose an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    /// Anybody's, as far as we know.
    Anybodys,
    /// This machine's.
    Ours,
    /// Its link's, its cloud's, or that of several machines at once.
    Nearby,
}

fn whose(address: IpAddr) -> Whose {
    let address = plain(address);
    let ours = match address {
        // All of 0.0.0.0/8 is "this network" (RFC 1122, section 3.2.1.3); Linux takes 0.0.0.0 for loopback.
        IpAddr::V4(v4) => v4.is_loopback() || v4.octets()[0] == 0,
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unspecified(),
    };
    let nearby = match address {
        IpAddr::V4(v4) => v4.is_link_local() || v4.is_multicast() || v4.is_broadcast(),
        IpAddr::V6(v6) => v6.is_unicast_link_local() || v6.is_multicast(),
    };
    match (ours, nearby || METADATA.contains(&address)) {
        (true, _) => Whose::Ours,
        (_, true) => Whose::Nearby,
        _ => Whose::Anybodys,
    }
}

/// The IPv4 address that an IPv6 address stands for: mapped (RFC 4291, section 2.5.5.2) or translated (RFC 6052, section 2.1).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address else { return address };
    let embedded = || {
        let [.., a, b] = v6.segments();
        let ([a, b], [c, d]) = (a.to_be_bytes(), b.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => embedded(),
        // The deprecated form; `::` and `::1` are themselves.
        [0, 0, 0, 0, 0, 0, a, _] if a != 0 => embedded(),
        _ => address,
    }
}

/// Whether who asked `from` may be led to `to`; both are hosts as they stand in an address. What a name stands for is looked at
/// by [`fit`].
pub(super) fn may_lead(from: &str, to: &str) -> bool {
    if from == to {
        return true;
    }
    let to = to.trim_end_matches('.').to_ascii_lowercase();
    let address = to.strip_prefix('[').and_then(|to| to.strip_suffix(']')).unwrap_or(&to);
    let whose = match address.parse() {
        Ok(address) => whose(address),
        Err(_) if to == "localhost" || to.ends_with(".localhost") => Whose::Ours,
        Err(_) if METADATA_NAMES.contains(&to.as_str()) => Whose::Nearby,
        Err(_) => Whose::Anybodys,
    };
    match whose {
        Whose::Anybodys => true,
        Whose::Ours => is_loopback(from),
        Whose::Nearby => false,
    }
}

/// A name that a registry leads to stands for no address but such as are not for strangers to name.
#[derive(Debug, thiserror::Error)]
#[error("{name} is an address of this machine, its link or its cloud, where no registry may lead")]
pub(super) struct Forbidden {
    name: String,
}

/// Those of the addresses of a name that a registry may lead us to. A name without any address is not judged here.
///
/// # Errors
/// Where none of them is.
pub(super) fn fit(name: String, found: Vec<SocketAddr>) -> Result<Vec<SocketAddr>, Forbidden> {
    // By this name nobody is led astray: `may_lead` was asked about it.
    let is_local = is_loopback(name.trim_end_matches('.'));
    let fits = |address: &SocketAddr| match whose(address.ip()) {
        Whose::Anybodys => true,
        Whose::Ours => is_local,
        Whose::Nearby => false,
    };
    let any = !found.is_empty();
    let fitting: Vec<_> = found.into_iter().filter(fits).collect();
    if any && fitting.is_empty() { Err(Forbidden { name }) } else { Ok(fitting) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t12_no_registry_leads_to_this_machine_its_link_or_its_cloud() {
        for to in [
            "169.254.169.254",
            "[fe80::1]",
            "[::ffff:169.254.169.254]",
            "[64:ff9b::a9fe:a9fe]",
            "[fd00:ec2::254]",
            "100.100.100.200",
            "168.63.129.16",
            "metadata.google.internal",
            "Metadata.Google.Internal.",
            "127.0.0.1",
            "127.8.8.8",
            "0.0.0.0",
            "[::1]",
            "[::]",
            "[::ffff:127.0.0.1]",
            "[::127.0.0.1]",
            "localhost",
            "a.localhost.",
            "224.0.0.1",
            "255.255.255.255",
        ] {
            assert!(!may_lead("registry.example", to), "{to}");
        }
        for to in
            ["storage.example", "10.0.0.7", "192.0.2.1", "[2001:db8::1]", "[fd12::1]", "localhost.example"]
        {
            assert!(may_lead("registry.example", to), "{to}");
        }
    }

    #[test]
    fn a_registry_that_was_named_by_such_an_address_stays_there() {
        assert!(may_lead("169.254.10.10", "169.254.10.10"));
        assert!(!may_lead("169.254.10.10", "169.254.169.254"));
        assert!(may_lead("127.0.0.1", "localhost") && may_lead("localhost", "[::1]"));
        assert!(!may_lead("127.0.0.1", "169.254.169.254"));
    }

    #[test]
    fn t12_a_name_that_stands_for_such_an_address_is_not_asked() {
        let address = |text: &str| SocketAddr::new(text.parse().expect("an address"), 0);
        let fit =
            |name: &str, found: &[&str]| fit(name.to_owned(), found.iter().map(|a| address(a)).collect());
        assert!(fit("evil.example", &["169.254.169.254"]).is_err());
        assert!(fit("evil.example", &["127.0.0.1", "::1"]).is_err());
        assert_eq!(fit("a.example", &["127.0.0.1", "192.0.2.1"]).expect("one is"), [address("192.0.2.1")]);
        assert_eq!(fit("localhost", &["127.0.0.1"]).expect("it is"), [address("127.0.0.1")]);
        assert!(fit("gone.example", &[]).expect("nothing is wrong with it").is_empty());
    }
}
