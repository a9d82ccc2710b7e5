//! The first start: from the provisioning document to what the host knows of itself.
//!
//! ```text
//! identity/
//!   provision.toml   the document, mode 0600: it holds the host's private key
//!   age.key          what opens secrets that are encrypted for this host (`secrets.rs`)
//!   trust.toml       the trust document that came with it
//! ```

use std::io;
use std::path::{Path, PathBuf};

use bennu_api::provision::{CREDENTIAL, MAX_SIZE, Provision};
use bennu_image_store::durable;
use bennu_manifests::{Trust, check_trust};

/// The version of the document that is read.
const SCHEMA: u32 = 1;

/// Why a host does not know who it is.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProvisionError {
    /// It was never told.
    #[error("this host is not provisioned: no credential {CREDENTIAL} and no {path}")]
    NotProvisioned {
        /// Where it would be remembered.
        path: PathBuf,
    },
    /// A file could not be read or written.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// The key that opens secrets cannot be read as one. It is never replaced by itself: what is encrypted for it would
    /// be lost.
    #[error("{path} is no age identity; put back what was there, or remove it for a new one")]
    SecretIdentity {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        source: bennu_secrets::NotAnIdentity,
    },
    /// The document is not valid.
    #[error("the provisioning document {path} is not valid: {reason}")]
    Invalid {
        /// Where it is.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
}

/// Who this host is and whom it trusts.
#[derive(Debug)]
pub struct Identity {
    /// What it was told.
    pub provision: Provision,
    /// The trust document that it was provisioned with; the ledger says which one is in force.
    pub trust: Trust,
    /// What opens the secrets that are encrypted for this host.
    pub secrets: bennu_secrets::Identity,
}

impl Identity {
    /// What is remembered, else what the credential says, which is then remembered. All is checked before any of it is
    /// written, and the provisioning document is written last: a start that was cut short begins again.
    ///
    /// # Errors
    /// Where there is neither, or it can't be used.
    pub fn load(state: &Path, credentials: Option<&Path>) -> Result<Self, ProvisionError> {
        let dir = state.join("identity");
        let remembered = dir.join("provision.toml");
        if let Some(text) = read(&remembered)? {
            let provision = parse(&text, &remembered)?;
            let trust_path = dir.join("trust.toml");
            let trust = read(&trust_path)?.ok_or_else(|| ProvisionError::Invalid {
                path: trust_path.clone(),
                reason: "it is missing".into(),
            })?;
            let trust = parse_trust(&trust, &trust_path)?;
            let secrets = crate::secrets::identity(&dir)?;
            return Ok(Self { provision, trust, secrets });
        }
        let credential = credentials.map(|dir| dir.join(CREDENTIAL));
        let text = match &credential {
            Some(path) => read(path)?,
            None => None,
        };
        let (Some(text), Some(path)) = (text, credential) else {
            return Err(ProvisionError::NotProvisioned { path: remembered });
        };
        let provision = parse(&text, &path)?;
        let trust = parse_trust(&provision.trust, &path)?;
        std::fs::create_dir_all(&dir).map_err(|source| error("create", &dir, source))?;
        write(&dir.join("trust.toml"), &provision.trust)?;
        let secrets = crate::secrets::identity(&dir)?;
        write(&remembered, &text)?;
        durable::sync_dir(state).map_err(|source| error("sync", state, source))?;
        Ok(Self { provision, trust, secrets })
    }
}

fn parse(text: &str, path: &Path) -> Result<Provision, ProvisionError> {
    let invalid = |reason: String| ProvisionError::Invalid { path: path.to_owned(), reason };
    let provision: Provision = toml::from_str(text).map_err(|e| invalid(e.to_string()))?;
    if provision.schema != SCHEMA {
        return Err(invalid(format!("its schema is {}, and this hostd reads {SCHEMA}", provision.schema)));
    }
    Ok(provision)
}

fn parse_trust(text: &str, path: &Path) -> Result<Trust, ProvisionError> {
    check_trust(text.as_bytes()).map_err(|invalid| ProvisionError::Invalid {
        path: path.to_owned(),
        reason: format!("its trust document: {}", invalid.render("trust.toml", text)),
    })
}

/// A file of bounded size; `None` where it is not there.
pub(crate) fn read(path: &Path) -> Result<Option<String>, ProvisionError> {
    use std::io::Read as _;
    let file = match std::fs::File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(error("open", path, source)),
    };
    let mut text = String::new();
    file.take(MAX_SIZE as u64 + 1).read_to_string(&mut text).map_err(|source| error("read", path, source))?;
    if text.len() > MAX_SIZE {
        let reason = format!("it is larger than {MAX_SIZE} bytes");
        return Err(ProvisionError::Invalid { path: path.to_owned(), reason });
    }
    Ok(Some(text))
}

pub(crate) fn write(path: &Path, text: &str) -> Result<(), ProvisionError> {
    durable::replace_with_mode(path, text.as_bytes(), 0o600).map_err(|source| error("write", path, source))
}

fn error(doing: &'static str, path: &Path, source: io::Error) -> ProvisionError {
    ProvisionError::Io { doing, path: path.to_owned(), source }
}
