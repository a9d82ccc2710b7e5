//! What one option of `docker run` says about a container. Quadlet's keys are the same options under other names.

use crate::convert;
use crate::draft::{Table, Value};
use crate::note::{Site, quoted};
use crate::tree::Unsupported;
use crate::workload::{grant_of, join, unsafe_in_line};
use crate::world::{Sort, World};

/// A container while its options are read.
#[derive(Default)]
pub(crate) struct Options {
    pub(crate) table: Table,
    /// How it is called in the input.
    pub(crate) owner: String,
    /// The folder of the files that it names.
    pub(crate) folder: String,
    memory: Option<u64>,
    quota: Option<(f64, Site)>,
    period: Option<f64>,
    addresses: Vec<(String, Site)>,
    health: Table,
    probe: bool,
}

impl Options {
    pub(crate) fn new(owner: &str, folder: &str) -> Self {
        Self { owner: owner.to_owned(), folder: folder.to_owned(), ..Self::default() }
    }

    /// Carries one option over.
    pub(crate) fn apply(&mut self, world: &mut World<'_>, name: &str, value: &str, site: &Site) {
        let on = matches!(value, "true" | "1" | "yes" | "on" | "");
        if self.simple(world, name, value, on, site) || self.limit(world, name, value, site) {
            return;
        }
        let (table, notes) = (&mut self.table, world.notes);
        match name {
            "env" => match value.split_once('=') {
                Some((key, value)) => world.environment(table, site, key, value),
                None => notes.lost(
                    site,
                    format!("{} is passed on from outside", quoted(value)),
                    "write its value",
                ),
            },
            "env-file" => {
                let path = join(&self.folder, value);
                if let Some(text) = world.read(site, &path) {
                    crate::compose::env_file(&text, true, &path, site, table, world);
                }
            }
            "publish" => world.port(table, site, value),
            "volume" => {
                let local = ["$PWD", "${PWD}", "$(pwd)", "%h", "%E"];
                let stripped = local.iter().find_map(|prefix| value.strip_prefix(prefix));
                let value = stripped.map_or(value.to_owned(), |rest| format!(".{rest}"));
                let (owner, folder) = (self.owner.clone(), self.folder.clone());
                world.mount(table, site, &value, &owner, &folder);
            }
            "mount" => self.mount(world, value, site),
            "tmpfs" => world.tmpfs(table, site, value),
            "network" => self.network(world, value, site),
            "network-alias" => world.alias(table, site, value),
            "ip" | "ip6" => self.addresses.push((value.to_owned(), site.clone())),
            "link" | "requires" => {
                let (old, alias) = value.split_once(':').unwrap_or((value, ""));
                let other = world.name(Sort::Container, old, site);
                world.depends_on(table, &other, "started");
                let hint =
                    format!("write `aliases = [\"{alias}\"]` there, and import both into one manifest");
                let message = format!("the container `{other}` has to be in the same manifest");
                notes.changed(site, message, if alias.is_empty() { String::new() } else { hint });
            }
            "add-host" => match value.split_once([':', '=']) {
                Some((name, address)) => world.extra_host(table, site, name, address),
                None => notes.lost(site, "a name and an address are expected", ""),
            },
            "label" => {
                let (key, value) = value.split_once('=').unwrap_or((value, ""));
                world.label(table, site, key, value);
            }
            "secret" => self.secret(world, value, site),
            "sysctl" => match value.split_once('=') {
                Some((key, value)) => table.put("sysctls", key, value),
                None => notes.lost(site, "a name and a value are expected", ""),
            },
            "ulimit" => match value.split_once('=') {
                Some((key, value)) => world.ulimit(table, site, key, value),
                None => notes.lost(site, "a name and a limit are expected", ""),
            },
            "health-cmd" => match value {
                "none" => {}
                _ => {
                    self.probe = true;
                    let words = match value.strip_prefix('[') {
                        Some(_) => list_of_words(value),
                        None => None,
                    };
                    let words = words.unwrap_or_else(|| crate::compose::shell(value));
                    world.command(&mut self.health, "exec", site, words);
                }
            },
            "health-interval" | "health-timeout" | "health-start-period" => {
                let key = name.trim_start_matches("health-");
                if value != "disable" {
                    world.set(&mut self.health, key, site, convert::duration(value));
                }
            }
            "health-retries" => {
                let number =
                    value.parse::<u16>().map(i64::from).map_err(|_| "a number is expected".to_owned());
                world.set(&mut self.health, "retries", site, number);
            }
            "health-on-failure" => {
                let to = if value == "none" { "report" } else { "restart" };
                self.health.set("on-failure", to);
                if matches!(value, "stop" | "kill") {
                    notes.changed(site, "a container that is not healthy is started again", "");
                }
            }
            _ => match UNSUPPORTED.iter().find(|(known, ..)| *known == name) {
                Some((_, message, hint)) => notes.lost(site, *message, *hint),
                None => notes.lost(site, "it is not known here", ""),
            },
        }
    }

    /// Options whose value is that of one key.
    fn simple(&mut self, world: &mut World<'_>, name: &str, value: &str, on: bool, site: &Site) -> bool {
        let (table, notes) = (&mut self.table, world.notes);
        match name {
            "hostname" => world.hostname(table, site, value),
            "mac-address" => table.set("mac-address", value.to_ascii_lowercase()),
            "dns" => table.push_inner("dns", "servers", value),
            "dns-search" => table.push_inner("dns", "search", value),
            "dns-option" => table.push_inner("dns", "options", value),
            "workdir" => world.set(table, "working-directory", site, convert::path(value)),
            "user" => world.user(table, site, value),
            "group-add" => table.push("groups", value),
            "entrypoint" => {
                let words = list_of_words(value)
                    .unwrap_or_else(|| if value.is_empty() { Vec::new() } else { vec![value.to_owned()] });
                world.command(table, "entrypoint", site, words);
            }
            "restart" => world.restart(table, site, value),
            "cap-add" | "cap-drop" => {
                let key = if name == "cap-add" { "add-capabilities" } else { "drop-capabilities" };
                value.split([',', ' ']).filter(|one| !one.is_empty()).for_each(|one| {
                    world.capability(table, key, site, one);
                });
            }
            "security-opt" => world.security_opt(table, site, value),
            "device" => world.device(table, site, value),
            "shm-size" => world.set(table, "shm-size", site, convert::size(value)),
            "pid" | "ipc" => world.namespace(table, name, site, value),
            "userns" => world.namespace(table, "user-namespace", site, value),
            "stop-signal" => world.set(table, "stop-signal", site, convert::signal(value)),
            "stop-timeout" => world.stop_timeout(table, site, value),
            "tz" if unsafe_in_line(value).is_none() && value != "local" => table.set("time-zone", value),
            "init" | "tty" => {
                if on {
                    table.set(name, true);
                }
            }
            "read-only" => table.set("read-only-root", on),
            "privileged" => world.privileged(table, site, on),
            "expose" => notes.advice(site, "nothing is needed for it", ""),
            "pull" => notes.advice(site, "an image is what its digest says", ""),
            "interactive" if on => notes.advice(site, "nobody is there to type", "see `hostctl exec`"),
            "rm" | "rmi" if on => notes.advice(site, "what is not in the manifest is gone anyhow", ""),
            // How the command itself behaves.
            "detach" | "quiet" | "replace" | "sig-proxy" | "rm" | "rmi" | "interactive"
            | "no-healthcheck" => {}
            "tls-verify" | "disable-content-trust" => {
                notes.advice(site, "an image is checked against its digest", "");
            }
            _ => return false,
        }
        true
    }

    fn limit(&mut self, world: &World<'_>, name: &str, value: &str, site: &Site) -> bool {
        let table = &mut self.table;
        match name {
            "memory" => {
                self.memory = convert::bytes(value).ok();
                world.put(table, ("limits", "memory"), site, convert::size(value));
            }
            "memory-reservation" => {
                world.put(table, ("limits", "memory-reservation"), site, convert::size(value));
            }
            "memory-swap" => world.swap(table, site, self.memory, value),
            "cpus" => world.put(table, ("limits", "cpu"), site, convert::cpus(value)),
            "cpu-shares" => {
                if let Some(weight) = world.taken(site, convert::cpu_weight(value)) {
                    table.put("limits", "cpu-weight", weight);
                    let message = format!("{value} shares (of 1024) are a weight of {weight} (of 100)");
                    world.notes.advice(site, message, "");
                }
            }
            "blkio-weight" => world.put(table, ("limits", "io-weight"), site, convert::io_weight(value)),
            "cpuset-cpus" => table.put("limits", "cpuset", value),
            "cpu-quota" | "cpu-period" => match value.parse::<f64>() {
                Ok(number) if number.is_finite() && number > 0.0 => {
                    if name == "cpu-quota" {
                        self.quota = Some((number, site.clone()));
                    } else {
                        self.period = Some(number);
                    }
                }
                _ => world.notes.lost(site, "microseconds are expected", ""),
            },
            "pids-limit" => match value.parse::<i64>() {
                Ok(-1 | 0) => {}
                Ok(number) if number > 0 => table.put("limits", "pids", number),
                _ => world.notes.lost(site, "a number of processes is expected", ""),
            },
            "oom-score-adj" => {
                let number = value.parse::<i64>().ok().filter(|number| (-1000..=1000).contains(number));
                let number = number.ok_or("-1000 to 1000 is expected".to_owned());
                world.set(table, "oom-score-adjust", site, number);
            }
            _ => return false,
        }
        true
    }

    fn network(&mut self, world: &mut World<'_>, value: &str, site: &Site) {
        let (name, options) = value.split_once(':').unwrap_or((value, ""));
        if world.network_mode(&mut self.table, site, name) {
            return;
        }
        if matches!(name, "container" | "ns" | "slirp4netns" | "pasta" | "private") {
            let hint = "join both to a network";
            world.notes.lost(site, format!("there is no mode {}", quoted(value)), hint);
            return;
        }
        let network = world.network(name.strip_suffix(".network").unwrap_or(name), site);
        self.table.push("networks", network.as_str());
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option.split_once('=') {
                Some(("alias", alias)) => world.alias(&mut self.table, site, alias),
                Some(("ip" | "ip6", address)) if address.parse::<std::net::IpAddr>().is_ok() => {
                    self.table.put("addresses", &network, address);
                }
                Some(("mac", address)) => self.table.set("mac-address", address),
                _ => {
                    world.notes.lost(site, format!("there is no option {} of a network", quoted(option)), "")
                }
            }
        }
    }

    /// `type=bind,source=/a,target=/b,readonly`.
    fn mount(&mut self, world: &mut World<'_>, value: &str, site: &Site) {
        let (mut sort, mut source, mut target, mut read_only, mut size) = ("volume", "", "", false, None);
        for option in value.split(',') {
            let (key, value) = option.split_once('=').unwrap_or((option, "true"));
            match key.trim() {
                "type" => sort = value,
                "source" | "src" => source = value,
                "target" | "dst" | "destination" => target = value,
                "readonly" | "ro" => read_only = value == "true",
                "tmpfs-size" | "size" => size = world.taken(site, convert::size(value)),
                "rw" | "volume-nocopy" | "nocopy" | "Z" | "z" | "relabel" => {
                    world.notes.advice(site, format!("the option {} means nothing here", quoted(option)), "");
                }
                _ => world.notes.lost(site, format!("there is no option {} of a mount", quoted(option)), ""),
            }
        }
        let (owner, folder) = (self.owner.clone(), self.folder.clone());
        let source = source.strip_suffix(".volume").unwrap_or(source);
        match sort {
            "volume" => world.mount_of(&mut self.table, site, (source, target, read_only), &owner, &folder),
            "bind" if !source.is_empty() => {
                let source = if source.contains('/') { source.to_owned() } else { format!("./{source}") };
                world.mount_of(&mut self.table, site, (&source, target, read_only), &owner, &folder);
            }
            "tmpfs" => world.tmpfs_of(&mut self.table, site, target, size),
            _ => world.notes.lost(site, format!("there are no mounts of the type {}", quoted(sort)), ""),
        }
    }

    /// `NAME[,type=mount,target=/run/x,mode=0400,uid=1,gid=1]`.
    fn secret(&mut self, world: &mut World<'_>, value: &str, site: &Site) {
        let mut parts = value.split(',');
        let old = parts.next().unwrap_or_default();
        let (mut target, mut mode, mut uid, mut gid, mut env) = (None, None, None, None, false);
        for part in parts {
            match part.split_once('=') {
                Some(("type", "env")) => env = true,
                Some(("type", "mount")) => {}
                Some(("target", path)) => target = Some(path),
                Some(("mode", text)) => mode = world.taken(site, convert::mode(text)),
                Some(("uid", number)) => uid = Some(number),
                Some(("gid", number)) => gid = Some(number),
                _ => world.notes.lost(site, format!("there is no option {} of a secret", quoted(part)), ""),
            }
        }
        let name = world.secret(old, "where `podman secret` keeps it", site);
        if env {
            self.table.put("environment-secrets", target.unwrap_or(old), name);
            return;
        }
        let path = match target {
            Some(path) if path.starts_with('/') => path.to_owned(),
            Some(path) => format!("/run/secrets/{path}"),
            None => format!("/run/secrets/{old}"),
        };
        let Some(path) = world.target(&mut self.table, site, &path) else { return };
        let user = (uid.is_some() || gid.is_some())
            .then(|| format!("{}:{}", uid.unwrap_or("0"), gid.unwrap_or("0")));
        grant_of(&mut self.table, Sort::Secret, name, path, mode, user);
    }

    /// The table, when all options were read.
    pub(crate) fn finish(mut self, world: &World<'_>) -> Table {
        if let Some((quota, site)) = &self.quota {
            let cpus = quota / self.period.unwrap_or(100_000.0);
            world.put(&mut self.table, ("limits", "cpu"), site, convert::cpus(&cpus.to_string()));
        }
        let networks = self.table.entries.get("networks").cloned();
        for (address, site) in &self.addresses {
            let first = match &networks {
                Some(Value::List(list)) => list.first(),
                _ => None,
            };
            match first {
                Some(Value::Text(network)) if address.parse::<std::net::IpAddr>().is_ok() => {
                    if self.table.inner("addresses", network).is_some() {
                        world.notes.lost(site, "there is one fixed address in each network", "");
                    } else {
                        self.table.put("addresses", network, address.as_str());
                    }
                }
                _ => {
                    world.notes.lost(site, "an address is one of a network that is named", "name the network")
                }
            }
        }
        if self.probe {
            // Neither Docker nor Podman starts a container again for it, unless it was told to.
            if !self.health.has("on-failure") {
                self.health.set("on-failure", "report");
            }
            for (key, value) in std::mem::take(&mut self.health.entries) {
                self.table.put("health", &key, value);
            }
        }
        if !self.table.has("read-only-root") {
            self.table.set_because(
                "read-only-root",
                false,
                "As it was. Better: leave this out, and name what is written as a volume or tmpfs.",
            );
        }
        self.table
    }
}

/// A list of words in brackets and quotation marks, `["a", "b"]`.
fn list_of_words(text: &str) -> Option<Vec<String>> {
    let value: toml_edit::Value = text.trim().parse().ok()?;
    value.as_array()?.iter().map(|word| word.as_str().map(str::to_owned)).collect()
}

const DEVICE_LIMITS: &str = "limits of single devices are not known";

/// Options that have no place in a manifest.
const UNSUPPORTED: [Unsupported; 43] = [
    ("annotation", "containers have no annotations", "use labels"),
    ("attach", "nothing is attached", "see `hostctl logs`"),
    ("authfile", "credentials belong to the registry", "write `[registry.\"HOST\"] credentials`"),
    ("blkio-weight-device", DEVICE_LIMITS, "write `limits.io-weight`"),
    ("cgroup-parent", "each container has a control group of its own", "use `limits`"),
    ("cgroupns", "each container has a control group of its own", ""),
    ("cgroups", "each container has a control group of its own", ""),
    ("cidfile", "nothing is written for others to read", "see `hostctl ps`"),
    ("conmon-pidfile", "there is no monitor process", ""),
    ("cpu-count", "it is for Windows", ""),
    ("cpu-percent", "it is for Windows", ""),
    ("cpu-rt-period", "real-time scheduling is not given away", ""),
    ("cpu-rt-runtime", "real-time scheduling is not given away", ""),
    ("cpuset-mems", "memory is not bound to nodes", "write `limits.cpuset`"),
    ("detach-keys", "nothing is attached", ""),
    ("device-cgroup-rule", "devices are named one by one", "write `devices`"),
    ("device-read-bps", DEVICE_LIMITS, "write `limits.io-weight`"),
    ("device-read-iops", DEVICE_LIMITS, "write `limits.io-weight`"),
    ("device-write-bps", DEVICE_LIMITS, "write `limits.io-weight`"),
    ("device-write-iops", DEVICE_LIMITS, "write `limits.io-weight`"),
    ("domainname", "a domain goes with the host name", "write `hostname = \"web.example.org\"`"),
    ("gidmap", "each container has a range of ids of its own", ""),
    ("gpus", "GPUs are not given by number", "write `devices`, as `/dev/dri/renderD128`"),
    ("health-start-interval", "there is one interval", "write `health.interval`"),
    ("health-startup-cmd", "there is no check for the start alone", "write `readiness`"),
    ("isolation", "it is for Windows", ""),
    ("label-file", "files of labels are not read", "write `labels`"),
    ("link-local-ip", "there is one fixed address in each network", ""),
    ("log-driver", "logs go to the journal of the host", "see `hostctl logs`"),
    ("log-opt", "logs go to the journal of the host", "see `hostctl logs`"),
    ("memory-swappiness", "it is the host's", "write `limits.swap`"),
    ("no-hostname", "each container has a host name", ""),
    ("no-hosts", "names are looked up in the networks", ""),
    ("oom-kill-disable", "a container that uses up its memory is stopped", "write `oom-score-adjust`"),
    ("platform", "an image is of the architecture of the host", "write `[audience] arch`"),
    ("pod", "containers share nothing but networks and volumes", "join them to a network"),
    ("publish-all", "the ports are not known here", "name them in `ports`"),
    ("runtime", "there is one runtime", ""),
    ("sdnotify", "containers do not talk to systemd", "write `readiness`"),
    ("storage-opt", "limits of the root are not known", "write `size` of a volume"),
    ("uidmap", "each container has a range of ids of its own", ""),
    ("volume-driver", "volumes are the host's own", ""),
    ("volumes-from", "volumes are named one by one", "write the same `volumes` in both"),
];
