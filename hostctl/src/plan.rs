//! `plan`: what a manifest would do to a host, said by the host or worked out here from its dump.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use bennu_api::{Dump, ImageToFetch, Planned, Submission, ToFetch};
use bennu_manifests::model::{Digest, Name};
use bennu_manifests::{MAX_DOCUMENT, MAX_SIGNATURE_FILE};
use bennu_planner::{
    Amount, Class, Destroyed, Doomed, Interruption, Layer, Plan, Step, Survivor, Wanted, Writer, Written,
    consequences, guard, interruption, plan,
};

use crate::check::manifest;
use crate::cli;
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, bytes, counted, facts, printable};

/// The largest dump, in bytes.
const MAX_DUMP: usize = 64 << 20;

/// Plans here, from a dump.
pub(crate) fn offline(file: &Path, state: &Path, out: &mut Out) -> Outcome {
    let bytes = files::read(file, MAX_DOCUMENT)?;
    let manifest = manifest(file, &bytes)?;
    let dump: Dump = serde_json::from_slice(&files::read(state, MAX_DUMP)?).map_err(|e| {
        Failure::invalid(format!("{} is no dump of a host", state.display()))
            .because(e)
            .advice("`hostctl dump --host ADDR > FILE` makes one")
    })?;
    let dangers: Vec<String> =
        guard(&manifest, &dump.seen).iter().map(|danger| format!("{danger}")).collect();
    if !dangers.is_empty() {
        return Err(
            Failure::invalid(format!("hosts would refuse {}", file.display())).because(dangers.join("; "))
        );
    }
    let rejected =
        dump.status.rejected.iter().map(|known| (known.container.clone(), known.fingerprint)).collect();
    let due = BTreeSet::new();
    let wanted = Wanted {
        generation: dump.next_generation,
        manifest: &manifest,
        rejected: &rejected,
        due: &due,
        completed: &due,
    };
    let plan = plan(wanted, &dump.seen);
    let fetch = Some(unknown_to_fetch(&plan));
    let interruption = interruption(&plan, &dump.seen, dump.os.restarts_for(&manifest));
    let digest = plan.digest(&Digest::of(&bytes), &interruption);
    let consequences = dump.measured.map(|measured| consequences(&plan, interruption, &measured));
    // A dump without sizes is one that does not say which OS runs either.
    let digest = consequences.is_some().then_some(digest);
    show(&Planned { plan, digest, fetch, consequences }, out)
}

/// What there is to fetch, of which only its registry knows how much it is.
fn unknown_to_fetch(plan: &Plan) -> ToFetch {
    let unknown = |step: &Step| match step {
        Step::Fetch { image, .. } => {
            let unknown = Some("only its registry knows, and none is asked for a dump".to_owned());
            Some(ImageToFetch { image: image.to_string(), bytes: None, unknown })
        }
        _ => None,
    };
    let images: Vec<_> = plan.steps.iter().filter_map(unknown).collect();
    ToFetch { bytes: images.is_empty().then_some(0), images }
}

/// Asks the host.
pub(crate) async fn online(host: &Host, args: &cli::Plan, out: &mut Out) -> Outcome {
    let manifest = files::read_text(&args.file, MAX_DOCUMENT)?;
    let sig = files::sig_path(&args.file);
    // Without signatures, too: whether they are needed to be told a plan is for the host to say.
    let signatures = if sig.exists() { files::read_text(&sig, MAX_SIGNATURE_FILE)? } else { String::new() };
    let submission = Submission { manifest, signatures, require_plan: None };
    let planned: Planned = host.post("/v1/plan", &submission).await?;
    show(&planned, out)
}

fn show(planned: &Planned, out: &mut Out) -> Outcome {
    out.result(planned, text)?;
    Ok(0)
}

fn text(planned: &Planned) -> String {
    let mut text = steps(&planned.plan);
    let mut lines = Vec::new();
    if let Some(told) = &planned.consequences {
        if planned.plan.is_empty() && told.interruption.class == Class::None {
            text.push_str("nothing to do\n");
        }
        lines.push(("interrupts", interrupted(&told.interruption)));
        if let Some(fetch) = planned.fetch.as_ref().filter(|fetch| !fetch.images.is_empty()) {
            lines.push(("fetches", to_fetch(fetch)));
        }
        lines.extend(ends(
            ("survives", &told.survives[..]),
            ("destroys", &told.destroyed[..]),
            &told.written,
        ));
    } else if planned.plan.is_empty() {
        text.push_str("nothing to do\n");
    }
    if let Some(digest) = planned.digest {
        lines.push(("plan", digest.to_string()));
    }
    text + &facts(&lines)
}

fn steps(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", printable(&step.to_string()));
    }
    for waiting in &plan.waiting {
        let _ = writeln!(text, "{:>8}  {}  {}", "Wait", printable(&waiting.what), printable(&waiting.why));
    }
    let count = |is: fn(&Step) -> bool| plan.steps.iter().filter(|step| is(step)).count();
    let kinds = [
        (count(|s| matches!(s, Step::Fetch { .. })), "image", "to fetch"),
        (count(|s| matches!(s, Step::Stop { .. })), "instance", "to stop"),
        (count(|s| matches!(s, Step::Start { .. })), "instance", "to start"),
        (count(|s| matches!(s, Step::DestroyVolume { .. })), "volume", "to destroy"),
        (plan.waiting.len(), "thing", "to wait for"),
    ];
    let kinds: Vec<String> = kinds
        .iter()
        .filter(|(count, ..)| *count > 0)
        .map(|(count, one, what)| format!("{} {what}", counted(*count, one)))
        .collect();
    if !kinds.is_empty() {
        let _ = writeln!(text, "{}", kinds.join(", "));
    }
    text
}

/// What is interrupted, in words.
pub(crate) fn interrupted(interruption: &Interruption) -> String {
    let names = |names: &BTreeSet<Name>| names.iter().map(Name::as_str).collect::<Vec<_>>().join(", ");
    let containers = names(&interruption.containers);
    let mut text = match interruption.class {
        Class::None => "none".to_owned(),
        Class::Restart => format!("restart: {containers}"),
        Class::Reboot if containers.is_empty() => "reboot".to_owned(),
        Class::Reboot => format!("reboot: {containers}"),
    };
    if !interruption.handed_over.is_empty() {
        let _ = write!(text, "\nhanded over without a gap: {}", names(&interruption.handed_over));
    }
    text
}

fn to_fetch(fetch: &ToFetch) -> String {
    let mut text = fetch.bytes.map_or("not known how much".to_owned(), bytes);
    for ImageToFetch { image, bytes: size, unknown } in &fetch.images {
        let size = size.map_or_else(
            || unknown.as_ref().map_or("not known".to_owned(), |why| format!("not known: {why}")),
            bytes,
        );
        let _ = write!(text, "\n{size}  {image}");
    }
    text
}

/// What survives, what does not, and what was written where it does not last.
pub(crate) fn ends(
    (survives, survivors): (&'static str, &[Survivor]),
    (destroys, destroyed): (&'static str, &[Destroyed]),
    all: &[Written],
) -> Vec<(&'static str, String)> {
    let mut lines = Vec::new();
    if !survivors.is_empty() {
        let line = |one: &Survivor| format!("volume {}, {}", one.volume, amount(one.holds));
        lines.push((survives, survivors.iter().map(line).collect::<Vec<_>>().join("\n")));
    }
    let line = |one: &Destroyed| {
        let what = match &one.what {
            Doomed::Volume { volume } => format!("volume {volume} and all data in it"),
            Doomed::Layer { instance } => format!("what {instance} wrote to its root"),
            Doomed::Host => "what was written to /etc and /var of the host".to_owned(),
        };
        format!("{what}, {}", amount(one.holds))
    };
    let doomed = destroyed.iter().map(line).collect::<Vec<_>>().join("\n");
    lines.push((destroys, if doomed.is_empty() { "nothing".to_owned() } else { doomed }));
    if !all.is_empty() {
        lines.push(("written", all.iter().map(written).collect::<Vec<_>>().join("\n")));
    }
    lines
}

/// What one writer wrote outside of volumes, and where.
fn written(one: &Written) -> String {
    let who = match &one.by {
        Writer::Container { instance } => instance.to_string(),
        Writer::Host => "the host".to_owned(),
    };
    let Layer { amount: all, files, removed, places } = &one.layer;
    let mut text = format!("{who}: {} in {}", amount(Some(*all)), counted(*files as usize, "file"));
    if *removed > 0 {
        let _ = write!(text, ", {removed} removed");
    }
    for place in places {
        let unit = place.unit.as_ref().map(|unit| format!(", of {unit}")).unwrap_or_default();
        let _ = write!(text, "\n  {}  {}{unit}", place.path, bytes(place.bytes));
    }
    text
}

fn amount(amount: Option<Amount>) -> String {
    match amount {
        None => "not known how much".to_owned(),
        Some(Amount { bytes: count, at_least: true }) => format!("at least {}", bytes(count)),
        Some(Amount { bytes: count, .. }) => bytes(count),
    }
}
