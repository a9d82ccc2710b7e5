//! The records of an image, cut into units: pieces that are found again wherever they are, because what is in them says where they end.

use std::fs::File;

use bennu_manifests::model::Digest;

use crate::erofs::{Image, ReadError, records};
use crate::sha256;

/// Bytes that a unit has on average.
const AVERAGE: u64 = 2 << 10;
/// Bytes with which a unit ends, whatever is in it. One record may be longer.
const MOST: usize = 4 * AVERAGE as usize;

/// Gives the units of the image in `blob` to `emit`, each with its leaf.
///
/// # Errors
/// As [`records::read`].
pub(crate) fn units(
    blob: File,
    mut emit: impl FnMut(&[u8], Digest) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let mut unit = Vec::with_capacity(MOST);
    records::read(&Image::open(blob)?, |record| {
        unit.extend_from_slice(record);
        if ends_unit(record) || unit.len() >= MOST {
            emit(&unit, sha256::digest(&unit))?;
            unit.clear();
        }
        Ok(())
    })?;
    if unit.is_empty() { Ok(()) } else { emit(&unit, sha256::digest(&unit)) }
}

/// Whether a unit ends with this record: the likelier the longer it is.
fn ends_unit(record: &[u8]) -> bool {
    // FNV-1a: whoever publishes an image and chooses its names against it gets units of another size, and nothing else.
    let hash = record.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) < record.len() as u64 * ((1 << 32) / AVERAGE)
}
