//! A blob that is made of blocks, and then of records.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::Native;
use super::growing::{COPY_BUFFER, Growing, GrowthError};
use super::layout::MAX_FRAME;
use crate::erofs::Sink;
use crate::erofs::records::{Build, BuildError};
use crate::verity::BLOCK;

/// The window that a frame may ask for, as a power of two: its content.
const MAX_WINDOW_LOG: u32 = MAX_FRAME.ilog2();

impl From<BuildError> for GrowthError {
    fn from(error: BuildError) -> Self {
        match error {
            BuildError::Damaged => Self::Mismatch,
            // More than the image has.
            BuildError::Io(error) if error.kind() == io::ErrorKind::InvalidData => Self::Mismatch,
            BuildError::Io(error) => Self::Write(error),
        }
    }
}

/// A blob that is being written, from the content of its layer.
pub(super) struct Target<'a> {
    native: &'a Native,
    blob: Growing<'a>,
    /// Bytes of blocks that are still to come.
    data: u64,
    records: Build,
    /// Bytes of records that may still come.
    room: u64,
}

impl<'a> Target<'a> {
    /// Nothing came yet. What does not fit into memory waits in an unnamed file in `spill`.
    pub(super) fn new(native: &'a Native, out: &'a File, spill: &Path) -> Self {
        let blob = Growing::new(out, spill);
        let (data, room) = (native.layout.data_bytes(), native.layout.made_bytes());
        Self { native, blob, data, records: Build::new(spill), room }
    }

    /// Takes the next bytes of the content.
    pub(super) fn take(&mut self, bytes: &[u8]) -> Result<(), GrowthError> {
        let blocks = self.data.min(bytes.len() as u64) as usize;
        let (blocks, records) = bytes.split_at(blocks);
        self.data -= blocks.len() as u64;
        self.blob.append(blocks).map_err(GrowthError::Write)?;
        self.room = self.room.checked_sub(records.len() as u64).ok_or(GrowthError::Mismatch)?;
        if !records.is_empty() {
            self.records.push(records)?;
        }
        Ok(())
    }

    /// Takes blocks that are in a file. `buffer` has [`COPY_BUFFER`] bytes.
    pub(super) fn copy_blocks(
        &mut self,
        file: &File,
        first: u32,
        count: u32,
        buffer: &mut [u8],
    ) -> Result<(), GrowthError> {
        let bytes = u64::from(count) * BLOCK as u64;
        self.data = self.data.checked_sub(bytes).ok_or(GrowthError::Mismatch)?;
        self.blob.copy_blocks(file, first, count, buffer)
    }

    /// Makes the rest of the image of the records, and refuses any other blob than the one that is wanted.
    pub(super) fn finish(mut self) -> Result<(), GrowthError> {
        if self.data > 0 {
            return Err(GrowthError::Mismatch);
        }
        let made = self.native.layout.made_bytes();
        if made > 0 {
            let blob = &mut self.blob;
            let mut rest = Rest { blob, at: self.native.layout.data_bytes(), left: made, buffer: Vec::new() };
            self.records.finish(&mut rest)?;
            rest.settle(0).map_err(GrowthError::Write)?;
        }
        self.blob.finish(self.native)
    }
}

/// What records make, which is no more than the image should have: many small pieces.
struct Rest<'a, 'b> {
    blob: &'a mut Growing<'b>,
    at: u64,
    left: u64,
    buffer: Vec<u8>,
}

impl Rest<'_, '_> {
    /// Writes what waits where it is more than so many bytes.
    fn settle(&mut self, bytes: usize) -> io::Result<()> {
        if self.buffer.len() > bytes {
            self.blob.append(&self.buffer)?;
            self.buffer.clear();
        }
        Ok(())
    }
}

impl Sink for Rest<'_, '_> {
    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        let len = bytes.len() as u64;
        self.left = self.left.checked_sub(len).ok_or(io::ErrorKind::InvalidData)?;
        self.at += len;
        self.buffer.extend_from_slice(bytes);
        self.settle(COPY_BUFFER)
    }

    fn written(&self) -> u64 {
        self.at
    }
}

/// Makes the blob from the bytes of the whole layer.
pub(crate) fn from_stream(
    native: &Native,
    layer: impl Read,
    out: &File,
    spill: &Path,
) -> Result<(), Assembled> {
    let mut decoder = zstd::stream::read::Decoder::new(layer).map_err(Assembled::Read)?;
    decoder.window_log_max(MAX_WINDOW_LOG).map_err(Assembled::Read)?;
    let mut target = Target::new(native, out, spill);
    let mut buffer = vec![0; COPY_BUFFER];
    loop {
        match decoder.read(&mut buffer).map_err(Assembled::Read)? {
            0 => return Ok(target.finish()?),
            n => target.take(&buffer[..n])?,
        }
    }
}

/// Why the whole layer does not make the blob.
#[derive(Debug)]
pub(crate) enum Assembled {
    Read(io::Error),
    Write(io::Error),
    Mismatch,
}

impl From<GrowthError> for Assembled {
    fn from(error: GrowthError) -> Self {
        match error {
            GrowthError::Write(error) => Self::Write(error),
            GrowthError::Mismatch => Self::Mismatch,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use bennu_manifests::model::Digest;

    use super::*;
    use crate::leaves::{self, Extent};
    use crate::native::layout::SKIPPABLE_MAGIC;
    use crate::native::{Layout, encode};

    /// A blob that no writer of ours has made, and its layer.
    fn foreign(blocks: u32) -> (Native, Vec<u8>, Vec<u8>) {
        let image: Vec<u8> = (0..blocks * 1024).flat_map(|n| (n / 3).to_le_bytes()).collect();
        let leaves: Vec<Digest> = image.chunks(BLOCK).map(leaves::leaf).collect();
        let blob = [image, leaves::encode(&leaves)].concat();
        let (name, bytes) = crate::verity::digest(blob.as_slice()).expect("in memory");
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&blob).expect("written");
        let mut layer = Vec::new();
        let encoded = encode(&file, &name, 3, &std::env::temp_dir(), &mut layer).expect("encoded");
        assert_eq!(encoded.data, u64::from(blocks), "no records");
        let extent = Extent::of_blob(bytes).expect("a blob");
        let layout = Layout::new(extent.image, encoded.data, encoded.table, encoded.size).expect("a layout");
        (Native { blob: name, extent, layout }, blob, layer)
    }

    fn made(native: &Native, layer: &[u8]) -> Result<Vec<u8>, Assembled> {
        let file = tempfile::NamedTempFile::new().expect("a file");
        from_stream(native, layer, file.as_file(), &std::env::temp_dir())?;
        Ok(std::fs::read(file.path()).expect("read"))
    }

    #[test]
    fn an_image_of_another_writer_comes_as_blocks_alone() {
        let (native, blob, layer) = foreign(300);
        assert!(made(&native, &layer).expect("sound") == blob);
    }

    #[test]
    fn a_layer_that_breaks_off_or_goes_on_is_refused() {
        let (native, _, layer) = foreign(9);
        let magic = SKIPPABLE_MAGIC.to_le_bytes();
        let frames = layer.windows(4).rposition(|bytes| bytes == magic).expect("an index");
        for len in 0..frames {
            assert!(made(&native, &layer[..len]).is_err(), "{len}");
        }
        let frame = |content: &[u8]| zstd::bulk::compress(content, 3).expect("compressed");
        for (what, bad) in [
            ("a frame behind the index", [&layer[..], &frame(&[0; BLOCK])].concat()),
            ("something else behind it", [&layer[..], b"else"].concat()),
            ("a frame of a part of a block", [&frame(&[0; 100]), &layer[..]].concat()),
            ("a block too many", [&frame(&[0; BLOCK]), &layer[..]].concat()),
        ] {
            assert!(made(&native, &bad).is_err(), "{what}");
        }
    }

    #[test]
    fn records_make_no_more_than_the_image_has_and_are_no_more() {
        let (mut native, ..) = foreign(9);
        native.layout.data = 8;
        let frame = |content: &[u8]| zstd::bulk::compress(content, 3).expect("compressed");
        let root = [&[3, 0][..], &[0; 24]].concat();
        let pipe = |name: u8| [&[7, 1, name][..], &[0; 24]].concat();
        let many: Vec<u8> = (0..100).flat_map(pipe).collect();
        for (what, records) in [
            ("more than a block", vec![3; BLOCK + 1]),
            ("what makes more than a block", [&root[..], &many, &[0]].concat()),
            ("what makes another block", [&root[..], &[0]].concat()),
            ("no end", root.clone()),
        ] {
            let layer =
                [frame(&[1; 8 * BLOCK]), frame(&records), vec![0x5b, 0x2a, 0x4d, 0x18, 0, 0, 0, 0]].concat();
            assert!(matches!(made(&native, &layer), Err(Assembled::Mismatch)), "{what}");
        }
    }
}
