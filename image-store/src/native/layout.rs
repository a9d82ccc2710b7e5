//! Where what is in a native layer.

use std::ops::Range;

use crate::verity::BLOCK;

/// Bytes of a group in the table: 8 of the digest of its leaves, 4 of the length of its frames, 2 + 2 of how many units and frames it has.
pub(crate) const TABLE_ENTRY: u64 = 16;
/// Bytes of a unit in the details: the first of its leaf.
pub(crate) const SHORT_LEAF: u64 = 8;
/// Bytes more in those of records: its length.
pub(crate) const UNIT_LENGTH: u64 = 4;
/// Bytes of a frame in the details: how many units it has, and its length.
pub(crate) const FRAME_ENTRY: u64 = 4;
/// Magic number and length of the skippable frame.
pub(crate) const SKIPPABLE_HEADER: u64 = 8;
/// The magic number of a skippable frame (RFC 8878, section 3.1.2), the last digit of our choice.
pub(crate) const SKIPPABLE_MAGIC: u32 = 0x184D_2A5B;
/// Bytes of content that a frame has at most.
pub(crate) const MAX_FRAME: usize = 1 << 18;
/// Units that a frame has at most: their number has a byte.
pub(crate) const MAX_FRAME_UNITS: usize = u8::MAX as usize;
/// Units that a group has at most where it ends by the rule.
const MAX_GROUP_UNITS: usize = 256;
/// A group ends behind a unit whose leaf begins with a byte that is divisible by this, so that groups have some 64 units, and the same
/// ones wherever they are.
const GROUP_END: u8 = 64;
/// The longest table that is read: that of 8 GiB in groups of 32 blocks.
pub(crate) const MAX_TABLE: u64 = 1 << 20;

/// Whether a group of so many units ends with one that has this leaf.
pub(crate) fn ends_group(leaf: &[u8], units: usize) -> bool {
    leaf[0].is_multiple_of(GROUP_END) || units >= MAX_GROUP_UNITS
}

/// What is known of a layer before anything of it is fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Blocks of the image.
    pub blocks: u64,
    /// Those of them that are in the layer; the others are made of its records.
    pub data: u64,
    /// Bytes of the table, which is at its end.
    pub table: u64,
    /// Bytes of the layer.
    pub size: u64,
}

impl Layout {
    /// The layout; `None` where it cannot be.
    pub fn new(blocks: u64, data: u64, table: u64, size: u64) -> Option<Self> {
        let counts = data > 0 && data <= blocks && table > 0 && table <= MAX_TABLE;
        let whole = table.is_multiple_of(TABLE_ENTRY) && table + SKIPPABLE_HEADER < size;
        (counts && whole).then_some(Self { blocks, data, table, size })
    }

    /// Where the table is.
    pub(crate) fn table(&self) -> Range<u64> {
        self.size - self.table..self.size
    }

    /// Bytes of the blocks that are in the layer.
    pub(crate) fn data_bytes(&self) -> u64 {
        self.data * BLOCK as u64
    }

    /// Bytes of what is made of records, which never have more themselves.
    pub(crate) fn made_bytes(&self) -> u64 {
        (self.blocks - self.data) * BLOCK as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layout_that_cannot_be_is_refused() {
        let layout = Layout::new(10, 8, 32, 1000).expect("it can be");
        assert_eq!(layout.table(), 968..1000);
        assert_eq!((layout.data_bytes(), layout.made_bytes()), (32_768, 8192));
        for (blocks, data, table, size) in [
            (10, 0, 32, 1000),
            (10, 11, 32, 1000),
            (10, 8, 0, 1000),
            (10, 8, 33, 1000),
            (10, 8, 32, 40),
            (10, 8, MAX_TABLE + TABLE_ENTRY, 1 << 40),
        ] {
            assert_eq!(Layout::new(blocks, data, table, size), None, "{blocks} {data} {table} {size}");
        }
    }

    #[test]
    fn a_group_ends_where_a_leaf_says_so_or_it_is_full() {
        assert!(
            ends_group(&[0, 1], 1)
                && ends_group(&[64], 1)
                && !ends_group(&[65], 255)
                && ends_group(&[65], 256)
        );
    }
}
