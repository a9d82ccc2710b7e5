//! How fast a scrub may read.

use std::time::{Duration, Instant};

/// The longest wait, so that who waits notices that it is to stop.
const LONGEST: Duration = Duration::from_secs(1);

/// So many bytes a second, counted from when it was made.
#[derive(Debug)]
pub struct Pace {
    /// Bytes a second; 0 is without a limit.
    rate: u64,
    begun: Instant,
    asked: u64,
}

impl Pace {
    /// A pace of `rate` bytes a second; 0 is as fast as it goes.
    pub fn new(rate: u64) -> Self {
        Self { rate, begun: Instant::now(), asked: 0 }
    }

    /// How long to wait before so many bytes more are read; at most a second.
    pub fn ask(&mut self, bytes: usize) -> Duration {
        self.asked = self.asked.saturating_add(bytes as u64);
        wait(self.asked, self.rate, self.begun.elapsed())
    }
}

/// How long to wait until so many bytes may have been asked for at this rate, when so much time has gone by.
fn wait(asked: u64, rate: u64, elapsed: Duration) -> Duration {
    if rate == 0 {
        return Duration::ZERO;
    }
    let due = Duration::from_micros((u128::from(asked) * 1_000_000 / u128::from(rate)) as u64);
    due.saturating_sub(elapsed).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_scrub_waits_for_what_is_over_its_rate_and_for_nothing_without_one() {
        let second = Duration::from_secs(1);
        assert_eq!(wait(1000, 0, Duration::ZERO), Duration::ZERO);
        assert_eq!(wait(1000, 2000, Duration::ZERO), second / 2);
        assert_eq!(wait(1000, 2000, second), Duration::ZERO);
        assert_eq!(wait(1 << 40, 1, Duration::ZERO), second, "it would not notice that it is stopped");
    }
}
