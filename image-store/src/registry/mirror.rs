//! Where a repository is: at its mirrors, in their order, and in the end at the registry itself.
//!
//! A mirror is there to help. One that does not is passed over for a while, and nothing that it does makes a pull fail: what it
//! gives is checked like everything else, and what it gives wrongly comes from the next place.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::client::{Client, Repository};
use super::error::RegistryError;
use super::retry::MAX_TRIES;

/// How long a mirror is passed over that could not be reached, was slow, or answered with an error.
const FAILED: Duration = Duration::from_secs(60);
/// How long one is that gave something else than what it was asked for.
const LIED: Duration = Duration::from_secs(10 * 60);

/// Where to ask.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) repository: Repository,
    /// The mirror, as it was named to us; `None` is the registry itself.
    pub(super) mirror: Option<String>,
}

/// The mirrors that are passed over.
#[derive(Debug, Default)]
pub(super) struct Marks(BTreeMap<String, Mark>);

#[derive(Debug, Clone, Copy)]
struct Mark {
    until: Instant,
    lied: bool,
}

impl Marks {
    /// Notes what a mirror did instead of helping. That it does not have something, or not for us, says nothing about the rest.
    fn note(&mut self, mirror: &str, error: &RegistryError, now: Instant) {
        let (time, lied) = match error {
            RegistryError::NotFound { .. } | RegistryError::Unauthorized { .. } => return,
            error if error.is_refusal() => (LIED, true),
            _ => (FAILED, false),
        };
        let mark = self.0.entry(mirror.to_owned()).or_insert(Mark { until: now, lied });
        mark.lied = lied || (mark.lied && mark.until > now);
        mark.until = mark.until.max(now + time);
    }

    /// Whether a mirror is asked now. Where everybody else has failed, `again`, one that has failed before is better than none.
    fn is_asked(&self, mirror: &str, again: bool, now: Instant) -> bool {
        self.0.get(mirror).is_none_or(|mark| mark.until <= now || (again && !mark.lied))
    }
}

impl Place {
    /// The registry itself.
    pub(super) fn own(repository: &Repository) -> Self {
        Self { repository: repository.clone(), mirror: None }
    }

    /// The same repository at a mirror, `HOST[:PORT][/PATH]`.
    fn at(mirror: &str, repository: &Repository) -> Self {
        let (registry, path) = mirror.split_once('/').unwrap_or((mirror, ""));
        let name = match path {
            "" => repository.name.clone(),
            path => format!("{path}/{}", repository.name),
        };
        let repository = Repository { registry: registry.to_owned(), name };
        Self { repository, mirror: Some(mirror.to_owned()) }
    }
}

impl Client {
    /// Where to ask now, in order; the last is the registry itself. `again` says that all of them have failed before.
    pub(super) fn places(&self, repository: &Repository, again: bool) -> Vec<Place> {
        let mirrors = self.options.mirrors.get(&repository.registry).map_or(&[][..], Vec::as_slice);
        let marks = self.marks.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = mirrors.iter().filter(|mirror| marks.is_asked(mirror, again, Instant::now()));
        asked.map(|mirror| Place::at(mirror, repository)).chain([Place::own(repository)]).collect()
    }

    /// Notes that a mirror did not help.
    pub(super) fn pass_over(&self, mirror: &str, error: &RegistryError) {
        tracing::warn!(mirror, %error, "a mirror is passed over");
        self.marks.lock().unwrap_or_else(PoisonError::into_inner).note(mirror, error, Instant::now());
    }

    /// Asks one place after the other until one gives it, or the registry itself refuses it or has failed [`MAX_TRIES`] times.
    pub(super) async fn anywhere<T, F: Future<Output = Result<T, RegistryError>>>(
        &self,
        repository: &Repository,
        attempt: impl Fn(Place) -> F,
    ) -> Result<T, RegistryError> {
        let mut tried = 1;
        loop {
            let mut last = None;
            for place in self.places(repository, tried > 1) {
                let mirror = place.mirror.clone();
                match (attempt(place).await, mirror) {
                    (Ok(found), _) => return Ok(found),
                    (Err(error), Some(mirror)) => self.pass_over(&mirror, &error),
                    (Err(error), None) => last = Some(error),
                }
            }
            let error = last.expect("the registry itself is always asked");
            if !error.is_retryable() || tried == MAX_TRIES {
                return Err(error);
            }
            self.pause(tried, &error).await;
            tried += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lie() -> RegistryError {
        RegistryError::TooLarge { what: String::new(), limit: 0 }
    }

    fn failure() -> RegistryError {
        RegistryError::Status { what: String::new(), status: 503, retry_after: None }
    }

    #[test]
    fn a_repository_at_a_mirror_lies_below_its_path() {
        let repository = Repository { registry: "docker.io".to_owned(), name: "library/nginx".to_owned() };
        let at = |mirror: &str| {
            let place = Place::at(mirror, &repository).repository;
            format!("{} {}", place.registry, place.name)
        };
        assert_eq!(at("mirror.example:5000"), "mirror.example:5000 library/nginx");
        assert_eq!(at("mirror.example/hub/x"), "mirror.example hub/x/library/nginx");
    }

    #[test]
    fn a_mirror_that_failed_is_asked_again_after_a_while_or_as_the_last_hope() {
        let (mut marks, now) = (Marks::default(), Instant::now());
        assert!(marks.is_asked("m", false, now));
        marks.note("m", &RegistryError::NotFound { what: String::new() }, now);
        assert!(marks.is_asked("m", false, now), "it only does not have it");
        marks.note("m", &failure(), now);
        assert!(!marks.is_asked("m", false, now) && marks.is_asked("m", true, now));
        assert!(marks.is_asked("other", false, now));
        assert!(marks.is_asked("m", false, now + FAILED));
    }

    #[test]
    fn a_mirror_that_lied_is_no_hope_and_is_not_forgiven_for_failing() {
        let (mut marks, now) = (Marks::default(), Instant::now());
        marks.note("m", &lie(), now);
        marks.note("m", &failure(), now);
        assert!(!marks.is_asked("m", true, now + FAILED));
        assert!(marks.is_asked("m", false, now + LIED));
    }
}
