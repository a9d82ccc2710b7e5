//! `check`: form and sense of a manifest.

use std::path::Path;

use bennu_manifests::model::Manifest;
use bennu_manifests::{Fault, HostDescription, Invalid, MAX_DOCUMENT, examine};
use jiff::Timestamp;
use serde::Serialize;

use crate::cli::Check;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, facts, moment};

/// The largest file of host facts, in bytes.
const MAX_FACTS: usize = 1 << 20;

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
    jobs: Vec<&'a str>,
    networks: Vec<&'a str>,
    volumes: Vec<&'a str>,
    /// What needs the threshold of the `os` role.
    needs_os: &'a [String],
    /// What hosts of this release do not carry out: they refuse the manifest.
    not_yet: &'a [Fault],
    /// What is allowed and probably not meant.
    notes: &'a [Fault],
}

/// Checks a file.
pub(crate) fn run(args: &Check, now: Timestamp, out: &mut Out) -> Outcome {
    let file = args.file.as_path();
    let bytes = files::read(file, MAX_DOCUMENT)?;
    let host = args.host_facts.as_deref().map(host_facts).transpose()?;
    let checked = examine(&bytes, host.as_ref()).map_err(|invalid| not_valid(file, &bytes, invalid))?;
    let text = String::from_utf8_lossy(&bytes);
    let remarks = checked.render(&file.display().to_string(), &text);
    let count = checked.notes.len() + checked.not_yet.len();
    if args.strict && count > 0 {
        let message = format!("{} is valid, with {}", file.display(), counted(count, "remark"));
        return Err(Failure::invalid(message).detail(remarks));
    }
    let (manifest, header) = (&checked.manifest, &checked.manifest.header);
    let summary = Summary {
        valid: true,
        name: header.name.as_str(),
        serial: header.serial,
        signed_at: header.signed_at,
        expires: header.expires,
        expired: header.expires <= now,
        containers: manifest.containers.keys().map(|n| n.as_str()).collect(),
        jobs: manifest.jobs.keys().map(|n| n.as_str()).collect(),
        networks: manifest.networks.keys().map(|n| n.as_str()).collect(),
        volumes: manifest.volumes.keys().map(|n| n.as_str()).collect(),
        needs_os: &checked.needs_os,
        not_yet: &checked.not_yet,
        notes: &checked.notes,
    };
    out.result(&summary, |s| remarks + &shown(file, s))?;
    Ok(0)
}

fn shown(file: &Path, s: &Summary<'_>) -> String {
    let list = |names: &[&str], one: &str| match names {
        [] => counted(0, one),
        names => format!("{}: {}", counted(names.len(), one), names.join(", ")),
    };
    let expires =
        if s.expired { format!("{} (it has expired)", moment(s.expires)) } else { moment(s.expires) };
    let mut what = vec![list(&s.containers, "container")];
    what.extend((!s.jobs.is_empty()).then(|| list(&s.jobs, "job")));
    what.extend([list(&s.networks, "network"), list(&s.volumes, "volume")]);
    let mut summary = vec![
        ("manifest", format!("{} serial {}", s.name, s.serial)),
        ("expires", expires),
        ("declares", what.join("\n")),
    ];
    if !s.needs_os.is_empty() {
        summary.push(("needs role os", s.needs_os.join("\n")));
    }
    let but = if s.not_yet.is_empty() { "" } else { ", and hosts of this release refuse it" };
    format!("{} is valid{but}\n{}", file.display(), facts(&summary))
}

/// A host, as `hostctl facts --json` describes it.
fn host_facts(file: &Path) -> Result<HostDescription, Failure> {
    serde_json::from_slice(&files::read(file, MAX_FACTS)?).map_err(|error| {
        Failure::invalid(format!("{} holds no facts of a host", file.display()))
            .because(error)
            .advice("`hostctl --json facts --host ADDR` writes them")
    })
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
