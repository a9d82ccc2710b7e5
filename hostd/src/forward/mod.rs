//! Logs on their way to receivers that a manifest names: syslog, OpenTelemetry, or lines of JSON.
//!
//! ```text
//! journal ──► queue (bounded; oldest go first) ──► sender ──► receiver
//!    ▲        deliver                              send: syslog, json
//!    └── place: behind what was delivered, on disk
//! ```
//!
//! Each receiver has a task of its own, which reads the journal behind what it delivered last, also after a restart of the
//! daemon. While the receiver takes lines, no more is read than fits; while it is away, reading goes on, and what does not
//! fit is dropped and counted. A line arrives at least once, as long as the journal and the queue hold it.

mod deliver;
mod json;
mod place;
mod queue;
#[cfg(test)]
mod rsyslog;
mod send;
mod syslog;
mod target;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bennu_api::{ForwardStatus, Happening};
use bennu_manifests::model::{Manifest, Name};
use futures_util::StreamExt as _;
use tokio::task::JoinHandle;

use crate::core::{Core, chain};
use deliver::{Work, deliver};
use place::Place;
use queue::Queue;
use send::Sender;
use target::{Declared, Target};

/// What is told of a receiver, by the task that knows.
type Told = Arc<Mutex<ForwardStatus>>;

/// The receivers that lines go to now.
#[derive(Debug, Default)]
pub struct Forwards(Mutex<BTreeMap<Name, Running>>);

#[derive(Debug)]
struct Running {
    declared: Declared,
    told: Told,
    task: JoinHandle<()>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Forwards {
    /// Sends to the receivers of a manifest, and to no others any more. What did not change goes on.
    pub(crate) fn follow(core: &Arc<Core>, manifest: &Manifest) {
        let mut running = core.forwards.lock();
        let declared: BTreeMap<&Name, Declared> = Declared::all(manifest).collect();
        running.retain(|name, _| {
            let goes_on = declared.contains_key(name);
            if !goes_on {
                // Declared anew later, it begins anew.
                Place::forget(&core.host.forward_place(name));
            }
            goes_on
        });
        for (name, declared) in declared {
            if running.get(name).is_some_and(|running| running.declared == declared) {
                continue;
            }
            // The one before it ends first: both would write down where they are.
            running.remove(name);
            let told = Told::default();
            let task = match declared.target() {
                Ok(target) => tokio::spawn(run(core.clone(), name.clone(), target, &declared, told.clone())),
                Err(error) => {
                    tell(core, name, &told, Some(chain(&error)));
                    tokio::spawn(async {})
                }
            };
            running.insert(name.clone(), Running { declared, told, task });
        }
    }

    /// What became of the lines for each receiver.
    pub fn status(&self) -> BTreeMap<Name, ForwardStatus> {
        let told = |running: &Running| lock(&running.told).clone();
        self.lock().iter().map(|(name, running)| (name.clone(), told(running))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<Name, Running>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn lock(told: &Told) -> MutexGuard<'_, ForwardStatus> {
    told.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes whether a receiver takes lines, and makes an event of it where that changed.
fn tell(core: &Core, name: &Name, told: &Told, failure: Option<String>) {
    let changed = {
        let mut told = lock(told);
        let changed = told.failure.is_some() != failure.is_some();
        told.failure.clone_from(&failure);
        changed
    };
    if changed {
        core.events.add(Happening::Forward { name: name.clone(), failure });
    }
}

fn run(
    core: Arc<Core>,
    name: Name,
    target: Target,
    declared: &Declared,
    told: Told,
) -> impl Future<Output = ()> + Send + 'static + use<> {
    let buffer = usize::try_from(declared.forward.buffer).unwrap_or(usize::MAX);
    let host = core.identity.provision.name.to_string();
    let place = Place::open(core.host.forward_place(&name));
    let work =
        Work { sender: Sender::new(target, host), queue: Queue::new(buffer), place, told: told.clone() };
    async move {
        let open = |from: &_| Ok(core.host.follow_logs(from)?.boxed());
        deliver(work, open, |failure| tell(&core, &name, &told, failure)).await;
    }
}

#[cfg(test)]
pub(in crate::forward) mod tests {
    use bennu_api::LogLine;

    /// A line of a container.
    pub(in crate::forward) fn line(message: &str) -> LogLine {
        LogLine {
            time: "2026-03-01T12:00:00.000001Z".parse().unwrap(),
            container: "web".into(),
            instance: "web-3".into(),
            message: message.into(),
            priority: Some(6),
            generation: Some(3),
            image: Some("sha256:ab".into()),
            pid: Some(77),
            fields: Default::default(),
        }
    }
}
