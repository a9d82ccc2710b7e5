//! Reading every block of every blob, and the boot images, in the background: slowly, once in thirty days, on from where it was after a restart.
//!
//! ```text
//!  due? ──► a thread reads ──bad blob──► mend it from other blobs, or put it aside ──► event, status
//!                                         the reconciler fetches what the active generation lacks
//! ```

use std::ops::ControlFlow;
use std::path::Path;
use std::time::Duration;

use bennu_api::Happening;
use bennu_image_store::{BadBlob, Damage, Pace, Pass, Repair, Scrubbed, Store, StoreError, Watch, durable};
use bennu_manifests::model::Digest;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use crate::core::{Core, chain};
use crate::update::mend_boot_images;

/// How long after one pass the next begins: what memory of a failing disk is worth, against what reading it costs.
const PERIOD: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Bytes that are read in a second: 100 GB in three and a half hours, and a disk hardly notices.
const RATE: u64 = 8 << 20;
/// How long a host has to itself after `hostd` started or a pass failed.
const PAUSE: Duration = Duration::from_secs(600);
/// The longest sleep: clocks are set, and machines sleep.
const LONGEST_SLEEP: Duration = Duration::from_secs(3600);

/// `state/scrubbed.json`
#[derive(Debug, Serialize, Deserialize)]
struct Completed {
    /// When the last pass was at its end.
    completed: Timestamp,
}

/// Runs for as long as the daemon does; `file` remembers when the last pass was complete.
pub async fn run(core: &Core, file: &Path) {
    let mut completed = read(file);
    core.now().scrub.completed = completed;
    tokio::time::sleep(PAUSE).await;
    loop {
        let wait = wait(completed, core.store.is_scrub_under_way(), Timestamp::now());
        if !wait.is_zero() {
            tokio::time::sleep(wait.min(LONGEST_SLEEP)).await;
            continue;
        }
        match pass(core).await {
            Ok(scrubbed) if scrubbed.complete => {
                let now = Timestamp::now();
                completed = Some(now);
                core.now().scrub.completed = completed;
                core.events.add(Happening::Scrubbed { bad: scrubbed.bad.len() as u64 });
                if let Err(error) = mend_boot_images(core).await {
                    tracing::error!(error = chain(&error), "look for damaged boot images");
                }
                let bytes =
                    serde_json::to_vec(&Completed { completed: now }).expect("it has one plain member");
                if let Err(error) = durable::replace(file, &bytes) {
                    tracing::error!(error = chain(&error), "write down when all blobs were read");
                }
            }
            Ok(_) => {}
            // Somebody scrubs by hand, or the disk fails.
            Err(error) => {
                tracing::warn!(error = chain(&error), "read all blobs");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// How long to wait for the next pass. One that was not completed goes on at once; a time that lies ahead is not believed.
fn wait(completed: Option<Timestamp>, under_way: bool, now: Timestamp) -> Duration {
    let Some(completed) = completed.filter(|completed| !under_way && *completed <= now) else {
        return Duration::ZERO;
    };
    let left = PERIOD - now.duration_since(completed);
    Duration::try_from(left).unwrap_or(Duration::ZERO)
}

/// What cannot be read is as good as never written: then all blobs are read once more.
fn read(file: &Path) -> Option<Timestamp> {
    let bytes = std::fs::read(file).ok()?;
    serde_json::from_slice(&bytes).ok().map(|Completed { completed }| completed)
}

async fn pass(core: &Core) -> Result<Scrubbed, StoreError> {
    let (bad, mut found) = mpsc::unbounded_channel();
    let store = core.store.clone();
    core.now().scrub.bad.clear();
    // A thread of its own: it sleeps most of the time, and the few that the daemon shares must not wait for it.
    let reading = std::thread::spawn(move || store.scrub_on(false, &mut Slow { pace: Pace::new(RATE), bad }));
    while let Some(bad) = found.recv().await {
        repair(core, &bad).await;
    }
    reading.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

async fn repair(core: &Core, bad: &BadBlob) {
    let (store, blob) = (core.store.clone(), bad.blob);
    let repair = move || store.repair(&blob);
    let outcome = match tokio::task::spawn_blocking(repair).await {
        Ok(Ok(repair)) => repair,
        Ok(Err(error)) => return note(core, bad, format!("it was not repaired: {}", chain(&error)), true),
        Err(error) => return note(core, bad, format!("it was not repaired: {error}"), true),
    };
    let (said, stays_bad) = match outcome {
        Repair::Sound => ("read again, it is sound".to_owned(), false),
        Repair::Mended { blocks } => (
            format!(
                "mended, {blocks} blocks; what has it mounted reads the old ones until it is started anew"
            ),
            false,
        ),
        Repair::Quarantined { images } => (
            format!("put aside; {} images need it, and what is declared is fetched again", images.len()),
            true,
        ),
        _ => ("it stays, for nothing could bring it back".to_owned(), true),
    };
    note(core, bad, said, stays_bad);
}

fn note(core: &Core, bad: &BadBlob, outcome: String, stays_bad: bool) {
    let damage = match &bad.damage {
        Damage::Blocks { blocks } => format!("{} bad blocks", blocks.len()),
        Damage::Leaves => "bad leaves".to_owned(),
        Damage::Unreadable { error } => format!("cannot be opened, {error}"),
        _ => "lost".to_owned(),
    };
    if stays_bad {
        core.now().scrub.bad.push(bad.blob);
    }
    core.events.add(Happening::BadBlob { blob: bad.blob, damage, outcome });
}

/// Blobs of which the last pass said that they stay bad, but for those that were put aside and came again since.
pub fn still_bad(store: &Store, bad: &[Digest]) -> Vec<Digest> {
    let aside = store.quarantined().unwrap_or_default();
    let back = |blob: &Digest| aside.contains(blob) && store.blob_path(blob).exists();
    bad.iter().filter(|blob| !back(blob)).copied().collect()
}

/// Reads no faster than it may, and tells at once what is bad.
struct Slow {
    pace: Pace,
    bad: mpsc::UnboundedSender<BadBlob>,
}

impl Watch for Slow {
    fn pace(&mut self, bytes: usize) -> ControlFlow<()> {
        std::thread::sleep(self.pace.ask(bytes));
        ControlFlow::Continue(())
    }

    fn found(&mut self, bad: &BadBlob) {
        // The daemon is about to end where nobody listens.
        let _ = self.bad.send(bad.clone());
    }

    fn checked(&mut self, _: Pass) {}
}

#[cfg(test)]
mod tests {
    use bennu_image_store::Confinement;

    use super::*;

    #[test]
    fn a_pass_begins_thirty_days_after_the_last_and_one_that_broke_off_goes_on_at_once() {
        let now: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
        let ago = |hours| Some(now - SignedDuration::from_hours(hours));
        let hours = |hours: u64| Duration::from_secs(hours * 3600);
        assert_eq!(wait(None, false, now), Duration::ZERO);
        assert_eq!(wait(ago(0), false, now), hours(720));
        assert_eq!(wait(ago(719), false, now), hours(1));
        assert_eq!(wait(ago(720), false, now), Duration::ZERO);
        assert_eq!(wait(ago(100_000), false, now), Duration::ZERO);
        assert_eq!(wait(ago(1), true, now), Duration::ZERO);
        assert_eq!(wait(ago(-5), false, now), Duration::ZERO, "the clock was wrong then");
    }

    #[test]
    fn the_time_of_the_last_pass_is_remembered_and_nonsense_is_none() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("scrubbed.json");
        assert_eq!(read(&file), None);
        let completed: Timestamp = "2026-03-01T00:00:00Z".parse().expect("a time");
        std::fs::write(&file, serde_json::to_vec(&Completed { completed }).expect("plain")).expect("written");
        assert_eq!(read(&file), Some(completed));
        std::fs::write(&file, "{\"completed\": 7").expect("written");
        assert_eq!(read(&file), None);
    }

    #[test]
    fn a_blob_that_came_again_is_not_bad_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Confinement::None).expect("a store");
        let (back, gone, kept) =
            (Digest::from_bytes([1; 32]), Digest::from_bytes([2; 32]), Digest::from_bytes([3; 32]));
        std::fs::create_dir(dir.path().join("quarantine")).expect("made");
        for (directory, blob) in
            [("quarantine", back), ("quarantine", gone), ("blobs/sha256", back), ("blobs/sha256", kept)]
        {
            std::fs::write(dir.path().join(directory).join(blob.hex()), "x").expect("written");
        }
        assert_eq!(still_bad(&store, &[back, gone, kept]), [gone, kept]);
    }
}
