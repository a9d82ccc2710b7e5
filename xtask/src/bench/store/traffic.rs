//! What was fetched, as the registry's access log has it.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::Failure;

/// What was asked and answered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Traffic {
    pub(super) requests: u64,
    /// Bytes of bodies.
    pub(super) bytes: u64,
}

/// A place in a log.
#[derive(Debug)]
pub(super) struct Mark {
    log: PathBuf,
    offset: u64,
}

impl Mark {
    /// The end of the log as it is now.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub(super) fn end_of(log: &Path) -> Result<Self, Failure> {
        Ok(Self { log: log.to_owned(), offset: std::fs::metadata(log)?.len() })
    }

    /// What was logged since.
    ///
    /// # Errors
    /// Where the log cannot be read.
    pub(super) fn since(&self) -> Result<Traffic, Failure> {
        let mut text = String::new();
        let mut file = File::open(&self.log)?;
        file.seek(SeekFrom::Start(self.offset))?;
        file.read_to_string(&mut text)?;
        Ok(count(&text))
    }
}

/// Lines in the combined format: `HOST - - [TIME] "METHOD PATH HTTP/1.1" STATUS BYTES "FROM" "AGENT"`. Other lines of the log are
/// not about answers. The answer to HEAD has a length but no body.
fn count(text: &str) -> Traffic {
    let mut traffic = Traffic::default();
    for line in text.lines() {
        let mut quoted = line.split('"');
        let (Some(request), Some(answer)) = (quoted.nth(1), quoted.next()) else { continue };
        let mut answer = answer.split_whitespace();
        let (Some(Ok(_status)), Some(bytes)) = (answer.next().map(str::parse::<u16>), answer.next()) else {
            continue;
        };
        traffic.requests += 1;
        if !request.starts_with("HEAD ") {
            traffic.bytes += bytes.parse::<u64>().unwrap_or_default();
        }
    }
    traffic
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_counted_and_other_lines_are_not() {
        let text = "time=\"x\" level=warning msg=\"200 7\"\n\
                    127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] \"GET /v2/a HTTP/1.1\" 200 512 \"\" \"curl\"\n\
                    127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] \"HEAD /v2/a HTTP/1.1\" 200 512 \"\" \"curl\"\n\
                    127.0.0.1 - - [21/Nov/2026:10:00:00 +0000] \"GET /v2/b HTTP/1.1\" 404 19 \"\" \"curl\"\n";
        assert_eq!(count(text), Traffic { requests: 3, bytes: 531 });
    }
}
