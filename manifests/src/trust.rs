//! The trust document: which keys there are, and what they may decide together.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::Serialize;

use crate::armour::MAX_SIGNATURES;
use crate::check::schema;
use crate::document::{Section, Wrong, parse, read_name, read_text};
use crate::fault::{Faults, Invalid, quoted};
use crate::key::PublicKey;
use crate::model::Name;
use crate::nearest::did_you_mean;
use crate::values::COUNTER;

/// The most keys in a trust document.
pub const MAX_KEYS: usize = 64;
/// The most streams whose serials a trust document lowers.
const MAX_STREAMS: usize = 64;
/// The longest line of a public key, in bytes.
const MAX_LINE: usize = 1024;

/// Who is trusted with what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Trust {
    /// Grows by one with each new trust document.
    pub version: u64,
    /// From this moment nothing is newly accepted by it; `None` is never.
    pub expires: Option<Timestamp>,
    /// Public keys by the names that people know them by; no two are the same key.
    pub keys: BTreeMap<Name, PublicKey>,
    /// Who decides what. A role that is not there can be filled by nobody.
    pub roles: BTreeMap<Role, RoleKeys>,
    /// What hosts are to forget when they take this document.
    #[serde(skip_serializing_if = "Recover::is_nothing")]
    pub recover: Recover,
}

/// What stolen keys may have taught a host and should not stay: a serial that no honest manifest exceeds, or a time so far
/// ahead that everything honest seems expired. It is lowered once, when the document is taken, never raised.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize)]
pub struct Recover {
    /// The latest time known is at most this.
    pub time: Option<Timestamp>,
    /// The highest serial known of a stream is at most this; the next manifest needs a higher one.
    pub serials: BTreeMap<Name, u64>,
}

impl Recover {
    /// Whether there is nothing to forget.
    pub fn is_nothing(&self) -> bool {
        self.time.is_none() && self.serials.is_empty()
    }
}

/// What a group of keys decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Manifests, but for what needs `Os`.
    Deploy,
    /// What reaches beyond containers: for now, capabilities with power over the host.
    Os,
    /// The next trust document.
    Trust,
}

/// The keys of a role, and how many of them must agree.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RoleKeys {
    /// Their names.
    pub keys: BTreeSet<Name>,
    /// How many distinct keys must have signed; at least 1, at most as many as there are.
    pub threshold: usize,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Deploy, Self::Os, Self::Trust];

    /// As it is written in the document.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deploy => "deploy",
            Self::Os => "os",
            Self::Trust => "trust",
        }
    }
}

/// The trust document that `text` says, checked for form and sense.
///
/// Nobody's signature is looked at: the first trust document of a host comes with its provisioning, each
/// further one through [`crate::verify_trust`].
///
/// # Errors
///
/// All that is wrong with it, except that a text that is no TOML has one error only.
pub fn check_trust(text: &[u8]) -> Result<Trust, Invalid> {
    let text = read_text(text)?;
    let tree = parse(text)?;
    let faults = Faults::default();
    let trust = read_trust(Section::top(&tree, &faults)).filter(|_| faults.count() == 0);
    faults.end(text, trust)
}

fn read_trust(mut top: Section<'_>) -> Option<Trust> {
    if !schema(&mut top) {
        return None;
    }
    let version = top.need("version", "1").and_then(|item| item.integer(COUNTER));
    let expires = top.get("expires").and_then(|item| item.moment()).map(|expires| expires.value);
    let (keys, declared) = keys(&mut top);
    let mut roles = BTreeMap::new();
    let mut section = top.need("role", "{ deploy = … }").and_then(|item| item.section());
    if let Some(section) = &mut section {
        for role in Role::ALL {
            let item = match role {
                Role::Deploy => section.need(role.as_str(), "{ keys = [\"NAME\"], threshold = 1 }"),
                Role::Os | Role::Trust => section.get(role.as_str()),
            };
            let read = item.and_then(|item| item.section()).and_then(|role| read_role(role, &declared));
            roles.extend(read.map(|keys| (role, keys)));
        }
    }
    if let Some(section) = section {
        section.end();
    }
    let recover = top.get("recover").and_then(|item| item.section()).map(read_recover).unwrap_or_default();
    top.end();
    Some(Trust { version: version?, expires, keys, roles, recover })
}

fn read_recover(mut section: Section<'_>) -> Recover {
    let time = section.get("time").and_then(|item| item.moment()).map(|time| time.value);
    let mut serials = BTreeMap::new();
    let entries = section.get("serials").and_then(|item| item.section());
    for (name, item) in entries.map(|section| section.entries(MAX_STREAMS)).unwrap_or_default() {
        match read_name(name.value) {
            Ok(stream) => serials.extend(item.integer(COUNTER).map(|serial| (stream, serial))),
            Err(Wrong { message, hint }) => item.faults.add_with(&name.span, message, hint),
        }
    }
    section.end();
    Recover { time, serials }
}

/// The keys that could be read, and the names of all that are there.
fn keys<'a>(top: &mut Section<'a>) -> (BTreeMap<Name, PublicKey>, Vec<&'a str>) {
    let (mut keys, mut declared) = (BTreeMap::new(), Vec::new());
    let entries =
        top.need("key", "{ NAME = { public = \"ssh-ed25519 …\" } }").and_then(|item| item.section());
    for (name, item) in entries.map(|section| section.entries(MAX_KEYS)).unwrap_or_default() {
        declared.push(name.value);
        let named = read_name(name.value);
        if let Err(Wrong { message, hint }) = &named {
            item.faults.add_with(&name.span, message, hint.clone());
        }
        let Some(mut section) = item.section() else { continue };
        let public = section.need("public", "\"ssh-ed25519 …\"").and_then(|item| {
            item.read(MAX_LINE, |line| {
                line.parse::<PublicKey>().map_err(|error| {
                    Wrong::new(error.to_string()).hint("copy the one line of the `.pub` file beside the key")
                })
            })
        });
        section.end();
        let (Ok(named), Some(public)) = (named, public) else { continue };
        let same = |(_, other): &(&Name, &PublicKey)| other.material() == public.value.material();
        if let Some((other, _)) = keys.iter().find(same) {
            let message = format!("this is the same key as {}", quoted(other.as_str()));
            item.faults.add_with(&public.span, message, "give each key one name: it counts once".to_owned());
            continue;
        }
        keys.insert(named, public.value);
    }
    (keys, declared)
}

fn read_role(mut section: Section<'_>, declared: &[&str]) -> Option<RoleKeys> {
    let names = section.need("keys", "[\"NAME\"]").and_then(|item| item.each(MAX_KEYS, |item| item.name()));
    let threshold = section.need("threshold", "1");
    if let Some(names) = &names {
        for name in names.iter().filter(|name| !declared.contains(&name.value.as_str())) {
            let message = format!("there is no key {}", quoted(name.value.as_str()));
            let near = did_you_mean(name.value.as_str(), declared.iter().copied());
            section.faults.add_with(
                &name.span,
                message,
                near.unwrap_or(format!("declare it by `[key.{}]`", name.value)),
            );
        }
    }
    let count = names.as_ref().map_or(MAX_KEYS, Vec::len);
    let threshold = threshold.and_then(|item| match item.integer(1..=MAX_KEYS as u64)? {
        number if number > MAX_SIGNATURES as u64 => {
            let message =
                format!("{number} keys must agree, and a file holds at most {MAX_SIGNATURES} signatures");
            item.fault(message, "lower it".to_owned());
            None
        }
        number if number <= count as u64 => usize::try_from(number).ok(),
        number => {
            item.fault(
                format!("{number} keys must agree, and the role has {count}"),
                "lower it, or add keys".to_owned(),
            );
            None
        }
    });
    section.end();
    let keys = names?.into_iter().map(|name| name.value).collect();
    Some(RoleKeys { keys, threshold: threshold? })
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb";

    /// Another key, by its number.
    fn key(number: u8) -> String {
        let point = crate::crypto::TestKey::from_seed([number; 32]).public();
        let mut wire = Vec::new();
        crate::wire::put_string(&mut wire, b"ssh-ed25519");
        crate::wire::put_string(&mut wire, &point);
        PublicKey::from_wire(&wire).expect("a key").to_string()
    }

    fn document(role: &str) -> String {
        format!(
            "schema = 1\nversion = 3\nkey.a.public = \"{A} alice\"\nkey.b.public = \"{}\"\n[role.deploy]\n{role}\n",
            key(1)
        )
    }

    fn refused(text: &str, expect: &str) {
        let invalid = check_trust(text.as_bytes()).expect_err(text);
        assert!(invalid.errors.iter().any(|fault| fault.message.contains(expect)), "{expect}: {invalid:#?}");
    }

    #[test]
    fn a_trust_document_is_read() {
        let text = document("keys = [\"a\", \"b\"]\nthreshold = 2");
        let trust = check_trust(text.as_bytes()).expect("it is valid");
        assert_eq!((trust.version, trust.keys.len(), trust.expires), (3, 2, None));
        assert_eq!(trust.roles[&Role::Deploy].threshold, 2);
        assert!(!trust.roles.contains_key(&Role::Os));
    }

    #[test]
    fn roles_that_cannot_be_filled_or_mean_nothing_are_refused() {
        refused(&document("keys = [\"a\"]\nthreshold = 0"), "from 1 to 64");
        refused(&document("keys = [\"a\"]\nthreshold = 2"), "2 keys must agree, and the role has 1");
        refused(&document("keys = [\"a\", \"a\"]\nthreshold = 2"), "says this twice");
        refused(&document("keys = []\nthreshold = 1"), "the role has 0");
        refused(&document("keys = [\"c\"]\nthreshold = 1"), "there is no key `c`");
        refused(&document("keys = [\"a\"]"), "has no `threshold`");
        refused(
            &document("keys = [\"a\"]\nthreshold = 1\n[role.oss]\nkeys = [\"a\"]\nthreshold = 1"),
            "unknown key `oss`",
        );
        refused("schema = 1\nversion = 1\n", "has no `role`");
        refused("schema = 1\nversion = 0\n", "`version` must be");
    }

    #[test]
    fn what_is_to_be_forgotten_is_read_strictly() {
        let base = document("keys = [\"a\", \"b\"]\nthreshold = 2");
        let text = format!("{base}[recover]\ntime = 2026-03-01T00:00:00Z\nserials = {{ edge = 41 }}\n");
        let trust = check_trust(text.as_bytes()).expect("it is valid");
        assert_eq!(trust.recover.serials[&"edge".parse().expect("a name")], 41);
        assert_eq!(trust.recover.time, Some("2026-03-01T00:00:00Z".parse().expect("a time")));
        refused(&format!("{base}[recover]\nserials = {{ edge = 0 }}\n"), "must be an integer");
        refused(&format!("{base}[recover]\nserials = {{ Edge = 1 }}\n"), "`Edge` is no name");
        refused(&format!("{base}[recover]\nserial = {{ edge = 1 }}\n"), "unknown key");
    }

    #[test]
    fn one_key_under_two_names_is_refused() {
        let twice = format!(
            "{}[key.c]\npublic = \"{A} another comment\"\n",
            document("keys = [\"a\"]\nthreshold = 1")
        );
        refused(&twice, "the same key as `a`");
    }

    #[test]
    fn keys_that_cannot_be_used_are_refused() {
        let text = document("keys = [\"a\"]\nthreshold = 1");
        refused(&text.replace("ssh-ed25519 AAAA", "ssh-rsa AAAA"), "the key type is none of");
        refused(&text.replace(" alice", "\\nalice"), "contains the character");
        refused(&text.replace("key.a", "key.A"), "`A` is no name");
    }
}
