//! `format.json`: what a directory is, and whether this program may read and write it.

use nix::fcntl::FlockArg;
use serde::{Deserialize, Serialize};

use crate::durable;
use crate::names::{self, Names};
use crate::store::{Store, entries, lock, read_bounded};
use crate::store_error::{OpenError, StoreError};

/// The version of the format that this program writes.
const VERSION: u32 = 1;

/// `format.json`
#[derive(Debug, Serialize, Deserialize)]
struct Format {
    version: u32,
    features: Features,
}

/// What a store uses beyond its version.
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

impl Store {
    /// Says in `format.json` that the store uses something that programs which do not know it may ignore.
    pub(crate) fn add_feature(&self, name: &str) -> Result<(), StoreError> {
        let path = self.inner.names.format();
        let damaged = |fault: String| StoreError::Damaged { path: path.clone(), fault };
        let bytes = read_bounded(&path)?.ok_or_else(|| damaged("it is gone".to_owned()))?;
        let mut format: Format =
            serde_json::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if format.features.compatible.iter().any(|known| known == name) {
            return Ok(());
        }
        format.features.compatible.push(name.to_owned());
        write_format(&self.inner.names, &format)
    }
}

/// Whether the store may only be read.
pub(crate) fn check(names: &Names, bytes: &[u8]) -> Result<bool, OpenError> {
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
pub(crate) fn create(names: &Names) -> Result<(), OpenError> {
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
    // Another opening that is further takes it for a leftover otherwise.
    let _lock = lock(names, FlockArg::LockShared)?;
    write_format(names, &Format { version: VERSION, features: Features::default() })?;
    Ok(())
}

const DIRECTORY_NAMES: [&str; 5] = ["tmp", "blobs", "layers", "images", "pins"];

/// `format.json` has no sum: other programs have to be able to read it, and no changed bit of it goes unnoticed anyway.
fn write_format(names: &Names, format: &Format) -> Result<(), StoreError> {
    let path = names.format();
    let mut bytes = serde_json::to_vec_pretty(format).expect("it has string keys and no fallible parts");
    bytes.push(b'\n');
    durable::replace(&path, &bytes).map_err(StoreError::io("write", path))
}
