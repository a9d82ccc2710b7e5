//! A short list on disk, of which the oldest entries are forgotten first.

use std::io;
use std::path::{Path, PathBuf};

use bennu_image_store::durable;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// How many entries are remembered.
pub(crate) const REMEMBERED: usize = 100;
/// The largest file, in bytes.
const MAX_FILE: u64 = 4 << 20;

/// The list.
#[derive(Debug)]
pub(crate) struct Remembered<T> {
    path: PathBuf,
    all: Vec<T>,
}

impl<T: Clone + Serialize + DeserializeOwned> Remembered<T> {
    /// Reads the list from a file, which need not be there.
    ///
    /// # Errors
    /// Where it can't be read, or is not what this program writes.
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        use io::Read as _;
        let mut bytes = Vec::new();
        match std::fs::File::open(path) {
            Ok(file) => drop(file.take(MAX_FILE).read_to_end(&mut bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => bytes.extend(b"[]"),
            Err(error) => return Err(error),
        }
        Ok(Self { path: path.to_owned(), all: serde_json::from_slice(&bytes)? })
    }

    /// Remembers one more, in place of those that are `same`; it is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written.
    pub(crate) fn add(&mut self, new: T, same: impl Fn(&T) -> bool) -> io::Result<()> {
        let mut all = self.all.clone();
        all.retain(|known| !same(known));
        all.push(new);
        let excess = all.len().saturating_sub(REMEMBERED);
        all.drain(..excess);
        durable::replace(&self.path, &serde_json::to_vec(&all)?)?;
        self.all = all;
        Ok(())
    }

    /// All of them, the oldest first.
    pub(crate) fn all(&self) -> &[T] {
        &self.all
    }
}
