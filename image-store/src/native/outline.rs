//! Which part of a blob's image its records make again, and where its files begin.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::cut::units;
use super::layout::MAX_FRAME;
use crate::erofs::records::{Build, BuildError};
use crate::erofs::{ReadError, Sink};
use crate::verity::BLOCK;

/// What is known of an image before it is encoded.
#[derive(Debug, Default)]
pub(super) struct Outline {
    /// Blocks that have to be sent; the records make the others.
    pub(super) data: u64,
    /// The first block of each file that has some, in their order.
    pub(super) files: Vec<u64>,
}

/// Reads the records of the image in `blob`, of so many blocks, and makes of them what they make. Where that is something else than the
/// image has, because another writer has made it or it has too many files, all blocks have to be sent.
pub(super) fn of(blob: &File, blocks: u64, spill: &Path) -> io::Result<Outline> {
    let all = Outline { data: blocks, files: Vec::new() };
    let mut build = Build::new(spill);
    let mut pushed = Ok(());
    let read = units(blob.try_clone()?, |unit, _| {
        pushed = if unit.len() <= MAX_FRAME { build.push(unit) } else { Err(BuildError::Damaged) };
        if pushed.is_ok() { Ok(()) } else { Err(ReadError::Damaged("")) }
    });
    match (pushed, read) {
        (Err(BuildError::Io(error)), _) | (_, Err(ReadError::Io(error))) => return Err(error),
        (Err(BuildError::Damaged), _) | (_, Err(ReadError::Damaged(_))) => return Ok(all),
        (Ok(()), Ok(())) => {}
    }
    // How much it is does not depend on where it is.
    let mut made = Counted(0);
    let Some(()) = finished(&build, &mut made)? else { return Ok(all) };
    let Some(data) = blocks.checked_sub(made.0 / BLOCK as u64).filter(|data| *data > 0) else {
        return Ok(all);
    };
    let end = blocks * BLOCK as u64;
    let mut compared = Compared { blob, at: data * BLOCK as u64, end, buffer: Vec::new() };
    let same = finished(&build, &mut compared)?.is_some() && compared.at == end;
    Ok(if same { Outline { data, files: build.files() } } else { all })
}

/// `None` where nothing comes of it, or something else.
fn finished(build: &Build, out: &mut impl Sink) -> io::Result<Option<()>> {
    match build.finish(out) {
        Ok(()) => Ok(Some(())),
        Err(BuildError::Io(error)) if error.kind() != io::ErrorKind::InvalidData => Err(error),
        Err(_) => Ok(None),
    }
}

/// Counts bytes.
struct Counted(u64);

impl Sink for Counted {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.0 += bytes.len() as u64;
        Ok(())
    }

    fn written(&self) -> u64 {
        self.0
    }
}

/// Compares bytes with those that a blob has between two places.
struct Compared<'a> {
    blob: &'a File,
    at: u64,
    end: u64,
    buffer: Vec<u8>,
}

impl Sink for Compared<'_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.buffer.resize(bytes.len(), 0);
        if self.end - self.at < bytes.len() as u64 {
            return Err(io::ErrorKind::InvalidData.into());
        }
        self.blob.read_exact_at(&mut self.buffer, self.at)?;
        self.at += bytes.len() as u64;
        if self.buffer == bytes { Ok(()) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    fn written(&self) -> u64 {
        self.at
    }
}
