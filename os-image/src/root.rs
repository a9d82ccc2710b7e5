//! From the installed root and our own programs to the blob of the OS.

use crate::base::{Base, EPOCH};
use crate::command::at;
use crate::{BuildError, Inputs, Variant, recipe, sbom, uki};
use bennu_image_store::layer::{self, Converted};
use bennu_image_store::tar::Limits;
use std::fs::{self, File};
use std::io::{BufReader, Cursor, Read as _};
use std::path::Path;

/// Writes the root as an EROFS blob to `out`, a new file, with room for temporary data in `spill`.
pub(crate) fn convert(
    base: &Base,
    inputs: &Inputs<'_>,
    variant: &Variant,
    out: &Path,
    spill: &Path,
) -> Result<Converted, BuildError> {
    // Ours come first, because the base ends with the archive's end mark. No path is in both.
    let ours = own_files(base, inputs, variant)?;
    let path = base.root();
    let base = File::open(&path).map_err(at("open", &path))?;
    let tar = Cursor::new(ours).chain(BufReader::with_capacity(1 << 20, base));
    let file = File::create_new(out).map_err(at("create", out))?;
    layer::convert(tar, file, spill, Limits::default(), layer::Below::Nothing)
        .map(|(_, converted)| converted)
        .map_err(|source| BuildError::Import { source: Box::new(source) })
}

/// A tar of what the image has of its own, without the archive's end mark.
fn own_files(base: &Base, inputs: &Inputs<'_>, variant: &Variant) -> Result<Vec<u8>, BuildError> {
    let mut tar = tar::Builder::new(Vec::new());
    let in_memory = || BuildError::Incomplete { what: "room in a tar header for a file of our own".into() };
    let programs = [("usr/bin/hostd", inputs.hostd), ("usr/bin/hostctl", inputs.hostctl)];
    let programs = programs.into_iter().filter(|(path, _)| !variant.without.contains(path));
    let further = variant.programs.iter().map(|(path, program)| (*path, program.as_path()));
    for (path, program) in programs.chain(further) {
        let bytes = fs::read(program).map_err(at("read", program))?;
        let mut header = header(tar::EntryType::Regular, 0o755, bytes.len() as u64);
        tar.append_data(&mut header, path, bytes.as_slice()).map_err(|_| in_memory())?;
    }
    let release = recipe::os_release(&variant.version);
    let command_line = uki::command_line("", variant);
    let made_of = sbom::document(base, &variant.version)?;
    let texts = recipe::FILES.iter().copied().chain([
        ("usr/lib/os-release", release.as_str()),
        // What starts the root belongs to it: another command line is another root.
        ("usr/share/bennu/command-line", &command_line),
        (sbom::PATH, &made_of),
    ]);
    let texts = texts.filter(|(path, _)| !variant.without.contains(path));
    let texts = texts.chain(variant.files.iter().map(|(path, text)| (*path, text.as_str())));
    for (path, text) in texts {
        let mut header = header(tar::EntryType::Regular, 0o644, text.len() as u64);
        tar.append_data(&mut header, path, text.as_bytes()).map_err(|_| in_memory())?;
    }
    let links = recipe::LINKS.iter().filter(|(path, _)| !variant.without.contains(path));
    for (path, target) in links {
        let mut header = header(tar::EntryType::Symlink, 0o777, 0);
        tar.append_link(&mut header, path, target).map_err(|_| in_memory())?;
    }
    let mut bytes = tar.into_inner().map_err(|_| in_memory())?;
    // Two records of zeros end an archive (POSIX.1-2017, pax, "ustar Interchange Format").
    bytes.truncate(bytes.len() - 1024);
    Ok(bytes)
}

pub(crate) fn header(kind: tar::EntryType, mode: u32, size: u64) -> tar::Header {
    let mut header = tar::Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(EPOCH);
    header.set_size(size);
    header
}
