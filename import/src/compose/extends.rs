//! `extends`: services that take over what other services say, from this file or another.
//!
//! Source: Compose specification, "extends", with the rules of "Merge and override".

use std::cell::Cell;
use std::collections::BTreeMap;

use super::Source;
use crate::error::ImportError;
use crate::note::{Site, quoted};
use crate::workload::join;
use crate::world::World;
use crate::yaml::{self, Entry, Node, Value};

/// The longest chain of services that extend each other.
const MAX_CHAIN: usize = 8;
/// Lists that are replaced and not added to.
const REPLACED: [&str; 3] = ["command", "entrypoint", "test"];
/// Keys whose list form says the same as a map.
const PAIRS: [&str; 6] = ["environment", "labels", "sysctls", "extra_hosts", "annotations", "depends_on"];

/// Replaces every service that extends another one by what both say together.
pub(super) fn resolve(top: &mut Node, source: &mut Source, world: &mut World<'_>) -> Result<(), ImportError> {
    let mut resolver = Resolver { source, world, files: BTreeMap::new() };
    let original = top.clone();
    let Some(services) = entry_mut(top, "services") else { return Ok(()) };
    let Value::Map(services) = &mut services.value.value else { return Ok(()) };
    for service in services {
        if entry(&service.value, "extends").is_some() {
            service.value = resolver.service(&service.key, service.value.clone(), &original, "", 0)?;
        }
    }
    Ok(())
}

struct Resolver<'a, 'b> {
    source: &'a mut Source,
    world: &'a mut World<'b>,
    files: BTreeMap<String, Option<Node>>,
}

impl Resolver<'_, '_> {
    /// `node`, the service `name` of the file `tree`, which lies in `folder`, with what it extends.
    fn service(
        &mut self,
        name: &str,
        mut node: Node,
        tree: &Node,
        folder: &str,
        depth: usize,
    ) -> Result<Node, ImportError> {
        let Value::Map(entries) = &mut node.value else { return Ok(node) };
        let Some(at) = entries.iter().position(|entry| entry.key == "extends") else { return Ok(node) };
        let extends = entries.remove(at);
        let site = Site { place: extends.place.clone(), path: format!("services.{name}.extends") };
        let word = |key| entry(&extends.value, key).and_then(|entry| scalar(&entry.value));
        let (base, file) = match scalar(&extends.value) {
            Some(base) => (Some(base), None),
            None => (word("service"), word("file")),
        };
        let Some(base) = base else {
            self.world.notes.lost(&site, "it names no service", "write `extends: { service: NAME }`");
            return Ok(node);
        };
        if depth >= MAX_CHAIN {
            let message = format!("more than {MAX_CHAIN} services extend each other");
            return Err(ImportError::Bounds { place: site.place, message });
        }
        let merged = match file {
            None => self.base(&base, tree, folder, depth, &site)?,
            Some(file) => {
                let path = join(folder, &file);
                let inner = path.rsplit_once('/').map_or("", |(folder, _)| folder).to_owned();
                match self.load(&path, &site)? {
                    Some(tree) => self.base(&base, &tree, &inner, depth, &site)?,
                    None => None,
                }
            }
        };
        Ok(match merged {
            Some(base) => merge(base, node, ""),
            None => node,
        })
    }

    /// The service `name` of `tree`, with what it extends itself.
    fn base(
        &mut self,
        name: &str,
        tree: &Node,
        folder: &str,
        depth: usize,
        site: &Site,
    ) -> Result<Option<Node>, ImportError> {
        let services = entry(tree, "services").map_or(tree, |services| &services.value);
        let Some(found) = entry(services, name) else {
            self.world.notes.lost(site, format!("there is no service {}", quoted(name)), "");
            return Ok(None);
        };
        let node = found.value.clone();
        let size = node.size();
        self.source.budget = self.source.budget.checked_sub(size).ok_or_else(|| ImportError::Bounds {
            place: site.place.clone(),
            message: "services that extend each other become too large".to_owned(),
        })?;
        self.service(name, node, tree, folder, depth + 1).map(Some)
    }

    fn load(&mut self, path: &str, site: &Site) -> Result<Option<Node>, ImportError> {
        if !self.files.contains_key(path) {
            let tree = match self.world.read(site, path) {
                Some(text) => yaml::parse(&text, path, &mut self.source.budget)?,
                None => None,
            };
            let tree = match tree {
                Some(mut tree) => {
                    self.source.fill(&mut tree, self.world.notes)?;
                    Some(tree)
                }
                None => None,
            };
            self.files.insert(path.to_owned(), tree);
        }
        Ok(self.files.get(path).cloned().flatten())
    }
}

fn entry<'a>(node: &'a Node, key: &str) -> Option<&'a Entry> {
    match &node.value {
        Value::Map(entries) => entries.iter().find(|entry| entry.key == key),
        _ => None,
    }
}

fn entry_mut<'a>(node: &'a mut Node, key: &str) -> Option<&'a mut Entry> {
    match &mut node.value {
        Value::Map(entries) => entries.iter_mut().find(|entry| entry.key == key),
        _ => None,
    }
}

fn scalar(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(text, _) if !node.is_null() => Some(text.clone()),
        _ => None,
    }
}

/// What `base` and `own` say together; `own` comes first where they differ.
fn merge(base: Node, own: Node, key: &str) -> Node {
    let pairs = PAIRS.contains(&key);
    let (base, own) = if pairs { (as_map(base, key), as_map(own, key)) } else { (base, own) };
    let Node { place, value, read } = own;
    let value = match (base.value, value) {
        (Value::Map(base), Value::Map(own)) => {
            let mut merged = base;
            for entry in own {
                match merged.iter().position(|known| known.key == entry.key) {
                    Some(at) => {
                        let before = merged.remove(at);
                        let value = merge(before.value, entry.value, &entry.key);
                        merged.insert(at, Entry { value, ..entry });
                    }
                    None => merged.push(entry),
                }
            }
            Value::Map(merged)
        }
        (Value::List(base), Value::List(own)) if !REPLACED.contains(&key) => {
            let same = |a: &Node, b: &Node| scalar(a).is_some() && scalar(a) == scalar(b);
            let mut merged = base;
            merged.retain(|node| !own.iter().any(|other| same(node, other)));
            merged.extend(own);
            Value::List(merged)
        }
        (_, own) => own,
    };
    Node { place, value, read }
}

/// A list of `KEY=VALUE` as a map; other values as they are.
fn as_map(node: Node, key: &str) -> Node {
    let Node { place, value, read } = node;
    let value = match value {
        Value::List(list) if list.iter().all(|node| scalar(node).is_some()) => {
            let separators: &[char] = if key == "extra_hosts" { &['=', ':'] } else { &['='] };
            let pair = |node: Node| {
                let text = scalar(&node).unwrap_or_default();
                let (key, value) =
                    text.split_once(separators).map_or((text.as_str(), None), |(k, v)| (k, Some(v)));
                let plain = value.is_none();
                let word = |text: &str, plain| Node {
                    place: node.place.clone(),
                    value: Value::Scalar(text.to_owned(), plain),
                    read: Cell::new(false),
                };
                Entry {
                    key: key.to_owned(),
                    place: node.place.clone(),
                    value: word(value.unwrap_or_default(), plain),
                    asked: Cell::new(false),
                    anchored: false,
                }
            };
            Value::Map(list.into_iter().map(pair).collect())
        }
        other => other,
    };
    Node { place, value, read }
}
