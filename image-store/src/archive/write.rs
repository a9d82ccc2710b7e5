//! Writing OCI image layouts, as a directory or in a tar, so that others can read them.
//!
//! Blobs are written as they come, their digests computed on the way; in a tar the header of a blob is filled in behind it. What
//! is not finished has a temporary name beside its target and is removed again.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;
use serde::Serialize;

use super::described::{Described, json};
use crate::durable;
use crate::registry::document::INDEX_TYPES;
use crate::sha256::Sha256;
use crate::tar::RECORD;

/// Bytes that wait before they are written.
const BUFFER: usize = 1 << 17;
/// What `oci-layout` says (OCI image specification, `image-layout.md`).
const LAYOUT: &[u8] = br#"{"imageLayoutVersion":"1.0.0"}"#;

/// How a layout is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// A directory.
    Directory,
    /// A tar with the same files.
    Archive,
}

/// Why a layout could not be written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WriteError {
    /// The target is there already.
    #[error("{} is there already", .0.display())]
    Exists(PathBuf),
    /// The target cannot be written.
    #[error("could not write {}", path.display())]
    Write {
        /// What.
        path: PathBuf,
        /// What the system says.
        #[source]
        source: io::Error,
    },
}

/// A layout that is being written.
#[derive(Debug)]
pub struct LayoutWriter {
    target: PathBuf,
    /// Where it is until it is finished; gone when this is dropped.
    temporary: PathBuf,
    /// The tar, and how much of it is complete.
    tar: Option<(File, u64)>,
    written: BTreeSet<Digest>,
    /// The file of a blob that was begun; in a tar there is none.
    unfinished: Option<PathBuf>,
    size: u64,
}

impl LayoutWriter {
    /// Begins a layout at `target`, which must not be there yet.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn create(target: &Path, form: Form) -> Result<Self, WriteError> {
        if target.symlink_metadata().is_ok() {
            return Err(WriteError::Exists(target.to_owned()));
        }
        let temporary = parent(target).join(durable::temporary_name());
        let failed = failure(&temporary);
        let tar = match form {
            Form::Directory => {
                let made = ["", "blobs", "blobs/sha256"]
                    .iter()
                    .try_for_each(|directory| std::fs::create_dir(temporary.join(directory)));
                made.map_err(failed)?;
                None
            }
            Form::Archive => {
                let file = OpenOptions::new().write(true).create_new(true).open(&temporary);
                Some((file.map_err(failed)?, 0))
            }
        };
        let (target, written) = (target.to_owned(), BTreeSet::new());
        let mut layout = Self { target, temporary, tar, written, unfinished: None, size: 0 };
        for directory in ["blobs/", "blobs/sha256/"] {
            if layout.tar.is_some() {
                layout.append(&header(directory, 0, tar::EntryType::Directory), &[])?;
            }
        }
        Ok(layout)
    }

    /// Begins a blob. One that is not finished is as if it had not been.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn blob(&mut self) -> Result<BlobWriter<'_>, WriteError> {
        self.forget_unfinished()?;
        let path = match &self.tar {
            Some(_) => self.temporary.clone(),
            None => self.temporary.join("blobs/sha256").join(durable::temporary_name()),
        };
        let file = match &self.tar {
            Some((file, end)) => file.try_clone().and_then(|mut file| {
                // Its header comes when its length and digest are known.
                file.seek(SeekFrom::Start(end + RECORD as u64))?;
                Ok(file)
            }),
            None => {
                self.unfinished = Some(path.clone());
                File::create_new(&path)
            }
        };
        let out = BufWriter::with_capacity(BUFFER, file.map_err(failure(&path))?);
        Ok(BlobWriter { layout: self, path, out, hash: Sha256::new(), size: 0 })
    }

    /// Writes a blob that is small.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn bytes(&mut self, bytes: &[u8]) -> Result<(Digest, u64), WriteError> {
        let mut blob = self.blob()?;
        blob.write_all(bytes).map_err(failure(&blob.path))?;
        blob.finish()
    }

    /// Whether there is a blob with this digest already.
    pub fn has(&self, digest: &Digest) -> bool {
        self.written.contains(digest)
    }

    /// Bytes of all blobs so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Lists what is to be found in the layout, says `annotations` of the whole, and gives it its name.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn finish(
        mut self,
        manifests: &[Described],
        annotations: &BTreeMap<String, String>,
    ) -> Result<(), WriteError> {
        self.forget_unfinished()?;
        #[derive(Serialize)]
        #[serde(rename_all = "camelCase")]
        struct Index<'a> {
            schema_version: u32,
            media_type: &'a str,
            manifests: &'a [Described],
            #[serde(skip_serializing_if = "BTreeMap::is_empty")]
            annotations: &'a BTreeMap<String, String>,
        }
        let index = json(&Index { schema_version: 2, media_type: INDEX_TYPES[0], manifests, annotations });
        for (name, bytes) in [("oci-layout", LAYOUT), ("index.json", &index)] {
            if self.tar.is_some() {
                self.append(&header(name, bytes.len() as u64, tar::EntryType::Regular), bytes)?;
            } else {
                let path = self.temporary.join(name);
                durable::replace(&path, bytes).map_err(failure(&path))?;
            }
        }
        if let Some((file, end)) = &mut self.tar {
            // Two blocks of zeros end a tar; what a blob left that was not finished goes.
            let ended = file.set_len(*end).and_then(|()| file.set_len(*end + 2 * RECORD as u64));
            ended.and_then(|()| file.sync_all()).map_err(failure(&self.temporary))?;
        }
        let named = std::fs::rename(&self.temporary, &self.target);
        named.and_then(|()| durable::sync_dir(parent(&self.target))).map_err(failure(&self.target))
    }

    /// Removes what is left of a blob that was begun and dropped. In a tar the next entry is written over it.
    fn forget_unfinished(&mut self) -> Result<(), WriteError> {
        match self.unfinished.take() {
            Some(path) => std::fs::remove_file(&path).map_err(failure(&path)),
            None => Ok(()),
        }
    }

    /// Writes an entry at the end of the tar.
    fn append(&mut self, header: &tar::Header, bytes: &[u8]) -> Result<(), WriteError> {
        let (file, end) = self.tar.as_mut().expect("only tars have entries");
        let mut entry = header.as_bytes().to_vec();
        entry.extend_from_slice(bytes);
        entry.resize(entry.len().next_multiple_of(RECORD), 0);
        let written = file.seek(SeekFrom::Start(*end)).and_then(|_| file.write_all(&entry));
        written.map_err(failure(&self.temporary))?;
        *end += entry.len() as u64;
        Ok(())
    }
}

impl Drop for LayoutWriter {
    fn drop(&mut self) {
        // Once it is finished neither is there any more; what cannot be removed bears a temporary name.
        let _ = if self.tar.is_some() {
            std::fs::remove_file(&self.temporary)
        } else {
            std::fs::remove_dir_all(&self.temporary)
        };
    }
}

/// A blob that is being written.
#[derive(Debug)]
pub struct BlobWriter<'a> {
    layout: &'a mut LayoutWriter,
    path: PathBuf,
    out: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl BlobWriter<'_> {
    /// What is said of a write that failed.
    pub fn failed(&self, source: io::Error) -> WriteError {
        WriteError::Write { path: self.path.clone(), source }
    }

    /// Bytes that were written so far.
    pub(crate) fn size(&self) -> u64 {
        self.size
    }

    /// Gives it its name: its digest and its bytes. A second one of the same digest is dropped.
    ///
    /// # Errors
    /// [`WriteError`]
    pub fn finish(self) -> Result<(Digest, u64), WriteError> {
        let Self { layout, path, out, hash, size } = self;
        let digest = hash.finish();
        let mut file = out.into_inner().map_err(io::IntoInnerError::into_error).map_err(failure(&path))?;
        let is_new = layout.written.insert(digest);
        if is_new {
            layout.size += size;
        }
        layout.unfinished = None;
        let finished = match &mut layout.tar {
            Some(_) if !is_new => Ok(()),
            Some((_, end)) => {
                let name = format!("blobs/sha256/{}", digest.hex());
                let padding = size.next_multiple_of(RECORD as u64) - size;
                file.write_all(&[0; RECORD][..padding as usize])
                    .and_then(|()| file.seek(SeekFrom::Start(*end)))
                    .and_then(|_| file.write_all(header(&name, size, tar::EntryType::Regular).as_bytes()))
                    .map(|()| *end += RECORD as u64 + size + padding)
            }
            None if is_new => file.sync_all().and_then(|()| {
                std::fs::rename(&path, layout.temporary.join("blobs/sha256").join(digest.hex()))
            }),
            None => std::fs::remove_file(&path),
        };
        finished.map_err(failure(&path))?;
        Ok((digest, size))
    }
}

impl Write for BlobWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let n = self.out.write(bytes)?;
        self.hash.update(&bytes[..n]);
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// The header of an entry that says nothing about when and by whom it was written.
fn header(name: &str, size: u64, kind: tar::EntryType) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).expect("a short name of letters and digits");
    header.set_entry_type(kind);
    header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_cksum();
    header
}

fn parent(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

pub(crate) fn failure(path: &Path) -> impl FnOnce(io::Error) -> WriteError {
    let path = path.to_owned();
    move |source| WriteError::Write { path, source }
}
