//! Reads a FAT32 file system as a boot loader does: what cannot be read is not there.
//!
//! Format: Microsoft, "FAT: General Overview of On-Disk Format", version 1.03, and "Long File Name Specification", version 0.5.

use std::io;

use super::view::View;

/// The most clusters of one file or directory; the boot partition has 512 MiB.
const MAX_CLUSTERS: usize = 1 << 17;
/// Bytes of an entry of a directory.
const ENTRY: usize = 32;
const LONG_NAME: u8 = 0x0f;
const VOLUME: u8 = 0x08;
const DIRECTORY: u8 = 0x10;

/// A file or a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its long name, or the short one where it has no other.
    pub name: String,
    /// Whether it is a directory.
    pub directory: bool,
    cluster: u32,
    size: usize,
}

/// A file system on a part of a disk.
#[derive(Debug)]
pub struct Fat<'a> {
    disk: &'a View<'a>,
    /// Where the first cluster, which has number 2, begins; in bytes from the beginning of the disk.
    data: u64,
    /// Bytes of a cluster.
    cluster: usize,
    root: u32,
    table: Vec<u8>,
}

impl<'a> Fat<'a> {
    /// The file system that begins at byte `at` of `disk`.
    ///
    /// # Errors
    /// Where it is none.
    pub fn open(disk: &'a View<'a>, at: u64) -> io::Result<Self> {
        let mut head = [0; 512];
        disk.read(&mut head, at)?;
        let short = |from: usize| u64::from(u16::from_le_bytes([head[from], head[from + 1]]));
        let long = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().expect("four bytes"));
        if head[510..] != [0x55, 0xaa] || short(11) != 512 || &head[82..87] != b"FAT32" {
            return Err(io::Error::other("it is no FAT32 file system with sectors of 512 bytes"));
        }
        let (tables, length) = (u64::from(head[16]), u64::from(long(36)));
        let first = at + short(14) * 512;
        let mut table = vec![0; usize::try_from(length.min(4096) * 512).expect("at most 2 MiB")];
        disk.read(&mut table, first)?;
        let data = first + tables * length * 512;
        Ok(Self { disk, data, cluster: usize::from(head[13]) * 512, root: long(44), table })
    }

    /// What is in the directory at this path, which names nothing else; nothing where there is no such directory.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn list(&self, path: &[&str]) -> io::Result<Vec<Node>> {
        let mut cluster = self.root;
        for name in path {
            let nodes = nodes(&self.chain(cluster, usize::MAX)?);
            match nodes.into_iter().find(|node| node.directory && node.name.eq_ignore_ascii_case(name)) {
                Some(node) => cluster = node.cluster,
                None => return Ok(Vec::new()),
            }
        }
        Ok(nodes(&self.chain(cluster, usize::MAX)?))
    }

    /// The bytes of a file; `None` where its clusters end before it does.
    ///
    /// # Errors
    /// Where the disk can't be read.
    pub fn bytes(&self, node: &Node) -> io::Result<Option<Vec<u8>>> {
        if node.size == 0 {
            return Ok(Some(Vec::new()));
        }
        let mut bytes = self.chain(node.cluster, node.size)?;
        if bytes.len() < node.size {
            return Ok(None);
        }
        bytes.truncate(node.size);
        Ok(Some(bytes))
    }

    /// The bytes of a chain of clusters, at least `enough` of them where it has so many.
    fn chain(&self, first: u32, enough: usize) -> io::Result<Vec<u8>> {
        let mut clusters = Vec::new();
        let mut next = first;
        while let Some(after) = self.after(next)
            && clusters.len() < MAX_CLUSTERS
            && clusters.len() * self.cluster < enough
        {
            clusters.push(next);
            next = after;
        }
        let mut bytes = vec![0; clusters.len() * self.cluster];
        let mut begin = 0;
        while begin < clusters.len() {
            let mut end = begin + 1;
            while end < clusters.len() && clusters[end] == clusters[end - 1] + 1 {
                end += 1;
            }
            let at = self.data + u64::from(clusters[begin] - 2) * self.cluster as u64;
            self.disk.read(&mut bytes[begin * self.cluster..end * self.cluster], at)?;
            begin = end;
        }
        Ok(bytes)
    }

    /// What the table has for a cluster that is in use; `None` for one that is free, bad, or none at all.
    fn after(&self, cluster: u32) -> Option<u32> {
        let place = usize::try_from(cluster).ok().filter(|cluster| *cluster >= 2)? * 4;
        let entry: [u8; 4] = self.table.get(place..place + 4)?.try_into().ok()?;
        Some(u32::from_le_bytes(entry) & 0x0fff_ffff).filter(|next| *next >= 2 && *next != 0x0fff_fff7)
    }
}

/// What a directory of these bytes lists. A long name that does not belong to the short one behind it counts for nothing.
fn nodes(bytes: &[u8]) -> Vec<Node> {
    let mut nodes = Vec::new();
    let mut long = LongName::default();
    for entry in bytes.chunks_exact(ENTRY) {
        match (entry[0], entry[11]) {
            (0, _) => break,
            (0xe5, _) => long = LongName::default(),
            (_, LONG_NAME) => long.take(entry),
            (_, attributes) if attributes & VOLUME != 0 => long = LongName::default(),
            (_, attributes) => {
                let name = std::mem::take(&mut long).of(&entry[..11]).unwrap_or_else(|| short_name(entry));
                let half = |at: usize| u32::from(u16::from_le_bytes([entry[at], entry[at + 1]]));
                let size = u32::from_le_bytes(entry[28..32].try_into().expect("four bytes"));
                nodes.push(Node {
                    name,
                    directory: attributes & DIRECTORY != 0,
                    cluster: half(20) << 16 | half(26),
                    size: usize::try_from(size).expect("four bytes"),
                });
            }
        }
    }
    nodes
}

fn short_name(entry: &[u8]) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).trim_end().to_owned();
    let (stem, extension) = (text(&entry[..8]), text(&entry[8..11]));
    if extension.is_empty() { stem } else { format!("{stem}.{extension}") }
}

/// A long name, whose parts come in order from the last to the first, right before the short name.
#[derive(Debug, Default)]
struct LongName {
    units: Vec<u16>,
    /// The number of the part that has to come next.
    next: u8,
    sum: u8,
}

impl LongName {
    fn take(&mut self, entry: &[u8]) {
        let number = entry[0] & 0x3f;
        if entry[0] & 0x40 != 0 {
            *self = Self { units: Vec::new(), next: number, sum: entry[13] };
        }
        if number == 0 || number != self.next || entry[13] != self.sum {
            *self = Self { next: u8::MAX, ..Self::default() };
            return;
        }
        let part = [1..11, 14..26, 28..32].into_iter().flat_map(|range| entry[range].chunks_exact(2));
        let mut units: Vec<u16> = part.map(|unit| u16::from_le_bytes([unit[0], unit[1]])).collect();
        units.append(&mut self.units);
        self.units = units;
        self.next -= 1;
    }

    /// The name, where all of it is there and it belongs to this short name.
    fn of(self, short: &[u8]) -> Option<String> {
        let sum = short.iter().fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        if self.units.is_empty() || self.next != 0 || self.sum != sum {
            return None;
        }
        let units: Vec<u16> = self.units.into_iter().take_while(|unit| *unit != 0).collect();
        String::from_utf16(&units).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::process::Command;

    use super::super::view::Layer;
    use super::*;
    use crate::disk::{can_record, succeed};

    /// Gives `look` a file system that others have made, with a file in a directory, and lets it change what it reads.
    fn with_file(data: &[u8], look: impl FnOnce(&std::path::Path)) {
        if !can_record(&["mkfs.vfat", "mmd", "mcopy"]) {
            return;
        }
        let dir = tempfile::tempdir().expect("a directory");
        let (image, file) = (dir.path().join("image"), dir.path().join("file"));
        File::create(&image).and_then(|image| image.set_len(64 << 20)).expect("a file");
        fs::write(&file, data).expect("written");
        succeed(Command::new("mkfs.vfat").args(["-F", "32"]).arg(&image)).expect("made");
        succeed(Command::new("mmd").arg("-i").arg(&image).arg("::/loader")).expect("made");
        let copy = |to: &str| {
            succeed(Command::new("mcopy").arg("-i").arg(&image).arg(&file).arg(to)).expect("copied");
        };
        copy("::/loader/bennu-2+3.conf");
        copy("::/loader/ANOTHER.TXT");
        look(&image);
    }

    fn read<T>(image: &std::path::Path, work: impl FnOnce(&Fat<'_>) -> T) -> T {
        let (base, layer) = (File::open(image).expect("a file"), Layer::default());
        let view = View { base: &base, log: &base, layers: [&layer, &layer] };
        work(&Fat::open(&view, 0).expect("a file system"))
    }

    #[test]
    fn what_others_wrote_is_read() {
        let data: Vec<u8> = (0..100_000_u32).map(|n| (n / 7) as u8).collect();
        with_file(&data, |image| {
            read(image, |fat| {
                let nodes = fat.list(&["LOADER"]).expect("read");
                let names: Vec<&str> = nodes.iter().map(|node| node.name.as_str()).collect();
                assert_eq!(names, [".", "..", "bennu-2+3.conf", "ANOTHER.TXT"]);
                assert_eq!(fat.bytes(&nodes[2]).expect("read").as_deref(), Some(&data[..]));
                assert_eq!(fat.list(&["missing"]).expect("read"), []);
            });
        });
    }

    #[test]
    fn a_file_whose_clusters_end_early_and_a_long_name_without_its_parts_are_not_there() {
        with_file(&[7; 100_000], |image| {
            let mut bytes = fs::read(image).expect("read");
            let long = bytes.windows(3).position(|part| part == [b'b', 0, b'e']).expect("a long name");
            bytes[long] = b'x';
            let table = usize::from(u16::from_le_bytes([bytes[14], bytes[15]])) * 512;
            // The third cluster of the first file is free, as where its part of the table was never written.
            let first = usize::from(bytes[long - 1 + 32 + 26]);
            bytes[table + (first + 2) * 4..][..4].fill(0);
            // The sum of the long name is wrong.
            bytes[long - 1 + 13] ^= 1;
            fs::write(image, bytes).expect("written");
            read(image, |fat| {
                let nodes = fat.list(&["loader"]).expect("read");
                assert!(nodes[2].name.ends_with(".CON"), "{nodes:?}");
                assert_eq!(fat.bytes(&nodes[2]).expect("read"), None);
            });
        });
    }
}
