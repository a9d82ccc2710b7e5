//! Which snapshots are to be taken and which are to go. Pure: decided from their names, the manifest and the time.

use std::collections::BTreeSet;

use bennu_api::{SnapshotName, Why};
use bennu_manifests::model::Snapshots;
use jiff::Timestamp;

use crate::calendar::next_time;

/// How many generations keep their snapshot beside the one that a rollback leads to.
const MAX_GENERATIONS: usize = 16;

/// What is to be done by a schedule now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Due {
    /// Whether a snapshot is to be taken.
    pub(super) take: bool,
    /// Those that are to be removed once it is taken.
    pub(super) remove: Vec<SnapshotName>,
    /// When the next one is due.
    pub(super) next: Option<Timestamp>,
}

/// What a schedule asks for. What it knows of the past are the names of the snapshots: where there is none the first one is
/// due at once, and times that were missed are made good by one.
///
/// A snapshot from the future was taken while the clock was wrong. It neither keeps the next one from being taken nor
/// counts as a new one.
pub(super) fn due(schedule: &Snapshots, zone: &str, taken: &[SnapshotName], now: Timestamp) -> Due {
    let mut own: Vec<SnapshotName> = taken.iter().filter(|s| s.why == Why::Schedule).copied().collect();
    own.sort_by_key(|snapshot| (snapshot.taken <= now, snapshot.taken));
    let last = own.last().filter(|last| last.taken <= now);
    let next = last.and_then(|last| next_time(&schedule.schedule, zone, last.taken));
    let take = last.is_none() || next.is_some_and(|next| next <= now);
    let keep = usize::try_from(schedule.keep).unwrap_or(usize::MAX);
    let excess = (own.len() + usize::from(take)).saturating_sub(keep);
    let next = if take { next_time(&schedule.schedule, zone, now) } else { next };
    Due { take, remove: own.into_iter().take(excess).collect(), next }
}

/// Which of the snapshots that generations left are of no more use, where `keep_from` is the generation that a rollback
/// leads to: older ones; of one generation all but the last; and the oldest of those above, where there are many.
pub(super) fn left_behind(taken: &[SnapshotName], keep_from: u64) -> Vec<SnapshotName> {
    let mut seen = BTreeSet::new();
    let mut useless = Vec::new();
    // The newest first.
    let mut own: Vec<(u64, SnapshotName)> = taken
        .iter()
        .filter_map(|snapshot| match snapshot.why {
            Why::Generation(number) => Some((number, *snapshot)),
            _ => None,
        })
        .collect();
    own.sort_unstable_by(|a, b| b.cmp(a));
    for (number, snapshot) in own {
        let again = seen.contains(&number);
        let too_many = seen.len() >= MAX_GENERATIONS && number != keep_from;
        if number < keep_from || again || too_many {
            useless.push(snapshot);
        } else {
            seen.insert(number);
        }
    }
    useless
}

/// The snapshot that a volume goes back to with a generation: the last one that it left.
pub(super) fn left_by(taken: &[SnapshotName], generation: u64) -> Option<SnapshotName> {
    taken.iter().filter(|snapshot| snapshot.why == Why::Generation(generation)).max().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(texts: &[&str]) -> Vec<SnapshotName> {
        texts.iter().map(|text| text.parse().expect("a name")).collect()
    }

    fn now(text: &str) -> Timestamp {
        text.parse().expect("a time")
    }

    fn daily(keep: u64) -> Snapshots {
        Snapshots { schedule: "daily".to_owned(), keep }
    }

    #[test]
    fn a_snapshot_is_taken_at_its_times_and_once_for_those_that_were_missed() {
        let first = due(&daily(3), "UTC", &[], now("2026-01-05T12:00:00Z"));
        assert_eq!(first, Due { take: true, remove: vec![], next: Some(now("2026-01-06T00:00:00Z")) });
        let taken = names(&["20260105T120000Z-schedule"]);
        let later = due(&daily(3), "UTC", &taken, now("2026-01-05T23:59:59Z"));
        assert_eq!(later, Due { take: false, remove: vec![], next: Some(now("2026-01-06T00:00:00Z")) });
        assert!(due(&daily(3), "UTC", &taken, now("2026-01-06T00:00:00Z")).take);
        // The host was off for three days.
        let off = due(&daily(3), "UTC", &taken, now("2026-01-09T08:00:00Z"));
        assert_eq!(off, Due { take: true, remove: vec![], next: Some(now("2026-01-10T00:00:00Z")) });
    }

    #[test]
    fn the_oldest_of_a_schedule_go_and_all_others_stay() {
        let taken = names(&[
            "20260101T000000Z-hand",
            "20260102T000000Z-schedule",
            "20260102T100000Z-replaced",
            "20260103T000000Z-schedule",
            "20260103T050000Z-generation-4",
            "20260104T000000Z-schedule",
        ]);
        let due_now = due(&daily(2), "UTC", &taken, now("2026-01-05T00:00:00Z"));
        assert_eq!(due_now.remove, names(&["20260102T000000Z-schedule", "20260103T000000Z-schedule"]));
        let fewer = due(&daily(1), "UTC", &taken, now("2026-01-04T10:00:00Z"));
        assert!(!fewer.take);
        assert_eq!(fewer.remove, names(&["20260102T000000Z-schedule", "20260103T000000Z-schedule"]));
        assert_eq!(due(&daily(5), "UTC", &taken, now("2026-01-05T00:00:00Z")).remove, []);
    }

    #[test]
    fn snapshots_from_a_time_when_the_clock_was_wrong_stop_nothing_and_go_first() {
        let taken =
            names(&["20260104T000000Z-schedule", "20400101T000000Z-schedule", "20400102T000000Z-schedule"]);
        let at = due(&daily(2), "UTC", &taken, now("2026-01-05T00:00:00Z"));
        assert!(at.take);
        assert_eq!(at.remove, names(&["20400101T000000Z-schedule", "20400102T000000Z-schedule"]));
        let alone = due(&daily(2), "UTC", &taken[1..], now("2026-01-05T00:00:00Z"));
        assert!(alone.take);
    }

    #[test]
    fn what_a_generation_left_is_kept_while_a_rollback_may_lead_there() {
        let taken = names(&[
            "20260101T000000Z-generation-3",
            "20260102T000000Z-generation-4",
            "20260103T000000Z-generation-5",
            "20260104T000000Z-generation-5",
            "20260104T000000Z-hand",
        ]);
        assert_eq!(
            left_behind(&taken, 4),
            names(&["20260103T000000Z-generation-5", "20260101T000000Z-generation-3"])
        );
        assert_eq!(left_by(&taken, 5), Some(taken[3]));
        assert_eq!(left_by(&taken, 6), None);
    }

    #[test]
    fn many_generations_that_failed_do_not_push_out_the_one_that_was_good() {
        let many: Vec<_> = (1..100)
            .map(|n| SnapshotName::new(Timestamp::from_second(n).expect("a time"), Why::Generation(n as u64)))
            .collect();
        let gone = left_behind(&many, 2);
        assert!(!gone.contains(&many[1]) && gone.contains(&many[0]));
        assert_eq!(many.len() - gone.len(), MAX_GENERATIONS + 1);
    }
}
