//! Structures on disk, all little endian (`fs/erofs/erofs_fs.h`).

use std::collections::BTreeMap;

use super::BLOCK;

/// `EROFS_SUPER_OFFSET`
pub(super) const SUPER_OFFSET: usize = 1024;
/// `EROFS_SUPER_MAGIC_V1`
pub(super) const MAGIC: u32 = 0xe0f5_e1e2;
/// `struct erofs_inode_extended`, the form with its own time, 32-bit owners and link count.
pub(super) const INODE_SIZE: usize = 64;
/// Inodes begin at multiples of this, and are numbered in it (`sizeof(struct erofs_inode_compact)`).
pub(super) const SLOT: usize = 32;
/// `struct erofs_dirent`
pub(super) const DIRENT_SIZE: usize = 12;
/// `struct erofs_xattr_ibody_header`
pub(super) const XATTR_HEADER: usize = 12;
/// `EROFS_FEATURE_COMPAT_SB_CHKSUM | EROFS_FEATURE_COMPAT_MTIME`
const FEATURES: u32 = 1 | 2;
/// `EROFS_NULL_ADDR`: where an inode has no whole block.
pub(super) const NO_BLOCK: u32 = u32::MAX;

pub(super) const S_IFMT: u16 = 0o170_000;
pub(super) const S_IFIFO: u16 = 0o010_000;
pub(super) const S_IFCHR: u16 = 0o020_000;
pub(super) const S_IFDIR: u16 = 0o040_000;
pub(super) const S_IFBLK: u16 = 0o060_000;
pub(super) const S_IFREG: u16 = 0o100_000;
pub(super) const S_IFLNK: u16 = 0o120_000;

/// `FT_*` of the kernel's `include/linux/fs_types.h`, as directory entries carry it.
pub(super) fn file_type(mode: u16) -> u8 {
    match mode & S_IFMT {
        S_IFREG => 1,
        S_IFDIR => 2,
        S_IFCHR => 3,
        S_IFBLK => 4,
        S_IFIFO => 5,
        S_IFLNK => 7,
        _ => 0,
    }
}

/// Where the data of an inode is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DataLayout {
    /// `EROFS_INODE_FLAT_PLAIN`: whole blocks.
    Plain,
    /// `EROFS_INODE_FLAT_INLINE`: whole blocks, and the tail behind the inode.
    Inline,
}

/// `struct erofs_inode_extended`
#[derive(Debug, Clone, Copy)]
pub(super) struct DiskInode {
    pub(super) layout: DataLayout,
    pub(super) xattr_len: usize,
    pub(super) mode: u16,
    pub(super) size: u64,
    /// First block, or the device number.
    pub(super) block_or_rdev: u32,
    pub(super) number: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    pub(super) mtime: (i64, u32),
    pub(super) nlink: u32,
}

impl DiskInode {
    pub(super) fn encode(&self) -> [u8; INODE_SIZE] {
        let layout = match self.layout {
            DataLayout::Plain => 0,
            DataLayout::Inline => 2,
        };
        let mut out = [0; INODE_SIZE];
        let mut put = |at: usize, bytes: &[u8]| out[at..at + bytes.len()].copy_from_slice(bytes);
        put(0, &(1u16 | layout << 1).to_le_bytes()); // EROFS_INODE_LAYOUT_EXTENDED
        put(2, &xattr_count(self.xattr_len).to_le_bytes());
        put(4, &self.mode.to_le_bytes());
        put(8, &self.size.to_le_bytes());
        put(16, &self.block_or_rdev.to_le_bytes());
        put(20, &self.number.to_le_bytes());
        put(24, &self.uid.to_le_bytes());
        put(28, &self.gid.to_le_bytes());
        put(32, &self.mtime.0.to_le_bytes());
        put(40, &self.mtime.1.to_le_bytes());
        put(44, &self.nlink.to_le_bytes());
        out
    }
}

/// `i_xattr_icount`: one for the header, and one for each word behind it.
fn xattr_count(len: usize) -> u16 {
    if len == 0 {
        return 0;
    }
    u16::try_from((len - XATTR_HEADER) / 4 + 1)
        .expect("attributes of an inode are capped where they are read")
}

/// The prefixes that have a number (`EROFS_XATTR_INDEX_*`). The two of POSIX ACLs are whole names.
pub(super) const XATTR_PREFIXES: [(u8, &[u8]); 5] = [
    (1, b"user."),
    (2, b"system.posix_acl_access"),
    (3, b"system.posix_acl_default"),
    (4, b"trusted."),
    (6, b"security."),
];

/// Attributes as they follow an inode; empty where there are none. Those of a namespace that EROFS does not know are left
/// out, as extraction onto a file system without them would do.
pub(super) fn encode_xattrs(xattrs: &BTreeMap<Vec<u8>, Vec<u8>>) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in xattrs {
        let known = XATTR_PREFIXES.iter().find_map(|(index, prefix)| {
            let rest = name.strip_prefix(*prefix)?;
            // A prefix that ends with a dot needs something behind it, a whole name must have nothing there.
            (prefix.ends_with(b".") != rest.is_empty()).then_some((*index, rest))
        });
        let Some((index, rest)) = known else { continue };
        if out.is_empty() {
            out.resize(XATTR_HEADER, 0);
        }
        out.push(u8::try_from(rest.len()).expect("names are capped at 255 bytes where they are read"));
        out.push(index);
        let len = u16::try_from(value.len()).expect("values are capped at 65535 bytes where they are read");
        out.extend_from_slice(&len.to_le_bytes());
        out.extend_from_slice(rest);
        out.extend_from_slice(value);
        out.resize(out.len().next_multiple_of(4), 0);
    }
    out
}

/// `new_encode_dev` of the kernel's `include/linux/kdev_t.h`
pub(super) fn encode_device(major: u32, minor: u32) -> u32 {
    minor & 0xff | major << 8 | (minor & !0xff) << 12
}

/// The reverse of [`encode_device`].
pub(super) fn decode_device(device: u32) -> (u32, u32) {
    (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00)
}

/// What the superblock says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Superblock {
    pub(super) root: u16,
    pub(super) inodes: u64,
    pub(super) blocks: u32,
    pub(super) meta_block: u32,
    pub(super) uuid: [u8; 16],
}

impl Superblock {
    /// Block 0, whole: a kilobyte for boot sectors, then `struct erofs_super_block` with its checksum.
    pub(super) fn encode(&self) -> [u8; BLOCK] {
        let mut out = [0; BLOCK];
        let mut put = |at: usize, bytes: &[u8]| {
            out[SUPER_OFFSET + at..SUPER_OFFSET + at + bytes.len()].copy_from_slice(bytes);
        };
        put(0, &MAGIC.to_le_bytes());
        put(8, &FEATURES.to_le_bytes());
        put(12, &[BLOCK.ilog2() as u8]);
        put(14, &self.root.to_le_bytes());
        put(16, &self.inodes.to_le_bytes());
        // 24: build time, which stays zero so that equal trees are equal bytes.
        put(36, &self.blocks.to_le_bytes());
        put(40, &self.meta_block.to_le_bytes());
        put(48, &self.uuid);
        let checksum = crc32c(&out[SUPER_OFFSET..]);
        out[SUPER_OFFSET + 4..SUPER_OFFSET + 8].copy_from_slice(&checksum.to_le_bytes());
        out
    }
}

/// CRC-32C (Castagnoli, reflected), begun with all ones and not inverted at the end, as `erofs_superblock_csum_verify` does
/// it. Only one block is ever summed, so a bit at a time is fast enough.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(
            crc ^ u32::from(*byte),
            |crc, _| if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ 0x82f6_3b78 },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_crc32c() {
        // The check value of the CRC catalogue for CRC-32/ISCSI, which inverts at the end.
        assert_eq!(!crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn device_numbers_survive_their_encoding() {
        for device in [(0, 0), (1, 3), (5, 1), (4095, 1_048_575), (8, 256)] {
            assert_eq!(decode_device(encode_device(device.0, device.1)), device);
        }
    }

    #[test]
    fn attributes_without_a_known_namespace_are_left_out() {
        let of = |name: &str| encode_xattrs(&BTreeMap::from([(name.as_bytes().to_vec(), b"v".to_vec())]));
        assert!(of("btrfs.compression").is_empty());
        assert!(of("user.").is_empty());
        assert!(of("system.posix_acl_accessory").is_empty());
        assert_eq!(of("user.a"), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 0, b'a', b'v', 0, 0]);
        assert_eq!(of("system.posix_acl_access")[12..16], [0, 2, 1, 0]);
    }
}
