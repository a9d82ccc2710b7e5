//! The initrd: a cpio archive of the first program and the modules it loads.
//!
//! Format: "newc", Linux' `Documentation/driver-api/early-userspace/buffer-format.rst`: each entry is a header of
//! hexadecimal numbers, the name and the data, all padded to 4 bytes; an entry `TRAILER!!!` ends the archive.

use std::collections::BTreeSet;

/// A file in the initrd.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Path with no leading slash.
    pub(crate) path: String,
    /// Permissions.
    pub(crate) mode: u32,
    /// Contents.
    pub(crate) data: Vec<u8>,
}

/// `S_IFDIR`, `S_IFREG` and `S_IFCHR` of `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const CHARACTER: u32 = 0o020_000;

/// Packs the files, with the directories above them and the console.
pub(crate) fn pack(entries: &[Entry]) -> Vec<u8> {
    let mut archive = Archive::default();
    let mut directories = BTreeSet::from(["dev"]);
    for entry in entries {
        directories.extend(entry.path.match_indices('/').map(|(slash, _)| &entry.path[..slash]));
    }
    for directory in directories {
        archive.add(directory, DIRECTORY | 0o755, (0, 0), &[]);
    }
    // The kernel opens it for the first program before anything is mounted: character device 5:1.
    archive.add("dev/console", CHARACTER | 0o600, (5, 1), &[]);
    for entry in entries {
        archive.add(&entry.path, REGULAR | entry.mode, (0, 0), &entry.data);
    }
    archive.add("TRAILER!!!", 0, (0, 0), &[]);
    archive.bytes
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    inodes: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        self.inodes += 1;
        let size = u32::try_from(data.len()).expect("modules and programs are far below 4 GiB");
        let name_size = u32::try_from(name.len() + 1).expect("names are short");
        let fields = [
            self.inodes,
            mode,
            0, // owner
            0, // group
            1, // links
            0, // time
            size,
            0, // device of the file itself
            0,
            major,
            minor,
            name_size,
            0, // checksum, not used by this variant
        ];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(data);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    #[test]
    fn what_is_packed_is_what_cpio_unpacks() {
        let entries = [
            Entry { path: "init".into(), mode: 0o755, data: b"program".to_vec() },
            Entry { path: "usr/lib/modules/1/a.ko".into(), mode: 0o644, data: vec![7; 4099] },
        ];
        let archive = pack(&entries);
        let mut cpio = Command::new("cpio")
            .args(["--extract", "--to-stdout", "--quiet", "usr/lib/modules/1/a.ko"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        cpio.stdin.take().expect("piped").write_all(&archive).expect("taken");
        assert_eq!(cpio.wait_with_output().expect("ended").stdout, vec![7; 4099]);

        let mut list = Command::new("cpio")
            .args(["--list", "--quiet"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("cpio is installed");
        list.stdin.take().expect("piped").write_all(&archive).expect("taken");
        assert_eq!(
            String::from_utf8_lossy(&list.wait_with_output().expect("ended").stdout),
            "dev\nusr\nusr/lib\nusr/lib/modules\nusr/lib/modules/1\ndev/console\ninit\nusr/lib/modules/1/a.ko\n"
        );
    }
}
