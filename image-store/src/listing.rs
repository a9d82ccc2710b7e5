//! What is in an image, line by line.

use std::collections::{BTreeMap, HashSet};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::erofs::{FileType, Image as Erofs, Inode, ReadError};
use crate::layer::{self, ConvertError, IMPLIED, LINK, OPAQUE};
use crate::record::Image;
use crate::sha256::Sha256;
use crate::store::Store;
use crate::store_error::StoreError;
use crate::tar::{Limits, TarError};

/// The most entries that are listed.
const MAX_ENTRIES: usize = 4_000_000;
/// The deepest directory that is entered.
const MAX_DEPTH: usize = 2048;

/// An entry of a tree.
///
/// As text it is one line: path, type, mode in octal, `uid:gid`, size, mtime, link target or device, attributes, SHA-256,
/// separated by tabs, `-` for what there is not. Bytes that are not printable ASCII are written as `\xNN`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Line {
    /// From the root, `/` for the root itself; escaped.
    pub path: String,
    /// `file`, `dir`, `link`, `char`, `block` or `fifo`; in the listing of a layer also `whiteout`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The lower 12 bits of the mode.
    pub mode: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes of a file; 0 for everything else.
    pub size: u64,
    /// Seconds since 1970, with nanoseconds where there are any.
    pub mtime: String,
    /// The target of a link, or `MAJOR,MINOR` of a device; escaped.
    pub target: Option<String>,
    /// Extended attributes, name and value escaped.
    pub xattrs: BTreeMap<String, String>,
    /// The content of a file.
    pub sha256: Option<Digest>,
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, kind, mode, uid, gid, size, mtime, .. } = self;
        write!(f, "{path}\t{kind}\t{mode:04o}\t{uid}:{gid}\t{size}\t{mtime}\t")?;
        write!(f, "{}\t", self.target.as_deref().unwrap_or("-"))?;
        if self.xattrs.is_empty() {
            f.write_str("-")?;
        }
        for (i, (name, value)) in self.xattrs.iter().enumerate() {
            write!(f, "{}{name}={value}", if i == 0 { "" } else { "," })?;
        }
        match &self.sha256 {
            Some(digest) => write!(f, "\t{}", digest.hex()),
            None => f.write_str("\t-"),
        }
    }
}

/// Why there is no listing.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ListError {
    /// The archive is refused or cannot be read.
    #[error(transparent)]
    Tar(TarError),
    /// A blob cannot be opened, or temporary data not be written.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A blob is damaged.
    #[error("{path}")]
    Blob {
        /// Which one.
        path: String,
        /// How.
        #[source]
        source: ReadError,
    },
}

/// An inode of a tree, and the layer it is in.
struct Found {
    layer: usize,
    inode: Inode,
}

/// A tree by path; the root is the empty path.
type Merged = BTreeMap<Vec<u8>, Found>;

/// Everything that a container of `image` would see, sorted by path.
///
/// # Errors
/// [`ListError`]
pub fn files(store: &Store, image: &Image) -> Result<Vec<Line>, ListError> {
    let mut merged = Merged::new();
    let mut blobs = Vec::new();
    for (layer, record) in image.layers.iter().enumerate() {
        let path = store.blob_path(&record.blob);
        let blob = File::open(&path).map_err(StoreError::io("open", &path))?;
        let of_blob = |source| ListError::Blob { path: path.display().to_string(), source };
        let blob = Erofs::open(blob).map_err(of_blob)?;
        merge(&mut merged, &blob, layer).map_err(of_blob)?;
        blobs.push((blob, path));
    }
    let lines = merged.into_iter().map(|(path, found)| {
        let (blob, name) = &blobs[found.layer];
        let mut line = line(blob, &path, &found.inode)
            .map_err(|source| ListError::Blob { path: name.display().to_string(), source })?;
        // Marks between layers, which a container never sees.
        for mark in [OPAQUE, IMPLIED, LINK] {
            line.xattrs.remove(mark);
        }
        Ok(line)
    });
    lines.collect()
}

/// Everything that the uncompressed tar from `reader` brings, sorted by path; whiteouts as such. The layer is converted as for
/// a store, into temporary files in `spill` that are gone when this returns.
///
/// # Errors
/// [`ListError`]
pub fn layer_listing(reader: impl Read, spill: &Path, limits: Limits) -> Result<Vec<Line>, ListError> {
    let name = spill.join(crate::durable::temporary_name());
    let temporary = File::options().read(true).write(true).create_new(true).open(&name);
    let temporary = temporary.map_err(StoreError::io("create", &name))?;
    std::fs::remove_file(&name).map_err(StoreError::io("remove", &name))?;
    let converted = layer::convert(reader, temporary, spill, limits, layer::Below::Nothing);
    let (file, _) = converted.map_err(|error| match error {
        ConvertError::Tar(error) => ListError::Tar(error),
        ConvertError::Write(error) => StoreError::io("write", &name)(error).into(),
    })?;
    let of_blob = |source| ListError::Blob { path: "the converted layer".to_owned(), source };
    let blob = Erofs::open(file).map_err(of_blob)?;
    let mut lines = BTreeMap::new();
    walk(&blob, &mut |path, inode| {
        let mut line = line(&blob, path, inode)?;
        if is_whiteout(inode) {
            (line.kind, line.target) = ("whiteout", None);
        }
        lines.insert(path.to_vec(), line);
        Ok(())
    })
    .map_err(of_blob)?;
    Ok(lines.into_values().collect())
}

/// Puts one layer over those below it, by the rules of overlayfs; a directory that is only implied keeps what the lower one
/// says of itself.
fn merge(merged: &mut Merged, blob: &Erofs, layer: usize) -> Result<(), ReadError> {
    walk(blob, &mut |path, inode| {
        let covers = inode.file_type() != FileType::Directory
            || inode.xattrs.contains_key(OPAQUE.as_bytes())
            || merged.get(path).is_some_and(|below| below.inode.file_type() != FileType::Directory);
        // Where something else than a directory is hidden, nothing of it is kept.
        let keeps = inode.xattrs.contains_key(IMPLIED.as_bytes())
            && merged.get(path).is_some_and(|below| below.inode.file_type() == FileType::Directory);
        if covers {
            remove_below(merged, path);
        }
        if is_whiteout(inode) {
            merged.remove(path);
        } else if !keeps {
            merged.insert(path.to_vec(), Found { layer, inode: inode.clone() });
        }
        Ok(())
    })
}

/// Removes everything beneath `path`, but not what is at `path` itself.
fn remove_below(merged: &mut Merged, path: &[u8]) {
    let prefix = if path.is_empty() { Vec::new() } else { [path, b"/"].concat() };
    let doomed: Vec<Vec<u8>> = merged
        .range(prefix.clone()..)
        .map(|(path, _)| path)
        .take_while(|below| below.starts_with(&prefix))
        .filter(|below| !below.is_empty())
        .cloned()
        .collect();
    doomed.iter().for_each(|path| drop(merged.remove(path)));
}

/// Visits every inode, a directory before what is in it. An image that is no tree is damaged.
fn walk(
    blob: &Erofs,
    visit: &mut impl FnMut(&[u8], &Inode) -> Result<(), ReadError>,
) -> Result<(), ReadError> {
    let root = blob.root()?;
    let mut directories = HashSet::from([root.nid]);
    let mut entries = 0;
    visit(b"", &root)?;
    let mut waiting = vec![(Vec::new(), root, 0)];
    while let Some((path, directory, depth)) = waiting.pop() {
        for (name, nid) in blob.entries(&directory)? {
            entries += 1;
            let child = if path.is_empty() { name } else { [&path[..], b"/", &name].concat() };
            let inode = blob.inode(nid)?;
            visit(&child, &inode)?;
            if inode.file_type() == FileType::Directory {
                if !directories.insert(nid) || depth >= MAX_DEPTH {
                    return Err(ReadError::Damaged("its directories are no tree"));
                }
                waiting.push((child, inode, depth + 1));
            }
        }
        if entries > MAX_ENTRIES {
            return Err(ReadError::Damaged("it has too many entries"));
        }
    }
    Ok(())
}

fn is_whiteout(inode: &Inode) -> bool {
    inode.file_type() == FileType::CharDevice && inode.device == (0, 0)
}

fn line(blob: &Erofs, path: &[u8], inode: &Inode) -> Result<Line, ReadError> {
    let kind = match inode.file_type() {
        FileType::File => "file",
        FileType::Directory => "dir",
        FileType::Symlink => "link",
        FileType::CharDevice => "char",
        FileType::BlockDevice => "block",
        FileType::Fifo => "fifo",
    };
    let target = match inode.file_type() {
        FileType::Symlink => Some(escape(&blob.link_target(inode)?)),
        FileType::CharDevice | FileType::BlockDevice => {
            Some(format!("{},{}", inode.device.0, inode.device.1))
        }
        _ => None,
    };
    let is_file = inode.file_type() == FileType::File;
    let (seconds, nanos) = inode.mtime;
    Ok(Line {
        path: format!("/{}", escape(path)),
        kind,
        mode: inode.mode & 0o7777,
        uid: inode.uid,
        gid: inode.gid,
        size: if is_file { inode.size } else { 0 },
        mtime: if nanos == 0 { seconds.to_string() } else { format!("{seconds}.{nanos:09}") },
        target,
        xattrs: inode.xattrs.iter().map(|(name, value)| (escape(name), escape(value))).collect(),
        sha256: if is_file { Some(content_digest(blob, inode)?) } else { None },
    })
}

fn content_digest(blob: &Erofs, inode: &Inode) -> Result<Digest, ReadError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 1 << 16];
    let mut offset = 0;
    loop {
        match blob.read(inode, offset, &mut buffer)? {
            0 if offset == inode.size => return Ok(hash.finish()),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => {
                hash.update(&buffer[..n]);
                offset += n as u64;
            }
        }
    }
}

/// Printable ASCII as it is; backslashes, separators and everything else as `\xNN`.
fn escape(bytes: &[u8]) -> String {
    use fmt::Write;
    bytes.iter().fold(String::with_capacity(bytes.len()), |mut text, byte| {
        match byte {
            b'\\' | b',' | b'=' => write!(text, "\\x{byte:02x}"),
            0x21..=0x7e => write!(text, "{}", char::from(*byte)),
            _ => write!(text, "\\x{byte:02x}"),
        }
        .expect("a string can be written");
        text
    })
}
