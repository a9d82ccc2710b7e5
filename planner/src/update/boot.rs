//! What a boot says about an update that was under way.

use std::time::Duration;

use bennu_manifests::model::Digest;
use jiff::Timestamp;

use super::{Attempt, Entry};

/// How many rounds of boots one generation gets when its OS does not come up and nothing says why. A power cut in each boot
/// of two rounds, six in a row, is not yet taken for a fault of the OS.
pub const ROUNDS: u32 = 3;

/// The pause before the second round; it doubles before the third.
const PAUSE: Duration = Duration::from_secs(300);

/// How long to wait after so many rounds that came to nothing.
fn pause(rounds: u32) -> Duration {
    PAUSE.saturating_mul(1 << rounds.saturating_sub(1).min(8))
}

/// What is known right after a boot.
#[derive(Debug, Clone, Copy)]
pub struct Booted<'a> {
    /// The root that runs.
    pub running: Digest,
    /// The attempt that was under way, where one was.
    pub attempt: Option<&'a Attempt>,
    /// The root of the generation that was kept last, where it is known.
    pub kept: Option<Digest>,
    /// The generation that was kept before it, and the root that it ran on.
    pub previous: Option<(u64, Digest)>,
    /// The boot entries that are there.
    pub entries: &'a [Entry],
    /// Now.
    pub now: Timestamp,
}

/// What a boot means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AfterBoot {
    /// Nothing for updates: what was under way goes on.
    GoOn,
    /// The OS of the attempt runs: its generation is the active one now, on trial.
    Arrived,
    /// The loader has used up its tries, and nothing says why: what was kept runs again, and the attempt waits for its next round.
    Again {
        /// Rounds that have come to nothing, this one included.
        rounds: u32,
        /// When the next one may begin.
        not_before: Option<Timestamp>,
    },
    /// The OS of the attempt never came up: it is rejected, and what was kept runs again.
    GiveUp {
        /// Why.
        why: String,
    },
    /// The OS that was kept did not come up: the loader went back to the one before, and so does the host. What was kept is tried
    /// again like any other: it may have been the power.
    FellBack {
        /// The generation that it goes back to.
        to: u64,
        /// When what was kept may be tried again.
        not_before: Option<Timestamp>,
    },
}

/// Puts together what was written down and what runs.
pub fn after_boot(booted: &Booted<'_>) -> AfterBoot {
    let Booted { running, attempt, kept, previous, entries, now } = *booted;
    let attempt = attempt.filter(|attempt| !attempt.waits());
    if let Some(attempt) = attempt
        && attempt.os == Some(running)
    {
        return if attempt.arrived { AfterBoot::GoOn } else { AfterBoot::Arrived };
    }
    // Whatever is tried beside: the loader comes here only where it has given up all that was kept later.
    if let (Some(kept), Some((to, root))) = (kept, previous)
        && kept != running
        && root == running
    {
        return AfterBoot::FellBack { to, not_before: now.checked_add(pause(1)).ok() };
    }
    if let Some(attempt) = attempt
        && attempt.os.is_some()
    {
        let armed = entries.iter().find(|entry| entry.name.generation == attempt.generation);
        // Without an entry the machine could not have tried it: the power went before it was written, or took it away.
        if armed.is_none() && !attempt.arrived {
            return AfterBoot::GoOn;
        }
        let rounds = attempt.rounds + 1;
        if rounds < ROUNDS {
            return AfterBoot::Again { rounds, not_before: now.checked_add(pause(rounds)).ok() };
        }
        let why = format!("its OS did not come up, or did not stay up, in {ROUNDS} rounds of boots");
        return AfterBoot::GiveUp { why };
    }
    AfterBoot::GoOn
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::update::EntryName;

    const OLD: Digest = Digest::from_bytes([1; 32]);
    const NEW: Digest = Digest::from_bytes([2; 32]);

    fn attempt(rounds: u32, arrived: bool) -> Attempt {
        Attempt { arrived, rounds, ..Attempt::of(9, Some(NEW)) }
    }

    fn entry(generation: u64, root: Digest, left: u32) -> Entry {
        Entry { name: EntryName { generation, tries: Some((left, 3 - left)) }, root: Some(root) }
    }

    fn boot(running: Digest, attempt: Option<&Attempt>, entries: &[Entry]) -> AfterBoot {
        after_boot(&Booted {
            running,
            attempt,
            kept: Some(OLD),
            previous: None,
            entries,
            now: Timestamp::UNIX_EPOCH,
        })
    }

    #[test]
    fn an_os_that_came_up_is_on_trial_and_stays_so_over_further_boots() {
        let entries = [entry(5, OLD, 3), entry(9, NEW, 2)];
        assert_eq!(boot(NEW, Some(&attempt(0, false)), &entries), AfterBoot::Arrived);
        assert_eq!(boot(NEW, Some(&attempt(0, true)), &entries), AfterBoot::GoOn);
    }

    #[test]
    fn f7_six_power_cuts_reject_nothing_and_three_rounds_do() {
        let entries = [entry(5, OLD, 3), entry(9, NEW, 0)];
        assert!(matches!(boot(OLD, Some(&attempt(0, false)), &entries), AfterBoot::Again { rounds: 1, .. }));
        assert!(matches!(boot(OLD, Some(&attempt(1, true)), &entries), AfterBoot::Again { rounds: 2, .. }));
        assert!(matches!(boot(OLD, Some(&attempt(2, true)), &entries), AfterBoot::GiveUp { .. }));
    }

    #[test]
    fn a_boot_before_the_entry_was_written_is_no_round() {
        assert_eq!(boot(OLD, Some(&attempt(0, false)), &[entry(5, OLD, 3)]), AfterBoot::GoOn);
    }

    #[test]
    fn f7_a_boot_while_an_attempt_waits_for_its_next_round_is_none() {
        let waits = Attempt { not_before: Some(Timestamp::UNIX_EPOCH), ..attempt(2, false) };
        assert_eq!(boot(OLD, Some(&waits), &[entry(5, OLD, 3), entry(9, NEW, 0)]), AfterBoot::GoOn);
    }

    #[test]
    fn a_loader_that_passes_over_a_good_entry_is_not_asked_for_ever() {
        let entries = [entry(5, OLD, 3), entry(9, NEW, 3)];
        assert!(matches!(boot(OLD, Some(&attempt(2, false)), &entries), AfterBoot::GiveUp { .. }));
    }

    #[test]
    fn f8_a_kept_os_that_breaks_later_is_left_for_the_one_before() {
        let fell = |previous| {
            after_boot(&Booted {
                running: OLD,
                attempt: None,
                kept: Some(NEW),
                previous,
                entries: &[],
                now: Timestamp::UNIX_EPOCH,
            })
        };
        assert!(matches!(fell(Some((5, OLD))), AfterBoot::FellBack { to: 5, .. }));
        assert_eq!(fell(None), AfterBoot::GoOn, "there is nothing to go back to");
        assert_eq!(boot(OLD, None, &[]), AfterBoot::GoOn, "it is what was kept");
    }

    #[test]
    fn f8_what_is_tried_beside_a_kept_os_that_breaks_is_left_with_it() {
        for attempt in [Attempt::of(9, None), attempt(2, true), attempt(0, false)] {
            let kept = Digest::from_bytes([3; 32]);
            let fell = after_boot(&Booted {
                running: OLD,
                attempt: Some(&attempt),
                kept: Some(kept),
                previous: Some((5, OLD)),
                entries: &[entry(9, NEW, 0), entry(7, kept, 0)],
                now: Timestamp::UNIX_EPOCH,
            });
            assert!(matches!(fell, AfterBoot::FellBack { to: 5, .. }), "{attempt:?}: {fell:?}");
        }
    }

    #[test]
    fn pauses_double() {
        assert_eq!([1, 2, 3].map(|rounds| pause(rounds).as_secs()), [300, 600, 1200]);
    }
}
