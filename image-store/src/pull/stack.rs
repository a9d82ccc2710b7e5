//! Layers that leave something to those below them.

use bennu_manifests::model::Digest;

use super::{Claimed, Pull};
use crate::claim::Claim;
use crate::native::MEDIA_TYPE;
use crate::pull_error::{PullError, Refused};
use crate::record::LayerRecord;
use crate::registry::document::Descriptor;
use crate::source::blocking;
use crate::stack::StackError;
use crate::store::Store;
use crate::store_error::{StoreError, is_disk_full};
use crate::tar::Limits;

/// The layers that need not be fetched because another image has them over the same layers, claimed.
pub(super) async fn known(
    store: &Store,
    layers: &[(Digest, Descriptor)],
) -> Result<Vec<Option<Claimed>>, StoreError> {
    // What lies over a published blob is not determined by diff ids.
    let ours = layers.iter().take_while(|(_, layer)| layer.media_type != MEDIA_TYPE);
    let (store, wanted) = (store.clone(), ours.map(|(diff_id, _)| *diff_id).collect::<Vec<_>>());
    let claimed = blocking(move || {
        let claim = |record: LayerRecord| Ok(store.claim_blob(&record)?.map(|claim| (record, claim)));
        store.stacked(&wanted)?.into_iter().map(|found| found.map_or(Ok(None), claim)).collect()
    });
    let mut known: Vec<Option<Claimed>> = claimed.await?;
    known.resize_with(layers.len(), || None);
    Ok(known)
}

impl Pull<'_> {
    /// Puts each layer over those below it, and claims what that makes.
    pub(super) async fn stack(
        &self,
        described: &[(Digest, Descriptor)],
        layers: Vec<LayerRecord>,
    ) -> Result<(Vec<LayerRecord>, Vec<Claim>), PullError> {
        let (mut stacked, mut claims) = (Vec::with_capacity(layers.len()), Vec::new());
        for (layer, (_, descriptor)) in layers.into_iter().zip(described) {
            let (store, below, limits) =
                (self.store.clone(), stacked.clone(), Limits::of_compressed(descriptor.size));
            let done = blocking(move || store.stack(&below, layer, limits)).await;
            let (layer, claim) = done.map_err(|error| self.stack_failed(error, descriptor))?;
            stacked.push(layer);
            claims.extend(claim);
        }
        Ok((stacked, claims))
    }

    fn stack_failed(&self, error: StackError, layer: &Descriptor) -> PullError {
        match error {
            StackError::Refused(refused) => self.refused(Refused::Stacked {
                layer: layer.digest,
                path: refused.path,
                source: refused.reason,
            }),
            StackError::Write(source) if is_disk_full(&source) => {
                PullError::DiskFull { image: self.name.to_owned(), source }
            }
            StackError::Write(source) => {
                StoreError::io("write to", self.store.inner.names.temporary())(source).into()
            }
            StackError::Read(source) => {
                let fault = format!("a blob of the image cannot be read: {source}");
                StoreError::Damaged { path: self.store.inner.names.blobs(), fault }.into()
            }
            StackError::Store(error) => error.into(),
        }
    }
}
