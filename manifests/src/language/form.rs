//! What a value looks like, for people and for editors.

use super::slot::Slot;

/// What is written as a value.
#[derive(Debug, Clone)]
pub(crate) enum Form {
    /// `true` or `false`.
    Flag,
    /// An integer from `min` to `max`, both allowed.
    Integer { min: i64, max: i64 },
    /// A date-time with its offset.
    Moment,
    /// A string.
    Text(TextForm),
    /// One of these words; each with its meaning.
    Word(Vec<(&'static str, &'static str)>),
    /// An array of at most `max`.
    List { of: Box<Form>, max: usize },
    /// A table whose keys are chosen by the author.
    Map { key: TextForm, of: Box<Form>, max: usize },
    /// A table with fixed keys.
    Table(TableInfo),
    /// Any one of these.
    Either(Vec<Form>),
}

/// What is written in a string.
#[derive(Debug, Clone)]
pub(crate) struct TextForm {
    /// What it is, with its article: `a size`.
    pub(crate) what: &'static str,
    /// How it is written, and its bounds; may be empty.
    pub(crate) syntax: String,
    /// A regular expression (ECMA-262) that every sound value matches; may be empty.
    pub(crate) pattern: &'static str,
    /// The longest, in bytes.
    pub(crate) max: usize,
}

/// A table of the language.
#[derive(Debug, Clone)]
pub(crate) struct TableInfo {
    /// How its header is written: `container.NAME`.
    pub(crate) title: String,
    /// What it is.
    pub(crate) doc: String,
    /// Its keys, in the order in which they are explained.
    pub(crate) keys: Vec<KeyInfo>,
}

/// A key of a table.
#[derive(Debug, Clone)]
pub(crate) struct KeyInfo {
    /// As it is written.
    pub(crate) key: &'static str,
    /// What it means.
    pub(crate) doc: String,
    /// What is written there.
    pub(crate) form: Form,
    /// Whether it may be left out.
    pub(crate) presence: Presence,
    /// A value, in TOML.
    pub(crate) example: &'static str,
    /// Whether a document that says it needs the `os` role.
    pub(crate) os: bool,
    /// Whether hosts of this release carry it out.
    pub(crate) carried_out: bool,
}

/// What it means that a key is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Presence {
    /// That is a fault.
    Needed,
    /// Something that the key's own words say.
    Optional,
    /// The same as this, in TOML.
    Default(&'static str),
}

impl Form {
    /// The tables that are written in a value of this form.
    pub(crate) fn tables(&self) -> Vec<TableInfo> {
        match self {
            Self::Table(table) => vec![table.clone()],
            Self::List { of, .. } | Self::Map { of, .. } => of.tables(),
            Self::Either(forms) => forms.iter().flat_map(Self::tables).collect(),
            _ => Vec::new(),
        }
    }
}

impl KeyInfo {
    pub(crate) fn add(
        key: &'static str,
        doc: &str,
        example: &'static str,
        slot: &impl Slot,
        into: &mut Vec<Self>,
    ) {
        let doc = doc.lines().map(str::trim).collect::<Vec<_>>().join("\n").trim().to_owned();
        let presence = Presence::Optional;
        let blank = Self { key, doc, form: Form::Flag, presence, example, os: false, carried_out: true };
        slot.describe(blank, into);
    }
}
