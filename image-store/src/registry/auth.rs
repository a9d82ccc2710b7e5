//! What a registry asks for with `401 Unauthorized`, and the tokens that answer it.
//!
//! Distribution project, "Token Authentication Specification" and "OAuth2 Token Authentication"; RFC 9110, section 11.6.1.

use std::time::Duration;

use serde::Deserialize;
use zeroize::Zeroizing;

/// The longest header that is looked at, in bytes.
const MAX_CHALLENGE: usize = 4096;
/// The longest token that is taken, in bytes.
const MAX_TOKEN: usize = 16 << 10;
/// How long a token is good for where its server does not say ("Token Response Fields", `expires_in`).
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// The longest that a token is believed to be good for.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// What a registry wants to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// User and password with each request.
    Basic,
    /// A token.
    Bearer(BearerChallenge),
}

/// Where to get a token, and for what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BearerChallenge {
    pub(super) realm: String,
    pub(super) service: Option<String>,
}

/// Reads `Bearer realm="…",service="…",scope="…"` or `Basic …`; `None` for other schemes and what is malformed. The scope is not
/// taken from the server: we know what we want to pull.
pub(super) fn parse_challenge(header: &str) -> Option<Challenge> {
    if header.len() > MAX_CHALLENGE {
        return None;
    }
    let (scheme, mut rest) = header.trim().split_once(' ').unwrap_or((header.trim(), ""));
    if scheme.eq_ignore_ascii_case("basic") {
        return Some(Challenge::Basic);
    }
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
    Some(Challenge::Bearer(BearerChallenge { realm: realm?, service }))
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

/// What is asked for: to pull from `repository`.
fn scope(repository: &str) -> String {
    percent_encode(&format!("repository:{repository}:pull"))
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
    url.push_str(&scope(repository));
    url
}

/// The form that turns an identity token into a token for pulling `repository`.
pub(super) fn refresh_form(
    challenge: &BearerChallenge,
    repository: &str,
    identity_token: &str,
) -> Zeroizing<String> {
    let token = Zeroizing::new(percent_encode(identity_token));
    let service = percent_encode(challenge.service.as_deref().unwrap_or_default());
    let scope = scope(repository);
    // Some servers want the service even where they did not name one.
    Zeroizing::new(format!(
        "grant_type=refresh_token&client_id=bennu&service={service}&scope={scope}&refresh_token={}",
        token.as_str()
    ))
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
    token: Option<Zeroizing<String>>,
    access_token: Option<Zeroizing<String>>,
    expires_in: Option<serde_json::Value>,
}

/// A token, and for how long it is good.
pub(super) struct Token {
    pub(super) text: Zeroizing<String>,
    pub(super) life: Duration,
}

/// The token in the answer, if it is fit for a header.
pub(super) fn parse_token(body: &[u8]) -> Option<Token> {
    let response: TokenResponse = serde_json::from_slice(body).ok()?;
    let text = response.token.or(response.access_token)?;
    let visible = !text.is_empty() && text.bytes().all(|b| b.is_ascii_graphic());
    // What is no number of seconds says nothing about the token's life.
    let seconds = response.expires_in.and_then(|seconds| seconds.as_u64());
    let life = seconds.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
    (visible && text.len() <= MAX_TOKEN).then_some(Token { text, life })
}

/// The address of the token server that a header names, if any; for fuzzers.
pub(crate) fn read_challenge(header: &str) -> Option<String> {
    match parse_challenge(header)? {
        Challenge::Basic => None,
        Challenge::Bearer(challenge) => Some(token_url(&challenge, "a/b")),
    }
}

/// The token in the answer of a token server; for fuzzers.
pub(crate) fn read_token(body: &[u8]) -> Option<Zeroizing<String>> {
    parse_token(body).map(|token| token.text)
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
        let Challenge::Bearer(challenge) = challenge else { panic!("{challenge:?}") };
        assert_eq!(challenge.realm, "https://auth.example/token?a=1");
        assert_eq!(
            token_url(&challenge, "library/nginx"),
            "https://auth.example/token?a=1&service=reg%2C%20%22x%22&scope=repository%3Alibrary%2Fnginx%3Apull"
        );
        for text in ["Digest realm=\"x\"", "Bearer", "Bearer service=\"x\"", "Bearer realm=\"x", ""] {
            assert_eq!(parse_challenge(text), None, "{text}");
        }
        for text in ["Basic realm=\"x\"", "basic"] {
            assert_eq!(parse_challenge(text), Some(Challenge::Basic), "{text}");
        }
    }

    #[test]
    fn a_token_that_could_end_a_header_is_refused() {
        let text = |body: &[u8]| parse_token(body).map(|token| token.text.to_string());
        assert_eq!(text(br#"{"token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(text(br#"{"access_token":"abc"}"#).as_deref(), Some("abc"));
        assert_eq!(text(br#"{"token":"a\r\nHost: b"}"#), None);
        assert_eq!(text(br#"{"token":""}"#), None);
        assert_eq!(text(b"{}"), None);
    }

    #[test]
    fn the_life_of_a_token_is_bounded_whatever_its_server_says() {
        for (stated, life) in [
            ("300", 300),
            ("0", 0),
            ("-1", 60),
            ("\"soon\"", 60),
            ("null", 60),
            ("18446744073709551615", 86400),
        ] {
            let body = format!(r#"{{"token":"abc","expires_in":{stated}}}"#);
            let token = parse_token(body.as_bytes()).expect("a token");
            assert_eq!(token.life.as_secs(), life, "{stated}");
        }
    }

    #[test]
    fn an_identity_token_is_encoded_in_its_form() {
        let challenge = BearerChallenge { realm: String::new(), service: Some("a b".to_owned()) };
        assert_eq!(
            refresh_form(&challenge, "a/b", "x&y=z").as_str(),
            "grant_type=refresh_token&client_id=bennu&service=a%20b&scope=repository%3Aa%2Fb%3Apull&refresh_token=x%26y%3Dz"
        );
    }
}
