//! The service that lets hosts restart one after the other.
//!
//! FleetLock protocol, as Zincati speaks it (`coreos/airlock`, "FleetLock protocol"): a POST with the header
//! `fleet-lock-protocol: true` and a JSON body, to `v1/pre-reboot` before and to `v1/steady-state` after the restart. 200 is yes.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_api::Phase;
use bennu_image_store::{durable, sha256};
use bennu_planner::update::{Lock, ask_lock_again};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::core::{Core, chain};
use crate::ledger::Applicable;

/// How long the service has to answer.
const ANSWER: Duration = Duration::from_secs(30);
/// The most bytes of an answer that are read.
const MAX_ANSWER: usize = 64 << 10;
/// How many hexadecimal digits name a host: as many as a machine id has (machine-id(5)).
const ID_DIGITS: usize = 32;

/// What is asked.
#[derive(Debug, Serialize)]
struct Request<'a> {
    client_params: Client<'a>,
}

#[derive(Debug, Serialize)]
struct Client<'a> {
    id: &'a str,
    group: &'a str,
}

/// What is answered where it is not yes.
#[derive(Debug, Default, Deserialize)]
struct Answer {
    #[serde(default)]
    kind: String,
    #[serde(default)]
    value: String,
}

/// A service and a group of hosts there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Group {
    url: String,
    group: String,
}

/// The slot that this host may hold. It is on disk before it is asked for, so that it is given back whatever comes between.
#[derive(Debug)]
pub(super) struct Slot {
    path: PathBuf,
    of: Option<Group>,
    /// Not to be given back before this moment: the service did not answer.
    not_before: Option<Timestamp>,
}

impl Slot {
    /// Reads it from a file, which need not be there.
    ///
    /// # Errors
    /// Where it can't be read, or is not what this program writes.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let of = match std::fs::read(path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), of, not_before: None })
    }

    fn set(&mut self, of: Option<Group>) -> io::Result<()> {
        if self.of != of {
            durable::replace(&self.path, &serde_json::to_vec(&of)?)?;
        }
        (self.of, self.not_before) = (of, None);
        Ok(())
    }
}

/// A service, and how this host is called there.
#[derive(Debug)]
struct FleetLock {
    group: Group,
    id: String,
}

impl FleetLock {
    fn new(core: &Core, group: Group) -> Self {
        // A name for good: the machine id is another one at each boot.
        let id = sha256::digest(core.identity.secrets.recipient().to_string().as_bytes()).hex();
        Self { group, id: id[..ID_DIGITS].to_owned() }
    }

    /// Asks for a slot.
    async fn take(&self) -> Lock {
        match self.ask("v1/pre-reboot").await {
            Ok(()) => Lock::Held,
            Err(why) => Lock::Refused { why, again: self.again(Timestamp::now()) },
        }
    }

    /// When it is asked again after it said no.
    fn again(&self, now: Timestamp) -> Timestamp {
        let drawn = sha256::digest(format!("{}{now}", self.id).as_bytes());
        let [a, b, c, d, ..] = *drawn.as_bytes();
        ask_lock_again(now, u32::from_le_bytes([a, b, c, d]))
    }

    /// Gives the slot back; where this host holds none, nothing happens.
    async fn give_back(&self) -> Result<(), String> {
        self.ask("v1/steady-state").await
    }

    async fn ask(&self, path: &str) -> Result<(), String> {
        let url = format!("{}/{path}", self.group.url.trim_end_matches('/'));
        let client_params = Client { id: &self.id, group: &self.group.group };
        let body = serde_json::to_vec(&Request { client_params });
        let body = body.map_err(|error| error.to_string())?;
        // Another part of the program may have installed a provider already; any will do.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client =
            reqwest::Client::builder().timeout(ANSWER).redirect(reqwest::redirect::Policy::none()).no_proxy();
        let client = client.build().map_err(|error| chain(&error))?;
        let request = client.post(&url).header("fleet-lock-protocol", "true");
        let request = request.header("content-type", "application/json").body(body);
        let mut response = request.send().await.map_err(|error| chain(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(());
        }
        let mut text = Vec::new();
        while let Ok(Some(chunk)) = response.chunk().await {
            text.extend(chunk.iter().take(MAX_ANSWER - text.len()));
        }
        let answer: Answer = serde_json::from_slice(&text).unwrap_or_default();
        Err(format!("the lock service says {status} {} {}", answer.kind, answer.value).trim_end().to_owned())
    }
}

/// Asks the service that a generation names for a slot.
pub(super) async fn take(core: &Core, generation: &Applicable) -> Lock {
    let lock = generation.manifest.update.as_ref().and_then(|update| update.fleet_lock.as_ref());
    let Some(lock) = lock else { return Lock::NotAsked };
    let group = Group { url: lock.url.clone(), group: lock.group.clone() };
    let service = FleetLock::new(core, group.clone());
    let refused = |why: String| Lock::Refused { why, again: service.again(Timestamp::now()) };
    // One of another service would not be given back any more.
    if core.updates().slot.of.as_ref().is_some_and(|held| *held != group) {
        return refused("a slot of another lock service has to be given back first".to_owned());
    }
    if let Err(error) = core.updates().slot.set(Some(group)) {
        return refused(format!("write down that it is asked for: {error}"));
    }
    service.take().await
}

/// Tells the service that this host is well, where it may hold a slot and is not about to need it: once something was kept, taken
/// back, put off or given up, and at the start of a daemon that was ended before it could say so. A service that does not
/// answer is asked again later.
pub(crate) async fn release(core: &Core) {
    let is_on_the_way = core.ledger.lock().await.pointer().is_on_the_way();
    let (now, service) = {
        let updates = core.updates();
        let now = Timestamp::now();
        let may = updates.slot.not_before.is_none_or(|not_before| not_before <= now);
        let of =
            updates.slot.of.clone().filter(|_| may && !is_on_the_way && updates.phase != Phase::Restarting);
        let Some(group) = of else { return };
        (now, FleetLock::new(core, group))
    };
    let given_back = service.give_back().await;
    let mut updates = core.updates();
    let given_back = given_back.and_then(|()| {
        if updates.lock == Lock::Held {
            updates.lock = Lock::NotAsked;
        }
        updates.slot.set(None).map_err(|error| error.to_string())
    });
    if let Err(error) = given_back {
        tracing::warn!(error, "give the slot of the lock service back");
        updates.slot.not_before = Some(service.again(now));
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpListener;

    use super::*;

    /// Answers one request with `answer`, and gives the request back.
    async fn serve_once(listener: &TcpListener, answer: &str) -> String {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut request = Vec::new();
        while !request.ends_with(b"}}") {
            let mut bytes = [0; 1024];
            let read = stream.read(&mut bytes).await.expect("a request");
            request.extend_from_slice(&bytes[..read]);
        }
        stream.write_all(answer.as_bytes()).await.expect("answered");
        String::from_utf8(request).expect("text")
    }

    #[tokio::test]
    async fn the_lock_is_asked_for_and_given_back_in_the_words_of_the_protocol() {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}/base/", listener.local_addr().expect("bound"));
        let group = Group { url, group: "web".into() };
        let service = FleetLock { group, id: "0123456789abcdef0123456789abcdef".into() };

        let body = r#"{"kind":"failed_lock","value":"all held"}"#;
        let no = format!("HTTP/1.1 409 Conflict\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let (lock, request) = tokio::join!(service.take(), serve_once(&listener, &no));
        let Lock::Refused { why, .. } = lock else { panic!("the service said no") };
        assert!(why.contains("409") && why.contains("failed_lock"), "{why}");
        let (head, body) = request.split_once("\r\n\r\n").expect("a head and a body");
        assert!(head.starts_with("POST /base/v1/pre-reboot HTTP/1.1\r\n"), "{head}");
        assert!(head.contains("fleet-lock-protocol: true"), "{head}");
        let expected = r#"{"client_params":{"id":"0123456789abcdef0123456789abcdef","group":"web"}}"#;
        assert_eq!(body, expected);

        let yes = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let (lock, _) = tokio::join!(service.take(), serve_once(&listener, yes));
        assert_eq!(lock, Lock::Held);
        let (given_back, request) = tokio::join!(service.give_back(), serve_once(&listener, yes));
        assert_eq!(given_back, Ok(()));
        assert!(request.starts_with("POST /base/v1/steady-state "), "{request}");
    }

    #[tokio::test]
    async fn a_service_that_is_not_there_is_no_yes() {
        let group = Group { url: "http://127.0.0.1:1".into(), group: "g".into() };
        let service = FleetLock { group, id: "i".into() };
        let before = Timestamp::now();
        let Lock::Refused { again, .. } = service.take().await else { panic!("nobody said yes") };
        assert!(again.duration_since(before).as_secs() >= 180, "it is asked again too soon: {again}");
    }

    #[test]
    fn a_slot_that_may_be_held_is_remembered_over_a_restart_until_it_was_given_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("fleet-lock.json");
        let held = Group { url: "https://lock.example".into(), group: "g".into() };
        Slot::open(&path).expect("none yet").set(Some(held.clone())).expect("written");
        let mut again = Slot::open(&path).expect("read");
        assert_eq!(again.of, Some(held));
        again.set(None).expect("written");
        assert_eq!(Slot::open(&path).expect("read").of, None);
    }
}
