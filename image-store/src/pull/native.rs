//! Native layers: what is here already is taken from here, the rest is fetched by parts or as a patch, and where that does not work
//! the whole.

use std::io::Read;

use bennu_manifests::model::Digest;

use super::patched::Patches;
use super::{Claimed, Kind, LayerError, Pull};
use crate::claim::Claim;
use crate::import::ImportError;
use crate::native::{self, Assembled, Local, Native, NativeError, Parts, Plan};
use crate::pull_error::{PullError, Refused};
use crate::record::{LayerRecord, Origin};
use crate::registry::document::Descriptor;
use crate::source::blocking;
use crate::store::Store;
use crate::store_error::{StoreError, is_disk_full};

impl Pull<'_> {
    /// A layer that the publisher made a blob of, in the cheapest way.
    pub(super) async fn native_layer(
        &self,
        layer: &Descriptor,
        diff_id: Digest,
        patches: &Patches,
    ) -> Result<Claimed, LayerError> {
        let Some(native) = Native::of(layer) else {
            return Err(self.refused(Refused::Annotations { layer: layer.digest }).into());
        };
        let turn = self.unless_stopped(self.budget.layer()).await?;
        let cheaply = self.cheaply(layer, &native, patches).await?;
        drop(turn);
        match cheaply {
            Some(claim) => Ok((record(&native, diff_id), claim)),
            None => self.fetched(layer, diff_id, Kind::Native(native)).await,
        }
    }

    /// The blob, by a patch or by parts; `None` where the whole layer has to be fetched.
    async fn cheaply(
        &self,
        layer: &Descriptor,
        native: &Native,
        patches: &Patches,
    ) -> Result<Option<Claim>, LayerError> {
        let local = self.local().await.map_err(PullError::from)?;
        let spill = self.store.inner.names.temporary();
        let planned = native::plan(native, Parts { source: self.source, layer }, &local, &spill);
        let planned = self.unless_stopped(planned).await?.and_then(|plan| plan.worth_it(layer.size));
        let otherwise = planned.as_ref().map_or(layer.size, Plan::frame_bytes);
        let patch = self.unless_stopped(self.patch_for(native, otherwise, &local, patches)).await?;
        if let Some(patch) = patch
            && let Some(claim) = self.by_patch(layer, native, patch, &local).await?
        {
            return Ok(Some(claim));
        }
        let by_parts = match planned {
            Ok(plan) => self.unless_stopped(self.by_parts(layer, native, plan, &local)).await?,
            Err(why) => Err(why),
        };
        match by_parts {
            Ok(claim) => Ok(Some(claim)),
            Err(NativeError::NoRoom(source)) => {
                Err(PullError::NoRoom { image: self.name.to_owned(), source }.into())
            }
            Err(NativeError::Write(error)) => {
                Err(self.import_failed(written(error, self.store), layer).into())
            }
            Err(why) => {
                tracing::info!(%why, layer = %layer.digest, "the whole layer is fetched");
                Ok(None)
            }
        }
    }

    /// The blobs that parts can be taken from.
    pub(super) async fn local(&self) -> Result<Local, StoreError> {
        let store = self.store.clone();
        blocking(move || Local::of(&store)).await
    }

    async fn by_parts(
        &self,
        layer: &Descriptor,
        native: &Native,
        plan: Plan,
        local: &Local,
    ) -> Result<Claim, NativeError> {
        let io = |error: StoreError| NativeError::Write(std::io::Error::other(error));
        let parts = Parts { source: self.source, layer };
        let total = plan.index_bytes + plan.frame_bytes();
        tracing::info!(layer = %layer.digest, bytes = total, of = layer.size, "only parts of the layer are fetched");
        let (store, needed) = (self.store.clone(), plan.new_bytes());
        if let Some(shortage) = blocking(move || store.shortage(needed)).await.map_err(io)? {
            return Err(NativeError::NoRoom(shortage));
        }
        let temporary = self.store.temporary().map_err(io)?;
        let out = temporary.file.try_clone().map_err(NativeError::Write)?;
        let spill = self.store.inner.names.temporary();
        let done = std::sync::atomic::AtomicU64::new(plan.index_bytes);
        self.progress.layer(&layer.digest, plan.index_bytes, total);
        let progress = |bytes| {
            let done = done.fetch_add(bytes, std::sync::atomic::Ordering::Relaxed) + bytes;
            self.progress.layer(&layer.digest, done, total);
        };
        native::from_parts(*native, plan, parts, local, out, &spill, progress).await?;
        let (store, blob) = (self.store.clone(), native.blob);
        blocking(move || store.install_blob(temporary, &blob)).await.map_err(io)
    }
}

/// Makes the blob of the whole layer.
pub(super) fn convert(
    store: &Store,
    layer: impl Read,
    native: &Native,
    diff_id: Digest,
) -> Result<Claimed, ImportError> {
    let temporary = store.temporary()?;
    let spill = store.inner.names.temporary();
    native::from_stream(native, layer, &temporary.file, &spill).map_err(|error| match error {
        Assembled::Read(error) => ImportError::Read(error),
        Assembled::Mismatch => ImportError::Blob { expected: native.blob },
        Assembled::Write(error) => written(error, store),
    })?;
    let claim = store.install_blob(temporary, &native.blob)?;
    Ok((record(native, diff_id), claim))
}

pub(super) fn written(error: std::io::Error, store: &Store) -> ImportError {
    if is_disk_full(&error) {
        return ImportError::DiskFull(error);
    }
    StoreError::io("write to", store.inner.names.temporary())(error).into()
}

/// What is known of the layer once its blob is here.
pub(super) fn record(native: &Native, diff_id: Digest) -> LayerRecord {
    LayerRecord { diff_id, blob: native.blob, size: native.extent.bytes(), origin: Origin::Published }
}
