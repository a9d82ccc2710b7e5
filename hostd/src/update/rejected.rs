//! Generations that were tried and taken back: remembered on disk, so that what they declare is not tried again by itself.

use std::path::Path;

use bennu_api::RejectedGeneration;
use bennu_manifests::model::{Digest, Manifest};

use crate::remembered::Remembered;

/// What was rejected on this host.
#[derive(Debug)]
pub struct Rejected(Remembered<RejectedGeneration>);

impl Rejected {
    /// Reads them from a file, which need not be there.
    ///
    /// # Errors
    /// Where it can't be read, or is not what this program writes.
    pub fn open(path: &Path) -> std::io::Result<Self> {
        Remembered::open(path).map(Self)
    }

    /// Remembers one more; it is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn add(&mut self, rejected: RejectedGeneration) -> std::io::Result<()> {
        let generation = rejected.generation;
        self.0.add(rejected, |known| known.generation == generation)
    }

    /// All that are remembered, the oldest first.
    pub fn all(&self) -> &[RejectedGeneration] {
        self.0.all()
    }

    /// Why a manifest is not to be tried: it, what it declares, or its OS was, in vain. One that says `retry` is.
    pub fn against(&self, digest: &Digest, manifest: &Manifest) -> Option<&RejectedGeneration> {
        let retry = manifest.update.as_ref().is_some_and(|update| update.retry);
        let contents = contents(manifest);
        let os = manifest.os_image().map(|image| image.digest);
        self.all().iter().rev().find(|known| {
            known.manifest == *digest
                || !retry && (known.contents == contents || known.os.is_some() && known.os == os)
        })
    }
}

/// What a manifest declares, whatever its header and its rules for updates say.
pub fn contents(manifest: &Manifest) -> Digest {
    let mut value = serde_json::to_value(manifest).expect("a manifest becomes JSON");
    let fields = value.as_object_mut().expect("a manifest is a table");
    fields.retain(|name, _| name != "header" && name != "update");
    Digest::of(value.to_string().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const OS: &str = "[os]\nimage = \"registry.example/os@sha256:";

    fn manifest(serial: u64, rest: &str) -> Manifest {
        let text = format!(
            "schema = 1\nname = \"t\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
             expires = 2036-01-01T00:00:00Z\nallow-empty = true\n{rest}\n"
        );
        bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("t", &text)))
    }

    fn rejected(manifest: &Manifest, digest: u8, os: Option<Digest>) -> RejectedGeneration {
        RejectedGeneration {
            generation: 3,
            serial: manifest.header.serial,
            manifest: Digest::from_bytes([digest; 32]),
            contents: contents(manifest),
            os,
            when: jiff::Timestamp::UNIX_EPOCH,
            why: "it did not do its work".to_owned(),
            evidence: Vec::new(),
        }
    }

    #[test]
    fn what_was_rejected_is_known_by_what_it_declares_until_a_newer_one_says_retry() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("rejected.json");
        let bad = manifest(3, "[network.front]");
        Rejected::open(&path).expect("none yet").add(rejected(&bad, 3, None)).expect("written");
        let again = Rejected::open(&path).expect("read");
        let against =
            |serial, rest: &str| again.against(&Digest::from_bytes([9; 32]), &manifest(serial, rest));
        assert!(against(4, "[network.front]").is_some(), "it declares the same");
        assert!(against(4, "[update]\ntrial = \"2m\"\n[network.front]").is_some(), "it declares the same");
        assert!(against(4, "[network.back]").is_none(), "it declares something else");
        assert!(against(4, "[update]\nretry = true\n[network.front]").is_none(), "it says retry");
        let same = manifest(3, "[update]\nretry = true\n[network.front]");
        assert!(again.against(&Digest::from_bytes([3; 32]), &same).is_some(), "the same bytes are not newer");
    }

    #[test]
    fn an_os_that_did_not_come_up_is_not_tried_with_other_containers_either() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut all = Rejected::open(&dir.path().join("rejected.json")).expect("none yet");
        let (bad, good) = ("ab".repeat(32), "cd".repeat(32));
        let tried = manifest(3, &format!("{OS}{bad}\""));
        all.add(rejected(&tried, 3, format!("sha256:{bad}").parse().ok())).expect("written");
        let against = |rest: &str| all.against(&Digest::from_bytes([9; 32]), &manifest(4, rest));
        assert!(against(&format!("{OS}{bad}\"\n[network.front]")).is_some());
        assert!(against(&format!("{OS}{good}\"\n[network.front]")).is_none());
        assert!(against("[network.front]").is_none());
    }
}
