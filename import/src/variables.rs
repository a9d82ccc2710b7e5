//! `${VARIABLE}` in values, and files of variables.
//!
//! Source: Compose specification, chapter "Interpolation"; "env_file", section "Env_file format".

use std::collections::BTreeMap;

/// The most times that a default stands within a default.
const MAX_NESTING: usize = 16;
/// The longest text that variables are put into, in bytes: with what they stand for it cannot grow beyond this.
const MAX_TEXT: usize = 1024 * 1024;

/// What became of a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filled {
    pub(crate) text: String,
    /// Variables without a value and without a default: nothing stands in their place.
    pub(crate) unset: Vec<String>,
    /// What is wrong, and for `${NAME:?…}` what its author says is missing.
    pub(crate) wrong: Option<String>,
}

/// `text` with its variables replaced; `$$` is a dollar sign.
pub(crate) fn fill(text: &str, variables: &BTreeMap<String, String>) -> Filled {
    let mut filled = Filled { text: String::new(), unset: Vec::new(), wrong: None };
    let letters: Vec<char> = text.chars().collect();
    expand(&letters, variables, &mut filled, MAX_NESTING);
    filled
}

fn is_first(letter: char) -> bool {
    letter.is_ascii_alphabetic() || letter == '_'
}

fn expand(letters: &[char], variables: &BTreeMap<String, String>, filled: &mut Filled, nesting: usize) {
    let mut at = 0;
    while at < letters.len() {
        let letter = letters[at];
        let next = letters.get(at + 1).copied();
        if filled.text.len() > MAX_TEXT {
            filled.wrong = Some(format!("with its variables it is longer than {MAX_TEXT} bytes"));
            return;
        }
        match (letter, next) {
            ('$', Some('$')) => {
                filled.text.push('$');
                at += 2;
            }
            ('$', Some('{')) => {
                let Some(end) = closing(&letters[at + 2..]) else {
                    filled.wrong = Some("a `${` is not closed; write `$$` for a dollar sign".to_owned());
                    return;
                };
                braced(&letters[at + 2..at + 2 + end], variables, filled, nesting);
                at += end + 3;
            }
            ('$', Some(first)) if is_first(first) => {
                let name: String = letters[at + 1..]
                    .iter()
                    .take_while(|letter| is_first(**letter) || letter.is_ascii_digit())
                    .collect();
                at += 1 + name.len();
                match variables.get(&name) {
                    Some(value) => filled.text.push_str(value),
                    None => filled.unset.push(name),
                }
            }
            _ => {
                filled.text.push(letter);
                at += 1;
            }
        }
    }
}

/// Where the brace that is open is closed.
fn closing(letters: &[char]) -> Option<usize> {
    let mut depth = 0usize;
    for (at, letter) in letters.iter().enumerate() {
        match letter {
            '{' if at > 0 && letters[at - 1] == '$' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// What stands between `${` and `}`.
fn braced(letters: &[char], variables: &BTreeMap<String, String>, filled: &mut Filled, nesting: usize) {
    let length = letters.iter().take_while(|letter| is_first(**letter) || letter.is_ascii_digit()).count();
    let (name, rest) = letters.split_at(length);
    let name: String = name.iter().collect();
    if !name.starts_with(is_first) {
        filled.wrong =
            Some("there is no name of a variable after `${`; write `$$` for a dollar sign".to_owned());
        return;
    }
    if nesting == 0 {
        filled.wrong = Some(format!("defaults are nested more than {MAX_NESTING} deep"));
        return;
    }
    let value = variables.get(&name);
    // With a colon, an empty value counts as none.
    let (colon, rest) = match rest {
        [':', rest @ ..] => (true, rest),
        rest => (false, rest),
    };
    let set = value.filter(|value| !(colon && value.is_empty()));
    match (rest, set) {
        ([], _) if colon => filled.wrong = Some(format!("nothing stands after `${{{name}:`")),
        ([], Some(value)) => filled.text.push_str(value),
        ([], None) => filled.unset.push(name),
        (['-' | '?', ..], Some(value)) => filled.text.push_str(value),
        (['-', default @ ..], None) => expand(default, variables, filled, nesting - 1),
        (['?', message @ ..], None) => {
            let message: String = message.iter().collect();
            filled.wrong = Some(format!("`{name}` must be given: {}", message.trim()));
        }
        (['+', instead @ ..], Some(_)) => expand(instead, variables, filled, nesting - 1),
        (['+', ..], None) => {}
        _ => {
            filled.wrong =
                Some(format!("after `${{{name}` one of `:-`, `-`, `:?`, `?`, `:+`, `+` is expected"))
        }
    }
}

/// One line of a file of variables.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Assignment {
    /// From 1.
    pub(crate) line: usize,
    pub(crate) key: String,
    /// `None`: the variable is passed on from outside.
    pub(crate) value: Option<String>,
}

/// The variables in `text`: `KEY=VALUE` lines, quotes, comments, `export`; in order. `raw` takes values as they
/// stand. The second part are the numbers of the lines that are none of these.
pub(crate) fn read_file(
    text: &str,
    outside: &BTreeMap<String, String>,
    raw: bool,
) -> (Vec<Assignment>, Vec<usize>) {
    let (mut all, mut wrong) = (Vec::new(), Vec::new());
    let mut known = outside.clone();
    let mut total = 0;
    for (number, line) in text.lines().enumerate() {
        let line_number = number + 1;
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let line = line.strip_prefix("export ").unwrap_or(line).trim_start();
        let (key, value) = match line.split_once('=') {
            Some((key, value)) => (key.trim_end(), Some(value.trim())),
            None => (line, None),
        };
        if key.is_empty() || key.contains(char::is_whitespace) {
            wrong.push(line_number);
            continue;
        }
        let value = match value {
            None => known.get(key).cloned(),
            Some(value) if raw => Some(value.to_owned()),
            Some(value) => match unquote(value) {
                Some((value, true)) => Some(value),
                Some((value, false)) => {
                    let filled = fill(&value, &known);
                    total += filled.text.len();
                    if filled.wrong.is_some() || total > MAX_TEXT {
                        wrong.push(line_number);
                        continue;
                    }
                    Some(filled.text)
                }
                None => {
                    wrong.push(line_number);
                    continue;
                }
            },
        };
        if let Some(value) = &value {
            known.insert(key.to_owned(), value.clone());
        }
        all.push(Assignment { line: line_number, key: key.to_owned(), value });
    }
    (all, wrong)
}

/// A value without its quotes and comment, and whether it is to be taken as it stands.
fn unquote(value: &str) -> Option<(String, bool)> {
    if let Some(rest) = value.strip_prefix('\'') {
        let (inner, after) = rest.split_once('\'')?;
        return is_comment(after).then(|| (inner.to_owned(), true));
    }
    let Some(rest) = value.strip_prefix('"') else {
        let end = value.find(" #").unwrap_or(value.len());
        return Some((value[..end].trim_end().to_owned(), false));
    };
    let (mut inner, mut letters) = (String::new(), rest.chars());
    loop {
        match letters.next()? {
            '"' => break,
            '\\' => match letters.next()? {
                'n' => inner.push('\n'),
                'r' => inner.push('\r'),
                't' => inner.push('\t'),
                '$' => inner.push_str("$$"),
                letter @ ('"' | '\\') => inner.push(letter),
                letter => inner.extend(['\\', letter]),
            },
            letter => inner.push(letter),
        }
    }
    is_comment(letters.as_str()).then_some((inner, false))
}

fn is_comment(after: &str) -> bool {
    let after = after.trim();
    after.is_empty() || after.starts_with('#')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> BTreeMap<String, String> {
        [("A", "1"), ("EMPTY", "")].map(|(key, value)| (key.to_owned(), value.to_owned())).into()
    }

    #[test]
    fn variables_are_replaced_as_the_specification_says() {
        for (text, expect) in [
            ("$A", "1"),
            ("x${A}y", "x1y"),
            ("$A-b", "1-b"),
            ("$$A", "$A"),
            ("${A:-2}", "1"),
            ("${B:-2}", "2"),
            ("${B-2}", "2"),
            ("${EMPTY:-2}", "2"),
            ("${EMPTY-2}", ""),
            ("${B:-${C:-${A}}}", "1"),
            ("${A:+x}", "x"),
            ("${EMPTY:+x}", ""),
            ("${EMPTY+x}", "x"),
            ("${A:?no}", "1"),
            ("5$", "5$"),
            ("$1", "$1"),
        ] {
            let filled = fill(text, &variables());
            assert_eq!((filled.text.as_str(), filled.wrong, filled.unset.len()), (expect, None, 0), "{text}");
        }
        assert_eq!(fill("$B ${C}", &variables()).unset, ["B", "C"]);
    }

    #[test]
    fn what_is_wrong_is_said() {
        for text in ["${", "${A", "${}", "${1}", "${A:}", "${A!}", "${B?why}", "${B:?}"] {
            assert!(fill(text, &variables()).wrong.is_some(), "{text}");
        }
        let nested = "${B:-".repeat(40) + &"}".repeat(40);
        assert!(fill(&nested, &variables()).wrong.is_some());
    }

    #[test]
    fn files_of_variables_have_quotes_comments_and_exports() {
        let text = "# top\nexport K=v # c\nS='a $A' \nD=\"b\\n$A\\$\"\nE=\nN\nF=x#y\nbad line\nQ='open\n R = ${K}2\n";
        let (all, wrong) = read_file(text, &variables(), false);
        let pairs: Vec<_> = all.iter().map(|a| (a.key.as_str(), a.value.as_deref())).collect();
        assert_eq!(
            pairs,
            [
                ("K", Some("v")),
                ("S", Some("a $A")),
                ("D", Some("b\n1$")),
                ("E", Some("")),
                ("N", None),
                ("F", Some("x#y")),
                ("R", Some("v2"))
            ]
        );
        assert_eq!(wrong, [8, 9]);
        assert_eq!(read_file("S='a'", &variables(), true).0[0].value.as_deref(), Some("'a'"));
    }
}
