//! How much a text would weigh as a tree, told before the tree is made.
//!
//! A parser makes a node of some hundred bytes out of two bytes of text, so a small document can be a large tree. What makes
//! nodes stands outside of strings and comments and is easily counted: `=`, `.`, `,`, `[` and `{`.

/// The most marks outside of strings and comments. The largest documents that say something have a third of it.
pub(crate) const MAX_MARKS: usize = 65_536;

/// Whether the marks of `text` (TOML 1.1) are more than [`MAX_MARKS`]. A text that is no TOML is counted somehow; the parser
/// says what is wrong with it.
pub(crate) fn is_too_heavy(text: &str) -> bool {
    let bytes = text.as_bytes();
    let (mut at, mut marks) = (0, 0);
    while let Some(byte) = bytes.get(at) {
        at = match byte {
            b'#' => end_of_line(bytes, at),
            b'"' | b'\'' => end_of_string(bytes, at),
            _ => at + 1,
        };
        marks += usize::from(matches!(byte, b'=' | b'.' | b',' | b'[' | b'{'));
        if marks > MAX_MARKS {
            return true;
        }
    }
    false
}

fn end_of_line(bytes: &[u8], from: usize) -> usize {
    bytes[from..].iter().position(|byte| *byte == b'\n').map_or(bytes.len(), |length| from + length)
}

/// Where the string ends that begins at `from`; strings of one line end with it at the latest.
fn end_of_string(bytes: &[u8], from: usize) -> usize {
    let quote = bytes[from];
    let triple = [quote; 3];
    let long = bytes[from..].starts_with(&triple);
    let mut at = from + if long { 3 } else { 1 };
    while let Some(byte) = bytes.get(at) {
        match *byte {
            // An escape hides the quote behind it; literal strings have none.
            b'\\' if quote == b'"' => at += 2,
            b'\n' if !long => return at,
            byte if byte == quote && !long => return at + 1,
            byte if byte == quote && bytes[at..].starts_with(&triple) => return at + 3,
            _ => at += 1,
        }
    }
    bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether `text` counts as `marks` marks.
    fn weighs(text: &str, marks: usize) {
        let pad = |count: usize| text.to_owned() + "\n" + &"=".repeat(count);
        assert!(!is_too_heavy(&pad(MAX_MARKS - marks)), "{text}: fewer than {marks}");
        assert!(is_too_heavy(&pad(MAX_MARKS - marks + 1)), "{text}: more than {marks}");
    }

    #[test]
    fn marks_are_counted_outside_of_strings_and_comments() {
        weighs("", 0);
        weighs("a.b = [1, 2] # a = b, c = d", 4);
        weighs("a = \"x = y, [z] \\\" = \"", 1);
        weighs("a = 'x = \\' # = '", 1);
        weighs("a = \"\"\"\n = \" = \"\" = \\\"\"\" = \"\"\"", 1);
        weighs("a = '''\n = ' = '' = '''", 1);
        weighs("\"a.b\".'c.d' = {}", 3);
        weighs("a = \"not closed = \nb = 1", 2);
    }

    #[test]
    fn texts_that_end_anywhere_are_counted() {
        for text in ["\"", "'", "\"\"\"", "'''", "\"\\", "\"\"\"\\", "#", "a = \"\"\"\"\"", "''", "\"\""] {
            assert!(!is_too_heavy(text), "{text}");
        }
    }
}
