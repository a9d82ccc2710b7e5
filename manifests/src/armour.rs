//! The armour of SSH signatures, read strictly: one signature has one form.
//!
//! OpenSSH's PROTOCOL.sshsig, "Armored format", leaves the width of the lines open; OpenSSH itself writes 70. Here the
//! lines are as wide as the first one, none wider than 76, the base64 is canonical, and between two armours stands
//! nothing. So a changed byte of the armour is a changed signature or an error, never the same signature written
//! differently.

use crate::base64;

/// The largest `FILE.sig`, in bytes.
pub const MAX_SIGNATURE_FILE: usize = 64 * 1024;
/// The most signatures in one `FILE.sig`.
pub const MAX_SIGNATURES: usize = 16;

const BEGIN: &str = "-----BEGIN SSH SIGNATURE-----\n";
const END: &str = "-----END SSH SIGNATURE-----\n";
/// The widest line, of RFC 2045's base64.
const MAX_WIDTH: usize = 76;

/// A file of armoured signatures that is not exactly that.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum BadArmour {
    /// More than [`MAX_SIGNATURE_FILE`] bytes.
    #[error("the signature file is larger than {MAX_SIGNATURE_FILE} bytes")]
    TooLarge,
    /// More than [`MAX_SIGNATURES`] of them.
    #[error("the signature file holds more than {MAX_SIGNATURES} signatures")]
    TooMany,
    /// A line that is not where it belongs.
    #[error("signature {number} of the file is not in the form that ssh-keygen writes: {what}")]
    Form {
        /// Which one, from 1.
        number: usize,
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The decoded content of each armour in `file`; none where the file is empty.
pub(crate) fn read_armours(file: &[u8]) -> Result<Vec<Vec<u8>>, BadArmour> {
    if file.len() > MAX_SIGNATURE_FILE {
        return Err(BadArmour::TooLarge);
    }
    let mut blobs = Vec::new();
    let form = |number, what| BadArmour::Form { number, what };
    let mut rest = std::str::from_utf8(file).map_err(|_| form(1, "it is not text"))?;
    while !rest.is_empty() {
        let number = blobs.len() + 1;
        if number > MAX_SIGNATURES {
            return Err(BadArmour::TooMany);
        }
        let body =
            rest.strip_prefix(BEGIN).ok_or(form(number, "the first line is not that of a signature"))?;
        let (body, after) = body.split_once(END).ok_or(form(number, "it has no last line"))?;
        blobs.push(decode(body).map_err(|what| form(number, what))?);
        rest = after;
    }
    Ok(blobs)
}

/// The lines between first and last, which must be what encoding their content gives again.
fn decode(body: &str) -> Result<Vec<u8>, &'static str> {
    let width = body.find('\n').ok_or("there is nothing in it")?;
    if !(1..=MAX_WIDTH).contains(&width) {
        return Err("its lines are empty or too wide");
    }
    let joined: String = body.split('\n').collect();
    let blob = base64::decode(&joined).ok_or("its base64 is damaged")?;
    if wrapped(&blob, width) == body { Ok(blob) } else { Err("its lines are not all of one width") }
}

fn wrapped(blob: &[u8], width: usize) -> String {
    let text = base64::encode(blob);
    let lines = text.as_bytes().chunks(width).map(|line| std::str::from_utf8(line).expect("base64 is ASCII"));
    lines.flat_map(|line| [line, "\n"]).collect()
}

/// The armour around `blob`, as OpenSSH writes it.
#[cfg(test)]
pub(crate) fn armour(blob: &[u8]) -> String {
    [BEGIN, &wrapped(blob, 70), END].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn armours_are_read_one_after_the_other() {
        let (one, two) = (vec![1; 200], vec![2; 3]);
        let file = armour(&one) + &armour(&two);
        assert_eq!(read_armours(file.as_bytes()), Ok(vec![one, two]));
        assert_eq!(read_armours(b""), Ok(vec![]));
        let wide = [BEGIN, &wrapped(&[7; 200], 76), END].concat();
        assert_eq!(read_armours(wide.as_bytes()), Ok(vec![vec![7; 200]]));
    }

    #[test]
    fn any_other_form_is_refused() {
        let good = armour(&[1; 100]);
        assert!(read_armours(good.as_bytes()).is_ok());
        let lines: Vec<&str> = good.lines().collect();
        let wide = [BEGIN, &wrapped(&[7; 200], 77), END].concat();
        for (bad, what) in [
            (format!("\n{good}"), "a line before"),
            (format!("{good}\n"), "a line after"),
            (format!("{good}x"), "text after"),
            (format!("{good}\n{good}"), "a line between"),
            (good.replace('\n', "\r\n"), "carriage returns"),
            (good.trim_end().to_owned(), "no last newline"),
            (good.replace("-----END", "----END"), "a broken last line"),
            (good.replace("BEGIN SSH", "BEGIN PGP"), "another kind"),
            (format!("{BEGIN}{}{}\n{END}", lines[1], lines[2]), "one long line"),
            (format!("{BEGIN}{}\n\n{}\n{END}", lines[1], lines[2]), "an empty line inside"),
            (format!("{BEGIN}{} \n{}\n{END}", lines[1], lines[2]), "a blank at the end of a line"),
            (format!("{BEGIN}{END}"), "nothing inside"),
            (format!("{BEGIN}\n{END}"), "an empty line only"),
            (format!("{BEGIN}AQ\n{END}"), "no padding"),
            (format!("{BEGIN}AR==\n{END}"), "bits in the padding"),
            (format!("{BEGIN}AQ==AQ==\n{END}"), "padding inside"),
            (wide, "lines of 77"),
        ] {
            assert!(matches!(read_armours(bad.as_bytes()), Err(BadArmour::Form { .. })), "{what}");
        }
    }

    #[test]
    fn size_and_count_are_bounded() {
        let many = armour(&[1; 10]).repeat(MAX_SIGNATURES);
        assert_eq!(read_armours(many.as_bytes()).map(|blobs| blobs.len()), Ok(MAX_SIGNATURES));
        assert_eq!(read_armours((many + &armour(&[1; 10])).as_bytes()), Err(BadArmour::TooMany));
        assert_eq!(read_armours(&[b'a'; MAX_SIGNATURE_FILE + 1]), Err(BadArmour::TooLarge));
    }
}
