//! What the store remembers about layers and images.

use bennu_manifests::model::Digest;
use oci_spec::image::ImageConfiguration;
use serde::{Deserialize, Serialize};

use crate::claim::Claims;
use crate::cosign::Candidate;
use crate::registry;
use crate::registry::document::{self, Descriptor, Document, DocumentError, Platform};
use crate::sha256;

/// A layer and its blob.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayerRecord {
    /// SHA-256 of the uncompressed tar.
    pub diff_id: Digest,
    /// fs-verity digest of the EROFS blob.
    pub blob: Digest,
    /// Bytes of the blob.
    pub size: u64,
    /// What the blob was made from.
    #[serde(default, skip_serializing_if = "Origin::is_tar")]
    pub origin: Origin,
}

impl LayerRecord {
    /// Whether the blob is what every image gets for the layer with this diff id.
    pub fn is_of(&self, diff_id: &Digest) -> bool {
        self.diff_id == *diff_id && matches!(self.origin, Origin::Tar | Origin::Open)
    }
}

/// What a blob was made from, which says who may use it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Origin {
    /// The tar with the diff id and nothing else, on this machine: the layer of every image that names the diff id.
    #[default]
    Tar,
    /// The same, but it leaves something to the layers below: directories that it has no entry for, or links to their files. In
    /// the record of an image, there was nothing below that this is about.
    Open,
    /// The tar and the layers below it, because it left something to them: the layer of this image alone.
    Stacked,
    /// Nothing; whoever published the image made it and vouches for it: the layer of this image alone.
    Published,
}

impl Origin {
    /// Whether the blob was made here from its tar alone, and leaves nothing open.
    pub fn is_tar(&self) -> bool {
        *self == Self::Tar
    }
}

/// An image that is in the store, whole.
#[derive(Debug, Clone)]
pub struct Image {
    /// What it was asked for by: the digest of its index, or of its manifest where there is no index.
    pub digest: Digest,
    /// The digest of its manifest.
    pub manifest_digest: Digest,
    /// Bytes of its manifest.
    pub manifest_size: u64,
    /// How it wants to be run, and what it is made of.
    pub config: ImageConfiguration,
    /// Its layers, the lowest first.
    pub layers: Vec<LayerRecord>,
    /// Bytes of the blobs of all layers, a repeated one counted once.
    pub size: u64,
    /// What keeps it from being collected, where it was claimed.
    pub claims: Claims,
    /// What the index offers that it was asked for by; empty where that was none.
    pub index: Vec<Descriptor>,
}

/// The record of an image: the documents as they came, byte for byte, and the blobs of its layers.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) struct ImageRecord {
    /// The index that the image was asked for by, where it was one.
    pub(crate) index: Option<String>,
    pub(crate) manifest: String,
    pub(crate) manifest_type: String,
    pub(crate) config: String,
    /// In the order of the manifest.
    pub(crate) layers: Vec<LayerRecord>,
    /// What came with it and may be a signature of it; nobody has to believe any of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) signatures: Vec<Candidate>,
}

/// Why a record is not believed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RecordFault {
    /// One of its documents is none.
    #[error("{0}")]
    Document(#[from] DocumentError),
    /// The configuration is none.
    #[error("the image configuration: {0}")]
    Config(#[from] oci_spec::OciSpecError),
    /// Its parts do not belong together.
    #[error("{0}")]
    Inconsistent(&'static str),
}

impl Image {
    /// The image of a record; every digest that holds it together is computed anew, so a changed byte is noticed.
    pub(crate) fn assemble(digest: &Digest, record: &ImageRecord) -> Result<Self, RecordFault> {
        let manifest_digest = sha256::digest(record.manifest.as_bytes());
        let asked = record.index.as_ref().map_or(manifest_digest, |index| sha256::digest(index.as_bytes()));
        if asked != *digest {
            return Err(RecordFault::Inconsistent("the digest of the image does not fit"));
        }
        let mut offered = Vec::new();
        if let Some(index) = &record.index {
            let Document::Index(index) = document::parse(index.as_bytes(), None)? else {
                return Err(RecordFault::Inconsistent("what stands for the index is none"));
            };
            if !index.iter().any(|entry| entry.digest == manifest_digest) {
                return Err(RecordFault::Inconsistent("the index does not name the manifest"));
            }
            offered = index;
        }
        let Document::Manifest(manifest) =
            document::parse(record.manifest.as_bytes(), Some(&record.manifest_type))?
        else {
            return Err(RecordFault::Inconsistent("what stands for the manifest is none"));
        };
        if manifest.config.digest != sha256::digest(record.config.as_bytes()) {
            return Err(RecordFault::Inconsistent("the digest of the configuration does not fit"));
        }
        let config = ImageConfiguration::from_reader(record.config.as_bytes())?;
        registry::config::check(&config)?;
        let diff_ids = document::diff_ids(&config)?;
        if diff_ids.len() != record.layers.len()
            || diff_ids.len() != manifest.layers.len()
            || diff_ids.iter().zip(&record.layers).any(|(id, layer)| *id != layer.diff_id)
        {
            return Err(RecordFault::Inconsistent("the layers are not those of the configuration"));
        }
        let mut blobs: Vec<_> = record.layers.iter().map(|layer| (layer.blob, layer.size)).collect();
        blobs.sort_unstable();
        blobs.dedup();
        Ok(Self {
            digest: *digest,
            manifest_digest,
            manifest_size: record.manifest.len() as u64,
            config,
            layers: record.layers.clone(),
            size: blobs.iter().map(|(_, size)| size).sum(),
            claims: Claims::default(),
            index: offered,
        })
    }

    /// The digest of the manifest that its index has for a platform, where that is another image than this one. A store has one image
    /// by the digest of an index, the first that was pulled; others are there by the digests of their manifests.
    pub fn sibling(&self, platform: &Platform) -> Option<Digest> {
        platform
            .choose(&self.index)
            .map(|entry| entry.digest)
            .filter(|digest| *digest != self.manifest_digest)
    }
}
