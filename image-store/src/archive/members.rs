//! Where bytes lie, and reading them there.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::sync::Arc;

use nix::fcntl::OFlag;

/// The most links that are followed from one name to its bytes.
const MAX_LINKS: usize = 8;

/// Files in a directory, or members of a tar, by their path.
#[derive(Debug)]
pub(super) enum Members {
    /// The directory.
    Directory(PathBuf),
    /// The tar, and what it has.
    Tar(Arc<File>, BTreeMap<Vec<u8>, Member>),
}

/// A member of a tar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Member {
    /// Bytes of the tar.
    Data(Range<u64>),
    /// Another name, as Docker writes it for a layer that two images share: the path from the directory that the link is in.
    Link(Vec<u8>),
}

impl Members {
    /// The bytes of a file; `None` where it is not there or no file.
    pub(super) fn len(&self, name: &[u8]) -> io::Result<Option<u64>> {
        Ok(match self {
            Self::Directory(_) => match self.file(name)? {
                Some(file) => Some(file.metadata()?.len()),
                None => None,
            },
            Self::Tar(_, members) => resolve(members, name).map(|range| range.end - range.start),
        })
    }

    /// The first bytes of a file, at most `limit`.
    pub(super) fn read(&self, name: &[u8], limit: u64) -> io::Result<Option<Vec<u8>>> {
        let Some(reader) = self.open(name)? else { return Ok(None) };
        let mut bytes = Vec::new();
        reader.take(limit).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The bytes of a file, from the first.
    pub(super) fn open(&self, name: &[u8]) -> io::Result<Option<Box<dyn Read + Send>>> {
        Ok(match self {
            Self::Directory(_) => self.file(name)?.map(|file| Box::new(file) as _),
            Self::Tar(file, members) => resolve(members, name)
                .map(|range| Box::new(Part { file: file.clone(), range }) as Box<dyn Read + Send>),
        })
    }

    fn file(&self, name: &[u8]) -> io::Result<Option<File>> {
        let Self::Directory(directory) = self else { return Ok(None) };
        let path = directory.join(std::ffi::OsStr::from_bytes(name));
        // A named pipe in its place would be waited for.
        let opened = OpenOptions::new().read(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(path);
        match opened {
            Ok(file) => Ok(file.metadata()?.is_file().then_some(file)),
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

/// Where the bytes behind a name are, through links that stay in the tar.
fn resolve(members: &BTreeMap<Vec<u8>, Member>, name: &[u8]) -> Option<Range<u64>> {
    let mut name = name.to_vec();
    for _ in 0..MAX_LINKS {
        match members.get(&name)? {
            Member::Data(range) => return Some(range.clone()),
            Member::Link(target) => name = joined(&name, target)?,
        }
    }
    None
}

/// The path that `target` means in the directory of `from`; `None` where it leads out of the tar.
fn joined(from: &[u8], target: &[u8]) -> Option<Vec<u8>> {
    if target.starts_with(b"/") {
        return None;
    }
    let mut path: Vec<&[u8]> = from.split(|b| *b == b'/').collect();
    path.pop();
    for component in target.split(|b| *b == b'/') {
        match component {
            b"" | b"." => {}
            b".." => {
                path.pop()?;
            }
            name => path.push(name),
        }
    }
    Some(path.join(&b'/'))
}

/// A part of a file, read from where it is; several are read side by side.
struct Part {
    file: Arc<File>,
    range: Range<u64>,
}

impl Read for Part {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.range.end - self.range.start).unwrap_or(usize::MAX);
        let want = left.min(buf.len());
        let n = self.file.read_at(&mut buf[..want], self.range.start)?;
        if n == 0 && want > 0 {
            // It was as long as that when it was looked at.
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.range.start += n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_are_followed_within_the_archive_and_not_for_ever() {
        let link = |target: &str| Member::Link(target.as_bytes().to_vec());
        let members = BTreeMap::from([
            (b"a/layer.tar".to_vec(), Member::Data(512..600)),
            (b"b/layer.tar".to_vec(), link("../a/layer.tar")),
            (b"c".to_vec(), link("./b//layer.tar")),
            (b"round".to_vec(), link("round")),
            (b"out".to_vec(), link("../a/layer.tar")),
            (b"absolute".to_vec(), link("/a/layer.tar")),
        ]);
        for name in ["a/layer.tar", "b/layer.tar", "c"] {
            assert_eq!(resolve(&members, name.as_bytes()), Some(512..600), "{name}");
        }
        for name in ["round", "out", "absolute", "nothing"] {
            assert_eq!(resolve(&members, name.as_bytes()), None, "{name}");
        }
    }
}
