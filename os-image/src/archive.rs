//! Whether the archive of the distribution still has what was installed from it.
//!
//! A base ([`crate::base`]) is used again and again, but not for longer than it is what a new installation would give: otherwise a
//! machine that builds images would never get the fixes that the distribution publishes. Its release files say so in a few hundred
//! kilobytes: each names the SHA-256 digest of the index of all packages, and mostly until when it is good
//! (<https://wiki.debian.org/DebianRepository/Format#A.22Release.22_files>). What is read here decides only whether to install
//! again; the installation checks the signatures.

use std::fs;
use std::path::Path;
use std::process::Command;

use jiff::Timestamp;
use jiff::fmt::rfc2822;

use crate::BuildError;
use crate::command::{at, run};

/// Fetches as apt itself does, over the proxies that apt is told of.
const HELPER: &str = "/usr/lib/apt/apt-helper";
/// Seconds without an answer after which a mirror counts as one that is not there.
const PATIENCE: &str = "10";

/// An index of packages, as the release file of its suite names it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Index {
    /// Address of the suite's folder in the archive, with a slash at its end.
    suite: String,
    /// Its path there, as in `main/binary-amd64/Packages`.
    path: String,
    /// SHA-256 digest, lower-case hexadecimal.
    digest: String,
}

/// What a base was installed from: its lines, as the script of the installation wrote them.
fn indexes(recorded: &str) -> Result<Vec<Index>, BuildError> {
    let index = |line: &str| match line.split(' ').collect::<Vec<_>>()[..] {
        [suite, path, digest] if digest.len() == 64 => {
            Ok(Index { suite: suite.into(), path: path.into(), digest: digest.into() })
        }
        _ => Err(BuildError::Incomplete { what: format!("index of packages in the line {line:?}") }),
    };
    let found = recorded.lines().map(index).collect::<Result<Vec<_>, _>>()?;
    match found.is_empty() {
        true => {
            Err(BuildError::Incomplete { what: "record of the archive that it was installed from".into() })
        }
        false => Ok(found),
    }
}

/// Whether a release file says the same of an index as it did.
fn says(release: &str, index: &Index) -> bool {
    release.lines().any(|line| {
        let mut words = line.split_whitespace();
        // Three words: digest, bytes, path. Digests of other kinds have other lengths.
        words.next() == Some(&index.digest) && words.nth(1) == Some(&index.path)
    })
}

/// Until when a release file is good, where it says so and that is over: a mirror that stands still would otherwise never show anything new.
fn over(release: &str, now: Timestamp) -> Option<Timestamp> {
    let line = release.lines().find_map(|line| line.strip_prefix("Valid-Until:"))?;
    // "UTC" stands there where RFC 2822 has a number.
    let until = rfc2822::parse(&line.trim().replace("UTC", "+0000")).ok()?.timestamp();
    (until < now).then_some(until)
}

/// Whether an installation now would find the same packages as the one that wrote this record.
///
/// # Errors
/// Where the archive cannot be asked, or the record is none.
pub(crate) fn is_as(recorded: &Path) -> Result<bool, BuildError> {
    let text = fs::read_to_string(recorded).map_err(at("read", recorded))?;
    let indexes = indexes(&text)?;
    let folder = tempfile::tempdir().map_err(at("create a folder in", &std::env::temp_dir()))?;
    let mut command = Command::new(HELPER);
    command
        .arg(format!("-oAcquire::http::Timeout={PATIENCE}"))
        .arg(format!("-oAcquire::https::Timeout={PATIENCE}"));
    // Without it a machine with root's rights drops them, and then cannot write to a folder of ours.
    command.args(["-oAPT::Sandbox::User=root", "-oAcquire::Retries=0", "download-file"]);
    let file = |at: usize| folder.path().join(at.to_string());
    for (at, index) in indexes.iter().enumerate() {
        // The third is a digest that is expected: none is.
        command.arg(format!("{}InRelease", index.suite)).arg(file(at)).arg("");
    }
    run(&mut command)?;
    for (number, index) in indexes.iter().enumerate() {
        let path = file(number);
        let release = fs::read_to_string(&path).map_err(at("read", &path))?;
        if !says(&release, index) {
            return Ok(false);
        }
        if let Some(until) = over(&release, Timestamp::now()) {
            return Err(BuildError::Stale { suite: index.suite.clone(), until: until.to_string() });
        }
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An archive in a folder with one suite, whose release file names this digest; and the record of an installation that found the
    /// first one.
    fn archive(digest: &str) -> (tempfile::TempDir, std::path::PathBuf) {
        let folder = tempfile::tempdir().expect("temporary folder");
        let suite = folder.path().join("dists/stable");
        fs::create_dir_all(&suite).expect("created");
        let release = format!(
            "Suite: stable\nMD5Sum:\n {md5} 10 main/binary-amd64/Packages\nSHA256:\n {digest} 10 main/binary-amd64/Packages\n \
             {other} 9 main/binary-amd64/Packages.xz\n",
            md5 = "0".repeat(32),
            other = "f".repeat(64),
        );
        fs::write(suite.join("InRelease"), release).expect("written");
        let record = folder.path().join("record");
        let line = format!("file://{}/ main/binary-amd64/Packages {}\n", suite.display(), "a".repeat(64));
        fs::write(&record, line).expect("written");
        (folder, record)
    }

    #[test]
    fn an_archive_that_says_the_same_of_its_packages_is_the_same() {
        let (_folder, record) = archive(&"a".repeat(64));
        assert!(is_as(&record).expect("asked"));
    }

    #[test]
    fn an_archive_with_other_packages_is_another() {
        let (_folder, record) = archive(&"b".repeat(64));
        assert!(!is_as(&record).expect("asked"));
    }

    #[test]
    fn an_archive_that_is_not_there_says_neither() {
        let (folder, record) = archive(&"a".repeat(64));
        fs::remove_dir_all(folder.path().join("dists")).expect("removed");
        assert!(matches!(is_as(&record), Err(BuildError::Program { .. })));
    }

    #[test]
    fn a_release_file_that_is_not_good_any_more_is_none() {
        let now = "2026-01-10T00:00:00Z".parse().expect("a moment");
        let said = |until: &str| over(&format!("Suite: stable\nValid-Until: {until}\nSHA256:\n"), now);
        assert_eq!(
            said("Fri, 09 Jan 2026 20:11:37 UTC").map(|until| until.to_string()).as_deref(),
            Some("2026-01-09T20:11:37Z")
        );
        assert_eq!(said("Sat, 17 Jan 2026 20:11:37 UTC"), None);
        assert_eq!(over("Suite: stable\n", now), None, "some say nothing of it");
    }

    #[test]
    fn an_empty_or_broken_record_is_an_error_rather_than_no_change() {
        for broken in ["", "file:///x/ main/binary-amd64/Packages\n", "a b c\n"] {
            assert!(indexes(broken).is_err(), "{broken:?}");
        }
    }
}
