//! Spoiling a machine's disk while it is off.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;
use std::process::Command;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;

use crate::error::{Error, IoContext, run};

/// The size of a block of every file system here, in bytes; blocks are aligned to it on the disk.
pub const BLOCK: usize = 4096;

/// Flips one bit of a block, found by its content, in the overlay `disk` (qcow2). The block is given in base64, as a
/// guest prints it. Returns in how many places it was.
///
/// # Errors
/// Where `qemu-img` or `qemu-io` is missing or the block is not 4096 bytes that are not all the same.
pub fn flip_bit(disk: &Path, block: &str) -> Result<usize, Error> {
    let block = content(block)?;
    let places = find_all(disk, &[&block])?.remove(0);
    let mut flipped = block;
    flipped[BLOCK / 2] ^= 1;
    let spoilt = disk.with_file_name("spoilt");
    fs::write(&spoilt, &flipped).doing("write", &spoilt)?;
    for place in &places {
        let write = format!("write -q -s {} {place} {BLOCK}", spoilt.display());
        run(Command::new("qemu-io").args(["-f", "qcow2", "-c", &write]).arg(disk))?;
    }
    Ok(places.len())
}

/// In how many places of a disk that nobody uses each of these blocks is, given in base64.
///
/// # Errors
/// As [`flip_bit`].
pub fn count<const N: usize>(disk: &Path, blocks: [&str; N]) -> Result<[usize; N], Error> {
    let blocks = blocks.into_iter().map(content).collect::<Result<Vec<_>, _>>()?;
    let places = find_all(disk, &blocks.iter().map(Vec::as_slice).collect::<Vec<_>>())?;
    Ok(std::array::from_fn(|number| places[number].len()))
}

fn content(block: &str) -> Result<Vec<u8>, Error> {
    let wrong = |text: &str| Error::Answer { who: "the guest".into(), text: text.to_owned() };
    let block = BASE64_STANDARD.decode(block.trim()).map_err(|_| wrong("the block is not base64"))?;
    if block.len() != BLOCK || block.iter().all(|byte| *byte == block[0]) {
        return Err(wrong("the block has no content to find it by"));
    }
    Ok(block)
}

/// The places of each of these blocks in a disk, in bytes from its beginning.
fn find_all(disk: &Path, blocks: &[&[u8]]) -> Result<Vec<Vec<u64>>, Error> {
    let raw = disk.with_file_name("raw");
    run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(disk).arg(&raw))?;
    let places = find(&raw, blocks);
    fs::remove_file(&raw).doing("remove", &raw)?;
    places
}

/// The places of each of these blocks in a raw disk, in bytes from its beginning.
fn find(raw: &Path, blocks: &[&[u8]]) -> Result<Vec<Vec<u64>>, Error> {
    let mut file = File::open(raw).doing("open", raw)?;
    let mut buffer = vec![0; BLOCK << 10];
    let (mut places, mut start) = (vec![Vec::new(); blocks.len()], 0);
    loop {
        let mut filled = 0;
        while filled < buffer.len() {
            match file.read(&mut buffer[filled..]).doing("read", raw)? {
                0 => break,
                length => filled += length,
            }
        }
        if filled == 0 {
            return Ok(places);
        }
        for (number, chunk) in buffer[..filled].chunks_exact(BLOCK).enumerate() {
            for (places, block) in places.iter_mut().zip(blocks) {
                if chunk == *block {
                    places.push(start + (number * BLOCK) as u64);
                }
            }
        }
        start += filled as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_bit_of_the_block_is_flipped_and_nothing_else() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let (base, overlay) = (directory.path().join("base"), directory.path().join("overlay"));
        let raw = directory.path().join("base.raw");
        let block: Vec<u8> = (0..BLOCK).map(|i| (i % 251) as u8).collect();
        let content = [vec![1; BLOCK], block.clone(), vec![2; BLOCK], block.clone()].concat();
        fs::write(&raw, &content).expect("the directory is writable");
        run(Command::new("qemu-img").args(["convert", "-O", "qcow2"]).arg(&raw).arg(&base)).expect("a disk");
        crate::vm::overlay(&base, &overlay).expect("an overlay");

        assert_eq!(flip_bit(&overlay, &BASE64_STANDARD.encode(&block)).expect("it is found"), 2);
        run(Command::new("qemu-img").args(["convert", "-O", "raw"]).arg(&overlay).arg(&raw)).expect("a disk");
        let after = fs::read(&raw).expect("it was written");
        let bits: u32 = content.iter().zip(&after).map(|(a, b)| (a ^ b).count_ones()).sum();
        assert_eq!((after.len(), bits), (content.len(), 2));
        assert!(after.chunks_exact(BLOCK).skip(1).step_by(2).all(|chunk| chunk != block));
    }

    #[test]
    fn a_block_without_content_is_not_looked_for() {
        let zeros = BASE64_STANDARD.encode([0; BLOCK]);
        assert!(flip_bit(Path::new("/nowhere/disk"), &zeros).is_err());
    }
}
