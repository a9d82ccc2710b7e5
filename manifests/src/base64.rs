//! Base64 (RFC 4648, section 4), canonical or not at all.
//!
//! It is the first code that bytes of strangers meet, so it is short enough to be read whole, and compared with a library
//! in tests. A text is decoded only if encoding gives it again: no line breaks, no bits beyond the last byte, padding.

const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";

/// `bytes` with padding.
pub(crate) fn encode(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |at: usize| u32::from(chunk.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for place in 0..4 {
            let digit = ALPHABET[(bits >> (18 - 6 * place) & 0x3f) as usize];
            text.push(if place <= chunk.len() { char::from(digit) } else { '=' });
        }
    }
    text
}

/// The bytes that `text` is the canonical encoding of; `None` where there are none.
pub(crate) fn decode(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(4) {
        return None;
    }
    let digits = text.strip_suffix("==").or(text.strip_suffix('=')).unwrap_or(text);
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    for chunk in digits.as_bytes().chunks(4) {
        let mut bits = 0u32;
        for place in 0..4 {
            bits = bits << 6 | chunk.get(place).map_or(Some(0), |digit| value(*digit))?;
        }
        let whole = bits.to_be_bytes();
        bytes.extend_from_slice(&whole[1..chunk.len()]);
    }
    // Whatever is not canonical, in padding or in unused bits, shows here.
    (encode(&bytes) == text).then_some(bytes)
}

fn value(digit: u8) -> Option<u32> {
    match digit {
        b'A'..=b'Z' => Some(u32::from(digit - b'A')),
        b'a'..=b'z' => Some(u32::from(digit - b'a') + 26),
        b'0'..=b'9' => Some(u32::from(digit - b'0') + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use base64::prelude::{BASE64_STANDARD, Engine};

    use super::*;

    #[test]
    fn encoding_is_that_of_the_library_and_is_decoded_again() {
        for length in 0..200u16 {
            let bytes: Vec<u8> = (0..length).map(|at| (at * 89 % 251).to_be_bytes()[1] ^ 0x5a).collect();
            let text = encode(&bytes);
            assert_eq!(text, BASE64_STANDARD.encode(&bytes));
            assert_eq!(decode(&text), Some(bytes));
        }
    }

    /// Each text of four characters out of some of every kind, and with it what follows four good ones.
    #[test]
    fn what_is_decoded_is_what_the_library_decodes() {
        let some = "AQgwZaz09+/=\n -_é\0".chars().collect::<Vec<_>>();
        let mut good = 0;
        for number in 0..some.len().pow(4) {
            let text: String =
                (0..4).map(|place| some[number / some.len().pow(place) % some.len()]).collect();
            let shorter: String = text.chars().take(3).collect();
            for text in [&text, &shorter, &format!("QUJD{text}")] {
                let found = decode(text);
                assert_eq!(found, BASE64_STANDARD.decode(text).ok(), "{text:?}");
                good += usize::from(found.is_some());
            }
        }
        assert!(good > 10_000, "{good}");
    }
}
