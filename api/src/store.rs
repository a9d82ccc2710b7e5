//! Images and volumes.

use bennu_manifests::model::{Digest, Name};
use serde::{Deserialize, Serialize};

/// The images in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Images {
    /// By digest.
    pub images: Vec<Image>,
}

/// One image in the store.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
pub struct Image {
    /// The digest of its manifest.
    #[cfg_attr(test, schemars(with = "String"))]
    pub digest: Digest,
    /// Its layers.
    pub layers: usize,
    /// Bytes on disk of its layers; layers shared with other images are counted here too.
    pub size: u64,
    /// The containers of the active generation that use it.
    #[cfg_attr(test, schemars(with = "Vec<String>"))]
    pub used_by: Vec<Name>,
}
