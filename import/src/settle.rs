//! What containers say of each other that a manifest does not take, settled before it is written, each with a note.
//!
//! Compose and Podman find these out when a container is started, or let them pass; `check` of a manifest does not.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::draft::{Draft, Table, Value};
use crate::note::{Notes, Site};

/// Settles all of a draft.
pub(crate) fn settle(draft: &mut Draft, notes: &Notes) {
    let healthy: BTreeSet<String> = draft
        .containers
        .iter()
        .filter(|(_, table)| table.has("health"))
        .map(|(name, _)| name.clone())
        .collect();
    let mut networks = std::mem::take(&mut draft.networks);
    for (name, table) in &mut networks {
        router(name, table, notes);
    }
    for (_, table) in draft.containers.iter_mut().chain(&mut draft.jobs) {
        let Some(site) = table.origin.clone() else { continue };
        alone(table, &networks, &site, notes);
        addresses(table, &networks, &site, notes);
        ports(table, &networks, &site, notes);
        replicas(table, &site, notes);
        conditions(table, &healthy, &site, notes);
    }
    draft.networks = networks;
}

fn words<'a>(table: &'a Table, key: &str) -> Vec<&'a str> {
    match table.entries.get(key) {
        Some(Value::List(list)) => list
            .iter()
            .filter_map(|value| if let Value::Text(text) = value { Some(text.as_str()) } else { None })
            .collect(),
        _ => Vec::new(),
    }
}

/// The host's network, and none, stand alone.
fn alone(table: &mut Table, networks: &BTreeMap<String, Table>, site: &Site, notes: &Notes) {
    let kind = |name: &str| {
        networks.get(name).and_then(|network| network.text("kind")).unwrap_or("bridge").to_owned()
    };
    let joined = words(table, "networks");
    let Some(name) = joined.iter().find(|name| matches!(kind(name).as_str(), "host" | "none")) else {
        return;
    };
    let (name, others) = ((*name).to_owned(), joined.len() > 1);
    if others {
        table.set("networks", vec![name.clone()]);
        notes.changed(site, format!("beside `{name}` there is no other network"), "");
    }
    for key in ["ports", "aliases", "addresses", "mac-address"] {
        if table.entries.remove(key).is_some() {
            notes.lost(site, format!("on the network `{name}` there are no `{key}`"), "");
        }
    }
}

/// A fixed address is one of the network's subnet, so that one has to be declared.
fn addresses(table: &mut Table, networks: &BTreeMap<String, Table>, site: &Site, notes: &Notes) {
    let Some(Value::Map(all)) = table.entries.get_mut("addresses") else { return };
    all.retain(|(network, address)| {
        let Value::Text(address) = address else { return false };
        let v6 = address.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
        let key = if v6 { "subnet6" } else { "subnet" };
        let has = networks.get(network).is_some_and(|network| network.has(key));
        if !has {
            let hint = format!("write `{key}` in `[network.{network}]`, and `addresses` again");
            notes.lost(site, format!("`{network}` has no subnet that {address} could be in"), hint);
        }
        has
    });
    if all.is_empty() {
        table.entries.remove("addresses");
    }
}

/// Without an IPv6 address on any of its networks a container cannot be published on one.
fn ports(table: &mut Table, networks: &BTreeMap<String, Table>, site: &Site, notes: &Notes) {
    let joined = words(table, "networks");
    let has_v6 = |name: &&str| networks.get(*name).is_some_and(|network| network.has("subnet6"));
    if joined.iter().any(has_v6) {
        return;
    }
    let Some(Value::List(all)) = table.entries.get_mut("ports") else { return };
    all.retain(|port| {
        let Value::Text(port) = port else { return true };
        let v6 = port.starts_with('[');
        if v6 {
            let hint = "write `subnet6` in one of its networks, and the port again";
            notes.lost(
                site,
                format!("no network of it has IPv6 addresses, which `{port}` is published on"),
                hint,
            );
        }
        !v6
    });
    if all.is_empty() {
        table.entries.remove("ports");
    }
}

/// A router has an address of the network's subnet, so that one has to be declared.
fn router(name: &str, table: &mut Table, notes: &Notes) {
    let Some(site) = table.origin.clone() else { return };
    let Some(gateway) = table.text("gateway").map(str::to_owned) else { return };
    let v6 = gateway.parse::<IpAddr>().is_ok_and(|address| address.is_ipv6());
    let key = if v6 { "subnet6" } else { "subnet" };
    if !table.has(key) {
        table.entries.remove("gateway");
        let hint = format!("write `{key}` in `[network.{name}]`, and `gateway` again");
        notes.lost(&site, format!("`{name}` has no subnet that its router {gateway} could be in"), hint);
    }
}

/// Several of one container cannot all have the same port or address.
fn replicas(table: &mut Table, site: &Site, notes: &Notes) {
    let single = ["ports", "addresses", "mac-address"].into_iter().find(|key| table.has(key));
    if let Some(key) = single
        && table.entries.remove("replicas").is_some()
    {
        notes.changed(site, format!("several replicas cannot have the same `{key}`: there is one"), "");
    }
}

/// Only what has a check can be waited for to be healthy.
fn conditions(table: &mut Table, healthy: &BTreeSet<String>, site: &Site, notes: &Notes) {
    let Some(Value::Map(all)) = table.entries.get_mut("depends-on") else { return };
    for (other, when) in all {
        if *when == Value::from("healthy") && !healthy.contains(other) {
            *when = Value::from("started");
            let hint = format!("write `[container.{other}.health]`: the check of an image is not known here");
            notes.changed(
                site,
                format!("`{other}` has no check of its health, so it is waited for to start"),
                hint,
            );
        }
    }
}
