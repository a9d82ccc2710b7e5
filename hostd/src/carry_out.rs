//! Carrying out a plan: in its order, and side by side what relies on nothing of each other.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::sync::Arc;

use bennu_api::{Activity, Happening};
use bennu_manifests::model::Name;
use bennu_planner::{Step, needed, together};
use futures_util::StreamExt as _;

use crate::apply::apply;
use crate::core::Core;
use crate::health::Monitor;
use crate::ledger::Applicable;

/// How many stops are waited for at once: what stops mostly takes time, and nothing else.
const STOPS: usize = 32;

/// How many starts go on at once, for each processor.
const STARTS: usize = 2;

/// Carries the steps of a plan out, in their order. What can't be started holds up what relies on it, and nothing else, except that
/// nothing is destroyed then.
///
/// # Errors
/// The first step that did not work, and why.
pub(crate) async fn carry_out(core: &Arc<Core>, active: &Applicable, steps: &[Step]) -> Result<(), String> {
    let begun = Cell::new(0);
    let mut failed: BTreeSet<&Name> = BTreeSet::new();
    let mut first = None;
    for group in together(&active.manifest, steps) {
        let possible = group.iter().filter(|step| match step {
            Step::Start { instance, .. } => failed.is_disjoint(&needed(&active.manifest, &instance.name)),
            Step::DestroyVolume { .. } => failed.is_empty(),
            _ => true,
        });
        let one = async |step| {
            begun.set(begun.get() + 1);
            let (number, of) = (begun.get(), steps.len());
            core.now().activity = Activity::Applying { step: line(step), number, of };
            let done = apply(core, active, step).await;
            if done.is_ok() {
                core.events.add(Happening::Applied { step: Box::new(step.clone()) });
                if let Step::Start { instance, .. } | Step::Restart { instance, .. } = step {
                    Monitor::begin(core, &active.manifest, instance);
                }
            }
            (step, done)
        };
        let ended: Vec<_> = futures_util::stream::iter(possible)
            .map(one)
            .buffer_unordered(side_by_side(group))
            .collect()
            .await;
        for (step, done) in ended {
            let Err(why) = done else { continue };
            let why = format!("{}: {why}", line(step));
            let Step::Start { instance, .. } = step else { return Err(why) };
            failed.insert(&instance.name);
            first.get_or_insert(why);
        }
    }
    first.map_or(Ok(()), Err)
}

/// How many steps of a group are carried out at once.
fn side_by_side(group: &[Step]) -> usize {
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    match group {
        [Step::Stop { .. }, ..] => STOPS,
        [Step::Start { .. }, ..] => STARTS * processors,
        _ => 1,
    }
}

/// A step as it is told.
pub(crate) fn line(step: &Step) -> String {
    step.to_string().trim_start().to_owned()
}
