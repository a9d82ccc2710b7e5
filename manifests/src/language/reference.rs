//! The reference of every key, in Markdown.

use std::fmt::Write;

use super::form::{Form, KeyInfo, Presence, TableInfo, TextForm};

const INTRODUCTION: &str = "\
# The manifest

Every key of the language, `schema = 1`. This page is made from the types that read a manifest: \
`cargo test -p bennu-manifests` says when it is stale, and `UPDATE_REFERENCE=1` writes it again.

A manifest is one TOML 1.1 document of at most 1 MiB. A key that is not in this page is an error, and so is every other \
doubt: `hostctl check FILE` names all of them at once. Editors check while you type with the JSON Schema that \
`hostctl schema` prints (`#:schema ./manifest.schema.json` in the first line, for those that use taplo).

**Compatibility.** `schema = 1` means what this page says, for ever: a later release reads every document that is valid \
by it as it was meant. What a later release adds is new keys and new words for values; a host that is too old for one \
refuses the document as a whole and names the key, and what runs goes on running. A change that would give an old \
document another meaning gets another number, which older hosts refuse by name.

Two marks stand beside keys: **os** needs the threshold of the trust document's `os` role beside that of `deploy`; \
**later** is part of the language and not carried out by hosts of this release: they refuse a manifest that says it \
rather than do half of it, and `hostctl check` tells beforehand.

Sizes are a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`. Durations are a whole number and `ms`, `s`, `m` or `h`.
";

/// The page of a document that is this table.
pub(super) fn of(top: &TableInfo) -> String {
    let mut out = String::from(INTRODUCTION);
    let mut tables = vec![top.clone()];
    let mut next = 0;
    while next < tables.len() {
        let table = tables[next].clone();
        section(&table, &mut out);
        let inner: Vec<TableInfo> = table.keys.iter().flat_map(marked_tables).collect();
        let known = tables.iter().map(|table| table.title.clone()).collect::<Vec<_>>();
        tables.extend(inner.into_iter().filter(|table| !known.contains(&table.title)));
        next += 1;
    }
    out
}

/// The tables that are written below a key, whose marks are theirs, too.
fn marked_tables(key: &KeyInfo) -> Vec<TableInfo> {
    let mut tables = key.form.tables();
    for inner in tables.iter_mut().flat_map(|table| &mut table.keys) {
        inner.os |= key.os;
        inner.carried_out &= key.carried_out;
    }
    tables
}

// Writing to a String cannot fail, here and below.
fn section(table: &TableInfo, out: &mut String) {
    let title =
        if table.title == "manifest" { "The document".to_owned() } else { format!("`[{}]`", table.title) };
    let _ = write!(out, "\n## {title}\n\n{}\n", table.doc);
    if table.title.starts_with("job.") {
        let _ = write!(out, "\nThe keys of [`[container.NAME]`](#containername), and these:\n");
    }
    let own = |key: &&KeyInfo| {
        !table.title.starts_with("job.") || matches!(key.key, "when" | "deadline" | "retries" | "history")
    };
    for info in table.keys.iter().filter(own) {
        key(info, out);
    }
}

fn key(info: &KeyInfo, out: &mut String) {
    let os = if info.os { " **os**" } else { "" };
    let later = if info.carried_out { "" } else { " **later**" };
    let _ = write!(out, "\n### `{}`{os}{later}\n\n{}\n\n", info.key, info.doc);
    let _ = writeln!(out, "- {}", capital(&written(&info.form)));
    match info.presence {
        Presence::Needed => out.push_str("- Must be there.\n"),
        Presence::Optional => {}
        Presence::Default(text) => drop(writeln!(out, "- Left out: `{text}`.")),
    }
    if let Form::Word(words) = &info.form {
        for (word, meaning) in words {
            let _ = writeln!(out, "  - `\"{word}\"`: {meaning}");
        }
    }
    // A map of tables is written as headers, which the section of the table shows.
    if !info.form.tables().is_empty() && matches!(info.form, Form::Map { .. }) {
        return;
    }
    let _ = write!(out, "\n```toml\n{} = {}\n```\n", info.key, info.example);
}

fn capital(text: &str) -> String {
    let mut chars = text.chars();
    chars.next().map_or_else(String::new, |first| first.to_uppercase().chain(chars).collect())
}

fn text(form: &TextForm) -> String {
    let syntax = if form.syntax.is_empty() { String::new() } else { format!(": {}", form.syntax) };
    format!("{}{syntax}; at most {} bytes", form.what, form.max)
}

/// What is written there, in words.
fn written(form: &Form) -> String {
    match form {
        Form::Flag => "`true` or `false`.".to_owned(),
        Form::Integer { min, max: i64::MAX } => format!("An integer from {min}."),
        Form::Integer { min, max } => format!("An integer from {min} to {max}."),
        Form::Moment => "A date-time with its offset, without quotes.".to_owned(),
        Form::Text(form) => format!("A string, {}.", text(form)),
        Form::Word(_) => "One of these words:".to_owned(),
        Form::List { of, max } => format!("An array of at most {max}. Each: {}", written(of)),
        Form::Map { key, of, max } => match &**of {
            Form::Table(table) => {
                format!("Tables `[{}]`, at most {max}, each named by {}.", table.title, text(key))
            }
            of => format!("A table of at most {max}. Each key: {}. Each value: {}", text(key), written(of)),
        },
        Form::Table(table) => format!("A table, [`[{}]`](#{}).", table.title, anchor(&table.title)),
        Form::Either(forms) => forms.iter().map(written).collect::<Vec<_>>().join(" Or: "),
    }
}

/// The anchor that a page on GitHub and its likes gives to a heading: letters and digits, in lower case.
fn anchor(title: &str) -> String {
    title.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect::<String>().to_lowercase()
}
