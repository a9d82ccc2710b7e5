//! `scrub`: every block is read; what is bad is mended, fetched again or put aside.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use bennu_image_store::registry::document::Platform;
use bennu_image_store::{BadBlob, Damage, Pace, Pass, Repair, Store as ImageStore, Watch};
use bennu_manifests::model::Digest;
use serde::Serialize;

use crate::exit::{Code, Failure, Outcome};
use crate::reach::Reach;
use crate::render::{Out, bytes, counted, progress};

use super::args::Scrub;
use super::fetch::not_pulled;
use super::progress::Display;
use super::{failed, parsed, pinned};

/// How often it is said how far a scrub is.
const BETWEEN_LINES: Duration = Duration::from_secs(10);

#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Report {
    /// Whether every blob that was read is, or is now, what its name says.
    sound: bool,
    /// Whether all blobs were read.
    complete: bool,
    /// Whether an earlier scrub was gone on with.
    resumed: bool,
    pass: Pass,
    bad: Vec<BadBlob>,
    repaired: Vec<Repaired>,
}

/// What became of a bad blob.
#[derive(Debug, Serialize)]
#[serde(rename_all = "kebab-case")]
struct Repaired {
    blob: Digest,
    repair: Repair,
    /// Whether it is there again, from where `--from` says.
    fetched: bool,
}

impl Repaired {
    fn is_good(&self) -> bool {
        self.fetched || matches!(self.repair, Repair::Sound | Repair::Mended { .. })
    }
}

pub(super) async fn scrub(store: &ImageStore, args: &Scrub, out: &mut Out) -> Outcome {
    let stop = Arc::new(AtomicBool::new(false));
    let (reading, stopped, restart) = (store.clone(), stop.clone(), args.restart);
    let mut watch = Paced::new(args.rate, stopped);
    let scrub = tokio::task::spawn_blocking(move || reading.scrub_on(restart, &mut watch));
    tokio::pin!(scrub);
    let scrubbed = tokio::select! {
        scrubbed = &mut scrub => scrubbed,
        _ = tokio::signal::ctrl_c() => {
            stop.store(true, Ordering::Relaxed);
            scrub.await
        }
    };
    let scrubbed =
        scrubbed.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic())).map_err(failed)?;

    let mut repaired = Vec::new();
    if args.repair {
        for bad in &scrubbed.bad {
            let repair = store.repair(&bad.blob).map_err(failed)?;
            repaired.push(Repaired { blob: bad.blob, repair, fetched: false });
        }
        if repaired.iter().any(|repaired| !repaired.is_good()) {
            for reference in &args.from {
                fetch(store, reference, &args.reach, out.json()).await?;
            }
            for repaired in repaired.iter_mut().filter(|repaired| !repaired.is_good()) {
                let aside = matches!(repaired.repair, Repair::Quarantined { .. });
                repaired.fetched = aside && store.blob_path(&repaired.blob).exists();
            }
        }
    }
    let sound = if args.repair { repaired.iter().all(Repaired::is_good) } else { scrubbed.bad.is_empty() };
    let (complete, resumed, pass) = (scrubbed.complete, scrubbed.resumed, scrubbed.pass);
    let report = Report { sound, complete, resumed, pass, bad: scrubbed.bad, repaired };
    out.result(&report, text)?;
    let code = match () {
        () if !report.sound => Code::Failed,
        () if !report.complete => Code::Waiting,
        () => Code::Done,
    };
    Ok(code.number())
}

/// Pulls an image again: what the store has of it is not fetched.
async fn fetch(store: &ImageStore, reference: &str, reach: &Reach, json: bool) -> Result<(), Failure> {
    let wanted = parsed(reference)?;
    let client = reach.client(&wanted.registry).await?;
    let image = pinned(&client, wanted).await?;
    let display = Display::new(image.to_string(), json);
    let pulled = store.pull(&client, &image, &Platform::host(), &display).await;
    display.end();
    pulled.map(drop).map_err(not_pulled)
}

fn text(report: &Report) -> String {
    let mut text = String::new();
    for bad in &report.bad {
        let damage = match &bad.damage {
            Damage::Blocks { blocks } => format!("{} bad", counted(blocks.len(), "block")),
            Damage::Leaves => "bad leaves".to_owned(),
            Damage::Unreadable { error } => format!("cannot be opened, {error}"),
            _ => "lost".to_owned(),
        };
        let repaired = report.repaired.iter().find(|repaired| repaired.blob == bad.blob);
        let after = match repaired {
            None => damage,
            Some(Repaired { fetched: true, .. }) => format!("{damage}; fetched again"),
            Some(Repaired { repair: Repair::Quarantined { images }, .. }) => {
                let images: String =
                    images.iter().map(|image| format!("  needed by image {image}\n")).collect();
                text.push_str(&format!("{damage}; put aside, pull the image again: {}\n{images}", bad.blob));
                continue;
            }
            Some(Repaired { repair: Repair::Kept, .. }) => {
                format!("{damage}; it stays, for no image could bring it back")
            }
            Some(Repaired { repair: Repair::Sound, .. }) => format!("{damage}; read again, it is sound"),
            Some(_) => format!("{damage}; mended, what has it mounted must be started anew"),
        };
        text.push_str(&format!("{after}: {}\n", bad.blob));
    }
    if !report.complete {
        let Pass { blobs, of_blobs, .. } = report.pass;
        text.push_str(&format!(
            "stopped after {blobs} of {of_blobs} blobs; the next scrub goes on from there\n"
        ));
    } else if report.bad.is_empty() {
        text.push_str("every blob is what its name says\n");
    }
    text
}

/// Reads no faster than it may, says how far it is, and stops when it is told to.
struct Paced {
    pace: Pace,
    spoken: Instant,
    stop: Arc<AtomicBool>,
}

impl Paced {
    fn new(rate: u64, stop: Arc<AtomicBool>) -> Self {
        Self { pace: Pace::new(rate), spoken: Instant::now(), stop }
    }
}

impl Watch for Paced {
    fn pace(&mut self, bytes: usize) -> ControlFlow<()> {
        if self.stop.load(Ordering::Relaxed) {
            return ControlFlow::Break(());
        }
        std::thread::sleep(self.pace.ask(bytes));
        ControlFlow::Continue(())
    }

    fn checked(&mut self, pass: Pass) {
        if self.spoken.elapsed() >= BETWEEN_LINES {
            self.spoken = Instant::now();
            progress(&format!("{} of {} blobs, {} read", pass.blobs, pass.of_blobs, bytes(pass.bytes)));
        }
    }
}
