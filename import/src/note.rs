//! What an import has to say besides the manifest: what was left behind, what was changed, what is still to be done.

use std::cell::RefCell;
use std::sync::Arc;

use serde::Serialize;

/// Where something stands in the input.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Place {
    /// The file, as it was named; for a command line `command line`.
    #[serde(serialize_with = "as_text")]
    pub file: Arc<str>,
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1; of a command line the number of the word, from 1.
    pub column: usize,
}

fn as_text<S: serde::Serializer>(file: &Arc<str>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(file)
}

/// How much a note matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// Something of the input has no place in the manifest.
    Lost,
    /// Something is in the manifest, but not as it was.
    Changed,
    /// Something was carried over, and there is more to know or to do. It never fails a strict import.
    Advice,
}

/// One thing that the author of the input has to know.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Note {
    /// How much it matters.
    pub kind: Kind,
    /// Where it stands.
    #[serde(flatten)]
    pub place: Place,
    /// The keys that lead to it, as `services.web.logging`.
    pub path: String,
    /// What is not as it was, in lower case.
    pub message: String,
    /// What to do instead.
    pub hint: String,
}

impl Note {
    /// The note for people, in one or two lines that end with a line break. Control and bidirectional characters of
    /// the input are not passed on.
    pub fn render(&self) -> String {
        let Place { file, line, column } = &self.place;
        let word = match self.kind {
            Kind::Lost => "not carried over",
            Kind::Changed => "changed",
            Kind::Advice => "advice",
        };
        let mut text = format!("{file}:{line}:{column}: {word}: {}: {}", self.path, self.message);
        if !self.hint.is_empty() {
            text.push_str("\n  = help: ");
            text.push_str(&self.hint);
        }
        text.split('\n').map(|line| printable(line) + "\n").collect()
    }
}

/// `text` without anything that moves a terminal or turns the direction of reading.
pub(crate) fn printable(text: &str) -> String {
    let deceptive = |c: char| matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}');
    text.chars()
        .map(|c| if c.is_control() || deceptive(c) { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

/// `text` between back-quotes and shortened, for messages.
pub(crate) fn quoted(text: &str) -> String {
    let short: String = text.chars().take(60).collect();
    let dots = if short.len() < text.len() { "…" } else { "" };
    format!("`{}{dots}`", printable(&short))
}

/// One value of the input: where it is, and which keys lead there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Site {
    pub(crate) place: Place,
    pub(crate) path: String,
}

/// Notes as they are made.
#[derive(Debug, Default)]
pub(crate) struct Notes(RefCell<Vec<Note>>);

impl Notes {
    fn add(&self, kind: Kind, site: &Site, message: impl Into<String>, hint: impl Into<String>) {
        let note = Note {
            kind,
            place: site.place.clone(),
            path: site.path.clone(),
            message: message.into(),
            hint: hint.into(),
        };
        // Two ways of reading the same value say the same thing once.
        let mut notes = self.0.borrow_mut();
        if notes.last() != Some(&note) {
            notes.push(note);
        }
    }

    pub(crate) fn lost(&self, site: &Site, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Kind::Lost, site, message, hint);
    }

    pub(crate) fn changed(&self, site: &Site, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Kind::Changed, site, message, hint);
    }

    pub(crate) fn advice(&self, site: &Site, message: impl Into<String>, hint: impl Into<String>) {
        self.add(Kind::Advice, site, message, hint);
    }

    /// Every note until now, in the order of the input.
    pub(crate) fn so_far(&self) -> Vec<Note> {
        Self(self.0.clone()).end()
    }

    /// Every note, in the order of the input.
    pub(crate) fn end(self) -> Vec<Note> {
        let mut notes = self.0.into_inner();
        notes.sort_by(|a, b| (&a.place, a.kind, &a.path).cmp(&(&b.place, b.kind, &b.path)));
        notes
    }
}
