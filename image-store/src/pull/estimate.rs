//! What a pull would fetch, without fetching it.

use bennu_manifests::model::Digest;
use serde::Serialize;
use tokio::sync::watch;

use super::{Pull, stack};
use crate::native::{self, Local, Native, NativeError, Parts};
use crate::pull_error::PullError;
use crate::registry::document::{Descriptor, Platform};
use crate::source::{Source, blocking};
use crate::store::Store;

/// What a pull would fetch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Estimate {
    /// Bytes in all, the documents not included.
    pub bytes: u64,
    /// Its layers, the lowest first. Empty where the image is here.
    pub layers: Vec<LayerEstimate>,
}

/// What a pull would fetch of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct LayerEstimate {
    /// Its compressed digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Bytes of it that would be fetched.
    pub bytes: u64,
}

impl Store {
    /// What [`Store::pull_from`] would fetch now. Documents are fetched to find out, and of native layers the index.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn estimate(
        &self,
        source: &Source,
        name: &str,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<Estimate, PullError> {
        let (store, digest) = (self.clone(), *digest);
        if blocking(move || store.image(&digest)).await?.is_some() {
            return Ok(Estimate { bytes: 0, layers: Vec::new() });
        }
        let stop = watch::Sender::new(false);
        let budget = source.budget();
        let pull = Pull { store: self, source, name, digest, platform, progress: &(), budget, stop };
        let described = pull.describe().await?;
        let stacked = stack::known(self, &described.layers).await?;
        let here = pull.present(&described.wanted(&stacked)).await?;
        let mut layers: Vec<LayerEstimate> = Vec::with_capacity(described.layers.len());
        for ((diff_id, layer), stacked) in described.layers.iter().zip(&stacked) {
            let again = layers.iter().any(|earlier| earlier.digest == layer.digest);
            let here = again || stacked.is_some() || here.contains_key(diff_id);
            let bytes = if here { 0 } else { pull.layer_bytes(layer).await? };
            layers.push(LayerEstimate { digest: layer.digest, size: layer.size, bytes });
        }
        Ok(Estimate { bytes: layers.iter().map(|layer| layer.bytes).sum(), layers })
    }
}

impl Pull<'_> {
    /// Bytes that would be fetched of a layer that is not here.
    async fn layer_bytes(&self, layer: &Descriptor) -> Result<u64, PullError> {
        let Some(native) = Native::of(layer).filter(|_| layer.media_type == native::MEDIA_TYPE) else {
            return Ok(layer.size);
        };
        let store = self.store.clone();
        let local = blocking(move || Local::of(&store)).await?;
        match native::plan(&native, Parts { source: self.source, layer }, &local).await {
            Ok(plan) => Ok((plan.index_bytes + plan.frame_bytes()).min(layer.size)),
            Err(NativeError::Source(error)) => Err(self.failed(error)),
            Err(_) => Ok(layer.size),
        }
    }
}
