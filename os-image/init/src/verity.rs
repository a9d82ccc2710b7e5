//! Opens the blob of the root, and makes the kernel say what its digest is.
#![expect(unsafe_code, reason = "fs-verity is reached by two ioctls that no crate wraps")]

use crate::command_line::RootDigest;
use crate::{Failure, because};
use nix::errno::Errno;
use std::fs::File;
use std::os::fd::AsRawFd;
use std::path::Path;

/// Where the store keeps blobs, below the mounted state partition.
const BLOBS: &str = "/state/store/blobs/sha256";

/// `struct fsverity_enable_arg` of Linux' `include/uapi/linux/fsverity.h`.
#[repr(C)]
#[derive(Default)]
struct EnableArg {
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

/// `struct fsverity_digest` of the same file, with room for one SHA-256.
#[repr(C)]
struct MeasureArg {
    digest_algorithm: u16,
    digest_size: u16,
    digest: [u8; 32],
}

/// `FS_VERITY_HASH_ALG_SHA256` of the same file.
const SHA256: u32 = 1;
/// Bytes in a block of the Merkle tree.
const BLOCK_SIZE: u32 = 4096;

nix::ioctl_write_ptr!(enable_verity, b'f', 133, EnableArg);

/// `FS_IOC_MEASURE_VERITY`, `_IOWR('f', 134, struct fsverity_digest)`: its size is that of the head alone, since
/// the digest is a flexible array, so the generic macro cannot make it from [`MeasureArg`].
const MEASURE_VERITY: nix::sys::ioctl::ioctl_num_type = nix::request_code_readwrite!(b'f', 134, 4);

/// Opens the blob of this digest and lets the kernel confirm it.
///
/// A blob that was written while the disk was made offline has no fs-verity yet: it is enabled here, once, and the
/// digest that comes out is then compared like any other. From then on the kernel checks each block it reads.
pub(crate) fn open_checked(wanted: &RootDigest) -> Result<File, Failure> {
    let path = Path::new(BLOBS).join(wanted.to_string());
    let file = File::open(&path).map_err(|error| because(format!("open {}", path.display()), error))?;
    let measured = match measure(&file) {
        Err(Errno::ENODATA) => {
            enable(&file).map_err(|error| because("enable fs-verity on the root", error))?;
            measure(&file)
        }
        measured => measured,
    }
    .map_err(|error| because("measure the root", error))?;
    match measured {
        Some(digest) if digest == *wanted => Ok(file),
        Some(digest) => Err(format!("refused: the root is sha256:{digest}, not sha256:{wanted}").into()),
        None => Err("refused: the root is not measured with SHA-256".into()),
    }
}

fn enable(file: &File) -> nix::Result<()> {
    let arg =
        EnableArg { version: 1, hash_algorithm: SHA256, block_size: BLOCK_SIZE, ..EnableArg::default() };
    // SAFETY: the argument is the kernel's structure, lives through the call and is only read.
    unsafe { enable_verity(file.as_raw_fd(), &raw const arg) }.map(drop)
}

/// The digest, or `None` where it is of another algorithm.
fn measure(file: &File) -> nix::Result<Option<RootDigest>> {
    let mut arg = MeasureArg { digest_algorithm: 0, digest_size: 32, digest: [0; 32] };
    // SAFETY: the argument begins with the kernel's head, whose `digest_size` says how many bytes behind it the
    // kernel may write; it lives through the call.
    Errno::result(unsafe { nix::libc::ioctl(file.as_raw_fd(), MEASURE_VERITY, &raw mut arg) })?;
    let known = u32::from(arg.digest_algorithm) == SHA256 && arg.digest_size == 32;
    Ok(known.then_some(RootDigest(arg.digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_sizes_that_the_kernel_knows() {
        assert_eq!(size_of::<EnableArg>(), 128);
        assert_eq!(size_of::<MeasureArg>(), 36);
        // As the kernel's headers compute it on x86-64.
        assert_eq!(MEASURE_VERITY, 0xc004_6686);
    }
}
