//! Addresses, names and ports.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};

use crate::document::{Item, Wrong};
use crate::fault::quoted;
use crate::language::{Form, Reader, TextForm, map, spec};
use crate::model::{NotASubnet6, Port, Subnet, Subnet6};
use crate::units::read_ports;
use crate::values::host::read_host_name;
use crate::values::{MAX_ENTRIES, MAX_LABEL, MAX_SPEC};

/// The most ports that one entry publishes.
const MAX_RANGE: usize = 1024;

/// Published ports.
pub(crate) fn ports() -> impl Reader<Out = Vec<Port>> {
    struct Ports;
    impl Reader for Ports {
        type Out = Vec<Port>;

        fn form(&self) -> Form {
            let pattern = "^((\\[[0-9a-fA-F:.]+\\]|[0-9.]+):)?[0-9]+(-[0-9]+)?:[0-9]+(-[0-9]+)?(/tcp|/udp)?$";
            let syntax = "`[ADDRESS:]HOST:CONTAINER[/tcp|/udp]`, each port a number or a range";
            let one = Form::Text(super::form("a published port", syntax, pattern, MAX_SPEC));
            Form::List { of: Box::new(one), max: MAX_ENTRIES }
        }

        fn read(&self, item: &Item<'_>) -> Option<Vec<Port>> {
            let mut all: Vec<Port> = Vec::new();
            for element in item.list(MAX_ENTRIES)? {
                let Some(ports) = element.read(MAX_SPEC, |text| read_ports(text, MAX_RANGE)) else {
                    continue;
                };
                if ports.value.iter().any(|port| all.contains(port)) {
                    element.fault(format!("{} says this twice", quoted(&item.path)), None);
                    continue;
                }
                // The kernel takes an answer from beyond for one that nobody asked for (`::1` never leaves its interface).
                if ports.value.iter().any(|port| port.address == Some(IpAddr::V6(Ipv6Addr::LOCALHOST))) {
                    element.faults.not_yet(&element.span, &format!("{}: the address [::1]", element.path));
                }
                all.extend(ports.value);
            }
            Some(all)
        }
    }
    Ports
}

/// An IPv4 or IPv6 address of one machine.
pub(crate) fn address() -> impl Reader<Out = IpAddr> {
    spec("an address", "IPv4 or IPv6", "^[0-9a-fA-F:.]+$", 64, |text| {
        let wrong = || Wrong::new(format!("{} is no IP address", quoted(text)));
        let address: IpAddr = text.parse().map_err(|_| wrong())?;
        if address.is_unspecified() || address.is_multicast() {
            return Err(Wrong::new(format!("{} is no address of a machine", quoted(text))));
        }
        Ok(address)
    })
}

/// An address with the length of its network's prefix.
pub(crate) fn address_with_prefix() -> impl Reader<Out = String> {
    spec("an address", "`ADDRESS/PREFIX`", "^[0-9a-fA-F:.]+/[0-9]+$", 64, |text| {
        let wrong = || Wrong::new(format!("{} is no address with a prefix", quoted(text)));
        let wrong = || wrong().hint("write it as `192.0.2.10/24`");
        let (address, prefix) = text.split_once('/').ok_or_else(wrong)?;
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let plain = (1..=3).contains(&prefix.len()) && prefix.bytes().all(|b| b.is_ascii_digit());
        match prefix.parse::<u8>() {
            Ok(prefix) if plain && (1..=most).contains(&prefix) => Ok(text.to_owned()),
            _ => Err(wrong()),
        }
    })
}

/// An IPv4 subnet.
pub(crate) fn subnet() -> impl Reader<Out = Subnet> {
    let syntax = "an IPv4 network address, `/` and a prefix length of 8 to 30";
    spec("a subnet", syntax, "^[0-9.]+/[0-9]+$", MAX_LABEL, |text| {
        let subnet: Subnet = text.parse().map_err(|error| {
            let wrong = Wrong::new(format!("{} is no subnet: {error}", quoted(text)));
            wrong.hint("the bits after the prefix must be 0")
        })?;
        // RFC 6890, section 2.2.2: addresses that cannot be a network's, whatever the host does.
        let first = subnet.address;
        let range = |text: &str| text.parse::<Subnet>().expect("a subnet").overlaps(&subnet);
        if first.is_multicast() || first.octets()[0] >= 224 || first.octets()[0] == 0 {
            return Err(Wrong::new(format!("{} is not for hosts", quoted(text))));
        }
        if range("127.0.0.0/8") || range("169.254.0.0/16") {
            return Err(Wrong::new(format!("{} overlaps loopback or link-local addresses", quoted(text))));
        }
        Ok(subnet)
    })
}

/// An IPv6 subnet: unique local (RFC 4193) or global unicast (RFC 4291, section 2.5.4).
pub(crate) fn subnet6() -> impl Reader<Out = Subnet6> {
    let syntax = "an IPv6 network address, `/` and a prefix length of 48 to 124";
    spec("a subnet", syntax, "^[0-9a-fA-F:]+/[0-9]+$", MAX_LABEL, |text| {
        let wrong = |what: &str| {
            Wrong::new(format!("{} is no IPv6 subnet: {what}", quoted(text)))
                .hint("write it as `fd00:20::/64`; the bits after the prefix must be 0")
        };
        let subnet: Subnet6 = text.parse().map_err(|error: NotASubnet6| wrong(&error.to_string()))?;
        let first = subnet.address.segments()[0];
        if first & 0xfe00 != 0xfc00 && first & 0xe000 != 0x2000 {
            return Err(wrong("it is neither unique local nor global"));
        }
        Ok(subnet)
    })
}

/// A hardware address of one machine.
pub(crate) fn mac_address() -> impl Reader<Out = String> {
    let pattern = "^[0-9a-f]{2}(:[0-9a-f]{2}){5}$";
    spec("a hardware address", "six pairs of hexadecimal digits in lower case", pattern, 32, |text| {
        let pairs: Vec<&str> = text.split(':').collect();
        let hex = |pair: &&str| {
            pair.len() == 2 && pair.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        };
        // IEEE 802, section 8.2: the lowest bit of the first octet is set for groups.
        let group = |pair: &str| u8::from_str_radix(pair, 16).is_ok_and(|first| first & 1 == 1);
        if pairs.len() == 6 && pairs.iter().all(hex) && !group(pairs[0]) {
            return Ok(text.to_owned());
        }
        Err(Wrong::new(format!("{} is no hardware address of a machine", quoted(text)))
            .hint("write it as `02:42:ac:11:00:02`"))
    })
}

/// The name of an interface (include/uapi/linux/if.h, IFNAMSIZ).
pub(crate) fn interface_name() -> impl Reader<Out = String> {
    spec(
        "an interface",
        "1 to 15 of letters, digits, `-`, `_` and `.`",
        "^[A-Za-z0-9_.-]{1,15}$",
        15,
        read_interface,
    )
}

/// Interfaces as keys of a table.
pub(crate) fn interface_key() -> TextForm {
    super::form("an interface", "its name, of 1 to 15 bytes", "^[A-Za-z0-9_.-]{1,15}$", 15)
}

/// The name of an interface.
pub(crate) fn read_interface(text: &str) -> Result<String, Wrong> {
    let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
    let sound =
        (1..=15).contains(&text.len()) && text.bytes().all(word) && !matches!(text, "." | ".." | "lo");
    let wrong = || Wrong::new(format!("{} is no interface that can be configured", quoted(text)));
    if sound { Ok(text.to_owned()) } else { Err(wrong().hint("it is a name like `eth0`")) }
}

/// A domain that names are looked for in.
pub(crate) fn dns_domain() -> impl Reader<Out = String> {
    spec("a domain", "", "", 253, read_host_name)
}

/// An option of the resolver: a word, perhaps with a number (resolv.conf(5)).
pub(crate) fn dns_option() -> impl Reader<Out = String> {
    spec("an option of the resolver", "as resolv.conf(5) has it", "^[a-z0-9-]+(:[0-9]+)?$", 64, |text| {
        let (word, number) = text.split_once(':').map_or((text, None), |(word, number)| (word, Some(number)));
        let sound = !word.is_empty()
            && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
            && number.is_none_or(|number| number.parse::<u16>().is_ok());
        let wrong = || Wrong::new(format!("{} is no option of the resolver", quoted(text)));
        if sound { Ok(text.to_owned()) } else { Err(wrong().hint("write it as `ndots:2`")) }
    })
}

/// Names with fixed addresses.
pub(crate) fn extra_hosts() -> impl Reader<Out = BTreeMap<String, String>> {
    let value = spec("an address", "IPv4 or IPv6, or `host-gateway`", "", 64, |text| match text {
        "host-gateway" => Ok(text.to_owned()),
        other if other.parse::<IpAddr>().is_ok() => Ok(other.to_owned()),
        other => Err(Wrong::new(format!("{} is no address", quoted(other)))
            .hint("write an IP address, or `host-gateway` for the host")),
    });
    map(super::form("a host name", "", "", 253), read_host_name, value, MAX_ENTRIES)
}
