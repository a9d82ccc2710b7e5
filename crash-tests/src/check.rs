//! Whether a store that was interrupted keeps what its callers were told.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

use bennu_image_store::{Confinement, Store};
use bennu_manifests::model::Digest;

use crate::scenario::{Failure, Sample, Scenario, Step};

/// What must be true of a store after the first steps of a scenario were acknowledged and the next one may have begun.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Images that must be there, whole.
    pub images: BTreeSet<usize>,
    /// The image that each pin may hold; `None` stands for no pin.
    pub pins: BTreeMap<&'static str, BTreeSet<Option<usize>>>,
    /// Whether a blob may be bad or missing: only between the step that spoils one and the pulls that replace it.
    pub spoiled: bool,
}

/// What is promised when `done` steps were acknowledged.
pub fn expected(scenario: &Scenario, done: usize) -> Expected {
    let mut expected = Expected::default();
    for step in scenario.steps.iter().take(done) {
        expected.begin(*step);
        expected.finish(*step);
    }
    if let Some(step) = scenario.steps.get(done) {
        expected.begin(*step);
    }
    expected
}

impl Expected {
    /// What a step takes back or leaves open as soon as it has begun.
    fn begin(&mut self, step: Step) {
        match step {
            Step::Pin(name, image) => self.may_hold(name, Some(image)),
            Step::Unpin(name) | Step::KilledUnpin(name) => self.may_hold(name, None),
            Step::Collect | Step::PullBesideCollections(_) => {
                // Before a collection no pin is in doubt: it is a step of its own.
                let held: BTreeSet<usize> = self.pins.values().flatten().copied().flatten().collect();
                self.images.retain(|image| held.contains(image));
            }
            Step::Spoil(_) => {
                self.spoiled = true;
                self.images.clear();
            }
            // Whoever has pulled it keeps it only once someone is told again.
            Step::KilledPull(image) => drop(self.images.remove(&image)),
            Step::Pull(_) | Step::PullNative(..) | Step::Import(_) | Step::Scrub => {}
        }
    }

    /// What a step promises when it is acknowledged.
    fn finish(&mut self, step: Step) {
        match step {
            Step::Pull(image) | Step::PullBesideCollections(image) | Step::PullNative(image, _) => {
                self.images.insert(image);
                // Both images have the blob that is spoiled.
                self.spoiled = false;
            }
            Step::Pin(name, image) => {
                self.pins.insert(name, [Some(image)].into());
                self.images.insert(image);
            }
            Step::Unpin(name) => drop(self.pins.insert(name, [None].into())),
            // A removal that nobody was told of may come back.
            Step::KilledUnpin(_)
            | Step::Import(_)
            | Step::Collect
            | Step::Spoil(_)
            | Step::Scrub
            | Step::KilledPull(_) => {}
        }
    }

    fn may_hold(&mut self, name: &'static str, held: Option<usize>) {
        self.pins.entry(name).or_insert_with(|| [None].into()).insert(held);
    }
}

/// Opens the store at `root`, compares it with what is promised, and then uses it: collects, pulls and reads everything. Gives
/// what is wrong, in words; nothing where all is well.
pub fn check(root: &Path, expected: &Expected) -> Vec<String> {
    let mut faults = Vec::new();
    if let Err(error) = look(root, expected, &mut faults) {
        faults.push(format!("an operation failed: {error}: {:?}", error.source().map(ToString::to_string)));
    }
    faults
}

fn look(root: &Path, expected: &Expected, faults: &mut Vec<String>) -> Result<(), Failure> {
    let store = Store::open(root, Confinement::None)?;
    if fs::read_dir(root.join("tmp"))?.next().is_some() {
        faults.push("something is left in tmp/ after an opening".to_owned());
    }
    let findings = store.verify()?;
    let bad = store.scrub()?;
    if !expected.spoiled {
        faults.extend(findings.iter().map(|finding| format!("verify: {finding:?}")));
        faults.extend(bad.iter().map(|bad| format!("wrong bytes: {bad:?}")));
    }
    for bad in &bad {
        store.repair(&bad.blob)?;
    }
    for image in &expected.images {
        if store.image(&Sample::numbered(*image).digest())?.is_none() {
            faults.push(format!("image {image} was acknowledged and is lost"));
        }
    }
    let pins: BTreeMap<String, Vec<Digest>> = store.pins()?.into_iter().collect();
    look_at_the_pins(expected, &pins, faults);

    let plan = store.gc()?;
    let again = store.gc()?;
    if !again.is_empty() {
        faults.push(format!("a collection left something of {plan:?}: {again:?}"));
    }
    let held: BTreeSet<Digest> = pins.values().flatten().copied().collect();
    for image in store.images()? {
        if !held.contains(&image.digest) {
            faults.push(format!("{} is held by nothing and was not collected", image.digest));
        }
    }
    let native = expected.images.iter().filter(|image| **image >= Sample::all().len());
    for sample in Sample::all().into_iter().chain(native.map(|image| Sample::numbered(*image))) {
        let image = sample.pull(&store)?;
        if store.image(&image.digest)?.is_none() {
            faults.push("a repeated pull did not make an image whole".to_owned());
        }
    }
    faults.extend(store.scrub()?.iter().map(|bad| format!("wrong bytes after a pull: {bad:?}")));
    faults.extend(store.verify()?.iter().map(|finding| format!("verify after a pull: {finding:?}")));
    Ok(())
}

fn look_at_the_pins(expected: &Expected, pins: &BTreeMap<String, Vec<Digest>>, faults: &mut Vec<String>) {
    for (name, allowed) in &expected.pins {
        let found = pins.get(*name);
        let fits =
            |held: &Option<usize>| found == held.map(|image| vec![Sample::numbered(image).digest()]).as_ref();
        if !allowed.iter().any(fits) {
            faults.push(format!("pin {name} holds {found:?}, not one of {allowed:?}"));
        }
    }
    let unknown = pins.keys().filter(|name| !expected.pins.contains_key(name.as_str()));
    faults.extend(unknown.map(|name| format!("a pin {name} that nobody made")));
}

#[cfg(test)]
mod tests {
    use super::*;

    const SCENARIO: Scenario = Scenario {
        name: "test",
        steps: &[Step::Pull(0), Step::Pull(1), Step::Pin("a", 0), Step::Collect, Step::Unpin("a")],
    };

    #[test]
    fn a_step_promises_when_it_is_acknowledged_and_takes_back_when_it_begins() {
        assert_eq!(expected(&SCENARIO, 0), Expected::default());
        assert_eq!(expected(&SCENARIO, 1).images, [0].into());
        assert_eq!(expected(&SCENARIO, 2).pins["a"], [None, Some(0)].into());
        let collecting = expected(&SCENARIO, 3);
        assert_eq!(collecting.pins["a"], [Some(0)].into());
        assert_eq!(collecting.images, [0].into(), "what nothing holds may be gone");
        assert_eq!(expected(&SCENARIO, 5).pins["a"], [None].into());
    }

    #[test]
    fn a_store_that_keeps_its_promises_has_no_faults_and_one_that_lost_an_image_does() {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(dir.path(), Confinement::None).expect("a store");
        Sample::all()[0].pull(&store).expect("pulled");
        assert_eq!(check(dir.path(), &expected(&SCENARIO, 1)), Vec::<String>::new());
        std::fs::remove_dir_all(dir.path().join("images")).expect("removed");
        std::fs::create_dir_all(dir.path().join("images/sha256")).expect("made");
        assert_eq!(check(dir.path(), &expected(&SCENARIO, 1)), ["image 0 was acknowledged and is lost"]);
        assert!(!check(dir.path(), &expected(&SCENARIO, 3)).is_empty());
    }
}
