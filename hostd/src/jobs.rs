//! When jobs run, and what became of them.
//!
//! What is remembered of a job is one small file, written before the job starts and after it has ended: `jobs/NAME.json` on
//! the state partition. When a job is due is decided from that file, the manifest and the time alone.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bennu_api::{JobRun, Outcome};
use bennu_image_store::durable;
use bennu_manifests::model::{Digest, Job, Manifest, Name, When};
use bennu_planner::{Instance, Seen, State, fingerprint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::calendar::{next_time, zone};

/// The largest file about a job, in bytes; a job remembers at most 100 runs.
const MAX_FILE: u64 = 1 << 20;

/// What is remembered of one job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Memory {
    /// Since when it is known: times of its calendar before that are none of it.
    known_since: Option<Timestamp>,
    /// When it was started last.
    started: Option<Timestamp>,
    /// The boot in which it was started last.
    boot: Option<String>,
    /// What it was made from when it ended last.
    ended_as: Option<Digest>,
    /// What it was made from when it ended last with code 0.
    completed_as: Option<Digest>,
    /// The run that goes on.
    running: Option<Running>,
    /// How often in a row it could not be started.
    #[serde(default)]
    failed_starts: u64,
    /// Past runs, the oldest first.
    runs: Vec<JobRun>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Running {
    instance: Instance,
    fingerprint: Digest,
}

/// All jobs of this host.
#[derive(Debug)]
pub struct Jobs {
    dir: PathBuf,
    boot: String,
    known: BTreeMap<Name, Memory>,
}

/// What there is to do for jobs.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Due {
    /// Those that are to run now.
    pub now: BTreeSet<Name>,
    /// Those that have done their work, as they are declared now; for a job that runs at boot, in this one.
    pub completed: BTreeSet<Name>,
    /// When the next one is.
    pub next: Option<Timestamp>,
    /// Those that have ended since it was looked last, with what became of them.
    pub ended: Vec<(Name, JobRun)>,
}

impl Jobs {
    /// Reads what is remembered in `dir`, which is made. A file that can't be read counts for none, with a warning: a job that
    /// runs once more is better than a host that does not start.
    ///
    /// # Errors
    /// Where the directory can't be made or listed.
    pub fn open(dir: &Path, boot: &str) -> std::io::Result<Self> {
        std::fs::create_dir_all(dir)?;
        let mut known = BTreeMap::new();
        for entry in std::fs::read_dir(dir)? {
            let path = entry?.path();
            let name =
                path.file_name().and_then(|name| name.to_str()).and_then(|name| name.strip_suffix(".json"));
            let Some(name) = name.and_then(|name| name.parse::<Name>().ok()) else { continue };
            match read(&path) {
                Ok(memory) => drop(known.insert(name, memory)),
                Err(error) => tracing::warn!(%error, "read what is known of job {name}"),
            }
        }
        Ok(Self { dir: dir.to_owned(), boot: boot.to_owned(), known })
    }

    /// Takes in what has ended, and says what is due. Everything that it says is on disk when this returns.
    ///
    /// # Errors
    /// Where a file can't be written.
    pub fn look(&mut self, manifest: &Manifest, seen: &Seen, now: Timestamp) -> std::io::Result<Due> {
        let mut due = Due::default();
        for (name, job) in &manifest.jobs {
            let mut memory = self.known.get(name).cloned().unwrap_or_default();
            memory.known_since.get_or_insert(now);
            if let Some(run) = end(&mut memory, seen, now) {
                due.ended.push((name.clone(), run.clone()));
                add(&mut memory, run, job);
            }
            let made_from = fingerprint(manifest, &job.container);
            let there = seen.instances.keys().any(|instance| instance.name == *name);
            match next(&memory, job, zone(manifest), &made_from, &self.boot) {
                Some(at) if at <= now && !there => drop(due.now.insert(name.clone())),
                Some(at) if at > now => due.next = Some(due.next.map_or(at, |next| next.min(at))),
                _ => {}
            }
            if has_completed(&memory, job, &made_from, &self.boot) {
                due.completed.insert(name.clone());
            }
            self.remember(name, memory)?;
        }
        // What is not declared any more is forgotten, or it would count as known when it is declared again.
        let gone: Vec<Name> =
            self.known.keys().filter(|name| !manifest.jobs.contains_key(*name)).cloned().collect();
        for name in gone {
            durable::remove(&self.path(&name))?;
            self.known.remove(&name);
        }
        Ok(due)
    }

    /// Writes down that a job is about to be started, which is before it is.
    ///
    /// # Errors
    /// Where it can't be written. Then it must not be started.
    pub fn starting(
        &mut self,
        instance: &Instance,
        fingerprint: Digest,
        now: Timestamp,
    ) -> std::io::Result<()> {
        let mut memory = self.known.get(&instance.name).cloned().unwrap_or_default();
        memory.started = Some(now);
        memory.boot = Some(self.boot.clone());
        memory.running = Some(Running { instance: instance.clone(), fingerprint });
        self.remember(&instance.name, memory)
    }

    /// Writes down that a job was not started after all. It is due again as often as it may fail; then this counts as a run
    /// that failed, which is answered.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn not_started(&mut self, name: &Name, job: &Job, now: Timestamp) -> std::io::Result<Option<JobRun>> {
        let mut memory = self.known.get(name).cloned().unwrap_or_default();
        let Some(running) = memory.running.take() else { return Ok(None) };
        let given_up = memory.failed_starts >= job.retries;
        memory.failed_starts = if given_up { 0 } else { memory.failed_starts + 1 };
        let run = given_up.then(|| {
            memory.ended_as = Some(running.fingerprint);
            let (instance, began) = (running.instance.to_string(), memory.started.unwrap_or(now));
            JobRun { instance, began, ended: now, outcome: Outcome::Failed }
        });
        if let Some(run) = &run {
            add(&mut memory, run.clone(), job);
        }
        self.remember(name, memory)?;
        Ok(run)
    }

    /// The past runs of each job, the oldest first.
    pub fn runs(&self) -> BTreeMap<Name, Vec<JobRun>> {
        self.known.iter().map(|(name, memory)| (name.clone(), memory.runs.clone())).collect()
    }

    fn remember(&mut self, name: &Name, memory: Memory) -> std::io::Result<()> {
        if self.known.get(name) == Some(&memory) {
            return Ok(());
        }
        durable::replace(&self.path(name), &serde_json::to_vec(&memory)?)?;
        self.known.insert(name.clone(), memory);
        Ok(())
    }

    fn path(&self, name: &Name) -> PathBuf {
        self.dir.join(format!("{name}.json"))
    }
}

/// Remembers a run, and forgets the oldest where there are more than are to be remembered.
fn add(memory: &mut Memory, run: JobRun, job: &Job) {
    memory.runs.push(run);
    let excess = memory.runs.len().saturating_sub(usize::try_from(job.history).unwrap_or(usize::MAX));
    memory.runs.drain(..excess);
}

/// Takes the end of a run in, if there is one. A run of which nothing is left was cut off: by a power cut, or by somebody.
fn end(memory: &mut Memory, seen: &Seen, now: Timestamp) -> Option<JobRun> {
    let running = memory.running.as_ref()?;
    let state = seen.instances.get(&running.instance).map(|seen| seen.state);
    if state.is_some() {
        memory.failed_starts = 0;
    }
    let outcome = match state {
        Some(State::Starting | State::Running | State::Restarting) => return None,
        Some(State::Completed) => Outcome::Completed,
        Some(State::Failed) => Outcome::Failed,
        Some(State::Stopped) | None => Outcome::Interrupted,
    };
    let running = memory.running.take()?;
    // What was cut off has not been done.
    if outcome != Outcome::Interrupted {
        memory.ended_as = Some(running.fingerprint);
    }
    memory.completed_as = Some(running.fingerprint).filter(|_| outcome == Outcome::Completed);
    let began = memory.started.unwrap_or(now);
    Some(JobRun { instance: running.instance.to_string(), began, ended: now, outcome })
}

/// Whether the work of a job is done.
fn has_completed(memory: &Memory, job: &Job, made_from: &Digest, boot: &str) -> bool {
    memory.running.is_none()
        && memory.completed_as.as_ref() == Some(made_from)
        && (job.when != When::Boot || memory.boot.as_deref() == Some(boot))
}

/// When a job is to run next; `None` where it is not to run again, or runs now.
fn next(memory: &Memory, job: &Job, zone: &str, made_from: &Digest, boot: &str) -> Option<Timestamp> {
    let known = memory.known_since?;
    if memory.running.is_some() {
        return None;
    }
    if memory.failed_starts > 0 {
        return Some(memory.started.unwrap_or(known));
    }
    match &job.when {
        When::Once => (memory.ended_as.as_ref() != Some(made_from)).then_some(known),
        When::Boot => (memory.boot.as_deref() != Some(boot)).then_some(known),
        When::Calendar(expression) => {
            next_time(expression, zone, memory.started.map_or(known, |started| started.max(known)))
        }
    }
}

fn read(path: &Path) -> std::io::Result<Memory> {
    use std::io::Read as _;
    let mut bytes = Vec::new();
    std::fs::File::open(path)?.take(MAX_FILE).read_to_end(&mut bytes)?;
    Ok(serde_json::from_slice(&bytes)?)
}

#[cfg(test)]
mod tests {
    use bennu_planner::{Health, SeenInstance};

    use super::*;

    fn manifest(when: &str) -> Manifest {
        let image = format!("registry.example/job:1@sha256:{}", "ab".repeat(32));
        let text = format!(
            "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2036-01-01T00:00:00Z\n\
             allow-empty = true\n[job.backup]\nimage = \"{image}\"\nwhen = \"{when}\"\nhistory = 2\n"
        );
        bennu_manifests::check(text.as_bytes()).expect("valid")
    }

    fn at(text: &str) -> Timestamp {
        format!("2026-01-{text}Z").parse().expect("a time")
    }

    fn name() -> Name {
        "backup".parse().expect("a name")
    }

    /// The host while the job is in this state; `None` is a host without it.
    fn host(manifest: &Manifest, state: Option<State>) -> Seen {
        let mut seen = Seen::default();
        let container = &manifest.jobs[&name()].container;
        seen.instances.extend(state.map(|state| {
            let made = SeenInstance {
                fingerprint: fingerprint(manifest, container),
                image: container.image.clone(),
                addresses: BTreeMap::new(),
                addresses6: BTreeMap::new(),
                state,
                damaged: false,
                health: Health::Unchecked,
                ready: false,
                overdue: false,
                contents: Digest::from_bytes([0; 32]),
            };
            ("backup-1".parse().expect("an instance"), made)
        }));
        seen
    }

    /// Looks, and starts what is due; says whether it was.
    fn round(jobs: &mut Jobs, manifest: &Manifest, state: Option<State>, now: Timestamp) -> bool {
        let due = jobs.look(manifest, &host(manifest, state), now).expect("written");
        let is_due = due.now.contains(&name());
        if is_due {
            let made_from = fingerprint(manifest, &manifest.jobs[&name()].container);
            jobs.starting(&"backup-1".parse().expect("an instance"), made_from, now).expect("written");
        }
        is_due
    }

    #[test]
    fn a_job_on_a_calendar_runs_at_its_times_and_once_for_those_that_were_missed() {
        let (dir, manifest) = (tempfile::tempdir().expect("a folder"), manifest("daily"));
        let mut jobs = Jobs::open(dir.path(), "boot").expect("opened");
        assert!(!round(&mut jobs, &manifest, None, at("05T12:00:00")), "its first time is the next midnight");
        assert!(round(&mut jobs, &manifest, None, at("06T00:00:01")));
        assert!(!round(&mut jobs, &manifest, Some(State::Running), at("06T00:01:00")));
        assert!(!round(&mut jobs, &manifest, Some(State::Completed), at("06T00:02:00")));
        // The host was off for three days.
        let mut jobs = Jobs::open(dir.path(), "later").expect("opened");
        assert!(round(&mut jobs, &manifest, None, at("09T08:00:00")));
        assert!(!round(&mut jobs, &manifest, Some(State::Failed), at("09T09:00:00")));
        let due = jobs.look(&manifest, &host(&manifest, None), at("09T09:01:00")).expect("written");
        assert_eq!(due.next, Some(at("10T00:00:00")));
        let outcomes: Vec<_> = jobs.runs()[&name()].iter().map(|run| run.outcome).collect();
        assert_eq!(outcomes, [Outcome::Completed, Outcome::Failed]);
    }

    #[test]
    fn a_job_that_runs_once_runs_again_when_it_changed_or_was_cut_off_and_not_else() {
        let (dir, first) = (tempfile::tempdir().expect("a folder"), manifest("once"));
        let mut jobs = Jobs::open(dir.path(), "boot").expect("opened");
        assert!(round(&mut jobs, &first, None, at("05T12:00:00")));
        // The power went while it ran.
        let mut jobs = Jobs::open(dir.path(), "next").expect("opened");
        assert!(round(&mut jobs, &first, None, at("05T13:00:00")));
        assert_eq!(jobs.runs()[&name()][0].outcome, Outcome::Interrupted);
        assert!(!round(&mut jobs, &first, Some(State::Completed), at("05T14:00:00")));
        assert!(!round(&mut jobs, &first, None, at("05T15:00:00")));
        let due = jobs.look(&first, &host(&first, None), at("05T15:30:00")).expect("written");
        assert!(due.completed.contains(&name()), "its work is done");
        let mut changed = first.clone();
        if let Some(job) = changed.jobs.get_mut(&name()) {
            job.container.command = Some(vec!["other".to_owned()]);
        }
        assert!(round(&mut jobs, &changed, None, at("05T16:00:00")));
    }

    #[test]
    fn a_job_that_cannot_be_started_is_tried_again_as_often_as_it_may_fail() {
        let dir = tempfile::tempdir().expect("a folder");
        for (when, first) in [("daily", "06T00:00:01"), ("boot", "05T12:00:00"), ("once", "05T12:00:00")] {
            let mut manifest = manifest(when);
            let job = manifest.jobs.get_mut(&name()).expect("declared");
            job.retries = 1;
            let job = job.clone();
            let dir = dir.path().join(when);
            let mut jobs = Jobs::open(&dir, "boot").expect("opened");
            let _known_since = jobs.look(&manifest, &Seen::default(), at("05T12:00:00")).expect("written");
            assert!(round(&mut jobs, &manifest, None, at(first)), "{when}");
            assert_eq!(jobs.not_started(&name(), &job, at("06T00:00:02")).expect("written"), None, "{when}");
            // A restart of the daemon makes no difference.
            let mut jobs = Jobs::open(&dir, "boot").expect("opened");
            assert!(round(&mut jobs, &manifest, None, at("06T00:00:03")), "{when}: not at its next time");
            let run = jobs.not_started(&name(), &job, at("06T00:00:04")).expect("written");
            assert_eq!(run.expect("given up").outcome, Outcome::Failed, "{when}");
            assert!(!round(&mut jobs, &manifest, None, at("06T00:00:05")), "{when}");
            assert_eq!(jobs.runs()[&name()].len(), 1, "{when}");
        }
    }

    #[test]
    fn a_job_at_boot_runs_once_a_boot() {
        let (dir, manifest) = (tempfile::tempdir().expect("a folder"), manifest("boot"));
        for boot in ["first", "second"] {
            let mut jobs = Jobs::open(dir.path(), boot).expect("opened");
            let before = jobs.look(&manifest, &host(&manifest, None), at("05T11:00:00")).expect("written");
            assert!(!before.completed.contains(&name()), "not in this boot: {boot}");
            assert!(round(&mut jobs, &manifest, None, at("05T12:00:00")), "{boot}");
            assert!(!round(&mut jobs, &manifest, Some(State::Completed), at("05T12:00:01")), "{boot}");
            assert!(!round(&mut jobs, &manifest, None, at("05T12:00:02")), "{boot}");
        }
    }

    #[test]
    fn a_damaged_memory_is_as_none_and_one_of_a_job_that_is_gone_is_removed() {
        let (dir, manifest) = (tempfile::tempdir().expect("a folder"), manifest("once"));
        std::fs::write(dir.path().join("backup.json"), "{").expect("written");
        let mut jobs = Jobs::open(dir.path(), "boot").expect("opened");
        assert!(round(&mut jobs, &manifest, None, at("05T12:00:00")));
        let mut without = manifest.clone();
        without.jobs.clear();
        jobs.look(&without, &Seen::default(), at("05T12:00:01")).expect("written");
        assert_eq!(std::fs::read_dir(dir.path()).expect("listed").count(), 0);
    }
}
