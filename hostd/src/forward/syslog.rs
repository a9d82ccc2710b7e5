//! Lines as messages of syslog (RFC 5424), each with its length before it (RFC 6587, section 3.4.1; RFC 5425, section 4.3).
//!
//! ```text
//! 131 <14>1 2026-03-01T12:00:00.000001Z attic web 77 - [bennu@32473 instance="web-3" generation="3" image="sha256:…"] hello
//! ```

use std::fmt::Write as _;

use bennu_api::LogLine;
use jiff::fmt::temporal::DateTimePrinter;

/// What the structured data is called. 32473 is the number that is set aside for examples (RFC 5612): this project has
/// none of its own.
const STRUCTURED: &str = "bennu@32473";

/// The facilities of containers (user-level messages) and of the daemon (system daemons) (RFC 5424, section 6.2.1).
const USER: u8 = 1;
const DAEMON: u8 = 3;

/// How grave a line is that does not say so: informational.
pub(super) const INFORMATIONAL: u8 = 6;

/// The longest text of one message, in bytes; the rest is left out. Receivers take 8 KiB as a rule, and some more.
const MAX_TEXT: usize = 64 << 10;

/// One message with its length, of the host that is called `host`.
pub(super) fn framed(line: &LogLine, host: &str) -> Vec<u8> {
    let message = message(line, host);
    let mut framed = format!("{} ", message.len()).into_bytes();
    framed.extend(message.into_bytes());
    framed
}

fn message(line: &LogLine, host: &str) -> String {
    let (facility, name) =
        if line.container.is_empty() { (DAEMON, "hostd") } else { (USER, line.container.as_str()) };
    let severity = line.priority.filter(|priority| *priority <= 7).unwrap_or(INFORMATIONAL);
    let time = DateTimePrinter::new().precision(Some(6)).timestamp_to_string(&line.time);
    let process = line.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string());
    let mut text = format!(
        "<{}>1 {time} {} {} {process} - ",
        facility * 8 + severity,
        header(host, 255),
        header(name, 48)
    );
    structured(line, &mut text);
    text.push(' ');
    let said = cut(line.message.trim_end_matches('\n'), MAX_TEXT);
    if !said.is_ascii() {
        // What is not plain ASCII begins with a byte order mark where it is UTF-8 (section 6.4).
        text.push('\u{feff}');
    }
    text.push_str(said);
    text
}

/// A field of the header: printable ASCII without spaces, and never empty (section 6).
fn header(text: &str, longest: usize) -> String {
    let printable = text.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' });
    let field: String = printable.take(longest).collect();
    if field.is_empty() { "-".to_owned() } else { field }
}

fn structured(line: &LogLine, text: &mut String) {
    let generation = line.generation.map(|generation| generation.to_string());
    let parameters = [
        ("instance", Some(line.instance.as_str()).filter(|instance| !instance.is_empty())),
        ("generation", generation.as_deref()),
        ("image", line.image.as_deref()),
    ];
    let mut said = parameters.into_iter().filter_map(|(name, value)| Some((name, value?))).peekable();
    if said.peek().is_none() {
        text.push('-');
        return;
    }
    let _ = write!(text, "[{STRUCTURED}");
    for (name, value) in said {
        let _ = write!(text, " {name}=\"{}\"", escaped(value));
    }
    text.push(']');
}

/// The value of a parameter: `"`, `\` and `]` with a backslash before them (section 6.3.3).
fn escaped(value: &str) -> String {
    let mut escaped = String::with_capacity(value.len());
    for c in value.chars() {
        if matches!(c, '"' | '\\' | ']') {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

/// The beginning of a text, not longer than so many bytes, and cut between two characters.
fn cut(text: &str, longest: usize) -> &str {
    &text[..text.floor_char_boundary(longest)]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tests::line;

    #[track_caller]
    fn check(line: &LogLine, expected: &str) {
        let framed = String::from_utf8(framed(line, "attic")).unwrap();
        assert_eq!(framed, format!("{} {expected}", expected.len()));
    }

    #[test]
    fn a_line_becomes_these_bytes_of_rfc_5424() {
        check(
            &line("hello\n"),
            "<14>1 2026-03-01T12:00:00.000001Z attic web 77 - [bennu@32473 instance=\"web-3\" generation=\"3\" \
             image=\"sha256:ab\"] hello",
        );
        let daemon = LogLine { time: line("").time, message: "started".into(), ..LogLine::default() };
        check(&daemon, "<30>1 2026-03-01T12:00:00.000001Z attic hostd - - - started");
        check(
            &LogLine { priority: Some(3), ..daemon.clone() },
            "<27>1 2026-03-01T12:00:00.000001Z attic hostd - - - started",
        );
        check(
            &LogLine { priority: Some(9), ..daemon },
            "<30>1 2026-03-01T12:00:00.000001Z attic hostd - - - started",
        );
    }

    #[test]
    fn what_is_not_ascii_is_marked_as_utf_8_and_a_line_break_within_stays_in_its_message() {
        let text = message(&line("größer\nzwei"), "attic");
        assert!(text.ends_with("] \u{feff}größer\nzwei"), "{text}");
    }

    #[test]
    fn no_name_breaks_the_header() {
        let hostile = LogLine { container: "a b\n<0>1".into(), ..line("x") };
        let text = message(&hostile, "");
        assert!(text.starts_with("<14>1 2026-03-01T12:00:00.000001Z - a?b?<0>1 77 - ["), "{text}");
        assert_eq!(header(&"x".repeat(300), 48).len(), 48);
    }

    #[test]
    fn a_long_text_is_cut_between_two_characters() {
        let text = "é".repeat(MAX_TEXT);
        let cut = cut(&text, MAX_TEXT - 1);
        assert_eq!(cut.len(), MAX_TEXT - 2);
        assert!(framed(&line(&text), "attic").len() < MAX_TEXT + 200);
    }

    proptest::proptest! {
        /// Whatever is in a value, who reads it by the rules of section 6.3.3 gets the same value back.
        #[test]
        fn a_value_is_read_back_as_it_was(value in proptest::prelude::any::<String>()) {
            let escaped = escaped(&value);
            let (mut read, mut rest) = (String::new(), escaped.chars());
            while let Some(c) = rest.next() {
                proptest::prop_assert!(c != '"' && c != ']', "{escaped:?} ends early");
                read.push(if c == '\\' { rest.next().expect("a character is escaped") } else { c });
            }
            proptest::prop_assert_eq!(read, value);
        }

        /// Messages one after the other are taken apart again by their lengths alone.
        #[test]
        fn messages_in_a_stream_are_told_apart(texts in proptest::collection::vec(proptest::prelude::any::<String>(), 0..8)) {
            let stream: Vec<u8> = texts.iter().flat_map(|text| framed(&line(text), "attic")).collect();
            let (mut rest, mut found) = (&stream[..], 0);
            while !rest.is_empty() {
                let space = rest.iter().position(|&b| b == b' ').expect("a length ends");
                let length: usize = std::str::from_utf8(&rest[..space]).expect("digits").parse().expect("a number");
                let message = &rest[space + 1..space + 1 + length];
                proptest::prop_assert!(message.starts_with(b"<14>1 "));
                proptest::prop_assert!(std::str::from_utf8(message).is_ok());
                rest = &rest[space + 1 + length..];
                found += 1;
            }
            proptest::prop_assert_eq!(found, texts.len());
        }
    }
}
