//! From a reference to an image in the store, or from files; see [`crate::source`].
//!
//! ```text
//!  source ──pieces──► SHA-256 = descriptor? ──► gunzip/unzstd ──► SHA-256 = diff id? ──► tar ──► EROFS ──► fs-verity digest
//! ```
//! One pass for each layer, some layers side by side (`budget.rs`). What is on disk before all checks have passed lies in `tmp/` only.

mod described;
mod documents;
mod estimate;
mod native;
mod patched;
mod stack;

use std::io::{self, BufRead, Read};

use bennu_manifests::model::{Digest, ImageRef};
use bytes::{Buf, Bytes};
use futures_util::stream::{self, StreamExt};
use oci_spec::image::ImageConfiguration;
use tokio::sync::{mpsc, watch};

pub(crate) use documents::{Documents, documents};
pub use estimate::{Estimate, LayerEstimate, Way};

use crate::budget::{Budget, Window};
use crate::claim::Claim;
use crate::import::ImportError;
use crate::layer::Below;
use crate::native::Native;
use crate::pull_error::{PullError, Refused};
use crate::record::{Image, ImageRecord, LayerRecord};
use crate::registry::document::{self, Compression, Descriptor, Manifest, Platform};
use crate::registry::{Client, Served};
use crate::source::{Download, Source, SourceError, blocking};
use crate::store::Store;
use crate::store_error::StoreError;
use crate::tar::Limits;
use crate::worker::{Confinement, Packed, Unpacked, decoder};
use patched::Patches;

/// Layers of one image that are at work or wait for their turn.
const LAYERS_IN_LINE: usize = 8;
/// Pieces that wait between network and conversion, of 64 KiB at most.
const PIECES_WAITING: usize = 32;

/// Is told how a pull is getting on. Calls come from several layers in turn.
pub trait Progress {
    /// `done` of `total` compressed bytes of the layer with this compressed digest have come; `total` is less than its size where
    /// parts of it are here. It begins again at 0 where what came was not the layer, and somebody else is asked for it. A layer that is here already is reported once, as done.
    fn layer(&self, digest: &Digest, done: u64, total: u64);
}

/// Wants to be told nothing.
impl Progress for () {
    fn layer(&self, _: &Digest, _: u64, _: u64) {}
}

impl Store {
    /// Makes sure that an image is here, and gives it, claimed (see [`Store::claim`]). Where it is, the network is not touched.
    ///
    /// # Errors
    /// [`PullError`]; the store is as it was, but for layers that had arrived whole.
    pub async fn pull(
        &self,
        client: &Client,
        image: &ImageRef,
        platform: &Platform,
        progress: &(dyn Progress + Sync),
    ) -> Result<Image, PullError> {
        let source = Source::registry(client, image);
        self.pull_from(&source, &image.to_string(), &image.digest, platform, progress).await
    }

    /// Makes sure that the image with this digest is here, and gives it, claimed; `name` is what errors call it. Where it is here, the
    /// source is not touched. Where the digest is that of an index and the store has the image for another platform by it, the one that is
    /// wanted is kept, and given, by the digest of its manifest.
    ///
    /// # Errors
    /// As [`Store::pull`].
    pub async fn pull_from(
        &self,
        source: &Source,
        name: &str,
        digest: &Digest,
        platform: &Platform,
        progress: &(dyn Progress + Sync),
    ) -> Result<Image, PullError> {
        let mut digest = *digest;
        // An index leads to a manifest, and that to nothing else.
        while let Some(present) = self.looked_up(digest).await? {
            match present.sibling(platform) {
                Some(sibling) if sibling != digest => digest = sibling,
                _ => {
                    check_platform(name, platform, &present.config)?;
                    return Ok(present);
                }
            }
        }
        let (budget, stop) = (source.budget(), watch::Sender::new(false));
        Pull { store: self, source, name, digest, platform, progress, budget, stop }.run().await
    }
}

impl Store {
    async fn looked_up(&self, digest: Digest) -> Result<Option<Image>, StoreError> {
        let store = self.clone();
        blocking(move || store.present(&digest)).await
    }

    /// The image with this digest, as a pull gives it where it is here: claimed, and on the disk for good. `None` where a pull
    /// would have to fetch something.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn present(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        self.writable()?;
        let present = match self.claim(digest) {
            // A record that cannot be believed is fetched again; its layers are found by their own records.
            Err(StoreError::Damaged { .. }) => None,
            other => other?,
        };
        if present.is_some() {
            // Whoever wrote it may have been killed between a rename and the fsync of its directory.
            self.settle_names()?;
        }
        Ok(present)
    }
}

struct Pull<'a> {
    store: &'a Store,
    source: &'a Source,
    /// What errors call the image.
    name: &'a str,
    digest: Digest,
    platform: &'a Platform,
    progress: &'a (dyn Progress + Sync),
    /// Shared with other pulls.
    budget: Budget,
    /// Whether a layer has failed.
    stop: watch::Sender<bool>,
}

impl Pull<'_> {
    async fn run(&self) -> Result<Image, PullError> {
        let described = self.describe().await?;
        let stacked = stack::known(self.store, &described.layers).await?;
        let mut missing = described.wanted(&stacked);
        let mut known = self.present(&missing).await?;
        for diff_id in known.keys() {
            let layer = missing.remove(diff_id).expect("what is here was looked for");
            self.progress.layer(&layer.digest, layer.size, layer.size);
        }
        for ((_, layer), stacked) in described.layers.iter().zip(&stacked) {
            if stacked.is_some() {
                self.progress.layer(&layer.digest, layer.size, layer.size);
            }
        }
        self.require_room(&missing).await?;
        let patches = &Patches::of(&described.served.bytes);
        // The first layer that fails stops the others, and each is waited for: when a pull returns, nothing of it is at work any
        // more, and nothing is left in tmp/.
        let mut first_error = None;
        let mut layers = stream::iter(missing)
            .map(|(diff_id, layer)| async move { (diff_id, self.layer(&layer, diff_id, patches).await) })
            // Their turns are given by the budget; this only bounds how many stand in line.
            .buffer_unordered(LAYERS_IN_LINE);
        while let Some((diff_id, result)) = layers.next().await {
            match result {
                Ok(record) => {
                    known.insert(diff_id, record);
                }
                Err(LayerError::Failed(error)) => {
                    self.stop.send_replace(true);
                    first_error.get_or_insert(error);
                }
                Err(LayerError::Stopped) => {}
            }
        }
        drop(layers);
        if let Some(error) = first_error {
            return Err(*error);
        }

        let of = |((diff_id, _), stacked): (&(Digest, Descriptor), &Option<Claimed>)| match stacked {
            Some((record, _)) => *record,
            None => known[diff_id].0,
        };
        let layers = described.layers.iter().zip(&stacked).map(of).collect();
        let (layers, written) = self.stack(&described.layers, layers).await?;
        let record = ImageRecord {
            index: described.index,
            manifest: text(described.served.bytes).map_err(|refused| self.refused(refused))?,
            manifest_type: described.served.media_type,
            config: described.config,
            layers,
            signatures: Vec::new(),
        };
        let digest = self.digest;
        let mut image =
            Image::assemble(&digest, &record).map_err(|fault| self.refused(Refused::Record(fault)))?;
        let store = self.store.clone();
        let recorded = blocking(move || store.record_image(&digest, &record)).await?;
        let here = known.into_values().chain(stacked.into_iter().flatten()).map(|(_, claim)| claim);
        image.claims = here.chain(written).chain(recorded).collect();
        Ok(image)
    }

    /// The manifest for the platform, and the index that led to it.
    async fn manifest(&self) -> Result<(Option<String>, Served, Manifest), PullError> {
        let Documents { index, served, manifest } =
            documents(self.source, self.name, &self.digest, self.platform).await?;
        let index = index.map(|index| text(index.bytes)).transpose();
        Ok((index.map_err(|refused| self.refused(refused))?, served, manifest))
    }

    /// One layer, fetched and converted.
    async fn layer(
        &self,
        layer: &Descriptor,
        diff_id: Digest,
        patches: &Patches,
    ) -> Result<Claimed, LayerError> {
        if layer.media_type == crate::native::MEDIA_TYPE {
            return self.native_layer(layer, diff_id, patches).await;
        }
        let compression = document::layer_compression(&layer.media_type);
        let compression = compression.map_err(|error| self.refused(error.into()))?;
        self.fetched(layer, diff_id, Kind::Tar(compression, Window::Usual)).await
    }

    /// The whole layer, anew where a mirror has given a wrong one, or it needs a larger window than usual.
    async fn fetched(
        &self,
        layer: &Descriptor,
        diff_id: Digest,
        mut kind: Kind,
    ) -> Result<Claimed, LayerError> {
        let _turn = self.unless_stopped(self.budget.layer()).await?;
        loop {
            let _window = match kind {
                Kind::Tar(Compression::Zstd, window) => {
                    Some(self.unless_stopped(self.budget.window(window)).await?)
                }
                _ => None,
            };
            let mut blob = self.source.download(layer);
            match self.fetch_layer(&mut blob, layer, diff_id, kind).await {
                Err(LayerError::Failed(error)) if kind.may_grow() && error.is_window() => {
                    tracing::info!(layer = %layer.digest, "fetching the layer again, for it needs a large window");
                    kind = Kind::Tar(Compression::Zstd, Window::Large);
                }
                // Each time there is one mirror less to ask.
                Err(LayerError::Failed(error)) if error.is_refusal() && blob.blame() => {
                    tracing::warn!(%error, layer = %layer.digest, "fetching the layer again from elsewhere");
                }
                other => return other,
            }
        }
    }

    async fn fetch_layer(
        &self,
        blob: &mut Download<'_>,
        layer: &Descriptor,
        diff_id: Digest,
        kind: Kind,
    ) -> Result<Claimed, LayerError> {
        let (pieces, waiting) = mpsc::channel(PIECES_WAITING);
        let (store, limits) = (self.store.clone(), Limits::of_compressed(layer.size));
        let conversion = tokio::task::spawn_blocking(move || convert(&store, waiting, diff_id, kind, limits));
        // When this ends, for whatever reason, the channel is closed and the conversion ends as well.
        let downloaded = self.unless_stopped(self.download(blob, layer, pieces)).await;
        let converted =
            conversion.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()));
        // Where both failed, the download is the cause unless the conversion had given up first.
        match (downloaded?, converted) {
            (Ok(_), Ok(record)) => Ok(record),
            (Ok(_), Err(error)) => Err(self.import_failed(error, layer).into()),
            (Err(error), _) => Err(self.failed(error).into()),
        }
    }

    async fn unless_stopped<T>(&self, work: impl Future<Output = T>) -> Result<T, LayerError> {
        let mut stop = self.stop.subscribe();
        tokio::select! {
            biased;
            _ = stop.wait_for(|stopped| *stopped) => Err(LayerError::Stopped),
            done = work => Ok(done),
        }
    }

    /// Sends the bytes of a layer to its conversion until they end or are not wanted any more.
    async fn download(
        &self,
        blob: &mut Download<'_>,
        layer: &Descriptor,
        pieces: mpsc::Sender<Piece>,
    ) -> Result<(), SourceError> {
        self.progress.layer(&layer.digest, 0, layer.size);
        let mut done = 0;
        while let Some(piece) = blob.next().await? {
            done += piece.len() as u64;
            if pieces.send(Piece::Bytes(piece)).await.is_err() {
                return Ok(()); // The conversion gave up and will say why.
            }
            self.progress.layer(&layer.digest, done, layer.size);
        }
        // Only now is the compressed digest known to be right; without this the conversion fails.
        let _ = pieces.send(Piece::End).await;
        Ok(())
    }

    fn failed(&self, error: SourceError) -> PullError {
        PullError::from_source(self.name, error)
    }

    fn refused(&self, refused: Refused) -> PullError {
        PullError::Refused { image: self.name.to_owned(), source: Box::new(refused) }
    }

    fn import_failed(&self, error: ImportError, layer: &Descriptor) -> PullError {
        match error {
            ImportError::Refused(refusal) => {
                self.refused(Refused::Layer { layer: layer.digest, source: refusal })
            }
            ImportError::Read(source) if is_window(&source) => {
                self.refused(Refused::Window { layer: layer.digest, limit: Window::Large.mib() })
            }
            ImportError::Read(source) => self.refused(Refused::Compression { layer: layer.digest, source }),
            ImportError::DiffId { expected, found } => {
                self.refused(Refused::DiffId { layer: layer.digest, expected, found })
            }
            ImportError::Blob { expected } => self.refused(Refused::Blob { layer: layer.digest, expected }),
            ImportError::Worker(source) => {
                PullError::Worker { image: self.name.to_owned(), layer: layer.digest, source }
            }
            ImportError::DiskFull(source) => PullError::DiskFull { image: self.name.to_owned(), source },
            ImportError::Store(error) => error.into(),
        }
    }
}

/// What a layer is.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A tar; the window is for zstd.
    Tar(Compression, Window),
    Native(Native),
}

/// A layer that is here, and its blob.
type Claimed = (LayerRecord, Claim);

impl Kind {
    /// Whether another try may have a larger window.
    fn may_grow(self) -> bool {
        matches!(self, Self::Tar(Compression::Zstd, Window::Usual))
    }
}

/// Why there is no layer.
enum LayerError {
    /// For its own reason.
    Failed(Box<PullError>),
    /// Because another one failed.
    Stopped,
}

impl From<PullError> for LayerError {
    fn from(error: PullError) -> Self {
        Self::Failed(Box::new(error))
    }
}

/// What goes from the download to the conversion.
enum Piece {
    Bytes(Bytes),
    /// All bytes came and their digest fits. A channel that closes without it is a download that failed.
    End,
}

/// Whether zstd says that it needs more memory than it was given (`ZSTD_error_frameParameter_windowTooLarge`; all that the library
/// gives of it is its text).
fn is_window(error: &io::Error) -> bool {
    error.to_string().contains("requires too much memory")
}

fn convert(
    store: &Store,
    pieces: mpsc::Receiver<Piece>,
    diff_id: Digest,
    kind: Kind,
    limits: Limits,
) -> Result<Claimed, ImportError> {
    let pieces = PieceReader::new(pieces);
    let (compression, window) = match kind {
        Kind::Native(native) => return native::convert(store, pieces, &native, diff_id),
        Kind::Tar(compression, window) => (compression, window),
    };
    let packed = match compression {
        Compression::None => None,
        Compression::Gzip => Some(Packed::Gzip),
        Compression::Zstd => Some(Packed::Zstd { window_log: window.log() }),
    };
    let tar: Box<dyn Read> = match (packed, &store.inner.confinement) {
        (None, _) => Box::new(pieces),
        (Some(packed), Confinement::None) => decoder(pieces, packed).map_err(ImportError::Read)?,
        (Some(packed), Confinement::Process(program)) => {
            Box::new(Unpacked::new(program, pieces, packed).map_err(ImportError::Worker)?)
        }
    };
    store.convert_layer(tar, limits, Below::Layers, |converted| {
        if converted.diff_id == diff_id {
            Ok(())
        } else {
            Err(ImportError::DiffId { expected: diff_id, found: converted.diff_id })
        }
    })
}

/// Reads what the channel brings, piece by piece where they are: nothing is copied for who can take it so.
struct PieceReader {
    pieces: mpsc::Receiver<Piece>,
    piece: Bytes,
    ended: bool,
}

impl PieceReader {
    fn new(pieces: mpsc::Receiver<Piece>) -> Self {
        Self { pieces, piece: Bytes::new(), ended: false }
    }
}

impl BufRead for PieceReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.piece.is_empty() && !self.ended {
            match self.pieces.blocking_recv() {
                Some(Piece::Bytes(bytes)) => self.piece = bytes,
                Some(Piece::End) => self.ended = true,
                None => return Err(io::ErrorKind::ConnectionAborted.into()),
            }
        }
        Ok(&self.piece)
    }

    fn consume(&mut self, count: usize) {
        self.piece.advance(count);
    }
}

impl Read for PieceReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let mut piece = self.fill_buf()?;
        let count = piece.read(buf)?;
        self.consume(count);
        Ok(count)
    }
}

/// Whether an image is for a platform.
pub(crate) fn check_platform(
    image: &str,
    platform: &Platform,
    config: &ImageConfiguration,
) -> Result<(), PullError> {
    let found = format!("{}/{}", config.os(), config.architecture());
    if found == format!("{}/{}", platform.os, platform.architecture) {
        return Ok(());
    }
    let found = document::shown(&found);
    Err(PullError::WrongPlatform { image: image.to_owned(), wanted: platform.to_string(), found })
}

/// Documents are JSON and so have to be UTF-8.
fn text(bytes: Vec<u8>) -> Result<String, Refused> {
    String::from_utf8(bytes).map_err(|_| Refused::NotText)
}
