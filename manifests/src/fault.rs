//! What is wrong with a document, and where: every fault points into the text.

use std::cell::RefCell;
use std::fmt::Write;
use std::ops::Range;

use serde::Serialize;

use crate::text::{is_deceptive, shown};

/// The most faults that are reported for one document; after these it is not looked at any further.
pub(crate) const MAX_FAULTS: usize = 100;
/// How many characters of a line of the document are shown at most.
const MAX_SHOWN: usize = 100;

/// A document that is not valid, and all that is wrong with it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
#[error("the document is not valid: {}", summary(errors, *more))]
pub struct Invalid {
    /// What is wrong, in the order of the text; at least one.
    pub errors: Vec<Fault>,
    /// How many more were found than are reported. There may be still more: one that has so many is not read to its end.
    pub more: usize,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// The bytes of the text that are meant.
    pub span: Range<usize>,
    /// What is wrong, in lower case. Text of the document appears in it only with control characters escaped.
    pub message: String,
    /// What to write instead.
    pub hint: Option<String>,
}

fn summary(errors: &[Fault], more: usize) -> String {
    let Some(first) = errors.first() else { return "no reason is known".to_owned() };
    let others = match errors.len() - 1 + more {
        0 => String::new(),
        1 => " (and 1 more error)".to_owned(),
        count => format!(" (and {count} more errors)"),
    };
    format!("line {}, column {}: {}{others}", first.line, first.column, first.message)
}

impl Invalid {
    /// One fault of the document as a whole, where there is no text to point into.
    pub(crate) fn whole(message: impl Into<String>, hint: Option<&str>) -> Self {
        let (message, hint) = (message.into(), hint.map(str::to_owned));
        Self { errors: vec![Fault { line: 1, column: 1, span: 0..0, message, hint }], more: 0 }
    }

    /// The faults for people, each with its line of `text` and a mark below it. `file_name` is how the document is
    /// called there; the result ends with a line break.
    ///
    /// Control and bidirectional characters of the document are not passed on to the terminal.
    pub fn render(&self, file_name: &str, text: &str) -> String {
        let mut out = String::new();
        for fault in &self.errors {
            fault.render(&mut out, "error", file_name, text);
        }
        if self.more > 0 {
            out.push_str(&format!("and at least {} more\n", self.more));
        }
        out
    }
}

/// Faults that keep a document from nothing, for people, as [`Invalid::render`] shows errors; `kind` is what each is
/// called, as `note`.
pub(crate) fn render_all(faults: &[Fault], kind: &str, file_name: &str, text: &str) -> String {
    let mut out = String::new();
    faults.iter().for_each(|fault| fault.render(&mut out, kind, file_name, text));
    out
}

impl Fault {
    fn at(text: &str, span: Range<usize>, message: String, hint: Option<String>) -> Self {
        let start = floor(text, span.start);
        let span = start..floor(text, span.end.max(start));
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line = 1 + text[..line_start].bytes().filter(|b| *b == b'\n').count();
        let column = 1 + text[line_start..start].chars().count();
        Self { line, column, span, message, hint }
    }

    fn render(&self, out: &mut String, kind: &str, file_name: &str, text: &str) {
        let Self { line, column, message, hint, .. } = self;
        // Writing to a String cannot fail.
        let _ = writeln!(out, "{file_name}:{line}:{column}: {kind}: {message}");
        let source = text.split('\n').nth(line - 1).unwrap_or("").trim_end_matches('\r');
        let gutter = line.to_string().len();
        let first = (column - 1).saturating_sub(MAX_SHOWN / 2);
        let shown: String = source.chars().skip(first).take(MAX_SHOWN).map(printable).collect();
        if !shown.trim().is_empty() {
            let offset = column - 1 - first;
            let marked = text.get(self.span.clone()).unwrap_or("");
            let width = marked.lines().next().unwrap_or("").chars().count();
            let width = width.clamp(1, MAX_SHOWN.saturating_sub(offset).max(1));
            let _ = writeln!(out, "{line} | {}", shown.trim_end());
            let _ = writeln!(out, "{:gutter$} | {:offset$}{}", "", "", "^".repeat(width));
        }
        if let Some(hint) = hint {
            let _ = writeln!(out, "{:gutter$} = help: {hint}", "");
        }
    }
}

/// One column wide and without effect on a terminal.
fn printable(c: char) -> char {
    match c {
        '\t' => ' ',
        c if c.is_control() || is_deceptive(c) => char::REPLACEMENT_CHARACTER,
        c => c,
    }
}

/// The greatest position not beyond `at` where a character begins.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len())).rev().find(|at| text.is_char_boundary(*at)).unwrap_or(0)
}

/// What is found while the document is walked through.
#[derive(Debug, Default)]
pub(crate) struct Faults {
    faults: RefCell<Vec<Found>>,
    notes: RefCell<Vec<Found>>,
    not_yet: RefCell<Vec<Found>>,
    needs_os: RefCell<Vec<(usize, String)>>,
}

/// What was found beside faults; all in the order of the text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Remarks {
    /// What is allowed and probably not meant.
    pub(crate) notes: Vec<Fault>,
    /// Keys that hosts of this release do not carry out.
    pub(crate) not_yet: Vec<Fault>,
    /// The paths of what needs the `os` role.
    pub(crate) needs_os: Vec<String>,
}

/// Where, what, and what to do about it.
type Found = (Range<usize>, String, Option<String>);

impl Faults {
    pub(crate) fn add(&self, span: &Range<usize>, message: impl Into<String>) {
        self.add_with(span, message, None::<String>);
    }

    pub(crate) fn add_with(
        &self,
        span: &Range<usize>,
        message: impl Into<String>,
        hint: impl Into<Option<String>>,
    ) {
        self.faults.borrow_mut().push((span.clone(), message.into(), hint.into()));
    }

    /// Whether there are more than anybody is shown. Then the rest of the document is not looked at: to say what each of
    /// ten thousand wrong words was probably meant to be takes seconds.
    pub(crate) fn is_full(&self) -> bool {
        self.count() > MAX_FAULTS
    }

    /// How many there are; for telling whether a step found any.
    pub(crate) fn count(&self) -> usize {
        self.faults.borrow().len()
    }

    /// Something that is allowed and probably not meant.
    pub(crate) fn note(&self, span: &Range<usize>, message: String, hint: impl Into<Option<String>>) {
        self.notes.borrow_mut().push((span.clone(), message, hint.into()));
    }

    /// Something that hosts of this release do not carry out.
    pub(crate) fn not_yet(&self, span: &Range<usize>, path: &str) {
        let message = format!("{} is not carried out by hosts of this release", quoted(path));
        let hint = "leave it out: a host refuses what it cannot do, rather than do half of it".to_owned();
        self.not_yet.borrow_mut().push((span.clone(), message, Some(hint)));
    }

    /// Something that needs the threshold of the `os` role.
    pub(crate) fn needs_os(&self, span: &Range<usize>, path: &str) {
        self.needs_os.borrow_mut().push((span.start, shown(path)));
    }

    /// `value`, or all that was found.
    pub(crate) fn end<T>(self, text: &str, value: Option<T>) -> Result<T, Invalid> {
        self.end_with_remarks(text, value).map(|(value, _)| value)
    }

    /// `value` and what is to be said about it, or all that is wrong.
    pub(crate) fn end_with_remarks<T>(self, text: &str, value: Option<T>) -> Result<(T, Remarks), Invalid> {
        let (errors, more) = in_order(text, self.faults.into_inner());
        if !errors.is_empty() {
            return Err(Invalid { errors, more });
        }
        let value = value.expect("a value is missing only where a fault was found");
        let mut needs_os = self.needs_os.into_inner();
        needs_os.sort();
        let remarks = Remarks {
            notes: in_order(text, self.notes.into_inner()).0,
            not_yet: in_order(text, self.not_yet.into_inner()).0,
            needs_os: needs_os.into_iter().map(|(_, path)| path).collect(),
        };
        Ok((value, remarks))
    }
}

/// The first of what was found, in the order of the text, and how many more there are.
fn in_order(text: &str, mut found: Vec<Found>) -> (Vec<Fault>, usize) {
    found.sort_by(|a, b| (a.0.start, &a.1).cmp(&(b.0.start, &b.1)));
    let more = found.len().saturating_sub(MAX_FAULTS);
    let first = found.into_iter().take(MAX_FAULTS);
    (first.map(|(span, message, hint)| Fault::at(text, span, message, hint)).collect(), more)
}

/// `text` between back-quotes, shortened and without control characters, for messages.
pub(crate) fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invalid(text: &str, span: Range<usize>, hint: Option<&str>) -> Invalid {
        let faults = Faults::default();
        faults.add_with(&span, "something is wrong", hint.map(str::to_owned));
        faults.end::<()>(text, None).expect_err("a fault was added")
    }

    #[test]
    fn a_fault_is_shown_with_its_line_and_a_mark() {
        let text = "name = \"a\"\n[cöntainer.web]\nimage = 1\n";
        let start = text.find("web").expect("it is there");
        let found = invalid(text, start..start + 3, Some("write something else"));
        let expect = "host.toml:2:12: error: something is wrong\n\
                      2 | [cöntainer.web]\n  |            ^^^\n  = help: write something else\n";
        assert_eq!(found.render("host.toml", text), expect);
        assert_eq!(found.to_string(), "the document is not valid: line 2, column 12: something is wrong");
    }

    #[test]
    fn positions_at_the_end_beyond_it_and_inside_a_character_are_shown() {
        for text in ["", "a", "a\n", "ö", "\u{202e}\u{1b}[2J"] {
            for span in [0..0, 0..100, 1..1, 1..2, 100..100] {
                let shown = invalid(text, span, None).render("f", text);
                assert!(shown.starts_with("f:") && shown.contains("something is wrong"), "{shown}");
                assert!(!shown.contains(['\u{202e}', '\u{1b}']), "{shown:?}");
            }
        }
    }

    #[test]
    fn a_very_long_line_is_shown_around_its_fault() {
        let text = "x".repeat(5000) + "!" + &"y".repeat(5000);
        let shown = invalid(&text, 5000..5001, None).render("f", &text);
        let lines: Vec<&str> = shown.lines().collect();
        assert_eq!(lines[1].chars().count(), MAX_SHOWN + "1 | ".len());
        assert_eq!(lines[1].find('!'), lines[2].find('^'));
    }

    #[test]
    fn faults_beyond_the_cap_are_counted() {
        let faults = Faults::default();
        (0..150).for_each(|_| faults.add(&(0..0), "wrong"));
        let found = faults.end::<()>("", None).expect_err("there are faults");
        assert_eq!((found.errors.len(), found.more), (MAX_FAULTS, 50));
        assert!(found.render("f", "").ends_with("and at least 50 more\n"));
    }
}
