//! Loads the kernel modules that the initrd brings: what the root needs always, drivers where there is a device for
//! them.

use crate::{Failure, because, say};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;

/// Written when the image is built. A line is `always` or the pattern of a `modalias`, and the paths of modules in the
/// order of loading, separated by blanks.
const LIST: &str = "/modules";
const ALWAYS: &str = "always";
/// Where the kernel tells of devices, by bus.
const BUSES: &str = "/sys/bus";

/// The list, and what was loaded of it.
pub(crate) struct Modules {
    list: String,
    loaded: BTreeSet<String>,
    /// Devices that were looked at.
    known: BTreeSet<String>,
}

impl Modules {
    /// Reads the list and loads what is always needed.
    pub(crate) fn load() -> Result<Self, Failure> {
        let list = std::fs::read_to_string(LIST).map_err(|error| because(format!("read {LIST}"), error))?;
        let mut modules = Self { list, loaded: BTreeSet::new(), known: BTreeSet::new() };
        modules.load_where(|pattern| pattern == ALWAYS);
        Ok(modules)
    }

    /// Loads the drivers of devices that appeared since the last call. A driver of a bus makes more devices appear, so this
    /// is called again while a disk is waited for.
    pub(crate) fn load_for_new_devices(&mut self) {
        let mut fresh = Vec::new();
        for alias in aliases(Path::new(BUSES)) {
            if self.known.insert(alias.clone()) {
                fresh.push(alias);
            }
        }
        if !fresh.is_empty() {
            self.load_where(|pattern| fresh.iter().any(|alias| matches(pattern, alias)));
        }
    }

    /// Loads the modules of all lines whose pattern is wanted.
    ///
    /// A module that does not load is no failure by itself: what was truly needed is missed a moment later, by name.
    fn load_where(&mut self, wanted: impl Fn(&str) -> bool) {
        for line in self.list.lines() {
            let mut words = line.split_whitespace();
            if !words.next().is_some_and(&wanted) {
                continue;
            }
            for path in words {
                if self.loaded.insert(path.to_owned())
                    && let Err(error) = load(path)
                {
                    say(&format!("cannot load {path}: {error}"));
                }
            }
        }
    }
}

fn load(path: &str) -> std::io::Result<()> {
    match finit_module(&File::open(path)?, c"", ModuleInitFlags::empty()) {
        // The processor is not one for it, or it is there already.
        Ok(()) | Err(Errno::ENODEV | Errno::EEXIST) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// What the devices of all buses call themselves. A bus or device that goes away meanwhile is passed over.
fn aliases(buses: &Path) -> Vec<String> {
    let list =
        |folder: &Path| std::fs::read_dir(folder).into_iter().flatten().flatten().map(|item| item.path());
    list(buses)
        .flat_map(|bus| list(&bus.join("devices")))
        .filter_map(|device| std::fs::read_to_string(device.join("modalias")).ok())
        .map(|alias| alias.trim_end().to_owned())
        .collect()
}

/// Whether a device's name fits a pattern, where `*` stands for any characters and nothing else is special.
fn matches(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|start| name.strip_prefix(start)) else { return false };
    let Some(end) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        let Some(found) = rest.find(part) else { return false };
        rest = &rest[found + part.len()..];
    }
    rest.ends_with(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_by_class_or_by_device() {
        let disk = "pci:v00001B36d00000010sv00001AF4sd00001100bc01sc08i02";
        assert!(matches("pci:v*d*sv*sd*bc01sc08i02*", disk));
        assert!(!matches("pci:v*d*sv*sd*bc01sc06i01*", disk));
        assert!(matches("virtio:d00000002v*", "virtio:d00000002v00001AF4"));
        assert!(!matches("virtio:d00000002v*", "virtio:d00000008v00001AF4"));
        assert!(matches("mmc:block", "mmc:block"));
        assert!(!matches("mmc:block", "mmc:blocks"));
    }

    #[test]
    fn parts_of_a_pattern_do_not_overlap_in_the_name() {
        assert!(!matches("ab*ba", "aba"));
        assert!(matches("ab*ba", "abba"));
        assert!(!matches("a*b*a", "aa"));
    }

    #[test]
    fn devices_of_every_bus_are_asked() {
        let buses = std::env::temp_dir().join(format!("bennu-init-buses-{}", std::process::id()));
        for (bus, device) in [("pci", "0000:00:01.0"), ("virtio", "virtio0"), ("virtio", "virtio1")] {
            let folder = buses.join(bus).join("devices").join(device);
            std::fs::create_dir_all(&folder).expect("temporary folder");
            std::fs::write(folder.join("modalias"), format!("{bus}:{device}\n")).expect("temporary file");
        }
        std::fs::create_dir_all(buses.join("empty")).expect("temporary folder");
        let mut found = aliases(&buses);
        std::fs::remove_dir_all(&buses).expect("removed");
        found.sort();
        assert_eq!(found, ["pci:0000:00:01.0", "virtio:virtio0", "virtio:virtio1"]);
    }
}
