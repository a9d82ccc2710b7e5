//! The language of manifests, described once: what reads a document is also what its JSON Schema and its reference are
//! made from, so that the three cannot differ.
//!
//! ```text
//! table! { /// words  pub struct Limits { /// words  pub memory: Option<u64> = "memory", optional(size(…)), "…"; } }
//!    │                                                              │
//!    ├─► struct Limits, documented                                  ├─► Slot: may it be left out, and what then
//!    ├─► Limits::read_keys(section): faults with their places       └─► Reader: what is written there
//!    └─► Limits::keys(): names, words, forms, bounds, examples ──► json_schema(), reference()
//! ```

mod form;
mod reader;
mod reference;
mod schema;
mod slot;
mod table;
#[cfg(test)]
mod tests;

pub(crate) use form::{Form, KeyInfo, TextForm};
pub(crate) use reader::{
    Reader, Words, deny_empty, each, either, flag, integer, list, map, moment, signed, spec, standing_in,
    text, word,
};
pub(crate) use slot::{Slot, flatten, later, needed, optional, or_empty, os, otherwise};
pub(crate) use table::{Table, read_table, section_of, sub_table, table, tables};

use crate::model::Manifest;

/// The JSON Schema of a manifest (draft 2020-12), for editors.
///
/// It says what can be said of one value at a time. What the parts of a manifest say about each other, and whether a
/// digest, an address or a calendar expression is sound, is for [`crate::check()`] alone.
pub fn json_schema() -> String {
    schema::of(&Manifest::info("manifest"))
}

/// The reference of every key, in Markdown.
pub fn reference() -> String {
    reference::of(&Manifest::info("manifest"))
}
