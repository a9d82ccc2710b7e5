//! Finds the state partition by its name in the partition table.

use crate::{Failure, because};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Name of the state partition in the GPT.
pub(crate) const NAME: &str = "bennu-state";
/// How long disks may take to appear: big controllers need tens of seconds.
const DEADLINE: Duration = Duration::from_secs(60);
/// How often to look again. The kernel would also tell by netlink, but a disk comes once a boot.
const INTERVAL: Duration = Duration::from_millis(20);

/// Waits for the partition, and gives back its device node. `meanwhile` is called before each look.
pub(crate) fn wait_for_state(mut meanwhile: impl FnMut()) -> Result<PathBuf, Failure> {
    let start = Instant::now();
    loop {
        meanwhile();
        let found = find(Path::new("/sys/class/block"))?;
        match found.as_slice() {
            [device] => return Ok(Path::new("/dev").join(device)),
            // Two of them are an attack or an accident with a copied disk; either way nobody can tell which is meant.
            [_, _, ..] => return Err(format!("more than one partition {NAME}: {}", found.join(", ")).into()),
            [] if start.elapsed() > DEADLINE => {
                return Err(format!("no partition {NAME} within {} s", DEADLINE.as_secs()).into());
            }
            [] => std::thread::sleep(INTERVAL),
        }
    }
}

/// Names of all block devices whose partition has the name.
fn find(class: &Path) -> Result<Vec<String>, Failure> {
    let mut found = Vec::new();
    for item in std::fs::read_dir(class).map_err(|error| because("list block devices", error))? {
        let item = item.map_err(|error| because("list block devices", error))?;
        // A device may go away between the two calls.
        let Ok(uevent) = std::fs::read_to_string(item.path().join("uevent")) else { continue };
        found.extend(device_of(&uevent));
    }
    found.sort();
    Ok(found)
}

/// The device's name, where its `uevent` says that it is the state partition (Linux,
/// `Documentation/ABI/testing/sysfs-uevent` and `block/partitions/core.c`).
fn device_of(uevent: &str) -> Option<String> {
    let value = |key: &str| uevent.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    (value("PARTNAME") == Some(NAME)).then(|| value("DEVNAME").map(str::to_owned))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_partition_of_that_very_name_is_taken() {
        let uevent = |name: &str| {
            format!("MAJOR=254\nMINOR=2\nDEVNAME=vda2\nDEVTYPE=partition\nPARTN=2\nPARTNAME={name}\n")
        };
        assert_eq!(device_of(&uevent("bennu-state")), Some("vda2".to_owned()));
        assert_eq!(device_of(&uevent("bennu-state2")), None);
        assert_eq!(device_of("MAJOR=254\nMINOR=0\nDEVNAME=vda\nDEVTYPE=disk\n"), None);
    }

    #[test]
    fn every_partition_of_the_name_is_found() {
        let class = std::env::temp_dir().join(format!("bennu-init-{}", std::process::id()));
        for device in ["vda2", "vdb2", "vdc1"] {
            let name = if device == "vdc1" { "other" } else { NAME };
            std::fs::create_dir_all(class.join(device)).expect("temporary folder");
            std::fs::write(class.join(device).join("uevent"), format!("DEVNAME={device}\nPARTNAME={name}\n"))
                .expect("temporary file");
        }
        let found = find(&class).expect("listed");
        std::fs::remove_dir_all(&class).expect("removed");
        assert_eq!(found, ["vda2", "vdb2"]);
    }
}
