//! Whether what is to be written has room, decided from what is known before and looked at while it is written.
//!
//! A pull that filled the disk would take from a host what it needs to get out of there: records, pins, logs, a collection. So a
//! reserve is left alone.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::store::Store;
use crate::store_error::StoreError;

/// Bytes that one writer writes between two looks.
const BETWEEN_LOOKS: u64 = 16 << 20;
/// The reserve of a file system that is neither small nor large, in bytes.
const RESERVE: u64 = 64 << 20;

/// What a file system has, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// All of it.
    pub total: u64,
    /// What may still be written.
    pub available: u64,
}

/// Why something does not fit. All numbers are bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Shortage {
    /// What it takes at least.
    pub needed: u64,
    /// What the file system has.
    pub available: u64,
    /// What is left alone.
    pub reserve: u64,
    /// What a collection would free now.
    pub collectable: u64,
}

impl Room {
    /// What is left alone: 64 MiB, of a small file system (below 1.25 GiB) its twentieth part, of a large one (beyond 6.25 GiB)
    /// its hundredth.
    pub fn reserve(&self) -> u64 {
        RESERVE.min(self.total / 20).max(self.total / 100)
    }

    /// Why so many bytes do not fit; `None` where they do. What a collection would free is not known here and 0.
    pub fn shortage(&self, needed: u64) -> Option<Shortage> {
        let (available, reserve) = (self.available, self.reserve());
        // A file system that does not count says 0.
        let fits = self.total == 0 || needed.saturating_add(reserve) <= available;
        (!fits).then_some(Shortage { needed, available, reserve, collectable: 0 })
    }

    /// What the file system of `path` has.
    ///
    /// # Errors
    /// Whatever `statvfs` says.
    pub fn at(path: &Path) -> io::Result<Self> {
        Ok(rustix::fs::statvfs(path)?.into())
    }
}

impl From<rustix::fs::StatVfs> for Room {
    fn from(seen: rustix::fs::StatVfs) -> Self {
        let bytes = |blocks: u64| blocks.saturating_mul(seen.f_frsize);
        Self { total: bytes(seen.f_blocks), available: bytes(seen.f_bavail) }
    }
}

impl Store {
    /// Why blobs of so many bytes do not fit into the store; `None` where they do.
    ///
    /// # Errors
    /// [`StoreError`] where the file system cannot be looked at.
    pub fn shortage(&self, needed: u64) -> Result<Option<Shortage>, StoreError> {
        let look = || File::open(self.root()).and_then(|directory| short(&directory, needed));
        let Some(shortage) = look().map_err(StoreError::io("look at", self.root()))? else {
            return Ok(None);
        };
        // A store that cannot be collected frees nothing.
        let collectable = self.gc_plan().map_or(0, |plan| plan.bytes);
        Ok(Some(Shortage { collectable, ..shortage }))
    }
}

impl Shortage {
    /// How many bytes are missing.
    pub fn missing(&self) -> u64 {
        self.needed.saturating_add(self.reserve).saturating_sub(self.available)
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mebibytes = |bytes: u64| bytes.div_ceil(1 << 20);
        write!(
            f,
            "{} MiB are missing: it takes at least {} MiB, {} MiB are free, and {} MiB of them are left alone; a collection would \
             free {} MiB",
            mebibytes(self.missing()),
            mebibytes(self.needed),
            mebibytes(self.available),
            mebibytes(self.reserve),
            mebibytes(self.collectable),
        )
    }
}

impl std::error::Error for Shortage {}

/// Looks now and then whether a file that grows comes near the reserve.
#[derive(Debug, Default)]
pub(crate) struct Watch {
    unseen: u64,
}

impl Watch {
    /// So many bytes were written to `file`.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] where the reserve is reached.
    pub(crate) fn wrote(&mut self, file: &File, bytes: usize) -> io::Result<()> {
        self.unseen += bytes as u64;
        if self.unseen < BETWEEN_LOOKS {
            return Ok(());
        }
        self.unseen = 0;
        match short(file, 0) {
            Ok(Some(shortage)) => Err(io::Error::new(io::ErrorKind::StorageFull, Reserve(shortage.reserve))),
            // Who cannot look is told by the write that fails.
            Ok(None) | Err(_) => Ok(()),
        }
    }
}

/// Whether so many bytes do not fit on the file system of `file`.
fn short(file: &File, needed: u64) -> io::Result<Option<Shortage>> {
    let look = || Ok(Room::from(rustix::fs::fstatvfs(file)?).shortage(needed));
    match look()? {
        None => Ok(None),
        Some(_) => {
            // btrfs counts what was removed a moment ago until its transaction is committed.
            rustix::fs::syncfs(file)?;
            look()
        }
    }
}

/// Nothing is left but the reserve, of so many bytes.
#[derive(Debug, thiserror::Error)]
#[error("only the {} MiB are left that the store leaves alone", .0.div_ceil(1 << 20))]
struct Reserve(u64);

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    #[test]
    fn the_reserve_is_a_twentieth_of_a_small_disk_and_a_hundredth_of_a_large_one() {
        for (total, reserve) in [
            (0, 0),
            (32 << 20, 1_677_721),
            (GIB, 53_687_091),
            (5 * GIB / 4, 64 << 20),
            (4 * GIB, 64 << 20),
            (25 * GIB / 4, 64 << 20),
            (1000 * GIB, 10 * GIB),
        ] {
            assert_eq!(Room { total, available: 0 }.reserve(), reserve, "{total}");
        }
    }

    #[test]
    fn what_fits_beside_the_reserve_fits_and_a_byte_more_does_not() {
        let room = Room { total: 4 * GIB, available: GIB };
        let most = GIB - (64 << 20);
        assert_eq!(room.shortage(most), None);
        let shortage = room.shortage(most + 1).expect("it does not fit");
        assert_eq!((shortage.missing(), shortage.needed), (1, most + 1));
        assert_eq!(room.shortage(u64::MAX).expect("it does not fit").missing(), u64::MAX - GIB);
        assert_eq!(Room { total: 4 * GIB, available: 64 << 20 }.shortage(0), None);
        assert!(Room { total: 4 * GIB, available: (64 << 20) - 1 }.shortage(0).is_some());
    }

    #[test]
    fn a_shortage_says_what_to_do_about_it() {
        let room = Room { total: 4 * GIB, available: GIB };
        let shortage = Shortage { collectable: 300 << 20, ..room.shortage(2 * GIB).expect("too much") };
        assert_eq!(
            shortage.to_string(),
            "1088 MiB are missing: it takes at least 2048 MiB, 1024 MiB are free, and 64 MiB of them are left alone; a \
             collection would free 300 MiB"
        );
    }

    #[test]
    fn this_machine_can_be_looked_at() {
        let room = Room::at(Path::new("/")).expect("looked at");
        assert!(room.total > 0 && room.available <= room.total);
    }
}
