//! What all of an import shares: the draft, the notes, the files beside the input, and the names that were given.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::draft::{Draft, Table, Value};
use crate::note::{Kind, Notes, Place, Site, quoted};
use crate::settle::settle;
use crate::write::string;

/// The most files that one import reads besides its input.
const MAX_FILES: usize = 64;
/// The longest content of a `[config.…]` that is made of a file, in bytes.
pub(crate) const MAX_CONFIG: usize = 64 * 1024;

/// The files beside the input, read for the importer.
pub trait Files {
    /// The text of the file at `path`, which is as the input names it (relative to the input); `None` where there is no
    /// such file.
    ///
    /// # Errors
    ///
    /// Why it cannot be read, or is no text, or is larger than [`MAX_INPUT`](crate::MAX_INPUT).
    fn read(&self, path: &str) -> Result<Option<String>, String>;
}

/// No files at all; for inputs that come from nowhere.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoFiles;

impl Files for NoFiles {
    fn read(&self, _path: &str) -> Result<Option<String>, String> {
        Ok(None)
    }
}

/// What names are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    Container,
    Network,
    Volume,
    Secret,
    Config,
    Manifest,
}

impl Sort {
    fn word(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Network => "network",
            Self::Volume => "volume",
            Self::Secret => "secret",
            Self::Config => "config",
            Self::Manifest => "manifest",
        }
    }
}

pub(crate) struct World<'a> {
    pub(crate) notes: &'a Notes,
    pub(crate) files: &'a dyn Files,
    pub(crate) draft: Draft,
    names: BTreeMap<(Sort, String), String>,
    taken: BTreeSet<(Sort, String)>,
    files_left: usize,
    /// The input itself; what it names lies beside it.
    main: Arc<str>,
}

impl<'a> World<'a> {
    pub(crate) fn new(notes: &'a Notes, files: &'a dyn Files, main: &str) -> Self {
        let (draft, names, taken) = Default::default();
        Self { notes, files, draft, names, taken, files_left: MAX_FILES, main: Arc::from(main) }
    }

    /// The folder, as seen from the input, of the file that `place` is in.
    pub(crate) fn folder(&self, place: &Place) -> String {
        let folder = place.file.rsplit_once('/').map_or("", |(folder, _)| folder);
        if place.file == self.main { String::new() } else { folder.to_owned() }
    }

    /// A file beside the input, `None` (and a note) where it cannot be had.
    pub(crate) fn read(&mut self, site: &Site, path: &str) -> Option<String> {
        let Some(left) = self.files_left.checked_sub(1) else {
            self.notes.lost(site, format!("more than {MAX_FILES} files are named"), "");
            return None;
        };
        self.files_left = left;
        match self.files.read(path) {
            Ok(Some(text)) => Some(text),
            Ok(None) => {
                self.notes.lost(site, format!("there is no file {}", quoted(path)), "");
                None
            }
            Err(error) => {
                self.notes.lost(site, format!("the file {} cannot be read: {error}", quoted(path)), "");
                None
            }
        }
    }

    /// The name that something called `old` has in the manifest; the same again for the same thing.
    pub(crate) fn name(&mut self, sort: Sort, old: &str, site: &Site) -> String {
        if let Some(known) = self.names.get(&(sort, old.to_owned())) {
            return known.clone();
        }
        let wanted = sound_name(old);
        let mut name = wanted.clone();
        let mut number = 2;
        while self.taken.contains(&(sort, name.clone())) {
            let suffix = format!("-{number}");
            let room = MAX_NAME - suffix.len();
            name = format!("{}{suffix}", wanted.chars().take(room).collect::<String>().trim_end_matches('-'));
            number += 1;
        }
        self.taken.insert((sort, name.clone()));
        self.names.insert((sort, old.to_owned()), name.clone());
        if name != old {
            let hint = match sort {
                Sort::Container => format!("write `{name}` wherever it is named as a host, as in addresses"),
                _ => String::new(),
            };
            let message = format!("the {} {} is called `{name}` now", sort.word(), quoted(old));
            self.notes.changed(site, message, hint);
        }
        name
    }

    /// Whether something called `old` has a name already.
    pub(crate) fn knows(&self, sort: Sort, old: &str) -> bool {
        self.names.contains_key(&(sort, old.to_owned()))
    }

    /// The volume called `old`, declared; data is kept.
    pub(crate) fn volume(&mut self, old: &str, site: &Site) -> String {
        let name = self.name(Sort::Volume, old, site);
        let volume = self.draft.volumes.entry(name.clone()).or_default();
        if !volume.has("life") {
            volume.set("life", "keep");
        }
        name
    }

    /// The network called `old`, declared. `default` needs no declaration.
    pub(crate) fn network(&mut self, old: &str, site: &Site) -> String {
        let name = self.name(Sort::Network, old, site);
        if name != "default" {
            self.draft.networks.entry(name.clone()).or_default();
        }
        name
    }

    /// The secret called `old`, declared, still to be encrypted. `source` says where its value is now.
    pub(crate) fn secret(&mut self, old: &str, source: &str, site: &Site) -> String {
        let name = self.name(Sort::Secret, old, site);
        if !self.draft.secrets.contains_key(&name) {
            let mut secret = Table::default();
            secret
                .comments
                .push(format!("To be encrypted: `hostctl secret encrypt`; its value is {source}."));
            secret.set("age", PLACEHOLDER);
            self.draft.secrets.insert(name.clone(), secret);
            self.notes.advice(
                site,
                format!("the secret `{name}` has no value in the manifest yet"),
                format!("encrypt it with `hostctl secret encrypt`; its value is {source}"),
            );
        }
        name
    }

    /// The config called `old`, with this content.
    pub(crate) fn config(&mut self, old: &str, content: &str, site: &Site) -> String {
        let name = self.name(Sort::Config, old, site);
        self.draft.configs.entry(name.clone()).or_default().set("content", content);
        name
    }

    /// Writes above each container what of it is not as it was.
    fn remarks(&mut self) {
        let notes = self.notes.so_far();
        for (_, table) in self.draft.containers.iter_mut().chain(&mut self.draft.jobs) {
            let Some(origin) = table.origin.take().map(|site| site.path) else { continue };
            for note in notes.iter().filter(|note| note.kind != Kind::Advice) {
                let within = note.path.strip_prefix(&origin);
                let Some(rest) = within.filter(|rest| rest.is_empty() || rest.starts_with(['.', '['])) else {
                    continue;
                };
                let word = if note.kind == Kind::Lost { "Not carried over" } else { "Changed" };
                let key = rest.trim_start_matches('.');
                let key = if key.is_empty() { String::new() } else { format!("{key}: ") };
                table.comments.push(format!("{word}, line {}: {key}{}", note.place.line, note.message));
            }
        }
    }

    /// Makes the draft whole: what depends on all containers being known.
    pub(crate) fn finish(mut self) -> Draft {
        settle(&mut self.draft, self.notes);
        self.remarks();
        let names: BTreeSet<String> =
            self.draft.containers.iter().chain(&self.draft.jobs).map(|(name, _)| name.clone()).collect();
        for (own, table) in self.draft.containers.iter_mut().chain(&mut self.draft.jobs) {
            depends_on(own, table, &names);
            // An alias that is another container's name would lead to either of them by chance.
            if let Some(Value::List(aliases)) = table.entries.get_mut("aliases") {
                aliases.retain(|alias| !matches!(alias, Value::Text(alias) if names.contains(alias)));
                if aliases.is_empty() {
                    table.entries.remove("aliases");
                }
            }
        }
        self.draft
    }
}

/// `depends-on`, a list where each is only waited for to start.
fn depends_on(own: &str, table: &mut Table, names: &BTreeSet<String>) {
    let Some(Value::Map(mut all)) = table.entries.remove("depends-on") else { return };
    all.retain(|(name, _)| name != own && names.contains(name));
    let started = |(_, when): &(String, Value)| *when == Value::from("started");
    if all.is_empty() {
        return;
    }
    if all.iter().all(started) {
        table.set("depends-on", all.into_iter().map(|(name, _)| name).collect::<Vec<_>>());
    } else {
        table.set("depends-on", Value::Map(all));
    }
}

/// What stands for an encrypted secret until there is one.
pub(crate) const PLACEHOLDER: &str = "";

/// The longest name, in bytes.
const MAX_NAME: usize = bennu_manifests::model::Name::MAX;

/// The name that is nearest to `old`: lower-case letters, digits and hyphens, a letter first.
pub(crate) fn sound_name(old: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let mut name: String = old.chars().map(plain).collect();
    name = name.trim_matches('-').to_owned();
    while name.contains("--") && !old.contains("--") {
        name = name.replace("--", "-");
    }
    if !name.starts_with(|c: char| c.is_ascii_lowercase()) {
        name.insert_str(0, if name.is_empty() { "x" } else { "x-" });
    }
    name.truncate(MAX_NAME);
    name.trim_end_matches('-').to_owned()
}

/// Whether others can find a container by `text`: a DNS label (RFC 1123, section 2.1).
pub(crate) fn is_label(text: &str) -> bool {
    (1..=63).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether a container can have `text` as a further name: the language takes names of its own form only.
pub(crate) fn is_alias(text: &str) -> bool {
    text.parse::<bennu_manifests::model::Name>().is_ok()
}

/// The head of a manifest that was imported from `source` by `command`.
pub(crate) fn head(draft: &mut Draft, command: &str, source: &str) {
    let tags = draft.containers.iter().chain(&draft.jobs);
    let tags =
        tags.filter(|(_, table)| table.text("image").is_some_and(|image| !image.contains('@'))).count();
    let mut lines =
        vec![format!("Imported from {} by `hostctl import {command}`.", string(source)), String::new()];
    lines.push("Next:".to_owned());
    if !draft.secrets.is_empty() {
        lines.push("  hostctl secret encrypt         the secrets below have no value yet".to_owned());
    }
    if tags > 0 {
        lines.push("  hostctl pin FILE               write the digests that the tags have now".to_owned());
    }
    lines.push("  hostctl check FILE             is it sound?".to_owned());
    lines.push("  hostctl sign --key KEY FILE    sign it".to_owned());
    lines.extend(std::mem::take(&mut draft.comments));
    draft.comments = lines;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site { place: Place { file: "f".into(), line: 1, column: 1 }, path: "p".to_owned() }
    }

    #[test]
    fn names_become_sound_and_stay_apart() {
        let notes = Notes::default();
        let mut world = World::new(&notes, &NoFiles, "f");
        for (old, expect) in [
            ("web", "web"),
            ("my_db", "my-db"),
            ("my.db", "my-db-2"),
            ("my_db", "my-db"),
            ("1st", "x-1st"),
            ("Web", "web-2"),
            ("__", "x"),
            ("a--b", "a--b"),
        ] {
            assert_eq!(world.name(Sort::Container, old, &site()), expect, "{old}");
        }
        let long = "a".repeat(60);
        assert_eq!(world.name(Sort::Container, &long, &site()).len(), 40);
        let other = world.name(Sort::Container, &"a".repeat(61), &site());
        assert!(other.len() == 40 && other.ends_with("-2"), "{other}");
        assert_eq!(world.name(Sort::Volume, "web", &site()), "web");
        for name in world.names.values() {
            assert!(name.parse::<bennu_manifests::model::Name>().is_ok(), "{name}");
        }
        assert_eq!(notes.end().len(), 7, "each change is noted once");
    }
}
