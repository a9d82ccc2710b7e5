//! Keys of a table: whether one may be left out, who may write it, and whether hosts carry it out yet.

use super::form::{KeyInfo, Presence};
use super::reader::Reader;
use super::table::Table;
use crate::document::Section;

/// A key of a table, whatever it is called.
pub(crate) trait Slot {
    /// What the table holds for it.
    type Out;

    /// Takes it from the table. `None` after a fault, or where it had to be there.
    fn take(&self, section: &mut Section<'_>, key: &'static str, example: &str) -> Option<Self::Out>;

    /// Completes what is known of it, and adds it.
    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>);
}

/// Must be there.
pub(crate) fn needed<R: Reader>(reader: R) -> Needed<R> {
    Needed(reader)
}

/// May be left out.
pub(crate) fn optional<R: Reader>(reader: R) -> Optional<R> {
    Optional(reader)
}

/// May be left out, and is `default` then, which is written `text` in TOML.
pub(crate) fn otherwise<R: Reader>(reader: R, default: R::Out, text: &'static str) -> Otherwise<R>
where
    R::Out: Clone,
{
    Otherwise { reader, default, text }
}

/// A list or map that is empty where it is left out.
pub(crate) fn or_empty<R: Reader<Out: Default>>(reader: R) -> OrEmpty<R> {
    OrEmpty(reader)
}

/// Needs the threshold of the `os` role wherever it is written.
pub(crate) fn os<S: Slot>(slot: S) -> ByOs<S> {
    ByOs(slot)
}

/// Is part of the language, and not carried out by hosts of this release: they refuse a document that says it.
pub(crate) fn later<S: Slot>(slot: S) -> Later<S> {
    Later(slot)
}

/// All keys of another table stand in this one.
pub(crate) fn flatten<T: Table>() -> Flatten<T> {
    Flatten(std::marker::PhantomData)
}

pub(crate) struct Needed<R>(R);
pub(crate) struct Optional<R>(R);
pub(crate) struct OrEmpty<R>(R);
pub(crate) struct Otherwise<R: Reader> {
    reader: R,
    default: R::Out,
    text: &'static str,
}
pub(crate) struct ByOs<S>(S);
pub(crate) struct Later<S>(S);
pub(crate) struct Flatten<T>(std::marker::PhantomData<T>);

impl<R: Reader> Slot for Needed<R> {
    type Out = R::Out;

    fn take(&self, section: &mut Section<'_>, key: &'static str, example: &str) -> Option<R::Out> {
        let read = section.need(key, example).and_then(|item| self.0.read(&item));
        read.or_else(|| self.0.stand_in())
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        into.push(KeyInfo { form: self.0.form(), presence: Presence::Needed, ..key });
    }
}

impl<R: Reader> Slot for Optional<R> {
    type Out = Option<R::Out>;

    fn take(&self, section: &mut Section<'_>, key: &'static str, _: &str) -> Option<Self::Out> {
        // After a fault it is as if it were not there, so that the rest can be looked at, too.
        Some(section.get(key).and_then(|item| self.0.read(&item)))
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        into.push(KeyInfo { form: self.0.form(), presence: Presence::Optional, ..key });
    }
}

impl<R: Reader<Out: Default>> Slot for OrEmpty<R> {
    type Out = R::Out;

    fn take(&self, section: &mut Section<'_>, key: &'static str, _: &str) -> Option<R::Out> {
        Some(section.get(key).and_then(|item| self.0.read(&item)).unwrap_or_default())
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        into.push(KeyInfo { form: self.0.form(), presence: Presence::Optional, ..key });
    }
}

impl<R: Reader> Slot for Otherwise<R>
where
    R::Out: Clone,
{
    type Out = R::Out;

    fn take(&self, section: &mut Section<'_>, key: &'static str, _: &str) -> Option<R::Out> {
        let read = section.get(key).and_then(|item| self.reader.read(&item));
        Some(read.unwrap_or_else(|| self.default.clone()))
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        into.push(KeyInfo { form: self.reader.form(), presence: Presence::Default(self.text), ..key });
    }
}

impl<S: Slot> Slot for ByOs<S> {
    type Out = S::Out;

    fn take(&self, section: &mut Section<'_>, key: &'static str, example: &str) -> Option<S::Out> {
        if let Some(item) = section.peek(key) {
            item.faults.needs_os(&item.key_span, &item.path);
        }
        self.0.take(section, key, example)
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        self.0.describe(key, into);
        into.iter_mut().rev().take(1).for_each(|key| key.os = true);
    }
}

impl<S: Slot> Slot for Later<S> {
    type Out = S::Out;

    fn take(&self, section: &mut Section<'_>, key: &'static str, example: &str) -> Option<S::Out> {
        if let Some(item) = section.peek(key) {
            item.faults.not_yet(&item.key_span, &item.path);
        }
        self.0.take(section, key, example)
    }

    fn describe(&self, key: KeyInfo, into: &mut Vec<KeyInfo>) {
        self.0.describe(key, into);
        into.iter_mut().rev().take(1).for_each(|key| key.carried_out = false);
    }
}

impl<T: Table> Slot for Flatten<T> {
    type Out = T;

    fn take(&self, section: &mut Section<'_>, _: &'static str, _: &str) -> Option<T> {
        T::read_keys(section)
    }

    fn describe(&self, _: KeyInfo, into: &mut Vec<KeyInfo>) {
        into.extend(T::keys());
    }
}
