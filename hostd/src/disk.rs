//! Partitions, as the kernel knows them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What sysfs counts blocks in, whatever the disk has (Linux, `include/linux/blk_types.h`, `SECTOR_SIZE`).
const SECTOR: u64 = 512;

/// Where the kernel tells of block devices.
pub(crate) const BLOCK: &str = "/sys/class/block";

/// Something of the kernel's that can't be read.
#[derive(Debug, thiserror::Error)]
#[error("read {}", path.display())]
pub struct ReadError {
    path: PathBuf,
    source: io::Error,
}

pub(crate) fn read_error(path: &Path) -> impl FnOnce(io::Error) -> ReadError {
    let path = path.to_owned();
    move |source| ReadError { path, source }
}

/// Bytes that are free in the file system of a path; none where it can't be asked.
pub(crate) fn free(path: &Path) -> u64 {
    nix::sys::statvfs::statvfs(path).map_or(0, |stat| stat.blocks_available() * stat.fragment_size())
}

/// The device that is mounted at a directory, where it is one.
///
/// # Errors
/// Where the kernel does not tell what is mounted.
pub(crate) fn device_at(directory: &Path) -> Result<Option<PathBuf>, ReadError> {
    let mounts = Path::new("/proc/self/mountinfo");
    let text = fs::read_to_string(mounts).map_err(read_error(mounts))?;
    Ok(source_of(&text, directory).filter(|source| source.starts_with("/dev/")).map(PathBuf::from))
}

/// What is mounted at a directory (proc_pid_mountinfo(5): the fifth field, and the second after the dash).
fn source_of<'a>(mountinfo: &'a str, directory: &Path) -> Option<&'a str> {
    let mut lines = mountinfo.lines().rev();
    let line = lines.find(|line| line.split(' ').nth(4).is_some_and(|at| Path::new(at) == directory))?;
    line.split_once(" - ")?.1.split(' ').nth(1)
}

/// Where a partition is, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// The name of its disk.
    pub(crate) disk: String,
    start: u64,
    /// How large it is.
    pub(crate) size: u64,
    disk_size: u64,
}

impl Place {
    /// The partition that a device is, or that it encrypts; `None` where there is none. `block` is [`BLOCK`].
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub(crate) fn of(block: &Path, device: &Path) -> Result<Option<Self>, ReadError> {
        // The name of a mapping is a link to the device.
        let real = fs::canonicalize(device).unwrap_or_else(|_| device.to_owned());
        let Some(name) = real.file_name().and_then(|name| name.to_str()) else { return Ok(None) };
        let below = fs::read_dir(block.join(name).join("slaves")).into_iter().flatten().flatten();
        let below: Vec<_> = below.filter_map(|entry| entry.file_name().into_string().ok()).collect();
        match below.as_slice() {
            [] => Self::of_partition(block, name),
            [one] => Self::of_partition(block, one),
            _ => Ok(None),
        }
    }

    fn of_partition(block: &Path, name: &str) -> Result<Option<Self>, ReadError> {
        let number = |path: PathBuf| {
            let text = fs::read_to_string(&path).map_err(read_error(&path))?;
            text.trim().parse::<u64>().map_err(io::Error::other).map_err(read_error(&path))
        };
        let own = block.join(name);
        if !own.join("partition").exists() {
            return Ok(None);
        }
        // The directory of a partition is in that of its disk.
        let real = own.canonicalize().map_err(read_error(&own))?;
        let Some(disk) = real.parent().and_then(Path::file_name).and_then(|name| name.to_str()) else {
            return Ok(None);
        };
        Ok(Some(Self {
            start: number(own.join("start"))? * SECTOR,
            size: number(own.join("size"))? * SECTOR,
            disk_size: number(real.with_file_name("size"))? * SECTOR,
            disk: disk.to_owned(),
        }))
    }

    /// What is behind it on the disk.
    pub(crate) fn behind(&self) -> u64 {
        self.disk_size.saturating_sub(self.start.saturating_add(self.size))
    }

    /// The device of its disk.
    pub(crate) fn disk_device(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }
}

/// The device of the partition of this name in a partition table; `None` where there is none.
///
/// # Errors
/// Where the kernel does not tell, or where there are two.
pub(crate) fn named(block: &Path, name: &str) -> Result<Option<PathBuf>, ReadError> {
    let line = format!("PARTNAME={name}");
    let mut found = Vec::new();
    for entry in fs::read_dir(block).map_err(read_error(block))? {
        let device = entry.map_err(read_error(block))?.file_name();
        let told = fs::read_to_string(block.join(&device).join("uevent")).unwrap_or_default();
        if told.lines().any(|told| told == line) {
            found.push(Path::new("/dev").join(device));
        }
    }
    match found.len() {
        0 | 1 => Ok(found.pop()),
        many => Err(read_error(block)(io::Error::other(format!("{many} partitions are called {name}")))),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn the_device_at_a_directory_is_the_one_mounted_last() {
        let text = "22 1 254:2 / /state rw,noatime shared:1 - btrfs /dev/vda2 rw,space_cache\n\
                    23 22 254:3 / /state rw - btrfs /dev/mapper/other rw\n\
                    24 22 0:5 / /state/scratch rw - btrfs /dev/mapper/bennu-scratch rw\n";
        assert_eq!(source_of(text, Path::new("/state")), Some("/dev/mapper/other"));
        assert_eq!(source_of(text, Path::new("/none")), None);
    }

    /// As sysfs has it: the directory of a partition is below that of its disk, and a link leads to it.
    fn sysfs(disk: u64) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        let partition = dir.path().join("devices/vda/vda2");
        let mapping = dir.path().join("devices/dm-0");
        fs::create_dir_all(&partition).unwrap();
        fs::create_dir_all(mapping.join("slaves/vda2")).unwrap();
        fs::create_dir(dir.path().join("block")).unwrap();
        for (name, text) in
            [("partition", "2"), ("start", "2048"), ("size", "4096"), ("uevent", "MAJOR=254\nPARTNAME=state")]
        {
            fs::write(partition.join(name), format!("{text}\n")).unwrap();
        }
        fs::write(dir.path().join("devices/vda/size"), format!("{disk}\n")).unwrap();
        for (name, to) in [("vda2", "vda/vda2"), ("vda", "vda"), ("dm-0", "dm-0")] {
            symlink(format!("../devices/{to}"), dir.path().join("block").join(name)).unwrap();
        }
        dir
    }

    fn place(sysfs: &tempfile::TempDir, device: &str) -> Option<Place> {
        Place::of(&sysfs.path().join("block"), Path::new(device)).unwrap()
    }

    #[test]
    fn what_is_behind_a_partition_is_what_its_disk_has_more() {
        let dir = sysfs(2048 + 4096 + 34);
        let found = place(&dir, "/dev/vda2").unwrap();
        assert_eq!((found.disk.as_str(), found.behind()), ("vda", 34 * SECTOR));
        assert_eq!(place(&dir, "/dev/dm-0"), Some(found), "what it encrypts");
        assert_eq!(place(&dir, "/dev/vda"), None, "a whole disk is no partition");
        assert_eq!(place(&sysfs(4096), "/dev/vda2").unwrap().behind(), 0, "a disk that shrank");
    }

    #[test]
    fn a_partition_is_found_by_its_name_and_two_of_one_name_are_refused() {
        let dir = sysfs(8192);
        let block = dir.path().join("block");
        assert_eq!(named(&block, "state").unwrap(), Some("/dev/vda2".into()));
        assert_eq!(named(&block, "sta").unwrap(), None);
        fs::write(dir.path().join("devices/dm-0/uevent"), "PARTNAME=state\n").unwrap();
        assert!(named(&block, "state").is_err());
    }
}
