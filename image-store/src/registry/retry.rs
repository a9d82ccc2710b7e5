//! Asking again.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, SystemTime};

use super::client::Client;
use super::error::RegistryError;
use super::http::Response;

/// How often something is asked before it counts as failed.
pub const MAX_TRIES: u32 = 5;

impl Client {
    /// Asks until it works, is refused, or was tried [`MAX_TRIES`] times, with growing pauses.
    pub(crate) async fn retrying<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        attempt: impl Fn() -> F,
    ) -> Result<T, RegistryError> {
        let mut tried = 1;
        loop {
            match attempt().await {
                Err(error) if error.is_retryable() && tried < MAX_TRIES => {
                    self.pause(tried, &error).await;
                    tried += 1;
                }
                other => return other,
            }
        }
    }

    /// Waits after so many tries, the last of which failed like this.
    pub(super) async fn pause(&self, tried: u32, error: &RegistryError) {
        let chance = RandomState::new().build_hasher().finish();
        let asked = error.retry_after().map(|asked| asked.min(self.options.patience.retry_after));
        let pause = pause(self.options.first_pause, tried, asked, chance);
        tracing::warn!(%error, tried, ?pause, "trying again");
        tokio::time::sleep(pause).await;
    }
}

/// The pause after so many tries: doubled each time, with up to half of it added by `chance`, so that many hosts that failed
/// together do not come back together.
fn pause(first: Duration, tried: u32, asked: Option<Duration>, chance: u64) -> Duration {
    let base = first * 2u32.saturating_pow(tried.saturating_sub(1).min(10));
    let base = base.max(asked.unwrap_or_default());
    base + base.mul_f64((chance % 1024) as f64 / 2048.0)
}

/// How long a server wants to be left alone.
pub(super) fn asked_of(response: &Response) -> Option<Duration> {
    retry_after(response.header("retry-after")?, SystemTime::now())
}

/// Reads `Retry-After` (RFC 9110, section 10.2.3): seconds, or the date when it may be tried again. A date that has passed is no
/// wait at all, and what is neither says nothing.
fn retry_after(text: &str, now: SystemTime) -> Option<Duration> {
    let text = text.trim();
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        // More digits than fit are more than we wait in any case.
        return Some(text.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let then = httpdate::parse_http_date(text).ok()?;
    Some(then.duration_since(now).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_and_are_as_long_as_a_server_asks_for() {
        let pause = |tried, asked, chance| pause(Duration::from_secs(1), tried, asked, chance).as_millis();
        assert_eq!([1, 2, 3, 4].map(|tried| pause(tried, None, 0)), [1000, 2000, 4000, 8000]);
        assert_eq!(pause(1, None, 512), 1250);
        assert_eq!(pause(1, Some(Duration::from_secs(7)), 0), 7000);
        assert_eq!(pause(4, Some(Duration::from_secs(7)), 0), 8000);
        assert!(pause(u32::MAX, None, u64::MAX) <= 1_536_000);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = httpdate::parse_http_date("Sun, 06 Nov 1994 08:49:37 GMT").expect("a date");
        let read = |text: &str| retry_after(text, now).map(|wait| wait.as_secs());
        assert_eq!(read("0"), Some(0));
        assert_eq!(read(" 120 "), Some(120));
        assert_eq!(read("99999999999999999999999"), Some(u64::MAX));
        assert_eq!(read("Sun, 06 Nov 1994 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sunday, 06-Nov-94 08:50:37 GMT"), Some(60));
        assert_eq!(read("Sun Nov  6 08:50:37 1994"), Some(60));
        assert_eq!(read("Sun, 06 Nov 1994 08:49:36 GMT"), Some(0));
        for junk in ["", "-1", "1.5", "soon", "0x10", "Sun, 99 Nov 1994 08:50:37 GMT"] {
            assert_eq!(read(junk), None, "{junk}");
        }
    }
}
