//! `push`: hands a manifest to a host, and waits until the host is what it says.
//!
//! The host tries again by itself what failed, so a failure while waiting is told and not the end.

use std::time::{Duration, Instant};

use bennu_api::{Accepted, Activity, History, Status, Submission};
use bennu_manifests::model::Digest;
use bennu_manifests::{MAX_DOCUMENT, MAX_SIGNATURE_FILE};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

use crate::bundle;
use crate::cli::Push;
use crate::client::{Host, NoAnswer};
use crate::exit::{Code, Failure, Outcome};
use crate::files;
use crate::host::activity;
use crate::render::{Out, interactive, printable, progress};

/// How often the host is asked how far it is.
const POLL: Duration = Duration::from_millis(300);

/// How it ended.
#[derive(Debug, Serialize)]
struct Pushed {
    generation: u64,
    manifest: Digest,
    /// Whether the host had accepted the same bytes before.
    unchanged: bool,
    /// Whether the host is what the manifest says; absent where nobody waited for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    converged: Option<bool>,
    /// How long that took, from the moment it was accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    milliseconds: Option<u128>,
}

/// Pushes.
pub(crate) async fn run(host: &Host, args: &Push, out: &mut Out) -> Outcome {
    let accepted = if args.bundle { bundle(host, args).await? } else { manifest(host, args).await? };
    let since = Instant::now();
    let mut pushed = Pushed {
        generation: accepted.generation,
        manifest: accepted.manifest,
        unchanged: accepted.unchanged,
        converged: None,
        milliseconds: None,
    };
    if args.wait {
        wait(host, accepted.generation, since, Duration::from_secs(args.timeout)).await?;
        pushed.converged = Some(true);
        pushed.milliseconds = Some(since.elapsed().as_millis());
    }
    out.result(&pushed, |p| {
        let before = if p.unchanged { " (it was accepted before)" } else { "" };
        match p.milliseconds {
            Some(ms) => format!(
                "generation {} converged after {}.{} s{before}\n",
                p.generation,
                ms / 1000,
                ms / 100 % 10
            ),
            None => format!("generation {} accepted{before}\n", p.generation),
        }
    })?;
    Ok(0)
}

/// Hands a manifest over.
async fn manifest(host: &Host, args: &Push) -> Result<Accepted, Failure> {
    let file = args.file.as_path();
    let manifest = files::read_text(file, MAX_DOCUMENT)?;
    let sig = files::sig_path(file);
    if !sig.exists() {
        let what = format!("{} is not signed: there is no {}", file.display(), sig.display());
        let advice = format!("hostctl sign --key KEY {}", file.display());
        return Err(Failure::refused("sig.missing", what).advice(advice));
    }
    let signatures = files::read_text(&sig, MAX_SIGNATURE_FILE)?;
    let submission = Submission { manifest, signatures, require_plan: args.require_plan };
    Ok(host.post("/v1/manifest", &submission).await?)
}

/// Hands a bundle over, of which the manifest is looked at here first: what is none is not sent.
async fn bundle(host: &Host, args: &Push) -> Result<Accepted, Failure> {
    bundle::manifest_of(&bundle::opened(&args.file)?, &args.file)?;
    let required = args.require_plan.map(|plan| format!("?require_plan={plan}")).unwrap_or_default();
    host.post_file(&format!("/v1/bundle{required}"), &args.file).await
}

/// Asks until the host is what `generation` says; the error at the end of `timeout` carries the host's last reason.
async fn wait(host: &Host, generation: u64, since: Instant, timeout: Duration) -> Result<(), Failure> {
    let mut display = Display::new();
    loop {
        let lost = match host.get::<Status>("/v1/status").await {
            Ok(status) => match far(&status, generation) {
                Far::There => {
                    display.end();
                    return Ok(());
                }
                Far::Overtaken(by) => {
                    display.end();
                    return Err(Failure::failed(format!(
                        "generation {generation} was not waited for to its end"
                    ))
                    .because(format!("generation {by} was accepted after it")));
                }
                Far::GivenUp => {
                    display.end();
                    return Err(given_up(host, &status, generation).await);
                }
                Far::OnTheWay => {
                    display.show(&status);
                    None
                }
            },
            // The host may be restarting.
            Err(NoAnswer::Lost(failure)) => Some(failure.to_string()),
            Err(NoAnswer::Refused(failure)) => return Err(failure),
        };
        if let Some(lost) = lost {
            display.reason(&lost);
        }
        if since.elapsed() >= timeout {
            display.end();
            let late = Failure::new(
                Code::Waiting,
                format!("generation {generation} has not converged within {} s", timeout.as_secs()),
            );
            let late = match display.why() {
                Some(why) => late.because(why),
                None => late,
            };
            return Err(late.advice(
                "the host goes on by itself: `hostctl status` and `hostctl events` tell how far it is",
            ));
        }
        tokio::time::sleep(POLL.min(timeout.saturating_sub(since.elapsed()))).await;
    }
}

/// Why a host is not on its way to a generation any more: it was tried and taken back, or was not to be tried by now.
async fn given_up(host: &Host, status: &Status, generation: u64) -> Failure {
    if let Some(known) = status.update.rejected.iter().find(|known| known.generation == generation) {
        let why = printable(&known.why);
        return Failure::failed(format!("generation {generation} was tried and taken back")).because(why);
    }
    let failure = Failure::new(Code::Refused, format!("generation {generation} was given up"));
    let Ok(history) = host.get::<History>("/v1/history").await else { return failure };
    let entry = history.entries.into_iter().find(|entry| entry.generation.number == generation);
    match entry.and_then(|entry| entry.failure) {
        Some(why) => failure.because(printable(&why)),
        None => failure,
    }
}

/// How far a host is on its way to a generation.
#[derive(Debug, PartialEq, Eq)]
enum Far {
    OnTheWay,
    There,
    Overtaken(u64),
    GivenUp,
}

fn far(status: &Status, generation: u64) -> Far {
    let newest = status.pending.iter().chain(&status.generation).map(|g| g.number).max();
    match newest {
        Some(newest) if newest > generation => Far::Overtaken(newest),
        _ if status.converged && status.generation.as_ref().is_some_and(|g| g.number == generation) => {
            Far::There
        }
        // What was accepted is pending until it is active, or is pending no more.
        _ if newest.is_none_or(|newest| newest < generation) => Far::GivenUp,
        _ => Far::OnTheWay,
    }
}

/// Progress on standard error: a bar on a terminal, elsewhere a line when something is worth one.
struct Display {
    bar: Option<ProgressBar>,
    last: Option<(String, u64)>,
    reason: Option<String>,
    doing: Option<String>,
}

impl Display {
    fn new() -> Self {
        let bar = interactive().then(|| {
            let bar = ProgressBar::new(0);
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        });
        Self { bar, last: None, reason: None, doing: None }
    }

    fn show(&mut self, status: &Status) {
        if let Some(reason) = &status.failure {
            self.reason(reason);
        } else {
            self.reason = None;
        }
        let doing = activity(&status.activity);
        self.doing = Some(doing.clone());
        match &self.bar {
            Some(bar) => draw(bar, &status.activity),
            None => {
                let mark = mark(&status.activity);
                if self.last != mark {
                    if mark.is_some() {
                        progress(&printable(&doing));
                    }
                    self.last = mark;
                }
            }
        }
    }

    /// Why it does not get on, told when it changes.
    fn reason(&mut self, reason: &str) {
        if self.reason.as_deref() == Some(reason) {
            return;
        }
        let line = format!("not yet: {}", printable(reason));
        match &self.bar {
            Some(bar) => bar.println(line),
            None => progress(&line),
        }
        self.reason = Some(reason.to_owned());
    }

    /// The last that is known of why it takes so long.
    fn why(&self) -> Option<String> {
        self.reason.clone().or_else(|| self.doing.as_ref().map(|doing| format!("the host is doing {doing}")))
    }

    fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// What a line is written for: another image or step, or a quarter of an image.
fn mark(activity: &Activity) -> Option<(String, u64)> {
    match activity {
        Activity::Idle => None,
        Activity::Fetching { image, number, done, total, .. } => {
            let quarter = if *total == 0 { 0 } else { done.saturating_mul(4) / total };
            Some((format!("{number} {image}"), quarter))
        }
        Activity::Applying { step, number, .. } => Some((format!("{number} {step}"), 0)),
    }
}

fn draw(bar: &ProgressBar, activity: &Activity) {
    const BYTES: &str = "{spinner} {msg} {wide_bar} {bytes}/{total_bytes}";
    const SPINNER: &str = "{spinner} {msg}";
    let style =
        |template: &str| ProgressStyle::with_template(template).expect("the templates above are well formed");
    match activity {
        Activity::Fetching { image, number, of, done, total } if *total > 0 => {
            bar.set_style(style(BYTES));
            bar.set_length(*total);
            bar.set_position(*done);
            bar.set_message(printable(&format!("fetching {number}/{of} {image}")));
        }
        other => {
            bar.set_style(style(SPINNER));
            bar.set_message(printable(&crate::host::activity(other)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(active: Option<u64>, pending: Option<u64>, converged: bool) -> Status {
        let generation = |number: u64| {
            serde_json::json!({
                "number": number, "name": "demo", "serial": number, "expires": "2030-01-01T00:00:00Z",
                "manifest": format!("sha256:{}", "0".repeat(64)),
            })
        };
        let status = serde_json::json!({
            "host": "a", "version": "1", "os": { "version": "1", "root": null, "kernel": "6" },
            "generation": active.map(generation), "pending": pending.map(generation),
            "converged": converged, "stale": false, "activity": { "phase": "idle" },
            "failure": null, "retry_at": null, "verified_reads": true,
        });
        serde_json::from_value(status).expect("it is a status")
    }

    #[test]
    fn a_host_is_there_only_when_this_generation_is_active_and_converged() {
        assert_eq!(far(&status(Some(3), None, true), 3), Far::There);
        assert_eq!(far(&status(Some(3), None, false), 3), Far::OnTheWay);
        assert_eq!(far(&status(Some(2), Some(3), true), 3), Far::OnTheWay);
        assert_eq!(far(&status(None, Some(3), false), 3), Far::OnTheWay);
        assert_eq!(far(&status(Some(4), None, true), 3), Far::Overtaken(4));
        assert_eq!(far(&status(Some(3), Some(4), false), 3), Far::Overtaken(4));
        assert_eq!(far(&status(Some(3), None, true), 4), Far::GivenUp);
        assert_eq!(far(&status(None, None, false), 1), Far::GivenUp);
    }

    #[test]
    fn a_line_is_written_for_each_image_quarter_and_step() {
        let fetching =
            |number, done| Activity::Fetching { image: "a".into(), number, of: 2, done, total: 100 };
        assert_eq!(mark(&fetching(1, 0)), mark(&fetching(1, 24)));
        assert_ne!(mark(&fetching(1, 24)), mark(&fetching(1, 25)));
        assert_ne!(mark(&fetching(1, 0)), mark(&fetching(2, 0)));
        assert_eq!(mark(&Activity::Idle), None);
    }
}
