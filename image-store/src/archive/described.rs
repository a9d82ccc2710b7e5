//! Descriptors and documents as they are written.

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;
use serde::Serialize;

/// Something in a layout, by digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Described {
    /// What it is.
    pub media_type: String,
    /// Its SHA-256 digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// What a manifest says to be where it is no image.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// What else is said about it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Described {
    /// A blob that [`super::LayoutWriter`] wrote.
    pub fn new(media_type: &str, (digest, size): (Digest, u64)) -> Self {
        let media_type = media_type.to_owned();
        Self { media_type, digest, size, artifact_type: None, annotations: BTreeMap::new() }
    }
}

/// A document as it is written: without spaces.
pub(crate) fn json(value: &impl Serialize) -> Vec<u8> {
    serde_json::to_vec(value).expect("the documents have string keys and no fallible parts")
}
