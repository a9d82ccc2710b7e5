//! Patches of many small segments: made and applied, and those that nobody would make.

use std::fs::File;
use std::io::Write;
use std::os::unix::fs::FileExt;

use bennu_manifests::model::Digest;
use proptest::collection::vec;
use proptest::prelude::*;
use zstd::stream::write::Encoder;

use super::divide::Sizes;
use super::list::{List, Piece, Run};
use super::make::{Blob, Sketch};
use super::{MEDIA_TYPE, Patch, PatchError};
use crate::leaves::{self, Extent};
use crate::native::{Layout, Native};
use crate::registry::document::Descriptor;
use crate::verity::{self, BLOCK};

/// A blob in a file.
struct Made {
    file: File,
    name: Digest,
    leaves: Vec<Digest>,
    bytes: Vec<u8>,
}

impl Made {
    /// The blob of these blocks. Those whose numbers differ in the lowest two bits alone differ in one byte.
    fn of(numbers: &[u8]) -> Self {
        let mut image = Vec::new();
        for number in numbers {
            let mut state = u32::from(number / 4).wrapping_mul(0x9E37_79B9) | 1;
            let noise = std::iter::repeat_with(|| {
                state ^= state << 13;
                state ^= state >> 17;
                state ^= state << 5;
                state as u8
            });
            let from = image.len();
            image.extend(noise.take(BLOCK));
            image[from + 1000] = number % 4;
        }
        let leaves: Vec<Digest> = image.chunks(BLOCK).map(leaves::leaf).collect();
        let bytes = [image, leaves::encode(&leaves)].concat();
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&bytes).expect("written");
        let (name, _) = verity::digest(bytes.as_slice()).expect("in memory");
        Self { file, name, leaves, bytes }
    }

    fn blob(&self) -> Blob<'_> {
        Blob { name: &self.name, file: &self.file, leaves: &self.leaves }
    }

    fn native(&self) -> Native {
        let extent = Extent::of_image(self.leaves.len() as u64);
        let layout = Layout::new(extent.image, extent.image, 16, 1 << 30).expect("room for its index");
        Native { blob: self.name, extent, layout }
    }

    /// The patch from another blob, with segments of such sizes, and the memory that it says to need.
    fn patch_from(&self, old: &Self, sizes: Sizes) -> (Vec<u8>, u64) {
        let sketch = Sketch::divided(old.blob(), self.blob(), sizes).expect("short lists");
        let mut bytes = Vec::new();
        sketch.write(old.blob(), self.blob(), 3, &mut bytes).expect("sound blobs");
        (bytes, sketch.memory())
    }

    /// What a patch from another blob makes.
    fn applied(&self, old: &Self, patch: &[u8], memory: u64) -> Result<Vec<u8>, PatchError> {
        let digest = Digest::of(patch);
        let (media_type, size) = (MEDIA_TYPE.to_owned(), patch.len() as u64);
        let layer = Descriptor { media_type, digest, size, platform: None, annotations: Default::default() };
        let described = Patch { layer, from: old.name, blob: self.name, memory };
        let out = tempfile::tempfile().expect("a file");
        super::apply(&self.native(), &described, &old.file, patch, &out, &std::env::temp_dir())?;
        let mut made = vec![0; out.metadata().expect("there").len() as usize];
        out.read_exact_at(&mut made, 0).expect("read");
        Ok(made)
    }
}

fn sizes() -> impl Strategy<Value = Sizes> {
    (1_u32..8, 0_u32..=3).prop_map(|(content, times)| Sizes { content, reference: content * times })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_patch_of_any_two_blobs_makes_the_second_with_the_memory_that_it_says(
        old in vec(0_u8..120, 1..60),
        new in vec(0_u8..120, 1..60),
        sizes in sizes(),
    ) {
        let (old, new) = (Made::of(&old), Made::of(&new));
        let (patch, memory) = new.patch_from(&old, sizes);
        prop_assert!(memory <= u64::from(sizes.content.next_power_of_two() + sizes.reference) * BLOCK as u64);
        prop_assert!(new.applied(&old, &patch, memory).expect("applied") == new.bytes, "another blob");
        let less = new.applied(&old, &patch, memory - 1);
        prop_assert!(matches!(less, Err(PatchError::List)), "{less:?}");
        let more = new.applied(&old, &[&patch[..], b"x"].concat(), memory);
        prop_assert!(matches!(more, Err(PatchError::List)), "{more:?}");
    }

    #[test]
    fn t14_a_patch_that_was_changed_makes_the_blob_or_nothing(
        at in any::<prop::sample::Index>(),
        to in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let old = Made::of(&(0..40).map(|i| i * 4).collect::<Vec<_>>());
        let new = Made::of(&(0..40).map(|i| i * 4 + u8::from(i % 3 > 0)).collect::<Vec<_>>());
        let (patch, memory) = new.patch_from(&old, Sizes { content: 4, reference: 8 });
        let cut = new.applied(&old, &patch[..cut.index(patch.len())], memory);
        prop_assert!(cut.is_err(), "a part of a patch was taken for the whole");
        let mut changed = patch;
        let at = at.index(changed.len());
        changed[at] = to;
        if let Ok(made) = new.applied(&old, &changed, memory) {
            prop_assert!(made == new.bytes, "another blob");
        }
    }
}

#[test]
fn segments_find_what_their_content_was() {
    let old = Made::of(&(0..60).map(|i| i * 4).collect::<Vec<_>>());
    let new = Made::of(&(0..60).map(|i| i * 4 + 1).collect::<Vec<_>>());
    let size = |sizes| new.patch_from(&old, sizes).0.len();
    let whole = size(Sizes { content: 60, reference: 60 });
    assert!(whole < 4 * BLOCK, "{whole}");
    let divided = size(Sizes { content: 10, reference: 20 });
    // Six segments, of which each has a list and the heads of two frames.
    assert!(divided < whole + 6 * 80, "{divided} beside {whole}");
    let nothing = size(Sizes { content: 10, reference: 0 });
    assert!(nothing > 60 * BLOCK, "noise: {nothing}");
}

/// A segment as somebody else would write it.
fn segment(list: &List, content: &[u8], reference: &[u8]) -> Vec<u8> {
    let mut bytes = zstd::bulk::compress(&list.encode(), 3).expect("in memory");
    let mut encoder = Encoder::with_ref_prefix(&mut bytes, 3, reference).expect("in memory");
    encoder.write_all(content).expect("in memory");
    encoder.finish().expect("in memory");
    bytes
}

#[test]
fn t14_segments_that_do_not_add_up_are_refused() {
    let old = Made::of(&(0..32).map(|i| i * 4).collect::<Vec<_>>());
    let kept = |first, count| Piece::Kept(Run { first, count });
    let keeps = |pieces| segment(&List { pieces, reference: Vec::new() }, b"", b"");
    let is_refused = |patch: &[u8], why: &str| {
        let applied = old.applied(&old, patch, 1 << 20);
        assert!(matches!(applied, Err(PatchError::List | PatchError::Read(_))), "{why}: {applied:?}");
    };
    let (first, second) = (keeps(vec![kept(0, 20)]), keeps(vec![kept(20, 12)]));
    let both = [&first[..], &second].concat();
    assert!(old.applied(&old, &both, 1 << 20).expect("sound") == old.bytes);
    is_refused(&first, "no second segment");
    is_refused(&[&first[..], &first].concat(), "a second segment that makes more than is left");
    is_refused(&[&both[..], &second].concat(), "a third segment");
    is_refused(&[&first[..], &keeps(Vec::new()), &second].concat(), "a segment of nothing");
    let with_content = segment(&List { pieces: vec![kept(20, 12)], reference: Vec::new() }, b"content", b"");
    is_refused(&[first, with_content].concat(), "content that no piece names");
}

#[test]
fn t14_segments_read_the_old_blob_a_few_times_at_most() {
    let old = Made::of(&(0..32).map(|i| i * 4).collect::<Vec<_>>());
    let image = &old.bytes[..32 * BLOCK];
    let reads = |times: u32| {
        let mut patch = Vec::new();
        for first in 0..32 {
            // All that there is, though nothing needs it.
            let reference = if first < times { vec![Run { first: 0, count: 32 }] } else { Vec::new() };
            let of_it = if first < times { image } else { b"" };
            let list = List { pieces: vec![Piece::Kept(Run { first, count: 1 })], reference };
            patch.extend(segment(&list, b"", of_it));
        }
        old.applied(&old, &patch, 1 << 20)
    };
    assert!(reads(8).expect("four times both images") == old.bytes);
    let more = reads(9);
    assert!(matches!(more, Err(PatchError::List)), "{more:?}");
}
