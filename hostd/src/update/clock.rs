//! How long a trial has gone on in this boot: by a clock that never jumps, and over restarts of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_image_store::durable;
use bennu_planner::update::Attempt;
use serde::{Deserialize, Serialize};

/// A trial: the same generation may have several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Trial {
    generation: u64,
    /// Trials of it that came to nothing.
    #[serde(default)]
    tries: u64,
}

impl Trial {
    /// The trial that an attempt has.
    pub(super) fn of(attempt: &Attempt) -> Self {
        Self { generation: attempt.generation, tries: attempt.tries }
    }
}

/// When a trial began and since when all is good, in milliseconds since the machine started. It is kept in memory: a boot begins a trial anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Times {
    #[serde(flatten)]
    trial: Trial,
    begun: u64,
    good_since: Option<u64>,
    /// How often the daemon has ended in it without having been asked to.
    #[serde(default)]
    ends: u32,
    /// Whether the daemon serves, or did when it ended. One that never came so far is no fault of the trial but of the boot.
    #[serde(default)]
    serves: bool,
}

impl Times {
    fn new(trial: Trial, begun: u64) -> Self {
        Self { trial, begun, good_since: None, ends: 0, serves: false }
    }
}

/// The clock of a trial.
#[derive(Debug)]
pub(super) struct TrialClock {
    path: PathBuf,
    times: Option<Times>,
}

impl TrialClock {
    /// The clock whose times are in a directory that is in memory.
    pub(super) fn open(run: &Path) -> Self {
        let path = run.join("trial.json");
        let times = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self { path, times }
    }

    /// The daemon has started in the middle of a trial, or right before it: how often one before it has ended in it without having been asked to.
    pub(super) fn started(&mut self, trial: Trial) -> u32 {
        let times = match self.times.filter(|times| times.trial == trial) {
            Some(times) => Times { ends: times.ends + u32::from(times.serves), serves: false, ..times },
            None => Times::new(trial, now()),
        };
        self.write(times);
        times.ends
    }

    /// A trial begins, under a daemon that serves.
    pub(super) fn begin(&mut self, trial: Trial) {
        self.write(Times { serves: true, ..Times::new(trial, now()) });
    }

    /// Whether the end of the daemon would be one that nobody asked for.
    pub(super) fn serves(&mut self, serves: bool) {
        if let Some(times) = self.times {
            self.write(Times { serves, ..times });
        }
    }

    fn write(&mut self, times: Times) {
        self.times = Some(times);
        let bytes = serde_json::to_vec(&times).expect("numbers become JSON");
        // Without it the trial begins anew when the daemon does.
        if let Err(error) = durable::replace(&self.path, &bytes) {
            tracing::warn!(%error, "write down since when the trial goes on");
        }
    }

    /// Takes in whether all is good, and says for how long the trial goes on and since when all has been good.
    pub(super) fn look(&mut self, trial: Trial, good: bool) -> (Duration, Option<Duration>) {
        self.look_at(trial, good, now())
    }

    fn look_at(&mut self, trial: Trial, good: bool, now: u64) -> (Duration, Option<Duration>) {
        let known = self.times.filter(|times| times.trial == trial);
        let mut times = known.unwrap_or(Times::new(trial, now));
        times.good_since = good.then(|| times.good_since.unwrap_or(now));
        if self.times != Some(times) {
            self.write(times);
        }
        let since = |then: u64| Duration::from_millis(now.saturating_sub(then));
        (since(times.begun), times.good_since.map(since))
    }
}

/// What `/proc/uptime` says (proc_uptime(5)), in milliseconds.
fn now() -> u64 {
    let uptime = std::fs::read_to_string("/proc/uptime").unwrap_or_default();
    milliseconds(&uptime).unwrap_or_default()
}

fn milliseconds(uptime: &str) -> Option<u64> {
    let (seconds, hundredths) = uptime.split_ascii_whitespace().next()?.split_once('.')?;
    Some(seconds.parse::<u64>().ok()? * 1000 + hundredths.parse::<u64>().ok()? * 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NINTH: Trial = Trial { generation: 9, tries: 0 };
    const TENTH: Trial = Trial { generation: 10, tries: 0 };

    #[test]
    fn the_time_since_the_boot_is_read_in_milliseconds() {
        assert_eq!(milliseconds("350735.47 234388.90\n"), Some(350_735_470));
        assert_eq!(milliseconds(""), None);
    }

    #[test]
    fn a_trial_goes_on_over_restarts_and_what_is_bad_begins_to_be_good_anew() {
        let dir = tempfile::tempdir().expect("a directory");
        let ms = Duration::from_millis;
        let mut clock = TrialClock::open(dir.path());
        assert_eq!(clock.look_at(NINTH, false, 1000), (ms(0), None));
        assert_eq!(clock.look_at(NINTH, true, 2000), (ms(1000), Some(ms(0))));
        let mut clock = TrialClock::open(dir.path());
        assert_eq!(clock.look_at(NINTH, true, 5000), (ms(4000), Some(ms(3000))));
        assert_eq!(clock.look_at(NINTH, false, 6000), (ms(5000), None));
        assert_eq!(clock.look_at(NINTH, true, 7000), (ms(6000), Some(ms(0))));
        assert_eq!(
            clock.look_at(TENTH, true, 8000),
            (ms(0), Some(ms(0))),
            "another generation is another trial"
        );
        let again = Trial { tries: 1, ..TENTH };
        assert_eq!(clock.look_at(again, false, 9000), (ms(0), None), "it has its whole time once more");
    }

    #[test]
    fn a_daemon_that_ends_by_itself_is_counted_for_its_trial_and_one_that_was_asked_is_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = |trial| {
            let mut clock = TrialClock::open(dir.path());
            let ends = clock.started(trial);
            clock.serves(true);
            ends
        };
        assert_eq!([start(NINTH), start(NINTH), start(NINTH)], [0, 1, 2]);
        TrialClock::open(dir.path()).serves(false);
        assert_eq!([start(NINTH), start(NINTH)], [2, 3]);
        assert_eq!(TrialClock::open(dir.path()).started(NINTH), 4);
        assert_eq!(start(NINTH), 4, "one that never served is not counted");
        assert_eq!(start(TENTH), 0, "another generation is another trial");
        let since = TrialClock::open(dir.path()).times.expect("it goes on").begun;
        TrialClock::open(dir.path()).look_at(TENTH, true, since + 1000);
        assert_eq!(start(TENTH), 1, "what is counted stays when all is good");
        TrialClock::open(dir.path()).begin(NINTH);
        assert_eq!(start(NINTH), 1, "it ended over its beginning");
    }
}
