//! What a client may do.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// What a client may do; each role may do what those before it may, too.
///
/// A client certificate names its role as a URI among its subject alternative names (RFC 5280, section 4.2.1.6):
/// `bennu:role:view`, `bennu:role:operate` or `bennu:role:deploy`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Role {
    /// Look: what the host is, what runs on it, what was written and what happened.
    #[default]
    View,
    /// Work with what runs, as in a shell inside a container; what is declared stays as it is.
    Operate,
    /// Hand in manifests and trust documents, which need their signatures besides, and open debugging shells.
    Deploy,
}

/// What stands before the role in a certificate's URI.
const SCHEME: &str = "bennu:role:";

impl Role {
    /// All of them, the least first.
    pub const ALL: [Self; 3] = [Self::View, Self::Operate, Self::Deploy];

    /// Its word.
    pub fn word(self) -> &'static str {
        match self {
            Self::View => "view",
            Self::Operate => "operate",
            Self::Deploy => "deploy",
        }
    }

    /// What says it in a certificate.
    pub fn uri(self) -> String {
        format!("{SCHEME}{self}")
    }

    /// The role of a certificate with these URIs: the least where none of them names one, and where several do, the
    /// least of those. A name that is no role counts as the least.
    pub fn of<'a>(uris: impl IntoIterator<Item = &'a str>) -> Self {
        let named = uris.into_iter().filter_map(|uri| uri.strip_prefix(SCHEME));
        named.map(|word| word.parse().unwrap_or_default()).min().unwrap_or_default()
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

/// A word that is no role.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotARole;

impl fmt::Display for NotARole {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a role is one of view, operate, deploy")
    }
}

impl std::error::Error for NotARole {}

impl FromStr for Role {
    type Err = NotARole;

    fn from_str(word: &str) -> Result<Self, NotARole> {
        Self::ALL.into_iter().find(|role| role.word() == word).ok_or(NotARole)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_without_a_role_may_look_and_no_more() {
        for uris in [
            &[][..],
            &["https://example.org/deploy"],
            &["bennu:role:"],
            &["bennu:role:root"],
            &["bennu:role:Deploy"],
            &["bennu:role:deploy", "bennu:role:view"],
            &["bennu:role:deploy", "bennu:role:admin"],
        ] {
            assert_eq!(Role::of(uris.iter().copied()), Role::View, "{uris:?}");
        }
    }

    #[test]
    fn a_role_is_read_as_it_is_written() {
        for role in Role::ALL {
            assert_eq!(Role::of([role.uri().as_str(), "spiffe://example/ana"]), role);
            assert_eq!(role.word().parse(), Ok(role));
        }
        assert!(Role::View < Role::Operate && Role::Operate < Role::Deploy);
    }
}
