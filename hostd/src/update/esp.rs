//! The EFI system partition: boot entries and boot images, written so that a power cut leaves the old way to boot or the new one.
//!
//! Renames on FAT are not journaled: a cut in the middle may leave neither name. So no entry is ever changed in place: a new one
//! is whole on the disk before an old one goes, and which there are to be is decided in [`bennu_planner::update`].

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};

use bennu_image_store::durable;
use bennu_manifests::model::Digest;
use bennu_planner::update::{Entry, EntryName, EspStep, Room};
use nix::mount::{MsFlags, mount, umount};

use crate::disk;

/// The partition's name in the partition table.
const NAME: &str = "bennu-esp";
/// The link to it that udev makes, at some time of the boot.
const LINK: &str = "/dev/disk/by-partlabel/bennu-esp";
/// Where the loader looks for entries (UAPI group, Boot Loader Specification, "Type #1").
const ENTRIES: &str = "loader/entries";
/// Where our boot images are. The loader lists by itself what is in `EFI/Linux`, and must not list these twice.
const IMAGES: &str = "EFI/bennu";
/// The most bytes of an entry's file that are read.
const MAX_ENTRY: u64 = 16 << 10;
/// Bytes that are compared at once.
const BUFFER: usize = 64 << 10;
/// Bytes that are wanted beside a boot image: for the entry, for directories that grow, and for the rest of a last cluster.
const BESIDE_IMAGE: u64 = 256 << 10;
/// The most entries that are looked at.
const MAX_ENTRIES: usize = 1000;

/// Why the boot partition could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {}", path.display())]
pub struct EspError {
    doing: &'static str,
    path: PathBuf,
    source: io::Error,
}

fn failed(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> EspError {
    let path = path.to_owned();
    move |source| EspError { doing, path, source }
}

/// What is on the partition of ours.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Contents {
    /// The entries.
    pub(super) entries: Vec<Entry>,
    /// Roots of which the boot image is there.
    pub(super) images: BTreeSet<Digest>,
}

/// The partition, mounted for as long as this lives.
#[derive(Debug)]
pub(super) struct Esp {
    root: PathBuf,
    mounted: bool,
}

impl Esp {
    /// Mounts the partition below `run`. It is not mounted else, so that nothing writes to it by mistake.
    ///
    /// # Errors
    /// Where it can't be mounted.
    pub(super) fn mount(run: &Path) -> Result<Self, EspError> {
        Self::mount_with(run, MsFlags::empty())
    }

    /// The same to read alone: FAT is written to when it is mounted otherwise, and a power cut may come then (Linux, `fs/fat/inode.c`,
    /// `fat_set_state`).
    ///
    /// # Errors
    /// As [`Esp::mount`].
    pub(super) fn mount_to_read(run: &Path) -> Result<Self, EspError> {
        // What is mounted to be written to at this moment can't be mounted otherwise.
        Self::mount_with(run, MsFlags::MS_RDONLY).or_else(|_| Self::mount(run))
    }

    fn mount_with(run: &Path, how: MsFlags) -> Result<Self, EspError> {
        let root = run.join("esp");
        std::fs::create_dir_all(&root).map_err(failed("make", &root))?;
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC | MsFlags::MS_NOATIME | how;
        // The kernel knows the name before udev does. Where two partitions have it, udev's choice is as good as any.
        let device = disk::named(Path::new(disk::BLOCK), NAME).ok().flatten().unwrap_or_else(|| LINK.into());
        mount(Some(&device), &root, Some("vfat"), flags, Some("umask=0077"))
            .map_err(|errno| failed("mount the boot partition at", &root)(errno.into()))?;
        Ok(Self { root, mounted: true })
    }

    /// The same for a directory that is there, in tests.
    #[cfg(test)]
    fn at(root: &Path) -> Self {
        Self { root: root.to_owned(), mounted: false }
    }

    /// What is there. A file that nobody understands is an entry without a root: it is as good as gone.
    ///
    /// # Errors
    /// Where it can't be read.
    pub(super) fn contents(&self) -> Result<Contents, EspError> {
        let mut contents = Contents::default();
        for file in names(&self.root.join(ENTRIES))? {
            if let Some(name) = EntryName::parse(&file) {
                let path = self.root.join(ENTRIES).join(&file);
                let root = read(&path).ok().and_then(|text| Entry::root_of(&text));
                contents.entries.push(Entry { name, root });
            }
        }
        for file in names(&self.root.join(IMAGES))? {
            let root =
                file.strip_suffix(".efi").and_then(|hex| format!("sha256:{hex}").parse::<Digest>().ok());
            let path = self.root.join(IMAGES).join(&file);
            // A cut in a rename leaves the new name without what it stands for.
            let empty = std::fs::metadata(&path).map_err(failed("look at", &path))?.len() == 0;
            contents.images.extend(root.filter(|_| !empty));
        }
        Ok(contents)
    }

    /// What has to be written for the boot image of a root, of so many bytes, to be there with an entry, and what is free.
    ///
    /// # Errors
    /// Where the partition can't be read.
    pub(super) fn room(&self, root: &Digest, bytes: u64) -> Result<Room, EspError> {
        // They go before the next write.
        let mut left = 0;
        for path in leftovers(&self.root.join(IMAGES))? {
            left += std::fs::metadata(&path).map_err(failed("look at", &path))?.len();
        }
        let needed = if self.contents()?.images.contains(root) { 0 } else { bytes };
        Ok(Room {
            place: "the boot partition",
            needed: needed + BESIDE_IMAGE,
            free: disk::free(&self.root) + left,
        })
    }

    /// The roots of which the boot image is there, or an entry that leads to it, and which is not what `image` gives; one that it can't
    /// give is believed.
    ///
    /// # Errors
    /// Where the partition can't be listed. A boot image that can't be read is a damaged one.
    pub(super) fn damaged(
        &self,
        mut image: impl FnMut(&Digest) -> io::Result<Box<dyn io::Read>>,
    ) -> Result<Vec<Digest>, EspError> {
        let is_damaged = |root: &Digest| {
            let Ok(source) = image(root) else { return false };
            let there = File::open(self.image(root));
            !there.and_then(|there| same(there, source)).unwrap_or(false)
        };
        let Contents { entries, mut images } = self.contents()?;
        images.extend(entries.iter().filter_map(|entry| entry.root));
        Ok(images.into_iter().filter(is_damaged).collect())
    }

    /// Carries steps out, each durable before the next one. `title` is what entries are called; `image` opens the boot image of a
    /// root.
    ///
    /// # Errors
    /// At the first step that does not work. What was done before stays, and leaves a way to boot.
    pub(super) fn carry_out(
        &self,
        steps: &[EspStep],
        title: &str,
        mut image: impl FnMut(&Digest) -> io::Result<Box<dyn io::Read>>,
    ) -> Result<(), EspError> {
        let (entries, images) = (self.root.join(ENTRIES), self.root.join(IMAGES));
        for dir in [&entries, &images] {
            std::fs::create_dir_all(dir).map_err(failed("make", dir))?;
        }
        for path in [leftovers(&entries)?, leftovers(&images)?].concat() {
            std::fs::remove_file(&path).map_err(failed("remove", &path))?;
        }
        for step in steps {
            match step {
                EspStep::WriteImage(root) => {
                    let path = self.image(root);
                    let mut source = image(root).map_err(failed("open the boot image for", &path))?;
                    durable::replace_by(&path, 0o600, |file| io::copy(&mut source, file).map(drop))
                        .and_then(|()| sync_renamed(&path))
                        .map_err(failed("write", &path))?;
                }
                EspStep::WriteEntry(name, root) => {
                    let path = entries.join(name.to_string());
                    let text = Entry::text(name.generation, root, title);
                    durable::replace(&path, text.as_bytes())
                        .and_then(|()| sync_renamed(&path))
                        .map_err(failed("write", &path))?;
                }
                EspStep::RemoveEntry(name) => {
                    let path = entries.join(name.to_string());
                    durable::remove(&path).map_err(failed("remove", &path))?;
                }
                EspStep::RemoveImage(root) => {
                    let path = self.image(root);
                    remove_image(&path).map_err(failed("remove", &path))?;
                }
            }
        }
        Ok(())
    }

    /// Where the boot image of a root is.
    fn image(&self, root: &Digest) -> PathBuf {
        self.root.join(IMAGES).join(format!("{}.efi", root.hex()))
    }
}

impl Drop for Esp {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = umount(&self.root)
        {
            tracing::warn!(%error, "unmount the boot partition");
        }
    }
}

/// Makes durable what a name stands for that a file has just got. Linux gives a file on FAT an empty entry under its new name, and writes
/// length and place into it only with the file, not with the directory (`fs/fat/namei_vfat.c`, `vfat_rename`).
fn sync_renamed(path: &Path) -> io::Result<()> {
    File::options().write(true).open(path)?.sync_all()
}

/// Takes the name of a boot image away before its bytes: a cut between the two would leave a name with part of what it stands for, and
/// that would be taken for a boot image. What is left is removed like any write that was cut short.
fn remove_image(path: &Path) -> io::Result<()> {
    let name = path.file_name().expect("the file of a boot image").to_string_lossy();
    let leaving = path.with_file_name(format!("{}{name}", durable::TEMPORARY_PREFIX));
    match std::fs::rename(path, &leaving) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    durable::sync_dir(path.parent().expect("it is in a directory"))?;
    durable::remove(&leaving)
}

/// What writes that were cut short left in a directory: it would fill the partition.
fn leftovers(dir: &Path) -> Result<Vec<PathBuf>, EspError> {
    let left = |file: &String| file.starts_with(durable::TEMPORARY_PREFIX);
    Ok(names(dir)?.into_iter().filter(left).map(|file| dir.join(file)).collect())
}

/// The names in a directory, which need not be there, in order.
fn names(dir: &Path) -> Result<Vec<String>, EspError> {
    let list = match std::fs::read_dir(dir) {
        Ok(list) => list,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(failed("list", dir)(error)),
    };
    let mut names = Vec::new();
    for item in list.take(MAX_ENTRIES) {
        names.extend(item.map_err(failed("list", dir))?.file_name().into_string());
    }
    names.sort();
    Ok(names)
}

/// Whether two files have the same bytes.
fn same(one: impl io::Read, other: impl io::Read) -> io::Result<bool> {
    let (mut one, mut other) =
        (BufReader::with_capacity(BUFFER, one), BufReader::with_capacity(BUFFER, other));
    loop {
        let (left, right) = (one.fill_buf()?, other.fill_buf()?);
        let both = left.len().min(right.len());
        if left[..both] != right[..both] {
            return Ok(false);
        }
        if both == 0 {
            return Ok(left.is_empty() && right.is_empty());
        }
        one.consume(both);
        other.consume(both);
    }
}

fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(MAX_ENTRY).read_to_string(&mut text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest::from_bytes([0xaa; 32]);
    const B: Digest = Digest::from_bytes([0xbb; 32]);

    fn image(_: &Digest) -> io::Result<Box<dyn io::Read>> {
        Ok(Box::new(&b"boot image"[..]))
    }

    fn no_image(_: &Digest) -> io::Result<Box<dyn io::Read>> {
        Err(io::Error::other("it is not there"))
    }

    #[test]
    fn what_is_carried_out_is_there_and_what_was_left_is_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let esp = Esp::at(dir.path());
        assert_eq!(esp.contents().expect("an empty one"), Contents::default());
        let fresh = EntryName::fresh(9);
        esp.carry_out(&[EspStep::WriteImage(A), EspStep::WriteEntry(fresh, A)], "Bennu", image)
            .expect("written");
        let leftover = dir.path().join(IMAGES).join(format!("{}left", durable::TEMPORARY_PREFIX));
        std::fs::write(&leftover, "half an image").expect("written");
        std::fs::write(dir.path().join(ENTRIES).join("bennu-3+3.conf"), "garbage").expect("written");
        std::fs::write(dir.path().join(ENTRIES).join("other.conf"), "not ours").expect("written");
        // As a power cut in a rename leaves it.
        std::fs::write(dir.path().join(IMAGES).join(format!("{}.efi", B.hex())), "").expect("written");
        let there = esp.contents().expect("read");
        let broken = Entry { name: EntryName::fresh(3), root: None };
        assert_eq!(there.entries, [broken, Entry { name: fresh, root: Some(A) }]);
        assert_eq!(there.images, BTreeSet::from([A]));

        let steps = [EspStep::RemoveEntry(fresh), EspStep::RemoveImage(A)];
        esp.carry_out(&steps, "Bennu", no_image).expect("removed");
        esp.carry_out(&steps, "Bennu", no_image).expect("what is gone already is no error");
        assert_eq!(esp.contents().expect("read").images, BTreeSet::new());
        assert!(!leftover.exists());
        assert!(dir.path().join(ENTRIES).join("other.conf").exists(), "what is not ours stays");
    }

    #[test]
    fn room_is_needed_for_a_boot_image_that_is_not_there_and_what_was_cut_short_takes_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let esp = Esp::at(dir.path());
        let room = |root| esp.room(&root, 1 << 20).expect("asked");
        assert_eq!(room(A).needed, (1 << 20) + BESIDE_IMAGE);
        esp.carry_out(&[EspStep::WriteImage(A)], "Bennu", image).expect("written");
        assert_eq!((room(A).needed, room(B).needed), (BESIDE_IMAGE, (1 << 20) + BESIDE_IMAGE));
        let leftover = dir.path().join(IMAGES).join(format!("{}left", durable::TEMPORARY_PREFIX));
        // More than there is: whatever else is written to this disk meanwhile is less.
        let large = disk::free(dir.path()).saturating_mul(2).max(1);
        File::create(&leftover).and_then(|file| file.set_len(large)).expect("a file of holes");
        assert!(room(B).free >= large, "it goes before anything is written");
    }

    #[test]
    fn f10_a_boot_image_that_is_not_the_one_of_its_root_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let esp = Esp::at(dir.path());
        let steps =
            [EspStep::WriteImage(A), EspStep::WriteImage(B), EspStep::WriteEntry(EntryName::fresh(9), B)];
        esp.carry_out(&steps, "Bennu", image).expect("written");
        let damaged = || esp.damaged(image).expect("listed");
        assert_eq!(damaged(), []);
        let path = dir.path().join(IMAGES).join(format!("{}.efi", B.hex()));
        for bytes in ["", "boot imag", "boot image and more", "boot imagE"] {
            std::fs::write(&path, bytes).expect("written");
            assert_eq!(damaged(), [B], "{bytes:?}");
        }
        std::fs::remove_file(&path).expect("removed");
        assert_eq!(damaged(), [B], "an entry leads to it");
        assert_eq!(esp.damaged(no_image).expect("listed"), [], "nobody can tell");
        esp.carry_out(&[EspStep::WriteImage(B)], "Bennu", image).expect("written");
        assert_eq!(damaged(), []);
    }

    #[test]
    fn an_image_that_cannot_be_brought_leaves_no_entry() {
        let dir = tempfile::tempdir().expect("a directory");
        let esp = Esp::at(dir.path());
        let steps = [EspStep::WriteImage(B), EspStep::WriteEntry(EntryName::fresh(9), B)];
        esp.carry_out(&steps, "Bennu", no_image).expect_err("there is no image");
        assert_eq!(esp.contents().expect("read"), Contents::default());
    }
}
