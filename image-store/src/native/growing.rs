//! A blob that is being put together in a file, its name computed on the way.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use bennu_manifests::model::Digest;

use super::Native;
use crate::leaves::Namer;
use crate::space::Watch;
use crate::verity::BLOCK;

/// Bytes that are copied at a time; a whole number of blocks.
pub(crate) const COPY_BUFFER: usize = 1 << 17;

/// Why there is no blob.
#[derive(Debug)]
pub(crate) enum GrowthError {
    /// It is another one than it should be, or what it was to be taken from cannot be read any more.
    Mismatch,
    /// It cannot be written.
    Write(io::Error),
}

/// A blob that is being written, from the first byte to the last.
pub(crate) struct Growing<'a> {
    out: &'a File,
    at: u64,
    name: Namer,
    watch: Watch,
}

impl<'a> Growing<'a> {
    /// Nothing was written yet. What does not fit into memory of its leaves waits in an unnamed file in `spill`.
    pub(crate) fn new(out: &'a File, spill: &Path) -> Self {
        Self { out, at: 0, name: Namer::new(spill), watch: Watch::default() }
    }

    pub(crate) fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.out.write_all_at(bytes, self.at)?;
        self.count(bytes)
    }

    /// Appends `count` blocks of `file` from block `first` on. `buffer` has [`COPY_BUFFER`] bytes.
    pub(crate) fn copy_blocks(
        &mut self,
        file: &File,
        first: u32,
        count: u32,
        buffer: &mut [u8],
    ) -> Result<(), GrowthError> {
        let mut at = u64::from(first) * BLOCK as u64;
        let end = at + u64::from(count) * BLOCK as u64;
        while at < end {
            let want = COPY_BUFFER.min((end - at) as usize);
            // A block that rotted since is as good as one that is not here.
            file.read_exact_at(&mut buffer[..want], at).map_err(|_| GrowthError::Mismatch)?;
            self.copy(&buffer[..want], file, at).map_err(GrowthError::Write)?;
            at += want as u64;
        }
        Ok(())
    }

    /// Appends `bytes`, which are in `file` at `offset`: the file system shares them where it can.
    fn copy(&mut self, bytes: &[u8], file: &File, offset: u64) -> io::Result<()> {
        let (mut from, mut to) = (offset, self.at);
        let copied = rustix::fs::copy_file_range(file, Some(&mut from), self.out, Some(&mut to), bytes.len());
        // Whatever the reason (another file system, an old kernel): the bytes are at hand.
        let copied = copied.unwrap_or(0);
        self.out.write_all_at(&bytes[copied..], self.at + copied as u64)?;
        self.count(bytes)
    }

    fn count(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.at += bytes.len() as u64;
        self.watch.wrote(self.out, bytes.len())?;
        self.name.update(bytes)
    }

    /// Writes the leaves behind what was appended, and refuses any other blob than the one that is wanted.
    pub(crate) fn finish(self, native: &Native) -> Result<(), GrowthError> {
        let mut leaves = Tail { out: self.out, at: self.at };
        let (name, size) = self.name.finish(None, &mut leaves).map_err(GrowthError::Write)?;
        let right: (Digest, u64) = (native.blob, native.extent.bytes());
        if (name, size) == right { Ok(()) } else { Err(GrowthError::Mismatch) }
    }
}

/// Writes on from an offset.
struct Tail<'a> {
    out: &'a File,
    at: u64,
}

impl io::Write for Tail<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write_at(bytes, self.at)?;
        self.at += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
