//! The manifest that is being made: tables of keys and values, not yet text.

use std::collections::{BTreeMap, BTreeSet};

use crate::note::Site;

/// A value of TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Value {
    Text(String),
    Integer(i64),
    Flag(bool),
    List(Vec<Value>),
    Map(Vec<(String, Value)>),
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<String> for Value {
    fn from(text: String) -> Self {
        Self::Text(text)
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self::Flag(flag)
    }
}

impl From<i64> for Value {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

impl From<Vec<String>> for Value {
    fn from(words: Vec<String>) -> Self {
        Self::List(words.into_iter().map(Self::Text).collect())
    }
}

/// One table, `[container.web]`; keys in any order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Table {
    /// Lines above the table.
    pub(crate) comments: Vec<String>,
    pub(crate) entries: BTreeMap<String, Value>,
    /// The line above a key.
    pub(crate) remarks: BTreeMap<String, String>,
    /// What of the input it was made of, for what is said about it.
    pub(crate) origin: Option<Site>,
    /// The paths where something is mounted: each takes one thing only.
    pub(crate) targets: BTreeSet<String>,
}

impl Table {
    pub(crate) fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.entries.insert(key.to_owned(), value.into());
    }

    /// Sets a key and says why above it.
    pub(crate) fn set_because(&mut self, key: &str, value: impl Into<Value>, why: &str) {
        self.set(key, value);
        self.remarks.insert(key.to_owned(), why.to_owned());
    }

    pub(crate) fn has(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    pub(crate) fn text(&self, key: &str) -> Option<&str> {
        match self.entries.get(key) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// Adds to a list; what is in it already stays there once.
    pub(crate) fn push(&mut self, key: &str, value: impl Into<Value>) {
        let value = value.into();
        match self.entries.entry(key.to_owned()).or_insert_with(|| Value::List(Vec::new())) {
            Value::List(list) if !list.contains(&value) => list.push(value),
            _ => {}
        }
    }

    /// Sets a key of a table within this one: `limits.memory`.
    pub(crate) fn put(&mut self, key: &str, inner: &str, value: impl Into<Value>) {
        let value = value.into();
        if let Value::Map(map) = self.entries.entry(key.to_owned()).or_insert_with(|| Value::Map(Vec::new()))
        {
            match map.iter_mut().find(|(known, _)| known == inner) {
                Some((_, before)) => *before = value,
                None => map.push((inner.to_owned(), value)),
            }
        }
    }

    /// Adds to a list of a table within this one.
    pub(crate) fn push_inner(&mut self, key: &str, inner: &str, value: impl Into<Value>) {
        let mut list = match self.inner(key, inner) {
            Some(Value::List(list)) => list.clone(),
            _ => Vec::new(),
        };
        let value = value.into();
        if !list.contains(&value) {
            list.push(value);
        }
        self.put(key, inner, Value::List(list));
    }

    /// The value of a key of a table within this one.
    pub(crate) fn inner(&self, key: &str, inner: &str) -> Option<&Value> {
        match self.entries.get(key) {
            Some(Value::Map(map)) => map.iter().find(|(known, _)| known == inner).map(|(_, value)| value),
            _ => None,
        }
    }
}

/// A whole manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Draft {
    /// Lines at the top, without `#`.
    pub(crate) comments: Vec<String>,
    pub(crate) networks: BTreeMap<String, Table>,
    pub(crate) volumes: BTreeMap<String, Table>,
    pub(crate) configs: BTreeMap<String, Table>,
    pub(crate) secrets: BTreeMap<String, Table>,
    /// Containers in the order of the input: people sort them by what they belong to.
    pub(crate) containers: Vec<(String, Table)>,
    pub(crate) jobs: Vec<(String, Table)>,
}

impl Draft {
    /// The container or job of this name.
    pub(crate) fn workload(&mut self, name: &str) -> Option<&mut Table> {
        let all = self.containers.iter_mut().chain(&mut self.jobs);
        all.filter(|(known, _)| known == name).map(|(_, table)| table).next()
    }

    /// Makes a container a job: what a job cannot have is taken off, and returned.
    pub(crate) fn make_job(&mut self, name: &str, when: &str) -> Vec<&'static str> {
        const NOT_IN_JOBS: [&str; 6] =
            ["restart", "restart-attempts", "update", "health", "readiness", "replicas"];
        let Some(at) = self.containers.iter().position(|(known, _)| known == name) else { return Vec::new() };
        let (name, mut table) = self.containers.remove(at);
        let lost = NOT_IN_JOBS.into_iter().filter(|key| table.entries.remove(*key).is_some()).collect();
        table.set("when", when);
        self.jobs.push((name, table));
        lost
    }
}
