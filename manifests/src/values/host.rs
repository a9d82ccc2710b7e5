//! Host names, URLs, and what the kernel is told.

use std::collections::BTreeMap;

use crate::document::Wrong;
use crate::fault::quoted;
use crate::key::PublicKey;
use crate::language::{Reader, map, spec, text};
use crate::values::{MAX_ENTRIES, MAX_LABEL, MAX_SPEC};

/// A host name (RFC 1123, section 2.1), in lower case.
pub(crate) fn host_name() -> impl Reader<Out = String> {
    let syntax = "labels of `a-z`, `0-9` and `-` with dots between them, at most 253 bytes";
    spec("a host name", syntax, "^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$", 253, read_host_name)
}

/// A host name.
pub(crate) fn read_host_name(text: &str) -> Result<String, Wrong> {
    let label = |label: &str| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
        (1..=63).contains(&label.len())
            && label.bytes().all(word)
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    if (1..=253).contains(&text.len()) && text.split('.').all(label) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no host name", quoted(text)))
        .hint("write it in lower case, as `web.example.org`"))
}

/// A time zone, by its name in the IANA database. Whether there is one of that name, the host's copy knows.
pub(crate) fn time_zone() -> impl Reader<Out = String> {
    spec("a time zone", "its name in the IANA database", "^[A-Z][A-Za-z0-9_+/-]*$", 64, read_time_zone)
}

/// A time zone.
pub(crate) fn read_time_zone(text: &str) -> Result<String, Wrong> {
    let part = |part: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'+');
        !part.is_empty() && part.bytes().all(word)
    };
    if text.starts_with(|c: char| c.is_ascii_uppercase()) && text.split('/').all(part) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no time zone", quoted(text))).hint("write it as `UTC` or `Europe/Vienna`"))
}

/// `SCHEME://[HOST][:PORT][/PATH]` with one of these schemes; its host, which may be empty, and its port.
fn read_url<'a>(text: &'a str, schemes: &[&str]) -> Result<(&'a str, Option<u16>), Wrong> {
    let forms: Vec<String> = schemes.iter().map(|scheme| format!("`{scheme}://`")).collect();
    let wrong = |what: &str| {
        let hint = format!("it begins with {}", forms.join(" or "));
        Wrong::new(format!("{} is no URL that can be used here: {what}", quoted(text))).hint(hint)
    };
    let (scheme, rest) = text.split_once("://").ok_or_else(|| wrong("it has no scheme"))?;
    if !schemes.contains(&scheme) {
        return Err(wrong("the scheme is another one"));
    }
    if text
        .bytes()
        .any(|b| !b.is_ascii_graphic() || matches!(b, b'"' | b'<' | b'>' | b'\\' | b'`' | b'@' | b'#'))
    {
        return Err(wrong("there is a character in it that must not be"));
    }
    let authority = rest.split(['/', '?']).next().unwrap_or("");
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(port)),
        _ => (authority, None),
    };
    let port = match port.map(crate::reference::parse_port) {
        Some(None) => return Err(wrong("the port is not from 1 to 65535")),
        Some(port) => port,
        None => None,
    };
    let literal = host.strip_prefix('[').and_then(|host| host.strip_suffix(']'));
    let sound = host.is_empty()
        || read_host_name(&host.to_ascii_lowercase()).is_ok()
        || literal.is_some_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok());
    if sound { Ok((host, port)) } else { Err(wrong("the host cannot be read")) }
}

/// A URL of a service.
pub(crate) fn url() -> impl Reader<Out = String> {
    spec("a URL", "`https://…` or `http://…`", "^https?://", MAX_SPEC, |text| {
        match read_url(text, &["https", "http"])? {
            ("", _) => Err(Wrong::new(format!("{} names no host", quoted(text)))),
            _ => Ok(text.to_owned()),
        }
    })
}

/// Where logs go.
pub(crate) fn forward_url() -> impl Reader<Out = String> {
    let syntax = "`tls://HOST:PORT`, `tcp://HOST:PORT` or `https://…`";
    spec("a URL", syntax, "^(tls|tcp|https?)://", MAX_SPEC, |text| {
        let bare = text.starts_with("tls:") || text.starts_with("tcp:");
        match read_url(text, &["tls", "tcp", "https", "http"])? {
            ("", _) => Err(Wrong::new(format!("{} names no host", quoted(text)))),
            (_, None) if bare => Err(Wrong::new(format!("{} names no port", quoted(text)))),
            _ => Ok(text.to_owned()),
        }
    })
}

/// A page of a container, whose host is left out or a name of the container.
pub(crate) fn probe_url() -> impl Reader<Out = String> {
    let syntax = "`http://[NAME]:PORT/PATH`";
    spec("a URL", syntax, "^http://", MAX_SPEC, |text| match read_url(text, &["http"])? {
        (_, None) => {
            Err(Wrong::new(format!("{} names no port", quoted(text)))
                .hint("write it as `http://:8080/healthz`"))
        }
        _ => Ok(text.to_owned()),
    })
}

/// An argument on the kernel's command line. Those that decide what is booted and trusted are the image's.
pub(crate) fn kernel_argument() -> impl Reader<Out = String> {
    const OURS: [&str; 9] = [
        "bennu.",
        "init=",
        "rdinit=",
        "root=",
        "rootflags=",
        "lsm=",
        "lockdown=",
        "module.sig_enforce",
        "systemd.unit=",
    ];
    spec("a kernel argument", "one word without spaces and quotes", "^[!-~]+$", 1024, |text| {
        if text.is_empty() || text.bytes().any(|b| !b.is_ascii_graphic() || b == b'"' || b == b'\'') {
            return Err(
                Wrong::new(format!("{} is not one word", quoted(text))).hint("write each argument by itself")
            );
        }
        match OURS.iter().find(|ours| text.starts_with(**ours)) {
            Some(_) => Err(Wrong::new(format!("{} is decided by the image", quoted(text)))),
            None => Ok(text.to_owned()),
        }
    })
}

/// A kernel module.
pub(crate) fn kernel_module() -> impl Reader<Out = String> {
    spec("a kernel module", "its name without `.ko`", "^[A-Za-z0-9_-]+$", 64, |text| {
        let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
        let wrong = || {
            Wrong::new(format!("{} is no kernel module", quoted(text))).hint("write its name without `.ko`")
        };
        if !text.is_empty() && text.bytes().all(word) { Ok(text.to_owned()) } else { Err(wrong()) }
    })
}

/// Whether `text` is a kernel parameter, as sysctl(8) writes it.
fn is_parameter(text: &str) -> bool {
    let part = |part: &str| {
        let word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
        !part.is_empty() && part.bytes().all(word)
    };
    text.len() <= MAX_LABEL && text.contains('.') && text.split('.').all(part)
}

fn read_parameter(text: &str) -> Result<String, Wrong> {
    let wrong = || Wrong::new(format!("{} is no kernel parameter", quoted(text)));
    if is_parameter(text) { Ok(text.to_owned()) } else { Err(wrong().hint("write it as `vm.swappiness`")) }
}

/// Parameters that belong to a container's own namespaces (namespaces(7)).
fn read_own_parameter(text: &str) -> Result<String, Wrong> {
    let text = read_parameter(text)?;
    let ipc = ["kernel.msgmax", "kernel.msgmnb", "kernel.msgmni", "kernel.sem", "kernel.shm_rmid_forced"];
    let own = ["net.", "fs.mqueue."].iter().any(|begin| text.starts_with(begin))
        || ipc.contains(&text.as_str())
        || ["kernel.shmall", "kernel.shmmax", "kernel.shmmni"].contains(&text.as_str());
    let wrong = || Wrong::new(format!("{} is the host's, not the container's own", quoted(&text)));
    if own { Ok(text) } else { Err(wrong().hint("set it in `[os] sysctls`")) }
}

/// The host's kernel parameters.
pub(crate) fn host_sysctls() -> impl Reader<Out = BTreeMap<String, String>> {
    let key = super::form("a kernel parameter", "as sysctl(8) has it, with dots", "", MAX_LABEL);
    map(key, read_parameter, text("a value", MAX_LABEL), MAX_ENTRIES)
}

/// A container's own kernel parameters.
pub(crate) fn container_sysctls() -> impl Reader<Out = BTreeMap<String, String>> {
    let key =
        super::form("a kernel parameter", "`net.*`, `fs.mqueue.*`, and those of System V IPC", "", MAX_LABEL);
    map(key, read_own_parameter, text("a value", MAX_LABEL), MAX_ENTRIES)
}

/// A public key of a person, in the format of OpenSSH.
pub(crate) fn ssh_public_key() -> impl Reader<Out = String> {
    spec("a public key", "the line of a `.pub` file of OpenSSH", "", 1024, |line| {
        let key = line.parse::<PublicKey>().map_err(|error| {
            Wrong::new(error.to_string()).hint("copy the one line of the `.pub` file beside the key")
        })?;
        Ok(key.to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_name_what_can_be_reached() {
        for good in ["http://:80", "http://:8080/healthz?deep=1", "http://web:80/x"] {
            assert!(read_url(good, &["http"]).is_ok_and(|(_, port)| port.is_some()), "{good}");
        }
        assert_eq!(read_url("https://[::1]:5000/x", &["https"]), Ok(("[::1]", Some(5000))));
        for bad in
            ["", "http:/x", "ftp://a/", "http://a:0/", "http://a b/", "http://user@a/", "http://a:99999/"]
        {
            assert!(read_url(bad, &["http"]).is_err(), "{bad}");
        }
    }

    #[test]
    fn parameters_of_the_host_are_not_the_containers() {
        assert!(read_own_parameter("net.core.somaxconn").is_ok() && read_own_parameter("kernel.sem").is_ok());
        assert!(
            read_own_parameter("kernel.core_pattern").is_err()
                && read_own_parameter("vm.swappiness").is_err()
        );
        assert!(read_parameter("vm.swappiness").is_ok() && read_parameter("../x").is_err());
    }
}
