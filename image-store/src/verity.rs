//! fs-verity digests: computed in a stream, and asked of the kernel.
//!
//! The digest is that of the kernel's `Documentation/filesystems/fsverity.rst` ("Merkle tree", "fs-verity descriptor"):
//! SHA-256, 4096-byte blocks, no salt. It is computed while a blob is written, so naming a blob costs no second read.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::AsFd;

use bennu_manifests::model::Digest;

use crate::sha256::{self, Sha256};

/// Bytes in a block of data and of the tree.
pub const BLOCK: usize = 4096;
/// Digests in one block of the tree.
const PER_BLOCK: usize = BLOCK / 32;

/// A Merkle tree being built from data that arrives in order.
///
/// Memory: 4 KiB for the block that is not full yet, 4 KiB for each of two groups of leaves, and 32 bytes for every
/// 512 KiB of data.
#[derive(Debug)]
pub struct Merkle {
    partial: Vec<u8>,
    /// Leaves of the first 128 blocks, kept because the first block may be given again at the end.
    first: Vec<u8>,
    /// Leaves of the group that is not complete yet, where it is not the first.
    group: Vec<u8>,
    /// Digests of complete groups after the first.
    above: Vec<u8>,
    blocks: u64,
    len: u64,
}

impl Default for Merkle {
    fn default() -> Self {
        Self::new()
    }
}

impl Merkle {
    /// The tree of an empty file.
    pub fn new() -> Self {
        Self {
            partial: Vec::with_capacity(BLOCK),
            first: Vec::new(),
            group: Vec::new(),
            above: Vec::new(),
            blocks: 0,
            len: 0,
        }
    }

    /// Bytes added so far.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether nothing was added yet.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds the next bytes of the file.
    pub fn update(&mut self, bytes: &[u8]) {
        self.update_noting(bytes, |_| ());
    }

    /// Adds the next bytes of the file, and gives the digest of every block that they complete.
    pub fn update_noting(&mut self, mut bytes: &[u8], mut note: impl FnMut(&Digest)) {
        self.len += bytes.len() as u64;
        if !self.partial.is_empty() {
            let (head, rest) = bytes.split_at(bytes.len().min(BLOCK - self.partial.len()));
            self.partial.extend_from_slice(head);
            bytes = rest;
            if self.partial.len() < BLOCK {
                return;
            }
            let leaf = sha256::digest(&self.partial);
            self.partial.clear();
            note(&leaf);
            self.leaf(leaf.as_bytes());
        }
        let (blocks, rest) = bytes.as_chunks::<BLOCK>();
        let (pairs, single) = blocks.as_chunks();
        for [left, right] in pairs {
            for leaf in sha256::pair([left, right]) {
                note(&leaf);
                self.leaf(leaf.as_bytes());
            }
        }
        for block in single {
            let leaf = sha256::digest(block);
            note(&leaf);
            self.leaf(leaf.as_bytes());
        }
        self.partial.extend_from_slice(rest);
    }

    /// Adds a whole block of which only the digest is known; the bytes before it must be whole blocks.
    pub(crate) fn push_leaf(&mut self, leaf: &[u8]) {
        debug_assert!(self.partial.is_empty() && leaf.len() == 32, "a leaf stands for a whole block");
        self.len += BLOCK as u64;
        self.leaf(leaf);
    }

    fn leaf(&mut self, leaf: &[u8]) {
        if self.blocks < PER_BLOCK as u64 {
            self.first.extend_from_slice(leaf);
        } else {
            self.group.extend_from_slice(leaf);
            if self.group.len() == BLOCK {
                self.above.extend_from_slice(sha256::digest(&self.group).as_bytes());
                self.group.clear();
            }
        }
        self.blocks += 1;
    }

    /// The fs-verity digest of everything added. `first_block` stands for the first 4096 bytes, where they became known
    /// only at the end; at least that many must have been added.
    pub fn finish(mut self, first_block: Option<&[u8; BLOCK]>) -> Digest {
        let len = self.len;
        self.close();
        descriptor_digest(self.root(first_block), len)
    }

    /// The digest as [`Self::finish`] would give it with the first block as it was added, while more can still come;
    /// the length must be a whole number of blocks.
    pub(crate) fn peek(&self) -> Digest {
        debug_assert!(self.partial.is_empty(), "a digest is only asked for between blocks");
        descriptor_digest(self.root(None), self.len)
    }

    fn close(&mut self) {
        if !self.partial.is_empty() {
            self.partial.resize(BLOCK, 0);
            let leaf = sha256::digest(&self.partial);
            self.partial.clear();
            self.leaf(leaf.as_bytes());
        }
    }

    fn root(&self, first_block: Option<&[u8; BLOCK]>) -> [u8; 32] {
        let mut first = self.first.clone();
        if let Some(block) = first_block {
            first[..32].copy_from_slice(sha256::digest(block).as_bytes());
        }
        // An empty file has a root of zeros, and a file of one block has no tree: its leaf is the root.
        if self.blocks <= 1 {
            return first.try_into().unwrap_or([0; 32]);
        }
        let mut level = padded_digest(&first).as_bytes().to_vec();
        level.extend_from_slice(&self.above);
        if !self.group.is_empty() {
            level.extend_from_slice(padded_digest(&self.group).as_bytes());
        }
        while level.len() > 32 {
            level = level.chunks(BLOCK).flat_map(|chunk| *padded_digest(chunk).as_bytes()).collect();
        }
        level.try_into().expect("a level is a whole number of digests and ends with one")
    }
}

/// The digest of one block of the tree, filled up with zeros.
fn padded_digest(bytes: &[u8]) -> Digest {
    let mut hash = Sha256::new();
    hash.update(bytes);
    hash.update(&[0; BLOCK][bytes.len()..]);
    hash.finish()
}

/// The digest of `struct fsverity_descriptor`, 256 bytes, which is what the kernel measures.
fn descriptor_digest(root: [u8; 32], len: u64) -> Digest {
    let mut descriptor = [0; 256];
    descriptor[0] = 1; // version
    descriptor[1] = FS_VERITY_HASH_ALG_SHA256 as u8;
    descriptor[2] = BLOCK.ilog2() as u8;
    descriptor[8..16].copy_from_slice(&len.to_le_bytes());
    descriptor[16..48].copy_from_slice(&root);
    sha256::digest(&descriptor)
}

/// The fs-verity digest of everything that `reader` gives, and its length in bytes.
///
/// # Errors
/// Whatever `reader` says.
pub fn digest(mut reader: impl Read) -> io::Result<(Digest, u64)> {
    let mut merkle = Merkle::new();
    let mut buffer = vec![0; 1 << 18];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => merkle.update(&buffer[..n]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    let len = merkle.len();
    Ok((merkle.finish(None), len))
}

/// What the kernel says about a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measured {
    /// fs-verity is on, and this is the digest that every read is checked against.
    Digest(Digest),
    /// The file system could check the file, but fs-verity is not enabled on it.
    NotEnabled,
    /// This file system or kernel has no fs-verity; nothing checks what is read.
    Unsupported,
    /// fs-verity is on with another hash algorithm than SHA-256.
    OtherAlgorithm,
}

/// Whether reads of a file are checked by the kernel from now on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Enabled {
    /// They are.
    Yes,
    /// This file system or kernel has no fs-verity.
    Unsupported,
}

/// Turns fs-verity on for `file`, which must be open for reading only and by nobody for writing. One that has it
/// already is left as it is: [`measure`] says with which digest.
///
/// # Errors
/// Whatever the kernel says, but for not supporting it, which is [`Enabled::Unsupported`].
pub fn enable(file: &File) -> io::Result<Enabled> {
    use nix::errno::Errno;
    match ioctl::enable(file.as_fd()) {
        Ok(()) | Err(Errno::EEXIST) => Ok(Enabled::Yes),
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(Enabled::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// Asks the kernel for the digest that reads of `file` are checked against.
///
/// # Errors
/// Whatever the kernel says, but for the answers of [`Measured`].
pub fn measure(file: &File) -> io::Result<Measured> {
    use nix::errno::Errno;
    match ioctl::measure(file.as_fd()) {
        Ok(Some(digest)) => Ok(Measured::Digest(digest)),
        Ok(None) | Err(Errno::EOVERFLOW) => Ok(Measured::OtherAlgorithm),
        Err(Errno::ENODATA) => Ok(Measured::NotEnabled),
        Err(Errno::EOPNOTSUPP | Errno::ENOTTY) => Ok(Measured::Unsupported),
        Err(errno) => Err(errno.into()),
    }
}

/// `FS_VERITY_HASH_ALG_SHA256` of `include/uapi/linux/fsverity.h`.
const FS_VERITY_HASH_ALG_SHA256: u32 = 1;

mod ioctl {
    #![expect(unsafe_code, reason = "two ioctls that no crate wraps; their structures are laid out here")]

    use std::os::fd::{AsRawFd, BorrowedFd};

    use bennu_manifests::model::Digest;
    use nix::errno::Errno;

    use super::{BLOCK, FS_VERITY_HASH_ALG_SHA256};

    /// `struct fsverity_enable_arg` of `include/uapi/linux/fsverity.h`.
    #[repr(C)]
    pub(super) struct EnableArg {
        version: u32,
        hash_algorithm: u32,
        block_size: u32,
        salt_size: u32,
        salt_ptr: u64,
        sig_size: u32,
        reserved1: u32,
        sig_ptr: u64,
        reserved2: [u64; 11],
    }

    /// `struct fsverity_digest` with room for the longest digest there is.
    #[repr(C)]
    pub(super) struct DigestArg {
        algorithm: u16,
        size: u16,
        digest: [u8; 64],
    }

    nix::ioctl_write_ptr!(enable_verity, b'f', 133, EnableArg);
    // The kernel's number counts only the four bytes before the digest, which is a flexible array there.
    nix::ioctl_readwrite_bad!(measure_verity, nix::request_code_readwrite!(b'f', 134, 4), DigestArg);

    pub(super) fn enable(file: BorrowedFd<'_>) -> Result<(), Errno> {
        let arg = EnableArg {
            version: 1,
            hash_algorithm: FS_VERITY_HASH_ALG_SHA256,
            block_size: BLOCK as u32,
            salt_size: 0,
            salt_ptr: 0,
            sig_size: 0,
            reserved1: 0,
            sig_ptr: 0,
            reserved2: [0; 11],
        };
        // SAFETY: `arg` has the layout that the kernel reads for this number and outlives the call.
        unsafe { enable_verity(file.as_raw_fd(), &arg) }.map(drop)
    }

    pub(super) fn measure(file: BorrowedFd<'_>) -> Result<Option<Digest>, Errno> {
        let mut arg = DigestArg { algorithm: 0, size: 64, digest: [0; 64] };
        // SAFETY: `arg` has the layout that the kernel writes for this number; `size` tells it how much room there is.
        unsafe { measure_verity(file.as_raw_fd(), &mut arg) }?;
        if u32::from(arg.algorithm) != FS_VERITY_HASH_ALG_SHA256 || arg.size != 32 {
            return Ok(None);
        }
        Ok(Some(Digest::from_bytes(arg.digest[..32].try_into().expect("32 bytes"))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(len: usize) -> Vec<u8> {
        (0..len).map(|i| (i * 31 + i / 4096) as u8).collect()
    }

    /// Digests of [`pattern`] as `fsverity digest` of fsverity-utils prints them.
    #[test]
    fn digests_equal_those_of_fsverity_utils() {
        for (len, hex) in GOLDEN {
            let (digest, counted) = digest(pattern(*len).as_slice()).expect("memory can be read");
            assert_eq!((digest.hex().as_str(), counted), (*hex, *len as u64), "{len} bytes");
        }
    }

    #[test]
    fn pieces_of_any_size_give_the_same_digest() {
        let data = pattern(1_000_000);
        let whole = digest(data.as_slice()).expect("read").0;
        for piece in [1, 7, 4095, 4096, 4097, 65_536] {
            let mut merkle = Merkle::new();
            data.chunks(piece).for_each(|chunk| merkle.update(chunk));
            assert_eq!(merkle.finish(None), whole, "pieces of {piece}");
        }
    }

    #[test]
    fn a_first_block_given_at_the_end_counts_as_if_it_had_come_first() {
        for len in [BLOCK, BLOCK * 5, BLOCK * 128, BLOCK * 129 + 9] {
            let data = pattern(len);
            let mut merkle = Merkle::new();
            merkle.update(&[0; BLOCK]);
            merkle.update(&data[BLOCK..]);
            let first = data[..BLOCK].try_into().expect("one block");
            assert_eq!(merkle.finish(Some(first)), digest(data.as_slice()).expect("read").0, "{len} bytes");
        }
    }

    const GOLDEN: &[(usize, &str)] = &[
        (0, "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95"),
        (1, "b803429503d95915829b29fdbc8bbad142f3abfd11b1cadf5526582e685c0551"),
        (4095, "89855f1145f7cf2179294511d82e027e9fa4c110a48badfa2b9df312a2b815a1"),
        (4096, "fd2da0056dd5efbed78468c371717b57e71c7189bf2698a96bdefc4b14c875f3"),
        (4097, "55948f6041d8f87d9bb200776300310673bc5afd841adcea72e7904fb34125ae"),
        (524288, "214dcedc40d3fe72765733ac123544f5fdd644ca1e1e692a942089d2ab50ace3"),
        (524289, "5fdcfe47a593c188131dd7281facf89d98d9633b36a06f1e2761b6ff5ca85701"),
        (1000000, "ec52227b6b71fc90db71dc98ec2e4cd9db6caa2487b49524b7b13e205c2c1731"),
        (67108864, "d1390d0832eb4c206c608fbfdf5e6da2342c9071fbedfc5a8309aa7634ea329b"),
        (67121153, "7f0fd882266993521efc207e0e3ce5d13ebf92a0bb31247a6363879d18474e92"),
    ];
}
