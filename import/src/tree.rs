//! A YAML tree as it is walked through: every value knows its path, every key must be asked for.
//!
//! **Invariant:** after [`sweep`] there is no leaf of the tree that was neither read nor named in a note.

use bennu_manifests::did_you_mean;

use crate::note::{Notes, Site, quoted};
use crate::yaml::{Entry, Node, Value};

/// A key that is known and has no place in a manifest: what it is, and what to do instead.
pub(crate) type Unsupported = (&'static str, &'static str, &'static str);

/// One value, while it is read.
#[derive(Clone)]
pub(crate) struct Field<'a> {
    pub(crate) notes: &'a Notes,
    pub(crate) site: Site,
    pub(crate) node: &'a Node,
}

/// One map, while it is read.
pub(crate) struct Map<'a> {
    notes: &'a Notes,
    pub(crate) site: Site,
    entries: &'a [Entry],
    asked: Vec<&'static str>,
}

impl<'a> Field<'a> {
    pub(crate) fn top(node: &'a Node, notes: &'a Notes) -> Self {
        Self { notes, site: Site { place: node.place.clone(), path: String::new() }, node }
    }

    /// Names the value, and all in it, as left behind.
    pub(crate) fn lost(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.node.settle();
        self.notes.lost(&self.site, message, hint);
    }

    /// Says that what was carried over is not as it was.
    pub(crate) fn changed(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.node.settle();
        self.notes.changed(&self.site, message, hint);
    }

    /// Says what there is to know about a value that means the same as before.
    pub(crate) fn advice(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.node.settle();
        self.notes.advice(&self.site, message, hint);
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = match &self.node.value {
            Value::Scalar(text, _) if text.is_empty() => "empty".to_owned(),
            Value::Scalar(text, _) => quoted(text),
            Value::List(_) => "a list".to_owned(),
            Value::Map(_) => "a map".to_owned(),
        };
        self.lost(format!("it is {found}, {expected} is expected"), "");
        None
    }

    /// Whether nothing was written; then it is accounted for.
    pub(crate) fn is_null(&self) -> bool {
        let null = self.node.is_null();
        if null {
            self.node.read.set(true);
        }
        null
    }

    pub(crate) fn is_list(&self) -> bool {
        matches!(self.node.value, Value::List(_))
    }

    pub(crate) fn is_map(&self) -> bool {
        matches!(self.node.value, Value::Map(_))
    }

    /// The text of a word, number or date, as it is written; `None` for null.
    pub(crate) fn text(&self) -> Option<&'a str> {
        if self.is_null() {
            return None;
        }
        let Value::Scalar(text, _) = &self.node.value else { return self.wrong_type("a word") };
        self.node.read.set(true);
        Some(text)
    }

    /// `true` or `false`, also in the words of YAML 1.1.
    pub(crate) fn flag(&self) -> Option<bool> {
        let text = self.text()?;
        match text.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "y" => Some(true),
            "false" | "no" | "off" | "n" => Some(false),
            _ => self.wrong_type("true or false"),
        }
    }

    /// The elements of a list.
    pub(crate) fn list(&self) -> Vec<Self> {
        if self.is_null() {
            return Vec::new();
        }
        let Value::List(list) = &self.node.value else {
            return self.wrong_type("a list").unwrap_or_default();
        };
        self.node.read.set(true);
        let element = |(number, node): (usize, &'a Node)| Self {
            notes: self.notes,
            site: Site { place: node.place.clone(), path: format!("{}[{number}]", self.site.path) },
            node,
        };
        list.iter().enumerate().map(element).collect()
    }

    /// The elements of a list, or the one value.
    pub(crate) fn one_or_list(&self) -> Vec<Self> {
        if self.is_list() || self.is_null() { self.list() } else { vec![self.clone()] }
    }

    /// A map.
    pub(crate) fn map(&self) -> Option<Map<'a>> {
        if self.is_null() {
            return None;
        }
        let Value::Map(entries) = &self.node.value else { return self.wrong_type("a map") };
        self.node.read.set(true);
        Some(Map { notes: self.notes, site: self.site.clone(), entries, asked: Vec::new() })
    }

    /// `KEY=VALUE` pairs, written as a list or as a map; the value is `None` where only a key stands.
    pub(crate) fn pairs(&self, separators: &[char]) -> Vec<(String, Option<String>, Self)> {
        if self.is_map() {
            let entries = self.map().map(Map::entries).unwrap_or_default();
            return entries
                .into_iter()
                .filter_map(|(key, field)| {
                    let value = if field.is_null() { None } else { Some(field.text()?.to_owned()) };
                    Some((key.to_owned(), value, field))
                })
                .collect();
        }
        self.one_or_list()
            .into_iter()
            .filter_map(|field| {
                let text = field.text()?;
                let (key, value) = text
                    .split_once(separators)
                    .map_or((text, None), |(key, value)| (key, Some(value.to_owned())));
                Some((key.trim().to_owned(), value, field))
            })
            .collect()
    }
}

impl<'a> Map<'a> {
    fn field(&self, entry: &'a Entry) -> Field<'a> {
        entry.asked.set(true);
        let path = match self.site.path.as_str() {
            "" => entry.key.clone(),
            path => format!("{path}.{}", entry.key),
        };
        // Where nothing is written, there is a key at least.
        let place = if entry.value.is_null() { &entry.place } else { &entry.value.place };
        Field { notes: self.notes, site: Site { place: place.clone(), path }, node: &entry.value }
    }

    /// The value of `key`; `None` where there is no such key.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Field<'a>> {
        self.asked.push(key);
        self.entries.iter().find(|entry| entry.key == key).map(|entry| self.field(entry))
    }

    /// Whether a key is there.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.iter().any(|entry| entry.key == key)
    }

    /// Every entry, for maps whose keys are names.
    pub(crate) fn entries(self) -> Vec<(&'a str, Field<'a>)> {
        self.entries.iter().map(|entry| (entry.key.as_str(), self.field(entry))).collect()
    }

    /// Names every key that was not asked for.
    pub(crate) fn end(mut self, unsupported: &[Unsupported]) {
        let rest: Vec<_> = self.entries.iter().filter(|entry| !entry.asked.get()).collect();
        self.asked.extend(unsupported.iter().map(|(key, ..)| *key));
        for entry in rest {
            let mut field = self.field(entry);
            field.site.place = entry.place.clone();
            if let Some((_, message, hint)) = unsupported.iter().find(|(key, ..)| *key == entry.key) {
                field.lost(*message, *hint);
            } else if entry.key.starts_with("x-") {
                if !entry.anchored {
                    field.advice("an extension, which means nothing to compose itself", "");
                }
                entry.value.settle();
            } else {
                let hint = did_you_mean(&entry.key, self.asked.iter().copied()).unwrap_or_default();
                field.lost(format!("the key {} is not known here", quoted(&entry.key)), hint);
            }
        }
    }
}

/// Names every leaf that nobody looked at. There is none as long as each reader ends its maps; this is the net below.
pub(crate) fn sweep(field: &Field<'_>) {
    match &field.node.value {
        Value::Scalar(..) => {
            if !field.node.read.get() && !field.is_null() {
                field.lost("nothing was made of it", "");
            }
        }
        Value::List(_) | Value::Map(_) if !field.node.read.get() => {
            field.lost("nothing was made of it", "");
        }
        Value::List(_) => field.list().iter().for_each(sweep),
        Value::Map(_) => {
            for (_, value) in field.map().map(Map::entries).unwrap_or_default() {
                sweep(&value);
            }
        }
    }
}
