//! Signed measurements: a boot image for which the TPM would not open the state is not tried.
//!
//! What counts is the TPM's own answer at each boot. This looks whether the image carries measurements that are signed for the key that
//! the state is sealed to, because a person who forgot to have them signed should read so at once.

use std::fs;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::pe::Start;

/// The sections of a boot image with the public key and the signatures (UAPI group, Unified Kernel Image).
const PUBLIC_KEY: &str = ".pcrpkey";
const SIGNATURES: &str = ".pcrsig";
/// The most bytes of a section that are read.
const MAX: u64 = 1 << 20;

/// Whether a program carries measurements that are signed for the public key at `key`.
///
/// # Errors
/// Where either can't be read.
pub(super) fn is_signed_for(program: &mut (impl Read + Seek), key: &Path) -> io::Result<bool> {
    let key = fs::read(key)?;
    let signatures = section(program, SIGNATURES)?;
    Ok(signatures.is_some_and(|text| !text.trim_ascii().is_empty())
        && section(program, PUBLIC_KEY)?.is_some_and(|own| own.trim_ascii() == key.trim_ascii()))
}

/// What is in a section of a program, without what fills it up (Microsoft PE format, "Section Table"); `None` where there is none.
fn section(program: &mut (impl Read + Seek), name: &str) -> io::Result<Option<Vec<u8>>> {
    let Some((offset, size)) = Start::of(program)?.and_then(|start| place(&start, name)) else {
        return Ok(None);
    };
    let mut content = Vec::new();
    program.seek(SeekFrom::Start(offset))?;
    program.by_ref().take(size.min(MAX)).read_to_end(&mut content)?;
    while content.last() == Some(&0) {
        content.pop();
    }
    Ok(Some(content))
}

/// Where a section is in its file, and how many bytes of it count.
fn place(start: &Start, name: &str) -> Option<(u64, u64)> {
    let table = start.pe + 24 + start.short(start.pe + 20)?;
    let mut wanted = [0; 8];
    wanted.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
    let header = (0..start.short(start.pe + 6)?)
        .map(|number| table + 40 * number)
        .find(|&header| start.bytes().get(header..header + 8) == Some(&wanted))?;
    let (size, raw) = (start.number(header + 8)?, start.number(header + 16)?);
    Some((start.number(header + 20)? as u64, size.min(raw) as u64))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A program with these sections.
    fn program(sections: &[(&str, &[u8])]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 4096];
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        bytes[0x86..0x88].copy_from_slice(&(sections.len() as u16).to_le_bytes());
        bytes[0x94..0x96].copy_from_slice(&240_u16.to_le_bytes());
        for (number, (name, content)) in sections.iter().enumerate() {
            let header = 0x80 + 24 + 240 + 40 * number;
            bytes[header..header + name.len()].copy_from_slice(name.as_bytes());
            let offset = bytes.len() as u32;
            let padded = content.len().next_multiple_of(512);
            for (at, value) in [(8, content.len() as u32), (16, padded as u32), (20, offset)] {
                bytes[header + at..header + at + 4].copy_from_slice(&value.to_le_bytes());
            }
            bytes.extend(*content);
            bytes.resize(offset as usize + padded, 0);
        }
        Cursor::new(bytes)
    }

    #[test]
    fn only_what_is_signed_for_the_key_in_force_is_tried() {
        let dir = tempfile::tempdir().expect("a directory");
        let key = dir.path().join("key");
        fs::write(&key, "-----BEGIN PUBLIC KEY-----\nours\n").expect("written");
        let ours = fs::read(&key).expect("there");
        let signed =
            |sections: &[(&str, &[u8])]| is_signed_for(&mut program(sections), &key).expect("it can be read");
        assert!(signed(&[(".linux", b"kernel"), (".pcrpkey", &ours), (".pcrsig", b"{\"sha256\":[]}")]));
        assert!(!signed(&[(".pcrpkey", &ours)]), "the key alone");
        assert!(!signed(&[(".pcrpkey", &ours), (".pcrsig", b"\0\0")]), "an empty signature");
        assert!(!signed(&[(".pcrpkey", b"another"), (".pcrsig", b"{}")]));
        assert!(!signed(&[(".linux", b"kernel")]));
        let mut none = Cursor::new(b"no program".to_vec());
        assert!(!is_signed_for(&mut none, &key).expect("it can be read"));
    }

    #[test]
    fn what_cannot_be_read_has_no_sections_and_is_no_panic() {
        let whole = program(&[(".pcrsig", b"{}")]).into_inner();
        for length in 0..512 {
            Start::in_bytes(whole[..length].to_vec()).and_then(|start| place(&start, SIGNATURES));
        }
        for at in [0x3c, 0x86, 0x94] {
            let mut loud = whole.clone();
            loud[at..at + 2].copy_from_slice(&[0xff; 2]);
            Start::in_bytes(loud).and_then(|start| place(&start, SIGNATURES));
        }
        let whole = Start::in_bytes(whole).expect("a program");
        assert_eq!(place(&whole, ".a-name-too-long"), None);
    }
}
