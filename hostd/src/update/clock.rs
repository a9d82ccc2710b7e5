//! How long a trial has gone on in this boot: by a clock that never jumps, and over restarts of the daemon.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_image_store::durable;
use serde::{Deserialize, Serialize};

/// When a trial began and since when all is good, in milliseconds since the machine started. It is kept in memory: a boot begins a trial anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Times {
    generation: u64,
    begun: u64,
    good_since: Option<u64>,
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

    /// Takes in whether all is good, and says for how long the trial goes on and since when all has been good.
    pub(super) fn look(&mut self, generation: u64, good: bool) -> (Duration, Option<Duration>) {
        self.look_at(generation, good, now())
    }

    fn look_at(&mut self, generation: u64, good: bool, now: u64) -> (Duration, Option<Duration>) {
        let known = self.times.filter(|times| times.generation == generation);
        let mut times = known.unwrap_or(Times { generation, begun: now, good_since: None });
        times.good_since = good.then(|| times.good_since.unwrap_or(now));
        if self.times != Some(times) {
            self.times = Some(times);
            let bytes = serde_json::to_vec(&times).expect("numbers become JSON");
            // Without it the trial begins anew when the daemon does.
            if let Err(error) = durable::replace(&self.path, &bytes) {
                tracing::warn!(%error, "write down since when the trial goes on");
            }
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
        assert_eq!(clock.look_at(9, false, 1000), (ms(0), None));
        assert_eq!(clock.look_at(9, true, 2000), (ms(1000), Some(ms(0))));
        let mut clock = TrialClock::open(dir.path());
        assert_eq!(clock.look_at(9, true, 5000), (ms(4000), Some(ms(3000))));
        assert_eq!(clock.look_at(9, false, 6000), (ms(5000), None));
        assert_eq!(clock.look_at(9, true, 7000), (ms(6000), Some(ms(0))));
        assert_eq!(
            clock.look_at(10, true, 8000),
            (ms(0), Some(ms(0))),
            "another generation is another trial"
        );
    }
}
