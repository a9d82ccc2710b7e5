//! What a registry asks for with `401 Unauthorized`, and tokens for nobody in particular.
//!
//! Distribution project, "Token Authentication Specification"; RFC 9110, section 11.6.1.

use serde::Deserialize;

/// The longest header that is looked at, in bytes.
const MAX_CHALLENGE: usize = 4096;
/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 16 << 10;

/// Where to get a token, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BearerChallenge {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

/// Reads `Bearer realm="…",service="…",scope="…"`; `None` for other schemes and what is malformed. The scope is not taken from
/// the server: we know what we want to pull.
pub(super) fn parse_challenge(header: &str) -> Option<BearerChallenge> {
    if header.len() > MAX_CHALLENGE {
        return None;
    }
    let (scheme, mut rest) = header.trim().split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return None;
    }
    let (mut realm, mut service) = (None, None);
    while !rest.trim_matches([' ', ',', '\t']).is_empty() {
        rest = rest.trim_start_matches([' ', ',', '\t']);
        let (key, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => quoted_string(quoted)?,
            None => {
                let end = after.find([',', ' ']).unwrap_or(after.len());
                (after[..end].to_owned(), &after[end..])
            }
        };
        match key.trim().to_ascii_lowercase().as_str() {
            "realm" => realm = Some(value),
            "service" => service = Some(value),
            _ => {}
        }
        rest = after;
    }
    Some(BearerChallenge { realm: realm?, service })
}

/// The text up to the closing quote, and what follows it.
fn quoted_string(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut chars = text.char_indices();
    while let Some((at, c)) = chars.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(chars.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// The address that gives a token for pulling `repository`.
pub(super) fn token_url(challenge: &BearerChallenge, repository: &str) -> String {
    let mut url = challenge.realm.clone();
    url.push(if url.contains('?') { '&' } else { '?' });
    if let Some(service) = &challenge.service {
        url.push_str("service=");
        url.push_str(&percent_encode(service));
        url.push('&');
    }
    url.push_str("scope=");
    url.push_str(&percent_encode(&format!("repository:{repository}:pull")));
    url
}

/// RFC 3986, section 2.1, for everything that is not unreserved.
fn percent_encode(text: &str) -> String {
    text.bytes()
        .map(|b| match b {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => char::from(b).to_string(),
            other => format!("%{other:02X}"),
        })
        .collect()
}

#[derive(Deserialize)]
struct TokenResponse {
    token: Option<String>,
    access_token: Option<String>,
}

/// The token in the answer, if it is fit for a header.
pub(super) fn parse_token(body: &[u8]) -> Option<String> {
    let response: TokenResponse = serde_json::from_slice(body).ok()?;
    let token = response.token.or(response.access_token)?;
    let visible = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
    (visible && token.len() <= MAX_TOKEN).then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_with_quotes_commas_and_other_parameters() {
        let challenge = parse_challenge(
            r#"Bearer realm="https://auth.example/token?a=1",service="reg, \"x\"",scope="repository:a:pull,push""#,
        )
        .expect("a challenge");
        assert_eq!(challenge.realm, "https://auth.example/token?a=1");
        assert_eq!(
            token_url(&challenge, "library/nginx"),
            "https://auth.example/token?a=1&service=reg%2C%20%22x%22&scope=repository%3Alibrary%2Fnginx%3Apull"
        );
        for text in ["Basic realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", ""] {
            assert_eq!(parse_challenge(text), None, "{text}");
        }
    }

    #[test]
    fn a_token_that_could_end_a_header_is_refused() {
        assert_eq!(parse_token(br#"{"token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(parse_token(br#"{"access_token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(parse_token(br#"{"token":"a\r\nHost: b"}"#), None);
        assert_eq!(parse_token(br#"{"token":""}"#), None);
        assert_eq!(parse_token(b"{}"), None);
    }
}
