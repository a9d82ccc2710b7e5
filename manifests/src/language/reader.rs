//! Values: each reader takes one from the document and can say what it takes.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;

use super::form::{Form, TextForm};
use crate::document::{Item, Wrong};
use crate::fault::quoted;
use crate::nearest::did_you_mean;
use crate::text::first_unsafe;

/// Takes one kind of value.
pub(crate) trait Reader {
    /// What it becomes.
    type Out;

    /// What is written.
    fn form(&self) -> Form;

    /// The value; `None` after a fault was reported.
    fn read(&self, item: &Item<'_>) -> Option<Self::Out>;

    /// What stands for a faulty value while the rest of the document is looked at. It never leaves the crate: after a
    /// fault there is no manifest.
    fn stand_in(&self) -> Option<Self::Out> {
        None
    }
}

/// `true` or `false`.
pub(crate) fn flag() -> impl Reader<Out = bool> {
    struct Flag;
    impl Reader for Flag {
        type Out = bool;

        fn form(&self) -> Form {
            Form::Flag
        }

        fn read(&self, item: &Item<'_>) -> Option<bool> {
            item.flag()
        }
    }
    Flag
}

/// An integer within a range that begins at 0 or later.
pub(crate) fn integer(range: RangeInclusive<u64>) -> impl Reader<Out = u64> {
    struct Integer(RangeInclusive<u64>);
    impl Reader for Integer {
        type Out = u64;

        fn form(&self) -> Form {
            let bound = |bound: &u64| i64::try_from(*bound).unwrap_or(i64::MAX);
            Form::Integer { min: bound(self.0.start()), max: bound(self.0.end()) }
        }

        fn read(&self, item: &Item<'_>) -> Option<u64> {
            item.integer(self.0.clone())
        }
    }
    Integer(range)
}

/// An integer that may be negative.
pub(crate) fn signed(range: RangeInclusive<i64>) -> impl Reader<Out = i64> {
    struct Signed(RangeInclusive<i64>);
    impl Reader for Signed {
        type Out = i64;

        fn form(&self) -> Form {
            Form::Integer { min: *self.0.start(), max: *self.0.end() }
        }

        fn read(&self, item: &Item<'_>) -> Option<i64> {
            item.signed(self.0.clone())
        }
    }
    Signed(range)
}

/// A moment.
pub(crate) fn moment() -> impl Reader<Out = Timestamp> {
    struct Moment;
    impl Reader for Moment {
        type Out = Timestamp;

        fn form(&self) -> Form {
            Form::Moment
        }

        fn read(&self, item: &Item<'_>) -> Option<Timestamp> {
            item.moment().map(|moment| moment.value)
        }
    }
    Moment
}

/// A string as it is, without control and deceptive characters.
pub(crate) fn text(what: &'static str, max: usize) -> Text {
    Text { what, max, first_bad: first_unsafe }
}

/// A string as it is.
pub(crate) struct Text {
    what: &'static str,
    max: usize,
    first_bad: fn(&str) -> Option<String>,
}

impl Text {
    /// With another idea of what must not be in it.
    pub(crate) fn without(self, first_bad: fn(&str) -> Option<String>) -> Self {
        Self { first_bad, ..self }
    }
}

impl Reader for Text {
    type Out = String;

    fn form(&self) -> Form {
        Form::Text(TextForm { what: self.what, syntax: String::new(), pattern: "", max: self.max })
    }

    fn read(&self, item: &Item<'_>) -> Option<String> {
        item.checked_text(self.max, self.first_bad).map(|text| text.value.to_owned())
    }
}

/// A string with a syntax.
pub(crate) fn spec<T>(
    what: &'static str,
    syntax: impl Into<String>,
    pattern: &'static str,
    max: usize,
    read: impl Fn(&str) -> Result<T, Wrong>,
) -> impl Reader<Out = T> {
    struct Spec<F>(TextForm, F);
    impl<T, F: Fn(&str) -> Result<T, Wrong>> Reader for Spec<F> {
        type Out = T;

        fn form(&self) -> Form {
            Form::Text(self.0.clone())
        }

        fn read(&self, item: &Item<'_>) -> Option<T> {
            item.read(self.0.max, &self.1).map(|text| text.value)
        }
    }
    Spec(TextForm { what, syntax: syntax.into(), pattern, max }, read)
}

/// A word, its meaning for people, and the value that it stands for.
pub(crate) type Words<T> = &'static [(&'static str, T, &'static str)];

/// The value that a word of `words` stands for, for readers of strings that contain one.
fn words_of<T: Copy>(what: &str, words: Words<T>, text: &str) -> Result<T, Wrong> {
    if let Some((_, value, _)) = words.iter().find(|(word, ..)| *word == text) {
        return Ok(*value);
    }
    let all = || {
        let quoted: Vec<String> = words.iter().map(|(word, ..)| format!("`{word}`")).collect();
        match quoted.split_last() {
            Some((last, [])) => format!("write {last}"),
            Some((last, others)) => format!("write {} or {last}", others.join(", ")),
            None => String::new(),
        }
    };
    // A short word is within a few letters of every other one.
    let long = words.iter().map(|(word, ..)| *word).filter(|word| word.len() > 2);
    let hint = did_you_mean(text, long).unwrap_or_else(all);
    Err(Wrong::new(format!("{} is no {what}", quoted(text))).hint(hint))
}

/// One of a few words.
pub(crate) fn word<T: Copy + 'static>(what: &'static str, words: Words<T>) -> impl Reader<Out = T> {
    struct Word<T: 'static>(&'static str, Words<T>);
    impl<T: Copy> Reader for Word<T> {
        type Out = T;

        fn form(&self) -> Form {
            Form::Word(self.1.iter().map(|(word, _, meaning)| (*word, *meaning)).collect())
        }

        fn read(&self, item: &Item<'_>) -> Option<T> {
            item.read(256, |text| words_of(self.0, self.1, text)).map(|word| word.value)
        }

        fn stand_in(&self) -> Option<T> {
            self.1.first().map(|(_, value, _)| *value)
        }
    }
    Word(what, words)
}

/// An array of at most `max`.
pub(crate) fn list<R: Reader>(of: R, max: usize) -> impl Reader<Out = Vec<R::Out>> {
    List { of, max, same: |_, _| false }
}

/// An array of at most `max`, none of them twice.
pub(crate) fn each<R: Reader<Out: PartialEq>>(of: R, max: usize) -> impl Reader<Out = Vec<R::Out>> {
    List { of, max, same: |a, b| a == b }
}

struct List<R: Reader> {
    of: R,
    max: usize,
    same: fn(&R::Out, &R::Out) -> bool,
}

impl<R: Reader> Reader for List<R> {
    type Out = Vec<R::Out>;

    fn form(&self) -> Form {
        Form::List { of: Box::new(self.of.form()), max: self.max }
    }

    fn read(&self, item: &Item<'_>) -> Option<Self::Out> {
        let mut all: Vec<R::Out> = Vec::new();
        for element in item.list(self.max)? {
            let Some(value) = self.of.read(&element) else { continue };
            if all.iter().any(|earlier| (self.same)(earlier, &value)) {
                element.fault(format!("{} says this twice", quoted(&item.path)), None);
            } else {
                all.push(value);
            }
        }
        Some(all)
    }
}

/// A list that says something by being there, and so must not be empty; `hint` says what to write instead.
pub(crate) fn deny_empty<T, R: Reader<Out = Vec<T>>>(of: R, hint: &'static str) -> impl Reader<Out = Vec<T>> {
    struct Full<R>(R, &'static str);
    impl<T, R: Reader<Out = Vec<T>>> Reader for Full<R> {
        type Out = Vec<T>;

        fn form(&self) -> Form {
            self.0.form()
        }

        fn read(&self, item: &Item<'_>) -> Option<Vec<T>> {
            let before = item.faults.count();
            let read = self.0.read(item)?;
            if read.is_empty() && item.faults.count() == before {
                item.fault(format!("{} is empty", quoted(&item.path)), self.1.to_owned());
                return None;
            }
            Some(read)
        }
    }
    Full(of, hint)
}

/// Values by keys that the author chooses, at most `max`.
pub(crate) fn map<K: Ord, R: Reader>(
    key: TextForm,
    read_key: fn(&str) -> Result<K, Wrong>,
    of: R,
    max: usize,
) -> impl Reader<Out = BTreeMap<K, R::Out>> {
    super::table::tables(key, read_key, of, max)
}

/// A string, or else what `other` takes. Both become the same.
pub(crate) fn either<T, A: Reader<Out = T>, B: Reader<Out = T>>(text: A, other: B) -> impl Reader<Out = T> {
    struct Either<A, B>(A, B);
    impl<T, A: Reader<Out = T>, B: Reader<Out = T>> Reader for Either<A, B> {
        type Out = T;

        fn form(&self) -> Form {
            Form::Either(vec![self.0.form(), self.1.form()])
        }

        fn read(&self, item: &Item<'_>) -> Option<T> {
            let first = match self.0.form() {
                Form::List { .. } => item.is_list(),
                _ => item.is_text(),
            };
            if first { self.0.read(item) } else { self.1.read(item) }
        }
    }
    Either(text, other)
}

/// As `of`; `value` stands for a faulty one while the rest of the document is looked at.
pub(crate) fn standing_in<R: Reader<Out: Clone>>(of: R, value: R::Out) -> impl Reader<Out = R::Out> {
    struct StandingIn<R: Reader>(R, R::Out);
    impl<R: Reader<Out: Clone>> Reader for StandingIn<R> {
        type Out = R::Out;

        fn form(&self) -> Form {
            self.0.form()
        }

        fn read(&self, item: &Item<'_>) -> Option<R::Out> {
            self.0.read(item)
        }

        fn stand_in(&self) -> Option<R::Out> {
            Some(self.1.clone())
        }
    }
    StandingIn(of, value)
}
