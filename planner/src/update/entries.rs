//! The entries of the boot loader: which there are to be, and how to get there without ever being without one.
//!
//! UAPI group specification "Boot Loader Specification", type 1 entries (`loader/entries/*.conf`), with its "Boot counting":
//! `NAME+LEFT-DONE.conf` has so many tries left; the loader takes one away before each boot, and puts entries without tries
//! behind all others. Of the others it takes the one with the highest version, which here is the number of a generation.

use std::collections::BTreeSet;

use bennu_manifests::model::Digest;

/// How many boots an entry gets before the loader passes it over.
pub const TRIES: u32 = 3;

/// What the names of all our entries begin with.
const PREFIX: &str = "bennu-";
/// What they end with.
const SUFFIX: &str = ".conf";
/// The directory of the boot images, as an entry names it.
const IMAGES: &str = "/EFI/bennu/";

/// The name of an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EntryName {
    /// The generation that brought its OS; 0 is the one that was on the disk in the beginning.
    pub generation: u64,
    /// Tries that are left, and those that were used up; none where it is not counted.
    pub tries: Option<(u32, u32)>,
}

impl EntryName {
    /// An entry that has all its tries.
    pub fn fresh(generation: u64) -> Self {
        Self { generation, tries: Some((TRIES, 0)) }
    }

    /// An entry that is not counted: it is there when all others have failed.
    pub fn last_resort(generation: u64) -> Self {
        Self { generation, tries: None }
    }

    /// Reads a file's name; `None` where it is not one of ours, in the one spelling that we write.
    pub fn parse(file: &str) -> Option<Self> {
        Self::read(file).filter(|name| name.to_string() == file)
    }

    /// Of several entries for one root the one that leads there is the highest, and of those of one number, as a power cut may leave
    /// them, the one with the most tries.
    fn worth(&self) -> (u64, u32) {
        (self.generation, self.tries.map_or(u32::MAX, |(left, _)| left))
    }

    fn read(file: &str) -> Option<Self> {
        let stem = file.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let Some((generation, tries)) = stem.split_once('+') else {
            return Some(Self { generation: number(stem)?, tries: None });
        };
        let (left, done) = match tries.split_once('-') {
            Some((left, done)) => (number(left)?, number(done)?),
            None => (number(tries)?, 0),
        };
        let tries = (u32::try_from(left).ok()?, u32::try_from(done).ok()?);
        Some(Self { generation: number(generation)?, tries: Some(tries) })
    }
}

/// Decimal digits and nothing else.
fn number(text: &str) -> Option<u64> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok())?
}

impl std::fmt::Display for EntryName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{PREFIX}{}", self.generation)?;
        match self.tries {
            Some((left, 0)) => write!(f, "+{left}")?,
            Some((left, done)) => write!(f, "+{left}-{done}")?,
            None => {}
        }
        f.write_str(SUFFIX)
    }
}

/// An entry that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: EntryName,
    /// The root that its boot image starts; none where the file says nothing that is understood, as after a power cut.
    pub root: Option<Digest>,
}

impl Entry {
    /// The text of an entry's file.
    pub fn text(generation: u64, root: &Digest, title: &str) -> String {
        format!("title {title}\nsort-key bennu\nversion {generation}\nefi {IMAGES}{}.efi\n", root.hex())
    }

    /// The root that the text of a file names.
    pub fn root_of(text: &str) -> Option<Digest> {
        let path = text.lines().find_map(|line| line.strip_prefix("efi"))?.trim();
        let hex = path.strip_prefix(IMAGES)?.strip_suffix(".efi")?;
        format!("sha256:{hex}").parse().ok()
    }
}

/// Which entry gets all its tries again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rearm {
    /// None: the machine has only just booted.
    Nothing,
    /// That of the attempt, which begins now.
    Attempt,
    /// That of the OS that runs, where it is not on trial: its daemon does its work.
    Running,
}

/// Which operating systems there are to be a way to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct WantedEntries {
    /// The generation that is tried, and its root, where that needs a boot.
    pub attempt: Option<(u64, Digest)>,
    /// Whether the attempt's entry gets all its tries again.
    pub rearm_attempt: bool,
    /// The root of an attempt that waits: its boot image stays for the next round, and there is no entry for it.
    pub waits: Option<Digest>,
    /// The generation that was kept, and the root that it runs on.
    pub kept: Option<(u64, Digest)>,
    /// The root that is the way back.
    pub previous: Option<Digest>,
    /// The root that runs, where its boot went well: its entry gets all its tries again, where it is not on trial.
    pub booted: Option<Digest>,
}

/// One write to the boot partition. Each is whole on the disk before the next one begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EspStep {
    /// Bring the boot image of a root.
    WriteImage(Digest),
    /// Write an entry that leads to a root.
    WriteEntry(EntryName, Digest),
    /// Take an entry away.
    RemoveEntry(EntryName),
    /// Take the boot image of a root away.
    RemoveImage(Digest),
}

/// What is to be written so that the entries are those that are wanted: what comes first, the last resort before all others;
/// then what goes, images of entries that are gone last. After each step there is an entry for every root that is wanted and had one.
///
/// The lowest of what was kept and the way back is not counted, so the loader never runs out of entries, and never comes to start
/// for want of others what it has given up.
pub fn esp_steps(wanted: &WantedEntries, entries: &[Entry], images: &BTreeSet<Digest>) -> Vec<EspStep> {
    // What was tried after the generation that was kept, and is not tried any more, leads nowhere.
    let kept = wanted.kept.map_or(u64::MAX, |(generation, _)| generation);
    let tried = wanted.attempt.map(|(generation, _)| generation);
    let settled = |e: &&Entry| Some(e.name.generation) != tried && e.name.generation <= kept;
    let best = |root: Digest, below: u64| {
        let fit =
            entries.iter().filter(settled).filter(|e| e.root == Some(root) && e.name.generation < below);
        fit.map(|entry| entry.name).max_by_key(EntryName::worth)
    };
    let of_kept = wanted.kept.map(|(generation, root)| (best(root, u64::MAX), generation, root));
    let generation_of_kept =
        of_kept.map_or(u64::MAX, |(found, otherwise, _)| found.map_or(otherwise, |f| f.generation));
    let of_previous = wanted.previous.filter(|root| wanted.kept.is_none_or(|(_, kept)| kept != *root));
    let of_previous = of_previous.and_then(|root| Some((best(root, generation_of_kept)?, root)));

    let mut slots = Vec::new();
    if let Some((found, root)) = of_previous {
        slots.push(Slot {
            found: Some(found),
            name: EntryName::last_resort(found.generation),
            root,
            fresh: true,
        });
    }
    if let Some((found, otherwise, root)) = of_kept {
        let generation = found.map_or(otherwise, |found| found.generation);
        let counted = of_previous.is_some();
        let name = if counted { EntryName::fresh(generation) } else { EntryName::last_resort(generation) };
        slots.push(Slot { found, name, root, fresh: !counted || wanted.booted == Some(root) });
    }
    if let Some((generation, root)) = wanted.attempt {
        let found = entries.iter().filter(|e| e.name.generation == generation && e.root == Some(root));
        let found = found.map(|entry| entry.name).max_by_key(EntryName::worth);
        slots.push(Slot { found, name: EntryName::fresh(generation), root, fresh: wanted.rearm_attempt });
    }

    let comes: Vec<&Slot> = slots.iter().filter(|slot| slot.comes()).collect();
    let stays: BTreeSet<EntryName> = slots.iter().map(Slot::stays).collect();
    let needed: BTreeSet<Digest> = slots.iter().map(|slot| slot.root).chain(wanted.waits).collect();
    let mut steps = Vec::new();
    for slot in &comes {
        let write = EspStep::WriteImage(slot.root);
        if !images.contains(&slot.root) && !steps.contains(&write) {
            steps.push(write);
        }
        steps.push(EspStep::WriteEntry(slot.name, slot.root));
    }
    // Without anything that stays nothing goes: a machine that boots by whatever is there boots at least.
    if !stays.is_empty() {
        let goes = entries.iter().map(|e| e.name).filter(|name| !stays.contains(name));
        steps.extend(goes.map(EspStep::RemoveEntry));
        steps.extend(images.difference(&needed).map(|root| EspStep::RemoveImage(*root)));
    }
    steps
}

/// An entry that there is to be.
#[derive(Debug, Clone, Copy)]
struct Slot {
    /// The one that is there for it.
    found: Option<EntryName>,
    /// How it is called when it is written.
    name: EntryName,
    root: Digest,
    /// Whether one that is there has to be called exactly so. Else what the loader has counted is left to it.
    fresh: bool,
}

impl Slot {
    fn comes(&self) -> bool {
        match self.found {
            // One that is counted and should be, or neither.
            Some(found) if !self.fresh => found.tries.is_some() != self.name.tries.is_some(),
            Some(found) => found != self.name,
            None => true,
        }
    }

    fn stays(&self) -> EntryName {
        if self.comes() { self.name } else { self.found.unwrap_or(self.name) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Digest = Digest::from_bytes([0xaa; 32]);
    const B: Digest = Digest::from_bytes([0xbb; 32]);
    const C: Digest = Digest::from_bytes([0xcc; 32]);

    fn entry(file: &str, root: Digest) -> Entry {
        Entry { name: EntryName::parse(file).expect("one of ours"), root: Some(root) }
    }

    fn steps(wanted: WantedEntries, entries: &[Entry]) -> Vec<EspStep> {
        esp_steps(&wanted, entries, &entries.iter().filter_map(|e| e.root).collect())
    }

    fn write(file: &str, root: Digest) -> EspStep {
        EspStep::WriteEntry(EntryName::parse(file).expect("one of ours"), root)
    }

    fn remove(file: &str) -> EspStep {
        EspStep::RemoveEntry(EntryName::parse(file).expect("one of ours"))
    }

    #[test]
    fn names_are_those_of_boot_counting() {
        for (file, generation, tries) in [
            ("bennu-9.conf", 9, None),
            ("bennu-9+3.conf", 9, Some((3, 0))),
            ("bennu-0+2-1.conf", 0, Some((2, 1))),
            ("bennu-18446744073709551615+0-3.conf", u64::MAX, Some((0, 3))),
        ] {
            let name = EntryName::parse(file).expect(file);
            assert_eq!(name, EntryName { generation, tries });
            assert_eq!(name.to_string(), file);
        }
        for file in [
            "bennu-.conf",
            "bennu-9",
            "bennu-9+.conf",
            "bennu-+3.conf",
            "other-9.conf",
            "bennu-9+3-.conf",
            "bennu-+9.conf",
            "bennu-09.conf",
        ] {
            assert_eq!(EntryName::parse(file), None, "{file}");
        }
    }

    #[test]
    fn the_text_of_an_entry_names_its_root() {
        let text = Entry::text(7, &A, "Bennu 1.2");
        assert_eq!(Entry::root_of(&text), Some(A));
        assert!(text.contains("\nversion 7\n"), "{text}");
        assert_eq!(Entry::root_of("title x\n"), None);
        assert_eq!(Entry::root_of(""), None);
    }

    #[test]
    fn an_attempt_gets_an_entry_beside_the_one_that_was_kept() {
        let wanted = WantedEntries { attempt: Some((9, B)), kept: Some((8, A)), ..Default::default() };
        let there = [entry("bennu-0.conf", A)];
        assert_eq!(steps(wanted, &there), [EspStep::WriteImage(B), write("bennu-9+3.conf", B)]);
        let there = [entry("bennu-0.conf", A), entry("bennu-9+2-1.conf", B)];
        assert_eq!(steps(wanted, &there), [], "what the loader counts is left to it");
        let again = WantedEntries { rearm_attempt: true, ..wanted };
        let there = [entry("bennu-0.conf", A), entry("bennu-9+0-3.conf", B)];
        assert_eq!(steps(again, &there), [write("bennu-9+3.conf", B), remove("bennu-9+0-3.conf")]);
    }

    #[test]
    fn an_attempt_that_waits_has_a_boot_image_and_no_entry() {
        let wanted = WantedEntries { waits: Some(B), kept: Some((8, A)), ..Default::default() };
        let there = [entry("bennu-0.conf", A), entry("bennu-9+2-1.conf", B)];
        assert_eq!(steps(wanted, &there), [remove("bennu-9+2-1.conf")]);
        assert_eq!(steps(wanted, &there[..1]), [], "nothing is written before it is tried again");
    }

    #[test]
    fn what_is_kept_is_armed_again_and_the_way_back_stays() {
        let wanted =
            WantedEntries { kept: Some((9, B)), previous: Some(A), booted: Some(B), ..Default::default() };
        let there = [entry("bennu-0.conf", A), entry("bennu-9+2-1.conf", B), entry("bennu-4+3.conf", C)];
        assert_eq!(
            steps(wanted, &there),
            [
                write("bennu-9+3.conf", B),
                remove("bennu-9+2-1.conf"),
                remove("bennu-4+3.conf"),
                EspStep::RemoveImage(C)
            ]
        );
    }

    #[test]
    fn what_was_rejected_goes_and_its_image_with_it() {
        let wanted = WantedEntries { kept: Some((8, A)), ..Default::default() };
        let there = [entry("bennu-0.conf", A), entry("bennu-9+2-1.conf", B)];
        assert_eq!(steps(wanted, &there), [remove("bennu-9+2-1.conf"), EspStep::RemoveImage(B)]);
    }

    #[test]
    fn a_way_back_that_is_tried_again_in_vain_does_not_come_before_what_was_kept() {
        let there = [entry("bennu-0.conf", A), entry("bennu-9+3.conf", B), entry("bennu-12+2-1.conf", A)];
        let wanted = WantedEntries { kept: Some((9, B)), previous: Some(A), ..Default::default() };
        assert_eq!(steps(wanted, &there), [remove("bennu-12+2-1.conf")]);
        let wanted = WantedEntries { kept: Some((12, A)), previous: Some(B), ..Default::default() };
        assert_eq!(
            steps(wanted, &there),
            [write("bennu-9.conf", B), remove("bennu-0.conf"), remove("bennu-9+3.conf")],
            "the way back is the last resort now"
        );
    }

    #[test]
    fn the_last_resort_is_there_before_what_is_counted() {
        let wanted = WantedEntries {
            attempt: Some((12, C)),
            kept: Some((9, B)),
            previous: Some(A),
            ..Default::default()
        };
        let there = [entry("bennu-0+1-2.conf", A), entry("bennu-9.conf", B)];
        assert_eq!(
            steps(wanted, &there),
            [
                write("bennu-0.conf", A),
                write("bennu-9+3.conf", B),
                EspStep::WriteImage(C),
                write("bennu-12+3.conf", C),
                remove("bennu-0+1-2.conf"),
                remove("bennu-9.conf"),
            ]
        );
    }

    #[test]
    fn an_entry_that_a_power_cut_took_is_written_again_and_a_broken_one_goes() {
        let wanted = WantedEntries { kept: Some((8, A)), ..Default::default() };
        let broken = Entry { name: EntryName::fresh(8), root: None };
        let steps = esp_steps(&wanted, &[broken], &BTreeSet::from([A]));
        assert_eq!(steps, [write("bennu-8.conf", A), remove("bennu-8+3.conf")]);
    }

    #[test]
    fn a_disk_about_which_nothing_is_known_is_left_as_it_is() {
        assert_eq!(steps(WantedEntries::default(), &[entry("bennu-0+3.conf", A)]), []);
    }
}
