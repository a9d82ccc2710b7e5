//! How much there is where containers and units of the OS write: volumes, and the layers that are thrown away.
//!
//! Who writes there may do so while it is counted, and may have put anything there: nothing is followed, no file is opened but
//! directories, and every count has a bound.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bennu_manifests::model::{Name, VolumeLife};
use bennu_planner::{Amount, Instance, Layer, Measured, Place, Quota, Seen, SeenVolume};
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, Stat, openat, statat};

use super::{Host, Paths};

/// How many files and directories are looked at, in all.
const MAX_ENTRIES: u32 = 200_000;
/// How many of them in one volume or layer.
const MAX_ENTRIES_OF_ONE: u32 = 50_000;
/// How long all of it may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How deep it is looked; each level holds a descriptor.
const MAX_DEPTH: usize = 64;
/// How many places of a layer are told.
const MAX_PLACES: usize = 10;
/// How many names a path of a place has, in the root of a container and below `/etc` and `/var` of the host.
const NAMES_IN_CONTAINERS: usize = 2;
const NAMES_ON_HOST: usize = 3;
/// Where what is written to `/etc` and `/var` of the host goes (`os-image/init/src/root.rs`).
const HOST: &str = "/run/bennu-scratch";
/// Where the OS says what belongs to its units.
const UNITS: &str = "/usr/lib/systemd/system";
/// The largest file of a unit that is read, in bytes.
const MAX_UNIT: u64 = 64 << 10;

impl Host {
    /// How much there is of what was seen. What can't be read is counted as far as it can.
    pub async fn measure(&self, seen: &Seen) -> Measured {
        let quota = |name: &Name| seen.quotas.get(name).copied().unwrap_or_default();
        let volumes = seen.volumes.iter();
        let volumes: Vec<_> = volumes
            .map(|(name, life)| (name.clone(), *life, self.volumes.path(name, *life), quota(name)))
            .collect();
        let scratch = self.volumes.scratch();
        let instances: Vec<_> = seen.instances.keys().cloned().collect();
        let boot = self.boot.clone();
        let measured = tokio::task::spawn_blocking(move || {
            let mut limit = Limit { entries: MAX_ENTRIES, until: Instant::now() + DEADLINE };
            Measured {
                boot,
                // Layers first: they are small mostly, and a volume that eats up the bound is not to hide them.
                instances: layers(&scratch, instances, &mut limit),
                host: host(Path::new(HOST), &units(Path::new(UNITS)), &mut limit),
                volumes: volumes.into_iter().map(|volume| amount(volume, &mut limit)).collect(),
            }
        });
        measured.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))
    }
}

fn amount(
    (name, life, path, quota): (Name, VolumeLife, PathBuf, Quota),
    limit: &mut Limit,
) -> (Name, SeenVolume) {
    let counted = || {
        let mut walk = Walk::new(limit, 0);
        walk.look_at(&path, "").then_some(walk.layer.amount)
    };
    let known = quota.used.map(|bytes| Amount { bytes, at_least: false });
    (name, SeenVolume { life, holds: known.or_else(counted) })
}

fn layers(scratch: &Path, instances: Vec<Instance>, limit: &mut Limit) -> BTreeMap<Instance, Layer> {
    let layer = |instance: Instance| {
        let mut walk = Walk::new(limit, NAMES_IN_CONTAINERS);
        // Where it may not write there is none.
        walk.look_at(&Paths::upper(scratch, &instance).join("data"), "");
        (instance, walk.layer())
    };
    instances.into_iter().map(layer).collect()
}

fn host(scratch: &Path, units: &BTreeMap<String, String>, limit: &mut Limit) -> Layer {
    let mut walk = Walk::new(limit, NAMES_ON_HOST);
    walk.units = Some(units);
    for name in ["etc", "var"] {
        walk.look_at(&scratch.join(name), &format!("/{name}"));
    }
    walk.layer()
}

/// The directories that units of the OS say to be theirs (systemd.exec(5), `StateDirectory=` and its like), with the unit's name.
fn units(dir: &Path) -> BTreeMap<String, String> {
    use std::io::Read as _;
    // The journal says so nowhere.
    let mut found = BTreeMap::from([("/var/log/journal".to_owned(), "systemd-journald.service".to_owned())]);
    let Ok(entries) = std::fs::read_dir(dir) else { return found };
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.ends_with(".service") || name.contains('@') {
            continue;
        }
        let mut text = String::new();
        let Ok(file) = std::fs::File::open(entry.path()) else { continue };
        if file.take(MAX_UNIT).read_to_string(&mut text).is_err() {
            continue;
        }
        for (key, value) in text.lines().filter_map(|line| line.split_once('=')) {
            let below = match key {
                "StateDirectory" => "/var/lib",
                "CacheDirectory" => "/var/cache",
                "LogsDirectory" => "/var/log",
                "ConfigurationDirectory" => "/etc",
                _ => continue,
            };
            let paths = value.split_ascii_whitespace().filter(|path| !path.contains(['%', ':', '"']));
            found.extend(paths.map(|path| (format!("{below}/{path}"), name.clone())));
        }
    }
    found
}

/// What may still be looked at.
struct Limit {
    entries: u32,
    until: Instant,
}

/// A count that is under way.
struct Walk<'a> {
    limit: &'a mut Limit,
    /// What may still be looked at of this one.
    left: u32,
    layer: Layer,
    places: BTreeMap<String, (u64, u64)>,
    /// How many names the path of a place has; with 0 there are none.
    names: usize,
    units: Option<&'a BTreeMap<String, String>>,
    /// Files of several names that were counted: device and inode.
    linked: BTreeSet<(u64, u64)>,
}

impl<'a> Walk<'a> {
    fn new(limit: &'a mut Limit, names: usize) -> Self {
        Self {
            limit,
            left: MAX_ENTRIES_OF_ONE,
            layer: Layer::default(),
            places: BTreeMap::new(),
            names,
            units: None,
            linked: BTreeSet::new(),
        }
    }

    /// Counts what is in a directory, which its writer knows by `path`. Whether it is there is returned.
    fn look_at(&mut self, dir: &Path, path: &str) -> bool {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let Ok(dir) = openat(CWD, dir, flags, Mode::empty()) else { return false };
        let Ok(stat) = rustix::fs::fstat(&dir) else { return false };
        self.directory(&dir, stat.st_dev, path, None, 0);
        true
    }

    fn directory(&mut self, dir: &OwnedFd, device: u64, path: &str, place: Option<&str>, depth: usize) {
        let Ok(entries) = Dir::read_from(dir) else {
            self.layer.amount.at_least = true;
            return;
        };
        for entry in entries {
            let Ok(entry) = entry else {
                self.layer.amount.at_least = true;
                return;
            };
            if matches!(entry.file_name().to_bytes(), b"." | b"..") {
                continue;
            }
            if self.left == 0 || self.limit.entries == 0 || Instant::now() >= self.limit.until {
                self.layer.amount.at_least = true;
                return;
            }
            (self.left, self.limit.entries) = (self.left - 1, self.limit.entries - 1);
            // What is gone by now is not there.
            let Ok(stat) = statat(dir, entry.file_name(), AtFlags::SYMLINK_NOFOLLOW) else { continue };
            let path = match self.names {
                0 => String::new(),
                _ => format!("{path}/{}", entry.file_name().to_string_lossy()),
            };
            let place = self.place(&path, place);
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                self.subdirectory(dir, entry.file_name(), &stat, device, &path, place.as_deref(), depth);
            } else {
                self.file(&stat, place.as_deref().unwrap_or(&path));
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "where it is and how its writer calls it")]
    fn subdirectory(
        &mut self,
        dir: &OwnedFd,
        name: &CStr,
        stat: &Stat,
        device: u64,
        path: &str,
        place: Option<&str>,
        depth: usize,
    ) {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // Another file system is not of this layer.
        if stat.st_dev != device {
            return;
        }
        match openat(dir.as_fd(), name, flags, Mode::empty()) {
            Ok(below) if depth < MAX_DEPTH => self.directory(&below, device, path, place, depth + 1),
            _ => self.layer.amount.at_least = true,
        }
    }

    /// The place that a path belongs to: the directory of a unit, else that of its first names.
    fn place(&self, path: &str, above: Option<&str>) -> Option<String> {
        let is_unit = self.units.is_some_and(|units| units.contains_key(path));
        let is_deep = self.names > 0 && path.bytes().filter(|byte| *byte == b'/').count() == self.names;
        match above {
            Some(above) if !is_unit => Some(above.to_owned()),
            _ => (is_unit || is_deep).then(|| path.to_owned()),
        }
    }

    fn file(&mut self, stat: &Stat, place: &str) {
        // How overlayfs writes down what was removed (Linux, "Overlay Filesystem", whiteouts).
        if FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0 {
            self.layer.removed += 1;
            return;
        }
        if stat.st_nlink > 1 && !self.linked.insert((stat.st_dev, stat.st_ino)) {
            return;
        }
        // Of a file with holes only what is there; blocks are of 512 bytes (stat(2)).
        let size = u64::try_from(stat.st_size).unwrap_or_default();
        let bytes = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => size.min(u64::try_from(stat.st_blocks).unwrap_or_default() * 512),
            _ => 0,
        };
        self.layer.amount.bytes += bytes;
        self.layer.files += 1;
        if self.names > 0 {
            let place = self.places.entry(place.to_owned()).or_default();
            *place = (place.0 + bytes, place.1 + 1);
        }
    }

    fn layer(self) -> Layer {
        let unit = |path: &str| self.units.and_then(|units| units.get(path)).cloned();
        let place = |(path, (bytes, files)): (String, (u64, u64))| {
            let unit = unit(&path);
            Place { path, bytes, files, unit }
        };
        let mut places: Vec<_> = self.places.into_iter().map(place).collect();
        places.sort_by(|a, b| (b.bytes, b.files, &a.path).cmp(&(a.bytes, a.files, &b.path)));
        places.truncate(MAX_PLACES);
        Layer { places, ..self.layer }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn limit(entries: u32) -> Limit {
        Limit { entries, until: Instant::now() + DEADLINE }
    }

    fn write(path: PathBuf, bytes: usize) {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, vec![7; bytes]).unwrap();
    }

    #[test]
    fn what_was_written_is_told_by_place_and_unit_and_nothing_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (scratch, system) = (dir.path().join("scratch"), dir.path().join("units"));
        write(scratch.join("var/lib/app/deep/er/one"), 8192);
        write(scratch.join("var/lib/app/two"), 4096);
        write(scratch.join("etc/hosts"), 4096);
        write(scratch.join("var/lib/systemd/timesync/clock"), 4096);
        write(dir.path().join("elsewhere/large"), 1 << 20);
        fs::hard_link(scratch.join("etc/hosts"), scratch.join("var/lib/app/hosts")).unwrap();
        std::os::unix::fs::symlink(dir.path().join("elsewhere"), scratch.join("var/lib/app/link")).unwrap();
        fs::create_dir_all(&system).unwrap();
        let unit = "[Service]\nStateDirectory=systemd/timesync\nCacheDirectory=a:b %i\n";
        fs::write(system.join("systemd-timesyncd.service"), unit).unwrap();

        let units = units(&system);
        assert_eq!(units.len(), 2, "{units:?}");
        let layer = host(&scratch, &units, &mut limit(1000));
        assert_eq!((layer.amount, layer.files), (Amount { bytes: 20480, at_least: false }, 5));
        let places: Vec<_> =
            layer.places.iter().map(|p| (p.path.as_str(), p.bytes, p.files, p.unit.as_deref())).collect();
        assert_eq!(
            places,
            [
                ("/var/lib/app", 12288, 3, None),
                ("/etc/hosts", 4096, 1, None),
                ("/var/lib/systemd/timesync", 4096, 1, Some("systemd-timesyncd.service")),
            ]
        );
        assert_eq!(host(&dir.path().join("nothing"), &units, &mut limit(1000)), Layer::default());
    }

    #[test]
    fn a_count_ends_at_its_bound_and_says_so() {
        let dir = tempfile::tempdir().unwrap();
        let instance: Instance = "web-1".parse().unwrap();
        let data = Paths::upper(dir.path(), &instance).join("data");
        for number in 0..10 {
            write(data.join(format!("tmp/{number}")), 4096);
        }
        let layer =
            |entries| layers(dir.path(), vec![instance.clone()], &mut limit(entries)).remove(&instance);
        let whole = layer(100).unwrap();
        assert_eq!((whole.amount, whole.files), (Amount { bytes: 40960, at_least: false }, 10));
        assert_eq!(whole.places.len(), MAX_PLACES);
        let part = layer(6).unwrap();
        assert_eq!((part.amount, part.files), (Amount { bytes: 20480, at_least: true }, 5));
    }

    #[test]
    fn what_nobody_counts_is_counted_and_what_is_counted_is_believed() {
        let dir = tempfile::tempdir().unwrap();
        write(dir.path().join("data/base/table"), 4096);
        let volume = |quota| {
            let path = dir.path().join("data");
            amount(("data".parse().unwrap(), VolumeLife::Keep, path, quota), &mut limit(100)).1.holds
        };
        let bytes = |bytes| Some(Amount { bytes, at_least: false });
        assert_eq!(volume(Quota::default()), bytes(4096));
        assert_eq!(volume(Quota { used: Some(5), limit: None }), bytes(5));
    }
}
