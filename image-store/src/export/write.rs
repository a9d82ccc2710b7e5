//! The canonical tar of a blob.
//!
//! POSIX.1-2017, pax, "ustar Interchange Format" and "pax Extended Header"; numbers that octal digits cannot hold are in base 256
//! (GNU tar manual, "Extensions to the tar format"); attributes as star writes them; whiteouts by OCI's `layer.md`.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Write};

use ::tar::{Builder, EntryType, Header};
use bennu_manifests::model::Digest;

use super::tree::{Entry, Tree, is_opaque};
use crate::erofs::{FileType, Image, Inode, ReadError};
use crate::layer::{IMPLIED, OPAQUE};
use crate::sha256::Sha256;

/// Bytes of a name, and of the target of a link, in a header.
const NAME: usize = 100;
/// The latest time that a header's octal digits can say: eleven of them.
const LATEST: i64 = 0o77_777_777_777;
/// What a whiteout's name begins with.
const WHITEOUT: &[u8] = b".wh.";
/// The whiteout of everything that lower layers have in a directory.
const OPAQUE_NAME: &[u8] = b".wh..wh..opq";

/// Why there is no tar.
#[derive(Debug, thiserror::Error)]
pub(super) enum NotTold {
    /// The blob cannot be read.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The tar cannot be written.
    #[error("could not write the tar")]
    Write(#[source] io::Error),
    /// No blob of ours has such a thing.
    #[error("'{path}' {fault}")]
    Fault { path: String, fault: &'static str },
}

/// Writes the tar of a blob; gives its digest.
pub(super) fn write_tar(blob: File, out: &mut impl Write) -> Result<Digest, NotTold> {
    let blob = Image::open(blob)?;
    let tree = Tree::read(&blob)?;
    let mut tar =
        Tar { out: Builder::new(Hashing { out, hash: Sha256::new() }), first_names: HashMap::new() };
    for entry in &tree.directories {
        tar.directory(&tree, entry, &blob.inode(entry.nid)?)?;
    }
    for entry in &tree.others {
        tar.other(&tree, entry, &blob)?;
    }
    let Hashing { hash, .. } = tar.out.into_inner().map_err(NotTold::Write)?;
    Ok(hash.finish())
}

struct Tar<W: Write> {
    out: Builder<W>,
    /// Of inodes with several names, the first that was written.
    first_names: HashMap<u64, Entry>,
}

impl<W: Write> Tar<W> {
    fn directory(&mut self, tree: &Tree, entry: &Entry, inode: &Inode) -> Result<(), NotTold> {
        let path = tree.path(entry);
        // A directory that the layer only implies has no entry, as it had none.
        if !inode.xattrs.contains_key(IMPLIED.as_bytes()) {
            let name = if path.is_empty() { b"./".to_vec() } else { [&path[..], b"/"].concat() };
            check_name(&path)?;
            self.entry(&name, EntryType::Directory, b"", Some(inode), &mut io::empty())?;
        }
        if is_opaque(inode) {
            self.entry(&below(&path, OPAQUE_NAME), EntryType::Regular, b"", None, &mut io::empty())?;
        }
        Ok(())
    }

    fn other(&mut self, tree: &Tree, entry: &Entry, blob: &Image) -> Result<(), NotTold> {
        let (path, inode) = (tree.path(entry), blob.inode(entry.nid)?);
        let empty = &mut io::empty();
        if inode.file_type() == FileType::CharDevice && inode.device == (0, 0) {
            let (directory, name) = split(&path);
            check_name(&path)?;
            let name = [WHITEOUT, name].concat();
            return self.entry(&below(directory, &name), EntryType::Regular, b"", None, empty);
        }
        check_name(&path)?;
        if inode.nlink > 1 {
            if let Some(first) = self.first_names.get(&entry.nid) {
                let target = tree.path(first);
                return self.entry(&path, EntryType::Link, &target, Some(&inode), empty);
            }
            self.first_names.insert(entry.nid, *entry);
        }
        let kind = match inode.file_type() {
            FileType::File => {
                let mut content = Content { blob, inode: &inode, offset: 0 };
                return self.entry(&path, EntryType::Regular, b"", Some(&inode), &mut content);
            }
            FileType::Symlink => {
                let target = blob.link_target(&inode)?;
                return self.entry(&path, EntryType::Symlink, &target, Some(&inode), empty);
            }
            FileType::CharDevice => EntryType::Char,
            FileType::BlockDevice => EntryType::Block,
            FileType::Fifo => EntryType::Fifo,
            FileType::Directory => unreachable!("directories are kept apart"),
        };
        self.entry(&path, kind, b"", Some(&inode), empty)
    }

    /// Writes an entry. What stands for no inode, a whiteout, says nothing of itself.
    fn entry(
        &mut self,
        name: &[u8],
        kind: EntryType,
        target: &[u8],
        inode: Option<&Inode>,
        content: &mut impl Read,
    ) -> Result<(), NotTold> {
        let mut header = Header::new_ustar();
        header.set_entry_type(kind);
        for (range, text) in [(0..NAME, name), (157..157 + NAME, target)] {
            let fitting = text.len().min(NAME);
            header.as_mut_bytes()[range][..fitting].copy_from_slice(&text[..fitting]);
        }
        let (seconds, nanos) = inode.map_or((0, 0), |inode| inode.mtime);
        let plain_time = nanos == 0 && (0..=LATEST).contains(&seconds);
        let with_size = inode.filter(|_| kind == EntryType::Regular);
        header.set_mode(inode.map_or(0o644, |inode| u32::from(inode.mode & 0o7777)));
        header.set_uid(inode.map_or(0, |inode| inode.uid.into()));
        header.set_gid(inode.map_or(0, |inode| inode.gid.into()));
        header.set_size(with_size.map_or(0, |inode| inode.size));
        header.set_mtime(if plain_time { seconds.unsigned_abs() } else { 0 });
        let (major, minor) = inode.map_or((0, 0), |inode| inode.device);
        let numbered = header.set_device_major(major).and_then(|()| header.set_device_minor(minor));
        numbered.expect("ustar headers have devices");
        header.set_cksum();

        let mut records: Vec<(String, Vec<u8>)> = Vec::new();
        let mut record = |key: &str, value: Vec<u8>| records.push((key.to_owned(), value));
        if name.len() > NAME {
            record("path", name.to_vec());
        }
        if target.len() > NAME {
            record("linkpath", target.to_vec());
        }
        if !plain_time {
            record("mtime", pax_time(seconds, nanos).into_bytes());
        }
        // Of a further name, what it is was said with the first.
        for (key, value) in inode.filter(|_| kind != EntryType::Link).iter().flat_map(|inode| &inode.xattrs) {
            if [IMPLIED, OPAQUE].iter().any(|mark| mark.as_bytes() == key) {
                continue;
            }
            record(&format!("SCHILY.xattr.{}", attribute_name(name, key)?), value.clone());
        }
        let records = records.iter().map(|(key, value)| (key.as_str(), value.as_slice()));
        self.out.append_pax_extensions(records).map_err(NotTold::Write)?;
        self.out.append(&header, content).map_err(not_appended)
    }
}

/// The content of a file.
struct Content<'a> {
    blob: &'a Image,
    inode: &'a Inode,
    offset: u64,
}

impl Read for Content<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.blob.read(self.inode, self.offset, buf).map_err(io::Error::other)?;
        self.offset += n as u64;
        Ok(n)
    }
}

/// Errors of reading and writing come the same way, and are told apart by what they carry.
fn not_appended(error: io::Error) -> NotTold {
    if !error.get_ref().is_some_and(|inner| inner.is::<ReadError>()) {
        return NotTold::Write(error);
    }
    let inner = error.into_inner().and_then(|inner| inner.downcast::<ReadError>().ok());
    NotTold::Read(*inner.expect("it was looked at above"))
}

struct Hashing<W> {
    out: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Seconds with a fraction; what lies before 1970 counts backwards from it.
fn pax_time(seconds: i64, nanos: u32) -> String {
    match (seconds, nanos) {
        (_, 0) => seconds.to_string(),
        (0.., _) => format!("{seconds}.{nanos:09}"),
        // Seconds and nanoseconds forward from them: -2 and 0.75 are -1.25.
        (..0, _) => format!("-{}.{:09}", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanos),
    }
}

/// A name that readers of layers would take for a whiteout cannot be the name of anything else.
fn check_name(path: &[u8]) -> Result<(), NotTold> {
    let (_, name) = split(path);
    if name.starts_with(WHITEOUT) {
        return Err(fault(path, "would be taken for a whiteout"));
    }
    Ok(())
}

fn attribute_name<'a>(path: &[u8], key: &'a [u8]) -> Result<&'a str, NotTold> {
    if key.starts_with(b"trusted.overlay.") {
        return Err(fault(path, "has an attribute that steers overlayfs"));
    }
    let key = std::str::from_utf8(key).ok().filter(|key| !key.contains(['=', '\0']));
    key.ok_or_else(|| fault(path, "has an attribute whose name is no text, or has an equals sign"))
}

fn fault(path: &[u8], fault: &'static str) -> NotTold {
    NotTold::Fault { path: crate::tar::printable(path), fault }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|b| *b == b'/') {
        Some(at) => (&path[..at], &path[at + 1..]),
        None => (b"", path),
    }
}

fn below(directory: &[u8], name: &[u8]) -> Vec<u8> {
    if directory.is_empty() { name.to_vec() } else { [directory, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_are_written_as_they_are_read() {
        for ((seconds, nanos), text) in [
            ((0, 1), "0.000000001"),
            ((100, 123_456_789), "100.123456789"),
            ((-5, 0), "-5"),
            ((-2, 750_000_000), "-1.250000000"),
            ((-1, 999_999_999), "-0.000000001"),
            ((LATEST + 1, 0), "8589934592"),
        ] {
            assert_eq!(pax_time(seconds, nanos), text);
        }
    }
}
