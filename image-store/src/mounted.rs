//! Which blobs are mounted, as the kernel tells it.
//!
//! A blob is mounted on a directory that has its name (`mount`), so the tables of mounts say which are in use, whoever mounted
//! them, in whatever mount namespace, and after any crash.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;

use bennu_manifests::model::Digest;

use crate::names;
use crate::store_error::StoreError;

/// The most bytes that are read of one table.
const MAX_TABLE: u64 = 16 << 20;

/// Blobs by digest, and where they are mounted, alone or in a stack.
pub(crate) type Mounted = BTreeMap<Digest, BTreeSet<String>>;

/// Reads the tables of all mount namespaces that this process may look into.
pub(crate) fn mounted() -> Result<Mounted, StoreError> {
    let mut mounted =
        parse(&table("/proc/self/mountinfo").map_err(StoreError::io("read", "/proc/self/mountinfo"))?);
    let mut known = BTreeSet::new();
    for entry in std::fs::read_dir("/proc").map_err(StoreError::io("list", "/proc"))?.flatten() {
        let name = entry.file_name();
        let Some(process) = name.to_str().filter(|name| name.bytes().all(|b| b.is_ascii_digit())) else {
            continue;
        };
        // Processes end while they are looked at, and those of others may not be.
        let Ok(namespace) = std::fs::metadata(format!("/proc/{process}/ns/mnt")) else { continue };
        if known.insert((namespace.dev(), namespace.ino()))
            && let Ok(text) = table(&format!("/proc/{process}/mountinfo"))
        {
            for (blob, places) in parse(&text) {
                mounted.entry(blob).or_default().extend(places);
            }
        }
    }
    Ok(mounted)
}

fn table(path: &str) -> io::Result<String> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_TABLE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_TABLE {
        return Err(io::ErrorKind::FileTooLarge.into());
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `/proc/PID/mountinfo` (`proc_pid_mountinfo(5)`): of EROFS the place counts, of overlayfs the lower directories. A name that
/// only looks like a blob's keeps one blob too many, which is the harmless side.
fn parse(mountinfo: &str) -> Mounted {
    let mut mounted = Mounted::new();
    for line in mountinfo.lines() {
        let Some((before, after)) = line.split_once(" - ") else { continue };
        let Some(place) = before.split(' ').nth(4) else { continue };
        let mut after = after.split(' ');
        let (kind, options) = (after.next(), after.nth(1).unwrap_or_default());
        let named = match kind {
            Some("erofs") => place,
            Some("overlay") => options,
            _ => continue,
        };
        for word in named.split(['/', ':', ',', '=']) {
            if let Some(blob) = names::digest_of(word.as_ref()) {
                mounted.entry(blob).or_default().insert(place.to_owned());
            }
        }
    }
    mounted
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blobs_are_known_by_the_places_of_erofs_and_the_layers_of_overlayfs() {
        let (a, b) = (Digest::from_bytes([0xaa; 32]), Digest::from_bytes([0xbb; 32]));
        let table = format!(
            "36 35 0:32 / /run/m/layers/{a} ro,nodev shared:1 master:2 - erofs /proc/self/fd/5 ro\n\
             37 35 0:33 / /srv/root ro - overlay bennu ro,lowerdir+=/run/m/layers/{b},lowerdir+=/run/m/empty\n\
             38 35 0:34 / /srv/{c} rw - tmpfs tmpfs rw\n\
             broken\n",
            a = a.hex(),
            b = b.hex(),
            c = Digest::from_bytes([0xcc; 32]).hex(),
        );
        let places = |place: String| BTreeSet::from([place]);
        assert_eq!(
            parse(&table),
            Mounted::from([
                (a, places(format!("/run/m/layers/{}", a.hex()))),
                (b, places("/srv/root".to_owned()))
            ])
        );
        assert!(mounted().is_ok(), "the tables of this machine can be read");
    }
}
