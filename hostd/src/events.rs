//! What happened lately, in order, for those who ask and those who wait.
//!
//! The newest events are in memory and in one file on a file system that a boot empties, so a restart of the daemon loses
//! none. Who asks for what comes behind a cursor and can't have all of it gets an event that says so, first.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use bennu_api::{Cursor, Event, Happening};
use jiff::Timestamp;
use tokio::sync::watch;

/// How many events are kept; older ones are forgotten.
const KEPT: usize = 1024;

/// The most bytes of all that are kept, as they are in the file: some tell of a whole step of a plan.
const MAX_BYTES: usize = 4 << 20;

/// The events of this boot.
#[derive(Debug)]
pub struct Events {
    /// What this boot is called in cursors.
    boot: String,
    kept: Mutex<Kept>,
    newest: watch::Sender<u64>,
}

/// What is kept, and where.
#[derive(Debug, Default)]
struct Kept {
    events: VecDeque<Event>,
    /// Their sizes in the file, in the same order.
    sizes: VecDeque<usize>,
    bytes: usize,
    file: Option<PathBuf>,
    /// Open for what comes; `None` where it can't be written.
    open: Option<File>,
    /// Bytes in the file, those of forgotten events among them.
    written: usize,
}

impl Events {
    /// Those that the file at `path` holds, where it is of the boot with this id, and what will be added. Where the file
    /// can't be read or written, events live in memory alone.
    pub fn open(path: &Path, boot_id: &str) -> Self {
        let boot = Cursor::boot(boot_id);
        let mut kept = Kept { file: Some(path.to_owned()), ..Kept::default() };
        kept.read(&boot);
        let newest = kept.events.back().map_or(0, |event| event.cursor.number);
        if let Err(error) = kept.rewrite() {
            tracing::warn!(%error, path = %path.display(), "keep events over a restart");
        }
        Self { boot, kept: Mutex::new(kept), newest: watch::Sender::new(newest) }
    }

    /// Adds one, and wakes those who wait.
    pub fn add(&self, what: Happening) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let number = *self.newest.borrow() + 1;
        tracing::info!(event = ?what, "event");
        let cursor = Cursor { boot: self.boot.clone(), number };
        if let Err(error) = kept.add(Event { cursor, time: Timestamp::now(), what }) {
            tracing::warn!(%error, "keep an event over a restart");
        }
        // Sent under the lock: who is woken by a number finds its event.
        self.newest.send_replace(number);
    }

    /// Those behind a cursor (`None`: all that are kept), oldest first. Where some of them are not kept any more, the first
    /// one says so.
    pub fn after(&self, cursor: Option<&Cursor>) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let newest = *self.newest.borrow();
        let Some(cursor) = cursor else { return kept.events.iter().cloned().collect() };
        let oldest = kept.events.front().map_or(newest + 1, |event| event.cursor.number);
        let (behind, gap) = resume(cursor, &self.boot, oldest, newest);
        let gap = gap.map(|missed| Event {
            // So that who goes on behind it gets what comes next.
            cursor: Cursor { boot: self.boot.clone(), number: oldest - 1 },
            time: kept.events.front().map_or_else(Timestamp::now, |event| event.time),
            what: Happening::Gap { missed },
        });
        let events = kept.events.iter().filter(|event| event.cursor.number > behind).cloned();
        gap.into_iter().chain(events).collect()
    }

    /// A receiver that changes with each new event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

/// Behind which number it goes on, and whether something is missing in between: how many events, where that is known.
fn resume(cursor: &Cursor, boot: &str, oldest: u64, newest: u64) -> (u64, Option<Option<u64>>) {
    let this_boot = cursor.boot.is_empty() || cursor.boot == boot;
    if !this_boot || cursor.number > newest {
        // Of another boot, or of events of which nothing is known any more.
        return (0, Some(None));
    }
    let missed = oldest.saturating_sub(cursor.number + 1);
    (cursor.number, (missed > 0).then_some(Some(missed)))
}

impl Kept {
    /// What the file holds of this boot, as far as it can be read.
    fn read(&mut self, boot: &str) {
        let Some(file) = self.file.as_ref().and_then(|path| File::open(path).ok()) else { return };
        for line in BufReader::new(file).lines().map_while(Result::ok) {
            // A line that was cut short, or of another release, is a gap in the numbers that its readers are told of.
            if let Ok(event) = serde_json::from_str::<Event>(&line)
                && event.cursor.boot == boot
                && self.events.back().is_none_or(|last| last.cursor.number < event.cursor.number)
            {
                self.push(event, line.len() + 1);
            }
        }
    }

    fn push(&mut self, event: Event, size: usize) {
        self.events.push_back(event);
        self.sizes.push_back(size);
        self.bytes += size;
        while self.events.len() > KEPT || (self.bytes > MAX_BYTES && self.events.len() > 1) {
            self.events.pop_front();
            self.bytes -= self.sizes.pop_front().unwrap_or(0);
        }
    }

    fn add(&mut self, event: Event) -> io::Result<()> {
        let line = line(&event)?;
        self.push(event, line.len());
        if self.file.is_none() {
            return Ok(());
        }
        // One that can't be written must not be followed by others: the file would have a hole.
        if self.open.is_none() || self.written + line.len() > 2 * MAX_BYTES {
            return self.rewrite();
        }
        self.written += line.len();
        let written = self.open.as_mut().map_or(Ok(()), |file| file.write_all(&line));
        if written.is_err() {
            self.open = None;
        }
        written
    }

    /// Writes the file anew with what is kept.
    fn rewrite(&mut self) -> io::Result<()> {
        let Some(path) = &self.file else { return Ok(()) };
        self.open = None;
        let mut lines = Vec::new();
        for event in &self.events {
            lines.extend(line(event)?);
        }
        let temporary = path.with_extension("new");
        std::fs::write(&temporary, &lines)?;
        std::fs::rename(&temporary, path)?;
        self.open = Some(OpenOptions::new().append(true).open(path)?);
        self.written = lines.len();
        Ok(())
    }
}

fn line(event: &Event) -> io::Result<Vec<u8>> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOOT: &str = "01234567-89ab-cdef-0123-456789abcdef";

    fn converged(generation: u64) -> Happening {
        Happening::Converged { generation }
    }

    fn open(dir: &tempfile::TempDir) -> Events {
        Events::open(&dir.path().join("events"), BOOT)
    }

    fn told(events: &Events, after: &str) -> Vec<(u64, Happening)> {
        let cursor = after.parse().unwrap();
        events.after(Some(&cursor)).into_iter().map(|event| (event.cursor.number, event.what)).collect()
    }

    #[test]
    fn events_come_in_order_and_resume_after_a_cursor() {
        let dir = tempfile::tempdir().unwrap();
        let events = open(&dir);
        (1..=3).for_each(|n| events.add(converged(n)));
        assert_eq!(told(&events, "01234567:1"), [(2, converged(2)), (3, converged(3))]);
        assert_eq!(told(&events, "1"), [(2, converged(2)), (3, converged(3))], "a number is of this boot");
        assert_eq!(told(&events, "01234567:3"), []);
        assert_eq!(*events.watch().borrow(), 3);
        assert_eq!(events.after(None)[0].cursor.to_string(), "01234567:1");
    }

    #[test]
    fn events_resume_after_a_restart_of_the_daemon_without_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let events = open(&dir);
        (1..=3).for_each(|n| events.add(converged(n)));
        drop(events);
        let events = open(&dir);
        events.add(converged(4));
        assert_eq!(told(&events, "01234567:2"), [(3, converged(3)), (4, converged(4))]);
    }

    #[test]
    fn a_cursor_of_another_boot_or_of_events_that_are_forgotten_is_answered_with_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let events = open(&dir);
        (0..KEPT as u64 + 5).for_each(|n| events.add(converged(n)));
        assert_eq!(events.after(None).len(), KEPT);
        let late = told(&events, "01234567:2");
        assert_eq!(late[0], (5, Happening::Gap { missed: Some(3) }));
        assert_eq!((late[1].0, late.len()), (6, KEPT + 1));
        assert_eq!(told(&events, "01234567:5")[0], (6, converged(5)), "nothing is missing behind 5");
        for lost in ["ffffffff:3", "01234567:99999"] {
            let all = told(&events, lost);
            assert_eq!(all[0], (5, Happening::Gap { missed: None }), "{lost}");
            assert_eq!(all.len(), KEPT + 1, "{lost}");
        }
    }

    #[test]
    fn events_of_an_earlier_boot_are_forgotten_and_a_damaged_file_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let events = open(&dir);
        (1..=2).for_each(|n| events.add(converged(n)));
        drop(events);
        let path = dir.path().join("events");
        let other = Events::open(&path, "ffffffff-89ab-cdef-0123-456789abcdef");
        assert_eq!(other.after(None), []);
        other.add(converged(7));
        drop(other);
        let mut bytes = std::fs::read(&path).unwrap();
        bytes.extend(b"{\"cursor\":\"ffffffff:2\",\"ti");
        std::fs::write(&path, bytes).unwrap();
        let events = Events::open(&path, "ffffffff-89ab-cdef-0123-456789abcdef");
        events.add(converged(8));
        assert_eq!(told(&events, "ffffffff:0"), [(1, converged(7)), (2, converged(8))]);
    }

    #[test]
    fn the_file_is_bounded_and_events_go_on_where_it_cannot_be_written() {
        let dir = tempfile::tempdir().unwrap();
        let events = open(&dir);
        let long = || Happening::Drift { what: "x".repeat(64 << 10) };
        (0..400).for_each(|_| events.add(long()));
        let size = std::fs::metadata(dir.path().join("events")).unwrap().len() as usize;
        assert!(size <= 2 * MAX_BYTES, "{size}");
        assert!(events.after(None).len() < 70);
        let nowhere = Events::open(&dir.path().join("none/events"), BOOT);
        nowhere.add(converged(1));
        assert_eq!(nowhere.after(None).len(), 1);
    }
}
