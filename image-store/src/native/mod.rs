//! Native layers: blobs as they are, in a form of which any part can be fetched by itself.
//!
//! ```text
//!  ┌─────────────────────┬───────────────────┬─────────┬───────────────────────┬──────────────────────┐
//!  │ frames of blocks    │ frames of records │ 8 bytes │ details of each group │ table of the groups  │
//!  └─────────────────────┴───────────────────┴─────────┴───────────────────────┴──────────────────────┘
//!   unit = a block, or some records; frame = some units, a zstd frame; group = some frames, 64 units on average
//! ```
//! The blocks are those of files. What stands behind them in the image comes as records (`erofs::records`), which do not change
//! where a file moves, and of which it is made again. Whoever has another version of the blob reads the table (16 bytes a group), then
//! the details of the groups that are not here (8 bytes a block), then the frames with units that are not here: three kinds of range
//! requests, which any registry and any static server answers. Groups end where what is in them says so, so they are found again wherever
//! they have moved. The leaves at the end of the blob are not sent: they are computed.
//!
//! What table and details say is a hint from a stranger. What was put together is the blob only if its fs-verity digest is the
//! one that the manifest names; where it is not, the whole layer is fetched.
//!
//! The format is described in `docs/native-images.md`. The 8 bytes between make the rest a skippable frame
//! (RFC 8878, section 3.1.2), so any zstd program gives the blocks and the records.
//!
//! Where a publisher offers patches from earlier versions ([`patch`]), and one of them is less than the frames would be, it comes instead.

mod assemble;
mod choose;
mod cut;
mod encode;
mod export;
mod growing;
mod kept;
mod layout;
mod local;
mod outline;
pub mod patch;
mod plan;
mod target;

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;

use crate::leaves::Extent;
use crate::registry::document::Descriptor;
use crate::tar::Limits;

pub(crate) use assemble::{NativeError, Parts, Plan, from_parts, plan};
pub(crate) use choose::{Offer, cheapest_patch, worth_a_look};
pub use encode::{Encoded, encode};
pub use export::ExportedNative;
pub use layout::Layout;
pub(crate) use local::Local;
pub use patch::WrittenPatch;
pub(crate) use patch::{Patch, PatchError, apply};
pub(crate) use target::{Assembled, from_stream};

/// The media type of a native layer.
pub const MEDIA_TYPE: &str = "application/vnd.bennu.layer.v2.erofs+zstd";
/// The annotation of its descriptor with the fs-verity digest of the blob.
pub const BLOB: &str = "dev.bennu.blob";
/// The annotation of its descriptor with the bytes of the blob, in decimal.
pub const BLOB_SIZE: &str = "dev.bennu.blob.size";
/// The annotation of its descriptor with the blocks of the image that are in the layer, in decimal.
pub const BLOCKS: &str = "dev.bennu.layer.blocks";
/// The annotation of its descriptor with the bytes of its table, in decimal.
pub const TABLE: &str = "dev.bennu.layer.table";

/// What a descriptor says of the blob that a native layer makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Native {
    /// Its fs-verity digest.
    pub blob: Digest,
    /// How it is divided.
    pub extent: Extent,
    /// Where what is in the layer.
    pub layout: Layout,
}

impl Native {
    /// What the descriptor of a native layer says; `None` where its annotations are missing or make no sense, or the blob would
    /// be larger than the tar of any layer of this size may be: a small layer must not fill a disk.
    pub fn of(descriptor: &Descriptor) -> Option<Self> {
        let annotation = |name: &str| descriptor.annotations.get(name);
        let number = |name: &str| annotation(name)?.parse().ok();
        let blob = annotation(BLOB)?.parse().ok()?;
        let extent = Extent::of_blob(number(BLOB_SIZE)?)?;
        if extent.image_bytes() > Limits::of_compressed(descriptor.size).bytes {
            return None;
        }
        let layout = Layout::new(extent.image, number(BLOCKS)?, number(TABLE)?, descriptor.size)?;
        Some(Self { blob, extent, layout })
    }

    /// The annotations that say it: of the blob its name and bytes, of the layer the blocks that it has and the bytes of its table.
    pub(crate) fn annotations(blob: &Digest, size: u64, blocks: u64, table: u64) -> BTreeMap<String, String> {
        let numbers = [(BLOB_SIZE, size), (BLOCKS, blocks), (TABLE, table)];
        let numbers = numbers.map(|(name, number)| (name.to_owned(), number.to_string()));
        numbers.into_iter().chain([(BLOB.to_owned(), blob.to_string())]).collect()
    }
}

/// Reads a table and the details of each of its groups, and gives whether they fit the layout; for fuzzers.
pub(crate) fn parse_index(blocks: u64, data: u64, size: u64, table: &[u8], details: &[u8]) -> bool {
    let bytes = blocks.checked_mul(crate::verity::BLOCK as u64);
    let bounded = bytes.is_some_and(|bytes| bytes <= Limits::of_compressed(size).bytes);
    let layout = bounded.then(|| Layout::new(blocks, data, table.len() as u64, size)).flatten();
    let Some(layout) = layout else { return false };
    let Some(groups) = plan::table(&layout, table) else { return false };
    let (mut wanted, mut content) = (Vec::new(), 0);
    let start = groups[0].details.start;
    for group in groups.iter().filter(|group| group.details.end <= start + details.len() as u64) {
        let bytes = &details[(group.details.start - start) as usize..(group.details.end - start) as usize];
        let Some(frames) = plan::details(group, bytes) else { return false };
        let blocks = frames.iter().filter(|_| !group.of_records);
        content += blocks.map(|frame| frame.content as u64).sum::<u64>();
        wanted.extend(frames.into_iter().map(|frame| frame.range));
    }
    assert!(content <= layout.data_bytes(), "more blocks than there are");
    let asked: u64 = plan::ranges(wanted).into_iter().map(|range| range.end - range.start).sum();
    assert!(asked <= layout.size, "more is asked for than there is");
    true
}

/// The first eight bytes of a digest, by which blocks are looked for. A block that has them by chance is noticed when the
/// whole is checked.
pub(crate) fn short(digest: &Digest) -> u64 {
    u64::from_le_bytes(digest.as_bytes()[..8].try_into().expect("a digest has 32 bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t14_a_native_layer_may_not_become_more_than_a_tar_of_its_size_may() {
        let blocks = 2_000_000;
        let blob = Digest::from_bytes([7; 32]);
        let described = |size| Descriptor {
            media_type: MEDIA_TYPE.to_owned(),
            digest: blob,
            size,
            platform: None,
            annotations: Native::annotations(&blob, Extent::of_image(blocks).bytes(), blocks, 16),
        };
        let least = 16 << 20;
        assert!(Layout::new(blocks, blocks, 16, least).is_some(), "the size itself could be");
        assert_eq!(Native::of(&described(least)), None);
        let native = Native::of(&described(least + (8 << 20))).expect("no more than 200 bytes for each");
        assert_eq!((native.blob, native.extent.image), (blob, blocks));
    }
}
