//! Patches: blobs as what changed since an earlier one.
//!
//! ```text
//!  old image   ┌─kept─┬─gone─┬──kept──┬─gone─┐        new image   ┌─kept─┬─new──┬──kept──┬───new───┐
//!              └──────┴──┬───┴────────┴──┬───┘                    └──────┴──┬───┴────────┴────┬────┘
//!                        └─ reference ───┴────────────► zstd ◄──────────────┴──── content ────┘
//! ```
//! Blocks that both have are taken from the old blob, and shared where the file system can. Only what is new is compressed, with what is
//! gone as its reference: a file that changed stands beside what it was. Where that is much, the patch is a row of segments, each a part
//! of the content with what is gone near it. So neither side needs more memory than one segment takes, whatever the size of the images.
//!
//! ```text
//!  manifest of the image ◄──subject── manifest of patches, its layers: one patch for each blob that has a predecessor
//! ```
//! A patch is a hint from a stranger like every other part of a native image: what it makes has the digest that the manifest of the
//! image names, or is thrown away. The format is described in `docs/native-images.md`.

mod apply;
mod divide;
mod export;
mod list;
mod make;
#[cfg(test)]
mod round_trip;

use std::collections::BTreeMap;

use bennu_manifests::model::Digest;

pub(crate) use apply::{PatchError, apply};
pub use export::WrittenPatch;
pub(crate) use export::list as write_list;

use super::BLOB;
use crate::registry::document::Descriptor;

/// The artifact type of a manifest of patches.
pub const ARTIFACT_TYPE: &str = "application/vnd.bennu.patches.v1";
/// The media type of a patch.
pub const MEDIA_TYPE: &str = "application/vnd.bennu.patch.v2+zstd";
/// The annotation of a patch with the fs-verity digest of the blob that it is for; of a manifest of patches with all of them, a comma
/// between two.
pub const FROM: &str = "dev.bennu.patch.from";
/// The annotation of a patch with the bytes of memory that whoever applies it needs, in decimal: those of the reference and of the window of
/// the segment that needs most.
pub const MEMORY: &str = "dev.bennu.patch.memory";
/// The most memory that a patch may need, in bytes.
pub const MAX_MEMORY: u64 = 256 << 20;

/// A patch that somebody offers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Patch {
    /// Its bytes.
    pub(crate) layer: Descriptor,
    /// The blob that has to be here.
    pub(crate) from: Digest,
    /// The blob that it makes.
    pub(crate) blob: Digest,
    /// Bytes of memory that it needs.
    pub(crate) memory: u64,
}

impl Patch {
    /// What the descriptor of a patch says; `None` where it is none, or would need more than [`MAX_MEMORY`].
    pub(crate) fn of(layer: Descriptor) -> Option<Self> {
        if layer.media_type != MEDIA_TYPE {
            return None;
        }
        let annotation = |name: &str| layer.annotations.get(name);
        let (from, blob) = (annotation(FROM)?.parse().ok()?, annotation(BLOB)?.parse().ok()?);
        let memory = annotation(MEMORY)?.parse().ok()?;
        (memory <= MAX_MEMORY).then_some(Self { layer, from, blob, memory })
    }

    /// The annotations that say it.
    fn annotations(from: &Digest, blob: &Digest, memory: u64) -> BTreeMap<String, String> {
        let texts = [(FROM, from.to_string()), (BLOB, blob.to_string()), (MEMORY, memory.to_string())];
        texts.map(|(name, text)| (name.to_owned(), text)).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t14_a_patch_that_needs_more_memory_than_a_host_gives_is_none() {
        let (from, blob) = (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]));
        let described = |memory| Descriptor {
            media_type: MEDIA_TYPE.to_owned(),
            digest: Digest::from_bytes([3; 32]),
            size: 1000,
            platform: None,
            annotations: Patch::annotations(&from, &blob, memory),
        };
        let patch = Patch::of(described(MAX_MEMORY)).expect("as much as is allowed");
        assert_eq!((patch.from, patch.blob, patch.memory), (from, blob, MAX_MEMORY));
        assert_eq!(Patch::of(described(MAX_MEMORY + 1)), None);
        for missing in [FROM, BLOB, MEMORY] {
            let mut without = described(1);
            without.annotations.remove(missing);
            assert_eq!(Patch::of(without), None, "{missing}");
        }
        assert_eq!(Patch::of(Descriptor { media_type: "application/zstd".to_owned(), ..described(1) }), None);
    }
}
