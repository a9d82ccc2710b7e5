//! What comes: instances in the order of their dependencies, with their addresses, and where published ports lead.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use bennu_manifests::model::{Condition, Container, Dependency, Manifest, Name};

use crate::address::Addresses;
use crate::choose::{Choice, Slot, Start, free_instance, is_ready, is_to_restart, to_refresh};
use crate::seen::{Health, Instance, Published, Seen, SeenInstance, SeenNetwork, State};
use crate::step::{Plan, Reason, Step, Waiting, WaitsFor};
use crate::wanted::{Wanted, fingerprint, start_order};

/// The addresses of an instance, by network.
#[derive(Debug, Clone, Default)]
struct Given {
    v4: BTreeMap<Name, Ipv4Addr>,
    v6: BTreeMap<Name, Ipv6Addr>,
}

impl Given {
    fn of(seen: &SeenInstance) -> Self {
        Self { v4: seen.addresses.clone(), v6: seen.addresses6.clone() }
    }
}

/// Puts the starts into a plan.
pub(crate) struct Starts<'a> {
    pub(crate) wanted: Wanted<'a>,
    pub(crate) seen: &'a Seen,
    pub(crate) networks: &'a BTreeMap<Name, SeenNetwork>,
    pub(crate) choices: &'a BTreeMap<Slot<'a>, Choice>,
}

impl<'a> Starts<'a> {
    fn manifest(&self) -> &'a Manifest {
        self.wanted.manifest
    }

    /// Adds the starts, and what else is done to what runs, to the plan; answers what is to be published once they are done.
    pub(crate) fn add_to(&self, plan: &mut Plan) -> BTreeSet<Published> {
        let mut used = Addresses::of(self.seen, self.choices.values().flat_map(Choice::stay));
        let mut published = BTreeSet::new();
        // Containers all of whose instances are there, or are started by this plan.
        let mut there = BTreeSet::new();
        for name in start_order(self.manifest()) {
            let container = &self.manifest().containers[name];
            let mut complete = true;
            for choice in self.choices.range((name, 0)..=(name, u32::MAX)).map(|(_, choice)| choice) {
                let new = match choice {
                    Choice::Start(start) | Choice::StartBeside(start, _) => Some(start),
                    Choice::Keep(kept) => {
                        self.tend(kept, container, plan);
                        None
                    }
                    _ => None,
                };
                let started = new.and_then(|start| {
                    self.start(("container", name), start, container, &there, &mut used, plan)
                });
                complete &= new.is_none() || started.is_some();
                note(choice, container, plan);
                let serving = match choice.serving() {
                    Some(one) => {
                        let seen = self.seen.instances.get(one);
                        seen.map(|seen| (Given::of(seen), is_ready(seen, container)))
                    }
                    None => started.map(|given| (given, container.readiness.is_none())),
                };
                if let Some((given, true)) = serving {
                    publish(container, &given, &mut published);
                }
            }
            if complete {
                there.insert(name);
            }
        }
        self.add_jobs(&there, &mut used, plan);
        published
    }

    /// What is done to an instance that stays.
    fn tend(&self, kept: &Instance, container: &Container, plan: &mut Plan) {
        let seen = &self.seen.instances[kept];
        if is_to_restart(seen, container) {
            plan.steps.push(Step::Restart { instance: kept.clone(), reason: Reason::Unhealthy });
        } else if let Some((signal, contents)) = to_refresh(self.manifest(), container, seen) {
            let (instance, signal) = (kept.clone(), signal.to_owned());
            plan.steps.push(Step::Refresh { instance, signal, contents });
        }
    }

    /// Adds one start, unless it has to wait; answers its addresses.
    fn start(
        &self,
        (kind, name): (&str, &Name),
        start: &Start,
        container: &Container,
        there: &BTreeSet<&Name>,
        used: &mut Addresses,
        plan: &mut Plan,
    ) -> Option<Given> {
        let what = || format!("{kind} {name}");
        if let Some(why) = container.depends_on.iter().find_map(|one| self.unmet(one, there)) {
            plan.waiting.push(Waiting { what: what(), why, waits_for: WaitsFor::Containers });
            return None;
        }
        let given = match self.addresses(container, used) {
            Ok(given) => given,
            Err(why) => {
                plan.waiting.push(Waiting { what: what(), why, waits_for: WaitsFor::Somebody });
                return None;
            }
        };
        plan.steps.push(Step::Start {
            instance: start.instance.clone(),
            image: container.image.clone(),
            fingerprint: start.fingerprint,
            addresses: given.v4.clone(),
            addresses6: given.v6.clone(),
            reason: start.reason,
        });
        Some(given)
    }

    fn addresses(&self, container: &Container, used: &mut Addresses) -> Result<Given, String> {
        let mut given = Given::default();
        for network in &container.networks {
            // Networks without addresses of their own are not set up.
            let Some(spec) = self.networks.get(network) else { continue };
            let fixed = container.addresses.get(network).copied();
            if let Some(fixed) = fixed
                && !used.take_fixed(network, fixed)
            {
                return Err(format!("address {fixed} of network {network} is in use"));
            }
            let full =
                |subnet: &dyn fmt::Display| format!("network {network} has no free address in {subnet}");
            let v4 = match fixed {
                Some(IpAddr::V4(fixed)) => fixed,
                _ => used.take(network, spec).ok_or_else(|| full(&spec.subnet))?,
            };
            given.v4.insert(network.clone(), v4);
            let Some(subnet) = spec.subnet6 else { continue };
            let v6 = match fixed {
                Some(IpAddr::V6(fixed)) => fixed,
                _ => used.take6(network, spec, subnet).ok_or_else(|| full(&subnet))?,
            };
            given.v6.insert(network.clone(), v6);
        }
        Ok(given)
    }

    /// What is not true yet of a container or job that another one waits for.
    fn unmet(&self, dependency: &Dependency, there: &BTreeSet<&Name>) -> Option<String> {
        let name = &dependency.container;
        if dependency.condition == Condition::Completed {
            let done = self.wanted.completed.contains(name);
            return (!done).then(|| format!("job {name} has not completed"));
        }
        if !there.contains(name) {
            return Some(format!("container {name} is not started yet"));
        }
        let healthy = |choice: &Choice| {
            choice.serving().and_then(|one| self.seen.instances.get(one)).is_some_and(|seen| {
                seen.state == State::Running && matches!(seen.health, Health::Healthy | Health::Unchecked)
            })
        };
        let mut slots = self.choices.range((name, 0)..=(name, u32::MAX));
        let ill = dependency.condition == Condition::Healthy && !slots.all(|(_, choice)| healthy(choice));
        ill.then(|| format!("container {name} is not healthy yet"))
    }

    /// Adds the jobs that are due and not there yet.
    fn add_jobs(&self, there: &BTreeSet<&Name>, used: &mut Addresses, plan: &mut Plan) {
        for name in self.wanted.due {
            let Some(job) = self.manifest().jobs.get(name) else { continue };
            if self.seen.instances_of(name).next().is_some() {
                continue;
            }
            let start = Start {
                instance: free_instance(self.wanted.generation, (name, 1), self.seen),
                fingerprint: fingerprint(self.manifest(), &job.container),
                reason: Reason::Due,
            };
            self.start(("job", name), &start, &job.container, there, used, plan);
        }
    }
}

/// Says what a choice leaves open.
fn note(choice: &Choice, container: &Container, plan: &mut Plan) {
    let (what, why, waits_for) = match choice {
        Choice::Trial(new, old) => {
            (new.to_string(), format!("it is not ready yet; {old} goes on"), WaitsFor::Containers)
        }
        Choice::Rejected(old) => {
            let image = &container.image;
            let why = format!(
                "{image} was tried and rejected, {old} goes on; `[update] retry = true` in a newer manifest tries it again"
            );
            (format!("container {}", old.name), why, WaitsFor::Somebody)
        }
        _ => return,
    };
    plan.waiting.push(Waiting { what, why, waits_for });
}

/// The first network that the manifest names and that has addresses of a port's kind is the one that the port leads to.
fn publish(container: &Container, given: &Given, published: &mut BTreeSet<Published>) {
    let v4 = container.networks.iter().find_map(|network| given.v4.get(network)).map(|to| IpAddr::V4(*to));
    let v6 = container.networks.iter().find_map(|network| given.v6.get(network)).map(|to| IpAddr::V6(*to));
    published.extend(container.ports.iter().filter_map(|port| {
        let to = if port.address.is_some_and(|address| address.is_ipv6()) { v6 } else { v4 }?;
        // All IPv6 addresses are written `[::]` in a manifest.
        let address = port.address.filter(|address| !address.is_unspecified());
        Some(Published { protocol: port.protocol, address, port: port.host, to, to_port: port.container })
    }));
}
