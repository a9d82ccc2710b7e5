//! Native layers: blobs as they are, in a form of which any part can be fetched by itself.
//!
//! ```text
//!  ┌────────────┬─────────┬─────────────────────────┬──────────────────────┐
//!  │ frames     │ 8 bytes │ details of each group   │ table of the groups  │
//!  └────────────┴─────────┴─────────────────────────┴──────────────────────┘
//!   group = 128 blocks = 32 frames of 4 blocks (16 KiB), each a zstd frame of its own
//! ```
//! Whoever has another version of the blob reads the table (12 bytes for 512 KiB), then the details of the groups that are
//! not here (8 bytes a block), then the frames with blocks that are not here: three kinds of range requests, which any registry
//! and any static server answers. The leaves at the end of the blob are not sent: they are computed.
//!
//! What table and details say is a hint from a stranger. What was put together is the blob only if its fs-verity digest is the
//! one that the manifest names; where it is not, the whole layer is fetched.
//!
//! The format is described in `docs/native-images.md`. The 8 bytes between make the rest a skippable frame
//! (RFC 8878, section 3.1.2), so any zstd program makes the image out of the whole file.
//!
//! Where a publisher offers patches from earlier versions ([`patch`]), and one of them is less than the frames would be, it comes instead.

mod assemble;
mod choose;
mod encode;
mod export;
mod growing;
mod layout;
mod local;
pub mod patch;
mod plan;

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;

use crate::leaves::Extent;
use crate::registry::document::Descriptor;
use crate::tar::Limits;

pub(crate) use assemble::{Assembled, NativeError, Parts, Plan, from_parts, from_stream, plan};
pub(crate) use choose::{Offer, cheapest_patch, worth_a_look};
pub use encode::{Encoded, encode};
pub use export::ExportedNative;
pub use layout::Layout;
pub(crate) use local::Local;
pub use patch::WrittenPatch;
pub(crate) use patch::{Patch, PatchError, apply};

/// The media type of a native layer.
pub const MEDIA_TYPE: &str = "application/vnd.bennu.layer.v1.erofs+zstd";
/// The annotation of its descriptor with the fs-verity digest of the blob.
pub const BLOB: &str = "dev.bennu.blob";
/// The annotation of its descriptor with the bytes of the blob, in decimal.
pub const BLOB_SIZE: &str = "dev.bennu.blob.size";
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
        let blob = annotation(BLOB)?.parse().ok()?;
        let extent = Extent::of_blob(annotation(BLOB_SIZE)?.parse().ok()?)?;
        if extent.image_bytes() > Limits::of_compressed(descriptor.size).bytes {
            return None;
        }
        Some(Self { blob, extent, layout: Layout::new(extent.image, descriptor.size)? })
    }

    /// The annotations that say it.
    pub fn annotations(blob: &Digest, size: u64) -> BTreeMap<String, String> {
        BTreeMap::from([(BLOB.to_owned(), blob.to_string()), (BLOB_SIZE.to_owned(), size.to_string())])
    }
}

/// Reads a table and the details of each of its groups, and gives whether they fit the layout; for fuzzers.
pub(crate) fn parse_index(blocks: u64, size: u64, table: &[u8], details: &[u8]) -> bool {
    let bytes = blocks.checked_mul(crate::verity::BLOCK as u64);
    let bounded = bytes.is_some_and(|bytes| bytes <= Limits::of_compressed(size).bytes);
    let Some(layout) = bounded.then(|| Layout::new(blocks, size)).flatten() else { return false };
    let Some(groups) = plan::table(&layout, table) else { return false };
    let mut wanted = Vec::new();
    for (number, group) in (0..).zip(&groups) {
        let range = layout.details(number..number + 1);
        let begin = (range.start - layout.details(0..0).start) as usize;
        let bytes = details.get(begin..begin + (range.end - range.start) as usize);
        let Some(frames) = bytes.and_then(|bytes| plan::details(&layout, number, group, bytes)) else {
            return false;
        };
        wanted.extend(frames.into_iter().map(|frame| frame.range));
    }
    let asked: u64 = plan::ranges(wanted).into_iter().map(|range| range.end - range.start).sum();
    assert!(asked <= layout.frames, "more is asked for than there is");
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
            annotations: Native::annotations(&blob, Extent::of_image(blocks).bytes()),
        };
        let least = Layout::index_bytes(blocks) + layout::SKIPPABLE_HEADER + 1;
        assert!(Layout::new(blocks, least).is_some(), "the size itself could be");
        assert_eq!(Native::of(&described(least)), None);
        let native = Native::of(&described(least + (4 << 20))).expect("no more than 200 bytes for each");
        assert_eq!((native.blob, native.extent.image), (blob, blocks));
    }
}
