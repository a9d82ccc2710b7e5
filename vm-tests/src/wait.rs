//! Waiting on a condition, with a deadline.

use std::fmt::Debug;
use std::thread;
use std::time::{Duration, Instant};

use crate::Error;

/// How long to stay away between two looks. The deadline bounds the whole.
const PAUSE: Duration = Duration::from_millis(100);

/// The variable that says how many times longer than usual to wait, for machines that are busy with other work.
const PATIENCE: &str = "BENNU_PATIENCE";

/// `within`, as often as `BENNU_PATIENCE` says: a whole number from 1 to 100, else 1.
///
/// # Panics
/// If the variable holds something else: a typing error must not look like a slow machine.
#[must_use]
pub fn patiently(within: Duration) -> Duration {
    let Ok(text) = std::env::var(PATIENCE) else { return within };
    let times = text.parse().ok().filter(|times| (1..=100).contains(times));
    within * times.unwrap_or_else(|| panic!("{PATIENCE} must be a whole number from 1 to 100, not {text:?}"))
}

/// Looks again and again until `look` returns `Ok(Some(_))`.
///
/// `look` may fail: the error counts as "not yet" and is named when the deadline passes. `None` says that nothing
/// is known yet.
///
/// # Errors
/// [`Error::Deadline`] with what was last seen; [`Error::Gone`] as soon as `look` returns it, because nothing can
/// change any more.
pub fn until<T>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let within = patiently(within);
    let begun = Instant::now();
    loop {
        let last = match look() {
            Ok(Some(value)) => return Ok(value),
            Ok(None) => "not yet".to_owned(),
            Err(gone @ Error::Gone { .. }) => return Err(gone),
            Err(error) => chain(&error),
        };
        if begun.elapsed() >= within {
            return Err(Error::Deadline { what: what.to_owned(), after: within, last });
        }
        thread::sleep(PAUSE);
    }
}

/// Looks until `good` holds for what `look` returns, which is named when the deadline passes.
///
/// # Errors
/// As [`until`].
pub fn until_good<T: Debug>(
    what: &str,
    within: Duration,
    mut look: impl FnMut() -> Result<T, Error>,
    good: impl Fn(&T) -> bool,
) -> Result<T, Error> {
    until(what, within, || {
        let value = look()?;
        if good(&value) {
            return Ok(Some(value));
        }
        Err(Error::Answer { who: what.to_owned(), text: format!("{value:?}") })
    })
}

/// An error and its causes on one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_true_is_returned() {
        let mut looks = 0;
        let seen = until_good(
            "three looks",
            Duration::from_secs(10),
            || {
                Ok({
                    looks += 1;
                    looks
                })
            },
            |n| *n == 3,
        );
        assert_eq!(seen.expect("three looks come"), 3);
    }

    #[test]
    fn what_does_not_come_true_is_an_error_that_names_what_was_seen() {
        let error = until_good("five", Duration::ZERO, || Ok(4), |n| *n == 5).expect_err("4 is not 5");
        assert!(
            error.to_string().contains("waited 0 s for five") && error.to_string().contains('4'),
            "{error}"
        );
    }

    #[test]
    fn a_machine_that_is_gone_is_not_waited_for() {
        let gone = || Err(Error::Gone { status: "exit 1".into(), serial: String::new() });
        let error = until::<()>("anything", Duration::from_secs(3600), gone).expect_err("it is gone");
        assert!(matches!(error, Error::Gone { .. }));
    }
}
