//! The directory that holds blobs, and what is known about them.
//!
//! **Invariants:** a record never names a blob that was not durable before it; nothing under its final name is ever written
//! to again; a pin is the only thing that keeps an image from being collected.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_manifests::model::Digest;
use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::names::{self, Names};
use crate::record::{Image, LayerRecord};
use crate::verity::{self, Measured};

/// The largest record that is read, in bytes.
const MAX_RECORD: u64 = 32 << 20;
/// The version of the format that this program writes.
const VERSION: u32 = 1;

/// A store. Copies are cheap and mean the same store.
#[derive(Debug, Clone)]
pub struct Store {
    pub(crate) inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) names: Names,
    pub(crate) read_only: bool,
}

/// Why a store cannot be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// The directory holds something else.
    #[error("{} is not empty and not a store", path.display())]
    NotAStore {
        /// The directory.
        path: PathBuf,
    },
    /// The format file is not readable as such.
    #[error("{} does not describe a store", path.display())]
    Format {
        /// The format file.
        path: PathBuf,
        /// What the parser says.
        #[source]
        source: serde_json::Error,
    },
    /// A newer program wrote it in a way that this one does not understand.
    #[error("the store at {} needs what this program does not have: {features}", path.display())]
    Incompatible {
        /// The directory.
        path: PathBuf,
        /// Version or names of features.
        features: String,
    },
    /// The file system failed.
    #[error(transparent)]
    Io(#[from] StoreError),
}

/// Why an operation on a store failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// The file system failed.
    #[error("could not {action} {}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To what.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Something in the store is not what it was.
    #[error("{} is damaged: {fault}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        fault: String,
    },
    /// The store may only be read by this program.
    #[error("the store at {} was written by a newer program and may only be read", path.display())]
    ReadOnly {
        /// The directory.
        path: PathBuf,
    },
    /// Another pull, import or collection is at work.
    #[error("the store is in use by another operation")]
    Busy,
    /// A name that no pin can have.
    #[error("'{name}' cannot name a pin")]
    PinName {
        /// The name.
        name: String,
    },
    /// Something that was to be pinned is not there.
    #[error("the store holds neither an image nor a blob {digest}")]
    NothingToPin {
        /// The digest.
        digest: Digest,
    },
}

impl StoreError {
    pub(crate) fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { action, path, source }
    }

    /// Whether the disk, or the quota on it, is full.
    pub fn is_disk_full(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_disk_full(source))
    }
}

pub(crate) fn is_disk_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

/// `format.json`
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    version: u32,
    features: Features,
}

/// What a store uses beyond its version; none are defined yet.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
struct Features {
    /// May be ignored.
    compatible: Vec<String>,
    /// Who does not know them may read.
    read_only_compatible: Vec<String>,
    /// Who does not know them must keep away.
    incompatible: Vec<String>,
}

/// A pin: what it holds.
#[derive(Debug, Serialize, Deserialize)]
struct PinRecord {
    /// Digests of images, or fs-verity digests of blobs.
    holds: Vec<Digest>,
}

/// The lock that one operation holds.
pub(crate) type StoreLock = Flock<File>;

impl Store {
    /// Opens the store at `root`, making one where the directory is missing or empty. What an interrupted operation left in
    /// `tmp/` is removed, unless another operation is running now.
    ///
    /// # Errors
    /// [`OpenError`]
    pub fn open(root: &Path) -> Result<Self, OpenError> {
        let names = Names::new(root);
        let read_only = match read_bounded(&names.format())? {
            Some(bytes) => check_format(&names, &bytes)?,
            None => {
                create(&names)?;
                false
            }
        };
        let store = Self { inner: Arc::new(Inner { names, read_only }) };
        if !read_only {
            match store.lock(FlockArg::LockExclusiveNonblock) {
                Ok(_lock) => store.remove_leftovers()?,
                // Somebody is at work, and what lies in tmp/ may be theirs.
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
        let path = self.inner.names.image(digest);
        let Some(bytes) = read_bounded(&path)? else { return Ok(None) };
        let damaged =
            |fault: crate::RecordFault| StoreError::Damaged { path: path.clone(), fault: fault.to_string() };
        Image::from_record(digest, &bytes).map(Some).map_err(damaged)
    }

    /// All images that are whole, by digest.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn images(&self) -> Result<Vec<Image>, StoreError> {
        let digests = self.digests_in(&self.inner.names.images())?;
        digests.iter().filter_map(|digest| self.image(digest).transpose()).collect()
    }

    /// What is known about the layer with this diff id, where its blob is there.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        let Some(record) = self.recorded_layer(diff_id)? else { return Ok(None) };
        Ok(self.has_blob(&record)?.then_some(record))
    }

    /// The record of a layer, whether its blob is there or not.
    pub(crate) fn recorded_layer(&self, diff_id: &Digest) -> Result<Option<LayerRecord>, StoreError> {
        let path = self.inner.names.layer(diff_id);
        let Some(bytes) = read_bounded(&path)? else { return Ok(None) };
        let damaged = |fault: String| StoreError::Damaged { path: path.clone(), fault };
        let record: LayerRecord =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if record.diff_id != *diff_id {
            return Err(damaged(format!("it is the record of {}", record.diff_id)));
        }
        Ok(Some(record))
    }

    /// Makes `name` hold `digests` (images, or blobs by fs-verity digest) and nothing else, durably.
    ///
    /// # Errors
    /// [`StoreError`]; [`StoreError::NothingToPin`] where one is not there.
    pub fn pin(&self, name: &str, digests: &[Digest]) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let _lock = self.lock(FlockArg::LockShared)?;
        for digest in digests {
            if self.image(digest)?.is_none() && !exists(&self.inner.names.blob(digest))? {
                return Err(StoreError::NothingToPin { digest: *digest });
            }
        }
        let mut holds = digests.to_vec();
        holds.sort_unstable();
        holds.dedup();
        write_json(&path, &PinRecord { holds })
    }

    /// Removes a pin; one that does not exist is no error.
    ///
    /// # Errors
    /// [`StoreError`]
    pub fn unpin(&self, name: &str) -> Result<(), StoreError> {
        self.writable()?;
        let path = self.pin_path(name)?;
        let _lock = self.lock(FlockArg::LockShared)?;
        durable::remove(&path).map_err(StoreError::io("remove", path))
    }

    /// All pins by name, and what they hold.
    ///
    /// # Errors
    /// [`StoreError`]; a pin that cannot be read is one, so that nothing is collected for want of it.
    pub fn pins(&self) -> Result<Vec<(String, Vec<Digest>)>, StoreError> {
        let directory = self.inner.names.pins();
        let mut pins = Vec::new();
        for name in entries(&directory)? {
            let path = directory.join(&name);
            let Some(name) = name.to_str().filter(|name| names::is_pin_name(name)) else { continue };
            let Some(bytes) = read_bounded(&path)? else { continue };
            let pin: PinRecord = serde_json::from_slice(&bytes)
                .map_err(|error| StoreError::Damaged { path, fault: error.to_string() })?;
            pins.push((name.to_owned(), pin.holds));
        }
        pins.sort_unstable();
        Ok(pins)
    }

    fn pin_path(&self, name: &str) -> Result<PathBuf, StoreError> {
        if !names::is_pin_name(name) {
            return Err(StoreError::PinName { name: name.escape_debug().to_string() });
        }
        Ok(self.inner.names.pin(name))
    }

    /// Whether the blob of a layer is there with the right length. Its content is the kernel's to check on every read, or
    /// [`Store::scrub`]'s.
    pub(crate) fn has_blob(&self, layer: &LayerRecord) -> Result<bool, StoreError> {
        let path = self.inner.names.blob(&layer.blob);
        match std::fs::metadata(&path) {
            Ok(metadata) => Ok(metadata.len() == layer.size),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(StoreError::io("look at", path)(error)),
        }
    }

    pub(crate) fn writable(&self) -> Result<(), StoreError> {
        if self.inner.read_only {
            return Err(StoreError::ReadOnly { path: self.root().to_owned() });
        }
        Ok(())
    }

    /// Takes the store's lock: shared for what adds, exclusive for what removes. Each operation opens the file anew, so
    /// operations of one process exclude each other just as those of two do.
    pub(crate) fn lock(&self, how: FlockArg) -> Result<StoreLock, StoreError> {
        let path = self.inner.names.lock();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .map_err(StoreError::io("open", &path))?;
        let mut file = file;
        loop {
            match Flock::lock(file, how) {
                Ok(lock) => return Ok(lock),
                Err((again, Errno::EINTR)) => file = again,
                Err((_, Errno::EWOULDBLOCK)) => return Err(StoreError::Busy),
                Err((_, errno)) => return Err(StoreError::io("lock", path)(errno.into())),
            }
        }
    }

    fn remove_leftovers(&self) -> Result<(), StoreError> {
        let names = &self.inner.names;
        let temporary = names.temporary();
        for name in entries(&temporary)? {
            let path = temporary.join(name);
            std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
        }
        for directory in [names.root().to_owned(), names.layers(), names.images(), names.pins()] {
            for name in entries(&directory)? {
                if name.to_str().is_some_and(|name| name.starts_with(durable::TEMPORARY_PREFIX)) {
                    let path = directory.join(name);
                    std::fs::remove_file(&path).map_err(StoreError::io("remove", path))?;
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

    /// Puts a finished temporary file under the name of its digest, durably, and turns fs-verity on.
    pub(crate) fn install_blob(&self, temporary: Temporary, verity: &Digest) -> Result<(), StoreError> {
        let path = self.inner.names.blob(verity);
        let Temporary { path: from, file } = &temporary;
        file.sync_all().map_err(StoreError::io("write", from))?;
        let existing = match File::open(&path) {
            Ok(existing) => Some(existing),
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(StoreError::io("open", path)(error)),
        };
        if let Some(existing) = existing {
            let len =
                |file: &File| file.metadata().map(|m| m.len()).map_err(StoreError::io("look at", &path));
            let measured = verity::measure(&existing).map_err(StoreError::io("measure", &path))?;
            if len(&existing)? == len(file)? && matches!(measured, Measured::Digest(d) if d == *verity) {
                return Ok(()); // The same bytes; the temporary file goes away.
            }
        }
        let temporary = temporary.close_for_writing().map_err(StoreError::io("open", &path))?;
        seal(&temporary.file, verity, &temporary.path)?;
        std::fs::rename(&temporary.path, &path).map_err(StoreError::io("rename to", &path))?;
        // What is dropped here has no name in tmp/ any more.
        drop(temporary);
        let directory = self.inner.names.blobs();
        durable::sync_dir(&directory).map_err(StoreError::io("write", directory))
    }

    pub(crate) fn temporary(&self) -> Result<Temporary, StoreError> {
        let path = self.inner.names.temporary().join(durable::temporary_name());
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(0o444)
            .open(&path)
            .map_err(StoreError::io("create", &path))?;
        Ok(Temporary { path, file })
    }
}

/// Whether the kernel checks the reads of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Checked {
    /// Every read, by fs-verity.
    ByKernel,
    /// No read: the file system has no fs-verity. Only imports and scrubs check.
    AtImportOnly,
}

/// Makes sure that fs-verity is on for `file` with this very digest. A blob whose flag was lost in a power cut gets it anew,
/// which is sound because the kernel computes the digest from what is there now.
pub(crate) fn seal(file: &File, verity: &Digest, path: &Path) -> Result<Checked, StoreError> {
    let damaged = |fault: String| StoreError::Damaged { path: path.to_owned(), fault };
    let mut measured = verity::measure(file).map_err(StoreError::io("measure", path))?;
    if measured == Measured::NotEnabled {
        if enable(file).map_err(StoreError::io("turn fs-verity on for", path))?
            == verity::Enabled::Unsupported
        {
            return Ok(Checked::AtImportOnly);
        }
        file.sync_all().map_err(StoreError::io("write", path))?;
        measured = verity::measure(file).map_err(StoreError::io("measure", path))?;
    }
    match measured {
        Measured::Digest(found) if found == *verity => Ok(Checked::ByKernel),
        Measured::Digest(found) => Err(damaged(format!("its fs-verity digest is {found}"))),
        Measured::OtherAlgorithm => Err(damaged("its fs-verity digest is no SHA-256".to_owned())),
        Measured::NotEnabled => Err(damaged("fs-verity does not stay on".to_owned())),
        Measured::Unsupported => Ok(Checked::AtImportOnly),
    }
}

/// Turns fs-verity on, waiting up to two seconds for writers that are about to go: a child that another thread forked a moment
/// ago holds a copy of every descriptor until it executes its program.
fn enable(file: &File) -> io::Result<verity::Enabled> {
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(2);
    loop {
        match verity::enable(file) {
            Err(error)
                if error.kind() == io::ErrorKind::ExecutableFileBusy
                    && std::time::Instant::now() < deadline =>
            {
                std::thread::sleep(std::time::Duration::from_millis(5));
            }
            other => return other,
        }
    }
}

/// A file in `tmp/` that goes away unless it is kept.
#[derive(Debug)]
pub(crate) struct Temporary {
    pub(crate) path: PathBuf,
    pub(crate) file: File,
}

impl Temporary {
    /// The same file open for reading only, as fs-verity wants it.
    fn close_for_writing(mut self) -> io::Result<Self> {
        self.file = File::open(&self.path)?;
        Ok(self)
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        // After a rename there is nothing under this name; otherwise a leftover is removed at the next opening.
        let _ = std::fs::remove_file(&self.path);
    }
}

fn check_format(names: &Names, bytes: &[u8]) -> Result<bool, OpenError> {
    let path = names.format();
    let format: Format =
        serde_json::from_slice(bytes).map_err(|source| OpenError::Format { path, source })?;
    let incompatible = |features: String| OpenError::Incompatible { path: names.root().to_owned(), features };
    if format.version != VERSION {
        return Err(incompatible(format!("format version {}", format.version)));
    }
    if !format.features.incompatible.is_empty() {
        return Err(incompatible(format.features.incompatible.join(", ")));
    }
    Ok(!format.features.read_only_compatible.is_empty())
}

/// Makes an empty store. The format file comes last, so a store without one is one that was never finished.
fn create(names: &Names) -> Result<(), OpenError> {
    let root = names.root();
    durable::create_dir(root).map_err(StoreError::io("create", root))?;
    let ours = |name: &std::ffi::OsString| {
        let name = name.to_string_lossy();
        name == "lock" || name.starts_with(durable::TEMPORARY_PREFIX) || DIRECTORY_NAMES.contains(&&*name)
    };
    if !entries(root)?.iter().all(ours) {
        return Err(OpenError::NotAStore { path: root.to_owned() });
    }
    for directory in names::DIRECTORIES {
        let path = root.join(directory);
        durable::create_dir(&path).map_err(StoreError::io("create", path))?;
    }
    write_json(&names.format(), &Format { version: VERSION, features: Features::default() })?;
    Ok(())
}

const DIRECTORY_NAMES: [&str; 5] = ["tmp", "blobs", "layers", "images", "pins"];

/// A small file, whole; `None` where there is none.
pub(crate) fn read_bounded(path: &Path) -> Result<Option<Vec<u8>>, StoreError> {
    use std::io::Read;
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(StoreError::io("open", path)(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_RECORD + 1).read_to_end(&mut bytes).map_err(StoreError::io("read", path))?;
    if bytes.len() as u64 > MAX_RECORD {
        let fault = format!("it is larger than {MAX_RECORD} bytes");
        return Err(StoreError::Damaged { path: path.to_owned(), fault });
    }
    Ok(Some(bytes))
}

pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<(), StoreError> {
    let mut bytes = serde_json::to_vec_pretty(value).expect("records have string keys and no fallible parts");
    bytes.push(b'\n');
    durable::replace(path, &bytes).map_err(StoreError::io("write", path))
}

pub(crate) fn entries(directory: &Path) -> Result<Vec<std::ffi::OsString>, StoreError> {
    let read = std::fs::read_dir(directory).map_err(StoreError::io("list", directory))?;
    read.map(|entry| entry.map(|entry| entry.file_name()).map_err(StoreError::io("list", directory)))
        .collect()
}

fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists().map_err(StoreError::io("look at", path))
}
