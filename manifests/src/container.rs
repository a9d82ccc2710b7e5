//! One `[container.NAME]`, read for itself; what it names elsewhere is checked in [`crate::relations`].

use std::collections::BTreeMap;

use crate::document::{Item, Section, Sited, Wrong, read_name};
use crate::fault::quoted;
use crate::model::{Container, ImageRef, Limits, Name, Port, Restart, Tmpfs, VolumeMount};
use crate::nearest::did_you_mean;
use crate::reference::{MAX_REFERENCE, NotAReference};
use crate::text::first_unsafe_in_script;
use crate::units::{MIB, TIB, read_cpu, read_duration, read_path, read_port, read_size, read_target};
use crate::words::{read_capability, read_signal};

/// The most entries in any list or table of a container but those below.
const MAX_ENTRIES: usize = 64;
/// The most environment variables, and the most words of a command.
const MAX_WORDS: usize = 256;
/// The longest environment value, and the longest word of a command, in bytes.
const MAX_WORD: usize = 32 * 1024;
/// The longest specification of a port or a mount, in bytes; the longest path is shorter.
const MAX_SPEC: usize = 2048;

/// The size of a tmpfs that names none.
const DEFAULT_TMPFS: u64 = 64 * MIB;
/// How long a container has to stop, if it does not say.
const DEFAULT_STOP: u64 = 10_000;
/// The longest time to stop: an hour.
const MAX_STOP: u64 = 3_600_000;
/// The most processes that Linux numbers at all (PID_MAX_LIMIT of include/linux/threads.h).
const MAX_PIDS: u64 = 4 * 1024 * 1024;
/// The most CPUs, in thousandths; a hundredth of one is the least that systemd's `CPUQuota` takes.
const CPU_MILLIS: std::ops::RangeInclusive<u64> = 10..=1_024_000;

/// A container and where each of its references stands. What is missing was reported as a fault.
pub(crate) struct Draft {
    image: Option<ImageRef>,
    entrypoint: Option<Vec<String>>,
    command: Option<Vec<String>>,
    environment: BTreeMap<String, String>,
    user: Option<String>,
    working_directory: Option<String>,
    pub(crate) ports: Vec<Sited<Port>>,
    pub(crate) networks: Option<Vec<Sited<Name>>>,
    pub(crate) aliases: Vec<Sited<Name>>,
    pub(crate) volumes: Vec<Sited<VolumeMount>>,
    tmpfs: Vec<Sited<Tmpfs>>,
    read_only_root: bool,
    add_capabilities: Vec<String>,
    limits: Limits,
    restart: Restart,
    pub(crate) depends_on: Vec<Sited<Name>>,
    stop_signal: Option<String>,
    stop_timeout_ms: u64,
}

/// The values, without their places.
fn plain<T>(sited: Vec<Sited<T>>) -> Vec<T> {
    sited.into_iter().map(|sited| sited.value).collect()
}

impl Draft {
    pub(crate) fn read(mut section: Section<'_>) -> Self {
        let image =
            section.need("image", "\"HOST/NAME:TAG\"").and_then(|item| item.read(MAX_SPEC, read_image));
        let list = |item: Option<Item<'_>>, read: fn(&str) -> Result<Name, Wrong>| {
            item.and_then(|item| item.each(MAX_ENTRIES, |item| item.read(MAX_SPEC, read)))
        };
        let entrypoint = section.get("entrypoint").and_then(|item| words(&item));
        let command = section.get("command").and_then(|item| words(&item));
        let environment = section.get("environment").map(|item| environment(&item)).unwrap_or_default();
        let user = section.get("user").and_then(|item| item.read(MAX_SPEC, read_user));
        let working_directory =
            section.get("working-directory").and_then(|item| item.read(MAX_SPEC, read_path));
        let ports = section
            .get("ports")
            .and_then(|item| item.each(MAX_ENTRIES, |item| item.read(MAX_SPEC, read_port)));
        let networks = section.get("networks").and_then(|item| {
            let networks = list(Some(item), read_name)?;
            if networks.is_empty() {
                let message = format!("{} names no network", quoted(&format!("{}.networks", section.path)));
                section.faults.add_with(
                    &section.span,
                    message,
                    "leave `networks` out to join `default`".to_owned(),
                );
            }
            Some(networks)
        });
        let aliases = list(section.get("aliases"), read_name);
        let volumes = section
            .get("volumes")
            .and_then(|item| item.each(MAX_ENTRIES, |item| item.read(MAX_SPEC, read_mount)));
        let tmpfs = section
            .get("tmpfs")
            .and_then(|item| item.each(MAX_ENTRIES, |item| item.read(MAX_SPEC, read_tmpfs)));
        let read_only_root = section.get("read-only-root").and_then(|item| item.flag());
        let add_capabilities = section
            .get("add-capabilities")
            .and_then(|item| item.each(MAX_ENTRIES, |item| item.read(MAX_SPEC, read_capability)));
        let limits = section.get("limits").and_then(|item| item.section()).map(limits);
        let restart = section.get("restart").and_then(|item| item.read(MAX_SPEC, read_restart));
        let depends_on = list(section.get("depends-on"), read_name);
        let stop_signal = section.get("stop-signal").and_then(|item| item.read(MAX_SPEC, read_signal));
        let stop_timeout =
            section.get("stop-timeout").and_then(|item| item.read(MAX_SPEC, read_stop_timeout));
        let draft = Self {
            image: image.map(|image| image.value),
            entrypoint,
            command,
            environment,
            user: user.map(|user| user.value),
            working_directory: working_directory.map(|path| path.value),
            ports: ports.unwrap_or_default(),
            networks,
            aliases: aliases.unwrap_or_default(),
            volumes: volumes.unwrap_or_default(),
            tmpfs: tmpfs.unwrap_or_default(),
            read_only_root: read_only_root.unwrap_or(true),
            add_capabilities: plain(add_capabilities.unwrap_or_default()),
            limits: limits.unwrap_or_default(),
            restart: restart.map(|restart| restart.value).unwrap_or_default(),
            depends_on: depends_on.unwrap_or_default(),
            stop_signal: stop_signal.map(|signal| signal.value),
            stop_timeout_ms: stop_timeout.map_or(DEFAULT_STOP, |timeout| timeout.value),
        };
        draft.one_mount_per_target(&section);
        section.end();
        draft
    }

    fn one_mount_per_target(&self, section: &Section<'_>) {
        let volumes = self.volumes.iter().map(|mount| (&mount.value.target, &mount.span));
        let tmpfs = self.tmpfs.iter().map(|tmpfs| (&tmpfs.value.target, &tmpfs.span));
        let mut targets = BTreeMap::new();
        for (target, span) in volumes.chain(tmpfs) {
            if targets.insert(target, span).is_some() {
                let path = quoted(&section.path);
                section.faults.add(span, format!("{path} mounts two things at {}", quoted(target)));
            }
        }
    }

    /// The container, once the document is known to be without fault.
    pub(crate) fn finish(self, default_network: &Name) -> Option<Container> {
        Some(Container {
            image: self.image?,
            entrypoint: self.entrypoint,
            command: self.command,
            environment: self.environment,
            user: self.user,
            working_directory: self.working_directory,
            ports: plain(self.ports),
            networks: self.networks.map_or_else(|| vec![default_network.clone()], plain),
            aliases: plain(self.aliases),
            volumes: plain(self.volumes),
            tmpfs: plain(self.tmpfs),
            read_only_root: self.read_only_root,
            add_capabilities: self.add_capabilities,
            limits: self.limits,
            restart: self.restart,
            depends_on: plain(self.depends_on),
            stop_signal: self.stop_signal,
            stop_timeout_ms: self.stop_timeout_ms,
        })
    }
}

fn read_image(text: &str) -> Result<ImageRef, Wrong> {
    text.parse().map_err(|error| reference_fault(text, &error))
}

/// What is wrong with a reference, and what to do about it.
pub(crate) fn reference_fault(text: &str, error: &NotAReference) -> Wrong {
    let wrong = Wrong::new(format!("{}: {error}", quoted(text)));
    match error {
        NotAReference::Unpinned => {
            wrong.hint("run `hostctl pin FILE` to write the digest that the tag has now")
        }
        NotAReference::NoRegistry if text.len() < MAX_REFERENCE && !text.contains('/') => {
            wrong.hint(format!("name the registry, as `docker.io/library/{}`", crate::text::shown(text)))
        }
        NotAReference::NoRegistry => wrong.hint("name the registry first, as `docker.io/`"),
        _ => wrong.hint("the form is `HOST[:PORT]/NAME[:TAG]@sha256:…`"),
    }
}

/// The words of a command.
fn words(item: &Item<'_>) -> Option<Vec<String>> {
    let texts = item.list(MAX_WORDS)?;
    if texts.is_empty() {
        item.fault(
            format!("{} is empty", quoted(&item.path)),
            "leave it out to take the image's own".to_owned(),
        );
    }
    let word = |item: &Item<'_>| {
        item.checked_text(MAX_WORD, first_unsafe_in_script).map(|text| text.value.to_owned())
    };
    Some(texts.iter().filter_map(word).collect())
}

/// Variables by name (POSIX.1-2017, base definitions, 8.1; and `.` and `-`, which programs use too).
fn environment(item: &Item<'_>) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    for (name, item) in item.section().map(|section| section.entries(MAX_WORDS)).unwrap_or_default() {
        let first = |b: u8| b.is_ascii_alphabetic() || b == b'_';
        let further = |b: u8| first(b) || b.is_ascii_digit() || b == b'.' || b == b'-';
        let sound = (1..=256).contains(&name.value.len())
            && first(name.value.as_bytes()[0])
            && name.value.bytes().all(further);
        if !sound {
            let message = format!("{} is no name of an environment variable", quoted(name.value));
            item.faults.add(&name.span, message);
        }
        if let Some(text) = item.text(MAX_WORD) {
            variables.insert(name.value.to_owned(), text.value.to_owned());
        }
    }
    variables
}

/// `USER[:GROUP]`, each a name or a number.
fn read_user(text: &str) -> Result<String, Wrong> {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-' || b == b'.';
    let part = |part: &str| {
        let name = (1..=32).contains(&part.len()) && part.bytes().all(word) && !part.starts_with(['-', '.']);
        // 2^32 - 1 means "no change" to the kernel (chown(2)), so it is no user.
        let number = part.bytes().all(|b| b.is_ascii_digit());
        name && (!number || part.parse::<u32>().is_ok_and(|id| id != u32::MAX))
    };
    let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
    if part(user) && group.is_none_or(part) {
        Ok(text.to_owned())
    } else {
        Err(Wrong::new(format!("{} is no user", quoted(text)))
            .hint("write `USER` or `USER:GROUP`, as names or numbers"))
    }
}

/// `VOLUME:/TARGET[:ro|:rw]`.
fn read_mount(text: &str) -> Result<VolumeMount, Wrong> {
    const FORM: &str =
        "write `VOLUME:/TARGET`, and `:ro` behind it to mount it read-only, as `data:/var/lib/x:ro`";
    let wrong = || Wrong::new(format!("{} is no mount of a volume", quoted(text))).hint(FORM);
    let mut parts = text.split(':');
    let (Some(volume), Some(target), mode, None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(wrong());
    };
    if volume.starts_with(['/', '.']) {
        let message = format!("{} is a path of the host, and containers get none", quoted(volume));
        return Err(Wrong::new(message).hint("declare a `[volume.NAME]` and mount it by its name"));
    }
    let read_only = match mode {
        None | Some("rw") => false,
        Some("ro") => true,
        Some(_) => return Err(wrong()),
    };
    Ok(VolumeMount { volume: read_name(volume)?, target: read_target(target)?, read_only })
}

/// `/TARGET[:SIZE]`.
fn read_tmpfs(text: &str) -> Result<Tmpfs, Wrong> {
    let (target, size) = match text.split_once(':') {
        Some((target, size)) => (target, read_size(size)?),
        None => (text, DEFAULT_TMPFS),
    };
    if !(4096..=TIB).contains(&size) {
        return Err(Wrong::new("the size of a tmpfs is from 4KiB to 1TiB"));
    }
    Ok(Tmpfs { target: read_target(target)?, size })
}

fn limits(mut section: Section<'_>) -> Limits {
    let memory = section.get("memory").and_then(|item| {
        if !item.is_text() {
            return item.integer(MIB..=1024 * TIB);
        }
        let in_range = |size: u64| {
            let range = MIB..=1024 * TIB;
            if range.contains(&size) { Ok(size) } else { Err(Wrong::new("memory is from 1MiB to 1024TiB")) }
        };
        item.read(MAX_SPEC, |text| read_size(text).and_then(in_range)).map(|size| size.value)
    });
    let cpu_millis = section.get("cpu").and_then(|item| {
        if !item.is_text() {
            return item.integer(1..=1024).map(|cpus| cpus * 1000);
        }
        let in_range = |millis: u64| {
            if CPU_MILLIS.contains(&millis) {
                Ok(millis)
            } else {
                Err(Wrong::new("CPUs are from 0.01 to 1024"))
            }
        };
        item.read(MAX_SPEC, |text| read_cpu(text).and_then(in_range)).map(|millis| millis.value)
    });
    let pids = section.get("pids").and_then(|item| item.integer(1..=MAX_PIDS));
    section.end();
    Limits { memory, cpu_millis, pids }
}

fn read_restart(text: &str) -> Result<Restart, Wrong> {
    match text {
        "always" => Ok(Restart::Always),
        "on-failure" => Ok(Restart::OnFailure),
        "no" => Ok(Restart::No),
        _ => {
            let hint = did_you_mean(text, ["always", "on-failure"]);
            let wrong = Wrong::new(format!("{} is no restart policy", quoted(text)));
            Err(wrong.hint(hint.unwrap_or_else(|| "write `always`, `on-failure` or `no`".to_owned())))
        }
    }
}

fn read_stop_timeout(text: &str) -> Result<u64, Wrong> {
    let timeout = read_duration(text)?;
    if timeout <= MAX_STOP { Ok(timeout) } else { Err(Wrong::new("a container has at most 1h to stop")) }
}
