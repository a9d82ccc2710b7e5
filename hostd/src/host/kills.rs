//! How often the kernel ended a program of an instance because memory ran out.
//!
//! ```text
//! the kernel ──► memory.events of the unit's group ──┐
//!                   │ the unit ends: ExecStopPost    ├──► of(): all since the instance was made
//!                   └──► kills.json of the instance ─┘
//! ```
//!
//! A unit's control group goes away with each end of what ran in it, also when systemd starts it again at once. So the unit
//! itself writes down what was counted, as the last thing that it does while its group is there still: no kill is missed,
//! whether a daemon runs at that moment or not.

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bennu_planner::Instance;
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::{Deserialize, Serialize};
use tokio::net::unix::pipe;

use super::observe::names;
use super::stats::keyed;
use super::{Host, record, unit};

/// What the daemon's program is told to do when a unit ends: [`note`], with the instance's directory and its group.
pub const NOTE: &str = "--note-kills";

/// Where it is written down, in the directory of an instance.
const FILE: &str = "kills.json";

/// What the kernel counts in a group (Linux, `Documentation/admin-guide/cgroup-v2.rst`, "memory.events").
const EVENTS: &str = "memory.events";

/// Programs of an instance that the kernel ended because memory ran out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kills {
    /// The instance.
    pub instance: Instance,
    /// How many, since it was made.
    pub count: u64,
    /// The memory that it may use, in bytes; `None` is without limit, where the whole host ran out of it.
    pub limit: Option<u64>,
    /// Whether the instance is not there any more.
    pub gone: bool,
}

/// What was counted of an instance.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Counted {
    /// All of it.
    pub(super) count: u64,
    /// The memory that it may use.
    pub(super) limit: Option<u64>,
    /// The group that was looked at last, and how much of it was counted there.
    last: Option<(u64, u64)>,
}

/// One control group, as it is now.
#[derive(Debug, Clone, Copy)]
struct Group {
    /// Its number: the kernel gives it to no other group of the same boot.
    id: u64,
    kills: u64,
    limit: Option<u64>,
}

impl Group {
    fn look(path: &Path) -> Option<Self> {
        let id = std::fs::metadata(path).ok()?.ino();
        let kills = keyed(&std::fs::read_to_string(path.join(EVENTS)).ok()?, "oom_kill");
        // "max" is no number, and no limit.
        let limit = std::fs::read_to_string(path.join("memory.max")).ok()?.trim().parse().ok();
        Some(Self { id, kills, limit })
    }
}

impl Counted {
    /// With what a group has counted, which may be known in part already.
    fn with(self, group: Group) -> Self {
        let known = self.last.filter(|(id, _)| *id == group.id).map_or(0, |(_, kills)| kills);
        let count = self.count.saturating_add(group.kills.saturating_sub(known));
        Self { count, limit: group.limit, last: Some((group.id, group.kills.max(known))) }
    }
}

/// Writes down what was counted of an instance whose unit ends.
///
/// # Errors
/// Where it can't be written.
pub fn note(dir: &Path, group: &Path) -> io::Result<()> {
    let Some(group) = Group::look(group) else { return Ok(()) };
    let file = dir.join(FILE);
    record::write(&file, &record::read::<Counted>(&file)?.unwrap_or_default().with(group))
}

/// What was counted of an instance, whose directory this is; what can't be read counts as nothing.
pub(super) fn of(dir: &Path, instance: &Instance) -> Counted {
    in_group(dir, &unit::group(instance))
}

fn in_group(dir: &Path, group: &Path) -> Counted {
    let written: Counted = record::read(&dir.join(FILE)).ok().flatten().unwrap_or_default();
    Group::look(group).map_or(written, |group| written.with(group))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Wakes whoever tells of kills.
#[derive(Debug)]
pub(super) struct Watch {
    /// A queue of inotify(7), which is read like a pipe.
    queue: pipe::Receiver,
    /// What was counted of instances that are there, until the kernel tells of more.
    counted: Mutex<BTreeMap<Instance, Counted>>,
    /// What was counted of instances that are gone, until it is asked for.
    gone: Mutex<Vec<Kills>>,
}

impl Watch {
    pub(super) fn new() -> io::Result<Self> {
        let queue = inotify::init(CreateFlags::CLOEXEC | CreateFlags::NONBLOCK)?;
        let queue = pipe::Receiver::from_owned_fd_unchecked(queue)?;
        Ok(Self { queue, counted: Mutex::default(), gone: Mutex::default() })
    }

    /// Keeps what was counted of an instance that goes away, to be told of.
    pub(super) fn keep(&self, instance: &Instance, counted: Counted) {
        let Counted { count, limit, .. } = counted;
        if count > 0 {
            let kills = Kills { instance: instance.clone(), count, limit, gone: true };
            lock(&self.gone).push(kills);
        }
    }

    /// From now on, also what happens in this group wakes, where the kernel takes that on. To ask for what is watched already changes nothing.
    fn follow(&self, dir: &Path, group: &Path) -> bool {
        let group = inotify::add_watch(&self.queue, group.join(EVENTS), WatchFlags::MODIFY);
        let dir = inotify::add_watch(&self.queue, dir, WatchFlags::MOVED_TO | WatchFlags::CLOSE_WRITE);
        group.is_ok() && dir.is_ok()
    }

    /// What is counted of an instance in this directory, whose control group is at `group`. It is read again only where the kernel told of
    /// something since, or the group is another one: a host with many containers is looked at often.
    fn counted(&self, instance: &Instance, dir: &Path, group: &Path) -> Counted {
        let is_of = |counted: &&Counted, id| counted.last.is_some_and(|(of, _)| of == id);
        let id = std::fs::metadata(group).ok().map(|group| group.ino());
        let mut all = lock(&self.counted);
        if let Some(known) = id.and_then(|id| all.get(instance).filter(|counted| is_of(counted, id))) {
            return *known;
        }
        // Before it is read: what happens from here on is told of. Where it is not, it is found at the next look.
        let is_told = self.follow(dir, group);
        let counted = in_group(dir, group);
        match is_told {
            true => all.insert(instance.clone(), counted),
            false => all.remove(instance),
        };
        counted
    }

    /// Takes what is in the queue, and says whether any of it counts.
    fn drain(&self) -> io::Result<bool> {
        let mut buffer = [0; 4096];
        let mut counts = false;
        loop {
            match self.queue.try_read(&mut buffer) {
                Ok(read) => counts |= files(&buffer[..read]).any(is_of_kills),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(counts),
                Err(error) => return Err(error),
            }
        }
    }

    async fn changed(&self) -> io::Result<()> {
        let told = loop {
            match self.queue.readable().await.and_then(|()| self.drain()) {
                Ok(false) => {}
                other => break other.map(drop),
            }
        };
        // Also where it is not known what was told.
        lock(&self.counted).clear();
        told
    }
}

/// Whether it tells of a kill, the end of a unit, or its start, which has a new group.
fn is_of_kills(file: &[u8]) -> bool {
    // What is watched itself, and not in a directory, has no name.
    file.is_empty() || file == FILE.as_bytes() || file == unit::PID_FILE.as_bytes()
}

/// The names in messages of the kernel (inotify(7), `struct inotify_event`: three numbers, the length of the name with the zero
/// bytes behind it, and the name).
fn files(mut messages: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = messages.get(12..)?.split_first_chunk()?;
        let end = 16 + u32::from_ne_bytes(*length) as usize;
        let name = messages.get(16..end)?;
        messages = &messages[end..];
        Some(name.split(|byte| *byte == 0).next().unwrap_or_default())
    })
}

impl Host {
    /// Programs of containers that the kernel ended for want of memory: first those of instances that are gone, each of them
    /// told only once, then those of all that are there.
    ///
    /// # Errors
    /// Where it can't be read which instances there are.
    pub fn kills(&self) -> io::Result<Vec<Kills>> {
        let there = names(&self.paths.instances())?;
        lock(&self.kills.counted).retain(|instance, _| there.contains(instance));
        let mut kills = std::mem::take(&mut *lock(&self.kills.gone));
        kills.extend(there.into_iter().map(|instance| {
            let dir = self.paths.instance(&instance);
            let Counted { count, limit, .. } = self.kills.counted(&instance, &dir, &unit::group(&instance));
            Kills { instance, count, limit, gone: false }
        }));
        Ok(kills)
    }

    /// Waits until [`Host::kills`] may have more to tell.
    ///
    /// # Errors
    /// Where the kernel tells no more.
    pub async fn kills_may_have_changed(&self) -> io::Result<()> {
        self.kills.changed().await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(dir: &Path, name: &str, kills: u64) -> std::path::PathBuf {
        let path = dir.join(name);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(path.join(EVENTS), format!("low 0\noom 9\noom_kill {kills}\n")).unwrap();
        std::fs::write(path.join("memory.max"), "33554432\n").unwrap();
        path
    }

    fn written(dir: &Path) -> Counted {
        record::read(&dir.join(FILE)).unwrap().unwrap()
    }

    #[test]
    fn kills_are_counted_over_all_starts_and_each_of_them_once() {
        let dir = tempfile::tempdir().unwrap();
        let first = group(dir.path(), "first", 2);
        note(dir.path(), &first).unwrap();
        note(dir.path(), &first).unwrap();
        assert_eq!((written(dir.path()).count, written(dir.path()).limit), (2, Some(32 << 20)));
        group(dir.path(), "first", 3);
        note(dir.path(), &first).unwrap();
        assert_eq!(written(dir.path()).count, 3, "the third one in the same group");
        note(dir.path(), &group(dir.path(), "second", 1)).unwrap();
        assert_eq!(written(dir.path()).count, 4, "a new group begins at nothing");
        note(dir.path(), &dir.path().join("none")).unwrap();
        assert_eq!(written(dir.path()).count, 4, "and one that is not there says nothing");
    }

    #[test]
    fn a_group_without_a_limit_has_none() {
        let dir = tempfile::tempdir().unwrap();
        let group = group(dir.path(), "free", 1);
        std::fs::write(group.join("memory.max"), "max\n").unwrap();
        note(dir.path(), &group).unwrap();
        assert_eq!((written(dir.path()).count, written(dir.path()).limit), (1, None));
    }

    #[tokio::test]
    async fn what_was_counted_is_read_again_where_the_kernel_told_of_more_or_the_group_is_another_one() {
        let dir = tempfile::tempdir().unwrap();
        let (home, watch, instance) =
            (dir.path().join("web-3"), Watch::new().unwrap(), "web-3".parse().unwrap());
        std::fs::create_dir(&home).unwrap();
        let first = group(dir.path(), "first", 1);
        let count = |group: &Path| watch.counted(&instance, &home, group).count;
        assert_eq!(count(&first), 1);
        std::fs::write(first.join(EVENTS), "oom_kill 2\n").unwrap();
        assert_eq!(count(&first), 1, "it was not told yet");
        watch.changed().await.unwrap();
        assert_eq!(count(&first), 2);
        assert_eq!(count(&group(dir.path(), "second", 5)), 5);
        assert_eq!(count(&dir.path().join("none")), 0, "it ended, and nothing was written down");
    }

    #[tokio::test]
    async fn a_kill_and_the_end_of_a_unit_wake_and_other_files_do_not() {
        let dir = tempfile::tempdir().unwrap();
        let (instance, group) = (dir.path().join("web-3"), group(dir.path(), "group", 0));
        std::fs::create_dir(&instance).unwrap();
        let watch = Watch::new().unwrap();
        watch.follow(&instance, &group);
        std::fs::write(instance.join("exec-0.json"), "{}").unwrap();
        watch.queue.readable().await.unwrap();
        assert!(!watch.drain().unwrap(), "a command that is run is no kill");
        std::fs::write(group.join(EVENTS), "oom_kill 1\n").unwrap();
        watch.changed().await.unwrap();
        note(&instance, &group).unwrap();
        watch.changed().await.unwrap();
        assert!(!watch.drain().unwrap(), "and each of them wakes once");
    }
}
