//! How to reach registries.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::credentials::Credentials;
use super::proxy::Proxies;
use super::tls::Tls;
use crate::budget::LAYERS_AT_ONCE;

/// How to reach registries.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct ClientOptions {
    /// Registries (`HOST[:PORT]`) that are spoken to without TLS. Loopback always may.
    pub plain_http: BTreeSet<String>,
    /// Whether every registry is spoken to without TLS.
    pub plain_http_everywhere: bool,
    /// How to log in, by `HOST[:PORT][/PATH]`; of several that fit a repository the longest counts. They are sent over TLS, to
    /// loopback, and to those of [`ClientOptions::plain_http`], and only to who asks for them: `plain_http_everywhere` lets
    /// none of them out.
    pub credentials: BTreeMap<String, Credentials>,
    /// Token servers (`HOST[:PORT]`) of another domain that may see the credentials of a registry (`HOST[:PORT]`).
    pub token_servers: BTreeMap<String, BTreeSet<String>>,
    /// Whom a registry (`HOST[:PORT]`) is believed to be, and what it is shown, where that differs from the rest. It counts for
    /// this registry alone, and not where it leads. One on loopback that is named here is spoken to with TLS.
    pub tls: BTreeMap<String, Tls>,
    /// Where else the content of a registry (`HOST[:PORT]`) is: places (`HOST[:PORT][/PATH]`) that are asked in this order before
    /// the registry itself, for what is asked for by its digest. What else is said here about a registry counts for a mirror only
    /// under the mirror's own name.
    pub mirrors: BTreeMap<String, Vec<String>>,
    /// Through whom registries are reached.
    pub proxies: Proxies,
    /// Layers that are fetched side by side, of all images together; at least 1.
    pub layers_at_once: usize,
    /// The pause before the second try; each further one doubles it.
    pub first_pause: Duration,
    /// How long a server is waited for.
    pub patience: Patience,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            plain_http: BTreeSet::new(),
            plain_http_everywhere: false,
            credentials: BTreeMap::new(),
            token_servers: BTreeMap::new(),
            tls: BTreeMap::new(),
            mirrors: BTreeMap::new(),
            proxies: Proxies::default(),
            layers_at_once: LAYERS_AT_ONCE,
            first_pause: Duration::from_millis(500),
            patience: Patience::default(),
        }
    }
}

/// How long a server is waited for; who takes longer is as good as not there, and is asked again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Patience {
    /// The time for a connection to come about, TLS included.
    pub connect: Duration,
    /// The time for all headers of an answer, and between two pieces of its body.
    pub silence: Duration,
    /// The time for all headers of an answer of a mirror: there is somebody else to ask.
    pub mirror: Duration,
    /// The longest that a server may make us wait by asking for it (`Retry-After`).
    pub retry_after: Duration,
    /// Bytes that have to come in a second, on average over [`Patience::silence`]. Only time that is spent waiting for the
    /// server counts.
    pub slowest: u64,
}

impl Default for Patience {
    /// 10 seconds for a connection, 30 seconds of silence, 5 seconds for a mirror, 30 seconds for who asks for a pause, 1 KiB in a
    /// second.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            silence: Duration::from_secs(30),
            mirror: Duration::from_secs(5),
            retry_after: Duration::from_secs(30),
            slowest: 1024,
        }
    }
}
