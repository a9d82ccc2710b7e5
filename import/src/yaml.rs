//! YAML made into a tree whose every value knows its place and whether anybody looked at it.
//!
//! The parser gives events and does not expand aliases; that is done here, with merge keys (`<<`), within bounds.
//! Source: YAML 1.2.2 (chapters 6 to 8); merge keys: the "Merge Key Language-Independent Type" for YAML 1.1.

use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use granit_parser::{Event, Options, Parser, ScalarStyle, ScanError, Span};

use crate::error::ImportError;
use crate::note::{Place, quoted};

/// The largest document, in bytes.
pub const MAX_INPUT: usize = 1024 * 1024;
/// The deepest nesting of lists and maps.
pub const MAX_DEPTH: usize = 64;
/// The most values in a document, after aliases were replaced by what they stand for.
pub const MAX_NODES: usize = 100_000;

/// A value.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub(crate) place: Place,
    pub(crate) value: Value,
    /// Whether it was carried over, or named in a note.
    pub(crate) read: Cell<bool>,
}

/// What a value is.
#[derive(Debug, Clone)]
pub(crate) enum Value {
    /// The text, and whether it stood without quotes (so that `null` and `true` are not words).
    Scalar(String, bool),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) key: String,
    pub(crate) place: Place,
    pub(crate) value: Node,
    /// Whether anybody asked for the key.
    pub(crate) asked: Cell<bool>,
    /// Whether an alias stands for what is inside: then it is carried over where the alias is.
    pub(crate) anchored: bool,
}

impl Node {
    /// Whether nothing was written, or `null` or `~`.
    pub(crate) fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(text, true) if matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL"))
    }

    /// Marks it, and all in it, as accounted for.
    pub(crate) fn settle(&self) {
        self.read.set(true);
        match &self.value {
            Value::Scalar(..) => {}
            Value::List(list) => list.iter().for_each(Node::settle),
            Value::Map(entries) => entries.iter().for_each(|entry| {
                entry.asked.set(true);
                entry.value.settle();
            }),
        }
    }

    /// How many values it is.
    pub(crate) fn size(&self) -> usize {
        1 + match &self.value {
            Value::Scalar(..) => 0,
            Value::List(list) => list.iter().map(Node::size).sum(),
            Value::Map(entries) => entries.iter().map(|entry| entry.value.size()).sum(),
        }
    }
}

/// The first document in `text`; `None` where there is none. `file` is its name in places, `budget` the number of
/// values that may still be made.
pub(crate) fn parse(text: &str, file: &str, budget: &mut usize) -> Result<Option<Node>, ImportError> {
    let file: Arc<str> = Arc::from(file);
    let start = Place { file: file.clone(), line: 1, column: 1 };
    if text.len() > MAX_INPUT {
        return Err(ImportError::Bounds {
            place: start,
            message: format!("it is larger than {MAX_INPUT} bytes"),
        });
    }
    let mut options = Options::default();
    options.emit_comments = false;
    options.flow_nesting_limit = MAX_DEPTH;
    options.block_nesting_limit = MAX_DEPTH;
    let parser = Parser::new_from_str_with_options(text, options);
    let mut reader = Reader {
        parser,
        file,
        anchors: BTreeMap::new(),
        open: BTreeSet::new(),
        used: BTreeSet::new(),
        budget,
    };
    let mut document = None;
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::DocumentStart(..) if document.is_some() => {
                let place = reader.place(&span);
                let message = "a second document begins here: give one file each".to_owned();
                return Err(ImportError::Syntax { place, message });
            }
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(..) | Event::DocumentEnd => {}
            event => document = Some(reader.node(event, &span, 0)?.0),
        }
    }
    let used = std::mem::take(&mut reader.used);
    Ok(document.map(|mut node: Node| {
        if let Value::Map(entries) = &mut node.value {
            for entry in entries {
                entry.anchored = holds(&entry.value, &used);
            }
        }
        node
    }))
}

/// Whether one of the values at `places` is `node` or within it.
fn holds(node: &Node, places: &BTreeSet<Place>) -> bool {
    places.contains(&node.place)
        || match &node.value {
            Value::Scalar(..) => false,
            Value::List(list) => list.iter().any(|node| holds(node, places)),
            Value::Map(entries) => entries.iter().any(|entry| holds(&entry.value, places)),
        }
}

struct Reader<'a, 'b> {
    parser: Parser<'a, granit_parser::StrInput<'a>>,
    file: Arc<str>,
    anchors: BTreeMap<usize, Node>,
    /// Anchors whose value is not yet complete.
    open: BTreeSet<usize>,
    /// Where the values stand that aliases were replaced by.
    used: BTreeSet<Place>,
    budget: &'b mut usize,
}

impl<'a> Reader<'a, '_> {
    fn place(&self, span: &Span) -> Place {
        Place { file: self.file.clone(), line: span.start.line().max(1), column: span.start.col() + 1 }
    }

    fn next(&mut self) -> Result<Option<(Event<'a>, Span)>, ImportError> {
        let syntax = |error: ScanError| {
            let mark = error.marker();
            let place = Place { file: self.file.clone(), line: mark.line().max(1), column: mark.col() + 1 };
            ImportError::Syntax { place, message: error.info() }
        };
        self.parser.next_event().transpose().map_err(syntax)
    }

    fn need(&mut self, at: &Place) -> Result<(Event<'a>, Span), ImportError> {
        self.next()?.ok_or_else(|| ImportError::Syntax {
            place: at.clone(),
            message: "the document ends within this value".to_owned(),
        })
    }

    fn spend(&mut self, count: usize, place: &Place) -> Result<(), ImportError> {
        *self.budget = self.budget.checked_sub(count).ok_or_else(|| ImportError::Bounds {
            place: place.clone(),
            message: format!("there are more than {MAX_NODES} values, those of aliases counted"),
        })?;
        Ok(())
    }

    /// The value that begins with `event`, and whether it was an alias.
    fn node(&mut self, event: Event<'a>, span: &Span, depth: usize) -> Result<(Node, bool), ImportError> {
        let place = self.place(span);
        if depth > MAX_DEPTH {
            let message = format!("it is nested more than {MAX_DEPTH} deep");
            return Err(ImportError::Bounds { place, message });
        }
        self.spend(1, &place)?;
        if let Some(tag) = event.tag().filter(|tag| !tag.is_yaml_core_schema()) {
            let message = format!(
                "the tag {} is about merging several files: give the merged file, as `docker compose config` prints it",
                quoted(&tag.original())
            );
            return Err(ImportError::Syntax { place, message });
        }
        let (anchor, value) = match event {
            Event::Alias(anchor) => return Ok((self.alias(anchor, &place)?, true)),
            Event::Scalar(text, style, anchor, tag) => {
                // `!!str 5` is the word; every other tag says what the word is anyhow.
                let plain = style == ScalarStyle::Plain && tag.is_none();
                (anchor, Value::Scalar(text.into_owned(), plain))
            }
            Event::SequenceStart(_, anchor, _) => {
                self.open.insert(anchor);
                (anchor, Value::List(self.list(&place, depth)?))
            }
            Event::MappingStart(_, anchor, _) => {
                self.open.insert(anchor);
                (anchor, Value::Map(self.map(&place, depth)?))
            }
            _ => {
                let message = "a value is expected here".to_owned();
                return Err(ImportError::Syntax { place, message });
            }
        };
        let node = Node { place, value, read: Cell::new(false) };
        self.open.remove(&anchor);
        if anchor != 0 {
            self.spend(node.size(), &node.place)?;
            self.anchors.insert(anchor, node.clone());
        }
        Ok((node, false))
    }

    fn alias(&mut self, anchor: usize, place: &Place) -> Result<Node, ImportError> {
        if self.open.contains(&anchor) {
            let message = "this alias stands for something that it is itself a part of".to_owned();
            return Err(ImportError::Syntax { place: place.clone(), message });
        }
        let Some(node) = self.anchors.get(&anchor) else {
            let message = "nothing before this alias has its name".to_owned();
            return Err(ImportError::Syntax { place: place.clone(), message });
        };
        let (node, size) = (node.clone(), node.size());
        self.spend(size, place)?;
        self.used.insert(node.place.clone());
        Ok(node)
    }

    fn list(&mut self, place: &Place, depth: usize) -> Result<Vec<Node>, ImportError> {
        let mut list = Vec::new();
        loop {
            match self.need(place)? {
                (Event::SequenceEnd, _) => return Ok(list),
                (event, span) => list.push(self.node(event, &span, depth + 1)?.0),
            }
        }
    }

    fn map(&mut self, place: &Place, depth: usize) -> Result<Vec<Entry>, ImportError> {
        let (mut entries, mut merged) = (Vec::<Entry>::new(), Vec::new());
        let mut seen = BTreeSet::new();
        loop {
            let (event, span) = self.need(place)?;
            if matches!(event, Event::MappingEnd) {
                break;
            }
            let (key, _) = self.node(event, &span, depth + 1)?;
            let key_place = self.place(&span);
            let (event, span) = self.need(place)?;
            let (value, _) = self.node(event, &span, depth + 1)?;
            let Value::Scalar(key, _) = key.value else {
                let message = "a key is a word".to_owned();
                return Err(ImportError::Syntax { place: key_place, message });
            };
            if key == "<<" {
                merged.push((key_place, value));
            } else if seen.insert(key.clone()) {
                entries.push(Entry {
                    key,
                    place: key_place,
                    value,
                    asked: Cell::new(false),
                    anchored: false,
                });
            } else {
                let message = format!("the key {} is there twice: remove or rename one", quoted(&key));
                return Err(ImportError::Syntax { place: key_place, message });
            }
        }
        // What is written in the map itself comes before what is merged, and what is merged first before the rest.
        for (place, value) in merged {
            let maps = match value.value {
                Value::Map(entries) => vec![entries],
                Value::List(list) => list
                    .into_iter()
                    .map(|node| match node.value {
                        Value::Map(entries) => Ok(entries),
                        _ => Err(not_a_map(&place)),
                    })
                    .collect::<Result<_, _>>()?,
                Value::Scalar(..) => return Err(not_a_map(&place)),
            };
            for entry in maps.into_iter().flatten() {
                if seen.insert(entry.key.clone()) {
                    entries.push(entry);
                }
            }
        }
        Ok(entries)
    }
}

fn not_a_map(place: &Place) -> ImportError {
    ImportError::Syntax { place: place.clone(), message: "`<<` takes a map, or a list of maps".to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Option<Node>, ImportError> {
        parse(text, "a.yml", &mut MAX_NODES.clone())
    }

    fn shown(node: &Node) -> String {
        match &node.value {
            Value::Scalar(text, _) => text.clone(),
            Value::List(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(",")),
            Value::Map(entries) => {
                let entry = |entry: &Entry| format!("{}={}", entry.key, shown(&entry.value));
                format!("{{{}}}", entries.iter().map(entry).collect::<Vec<_>>().join(","))
            }
        }
    }

    #[test]
    fn aliases_and_merge_keys_are_replaced_by_what_they_stand_for() {
        let text = "x-a: &a {p: 1, q: [2, 3]}\nx-b: &b {p: 9, r: 4}\nc:\n  <<: [*a, *b]\n  q: mine\nd: *a\n";
        let tree = read(text).expect("it is YAML").expect("it is not empty");
        assert_eq!(shown(&tree), "{x-a={p=1,q=[2,3]},x-b={p=9,r=4},c={q=mine,p=1,r=4},d={p=1,q=[2,3]}}");
    }

    #[test]
    fn values_know_their_place() {
        let tree = read("a:\n  - bü: x\n").expect("it is YAML").expect("it is not empty");
        let Value::Map(top) = &tree.value else { panic!("a map") };
        let Value::List(list) = &top[0].value.value else { panic!("a list") };
        let Value::Map(inner) = &list[0].value else { panic!("a map") };
        assert_eq!((inner[0].place.line, inner[0].place.column), (2, 5));
        assert_eq!((inner[0].value.place.line, inner[0].value.place.column), (2, 9));
    }

    #[test]
    fn bombs_end_at_the_bound() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            bomb.push_str(&format!("a{level}: &a{level} [{}]\n", below.trim_end_matches(", ")));
        }
        assert!(matches!(read(&bomb), Err(ImportError::Bounds { .. })));
        let deep = "[".repeat(1000);
        assert!(read(&deep).is_err());
        assert!(read(&"- ".repeat(1000)).is_err());
        assert!(matches!(read(&" ".repeat(MAX_INPUT + 1)), Err(ImportError::Bounds { .. })));
    }

    #[test]
    fn what_is_no_sound_document_is_refused() {
        for text in
            ["a: *b", "a: &a [*a]", "a: 1\na: 2", "[a]: 1", "<<: x", "a: 1\n---\nb: 2", "{---", "a: ["]
        {
            assert!(read(text).is_err(), "{text:?} was taken");
        }
        assert!(read("").expect("empty is fine").is_none());
        assert!(read("# nothing\n").expect("empty is fine").is_none());
    }
}
