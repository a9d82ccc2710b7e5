//! Native layers: what is here already is taken from here, the rest is fetched by parts, and where that does not work the whole.

use std::io::Read;

use bennu_manifests::model::Digest;

use super::{Claimed, Kind, LayerError, Pull};
use crate::claim::Claim;
use crate::import::ImportError;
use crate::native::{self, Assembled, Local, Native, NativeError, Parts};
use crate::pull_error::{PullError, Refused};
use crate::record::{LayerRecord, Origin};
use crate::registry::document::Descriptor;
use crate::source::blocking;
use crate::store::Store;
use crate::store_error::{StoreError, is_disk_full};

impl Pull<'_> {
    /// A layer that the publisher made a blob of.
    pub(super) async fn native_layer(
        &self,
        layer: &Descriptor,
        diff_id: Digest,
    ) -> Result<Claimed, LayerError> {
        let Some(native) = Native::of(layer) else {
            return Err(self.refused(Refused::Annotations { layer: layer.digest }).into());
        };
        let record = record(&native, diff_id);
        let turn = self.unless_stopped(self.budget.layer()).await?;
        let by_parts = self.unless_stopped(self.by_parts(layer, &native)).await?;
        drop(turn);
        match by_parts {
            Ok(claim) => return Ok((record, claim)),
            Err(NativeError::NoRoom(source)) => {
                return Err(PullError::NoRoom { image: self.name.to_owned(), source }.into());
            }
            Err(NativeError::Write(error)) => {
                return Err(self.import_failed(written(error, self.store), layer).into());
            }
            Err(why) => tracing::info!(%why, layer = %layer.digest, "the whole layer is fetched"),
        }
        self.fetched(layer, diff_id, Kind::Native(native)).await
    }

    async fn by_parts(&self, layer: &Descriptor, native: &Native) -> Result<Claim, NativeError> {
        let store = self.store.clone();
        let io = |error: StoreError| NativeError::Write(std::io::Error::other(error));
        let local = blocking(move || Local::of(&store)).await.map_err(io)?;
        let parts = Parts { source: self.source, layer };
        let plan = native::plan(native, parts, &local).await?;
        let total = plan.index_bytes + plan.frame_bytes();
        tracing::info!(layer = %layer.digest, bytes = total, of = layer.size, "only parts of the layer are fetched");
        if total >= layer.size {
            return Err(NativeError::NotWorthIt);
        }
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
        native::from_parts(*native, plan, parts, &local, out, &spill, progress).await?;
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

fn written(error: std::io::Error, store: &Store) -> ImportError {
    if is_disk_full(&error) {
        return ImportError::DiskFull(error);
    }
    StoreError::io("write to", store.inner.names.temporary())(error).into()
}

/// What is known of the layer once its blob is here.
pub(super) fn record(native: &Native, diff_id: Digest) -> LayerRecord {
    LayerRecord { diff_id, blob: native.blob, size: native.extent.bytes(), origin: Origin::Published }
}
