//! A recording of a host, and its states one after the other.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use bennu_manifests::model::Digest;

use super::boot::{BEGIN, BootPartition, END};
use super::copies::Copies;
use super::judge::{Found, Reached, judge};
use super::promise::{PROMISES, Promise};
use super::view::{Layer, View};
use crate::log::{self, Entry};
use crate::scenario::Failure;
use crate::state::State;

/// A host from before its first update until behind its last one.
#[derive(Debug)]
pub struct Recording {
    /// All that was asked of its disk.
    pub entries: Vec<Entry>,
    log: File,
    disk: PathBuf,
    base: File,
    /// How many steps were acknowledged behind so many entries.
    marks: BTreeMap<usize, usize>,
    /// The boot images that there are to be.
    images: BTreeMap<Digest, Vec<u8>>,
}

/// What came of one state.
#[derive(Debug)]
pub struct Judged {
    /// How many steps were acknowledged.
    pub acknowledged: usize,
    /// The boot partition.
    pub boot: BootPartition,
    /// The rest of the host, and what is wrong with all of it.
    pub found: Found,
}

impl Recording {
    /// Reads the log in the file `log` of a disk that was in the beginning as the file `disk` has it (raw), with marks at byte `mark`:
    /// sectors whose first byte is the number of steps that were acknowledged.
    ///
    /// # Errors
    /// Where they can't be read, or no boot image is found for one of the `roots`.
    pub fn open(log: &Path, disk: &Path, mark: u64, roots: &[Digest]) -> Result<Self, Failure> {
        let (entries, log) = log::read(log, fs::metadata(disk)?.len())?;
        let mut marks = BTreeMap::from([(0, 0)]);
        for (index, entry) in entries.iter().enumerate() {
            if let Entry::Write { at, bytes, .. } = entry
                && *at == mark
            {
                let step = usize::from(bytes.read(&log)?[0]);
                if step >= PROMISES.len() || marks.values().next_back().is_some_and(|last| *last >= step) {
                    return Err(format!("the mark {step} is none").into());
                }
                marks.insert(index, step);
            }
        }
        let (disk, base) = (disk.to_owned(), File::open(disk)?);
        let mut recording = Self { entries, log, disk, base, marks, images: BTreeMap::new() };
        let mut layer = Layer::default();
        let mut from = 0;
        for behind in recording.marks.keys().copied().collect::<Vec<_>>() {
            layer.take(&recording.entries, (from..behind).map(|index| (index, None)), END);
            from = behind;
            for (root, bytes) in recording.boot_partition(&layer, &Layer::default())?.images {
                recording.images.insert(root, bytes.ok_or("a boot image ends early though no power went")?);
            }
        }
        match roots.iter().find(|root| !recording.images.contains_key(*root)) {
            Some(root) => Err(format!("no boot image for {root} was ever there").into()),
            None => Ok(recording),
        }
    }

    /// How many steps were acknowledged when the first `issued` entries had been.
    pub fn acknowledged(&self, issued: usize) -> usize {
        self.marks.range(..issued).next_back().map_or(0, |(_, step)| *step)
    }

    /// Behind how many entries this step was acknowledged.
    pub fn mark(&self, step: usize) -> Option<usize> {
        self.marks.iter().find(|(_, found)| **found == step).map(|(index, _)| index + 1)
    }

    /// Whether an entry writes to the boot partition.
    pub fn is_of_boot_partition(&self, entry: &Entry) -> bool {
        matches!(entry, Entry::Write { at, .. } if (BEGIN..END).contains(at))
    }

    fn boot_partition(&self, durable: &Layer, arrived: &Layer) -> Result<BootPartition, Failure> {
        let view = View { base: &self.base, log: &self.log, layers: [durable, arrived] };
        Ok(BootPartition::read(&view)?)
    }

    /// Looks at the boot partition alone in each of `states`, which are in the order of the log, and gives `each` what is wrong.
    ///
    /// # Errors
    /// Where the recording can't be read.
    pub fn boot_partitions(
        &self,
        states: &[State],
        mut each: impl FnMut(&State, BootPartition, Vec<String>),
    ) -> Result<(), Failure> {
        let (mut durable, mut taken) = (Layer::default(), 0);
        for state in states {
            durable.take(&self.entries, (taken..state.durable).map(|index| (index, None)), END);
            taken = state.durable;
            let mut arrived = Layer::default();
            arrived.take(&self.entries, state.applied().skip(state.durable), END);
            match self.boot_partition(&durable, &arrived) {
                Ok(boot) => {
                    let faults = boot.faults(&self.images);
                    each(state, boot, faults);
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Looks at the whole host in each of `states`, which are in the order of the log, and gives `each` what came of it. `promise` says
    /// what the host has promised after so many steps.
    ///
    /// # Errors
    /// Where no disk can be made.
    pub fn judge(
        &self,
        states: &[State],
        promise: impl Fn(&State) -> usize,
        mut each: impl FnMut(&State, &Path, Judged),
    ) -> Result<(), Failure> {
        let mut copies = Copies::new(&self.disk)?;
        let mut reached = Reached::default();
        let mut made = Ok(());
        self.boot_partitions(states, |state, boot, faults| {
            let acknowledged = promise(state);
            let disk = match copies.copy(&self.entries, &self.log, state) {
                Ok(disk) => disk,
                Err(error) => {
                    made = Err(error);
                    return;
                }
            };
            let promise: &Promise = &PROMISES[acknowledged];
            let look = |mounted: &Path| judge(mounted, &boot, promise, &reached);
            let mut found = copies.mounted(&disk, look).unwrap_or_else(|error| Found {
                faults: vec![format!("the host can't be used: {error}")],
                ..Found::default()
            });
            found.faults.extend(faults);
            // What is behind a flush is there for good.
            if state.arrived.is_empty() && found.faults.is_empty() {
                reached = found.reached.clone();
            }
            each(state, &disk, Judged { acknowledged, boot, found });
        })?;
        made
    }
}
