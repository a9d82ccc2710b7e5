//! What a machine does with its boot partition: which entry the loader starts, and what the daemon makes of it then.
//!
//! The loader's rules are those of the UAPI group's "Boot Loader Specification", type 1 entries, with "Boot counting".

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use bennu_manifests::model::Digest;
use bennu_planner::update::{
    AfterBoot, Entry, EntryName, EspStep, Found, Pointer, Rearm, Start, TRIES, esp_steps,
};
use jiff::Timestamp;

use super::fat::{Fat, Node};
use super::view::View;

/// Where the boot partition begins, in bytes from the beginning of the disk.
pub const BEGIN: u64 = 1 << 20;
/// Where it ends.
pub const END: u64 = BEGIN + (512 << 20);

/// A boot partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootPartition {
    /// The entries.
    pub entries: Vec<Entry>,
    /// The boot images, by the root that their name says; none where one can't be read to its end.
    pub images: BTreeMap<Digest, Option<Vec<u8>>>,
    /// Files of entries that are none of ours.
    pub strangers: Vec<String>,
}

impl BootPartition {
    /// Reads it from a disk.
    ///
    /// # Errors
    /// Where the disk can't be read, or the partition holds no file system.
    pub fn read(disk: &View<'_>) -> io::Result<Self> {
        let fat = Fat::open(disk, BEGIN)?;
        let mut boot = Self { entries: Vec::new(), images: BTreeMap::new(), strangers: Vec::new() };
        for node in fat.list(&["loader", "entries"])?.into_iter().filter(|node| node.name.ends_with(".conf"))
        {
            let text = fat.bytes(&node)?.and_then(|bytes| String::from_utf8(bytes).ok());
            let root = text.as_deref().and_then(Entry::root_of);
            match EntryName::parse(&node.name) {
                Some(name) => boot.entries.push(Entry { name, root }),
                None => boot.strangers.push(node.name),
            }
        }
        for node in fat.list(&["EFI", "bennu"])? {
            if let Some(root) = root_of_image(&node) {
                boot.images.insert(root, fat.bytes(&node)?);
            }
        }
        Ok(boot)
    }

    /// The entry that the loader starts: those without tries come last, then the highest version comes first. One that names no boot
    /// image that is there is passed over.
    pub fn choice(&self) -> Option<(EntryName, Digest)> {
        let able = self.entries.iter().filter_map(|entry| Some((entry.name, entry.root?)));
        let able = able.filter(|(_, root)| self.images.contains_key(root));
        let tries = |name: &EntryName| name.tries.map_or(u32::MAX, |(left, _)| left);
        able.max_by_key(|(name, _)| (tries(name) > 0, name.generation, tries(name)))
    }

    /// What is wrong with it, where `images` are the boot images that there are to be.
    pub fn faults(&self, images: &BTreeMap<Digest, Vec<u8>>) -> Vec<String> {
        let mut faults = Vec::new();
        let named = |root: &Digest| self.entries.iter().any(|entry| entry.root == Some(*root));
        for (root, bytes) in &self.images {
            // A cut in a rename may leave an empty file, which the daemon takes for none; no entry may lead there.
            if bytes.as_ref().is_some_and(Vec::is_empty) && !named(root) {
                continue;
            }
            if bytes.as_deref() != images.get(root).map(Vec::as_slice) {
                faults.push(format!("the boot image for {root} is not whole"));
            }
        }
        for name in &self.strangers {
            faults.push(format!("{name} is an entry that nobody wrote"));
        }
        if self.choice().is_none() {
            faults.push(format!("there is nothing to boot: {:?}", self.entries));
        }
        faults
    }

    fn carry_out(&mut self, step: EspStep) {
        match step {
            EspStep::WriteImage(root) => drop(self.images.insert(root, Some(Vec::new()))),
            EspStep::WriteEntry(name, root) => {
                self.entries.retain(|entry| entry.name != name);
                self.entries.push(Entry { name, root: Some(root) });
            }
            EspStep::RemoveEntry(name) => self.entries.retain(|entry| entry.name != name),
            EspStep::RemoveImage(root) => drop(self.images.remove(&root)),
        }
    }
}

fn root_of_image(node: &Node) -> Option<Digest> {
    format!("sha256:{}", node.name.strip_suffix(".efi")?).parse().ok()
}

/// A machine that has lost its power: what it has written down for updates, and its boot partition.
#[derive(Debug, Clone)]
pub struct Machine {
    /// Which generations count.
    pub pointer: Pointer,
    /// Those that were rejected.
    pub rejected: BTreeSet<u64>,
    /// The roots that generations run on.
    pub roots: BTreeMap<u64, Digest>,
    /// The boot partition.
    pub boot: BootPartition,
}

impl Machine {
    /// Boots it until it need not start again by itself, and says which root runs then. Every boot goes well.
    ///
    /// # Errors
    /// In words, where nothing boots, it starts again for ever, or it takes the cut for a fault of an OS.
    pub fn boot(&mut self) -> Result<Digest, String> {
        for _ in 0..2 * TRIES {
            let (name, running) = self.boot.choice().ok_or("there is nothing to boot")?;
            if let Some((left, done)) = name.tries {
                let counted = EntryName { tries: Some((left.saturating_sub(1), done + 1)), ..name };
                self.boot.carry_out(EspStep::RemoveEntry(name));
                self.boot.carry_out(EspStep::WriteEntry(counted, running));
            }
            if !self.start(running)? {
                return Ok(running);
            }
        }
        Err(format!("it starts again and again: {:?}", self.pointer))
    }

    /// The daemon starts; whether the machine has to start again is returned.
    fn start(&mut self, running: Digest) -> Result<bool, String> {
        let found = Found {
            pointer: &self.pointer,
            running,
            entries: &self.boot.entries,
            now: Timestamp::UNIX_EPOCH,
        };
        let (rejected, roots) = (&self.rejected, &self.roots);
        let root = |number| roots.get(&number).copied();
        let Start { meaning, next, goes_back, .. } = found.start(|number| rejected.contains(&number), root);
        if let AfterBoot::GiveUp { .. } | AfterBoot::FellBack { .. } = meaning {
            return Err(format!("the cut is taken for a fault: {meaning:?}"));
        }
        let wanted = next.wanted_entries(running, Rearm::Running, root);
        let images = self.boot.images.keys().copied().collect();
        for step in esp_steps(&wanted, &self.boot.entries, &images) {
            self.boot.carry_out(step);
        }
        self.pointer = next;
        Ok(goes_back)
    }
}

#[cfg(test)]
mod tests {
    use bennu_planner::update::Attempt;

    use super::*;

    const OLD: Digest = Digest::from_bytes([1; 32]);
    const NEW: Digest = Digest::from_bytes([2; 32]);

    fn boot(entries: &[(&str, Option<Digest>)]) -> BootPartition {
        let entry = |(file, root): &(&str, Option<Digest>)| Entry {
            name: EntryName::parse(file).expect("one of ours"),
            root: *root,
        };
        let images = [OLD, NEW].map(|root| (root, Some(vec![1]))).into();
        BootPartition { entries: entries.iter().map(entry).collect(), images, strangers: Vec::new() }
    }

    #[test]
    fn the_loader_starts_the_newest_entry_that_has_tries_left_and_a_boot_image() {
        let last = ("bennu-0.conf", Some(OLD));
        let choice = |entries: &[_]| boot(entries).choice().map(|(name, _)| name.to_string());
        assert_eq!(choice(&[last, ("bennu-2+3.conf", Some(NEW))]).as_deref(), Some("bennu-2+3.conf"));
        assert_eq!(choice(&[last, ("bennu-2+0-3.conf", Some(NEW))]).as_deref(), Some("bennu-0.conf"));
        assert_eq!(choice(&[last, ("bennu-2+3.conf", None)]).as_deref(), Some("bennu-0.conf"));
        let missing = Digest::from_bytes([3; 32]);
        assert_eq!(choice(&[last, ("bennu-2+3.conf", Some(missing))]).as_deref(), Some("bennu-0.conf"));
        assert_eq!(choice(&[]), None);
    }

    #[test]
    fn an_image_that_is_not_whole_and_a_stranger_are_faults() {
        let images = BTreeMap::from([(OLD, vec![1]), (NEW, vec![1])]);
        let mut partition = boot(&[("bennu-0.conf", Some(OLD))]);
        assert_eq!(partition.faults(&images), Vec::<String>::new());
        partition.images.insert(NEW, Some(vec![2]));
        assert_eq!(partition.faults(&images).len(), 1);
        partition.images.insert(NEW, None);
        partition.strangers.push("other.conf".into());
        assert_eq!(partition.faults(&images).len(), 2);
    }

    #[test]
    fn an_attempt_that_is_armed_comes_up_and_one_without_an_entry_does_not() {
        let first = Pointer::default().accepted(1).activated(1, None).keeping();
        let attempt = Attempt::at(2, Some(NEW), Some(OLD), Some(OLD));
        let machine = |entries: &[_]| Machine {
            pointer: first.clone().accepted(2).attempting(attempt.clone()),
            rejected: BTreeSet::new(),
            roots: BTreeMap::from([(1, OLD)]),
            boot: boot(entries),
        };
        let last = ("bennu-0.conf", Some(OLD));
        let mut armed = machine(&[last, ("bennu-2+3.conf", Some(NEW))]);
        assert_eq!(armed.boot(), Ok(NEW));
        assert_eq!((armed.pointer.active, armed.pointer.kept), (Some(2), Some(1)));
        let mut cut = machine(&[last]);
        assert_eq!(cut.boot(), Ok(OLD));
        assert_eq!(cut.pointer.active, Some(1));
    }
}
