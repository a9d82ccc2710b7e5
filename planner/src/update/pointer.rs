//! Which generations count, and how that changes. A pointer is one file, replaced as a whole: each change is done or not done.

use bennu_manifests::model::Digest;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{AfterBoot, Attempt, Rearm, WantedEntries};

/// Which generations count. What an older `hostd` wrote lacks the later fields, and one that reads them passes them over.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Pointer {
    /// What the host is.
    pub active: Option<u64>,
    /// What it is to become as soon as everything for it is in the store and nothing keeps it from changing.
    pub pending: Option<u64>,
    /// The last one that was kept; what the host goes back to while another one is tried.
    #[serde(default)]
    pub kept: Option<u64>,
    /// The one that was kept before it.
    #[serde(default)]
    pub previous: Option<u64>,
    /// What is tried: the pending generation until its OS runs, then the active one.
    #[serde(default)]
    pub attempt: Option<Attempt>,
    /// Whether the machine has to start again so that the OS of the active generation runs.
    #[serde(default)]
    pub returning: bool,
}

impl Pointer {
    /// All generations that are named.
    pub fn generations(&self) -> Vec<u64> {
        [self.active, self.pending, self.kept, self.previous].into_iter().flatten().collect()
    }

    /// The generation on trial.
    pub fn on_trial(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| attempt.arrived && self.active == Some(attempt.generation))
    }

    /// What is tried, unless it waits for its next round: it is not to be started before that, however many tries it has left.
    pub(super) fn under_way(&self) -> Option<&Attempt> {
        self.attempt.as_ref().filter(|attempt| !attempt.waits())
    }

    /// Whether the machine may have to start again before it is well, so that a slot of a lock service is to be held still.
    pub fn is_on_the_way(&self) -> bool {
        self.returning || self.attempt.as_ref().is_some_and(|attempt| attempt.arrived)
    }

    /// Where a wish to go back leads: from what is tried to what was kept, else to what was kept before.
    pub fn way_back(&self) -> Option<u64> {
        if self.attempt.is_some() { self.kept } else { self.previous }
    }

    /// A generation was accepted.
    #[must_use]
    pub fn accepted(self, generation: u64) -> Self {
        Self { pending: Some(generation), ..self }
    }

    /// The pending generation is given up.
    #[must_use]
    pub fn without_pending(self) -> Self {
        let attempt = self.attempt.filter(|attempt| Some(attempt.generation) != self.pending);
        Self { pending: None, attempt, ..self }
    }

    /// An attempt is about to be made, or goes on. One that needs a boot takes the place of another one on trial, which is not
    /// judged any more: what the host is until then is what was kept.
    #[must_use]
    pub fn attempting(self, attempt: Attempt) -> Self {
        let active = if attempt.arrived { self.active } else { self.kept.or(self.active) };
        Self { active, attempt: Some(attempt), ..self }
    }

    /// The pending generation is the active one, on trial where there is something to go back to.
    #[must_use]
    pub fn activated(self, generation: u64, attempt: Option<Attempt>) -> Self {
        let attempt = attempt.filter(|_| self.kept.is_some());
        let pending = self.pending.filter(|pending| *pending != generation);
        Self { active: Some(generation), pending, attempt, ..self }
    }

    /// The active generation is kept; the one that was kept before is the way back from now on.
    #[must_use]
    pub fn keeping(self) -> Self {
        let previous = if self.kept == self.active { self.previous } else { self.kept };
        Self { kept: self.active, previous, attempt: None, ..self }
    }

    /// What is tried is given up: what was kept is active again. `returning` says that the machine has to start again for it.
    #[must_use]
    pub fn taken_back(self, returning: bool) -> Self {
        let given_up = self.attempt.as_ref().map(|attempt| attempt.generation);
        let pending = self.pending.filter(|pending| Some(*pending) != given_up);
        Self { active: self.kept, pending, attempt: None, returning, ..self }
    }

    /// What is tried is put off: it is pending again, unless a newer one was accepted meanwhile, and what was kept is active.
    #[must_use]
    pub fn put_off(self, attempt: Attempt, returning: bool) -> Self {
        let newer = self.pending.filter(|pending| *pending != attempt.generation);
        let pending = newer.or(Some(attempt.generation));
        let attempt = newer.is_none().then_some(Attempt { arrived: false, ..attempt });
        Self { active: self.kept, pending, attempt, returning, ..self }
    }

    /// A generation that was kept is given up for the one before it.
    #[must_use]
    pub fn fallen_back(self, to: u64, returning: bool) -> Self {
        Self { active: Some(to), kept: Some(to), previous: None, attempt: None, returning, ..self }
    }

    /// What a rejection began that the power cut short: it is written down before the pointer moves.
    #[must_use]
    pub fn settled(self, is_rejected: impl Fn(u64) -> bool) -> Self {
        let tried = self.attempt.as_ref().filter(|attempt| is_rejected(attempt.generation));
        let here = match tried {
            Some(attempt) => {
                let returning = attempt.os.is_some();
                self.taken_back(returning)
            }
            None => self,
        };
        let here = if here.pending.is_some_and(&is_rejected) { here.without_pending() } else { here };
        match (here.kept, here.previous) {
            (Some(kept), Some(previous)) if here.active == Some(kept) && is_rejected(kept) => {
                here.fallen_back(previous, true)
            }
            _ => here,
        }
    }

    /// A generation that was kept did not come up: the one before is kept instead, and it is tried again after a pause, unless another
    /// one is to be tried.
    fn left(self, to: u64, not_before: Option<Timestamp>, root: impl Fn(u64) -> Option<Digest>) -> Self {
        // What was on trial on the same OS is tried again with it, where it is known that it has the same.
        let left = self.active.filter(|active| root(*active).is_some()).or(self.kept);
        let here = self.fallen_back(to, false);
        match (left, left.and_then(root), here.pending) {
            (Some(generation), Some(os), None) => {
                let attempt = Attempt { rounds: 1, not_before, ..Attempt::of(generation, Some(os)) };
                Self { pending: Some(generation), attempt: Some(attempt), ..here }
            }
            _ => here,
        }
    }

    /// What a boot means for it; `root` knows which root a generation runs on.
    #[must_use]
    pub fn booted(self, meaning: &AfterBoot, root: impl Fn(u64) -> Option<Digest>) -> Self {
        let here = Self { returning: false, ..self };
        match (meaning, here.attempt.clone()) {
            (AfterBoot::Arrived, Some(attempt)) => {
                here.activated(attempt.generation, Some(Attempt { arrived: true, ..attempt }))
            }
            (AfterBoot::Again { rounds, not_before }, Some(attempt)) => {
                here.put_off(Attempt { rounds: *rounds, not_before: *not_before, ..attempt }, false)
            }
            (AfterBoot::GiveUp { .. }, Some(_)) => here.taken_back(false),
            (AfterBoot::FellBack { to, not_before }, _) => here.left(*to, *not_before, root),
            _ => here,
        }
    }

    /// The boot entries that there are to be, on a host that runs `running`; `root` knows which root a generation runs on.
    pub fn wanted_entries(
        &self,
        running: Digest,
        rearm: Rearm,
        root: impl Fn(u64) -> Option<Digest>,
    ) -> WantedEntries {
        let waits = self.attempt.as_ref().filter(|attempt| attempt.waits());
        WantedEntries {
            attempt: self.under_way().and_then(|attempt| Some((attempt.generation, attempt.os?))),
            waits: waits.and_then(|attempt| attempt.os),
            rearm_attempt: rearm == Rearm::Attempt,
            kept: self.kept.and_then(|kept| Some((kept, root(kept)?))),
            previous: self.previous.and_then(&root),
            booted: (rearm == Rearm::Running).then_some(running),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_tried_takes_the_place_of_nothing_until_it_is_kept() {
        let tried = |pointer: Pointer, generation| {
            pointer.accepted(generation).activated(generation, Some(Attempt::of(generation, None)))
        };
        let first = Pointer::default().accepted(1).activated(1, None).keeping();
        assert_eq!((first.kept, first.previous), (Some(1), None));
        let second = tried(tried(first, 2), 3);
        assert_eq!((second.active, second.kept, second.previous), (Some(3), Some(1), None));
        let kept = second.keeping();
        assert_eq!((kept.kept, kept.previous, kept.way_back()), (Some(3), Some(1), Some(1)));
        let third = tried(kept, 4);
        assert_eq!((third.kept, third.previous, third.way_back()), (Some(3), Some(1), Some(3)));
        assert_eq!(third.taken_back(false).active, Some(3));
    }

    #[test]
    fn what_was_put_off_has_no_entry_until_it_is_tried_again() {
        let os = Digest::from_bytes([2; 32]);
        let attempt = Attempt { arrived: true, ..Attempt::of(2, Some(os)) };
        let first = Pointer::default().accepted(1).activated(1, None).keeping();
        let tried = first.accepted(2).activated(2, Some(attempt.clone()));
        let wanted = |pointer: &Pointer| {
            let wanted = pointer.wanted_entries(os, Rearm::Running, |_| None);
            (wanted.attempt, wanted.waits)
        };
        assert_eq!(wanted(&tried), (Some((2, os)), None));
        let later = Some(Timestamp::UNIX_EPOCH);
        let put_off = tried.put_off(Attempt { not_before: later, ..attempt.clone() }, true);
        assert_eq!(wanted(&put_off), (None, Some(os)));
        let again = put_off.attempting(Attempt { arrived: false, ..attempt });
        assert_eq!(wanted(&again), (Some((2, os)), None));
    }

    #[test]
    fn a_host_is_on_its_way_while_it_tries_or_goes_back_and_not_once_it_has_kept_or_put_off() {
        let os = Some(Digest::from_bytes([1; 32]));
        let first = Pointer::default().accepted(1).activated(1, None).keeping();
        assert!(!first.clone().accepted(2).is_on_the_way(), "it waits");
        let arrived = Attempt { arrived: true, ..Attempt::of(2, os) };
        let tried = first.accepted(2).activated(2, Some(arrived.clone()));
        assert!(tried.is_on_the_way());
        assert!(!tried.clone().keeping().is_on_the_way());
        assert!(!tried.clone().taken_back(false).is_on_the_way());
        assert!(tried.clone().taken_back(true).is_on_the_way(), "the machine has to start again");
        assert!(!tried.put_off(arrived, false).is_on_the_way());
    }
}
