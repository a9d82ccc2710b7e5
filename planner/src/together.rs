//! Which steps of a plan may be carried out at once.

use std::collections::BTreeSet;

use bennu_manifests::model::{Dependency, Manifest, Name};

use crate::seen::Instance;
use crate::step::Step;

/// The steps of a plan in its order, in groups that are carried out one after the other. Those of one group rely on nothing of
/// each other: starts of containers of which none depends on another one, or stops of such.
pub fn together<'a>(manifest: &'a Manifest, steps: &'a [Step]) -> Vec<&'a [Step]> {
    let mut groups = Vec::new();
    let (mut first, mut group) = (0, Group::default());
    for (at, step) in steps.iter().enumerate() {
        if at > first && !group.takes(manifest, &steps[at - 1], step) {
            groups.push(&steps[first..at]);
            (first, group) = (at, Group::default());
        }
        group.add(manifest, step);
    }
    groups.extend((first < steps.len()).then(|| &steps[first..]));
    groups
}

/// The containers of a group, and all that they rely on.
#[derive(Default)]
struct Group<'a> {
    names: BTreeSet<&'a Name>,
    needed: BTreeSet<&'a Name>,
}

impl<'a> Group<'a> {
    /// Whether a step may be carried out beside those of the group, the last of which is the one before it.
    fn takes(&self, manifest: &Manifest, before: &Step, step: &Step) -> bool {
        match (before, step) {
            // What is depended on comes first where things start, and last where they stop.
            (Step::Start { .. }, Step::Start { instance, .. }) => {
                self.names.is_disjoint(&needed(manifest, &instance.name))
            }
            (Step::Stop { .. }, Step::Stop { instance, .. }) => !self.needed.contains(&instance.name),
            _ => false,
        }
    }

    fn add(&mut self, manifest: &'a Manifest, step: &'a Step) {
        if let Step::Start { instance, .. } | Step::Stop { instance, .. } = step {
            self.names.insert(&instance.name);
            self.needed.extend(needed(manifest, &instance.name));
        }
    }
}

/// The `instances` that are there, in the order in which they end when the machine stops: those of one group at once, and all that rely on
/// one before it.
pub fn departures<'a>(
    manifest: &Manifest,
    instances: impl IntoIterator<Item = &'a Instance>,
) -> Vec<Vec<&'a Instance>> {
    let mut groups = Vec::new();
    let mut left: Vec<&Instance> = instances.into_iter().collect();
    while !left.is_empty() {
        let relied_on: BTreeSet<&Name> = left.iter().flat_map(|one| needed(manifest, &one.name)).collect();
        // No container of a manifest relies on itself, so there is always one on which nobody does.
        let (now, later) = left.into_iter().partition(|one| !relied_on.contains(&one.name));
        groups.push(now);
        left = later;
    }
    groups
}

/// All containers and jobs that one relies on, be it by way of others.
pub fn needed<'a>(manifest: &'a Manifest, name: &Name) -> BTreeSet<&'a Name> {
    let mut found = BTreeSet::new();
    let mut open: Vec<&Dependency> = dependencies(manifest, name).iter().collect();
    while let Some(Dependency { container, .. }) = open.pop() {
        if found.insert(container) {
            open.extend(dependencies(manifest, container));
        }
    }
    found
}

fn dependencies<'a>(manifest: &'a Manifest, name: &Name) -> &'a [Dependency] {
    let container = manifest.containers.get(name);
    let container = container.or_else(|| manifest.jobs.get(name).map(|job| &job.container));
    container.map_or(&[], |container| &container.depends_on)
}
