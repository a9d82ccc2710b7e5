//! The loop of one receiver: reads, sends, and waits where it has to.

use std::time::Duration;

use bennu_api::LogLine;
use futures_util::StreamExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use tokio::time::{Instant, sleep_until};

use super::place::Place;
use super::queue::Queue;
use super::send::{SendError, Sender};
use super::{Told, lock};
use crate::core::chain;
use crate::host::{Entry, LogsError, LogsFrom};

/// The most lines and bytes that are sent at once.
const BATCH_LINES: usize = 500;
const BATCH_BYTES: usize = 512 << 10;

/// The first pause after a failure; it doubles with each further one.
const PAUSE_FIRST: Duration = Duration::from_secs(1);

/// The longest pause between two attempts.
const PAUSE_LAST: Duration = Duration::from_secs(60);

/// How long a journal that ended is left alone.
const REOPEN: Duration = Duration::from_secs(1);

/// How often a journal may end without a single line before its cursor is no longer believed.
const BARREN: u32 = 3;

/// How often it is written down what was delivered.
const SAVE: Duration = Duration::from_secs(5);

/// What a receiver's loop works with.
#[derive(Debug)]
pub(super) struct Work {
    pub(super) sender: Sender,
    pub(super) queue: Queue,
    pub(super) place: Place,
    pub(super) told: Told,
}

type Entries = BoxStream<'static, Entry>;

/// How a batch went, with all that it took.
type Sent = (Sender, Vec<Entry>, Result<u64, SendError>);

/// Delivers what is written, for as long as it is polled. `open` reads the journal from somewhere on; `tell` is told why
/// lines are not taken, or that they are.
pub(super) async fn deliver(
    work: Work,
    open: impl Fn(&LogsFrom) -> Result<Entries, LogsError>,
    tell: impl Fn(Option<String>),
) {
    let Work { sender, mut queue, mut place, told } = work;
    let mut reading = Reading { from: place.from(), entries: None, again: Instant::now(), barren: 0 };
    let (mut sender, mut sending) = (Some(sender), None::<BoxFuture<'static, Sent>>);
    let (mut failures, mut not_before, mut save_at) = (0u32, None::<Instant>, None::<Instant>);
    loop {
        if not_before.is_none()
            && !queue.is_empty()
            && let Some(sender) = sender.take()
        {
            sending = Some(Box::pin(send(sender, queue.take(BATCH_LINES, BATCH_BYTES))));
        }
        lock(&told).waiting = queue.bytes() as u64;
        let away = failures > 0;
        tokio::select! {
            entry = next(&mut reading.entries), if reading.entries.is_some() && (away || queue.has_room()) => {
                if let Some(entry) = reading.read(entry, &place) {
                    lock(&told).dropped += queue.push(entry);
                }
            }
            () = sleep_until(reading.again), if reading.entries.is_none() => {
                reading.again = Instant::now() + REOPEN;
                match open(&reading.from) {
                    Ok(entries) => reading.entries = Some(entries),
                    Err(error) => tell(Some(chain(&error))),
                }
            }
            (back, batch, sent) = ended(&mut sending), if sending.is_some() => {
                (sender, sending) = (Some(back), None);
                let lost = match sent {
                    Ok(lost) => {
                        failures = 0;
                        tell(None);
                        lost
                    }
                    // It would never be taken: better one batch is missing than all that comes after it.
                    Err(error @ SendError::Refused { .. }) => {
                        tell(Some(chain(&error)));
                        batch.len() as u64
                    }
                    Err(error) => {
                        tell(Some(chain(&error)));
                        let asked = if let SendError::Later { after, .. } = &error { *after } else { None };
                        not_before = Some(Instant::now() + asked.unwrap_or_else(|| pause(failures, random())));
                        failures = failures.saturating_add(1);
                        lock(&told).dropped += queue.put_back(batch);
                        continue;
                    }
                };
                let mut told = lock(&told);
                told.dropped += lost;
                told.sent += (batch.len() as u64).saturating_sub(lost);
                if let Some(last) = batch.last() {
                    place.delivered(last);
                    save_at.get_or_insert_with(|| Instant::now() + SAVE);
                }
            }
            () = at(not_before), if not_before.is_some() => not_before = None,
            () = at(save_at), if save_at.is_some() => {
                save_at = None;
                place.save();
            }
        }
    }
}

/// Where in the journal it is.
struct Reading {
    from: LogsFrom,
    entries: Option<Entries>,
    /// When a journal that ended is opened again.
    again: Instant,
    /// How often it ended without a line.
    barren: u32,
}

impl Reading {
    /// Notes what was read; the end of the journal's stream means that its reader died.
    fn read(&mut self, entry: Option<Entry>, place: &Place) -> Option<Entry> {
        let Some(entry) = entry else {
            self.entries = None;
            self.barren += 1;
            if self.barren >= BARREN && matches!(self.from, LogsFrom::Cursor(_)) {
                self.from = place.moment();
            }
            return None;
        };
        self.barren = 0;
        if !entry.cursor.is_empty() {
            self.from = LogsFrom::Cursor(entry.cursor.clone());
        }
        Some(entry)
    }
}

async fn next(entries: &mut Option<Entries>) -> Option<Entry> {
    entries.as_mut()?.next().await
}

async fn send(mut sender: Sender, batch: Vec<Entry>) -> Sent {
    let lines: Vec<&LogLine> = batch.iter().map(|entry| &entry.line).collect();
    let sent = sender.send(&lines).await;
    drop(lines);
    (sender, batch, sent)
}

async fn ended(sending: &mut Option<BoxFuture<'static, Sent>>) -> Sent {
    match sending {
        Some(sending) => sending.await,
        None => std::future::pending().await,
    }
}

async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}

/// Between half of the pause that is due and the whole of it, so that many hosts do not come back at once.
fn pause(failures: u32, random: u64) -> Duration {
    let whole = PAUSE_FIRST.saturating_mul(1 << failures.min(16)).min(PAUSE_LAST);
    let half = whole / 2;
    half + half.mul_f64((random % 1000) as f64 / 1000.0)
}

/// Random enough for a pause: the keys of the standard library's hash maps are.
fn random() -> u64 {
    use std::hash::{BuildHasher as _, RandomState};
    RandomState::new().hash_one(0_u8)
}

#[cfg(test)]
mod tests;
