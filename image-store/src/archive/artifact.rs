//! Files of other kinds beside images in a layout: OCI artifacts (OCI image specification, `manifest.md`, "Guidelines for Artifact
//! Usage").

use std::collections::BTreeMap;
use std::io::Read;

use bennu_manifests::model::Digest;
use serde::Serialize;

use super::{Described, Files, LayoutWriter, WriteError, json};
use crate::registry::MAX_DOCUMENT;
use crate::registry::document::{self, Document, MANIFEST_TYPES};
use crate::sha256;
use crate::source::Archive;

/// The media type of what stands for a configuration where there is none, and its bytes.
const EMPTY: (&str, &[u8]) = ("application/vnd.oci.empty.v1+json", b"{}");
/// The annotation of a part with the name of its file (OCI image specification, `annotations.md`).
const TITLE: &str = "org.opencontainers.image.title";

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// Its media type.
    pub media_type: String,
    /// The name that it had; nothing is to be written under it unchecked.
    pub title: String,
    /// Its bytes, at most 4 MiB.
    pub bytes: Vec<u8>,
}

/// Why an artifact cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ArtifactError {
    /// There is none of that kind, or more than one.
    #[error("it has {found} artifacts of the type {kind}, where one is expected")]
    Number {
        /// The kind.
        kind: String,
        /// How many there are.
        found: usize,
    },
    /// Something of it is missing or is too large.
    #[error("{0} is missing or too large")]
    Missing(Digest),
    /// Something of it does not have its digest.
    #[error("{0} does not have that digest")]
    Digest(Digest),
    /// Its manifest is none.
    #[error("its manifest is not one")]
    Manifest(#[from] document::DocumentError),
    /// The files cannot be read.
    #[error("could not read it")]
    Read(#[from] std::io::Error),
}

impl LayoutWriter {
    /// Writes an artifact of the type `kind`.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn artifact(&mut self, kind: &str, parts: &[Part]) -> Result<Described, WriteError> {
        let mut layers = Vec::with_capacity(parts.len());
        for part in parts {
            let mut layer = Described::new(&part.media_type, self.bytes(&part.bytes)?);
            layer.annotations.insert(TITLE.to_owned(), part.title.clone());
            layers.push(layer);
        }
        self.artifact_of(kind, layers, None, BTreeMap::new())
    }

    /// Writes an artifact of layers that were written before, which refers to another manifest. What is given says `annotations` of it,
    /// as a list of referrers does.
    ///
    /// # Errors
    /// [`WriteError`]
    pub(crate) fn referrer(
        &mut self,
        kind: &str,
        layers: Vec<Described>,
        subject: &Described,
        annotations: BTreeMap<String, String>,
    ) -> Result<Described, WriteError> {
        let bare = Described { annotations: BTreeMap::new(), ..subject.clone() };
        self.artifact_of(kind, layers, Some(&bare), annotations)
    }

    fn artifact_of(
        &mut self,
        kind: &str,
        layers: Vec<Described>,
        subject: Option<&Described>,
        annotations: BTreeMap<String, String>,
    ) -> Result<Described, WriteError> {
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Manifest<'a> {
            schema_version: u32,
            media_type: &'a str,
            artifact_type: &'a str,
            config: Described,
            layers: Vec<Described>,
            #[serde(skip_serializing_if = "Option::is_none")]
            subject: Option<&'a Described>,
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let manifest = Manifest {
            schema_version: 2,
            media_type: MANIFEST_TYPES[0],
            artifact_type: kind,
            config: Described::new(EMPTY.0, self.bytes(EMPTY.1)?),
            layers,
            subject,
            annotations: &annotations,
        };
        let described = Described::new(MANIFEST_TYPES[0], self.bytes(&json(&manifest))?);
        Ok(Described { artifact_type: Some(kind.to_owned()), annotations, ..described })
    }
}

impl Files {
    /// The parts of the one artifact of the type `kind`, each with the digest that its manifest says. Blocks.
    ///
    /// # Errors
    /// [`ArtifactError`]
    pub fn artifact(&self, kind: &str) -> Result<Vec<Part>, ArtifactError> {
        let found: Vec<_> =
            self.listed().iter().filter(|listed| listed.artifact_type.as_deref() == Some(kind)).collect();
        let [artifact] = found[..] else {
            return Err(ArtifactError::Number { kind: kind.to_owned(), found: found.len() });
        };
        let manifest = self.small(&artifact.digest, artifact.size)?;
        let Document::Manifest(parsed) = document::parse(&manifest, Some(&artifact.media_type))? else {
            return Err(
                document::DocumentError::Unsupported { media_type: artifact.media_type.clone() }.into()
            );
        };
        let part = |layer: document::Descriptor| {
            Ok(Part {
                bytes: self.small(&layer.digest, layer.size)?,
                title: layer.annotations.get(TITLE).cloned().unwrap_or_default(),
                media_type: layer.media_type,
            })
        };
        parsed.layers.into_iter().map(part).collect()
    }

    /// A blob of at most 4 MiB that has this digest.
    fn small(&self, digest: &Digest, size: u64) -> Result<Vec<u8>, ArtifactError> {
        let missing = || ArtifactError::Missing(*digest);
        if size > MAX_DOCUMENT as u64 {
            return Err(missing());
        }
        let mut bytes = Vec::new();
        self.blob(digest)?.ok_or_else(missing)?.take(size + 1).read_to_end(&mut bytes)?;
        let is_right = bytes.len() as u64 == size && sha256::digest(&bytes) == *digest;
        if is_right { Ok(bytes) } else { Err(ArtifactError::Digest(*digest)) }
    }
}
