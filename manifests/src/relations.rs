//! What the parts of a manifest say about each other: references, order, and what can be there only once.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::ops::Range;

use crate::fault::{Faults, quoted};
use crate::model::{Condition, Container, Manifest, Name, NetworkKind, Port, Protocol, VolumeLife};
use crate::nearest::did_you_mean;
use crate::place::Places;
use crate::units::{collide, read_ports};

/// The network that containers join if they name none.
pub(crate) const DEFAULT_NETWORK: &str = "default";
/// The most ports that one manifest publishes.
const MAX_PORTS: usize = 4096;

/// What runs: a container, or that of a job, and the path of its table.
type Program<'a> = ([&'a str; 2], &'a Container);

/// All that runs.
pub(crate) fn programs(manifest: &Manifest) -> impl Iterator<Item = Program<'_>> {
    let containers = manifest.containers.iter().map(|(name, it)| (["container", name.as_str()], it));
    let jobs = manifest.jobs.iter().map(|(name, job)| (["job", name.as_str()], &job.container));
    containers.chain(jobs)
}

/// Reports all that does not go together.
pub(crate) fn check(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    header(manifest, places, faults);
    references(manifest, places, faults);
    names(manifest, places, faults);
    targets(manifest, places, faults);
    cycles(manifest, places, faults);
    ports(manifest, places, faults);
    subnets(manifest, places, faults);
    networks(manifest, places, faults);
    policies(manifest, places, faults);
    interfaces(manifest, places, faults);
}

/// Reports interfaces of the host that can't be made, or that nobody could reach.
fn interfaces(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let interfaces = manifest.os.iter().flat_map(|os| &os.interfaces);
    for (name, interface) in interfaces.clone() {
        let report = |key: Option<&str>, message: &str, hint: &str| {
            let path: Vec<&str> = ["os", "interface", name].into_iter().chain(key).collect();
            faults.add_with(&places.value(&path), message.to_owned(), hint.to_owned());
        };
        match (interface.vlan, &interface.parent) {
            (Some(_), None) => {
                report(Some("vlan"), "a VLAN is on another interface", "name that one as `parent`")
            }
            (None, Some(_)) => {
                report(
                    Some("parent"),
                    "only a VLAN is on another interface",
                    "say which VLAN it is by `vlan`, or leave `parent` out",
                );
            }
            (Some(_), Some(parent)) if parent == name => {
                report(
                    Some("parent"),
                    "an interface can't be on itself",
                    "name the interface that the VLAN is on",
                );
            }
            (Some(_), Some(parent))
                if interfaces.clone().any(|(other, it)| other == parent && it.vlan.is_some()) =>
            {
                report(Some("parent"), "a VLAN can't be on a VLAN", "name the interface that both are on");
            }
            _ => {}
        }
        let fixed = |gateway: &IpAddr| interface.addresses.iter().any(|own| is_of_kind(own, gateway));
        if interface.gateway.as_ref().is_some_and(|gateway| !interface.dhcp && !fixed(gateway)) {
            let message = "the router can't be reached: the interface has no address of its kind";
            report(Some("gateway"), message, "name one in `addresses`");
        }
    }
}

/// Whether an address with its prefix is of the same version of IP as another one.
fn is_of_kind(own: &str, other: &IpAddr) -> bool {
    own.contains(':') == other.is_ipv6()
}

fn header(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    if manifest.header.expires <= manifest.header.signed_at {
        let message = "the manifest expires before it was signed: `expires` must be after `signed-at`";
        faults.add(&places.value(&["expires"]), message);
    }
}

/// Reports every reference to something that is not declared.
fn references(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    // What is declared and faulty is no reason to say that it is not declared.
    let kinds = ["network", "volume", "container", "job", "config", "secret"];
    let declared: BTreeMap<&str, Vec<&str>> = kinds.iter().map(|kind| (*kind, places.keys(kind))).collect();
    let known = |path: &[&str], kind: &str, name: &Name, is_it: &dyn Fn(&str) -> bool| {
        let names = &declared[kind];
        let name = name.as_str();
        if names.contains(&name) || (kind == "network" && name == DEFAULT_NETWORK) || faults.is_full() {
            return;
        }
        let also = if kind == "network" { &[DEFAULT_NETWORK][..] } else { &[] };
        let near = did_you_mean(name, names.iter().chain(also).copied());
        let hint = near.unwrap_or_else(|| format!("declare it by `[{kind}.{name}]`"));
        faults.add_with(&places.element(path, is_it), format!("there is no {kind} {}", quoted(name)), hint);
    };
    for ([kind, name], program) in programs(manifest) {
        let key = |key: &'static str| [kind, name, key];
        let first = |text: &str, name: &Name| text.split(':').next() == Some(name.as_str());
        for network in program.networks.iter().filter(|network| network.as_str() != DEFAULT_NETWORK) {
            known(&key("networks"), "network", network, &|text| text == network.as_str());
        }
        for network in program.addresses.keys() {
            known(&key("addresses"), "network", network, &|text| text == network.as_str());
        }
        for mount in &program.volumes {
            known(&key("volumes"), "volume", &mount.volume, &|text| first(text, &mount.volume));
        }
        for mount in &program.secrets {
            known(&key("secrets"), "secret", &mount.source, &|text| first(text, &mount.source));
        }
        for mount in &program.configs {
            known(&key("configs"), "config", &mount.source, &|text| first(text, &mount.source));
        }
        for (variable, secret) in &program.environment_secrets {
            known(&[kind, name, "environment-secrets", variable], "secret", secret, &|_| false);
        }
        for file in &program.environment_files {
            let kind = if declared["secret"].contains(&file.as_str()) { "secret" } else { "config" };
            known(&key("environment-files"), kind, file, &|text| text == file.as_str());
        }
        for wanted in &program.depends_on {
            let kind = if wanted.condition == Condition::Completed { "job" } else { "container" };
            known(&key("depends-on"), kind, &wanted.container, &|text| text == wanted.container.as_str());
        }
    }
    for (registry, entry) in &manifest.registries {
        let config = |key: &'static str, kind: &str, name: &Option<Name>| {
            if let Some(name) = name {
                known(&["registry", registry, key], kind, name, &|_| false);
            }
        };
        config("ca", "config", &entry.ca);
        config("client-certificate", "config", &entry.client_certificate);
        config("client-key", "secret", &entry.client_key);
        if let Some(credentials) = &entry.credentials {
            known(
                &["registry", registry, "credentials", "password"],
                "secret",
                &credentials.password,
                &|_| false,
            );
        }
    }
    for (forward, entry) in manifest.logs.iter().flat_map(|logs| &logs.forwards) {
        if let Some(ca) = &entry.ca {
            known(&["logs", "forward", forward.as_str(), "ca"], "config", ca, &|_| false);
        }
    }
}

/// Reports names that would lead to either of two containers by chance.
fn names(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    for name in manifest.jobs.keys().filter(|name| manifest.containers.contains_key(*name)) {
        let message = format!("{} is already the name of a container", quoted(name.as_str()));
        faults.add(&places.value(&["job", name.as_str()]), message);
    }
    for ([kind, name], program) in programs(manifest) {
        for alias in program.aliases.iter().filter(|alias| manifest.containers.contains_key(*alias)) {
            let place = places.element(&[kind, name, "aliases"], |text| text == alias.as_str());
            faults.add(&place, format!("{} is already the name of a container", quoted(alias.as_str())));
        }
    }
}

/// Reports two things that appear at one place of a container.
fn targets(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    for ([kind, name], program) in programs(manifest) {
        let mut seen = BTreeSet::new();
        for (key, target) in program.targets() {
            if !seen.insert(target) {
                let is_it = |text: &str| text.split(':').any(|part| part == target);
                // The later one of two is meant, where both are in one list.
                let place = places.last_element(&[kind, name, key], is_it);
                let path = quoted(&format!("{kind}.{name}"));
                faults.add(&place, format!("{path} mounts two things at {}", quoted(target)));
            }
        }
    }
}

/// Reports containers that wait for themselves, once for each way round.
fn cycles(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        OnPath,
        Done,
    }
    let containers = &manifest.containers;
    let mut marks: BTreeMap<&Name, Mark> = BTreeMap::new();
    for start in containers.keys() {
        if marks.contains_key(start) {
            continue;
        }
        // Each container on the path with the number of its dependencies that were looked at. It is a loop and not
        // a recursion, because the depth is the document's choice.
        let mut path = vec![(start, 0)];
        marks.insert(start, Mark::OnPath);
        while let Some((name, next)) = path.last_mut() {
            let Some(wanted) = containers.get(*name).and_then(|it| it.depends_on.get(*next)) else {
                marks.insert(*name, Mark::Done);
                path.pop();
                continue;
            };
            *next += 1;
            let waiting = *name;
            match marks.get(&wanted.container) {
                Some(Mark::Done) => {}
                Some(Mark::OnPath) => {
                    let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
                    let from = names.iter().position(|name| *name == wanted.container.as_str()).unwrap_or(0);
                    let round = names[from..].join(" → ");
                    let message = format!("containers wait for each other: {round} → {}", wanted.container);
                    let path = ["container", waiting.as_str(), "depends-on"];
                    let place = places.element(&path, |text| text == wanted.container.as_str());
                    faults.add_with(&place, message, "remove one of these from its `depends-on`".to_owned());
                }
                None => {
                    // Undeclared ones were reported, and have no dependencies to follow.
                    if let Some((name, _)) = containers.get_key_value(&wanted.container) {
                        marks.insert(name, Mark::OnPath);
                        path.push((name, 0));
                    }
                }
            }
        }
    }
}

/// Whether two programs may run on one host: not where a label would need two values.
fn may_meet(a: &Container, b: &Container) -> bool {
    a.on.iter().all(|(label, value)| b.on.get(label).is_none_or(|other| other == value))
}

/// Where a port is published. Looked up only where it is shown: it costs a search through the entries of the container.
fn port_place(places: &Places<'_>, [kind, name]: [&str; 2], port: &Port) -> Range<usize> {
    let is_it = |text: &str| read_ports(text, MAX_PORTS).is_ok_and(|ports| ports.contains(port));
    places.element(&[kind, name, "ports"], is_it)
}

/// Reports ports of the host that are published twice.
fn ports(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let mut by_port: BTreeMap<(Protocol, u16), Vec<(Program<'_>, &Port)>> = BTreeMap::new();
    let place = |program, port: &Port| port_place(places, program, port);
    let all = programs(manifest).flat_map(|(path, it)| it.ports.iter().map(move |port| ((path, it), port)));
    for (count, (program, port)) in all.enumerate() {
        if count == MAX_PORTS {
            faults.add(&place(program.0, port), format!("a manifest publishes at most {MAX_PORTS} ports"));
            return;
        }
        by_port.entry((port.protocol, port.host)).or_default().push((program, port));
    }
    for published in by_port.into_values().filter(|published| published.len() > 1) {
        let placed = published.into_iter().map(|(program, port)| (place(program.0, port), program, port));
        let mut placed: Vec<_> = placed.collect();
        placed.sort_by_key(|(place, ..)| place.start);
        for (position, (place, (_, program), port)) in placed.iter().enumerate() {
            let mut earlier = placed[..position].iter();
            let clash =
                earlier.find(|(_, (_, other), there)| collide(there, port) && may_meet(program, other));
            if let Some((_, ([kind, owner], _), _)) = clash {
                let number = port.host;
                let message = format!("port {number} of the host is already published by {kind} `{owner}`");
                let hint = "choose another port, or another address of the host".to_owned();
                faults.add_with(place, message, hint);
            }
        }
    }
}

/// Reports subnets that have addresses in common.
fn subnets(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let bridges = || manifest.networks.iter().filter(|(_, network)| network.kind == NetworkKind::Bridge);
    let place = |name: &Name, key: &str| places.value(&["network", name.as_str(), key]);
    let v4 = bridges().filter_map(|(name, network)| Some((place(name, "subnet"), name, network.subnet?)));
    let v6 = bridges().filter_map(|(name, network)| Some((place(name, "subnet6"), name, network.subnet6?)));
    overlaps(v4.collect(), |a, b| a.overlaps(b), faults);
    overlaps(v6.collect(), |a, b| a.overlaps(b), faults);
}

fn overlaps<T: std::fmt::Display>(
    mut subnets: Vec<(Range<usize>, &Name, T)>,
    overlap: impl Fn(&T, &T) -> bool,
    faults: &Faults,
) {
    subnets.sort_by_key(|(place, ..)| place.start);
    for (position, (place, _, subnet)) in subnets.iter().enumerate() {
        if let Some((_, name, earlier)) =
            subnets[..position].iter().find(|(_, _, other)| overlap(other, subnet))
        {
            faults.add(place, format!("this subnet overlaps {earlier}, that of network `{name}`"));
        }
    }
}

/// Reports what networks of some kinds cannot do.
fn networks(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let default = crate::model::Network::default();
    let network = |name: &Name| manifest.networks.get(name).unwrap_or(&default);
    for ([kind, name], program) in programs(manifest) {
        let place = |key: &str| places.value(&[kind, name, key]);
        let bare = |name: &&Name| matches!(network(name).kind, NetworkKind::Host | NetworkKind::None);
        if let Some(alone) = program.networks.iter().find(bare) {
            if program.networks.len() > 1 {
                let message =
                    format!("nothing can be joined beside {}, which is no switch", quoted(alone.as_str()));
                faults.add(&place("networks"), message);
            }
            if !program.ports.is_empty() {
                let message = format!("nothing can be published from {}", quoted(alone.as_str()));
                let hint = "on the host's network its ports are the host's; on none it has none".to_owned();
                faults.add_with(&place("ports"), message, hint);
            }
        }
        let v6 = |port: &&Port| port.address.is_some_and(|address| address.is_ipv6());
        if let Some(port) = program.ports.iter().find(v6)
            && program.networks.iter().all(|joined| network(joined).subnet6.is_none())
        {
            let hint = "give one of its networks a `subnet6`".to_owned();
            let message = "a container without an IPv6 address cannot be published on one";
            faults.add_with(&port_place(places, [kind, name], port), message, hint);
        }
        for (joined, address) in &program.addresses {
            let place = places.value(&[kind, name, "addresses", joined.as_str()]);
            if !program.networks.contains(joined) {
                faults.add(&place, format!("it does not join network {}", quoted(joined.as_str())));
            } else if !network(joined).may_have(*address) {
                let hint = format!("give `[network.{joined}]` a subnet that holds it");
                faults.add_with(&place, "the address is not in the network's subnet", hint);
            } else if network(joined).router(address.is_ipv6()) == Some(*address) {
                let hint = "choose another one, or give the network another `gateway`".to_owned();
                faults.add_with(&place, "the address is that of the network's router", hint);
            }
        }
        if program.replicas > 1 && !program.ports.is_empty() {
            let message = "several instances cannot publish one port of the host".to_owned();
            let hint = "publish the port of a proxy that reaches them by their name".to_owned();
            faults.add_with(&place("replicas"), message, hint);
        }
        for wanted in program.depends_on.iter().filter(|wanted| wanted.condition == Condition::Healthy) {
            let target = manifest.containers.get(&wanted.container);
            if target.is_some_and(|target| target.health.is_none()) {
                let place = places.value(&[kind, name, "depends-on", wanted.container.as_str()]);
                let message = format!("container `{}` has no health check to wait for", wanted.container);
                faults.add_with(&place, message, "add `health` to it, or wait for `started`".to_owned());
            }
        }
        for wanted in &program.depends_on {
            let target = manifest.containers.get(&wanted.container);
            let here = |(label, value): (&String, &String)| {
                let audience = &manifest.header.audience.labels;
                program.on.get(label).or_else(|| audience.get(label)) == Some(value)
            };
            if target.is_some_and(|target| !target.on.iter().all(here)) {
                let path = [kind, name, "depends-on"];
                let place = places.element(&path, |text| text == wanted.container.as_str());
                let message =
                    format!("container `{}` is not on every host that has `{name}`", wanted.container);
                faults.add_with(&place, message, "give both the same `on`".to_owned());
            }
        }
    }
}

fn policies(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    for (prefix, policy) in &manifest.image_policies {
        if policy.threshold > policy.keys.len() as u64 {
            let message =
                format!("{} keys must have signed, and there are {}", policy.threshold, policy.keys.len());
            faults.add(&places.value(&["image-policy", prefix, "threshold"]), message);
        }
    }
    for (name, volume) in &manifest.volumes {
        if volume.life == VolumeLife::Scratch && volume.protected {
            let message = "a volume that is empty after each boot has nothing to protect";
            faults.add(&places.value(&["volume", name.as_str(), "protected"]), message);
        }
    }
}
