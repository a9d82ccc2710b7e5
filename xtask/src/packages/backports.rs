//! A newer QEMU for a distribution whose own is too old.

use super::{as_root, succeed};
use crate::Failure;
use bennu_os_image::mirror;
use std::path::Path;
use std::process::Command;

/// The oldest QEMU that runs the image soundly. Version 7.2 emulates `cmpxchg16b` wrongly, and a 6.12 kernel crashes in
/// it at random.
pub(super) const OLDEST: &str = "1:8.2";

/// A file of our own, so that removing it takes everything back.
const FILE: &str = "/etc/apt/sources.list.d/bennu-backports.sources";
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// Whether a version of QEMU's package is too old.
pub(super) fn too_old(version: &str) -> bool {
    Command::new("dpkg")
        .args(["--compare-versions", version, "lt", OLDEST])
        .status()
        .is_ok_and(|status| status.success())
}

/// Adds the backports of the running release, from the mirror that this machine already uses, and gives back the name
/// of their suite.
pub(super) fn add() -> Result<String, Failure> {
    let text = std::fs::read_to_string("/etc/os-release")
        .map_err(|error| format!("cannot read /etc/os-release: {error}"))?;
    let release = text
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .ok_or("this distribution does not say which release it is")?;
    let suite = format!("{release}-backports");
    let sources = mirror::sources(Path::new("/"));
    if mirror::archive_of(&sources, &suite).is_none() {
        let archive = mirror::archive_of(&sources, release)
            .ok_or_else(|| format!("apt's sources do not say where {release} comes from"))?;
        eprintln!("apt source to add: {suite}, in {FILE}");
        let file = tempfile::NamedTempFile::new()
            .map_err(|error| format!("cannot make a temporary file: {error}"))?;
        std::fs::write(file.path(), stanza(archive, &suite))
            .map_err(|error| format!("cannot write: {error}"))?;
        succeed(as_root("install").args(["--mode=0644"]).arg(file.path()).arg(FILE))?;
    }
    Ok(suite)
}

fn stanza(archive: &str, suite: &str) -> String {
    format!("Types: deb\nURIs: {archive}\nSuites: {suite}\nComponents: main\nSigned-By: {KEYRING}\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_qemu_of_before_8_2_is_too_old() {
        assert!(too_old("1:7.2+dfsg-7+deb12u13"));
        assert!(!too_old("1:8.2.2+ds-0ubuntu1"));
        assert!(!too_old("1:10.0.2+ds-2~bpo12+1"));
    }

    #[test]
    fn the_added_source_is_read_back_as_it_was_meant() {
        let read = mirror::deb822(&stanza("http://one.example/debian", "bookworm-backports"));
        assert_eq!(mirror::archive_of(&read, "bookworm-backports"), Some("http://one.example/debian"));
    }
}
