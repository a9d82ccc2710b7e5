//! `check`: form and sense of a manifest.

use std::path::Path;

use bennu_manifests::model::Manifest;
use bennu_manifests::{Invalid, MAX_DOCUMENT};
use jiff::Timestamp;
use serde::Serialize;

use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, facts, moment};

/// What a valid manifest comes to.
#[derive(Debug, Serialize)]
struct Summary<'a> {
    valid: bool,
    name: &'a str,
    serial: u64,
    #[serde(rename = "signed-at")]
    signed_at: Timestamp,
    expires: Timestamp,
    expired: bool,
    containers: Vec<&'a str>,
    networks: Vec<&'a str>,
    volumes: Vec<&'a str>,
}

/// Checks `file`.
pub(crate) fn run(file: &Path, now: Timestamp, out: &mut Out) -> Outcome {
    let bytes = files::read(file, MAX_DOCUMENT)?;
    let manifest = manifest(file, &bytes)?;
    let header = &manifest.header;
    let summary = Summary {
        valid: true,
        name: header.name.as_str(),
        serial: header.serial,
        signed_at: header.signed_at,
        expires: header.expires,
        expired: header.expires <= now,
        containers: manifest.containers.keys().map(|n| n.as_str()).collect(),
        networks: manifest.networks.keys().map(|n| n.as_str()).collect(),
        volumes: manifest.volumes.keys().map(|n| n.as_str()).collect(),
    };
    out.result(&summary, |s| {
        let list = |names: &[&str], one: &str| match names {
            [] => counted(0, one),
            names => format!("{}: {}", counted(names.len(), one), names.join(", ")),
        };
        let expires =
            if s.expired { format!("{} (it has expired)", moment(s.expires)) } else { moment(s.expires) };
        let what = [&s.containers, &s.networks, &s.volumes];
        let what: Vec<_> =
            what.iter().zip(["container", "network", "volume"]).map(|(n, one)| list(n, one)).collect();
        let summary = [
            ("manifest", format!("{} serial {}", s.name, s.serial)),
            ("expires", expires),
            ("declares", what.join("\n")),
        ];
        format!("{} is valid\n{}", file.display(), facts(&summary))
    })?;
    Ok(0)
}

/// The manifest that `bytes` say, or errors that point into `file`.
pub(crate) fn manifest(file: &Path, bytes: &[u8]) -> Result<Manifest, Failure> {
    bennu_manifests::check(bytes).map_err(|invalid| not_valid(file, bytes, invalid))
}

/// Errors that point into `file`.
pub(crate) fn not_valid(file: &Path, bytes: &[u8], invalid: Invalid) -> Failure {
    let count = invalid.errors.len() + invalid.more;
    let name = file.display().to_string();
    Failure::invalid(format!("{name} is not valid: {}", counted(count, "error"))).faults(
        &name,
        &String::from_utf8_lossy(bytes),
        invalid,
    )
}
