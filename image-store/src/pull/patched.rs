//! Patches from earlier versions: looked for once a pull, and where that is worth it; applied where one is the cheapest way.
//!
//! Nothing that goes wrong with a patch makes a pull fail but a full disk: what it would have made is fetched in another way.

use std::time::Duration;

use bennu_manifests::model::Digest;
use serde::Deserialize;
use tokio::sync::{OnceCell, mpsc};
use tokio::time::timeout;

use super::native::written;
use super::{LayerError, PIECES_WAITING, PieceReader, Pull};
use crate::claim::Claim;
use crate::native::{Local, Native, Offer, Patch, PatchError, apply, cheapest_patch, patch, worth_a_look};
use crate::pull_error::PullError;
use crate::registry::Referrer;
use crate::registry::document::{self, Descriptor, Document, MANIFEST_TYPES};
use crate::source::SourceError;

/// The most manifests of patches that are read for one image.
const MAX_MANIFESTS: usize = 16;
/// How long is looked for patches. Without them more bytes come, and nothing else.
const PATIENCE: Duration = Duration::from_secs(20);

/// The patches for an image, once they were looked for.
pub(super) struct Patches {
    /// The digest of the image's manifest, to which they refer.
    subject: Digest,
    found: OnceCell<Vec<Patch>>,
}

impl Patches {
    /// Those for the image with this manifest. Nothing is asked yet.
    pub(super) fn of(manifest: &[u8]) -> Self {
        Self { subject: Digest::of(manifest), found: OnceCell::new() }
    }
}

impl Pull<'_> {
    /// The patch to take for a blob that costs `otherwise` bytes without one; `None` where none costs fewer.
    pub(super) async fn patch_for<'p>(
        &self,
        native: &Native,
        otherwise: u64,
        local: &Local,
        patches: &'p Patches,
    ) -> Option<&'p Patch> {
        if local.is_empty() || !worth_a_look(otherwise) {
            return None;
        }
        let all = patches.found.get_or_init(|| self.look_for_patches(&patches.subject, local)).await;
        let fits = |patch: &&Patch| patch.blob == native.blob && local.named(&patch.from).is_some();
        let fitting: Vec<&Patch> = all.iter().filter(fits).collect();
        let offer = |patch: &&Patch| Offer { bytes: patch.layer.size, memory: patch.memory };
        let offers: Vec<Offer> = fitting.iter().map(offer).collect();
        cheapest_patch(otherwise, &offers, available_memory()).map(|number| fitting[number])
    }

    async fn look_for_patches(&self, subject: &Digest, local: &Local) -> Vec<Patch> {
        match timeout(PATIENCE, self.offered(subject, local)).await {
            Ok(Ok(patches)) => patches,
            Ok(Err(error)) => {
                tracing::warn!(%error, image = self.name, "patches cannot be looked for");
                Vec::new()
            }
            Err(_late) => {
                tracing::warn!(image = self.name, "no patches are waited for any longer");
                Vec::new()
            }
        }
    }

    async fn offered(&self, subject: &Digest, local: &Local) -> Result<Vec<Patch>, SourceError> {
        let referrers = self.source.referrers(subject, patch::ARTIFACT_TYPE).await?;
        let mut patches = Vec::new();
        for referrer in referrers.iter().filter(|referrer| is_of_use(referrer, local)).take(MAX_MANIFESTS) {
            match self.manifest_of_patches(&referrer.digest, subject).await {
                Ok(found) => patches.extend(found.into_iter().filter_map(Patch::of)),
                Err(error) => tracing::warn!(%error, patches = %referrer.digest, "patches are passed over"),
            }
        }
        Ok(patches)
    }

    async fn manifest_of_patches(
        &self,
        digest: &Digest,
        image: &Digest,
    ) -> Result<Vec<Descriptor>, PatchesError> {
        let served = self.source.document(digest, Some(MANIFEST_TYPES[0])).await?;
        let parsed = document::parse(&served.bytes, Some(&served.media_type));
        let Document::Manifest(manifest) = parsed.map_err(|_| PatchesError::Manifest)? else {
            return Err(PatchesError::Manifest);
        };
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Says {
            artifact_type: String,
            subject: Descriptor,
        }
        let says: Says = serde_json::from_slice(&served.bytes).map_err(|_| PatchesError::Manifest)?;
        if says.artifact_type != patch::ARTIFACT_TYPE || says.subject.digest != *image {
            return Err(PatchesError::Subject);
        }
        Ok(manifest.layers)
    }

    /// Fetches a patch and applies it. `None` where nothing came of it and the blob has to come in another way.
    pub(super) async fn by_patch(
        &self,
        layer: &Descriptor,
        native: &Native,
        patch: &Patch,
        local: &Local,
    ) -> Result<Option<Claim>, LayerError> {
        let _memory = self.unless_stopped(self.budget.patch()).await?;
        let Some(old) = local.named(&patch.from).cloned() else { return Ok(None) };
        let (bytes, of) = (patch.layer.size, layer.size);
        tracing::info!(layer = %layer.digest, bytes, of, from = %patch.from, "a patch is fetched");
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let (store, described, native) = (self.store.clone(), patch.clone(), *native);
        let applying = tokio::task::spawn_blocking(move || {
            let temporary = store.temporary()?;
            let spill = store.inner.names.temporary();
            let bytes = PieceReader::new(waiting);
            match apply(&native, &described, &old, bytes, &temporary.file, &spill) {
                Ok(()) => store.install_blob(temporary, &native.blob).map(Ok),
                Err(error) => Ok(Err(error)),
            }
        });
        // Shown as the layer that it stands for.
        let shown = Descriptor { size: patch.layer.size, ..layer.clone() };
        let mut download = self.source.download(&patch.layer);
        let downloaded = self.unless_stopped(self.download(&mut download, &shown, pieces)).await;
        let applied = applying.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        let of_no_use = |why: &dyn std::error::Error| {
            let (patch, layer) = (&patch.layer.digest, &layer.digest);
            tracing::warn!(%why, %patch, %layer, "the patch is of no use, and the blob is fetched in another way");
            None
        };
        match (downloaded?, applied) {
            (_, Err(error)) => Err(PullError::from(error).into()),
            (_, Ok(Err(PatchError::Write(error)))) => {
                Err(self.import_failed(written(error, self.store), layer).into())
            }
            (Ok(()), Ok(Ok(claim))) => Ok(Some(claim)),
            (Err(error), _) => Ok(of_no_use(&error)),
            (Ok(()), Ok(Err(error))) => Ok(of_no_use(&error)),
        }
    }
}

/// Whether a referrer may have a patch from something that is here. A list that leaves out what its manifests say to be leaves in what
/// they say of themselves.
fn is_of_use(referrer: &Referrer, local: &Local) -> bool {
    let kind = referrer.artifact_type.as_str();
    let from = referrer.annotations.get(patch::FROM);
    let is_here = |from: &str| from.parse().is_ok_and(|from| local.named(&from).is_some());
    (kind == patch::ARTIFACT_TYPE || kind.is_empty()) && from.is_some_and(|all| all.split(',').any(is_here))
}

/// Why a manifest is not taken for one of patches.
#[derive(Debug, thiserror::Error)]
enum PatchesError {
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("it is no manifest of patches")]
    Manifest,
    #[error("it is about something else than patches for this image")]
    Subject,
}

/// Bytes of memory that programs can still have without others being put out, as the kernel sees it (proc_meminfo(5)); all there could
/// be where it does not say.
fn available_memory() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    kib.map_or(u64::MAX, |kib| kib.saturating_mul(1024))
}
