//! Text from a document: what must not be in it, and how it is shown.

/// Characters that reorder or hide what is around them, so that a text reads differently from what it says
/// (Unicode Standard Annex 9, section 2, and the line and paragraph separators of chapter 23.2).
pub(crate) fn is_deceptive(c: char) -> bool {
    matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The first control or deceptive character of `text`, written as an escape.
pub(crate) fn first_unsafe(text: &str) -> Option<String> {
    text.chars().find(|c| c.is_control() || is_deceptive(*c)).map(|c| c.escape_unicode().to_string())
}

/// As [`first_unsafe`], but line breaks and tabs are text: a command may well be a small script.
pub(crate) fn first_unsafe_in_script(text: &str) -> Option<String> {
    let allowed = |c: &char| matches!(c, '\n' | '\t');
    let mut others = text.chars().filter(|c| !allowed(c));
    others.find(|c| c.is_control() || is_deceptive(*c)).map(|c| c.escape_unicode().to_string())
}

/// `text` for a message: at most 60 characters, none of which does anything to a terminal.
pub(crate) fn shown(text: &str) -> String {
    let mut shown = String::new();
    for (count, c) in text.chars().enumerate() {
        if count == 60 {
            shown.push('…');
            break;
        }
        if c.is_control() || is_deceptive(c) { shown.extend(c.escape_unicode()) } else { shown.push(c) }
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_and_bidirectional_characters_are_found() {
        for bad in [
            "\0", "a\u{1b}", "a\rb", "\u{7f}", "\u{85}", "\u{202a}", "\u{202e}", "\u{2066}", "\u{2069}",
            "\u{200f}",
        ] {
            assert!(first_unsafe(bad).is_some(), "{bad:?}");
            assert!(first_unsafe_in_script(bad).is_some(), "{bad:?}");
            assert!(!shown(bad).contains(|c: char| c.is_control() || is_deceptive(c)), "{bad:?}");
        }
        for good in ["", "plain", "äöü 漢字 👍", "100 %"] {
            assert_eq!(first_unsafe(good), None, "{good:?}");
            assert_eq!(shown(good), good);
        }
        assert_eq!(first_unsafe_in_script("a\n\tb"), None);
        assert_eq!(first_unsafe("a\n").as_deref(), Some("\\u{a}"));
    }
}
