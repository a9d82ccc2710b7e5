//! A TOML document as it is walked through: every value knows its place, every key must be asked for.
//!
//! The documents are read by hand from the parsed tree and not by derived `Deserialize`, which stops at the first
//! fault: here all unknown keys, wrong types and missing values of a document are reported at once.
//!
//! **Invariant:** a [`Section`] that is ended has no key that its reader did not ask for.

use std::borrow::Cow;
use std::ops::Range;

use jiff::Timestamp;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::fault::{Faults, Invalid, MAX_FAULTS, quoted};
use crate::model::Name;
use crate::nearest::did_you_mean;
use crate::text::first_unsafe;
use crate::weight::{MAX_MARKS, is_too_heavy};

/// The largest document, in bytes.
pub const MAX_DOCUMENT: usize = 1024 * 1024;

/// The text of a document, if it is small enough and UTF-8.
pub(crate) fn read_text(bytes: &[u8]) -> Result<&str, Invalid> {
    if bytes.len() > MAX_DOCUMENT {
        return Err(Invalid::whole(format!("the document is larger than {MAX_DOCUMENT} bytes"), None));
    }
    std::str::from_utf8(bytes).map_err(|error| {
        // What is before the fault is text, so the fault has a line.
        let sound = std::str::from_utf8(&bytes[..error.valid_up_to()]).expect("checked by the error itself");
        let faults = Faults::default();
        faults.add(&(sound.len()..sound.len()), "the document is not UTF-8 from here on");
        faults.end::<()>(sound, None).expect_err("a fault was added")
    })
}

/// The tree of a document. Its parser bounds the depth of nesting (at 80; ours is 4) and reports one error.
pub(crate) fn parse(text: &str) -> Result<Spanned<DeTable<'_>>, Invalid> {
    if is_too_heavy(text) {
        let message = format!(
            "the document has more than {MAX_MARKS} of `=`, `.`, `,`, `[` and `{{` outside of strings"
        );
        return Err(Invalid::whole(
            message,
            Some("no host needs that many keys and elements: make several documents"),
        ));
    }
    DeTable::parse(text).map_err(|error| {
        let message = error.message();
        let hint = match message {
            "duplicate key" => {
                Some("each key and each table may be there once; remove or rename one".to_owned())
            }
            _ if message.contains("recursion limit") || message.contains("recursion depth") => {
                Some("nothing in this document is nested so deeply".to_owned())
            }
            _ => None,
        };
        let faults = Faults::default();
        faults.add_with(&error.span().unwrap_or(0..0), format!("this is not TOML: {message}"), hint);
        faults.end::<()>(text, None).expect_err("a fault was added")
    })
}

/// A value and its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Sited<T> {
    pub(crate) value: T,
    pub(crate) span: Range<usize>,
}

/// Why a string is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self { message: message.into(), hint: None }
    }

    pub(crate) fn hint(self, hint: impl Into<String>) -> Self {
        Self { hint: Some(hint.into()), ..self }
    }
}

/// A name, for [`Item::read`] and for keys.
pub(crate) fn read_name(text: &str) -> Result<Name, Wrong> {
    text.parse().map_err(|error| Wrong::new(format!("{} is no name", quoted(text))).hint(format!("{error}")))
}

/// One table, while it is read.
pub(crate) struct Section<'a> {
    pub(crate) faults: &'a Faults,
    /// As in the document, without brackets: `container.web`; empty at the top.
    pub(crate) path: String,
    /// Where to point for something that is not there.
    pub(crate) span: Range<usize>,
    table: &'a DeTable<'a>,
    asked: Vec<&'static str>,
}

/// One value, while it is read.
pub(crate) struct Item<'a> {
    pub(crate) faults: &'a Faults,
    /// As in the document: `container.web.image`.
    pub(crate) path: String,
    pub(crate) span: Range<usize>,
    /// Where its key is; for tables, whose own span may be anything between the first and the last header.
    pub(crate) key_span: Range<usize>,
    value: &'a DeValue<'a>,
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date-time",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

impl<'a> Section<'a> {
    /// The whole document.
    pub(crate) fn top(table: &'a Spanned<DeTable<'a>>, faults: &'a Faults) -> Self {
        Self { faults, path: String::new(), span: 0..0, table: table.get_ref(), asked: Vec::new() }
    }

    /// The value of `key`, where there is one.
    pub(crate) fn get(&mut self, key: &'static str) -> Option<Item<'a>> {
        self.asked.push(key);
        self.peek(key)
    }

    /// The value of `key` without having asked for it.
    pub(crate) fn peek(&self, key: &str) -> Option<Item<'a>> {
        self.table.get_key_value(key).map(|(key, value)| self.item(key, value))
    }

    fn item(&self, key: &Spanned<Cow<'a, str>>, value: &'a Spanned<DeValue<'a>>) -> Item<'a> {
        let path = join(&self.path, key.get_ref());
        Item { faults: self.faults, path, span: value.span(), key_span: key.span(), value: value.get_ref() }
    }

    /// The value of `key`, which must be there.
    pub(crate) fn need(&mut self, key: &'static str, example: &str) -> Option<Item<'a>> {
        let found = self.get(key);
        if found.is_none() {
            let place = if self.path.is_empty() { "the document".to_owned() } else { quoted(&self.path) };
            self.faults.add_with(
                &self.span,
                format!("{place} has no `{key}`"),
                format!("add `{key} = {example}`"),
            );
        }
        found
    }

    /// Every entry, for tables whose keys are names; at most `max`.
    pub(crate) fn entries(self, max: usize) -> Vec<(Sited<&'a str>, Item<'a>)> {
        if self.faults.is_full() {
            return Vec::new();
        }
        if self.table.len() > max {
            let message =
                format!("{} has {} entries, at most {max} are taken", quoted(&self.path), self.table.len());
            self.faults.add(&self.span, message);
            return Vec::new();
        }
        let entry = |(key, value): (&'a Spanned<Cow<'a, str>>, &'a Spanned<DeValue<'a>>)| {
            (Sited { value: key.get_ref().as_ref(), span: key.span() }, self.item(key, value))
        };
        self.table.iter().map(entry).collect()
    }

    /// Reports every key that was not asked for.
    pub(crate) fn end(self) {
        if self.faults.is_full() {
            return;
        }
        let mut unknown: Vec<_> =
            self.table.keys().filter(|key| !self.asked.contains(&key.get_ref().as_ref())).collect();
        unknown.sort_by_key(|key| key.span().start);
        let place = if self.path.is_empty() { String::new() } else { format!(" in {}", quoted(&self.path)) };
        let known = || format!("the keys here are {}", self.asked.join(", "));
        for (number, key) in unknown.into_iter().enumerate() {
            let message = format!("unknown key {}{place}", quoted(key.get_ref()));
            // Nobody sees more of them, and looking for what is near costs a hundred times what the rest does.
            let shown = number < MAX_FAULTS;
            let near = || did_you_mean(key.get_ref(), self.asked.iter().copied());
            self.faults.add_with(&key.span(), message, shown.then(|| near().unwrap_or_else(known)));
        }
    }
}

impl<'a> Item<'a> {
    /// A fault of this value.
    pub(crate) fn fault(&self, message: impl Into<String>, hint: impl Into<Option<String>>) {
        self.faults.add_with(&self.span, message, hint);
    }

    fn wrong_type<T>(&self, expected: &str) -> Option<T> {
        let found = kind(self.value);
        let span = if matches!(self.value, DeValue::Table(_)) { &self.key_span } else { &self.span };
        self.faults.add(span, format!("{} is {found}, {expected} is expected", quoted(&self.path)));
        None
    }

    /// Whether it is a string; for values that may be written in two ways.
    pub(crate) fn is_text(&self) -> bool {
        self.value.is_str()
    }

    /// Whether it is a table; for values that may be written in two ways.
    pub(crate) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    /// Whether it is an array; for values that may be written in two ways.
    pub(crate) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    /// A string as it is, whatever is in it.
    pub(crate) fn raw_text(&self) -> Option<Sited<&'a str>> {
        let Some(value) = self.value.as_str() else { return self.wrong_type("a string") };
        Some(Sited { value, span: self.span.clone() })
    }

    /// A string without control and bidirectional characters, at most `max` bytes long.
    pub(crate) fn text(&self, max: usize) -> Option<Sited<&'a str>> {
        self.checked_text(max, first_unsafe)
    }

    /// A string in which `first_bad` finds nothing, at most `max` bytes long.
    pub(crate) fn checked_text(
        &self,
        max: usize,
        first_bad: fn(&str) -> Option<String>,
    ) -> Option<Sited<&'a str>> {
        let text = self.raw_text()?;
        if text.value.len() > max {
            self.fault(format!("{} is longer than {max} bytes", quoted(&self.path)), None);
            return None;
        }
        if let Some(bad) = first_bad(text.value) {
            self.fault(format!("{} contains the character {bad}", quoted(&self.path)), None);
            return None;
        }
        Some(text)
    }

    /// A string of at most `max` bytes, read by `read`, whose error becomes the fault.
    pub(crate) fn read<T>(
        &self,
        max: usize,
        read: impl FnOnce(&str) -> Result<T, Wrong>,
    ) -> Option<Sited<T>> {
        let text = self.text(max)?;
        match read(text.value) {
            Ok(value) => Some(Sited { value, span: text.span }),
            Err(Wrong { message, hint }) => {
                self.fault(format!("{}: {message}", quoted(&self.path)), hint);
                None
            }
        }
    }

    /// A name.
    pub(crate) fn name(&self) -> Option<Sited<Name>> {
        self.read(MAX_DOCUMENT, read_name)
    }

    /// The elements of an array that `read` takes, at most `max`; none of them twice.
    pub(crate) fn each<T: PartialEq>(
        &self,
        max: usize,
        read: impl Fn(&Item<'a>) -> Option<Sited<T>>,
    ) -> Option<Vec<Sited<T>>> {
        let mut all: Vec<Sited<T>> = Vec::new();
        for sited in self.list(max)?.iter().filter_map(read) {
            if all.iter().any(|earlier| earlier.value == sited.value) {
                self.faults.add(&sited.span, format!("{} says this twice", quoted(&self.path)));
            } else {
                all.push(sited);
            }
        }
        Some(all)
    }

    /// `true` or `false`.
    pub(crate) fn flag(&self) -> Option<bool> {
        self.value.as_bool().or_else(|| self.wrong_type("true or false"))
    }

    /// An integer within `range`.
    pub(crate) fn integer(&self, range: std::ops::RangeInclusive<u64>) -> Option<u64> {
        let (low, high) = (*range.start(), *range.end());
        self.number(low, high, |n| u64::try_from(n).ok().filter(|n| range.contains(n)))
    }

    /// An integer within `range`, which may be negative.
    pub(crate) fn signed(&self, range: std::ops::RangeInclusive<i64>) -> Option<i64> {
        let (low, high) = (*range.start(), *range.end());
        self.number(low, high, |n| Some(n).filter(|n| range.contains(n)))
    }

    fn number<T: std::fmt::Display>(
        &self,
        low: T,
        high: T,
        take: impl FnOnce(i64) -> Option<T>,
    ) -> Option<T> {
        let Some(integer) = self.value.as_integer() else { return self.wrong_type("an integer") };
        let value = i64::from_str_radix(integer.as_str(), integer.radix()).ok().and_then(take);
        if value.is_none() {
            self.fault(format!("{} must be an integer from {low} to {high}", quoted(&self.path)), None);
        }
        value
    }

    /// A moment: a date-time with its offset.
    pub(crate) fn moment(&self) -> Option<Sited<Timestamp>> {
        const EXAMPLE: &str = "write date, time and offset, as 2026-03-01T12:00:00Z";
        let Some(written) = self.value.as_datetime() else {
            return self.wrong_type("a date-time without quotes");
        };
        let (Some(date), Some(mut time), Some(_)) = (written.date, written.time, written.offset) else {
            self.fault(
                format!("{} is no moment: date, time or offset is missing", quoted(&self.path)),
                EXAMPLE.to_owned(),
            );
            return None;
        };
        // TOML 1.1 lets seconds be left out; the format that jiff reads does not.
        time.second.get_or_insert(0);
        let whole = toml::value::Datetime { date: Some(date), time: Some(time), offset: written.offset };
        match whole.to_string().parse() {
            Ok(value) => Some(Sited { value, span: self.span.clone() }),
            Err(_) => {
                self.fault(
                    format!("{} is outside of what can be told", quoted(&self.path)),
                    EXAMPLE.to_owned(),
                );
                None
            }
        }
    }

    /// The elements of an array, at most `max`.
    pub(crate) fn list(&self, max: usize) -> Option<Vec<Item<'a>>> {
        if self.faults.is_full() {
            return None;
        }
        let Some(array) = self.value.as_array() else { return self.wrong_type("an array") };
        if array.len() > max {
            let message =
                format!("{} has {} elements, at most {max} are taken", quoted(&self.path), array.len());
            self.fault(message, None);
            return None;
        }
        let element = |(number, value): (usize, &'a Spanned<DeValue<'a>>)| Item {
            faults: self.faults,
            path: format!("{}[{number}]", self.path),
            span: value.span(),
            key_span: value.span(),
            value: value.get_ref(),
        };
        Some(array.iter().enumerate().map(element).collect())
    }

    /// A table.
    pub(crate) fn section(&self) -> Option<Section<'a>> {
        if self.faults.is_full() {
            return None;
        }
        let Some(table) = self.value.as_table() else { return self.wrong_type("a table") };
        let (faults, path, span) = (self.faults, self.path.clone(), self.key_span.clone());
        Some(Section { faults, path, span, table, asked: Vec::new() })
    }
}
