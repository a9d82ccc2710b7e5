//! Whether a generation on trial is kept.

use std::time::Duration;

use bennu_manifests::model::Updates;

/// How a trial is judged; from `[update]`, or the defaults of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrialPolicy {
    /// How long everything has to become healthy (`health-deadline`).
    pub deadline: Duration,
    /// How long everything has to stay healthy (`trial`).
    pub trial: Duration,
    /// How long somebody has to say that it is good (`confirm-within`), where that is asked for.
    pub confirm_within: Option<Duration>,
}

impl TrialPolicy {
    /// That of a manifest, which may say nothing of updates.
    pub fn of(updates: Option<&Updates>) -> Self {
        let (deadline, trial) = updates.map_or((DEFAULT_DEADLINE, DEFAULT_TRIAL), |u| {
            (millis(u.health_deadline_ms), millis(u.trial_ms))
        });
        Self { deadline, trial, confirm_within: updates.and_then(|u| u.confirm_within_ms).map(millis) }
    }
}

/// The defaults of the keys, where a manifest has no `[update]`.
const DEFAULT_DEADLINE: Duration = Duration::from_secs(300);
const DEFAULT_TRIAL: Duration = Duration::from_secs(60);

fn millis(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// How a trial goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrialSeen {
    /// How long it has gone on in this boot, by a clock that never jumps.
    pub running_for: Duration,
    /// For how long everything has been good without a break, or what is not.
    pub good: Result<Duration, String>,
    /// Whether somebody said that it is good.
    pub confirmed: bool,
    /// How long somebody has left to say so, where that is asked for.
    pub confirm_left: Option<Duration>,
}

/// What becomes of a generation on trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It is not decided yet.
    Wait {
        /// What it waits for.
        why: String,
    },
    /// It is kept.
    Keep,
    /// It is taken back.
    Reject {
        /// Why.
        why: String,
    },
}

/// Decides on a trial. What is not good before the deadline may become so; afterwards nothing may fail any more.
pub fn judge(policy: &TrialPolicy, seen: &TrialSeen) -> Verdict {
    let undone = !seen.confirmed && seen.confirm_left == Some(Duration::ZERO);
    if let (true, Some(within)) = (undone, policy.confirm_within) {
        return Verdict::Reject { why: format!("nobody confirmed it within {} s", within.as_secs()) };
    }
    match &seen.good {
        Err(why) if seen.running_for >= policy.deadline => {
            let seconds = policy.deadline.as_secs();
            Verdict::Reject { why: format!("it does not do its work after {seconds} s: {why}") }
        }
        Err(why) => Verdict::Wait { why: why.clone() },
        Ok(good_for) if *good_for < policy.trial => {
            let left = (policy.trial - *good_for).as_secs() + 1;
            Verdict::Wait { why: format!("it is on trial for {left} s more") }
        }
        Ok(_) if !seen.confirmed && policy.confirm_within.is_some() => {
            let left = seen.confirm_left.unwrap_or_default().as_secs();
            Verdict::Wait { why: format!("it is undone in {left} s unless somebody runs `hostctl confirm`") }
        }
        Ok(_) => Verdict::Keep,
    }
}

/// How often the daemon may end in one trial without having been asked to: a fault of the moment happens once or twice.
const ENDS: u32 = 3;

/// Why a generation on trial is taken back on which the daemon has ended so often without having been asked to; `None` where it goes on.
/// It is asked when the daemon starts: one that never gets to judge would never decide.
pub fn restless(ends: u32) -> Option<String> {
    (ends >= ENDS).then(|| format!("the daemon ended {ends} times in its trial without having been asked to"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    const POLICY: TrialPolicy = TrialPolicy { deadline: s(300), trial: s(60), confirm_within: None };

    fn seen(running_for: u64, good: Result<u64, &str>) -> TrialSeen {
        let good = good.map(s).map_err(str::to_owned);
        TrialSeen { running_for: s(running_for), good, confirmed: false, confirm_left: None }
    }

    #[test]
    fn what_is_healthy_for_the_whole_trial_is_kept() {
        assert!(matches!(judge(&POLICY, &seen(59, Ok(59))), Verdict::Wait { .. }));
        assert_eq!(judge(&POLICY, &seen(60, Ok(60))), Verdict::Keep);
    }

    #[test]
    fn what_is_not_healthy_has_until_the_deadline() {
        assert!(matches!(judge(&POLICY, &seen(299, Err("web is not healthy"))), Verdict::Wait { .. }));
        let Verdict::Reject { why } = judge(&POLICY, &seen(300, Err("web is not healthy"))) else {
            panic!("it is past its deadline");
        };
        assert!(why.contains("web is not healthy"), "{why}");
    }

    #[test]
    fn what_became_healthy_late_still_has_its_trial_and_what_fails_in_it_is_taken_back() {
        assert!(matches!(judge(&POLICY, &seen(310, Ok(20))), Verdict::Wait { .. }));
        assert!(matches!(judge(&POLICY, &seen(311, Err("web ended"))), Verdict::Reject { .. }));
        assert_eq!(judge(&POLICY, &seen(350, Ok(60))), Verdict::Keep);
    }

    #[test]
    fn a_daemon_that_ends_again_and_again_is_a_reason_to_go_back() {
        assert_eq!([0, 1, 2].map(restless), [const { None }; 3]);
        assert!(restless(3).is_some_and(|why| why.contains("3 times")));
    }

    #[test]
    fn what_has_to_be_confirmed_is_not_kept_before_and_undone_when_it_is_not() {
        let policy = TrialPolicy { confirm_within: Some(s(600)), ..POLICY };
        let at = |left, confirmed| TrialSeen { confirm_left: Some(s(left)), confirmed, ..seen(100, Ok(100)) };
        assert!(matches!(judge(&policy, &at(500, false)), Verdict::Wait { .. }));
        assert_eq!(judge(&policy, &at(500, true)), Verdict::Keep);
        assert!(matches!(judge(&policy, &at(0, false)), Verdict::Reject { .. }));
        assert_eq!(judge(&policy, &at(0, true)), Verdict::Keep, "it was confirmed in time");
    }
}
