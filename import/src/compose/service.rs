//! `services`: one container each.

use std::collections::BTreeMap;

use super::{deploy, health, storage, topology};
use crate::convert;
use crate::draft::Table;
use crate::note::{Site, quoted};
use crate::tree::{Field, Map, Unsupported};
use crate::variables;
use crate::workload::join;
use crate::world::{Sort, World, is_alias};

/// What services say of each other, done when all of them are known.
#[derive(Default)]
pub(super) struct Later {
    /// The container, another name for it, and where that was asked for.
    pub(super) aliases: Vec<(String, String, Site)>,
    /// Containers that others wait for to have ended.
    pub(super) completed: Vec<(String, Site)>,
}

/// All services. `networks` are those that the file declares.
pub(super) fn all(services: Vec<(&str, Field<'_>)>, world: &mut World<'_>, networks: BTreeMap<String, ()>) {
    let services: Vec<_> = services
        .into_iter()
        .filter(|(old, field)| !old.starts_with("x-") || field.is_map())
        .map(|(old, field)| {
            let name = world.name(Sort::Container, old, &field.site);
            (old.to_owned(), name, field)
        })
        .collect();
    let mut later = Later::default();
    for (old, name, field) in &services {
        let mut table = Table { origin: Some(field.site.clone()), ..Table::default() };
        if old != name && is_alias(&old.to_ascii_lowercase()) {
            world.alias(&mut table, &field.site, old);
        }
        let Some(mut map) = field.map() else {
            field.lost("a service without an image", "");
            continue;
        };
        one(old, name, &mut map, &mut table, world, &mut later, &networks);
        map.end(&UNSUPPORTED);
        if !table.has("image") {
            world.notes.lost(
                &field.site,
                "without an image there is no container",
                "build one, push it to a registry and name it",
            );
            table.set_because(
                "image",
                "localhost/TO-BE-NAMED",
                "There is no image yet: build one, push it to a registry and name it here.",
            );
        }
        world.draft.containers.push((name.clone(), table));
    }
    let Later { aliases, completed } = later;
    for (name, alias, site) in aliases {
        let Some(mut table) = world.draft.workload(&name).map(std::mem::take) else { continue };
        world.alias(&mut table, &site, &alias);
        if let Some(place) = world.draft.workload(&name) {
            *place = table;
        }
    }
    for (name, site) in completed {
        if world.draft.containers.iter().all(|(known, _)| *known != name) {
            continue;
        }
        let lost = world.draft.make_job(&name, "once");
        let also = if lost.is_empty() { String::new() } else { format!(", without its {}", lost.join(", ")) };
        world.notes.changed(
            &site,
            format!("`{name}` is waited for to end, so it is a job that runs once{also}"),
            "write `when = \"boot\"` if it is to run at each boot",
        );
    }
}

fn one(
    old: &str,
    name: &str,
    map: &mut Map<'_>,
    table: &mut Table,
    world: &mut World<'_>,
    later: &mut Later,
    networks: &BTreeMap<String, ()>,
) {
    if let Some(field) = map.get("image")
        && let Some(text) = field.text()
    {
        world.image(table, &field.site, text);
    }
    for key in ["entrypoint", "command"] {
        if let Some(field) = map.get(key) {
            command(&field, key, table, world);
        }
    }
    environment(map, table, world);
    plain(map, table, world);
    if let Some(field) = map.get("container_name")
        && let Some(text) = field.text()
        && text != name
    {
        if is_alias(text) {
            later.aliases.push((name.to_owned(), text.to_owned(), field.site.clone()));
            field
                .advice(format!("the container is called `{name}`; it is found as {} too", quoted(text)), "");
        } else {
            field.changed(format!("the container is called `{name}`, and only this"), "");
        }
    }
    for (key, to) in [("cap_add", "add-capabilities"), ("cap_drop", "drop-capabilities")] {
        for field in map.get(key).map(|field| field.list()).unwrap_or_default() {
            if let Some(text) = field.text() {
                world.capability(table, to, &field.site, text);
            }
        }
    }
    for field in map.get("security_opt").map(|field| field.list()).unwrap_or_default() {
        if let Some(text) = field.text() {
            world.security_opt(table, &field.site, text);
        }
    }
    for field in map.get("devices").map(|field| field.list()).unwrap_or_default() {
        if let Some(text) = field.text() {
            world.device(table, &field.site, text);
        }
    }
    for field in map.get("group_add").map(|field| field.list()).unwrap_or_default() {
        table_push(table, "groups", field.text());
    }
    for (key, value, field) in map.get("labels").map(|field| field.pairs(&['='])).unwrap_or_default() {
        world.label(table, &field.site, &key, &value.unwrap_or_default());
    }
    for (key, value, field) in map.get("sysctls").map(|field| field.pairs(&['='])).unwrap_or_default() {
        match value {
            Some(value) => table.put("sysctls", &key, value),
            None => field.lost("it has no value", ""),
        }
    }
    ulimits(map, table, world);
    topology::join(map, table, world, later, name, networks);
    storage::mounts(old, map, table, world);
    storage::grants(map, table, world);
    health::read(map, table, world);
    deploy::limits(map, table, world);
    deploy::read(map, table, world);
    dependencies(name, map, table, world, later);
}

/// A command as a list of words, or as a line that is split.
pub(super) fn command(field: &Field<'_>, key: &str, table: &mut Table, world: &World<'_>) {
    if field.is_null() {
        return;
    }
    if field.is_list() {
        let words = field.list().iter().filter_map(|word| word.text().map(str::to_owned)).collect();
        world.command(table, key, &field.site, words);
    } else if let Some(text) = field.text() {
        world.command_line(table, key, &field.site, text);
    }
}

fn table_push(table: &mut Table, key: &str, text: Option<&str>) {
    if let Some(text) = text {
        table.push(key, text);
    }
}

/// Keys with one value each.
fn plain(map: &mut Map<'_>, table: &mut Table, world: &mut World<'_>) {
    if let Some(field) = map.get("user")
        && let Some(text) = field.text()
    {
        world.user(table, &field.site, text);
    }
    if let Some(field) = map.get("working_dir")
        && let Some(text) = field.text()
    {
        world.set(table, "working-directory", &field.site, convert::path(text));
    }
    if let Some(field) = map.get("hostname")
        && let Some(text) = field.text()
    {
        world.hostname(table, &field.site, text);
    }
    if let Some(field) = map.get("domainname")
        && let Some(domain) = field.text()
    {
        match table.text("hostname").map(|host| format!("{host}.{domain}")) {
            Some(whole) => world.hostname(table, &field.site, &whole),
            None => field.lost("a domain goes with a host name", "write `hostname = \"web.example.org\"`"),
        }
    }
    if let Some(field) = map.get("mac_address")
        && let Some(text) = field.text()
    {
        table.set("mac-address", text.to_ascii_lowercase());
    }
    if let Some(field) = map.get("read_only") {
        match field.flag() {
            Some(true) => table.set("read-only-root", true),
            Some(false) => table.set("read-only-root", false),
            None => {}
        }
    }
    if !table.has("read-only-root") {
        table.set_because(
            "read-only-root",
            false,
            "As it was. Better: leave this out, and name what is written as a volume or tmpfs.",
        );
    }
    for (key, to) in [("init", "init"), ("tty", "tty")] {
        if let Some(flag) = map.get(key).and_then(|field| field.flag())
            && flag
        {
            table.set(to, true);
        }
    }
    if let Some(field) = map.get("privileged")
        && let Some(flag) = field.flag()
    {
        world.privileged(table, &field.site, flag);
    }
    if let Some(field) = map.get("restart")
        && let Some(text) = field.text()
    {
        world.restart(table, &field.site, text);
    }
    if let Some(field) = map.get("stop_signal")
        && let Some(text) = field.text()
    {
        world.set(table, "stop-signal", &field.site, convert::signal(text));
    }
    if let Some(field) = map.get("stop_grace_period")
        && let Some(text) = field.text()
    {
        world.stop_timeout(table, &field.site, text);
    }
    if let Some(field) = map.get("shm_size")
        && let Some(text) = field.text()
    {
        world.set(table, "shm-size", &field.site, convert::size(text));
    }
    for (key, to) in [("pid", "pid"), ("ipc", "ipc"), ("userns_mode", "user-namespace")] {
        if let Some(field) = map.get(key)
            && let Some(text) = field.text()
        {
            world.namespace(table, to, &field.site, text);
        }
    }
    if let Some(field) = map.get("oom_score_adj")
        && let Some(text) = field.text()
    {
        let number = text.parse::<i64>().ok().filter(|number| (-1000..=1000).contains(number));
        world.set(
            table,
            "oom-score-adjust",
            &field.site,
            number.ok_or("-1000 to 1000 is expected".to_owned()),
        );
    }
    if let Some(field) = map.get("expose") {
        field.advice("nothing is needed for it: containers of one network reach each other's ports", "");
    }
    if let Some(field) = map.get("pull_policy") {
        field.advice("an image is what its digest says, and fetched when the host has not got it", "");
    }
    if let Some(field) = map.get("profiles") {
        field.changed(
            "the service is in the manifest, whatever its profiles",
            "take it out, or write `on = { LABEL = \"VALUE\" }`",
        );
    }
}

/// `env_file`, then `environment`, which comes before it.
fn environment(map: &mut Map<'_>, table: &mut Table, world: &mut World<'_>) {
    for field in map.get("env_file").map(|field| field.one_or_list()).unwrap_or_default() {
        let (path, required, raw) = if field.is_map() {
            let Some(mut map) = field.map() else { continue };
            let path = map.get("path").and_then(|field| field.text());
            let required = map.get("required").and_then(|field| field.flag()).unwrap_or(true);
            let raw = map.get("format").and_then(|field| field.text()) == Some("raw");
            map.end(&[]);
            (path, required, raw)
        } else {
            (field.text(), true, false)
        };
        let Some(path) = path else { continue };
        let path = join(&world.folder(&field.site.place), path);
        if !required && matches!(world.files.read(&path), Ok(None)) {
            world.notes.advice(
                &field.site,
                format!("there is no file {}, and none is required", quoted(&path)),
                "",
            );
            continue;
        }
        let Some(text) = world.read(&field.site, &path) else { continue };
        env_file(&text, raw, &path, &field.site, table, world);
    }
    for (key, value, field) in map.get("environment").map(|field| field.pairs(&['='])).unwrap_or_default() {
        match value {
            Some(value) => world.environment(table, &field.site, &key, &value),
            None => field.lost(
                format!("{} is passed on from whoever starts it, and nobody does", quoted(&key)),
                "write its value",
            ),
        }
    }
}

/// The variables of a file become a part of the manifest.
pub(crate) fn env_file(text: &str, raw: bool, path: &str, site: &Site, table: &mut Table, world: &World<'_>) {
    let (assignments, wrong) = variables::read_file(text, &BTreeMap::new(), raw);
    for line in wrong {
        world.notes.lost(site, format!("line {line} of {} is no `NAME=VALUE`", quoted(path)), "");
    }
    for assignment in assignments {
        match assignment.value {
            Some(value) => world.environment(table, site, &assignment.key, &value),
            None => {
                let (line, key) = (assignment.line, quoted(&assignment.key));
                let message = format!("{key} (line {line} of {}) has no value there", quoted(path));
                world.notes.lost(site, message, "write its value");
            }
        }
    }
}

fn ulimits(map: &mut Map<'_>, table: &mut Table, world: &World<'_>) {
    let entries = map.get("ulimits").and_then(|field| field.map()).map(Map::entries).unwrap_or_default();
    for (name, field) in entries {
        if field.is_map() {
            let Some(mut map) = field.map() else { continue };
            let soft = map.get("soft").and_then(|field| field.text());
            let hard = map.get("hard").and_then(|field| field.text());
            map.end(&[]);
            let (soft, hard) = (soft.or(hard), hard.or(soft));
            if let (Some(soft), Some(hard)) = (soft, hard) {
                world.ulimit(table, &field.site, name, &format!("{soft}:{hard}"));
            } else {
                field.lost("it has neither a soft nor a hard limit", "");
            }
        } else if let Some(text) = field.text() {
            world.ulimit(table, &field.site, name, text);
        }
    }
}

/// `depends_on`, as a list or with conditions, and the containers that `links` names.
fn dependencies(name: &str, map: &mut Map<'_>, table: &mut Table, world: &mut World<'_>, later: &mut Later) {
    let mut depend = |old: &str, when: &str, site: &Site, world: &mut World<'_>, table: &mut Table| {
        if !world.knows(Sort::Container, old) {
            world.notes.lost(site, format!("there is no service {}", quoted(old)), "");
            return None;
        }
        let other = world.name(Sort::Container, old, site);
        world.depends_on(table, &other, when);
        if when == "completed" {
            later.completed.push((other.clone(), site.clone()));
        }
        Some(other)
    };
    if let Some(field) = map.get("depends_on") {
        if field.is_map() {
            for (old, field) in field.map().map(Map::entries).unwrap_or_default() {
                let Some(mut map) = field.map() else {
                    depend(old, "started", &field.site, world, table);
                    continue;
                };
                let when = match map.get("condition").and_then(|field| field.text()) {
                    None | Some("service_started") => "started",
                    Some("service_healthy") => "healthy",
                    Some("service_completed_successfully") => "completed",
                    Some(other) => {
                        world.notes.lost(&field.site, format!("there is no condition {}", quoted(other)), "");
                        "started"
                    }
                };
                if let Some(restart) = map.get("restart")
                    && restart.flag() == Some(true)
                {
                    restart.lost(
                        "a container is not started again because another was",
                        "let it connect again by itself",
                    );
                }
                if let Some(required) = map.get("required")
                    && required.flag() == Some(false)
                {
                    required.changed("what is depended on is always there", "");
                }
                map.end(&[]);
                depend(old, when, &field.site, world, table);
            }
        } else {
            for field in field.list() {
                if let Some(old) = field.text() {
                    depend(old, "started", &field.site, world, table);
                }
            }
        }
    }
    let mut aliases = Vec::new();
    for field in map.get("links").map(|field| field.list()).unwrap_or_default() {
        let Some(text) = field.text() else { continue };
        let (old, alias) = text.split_once(':').unwrap_or((text, text));
        if let Some(other) = depend(old, "started", &field.site, world, table)
            && alias != other
            && alias != old
        {
            aliases.push((other, alias.to_owned(), field.site.clone()));
        }
    }
    aliases.retain(|(other, ..)| other != name);
    later.aliases.extend(aliases);
}

/// Keys of a service that have no place in a manifest.
const UNSUPPORTED: [Unsupported; 36] = [
    ("annotations", "containers have no annotations", "use labels"),
    ("attach", "nothing is attached: logs go to the journal", "see `hostctl logs`"),
    ("blkio_config", "limits of single devices are not known", "write `limits.io-weight`"),
    ("build", "images are not built on the host", "build it, push it to a registry and name it as `image`"),
    ("cgroup", "each container has a control group of its own", ""),
    ("cgroup_parent", "each container has a control group of its own", "use `limits`"),
    ("configs", "it cannot be read", ""),
    ("cpu_count", "it is for Windows", "write `limits.cpu`"),
    ("cpu_percent", "it is for Windows", "write `limits.cpu`"),
    ("cpu_rt_period", "real-time scheduling is not given away", ""),
    ("cpu_rt_runtime", "real-time scheduling is not given away", ""),
    ("credential_spec", "it is for Windows", ""),
    ("develop", "it is for development", ""),
    ("device_cgroup_rules", "devices are named one by one", "write `devices`"),
    ("external_links", "containers outside the manifest are not known", "use `extra-hosts`"),
    ("gpus", "GPUs are not given by number", "write `devices`, as `/dev/dri/renderD128`"),
    ("isolation", "it is for Windows", ""),
    ("label_file", "files of labels are not read", "write `labels`"),
    ("logging", "logs go to the journal of the host", "see `hostctl logs`"),
    ("mem_swappiness", "it is the host's", "write `limits.swap`"),
    ("models", "AI models are not provided by the host", ""),
    ("oom_kill_disable", "a container that uses up its memory is stopped", "write `oom-score-adjust`"),
    ("platform", "an image is of the architecture of the host", "write `[audience] arch`"),
    ("post_start", "there are no hooks", "make it a job"),
    ("pre_stop", "there are no hooks", "handle the stop signal"),
    ("provider", "services of others are not known", ""),
    ("runtime", "there is one runtime", ""),
    ("stdin_open", "nobody is there to type", "see `hostctl exec`"),
    ("storage_opt", "limits of the root are not known", "write `size` of a volume"),
    ("tmpfs", "it cannot be read", ""),
    ("use_api_socket", "there is no container engine to talk to", ""),
    ("uts", "each container has a host name of its own", ""),
    ("volume_driver", "volumes are the host's own", ""),
    ("volumes_from", "volumes are named one by one", "write the same `volumes` in both"),
    (
        "dockerfile",
        "images are not built on the host",
        "build it, push it to a registry and name it as `image`",
    ),
    ("log_driver", "logs go to the journal of the host", "see `hostctl logs`"),
];
