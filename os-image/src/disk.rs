//! From the UKI and the blob to a disk that boots.
//!
//! ```text
//! GPT │ 1 MiB │ bennu-esp: FAT32, 512 MiB │ bennu-state: btrfs, the rest │ 1 MiB │ GPT
//!               EFI/BOOT/BOOTX64.EFI        store/blobs/sha256/<digest>
//!               EFI/systemd/systemd-bootx64.efi
//!               EFI/bennu/<root digest>.efi
//!               loader/entries/bennu-0.conf
//!               loader/loader.conf
//! ```
//! Types of partitions: UEFI specification 2.10, table 5.7; the Discoverable Partitions Specification has none for ours,
//! so it is "Linux filesystem data". All files are sparse, so sizes cost nothing until they are used.

use crate::base::Base;
use crate::command::{at, run};
use crate::{BuildError, Inputs, SecureBoot, again};
use bennu_planner::update::{Entry, EntryName};
use nix::unistd::Whence;
use std::fs::{self, File};
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;
use std::process::Command;

const MIB: u64 = 1 << 20;
/// Room for the EFI system partition, in MiB: a dozen versions.
const ESP: u64 = 512;
/// Size of the state partition, in MiB.
const STATE: u64 = 8192;
/// Fixed, so that equal inputs make equal disks; a machine that is provisioned gets its own.
const SERIAL: &str = "62656e6e";
const STATE_UUID: &str = "62656e6e-7500-4000-8000-000000000001";

pub(crate) const LOADER: &str = "timeout 0\neditor no\nauto-entries no\nauto-firmware no\n";

/// What a disk is made from.
#[derive(Debug)]
pub(crate) struct Parts<'a> {
    /// The boot image.
    pub(crate) uki: &'a Path,
    /// The root.
    pub(crate) blob: &'a Path,
    /// Its fs-verity digest, hexadecimal.
    pub(crate) digest: &'a str,
}

/// Makes `disk`, a new qcow2 file, with room for temporary files in `work`.
pub(crate) fn build(
    base: &Base,
    inputs: &Inputs<'_>,
    parts: &Parts<'_>,
    work: &Path,
    disk: &Path,
) -> Result<(), BuildError> {
    let esp = work.join("esp.img");
    make_esp(base, inputs, parts, &esp, work)?;
    let state = work.join("state.img");
    make_state(parts, &state, work)?;
    let raw = work.join("disk.img");
    assemble(&esp, &state, &raw)?;
    run(Command::new("qemu-img").args(["convert", "-f", "raw", "-O", "qcow2"]).arg(&raw).arg(disk))?;
    Ok(())
}

fn make_esp(
    base: &Base,
    inputs: &Inputs<'_>,
    parts: &Parts<'_>,
    esp: &Path,
    work: &Path,
) -> Result<(), BuildError> {
    let digest = parts.digest;
    sparse(esp, ESP * MIB)?;
    run(Command::new("mkfs.vfat")
        .args(["-F", "32", "-n", "BENNU-ESP", "-i", SERIAL, "--invariant"])
        .arg(esp))?;
    let loader = work.join("loader.conf");
    let keys = inputs.keys.secure_boot;
    let settings = format!("{LOADER}{}", keys.map_or("", SecureBoot::loader_conf));
    fs::write(&loader, settings).map_err(at("write", &loader))?;
    let root = format!("sha256:{digest}").parse().expect("the digest of a blob");
    let (name, entry) = (EntryName::last_resort(0), work.join("entry.conf"));
    fs::write(&entry, Entry::text(name.generation, &root, "Bennu")).map_err(at("write", &entry))?;
    let (again, boot) = (work.join("again.efi"), work.join("loader.efi"));
    again::assemble(&again, work)?;
    let source = base.efi("systemd-bootx64.efi");
    fs::copy(&source, &boot).map_err(at("copy", &source))?;
    if let Some(keys) = keys {
        keys.sign(&again)?;
        keys.sign(&boot)?;
    }
    let mtools = |program: &str| {
        let mut command = Command::new(program);
        command
            .env("SOURCE_DATE_EPOCH", crate::base::EPOCH.to_string())
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(esp);
        command
    };
    run(mtools("mmd").args(["::/EFI", "::/EFI/BOOT", "::/EFI/systemd", "::/EFI/bennu"]))?;
    run(mtools("mmd").args(["::/loader", "::/loader/entries"]))?;
    for (file, to) in [
        (again.as_path(), "::/EFI/BOOT/BOOTX64.EFI".to_owned()),
        (&boot, "::/EFI/systemd/systemd-bootx64.efi".to_owned()),
        (parts.uki, format!("::/EFI/bennu/{digest}.efi")),
        (&entry, format!("::/loader/entries/{name}")),
        (&loader, "::/loader/loader.conf".to_owned()),
    ] {
        run(mtools("mcopy").arg(file).arg(to))?;
    }
    let enrolled = keys.map(SecureBoot::enrolled).unwrap_or_default();
    if !enrolled.is_empty() {
        run(mtools("mmd").args(["::/loader/keys", "::/loader/keys/auto"]))?;
        run(mtools("mcopy").args(enrolled).arg("::/loader/keys/auto/"))?;
    }
    Ok(())
}

fn make_state(parts: &Parts<'_>, state: &Path, work: &Path) -> Result<(), BuildError> {
    let tree = work.join("state");
    let blobs = tree.join("store/blobs/sha256");
    fs::create_dir_all(&blobs).map_err(at("create", &blobs))?;
    fs::rename(parts.blob, blobs.join(parts.digest)).map_err(at("rename", parts.blob))?;
    sparse(state, STATE * MIB)?;
    // Files of another user would keep that user's number, so whoever is not root pretends to be.
    let mut command = match is_root() {
        true => Command::new("mkfs.btrfs"),
        false => {
            let mut unshare = Command::new("unshare");
            unshare.args(["--map-root-user", "mkfs.btrfs"]);
            unshare
        }
    };
    run(command
        .args(["--quiet", "--label", "bennu-state", "--uuid", STATE_UUID, "--rootdir"])
        .arg(&tree)
        .arg(state))?;
    fs::remove_dir_all(&tree).map_err(at("remove", &tree))
}

/// Whether this process may give files to root.
fn is_root() -> bool {
    use std::os::unix::fs::MetadataExt as _;
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

fn assemble(esp: &Path, state: &Path, raw: &Path) -> Result<(), BuildError> {
    sparse(raw, (1 + ESP + STATE + 1) * MIB)?;
    run(Command::new("sgdisk")
        .args(["--clear", "--disk-guid", "62656e6e-7500-4000-8000-000000000000"])
        .args(["--new", &format!("1:1M:+{ESP}M"), "--typecode", "1:ef00", "--change-name", "1:bennu-esp"])
        .args(["--partition-guid", "1:62656e6e-7500-4000-8000-000000000002"])
        .args([
            "--new",
            &format!("2:{}M:+{STATE}M", 1 + ESP),
            "--typecode",
            "2:8300",
            "--change-name",
            "2:bennu-state",
        ])
        .args(["--partition-guid", "2:62656e6e-7500-4000-8000-000000000003"])
        .arg(raw))?;
    for (part, start) in [(esp, 1), (state, 1 + ESP)] {
        copy_data(part, raw, start * MIB)?;
        fs::remove_file(part).map_err(at("remove", part))?;
    }
    Ok(())
}

/// Copies what `from` holds into `to`, `offset` bytes in. Holes are passed over, not read: they are nine tenths of a
/// partition.
fn copy_data(from: &Path, to: &Path, offset: u64) -> Result<(), BuildError> {
    let mut source = File::open(from).map_err(at("open", from))?;
    let mut target = File::options().write(true).open(to).map_err(at("open", to))?;
    let mut end = 0;
    // Ends where there is no data behind `end`.
    while let Some(start) = seek(&source, end, Whence::SeekData).map_err(at("read", from))? {
        end = seek(&source, start, Whence::SeekHole).map_err(at("read", from))?.unwrap_or(start);
        source.seek(SeekFrom::Start(start)).map_err(at("read", from))?;
        target.seek(SeekFrom::Start(offset + start)).map_err(at("write", to))?;
        io::copy(&mut (&source).take(end - start), &mut target).map_err(at("write", to))?;
    }
    Ok(())
}

/// `lseek(2)` with `SEEK_DATA` or `SEEK_HOLE`; `None` where there is no more data.
fn seek(file: &File, from: u64, whence: Whence) -> io::Result<Option<u64>> {
    let offset = |number: u64| i64::try_from(number).expect("a file is shorter than 8 EiB");
    match nix::unistd::lseek(file, offset(from), whence) {
        Ok(found) => Ok(Some(u64::try_from(found).expect("an offset that was found is not negative"))),
        Err(nix::errno::Errno::ENXIO) => Ok(None),
        Err(errno) => Err(errno.into()),
    }
}

fn sparse(path: &Path, bytes: u64) -> Result<(), BuildError> {
    File::create_new(path).and_then(|file| file.set_len(bytes)).map_err(at("create", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    #[test]
    fn data_is_copied_to_its_place_and_holes_stay_holes() {
        let folder = tempfile::tempdir().expect("temporary folder");
        let (from, to) = (folder.path().join("from"), folder.path().join("to"));
        sparse(&from, 64 * MIB).expect("made");
        sparse(&to, 80 * MIB).expect("made");
        let source = File::options().write(true).open(&from).expect("opened");
        source.write_all_at(b"first", 0).expect("written");
        source.write_all_at(b"last", 64 * MIB - 4).expect("written");
        copy_data(&from, &to, 8 * MIB).expect("copied");
        let target = File::open(&to).expect("opened");
        let read = |offset, length| {
            let mut bytes = vec![0; length];
            target.read_exact_at(&mut bytes, offset).expect("read");
            bytes
        };
        assert_eq!(read(8 * MIB, 6), b"first\0");
        assert_eq!(read(72 * MIB - 4, 4), b"last");
        assert!(fs::metadata(&to).expect("there").blocks() * 512 < MIB, "holes were written");
    }
}
