//! `trust show`, `trust export-allowed-signers`: a trust document for people, and for OpenSSH.

use std::fmt::Write;
use std::path::Path;

use bennu_manifests::model::Name;
use bennu_manifests::{MANIFEST_NAMESPACE, Role, TRUST_NAMESPACE, Trust};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;

use super::args::Show;
use super::gathered::{Document, Gathered, names};
use crate::exit::Outcome;
use crate::render::{Out, Table, moment};

/// A trust document.
#[derive(Debug, Serialize)]
struct Shown {
    file: String,
    version: u64,
    expires: Option<Timestamp>,
    keys: Vec<Key>,
    roles: Vec<Holders>,
    signatures: Gathered,
}

#[derive(Debug, Serialize)]
struct Key {
    name: Name,
    #[serde(rename = "type")]
    key_type: &'static str,
    fingerprint: String,
    roles: Vec<Role>,
}

#[derive(Debug, Serialize)]
struct Holders {
    role: Role,
    threshold: usize,
    keys: Vec<Name>,
}

/// Shows it.
pub(crate) fn run(args: &Show, out: &mut Out) -> Outcome {
    let document = Document::read(&args.file)?;
    let before = match &args.previous {
        Some(path) => Some(Document::read(path)?),
        None => document.before()?,
    };
    let signatures = Gathered::of(&document, before.as_ref().map(|before| &before.trust))?;
    let trust = &document.trust;
    let key = |(name, key): (&Name, &bennu_manifests::PublicKey)| Key {
        name: name.clone(),
        key_type: key.key_type(),
        fingerprint: key.fingerprint(),
        roles: roles_of(trust, name),
    };
    let shown = Shown {
        file: args.file.display().to_string(),
        version: trust.version,
        expires: trust.expires,
        keys: trust.keys.iter().map(key).collect(),
        roles: trust
            .roles
            .iter()
            .map(|(role, keys)| Holders {
                role: *role,
                threshold: keys.threshold,
                keys: keys.keys.iter().cloned().collect(),
            })
            .collect(),
        signatures,
    };
    out.result(&shown, text)?;
    Ok(0)
}

fn text(shown: &Shown) -> String {
    let expires =
        shown.expires.map_or_else(|| "never expires".to_owned(), |e| format!("expires {}", moment(e)));
    let mut keys = Table::new(&["KEY", "ROLES", "TYPE", "FINGERPRINT"]);
    for key in &shown.keys {
        let roles = key.roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", ");
        keys.row([key.name.to_string(), roles, key.key_type.to_owned(), key.fingerprint.clone()]);
    }
    let mut roles = Table::new(&["ROLE", "NEEDS", "OF"]);
    for role in &shown.roles {
        roles.row([role.role.as_str().to_owned(), role.threshold.to_string(), names(&role.keys)]);
    }
    let mut text = format!("{}: version {}, {expires}\n\n", shown.file, shown.version);
    text += &keys.text("no keys");
    text.push('\n');
    text += &roles.text("no roles");
    text.push_str("\nsignatures\n");
    for line in shown.signatures.lines() {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {line}");
    }
    let gathered = &shown.signatures;
    text += match (&gathered.before, gathered.enough) {
        (_, true) => "they suffice: `hostctl trust push` hands it over\n",
        (Some(_), false) => "they do not suffice yet\n",
        (None, false) => {
            "the version before it is not here: hosts that have none take it with their provisioning\n"
        }
    };
    text
}

fn roles_of(trust: &Trust, name: &Name) -> Vec<Role> {
    Role::ALL
        .into_iter()
        .filter(|role| trust.roles.get(role).is_some_and(|keys| keys.keys.contains(name)))
        .collect()
}

/// The file that `ssh-keygen -Y verify -f` reads.
#[derive(Debug, Serialize)]
struct AllowedSigners {
    text: String,
}

/// Prints the keys for OpenSSH.
pub(crate) fn export(file: &Path, out: &mut Out) -> Outcome {
    let document = Document::read(file)?;
    out.result(&AllowedSigners { text: allowed_signers(&document.trust) }, |signers| signers.text.clone())?;
    Ok(0)
}

/// One line a key: who, for what, until when, and the key (ssh-keygen(1), "ALLOWED SIGNERS"). Keys without a role are left
/// out.
fn allowed_signers(trust: &Trust) -> String {
    let until = trust.expires.map_or_else(String::new, |time| {
        let time = time.to_zoned(TimeZone::UTC).strftime("%Y%m%d%H%M%SZ");
        format!(",valid-before=\"{time}\"")
    });
    let mut text = String::new();
    for (name, key) in &trust.keys {
        let roles = roles_of(trust, name);
        let manifests = roles.iter().any(|role| matches!(role, Role::Deploy | Role::Os));
        let namespaces: Vec<&str> =
            [(manifests, MANIFEST_NAMESPACE), (roles.contains(&Role::Trust), TRUST_NAMESPACE)]
                .into_iter()
                .filter_map(|(given, namespace)| given.then_some(namespace))
                .collect();
        if !namespaces.is_empty() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name} namespaces=\"{}\"{until} {key}", namespaces.join(","));
        }
    }
    text
}
