//! References to images: `HOST[:PORT]/NAME[:TAG][@DIGEST]`.
//!
//! The grammar is that of the distribution project (`reference/reference.go`), made narrower: the registry is always
//! named, host names are in lower case, and the only digest is SHA-256. Nothing is filled in: a reference
//! without a registry is an error here, where other tools would quietly mean Docker Hub.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::model::{Digest, ImageRef, serde_as_text};

/// The longest reference, in bytes.
pub const MAX_REFERENCE: usize = 512;
/// The longest repository name, in bytes (distribution specification, "Pulling manifests", after its note on limits).
const MAX_REPOSITORY: usize = 255;
/// The longest tag, in bytes (distribution specification, the pattern of `<reference>` as a tag).
const MAX_TAG: usize = 128;

/// A string that is no reference to an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum NotAReference {
    /// Nothing there, or more than [`MAX_REFERENCE`] bytes.
    #[error("an image reference is 1 to {MAX_REFERENCE} bytes long")]
    Length,
    /// The first component is no registry.
    #[error("the reference names no registry")]
    NoRegistry,
    /// The registry is not `HOST[:PORT]`.
    #[error("'{registry}' is no registry: HOST[:PORT] is expected, in lower case")]
    Registry {
        /// What stands in its place.
        registry: String,
    },
    /// The repository is not well formed.
    #[error("'{repository}' is no repository name: a-z, 0-9 and single separators between them are expected")]
    Repository {
        /// What stands in its place.
        repository: String,
    },
    /// The tag is not well formed.
    #[error("'{tag}' is no tag")]
    Tag {
        /// What stands in its place.
        tag: String,
    },
    /// The digest is not well formed.
    #[error("what follows '@' is no digest: 'sha256:' and 64 hexadecimal digits in lower case are expected")]
    Digest,
    /// A pinned reference was asked for and this one has a tag at best.
    #[error("the image is not pinned by a digest")]
    Unpinned,
}

/// `HOST[:PORT]/NAME[:TAG][@DIGEST]`: an image that may still have to be pinned.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnpinnedRef {
    /// `HOST[:PORT]` of the registry.
    pub registry: String,
    /// The repository in it, as `library/nginx`.
    pub repository: String,
    /// The tag; where there is neither tag nor digest, registries are asked for `latest`.
    pub tag: Option<String>,
    /// The digest, where it is pinned already.
    pub digest: Option<Digest>,
}

impl UnpinnedRef {
    /// The same image, pinned to `digest`.
    pub fn pin(&self, digest: Digest) -> ImageRef {
        ImageRef {
            registry: self.registry.clone(),
            repository: self.repository.clone(),
            tag: self.tag.clone(),
            digest,
        }
    }

    /// The pinned reference, where it has a digest.
    pub fn pinned(&self) -> Option<ImageRef> {
        self.digest.map(|digest| self.pin(digest))
    }
}

impl From<ImageRef> for UnpinnedRef {
    fn from(image: ImageRef) -> Self {
        let ImageRef { registry, repository, tag, digest } = image;
        Self { registry, repository, tag, digest: Some(digest) }
    }
}

impl FromStr for UnpinnedRef {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, NotAReference> {
        if text.is_empty() || text.len() > MAX_REFERENCE {
            return Err(NotAReference::Length);
        }
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest.parse().map_err(|_| NotAReference::Digest)?)),
            None => (text, None),
        };
        let (registry, path) = name.split_once('/').ok_or(NotAReference::NoRegistry)?;
        // As everywhere in this field: without a dot or a port it is the first part of a repository on some default
        // registry, and there is no default here.
        if !registry.contains(['.', ':']) && registry != "localhost" {
            return Err(NotAReference::NoRegistry);
        }
        if !is_registry(registry) {
            return Err(NotAReference::Registry { registry: registry.escape_debug().to_string() });
        }
        let (repository, tag) = match path.split_once(':') {
            Some((repository, tag)) => (repository, Some(tag)),
            None => (path, None),
        };
        if !is_repository(repository) {
            return Err(NotAReference::Repository { repository: repository.escape_debug().to_string() });
        }
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(NotAReference::Tag { tag: tag.escape_debug().to_string() });
        }
        Ok(Self {
            registry: registry.to_owned(),
            repository: repository.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl FromStr for ImageRef {
    type Err = NotAReference;

    fn from_str(text: &str) -> Result<Self, NotAReference> {
        text.parse::<UnpinnedRef>()?.pinned().ok_or(NotAReference::Unpinned)
    }
}

impl fmt::Display for UnpinnedRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

serde_as_text!(UnpinnedRef);

/// Whether `text` is `HOST[:PORT]`: a name in lower case, an IPv4 address, or an IPv6 address in brackets.
pub(crate) fn is_registry(text: &str) -> bool {
    let (host, port) = if let Some(rest) = text.strip_prefix('[') {
        let Some((address, after)) = rest.split_once(']') else { return false };
        if address.parse::<Ipv6Addr>().is_err() {
            return false;
        }
        match after.strip_prefix(':') {
            Some(port) => (None, Some(port)),
            None if after.is_empty() => (None, None),
            None => return false,
        }
    } else {
        match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        }
    };
    host.is_none_or(is_host) && port.is_none_or(|port| parse_port(port).is_some())
}

/// Whether `host` is a DNS name in lower case or an IPv4 address (RFC 1123, section 2.1).
fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        let bytes = label.as_bytes();
        (1..=63).contains(&bytes.len())
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || *b == b'-')
            && bytes[0] != b'-'
            && bytes[bytes.len() - 1] != b'-'
    };
    // A name whose last label is a number can only be meant as an address, and resolvers disagree about odd ones
    // such as `127.1` or `0x7f.1`.
    let numeric = host.rsplit('.').next().is_some_and(|last| last.starts_with(|c: char| c.is_ascii_digit()));
    if numeric { host.parse::<Ipv4Addr>().is_ok() } else { host.len() <= 253 && host.split('.').all(label) }
}

/// A port from 1 to 65535 in plain decimal digits, without sign or leading zero.
pub(crate) fn parse_port(text: &str) -> Option<u16> {
    let plain = !text.starts_with('0') && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// Components of `a-z` and `0-9` with single `.`, `_`, `__` or any run of `-` between them, joined by `/`
/// (distribution specification, "Pulling manifests", the pattern of `<name>`).
fn is_repository(text: &str) -> bool {
    let component = |part: &str| {
        let mut letters = part.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let separator = |run: &str| matches!(run, "" | "." | "_" | "__") || run.bytes().all(|b| b == b'-');
        let at_edge = part.starts_with(['.', '_', '-']) || part.ends_with(['.', '_', '-']);
        !part.is_empty() && !at_edge && letters.all(separator)
    };
    text.len() <= MAX_REPOSITORY && text.split('/').all(component)
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    (1..=MAX_TAG).contains(&text.len())
        && word(text.as_bytes()[0])
        && text.bytes().all(|b| word(b) || b == b'.' || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn references_that_are_taken_come_back_as_they_were_written() {
        for text in [
            "localhost/a",
            "10.0.2.2:5000/nginx:1",
            "docker.io/library/nginx:1.27-alpine",
            "registry.example.com:443/a/b__c/d-----e.f",
            "[::1]:5000/a:b",
            "[fe80::1]/a",
        ] {
            assert_eq!(text.parse::<UnpinnedRef>().expect(text).to_string(), text);
            assert_eq!(text.parse::<ImageRef>(), Err(NotAReference::Unpinned), "{text}");
            let pinned = format!("{text}@sha256:{HEX}");
            assert_eq!(pinned.parse::<ImageRef>().expect(&pinned).to_string(), pinned);
        }
    }

    #[test]
    fn references_outside_the_grammar_are_refused() {
        let long = format!("localhost/{}", "a".repeat(256));
        for text in [
            "",
            "nginx",
            "nginx:1",
            "library/nginx",
            "/nginx",
            "Localhost:1/a",
            "host.example:0/a",
            "host.example:080/a",
            "host.example:+80/a",
            "host.example:65536/a",
            "host.example:/a",
            "127.1/a",
            "1.2.3.04/a",
            "0x7f.1/a",
            "[::1/a",
            "[::1]x/a",
            "[1.2.3.4]:1/a",
            "-a.example/a",
            "a..example/a",
            "user@host.example/a",
            "localhost/",
            "localhost/A",
            "localhost/a//b",
            "localhost/a/",
            "localhost/../a",
            "localhost/a___b",
            "localhost/a._b",
            "localhost/-a",
            "localhost/a:",
            "localhost/a:b:c",
            "localhost/a:.b",
            "localhost/a b",
            "localhost/a\u{202e}b",
            "localhost/a@",
            "localhost/a@sha512:00",
            "localhost/a@sha256:00",
            &long,
            &format!("localhost/a@sha256:{}", HEX.to_uppercase()),
            &format!("localhost/a@sha256:{HEX}@sha256:{HEX}"),
        ] {
            assert!(text.parse::<UnpinnedRef>().is_err(), "{text:?} was taken");
        }
    }
}
