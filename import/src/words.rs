//! Lines split into words as a POSIX shell splits them, without running or expanding anything.
//!
//! Source: POSIX.1-2017, Shell Command Language, 2.2 (quoting) and 2.3 (tokens).

/// A line that is no list of words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotWords {
    #[error("a quotation mark is not closed")]
    Open,
    #[error("a backslash stands at the end")]
    Backslash,
}

/// The words of `line`.
pub(crate) fn split(line: &str) -> Result<Vec<String>, NotWords> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut letters = line.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(NotWords::Open)? {
                        '\'' => break,
                        letter => word.push(letter),
                    }
                }
            }
            '"' => {
                let word = word.get_or_insert_default();
                loop {
                    match letters.next().ok_or(NotWords::Open)? {
                        '"' => break,
                        '\\' => match letters.next().ok_or(NotWords::Open)? {
                            '\n' => {}
                            letter @ ('"' | '\\' | '$' | '`') => word.push(letter),
                            letter => word.extend(['\\', letter]),
                        },
                        letter => word.push(letter),
                    }
                }
            }
            '\\' => match letters.next().ok_or(NotWords::Backslash)? {
                '\n' => {}
                letter => word.get_or_insert_default().push(letter),
            },
            // A comment, at the beginning of a word only.
            '#' if word.is_none() => while letters.next_if(|letter| *letter != '\n').is_some() {},
            letter => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    Ok(words)
}

/// Whether a shell would do more with `line` than split it: then the words alone are not the same command.
pub(crate) fn needs_shell(words: &[String]) -> Option<&str> {
    let operators = ["|", "||", "&&", "&", ";", ">", ">>", "<", "2>", "2>&1", "1>&2"];
    words.iter().map(String::as_str).find(|word| operators.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_split_as_a_shell_does() {
        for (line, expect) in [
            ("", &[][..]),
            ("  a  b\tc\n", &["a", "b", "c"]),
            ("a 'b c' \"d e\"", &["a", "b c", "d e"]),
            (r#"a\ b "c\"d" 'e\f' "g\h" "#, &["a b", "c\"d", "e\\f", "g\\h"]),
            ("a''b '' \"\"", &["ab", "", ""]),
            ("a \\\n b", &["a", "b"]),
            ("a # b", &["a"]),
            ("a#b", &["a#b"]),
            ("bash -c 'x && y'", &["bash", "-c", "x && y"]),
        ] {
            assert_eq!(split(line).expect(line), expect, "{line:?}");
        }
        assert_eq!(split("a 'b"), Err(NotWords::Open));
        assert_eq!(split("a \"b\\"), Err(NotWords::Open));
        assert_eq!(split("a\\"), Err(NotWords::Backslash));
    }

    #[test]
    fn what_only_a_shell_can_do_is_seen() {
        let words = |line: &str| split(line).expect("words");
        assert_eq!(needs_shell(&words("a && b")), Some("&&"));
        assert_eq!(needs_shell(&words("sh -c 'a && b'")), None);
    }
}
