//! Which root the kernel's command line names.

use std::fmt;

/// The parameter that names the root: `bennu.root=sha256:<64 lower-case hexadecimal digits>`.
const PARAMETER: &str = "bennu.root=";

/// Why a command line names no root.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// The parameter is not there.
    Missing,
    /// The parameter is there more than once: whoever could append to the line would choose the root.
    Repeated,
    /// The value is not a digest in its one spelling.
    NotADigest,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Missing => "the command line has no bennu.root=",
            Self::Repeated => "the command line has bennu.root= more than once",
            Self::NotADigest => "bennu.root= is not sha256: and 64 lower-case hexadecimal digits",
        })
    }
}

impl std::error::Error for Refused {}

/// A SHA-256 fs-verity digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RootDigest(pub(crate) [u8; 32]);

impl fmt::Display for RootDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// The digest of the root, from the text of `/proc/cmdline`.
pub(crate) fn root_digest(command_line: &[u8]) -> Result<RootDigest, Refused> {
    let mut values = command_line
        .split(u8::is_ascii_whitespace)
        .filter_map(|word| word.strip_prefix(PARAMETER.as_bytes()));
    let value = values.next().ok_or(Refused::Missing)?;
    if values.next().is_some() {
        return Err(Refused::Repeated);
    }
    let digits = value.strip_prefix(b"sha256:").ok_or(Refused::NotADigest)?;
    let mut digest = [0; 32];
    if digits.len() != 2 * digest.len() {
        return Err(Refused::NotADigest);
    }
    for (byte, pair) in digest.iter_mut().zip(digits.chunks_exact(2)) {
        let &[high, low] = pair else { return Err(Refused::NotADigest) };
        *byte = (nibble(high)? << 4) | nibble(low)?;
    }
    Ok(RootDigest(digest))
}

fn nibble(digit: u8) -> Result<u8, Refused> {
    match digit {
        b'0'..=b'9' => Ok(digit - b'0'),
        b'a'..=b'f' => Ok(digit - b'a' + 10),
        _ => Err(Refused::NotADigest),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: Result<[u8; 32], Refused>) {
        assert_eq!(root_digest(text.as_bytes()), expect.map(RootDigest), "{text}");
    }

    #[test]
    fn the_digest_is_read_from_among_other_parameters() {
        let hex = "ab".repeat(32);
        check(&format!("quiet bennu.root=sha256:{hex} console=ttyS0\n"), Ok([0xab; 32]));
        assert_eq!(
            root_digest(format!("bennu.root=sha256:{hex}").as_bytes()).map(|d| d.to_string()),
            Ok(hex)
        );
    }

    #[test]
    fn a_line_without_the_parameter_is_refused() {
        check("quiet console=ttyS0", Err(Refused::Missing));
        check("xbennu.root=sha256:00", Err(Refused::Missing));
    }

    #[test]
    fn a_second_root_is_refused_even_if_it_is_the_same() {
        let one = format!("bennu.root=sha256:{}", "0".repeat(64));
        check(&format!("{one} {one}"), Err(Refused::Repeated));
    }

    #[test]
    fn other_spellings_of_a_digest_are_refused() {
        for value in ["", "sha256:", &"0".repeat(64), &format!("sha256:{}", "A".repeat(64))] {
            check(&format!("bennu.root={value}"), Err(Refused::NotADigest));
        }
        check(&format!("bennu.root=sha256:{}", "0".repeat(63)), Err(Refused::NotADigest));
        check(&format!("bennu.root=sha256:{}", "0".repeat(65)), Err(Refused::NotADigest));
        check(&format!("bennu.root=sha512:{}", "0".repeat(64)), Err(Refused::NotADigest));
    }
}
