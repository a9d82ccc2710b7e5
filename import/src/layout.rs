//! A manifest laid out anew: the order of tables and keys, the space between them; comments and values stay.
//!
//! ```text
//!  text ─► tree with comments ─► tables and keys in order ─► text ─► the same values, the same comments? ─► done
//! ```
//!
//! Containers keep the order in which they were written, as people sort them by what they belong to. Blank lines
//! between keys stay, one at most. A list that was written over several lines is still.
//!
//! **Invariant:** what comes out has the values and comments of what went in, or nothing comes out.

use std::collections::BTreeMap;
use std::sync::Arc;

use toml_edit::{Array, Decor, DocumentMut, InlineTable, Item, Key, RawString, Table, Value};

use crate::error::ImportError;
use crate::note::Place;
use crate::order::rank;
use crate::write::{MAX_LINE, key as bare};
use crate::yaml::MAX_INPUT;

/// `text` laid out; `file` is its name in errors. Laying out again changes nothing.
///
/// # Errors
///
/// A text that is no TOML or larger than [`MAX_INPUT`], or one with a comment in a place from which
/// it could not be carried over.
pub fn layout(text: &str, file: &str) -> Result<String, ImportError> {
    let place = |at: usize| {
        let before = text.get(..at).unwrap_or(text);
        let start = before.rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + before.bytes().filter(|b| *b == b'\n').count();
        Place { file: Arc::from(file), line, column: 1 + before[start..].chars().count() }
    };
    if text.len() > MAX_INPUT {
        let message = format!("it is larger than {MAX_INPUT} bytes");
        return Err(ImportError::Bounds { place: place(0), message });
    }
    let text_lf = text.replace("\r\n", "\n");
    let document: DocumentMut =
        text_lf.parse().map_err(|error: toml_edit::TomlError| ImportError::Syntax {
            place: place(error.span().map_or(0, |span| span.start)),
            message: format!("this is not TOML: {}", error.message()),
        })?;
    let mut out = Out::default();
    out.document(&document);
    let laid_out = out.text;
    let lost = || ImportError::Syntax {
        place: place(0),
        message: "a comment stands where it cannot be kept: move it to a line of its own above its key"
            .to_owned(),
    };
    let again: DocumentMut = laid_out.parse().map_err(|_| lost())?;
    let same = plain_table(document.as_table()) == plain_table(again.as_table());
    if !same || comments(&document) != comments(&again) {
        return Err(lost());
    }
    Ok(laid_out)
}

/// One table with its header, or the keys of the whole document that stand before any header.
struct Block<'a> {
    path: Vec<&'a str>,
    table: &'a Table,
    /// Whether it is one of `[[…]]`.
    in_array: bool,
}

#[derive(Default)]
struct Out {
    text: String,
}

impl Out {
    fn document(&mut self, document: &DocumentMut) {
        let mut blocks = Vec::new();
        gather(document.as_table(), &mut Vec::new(), false, &mut blocks);
        // Where each table, with all that is in it, was first met in the text.
        let mut first: BTreeMap<Vec<&str>, isize> = BTreeMap::new();
        for block in &blocks {
            let position = block.table.position().unwrap_or(isize::MAX);
            for length in 1..=block.path.len() {
                let known = first.entry(block.path[..length].to_vec()).or_insert(position);
                *known = position.min(*known);
            }
        }
        blocks.sort_by_cached_key(|block| {
            let step = |length: usize| {
                let (path, name) = (&block.path[..length - 1], block.path[length - 1]);
                let order = first.get(&block.path[..length]).copied().unwrap_or(isize::MAX);
                (rank(path, name), order)
            };
            let steps: Vec<_> = (1..=block.path.len()).map(step).collect();
            (steps, block.table.position().unwrap_or(isize::MAX))
        });
        for block in &blocks {
            self.block(block);
        }
        let trailing = lines(Some(document.trailing()));
        if trailing.iter().any(|line| !line.is_empty()) {
            self.blank();
            self.comments(&trailing);
        }
        while self.text.ends_with("\n\n") {
            self.text.pop();
        }
    }

    /// One blank line, unless there is one or this is the beginning.
    fn blank(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with("\n\n") {
            self.text.push('\n');
        }
    }

    fn comments(&mut self, lines: &[String]) {
        for line in lines {
            if line.is_empty() {
                self.blank();
            } else {
                self.text.push_str(line);
                self.text.push('\n');
            }
        }
    }

    fn block(&mut self, block: &Block<'_>) {
        let top = block.path.is_empty();
        if !top {
            self.blank();
            self.comments(&trim(lines(block.table.decor().prefix())));
            let path = block.path.iter().map(|part| bare(part)).collect::<Vec<_>>().join(".");
            let header = if block.in_array { format!("[[{path}]]") } else { format!("[{path}]") };
            self.text.push_str(&header);
            self.trailing(block.table.decor().suffix());
        }
        let above = |keys: &[&Key]| lines(keys.last().and_then(|key| key.leaf_decor().prefix()));
        let values = block.table.get_values();
        let mut values: Vec<_> = values.iter().map(|(keys, value)| (above(keys), keys, value)).collect();
        // What stands at the top of the file is about the file, and not about the key that happens to come first.
        if let Some((above, ..)) = values.first_mut().filter(|_| top)
            && let Some(end) = above.iter().rposition(String::is_empty)
        {
            let head = trim(above.drain(..=end).collect());
            self.comments(&head);
            self.blank();
        }
        let first = |keys: &[&Key]| keys.first().map_or(usize::MAX, |key| rank(&block.path, key.get()));
        values.sort_by_key(|(_, keys, _)| first(keys));
        for (number, (above, keys, value)) in values.into_iter().enumerate() {
            if number > 0 && above.first().is_some_and(String::is_empty) {
                self.blank();
            }
            self.comments(&trim(above));
            let name = keys.iter().map(|key| bare(key.get())).collect::<Vec<_>>().join(".");
            self.text.push_str(&format!("{name} = {}", self::value(value, name.chars().count() + 3)));
            self.trailing(value.decor().suffix());
        }
    }

    /// The comment at the end of a line, and the end of the line.
    fn trailing(&mut self, raw: Option<&RawString>) {
        if let Some(comment) = lines(raw).iter().find(|line| !line.is_empty()) {
            self.text.push(' ');
            self.text.push_str(comment);
        }
        self.text.push('\n');
    }
}

/// All tables with a header, and the document itself.
fn gather<'a>(table: &'a Table, path: &mut Vec<&'a str>, in_array: bool, blocks: &mut Vec<Block<'a>>) {
    let empty = table.get_values().is_empty();
    if !(table.is_implicit() && empty || table.is_dotted()) || path.is_empty() {
        blocks.push(Block { path: path.clone(), table, in_array });
    }
    for (name, item) in table.iter() {
        path.push(name);
        match item {
            Item::Table(inner) => gather(inner, path, false, blocks),
            Item::ArrayOfTables(all) => all.iter().for_each(|inner| gather(inner, path, true, blocks)),
            Item::None | Item::Value(_) => {}
        }
        path.pop();
    }
}

/// The lines of what stands between values: comments, and empty ones, each run of these as one.
fn lines(raw: Option<&RawString>) -> Vec<String> {
    let text = raw.and_then(RawString::as_str).unwrap_or_default();
    let mut lines: Vec<String> = Vec::new();
    let mut all: Vec<&str> = text.split('\n').map(str::trim).collect();
    // What is after the last line break is the indentation of what follows.
    if all.last().is_some_and(|line| line.is_empty()) {
        all.pop();
    }
    for line in all {
        if !(line.is_empty() && lines.last().is_some_and(String::is_empty)) {
            lines.push(line.to_owned());
        }
    }
    lines
}

/// Without empty lines at the beginning and the end.
fn trim(mut lines: Vec<String>) -> Vec<String> {
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    while lines.first().is_some_and(String::is_empty) {
        lines.remove(0);
    }
    lines
}

/// A value, after `used` characters of its line.
fn value(value: &Value, used: usize) -> String {
    match value {
        Value::Array(array) => list(array, used),
        Value::InlineTable(table) => inline_table(table),
        other => {
            let mut other = other.clone();
            other.decor_mut().clear();
            other.to_string()
        }
    }
}

fn list(array: &Array, used: usize) -> String {
    let raw = |decor: &Decor| {
        let part = |raw: Option<&RawString>| raw.and_then(RawString::as_str).unwrap_or_default().to_owned();
        (part(decor.prefix()), part(decor.suffix()))
    };
    let trailing = array.trailing().as_str().unwrap_or_default();
    let decors: Vec<_> = array.iter().map(|value| raw(value.decor())).collect();
    let broken = |text: &str| text.contains('\n');
    let over_lines = broken(trailing) || decors.iter().any(|(before, after)| broken(before) || broken(after));
    let elements: Vec<String> = array.iter().map(|element| value(element, 4)).collect();
    let line = format!("[{}]", elements.join(", "));
    if !over_lines && used + line.chars().count() <= MAX_LINE || array.is_empty() && !trailing.contains('#') {
        return line;
    }
    let mut text = "[".to_owned();
    // A comment behind a comma is kept by the parser before the next element.
    let behind = |text: &mut String, raw: &str| -> Vec<String> {
        let (first, rest) = raw.split_once('\n').unwrap_or((raw, ""));
        if !first.trim().is_empty() {
            text.push(' ');
            text.push_str(first.trim());
        }
        text.push('\n');
        rest.split('\n').map(|line| line.trim().to_owned()).filter(|line| !line.is_empty()).collect()
    };
    for (element, (before, after)) in elements.iter().zip(&decors) {
        for line in behind(&mut text, before) {
            text.push_str(&format!("    {line}\n"));
        }
        // A comment between an element and its comma goes above the element.
        for line in after.split('\n').map(str::trim).filter(|line| !line.is_empty()) {
            text.push_str(&format!("    {line}\n"));
        }
        text.push_str(&format!("    {},", element.replace('\n', "\n    ")));
    }
    for line in behind(&mut text, trailing) {
        text.push_str(&format!("    {line}\n"));
    }
    text + "]"
}

fn inline_table(table: &InlineTable) -> String {
    let mut plain = table.clone();
    plain.decor_mut().clear();
    let raw = plain.to_string();
    // Comments in braces are rare enough to be left as they are.
    if raw.contains(['\n', '#']) {
        return raw;
    }
    let pairs: Vec<String> = table
        .get_values()
        .iter()
        .map(|(keys, inner)| {
            let name = keys.iter().map(|key| bare(key.get())).collect::<Vec<_>>().join(".");
            format!("{name} = {}", value(inner, 0))
        })
        .collect();
    if pairs.is_empty() { "{}".to_owned() } else { format!("{{ {} }}", pairs.join(", ")) }
}

/// A value without its form.
#[derive(Debug, PartialEq)]
enum Plain {
    Word(String),
    List(Vec<Plain>),
    Table(BTreeMap<String, Plain>),
}

fn plain_table(table: &Table) -> Plain {
    let entry = |(name, item): (&str, &Item)| (name.to_owned(), plain_item(item));
    Plain::Table(table.iter().map(entry).collect())
}

fn plain_item(item: &Item) -> Plain {
    match item {
        Item::None => Plain::Word(String::new()),
        Item::Value(value) => plain_value(value),
        Item::Table(table) => plain_table(table),
        Item::ArrayOfTables(all) => Plain::List(all.iter().map(plain_table).collect()),
    }
}

fn plain_value(value: &Value) -> Plain {
    match value {
        Value::String(text) => Plain::Word(format!("{:?}", text.value())),
        Value::Integer(number) => Plain::Word(number.value().to_string()),
        Value::Float(number) => Plain::Word(format!("{:?}", number.value())),
        Value::Boolean(flag) => Plain::Word(flag.value().to_string()),
        Value::Datetime(moment) => Plain::Word(moment.value().to_string()),
        Value::Array(array) => Plain::List(array.iter().map(plain_value).collect()),
        Value::InlineTable(table) => {
            Plain::Table(table.iter().map(|(name, value)| (name.to_owned(), plain_value(value))).collect())
        }
    }
}

/// Every comment, sorted: they may move, but there are as many.
fn comments(document: &DocumentMut) -> Vec<String> {
    let mut all = Vec::new();
    add(&mut all, Some(document.trailing()));
    table_comments(document.as_table(), &mut all);
    all.sort();
    all
}

fn add(all: &mut Vec<String>, raw: Option<&RawString>) {
    all.extend(lines(raw).into_iter().filter(|line| !line.is_empty()));
}

fn table_comments(table: &Table, all: &mut Vec<String>) {
    add(all, table.decor().prefix());
    add(all, table.decor().suffix());
    for (name, item) in table.iter() {
        if let Some(key) = table.key(name) {
            key_comments(key, all);
        }
        match item {
            Item::Table(inner) => table_comments(inner, all),
            Item::ArrayOfTables(tables) => tables.iter().for_each(|inner| table_comments(inner, all)),
            Item::Value(value) => value_comments(value, all),
            Item::None => {}
        }
    }
}

fn key_comments(key: &Key, all: &mut Vec<String>) {
    for decor in [key.leaf_decor(), key.dotted_decor()] {
        add(all, decor.prefix());
        add(all, decor.suffix());
    }
}

fn value_comments(value: &Value, all: &mut Vec<String>) {
    add(all, value.decor().prefix());
    add(all, value.decor().suffix());
    match value {
        Value::Array(array) => {
            add(all, Some(array.trailing()));
            array.iter().for_each(|value| value_comments(value, all));
        }
        Value::InlineTable(table) => {
            add(all, Some(table.trailing()));
            for (name, inner) in table.iter() {
                if let Some(key) = table.key(name) {
                    key_comments(key, all);
                }
                value_comments(inner, all);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, expect: &str) {
        let once = layout(text, "a.toml").expect(text);
        assert_eq!(once, expect);
        assert_eq!(layout(&once, "a.toml").expect("what was laid out"), once, "twice is once");
    }

    #[test]
    fn tables_and_keys_are_put_in_order_with_their_comments() {
        check(
            "# About the file.\n\n\n# One more each time.\nserial=7\nschema = 1 # ours\n[container.web]\n# why\n\
             ports  = [ \"80:80\" ]\nimage='a' # tag\n[container.db]\nimage = \"b\"\n[container.web.limits]\n\
             memory = \"1GiB\"\n# The network.\n[network.x]\n# the end\n",
            "# About the file.\n\nschema = 1 # ours\n# One more each time.\nserial = 7\n\n# The network.\n[network.x]\n\n\
             [container.web]\nimage = 'a' # tag\n# why\nports = [\"80:80\"]\n\n[container.web.limits]\n\
             memory = \"1GiB\"\n\n[container.db]\nimage = \"b\"\n\n# the end\n",
        );
    }

    #[test]
    fn lists_stay_over_several_lines_with_their_comments() {
        check(
            "a = [\n 1, # one\n # two\n 2 # behind\n , 3 ]\nb = [1,2 , 3,]\nc = {x=1,  y = [ 2 ]}\nd.e = 1\n",
            "a = [\n    1, # one\n    # two\n    # behind\n    2,\n    3,\n]\nb = [1, 2, 3]\n\
             c = { x = 1, y = [2] }\nd.e = 1\n",
        );
        let long = format!("a = [{}]\n", ["\"twenty characters ok\""; 6].join(","));
        let laid_out = layout(&long, "a").expect("sound");
        assert_eq!(laid_out.lines().count(), 8, "{laid_out}");
    }

    #[test]
    fn what_is_no_toml_is_refused_with_its_place() {
        let error = layout("a = 1\nb = \n", "x.toml").expect_err("no value").to_string();
        assert!(error.starts_with("x.toml:2:"), "{error}");
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 500, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn laying_out_twice_is_laying_out_once(
            text in "(# c[0-9]\n|\n| |[a-c] = 1\n|[d-f] = \\[\n?|1, ?|# x\n|\\]\n|\\[[a-z]\\]\n|\\[container\\.[a-c]\\]\n|image = 'a' # i\n|[g-i]\\.[a-c] = \\{x = 1\\}\n){0,14}",
        ) {
            if let Ok(once) = layout(&text, "a") {
                prop_assert_eq!(layout(&once, "a").expect("sound"), once);
            }
        }
    }
}
