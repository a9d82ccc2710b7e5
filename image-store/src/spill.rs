//! Bytes that wait for the end of a blob: in memory, and beyond a bound in a file without a name.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use crate::space::Watch;

/// Bytes that are added in order and read anywhere.
#[derive(Debug)]
pub(crate) struct Spill {
    directory: PathBuf,
    /// Bytes that wait in memory before they go to the file.
    bound: usize,
    memory: Vec<u8>,
    /// The file and its length; what is in memory comes behind it.
    file: Option<(File, u64)>,
    watch: Watch,
}

/// Where a writer of blobs has its temporary data.
#[derive(Debug)]
pub(crate) enum Scratch {
    /// In files without a name in this directory, which are made when they are needed.
    Directory(PathBuf),
    /// In these files, which are empty and open for reading and writing.
    Files {
        /// For the tails of files.
        tails: File,
        /// For leaves.
        leaves: File,
    },
}

impl Scratch {
    /// Places for tails and for leaves, which may take so many bytes of memory.
    pub(crate) fn spills(self, tails_in_memory: usize, leaves_in_memory: usize) -> (Spill, Spill) {
        match self {
            Self::Directory(directory) => {
                (Spill::new(&directory, tails_in_memory), Spill::new(&directory, leaves_in_memory))
            }
            Self::Files { tails, leaves } => {
                (Spill::to(tails, tails_in_memory), Spill::to(leaves, leaves_in_memory))
            }
        }
    }
}

impl Spill {
    /// Nothing yet. What is more than `bound` bytes will go to a file in `directory`.
    pub(crate) fn new(directory: &Path, bound: usize) -> Self {
        Self {
            directory: directory.to_owned(),
            bound,
            memory: Vec::new(),
            file: None,
            watch: Watch::default(),
        }
    }

    /// Nothing yet. What is more than `bound` bytes will go to `file`, which is empty.
    fn to(file: File, bound: usize) -> Self {
        Self {
            // Never looked at: the file is there.
            directory: PathBuf::new(),
            bound,
            memory: Vec::new(),
            file: Some((file, 0)),
            watch: Watch::default(),
        }
    }

    /// Bytes added so far, which is where the next ones will be.
    pub(crate) fn len(&self) -> u64 {
        self.in_file() + self.memory.len() as u64
    }

    /// Adds bytes; [`Self::settle`] bounds the memory that they take.
    pub(crate) fn add(&mut self, bytes: &[u8]) {
        self.memory.extend_from_slice(bytes);
    }

    /// Moves what is in memory to the file where it is more than the bound.
    pub(crate) fn settle(&mut self) -> io::Result<()> {
        if self.memory.len() < self.bound {
            return Ok(());
        }
        let (file, len) = match &mut self.file {
            Some(file) => file,
            none => none.insert((unnamed_file(&self.directory)?, 0)),
        };
        file.write_all_at(&self.memory, *len)?;
        self.watch.wrote(file, self.memory.len())?;
        *len += self.memory.len() as u64;
        self.memory.clear();
        Ok(())
    }

    /// Fills `out` from `at`; all of it must have been added before.
    pub(crate) fn read(&self, at: u64, out: &mut [u8]) -> io::Result<()> {
        let from_file =
            usize::try_from(self.in_file().saturating_sub(at)).unwrap_or(usize::MAX).min(out.len());
        let (head, rest) = out.split_at_mut(from_file);
        if let Some((file, _)) = self.file.as_ref().filter(|_| !head.is_empty()) {
            file.read_exact_at(head, at)?;
        }
        let from =
            usize::try_from((at + from_file as u64).saturating_sub(self.in_file())).unwrap_or(usize::MAX);
        let waiting = self.memory.get(from..).and_then(|memory| memory.get(..rest.len()));
        rest.copy_from_slice(waiting.ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    fn in_file(&self) -> u64 {
        self.file.as_ref().map_or(0, |(_, len)| *len)
    }
}

/// A file that goes away with its last descriptor.
pub(crate) fn unnamed_file(directory: &Path) -> io::Result<File> {
    let path = directory.join(crate::durable::temporary_name());
    let file = File::options().read(true).write(true).create_new(true).open(&path)?;
    match std::fs::remove_file(&path) {
        // Who opened the store at this moment took it for a leftover.
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(file),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_added_is_read_from_memory_from_the_file_and_across_both() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut spill = Spill::new(dir.path(), 100);
        let bytes: Vec<u8> = (0..=255).collect();
        for piece in bytes.chunks(7) {
            spill.add(piece);
            spill.settle().expect("written");
        }
        assert_eq!(spill.len(), 256);
        assert!(spill.in_file() > 0 && !spill.memory.is_empty(), "both are in use");
        for (at, len) in [(0, 256), (0, 5), (200, 56), (255, 1), (256, 0)] {
            let mut out = vec![0; len];
            spill.read(at as u64, &mut out).expect("there");
            assert_eq!(out, bytes[at..at + len], "{len} at {at}");
        }
        assert_eq!(spill.read(250, &mut [0; 7]).map_err(|e| e.kind()), Err(io::ErrorKind::UnexpectedEof));
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
    }
}
