//! The directory that holds blobs, and what is known about them.
//!
//! **Invariants:** a record never names a blob that was not durable before it; nothing under its final name is ever written
//! to again; nothing but a pin, a mount or a claim keeps an image from being collected.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_manifests::model::Digest;
use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;

use crate::blob::is_damage;
use crate::claim::{Claim, Claims, flock, is_claimed};
use crate::cosign::{Candidate, MAX_CANDIDATES};
use crate::durable;
use crate::format;
use crate::names::{self, Names};
use crate::naming;
use crate::record::{Image, ImageRecord, LayerRecord, Origin};
use crate::sealed;
use crate::store_error::{OpenError, StoreError};
use crate::worker::Confinement;

/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 32 << 20;
/// A store. Copies are cheap and mean the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) names: Names,
    pub(crate) read_only: bool,
    /// Where layers are parsed.
    pub(crate) confinement: Confinement,
}

/// The lock that one operation holds.
pub(crate) type StoreLock = Flock<File>;

impl Store {
    /// Opens the store at `root`, making one where the directory is missing or empty; layers that come into it are parsed as
    /// `confinement` says. What an interrupted operation left in
    /// `tmp/` is removed; what a running one has there stays.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(root: &Path, confinement: Confinement) -> Result<Self, OpenError> {
        let names = Names::new(root);
        let read_only = match read_bounded(&names.format())? {
            Some(bytes) => format::check(&names, &bytes)?,
            None => {
                format::create(&names)?;
                false
            }
        };
        let store = Self { inner: Arc::new(Inner { names, read_only, confinement }) };
        if !read_only {
            match store.lock(FlockArg::LockExclusiveNonblock) {
                Ok(_lock) => store.remove_leftovers()?,
                // Somebody is naming something just now, and another opening will come.
                Err(StoreError::Busy) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(store)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        self.inner.names.root()
    }

    /// Where the blob with this fs-verity digest is, if it is there.
    pub fn blob_path(&self, verity: &Digest) -> PathBuf {
        self.inner.names.blob(verity)
    }

    /// The image with this digest; `None` where it was never pulled or not all of it is there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let Some(image) = self.recorded_image(digest)? else { return Ok(None) };
        for layer in &image.layers {
            if !self.has_blob(layer)? {
                return Ok(None);
            }
        }
        Ok(Some(image))
    }

    /// The image as its record has it, whether its blobs are there or not.
    pub(crate) fn recorded_image(&self, digest: &Digest) -> Result<Option<Image>, StoreError> {
        let Some(record) = self.image_record(digest)? else { return Ok(None) };
        let path = self.inner.names.image(digest);
        let damaged = |fault: crate::RecordFault| StoreError::Damaged { path, fault: fault.to_string() };
        Image::assemble(digest, &record).map(Some).map_err(damaged)
    }

    /// The record of an image; it is not looked at whether its parts fit together.
    pub(crate) fn image_record(&self, digest: &Digest) -> Result<Option<ImageRecord>, StoreError> {
        let path = self.inner.names.image(digest);
        let Some(bytes) = read_record(&path)? else { return Ok(None) };
        let damaged = |error: serde_json::Error| StoreError::Damaged { path, fault: error.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// What came with an image and may be a signature of it; nothing where it is not there, or its record is damaged.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn signatures(&self, image: &Digest) -> Result<Vec<Candidate>, StoreError> {
        let record = believed(self.image_record(image))?;
        Ok(record.map(|record| record.signatures).unwrap_or_default())
    }

    /// Keeps at most [`MAX_CANDIDATES`] that may be signatures of an image, in stead of those that were kept, for hosts that cannot ask its
    /// registry. They are in the record of the image and go with it. Gives a claim on that record, which is a new file; nothing where the
    /// image is not there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn keep_signatures(
        &self,
        image: &Digest,
        mut signatures: Vec<Candidate>,
    ) -> Result<Option<Claims>, StoreError> {
        self.writable()?;
        let _lock = self.lock(FlockArg::LockShared)?;
        let Some(mut record) = self.image_record(image)? else { return Ok(None) };
        signatures.truncate(MAX_CANDIDATES);
        if record.signatures != signatures {
            record.signatures = signatures;
            write_json(&self.inner.names.image(image), &record)?;
        }
        Ok(Some(self.claimed_record(image)?.into_iter().collect()))
    }

    /// All images that are whole, by digest.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let digests = self.digests_in(&self.inner.names.images())?;
        digests.iter().filter_map(|digest| self.image(digest).transpose()).collect()
    }

    /// What is known about the layer with this diff id, where its blob is there: from a record of its own, or from that of
    /// an image that has it. Records that cannot be believed say nothing.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        let known = self.known_layers(&BTreeSet::from([*diff_id]))?.remove(diff_id);
        let Some(record) = known else { return Ok(None) };
        Ok(self.has_blob(&record)?.then_some(record))
    }

    /// As [`Self::layer`] for several, whether their blobs are there or not.
    pub(crate) fn known_layers(
        &self,
        diff_ids: &BTreeSet<Digest>,
    ) -> Result<BTreeMap<Digest, LayerRecord>, StoreError> {
        let mut known = BTreeMap::new();
        for diff_id in diff_ids {
            known.extend(believed(self.recorded_layer(diff_id))?.map(|record| (*diff_id, record)));
        }
        if known.len() == diff_ids.len() {
            return Ok(known);
        }
        for image in self.digests_in(&self.inner.names.images())? {
            let Some(image) = believed(self.recorded_image(&image))? else { continue };
            for layer in image.layers {
                if diff_ids.contains(&layer.diff_id) && layer.is_of(&layer.diff_id) {
                    known.entry(layer.diff_id).or_insert(layer);
                }
            }
        }
        Ok(known)
    }

    /// Writes the record of an image whose blobs are all there and claimed, and claims it. It says what the records of its layers
    /// said, so those go.
    pub(crate) fn record_image(
        &self,
        digest: &Digest,
        record: &ImageRecord,
    ) -> Result<Option<Claim>, StoreError> {
        let _lock = self.lock(FlockArg::LockShared)?;
        // Layers that were here already may have lost their writer before their names were durable.
        self.settle_names()?;
        let naming = self.begin_naming()?;
        write_json(&self.inner.names.image(digest), record)?;
        naming.end();
        let mut orphaned = false;
        for layer in record.layers.iter().filter(|layer| layer.origin != Origin::Published) {
            let path = self.inner.names.layer(&layer.diff_id);
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(StoreError::io("remove", path)(error));
                }
                Ok(()) => orphaned |= layer.origin == Origin::Stacked,
                // Not fsynced: one that comes back after a power cut says nothing wrong as long as its blob is there, and before a
                // collection removes that it syncs.
                Err(_) => {}
            }
        }
        if orphaned {
            // The blob of a layer that was written anew is nobody's now. Its record must not outlive it.
            let directory = self.inner.names.layers();
            durable::sync_dir(&directory).map_err(StoreError::io("write", directory))?;
        }
        self.claimed_record(digest)
    }

    /// The record of a layer, whether its blob is there or not.
    pub(crate) fn recorded_layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        let path = self.inner.names.layer(diff_id);
        let Some(bytes) = read_record(&path)? else { return Ok(None) };
        let damaged = |fault: String| StoreError::Damaged { path: path.clone(), fault };
        let record: LayerRecord =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if record.diff_id != *diff_id {
            return Err(damaged(format!("it is the record of {}", record.diff_id)));
        }
        Ok(Some(record))
    }

    /// Whether the blob of a layer is there with the right length. Its content is the kernel's to check on every read, or
    /// [`Store::scrub`]'s.
    pub(crate) fn has_blob(&self, layer: &LayerRecord) -> Result<bool, StoreError> {
        let path = self.inner.names.blob(&layer.blob);
        // Opened, not only looked at: with fs-verity that is where the kernel finds that it cannot be read at all. Such a
        // blob is as good as none, so it is fetched again.
        match File::open(&path).and_then(|file| file.metadata()) {
            Ok(metadata) => Ok(metadata.len() == layer.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound || is_damage(&error) => Ok(false),
            Err(error) => Err(StoreError::io("look at", path)(error)),
        }
    }

    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        if self.inner.read_only {
            return Err(StoreError::ReadOnly { path: self.root().to_owned() });
        }
        Ok(())
    }

    /// Takes the store's lock for a moment: shared by who claims or names something, exclusive by who removes. Each operation
    /// opens the file anew, so operations of one process exclude each other just as those of two do; none takes it twice.
    pub(crate) fn lock(&self, how: FlockArg) -> Result<StoreLock, StoreError> {
        lock(&self.inner.names, how)
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let names = &self.inner.names;
        let temporary = names.temporary();
        let mut settled = false;
        for name in entries(&temporary)? {
            let path = temporary.join(&name);
            if is_claimed(&path)? {
                continue;
            }
            // It stands for names that are not durable, so they have to be before it goes.
            if naming::is_naming(&name) && !settled {
                self.sync_names()?;
                settled = true;
            }
            remove_if_there(&path)?;
        }
        for directory in [names.root().to_owned(), names.layers(), names.images(), names.pins()] {
            for name in entries(&directory)? {
                if name.to_str().is_some_and(|name| name.starts_with(durable::TEMPORARY_PREFIX)) {
                    remove_if_there(&directory.join(name))?;
                }
            }
        }
        Ok(())
    }

    /// The digests that the file names in `directory` stand for, sorted.
    pub(crate) fn digests_in(&self, directory: &Path) -> Result<Vec<Digest>, StoreError> {
        let mut digests: Vec<Digest> =
            entries(directory)?.iter().filter_map(|name| names::digest_of(name)).collect();
        digests.sort_unstable();
        Ok(digests)
    }
}

/// What was read, or nothing where it is damaged.
fn believed<T>(read: Result<Option<T>, StoreError>) -> Result<Option<T>, StoreError> {
    match read {
        Err(StoreError::Damaged { .. }) => Ok(None),
        other => other,
    }
}

/// Takes the lock of the store with these names; see [`Store::lock`].
pub(crate) fn lock(names: &Names, how: FlockArg) -> Result<StoreLock, StoreError> {
    let path = names.lock();
    let file = match File::open(&path) {
        // Two may make it at once: it is the same file then.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)
        }
        other => other,
    };
    match flock(file.map_err(StoreError::io("open", &path))?, how) {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::Busy),
        other => other.map_err(StoreError::io("lock", path)),
    }
}

/// Removes a leftover; two openings may be at it.
fn remove_if_there(path: &Path) -> Result<(), StoreError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(StoreError::io("remove", path)(error)),
        _ => Ok(()),
    }
}

/// A small file, whole; `None` where there is none.
pub(crate) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    // Else it would be read in pieces of 32 bytes, 64, 128 and so on.
    let len = file.metadata().map_err(StoreError::io("look at", path))?.len().min(MAX_RECORD);
    let mut bytes = Vec::with_capacity(len as usize + 1);
    file.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > MAX_RECORD {
        let fault = format!("it is larger than {MAX_RECORD} bytes");
        return Err(StoreError::Damaged { path: path.to_owned(), fault });
    }
    Ok(Some(bytes))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    durable::replace(path, &sealed::encode(value)).map_err(StoreError::io("write", path))
}

/// A record, whole and as it was written; `None` where there is none.
pub(crate) fn read_record(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    let Some(bytes) = read_bounded(path)? else { return Ok(None) };
    match sealed::check(&bytes) {
        Ok(()) => Ok(Some(bytes)),
        Err(fault) => Err(StoreError::Damaged { path: path.to_owned(), fault: fault.to_owned() }),
    }
}

pub(crate) fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
    let read = std::fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
    read.map(|entry| entry.map(|entry| entry.file_name()).map_err(StoreError::io("list", directory)))
        .collect()
}

pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("look at", path))
}
