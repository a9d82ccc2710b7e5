//! `plan`: what a manifest would do to a host, said by the host or worked out here from its dump.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::Path;

use bennu_api::{Dump, Submission};
use bennu_manifests::{MAX_DOCUMENT, MAX_SIGNATURE_FILE};
use bennu_planner::{Plan, Step, Wanted, guard, plan};

use crate::check::manifest;
use crate::cli;
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::files;
use crate::render::{Out, counted, printable};

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
    show(&plan(wanted, &dump.seen), out)
}

/// Asks the host.
pub(crate) async fn online(host: &Host, args: &cli::Plan, out: &mut Out) -> Outcome {
    let manifest = files::read_text(&args.file, MAX_DOCUMENT)?;
    let sig = files::sig_path(&args.file);
    // Without signatures, too: whether they are needed to be told a plan is for the host to say.
    let signatures = if sig.exists() { files::read_text(&sig, MAX_SIGNATURE_FILE)? } else { String::new() };
    let plan: Plan = host.post("/v1/plan", &Submission { manifest, signatures }).await?;
    show(&plan, out)
}

fn show(plan: &Plan, out: &mut Out) -> Outcome {
    out.result(plan, text)?;
    Ok(0)
}

fn text(plan: &Plan) -> String {
    let mut text = String::new();
    for step in &plan.steps {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{}", printable(&step.to_string()));
    }
    for waiting in &plan.waiting {
        let _ = writeln!(text, "{:>8}  {}  {}", "Wait", printable(&waiting.what), printable(&waiting.why));
    }
    if plan.is_empty() {
        return "nothing to do\n".to_owned();
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
