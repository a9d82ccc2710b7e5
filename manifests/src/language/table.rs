//! Tables with fixed keys, and tables of such tables.

use std::collections::BTreeMap;

use super::form::{Form, KeyInfo, TableInfo, TextForm};
use super::reader::Reader;
use crate::document::{Item, Section, Wrong};

/// A table with fixed keys; [`table!`] makes them.
pub(crate) trait Table: Sized {
    /// Takes its keys from `section`, all of them, whatever faults there are.
    fn read_keys(section: &mut Section<'_>) -> Option<Self>;

    /// Its keys.
    fn keys() -> Vec<KeyInfo>;

    /// What it is.
    fn doc() -> &'static str;

    /// What is known of it, under the header that it has in a document.
    fn info(title: &str) -> TableInfo {
        let doc = Self::doc().lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned();
        TableInfo { title: title.to_owned(), doc, keys: Self::keys() }
    }
}

/// Reads a whole table; a key that is not its own is a fault.
pub(crate) fn read_table<T: Table>(mut section: Section<'_>) -> Option<T> {
    let table = T::read_keys(&mut section);
    section.end();
    table
}

/// A table as a value, written below the header `title`.
pub(crate) fn sub_table<T: Table>(title: &'static str) -> SubTable<T> {
    SubTable { title, check: None, marker: std::marker::PhantomData }
}

/// As [`sub_table`]; `check` finds what its keys say against each other, for a fault at the table's place.
pub(crate) fn section_of<T: Table>(title: &'static str, check: Check<T>) -> SubTable<T> {
    SubTable { title, check: Some(check), marker: std::marker::PhantomData }
}

/// Finds what the keys of a table say against each other.
type Check<T> = fn(&T) -> Result<(), Wrong>;

pub(crate) struct SubTable<T> {
    title: &'static str,
    check: Option<Check<T>>,
    marker: std::marker::PhantomData<T>,
}

impl<T: Table> Reader for SubTable<T> {
    type Out = T;

    fn form(&self) -> Form {
        Form::Table(T::info(self.title))
    }

    fn read(&self, item: &Item<'_>) -> Option<T> {
        let before = item.faults.count();
        let table: T = read_table(item.section()?)?;
        // What does not hold for values that were put in for faulty ones would only confuse.
        if let Some(check) = self.check.filter(|_| item.faults.count() == before)
            && let Err(Wrong { message, hint }) = check(&table)
        {
            item.faults.add_with(&item.key_span, message, hint);
        }
        Some(table)
    }
}

/// Tables by names that the author chooses, at most `max`.
pub(crate) fn tables<K: Ord, R: Reader>(
    key: TextForm,
    read_key: fn(&str) -> Result<K, Wrong>,
    of: R,
    max: usize,
) -> Tables<K, R> {
    Tables { key, read_key, of, max }
}

pub(crate) struct Tables<K, R> {
    key: TextForm,
    read_key: fn(&str) -> Result<K, Wrong>,
    of: R,
    max: usize,
}

impl<K: Ord, R: Reader> Reader for Tables<K, R> {
    type Out = BTreeMap<K, R::Out>;

    fn form(&self) -> Form {
        Form::Map { key: self.key.clone(), of: Box::new(self.of.form()), max: self.max }
    }

    fn read(&self, item: &Item<'_>) -> Option<Self::Out> {
        let mut read = BTreeMap::new();
        for (name, item) in item.section()?.entries(self.max) {
            let value = self.of.read(&item);
            match (self.read_key)(name.value) {
                Ok(name) => read.extend(value.map(|value| (name, value))),
                Err(Wrong { message, hint }) => item.faults.add_with(&name.span, message, hint),
            }
        }
        Some(read)
    }
}

/// A struct, and how it is read from a table and described.
///
/// ```text
/// table! {
///     /// What the table is.
///     pub struct Limits {
///         /// What the key means.
///         pub memory: Option<u64> = "memory", optional(size(MIB, TIB)), "\"64MiB\"";
///     }
/// }
/// ```
macro_rules! table {
    (
        $(#[doc = $doc:literal])*
        $(#[derive($($derive:ident),*)])?
        $vis:vis struct $name:ident {
            $( $(#[doc = $key_doc:literal])* $key_vis:vis $field:ident : $type:ty = $key:literal, $slot:expr, $example:literal; )*
        }
    ) => {
        $(#[doc = $doc])*
        #[derive(Debug, Clone, PartialEq, Eq, serde::Serialize $($(, $derive)*)?)]
        $vis struct $name {
            $( $(#[doc = $key_doc])* $key_vis $field: $type, )*
        }

        impl $crate::language::Table for $name {
            fn read_keys(section: &mut $crate::document::Section<'_>) -> Option<Self> {
                // Every key is taken before any of them is missed, so that all faults are found at once.
                $( let $field = $crate::language::Slot::take(&$slot, section, $key, $example); )*
                Some(Self { $( $field: $field?, )* })
            }

            fn keys() -> Vec<$crate::language::KeyInfo> {
                let mut keys = Vec::new();
                $( $crate::language::KeyInfo::add($key, concat!($($key_doc, "\n"),*), $example, &$slot, &mut keys); )*
                keys
            }

            fn doc() -> &'static str {
                concat!($($doc, "\n"),*)
            }
        }
    };
}
pub(crate) use table;
