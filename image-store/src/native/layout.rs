//! Where what is in a native layer. Everything follows from two numbers: the blocks of the image, and the bytes of the layer.

use std::ops::Range;

use crate::verity::BLOCK;

/// Blocks in a frame.
pub(crate) const FRAME_BLOCKS: u64 = 4;
/// Frames in a group.
pub(crate) const GROUP_FRAMES: u64 = 32;
/// Blocks in a group, which are those whose leaves fill a block of leaves.
pub(crate) const GROUP_BLOCKS: u64 = FRAME_BLOCKS * GROUP_FRAMES;
/// Bytes of a frame's content.
pub(crate) const FRAME_BYTES: usize = FRAME_BLOCKS as usize * BLOCK;
/// Bytes of a group in the table: 8 of the digest of its leaves, 4 of the length of its frames.
pub(crate) const TABLE_ENTRY: u64 = 12;
/// Bytes of a block in the details: the first of its leaf.
pub(crate) const SHORT_LEAF: u64 = 8;
/// Bytes of a frame in the details: its length.
pub(crate) const FRAME_LENGTH: u64 = 2;
/// Magic number and length of the skippable frame.
pub(crate) const SKIPPABLE_HEADER: u64 = 8;
/// The magic number of a skippable frame (RFC 8878, section 3.1.2), the last digit of our choice.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184D_2A5B;

/// Where what is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Blocks of the image.
    pub blocks: u64,
    /// Bytes of all frames, which come first.
    pub frames: u64,
}

impl Layout {
    /// The layout of a layer of `size` bytes with an image of so many blocks; `None` where that cannot be.
    pub fn new(blocks: u64, size: u64) -> Option<Self> {
        let frames = size.checked_sub(Self::index_bytes(blocks) + SKIPPABLE_HEADER)?;
        (blocks > 0 && frames > 0).then_some(Self { blocks, frames })
    }

    /// Groups of the image.
    pub fn groups(&self) -> u64 {
        self.blocks.div_ceil(GROUP_BLOCKS)
    }

    /// Bytes of details and table.
    pub(crate) fn index_bytes(blocks: u64) -> u64 {
        details_bytes(blocks) + blocks.div_ceil(GROUP_BLOCKS) * TABLE_ENTRY
    }

    /// Blocks of a group: all but the last are full.
    pub(crate) fn blocks_of(&self, group: u64) -> u64 {
        GROUP_BLOCKS.min(self.blocks - group * GROUP_BLOCKS)
    }

    /// Where the table is.
    pub(crate) fn table(&self) -> Range<u64> {
        let start = self.frames + SKIPPABLE_HEADER + details_bytes(self.blocks);
        start..start + self.groups() * TABLE_ENTRY
    }

    /// Where the details of some groups are.
    pub(crate) fn details(&self, groups: Range<u64>) -> Range<u64> {
        let start = self.frames + SKIPPABLE_HEADER;
        let upto = |group: u64| start + details_bytes((group * GROUP_BLOCKS).min(self.blocks));
        upto(groups.start)..upto(groups.end)
    }
}

/// Bytes of the details of so many blocks.
pub(crate) fn details_bytes(blocks: u64) -> u64 {
    blocks * SHORT_LEAF + blocks.div_ceil(FRAME_BLOCKS) * FRAME_LENGTH
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_of_a_layer_lie_side_by_side_and_end_with_it() {
        for blocks in [1, 3, 4, 5, 127, 128, 129, 1000, 46_080] {
            let size = 777 + SKIPPABLE_HEADER + Layout::index_bytes(blocks);
            let layout = Layout::new(blocks, size).expect("it can be");
            assert_eq!(layout.frames, 777);
            assert_eq!(layout.table().end, size, "{blocks}");
            assert_eq!(layout.details(0..layout.groups()).end, layout.table().start, "{blocks}");
            let mut at = layout.frames + SKIPPABLE_HEADER;
            for group in 0..layout.groups() {
                let details = layout.details(group..group + 1);
                assert_eq!(details.start, at);
                assert_eq!(details.end - at, details_bytes(layout.blocks_of(group)));
                at = details.end;
            }
            assert_eq!(Layout::new(blocks, size - 777), None, "without frames");
        }
        assert_eq!(Layout::new(0, 1000), None);
        assert_eq!(Layout::new(u32::MAX.into(), 1000), None);
    }
}
