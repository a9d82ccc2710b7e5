//! The signatures that a trust document needs, and has: by the version before it, and by itself.

use std::path::{Path, PathBuf};

use bennu_manifests::model::Name;
use bennu_manifests::{
    MAX_DOCUMENT, MAX_SIGNATURE_FILE, Role, Standing, TRUST_NAMESPACE, Trust, check_trust, standing,
};
use serde::Serialize;

use crate::check::not_valid;
use crate::exit::Failure;
use crate::files;

/// A trust document on disk.
#[derive(Debug)]
pub(crate) struct Document {
    pub(crate) path: PathBuf,
    pub(crate) text: String,
    pub(crate) trust: Trust,
    /// Empty where there are none.
    pub(crate) sig: Vec<u8>,
}

impl Document {
    pub(crate) fn read(path: &Path) -> Result<Self, Failure> {
        let text = files::read_text(path, MAX_DOCUMENT)?;
        let trust =
            check_trust(text.as_bytes()).map_err(|invalid| not_valid(path, text.as_bytes(), invalid))?;
        let sig = files::read_if_there(&files::sig_path(path), MAX_SIGNATURE_FILE)?.unwrap_or_default();
        Ok(Self { path: path.to_owned(), text, trust, sig })
    }

    /// Where version `version` of this document is kept once there is a newer one: `trust.toml` as `trust.3.toml`.
    pub(crate) fn kept_as(&self, version: u64) -> PathBuf {
        let part = |part: Option<&std::ffi::OsStr>| part.map(|p| p.to_string_lossy().into_owned());
        let stem = part(self.path.file_stem()).unwrap_or_default();
        let extension = part(self.path.extension()).map(|e| format!(".{e}")).unwrap_or_default();
        self.path.with_file_name(format!("{stem}.{version}{extension}"))
    }

    /// The version before it, where it is kept beside it.
    pub(crate) fn before(&self) -> Result<Option<Self>, Failure> {
        let Some(version) = self.trust.version.checked_sub(1) else { return Ok(None) };
        let path = self.kept_as(version);
        if !path.exists() {
            return Ok(None);
        }
        let before = Self::read(&path)?;
        if before.trust.version == version {
            return Ok(Some(before));
        }
        Err(Failure::invalid(format!(
            "{} says that it is version {}, not {version}",
            path.display(),
            before.trust.version
        )))
    }
}

/// Whose signatures a trust document needs, and has.
#[derive(Debug, Serialize)]
pub(crate) struct Gathered {
    /// By the version before it; absent where that is not known, as for the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) before: Option<Standing>,
    /// By its own keys.
    pub(crate) own: Standing,
    /// Whether a host that has the version before would take it.
    pub(crate) enough: bool,
}

impl Gathered {
    pub(crate) fn of(document: &Document, before: Option<&Trust>) -> Result<Self, Failure> {
        let of = |trust: &Trust| {
            standing(Role::Trust, document.text.as_bytes(), &document.sig, TRUST_NAMESPACE, trust).map_err(
                |e| {
                    let sig = files::sig_path(&document.path);
                    Failure::invalid(format!("{} is no file of signatures", sig.display())).because(e)
                },
            )
        };
        let (before, own) = (before.map(of).transpose()?, of(&document.trust)?);
        let enough = own.enough && before.as_ref().is_some_and(|before| before.enough);
        Ok(Self { before, own, enough })
    }

    /// One line for each version that has a say.
    pub(crate) fn lines(&self) -> Vec<String> {
        self.before.iter().chain([&self.own]).map(line).collect()
    }
}

fn line(standing: &Standing) -> String {
    let by = format!("by version {}", standing.trust_version);
    let Some(needed) = standing.needed else {
        return format!("{by}: nobody has the role `trust`, so there can be no other version");
    };
    let mut all: Vec<&Name> = standing.signed.iter().chain(&standing.missing).collect();
    all.sort();
    let mut line = format!("{by}: {needed} of {}; signed: {}", names(all), names(&standing.signed));
    if !standing.broken.is_empty() {
        line.push_str(&format!("; does not hold: {}", names(&standing.broken)));
    }
    line
}

/// Names between commas, or `nobody`.
pub(crate) fn names<'a>(names: impl IntoIterator<Item = &'a Name>) -> String {
    let names: Vec<&str> = names.into_iter().map(Name::as_str).collect();
    if names.is_empty() { "nobody".to_owned() } else { names.join(", ") }
}
