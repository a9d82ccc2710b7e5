//! `.volume`, `.network`, `.image` and `.timer` units.

use super::{Parsed, is_yes};
use crate::draft::Table;
use crate::note::quoted;
use crate::unit::Setting;
use crate::world::{Sort, World};

/// Sections of no meaning for what is not a service any more.
fn is_idle(setting: &Setting) -> bool {
    matches!(setting.section.as_str(), "Unit" | "Install" | "Service" | "Quadlet")
}

pub(super) fn volume(unit: &Parsed, world: &mut World<'_>) {
    let name = world.volume(&unit.stem, &unit.site());
    let (mut user, mut group) = (None, None);
    for setting in &unit.settings {
        let site = unit.at(setting);
        match setting.key.as_str() {
            _ if is_idle(setting) => world.notes.advice(&site, "a volume is no service", ""),
            "User" => user = Some((setting.value.clone(), site)),
            "Group" => group = Some(setting.value.clone()),
            "VolumeName" => world.notes.advice(&site, "a volume has the name of its table", ""),
            "Copy" => world.notes.advice(&site, "a new volume is empty", ""),
            "Driver" if setting.value == "local" => {}
            "Device" | "Type" | "Options" | "Driver" => {
                world.notes.changed(&site, "the volume is on the host itself, and empty at first", "");
            }
            key => world.notes.lost(&site, format!("volumes have no {}", quoted(key)), ""),
        }
    }
    if user.is_none() && group.is_none() {
        return;
    }
    let (user, site) = user.unwrap_or_else(|| ("0".to_owned(), unit.site()));
    let owner = format!("{user}:{}", group.unwrap_or_else(|| user.clone()));
    if owner.bytes().all(|b| b.is_ascii_digit() || b == b':') {
        if let Some(volume) = world.draft.volumes.get_mut(&name) {
            volume.set("owner", owner);
        }
    } else {
        world.notes.lost(
            &site,
            format!("{} is not made of numbers", quoted(&owner)),
            "write `owner = \"999:999\"`",
        );
    }
}

pub(super) fn network(unit: &Parsed, world: &mut World<'_>) {
    let name = world.network(&unit.stem, &unit.site());
    let mut table = Table::default();
    for setting in &unit.settings {
        let site = unit.at(setting);
        let value = setting.value.as_str();
        match setting.key.as_str() {
            _ if is_idle(setting) => world.notes.advice(&site, "a network is no service", ""),
            "Driver" => match value {
                "bridge" => {}
                "macvlan" | "ipvlan" => table.set("kind", value),
                _ => world.notes.changed(
                    &site,
                    format!("there is no driver {}, it is a bridge", quoted(value)),
                    "",
                ),
            },
            "Subnet" => {
                let key = if value.contains(':') { "subnet6" } else { "subnet" };
                if table.has(key) {
                    world.notes.lost(&site, "there is one subnet of each sort", "make it another network");
                } else {
                    table.set(key, value);
                }
            }
            "Gateway" if !value.contains(':') && !table.has("gateway") => table.set("gateway", value),
            "Gateway" => world.notes.lost(&site, "there is one gateway, an IPv4 address", ""),
            "Internal" => {
                if is_yes(value) {
                    table.set("internal", true);
                }
            }
            "InterfaceName" | "NetworkName" => {
                world.notes.advice(&site, "a network has the name of its table", "");
            }
            "Options" => match value.split_once('=') {
                Some(("mtu", number)) => {
                    let number =
                        number.parse::<u16>().map(i64::from).map_err(|_| "a number is expected".to_owned());
                    world.set(&mut table, "mtu", &site, number);
                }
                Some(("vlan", number)) => {
                    let number =
                        number.parse::<u16>().map(i64::from).map_err(|_| "a number is expected".to_owned());
                    world.set(&mut table, "vlan", &site, number);
                }
                Some(("parent", parent)) => table.set("parent", parent),
                Some(("isolate", "true")) => table.set("isolated", true),
                _ => world.notes.lost(&site, format!("there is no option {}", quoted(value)), ""),
            },
            "IPv6" if !is_yes(value) => {}
            "IPv6" if unit.settings.iter().any(|s| s.key == "Subnet" && s.value.contains(':')) => {}
            "IPv6" => world.notes.lost(
                &site,
                "without a subnet there is no IPv6",
                "write `subnet6 = \"fd00::/64\"`",
            ),
            key => world.notes.lost(&site, format!("networks have no {}", quoted(key)), ""),
        }
    }
    world.draft.networks.insert(name, table);
}

pub(super) fn image(unit: &Parsed, world: &World<'_>) {
    for setting in &unit.settings {
        let site = unit.at(setting);
        match setting.key.as_str() {
            // Taken over where a container names the unit.
            "Image" if setting.section == "Image" => {}
            _ if is_idle(setting) => world.notes.advice(&site, "an image is fetched with what needs it", ""),
            key => world.notes.lost(
                &site,
                format!("{} of an image is said of its registry", quoted(key)),
                "write `[registry.\"HOST\"]`",
            ),
        }
    }
}

/// The container that a timer starts is a job.
pub(super) fn timer(unit: &Parsed, world: &mut World<'_>) {
    let target = unit.target();
    if !world.knows(Sort::Container, target) {
        world.notes.lost(&unit.site(), format!("there is no container {}", quoted(target)), "");
        return;
    }
    let name = world.name(Sort::Container, target, &unit.site());
    let mut when = None;
    for setting in &unit.settings {
        let site = unit.at(setting);
        match (setting.section.as_str(), setting.key.as_str()) {
            ("Timer", "OnCalendar") if when.is_none() => when = Some(setting.value.clone()),
            ("Timer", "OnCalendar") => {
                world.notes.lost(&site, "a job has one calendar", "write one that says both");
            }
            ("Timer", "OnBootSec" | "OnStartupSec") if when.is_none() => {
                when = Some("boot".to_owned());
                world.notes.changed(&site, "the job runs at each boot, without a delay", "");
            }
            ("Timer", "Unit") | ("Install" | "Quadlet", _) => {}
            ("Unit", "Description") => {}
            ("Timer", "Persistent") => {
                world.notes.advice(
                    &site,
                    "whether missed runs are made up for is not said by a manifest",
                    "",
                );
            }
            _ => world.notes.lost(&site, "a job has a calendar and nothing else", "see `when`"),
        }
    }
    let Some(when) = when else {
        world.notes.lost(&unit.site(), "it has no calendar", "write `when`");
        return;
    };
    let lost = world.draft.make_job(&name, &when);
    if let Some(job) = world.draft.workload(&name) {
        job.set("when", when);
    }
    if !lost.is_empty() {
        world.notes.changed(
            &unit.site(),
            format!("`{name}` is a job now, without its {}", lost.join(", ")),
            "",
        );
    }
}
