//! Behind which line reading goes on, on disk.

use std::io;
use std::path::{Path, PathBuf};

use bennu_image_store::durable;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::host::{Entry, LogsFrom};

/// The largest file, in bytes; far above what is written.
const MAX: usize = 64 << 10;

/// What is remembered for one receiver.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    at: Remembered,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    /// The journal's cursor of the last line that was delivered; none before the first.
    cursor: Option<String>,
    /// When that line was written, or when the receiver was first declared.
    time: Timestamp,
}

impl Place {
    /// What is remembered; where nothing is, or it can't be read, it begins now, which is written down.
    pub(super) fn open(path: PathBuf) -> Self {
        let read = std::fs::read(&path).ok().filter(|bytes| bytes.len() <= MAX);
        let at = read.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        let is_new = at.is_none();
        let at = at.unwrap_or_else(|| Remembered { cursor: None, time: Timestamp::now() });
        let place = Self { path, at };
        if is_new {
            place.save();
        }
        place
    }

    /// Forgets it.
    pub(super) fn forget(path: &Path) {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(%error, path = %path.display(), "forget what was forwarded");
            }
            _ => {}
        }
    }

    /// Where reading begins.
    pub(super) fn from(&self) -> LogsFrom {
        match &self.at.cursor {
            Some(cursor) => LogsFrom::Cursor(cursor.clone()),
            None => self.moment(),
        }
    }

    /// The same by the clock, for a journal that does not take the cursor.
    pub(super) fn moment(&self) -> LogsFrom {
        LogsFrom::Moment(self.at.time)
    }

    /// A line was delivered, and all before it.
    pub(super) fn delivered(&mut self, entry: &Entry) {
        let cursor = Some(entry.cursor.clone()).filter(|cursor| !cursor.is_empty());
        self.at = Remembered { cursor, time: entry.line.time };
    }

    /// Writes it down. Where that fails, lines may come twice after a restart, which is all.
    pub(super) fn save(&self) {
        let save = || {
            let dir = self.path.parent().ok_or(io::ErrorKind::InvalidInput)?;
            std::fs::create_dir_all(dir)?;
            durable::replace(&self.path, &serde_json::to_vec(&self.at)?)
        };
        if let Err(error) = save() {
            tracing::warn!(%error, path = %self.path.display(), "write down what was forwarded");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tests::line;

    #[test]
    fn reading_goes_on_behind_what_was_delivered_and_begins_with_the_declaration() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("forward/central.json");
        let first = Place::open(path.clone());
        let LogsFrom::Moment(declared) = first.from() else { panic!("{:?}", first.from()) };
        drop(first);
        let mut again = Place::open(path.clone());
        assert_eq!(again.from(), LogsFrom::Moment(declared), "what was written meanwhile is not lost");
        again.delivered(&Entry { cursor: "s=1".into(), line: line("x") });
        again.save();
        let later = Place::open(path.clone());
        assert_eq!(later.from(), LogsFrom::Cursor("s=1".into()));
        assert_eq!(later.moment(), LogsFrom::Moment(line("x").time));
        std::fs::write(&path, b"{").unwrap();
        assert!(matches!(Place::open(path.clone()).from(), LogsFrom::Moment(now) if now >= declared));
        Place::forget(&path);
        Place::forget(&path);
        assert!(!path.exists());
    }
}
