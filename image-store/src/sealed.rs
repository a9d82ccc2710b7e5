//! Records that notice when a bit of them changes.
//!
//! The second line of a record is `  "sum": "sha256:HEX",`, where HEX is the SHA-256 of all its other lines: what
//! `sed 2d FILE | sha256sum` prints. A disk that changed a pin would otherwise make a collection remove what it held.

use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::sha256::{self, Sha256};

/// What stands before the sum, beginning of the file included.
const BEFORE: &[u8] = b"{\n  \"sum\": \"";
/// What stands between the sum and the rest.
const AFTER: &[u8] = b"\",\n";
/// The first line.
const FIRST: &[u8] = b"{\n";
/// Bytes of `sha256:HEX`.
const SUM: usize = 71;

/// The bytes of a record; `value` becomes an object with at least one member.
pub(crate) fn encode(value: &impl Serialize) -> Vec<u8> {
    let mut plain = serde_json::to_vec_pretty(value).expect("records have string keys and no fallible parts");
    plain.push(b'\n');
    assert!(plain.starts_with(FIRST), "a record is an object that is not empty");
    let sum = sha256::digest(&plain).to_string();
    [BEFORE, sum.as_bytes(), AFTER, &plain[FIRST.len()..]].concat()
}

/// Whether a record is what was written.
///
/// # Errors
/// What is wrong with it, as it is told to people.
pub(crate) fn check(bytes: &[u8]) -> Result<(), &'static str> {
    let parts = bytes.strip_prefix(BEFORE).and_then(|rest| rest.split_at_checked(SUM));
    let parts = parts.and_then(|(sum, rest)| Some((sum, rest.strip_prefix(AFTER)?)));
    let (sum, rest) = parts.ok_or("its second line is not the sum of the others")?;
    let stated: Option<Digest> = std::str::from_utf8(sum).ok().and_then(|sum| sum.parse().ok());
    let mut hash = Sha256::new();
    hash.update(FIRST);
    hash.update(rest);
    if stated == Some(hash.finish()) { Ok(()) } else { Err("its sum does not fit, some of it has changed") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t20_every_flipped_bit_and_every_cut_of_a_record_is_noticed() {
        let sound = encode(&serde_json::json!({ "holds": ["sha256:00"], "size": 4096 }));
        assert_eq!(check(&sound), Ok(()));
        serde_json::from_slice::<serde_json::Value>(&sound).expect("a record is JSON");
        for bit in 0..sound.len() * 8 {
            let mut changed = sound.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(check(&changed).is_err(), "bit {bit}");
        }
        for len in 0..sound.len() {
            assert!(check(&sound[..len]).is_err(), "{len} bytes");
        }
    }
}
