//! The 512-byte header (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar manual, "Basic Tar Format").

use super::{RECORD, Reason};

/// A header whose checksum fits.
#[derive(Debug)]
pub(super) struct Header<'a>(&'a [u8; RECORD]);

impl<'a> Header<'a> {
    pub(super) fn parse(bytes: &'a [u8; RECORD]) -> Result<Self, Reason> {
        let header = Self(bytes);
        let stated = header.number(148..156, "chksum")?;
        let blank = |i: usize, b: u8| if (148..156).contains(&i) { b' ' } else { b };
        let unsigned: u64 = bytes.iter().enumerate().map(|(i, b)| u64::from(blank(i, *b))).sum();
        // Some old writers summed signed bytes; for plain ASCII headers both are the same.
        let signed: i64 = bytes.iter().enumerate().map(|(i, b)| i64::from(blank(i, *b) as i8)).sum();
        if stated == unsigned || i64::try_from(stated) == Ok(signed) {
            Ok(header)
        } else {
            Err(Reason::Checksum)
        }
    }

    pub(super) fn type_flag(&self) -> u8 {
        self.0[156]
    }

    pub(super) fn bytes(&self) -> &'a [u8; RECORD] {
        self.0
    }

    /// Whether this is GNU tar's own format (`OLDGNU_MAGIC`).
    pub(super) fn is_gnu(&self) -> bool {
        &self.0[257..265] == b"ustar  \0"
    }

    /// The name, with the ustar prefix before it where this header has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.0[0..100]);
        let prefix = match &self.0[257..263] {
            // star keeps its own times in the last 24 bytes.
            b"ustar\0" if &self.0[508..512] == b"tar\0" => text(&self.0[345..476]),
            b"ustar\0" => text(&self.0[345..500]),
            // In GNU's own format these bytes hold times. Go before 1.8 wrote a prefix there by mistake, Docker was written in
            // it, and every reader of layers that is written in Go still makes up for it.
            _ if self.is_gnu() && !self.has_gnu_times() => {
                Some(text(&self.0[345..500])).filter(|prefix| prefix.is_ascii()).unwrap_or_default()
            }
            _ => b"",
        };
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    pub(super) fn link_name(&self) -> &'a [u8] {
        text(&self.0[157..257])
    }

    pub(super) fn mode(&self) -> Result<u16, Reason> {
        // Old writers put the file type above the permission bits; the type flag is what counts.
        Ok((self.number(100..108, "mode")? & 0o7777) as u16)
    }

    pub(super) fn uid(&self) -> Result<u64, Reason> {
        self.number(108..116, "uid")
    }

    pub(super) fn gid(&self) -> Result<u64, Reason> {
        self.number(116..124, "gid")
    }

    pub(super) fn size(&self) -> Result<u64, Reason> {
        self.number(124..136, "size")
    }

    pub(super) fn mtime(&self) -> Result<i64, Reason> {
        self.signed_number(136..148, "mtime")
    }

    pub(super) fn device(&self) -> Result<(u32, u32), Reason> {
        let major = self.number(329..337, "devmajor")?;
        let minor = self.number(337..345, "devminor")?;
        // What fits into the kernel's `dev_t` (`include/linux/kdev_t.h`: 12 and 20 bits).
        if major >= 1 << 12 {
            return Err(Reason::Number("devmajor".into()));
        }
        if minor >= 1 << 20 {
            return Err(Reason::Number("devminor".into()));
        }
        Ok((major as u32, minor as u32))
    }

    /// Whether the fields for the times of access and change hold numbers, or nothing.
    fn has_gnu_times(&self) -> bool {
        [345..357, 357..369].into_iter().all(|field| number(&self.0[field]).is_some())
    }

    /// The number in a field of this form, at least 0.
    pub(super) fn number_in(field: &[u8], name: &'static str) -> Result<u64, Reason> {
        number(field).and_then(|number| u64::try_from(number).ok()).ok_or(Reason::Number(name.into()))
    }

    fn number(&self, range: std::ops::Range<usize>, name: &'static str) -> Result<u64, Reason> {
        Self::number_in(&self.0[range], name)
    }

    fn signed_number(&self, range: std::ops::Range<usize>, name: &'static str) -> Result<i64, Reason> {
        number(&self.0[range]).ok_or(Reason::Number(name.into()))
    }
}

fn number(field: &[u8]) -> Option<i64> {
    if field[0] & 0x80 != 0 { base256(field) } else { octal(field) }
}

/// Bytes up to the first NUL.
fn text(field: &[u8]) -> &[u8] {
    field.split(|b| *b == 0).next().unwrap_or(field)
}

/// Octal digits with spaces before and a space or NUL behind; a blank field is zero.
fn octal(field: &[u8]) -> Option<i64> {
    let field = field.trim_ascii_start();
    let digits = field.iter().take_while(|b| (b'0'..=b'7').contains(b)).count();
    if field[digits..].iter().any(|b| *b != 0 && *b != b' ') {
        return None;
    }
    // 12 octal digits are 36 bits, so this cannot overflow.
    Some(field[..digits].iter().fold(0, |n, b| n << 3 | i64::from(b - b'0')))
}

/// Two's complement, big endian, below the marker bit (GNU tar manual, "Extensions to the tar format").
fn base256(field: &[u8]) -> Option<i64> {
    let negative = field[0] & 0x40 != 0;
    let mut number: i128 = if negative { -1 } else { 0 };
    for (i, byte) in field.iter().enumerate() {
        let byte = if i == 0 && !negative { byte & 0x7f } else { *byte };
        number = number << 8 | i128::from(byte);
    }
    i64::try_from(number).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_fields_are_octal_or_base_256_and_nothing_else() {
        assert_eq!(octal(b"0000644\0"), Some(0o644));
        assert_eq!(octal(b"   644 \0"), Some(0o644));
        assert_eq!(octal(b"\0\0\0\0\0\0\0\0"), Some(0));
        assert_eq!(octal(b"777777777777"), Some(0o777_777_777_777));
        assert_eq!(octal(b"00006a4\0"), None);
        assert_eq!(octal(b"0x00644\0"), None);
        assert_eq!(octal(b"-000644\0"), None);
        assert_eq!(octal(b"644\x007\0\0\0"), None);
        assert_eq!(base256(&[0x80, 0, 0, 0, 0, 0, 1, 0]), Some(256));
        assert_eq!(base256(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe]), Some(-2));
        assert_eq!(base256(&[0x80, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), None);
    }
}
