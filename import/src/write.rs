//! A [`Draft`] made into the text of a manifest, laid out as `hostctl fmt` lays out.

use jiff::{SignedDuration, Timestamp};

use crate::draft::{Draft, Table, Value};
use crate::note::printable;
use crate::order::{OWN_TABLES, rank};

/// The longest line of a list before it gets a line for each element.
pub(crate) const MAX_LINE: usize = 120;
/// How long an imported manifest may be taken up.
const VALIDITY: SignedDuration = SignedDuration::from_hours(90 * 24);

/// The text.
pub(crate) fn write(draft: &Draft, name: &str, now: Timestamp) -> String {
    let mut text = String::new();
    comments(&mut text, &draft.comments);
    text.push('\n');
    let whole = |moment: Timestamp| Timestamp::from_second(moment.as_second()).unwrap_or(moment);
    let expires = now.checked_add(VALIDITY).unwrap_or(Timestamp::MAX);
    text.push_str(&format!(
        "schema = 1\nname = {}\nserial = 1\nsigned-at = {}\nexpires = {}\n",
        string(name),
        whole(now),
        whole(expires)
    ));
    let named = [
        ("network", &draft.networks),
        ("volume", &draft.volumes),
        ("config", &draft.configs),
        ("secret", &draft.secrets),
    ];
    for (kind, tables) in named {
        tables.iter().for_each(|(name, body)| table(&mut text, &[kind, name], body));
    }
    for (kind, tables) in [("container", &draft.containers), ("job", &draft.jobs)] {
        tables.iter().for_each(|(name, body)| table(&mut text, &[kind, name], body));
    }
    text
}

fn comments(text: &mut String, lines: &[String]) {
    for line in lines {
        // A line break would end the comment, and the rest would be read as part of the manifest.
        let line = line.split('\n').map(printable).collect::<Vec<_>>().join(" ");
        text.push_str(format!("# {line}").trim_end());
        text.push('\n');
    }
}

fn table(text: &mut String, path: &[&str], body: &Table) {
    text.push('\n');
    comments(text, &body.comments);
    text.push_str(&header(path));
    let mut entries: Vec<_> = body.entries.iter().collect();
    entries.sort_by_key(|(key, _)| rank(path, key));
    let own = |key: &str, value: &Value| OWN_TABLES.contains(&key) && matches!(value, Value::Map(_));
    for (name, value) in entries.iter().filter(|(name, value)| !own(name, value)) {
        comments(text, body.remarks.get(*name).map(std::slice::from_ref).unwrap_or_default());
        line(text, name, value);
    }
    for (name, value) in entries.iter().filter(|(name, value)| own(name, value)) {
        let Value::Map(inner) = value else { continue };
        text.push('\n');
        comments(text, body.remarks.get(*name).map(std::slice::from_ref).unwrap_or_default());
        let path: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
        text.push_str(&header(&path));
        let mut inner: Vec<_> = inner.iter().collect();
        inner.sort_by_key(|(key, _)| rank(&path, key));
        inner.iter().for_each(|(name, value)| line(text, name, value));
    }
}

fn header(path: &[&str]) -> String {
    format!("[{}]\n", path.iter().map(|part| key(part)).collect::<Vec<_>>().join("."))
}

fn line(text: &mut String, name: &str, value: &Value) {
    let line = format!("{} = {}", key(name), inline(value));
    match value {
        Value::List(list) if line.chars().count() > MAX_LINE => {
            text.push_str(&format!("{} = [\n", key(name)));
            list.iter().for_each(|value| text.push_str(&format!("    {},\n", inline(value))));
            text.push_str("]\n");
        }
        Value::Text(long) if is_block(long) => {
            // The line break after the opening marks is not a part of the text (TOML 1.1, "String").
            text.push_str(&format!("{} = '''\n{long}'''\n", key(name)));
        }
        _ => text.push_str(&(line + "\n")),
    }
}

/// Whether a text reads better over several lines, and can stand there as it is.
fn is_block(text: &str) -> bool {
    let plain = |c: char| matches!(c, '\n' | '\t') || !c.is_control();
    text.contains('\n') && !text.contains("'''") && !text.ends_with('\'') && text.chars().all(plain)
}

fn inline(value: &Value) -> String {
    match value {
        Value::Text(text) => string(text),
        Value::Integer(number) => number.to_string(),
        Value::Flag(flag) => flag.to_string(),
        Value::List(list) => format!("[{}]", list.iter().map(inline).collect::<Vec<_>>().join(", ")),
        Value::Map(map) if map.is_empty() => "{}".to_owned(),
        Value::Map(map) => {
            let pair = |(name, value): &(String, Value)| format!("{} = {}", key(name), inline(value));
            format!("{{ {} }}", map.iter().map(pair).collect::<Vec<_>>().join(", "))
        }
    }
}

/// A key, bare where it may be (TOML 1.1, "Keys").
pub(crate) fn key(text: &str) -> String {
    let bare = |b: u8| b.is_ascii_alphanumeric() || b == b'_' || b == b'-';
    if !text.is_empty() && text.bytes().all(bare) { text.to_owned() } else { string(text) }
}

/// A basic string (TOML 1.1, "String").
pub(crate) fn string(text: &str) -> String {
    let mut out = String::from("\"");
    for letter in text.chars() {
        match letter {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            letter if letter.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(letter))),
            letter => out.push(letter),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_a_text_comes_back_from_toml() {
        for text in ["", "a\"b\\c", "\u{7f}\u{0}\r\n", "l1\nl2\n", "'''\n", "a\n'", "\u{202e}", "é\tx\ny"] {
            let mut draft = Draft::default();
            draft.comments.push(format!("c {text}"));
            let mut body = Table::default();
            body.set("content", text);
            body.comments.push(text.to_owned());
            draft.configs.insert("a".to_owned(), body);
            let written = write(&draft, "x", Timestamp::UNIX_EPOCH);
            let read: toml_edit::DocumentMut = written.parse().expect(&written);
            assert_eq!(read["config"]["a"]["content"].as_str(), Some(text), "{written}");
        }
    }
}
