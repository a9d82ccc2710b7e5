//! Values in the notation of Docker, Podman and systemd, made into the notation of the manifest.
//!
//! Every function answers `Err` with what is expected, in the words of a note.

use bennu_manifests::UnpinnedRef;

/// What a function here says of a value that it cannot read.
pub(crate) type Said<T> = Result<T, String>;

/// A size: `64m`, `1.5gb`, `1048576` (Compose specification, "Specifying byte values"; go-units, RAMInBytes: every
/// unit is a power of 1024).
pub(crate) fn size(text: &str) -> Said<String> {
    bytes(text).map(size_of)
}

/// As [`size`], in bytes.
pub(crate) fn bytes(text: &str) -> Said<u64> {
    let wrong = || "a size is expected, as `64m`".to_owned();
    let text = text.trim();
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let scale: u64 = match unit.trim_end_matches('b').trim_end_matches('i') {
        "" if unit != "i" => 1,
        "k" => 1 << 10,
        "m" => 1 << 20,
        "g" => 1 << 30,
        "t" => 1 << 40,
        _ => return Err(wrong()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(scale).ok_or_else(wrong);
    }
    let value = number.parse::<f64>().map_err(|_| wrong())? * scale as f64;
    // Beyond this a float does not count single bytes, and no host has as many.
    if (0.0..9e15).contains(&value) { Ok(value.round() as u64) } else { Err(wrong()) }
}

/// Bytes in the largest unit that says them exactly.
pub(crate) fn size_of(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    let unit = units.iter().find(|(shift, _)| bytes > 0 && bytes.trailing_zeros() >= *shift);
    match unit {
        Some((shift, unit)) => format!("{}{unit}", bytes >> shift),
        None => format!("{bytes}B"),
    }
}

/// A duration: `1m30s`, `500ms`, `1h` (Compose specification, "Specifying durations"), also with spaces and the long
/// units of systemd.time(7); a number alone is seconds.
pub(crate) fn duration(text: &str) -> Said<String> {
    milliseconds(text).map(duration_of)
}

/// As [`duration`], in milliseconds.
pub(crate) fn milliseconds(text: &str) -> Said<u64> {
    let wrong = || "a duration is expected, as `1m30s`".to_owned();
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(wrong());
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let end = rest.find(|c: char| !(c.is_ascii_digit() || c == '.')).unwrap_or(rest.len());
        let (number, after) = rest.split_at(end);
        let after = after.trim_start();
        let end = after.find(|c: char| !(c.is_alphabetic() || c == 'µ')).unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        let scale = match unit {
            "ns" => 1e-6,
            "us" | "µs" | "usec" => 1e-3,
            "ms" | "msec" => 1.0,
            "" | "s" | "sec" | "second" | "seconds" => 1e3,
            "m" | "min" | "minute" | "minutes" => 6e4,
            "h" | "hr" | "hour" | "hours" => 3.6e6,
            "d" | "day" | "days" => 8.64e7,
            "w" | "week" | "weeks" => 6.048e8,
            _ => return Err(wrong()),
        };
        total += number.parse::<f64>().map_err(|_| wrong())? * scale;
        rest = after.trim_start();
    }
    // A hundred years: more is a slip.
    if (0.0..3.2e12).contains(&total) { Ok(total.round() as u64) } else { Err(wrong()) }
}

/// Milliseconds in the largest unit that says them exactly.
pub(crate) fn duration_of(milliseconds: u64) -> String {
    let units = [(3_600_000, "h"), (60_000, "m"), (1000, "s")];
    let unit = units.iter().find(|(scale, _)| milliseconds > 0 && milliseconds.is_multiple_of(*scale));
    match unit {
        Some((scale, unit)) => format!("{}{unit}", milliseconds / scale),
        None if milliseconds == 0 => "0s".to_owned(),
        None => format!("{milliseconds}ms"),
    }
}

/// A number of CPUs with at most three decimals.
pub(crate) fn cpus(text: &str) -> Said<String> {
    let wrong = || "a number of CPUs is expected, as `0.5`".to_owned();
    let value = text.trim().parse::<f64>().map_err(|_| wrong())?;
    let thousandths = (value * 1000.0).round();
    // A hundredth of a CPU is the least that the kernel's quota can say.
    if !(10.0..=1_024_000.0).contains(&thousandths) {
        return Err(wrong());
    }
    let thousandths = thousandths as u64;
    let text = format!("{}.{:03}", thousandths / 1000, thousandths % 1000);
    Ok(text.trim_end_matches('0').trim_end_matches('.').to_owned())
}

/// CPU shares (2 to 262144, 1024 being usual) as a weight (1 to 10000, 100 being usual), by the rule of systemd
/// (src/core/cgroup.c, `cgroup_cpu_shares_to_weight`).
pub(crate) fn cpu_weight(text: &str) -> Said<i64> {
    let shares: u64 = text.trim().parse().map_err(|_| "a number of shares is expected".to_owned())?;
    Ok((shares.saturating_mul(100) / 1024).clamp(1, 10_000) as i64)
}

/// A weight of block I/O (10 to 1000, 500 being usual) as a weight of today (1 to 10000, 100 being usual), by the rule
/// of systemd (src/core/cgroup.c, `cgroup_weight_blkio_to_io`).
pub(crate) fn io_weight(text: &str) -> Said<i64> {
    let weight: u64 = text.trim().parse().map_err(|_| "a weight is expected".to_owned())?;
    Ok((weight.saturating_mul(100) / 500).clamp(1, 10_000) as i64)
}

/// The reference with its registry and tag written out: `nginx` is `docker.io/library/nginx:latest` (distribution
/// reference, "normalized names"). What has a digest gets no tag.
pub(crate) fn image(text: &str) -> Said<String> {
    let text = text.trim();
    let text = text.strip_prefix("docker://").unwrap_or(text);
    let first = text.split('/').next().unwrap_or_default();
    let is_host = text.contains('/') && (first.contains(['.', ':']) || first == "localhost");
    let full = match (is_host, text.contains('/')) {
        (true, _) => {
            text.strip_prefix("index.docker.io/").map_or(text.to_owned(), |rest| format!("docker.io/{rest}"))
        }
        (false, true) => format!("docker.io/{text}"),
        (false, false) => format!("docker.io/library/{text}"),
    };
    let mut reference: UnpinnedRef =
        full.parse().map_err(|error| format!("it is no reference to an image: {error}"))?;
    if reference.registry == "docker.io" && !reference.repository.contains('/') {
        reference.repository = format!("library/{}", reference.repository);
    }
    if reference.tag.is_none() && reference.digest.is_none() {
        reference.tag = Some("latest".to_owned());
    }
    Ok(reference.to_string())
}

/// The name of a signal, also from `TERM` and `15` (signal(7), the numbers of x86 and ARM).
pub(crate) fn signal(text: &str) -> Said<String> {
    const NUMBERED: [(u8, &str); 15] = [
        (1, "SIGHUP"),
        (2, "SIGINT"),
        (3, "SIGQUIT"),
        (6, "SIGABRT"),
        (9, "SIGKILL"),
        (10, "SIGUSR1"),
        (12, "SIGUSR2"),
        (13, "SIGPIPE"),
        (14, "SIGALRM"),
        (15, "SIGTERM"),
        (17, "SIGCHLD"),
        (18, "SIGCONT"),
        (20, "SIGTSTP"),
        (28, "SIGWINCH"),
        (37, "SIGRTMIN+3"),
    ];
    let text = text.trim().to_ascii_uppercase();
    if let Ok(number) = text.parse::<u8>() {
        let known = NUMBERED.iter().find(|(known, _)| *known == number);
        return known.map(|(_, name)| (*name).to_owned()).ok_or_else(|| "the number of no signal".to_owned());
    }
    let name = if text.starts_with("SIG") { text } else { format!("SIG{text}") };
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'+';
    if name.len() > 3 && name.len() < 16 && name.bytes().all(word) {
        Ok(name)
    } else {
        Err("a signal is expected, as `SIGTERM`".to_owned())
    }
}

/// A capability without `CAP_`.
pub(crate) fn capability(text: &str) -> String {
    let upper = text.trim().to_ascii_uppercase();
    upper.strip_prefix("CAP_").map_or(upper.clone(), str::to_owned)
}

/// A path in a container, absolute and normalised, as the manifest wants it.
pub(crate) fn path(text: &str) -> Said<String> {
    if !text.starts_with('/') {
        return Err("an absolute path in the container is expected".to_owned());
    }
    let mut parts: Vec<&str> = Vec::new();
    for part in text.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    Ok(format!("/{}", parts.join("/")))
}

/// A file's mode, four octal digits: from `0440`, `440`, `0o440` and, where YAML made a number of it, 288.
pub(crate) fn mode(text: &str) -> Said<String> {
    let digits = text.trim().trim_start_matches("0o");
    let value = u32::from_str_radix(digits, 8).ok().filter(|value| *value <= 0o7777 && digits.len() <= 5);
    value
        .map(|value| format!("{value:04o}"))
        .ok_or_else(|| "a mode in octal digits is expected, as `0440`".to_owned())
}

/// A range of ports: `80`, `8000-8010`.
fn port_range(text: &str) -> Option<(u16, u16)> {
    let port = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    match text.split_once('-') {
        Some((first, last)) => Some((port(first)?, port(last)?)).filter(|(first, last)| first <= last),
        None => port(text).map(|port| (port, port)),
    }
}

/// What a published port comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Published {
    /// `[ADDRESS:]HOST:CONTAINER[/udp]`.
    pub(crate) port: String,
    /// No port of the host was named: it is that of the container.
    pub(crate) any: bool,
}

/// A published port of the short form: `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`, with ranges (Compose specification,
/// "ports", "Short syntax").
pub(crate) fn port(text: &str) -> Said<Published> {
    let wrong = || "a published port is expected, as `127.0.0.1:8080:80/tcp`".to_owned();
    let (ports, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
    let (rest, container) = ports.rsplit_once(':').map_or(("", ports), |(rest, port)| (rest, port));
    // `[::1]:80` ends in `]` before the port of the host.
    let (address, host) = match rest.rsplit_once(':') {
        _ if rest.ends_with(']') => (rest, ""),
        Some((address, host)) => (address, host),
        None if rest.contains('.') => (rest, ""),
        None => ("", rest),
    };
    published(address, host, container, protocol).ok_or_else(wrong)?
}

/// A published port from its parts; `None` where one of them is no port.
pub(crate) fn published(
    address: &str,
    host: &str,
    container: &str,
    protocol: &str,
) -> Option<Said<Published>> {
    let container = port_range(container)?;
    let any = host.is_empty();
    let mut host = if any { container } else { port_range(host)? };
    if container.0 == container.1 && host.0 != host.1 {
        return Some(Err(
            "a range of ports for one port means: any of them. Name the one to publish".to_owned()
        ));
    }
    if host.0 == host.1 && container.0 != container.1 {
        host.1 = host.0.checked_add(container.1 - container.0)?;
    }
    if host.1 - host.0 != container.1 - container.0 {
        return Some(Err("the two ranges of ports have different lengths".to_owned()));
    }
    let suffix = match protocol.to_ascii_lowercase().as_str() {
        "tcp" | "" => "",
        "udp" => "/udp",
        other => return Some(Err(format!("{} is neither TCP nor UDP", crate::note::quoted(other)))),
    };
    let plain = address.trim_start_matches('[').trim_end_matches(']');
    let address = match plain.parse::<std::net::IpAddr>() {
        _ if plain.is_empty() => String::new(),
        Ok(std::net::IpAddr::V4(address)) if address.is_unspecified() => String::new(),
        Ok(std::net::IpAddr::V4(address)) => format!("{address}:"),
        Ok(std::net::IpAddr::V6(address)) => format!("[{address}]:"),
        Err(_) => return None,
    };
    let range =
        |(first, last): (u16, u16)| if first == last { first.to_string() } else { format!("{first}-{last}") };
    Some(Ok(Published { port: format!("{address}{}:{}{suffix}", range(host), range(container)), any }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_in_the_largest_unit() {
        for (text, expect) in [
            ("64m", "64MiB"),
            ("64MB", "64MiB"),
            ("1.5g", "1536MiB"),
            ("1GiB", "1GiB"),
            ("2048k", "2MiB"),
            ("1000", "1000B"),
            ("1024b", "1KiB"),
            ("0", "0B"),
        ] {
            assert_eq!(size(text).as_deref(), Ok(expect), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1e99999g", "99999999999999999999", "inf", "1.2.3"] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn durations_are_in_the_largest_unit() {
        for (text, expect) in [
            ("1m30s", "90s"),
            ("90s", "90s"),
            ("500ms", "500ms"),
            ("1h0m", "1h"),
            ("10", "10s"),
            ("1min 30s", "90s"),
            ("2d", "48h"),
            ("0s", "0s"),
            ("1.5s", "1500ms"),
        ] {
            assert_eq!(duration(text).as_deref(), Ok(expect), "{text}");
        }
        for text in ["", "s", "-1s", "1x", "1s2y", "9999999999999s"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn images_get_their_registry_and_tag() {
        for (text, expect) in [
            ("nginx", "docker.io/library/nginx:latest"),
            ("nginx:1.27", "docker.io/library/nginx:1.27"),
            ("grafana/grafana", "docker.io/grafana/grafana:latest"),
            ("docker.io/nginx", "docker.io/library/nginx:latest"),
            ("localhost/a", "localhost/a:latest"),
            ("localhost:5000/a:1", "localhost:5000/a:1"),
            ("quay.io/a/b:c", "quay.io/a/b:c"),
        ] {
            assert_eq!(image(text).as_deref(), Ok(expect), "{text}");
        }
        let digest = format!("@sha256:{}", "0".repeat(64));
        assert_eq!(image(&format!("nginx{digest}")), Ok(format!("docker.io/library/nginx{digest}")));
        for text in ["", "Nginx", "a b", "docker.io/", "a:b:c"] {
            assert!(image(text).is_err(), "{text}");
        }
    }

    #[test]
    fn ports_have_every_short_form() {
        for (text, expect, any) in [
            ("3000", "3000:3000", true),
            ("3000-3005", "3000-3005:3000-3005", true),
            ("8000:80", "8000:80", false),
            ("9090-9091:8080-8081", "9090-9091:8080-8081", false),
            ("127.0.0.1:8001:8001", "127.0.0.1:8001:8001", false),
            ("0.0.0.0:80:80", "80:80", false),
            ("6060:6060/udp", "6060:6060/udp", false),
            ("[::1]:80:81", "[::1]:80:81", false),
            ("127.0.0.1::80", "127.0.0.1:80:80", true),
            ("8000:80-82", "8000-8002:80-82", false),
        ] {
            let expect = Published { port: expect.to_owned(), any };
            assert_eq!(port(text), Ok(expect), "{text}");
        }
        for text in [
            "",
            "0:80",
            "80:0",
            "a:80",
            "65536:80",
            "80:80/sctp",
            "1-3:80",
            "1-3:1-2",
            "65535:1-2",
            "x.y:1:1",
        ] {
            assert!(port(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_weights_modes_paths_and_signals() {
        assert_eq!(cpus("0.5").as_deref(), Ok("0.5"));
        assert_eq!(cpus("2").as_deref(), Ok("2"));
        assert_eq!(cpus(".25").as_deref(), Ok("0.25"));
        assert!(cpus("0").is_err() && cpus("nan").is_err() && cpus("1e9").is_err());
        assert_eq!((cpu_weight("1024"), cpu_weight("2"), cpu_weight("512")), (Ok(100), Ok(1), Ok(50)));
        assert_eq!((io_weight("500"), io_weight("10")), (Ok(100), Ok(2)));
        assert_eq!(mode("0440").as_deref(), Ok("0440"));
        assert_eq!(mode("440").as_deref(), Ok("0440"));
        assert!(mode("9").is_err() && mode("77777").is_err());
        assert_eq!(path("/a//b/../c/").as_deref(), Ok("/a/c"));
        assert!(path("a").is_err());
        assert_eq!(signal("term").as_deref(), Ok("SIGTERM"));
        assert_eq!(signal("15").as_deref(), Ok("SIGTERM"));
        assert!(signal("99").is_err() && signal("a b").is_err());
    }
}
