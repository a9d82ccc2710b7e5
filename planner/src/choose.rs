//! What is decided of each declared container: what stays, what comes, and what is given up.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use bennu_manifests::model::{Container, Digest, Manifest, Name, OnFailure, Order, Restart};

use crate::seen::{Health, Instance, Seen, SeenInstance, SeenNetwork, State};
use crate::step::Reason;
use crate::wanted::{Wanted, contents, fingerprint};

/// One of the places that a container's instances take: its name, and which of its replicas.
pub(crate) type Slot<'a> = (&'a Name, u32);

/// What is decided of one slot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Choice {
    /// It is there and as it should be.
    Keep(Instance),
    /// This instance is to be started, after all others of its slot were stopped.
    Start(Start),
    /// This instance is to be started while the old one, which is named second, goes on.
    StartBeside(Start, Instance),
    /// The new one, which is named first, has still to show that it does its work; the old one goes on.
    Trial(Instance, Instance),
    /// The new one, which is named first, does its work, and published ports still lead to the old one.
    Handover(Instance, Instance),
    /// The new one, which is named first, did not do its work in time; the old one goes on.
    Reject(Instance, Instance, Digest, &'static str),
    /// What is declared did not do its work when it was tried; the old one goes on.
    Rejected(Instance),
}

/// An instance that is to be started.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Start {
    pub(crate) instance: Instance,
    pub(crate) fingerprint: Digest,
    pub(crate) reason: Reason,
}

impl Choice {
    /// The instances that stay as they are.
    pub(crate) fn stay(&self) -> impl Iterator<Item = &Instance> {
        let (first, second) = match self {
            Self::Keep(one) | Self::Rejected(one) => (Some(one), None),
            Self::Trial(new, old) | Self::Handover(new, old) => (Some(new), Some(old)),
            Self::StartBeside(_, old) | Self::Reject(_, old, ..) => (Some(old), None),
            Self::Start(_) => (None, None),
        };
        first.into_iter().chain(second)
    }

    /// The one that published ports lead to, if it is there already.
    pub(crate) fn serving(&self) -> Option<&Instance> {
        match self {
            Self::Keep(one) | Self::Handover(one, _) | Self::Rejected(one) => Some(one),
            Self::Trial(_, old) | Self::StartBeside(_, old) | Self::Reject(_, old, ..) => Some(old),
            Self::Start(_) => None,
        }
    }
}

/// Decides for every slot of every declared container.
pub(crate) fn choose<'a>(
    wanted: Wanted<'a>,
    seen: &Seen,
    networks: &BTreeMap<Name, SeenNetwork>,
) -> BTreeMap<Slot<'a>, Choice> {
    let mut choices = BTreeMap::new();
    for (name, container) in &wanted.manifest.containers {
        let made_from = fingerprint(wanted.manifest, container);
        for replica in 1..=u32::try_from(container.replicas).unwrap_or(u32::MAX) {
            let slot = (name, replica);
            choices.insert(slot, one(wanted, seen, networks, slot, container, made_from));
        }
    }
    choices
}

fn one(
    wanted: Wanted<'_>,
    seen: &Seen,
    networks: &BTreeMap<Name, SeenNetwork>,
    slot: Slot<'_>,
    container: &Container,
    fingerprint: Digest,
) -> Choice {
    let there = || seen.instances_in(slot);
    let is_same = |s: &SeenInstance| s.fingerprint == fingerprint && addresses_fit(s, container, networks);
    let same = there().rfind(|(_, s)| is_same(s));
    // What goes on while a new one is tried has to run, and to be on networks that stay as they are.
    let is_old = |s: &&SeenInstance| {
        !is_same(s) && s.state == State::Running && !s.damaged && networks_stay(s, &seen.networks, networks)
    };
    let old = there().rev().find(|(_, s)| is_old(s)).map(|(instance, _)| instance.clone());
    let beside = container.update.as_ref().is_some_and(|update| update.order == Order::StartFirst);
    let old = old.filter(|_| beside);
    let rejected = wanted.rejected.contains(&(slot.0.clone(), fingerprint));
    match (same, old) {
        (Some((new, _)), Some(old)) if rejected => {
            Choice::Reject(new.clone(), old, fingerprint, "it was rejected before")
        }
        (None, Some(old)) if rejected => Choice::Rejected(old),
        (Some((new, s)), Some(old)) => match verdict(s, container) {
            Verdict::Good if is_published(seen, &old) => Choice::Handover(new.clone(), old),
            Verdict::Good => Choice::Keep(new.clone()),
            Verdict::Open => Choice::Trial(new.clone(), old),
            Verdict::Bad(why) => Choice::Reject(new.clone(), old, fingerprint, why),
        },
        (Some((instance, s)), None) if is_as_it_should_be(s.state, container) && !s.damaged => {
            Choice::Keep(instance.clone())
        }
        (Some((instance, s)), None) => {
            let reason = if s.damaged { Reason::Damaged } else { Reason::NotRunning };
            Choice::Start(Start { instance: instance.clone(), fingerprint, reason })
        }
        (None, old) => {
            let reason = match there().next_back() {
                None => Reason::New,
                Some((_, old)) if old.image.digest != container.image.digest => Reason::ImageChanged,
                Some(_) => Reason::Changed,
            };
            let start = Start { instance: free_instance(wanted.generation, slot, seen), fingerprint, reason };
            match old {
                Some(old) => Choice::StartBeside(start, old),
                None => Choice::Start(start),
            }
        }
    }
}

fn is_published(seen: &Seen, instance: &Instance) -> bool {
    let instance = &seen.instances[instance];
    seen.published.iter().any(|published| instance.has_address(published.to))
}

/// What is known of a new instance that an old one waits for.
enum Verdict {
    Good,
    Open,
    Bad(&'static str),
}

fn verdict(seen: &SeenInstance, container: &Container) -> Verdict {
    match (seen.state, seen.health) {
        (State::Failed, _) => Verdict::Bad("it ended with an error"),
        (State::Completed, _) => Verdict::Bad("it ended"),
        (_, Health::Unhealthy) => Verdict::Bad("its health check failed"),
        (State::Running, Health::Healthy | Health::Unchecked) if is_ready(seen, container) => Verdict::Good,
        _ if seen.overdue => Verdict::Bad("it was not healthy and ready within its time"),
        _ => Verdict::Open,
    }
}

/// Whether published ports may lead to it.
pub(crate) fn is_ready(seen: &SeenInstance, container: &Container) -> bool {
    container.readiness.is_none() || seen.ready
}

/// Whether it has failed its health check, and is to be started again for that.
pub(crate) fn is_to_restart(seen: &SeenInstance, container: &Container) -> bool {
    let restarts = container.health.as_ref().is_some_and(|health| health.on_failure == OnFailure::Restart);
    restarts && seen.health == Health::Unhealthy && seen.state == State::Running
}

/// The signal that tells a running instance of configs and secrets that changed, and what they are now; `None` where nothing
/// changed, or a change of them makes the instance another one.
pub(crate) fn to_refresh<'a>(
    manifest: &'a Manifest,
    container: &'a Container,
    seen: &SeenInstance,
) -> Option<(&'a str, Digest)> {
    let now = contents(manifest, container);
    let told = container.on_change != crate::wanted::RESTART && seen.state == State::Running;
    (told && seen.contents != now).then_some((container.on_change.as_str(), now))
}

/// A network may have got another subnet; then every container on it is made anew.
fn addresses_fit(seen: &SeenInstance, container: &Container, networks: &BTreeMap<Name, SeenNetwork>) -> bool {
    let joined = || container.networks.iter().filter_map(|name| Some((name, networks.get(name)?)));
    let v6 = joined().filter(|(_, network)| network.subnet6.is_some());
    joined().map(|(name, _)| name).collect::<BTreeSet<_>>() == seen.addresses.keys().collect()
        && v6.map(|(name, _)| name).collect::<BTreeSet<_>>() == seen.addresses6.keys().collect()
        && addresses_stay(seen, networks)
}

/// Whether each of its addresses lies in the network as it will be.
fn addresses_stay(seen: &SeenInstance, networks: &BTreeMap<Name, SeenNetwork>) -> bool {
    let v4 =
        |(name, address): (&Name, &Ipv4Addr)| networks.get(name).is_some_and(|n| n.subnet.holds(*address));
    let v6 = |(name, address): (&Name, &Ipv6Addr)| {
        networks.get(name).and_then(|n| n.subnet6).is_some_and(|subnet| subnet.holds(*address))
    };
    seen.addresses.iter().all(v4) && seen.addresses6.iter().all(v6)
}

/// Whether none of its networks is taken down or made anew.
fn networks_stay(
    seen: &SeenInstance,
    there: &BTreeMap<Name, SeenNetwork>,
    networks: &BTreeMap<Name, SeenNetwork>,
) -> bool {
    let same = |name| there.get(name).is_none_or(|was| Some(was) == networks.get(name));
    addresses_stay(seen, networks) && seen.addresses.keys().all(same)
}

fn is_as_it_should_be(state: State, container: &Container) -> bool {
    match state {
        State::Starting | State::Running | State::Restarting => true,
        State::Completed => container.restart != Restart::Always,
        // Where the starts have a bound, it was reached: it is given up.
        State::Failed => container.restart == Restart::No || container.restart_attempts > 0,
        State::Stopped => false,
    }
}

/// The number of the wanted generation, or the next one that no other instance of that slot has: an instance is
/// never changed in place, so a changed container may not take over a name that is in use.
pub(crate) fn free_instance(generation: u64, (name, replica): Slot<'_>, seen: &Seen) -> Instance {
    let newest = seen.instances_in((name, replica)).map(|(instance, _)| instance.generation).max();
    let generation = newest.map_or(generation, |newest| generation.max(newest.saturating_add(1)));
    Instance { name: name.clone(), generation, replica }
}
