//! The records of pax extended headers (POSIX.1-2017, pax, "pax Extended Header").

use std::collections::BTreeMap;

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::path::printable;
use super::sparse::PaxSparse;
use super::{RECORD, Reason};

/// The largest extended header, in bytes; attributes of an entry have to fit into it.
pub(super) const MAX_PAX: u64 = 1 << 20;
/// The longest name of an attribute without its prefix, in bytes (`XATTR_NAME_MAX` of Linux, and a byte in EROFS).
const MAX_XATTR_NAME: usize = 255;
/// The longest value of an attribute, in bytes: what the 16-bit field of EROFS holds.
const MAX_XATTR_VALUE: usize = 65_535;
/// Bytes of all attributes of one entry: EROFS counts them in a 16-bit number of words.
const MAX_XATTRS: usize = 192 << 10;

/// What the records say about the next entry.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Pax {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u64>,
    pub(super) gid: Option<u64>,
    pub(super) mtime: Option<(i64, u32)>,
    pub(super) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(super) sparse: Option<PaxSparse>,
}

/// An attribute as star writes it, and every reader of layers understands it: the value as it is.
const XATTR: &[u8] = b"SCHILY.xattr.";
/// An attribute as libarchive writes it beside that: the name in percent-encoding, the value in Base64 (libarchive, `tar.5`).
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";
/// libarchive leaves the padding out.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Reads the records of an extended header. Of a repeated key the last one counts; an empty value takes a key back.
pub(super) fn parse(bytes: &[u8]) -> Result<Pax, Reason> {
    let mut pax = Pax::default();
    let mut xattr_bytes = 0;
    let mut of_libarchive = BTreeMap::new();
    for record in Records(bytes) {
        let (key, value) = record?;
        if key == b"SCHILY.realsize" {
            // star's own sparse files.
            return Err(Reason::Sparse);
        }
        if let Some(key) = key.strip_prefix(SPARSE) {
            pax.sparse.get_or_insert_default().take(key, value)?;
            continue;
        }
        if let Some(name) = key.strip_prefix(LIBARCHIVE_XATTR) {
            let value = BASE64.decode(value).map_err(|_| Reason::Pax)?;
            of_libarchive.insert(percent_decode(name).ok_or(Reason::Pax)?, value);
            continue;
        }
        let given = !value.is_empty();
        match key {
            b"path" => pax.path = given.then(|| value.to_vec()),
            b"linkpath" => pax.link_path = given.then(|| value.to_vec()),
            b"size" => pax.size = number(value, "size")?,
            b"uid" => pax.uid = number(value, "uid")?,
            b"gid" => pax.gid = number(value, "gid")?,
            b"mtime" => {
                pax.mtime =
                    if given { Some(time(value).ok_or(Reason::Number("mtime".into()))?) } else { None }
            }
            _ => {
                if let Some(name) = key.strip_prefix(XATTR) {
                    check_xattr(name, value)?;
                    xattr_bytes += name.len() + value.len() + 8;
                    if xattr_bytes > MAX_XATTRS {
                        return Err(Reason::TooMuch {
                            what: "bytes of attributes".into(),
                            limit: MAX_XATTRS as u64,
                        });
                    }
                    pax.xattrs.insert(name.to_vec(), value.to_vec());
                }
                // Other keys (times of access, names of users, vendors' own) say nothing that an image keeps.
            }
        }
    }
    // Readers of layers know star's form only. Another value in libarchive's would be a second meaning.
    match of_libarchive.iter().find(|(name, value)| pax.xattrs.get(*name) != Some(value)) {
        Some((name, _)) => Err(Reason::Xattr { name: printable(name), fault: "has two meanings".into() }),
        None => Ok(pax),
    }
}

/// Refuses a global header that says more than a comment: readers disagree on how long it lasts.
pub(super) fn check_global(bytes: &[u8]) -> Result<(), Reason> {
    for record in Records(bytes) {
        let (key, _) = record?;
        let acted_on =
            matches!(key, b"path" | b"linkpath" | b"size" | b"uid" | b"gid" | b"mtime" | b"SCHILY.realsize");
        if acted_on || [XATTR, LIBARCHIVE_XATTR, SPARSE].iter().any(|prefix| key.starts_with(prefix)) {
            return Err(Reason::GlobalPax(printable(key)));
        }
    }
    Ok(())
}

fn check_xattr(name: &[u8], value: &[u8]) -> Result<(), Reason> {
    let fault = if name.is_empty() || name.contains(&0) {
        "has no proper name"
    } else if name.len() > MAX_XATTR_NAME {
        "has a name that is too long"
    } else if value.len() > MAX_XATTR_VALUE {
        "is too long"
    } else if name.starts_with(b"trusted.overlay.") {
        // overlayfs obeys these: an image could point into places of other layers that were never shown to anybody.
        "steers overlayfs, which an image must not"
    } else {
        return Ok(());
    };
    Err(Reason::Xattr { name: printable(name), fault: fault.into() })
}

/// `LENGTH KEY=VALUE\n`, where the length counts the whole record.
struct Records<'a>(&'a [u8]);

impl<'a> Iterator for Records<'a> {
    type Item = Result<(&'a [u8], &'a [u8]), Reason>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let record = self.record();
        if record.is_none() {
            self.0 = b"";
        }
        Some(record.ok_or(Reason::Pax))
    }
}

impl<'a> Records<'a> {
    fn record(&mut self) -> Option<(&'a [u8], &'a [u8])> {
        let space = self.0.iter().take(8).position(|b| *b == b' ')?;
        let len = usize::try_from(digits(&self.0[..space])?).ok()?;
        let (record, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        let record = record.get(space + 1..)?.strip_suffix(b"\n")?;
        let equals = record.iter().position(|b| *b == b'=')?;
        let (key, value) = (&record[..equals], &record[equals + 1..]);
        // A NUL in a key or in what becomes a path would end it early for readers written in C.
        let binary = key.starts_with(XATTR);
        (!key.is_empty() && !key.contains(&0) && (binary || !value.contains(&0))).then_some((key, value))
    }
}

/// `%41` back to `A`.
fn percent_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.iter();
    while let Some(byte) = rest.next() {
        out.push(match byte {
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                (digit()? << 4 | digit()?) as u8
            }
            byte => *byte,
        });
    }
    Some(out)
}

fn number(value: &[u8], name: &'static str) -> Result<Option<u64>, Reason> {
    if value.is_empty() { Ok(None) } else { digits(value).map(Some).ok_or(Reason::Number(name.into())) }
}

/// A decimal number without a sign.
pub(super) fn digits(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// Seconds with an optional sign and fraction; digits beyond nanoseconds are cut off, towards minus infinity.
fn time(text: &[u8]) -> Option<(i64, u32)> {
    let (negative, text) = match text.strip_prefix(b"-") {
        Some(rest) => (true, rest),
        None => (false, text),
    };
    let dot = text.iter().position(|b| *b == b'.').unwrap_or(text.len());
    let seconds = i64::try_from(digits(&text[..dot])?).ok()?;
    let fraction = text.get(dot + 1..).unwrap_or(b"");
    if !fraction.iter().all(u8::is_ascii_digit) || fraction.len() > RECORD {
        return None;
    }
    let nanos = (0..9).fold(0, |n, i| n * 10 + u32::from(fraction.get(i).map_or(0, |b| b - b'0')));
    match (negative, nanos) {
        (false, _) => Some((seconds, nanos)),
        (true, 0) => Some((-seconds, 0)),
        (true, _) => Some((-seconds - 1, 1_000_000_000 - nanos)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_are_read_and_the_last_of_a_key_counts() {
        let pax = parse(b"6 a=b\n12 path=old\n12 path=new\n16 size=1234567\n27 SCHILY.xattr.user.a=\0\n=x\n");
        assert_eq!(pax, Err(Reason::Pax), "a length that does not fit");
        let pax = parse(b"6 a=b\n12 path=old\n12 path=new\n16 size=1234567\n28 SCHILY.xattr.user.a=\0\n=x\n");
        let pax = pax.expect("well formed");
        assert_eq!(pax.path.as_deref(), Some(&b"new"[..]));
        assert_eq!(pax.size, Some(1_234_567));
        assert_eq!(pax.xattrs[&b"user.a"[..]], b"\0\n=x");
    }

    #[test]
    fn malformed_records_are_refused() {
        for bytes in [
            &b"5 a=b\n"[..],
            b"7 a=b\n",
            b"6 a-b\n",
            b"6 a=bc",
            b"x a=b\n",
            b"+6 a=b\n",
            b" 6 a=b\n",
            b"5 =b\n",
            b"999999999 a=b\n",
            b"11 path=a\0\n",
            b"14 size=0x1234\n",
            b"12 size=-12\n",
            b"\0\0\0\0\0\0",
        ] {
            assert!(parse(bytes).is_err(), "{} was taken", bytes.escape_ascii());
        }
    }

    #[test]
    fn times_keep_their_nanoseconds_and_sign() {
        assert_eq!(time(b"1700000000"), Some((1_700_000_000, 0)));
        assert_eq!(time(b"1.5"), Some((1, 500_000_000)));
        assert_eq!(time(b"1.0000000019"), Some((1, 1)));
        assert_eq!(time(b"-1.25"), Some((-2, 750_000_000)));
        assert_eq!(time(b"-1"), Some((-1, 0)));
        assert_eq!(time(b"1e3"), None);
        assert_eq!(time(b""), None);
        assert_eq!(time(b".5"), None);
    }

    #[test]
    fn attributes_that_steer_overlayfs_are_refused() {
        let record = b"42 SCHILY.xattr.trusted.overlay.opaque=y\n";
        let record = [format!("{} ", record.len()).as_bytes(), &record[3..]].concat();
        assert!(matches!(parse(&record), Err(Reason::Xattr { .. })), "{:?}", parse(&record));
    }

    #[test]
    fn attributes_in_the_form_of_libarchive_have_to_say_the_same() {
        let record = |key: &str, value: &str| {
            let len = key.len() + value.len() + 5;
            format!("{len} {key}={value}\n")
        };
        let star = record("SCHILY.xattr.user.b", "value");
        let same = star.clone() + &record("LIBARCHIVE.xattr.user.%62", "dmFsdWU");
        assert_eq!(parse(same.as_bytes()).expect("the same").xattrs[&b"user.b"[..]], b"value");
        let padded = record("LIBARCHIVE.xattr.user.b", "dmFsdWU=") + &star;
        parse(padded.as_bytes()).expect("the same");
        let other = star + &record("LIBARCHIVE.xattr.user.b", "b3RoZXI");
        assert!(matches!(parse(other.as_bytes()), Err(Reason::Xattr { .. })));
        let alone = record("LIBARCHIVE.xattr.user.b", "dmFsdWU");
        assert!(matches!(parse(alone.as_bytes()), Err(Reason::Xattr { .. })));
        let no_base64 = record("LIBARCHIVE.xattr.user.b", "dmFsd!!");
        assert_eq!(parse(no_base64.as_bytes()), Err(Reason::Pax));
    }

    #[test]
    fn a_global_header_may_hold_a_comment_only() {
        check_global(b"13 comment=x\n").expect("a comment");
        assert!(matches!(check_global(b"12 path=abc\n"), Err(Reason::GlobalPax(_))));
    }
}
