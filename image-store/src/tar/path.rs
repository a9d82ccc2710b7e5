//! Paths inside an archive.

use std::fmt;

use super::PathFault;

/// The longest path, in bytes (`PATH_MAX` of Linux).
pub const MAX_PATH: usize = 4096;
/// The longest component of a path, in bytes (`EROFS_NAME_LEN`, and `NAME_MAX` of Linux).
pub const MAX_COMPONENT: usize = 255;

/// A path that stays inside its tree: components joined by single slashes, no `.`, no `..`, no NUL, nothing at the
/// ends. The root is the empty path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryPath(Vec<u8>);

impl EntryPath {
    /// Checks and normalises what an archive says: leading slashes and every `.` component are dropped, as all
    /// readers of layers do.
    ///
    /// # Errors
    /// The first [`PathFault`] found.
    pub fn parse(raw: &[u8]) -> Result<Self, PathFault> {
        if raw.is_empty() {
            return Err(PathFault::Empty);
        }
        if raw.len() > MAX_PATH {
            return Err(PathFault::Long);
        }
        if raw.contains(&0) {
            return Err(PathFault::Nul);
        }
        let mut path = Vec::with_capacity(raw.len());
        for component in raw.split(|b| *b == b'/') {
            match component {
                b"" | b"." => continue,
                b".." => return Err(PathFault::Parent),
                long if long.len() > MAX_COMPONENT => return Err(PathFault::LongComponent),
                _ => {}
            }
            if !path.is_empty() {
                path.push(b'/');
            }
            path.extend_from_slice(component);
        }
        Ok(Self(path))
    }

    /// The components, from the root down.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(|b| *b == b'/').filter(|c| !c.is_empty())
    }

    /// Whether this is the root.
    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The directory and the last component; `None` for the root.
    pub fn split_last(&self) -> Option<(&[u8], &[u8])> {
        match self.0.iter().rposition(|b| *b == b'/') {
            Some(at) => Some((&self.0[..at], &self.0[at + 1..])),
            None if self.0.is_empty() => None,
            None => Some((b"", &self.0)),
        }
    }

    /// The path as bytes, without a leading slash.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&printable(&self.0))
    }
}

impl fmt::Debug for EntryPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

/// Bytes as text that cannot move a terminal's cursor: control and non-ASCII bytes are escaped, and it is cut
/// after 256 bytes.
pub(crate) fn printable(bytes: &[u8]) -> String {
    let text = bytes[..bytes.len().min(256)].escape_ascii().to_string();
    if bytes.len() > 256 { text + "…" } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised_as_other_readers_do() {
        for (raw, path) in
            [("./", ""), ("/", ""), ("./a", "a"), ("/a//b/", "a/b"), ("a/./b", "a/b"), ("..a/b..", "..a/b..")]
        {
            assert_eq!(EntryPath::parse(raw.as_bytes()).expect(raw).as_bytes(), path.as_bytes(), "{raw}");
        }
    }

    #[test]
    fn paths_that_could_leave_the_tree_are_refused() {
        let long = "a".repeat(256);
        let deep = "a/".repeat(2049);
        for (raw, fault) in [
            ("..", PathFault::Parent),
            ("../a", PathFault::Parent),
            ("a/..", PathFault::Parent),
            ("/a/../../b", PathFault::Parent),
            ("", PathFault::Empty),
            ("a\0b", PathFault::Nul),
            (&long, PathFault::LongComponent),
            (&deep, PathFault::Long),
        ] {
            assert_eq!(EntryPath::parse(raw.as_bytes()), Err(fault), "{raw}");
        }
    }
}
