//! Values that are written as strings: sizes, durations, CPUs, ports, mounts.

use std::net::{IpAddr, Ipv6Addr};

use crate::document::Wrong;
use crate::fault::quoted;
use crate::model::{Port, Protocol};
use crate::reference::parse_port;

/// One KiB and so on, in bytes.
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const TIB: u64 = 1 << 40;

/// A number in plain decimal digits, without sign; at most `max`.
fn plain_number(digits: &str, max: u64) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    digits.parse().ok().filter(|value| plain && *value <= max)
}

/// A number and the unit after it.
fn split_unit(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// A size in bytes: `64MiB`, `1GiB`.
pub(crate) fn read_size(text: &str) -> Result<u64, Wrong> {
    let (digits, unit) = split_unit(text);
    let shift = match unit {
        "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        "TiB" => 40,
        _ => 64,
    };
    let wrong = || Wrong::new(format!("{} is no size", quoted(text)));
    match plain_number(digits, TIB).and_then(|number| number.checked_mul(1u64.checked_shl(shift)?)) {
        Some(size) => Ok(size),
        // Powers of ten and of two are easily mistaken for each other, so there is one way only to write a size.
        None if matches!(unit, "K" | "KB" | "k" | "kB") => Err(wrong().hint(format!("write `{digits}KiB`"))),
        None if matches!(unit, "M" | "MB" | "m" | "mb") => Err(wrong().hint(format!("write `{digits}MiB`"))),
        None if matches!(unit, "G" | "GB" | "g" | "gb") => Err(wrong().hint(format!("write `{digits}GiB`"))),
        None => Err(wrong().hint("write a whole number and B, KiB, MiB, GiB or TiB, as `64MiB`")),
    }
}

/// A duration in milliseconds: `500ms`, `10s`, `2m`, `1h`.
pub(crate) fn read_duration(text: &str) -> Result<u64, Wrong> {
    let (digits, unit) = split_unit(text);
    let scale = match unit {
        "ms" => Some(1),
        "s" => Some(1000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        _ => None,
    };
    // A week is beyond every duration of this language and far from overflow in milliseconds.
    let number = plain_number(digits, 604_800_000);
    number.zip(scale).map(|(number, scale)| number * scale).ok_or_else(|| {
        Wrong::new(format!("{} is no duration", quoted(text)))
            .hint("write a whole number and ms, s, m or h, as `10s`")
    })
}

/// Thousandths of a CPU: `500m`, or CPUs with at most three decimals, as `0.5`.
pub(crate) fn read_cpu(text: &str) -> Result<u64, Wrong> {
    let millis = if let Some(millis) = text.strip_suffix('m') {
        plain_number(millis, 1_000_000_000)
    } else {
        let (whole, decimals) = text.split_once('.').unwrap_or((text, "0"));
        let short = decimals.len() <= 3;
        let decimals =
            plain_number(&format!("{decimals:0<3}"), 999).filter(|_| short && !decimals.is_empty());
        plain_number(whole, 1_000_000).zip(decimals).map(|(whole, decimals)| whole * 1000 + decimals)
    };
    millis.ok_or_else(|| {
        Wrong::new(format!("{} is no share of CPUs", quoted(text)))
            .hint("write `\"0.5\"` or `\"500m\"` for half a CPU")
    })
}

/// Published ports: `[ADDRESS:]HOST[-HOST]:CONTAINER[-CONTAINER][/tcp|/udp]`, at most `max`.
pub(crate) fn read_ports(text: &str, max: usize) -> Result<Vec<Port>, Wrong> {
    const FORM: &str = "write `HOST:CONTAINER` or `ADDRESS:HOST:CONTAINER`, and `/udp` where it is not TCP, \
                        as `127.0.0.1:8080:80/tcp`; IPv6 addresses in brackets";
    let wrong = || Wrong::new(format!("{} is no published port", quoted(text)));
    let (ports, protocol) = match text.split_once('/') {
        None | Some((_, "tcp")) => (text.strip_suffix("/tcp").unwrap_or(text), Protocol::Tcp),
        Some((ports, "udp")) => (ports, Protocol::Udp),
        Some(_) => return Err(wrong().hint("the protocol is `/tcp` or `/udp`")),
    };
    let Some((rest, container)) = ports.rsplit_once(':') else {
        let hint = match read_range(ports) {
            Some(_) => {
                format!("write `{ports}:{ports}`: the port on the host, then the port in the container")
            }
            None => FORM.to_owned(),
        };
        return Err(wrong().hint(hint));
    };
    let (address, host) = match rest.rsplit_once(':') {
        Some((address, host)) => (Some(read_address(address).ok_or_else(|| wrong().hint(FORM))?), host),
        None => (None, rest),
    };
    let (Some(host), Some(container)) = (read_range(host), read_range(container)) else {
        return Err(wrong().hint("ports are numbers from 1 to 65535, or ranges as `8000-8010`"));
    };
    if host.len() != container.len() {
        let hint = format!("{} ports of the host lead to {} of the container", host.len(), container.len());
        return Err(wrong().hint(hint));
    }
    if host.len() > max {
        return Err(wrong().hint(format!("a range has at most {max} ports")));
    }
    // `0.0.0.0` and no address are the same thing; one form of it makes comparing simple.
    let address = address.filter(|address| *address != IpAddr::from([0, 0, 0, 0]));
    let port = |(host, container)| Port { address, host, container, protocol };
    Ok(host.zip(container).map(port).collect())
}

/// A port, or a first and a last one.
fn read_range(text: &str) -> Option<std::ops::RangeInclusive<u16>> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    parse_port(first)
        .zip(parse_port(last))
        .filter(|(first, last)| first <= last)
        .map(|(first, last)| first..=last)
}

/// An IPv4 address, or an IPv6 address in brackets that is not an IPv4 address in disguise.
fn read_address(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(v6) => {
            let address: Ipv6Addr = v6.parse().ok()?;
            address.to_ipv4_mapped().is_none().then_some(IpAddr::V6(address))
        }
        None => text.parse().ok().map(IpAddr::V4),
    }
}

/// Whether two published ports want the same port of the host.
pub(crate) fn collide(a: &Port, b: &Port) -> bool {
    let any = |port: &Port| port.address.is_none_or(|address| address.is_unspecified());
    let v6 = |port: &Port| port.address.is_some_and(|address| address.is_ipv6());
    let overlap = v6(a) == v6(b) && (any(a) || any(b) || a.address == b.address);
    a.protocol == b.protocol && a.host == b.host && overlap
}

/// The longest path, in bytes.
const MAX_PATH: usize = 1024;

/// A place in a container: absolute, normalised.
pub(crate) fn read_path(text: &str) -> Result<String, Wrong> {
    let wrong = |what: &str| Wrong::new(format!("{} {what}", quoted(text)));
    let Some(rest) = text.strip_prefix('/') else {
        return Err(wrong("is not an absolute path").hint("begin it with `/`"));
    };
    if text.len() > MAX_PATH {
        return Err(Wrong::new(format!("a path is at most {MAX_PATH} bytes long")));
    }
    let clean = |part: &str| !matches!(part, "" | "." | "..") && part.len() <= 255;
    if !rest.is_empty() && !rest.split('/').all(clean) {
        let hint = "leave out `.`, `..`, double slashes and the slash at the end";
        return Err(wrong("is not a normalised path").hint(hint));
    }
    Ok(text.to_owned())
}

/// A place where something is mounted: a path that hides nothing that keeps the container apart from its host.
pub(crate) fn read_target(text: &str) -> Result<String, Wrong> {
    let path = read_path(text)?;
    let wrong = |what: &str| Wrong::new(format!("nothing can be mounted at {}: {what}", quoted(text)));
    let within =
        |root: &str| path.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if path == "/" {
        return Err(wrong("it is the root of the container"));
    }
    if within("/proc") || within("/sys") || path == "/dev" {
        return Err(wrong("the kernel's own file systems are there"));
    }
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_one_form() {
        assert_eq!(read_size("64MiB"), Ok(64 * MIB));
        assert_eq!(read_size("0B"), Ok(0));
        assert_eq!(read_size("1TiB"), Ok(TIB));
        for text in [
            "",
            "64",
            "MiB",
            "64M",
            "64mb",
            "1.5GiB",
            "-1MiB",
            "+1MiB",
            " 1MiB",
            "1 MiB",
            "99999999TiB",
            "1TiB1",
        ] {
            assert!(read_size(text).is_err(), "{text:?}");
        }
        assert_eq!(read_size("64M").unwrap_err().hint.as_deref(), Some("write `64MiB`"));
    }

    #[test]
    fn durations_have_a_unit() {
        for (text, expect) in [("500ms", 500), ("10s", 10_000), ("2m", 120_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(read_duration(text), Ok(expect), "{text}");
        }
        for text in ["", "10", "s", "1.5s", "-1s", "1d", "10 s", "99999999999999999999s"] {
            assert!(read_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn cpus_are_exact() {
        for (text, expect) in
            [("0.5", 500), ("500m", 500), ("1.5", 1500), ("2", 2000), ("0.125", 125), ("0.05", 50)]
        {
            assert_eq!(read_cpu(text), Ok(expect), "{text}");
        }
        for text in ["", ".5", "1.", "0.1234", "1e3", "-1", "m", "1.5m", "0.+5", "NaN"] {
            assert!(read_cpu(text).is_err(), "{text:?}");
        }
    }

    fn read_port(text: &str) -> Result<Port, Wrong> {
        read_ports(text, 1).map(|mut ports| ports.remove(0))
    }

    #[test]
    fn ranges_lead_to_ranges_of_the_same_length() {
        let pairs = |text: &str| {
            read_ports(text, 4).map(|ports| ports.iter().map(|p| (p.host, p.container)).collect::<Vec<_>>())
        };
        assert_eq!(pairs("8000-8002:90-92"), Ok(vec![(8000, 90), (8001, 91), (8002, 92)]));
        for text in ["8000-8002:90-91", "8000-8002:90", "8002-8000:92-90", "1-5:1-5", "1-:1-", "-1:-1"] {
            assert!(read_ports(text, 4).is_err(), "{text:?}");
        }
    }

    #[test]
    fn ports_are_read_with_and_without_address_and_protocol() {
        let port = |text: &str| {
            read_port(text).map(|p| (p.address.map(|a| a.to_string()), p.host, p.container, p.protocol))
        };
        assert_eq!(port("8080:80"), Ok((None, 8080, 80, Protocol::Tcp)));
        assert_eq!(port("53:53/udp"), Ok((None, 53, 53, Protocol::Udp)));
        assert_eq!(port("127.0.0.1:1:2/tcp"), Ok((Some("127.0.0.1".to_owned()), 1, 2, Protocol::Tcp)));
        assert_eq!(port("[::1]:1:2"), Ok((Some("::1".to_owned()), 1, 2, Protocol::Tcp)));
        assert_eq!(port("0.0.0.0:1:2"), Ok((None, 1, 2, Protocol::Tcp)));
        for text in [
            "",
            "80",
            "0:80",
            "80:0",
            "08:80",
            "80:65536",
            "a:80",
            "80:80/sctp",
            "80:80/",
            "80:80/tcp/udp",
            "80:80/TCP",
            "localhost:80:80",
            "::1:80:80",
            "[::ffff:1.2.3.4]:80:80",
            "1.2.3:80:80",
            "80-81:80-81",
            ":80:80",
            "1.2.3.4::80",
        ] {
            assert!(read_port(text).is_err(), "{text:?}");
        }
        assert!(read_port("80").unwrap_err().hint.unwrap().contains("`80:80`"));
    }

    #[test]
    fn ports_collide_where_their_addresses_overlap() {
        let collide = |a: &str, b: &str| collide(&read_port(a).expect(a), &read_port(b).expect(b));
        assert!(collide("80:1", "80:2"));
        assert!(collide("80:1", "127.0.0.1:80:1"));
        assert!(collide("0.0.0.0:80:1", "127.0.0.1:80:1"));
        assert!(collide("[::]:80:1", "[::1]:80:1"));
        assert!(!collide("80:1", "81:1"));
        assert!(!collide("80:1", "80:1/udp"));
        assert!(!collide("127.0.0.2:80:1", "127.0.0.1:80:1"));
        assert!(!collide("80:1", "[::1]:80:1"));
    }

    #[test]
    fn paths_are_absolute_and_normalised() {
        for text in ["/", "/a", "/var/lib/x", "/a/..b"] {
            assert!(read_path(text).is_ok(), "{text}");
        }
        for text in
            ["", "a", "./a", "/a/", "//", "//a", "/a//b", "/a/./b", "/a/../b", "/..", &"/a".repeat(600)]
        {
            assert!(read_path(text).is_err(), "{text}");
        }
        for text in ["/data", "/process", "/dev/shm", "/system"] {
            assert!(read_target(text).is_ok(), "{text}");
        }
        for text in ["/", "/proc", "/proc/self", "/sys", "/sys/fs/cgroup", "/dev"] {
            assert!(read_target(text).is_err(), "{text}");
        }
    }
}
