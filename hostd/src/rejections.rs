//! Containers that were tried and did not do their work: remembered on disk, so that they are not tried again by themselves.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use bennu_api::Rejection;
use bennu_manifests::model::{Digest, Manifest, Name};

use crate::remembered::Remembered;

/// What was rejected on this host.
#[derive(Debug)]
pub struct Rejections(Remembered<Rejection>);

impl Rejections {
    /// Reads them from a file, which need not be there.
    ///
    /// # Errors
    /// Where it can't be read, or is not what this program writes.
    pub fn open(path: &Path) -> io::Result<Self> {
        Remembered::open(path).map(Self)
    }

    /// Remembers one more; it is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn add(&mut self, rejection: Rejection) -> io::Result<()> {
        // Tried again, and rejected again: the newest reason counts.
        let of = (rejection.container.clone(), rejection.fingerprint);
        self.0.add(rejection, |known| (&known.container, known.fingerprint) == (&of.0, of.1))
    }

    /// What is not to be tried in this generation: everything that was rejected, but for what was rejected before a manifest
    /// asked to `retry`.
    pub fn in_force(&self, manifest: &Manifest, generation: u64) -> BTreeSet<(Name, Digest)> {
        let retry = manifest.update.as_ref().is_some_and(|update| update.retry);
        let counts = |known: &&Rejection| !retry || known.generation >= generation;
        self.all().iter().filter(counts).map(|known| (known.container.clone(), known.fingerprint)).collect()
    }

    /// All that are remembered, the oldest first.
    pub fn all(&self) -> &[Rejection] {
        self.0.all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::remembered::REMEMBERED;

    fn rejection(generation: u64, byte: u8) -> Rejection {
        Rejection {
            container: "web".parse().expect("a name"),
            image: format!("registry.example/web:1@sha256:{}", "ab".repeat(32)).parse().expect("an image"),
            fingerprint: Digest::from_bytes([byte; 32]),
            generation,
            when: jiff::Timestamp::UNIX_EPOCH,
            why: "its health check failed".to_owned(),
            said: vec!["no".to_owned()],
        }
    }

    fn manifest(retry: bool) -> Manifest {
        let text = format!(
            "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             allow-empty = true\n[update]\nretry = {retry}\n"
        );
        bennu_manifests::check(text.as_bytes()).expect("valid")
    }

    #[test]
    fn what_was_rejected_stays_so_until_a_newer_manifest_asks_to_try_again() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("rejected.json");
        Rejections::open(&path).expect("none yet").add(rejection(3, 1)).expect("written");
        let mut again = Rejections::open(&path).expect("read");
        assert_eq!(again.all(), [rejection(3, 1)]);
        assert_eq!(again.in_force(&manifest(false), 4).len(), 1);
        assert_eq!(again.in_force(&manifest(true), 4).len(), 0);
        // The generation that asked to try again does so once.
        again.add(rejection(4, 1)).expect("written");
        assert_eq!(again.in_force(&manifest(true), 4).len(), 1);
        assert_eq!(again.all().len(), 1);
    }

    #[test]
    fn only_so_many_are_remembered() {
        let dir = tempfile::tempdir().expect("a folder");
        let mut rejections = Rejections::open(&dir.path().join("rejected.json")).expect("none yet");
        for byte in 0..=u8::try_from(REMEMBERED).expect("small") {
            rejections.add(rejection(1, byte)).expect("written");
        }
        assert_eq!(rejections.all().len(), REMEMBERED);
        assert_eq!(rejections.all()[0], rejection(1, 1));
    }
}
