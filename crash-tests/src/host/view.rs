//! The disk of a host as a power cut leaves it, read without being made: the first disk, and over it what the log says.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::log::{Entry, Piece, SECTOR};

/// Sectors that were written, and where in the log they are.
#[derive(Debug, Clone, Default)]
pub struct Layer(HashMap<u64, u64>);

impl Layer {
    /// Takes in the first `torn` bytes of a write, or all of it, as far as it begins below `end`.
    pub fn write(&mut self, at: u64, bytes: Piece, torn: Option<usize>, end: u64) {
        if at >= end {
            return;
        }
        let sectors = torn.unwrap_or(bytes.len) as u64 / SECTOR;
        self.0.extend((0..sectors).map(|n| (at / SECTOR + n, bytes.from + n * SECTOR)));
    }

    /// Takes in entries of a log, those at these numbers, as far as they begin below `end` bytes.
    pub fn take(&mut self, log: &[Entry], numbers: impl Iterator<Item = (usize, Option<usize>)>, end: u64) {
        for (number, torn) in numbers {
            if let Entry::Write { at, bytes, .. } = &log[number] {
                self.write(*at, *bytes, torn, end);
            }
        }
    }
}

/// A disk: what is in the upper layers hides what is below.
#[derive(Debug)]
pub struct View<'a> {
    /// The disk before anything was recorded, raw.
    pub base: &'a File,
    /// The file of the log.
    pub log: &'a File,
    /// From the lowest to the highest.
    pub layers: [&'a Layer; 2],
}

impl View<'_> {
    /// Fills `buffer` with what is on the disk from byte `at` on; both are whole sectors.
    ///
    /// # Errors
    /// Whatever reading says.
    pub fn read(&self, buffer: &mut [u8], at: u64) -> io::Result<()> {
        let (mut done, sector) = (0, SECTOR as usize);
        while done < buffer.len() {
            let begin = self.place(at + done as u64);
            let mut end = done + sector;
            // As much as lies together in one file.
            while end < buffer.len() && self.place(at + end as u64) == begin.plus((end - done) as u64) {
                end += sector;
            }
            match begin {
                Place::Log(from) => self.log.read_exact_at(&mut buffer[done..end], from)?,
                Place::Base(from) => self.base.read_exact_at(&mut buffer[done..end], from)?,
            }
            done = end;
        }
        Ok(())
    }

    fn place(&self, at: u64) -> Place {
        let written = self.layers.iter().rev().find_map(|layer| layer.0.get(&(at / SECTOR)));
        written.map_or(Place::Base(at), |from| Place::Log(*from))
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Base(u64),
    Log(u64),
}

impl Place {
    fn plus(self, bytes: u64) -> Self {
        match self {
            Self::Base(at) => Self::Base(at + bytes),
            Self::Log(at) => Self::Log(at + bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(bytes).expect("written");
        file
    }

    #[test]
    fn what_was_written_last_hides_what_was_there_and_a_torn_write_ends_early() {
        let base = file(&[0; 4096]);
        let log = file(&[vec![1; 1024], vec![2; 1024]].concat());
        let piece = |from| Piece { from, len: 1024 };
        let (mut lower, mut upper) = (Layer::default(), Layer::default());
        lower.write(512, piece(0), None, 4096);
        upper.write(1024, piece(1024), Some(512), 4096);
        upper.write(4096, piece(1024), None, 4096);
        let view = View { base: &base, log: &log, layers: [&lower, &upper] };
        let mut disk = [9; 4096];
        view.read(&mut disk, 0).expect("read");
        let sectors: Vec<u8> = disk.chunks(512).map(|sector| sector[0]).collect();
        assert_eq!(sectors, [0, 1, 2, 0, 0, 0, 0, 0]);
    }
}
