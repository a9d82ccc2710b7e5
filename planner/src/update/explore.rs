//! Every order of events, boots that fail, and power cuts at every write, up to a depth: the host is always on its way to the
//! generation that was kept or to the one that is tried, and can always boot.
//!
//! The model is a machine with a disk (pointer, rejections, boot partition), a loader that counts as the Boot Loader Specification
//! says, and the procedures of the daemon in the order of their writes. Each write may be the last one before the power goes.

use std::collections::{BTreeSet, HashSet};

use bennu_manifests::model::Digest;
use jiff::Timestamp;

use super::*;

/// The roots of generations 1 to 5: the first was kept in the beginning, the second never comes up, the third does, the fourth has
/// that of the first, and the fifth that of the third.
const fn root(generation: u64) -> Digest {
    let byte = match generation {
        4 => 1,
        5 => 3,
        other => other as u8,
    };
    Digest::from_bytes([byte; 32])
}

/// The generation whose OS never comes up.
const BROKEN: u64 = 2;
/// How many events follow each other; there is nothing new to see behind it.
const DEPTH: usize = 60;

/// What survives a power cut.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Disk {
    pointer: Pointer,
    rejected: BTreeSet<u64>,
    entries: BTreeSet<(EntryName, Digest)>,
    images: BTreeSet<Digest>,
    /// The newest generation that was accepted.
    newest: u64,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Machine {
    disk: Disk,
    /// The root that runs; none where the power is off.
    running: Option<Digest>,
    /// Whether the loader has started what is tried since its round began.
    started: bool,
}

/// The power went.
struct Cut;

/// The writes that are left until the power goes.
struct Power(usize);

impl Power {
    fn write(&mut self, disk: &mut Disk, write: impl FnOnce(&mut Disk)) -> Result<(), Cut> {
        self.0 = self.0.checked_sub(1).ok_or(Cut)?;
        write(disk);
        Ok(())
    }
}

#[derive(Debug, Clone, Copy)]
enum Event {
    /// The power comes, or comes back; the loader starts something.
    Boot,
    /// The same, but the OS does not stay up long enough for the daemon to start.
    BootDies,
    /// A manifest is accepted.
    Accept,
    /// All gates are open.
    Advance,
    /// The trial ends well.
    Keep,
    /// The generation on trial does not do its work.
    Reject,
    /// Somebody wants the generation before back.
    RollBack,
    /// The pause after a round of boots is over, or the clock has jumped there, and all gates are open.
    PauseOver,
}

const EVENTS: [Event; 8] = [
    Event::Boot,
    Event::BootDies,
    Event::Accept,
    Event::Advance,
    Event::Keep,
    Event::Reject,
    Event::RollBack,
    Event::PauseOver,
];

impl Disk {
    fn new() -> Self {
        Self {
            pointer: Pointer { active: Some(1), kept: Some(1), ..Pointer::default() },
            rejected: BTreeSet::new(),
            entries: BTreeSet::from([(EntryName::last_resort(0), root(1))]),
            images: BTreeSet::from([root(1)]),
            newest: 1,
        }
    }

    fn entries(&self) -> Vec<Entry> {
        self.entries.iter().map(|(name, root)| Entry { name: *name, root: Some(*root) }).collect()
    }

    /// What the loader starts: entries without tries come last, then the highest version comes first.
    fn choice(&self) -> Option<(EntryName, Digest)> {
        let able = self.entries.iter().filter(|(_, root)| self.images.contains(root));
        able.copied().max_by_key(|(name, _)| (name.tries.is_none_or(|(left, _)| left > 0), name.generation))
    }
}

impl Machine {
    /// The loader takes a try away and starts an OS, and where that comes up the daemon starts.
    fn boot(&mut self, power: &mut Power) -> Result<(), Cut> {
        let chosen = self.load(power)?;
        if chosen == root(BROKEN) {
            return Ok(());
        }
        self.running = Some(chosen);
        self.begin(chosen, power)
    }

    fn load(&mut self, power: &mut Power) -> Result<Digest, Cut> {
        self.running = None;
        let (name, chosen) = self.disk.choice().expect("there is always something to boot");
        self.started |= self.disk.pointer.attempt.as_ref().is_some_and(|tried| tried.os == Some(chosen));
        if let Some((left, done)) = name.tries {
            let counted = EntryName { tries: Some((left.saturating_sub(1), done + 1)), ..name };
            power.write(&mut self.disk, |disk| {
                disk.entries.remove(&(name, chosen));
                disk.entries.insert((counted, chosen));
            })?;
        }
        Ok(chosen)
    }

    fn begin(&mut self, running: Digest, power: &mut Power) -> Result<(), Cut> {
        let (rejected, entries) = (self.disk.rejected.clone(), self.disk.entries());
        let found =
            Found { pointer: &self.disk.pointer, running, entries: &entries, now: Timestamp::UNIX_EPOCH };
        let Start { meaning, attempt, next, goes_back } =
            found.start(|number| rejected.contains(&number), |number| Some(root(number)));
        let counted = matches!(meaning, AfterBoot::Again { .. } | AfterBoot::GiveUp { .. });
        assert!(self.started || !counted, "a round is counted in which nothing was started: {self:?}");
        let rejected = match (&meaning, attempt) {
            (AfterBoot::GiveUp { .. }, Some(attempt)) => Some(attempt.generation),
            _ => None,
        };
        if let Some(rejected) = rejected {
            power.write(&mut self.disk, |disk| {
                disk.rejected.insert(rejected);
            })?;
        }
        power.write(&mut self.disk, |disk| disk.pointer = next)?;
        self.started &= !counted;
        self.write_entries(Rearm::Nothing, power)?;
        if goes_back {
            return self.boot(power);
        }
        self.write_entries(Rearm::Running, power)?;
        let waits = self.disk.pointer.attempt.as_ref().filter(|attempt| attempt.waits());
        let entry = |(name, _): &(EntryName, Digest)| waits.is_some_and(|a| a.generation == name.generation);
        assert!(!self.disk.entries.iter().any(entry), "what waits may be started: {self:?}");
        let own = self.disk.pointer.active.map(root);
        assert_eq!(own, Some(running), "what is active does not run on its own OS: {self:?}");
        Ok(())
    }

    fn write_entries(&mut self, rearm: Rearm, power: &mut Power) -> Result<(), Cut> {
        let Some(running) = self.running else { return Ok(()) };
        let wanted = self.disk.pointer.wanted_entries(running, rearm, |number| Some(root(number)));
        for step in esp_steps(&wanted, &self.disk.entries(), &self.disk.images) {
            power.write(&mut self.disk, |disk| match step {
                EspStep::WriteImage(root) => {
                    disk.images.insert(root);
                }
                EspStep::WriteEntry(name, root) => {
                    disk.entries.insert((name, root));
                }
                EspStep::RemoveEntry(name) => disk.entries.retain(|(entry, _)| *entry != name),
                EspStep::RemoveImage(root) => {
                    disk.images.remove(&root);
                }
            })?;
        }
        Ok(())
    }

    fn carry_out(&mut self, event: Event, power: &mut Power) -> Result<(), Cut> {
        let pointer = self.disk.pointer.clone();
        let back = pointer.kept.map(root) != self.running;
        let tried = pointer.attempt.as_ref().filter(|attempt| Some(attempt.generation) == pointer.pending);
        let waits = tried.is_some_and(Attempt::waits);
        match (event, self.running) {
            (Event::Boot, _) => self.boot(power),
            (Event::BootDies, _) => self.load(power).map(drop),
            (_, None) => Ok(()),
            (Event::Accept, _) if self.disk.newest < 5 => power.write(&mut self.disk, |disk| {
                disk.newest += 1;
                disk.pointer = pointer.accepted(disk.newest);
            }),
            (Event::Advance, Some(running)) if !waits => self.advance(running, power),
            (Event::PauseOver, Some(running)) if waits => self.advance(running, power),
            (Event::Keep, _) if pointer.on_trial().is_some() => {
                let own = pointer.active.map(root);
                assert_eq!(own, self.running, "what is kept does not run on its own OS: {self:?}");
                power.write(&mut self.disk, |disk| disk.pointer = pointer.keeping())?;
                self.write_entries(Rearm::Running, power)
            }
            (Event::Reject, _) => match pointer.on_trial().cloned() {
                Some(attempt) => {
                    power.write(&mut self.disk, |disk| {
                        disk.rejected.insert(attempt.generation);
                    })?;
                    self.leave(pointer.taken_back(back), power)
                }
                None => Ok(()),
            },
            (Event::RollBack, _) => match (pointer.attempt.clone(), pointer.previous, pointer.active) {
                (Some(attempt), ..) => {
                    power.write(&mut self.disk, |disk| {
                        disk.rejected.insert(attempt.generation);
                    })?;
                    self.leave(pointer.taken_back(back), power)
                }
                (None, Some(previous), Some(active)) => {
                    power.write(&mut self.disk, |disk| {
                        disk.rejected.insert(active);
                    })?;
                    self.leave(pointer.fallen_back(previous, Some(root(previous)) != self.running), power)
                }
                _ => Ok(()),
            },
            (Event::Accept | Event::Advance | Event::PauseOver | Event::Keep, _) => Ok(()),
        }
    }

    fn advance(&mut self, running: Digest, power: &mut Power) -> Result<(), Cut> {
        let pointer = self.disk.pointer.clone();
        let Some(pending) = pointer.pending else { return Ok(()) };
        let before = pointer.attempt.clone().filter(|attempt| attempt.generation == pending);
        assert!(!self.disk.rejected.contains(&pending), "a rejected generation is tried");
        let kept = pointer.kept.map(root);
        let rounds = before.map_or(0, |before| before.rounds);
        let attempt = Attempt { rounds, ..Attempt::at(pending, Some(root(pending)), Some(running), kept) };
        if attempt.os.is_some() {
            power.write(&mut self.disk, |disk| disk.pointer = pointer.clone().attempting(attempt.clone()))?;
            self.started = false;
            self.write_entries(Rearm::Attempt, power)?;
        }
        if root(pending) != running {
            return self.boot(power);
        }
        let pointer = self.disk.pointer.clone();
        let attempt = Attempt { arrived: true, ..attempt };
        power.write(&mut self.disk, |disk| disk.pointer = pointer.activated(pending, Some(attempt)))
    }

    fn leave(&mut self, pointer: Pointer, power: &mut Power) -> Result<(), Cut> {
        let restarts = pointer.returning;
        power.write(&mut self.disk, |disk| disk.pointer = pointer)?;
        self.write_entries(Rearm::Running, power)?;
        if restarts { self.boot(power) } else { Ok(()) }
    }

    /// All machines that one event may lead to: the power stays, or goes before any of the writes.
    fn after(&self, event: Event) -> Vec<Self> {
        let mut all = Vec::new();
        for writes in 0.. {
            let mut machine = self.clone();
            let done = machine.carry_out(event, &mut Power(writes)).is_ok();
            if !done {
                machine.running = None;
            }
            all.push(machine);
            if done {
                return all;
            }
        }
        unreachable!("each procedure ends")
    }

    fn check(&self) {
        let Disk { pointer, rejected, entries, images, .. } = &self.disk;
        let kept = pointer.kept.expect("something was kept in the beginning");
        let way =
            |wanted: Digest| entries.iter().any(|(_, root)| *root == wanted) && images.contains(&wanted);
        assert!(way(root(kept)), "there is no way to boot what was kept: {self:?}");
        let tried = pointer.attempt.as_ref().map(|attempt| attempt.generation);
        let active = pointer.active.expect("something is active");
        assert!(active == kept || Some(active) == tried, "neither kept nor tried is active: {self:?}");
        assert!(
            !rejected.contains(&kept) || pointer.previous.is_some(),
            "what is kept was rejected: {self:?}"
        );
    }

    /// However often it boots from now on, it ends with an OS that comes up, without anybody's help.
    fn comes_up(&self) {
        let mut machine = self.clone();
        for _ in 0..2 * TRIES + 2 {
            if machine.running.is_some() {
                return;
            }
            machine.boot(&mut Power(usize::MAX)).unwrap_or_else(|Cut| unreachable!("the power stays"));
        }
        panic!("it does not come up by itself: {self:?}");
    }
}

#[test]
fn f01_whatever_happens_a_host_can_boot_and_is_what_was_kept_or_what_is_tried() {
    let start = Machine { disk: Disk::new(), running: Some(root(1)), started: false };
    let mut known = HashSet::from([start.clone()]);
    let mut edge = vec![start];
    for _ in 0..DEPTH {
        let mut next = Vec::new();
        for machine in &edge {
            for event in EVENTS {
                for after in machine.after(event) {
                    if known.insert(after.clone()) {
                        after.check();
                        after.comes_up();
                        next.push(after);
                    }
                }
            }
        }
        edge = next;
    }
    assert!(edge.is_empty(), "there is more to see behind this depth");
    assert!(known.len() > 1_000, "only {} states were seen: the model does nothing", known.len());
    let seen = |what: &str, holds: &dyn Fn(&Machine) -> bool| {
        assert!(known.iter().any(holds), "no state was seen in which {what}");
    };
    seen("the broken one is rejected", &|m| m.disk.rejected.contains(&BROKEN));
    seen("the third one is kept", &|m| m.disk.pointer.kept == Some(3));
    seen("an attempt waits for its next round", &|m| {
        m.disk.pointer.attempt.as_ref().is_some_and(|a| a.rounds == 1)
    });
}
