//! Unit files of systemd: sections, keys, continued lines, words.
//!
//! Source: systemd.syntax(7); words: systemd.service(5), "Command lines".

use std::sync::Arc;

use crate::error::ImportError;
use crate::note::{Place, quoted};
use crate::yaml::MAX_INPUT;

/// The most keys of one file.
const MAX_KEYS: usize = 4096;

/// One `Key=Value`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Setting {
    pub(crate) section: String,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) place: Place,
}

/// The settings of a unit file, in order. An empty value takes back what the same key said before, and is gone itself.
pub(crate) fn parse(text: &str, file: &str) -> Result<Vec<Setting>, ImportError> {
    let file: Arc<str> = Arc::from(file);
    let place = |line, column| Place { file: file.clone(), line, column };
    if text.len() > MAX_INPUT {
        let message = format!("it is larger than {MAX_INPUT} bytes");
        return Err(ImportError::Bounds { place: place(1, 1), message });
    }
    let mut settings: Vec<Setting> = Vec::new();
    let mut section = String::new();
    let mut lines = text.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let number = number + 1;
        let column = 1 + line.chars().take_while(|c| c.is_whitespace()).count();
        let trimmed = line.trim_start();
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.trim_end().strip_prefix('[') {
            let Some(name) = name.strip_suffix(']') else {
                let message = "the name of a section ends with `]`".to_owned();
                return Err(ImportError::Syntax { place: place(number, column), message });
            };
            section = name.to_owned();
            continue;
        }
        let Some((key, value)) = trimmed.split_once('=') else {
            let message = format!("{} is neither a section nor `Key=Value`", quoted(trimmed));
            return Err(ImportError::Syntax { place: place(number, column), message });
        };
        let mut value = value.to_owned();
        // A backslash at the end continues the line; comments in between are left out.
        while value.trim_end_matches([' ', '\t']).ends_with('\\') {
            let kept = value.trim_end_matches([' ', '\t']).len() - 1;
            value.truncate(kept);
            let mut following =
                lines.by_ref().skip_while(|(_, line)| line.trim_start().starts_with(['#', ';']));
            match following.next() {
                Some((_, line)) => {
                    value.push(' ');
                    value.push_str(line.trim_start());
                }
                None => break,
            }
        }
        let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
        if value.is_empty() {
            settings.retain(|known| !(known.section == section && known.key == key));
            continue;
        }
        if settings.len() == MAX_KEYS {
            let message = format!("there are more than {MAX_KEYS} settings");
            return Err(ImportError::Bounds { place: place(number, column), message });
        }
        settings.push(Setting { section: section.clone(), key, value, place: place(number, column) });
    }
    Ok(settings)
}

/// The words of a value, with quotes and C escapes; `None` where a quotation mark is not closed.
pub(crate) fn words(value: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', _) => {
                let word = word.get_or_insert_default();
                match letters.next()? {
                    'n' => word.push('\n'),
                    't' => word.push('\t'),
                    'r' => word.push('\r'),
                    's' => word.push(' '),
                    letter @ ('"' | '\'' | '\\' | ' ') => word.push(letter),
                    letter => word.extend(['\\', letter]),
                }
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, Some(_)) => word.get_or_insert_default().push(letter),
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (' ' | '\t' | '\n', None) => words.extend(word.take()),
            (letter, None) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    quote.is_none().then_some(words)
}

/// The value with `%%` made `%`, and the other specifiers in it (systemd.unit(5), "Specifiers"), which stand for
/// things of a host that is not there any more.
pub(crate) fn specifiers(value: &str) -> (String, Vec<String>) {
    let (mut text, mut found) = (String::new(), Vec::new());
    let mut letters = value.chars().peekable();
    while let Some(letter) = letters.next() {
        match (letter, letters.peek()) {
            ('%', Some('%')) => {
                letters.next();
                text.push('%');
            }
            ('%', Some(next)) if next.is_ascii_alphabetic() => {
                found.push(format!("%{next}"));
                text.push('%');
            }
            _ => text.push(letter),
        }
    }
    (text, found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_read_as_systemd_reads_them() {
        let text = "# c\n[Unit]\nDescription = A b\n\n[Container]\nExec=a \\\n# between\n  b \\\n ; too\nc\nLabel=x=1\n\
                    Label=\nLabel=y=2\n; end\nUser=0\\";
        let found = parse(text, "a.container").expect("a unit");
        let shown: Vec<_> = found
            .iter()
            .map(|s| (s.section.as_str(), s.key.as_str(), s.value.as_str(), s.place.line))
            .collect();
        assert_eq!(
            shown,
            [
                ("Unit", "Description", "A b", 3),
                ("Container", "Exec", "a  b  c", 6),
                ("Container", "Label", "y=2", 13),
                ("Container", "User", "0", 15),
            ]
        );
        for wrong in ["[Unit", "nothing", "[A]\nx"] {
            assert!(parse(wrong, "f").is_err(), "{wrong}");
        }
    }

    #[test]
    fn words_have_quotes_and_escapes() {
        assert_eq!(
            words("a \"b c\" 'd' e\\x f\\sg ''").expect("words"),
            ["a", "b c", "d", "e\\x", "f g", ""]
        );
        assert_eq!(words("\"A=b c\" D=e").expect("words"), ["A=b c", "D=e"]);
        assert!(words("'a").is_none() && words("a\\").is_none());
        assert_eq!(specifiers("50%% %h/x %"), ("50% %h/x %".to_owned(), vec!["%h".to_owned()]));
    }
}
