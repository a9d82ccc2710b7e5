//! What a registry knows its users by, and to whom it is shown.
//!
//! Credentials go to the registry that they were configured for and to its token server, over TLS; see [`may_see`].

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use super::http::is_loopback;

/// The longest user name, password or token, in bytes.
pub const MAX_SECRET: usize = 16 << 10;

/// How to log in to a registry. The secret is wiped when it is dropped, and `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Credentials {
    /// A user and a password, or what the registry takes for one.
    Password {
        /// The user; a colon in it is what RFC 7617, section 2, forbids.
        username: String,
        /// The password.
        password: Zeroizing<String>,
    },
    /// A refresh token of the registry's token server (Distribution project, "OAuth2 Token Authentication").
    IdentityToken(Zeroizing<String>),
}

/// These are no credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "credentials are not empty, have at most {MAX_SECRET} bytes, no control characters, and no colon in the user's name"
)]
pub struct NotCredentials;

impl Credentials {
    /// A user and a password.
    ///
    /// # Errors
    /// [`NotCredentials`]
    pub fn password(username: &str, password: &str) -> Result<Self, NotCredentials> {
        if !is_sound(username) || !is_sound(password) || username.contains(':') {
            return Err(NotCredentials);
        }
        Ok(Self::Password { username: username.to_owned(), password: Zeroizing::new(password.to_owned()) })
    }

    /// A refresh token.
    ///
    /// # Errors
    /// [`NotCredentials`]
    pub fn identity_token(token: &str) -> Result<Self, NotCredentials> {
        let sound = is_sound(token).then(|| Self::IdentityToken(Zeroizing::new(token.to_owned())));
        sound.ok_or(NotCredentials)
    }

    /// The value of `Authorization` (RFC 7617); an identity token has none.
    pub(super) fn basic(&self) -> Option<Zeroizing<String>> {
        let Self::Password { username, password } = self else { return None };
        let pair = Zeroizing::new(format!("{username}:{}", password.as_str()));
        let encoded = Zeroizing::new(STANDARD.encode(pair.as_bytes()));
        Some(Zeroizing::new(format!("Basic {}", encoded.as_str())))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Password { username, .. } => {
                f.debug_struct("Password").field("username", username).finish_non_exhaustive()
            }
            Self::IdentityToken(_) => f.debug_tuple("IdentityToken").finish_non_exhaustive(),
        }
    }
}

fn is_sound(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_SECRET && !text.contains(char::is_control)
}

/// The credentials for a repository: those whose key (`HOST[:PORT][/PATH]`) fits the longest part of its name.
pub(super) fn find<'a>(
    known: &'a BTreeMap<String, Credentials>,
    registry: &str,
    name: &str,
) -> Option<&'a Credentials> {
    let full = format!("{registry}/{name}");
    let mut key = full.as_str();
    loop {
        if let Some(found) = known.get(key) {
            return Some(found);
        }
        key = key.rsplit_once('/')?.0;
    }
}

/// Whether the token server at `realm` (`HOST[:PORT]`) may see what was configured for `registry`: it is the same machine, or
/// belongs to the same domain, as `auth.docker.io` and `registry-1.docker.io`. A registry that leads elsewhere may have been taken over by somebody who collects passwords.
pub(super) fn may_see(registry: &str, realm: &str) -> bool {
    let host = |authority: &str| {
        let end = match authority.rfind(']') {
            Some(bracket) => bracket + 1,
            None => authority.find(':').unwrap_or(authority.len()),
        };
        authority[..end].to_ascii_lowercase()
    };
    let (from, to) = (host(registry), host(realm));
    if from == to || (is_loopback(registry) && is_loopback(realm)) {
        return true;
    }
    let is_address = |host: &str| host.starts_with('[') || host.parse::<std::net::IpAddr>().is_ok();
    if is_address(&from) || is_address(&to) {
        return false;
    }
    // The domain is what follows the first label of the registry's name; one label alone is a domain that anybody may be in.
    let Some((_, domain)) = from.split_once('.').filter(|(_, domain)| domain.contains('.')) else {
        return to.strip_suffix(from.as_str()).is_some_and(|rest| rest.ends_with('.')) && from.contains('.');
    };
    to == domain || to.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_not_shown() {
        let password = Credentials::password("ci", "hunter2").expect("sound");
        assert_eq!(format!("{password:?}"), "Password { username: \"ci\", .. }");
        let token = Credentials::identity_token("hunter2").expect("sound");
        assert!(!format!("{token:?}").contains("hunter2"));
        assert_eq!(password.basic().expect("a password").as_str(), "Basic Y2k6aHVudGVyMg==");
        assert_eq!(token.basic(), None);
    }

    #[test]
    fn what_could_end_a_header_or_a_user_name_is_no_credential() {
        for (user, password) in [("", "a"), ("a", ""), ("a:b", "c"), ("a", "b\r\nc"), ("a\0", "b")] {
            assert_eq!(Credentials::password(user, password), Err(NotCredentials), "{user:?} {password:?}");
        }
        assert_eq!(Credentials::identity_token(&"a".repeat(MAX_SECRET + 1)), Err(NotCredentials));
    }

    #[test]
    fn credentials_of_the_longest_path_are_taken() {
        let all = |keys: &[&str]| -> BTreeMap<String, Credentials> {
            let one = |key: &&str| {
                (key.to_string(), Credentials::password(&key.replace(':', "_"), "x").expect("sound"))
            };
            keys.iter().map(one).collect()
        };
        let known = all(&["a.example", "a.example/team", "b.example:5000"]);
        let user = |registry: &str, name: &str| match find(&known, registry, name) {
            Some(Credentials::Password { username, .. }) => Some(username.clone()),
            _ => None,
        };
        assert_eq!(user("a.example", "team/web").as_deref(), Some("a.example/team"));
        assert_eq!(user("a.example", "teams/web").as_deref(), Some("a.example"));
        assert_eq!(user("b.example", "web"), None);
        assert_eq!(user("b.example.evil", "web"), None);
    }

    #[test]
    fn only_a_token_server_of_the_same_domain_may_see_credentials() {
        for (registry, realm) in [
            ("ghcr.io", "ghcr.io"),
            ("quay.example:5000", "quay.example"),
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.example", "gitlab.example"),
            ("gitlab.example", "auth.gitlab.example"),
            ("127.0.0.1:5000", "localhost:5001"),
        ] {
            assert!(may_see(registry, realm), "{registry} {realm}");
        }
        for (registry, realm) in [
            ("ghcr.io", "evil.io"),
            ("ghcr.io", "io"),
            ("a.example.com", "example.com.evil.net"),
            ("a.example.com", "evilexample.com"),
            ("registry", "evil.registry"),
            ("10.0.0.1", "10.0.0.2"),
            ("a.0.0.1.example", "10.0.0.1"),
            ("127.0.0.1", "169.254.169.254"),
        ] {
            assert!(!may_see(registry, realm), "{registry} {realm}");
        }
    }
}
