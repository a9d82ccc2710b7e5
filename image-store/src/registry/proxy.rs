//! Through whom registries are reached, as the variables `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` say it.
//!
//! There is no standard for them; this is what Go's `golang.org/x/net/http/httpproxy` makes of them, which Docker, Podman and
//! containerd use.

use std::fmt;
use std::net::IpAddr;

use super::http::is_loopback;

/// The most exceptions that are read.
const MAX_EXCEPTIONS: usize = 1000;

/// Through whom registries are reached. `Debug` does not show what a proxy is shown.
#[derive(Clone, Default)]
pub struct Proxies {
    http: Option<String>,
    https: Option<String>,
    exceptions: Vec<Exception>,
}

/// This is no proxy that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{variable} is not understood: http://HOST:PORT or https://HOST:PORT is a proxy, and a domain, an address or a network an exception"
)]
pub struct NotAProxy {
    /// Where it was found.
    pub variable: &'static str,
}

/// Who is reached directly.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Exception {
    who: Who,
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Who {
    Everybody,
    /// A domain with what is below it.
    Domain(String),
    /// What is below a domain.
    Below(String),
    /// Addresses that begin with so many bits of this one.
    Network(IpAddr, u32),
}

impl Proxies {
    /// What the variables of an environment say; those in lower case count before those in upper case. What is not understood in
    /// `NO_PROXY` is passed over, as everywhere.
    ///
    /// # Errors
    /// [`NotAProxy`]
    pub fn from_env(variable: impl Fn(&str) -> Option<String>) -> Result<Self, NotAProxy> {
        let read = |name: &str| {
            variable(&name.to_ascii_lowercase()).or_else(|| variable(name)).filter(|text| !text.is_empty())
        };
        let proxy = |name: &'static str| read(name).map(|text| address(&text, name)).transpose();
        let exceptions = read("NO_PROXY").unwrap_or_default();
        Ok(Self {
            http: proxy("HTTP_PROXY")?,
            https: proxy("HTTPS_PROXY")?,
            exceptions: exceptions.split([',', ' ']).filter_map(exception).take(MAX_EXCEPTIONS).collect(),
        })
    }

    /// One proxy for everything but some exceptions, in the words of `NO_PROXY`.
    ///
    /// # Errors
    /// [`NotAProxy`]; also where an exception is not understood.
    pub fn one<'a>(url: &str, exceptions: impl IntoIterator<Item = &'a str>) -> Result<Self, NotAProxy> {
        let proxy = address(url, "the address")?;
        let exceptions: Option<Vec<_>> = exceptions.into_iter().map(exception).collect();
        let exceptions = exceptions.ok_or(NotAProxy { variable: "an exception" })?;
        Ok(Self { http: Some(proxy.clone()), https: Some(proxy), exceptions })
    }

    /// The address of the proxy for this host and port. Loopback is never reached through one.
    pub(super) fn of(&self, tls: bool, host: &str, port: u16) -> Option<&str> {
        let proxy = if tls { &self.https } else { &self.http };
        let direct = is_loopback(host) || self.exceptions.iter().any(|exception| exception.fits(host, port));
        proxy.as_deref().filter(|_| !direct)
    }

    /// Whether one of them goes by this name.
    pub(super) fn is_at(&self, name: &str) -> bool {
        let is_at = |proxy: &String| {
            let host = super::http::host_of(proxy).map(|(host, _)| host).unwrap_or_default();
            host.split(':').next() == Some(name)
        };
        self.http.iter().chain(&self.https).any(is_at)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.http.is_none() && self.https.is_none()
    }
}

impl fmt::Debug for Proxies {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxies")
            .field("http", &self.http.is_some())
            .field("https", &self.https.is_some())
            .field("exceptions", &self.exceptions)
            .finish()
    }
}

/// The address of a proxy, with the scheme that people leave out.
fn address(text: &str, variable: &'static str) -> Result<String, NotAProxy> {
    let full = if text.contains("://") { text.to_owned() } else { format!("http://{text}") };
    let sound = ["http://", "https://"].iter().any(|scheme| full.starts_with(scheme));
    let parsed = super::http::host_of(&full).filter(|(host, _)| sound && !host.is_empty());
    parsed.map(|_| full).ok_or(NotAProxy { variable })
}

fn exception(text: &str) -> Option<Exception> {
    let text = text.trim().to_ascii_lowercase();
    if text == "*" {
        return Some(Exception { who: Who::Everybody, port: None });
    }
    if let Some((network, bits)) = text.split_once('/') {
        let (address, bits) = (network.parse().ok()?, bits.parse().ok()?);
        let length = if matches!(address, IpAddr::V4(_)) { 32 } else { 128 };
        return (bits <= length).then_some(Exception { who: Who::Network(address, bits), port: None });
    }
    if let Ok(address) = text.trim_matches(['[', ']']).parse::<IpAddr>() {
        return Some(Exception { who: one(address), port: None });
    }
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) => (host, Some(port.parse().ok()?)),
        None => (text.as_str(), None),
    };
    if let Ok(address) = host.trim_matches(['[', ']']).parse() {
        return Some(Exception { who: one(address), port });
    }
    let host = host.strip_prefix('*').unwrap_or(host);
    let who = match host.strip_prefix('.') {
        Some(domain) => Who::Below(domain.to_owned()),
        None => Who::Domain(host.to_owned()),
    };
    (!host.trim_matches('.').is_empty()).then_some(Exception { who, port })
}

fn one(address: IpAddr) -> Who {
    Who::Network(address, 128)
}

impl Exception {
    fn fits(&self, host: &str, port: u16) -> bool {
        if self.port.is_some_and(|wanted| wanted != port) {
            return false;
        }
        let host = host.trim_matches(['[', ']']).trim_end_matches('.').to_ascii_lowercase();
        let is_below = |domain: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        match &self.who {
            Who::Everybody => true,
            Who::Domain(domain) => host == *domain || is_below(domain),
            Who::Below(domain) => is_below(domain),
            Who::Network(network, bits) => host.parse().is_ok_and(|host| is_in(host, *network, *bits)),
        }
    }
}

/// Whether the first `bits` of two addresses of one kind are the same.
fn is_in(address: IpAddr, network: IpAddr, bits: u32) -> bool {
    let (differ, length) = match (address, network) {
        (IpAddr::V4(a), IpAddr::V4(b)) => (u128::from(a.to_bits() ^ b.to_bits()), 32),
        (IpAddr::V6(a), IpAddr::V6(b)) => (a.to_bits() ^ b.to_bits(), 128),
        _ => return false,
    };
    differ.checked_shr(length - bits.min(length)).unwrap_or_default() == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxies(variables: &[(&str, &str)]) -> Result<Proxies, NotAProxy> {
        let find =
            |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, text)| text.to_string());
        Proxies::from_env(find)
    }

    #[test]
    fn one_proxy_is_for_everything_but_its_exceptions() {
        let one = Proxies::one("http://p.example:3128", ["192.0.2.0/24", "own.example"]).expect("sound");
        assert_eq!(one.of(true, "registry.example", 443), Some("http://p.example:3128"));
        assert_eq!(one.of(false, "registry.example", 80), Some("http://p.example:3128"));
        assert_eq!(one.of(true, "a.own.example", 443), None);
        assert_eq!(one.of(true, "192.0.2.7", 443), None);
        Proxies::one("ftp://p.example", []).expect_err("another protocol");
        Proxies::one("http://p.example", ["192.0.2.0/99"]).expect_err("no network");
    }

    #[test]
    fn proxies_are_read_from_either_spelling() {
        let both = proxies(&[
            ("HTTPS_PROXY", "http://upper:1"),
            ("https_proxy", "lower:2"),
            ("HTTP_PROXY", "https://p:3"),
        ]);
        let both = both.expect("sound");
        assert_eq!(both.of(true, "a.example", 443), Some("http://lower:2"));
        assert_eq!(both.of(false, "a.example", 80), Some("https://p:3"));
        assert!(both.is_at("p") && both.is_at("lower") && !both.is_at("upper") && !both.is_at(""));
        assert!(proxies(&[("http_proxy", "")]).expect("sound").is_empty());
        for wrong in ["socks5://p:1", "ftp://p", "http://", "a b"] {
            let error = proxies(&[("HTTPS_PROXY", wrong)]).expect_err(wrong);
            assert_eq!(error.variable, "HTTPS_PROXY");
        }
    }

    #[test]
    fn exceptions_are_domains_addresses_networks_and_ports() {
        let direct = |exceptions: &str, host: &str, port: u16| {
            let all = proxies(&[("HTTPS_PROXY", "p:1"), ("NO_PROXY", exceptions)]).expect("sound");
            all.of(true, host, port).is_none()
        };
        for (exceptions, host, port) in [
            ("*", "a.example", 443),
            ("x, a.example", "a.example", 443),
            ("example", "a.example", 443),
            ("A.Example", "a.example.", 443),
            (".example", "a.example", 443),
            ("*.example", "a.example", 443),
            ("a.example:5000", "a.example", 5000),
            ("10.0.0.7", "10.0.0.7", 443),
            ("10.0.0.7:5000", "10.0.0.7", 5000),
            ("10.0.0.0/8", "10.255.0.1", 443),
            ("0.0.0.0/0", "192.0.2.1", 443),
            ("2001:db8::/32", "[2001:db8::1]", 443),
            ("[2001:db8::1]", "[2001:db8::1]", 443),
            ("[2001:db8::1]:5000", "[2001:db8::1]", 5000),
            ("", "localhost", 443),
            ("", "127.0.0.1", 5000),
            ("", "[::1]", 443),
        ] {
            assert!(direct(exceptions, host, port), "{exceptions} {host}:{port}");
        }
        for (exceptions, host, port) in [
            ("", "a.example", 443),
            ("a.example", "ba.example", 443),
            ("a.example", "example", 443),
            (".example", "example", 443),
            ("a.example:5000", "a.example", 443),
            ("10.0.0.0/8", "11.0.0.1", 443),
            ("10.0.0.0/8", "10.example", 443),
            ("10.0.0.0/33", "10.0.0.1", 443),
            ("10.0.0.7", "10.0.0.70", 443),
            (",. ,:,[]", "a.example", 443),
        ] {
            assert!(!direct(exceptions, host, port), "{exceptions} {host}:{port}");
        }
    }

    #[test]
    fn what_a_proxy_is_shown_is_not_shown() {
        let shown = format!("{:?}", proxies(&[("HTTP_PROXY", "http://ci:hunter2@p:1")]).expect("sound"));
        assert!(!shown.contains("hunter2"), "{shown}");
        let error = proxies(&[("HTTP_PROXY", "ftp://ci:hunter2@p:1")]).expect_err("no proxy");
        assert!(!format!("{error} {error:?}").contains("hunter2"));
    }
}
