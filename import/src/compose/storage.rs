//! `volumes`, `secrets` and `configs`: what is declared, and where services mount it.

use super::topology::external;
use crate::convert;
use crate::draft::Table;
use crate::note::quoted;
use crate::tree::{Field, Map, Unsupported};
use crate::workload::{grant_of, join, unsafe_in_script};
use crate::world::{MAX_CONFIG, Sort, World};

fn named<'a>(field: Option<Field<'a>>) -> Vec<(&'a str, Field<'a>)> {
    field.and_then(|field| field.map()).map(Map::entries).unwrap_or_default()
}

/// The volumes of the file.
pub(super) fn volumes(field: Option<Field<'_>>, world: &mut World<'_>) {
    for (old, field) in named(field) {
        world.volume(old, &field.site);
        let Some(mut map) = field.map() else { continue };
        if let Some(field) = map.get("driver")
            && let Some(driver) = field.text()
            && driver != "local"
        {
            field.changed(
                format!("there is no driver {}: the volume is on the host itself", quoted(driver)),
                "",
            );
        }
        if let Some(field) = map.get("driver_opts") {
            field.changed(
                "there are no options: the volume is on the host itself, and empty at first",
                "for memory, use `tmpfs`",
            );
        }
        if let Some(field) = map.get("external") {
            external(&field, "the volume is made by the host now, and empty at first");
        }
        if let Some(field) = map.get("name") {
            field.advice("a volume has the name of its table", "");
        }
        map.end(&[("labels", "volumes have no labels", "")]);
    }
}

/// The secrets of the file. Their values are not read: they belong into the manifest encrypted only.
pub(super) fn secrets(field: Option<Field<'_>>, world: &mut World<'_>) {
    for (old, field) in named(field) {
        let mut source = "not known here".to_owned();
        if let Some(mut map) = field.map() {
            if let Some(file) = map.get("file").and_then(|field| field.text()) {
                source = format!("in the file {}", quoted(file));
            }
            if let Some(variable) = map.get("environment").and_then(|field| field.text()) {
                source = format!("in the variable {}", quoted(variable));
            }
            if let Some(content) = map.get("content") {
                content
                    .advice("a secret that everybody can read is none", "change it before it is encrypted");
                source = "in the compose file".to_owned();
            }
            if let Some(field) = map.get("external") {
                field.node.settle();
                source = "where the swarm kept it".to_owned();
            }
            if let Some(name) = map.get("name").and_then(|field| field.text()) {
                source = format!("{source}, called {}", quoted(name));
            }
            map.end(&UNSUPPORTED);
        }
        world.secret(old, &source, &field.site);
    }
}

/// The configs of the file, with what is in them.
pub(super) fn configs(field: Option<Field<'_>>, world: &mut World<'_>) {
    for (old, field) in named(field) {
        let Some(mut map) = field.map() else {
            field.lost("a config without content", "write `[config.NAME] content = \"…\"`");
            continue;
        };
        let mut content = map.get("content").and_then(|field| field.text()).map(str::to_owned);
        if let Some(file) = map.get("file")
            && let Some(path) = file.text()
        {
            let path = join(&world.folder(&file.site.place), path);
            content = world.read(&file.site, &path);
        }
        if let Some(field) = map.get("environment") {
            field.lost(
                "variables are not read into configs",
                "write `content = \"${NAME}\"` in the compose file",
            );
        }
        if let Some(field) = map.get("external") {
            external(&field, "its content is not known here");
        }
        if let Some(field) = map.get("name") {
            field.advice("a config has the name of its table", "");
        }
        map.end(&UNSUPPORTED);
        match content {
            Some(text) if text.len() > MAX_CONFIG => {
                let message = format!("it is longer than {MAX_CONFIG} bytes");
                world.notes.lost(&field.site, message, "put it into the image, or into a volume");
            }
            Some(text) => match unsafe_in_script(&text) {
                Some(bad) => world.notes.lost(&field.site, format!("it contains the character {bad}"), ""),
                None => drop(world.config(old, &text, &field.site)),
            },
            None => {
                world.config(old, "", &field.site);
                world.notes.lost(&field.site, "its content is empty", "write it as `content`");
            }
        }
    }
}

const UNSUPPORTED: [Unsupported; 3] = [
    ("labels", "there are no labels on it", ""),
    ("template_driver", "there are no templates", ""),
    ("driver", "there are no drivers", ""),
];

/// What a service mounts: `volumes` and `tmpfs`.
pub(super) fn mounts(old: &str, map: &mut Map<'_>, table: &mut Table, world: &mut World<'_>) {
    for field in map.get("volumes").map(|field| field.list()).unwrap_or_default() {
        if field.is_map() {
            long(old, &field, table, world);
        } else if let Some(text) = field.text() {
            let folder = world.folder(&field.site.place);
            world.mount(table, &field.site, text, old, &folder);
        }
    }
    for field in map.get("tmpfs").map(|field| field.one_or_list()).unwrap_or_default() {
        if let Some(text) = field.text() {
            world.tmpfs(table, &field.site, text);
        }
    }
}

fn long(old: &str, field: &Field<'_>, table: &mut Table, world: &mut World<'_>) {
    let Some(mut map) = field.map() else { return };
    let sort = map.get("type").and_then(|field| field.text()).unwrap_or("volume");
    let source = map.get("source").and_then(|field| field.text()).unwrap_or_default();
    let target = map.get("target").and_then(|field| field.text()).unwrap_or_default();
    let read_only = map.get("read_only").and_then(|field| field.flag()) == Some(true);
    let mut size = None;
    if let Some(mut map) = map.get("tmpfs").and_then(|field| field.map()) {
        if let Some(field) = map.get("size")
            && let Some(text) = field.text()
        {
            size = world.taken(&field.site, convert::size(text));
        }
        map.end(&[("mode", "a tmpfs belongs to root, with mode 1777", "")]);
    }
    if let Some(mut map) = map.get("volume").and_then(|field| field.map()) {
        if let Some(field) = map.get("nocopy") {
            field.advice("a new volume is empty: the image's files are not copied into it", "");
        }
        map.end(&[
            ("subpath", "a volume is mounted as a whole", "declare a volume for it"),
            ("labels", "volumes have no labels", ""),
        ]);
    }
    if let Some(mut map) = map.get("bind").and_then(|field| field.map()) {
        let none = "paths of the host are mounted as they are";
        map.get("create_host_path").inspect(|field| field.advice(none, ""));
        map.end(&[
            ("propagation", none, ""),
            ("selinux", "hosts have no SELinux", ""),
            ("recursive", none, ""),
        ]);
    }
    if let Some(field) = map.get("consistency") {
        field.advice("it makes no difference here", "");
    }
    map.end(&[("image", "images are not mounted into containers", "")]);
    let folder = world.folder(&field.site.place);
    match sort {
        "volume" if !source.starts_with(['/', '.', '~']) => {
            world.mount_of(table, &field.site, (source, target, read_only), old, &folder);
        }
        "bind" if !source.is_empty() => {
            // A path without a slash is a path all the same.
            let source = if source.contains('/') { source.to_owned() } else { format!("./{source}") };
            world.mount_of(table, &field.site, (&source, target, read_only), old, &folder);
        }
        "tmpfs" => world.tmpfs_of(table, &field.site, target, size),
        _ => {
            field.lost(format!("a mount of the type {} with this source is not known here", quoted(sort)), "")
        }
    }
}

/// The secrets and configs that a service gets.
pub(super) fn grants(map: &mut Map<'_>, table: &mut Table, world: &mut World<'_>) {
    for (key, sort) in [("secrets", Sort::Secret), ("configs", Sort::Config)] {
        for field in map.get(key).map(|field| field.list()).unwrap_or_default() {
            grant(&field, sort, table, world);
        }
    }
}

fn grant(field: &Field<'_>, sort: Sort, table: &mut Table, world: &mut World<'_>) {
    let (mut target, mut mode, mut user) = (None, None, None);
    let old = if field.is_map() {
        let Some(mut map) = field.map() else { return };
        let source = map.get("source").and_then(|field| field.text());
        target = map.get("target").and_then(|field| field.text()).map(str::to_owned);
        if let Some(field) = map.get("mode")
            && let Some(text) = field.text()
        {
            mode = world.taken(&field.site, convert::mode(text));
        }
        let uid = map.get("uid").and_then(|field| field.text());
        let gid = map.get("gid").and_then(|field| field.text());
        if uid.is_some() || gid.is_some() {
            user = Some(format!("{}:{}", uid.unwrap_or("0"), gid.unwrap_or("0")));
        }
        map.end(&[]);
        source
    } else {
        field.text()
    };
    let Some(old) = old else {
        field.lost("it has no source", "");
        return;
    };
    if !world.knows(sort, old) {
        field.lost(format!("{} is not declared", quoted(old)), "");
        return;
    }
    let name = world.name(sort, old, &field.site);
    if sort == Sort::Config && !world.draft.configs.contains_key(&name) {
        field.lost(format!("{} has no content", quoted(old)), "");
        return;
    }
    let folder = if sort == Sort::Secret { "/run/secrets" } else { "" };
    let path = match &target {
        Some(target) if target.starts_with('/') => target.clone(),
        Some(target) => format!("{folder}/{target}"),
        None => format!("{folder}/{old}"),
    };
    let Some(path) = world.target(table, &field.site, &path) else { return };
    grant_of(table, sort, name, path, mode, user);
}
