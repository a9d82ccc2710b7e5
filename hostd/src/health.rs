//! Whether containers do their work: asking them again and again, and what follows from the answers.
//!
//! ```text
//! follow(what runs) ──► one task an instance: wait ──► probe ──► Checks::note ──► changed? wake the reconciler
//! judge(seen)       ◄── what the checks say now
//! ```
//!
//! What is known of an instance lives in memory and begins anew with each start of its program, and of the daemon: nothing
//! that runs is stopped because its first answers are missing.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bennu_api::Happening;
use bennu_manifests::model::{Container, Health as HealthCheck, Manifest, Readiness};
use bennu_planner::{Health, Instance, Seen, State};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::core::Core;
use crate::host::Probing;

/// How long checks wait for each other until one has held: a quarter of the time since the first one, so that no more than that is lost, between
/// these and no longer than later ones do.
const EAGER_FIRST: Duration = Duration::from_millis(100);
const EAGER_LAST: Duration = Duration::from_secs(1);

/// What the checks of one instance have said since its program was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Checks {
    health: Health,
    ready: bool,
    failures: u64,
    /// When the last failure that counts was, after the start.
    counted: Option<Duration>,
}

impl Checks {
    fn begin(container: &Container) -> Self {
        let health = if container.health.is_some() { Health::Starting } else { Health::Unchecked };
        Self { health, ..Self::default() }
    }

    /// Takes the answer of a health check in that was made so long after the start. Until it holds for the first time the
    /// checks come faster than declared, and only those that are due count.
    fn note_health(&mut self, check: &HealthCheck, held: bool, age: Duration) {
        if held {
            (self.health, self.failures, self.counted) = (Health::Healthy, 0, None);
            return;
        }
        let starting = self.health == Health::Starting;
        let due = match self.counted {
            Some(last) => last + Duration::from_millis(check.interval_ms),
            None => Duration::from_millis(check.start_period_ms.max(check.interval_ms)),
        };
        if starting && age < due {
            return;
        }
        self.failures += 1;
        self.counted = Some(age);
        if self.failures >= check.retries {
            self.health = Health::Unhealthy;
        }
    }

    /// How long to wait before the next health check, so long after the first one.
    fn pause(&self, check: &HealthCheck, age: Duration) -> Duration {
        let interval = Duration::from_millis(check.interval_ms);
        if self.health == Health::Starting { interval.min(eager(age)) } else { interval }
    }
}

/// How long to wait for the next check where none has held, so long after the first one.
fn eager(age: Duration) -> Duration {
    (age / 4).clamp(EAGER_FIRST, EAGER_LAST)
}

/// One instance that is followed.
#[derive(Debug)]
struct Followed {
    /// The number of its first process: another one is another start.
    process: u32,
    /// What it is asked, to notice that something else is to be asked.
    asked: (Option<HealthCheck>, Option<Readiness>),
    since: Instant,
    checks: Checks,
    task: Option<AbortHandle>,
}

impl Drop for Followed {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// All instances that are followed.
#[derive(Debug, Default)]
pub struct Monitor {
    followed: Mutex<BTreeMap<Instance, Followed>>,
    /// Wakes the reconciler: an instance became healthy, ready, or ill.
    pub changed: Notify,
}

impl Monitor {
    fn followed(&self) -> MutexGuard<'_, BTreeMap<Instance, Followed>> {
        self.followed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says of each instance what its checks say.
    pub fn judge(&self, manifest: &Manifest, seen: &mut Seen) {
        let followed = self.followed();
        for (instance, seen) in &mut seen.instances {
            let Some(container) = manifest.containers.get(&instance.name) else { continue };
            let deadline = container.update.as_ref().map(|update| Duration::from_millis(update.deadline_ms));
            match followed.get(instance) {
                Some(known) if seen.state == State::Running => {
                    (seen.health, seen.ready) = (known.checks.health, known.checks.ready);
                    seen.overdue = deadline.is_some_and(|deadline| known.since.elapsed() > deadline);
                }
                _ => seen.health = Checks::begin(container).health,
            }
        }
    }

    /// What the health check of an instance says.
    pub fn health(&self, instance: &Instance) -> Health {
        self.followed().get(instance).map(|known| known.checks.health).unwrap_or_default()
    }

    /// Follows what runs now, and nothing else. What was started again begins anew.
    pub fn follow(core: &Arc<Core>, manifest: &Manifest, seen: &Seen) {
        let mut followed = core.health.followed();
        followed.retain(|instance, _| seen.instances.contains_key(instance));
        for (instance, now) in &seen.instances {
            let Some(container) = manifest.containers.get(&instance.name) else { continue };
            // An instance that is being started or waits for its next start keeps its time, and is asked nothing.
            if now.state == State::Running && Self::follow_one(core, &mut followed, instance, container) {
                continue;
            }
            if let Some(known) = followed.get_mut(instance) {
                known.task.take().inspect(AbortHandle::abort);
                known.checks = Checks::begin(container);
                known.process = 0;
            }
        }
    }

    /// Follows an instance that was just started, which the next look would find a moment later.
    pub fn begin(core: &Arc<Core>, manifest: &Manifest, instance: &Instance) {
        if let Some(container) = manifest.containers.get(&instance.name) {
            Self::follow_one(core, &mut core.health.followed(), instance, container);
        }
    }

    /// Follows an instance, and says whether it has a process to be followed.
    fn follow_one(
        core: &Arc<Core>,
        followed: &mut BTreeMap<Instance, Followed>,
        instance: &Instance,
        container: &Container,
    ) -> bool {
        let asked = (container.health.clone(), container.readiness.clone());
        // Of one that is asked nothing it does not matter which process it is.
        let process = if asked == (None, None) { Some(0) } else { core.host.process(instance) };
        let Some(process) = process else { return false };
        let known = followed.get(instance);
        if known.is_some_and(|known| known.process == process && known.asked == asked) {
            return true;
        }
        let since = known.map_or_else(Instant::now, |known| known.since);
        let checks = Checks::begin(container);
        let (core, follower) = (core.clone(), Follower { instance: instance.clone(), asked: asked.clone() });
        let task = (asked != (None, None)).then(|| tokio::spawn(follower.run(core)).abort_handle());
        followed.insert(instance.clone(), Followed { process, asked, since, checks, task });
        true
    }

    /// Forgets what the checks of an instance said; its next start is asked anew.
    pub fn forget(&self, instance: &Instance) {
        self.followed().remove(instance);
    }

    /// Takes an answer in; says whether it changed anything that others look at.
    fn note(&self, instance: &Instance, take: impl FnOnce(&mut Checks)) -> Option<(Checks, Checks)> {
        let mut followed = self.followed();
        let checks = &mut followed.get_mut(instance)?.checks;
        let before = checks.clone();
        take(checks);
        let after = checks.clone();
        if (before.health, before.ready) != (after.health, after.ready) {
            self.changed.notify_one();
        }
        Some((before, after))
    }
}

/// Asks one instance until it is aborted.
struct Follower {
    instance: Instance,
    asked: (Option<HealthCheck>, Option<Readiness>),
}

impl Follower {
    async fn run(self, core: Arc<Core>) {
        let begun = Instant::now();
        let (health, readiness) = &self.asked;
        let readiness = async {
            let Some(check) = readiness else { return };
            let timeout = Duration::from_millis(check.timeout_ms);
            while core.host.probe(&self.instance, Probing { probe: check.probe(), timeout }).await.is_err() {
                tokio::time::sleep(Duration::from_millis(check.interval_ms).min(eager(begun.elapsed())))
                    .await;
            }
            core.health.note(&self.instance, |checks| checks.ready = true);
        };
        let health = async {
            let Some(check) = health else { return };
            let timeout = Duration::from_millis(check.timeout_ms);
            loop {
                let answer = core.host.probe(&self.instance, Probing { probe: check.probe(), timeout }).await;
                let noted = core.health.note(&self.instance, |checks| {
                    checks.note_health(check, answer.is_ok(), begun.elapsed());
                });
                let Some((before, after)) = noted else { return };
                if before.health != after.health {
                    let (instance, reason) = (self.instance.to_string(), answer.err().unwrap_or_default());
                    core.events.add(Happening::Health { instance, health: after.health, reason });
                }
                tokio::time::sleep(after.pause(check, begun.elapsed())).await;
            }
        };
        tokio::join!(readiness, health);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> HealthCheck {
        let image = format!("registry.example/web:1@sha256:{}", "ab".repeat(32));
        let text = format!(
            "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             [container.web]\nimage = \"{image}\"\nhealth = {{ tcp = 80, {text} }}\n"
        );
        let manifest = bennu_manifests::check(text.as_bytes()).expect("valid");
        manifest.containers.into_values().next().and_then(|container| container.health).expect("a check")
    }

    fn starting() -> Checks {
        Checks { health: Health::Starting, ..Checks::default() }
    }

    /// What the health is after each answer, given as seconds after the start and whether it held.
    fn told(check: &HealthCheck, answers: &[(u64, bool)]) -> Vec<Health> {
        let mut checks = starting();
        let note = |&(second, held): &(u64, bool)| {
            checks.note_health(check, held, Duration::from_secs(second));
            checks.health
        };
        answers.iter().map(note).collect()
    }

    #[test]
    fn failures_in_the_start_period_do_not_count() {
        use Health::{Healthy, Starting, Unhealthy};
        let check = check("interval = \"10s\", retries = 2, start-period = \"60s\"");
        let answers = [(1, false), (30, false), (59, false), (60, false), (61, false), (70, false)];
        assert_eq!(told(&check, &answers), [Starting, Starting, Starting, Starting, Starting, Unhealthy]);
        assert_eq!(told(&check, &[(1, false), (2, true)]), [Starting, Healthy]);
    }

    #[test]
    fn as_many_failures_in_a_row_as_declared_make_it_ill_and_one_success_makes_it_well() {
        use Health::{Healthy, Unhealthy};
        let check = check("interval = \"10s\", retries = 3");
        let answers = [
            (1, true),
            (11, false),
            (21, false),
            (31, true),
            (41, false),
            (51, false),
            (61, false),
            (71, true),
        ];
        let expected = [Healthy, Healthy, Healthy, Healthy, Healthy, Healthy, Unhealthy, Healthy];
        assert_eq!(told(&check, &answers), expected);
    }

    #[test]
    fn eager_checks_count_no_faster_than_declared_ones() {
        use Health::{Starting, Unhealthy};
        let check = check("interval = \"10s\", retries = 2");
        let answers = [(0, false), (1, false), (9, false), (10, false), (19, false), (20, false)];
        let expected = [Starting, Starting, Starting, Starting, Starting, Unhealthy];
        assert_eq!(told(&check, &answers), expected, "as if the first one were an interval after the start");
    }

    #[test]
    fn checks_come_fast_until_one_holds() {
        let (mut check, well) =
            (check("interval = \"10s\""), Checks { health: Health::Healthy, ..starting() });
        let at = |check: &HealthCheck, age| starting().pause(check, Duration::from_millis(age)).as_millis();
        assert_eq!([0, 400, 2000, 4000, 60_000].map(|age| at(&check, age)), [100, 100, 500, 1000, 1000]);
        assert_eq!(well.pause(&check, Duration::ZERO), Duration::from_secs(10));
        check.interval_ms = 300;
        assert_eq!([0, 1000, 2000].map(|age| at(&check, age)), [100, 250, 300]);
    }
}
