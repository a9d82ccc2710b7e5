//! The package mirrors that this machine already uses, read from apt's own sources.
//!
//! Formats: `sources.list(5)`, one-line style (`deb [options] URI suite component…`) and deb822 style
//! (stanzas of `Types`, `URIs`, `Suites`, `Components`). Options that do not name a place are not looked at.

use std::path::{Path, PathBuf};

/// One place packages come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// Address of the archive.
    pub uri: String,
    /// Suite, as in `trixie-security`.
    pub suite: String,
    /// Components, as in `main`.
    pub components: Vec<String>,
}

/// Reads the sources of apt below `root` (`/` outside tests). Files that cannot be read are left out: apt itself
/// reports those.
#[must_use]
pub fn sources(root: &Path) -> Vec<Source> {
    let folder = root.join("etc/apt/sources.list.d");
    let mut files: Vec<PathBuf> = std::fs::read_dir(folder)
        .map(|items| items.filter_map(|item| Some(item.ok()?.path())).collect())
        .unwrap_or_default();
    files.push(root.join("etc/apt/sources.list"));
    files.sort();
    files
        .iter()
        .filter_map(|file| {
            let text = std::fs::read_to_string(file).ok()?;
            match file.extension()?.to_str()? {
                "list" => Some(one_line(&text)),
                "sources" => Some(deb822(&text)),
                _ => None,
            }
        })
        .flatten()
        .collect()
}

/// Parses the one-line style.
#[must_use]
pub fn one_line(text: &str) -> Vec<Source> {
    text.lines()
        .filter_map(|line| {
            let line = line.split('#').next()?.trim();
            let rest = line.strip_prefix("deb")?.strip_prefix([' ', '\t'])?.trim_start();
            // Options stand in one pair of brackets right behind the type.
            let rest = match rest.strip_prefix('[') {
                Some(options) => options.split_once(']')?.1,
                None => rest,
            };
            let mut words = rest.split_whitespace().map(str::to_owned);
            Some(Source { uri: words.next()?, suite: words.next()?, components: words.collect() })
        })
        .collect()
}

/// Parses the deb822 style.
#[must_use]
pub fn deb822(text: &str) -> Vec<Source> {
    // Comment lines may stand inside a field, so they go first.
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    lines.split(|line| line.trim().is_empty()).flat_map(stanza).collect()
}

fn stanza(lines: &[&str]) -> Vec<Source> {
    let mut fields: Vec<(String, Vec<String>)> = Vec::new();
    for line in lines {
        let (name, value) = match line.split_once(':') {
            Some((name, value)) if !line.starts_with([' ', '\t']) => (Some(name), value),
            _ => (None, *line),
        };
        let words = value.split_whitespace().map(str::to_owned);
        match (name, fields.last_mut()) {
            (Some(name), _) => fields.push((name.to_ascii_lowercase(), words.collect())),
            (None, Some((_, last))) => last.extend(words),
            (None, None) => {}
        }
    }
    let field = |name: &str| {
        fields.iter().find(|(known, _)| known == name).map(|(_, words)| words.clone()).unwrap_or_default()
    };
    if !field("types").iter().any(|kind| kind == "deb") || field("enabled") == ["no"] {
        return Vec::new();
    }
    let (uris, suites, components) = (field("uris"), field("suites"), field("components"));
    uris.iter()
        .flat_map(|uri| suites.iter().map(move |suite| (uri, suite)))
        .map(|(uri, suite)| Source { uri: uri.clone(), suite: suite.clone(), components: components.clone() })
        .collect()
}

/// The archive that brings `suite` itself, with the component `main`, on this machine.
#[must_use]
pub fn archive_of<'a>(sources: &'a [Source], suite: &str) -> Option<&'a str> {
    sources
        .iter()
        .find(|source| source.suite == suite && source.components.iter().any(|c| c == "main"))
        .map(|source| source.uri.as_str())
}

/// Lines of a `sources.list` for another Debian release, on the mirrors this machine uses for `running`, the
/// Debian release it runs itself. `None` where the machine's sources do not tell both mirrors.
#[must_use]
pub fn same_mirrors(sources: &[Source], running: &str, release: &str) -> Option<String> {
    let archive = archive_of(sources, running)?;
    let security = archive_of(sources, &format!("{running}-security"))?;
    Some(format!(
        "deb {archive} {release} main\n\
         deb {archive} {release}-updates main\n\
         deb {security} {release}-security main\n"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEB822: &str = "\
Types: deb deb-src
# a comment inside
URIs: http://one.example/debian
Suites: bookworm
 bookworm-updates
Components: main contrib
Signed-By: /usr/share/keyrings/x.gpg

Types: deb-src
URIs: http://no.example/
Suites: bookworm

Enabled: no
Types: deb
URIs: http://off.example/
Suites: bookworm
Components: main

Types: deb
URIs: http://two.example/security
Suites: bookworm-security
Components: main
";

    #[test]
    fn stanzas_are_read_with_folded_fields_and_without_disabled_ones() {
        let found: Vec<_> = deb822(DEB822).into_iter().map(|s| (s.uri, s.suite)).collect();
        let expected = [
            ("http://one.example/debian", "bookworm"),
            ("http://one.example/debian", "bookworm-updates"),
            ("http://two.example/security", "bookworm-security"),
        ];
        assert_eq!(found, expected.map(|(uri, suite)| (uri.to_owned(), suite.to_owned())));
    }

    #[test]
    fn one_line_sources_are_read_with_options_and_without_comments() {
        let text = "# deb http://off.example/ bookworm main\n\
                    deb [arch=amd64 signed-by=/k.gpg] http://one.example/debian bookworm main # why\n\
                    deb-src http://src.example/ bookworm main\n";
        let expected = Source {
            uri: "http://one.example/debian".into(),
            suite: "bookworm".into(),
            components: vec!["main".into()],
        };
        assert_eq!(one_line(text), [expected]);
    }

    #[test]
    fn another_release_comes_from_the_same_mirrors() {
        assert_eq!(
            same_mirrors(&deb822(DEB822), "bookworm", "trixie").as_deref(),
            Some(
                "deb http://one.example/debian trixie main\n\
                 deb http://one.example/debian trixie-updates main\n\
                 deb http://two.example/security trixie-security main\n"
            )
        );
    }

    #[test]
    fn without_a_security_mirror_nothing_is_derived() {
        let only = one_line("deb http://one.example/debian bookworm main");
        assert_eq!(same_mirrors(&only, "bookworm", "trixie"), None);
    }
}
