//! From what is wanted and what is seen to what is to be done.

use std::collections::BTreeMap;

use bennu_manifests::model::{Digest, Manifest, Name, VolumeLife};

use crate::address;
use crate::choose::{Choice, Slot, choose};
use crate::seen::{Instance, Seen, SeenNetwork, State};
use crate::settings::settings_that_change;
use crate::start::Starts;
use crate::step::{Plan, Reason, Step};
use crate::wanted::{Wanted, start_order};

/// What is to be done so that a host that is `seen` becomes what is `wanted`.
///
/// The steps come in this order, and each relies on those before it: all images, then settings of the host, then what goes (what depends on
/// others first), then volumes, then networks, then what comes (what others depend on first), then the firewall with the
/// published ports, then volumes that go. So nothing that runs is touched before everything new is in the store. An old instance that
/// went on beside its new one is stopped by the next plan, once the ports have moved.
pub fn plan(wanted: Wanted<'_>, seen: &Seen) -> Plan {
    let manifest = wanted.manifest;
    let networks = address::networks(manifest, seen);
    let choices = choose(wanted, seen, &networks);

    let mut plan = Plan::default();
    plan.steps.extend(fetches(manifest, seen));
    plan.steps.extend(settings_that_change(manifest, seen));
    plan.steps.extend(rejections(&choices, seen));
    plan.steps.extend(seen.astray.units.iter().map(|unit| Step::RemoveUnit { unit: unit.clone() }));
    plan.steps.extend(stops(manifest, seen, &choices));
    plan.steps.extend(volumes_that_come(manifest, seen));
    plan.steps.extend(limits_that_change(manifest, seen));
    plan.steps.extend(networks_that_change(seen, &networks));
    let starts = Starts { wanted, seen, networks: &networks, choices: &choices };
    let published = starts.add_to(&mut plan);
    if seen.astray.names {
        plan.steps.push(Step::ServeNames);
    }
    let ports = || published.iter().cloned().collect();
    if seen.astray.firewall {
        plan.steps.push(Step::RestoreFirewall { ports: ports() });
    } else if published != seen.published {
        plan.steps.push(Step::Publish { ports: ports() });
    }
    plan.steps.extend(volumes_that_go(manifest, seen));
    plan
}

fn fetches(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let mut missing: BTreeMap<Digest, Step> = BTreeMap::new();
    for (name, container) in manifest.programs() {
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
    if let Some(os) = manifest.os_image().filter(|os| !seen.images.contains(&os.digest)) {
        missing.entry(os.digest).or_insert_with(|| Step::Fetch { image: os.clone(), used_by: Vec::new() });
    }
    missing.into_values().collect()
}

/// A volume that was fresh at each boot and is to be kept from now on begins empty, as every kept volume does.
fn volumes_that_come(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let mut steps = Vec::new();
    for (name, volume) in manifest.volumes.iter().filter(|(_, v)| !v.destroy) {
        let there = seen.volumes.get(name);
        if there.is_some_and(|life| survives_boots(*life) == survives_boots(volume.life)) {
            continue;
        }
        if there.is_some() {
            steps.push(Step::DestroyVolume { volume: name.clone() });
        }
        steps.push(Step::CreateVolume { volume: name.clone(), life: volume.life });
    }
    steps
}

/// Whether what such a volume holds is there after a boot. Where one lies on disk depends on nothing else.
pub(crate) fn survives_boots(life: VolumeLife) -> bool {
    life != VolumeLife::Scratch
}

/// A volume that is made anew has no limit yet; one that goes needs none.
fn limits_that_change(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let stays = |name: &Name, life| {
        seen.volumes.get(name).is_some_and(|there| survives_boots(*there) == survives_boots(life))
    };
    let limit =
        |name: &Name, life| seen.quotas.get(name).filter(|_| stays(name, life)).and_then(|quota| quota.limit);
    let declared = manifest.volumes.iter().filter(|(_, volume)| !volume.destroy);
    let changed = declared.filter(|(name, volume)| volume.size != limit(name, volume.life));
    changed.map(|(name, volume)| Step::LimitVolume { volume: name.clone(), size: volume.size }).collect()
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
fn stops(manifest: &Manifest, seen: &Seen, choices: &BTreeMap<Slot<'_>, Choice>) -> Vec<Step> {
    let order = start_order(manifest).into_iter().enumerate();
    let ranks: BTreeMap<&Name, usize> = order.map(|(rank, name)| (name, rank)).collect();
    let mut stops: Vec<_> = seen
        .instances
        .iter()
        .filter_map(|(instance, now)| {
            if manifest.jobs.contains_key(&instance.name) {
                // What runs may end, also where the job was changed meanwhile.
                let ended = matches!(now.state, State::Completed | State::Failed | State::Stopped);
                return ended.then_some((instance, Reason::Finished));
            }
            let choice = choices.get(&(&instance.name, instance.replica));
            match choice {
                Some(choice) if choice.stay().any(|one| one == instance) => None,
                Some(Choice::Start(start)) => Some((instance, start.reason)),
                Some(Choice::Reject(new, ..)) if new == instance => Some((instance, Reason::Rejected)),
                Some(_) => Some((instance, Reason::Changed)),
                None => Some((instance, Reason::Removed)),
            }
        })
        .collect();
    // What is not declared any more has no rank and goes first: nothing that stays may depend on it.
    stops.sort_by_key(|(instance, _)| ranks.get(&instance.name).copied().map(std::cmp::Reverse));
    let stop = |(instance, reason): (&Instance, Reason)| Step::Stop { instance: instance.clone(), reason };
    stops.into_iter().map(stop).collect()
}

/// What was tried and is given up is written down before it is stopped.
fn rejections(choices: &BTreeMap<Slot<'_>, Choice>, seen: &Seen) -> Vec<Step> {
    let reject = |choice: &Choice| match choice {
        Choice::Reject(new, _, fingerprint, why) => Some(Step::Reject {
            instance: new.clone(),
            image: seen.instances[new].image.clone(),
            fingerprint: *fingerprint,
            why: (*why).to_owned(),
        }),
        _ => None,
    };
    choices.values().filter_map(reject).collect()
}

fn networks_that_change(seen: &Seen, wanted: &BTreeMap<Name, SeenNetwork>) -> Vec<Step> {
    let goes = seen.networks.iter().filter(|(name, was)| wanted.get(*name) != Some(*was));
    let goes = goes.map(|(name, was)| Step::RemoveNetwork { network: name.clone(), was: was.clone() });
    let comes = wanted.iter().filter(|(name, spec)| seen.networks.get(*name) != Some(*spec));
    let comes = comes.map(|(name, spec)| Step::CreateNetwork { network: name.clone(), spec: spec.clone() });
    goes.chain(comes).collect()
}
