//! How much of the journal a host keeps: a drop-in for systemd-journald in `/etc`, which a boot empties.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_manifests::model::{Logs, Manifest};
use nix::sys::statvfs::statvfs;

use super::Host;
use super::bus::BusError;

/// Where journald looks for changes to its settings (journald.conf(5)); ours is read behind that of the image.
const DROP_INS: &str = "/etc/systemd/journald.conf.d";

/// What the image has journald keep, which is in force as long as nothing of ours is there.
const OF_IMAGE: &str = "/usr/lib/systemd/journald.conf.d/10-bennu.conf";

/// The file system that the journal is on.
const RUN: &str = "/run";

/// How long journald has to come back.
const RESTART: Duration = Duration::from_secs(60);

/// Why the journal does not keep what is declared.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Its settings can't be written.
    #[error("write {}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// The memory for it can't be measured.
    #[error("ask how large {RUN} is")]
    Measure(#[source] io::Error),
    /// journald does not start again.
    #[error(transparent)]
    Restart(#[from] BusError),
}

impl Host {
    /// Has the journal keep as much as a manifest says. What is there of it stays, as far as there is room for it; where
    /// nothing changed this does nothing.
    ///
    /// # Errors
    /// Where journald can't be told.
    pub async fn keep_logs(&self, manifest: &Manifest) -> Result<(), JournalError> {
        let size = statvfs(RUN).map(|run| run.blocks() * run.fragment_size());
        let size = size.map_err(|error| JournalError::Measure(error.into()))?;
        let keep = manifest.logs.as_ref().map_or(Logs::KEEP, |logs| logs.keep);
        let most = bound(keep, size);
        let (drop_in, taken) = (Path::new(DROP_INS).join("50-bennu.conf"), self.paths.run.join("journal"));
        let read = |path: &Path| std::fs::read_to_string(path).ok();
        let found = Found {
            of_image: read(Path::new(OF_IMAGE)).and_then(|text| most_of(&text)),
            drop_in: read(&drop_in),
            taken: read(&taken),
        };
        if found.keeps(most) {
            return Ok(());
        }
        let text = settings(most);
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| JournalError::Write { path, source }
        };
        std::fs::create_dir_all(DROP_INS).map_err(failed(Path::new(DROP_INS)))?;
        std::fs::write(&drop_in, &text).map_err(failed(&drop_in))?;
        // It reads its settings only when it starts. Who writes to it notices nothing: systemd keeps their streams.
        self.bus.restart("systemd-journald.service", RESTART).await?;
        // Written last: where anything before failed, it is done again.
        std::fs::write(&taken, &text).map_err(failed(&taken))
    }
}

/// What decides how much journald keeps, as it is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Found {
    /// How many bytes the image says.
    of_image: Option<u64>,
    /// Our settings.
    drop_in: Option<String>,
    /// Our settings as they were when journald was started again last in this boot.
    taken: Option<String>,
}

impl Found {
    /// Whether journald keeps at most so many bytes already.
    fn keeps(&self, most: u64) -> bool {
        match (&self.drop_in, &self.taken) {
            // As it was booted: only the image has told it anything.
            (None, None) => self.of_image == Some(most),
            (drop_in, taken) => [drop_in, taken].iter().all(|text| text.as_deref() == Some(&settings(most))),
        }
    }
}

/// How many bytes are kept: `keep`, and never more than half of the memory that `/run` may use, which is `size` bytes: others
/// need it, too.
fn bound(keep: u64, size: u64) -> u64 {
    keep.min(size / 2)
}

/// The settings with which at most so many bytes are kept. journald removes the oldest first.
fn settings(most: u64) -> String {
    format!("[Journal]\n{KEY}={most}\n")
}

/// The setting of how much is kept in memory, in bytes or with a unit of base 1024 (journald.conf(5)).
const KEY: &str = "RuntimeMaxUse";

/// How many bytes some settings say; `None` where they do not say it, or in a way that they need not be written in.
fn most_of(settings: &str) -> Option<u64> {
    let mut values = settings.lines().filter_map(|line| line.trim().strip_prefix(KEY)?.strip_prefix('='));
    let value = values.next_back()?;
    let (number, shift) = match value.split_at_checked(value.len().checked_sub(1)?)? {
        (number, "K") => (number, 10),
        (number, "M") => (number, 20),
        (number, "G") => (number, 30),
        _ => (value, 0),
    };
    number.parse::<u64>().ok()?.checked_mul(1 << shift)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_declared_is_kept_as_far_as_half_of_the_memory_reaches() {
        assert_eq!(settings(bound(8 << 20, 200 << 20)), "[Journal]\nRuntimeMaxUse=8388608\n");
        assert_eq!(settings(bound(512 << 20, 200 << 20)), "[Journal]\nRuntimeMaxUse=104857600\n");
    }

    #[test]
    fn a_journal_that_keeps_what_the_image_says_is_not_started_again() {
        let of_image = most_of(include_str!(
            "../../../os-image/files/root/usr/lib/systemd/journald.conf.d/10-bennu.conf"
        ));
        assert_eq!(of_image, Some(Logs::KEEP), "a manifest that says nothing wants what the image has");
        let booted = Found { of_image, ..Found::default() };
        assert!(booted.keeps(Logs::KEEP));
        assert!(!booted.keeps(1 << 20) && !Found::default().keeps(Logs::KEEP));
    }

    #[test]
    fn a_journal_that_was_told_of_another_bound_is_told_again() {
        let told = |most| Found {
            of_image: Some(Logs::KEEP),
            drop_in: Some(settings(most)),
            taken: Some(settings(most)),
        };
        assert!(told(1 << 20).keeps(1 << 20));
        assert!(!told(1 << 20).keeps(Logs::KEEP), "also of what the image has");
        assert!(told(Logs::KEEP).keeps(Logs::KEEP));
        assert!(!Found { taken: None, ..told(1 << 20) }.keeps(1 << 20), "it was not started again");
        assert!(!Found { drop_in: None, ..told(1 << 20) }.keeps(1 << 20), "somebody removed the settings");
    }

    #[test]
    fn a_bound_is_read_in_bytes_and_what_it_cannot_be_is_none() {
        for (text, bytes) in [
            ("[Journal]\nRuntimeMaxUse=64M\nAudit=no\n", Some(64 << 20)),
            ("RuntimeMaxUse=8388608", Some(8 << 20)),
            ("RuntimeMaxUse=1G\nRuntimeMaxUse=3K\n", Some(3 << 10)),
            ("RuntimeMaxUse=", None),
            ("RuntimeMaxUse=M", None),
            ("RuntimeMaxUse=\u{e9}", None),
            ("RuntimeMaxUse=99999999999G", None),
            ("#RuntimeMaxUse=64M\nRuntimeMaxUsed=1\n", None),
        ] {
            assert_eq!(most_of(text), bytes, "{text:?}");
        }
    }
}
