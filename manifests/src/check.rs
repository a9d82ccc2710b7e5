//! The text of a manifest made into a [`Manifest`], or into all that is wrong with it.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::container::Draft;
use crate::document::{MAX_DOCUMENT, Section, Sited, Wrong, parse, read_name, read_text};
use crate::fault::{Faults, Invalid, quoted};
use crate::model::{Audience, Header, Manifest, Name, Network, Registry, Subnet, Volume, VolumeLife};
use crate::reference::is_registry;
use crate::relations::{self, DEFAULT_NETWORK, Declared};
use crate::words::read_arch;

/// The version of the language that this crate reads.
pub const SCHEMA: u64 = 1;
/// The most containers in a manifest.
pub const MAX_CONTAINERS: usize = 1024;
/// The most networks in a manifest, and the most volumes.
pub const MAX_NETWORKS: usize = 256;
const MAX_REGISTRIES: usize = 64;
const MAX_LABELS: usize = 64;
/// The longest label, name or value, in bytes.
const MAX_LABEL: usize = 256;
/// Integers of TOML are signed.
pub(crate) const COUNTER: RangeInclusive<u64> = 1..=i64::MAX as u64;

/// The manifest that `text` says, wholly checked.
///
/// It is a check of form and sense only: whether anybody signed it, whom it is for and whether it is too old is
/// [`crate::verify`]'s to say.
///
/// # Errors
///
/// All that is wrong with it, except that a text that is no TOML has one error only.
pub fn check(text: &[u8]) -> Result<Manifest, Invalid> {
    let text = read_text(text)?;
    let tree = parse(text)?;
    let faults = Faults::default();
    let manifest = read_manifest(Section::top(&tree, &faults));
    faults.end(text, manifest)
}

fn read_manifest(mut top: Section<'_>) -> Option<Manifest> {
    let faults = top.faults;
    if !schema(&mut top) {
        return None;
    }
    let header = header(&mut top);
    let registries = tables(&mut top, "registry", MAX_REGISTRIES, registry_name, registry);
    let networks = tables(&mut top, "network", MAX_NETWORKS, read_name, network);
    let volumes = tables(&mut top, "volume", MAX_NETWORKS, read_name, volume);
    let drafts = tables(&mut top, "container", MAX_CONTAINERS, read_name, Draft::read);
    top.end();

    let declared = Declared { networks: networks.keys, volumes: volumes.keys, containers: drafts.keys };
    let subnet = |(name, (_, subnet)): (&Name, &(Network, Option<Sited<Subnet>>))| {
        Some((name.clone(), subnet.clone()?))
    };
    let mut subnets: Vec<_> = networks.read.iter().filter_map(subnet).collect();
    subnets.sort_by_key(|(_, subnet)| subnet.span.start);
    relations::references(&drafts.read, &declared, faults);
    relations::aliases(&drafts.read, faults);
    relations::cycles(&drafts.read, faults);
    relations::ports(&drafts.read, faults);
    relations::subnets(&subnets, faults);
    if faults.count() > 0 {
        return None;
    }

    let default: Name = DEFAULT_NETWORK.parse().expect("`default` is a name");
    let mut networks: BTreeMap<_, _> =
        networks.read.into_iter().map(|(name, (network, _))| (name, network)).collect();
    networks.entry(default.clone()).or_default();
    let container = |(name, draft): (Name, Draft)| Some((name, draft.finish(&default)?));
    Some(Manifest {
        header: header?,
        registries: registries.read,
        networks,
        volumes: volumes.read,
        containers: drafts.read.into_iter().map(container).collect::<Option<_>>()?,
    })
}

/// Whether the rest can be read at all.
pub(crate) fn schema(top: &mut Section<'_>) -> bool {
    let Some(item) = top.need("schema", "1") else { return false };
    let version = item.integer(0..=i64::MAX as u64);
    if let Some(other) = version.filter(|version| *version != SCHEMA) {
        let hint = format!("write `schema = {SCHEMA}`, or use a newer release of this program");
        item.fault(format!("schema {other} is not known here, only {SCHEMA} is"), hint);
    }
    version == Some(SCHEMA)
}

fn header(top: &mut Section<'_>) -> Option<Header> {
    let name = top.need("name", "\"web-hosts\"").and_then(|item| item.name());
    let serial = top.need("serial", "1").and_then(|item| item.integer(COUNTER));
    let signed_at = top.need("signed-at", "2026-03-01T12:00:00Z").and_then(|item| item.moment());
    let expires = top.need("expires", "2026-06-01T12:00:00Z").and_then(|item| item.moment());
    let allow_empty = top.get("allow-empty").and_then(|item| item.flag()).unwrap_or(false);
    let audience = top.get("audience").and_then(|item| item.section()).map(audience).unwrap_or_default();
    let (signed_at, expires) = (signed_at?, expires?);
    if expires.value <= signed_at.value {
        top.faults.add(
            &expires.span,
            "the manifest expires before it was signed: `expires` must be after `signed-at`",
        );
    }
    let (signed_at, expires) = (signed_at.value, expires.value);
    Some(Header { name: name?.value, serial: serial?, signed_at, expires, audience, allow_empty })
}

fn audience(mut section: Section<'_>) -> Audience {
    let arch = section.get("arch").and_then(|item| item.read(MAX_LABEL, read_arch)).map(|arch| arch.value);
    let labels = section.get("labels").and_then(|item| item.section());
    let mut read = BTreeMap::new();
    for (name, item) in labels.map(|labels| labels.entries(MAX_LABELS)).unwrap_or_default() {
        let word =
            |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'/');
        let sound = (1..=MAX_LABEL).contains(&name.value.len()) && name.value.bytes().all(word);
        if !sound {
            let message = format!("{} is no name of a label", quoted(name.value));
            item.faults.add_with(&name.span, message, "it is of a-z, 0-9, `-`, `_`, `.` and `/`".to_owned());
        }
        if let Some(value) = item.text(MAX_LABEL) {
            read.insert(name.value.to_owned(), value.value.to_owned());
        }
    }
    section.end();
    Audience { arch, labels: read }
}

/// Named tables of one kind: all their names as written, and what could be read.
struct Tables<'a, K, T> {
    keys: Vec<&'a str>,
    read: BTreeMap<K, T>,
}

fn tables<'a, K: Ord, T>(
    top: &mut Section<'a>,
    key: &'static str,
    max: usize,
    read_key: impl Fn(&str) -> Result<K, Wrong>,
    read: impl Fn(Section<'a>) -> T,
) -> Tables<'a, K, T> {
    let mut tables = Tables { keys: Vec::new(), read: BTreeMap::new() };
    let entries = top.get(key).and_then(|item| item.section()).map(|section| section.entries(max));
    for (name, item) in entries.unwrap_or_default() {
        tables.keys.push(name.value);
        let table = item.section().map(&read);
        match read_key(name.value) {
            Ok(name) => tables.read.extend(table.map(|table| (name, table))),
            Err(Wrong { message, hint }) => item.faults.add_with(&name.span, message, hint),
        }
    }
    tables
}

fn registry_name(text: &str) -> Result<String, Wrong> {
    if text.len() <= MAX_LABEL && is_registry(text) {
        return Ok(text.to_owned());
    }
    let hint = "it is `[registry.\"HOST:PORT\"]`, in quotes and in lower case, as images name it";
    Err(Wrong::new(format!("{} is no registry", quoted(text))).hint(hint))
}

fn registry(mut section: Section<'_>) -> Registry {
    let plain_http = section.get("plain-http").and_then(|item| item.flag()).unwrap_or(false);
    section.end();
    Registry { plain_http }
}

fn network(mut section: Section<'_>) -> (Network, Option<Sited<Subnet>>) {
    let subnet = section.get("subnet").and_then(|item| item.read(MAX_LABEL, read_subnet));
    let internal = section.get("internal").and_then(|item| item.flag()).unwrap_or(false);
    section.end();
    (Network { subnet: subnet.as_ref().map(|subnet| subnet.value), internal }, subnet)
}

fn read_subnet(text: &str) -> Result<Subnet, Wrong> {
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
}

fn volume(mut section: Section<'_>) -> Volume {
    let life = section.need("life", "\"keep\"").and_then(|item| {
        item.read(MAX_DOCUMENT, |text| match text {
            "keep" => Ok(VolumeLife::Keep),
            "scratch" => Ok(VolumeLife::Scratch),
            _ => Err(Wrong::new(format!("{} is no life of a volume", quoted(text)))
                .hint("write `keep` for data that stays, `scratch` for data that is gone at the next boot")),
        })
    });
    let destroy = section.get("destroy").and_then(|item| item.flag()).unwrap_or(false);
    section.end();
    // Where it is missing there is a fault, and so no manifest.
    Volume { life: life.map_or(VolumeLife::Keep, |life| life.value), destroy }
}
