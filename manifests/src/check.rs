//! The text of a manifest made into a [`Manifest`], or into all that is wrong with it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::document::{Section, parse, read_text};
use crate::fault::{Fault, Faults, Invalid, Remarks, render_all};
use crate::language::read_table;
use crate::model::Manifest;
use crate::place::Places;
use crate::relations;
use crate::sense;

/// The version of the language that this crate reads.
pub const SCHEMA: u64 = 1;

/// A valid manifest, and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checked {
    /// What it says.
    pub manifest: Manifest,
    /// What is allowed and probably not meant.
    pub notes: Vec<Fault>,
    /// Keys that are part of the language and that hosts of this release do not carry out. A host refuses the document.
    pub not_yet: Vec<Fault>,
    /// The paths of what needs the threshold of the `os` role, in the order of the text.
    pub needs_os: Vec<String>,
}

impl Checked {
    /// What is to be said about it, for people: each remark with its line of `text` and a mark below it. `file_name` is
    /// how the document is called there.
    pub fn render(&self, file_name: &str, text: &str) -> String {
        let warnings = render_all(&self.not_yet, "warning", file_name, text);
        warnings + &render_all(&self.notes, "note", file_name, text)
    }
}

/// A host that a manifest is checked for, as `hostctl facts` prints it; what is `None` is not known.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostDescription {
    /// Its architecture in the words of OCI.
    #[serde(default)]
    pub arch: Option<String>,
    /// The labels that it was provisioned with.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// Its memory, in bytes.
    #[serde(default)]
    pub memory: Option<u64>,
    /// Its processors.
    #[serde(default)]
    pub cpus: Option<u64>,
    /// The recipient (age) that secrets for it are encrypted to.
    #[serde(default)]
    pub recipient: Option<String>,
}

/// The manifest that `text` says, wholly checked.
///
/// It is a check of form and sense only: whether anybody signed it, whom it is for and whether it is too old is
/// [`crate::verify`]'s to say.
///
/// # Errors
///
/// All that is wrong with it, except that a text that is no TOML has one error only.
pub fn check(text: &[u8]) -> Result<Manifest, Invalid> {
    examine(text, None).map(|checked| checked.manifest)
}

/// As [`check()`], with what is to be said about a valid manifest, and with the eyes of one host where it is given.
///
/// # Errors
///
/// As [`check()`]; and what `host` cannot do.
pub fn examine(text: &[u8], host: Option<&HostDescription>) -> Result<Checked, Invalid> {
    let text = read_text(text)?;
    let tree = parse(text)?;
    let faults = Faults::default();
    let mut top = Section::top(&tree, &faults);
    let read: Option<Manifest> = if schema(&mut top) { read_table(top) } else { None };
    if let Some(manifest) = &read {
        let places = Places::of(&tree);
        relations::check(manifest, &places, &faults);
        sense::check(manifest, host, &places, &faults);
    }
    let read = read.map(with_default_network);
    let (manifest, remarks) = faults.end_with_remarks(text, read)?;
    let Remarks { notes, not_yet, needs_os } = remarks;
    Ok(Checked { manifest, notes, not_yet, needs_os })
}

/// As [`check()`], for a host: it must carry out all that a document says.
///
/// # Errors
///
/// As [`check()`]; and keys that hosts of this release do not carry out.
pub(crate) fn check_for_hosts(text: &[u8]) -> Result<Checked, Invalid> {
    let checked = examine(text, None)?;
    if checked.not_yet.is_empty() {
        return Ok(checked);
    }
    Err(Invalid { errors: checked.not_yet, more: 0 })
}

fn with_default_network(mut manifest: Manifest) -> Manifest {
    manifest.networks.entry(crate::values::default_network()).or_default();
    manifest
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

impl Manifest {
    /// What of it a host with these labels has: containers and jobs are chosen by their `on`.
    pub fn for_host(mut self, labels: &BTreeMap<String, String>) -> Self {
        self.containers.retain(|_, container| container.is_on(labels));
        self.jobs.retain(|_, job| job.container.is_on(labels));
        self
    }
}
