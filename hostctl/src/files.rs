//! Files on this machine: read within bounds, written whole or not at all.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use bennu_image_store::durable;

use crate::exit::Failure;

/// The bytes of a file that the user named; at most `max`.
pub(crate) fn read(path: &Path, max: usize) -> Result<Vec<u8>, Failure> {
    read_if_there(path, max)?
        .ok_or_else(|| Failure::not_found(format!("there is no file {}", path.display())))
}

/// As [`read`]; `None` where there is no such file.
pub(crate) fn read_if_there(path: &Path, max: usize) -> Result<Option<Vec<u8>>, Failure> {
    let failed = |e| Failure::failed(format!("read {}", path.display())).because(e);
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        other => other.map_err(failed)?,
    };
    let mut bytes = Vec::new();
    file.take(max as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > max {
        return Err(Failure::invalid(format!("{} is larger than {max} bytes", path.display())));
    }
    Ok(Some(bytes))
}

/// The text of a file that the user named; at most `max` bytes of UTF-8.
pub(crate) fn read_text(path: &Path, max: usize) -> Result<String, Failure> {
    String::from_utf8(read(path, max)?)
        .map_err(|e| Failure::invalid(format!("{} is not UTF-8", path.display())).because(e))
}

/// Replaces a file at once, keeping its permissions; a new one gets `mode`. A link is followed, and stays.
pub(crate) fn replace(path: &Path, bytes: &[u8], mode: u32) -> Result<(), Failure> {
    let target = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let mode = std::fs::metadata(&target).map_or(mode, |file| file.permissions().mode() & 0o777);
    durable::replace_with_mode(&target, bytes, mode)
        .map_err(|e| Failure::failed(format!("write {}", path.display())).because(e))
}

/// Writes a file that holds a secret: nobody else can read it, whatever was there before.
pub(crate) fn replace_secret(path: &Path, bytes: &[u8]) -> Result<(), Failure> {
    durable::replace_with_mode(path, bytes, 0o600)
        .map_err(|e| Failure::failed(format!("write {}", path.display())).because(e))
}

/// `FILE.sig`.
pub(crate) fn sig_path(file: &Path) -> PathBuf {
    let mut path = file.as_os_str().to_owned();
    path.push(".sig");
    path.into()
}
