//! From the installed root and our own programs to the blob of the OS.

use crate::base::{Base, EPOCH};
use crate::command::at;
use crate::{BuildError, Inputs, recipe};
use bennu_image_store::layer;
use bennu_image_store::tar::Limits;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read as _};
use std::path::Path;

/// A blob that was written, and the digest that names it.
#[derive(Debug)]
pub(crate) struct Blob {
    /// fs-verity SHA-256 digest, hexadecimal.
    pub(crate) digest: String,
}

/// Writes the root as an EROFS blob to `out`, a new file, with room for temporary data in `spill`.
pub(crate) fn convert(
    base: &Base,
    inputs: &Inputs<'_>,
    out: &Path,
    spill: &Path,
) -> Result<Blob, BuildError> {
    // Ours come first, because the base ends with the archive's end mark. No path is in both.
    let ours = own_files(inputs)?;
    let path = base.root();
    let base = File::open(&path).map_err(at("open", &path))?;
    let tar = Cursor::new(ours).chain(BufReader::with_capacity(1 << 20, base));
    let file = File::create_new(out).map_err(at("create", out))?;
    let (_, converted) = layer::convert(tar, file, spill, Limits::default(), layer::Below::Nothing)
        .map_err(|source| BuildError::Import { source: Box::new(source) })?;
    Ok(Blob { digest: converted.blob.hex() })
}

/// A tar of what the image has of its own, without the archive's end mark.
fn own_files(inputs: &Inputs<'_>) -> Result<Vec<u8>, BuildError> {
    let mut tar = tar::Builder::new(Vec::new());
    let in_memory = || BuildError::Incomplete { what: "room in a tar header for a file of our own".into() };
    for (path, program) in [("usr/bin/hostd", inputs.hostd), ("usr/bin/hostctl", inputs.hostctl)] {
        let bytes = fs::read(program).map_err(at("read", program))?;
        let mut header = header(tar::EntryType::Regular, 0o755, bytes.len() as u64);
        tar.append_data(&mut header, path, bytes.as_slice()).map_err(|_| in_memory())?;
    }
    let release = recipe::os_release();
    let texts = recipe::FILES.iter().copied().chain([("usr/lib/os-release", release.as_str())]);
    for (path, text) in texts {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).map_err(|_| in_memory())?;
    }
    for (path, target) in recipe::LINKS {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, path, target).map_err(|_| in_memory())?;
    }
    let mut bytes = tar.into_inner().map_err(|_| in_memory())?;
    // Two records of zeros end an archive (POSIX.1-2017, pax, "ustar Interchange Format").
    bytes.truncate(bytes.len() - 1024);
    Ok(bytes)
}

fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH);
    header.set_size(size);
    header
}
