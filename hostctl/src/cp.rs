//! `cp`: files of a running container, carried out.
//!
//! ```text
//! host ──tar──► a file without a name, until it is whole ──► checked entries ──► what was not there before
//! ```
//! What comes is not trusted, since a container decides what is in it: an entry is only ever made in a directory that this
//! command has made itself, under a name that was free.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fs::{File, OpenOptions, Permissions};
use std::io::{self, IsTerminal as _, Read, Seek as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use bennu_image_store::tar::{Kind, Limits, Reader};
use serde::Serialize;

use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::host::{container_name, percent_encoded};
use crate::render::{Out, bytes};

/// Permissions that are taken over: neither set-id bits nor the sticky bit mean here what they meant there.
const PERMISSIONS: u32 = 0o777;

/// What was copied.
#[derive(Debug, Default, Serialize)]
struct Copied {
    to: PathBuf,
    files: u64,
    bytes: u64,
    /// Hard links, devices and pipes, which are not made here.
    passed_over: u64,
}

/// Copies `source`, as `NAME:PATH`, to `target`, or as a tar to standard output where that is `-`.
pub(crate) async fn run(host: &Host, source: &str, target: &Path, out: &mut Out) -> Outcome {
    let wrong = || {
        Failure::invalid(format!("{source} names nothing in a container"))
            .advice("write it as NAME:PATH, the path absolute")
    };
    let (name, path) = source.split_once(':').filter(|(_, path)| path.starts_with('/')).ok_or_else(wrong)?;
    let route = format!("/v1/files?container={}&path={}", container_name(name)?, percent_encoded(path));
    if target == Path::new("-") {
        if io::stdout().is_terminal() {
            return Err(
                Failure::invalid("a tar is nothing for a terminal").advice("redirect standard output")
            );
        }
        let mut tar = host.get_bytes(&route).await?;
        while let Some(piece) = tar.next().await?
            && !out.closed()
        {
            out.write(&piece)?;
        }
        return Ok(0);
    }
    let place = place(path, target)?;
    let failed = |e: io::Error| Failure::failed(format!("write to {}", place.display())).because(e);
    let folder = place.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut tar = host.get_bytes(&route).await?;
    let mut whole = tempfile::tempfile_in(folder).map_err(failed)?;
    let mut total = 0;
    while let Some(piece) = tar.next().await? {
        total += piece.len() as u64;
        if total > Limits::default().bytes {
            return Err(Failure::failed(format!(
                "copy {source}: it is larger than {}",
                bytes(Limits::default().bytes)
            )));
        }
        whole.write_all(&piece).map_err(failed)?;
    }
    whole.rewind().map_err(failed)?;
    let copied = unpack(&whole, &place)?;
    out.result(&copied, |copied| {
        let over = match copied.passed_over {
            0 => String::new(),
            number => format!(", {number} that are no files passed over"),
        };
        let plural = if copied.files == 1 { "" } else { "s" };
        format!("{}  {} file{plural}, {}{over}\n", copied.to.display(), copied.files, bytes(copied.bytes))
    })?;
    Ok(0)
}

/// Where what is copied goes: into a directory that is there under its own name, else to the name that was given.
fn place(path: &str, target: &Path) -> Result<PathBuf, Failure> {
    let place = match Path::new(path).file_name() {
        Some(name) if target.is_dir() => target.join(name),
        None if target.is_dir() => target.join("root"),
        _ => target.to_owned(),
    };
    // Also where it is a link that leads nowhere.
    if place.symlink_metadata().is_ok() {
        return Err(Failure::invalid(format!("{} is there already", place.display()))
            .advice("name a target that is not there; nothing is overwritten"));
    }
    Ok(place)
}

/// Makes what is in the archive, its one topmost entry as `place`.
fn unpack(archive: impl Read, place: &Path) -> Result<Copied, Failure> {
    let refused = |what: &str| {
        Failure::refused(
            "archive",
            format!("what the host sent for {} is not taken: {what}", place.display()),
        )
    };
    let mut reader = Reader::new(archive, Limits::default());
    let mut copied = Copied { to: place.to_owned(), ..Copied::default() };
    // Directories that were made here, as the archive names them; their permissions are set at the end, so that one that
    // can't be written does not keep out what is in it.
    let mut made: BTreeSet<Vec<u8>> = BTreeSet::new();
    let mut modes = Vec::new();
    while let Some(entry) = reader.next_entry().map_err(|e| refused(&e.to_string()))? {
        let mut components = entry.path.components();
        let Some(_top) = components.next() else { continue };
        let (parent, _) = entry.path.split_last().expect("it has a component");
        let is_top = parent.is_empty();
        if is_top && copied.files + made.len() as u64 > 0 {
            return Err(refused("it holds more than one thing"));
        }
        if !is_top && !made.contains(parent) {
            return Err(refused(&format!("{} lies in no directory of it", entry.path)));
        }
        let to = components.fold(place.to_owned(), |to, name| to.join(OsStr::from_bytes(name)));
        let failed = |e: io::Error| Failure::failed(format!("write {}", to.display())).because(e);
        let mode = u32::from(entry.meta.mode) & PERMISSIONS;
        match entry.kind {
            Kind::Directory => {
                std::fs::create_dir(&to).map_err(failed)?;
                modes.push((to, mode));
                made.insert(entry.path.as_bytes().to_vec());
            }
            Kind::File { .. } => {
                // Fails where anything is there, a link too (open(2), O_EXCL).
                let mut file =
                    OpenOptions::new().write(true).create_new(true).mode(mode).open(&to).map_err(failed)?;
                copied.bytes += fill(&mut reader, &mut file, &to)?;
                copied.files += 1;
            }
            Kind::Symlink { target } => {
                symlink(OsStr::from_bytes(&target), &to).map_err(failed)?;
                copied.files += 1;
            }
            Kind::HardLink { .. } | Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo => {
                copied.passed_over += 1;
            }
        }
    }
    for (dir, mode) in modes.into_iter().rev() {
        let failed = |e| Failure::failed(format!("set the permissions of {}", dir.display())).because(e);
        std::fs::set_permissions(&dir, Permissions::from_mode(mode)).map_err(failed)?;
    }
    Ok(copied)
}

fn fill<R: Read>(reader: &mut Reader<R>, file: &mut File, to: &Path) -> Result<u64, Failure> {
    let mut buffer = vec![0; 128 << 10];
    let mut total = 0;
    loop {
        let broken = |e: bennu_image_store::tar::TarError| {
            Failure::failed(format!("read what is for {}", to.display())).because(e)
        };
        let read = reader.read_data(&mut buffer).map_err(broken)?;
        if read == 0 {
            return Ok(total);
        }
        let failed = |e: io::Error| Failure::failed(format!("write {}", to.display())).because(e);
        file.write_all(&buffer[..read]).map_err(failed)?;
        total += read as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An entry of the archive, as any container could have it written.
    struct Entry(u8, &'static str, &'static str);

    fn archive(entries: &[Entry]) -> Vec<u8> {
        let mut bytes = Vec::new();
        for Entry(kind, name, content) in entries {
            let (link, content) = if *kind == b'0' { ("", *content) } else { (*content, "") };
            let mut header = [0; 512];
            let mut put =
                |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
            // POSIX.1-2017, pax, "ustar Interchange Format".
            put(0, name);
            put(100, "0004755\0");
            put(108, "0000000\0");
            put(116, "0000000\0");
            put(124, &format!("{:011o}\0", content.len()));
            put(136, "00000000000\0");
            put(148, "        ");
            put(157, link);
            put(257, "ustar\x0000");
            header[156] = *kind;
            let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
            bytes.extend(header);
            bytes.extend(content.as_bytes());
            bytes.resize(bytes.len().next_multiple_of(512), 0);
        }
        bytes.resize(bytes.len() + 1024, 0);
        bytes
    }

    fn unpacked(entries: &[Entry], place: &Path) -> Result<Copied, Failure> {
        unpack(archive(entries).as_slice(), place)
    }

    #[test]
    fn a_tree_is_made_as_it_was_but_for_set_id_bits() {
        let dir = tempfile::tempdir().expect("a folder");
        let place = dir.path().join("out");
        let entries = [
            Entry(b'5', "d", ""),
            Entry(b'0', "d/x", "content"),
            Entry(b'2', "d/link", "/etc/shadow"),
            Entry(b'6', "d/pipe", ""),
        ];
        let copied = unpacked(&entries, &place).expect("taken");
        assert_eq!((copied.files, copied.bytes, copied.passed_over), (2, 7, 1));
        assert_eq!(std::fs::read_to_string(place.join("x")).expect("read"), "content");
        assert_eq!(std::fs::metadata(place.join("x")).expect("there").permissions().mode() & 0o7777, 0o755);
        assert_eq!(std::fs::read_link(place.join("link")).expect("a link"), Path::new("/etc/shadow"));
        let one = dir.path().join("one");
        unpacked(&[Entry(b'0', "x", "content")], &one).expect("taken");
        assert_eq!(std::fs::read_to_string(one).expect("read"), "content");
    }

    #[test]
    fn t14_no_archive_writes_anywhere_but_to_what_it_was_to_make() {
        let dir = tempfile::tempdir().expect("a folder");
        let outside = dir.path().join("outside");
        std::fs::create_dir(&outside).expect("made");
        std::fs::write(outside.join("x"), "outside").expect("written");
        let to: &'static str = Box::leak(outside.display().to_string().into_boxed_str());
        let attacks: [(&str, Vec<Entry>); 7] = [
            ("upwards", vec![Entry(b'5', "d", ""), Entry(b'0', "d/../../outside/x", "bad")]),
            (
                "through a link",
                vec![Entry(b'5', "d", ""), Entry(b'2', "d/l", to), Entry(b'0', "d/l/x", "bad")],
            ),
            ("through a link at the top", vec![Entry(b'2', "l", to), Entry(b'0', "l/x", "bad")]),
            (
                "onto a link",
                vec![
                    Entry(b'5', "d", ""),
                    Entry(b'2', "d/l", Box::leak(format!("{to}/x").into_boxed_str())),
                    Entry(b'0', "d/l", "bad"),
                ],
            ),
            ("beside", vec![Entry(b'5', "d", ""), Entry(b'0', "other", "bad")]),
            ("without its directory", vec![Entry(b'0', "d/x", "bad")]),
            (
                "a directory twice",
                vec![
                    Entry(b'5', "d", ""),
                    Entry(b'2', "d/l", to),
                    Entry(b'5', "d/l", ""),
                    Entry(b'0', "d/l/x", "bad"),
                ],
            ),
        ];
        for (number, (what, entries)) in attacks.iter().enumerate() {
            let place = dir.path().join(format!("out-{number}"));
            assert!(unpacked(entries, &place).is_err(), "{what}");
            assert_eq!(std::fs::read_to_string(outside.join("x")).expect("read"), "outside", "{what}");
            assert_eq!(std::fs::read_dir(&outside).expect("listed").count(), 1, "{what}");
        }
        let hard = [Entry(b'5', "d", ""), Entry(b'1', "d/h", "d/x")];
        let copied = unpacked(&hard, &dir.path().join("hard")).expect("taken");
        assert_eq!((copied.files, copied.passed_over), (0, 1));
    }

    #[test]
    fn what_is_there_is_not_overwritten() {
        let dir = tempfile::tempdir().expect("a folder");
        assert_eq!(place("/etc/nginx", dir.path()).expect("free"), dir.path().join("nginx"));
        assert_eq!(place("/", dir.path()).expect("free"), dir.path().join("root"));
        assert_eq!(place("/etc/nginx", &dir.path().join("new")).expect("free"), dir.path().join("new"));
        symlink("/nowhere", dir.path().join("nginx")).expect("linked");
        assert!(place("/etc/nginx", dir.path()).is_err());
    }
}
