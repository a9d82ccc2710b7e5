//! What is known of updates while the daemon runs.

use std::collections::BTreeSet;
use std::path::Path;

use bennu_api::{Phase, Update, WhyNot};
use bennu_planner::update::{Gate, Lock, Pointer};

use super::clock::TrialClock;
use super::fleet_lock::Slot;
use super::rejected::Rejected;

/// What is known of updates while the daemon runs; what has to survive it is in the ledger.
#[derive(Debug)]
pub struct Updates {
    /// What was done last for the newest generation; how far it is says `Updates::phase`.
    pub phase: Phase,
    /// What it waits for.
    pub why: String,
    /// The gates, as they were asked last.
    pub gates: Vec<Gate>,
    /// The generation whose images were all found in the store.
    pub staged: Option<u64>,
    /// Generations to which somebody said yes.
    pub approved: BTreeSet<u64>,
    /// What the lock service has said.
    pub lock: Lock,
    /// The slot that this host may hold.
    pub(super) slot: Slot,
    /// What was tried and taken back.
    pub rejected: Rejected,
    pub(super) clock: TrialClock,
}

impl Updates {
    /// Reads what was rejected from `ledger`, and since when a trial goes on from `run`.
    ///
    /// # Errors
    /// Where the list of what was rejected, or the slot that is held, can't be read.
    pub fn open(ledger: &Path, run: &Path) -> std::io::Result<Self> {
        Ok(Self {
            phase: Phase::default(),
            why: String::new(),
            gates: Vec::new(),
            staged: None,
            approved: BTreeSet::new(),
            lock: Lock::default(),
            slot: Slot::open(&ledger.join("fleet-lock.json"))?,
            rejected: Rejected::open(&ledger.join("rejected-generations.json"))?,
            clock: TrialClock::open(run),
        })
    }

    /// How far the newest generation is, given which generations count: what is not pending any more is not waited for.
    pub(crate) fn phase(&self, pointer: &Pointer) -> Phase {
        match (self.phase, pointer.pending, pointer.on_trial()) {
            (Phase::Staging | Phase::Waiting, None, Some(_)) => Phase::Trial,
            (Phase::Staging | Phase::Waiting | Phase::Trial, None, None) => Phase::Settled,
            (phase, ..) => phase,
        }
    }

    /// What people are told, given which generations count.
    pub(crate) fn status(&self, pointer: &Pointer) -> Update {
        let (on_trial, phase) = (pointer.on_trial(), self.phase(pointer));
        Update {
            phase,
            why: if phase == self.phase { self.why.clone() } else { String::new() },
            confirm_by: on_trial.filter(|attempt| !attempt.confirmed).and_then(|attempt| attempt.confirm_by),
            kept: pointer.kept,
            way_back: pointer.way_back(),
            rejected: self.rejected.all().to_vec(),
        }
    }

    /// The one answer to why the host has not updated, for the newest generation that counts; `given_up` is a newer one that
    /// was accepted and does not count any more, and why.
    pub(crate) fn why(
        &self,
        pointer: &Pointer,
        given_up: Option<(u64, String)>,
        failure: Option<String>,
    ) -> WhyNot {
        let (newest, phase) = (pointer.pending.or(pointer.active), self.phase(pointer));
        let rejected = self.rejected.all().last();
        let answer = match (newest, phase, rejected) {
            (None, ..) => match given_up {
                Some((number, why)) => format!("generation {number} was given up: {why}"),
                None => "no manifest was accepted yet".to_owned(),
            },
            (Some(newest), Phase::Settled, Some(known)) if known.generation > newest => {
                format!("generation {} was tried and taken back: {}", known.generation, known.why)
            }
            (Some(newest), Phase::Settled, _) => match (given_up, failure) {
                (Some((number, why)), _) => format!("generation {number} was given up: {why}"),
                (None, Some(failure)) => format!("generation {newest} is active: {failure}"),
                (None, None) => {
                    format!("it has: generation {newest} is active, and nothing newer was accepted")
                }
            },
            (Some(newest), phase, _) => {
                let why = if self.why.is_empty() { failure.unwrap_or_default() } else { self.why.clone() };
                format!("generation {newest} is {phase}: {why}").trim_end_matches([':', ' ']).to_owned()
            }
        };
        let gates = if phase == self.phase { self.gates.clone() } else { Vec::new() };
        WhyNot { phase, generation: newest, answer, gates }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_given_up_is_not_waited_for_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut updates = Updates::open(dir.path(), dir.path()).expect("opened");
        let first = Pointer::default().accepted(1).activated(1, None).keeping();
        let waiting = first.clone().accepted(2);
        (updates.phase, updates.why) = (Phase::Waiting, "approval: nobody ran it yet".to_owned());
        assert_eq!(updates.status(&waiting).phase, Phase::Waiting);
        let given_up = waiting.without_pending();
        let told = updates.status(&given_up);
        assert_eq!((told.phase, told.why.as_str()), (Phase::Settled, ""));
        let why = updates.why(&given_up, Some((2, "by the new trust document".to_owned())), None);
        assert_eq!(why.answer, "generation 2 was given up: by the new trust document");
        assert_eq!((why.phase, why.generation), (Phase::Settled, Some(1)));
        updates.phase = Phase::Staging;
        assert_eq!(updates.phase(&given_up), Phase::Settled);
    }
}
