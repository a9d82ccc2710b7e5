//! What an image is made of, what of it is here, and whether the rest fits.

use std::collections::{BTreeMap, BTreeSet};

use bennu_manifests::model::Digest;
use oci_spec::image::ImageConfiguration;
use tokio::sync::watch;

use super::{Claimed, Pull, check_platform, native, stack, text};
use crate::native::{self as format, Native};
use crate::pull_error::{PullError, Refused};
use crate::registry::document::{self, Descriptor, Platform};
use crate::registry::{self, Served};
use crate::source::{Source, blocking};
use crate::store::Store;
use crate::store_error::StoreError;

/// The documents of an image, checked as far as they can be without its layers.
pub(super) struct Described {
    /// The index that it was asked for by, where it was one.
    pub(super) index: Option<String>,
    /// The manifest.
    pub(super) served: Served,
    pub(super) config: String,
    /// Diff ids and layers, the lowest first.
    pub(super) layers: Vec<(Digest, Descriptor)>,
}

impl Described {
    /// Its layers by diff id, but for those that are here already over the layers below them: one that it has twice is needed
    /// once.
    pub(super) fn wanted(&self, stacked: &[Option<Claimed>]) -> BTreeMap<Digest, Descriptor> {
        let wanted = self.layers.iter().zip(stacked).filter(|(_, stacked)| stacked.is_none());
        wanted.map(|(layer, _)| layer.clone()).collect()
    }
}

impl Store {
    /// Which layers of an image would have to be fetched, by diff id, and how many bytes the blob of each takes at least. Of
    /// several images together, the layers that they share count once. Only documents are fetched to find out.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn missing(
        &self,
        source: &Source,
        name: &str,
        digest: &Digest,
        platform: &Platform,
    ) -> Result<BTreeMap<Digest, u64>, PullError> {
        let (stop, budget) = (watch::Sender::new(false), source.budget());
        let digest = *digest;
        let pull = Pull { store: self, source, name, digest, platform, progress: &(), budget, stop };
        let described = pull.describe().await?;
        let mut wanted = described.wanted(&stack::known(self, &described.layers).await?);
        let here = pull.present(&wanted).await?;
        wanted.retain(|diff_id, _| !here.contains_key(diff_id));
        pull.least(&wanted).await
    }
}

impl Pull<'_> {
    /// Fetches the documents.
    pub(super) async fn describe(&self) -> Result<Described, PullError> {
        let (index, served, manifest) = self.manifest().await?;
        document::check_image(&manifest).map_err(|error| self.refused(error.into()))?;
        let config = self.source.small_blob(&manifest.config).await.map_err(|error| self.failed(error))?;
        let config = text(config).map_err(|refused| self.refused(refused))?;
        let parsed = ImageConfiguration::from_reader(config.as_bytes())
            .map_err(|error| self.refused(Refused::Config(error)))?;
        check_platform(self.name, self.platform, &parsed)?;
        registry::config::check(&parsed).map_err(|error| self.refused(error.into()))?;
        let diff_ids = document::diff_ids(&parsed).map_err(|error| self.refused(error.into()))?;
        if diff_ids.len() != manifest.layers.len() {
            return Err(self.refused(Refused::LayerCount));
        }
        Ok(Described { index, served, config, layers: diff_ids.into_iter().zip(manifest.layers).collect() })
    }

    /// Those of the layers that are here, claimed.
    pub(super) async fn present(
        &self,
        wanted: &BTreeMap<Digest, Descriptor>,
    ) -> Result<BTreeMap<Digest, Claimed>, PullError> {
        let (mut tars, mut published) = (BTreeSet::new(), Vec::new());
        for (diff_id, layer) in wanted {
            if layer.media_type != format::MEDIA_TYPE {
                tars.insert(*diff_id);
            } else if let Some(native) = Native::of(layer) {
                published.push((*diff_id, native::record(&native, *diff_id)));
            }
        }
        let store = self.store.clone();
        let here = blocking(move || {
            let mut here = store.claim_layers(&tars)?;
            for (diff_id, record) in published {
                here.extend(store.claim_blob(&record)?.map(|claim| (diff_id, (record, claim))));
            }
            Ok::<_, StoreError>(here)
        });
        Ok(here.await?)
    }

    /// Refuses to begin where it is sure that the disk would be full before the end.
    pub(super) async fn require_room(&self, missing: &BTreeMap<Digest, Descriptor>) -> Result<(), PullError> {
        if missing.is_empty() {
            return Ok(());
        }
        let needed = self.least(missing).await?.values().sum();
        let store = self.store.clone();
        match blocking(move || store.shortage(needed)).await? {
            Some(source) => Err(PullError::NoRoom { image: self.name.to_owned(), source }),
            None => Ok(()),
        }
    }

    /// How many bytes the blobs of these layers take at least.
    async fn least(&self, layers: &BTreeMap<Digest, Descriptor>) -> Result<BTreeMap<Digest, u64>, PullError> {
        let store = self.store.clone();
        let blobs = blocking(move || store.digests_in(&store.inner.names.blobs())).await?;
        let least =
            |layer: &Descriptor| match Native::of(layer).filter(|_| layer.media_type == format::MEDIA_TYPE) {
                // It may share most of its blocks with a blob that is here.
                Some(_) if !blobs.is_empty() => 0,
                Some(native) => native.extent.bytes(),
                // What a layer unpacks to is not known; hardly any gets smaller.
                None => layer.size,
            };
        Ok(layers.iter().map(|(diff_id, layer)| (*diff_id, least(layer))).collect())
    }
}
