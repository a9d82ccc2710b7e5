//! The data types of SSH (RFC 4251, section 5), read strictly and written.

/// The bytes are not what the format says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Malformed;

/// A reader over bytes that are already in memory; lengths inside cannot make it allocate.
pub(crate) struct Reader<'a>(pub(crate) &'a [u8]);

impl<'a> Reader<'a> {
    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.0.split_at_checked(count).ok_or(Malformed)?;
        self.0 = rest;
        Ok(head)
    }

    /// A `uint32`, in network order.
    pub(crate) fn number(&mut self) -> Result<u32, Malformed> {
        let bytes = self.take(4)?.try_into().expect("four bytes were taken");
        Ok(u32::from_be_bytes(bytes))
    }

    /// A `string`: its length and that many bytes.
    pub(crate) fn string(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        self.take(usize::try_from(length).map_err(|_| Malformed)?)
    }

    /// A `string` of exactly `N` bytes.
    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        self.string()?.try_into().map_err(|_| Malformed)
    }

    /// An `mpint` that is positive, in its shortest form and at most `N` bytes, padded to `N` bytes.
    pub(crate) fn positive<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let bytes = self.string()?;
        let magnitude = match bytes {
            // A leading zero is there to keep the number positive, and only then.
            [0, second, ..] if second & 0x80 != 0 => &bytes[1..],
            [first, ..] if (1..0x80).contains(first) => bytes,
            _ => return Err(Malformed),
        };
        let mut padded = [0; N];
        let start = N.checked_sub(magnitude.len()).ok_or(Malformed)?;
        padded[start..].copy_from_slice(magnitude);
        Ok(padded)
    }

    /// The given `string` and nothing else.
    pub(crate) fn expect(&mut self, text: &[u8]) -> Result<(), Malformed> {
        if self.string()? == text { Ok(()) } else { Err(Malformed) }
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() { Ok(()) } else { Err(Malformed) }
    }
}

/// Appends a `string`.
pub(crate) fn put_string(into: &mut Vec<u8>, bytes: &[u8]) {
    let length = u32::try_from(bytes.len()).expect("what is written here was bounded far below 4 GiB");
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(bytes);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn string(bytes: &[u8]) -> Vec<u8> {
        let mut wire = Vec::new();
        put_string(&mut wire, bytes);
        wire
    }

    #[test]
    fn a_length_beyond_the_end_is_malformed() {
        assert_eq!(Reader(&[0, 0, 0, 2, b'a']).string(), Err(Malformed));
        assert_eq!(Reader(&[0xff; 8]).string(), Err(Malformed));
        assert_eq!(Reader(&[0, 0, 0]).number(), Err(Malformed));
        assert_eq!(Reader(&string(b"ab")).string(), Ok(&b"ab"[..]));
    }

    #[test]
    fn integers_are_positive_and_in_their_shortest_form() {
        let read = |bytes: &[u8]| Reader(&string(bytes)).positive::<2>();
        assert_eq!(read(&[1]), Ok([0, 1]));
        assert_eq!(read(&[0, 0x80]), Ok([0, 0x80]));
        assert_eq!(read(&[0, 0xff, 1]), Ok([0xff, 1]));
        for refused in [&[][..], &[0], &[0, 1], &[0x80], &[0, 0, 0x80], &[1, 2, 3]] {
            assert_eq!(read(refused), Err(Malformed), "{refused:?}");
        }
    }
}
