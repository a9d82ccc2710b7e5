//! The JSON Schema of a document (<https://json-schema.org/draft/2020-12>).

use std::fmt::Write;

use super::form::{Form, KeyInfo, Presence, TableInfo, TextForm};

/// The schema of a document that is this table.
pub(super) fn of(top: &TableInfo) -> String {
    let dialect = ("$schema", string("https://json-schema.org/draft/2020-12/schema"));
    let members = [vec![dialect, ("title", string("Bennu manifest, schema 1"))], table(top, 0)].concat();
    object(&members, 0) + "\n"
}

/// A string of JSON (RFC 8259, section 7).
fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            // Writing to a String cannot fail.
            c if c.is_control() => drop(write!(out, "\\u{:04x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// An object of JSON with these members, indented by `depth`.
fn object(members: &[(&str, String)], depth: usize) -> String {
    let indent = "  ".repeat(depth + 1);
    let lines: Vec<String> =
        members.iter().map(|(key, value)| format!("{indent}{}: {value}", string(key))).collect();
    format!("{{\n{}\n{}}}", lines.join(",\n"), "  ".repeat(depth))
}

fn array(elements: &[String]) -> String {
    format!("[{}]", elements.join(", "))
}

fn table(table: &TableInfo, depth: usize) -> Vec<(&'static str, String)> {
    let keys: Vec<(&str, String)> = table.keys.iter().map(|info| (info.key, key(info, depth + 2))).collect();
    let needed = table.keys.iter().filter(|key| key.presence == Presence::Needed);
    let needed: Vec<String> = needed.map(|key| string(key.key)).collect();
    let mut members = vec![
        ("description", string(&plain(&table.doc))),
        ("type", string("object")),
        ("additionalProperties", "false".to_owned()),
        ("properties", object(&keys, depth + 1)),
    ];
    if !needed.is_empty() {
        members.push(("required", array(&needed)));
    }
    members
}

fn key(info: &KeyInfo, depth: usize) -> String {
    let mut words = plain(&info.doc);
    if info.os {
        words.push_str(" Needs the os role.");
    }
    if !info.carried_out {
        words.push_str(" Not carried out by hosts of this release.");
    }
    let mut members = form(&info.form, depth);
    members.retain(|(key, _)| *key != "description");
    members.insert(0, ("description", string(&words)));
    if let Presence::Default(text) = info.presence {
        // The defaults of this language are flags, numbers, strings and arrays of strings: TOML and JSON write them alike.
        members.push(("default", text.to_owned()));
    }
    object(&members, depth)
}

/// One line of text, without the marks of code.
fn plain(doc: &str) -> String {
    doc.replace('\n', " ").replace('`', "")
}

fn text_members(text: &TextForm) -> Vec<(&'static str, String)> {
    let mut members = vec![("type", string("string")), ("maxLength", text.max.to_string())];
    if !text.pattern.is_empty() {
        members.push(("pattern", string(text.pattern)));
    }
    members
}

fn form(form: &Form, depth: usize) -> Vec<(&'static str, String)> {
    let nested = |inner: &Form, depth: usize| object(&self::form(inner, depth), depth);
    match form {
        Form::Flag => vec![("type", string("boolean"))],
        Form::Integer { min, max } => {
            vec![("type", string("integer")), ("minimum", min.to_string()), ("maximum", max.to_string())]
        }
        // Editors read the date-times of TOML as strings of this format.
        Form::Moment => vec![("type", string("string")), ("format", string("date-time"))],
        Form::Text(text) => text_members(text),
        Form::Word(words) => {
            let words: Vec<String> = words.iter().map(|(word, _)| string(word)).collect();
            vec![("type", string("string")), ("enum", array(&words))]
        }
        Form::List { of, max } => {
            vec![("type", string("array")), ("maxItems", max.to_string()), ("items", nested(of, depth + 1))]
        }
        Form::Map { key, of, max } => vec![
            ("type", string("object")),
            ("maxProperties", max.to_string()),
            ("propertyNames", object(&text_members(key), depth + 1)),
            ("additionalProperties", nested(of, depth + 1)),
        ],
        Form::Table(inner) => table(inner, depth),
        Form::Either(forms) => {
            let forms: Vec<String> = forms.iter().map(|one| nested(one, depth + 1)).collect();
            vec![("anyOf", array(&forms))]
        }
    }
}
