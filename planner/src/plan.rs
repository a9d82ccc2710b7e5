//! From what is wanted and what is seen to what is to be done.

use std::collections::{BTreeMap, BTreeSet};

use bennu_manifests::model::{Container, Digest, Manifest, Name, Restart, VolumeLife};

use crate::address::{self, Addresses};
use crate::seen::{Instance, Published, Seen, SeenNetwork, State};
use crate::step::{Plan, Reason, Step, Waiting};
use crate::wanted::{Wanted, fingerprint, start_order};

/// What is to be done so that a host that is `seen` becomes what is `wanted`.
///
/// The steps come in this order, and each relies on those before it: all images, then what goes (what depends on
/// others first), then volumes, then networks, then what comes (what others depend on first), then the published
/// ports, then volumes that go. So nothing that runs is touched before everything new is in the store.
pub fn plan(wanted: Wanted<'_>, seen: &Seen) -> Plan {
    let manifest = wanted.manifest;
    let networks = address::networks(manifest, seen);
    let choices = choose(wanted, seen, &networks);

    let mut plan = Plan::default();
    plan.steps.extend(fetches(manifest, seen));
    plan.steps.extend(stops(manifest, seen, &choices));
    plan.steps.extend(volumes_that_come(manifest, seen));
    plan.steps.extend(networks_that_change(seen, &networks));
    let published = start_all(manifest, seen, &networks, &choices, &mut plan);
    if published != seen.published {
        plan.steps.push(Step::Publish { ports: published.into_iter().collect() });
    }
    plan.steps.extend(volumes_that_go(manifest, seen));
    plan
}

/// What is decided of each declared container.
enum Choice {
    /// It is there and as it should be.
    Keep(Instance),
    /// This instance is to be started.
    Start { instance: Instance, fingerprint: Digest, reason: Reason },
}

fn choose<'a>(
    wanted: Wanted<'a>,
    seen: &Seen,
    networks: &BTreeMap<Name, SeenNetwork>,
) -> BTreeMap<&'a Name, Choice> {
    let one = |(name, container): (&'a Name, &'a Container)| {
        let fingerprint = fingerprint(wanted.manifest, name);
        let mut there = seen.instances.iter().filter(|(instance, _)| instance.name == *name);
        let same = there
            .clone()
            .rfind(|(_, s)| s.fingerprint == fingerprint && addresses_fit(s, container, networks));
        let choice = match same {
            Some((instance, s)) if is_as_it_should_be(s.state, container.restart) => {
                Choice::Keep(instance.clone())
            }
            Some((instance, _)) => {
                Choice::Start { instance: instance.clone(), fingerprint, reason: Reason::NotRunning }
            }
            None => {
                let reason = match there.next_back() {
                    None => Reason::New,
                    Some((_, old)) if old.image.digest != container.image.digest => Reason::ImageChanged,
                    Some(_) => Reason::Changed,
                };
                Choice::Start { instance: free_instance(wanted.generation, name, seen), fingerprint, reason }
            }
        };
        (name, choice)
    };
    wanted.manifest.containers.iter().map(one).collect()
}

/// A network may have got another subnet; then every container on it is made anew.
fn addresses_fit(
    seen: &crate::seen::SeenInstance,
    container: &Container,
    networks: &BTreeMap<Name, SeenNetwork>,
) -> bool {
    container.networks.len() == seen.addresses.len()
        && container.networks.iter().all(|network| {
            let subnet = networks[network].subnet;
            let shift = 32 - u32::from(subnet.prefix);
            seen.addresses
                .get(network)
                .is_some_and(|address| u32::from(*address) >> shift == u32::from(subnet.address) >> shift)
        })
}

fn is_as_it_should_be(state: State, restart: Restart) -> bool {
    match state {
        State::Starting | State::Running | State::Restarting => true,
        State::Completed => restart != Restart::Always,
        State::Failed => restart == Restart::No,
        State::Stopped => false,
    }
}

/// The number of the wanted generation, or the next one that no other instance of that name has: an instance is
/// never changed in place, so a changed container may not take over a name that is in use.
fn free_instance(generation: u64, name: &Name, seen: &Seen) -> Instance {
    let newest = seen.instances.keys().filter(|i| i.name == *name).map(|i| i.generation).max();
    let generation = newest.map_or(generation, |newest| generation.max(newest.saturating_add(1)));
    Instance { name: name.clone(), generation }
}

fn fetches(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let mut missing: BTreeMap<Digest, Step> = BTreeMap::new();
    for (name, container) in &manifest.containers {
        if seen.images.contains(&container.image.digest) {
            continue;
        }
        let step = missing
            .entry(container.image.digest)
            .or_insert_with(|| Step::Fetch { image: container.image.clone(), used_by: Vec::new() });
        if let Step::Fetch { used_by, .. } = step {
            used_by.push(name.clone());
        }
    }
    missing.into_values().collect()
}

/// A volume that was fresh at each boot and is to be kept from now on begins empty, as every kept volume does.
fn volumes_that_come(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, volume) in manifest.volumes.iter().filter(|(_, v)| !v.destroy) {
        let there = seen.volumes.get(name);
        if there == Some(&volume.life) {
            continue;
        }
        if there.is_some() {
            steps.push(Step::DestroyVolume { volume: name.clone() });
        }
        steps.push(Step::CreateVolume { volume: name.clone(), life: volume.life });
    }
    steps
}

/// What is kept goes only where the manifest says so in so many words, by an entry with `destroy = true`;
/// [`guard()`](crate::guard()) refuses a manifest that just leaves it out. What is fresh at each boot goes when it is not declared.
fn volumes_that_go(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let goes = |(name, life): &(&Name, &VolumeLife)| match manifest.volumes.get(*name) {
        Some(volume) => volume.destroy,
        None => **life == VolumeLife::Scratch,
    };
    let gone = seen.volumes.iter().filter(goes);
    gone.map(|(name, _)| Step::DestroyVolume { volume: name.clone() }).collect()
}

/// Everything that is there and is not kept goes, dependents first.
fn stops(manifest: &Manifest, seen: &Seen, choices: &BTreeMap<&Name, Choice>) -> Vec<Step> {
    let order = start_order(manifest);
    let rank = |name: &Name| order.iter().position(|n| *n == name);
    let mut stops: Vec<_> = seen
        .instances
        .keys()
        .filter_map(|instance| {
            let reason = match choices.get(&instance.name) {
                Some(Choice::Keep(kept)) if kept == instance => return None,
                Some(Choice::Start { reason, .. }) => *reason,
                Some(Choice::Keep(_)) => Reason::Changed,
                None => Reason::Removed,
            };
            Some((instance, reason))
        })
        .collect();
    // What is not declared any more has no rank and goes first: nothing that stays may depend on it.
    stops.sort_by_key(|(instance, _)| rank(&instance.name).map(std::cmp::Reverse));
    stops.into_iter().map(|(instance, reason)| Step::Stop { instance: instance.clone(), reason }).collect()
}

fn networks_that_change(seen: &Seen, wanted: &BTreeMap<Name, SeenNetwork>) -> Vec<Step> {
    let goes = seen.networks.iter().filter(|(name, was)| wanted.get(*name) != Some(*was));
    let goes = goes.map(|(name, was)| Step::RemoveNetwork { network: name.clone(), was: was.clone() });
    let comes = wanted.iter().filter(|(name, spec)| seen.networks.get(*name) != Some(*spec));
    let comes = comes.map(|(name, spec)| Step::CreateNetwork { network: name.clone(), spec: spec.clone() });
    goes.chain(comes).collect()
}

/// Adds the starts to the plan, and answers what is to be published once they are done.
fn start_all(
    manifest: &Manifest,
    seen: &Seen,
    networks: &BTreeMap<Name, SeenNetwork>,
    choices: &BTreeMap<&Name, Choice>,
    plan: &mut Plan,
) -> BTreeSet<Published> {
    let kept = choices.values().filter_map(|choice| match choice {
        Choice::Keep(instance) => Some(instance),
        Choice::Start { .. } => None,
    });
    let mut used = Addresses::of(seen, kept);
    let mut published = BTreeSet::new();
    for name in start_order(manifest) {
        let container = &manifest.containers[name];
        let addresses = match &choices[name] {
            Choice::Keep(instance) => seen.instances[instance].addresses.clone(),
            Choice::Start { instance, fingerprint, reason } => {
                let mut addresses = BTreeMap::new();
                for network in &container.networks {
                    match used.take(network, networks[network].subnet) {
                        Some(address) => drop(addresses.insert(network.clone(), address)),
                        None => plan.waiting.push(Waiting {
                            what: format!("container {name}"),
                            why: format!(
                                "network {network} has no free address in {}",
                                networks[network].subnet
                            ),
                        }),
                    }
                }
                if addresses.len() < container.networks.len() {
                    continue;
                }
                plan.steps.push(Step::Start {
                    instance: instance.clone(),
                    image: container.image.clone(),
                    fingerprint: *fingerprint,
                    addresses: addresses.clone(),
                    reason: *reason,
                });
                addresses
            }
        };
        // The first network that the manifest names is the one that published ports lead to.
        let Some(to) = container.networks.first().and_then(|network| addresses.get(network)) else {
            continue;
        };
        published.extend(container.ports.iter().map(|port| Published {
            protocol: port.protocol,
            address: port.address,
            port: port.host,
            to: *to,
            to_port: port.container,
        }));
    }
    published
}
