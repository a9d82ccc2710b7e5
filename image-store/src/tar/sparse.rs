//! Files with holes: GNU tar's own header, and the three ways in which pax records say it.
//!
//! GNU tar manual, "Storing Sparse Files" (old GNU format; pax formats 0.0, 0.1 and 1.0). All of them end up as the same map: which
//! parts of the file are in the archive, one behind another; what lies between them is zeros.

use super::header::Header;
use super::pax::digits;
use super::{RECORD, Reason};

/// The most parts that one file may have. They are kept in memory for as long as the file is read: 16 bytes each.
pub(super) const MAX_PARTS: usize = 1 << 20;
/// Parts in a header of the old GNU format, and in each of the blocks that continue it.
const IN_HEADER: usize = 4;
const IN_EXTENSION: usize = 21;

/// The map of a file, and how far it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Map {
    /// Offset and length of what is in the archive, in order and apart from each other; the next part to be read is the last.
    parts: Vec<(u64, u64)>,
    /// Bytes of the whole file.
    size: u64,
    at: u64,
}

/// What a file continues with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Next {
    /// So many zeros.
    Hole(u64),
    /// So many bytes from the archive.
    Data(u64),
}

impl Map {
    /// Checks what an archive says of a file of `size` bytes, of which `stored` are in the archive. All of them have to be
    /// spoken for: some readers pass over what is left, and others do not.
    pub(super) fn new(mut parts: Vec<(u64, u64)>, size: u64, stored: u64) -> Result<Self, Reason> {
        let (mut end, mut sum) = (0_u64, 0_u64);
        for (offset, len) in &parts {
            if *offset < end {
                return Err(Reason::Sparse);
            }
            end = offset.checked_add(*len).filter(|end| *end <= size).ok_or(Reason::Sparse)?;
            sum += len;
        }
        if sum != stored {
            return Err(Reason::Sparse);
        }
        parts.retain(|(_, len)| *len > 0);
        parts.reverse();
        Ok(Self { parts, size, at: 0 })
    }

    /// Bytes of the whole file.
    pub(super) fn size(&self) -> u64 {
        self.size
    }

    /// What comes next; a hole of 0 bytes at the end.
    pub(super) fn next(&self) -> Next {
        match self.parts.last() {
            Some((offset, len)) if *offset <= self.at => Next::Data(offset + len - self.at),
            Some((offset, _)) => Next::Hole(offset - self.at),
            None => Next::Hole(self.size - self.at),
        }
    }

    /// Notes that so many bytes of what [`Self::next`] said were read.
    pub(super) fn advance(&mut self, count: u64) {
        self.at += count;
        if self.parts.last().is_some_and(|(offset, len)| offset + len <= self.at) {
            self.parts.pop();
        }
    }
}

/// What the old GNU format says, as far as it was read.
#[derive(Debug)]
pub(super) struct OldMap {
    parts: Vec<(u64, u64)>,
    /// Bytes of the whole file.
    pub(super) size: u64,
    /// Whether a further block continues it.
    pub(super) continued: bool,
}

impl OldMap {
    /// Reads the header of type `S`. star has such a type too, with another meaning, so the header has to be GNU's.
    pub(super) fn begin(header: &Header<'_>) -> Result<Self, Reason> {
        if !header.is_gnu() {
            return Err(Reason::Sparse);
        }
        let bytes = header.bytes();
        let mut map = Self {
            parts: Vec::new(),
            size: Header::number_in(&bytes[483..495], "realsize")?,
            continued: false,
        };
        map.read(&bytes[386..], IN_HEADER)?;
        map.continued = bytes[482] != 0;
        Ok(map)
    }

    /// Reads a block that continues the map.
    pub(super) fn extend(&mut self, block: &[u8; RECORD]) -> Result<(), Reason> {
        self.read(block, IN_EXTENSION)?;
        self.continued = block[504] != 0;
        Ok(())
    }

    fn read(&mut self, bytes: &[u8], count: usize) -> Result<(), Reason> {
        for part in bytes.chunks_exact(24).take(count).take_while(|part| part[0] != 0) {
            let number = |bytes| Header::number_in(bytes, "sparse map");
            push(&mut self.parts, (number(&part[..12])?, number(&part[12..])?))?;
        }
        Ok(())
    }

    pub(super) fn finish(self, stored: u64) -> Result<Map, Reason> {
        Map::new(self.parts, self.size, stored)
    }
}

/// What pax records say about a sparse file.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct PaxSparse {
    version: (Option<u64>, Option<u64>),
    pub(super) name: Option<Vec<u8>>,
    size: Option<u64>,
    count: Option<u64>,
    parts: Option<Vec<(u64, u64)>>,
    /// An offset whose length did not come yet (format 0.0).
    offset: Option<u64>,
}

/// How the map of a sparse file came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum PaxMap {
    /// In the records.
    Parts(Vec<(u64, u64)>),
    /// Before the data.
    InData,
}

impl PaxSparse {
    /// Takes a record `GNU.sparse.KEY`.
    pub(super) fn take(&mut self, key: &[u8], value: &[u8]) -> Result<(), Reason> {
        let number = || digits(value).ok_or(Reason::Sparse);
        match key {
            b"major" => self.version.0 = Some(number()?),
            b"minor" => self.version.1 = Some(number()?),
            b"name" => self.name = Some(value.to_vec()),
            // Format 1.0 calls it by its second name, the others by the first.
            b"size" | b"realsize" => {
                let size = number()?;
                if self.size.replace(size).is_some_and(|before| before != size) {
                    return Err(Reason::Sparse);
                }
            }
            b"numblocks" => self.count = Some(number()?),
            b"map" if self.parts.is_none() => {
                let numbers: Option<Vec<u64>> = if value.is_empty() {
                    Some(Vec::new())
                } else {
                    value.split(|b| *b == b',').map(digits).collect()
                };
                let (pairs, []) = numbers.as_deref().ok_or(Reason::Sparse)?.as_chunks::<2>() else {
                    return Err(Reason::Sparse);
                };
                self.parts = Some(pairs.iter().map(|[offset, len]| (*offset, *len)).collect());
            }
            b"offset" if self.offset.is_none() => self.offset = Some(number()?),
            b"numbytes" => {
                let offset = self.offset.take().ok_or(Reason::Sparse)?;
                push(self.parts.get_or_insert_default(), (offset, number()?))?;
            }
            _ => return Err(Reason::Sparse),
        }
        Ok(())
    }

    /// The size of the file, and where its map is. Records that are no complete description of one of the three formats are
    /// refused: some readers ignore them and take the map for content.
    pub(super) fn finish(self) -> Result<(u64, PaxMap), Reason> {
        let size = self.size.ok_or(Reason::Sparse)?;
        let map = match (self.version, self.parts) {
            ((Some(1), Some(0)), None) if self.count.is_none() => PaxMap::InData,
            ((Some(0), Some(0 | 1)) | (None, None), Some(parts))
                if self.count == Some(parts.len() as u64) && self.offset.is_none() =>
            {
                PaxMap::Parts(parts)
            }
            _ => return Err(Reason::Sparse),
        };
        Ok((size, map))
    }
}

/// The map before the data in format 1.0: decimal numbers, each ended by a newline, and zeros up to a whole block.
#[derive(Debug, Default)]
pub(super) struct TextMap {
    /// Digits of the number that is not complete yet.
    partial: Vec<u8>,
    /// How many parts are announced.
    count: Option<u64>,
    offset: Option<u64>,
    parts: Vec<(u64, u64)>,
}

impl TextMap {
    /// Reads one block; gives the parts with the last one.
    pub(super) fn take(&mut self, block: &[u8; RECORD]) -> Result<Option<Vec<(u64, u64)>>, Reason> {
        for byte in block {
            if *byte != b'\n' {
                // No number is longer; what follows the last one is never looked at.
                if self.partial.len() == 20 {
                    return Err(Reason::Sparse);
                }
                self.partial.push(*byte);
                continue;
            }
            let number = digits(&std::mem::take(&mut self.partial)).ok_or(Reason::Sparse)?;
            match (self.count, self.offset.take()) {
                (None, _) => self.count = Some(number),
                (Some(_), None) => self.offset = Some(number),
                (Some(_), Some(offset)) => push(&mut self.parts, (offset, number))?,
            }
            if self.count == Some(self.parts.len() as u64) {
                return Ok(Some(std::mem::take(&mut self.parts)));
            }
        }
        Ok(None)
    }
}

fn push(parts: &mut Vec<(u64, u64)>, part: (u64, u64)) -> Result<(), Reason> {
    if parts.len() == MAX_PARTS {
        return Err(Reason::TooMuch { what: "parts of a sparse file".into(), limit: MAX_PARTS as u64 });
    }
    parts.push(part);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_is_read_hole_by_hole() {
        let mut map = Map::new(vec![(0, 0), (2, 3), (5, 1), (8, 2), (12, 0)], 12, 6).expect("sound");
        let mut seen = Vec::new();
        while map.next() != Next::Hole(0) {
            let next = map.next();
            let (Next::Hole(count) | Next::Data(count)) = next;
            seen.push(next);
            map.advance(count);
        }
        let expected =
            [Next::Hole(2), Next::Data(3), Next::Data(1), Next::Hole(2), Next::Data(2), Next::Hole(2)];
        assert_eq!(seen, expected);
    }

    #[test]
    fn maps_that_overlap_or_leave_the_file_or_do_not_use_all_data_are_refused() {
        for (parts, size, stored) in [
            (vec![(0, 4), (3, 1)], 8, 5),
            (vec![(4, 1), (0, 1)], 8, 2),
            (vec![(0, 9)], 8, 9),
            (vec![(9, 0)], 8, 0),
            (vec![(u64::MAX, 2)], u64::MAX, 2),
            (vec![(0, 1)], 8, 2),
            (vec![(0, 2)], 8, 1),
        ] {
            assert_eq!(Map::new(parts.clone(), size, stored), Err(Reason::Sparse), "{parts:?}");
        }
    }

    #[test]
    fn records_of_each_format_are_complete_or_refused() {
        let read = |records: &[(&str, &str)]| {
            let mut sparse = PaxSparse::default();
            records.iter().try_for_each(|(key, value)| sparse.take(key.as_bytes(), value.as_bytes()))?;
            sparse.finish()
        };
        let parts = || PaxMap::Parts(vec![(1, 2), (3, 4)]);
        let first = [
            ("size", "9"),
            ("numblocks", "2"),
            ("offset", "1"),
            ("numbytes", "2"),
            ("offset", "3"),
            ("numbytes", "4"),
        ];
        assert_eq!(read(&first), Ok((9, parts())));
        assert_eq!(read(&[("size", "9"), ("numblocks", "2"), ("map", "1,2,3,4")]), Ok((9, parts())));
        assert_eq!(read(&[("size", "9"), ("numblocks", "0"), ("map", "")]), Ok((9, PaxMap::Parts(vec![]))));
        assert_eq!(read(&[("major", "1"), ("minor", "0"), ("realsize", "9")]), Ok((9, PaxMap::InData)));
        for records in [
            &[("size", "9")][..],
            &[("major", "1"), ("minor", "0")],
            &[("major", "2"), ("minor", "0"), ("realsize", "9")],
            &[("major", "1"), ("realsize", "9")],
            &[("major", "1"), ("minor", "0"), ("realsize", "9"), ("map", "0,1"), ("numblocks", "1")],
            &[("size", "9"), ("realsize", "8"), ("numblocks", "1"), ("map", "0,1")],
            &[("size", "9"), ("numblocks", "2"), ("map", "0,1")],
            &[("size", "9"), ("numblocks", "1"), ("map", "0")],
            &[("size", "9"), ("numblocks", "1"), ("map", "0,+1")],
            &[("size", "9"), ("numblocks", "1"), ("map", "0,1,")],
            &[("size", "9"), ("map", "0,1")],
            &[("size", "9"), ("numblocks", "1"), ("offset", "0"), ("offset", "1"), ("numbytes", "1")],
            &[("size", "9"), ("numblocks", "1"), ("numbytes", "1"), ("offset", "0")],
            &[("size", "9"), ("numblocks", "0"), ("offset", "0")],
            &[("future", "1")],
        ] {
            assert_eq!(read(records), Err(Reason::Sparse), "{records:?}");
        }
    }

    #[test]
    fn a_map_before_the_data_ends_with_its_last_number() {
        let block = |text: &[u8]| {
            let mut block = [0; RECORD];
            block[..text.len()].copy_from_slice(text);
            block
        };
        assert_eq!(TextMap::default().take(&block(b"2\n0\n5\n10\n5\n")), Ok(Some(vec![(0, 5), (10, 5)])));
        assert_eq!(TextMap::default().take(&block(b"0\n")), Ok(Some(vec![])));
        for text in [&b"x\n"[..], b"-1\n", b"\n", b"1\n 0\n5\n", b"000000000000000000000\n"] {
            assert_eq!(TextMap::default().take(&block(text)), Err(Reason::Sparse), "{}", text.escape_ascii());
        }
        let mut long = TextMap::default();
        let text = format!("200\n{}", "1\n2\n".repeat(127));
        let (first, second) = (block(text.as_bytes()), block("1\n2\n".repeat(73).as_bytes()));
        assert_eq!(long.take(&first), Ok(None));
        assert_eq!(long.take(&second).map(|parts| parts.map(|p| p.len())), Ok(Some(200)));
    }
}
