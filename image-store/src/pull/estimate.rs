//! What a pull would fetch, without fetching it.

use bennu_manifests::model::Digest;
use serde::Serialize;
use tokio::sync::watch;

use super::patched::Patches;
use super::{Pull, stack};
use crate::native::{self, Native, NativeError, Parts, Plan};
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
    /// Bytes that would be fetched for it.
    pub bytes: u64,
    /// How it would come.
    pub way: Way,
}

/// How a layer comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Way {
    /// It is here.
    Here,
    /// The whole of it.
    Whole,
    /// Those parts of it that nothing here has.
    Parts,
    /// As a patch to an earlier version that is here.
    Patch,
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
        let patches = Patches::of(&described.served.bytes);
        let mut layers: Vec<LayerEstimate> = Vec::with_capacity(described.layers.len());
        for ((diff_id, layer), stacked) in described.layers.iter().zip(&stacked) {
            let again = layers.iter().any(|earlier| earlier.digest == layer.digest);
            let here = again || stacked.is_some() || here.contains_key(diff_id);
            let (way, bytes) = if here { (Way::Here, 0) } else { pull.way(layer, &patches).await? };
            layers.push(LayerEstimate { digest: layer.digest, size: layer.size, bytes, way });
        }
        Ok(Estimate { bytes: layers.iter().map(|layer| layer.bytes).sum(), layers })
    }
}

impl Pull<'_> {
    /// How a layer that is not here would come, and how many bytes that takes.
    async fn way(&self, layer: &Descriptor, patches: &Patches) -> Result<(Way, u64), PullError> {
        let whole = (Way::Whole, layer.size);
        let Some(native) = Native::of(layer).filter(|_| layer.media_type == native::MEDIA_TYPE) else {
            return Ok(whole);
        };
        let local = self.local().await?;
        let spill = self.store.inner.names.temporary();
        let parts = Parts { source: self.source, layer };
        let planned = match native::plan(&native, parts, &local, &spill).await {
            Err(NativeError::Source(error)) => return Err(self.failed(error)),
            planned => planned.and_then(|plan| plan.worth_it(layer.size)).ok(),
        };
        let otherwise = planned.as_ref().map_or(layer.size, Plan::frame_bytes);
        let index = planned.as_ref().map_or(0, |plan| plan.index_bytes);
        Ok(match (self.patch_for(&native, otherwise, &local, patches).await, planned) {
            (Some(patch), _) => (Way::Patch, index + patch.layer.size),
            (None, Some(plan)) => (Way::Parts, index + plan.frame_bytes()),
            (None, None) => whole,
        })
    }
}
