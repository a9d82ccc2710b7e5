//! `.container` units.

use std::collections::{BTreeMap, BTreeSet};

use super::{Parsed, is_yes};
use crate::convert;
use crate::flags;
use crate::note::{Site, quoted};
use crate::option::Options;
use crate::tree::Unsupported;
use crate::unit::{self, Setting};
use crate::world::{Sort, World, is_alias};

/// Keys of `[Container]` that are options of `podman run` under another name.
const SAME: [(&str, &str); 42] = [
    ("AddDevice", "device"),
    ("AddHost", "add-host"),
    ("CgroupsMode", "cgroups"),
    ("DNS", "dns"),
    ("DNSOption", "dns-option"),
    ("DNSSearch", "dns-search"),
    ("Entrypoint", "entrypoint"),
    ("ExposeHostPort", "expose"),
    ("GIDMap", "gidmap"),
    ("GroupAdd", "group-add"),
    ("HealthCmd", "health-cmd"),
    ("HealthInterval", "health-interval"),
    ("HealthOnFailure", "health-on-failure"),
    ("HealthRetries", "health-retries"),
    ("HealthStartPeriod", "health-start-period"),
    ("HealthStartupCmd", "health-startup-cmd"),
    ("HealthTimeout", "health-timeout"),
    ("HostName", "hostname"),
    ("IP", "ip"),
    ("IP6", "ip6"),
    ("LogDriver", "log-driver"),
    ("LogOpt", "log-opt"),
    ("Memory", "memory"),
    ("Mount", "mount"),
    ("Network", "network"),
    ("NetworkAlias", "network-alias"),
    ("Notify", "sdnotify"),
    ("PidsLimit", "pids-limit"),
    ("Pod", "pod"),
    ("PublishPort", "publish"),
    ("Pull", "pull"),
    ("Secret", "secret"),
    ("ShmSize", "shm-size"),
    ("StopSignal", "stop-signal"),
    ("StopTimeout", "stop-timeout"),
    ("Timezone", "tz"),
    ("Tmpfs", "tmpfs"),
    ("UIDMap", "uidmap"),
    ("Ulimit", "ulimit"),
    ("UserNS", "userns"),
    ("Volume", "volume"),
    ("WorkingDir", "workdir"),
];

/// Keys of `[Container]` whose value is a list of words, each an option of `podman run`.
const WORDS: [(&str, &str); 6] = [
    ("AddCapability", "cap-add"),
    ("Annotation", "annotation"),
    ("DropCapability", "cap-drop"),
    ("Environment", "env"),
    ("Label", "label"),
    ("Sysctl", "sysctl"),
];

pub(super) fn read(
    unit: &Parsed,
    names: &BTreeSet<&str>,
    timed: &BTreeSet<&str>,
    images: &BTreeMap<String, String>,
    world: &mut World<'_>,
) {
    let name = world.name(Sort::Container, &unit.stem, &unit.site());
    let mut container = Options::new(&unit.stem, "");
    container.table.origin = Some(unit.site());
    let mut job = None;
    let mut group = None;
    let mut podman_name = format!("systemd-{}", unit.stem);
    for setting in &unit.settings {
        let site = unit.at(setting);
        let (value, found) = unit::specifiers(&setting.value);
        // The folder of the unit, or of its user, is where the files are that lie beside it.
        for specifier in found.iter().filter(|specifier| !matches!(specifier.as_str(), "%h" | "%E")) {
            let message = format!("`{specifier}` stands for something of the host that it was on");
            world.notes.changed(&site, message, "write what it stands for");
        }
        match setting.section.as_str() {
            "Container" => match setting.key.as_str() {
                "Image" => match images.get(&value) {
                    Some(image) => world.image(&mut container.table, &site, image),
                    None if value.ends_with(".build") || value.ends_with(".image") => {
                        let message = format!("the unit {} says nothing of a registry here", quoted(&value));
                        world.notes.lost(&site, message, "name the image as `Image=`");
                    }
                    None => world.image(&mut container.table, &site, &value),
                },
                "Exec" => match unit::words(&value) {
                    Some(words) => world.command(&mut container.table, "command", &site, words),
                    None => world.notes.lost(&site, "a quotation mark is not closed", ""),
                },
                "ContainerName" => podman_name = value,
                "EnvironmentFile" => {
                    let path = value.strip_prefix('-').unwrap_or(&value);
                    let path = path.strip_prefix("%h/").unwrap_or(path);
                    container.apply(world, "env-file", path, &site);
                }
                "User" => world.user(&mut container.table, &site, &value),
                "Group" => group = Some((value, site)),
                "NoNewPrivileges" => container.table.set("no-new-privileges", is_yes(&value)),
                "ReadOnly" => container.table.set("read-only-root", is_yes(&value)),
                "RunInit" => {
                    if is_yes(&value) {
                        container.table.set("init", true);
                    }
                }
                "SeccompProfile" => {
                    world.security_opt(&mut container.table, &site, &format!("seccomp={value}"));
                }
                "PodmanArgs" => podman_args(&value, &site, &mut container, world),
                key => {
                    if let Some((_, option)) = SAME.iter().find(|(known, _)| *known == key) {
                        let value = match key {
                            // `-` before a device says that it need not be there.
                            "AddDevice" => value.trim_start_matches('-').to_owned(),
                            "Volume" => volume(&value),
                            _ => value,
                        };
                        container.apply(world, option, &value, &site);
                    } else if let Some((_, option)) = WORDS.iter().find(|(known, _)| *known == key) {
                        match unit::words(&value) {
                            Some(words) => {
                                words.iter().for_each(|word| container.apply(world, option, word, &site))
                            }
                            None => world.notes.lost(&site, "a quotation mark is not closed", ""),
                        }
                    } else {
                        unsupported(&CONTAINER, setting, &site, world);
                    }
                }
            },
            "Unit" => relation(setting, &site, &value, names, &mut container, world),
            "Service" => service(setting, &site, &value, &mut container, &mut job, world),
            // To be started at boot is what a manifest means anyhow.
            "Install" => {}
            "Quadlet" => world.notes.advice(&site, "it makes no difference here", ""),
            section if section.starts_with("X-") => {
                world.notes.advice(&site, "an extension, which means nothing to systemd itself", "");
            }
            section => world.notes.lost(&site, format!("there is no section {}", quoted(section)), ""),
        }
    }
    if let Some((group, site)) = group {
        match container.table.text("user").map(|user| format!("{user}:{group}")) {
            Some(user) => world.user(&mut container.table, &site, &user),
            None => world.notes.lost(&site, "a group goes with a user", "write `user = \"UID:GID\"`"),
        }
    }
    if !unit.settings.iter().any(|setting| setting.section == "Install") {
        let message = "without `[Install]` it was started by hand or by others; now it is started at boot";
        world.notes.changed(&unit.site(), message, "");
    }
    // Others find it by this name, in networks of Podman.
    if podman_name != name && is_alias(&podman_name) && names.len() > 1 {
        world.alias(&mut container.table, &unit.site(), &podman_name);
    }
    let mut table = container.finish(world);
    if !table.has("image") {
        world.notes.lost(&unit.site(), "without an image there is no container", "name one as `Image=`");
        table.set("image", "localhost/TO-BE-NAMED");
    }
    world.draft.containers.push((name.clone(), table));
    // Where there is a timer, that makes it a job.
    if let Some(site) = job.filter(|_| !timed.contains(unit.stem.as_str())) {
        let lost = world.draft.make_job(&name, "boot");
        let also = if lost.is_empty() { String::new() } else { format!(", without its {}", lost.join(", ")) };
        world.notes.changed(&site, format!("it is a job that runs at each boot{also}"), "see `when`");
    }
}

/// `data.volume:/data` names the unit of a volume.
fn volume(value: &str) -> String {
    match value.split_once(':') {
        Some((source, rest)) => {
            let source = source.strip_suffix(".volume").unwrap_or(source);
            format!("{source}:{rest}")
        }
        None => value.to_owned(),
    }
}

fn podman_args(value: &str, site: &Site, container: &mut Options, world: &mut World<'_>) {
    let Some(words) = unit::words(value) else {
        world.notes.lost(site, "a quotation mark is not closed", "");
        return;
    };
    match flags::read(&words, &|_| site.place.clone()) {
        Ok((flags, taken)) => {
            for flag in &flags {
                let site =
                    Site { place: site.place.clone(), path: format!("{}.{}", site.path, flag.site.path) };
                container.apply(world, flag.name, &flag.value, &site);
            }
            for word in &words[taken.min(words.len())..] {
                world.notes.lost(site, format!("{} is no option", quoted(word)), "");
            }
        }
        Err(error) => world.notes.lost(site, error.to_string(), ""),
    }
}

/// `[Unit]`: what it waits for.
fn relation(
    setting: &Setting,
    site: &Site,
    value: &str,
    names: &BTreeSet<&str>,
    container: &mut Options,
    world: &mut World<'_>,
) {
    match setting.key.as_str() {
        "Description" | "Documentation" => container.table.comments.push(value.to_owned()),
        "After" | "Requires" | "Wants" | "BindsTo" | "Requisite" | "PartOf" | "Upholds" => {
            for other in value.split_whitespace() {
                let stem = Parsed::service(other);
                let is_own = other.ends_with(".service") || other.ends_with(".container");
                if is_own && names.contains(stem) {
                    let other = world.name(Sort::Container, stem, site);
                    world.depends_on(&mut container.table, &other, "started");
                } else if other.ends_with("-volume.service") || other.ends_with("-network.service") {
                    // Volumes and networks are there before the containers that name them.
                } else if other.ends_with(".target") {
                    world.notes.advice(site, format!("containers start after {} anyhow", quoted(other)), "");
                } else {
                    let message = format!("{} is not in the manifest", quoted(other));
                    world.notes.lost(site, message, "import it together with this unit");
                }
            }
        }
        _ => world.notes.lost(site, "the unit is made by the host", ""),
    }
}

/// `[Service]`: how it is run.
fn service(
    setting: &Setting,
    site: &Site,
    value: &str,
    container: &mut Options,
    job: &mut Option<Site>,
    world: &mut World<'_>,
) {
    let table = &mut container.table;
    match setting.key.as_str() {
        "Restart" => match value {
            "always" | "on-success" | "no" => {
                world.restart(table, site, if value == "no" { "no" } else { "always" })
            }
            _ => world.restart(table, site, "on-failure"),
        },
        "StartLimitBurst" => {
            let number = value.parse::<u32>().map(i64::from).map_err(|_| "a number is expected".to_owned());
            world.set(table, "restart-attempts", site, number);
        }
        "TimeoutStopSec" => world.stop_timeout(table, site, value),
        "TimeoutStartSec" | "TimeoutSec" => {
            world.notes.advice(site, "fetching is not a part of starting here", "see `update.deadline`");
        }
        "Type" if value == "oneshot" => *job = Some(site.clone()),
        "Type" | "RemainAfterExit" | "KillMode" | "Delegate" => {
            world.notes.advice(site, "the service is made by the host", "");
        }
        "MemoryMax" => world.put(table, ("limits", "memory"), site, convert::size(value)),
        "MemoryLow" | "MemoryMin" => {
            world.put(table, ("limits", "memory-reservation"), site, convert::size(value));
        }
        "MemorySwapMax" => world.put(table, ("limits", "swap"), site, convert::size(value)),
        "CPUQuota" => {
            let percent =
                value.trim_end_matches('%').parse::<f64>().map_err(|_| "a percentage is expected".to_owned());
            let cpus = percent.and_then(|percent| convert::cpus(&(percent / 100.0).to_string()));
            world.put(table, ("limits", "cpu"), site, cpus);
        }
        "CPUWeight" | "IOWeight" => {
            let key = if setting.key == "CPUWeight" { "cpu-weight" } else { "io-weight" };
            let weight = value.parse::<i64>().ok().filter(|weight| (1..=10_000).contains(weight));
            world.put(
                table,
                ("limits", key),
                site,
                weight.ok_or("a weight from 1 to 10000 is expected".to_owned()),
            );
        }
        "AllowedCPUs" => table.put("limits", "cpuset", value.replace(' ', ",")),
        "TasksMax" => {
            let number = value.parse::<i64>().ok().filter(|number| *number > 0);
            world.put(table, ("limits", "pids"), site, number.ok_or("a number is expected".to_owned()));
        }
        "OOMScoreAdjust" => {
            let number = value.parse::<i64>().map_err(|_| "a number is expected".to_owned());
            world.set(table, "oom-score-adjust", site, number);
        }
        _ => unsupported(&SERVICE, setting, site, world),
    }
}

fn unsupported(table: &[Unsupported], setting: &Setting, site: &Site, world: &World<'_>) {
    match table.iter().find(|(known, ..)| *known == setting.key) {
        Some((_, message, hint)) => world.notes.lost(site, *message, *hint),
        None => {
            let known =
                SAME.iter().chain(&WORDS).map(|(key, _)| *key).chain(["Image", "Exec", "User", "ReadOnly"]);
            let hint = bennu_manifests::did_you_mean(&setting.key, known).unwrap_or_default();
            world.notes.lost(site, format!("the key {} is not known here", quoted(&setting.key)), hint);
        }
    }
}

const CONTAINER: [Unsupported; 16] = [
    ("AutoUpdate", "an image is what its digest says", "run `hostctl pin --update` and push the manifest"),
    ("ContainersConfModule", "there is no Podman", ""),
    ("EnvironmentHost", "containers get no variables of the host", "write them as `environment`"),
    ("GlobalArgs", "there is no Podman", ""),
    ("HttpProxy", "containers get no variables of the host", "write them as `environment`"),
    ("Mask", "which paths are masked cannot be said", ""),
    ("ReadOnlyTmpfs", "each tmpfs is named", "write `tmpfs = [\"/run\", \"/tmp\"]`"),
    ("ReloadCmd", "there is no reload", "write `on-change = \"SIGHUP\"`"),
    ("ReloadSignal", "there is no reload", "write `on-change = \"SIGHUP\"`"),
    ("Rootfs", "a container is made of an image", "push it to a registry and name it as `Image=`"),
    ("SecurityLabelDisable", "hosts have no SELinux", ""),
    ("SecurityLabelType", "hosts have no SELinux", ""),
    ("ServiceName", "a service has the name of its container", ""),
    ("StartWithPod", "there are no pods", ""),
    ("SubUIDMap", "each container has a range of ids of its own", ""),
    ("Unmask", "which paths are masked cannot be said", ""),
];

const SERVICE: [Unsupported; 9] = [
    ("EnvironmentFile", "it is for Podman, which is not there", "write it into `[Container]`"),
    ("Environment", "it is for Podman, which is not there", "write it into `[Container]`"),
    ("ExecStartPre", "nothing runs on the host", "make it a job"),
    ("ExecStartPost", "nothing runs on the host", "make it a job"),
    ("ExecStopPost", "nothing runs on the host", ""),
    ("ExecReload", "nothing runs on the host", "write `on-change = \"SIGHUP\"`"),
    ("RestartSec", "a container is started ever more slowly if it keeps dying", ""),
    ("Slice", "the host sorts its services", "use `limits`"),
    ("MemoryHigh", "there is one limit of memory", "write `limits.memory`"),
];
