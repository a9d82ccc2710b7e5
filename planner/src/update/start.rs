//! What a start of the daemon makes of what was written down before it: the same for the daemon, and for whoever asks what it would do.

use bennu_manifests::model::Digest;
use jiff::Timestamp;

use super::{AfterBoot, Attempt, Booted, Entry, Pointer, after_boot};

/// What there is when the daemon starts.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// Which generations count, as it is written down.
    pub pointer: &'a Pointer,
    /// The root that runs.
    pub running: Digest,
    /// The boot entries that are there.
    pub entries: &'a [Entry],
    /// Now.
    pub now: Timestamp,
}

/// What the daemon makes of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Start {
    /// What the boot means for the attempt that was under way.
    pub meaning: AfterBoot,
    /// That attempt; none where a rejection had begun that the power cut short.
    pub attempt: Option<Attempt>,
    /// Which generations count from now on. A rejection that the meaning asks for is written down before it.
    pub next: Pointer,
    /// Whether the machine has to start again, for the OS of the generation that was kept.
    pub goes_back: bool,
}

impl Found<'_> {
    /// What it means. `is_rejected` knows which generations were rejected, `root` which root a generation runs on.
    pub fn start(&self, is_rejected: impl Fn(u64) -> bool, root: impl Fn(u64) -> Option<Digest>) -> Start {
        let running = self.running;
        let pointer = self.pointer.clone().settled(is_rejected);
        let returning = pointer.returning;
        let kept = pointer.kept.and_then(&root);
        let previous = pointer.previous.and_then(|number| Some((number, root(number)?)));
        let attempt = pointer.attempt.clone();
        let (entries, now) = (self.entries, self.now);
        let meaning =
            after_boot(&Booted { running, attempt: attempt.as_ref(), kept, previous, entries, now });
        let next = pointer.booted(&meaning, &root);
        // The power may have gone before the entry was taken away that leads to what the host is leaving. Once it is, the loader
        // can't come here again.
        let attempted = next.under_way().and_then(|attempt| attempt.os);
        let ways = [next.kept.and_then(&root), next.previous.and_then(&root), attempted];
        let leaving = returning || !ways.contains(&Some(running));
        let goes_back = leaving && next.active.and_then(&root).is_some_and(|root| root != running);
        Start { next: Pointer { returning: goes_back, ..next }, meaning, attempt, goes_back }
    }
}
