//! A blob becomes a native layer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bennu_manifests::model::Digest;

use super::cut::units;
use super::layout::{MAX_FRAME, MAX_FRAME_UNITS, MAX_TABLE, SKIPPABLE_MAGIC, ends_group};
use super::outline::Outline;
use super::{Native, outline};
use crate::erofs::ReadError;
use crate::leaves;
use crate::sha256::Sha256;
use crate::verity::BLOCK;

/// Bytes of content of a frame of blocks: even of a program that was built anew many blocks stay.
const BLOCKS_FRAME: usize = 4 * BLOCK;
/// Bytes of content of a frame of records, of which often one changes.
const RECORDS_FRAME: usize = 4 << 10;

/// A layer that was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Encoded {
    /// Its SHA-256 digest.
    pub digest: Digest,
    /// Its bytes.
    pub size: u64,
    /// Blocks of the image that it has; the others are made of its records.
    pub data: u64,
    /// Bytes of its table.
    pub table: u64,
}

impl Encoded {
    /// What a descriptor has to say of it, as the layer of the blob with this name and so many bytes.
    pub fn annotations(&self, blob: &Digest, bytes: u64) -> BTreeMap<String, String> {
        Native::annotations(blob, bytes, self.data, self.table)
    }
}

/// Writes the blob called `name` as a native layer, its frames compressed at `level` (1 to 22). The same blob and level give the
/// same bytes with the same version of zstd. What does not fit into memory waits in an unnamed file in `spill`.
///
/// # Errors
/// [`io::ErrorKind::InvalidData`] where the blob is not what its name says, else what reading and writing say.
pub fn encode(blob: &File, name: &Digest, level: i32, spill: &Path, out: impl Write) -> io::Result<Encoded> {
    let leaves = leaves::read(blob, name)?;
    let Outline { data, files } = outline::of(blob, leaves.len() as u64, spill)?;
    let mut encoding = Encoding::new(out, level)?;
    let mut files = files.into_iter().peekable();
    let mut buffer = vec![0; BLOCK];
    for (block, leaf) in (0..data).zip(&leaves) {
        // What changes is a file, and seldom the one beside it.
        while files.next_if(|file| *file <= block).is_some() {
            encoding.end_frame()?;
        }
        blob.read_exact_at(&mut buffer, block * BLOCK as u64)?;
        if leaves::leaf(&buffer) != *leaf {
            return Err(damaged());
        }
        encoding.unit(&buffer, *leaf)?;
    }
    encoding.end_group()?;
    if data < leaves.len() as u64 {
        encoding.of_records = true;
        let mut failed = None;
        let read = units(blob.try_clone()?, |unit, leaf| {
            encoding.unit(unit, leaf).map_err(|error| {
                failed = Some(error);
                ReadError::Damaged("")
            })
        });
        failed.map_or(Ok(()), Err)?;
        read.map_err(|_| damaged())?;
        encoding.end_group()?;
    }
    encoding.finish(data)
}

fn damaged() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the blob is not what its name says")
}

/// A layer that is being written.
struct Encoding<W> {
    out: Hashing<W>,
    compressor: zstd::bulk::Compressor<'static>,
    /// Whether units are records.
    of_records: bool,
    frame: Vec<u8>,
    frame_units: usize,
    /// Of the group: leaves and lengths of its units, entries of its frames, and their bytes.
    leaves: Vec<Digest>,
    lengths: Vec<u32>,
    frames: Vec<u32>,
    group_bytes: u32,
    details: Vec<u8>,
    table: Vec<u8>,
}

impl<W: Write> Encoding<W> {
    fn new(out: W, level: i32) -> io::Result<Self> {
        Ok(Self {
            out: Hashing { out, hash: Sha256::new(), size: 0 },
            compressor: zstd::bulk::Compressor::new(level)?,
            of_records: false,
            frame: Vec::new(),
            frame_units: 0,
            leaves: Vec::new(),
            lengths: Vec::new(),
            frames: Vec::new(),
            group_bytes: 0,
            details: Vec::new(),
            table: Vec::new(),
        })
    }

    fn unit(&mut self, bytes: &[u8], leaf: Digest) -> io::Result<()> {
        // A unit that is longer has a frame of its own.
        let most = if self.of_records { RECORDS_FRAME } else { BLOCKS_FRAME };
        if self.frame.len() + bytes.len() > most || self.frame_units == MAX_FRAME_UNITS {
            self.end_frame()?;
        }
        self.frame.extend_from_slice(bytes);
        self.frame_units += 1;
        self.leaves.push(leaf);
        self.lengths.push(bytes.len() as u32);
        if ends_group(leaf.as_bytes(), self.leaves.len()) { self.end_group() } else { Ok(()) }
    }

    fn end_frame(&mut self) -> io::Result<()> {
        if self.frame_units == 0 {
            return Ok(());
        }
        let compressed = self.compressor.compress(&self.frame)?;
        let bytes = u32::try_from(compressed.len()).expect("256 KiB never become more than 16 MiB");
        self.frames.push((self.frame_units as u32) << 24 | bytes);
        self.group_bytes += bytes;
        self.out.write_all(&compressed)?;
        self.frame.clear();
        self.frame_units = 0;
        Ok(())
    }

    fn end_group(&mut self) -> io::Result<()> {
        self.end_frame()?;
        if self.leaves.is_empty() {
            return Ok(());
        }
        self.leaves.iter().for_each(|leaf| self.details.extend_from_slice(&leaf.as_bytes()[..8]));
        if self.of_records {
            self.lengths.iter().for_each(|length| self.details.extend_from_slice(&length.to_le_bytes()));
        }
        self.frames.iter().for_each(|frame| self.details.extend_from_slice(&frame.to_le_bytes()));
        self.table.extend_from_slice(&group_digest(&self.leaves).as_bytes()[..8]);
        self.table.extend_from_slice(&self.group_bytes.to_le_bytes());
        self.table.extend_from_slice(&(self.leaves.len() as u16).to_le_bytes());
        self.table.extend_from_slice(&(self.frames.len() as u16).to_le_bytes());
        self.leaves.clear();
        self.lengths.clear();
        self.frames.clear();
        self.group_bytes = 0;
        Ok(())
    }

    fn finish(mut self, data: u64) -> io::Result<Encoded> {
        let (index, table) = (self.details.len() + self.table.len(), self.table.len() as u64);
        let index = u32::try_from(index).ok().filter(|_| table <= MAX_TABLE);
        let index = index.ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.write_all(&SKIPPABLE_MAGIC.to_le_bytes())?;
        self.out.write_all(&index.to_le_bytes())?;
        self.out.write_all(&self.details)?;
        self.out.write_all(&self.table)?;
        self.out.flush()?;
        Ok(Encoded { digest: self.out.hash.finish(), size: self.out.size, data, table })
    }
}

/// The digest of a group: that of the leaves of its units.
pub(crate) fn group_digest(leaves: &[Digest]) -> Digest {
    let mut hash = Sha256::new();
    leaves.iter().for_each(|leaf| hash.update(leaf.as_bytes()));
    hash.finish()
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
    size: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

const _: () = assert!(BLOCKS_FRAME <= MAX_FRAME && RECORDS_FRAME <= MAX_FRAME);
