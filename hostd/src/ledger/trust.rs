//! The trust documents that were taken since the host was provisioned.
//!
//! All of them are kept: at each start the chain from the provisioned one to the one in force is verified again, so that a
//! document that somebody wrote beside `hostd` is not believed.

use std::path::{Path, PathBuf};

use bennu_api::SignedDocument;
use bennu_image_store::durable;
use bennu_manifests::model::Digest;
use bennu_manifests::{Floors, MAX_DOCUMENT, MAX_SIGNATURE_FILE, Trust, verify_trust_chain_again};

use super::{LedgerError, io_error, read_bounded, write};

/// Which documents count, and the text of the one in force.
#[derive(Debug)]
pub(super) struct TrustLog {
    /// The provisioned one, and those taken after it, in order; the last one is in force.
    versions: Vec<Trust>,
    /// As it was handed in; `None` for the provisioned one.
    in_force: Option<SignedDocument>,
}

impl TrustLog {
    /// Reads what the floors say was taken.
    pub(super) fn open(dir: &Path, provisioned: &Trust, floors: &Floors) -> Result<Self, LedgerError> {
        let mut log = Self { versions: vec![provisioned.clone()], in_force: None };
        let mut documents = Vec::new();
        for version in provisioned.version + 1..=floors.trust_version {
            documents.push(read(dir, version)?);
        }
        let Some(newest) = documents.last() else { return Ok(log) };
        let links: Vec<(&[u8], &[u8])> =
            documents.iter().map(|d| (d.document.as_bytes(), d.signatures.as_bytes())).collect();
        let chain = verify_trust_chain_again(provisioned, &links)
            .map_err(|source| LedgerError::TrustDamaged { path: dir.to_owned(), source })?;
        let digest = Digest::of(newest.document.as_bytes());
        if floors.trust_document.is_some_and(|known| known != digest) {
            let reason = "it is not the document that was taken".to_owned();
            return Err(LedgerError::Damaged { path: document_path(dir, floors.trust_version), reason });
        }
        log.versions.extend(chain.steps().cloned());
        log.in_force = Some(newest.clone());
        Ok(log)
    }

    /// The document in force.
    pub(super) fn current(&self) -> &Trust {
        self.versions.last().expect("the provisioned one is always there")
    }

    /// Its text and signatures; `None` where it is the provisioned one.
    pub(super) fn in_force(&self) -> Option<&SignedDocument> {
        self.in_force.as_ref()
    }

    /// The document of that version; for what was accepted before versions were noted, or is older than the provisioned
    /// one, the oldest there is.
    pub(super) fn version(&self, version: u64) -> &Trust {
        self.versions.iter().rfind(|trust| trust.version <= version).unwrap_or(&self.versions[0])
    }

    /// These documents were taken, and are on disk.
    pub(super) fn extend<'a>(&mut self, taken: impl Iterator<Item = &'a Trust>, newest: SignedDocument) {
        self.versions.extend(taken.cloned());
        self.in_force = Some(newest);
    }
}

/// Puts a document on disk. It counts once the floors name its version.
pub(super) fn put(dir: &Path, version: u64, signed: &SignedDocument) -> Result<(), LedgerError> {
    write(&document_path(dir, version), signed.document.as_bytes())?;
    write(&signatures_path(dir, version), signed.signatures.as_bytes())
}

/// Makes the folder, and puts its name on disk.
pub(super) fn prepare(ledger: &Path, dir: &Path) -> Result<(), LedgerError> {
    std::fs::create_dir_all(dir).map_err(|source| io_error("create", dir, source))?;
    durable::sync_dir(ledger).map_err(|source| io_error("sync", ledger, source))
}

fn read(dir: &Path, version: u64) -> Result<SignedDocument, LedgerError> {
    Ok(SignedDocument {
        document: read_bounded(&document_path(dir, version), MAX_DOCUMENT)?,
        signatures: read_bounded(&signatures_path(dir, version), MAX_SIGNATURE_FILE)?,
    })
}

fn document_path(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("{version}.toml"))
}

fn signatures_path(dir: &Path, version: u64) -> PathBuf {
    dir.join(format!("{version}.toml.sig"))
}
