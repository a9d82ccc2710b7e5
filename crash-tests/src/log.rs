//! Reads what was written to a device, in order.
//!
//! The format is that of the kernel's `Documentation/admin-guide/device-mapper/log-writes.rst` ("Log Ordering", "struct
//! log_write_super", "struct log_write_entry"), which QEMU's `blklogwrites` writes too. All numbers are little-endian:
//!
//! ```text
//! sector 0          magic u64 · version u64 · entries u64 · bytes in a sector u32
//! then each entry   first sector u64 · sectors u64 · flags u64 · length of a mark u64, filled up to a sector
//!                   the sectors that were written, where it is a write
//! ```

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const VERSION: u64 = 1;
const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;

/// The most entries that are read: a scenario has some hundreds, the update of a host some ten thousand.
const MAX_ENTRIES: u64 = 1 << 20;
/// The most bytes that one entry may have written; the kernel's largest request is far smaller.
const MAX_WRITE: u64 = 64 << 20;

/// The smallest piece of a device that is written at a time, in bytes: the unit of the log and of torn writes.
pub const SECTOR: u64 = 512;

/// What was asked of the device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Entry {
    /// Bytes at a place, in bytes from the beginning.
    Write {
        /// Where.
        at: u64,
        /// What.
        bytes: Piece,
        /// Whether it was durable before it was confirmed.
        durable: bool,
    },
    /// These bytes are not needed any more.
    Discard {
        /// Where.
        at: u64,
        /// How many.
        len: u64,
    },
    /// All that came before is durable.
    Flush,
}

/// Bytes that were written, by their place in the log: a log may be larger than memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    /// Where in the file of the log they begin, in bytes.
    pub from: u64,
    /// How many; a whole number of sectors, at most 64 MiB.
    pub len: usize,
}

impl Piece {
    /// Reads them from the file of the log.
    ///
    /// # Errors
    /// Whatever reading says.
    pub fn read(&self, log: &File) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; self.len];
        log.read_exact_at(&mut bytes, self.from)?;
        Ok(bytes)
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The file cannot be read, or ends in the middle of an entry.
    #[error("could not read the log at byte {at}")]
    Read {
        /// Where.
        at: u64,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// It is no log, or of another version.
    #[error("it is no log of writes of version {VERSION} with sectors of {SECTOR} bytes")]
    NotALog,
    /// An entry says what none can.
    #[error("entry {index} is out of bounds: {fault}")]
    Entry {
        /// Its number, from 0.
        index: u64,
        /// What is wrong with it.
        fault: &'static str,
    },
}

/// Reads the log in `file` of a device of `size` bytes: what was asked for, and the file, in which what was written is read.
///
/// # Errors
/// [`LogError`]
pub fn read(file: &Path, size: u64) -> Result<(Vec<Entry>, File), LogError> {
    let file = File::open(file).map_err(|source| LogError::Read { at: 0, source })?;
    let entries = read_from(size, |buffer, at| {
        file.read_exact_at(buffer, at).map_err(|source| LogError::Read { at, source })
    })?;
    Ok((entries, file))
}

fn read_from(
    size: u64,
    read: impl Fn(&mut [u8], u64) -> Result<(), LogError>,
) -> Result<Vec<Entry>, LogError> {
    let mut head = [0; 28];
    read(&mut head, 0)?;
    let sector = u64::from(u32::from_le_bytes(head[24..28].try_into().expect("four bytes")));
    if (number(&head, 0), number(&head, 8), sector) != (MAGIC, VERSION, SECTOR) {
        return Err(LogError::NotALog);
    }
    let count = number(&head, 16);
    if count > MAX_ENTRIES {
        return Err(LogError::Entry { index: MAX_ENTRIES, fault: "there are too many" });
    }
    let mut entries = Vec::new();
    let mut at = SECTOR;
    for index in 0..count {
        let fault = |fault| LogError::Entry { index, fault };
        let mut head = [0; 32];
        read(&mut head, at)?;
        at += SECTOR;
        let flags = number(&head, 16);
        if flags & !(FLUSH | FUA | DISCARD | MARK) != 0 {
            return Err(fault("its flags are unknown"));
        }
        let bytes = |sectors: u64| sectors.checked_mul(SECTOR).ok_or_else(|| fault("it wraps around"));
        let (start, len) = (bytes(number(&head, 0))?, bytes(number(&head, 8))?);
        if flags & MARK != 0 {
            // Nobody makes them here; the mark itself lies in the sector of the entry.
            continue;
        }
        // A flush before the bytes of the same entry, as REQ_PREFLUSH has it.
        if flags & FLUSH != 0 {
            entries.push(Entry::Flush);
        }
        if len == 0 {
            // Whoever writes the log counts an entry before it is written; one that could not be leaves only its place.
            if flags == 0 {
                return Err(fault("it was never written to the log, and what follows can't be trusted"));
            }
            continue;
        }
        if start.checked_add(len).is_none_or(|end| end > size) {
            return Err(fault("it ends behind the device"));
        }
        if flags & DISCARD != 0 {
            entries.push(Entry::Discard { at: start, len });
            continue;
        }
        if len > MAX_WRITE {
            return Err(fault("too much was written"));
        }
        // Its last sector is there, so all of it is.
        read(&mut [0; SECTOR as usize], at + len - SECTOR)?;
        let bytes = Piece { from: at, len: usize::try_from(len).expect("at most 64 MiB") };
        at += len;
        entries.push(Entry::Write { at: start, bytes, durable: flags & FUA != 0 });
    }
    Ok(entries)
}

fn number(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with these entries: first sector, sectors, flags; a write brings bytes of its own number.
    fn log(entries: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut log = Vec::new();
        let fields = [MAGIC, VERSION, entries.len() as u64, SECTOR];
        fields.iter().for_each(|field| log.extend_from_slice(&field.to_le_bytes()));
        log.resize(512, 0);
        for (i, (start, sectors, flags)) in entries.iter().enumerate() {
            for field in [*start, *sectors, *flags, 0] {
                log.extend_from_slice(&field.to_le_bytes());
            }
            log.resize(log.len().next_multiple_of(512), 0);
            if flags & (DISCARD | MARK) == 0 && *sectors < 1000 {
                log.resize(log.len() + *sectors as usize * 512, i as u8);
            }
        }
        log
    }

    fn parse(log: &[u8], size: u64) -> Result<Vec<Entry>, LogError> {
        read_from(size, |buffer, at| {
            let from = usize::try_from(at).ok().and_then(|at| log.get(at..at + buffer.len()));
            let source = || io::ErrorKind::UnexpectedEof.into();
            buffer.copy_from_slice(from.ok_or_else(|| LogError::Read { at, source: source() })?);
            Ok(())
        })
    }

    #[test]
    fn writes_flushes_and_discards_come_in_order() {
        let log = log(&[(8, 2, 0), (0, 0, FLUSH), (0, 0, MARK), (4, 1, FLUSH | FUA), (0, 8, DISCARD)]);
        let entries = parse(&log, 8192).expect("a log");
        let write = |at, from, len, durable| Entry::Write { at, bytes: Piece { from, len }, durable };
        assert_eq!(
            entries,
            [
                write(4096, 1024, 1024, false),
                Entry::Flush,
                Entry::Flush,
                write(2048, 3584, 512, true),
                Entry::Discard { at: 0, len: 4096 }
            ]
        );
        let Entry::Write { bytes, .. } = entries[3] else { panic!("a write") };
        let mut file = tempfile::tempfile().expect("a file");
        io::Write::write_all(&mut file, &log).expect("written");
        assert_eq!(bytes.read(&file).expect("it is there"), [3; 512]);
    }

    #[test]
    fn a_log_that_is_none_or_ends_early_is_refused() {
        let sound = log(&[(8, 2, 0)]);
        assert!(parse(&sound, 8192).is_ok());
        for cut in [0, 27, 512, 540, sound.len() - 1] {
            assert!(matches!(parse(&sound[..cut], 8192), Err(LogError::Read { .. })), "{cut}");
        }
        for at in [0, 8, 24] {
            let mut other = sound.clone();
            other[at] ^= 2;
            assert!(matches!(parse(&other, 8192), Err(LogError::NotALog)), "{at}");
        }
    }

    #[test]
    fn entries_out_of_bounds_are_refused() {
        for entry in [(15, 2, 0), (u64::MAX, 1, 0), (1, u64::MAX / 512, DISCARD), (0, 1, 16)] {
            assert!(matches!(parse(&log(&[entry]), 8192), Err(LogError::Entry { .. })), "{entry:?}");
        }
        let gap = [(8, 2, 0), (0, 0, 0), (0, 0, FLUSH)];
        assert!(matches!(parse(&log(&gap), 8192), Err(LogError::Entry { index: 1, .. })));
        // A device so large that the bounds of the log itself are what holds.
        let large = (0, (MAX_WRITE / 512) + 1, 0);
        assert!(matches!(parse(&log(&[large]), u64::MAX), Err(LogError::Entry { .. })));
        let mut many = log(&[]);
        many[16..24].copy_from_slice(&(MAX_ENTRIES + 1).to_le_bytes());
        assert!(matches!(parse(&many, 8192), Err(LogError::Entry { .. })));
    }
}
