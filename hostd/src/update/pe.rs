//! The beginning of a UEFI program (Microsoft PE format).

use std::io::{self, Read, Seek, SeekFrom};

/// The most bytes that hold all headers of a program of ours.
const HEADERS: u64 = 4096;

/// The beginning of a program.
pub(super) struct Start {
    bytes: Vec<u8>,
    /// Where its signature "PE" is.
    pub(super) pe: usize,
}

impl Start {
    /// Reads it; `None` where it is no program.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(super) fn of(program: &mut (impl Read + Seek)) -> io::Result<Option<Self>> {
        let mut bytes = Vec::new();
        program.seek(SeekFrom::Start(0))?;
        program.by_ref().take(HEADERS).read_to_end(&mut bytes)?;
        Ok(Self::in_bytes(bytes))
    }

    pub(super) fn in_bytes(bytes: Vec<u8>) -> Option<Self> {
        let pe = number(&bytes, 0x3c)?;
        let is_pe = bytes.get(pe..)?.starts_with(b"PE\0\0");
        is_pe.then_some(Self { bytes, pe })
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// A number of 4 bytes.
    pub(super) fn number(&self, at: usize) -> Option<usize> {
        number(&self.bytes, at)
    }

    /// A number of 2 bytes.
    pub(super) fn short(&self, at: usize) -> Option<usize> {
        let bytes = self.bytes.get(at..at.checked_add(2)?)?;
        Some(u16::from_le_bytes(bytes.try_into().ok()?).into())
    }
}

/// A number of 4 bytes, the lowest first.
pub(super) fn number(bytes: &[u8], at: usize) -> Option<usize> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_le_bytes(bytes.try_into().ok()?) as usize)
}
