//! Secure Boot: a boot image that the firmware would refuse is not written and not tried.
//!
//! What counts is the firmware's own check at each start. This one is made before the machine starts again, because a person who
//! forgot to sign an operating system should read so at once, and not after three starts that came to nothing. It looks whether the
//! image carries a signature by a certificate that the firmware trusts or that such a one has issued; whether the signature is
//! right the firmware finds out.

use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

use super::pe::{Start, number};

/// Where the kernel shows the firmware's variables (efivarfs: 4 bytes of attributes, then the value).
pub(crate) const VARIABLES: &str = "/sys/firmware/efi/efivars";
/// Whether Secure Boot is on: one byte (UEFI specification 2.10, table 3.1).
const ON: &str = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c";
/// Who is trusted (section 32.6.1).
const TRUSTED: &str = "db-d719b2cb-3d3a-4596-a3bc-dad00e67656f";
/// `EFI_CERT_X509_GUID`, as it is stored (section 32.4.1).
const X509: [u8; 16] =
    [0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72];
/// The most bytes of a variable, and of a signature, that are read.
const MAX: u64 = 1 << 20;

/// Whether Secure Boot is on, by what the kernel shows at `variables`. Where there is nothing it is off.
pub(crate) fn is_on(variables: &Path) -> bool {
    variable(variables, ON).is_some_and(|value| value.first() == Some(&1))
}

/// Whether the firmware can be expected to start a program: always where Secure Boot is off or where nobody can tell whom the
/// firmware trusts.
///
/// # Errors
/// Where the program can't be read.
pub(super) fn would_start(variables: &Path, program: &mut (impl Read + Seek)) -> io::Result<bool> {
    if !is_on(variables) {
        return Ok(true);
    }
    let Some(trusted) = variable(variables, TRUSTED) else { return Ok(true) };
    let signatures = signatures(program)?.unwrap_or_default();
    // The name of who is trusted stands in a signature as that of the signer, or of who issued the signer's certificate.
    Ok(certificates(&trusted).filter_map(subject).any(|name| contains(&signatures, name)))
}

fn variable(variables: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = Vec::new();
    std::fs::File::open(variables.join(name)).ok()?.take(MAX).read_to_end(&mut value).ok()?;
    value.get(4..).map(<[u8]>::to_vec)
}

/// The certificates in a value of the firmware's (`EFI_SIGNATURE_LIST`, section 32.4.1), as far as it can be read.
fn certificates(mut lists: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut found = Vec::new();
    while let Some((list, rest)) = number(lists, 16).and_then(|size| lists.split_at_checked(size)) {
        let (header, each) = (number(list, 20).unwrap_or(0), number(list, 24).unwrap_or(0));
        // Each begins with the 16 bytes of its owner.
        if list.starts_with(&X509) && each > 16 {
            let entries = list.get(28 + header.min(list.len())..).unwrap_or_default();
            found.extend(entries.chunks_exact(each).map(|entry| &entry[16..]));
        }
        if list.len() < 28 {
            break;
        }
        lists = rest;
    }
    found.into_iter()
}

/// The table of signatures of a program (Microsoft PE format, "Certificate Table"), `None` where it has none.
fn signatures(program: &mut (impl Read + Seek)) -> io::Result<Option<Vec<u8>>> {
    // From the signature "PE": 4 bytes of it, 20 of the file header, 112 of the optional one (PE32+), then 8 a table.
    let table = Start::of(program)?.and_then(|start| {
        let at = start.pe.checked_add(4 + 20 + 112 + 4 * 8)?;
        Some((start.number(at)?, start.number(at + 4)?))
    });
    let Some((offset, size)) = table.filter(|(offset, size)| *offset > 0 && *size > 0) else {
        return Ok(None);
    };
    let mut signatures = Vec::new();
    program.seek(SeekFrom::Start(offset as u64))?;
    program.by_ref().take((size as u64).min(MAX)).read_to_end(&mut signatures)?;
    Ok(Some(signatures))
}

/// The subject of a certificate as it is encoded (RFC 5280, section 4.1; DER, ITU-T X.690): `None` where it is no certificate.
fn subject(certificate: &[u8]) -> Option<&[u8]> {
    let (inner, _) = element(certificate)?;
    let (mut fields, _) = element(inner)?;
    // The version, which is left out in version 1, then serial number, algorithm, issuer, validity.
    let skipped = if fields.first() == Some(&0xa0) { 5 } else { 4 };
    for _ in 0..skipped {
        fields = element(fields)?.1;
    }
    let rest = element(fields)?.1;
    fields.get(..fields.len() - rest.len())
}

/// The content of the first element, and what is behind it.
fn element(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let length = *der.get(1)?;
    let (start, length) = match length {
        0..=0x7f => (2, usize::from(length)),
        // The length of the length, then the length; 0x80 is none in DER.
        0x81..=0x84 => {
            let bytes = der.get(2..2 + usize::from(length - 0x80))?;
            (2 + bytes.len(), bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte)))
        }
        _ => return None,
    };
    der.get(start..)?.split_at_checked(length)
}

fn contains(all: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && all.windows(part.len()).any(|window| window == part)
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use super::*;

    /// A self-signed certificate with this name.
    fn certificate(name: &str) -> Vec<u8> {
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        params.self_signed(&key).expect("signed").der().to_vec()
    }

    /// Variables of firmware that trusts certificates.
    fn firmware(on: u8, trusted: &[Vec<u8>]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::write(dir.path().join(ON), [6, 0, 0, 0, on]).expect("written");
        let mut value = vec![7, 0, 0, 0];
        for certificate in trusted {
            let (each, size) = (certificate.len() as u32 + 16, certificate.len() as u32 + 16 + 28);
            value.extend(X509);
            value.extend([size, 0, each].iter().flat_map(|number| number.to_le_bytes()));
            value.extend([9; 16]);
            value.extend(certificate);
        }
        std::fs::write(dir.path().join(TRUSTED), value).expect("written");
        dir
    }

    /// A program with this table of signatures.
    fn program(signatures: &[u8]) -> Cursor<Vec<u8>> {
        let mut bytes = vec![0; 1024];
        bytes[0x3c] = 0x80;
        bytes[0x80..0x84].copy_from_slice(b"PE\0\0");
        let at = 0x80 + 4 + 20 + 112 + 32;
        if !signatures.is_empty() {
            bytes[at..at + 4].copy_from_slice(&1024_u32.to_le_bytes());
            bytes[at + 4..at + 8].copy_from_slice(&(signatures.len() as u32).to_le_bytes());
        }
        bytes.extend(signatures);
        Cursor::new(bytes)
    }

    #[test]
    fn only_what_is_signed_by_whom_the_firmware_trusts_is_started_where_that_is_asked_for() {
        let (ours, other) = (certificate("ours"), certificate("another"));
        let by = |signer: &[u8]| program(&[b"before".as_slice(), signer, b"behind"].concat());
        let trusting = firmware(1, &[certificate("first"), ours.clone()]);
        let starts = |variables: &Path, mut program: Cursor<Vec<u8>>| {
            would_start(variables, &mut program).expect("it can be read")
        };
        assert!(is_on(trusting.path()));
        assert!(starts(trusting.path(), by(&ours)));
        assert!(!starts(trusting.path(), by(&other)));
        assert!(!starts(trusting.path(), program(b"")));
        assert!(!starts(trusting.path(), Cursor::new(b"no program".to_vec())));
        assert!(!starts(firmware(1, &[]).path(), by(&ours)), "nobody is trusted");

        let off = firmware(0, &[ours]);
        assert!(!is_on(off.path()));
        assert!(starts(off.path(), program(b"")));
        let none = tempfile::tempdir().expect("a directory");
        assert!(starts(none.path(), program(b"")), "a machine without such firmware");
    }

    #[test]
    fn what_cannot_be_read_is_nobody_who_is_trusted_and_no_panic() {
        let ours = certificate("ours");
        let whole = firmware(1, std::slice::from_ref(&ours));
        let value = std::fs::read(whole.path().join(TRUSTED)).expect("there");
        for length in 0..value.len() {
            let cut: Vec<&[u8]> = certificates(value.get(4..length).unwrap_or_default()).collect();
            assert!(cut.is_empty(), "{length} bytes");
        }
        for length in 0..ours.len() {
            subject(&ours[..length]);
        }
        assert_eq!(subject(&ours).map(contains_ours), Some(true));
        let mut loud = program(b"x");
        loud.get_mut()[0x3c..0x40].copy_from_slice(&[0xff; 4]);
        assert_eq!(signatures(&mut loud).expect("read"), None);
    }

    fn contains_ours(name: &[u8]) -> bool {
        contains(name, b"ours") && name.len() < 40
    }
}
