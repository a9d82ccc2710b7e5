//! What the parts of a manifest say about each other: references, order, and what can be there only once.

use std::collections::BTreeMap;

use crate::container::Draft;
use crate::document::Sited;
use crate::fault::{Faults, quoted};
use crate::model::{Name, Port, Protocol, Subnet};
use crate::nearest::did_you_mean;
use crate::units::collide;

/// The network that containers join if they name none.
pub(crate) const DEFAULT_NETWORK: &str = "default";
/// The most ports that one manifest publishes.
const MAX_PORTS: usize = 4096;

/// The names that are declared, right or wrong as they may be.
pub(crate) struct Declared<'a> {
    pub(crate) networks: Vec<&'a str>,
    pub(crate) volumes: Vec<&'a str>,
    pub(crate) containers: Vec<&'a str>,
}

/// Reports every reference to something that is not declared.
pub(crate) fn references(drafts: &BTreeMap<Name, Draft>, declared: &Declared<'_>, faults: &Faults) {
    let known = |what: &str, key: &str, sited: &Sited<Name>, names: &[&str]| {
        if !names.contains(&sited.value.as_str()) {
            let message = format!("there is no {what} {}", quoted(sited.value.as_str()));
            let near = did_you_mean(sited.value.as_str(), names.iter().copied());
            faults.add_with(
                &sited.span,
                message,
                near.unwrap_or(format!("declare it by `[{key}.{}]`", sited.value)),
            );
        }
    };
    let mut networks = declared.networks.clone();
    networks.push(DEFAULT_NETWORK);
    for draft in drafts.values() {
        for network in draft.networks.iter().flatten() {
            known("network", "network", network, &networks);
        }
        for mount in &draft.volumes {
            let volume = Sited { value: mount.value.volume.clone(), span: mount.span.clone() };
            known("volume", "volume", &volume, &declared.volumes);
        }
        for other in &draft.depends_on {
            known("container", "container", other, &declared.containers);
        }
    }
}

/// Reports aliases that are the name of another container: a name would lead to either of them by chance.
pub(crate) fn aliases(drafts: &BTreeMap<Name, Draft>, faults: &Faults) {
    for draft in drafts.values() {
        for alias in draft.aliases.iter().filter(|alias| drafts.contains_key(&alias.value)) {
            faults.add(
                &alias.span,
                format!("{} is already the name of a container", quoted(alias.value.as_str())),
            );
        }
    }
}

/// Reports containers that wait for themselves, once for each way round.
pub(crate) fn cycles(drafts: &BTreeMap<Name, Draft>, faults: &Faults) {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        OnPath,
        Done,
    }
    let mut marks: BTreeMap<&Name, Mark> = BTreeMap::new();
    for start in drafts.keys() {
        if marks.contains_key(start) {
            continue;
        }
        // Each container on the path with the number of its dependencies that were looked at. It is a loop and not
        // a recursion, because the depth is the document's choice.
        let mut path = vec![(start, 0)];
        marks.insert(start, Mark::OnPath);
        while let Some((name, next)) = path.last_mut() {
            let Some(wanted) = drafts.get(*name).and_then(|draft| draft.depends_on.get(*next)) else {
                marks.insert(*name, Mark::Done);
                path.pop();
                continue;
            };
            *next += 1;
            match marks.get(&wanted.value) {
                Some(Mark::Done) => {}
                Some(Mark::OnPath) => {
                    let names: Vec<&str> = path.iter().map(|(name, _)| name.as_str()).collect();
                    let from = names.iter().position(|name| *name == wanted.value.as_str()).unwrap_or(0);
                    let round = names[from..].join(" → ");
                    let message = format!("containers wait for each other: {round} → {}", wanted.value);
                    faults.add_with(
                        &wanted.span,
                        message,
                        "remove one of these from its `depends-on`".to_owned(),
                    );
                }
                None => {
                    // Undeclared ones were reported, and have no dependencies to follow.
                    if let Some((name, _)) = drafts.get_key_value(&wanted.value) {
                        marks.insert(name, Mark::OnPath);
                        path.push((name, 0));
                    }
                }
            }
        }
    }
}

/// Reports ports of the host that are published twice.
pub(crate) fn ports(drafts: &BTreeMap<Name, Draft>, faults: &Faults) {
    type Published<'a> = (&'a Name, &'a Sited<Port>);
    let mut by_port: BTreeMap<(Protocol, u16), Vec<Published<'_>>> = BTreeMap::new();
    let mut count = 0;
    for (name, draft) in drafts {
        for port in &draft.ports {
            count += 1;
            if count > MAX_PORTS {
                faults.add(&port.span, format!("a manifest publishes at most {MAX_PORTS} ports"));
                return;
            }
            by_port.entry((port.value.protocol, port.value.host)).or_default().push((name, port));
        }
    }
    for published in by_port.values_mut() {
        published.sort_by_key(|(_, port)| port.span.start);
        for (position, (_, port)) in published.iter().enumerate() {
            let earlier =
                published[..position].iter().find(|(_, earlier)| collide(&earlier.value, &port.value));
            if let Some((owner, _)) = earlier {
                let number = port.value.host;
                let message =
                    format!("port {number} of the host is already published by container `{owner}`");
                faults.add_with(
                    &port.span,
                    message,
                    "choose another port, or another address of the host".to_owned(),
                );
            }
        }
    }
}

/// Reports subnets that have addresses in common.
pub(crate) fn subnets(subnets: &[(Name, Sited<Subnet>)], faults: &Faults) {
    for (position, (_, subnet)) in subnets.iter().enumerate() {
        let overlapping = |(_, earlier): &&(Name, Sited<Subnet>)| earlier.value.overlaps(&subnet.value);
        if let Some((name, earlier)) = subnets[..position].iter().find(overlapping) {
            let message = format!("this subnet overlaps {}, that of network `{name}`", earlier.value);
            faults.add(&subnet.span, message);
        }
    }
}
