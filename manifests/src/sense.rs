//! What is allowed and probably not meant, and what one host cannot do.

use std::collections::BTreeMap;

use crate::check::HostDescription;
use crate::fault::{Faults, quoted};
use crate::model::{Manifest, Name};
use crate::place::Places;
use crate::relations::programs;

pub(crate) fn check(
    manifest: &Manifest,
    host: Option<&HostDescription>,
    places: &Places<'_>,
    faults: &Faults,
) {
    unreachable(manifest, places, faults);
    unused(manifest, places, faults);
    if let Some(host) = host {
        audience(manifest, host, places, faults);
        capacity(manifest, host, places, faults);
        secrets(manifest, host, places, faults);
    }
}

/// Notes containers that publish nothing and share a network with nobody.
fn unreachable(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let mut members: BTreeMap<&Name, usize> = BTreeMap::new();
    for network in programs(manifest).flat_map(|(_, program)| &program.networks) {
        *members.entry(network).or_default() += 1;
    }
    for (name, container) in &manifest.containers {
        let alone =
            container.networks.iter().all(|network| members.get(network).is_none_or(|count| *count < 2));
        let own_network = container.networks.iter().any(|network| {
            let kind = manifest.networks.get(network).map(|network| network.kind).unwrap_or_default();
            kind != crate::model::NetworkKind::Bridge
        });
        if container.ports.is_empty() && alone && !own_network {
            let message = format!("nothing can reach container {}", quoted(name.as_str()));
            let hint = "publish a port with `ports`, or let another container join its network".to_owned();
            faults.note(&places.value(&["container", name.as_str()]), message, hint);
        }
    }
}

/// Notes what is declared and used by nothing.
fn unused(manifest: &Manifest, places: &Places<'_>, faults: &Faults) {
    let note = |kind: &str, name: &Name| {
        let message = format!("{kind} {} is used by nothing", quoted(name.as_str()));
        faults.note(&places.value(&[kind, name.as_str()]), message, None);
    };
    let volume = |name: &Name| {
        programs(manifest).any(|(_, program)| program.volumes.iter().any(|mount| mount.volume == *name))
    };
    let network = |name: &Name| programs(manifest).any(|(_, program)| program.networks.contains(name));
    manifest.volumes.keys().filter(|name| !volume(name)).for_each(|name| note("volume", name));
    manifest.networks.keys().filter(|name| !network(name)).for_each(|name| note("network", name));
}

/// Reports that the manifest is not for the host at all.
fn audience(manifest: &Manifest, host: &HostDescription, places: &Places<'_>, faults: &Faults) {
    let audience = &manifest.header.audience;
    if let (Some(wanted), Some(arch)) = (&audience.arch, &host.arch)
        && wanted != arch
    {
        let message = format!("the manifest is for {}, and the host is {}", quoted(wanted), quoted(arch));
        faults.add(&places.value(&["audience", "arch"]), message);
    }
    for (label, value) in &audience.labels {
        if host.labels.get(label) != Some(value) {
            let message = format!("the host does not have the label {} with this value", quoted(label));
            faults.add(&places.value(&["audience", "labels", label]), message);
        }
    }
}

/// Reports limits that are beyond the host.
fn capacity(manifest: &Manifest, host: &HostDescription, places: &Places<'_>, faults: &Faults) {
    let mut sum = 0u64;
    for ([kind, name], program) in programs(manifest).filter(|(_, program)| program.is_on(&host.labels)) {
        let place = |key: &str| places.value(&[kind, name, "limits", key]);
        if let (Some(memory), Some(there)) = (program.limits.memory, host.memory) {
            sum = sum.saturating_add(memory);
            if memory > there {
                let message = format!("the host has {} MiB of memory, and this is more", there >> 20);
                faults.add(&place("memory"), message);
            }
        }
        if let (Some(millis), Some(cpus)) = (program.limits.cpu_millis, host.cpus)
            && millis > cpus.saturating_mul(1000)
        {
            faults.add(&place("cpu"), format!("the host has {cpus} CPUs, and this is more"));
        }
    }
    if let Some(there) = host.memory.filter(|there| sum > *there) {
        let message =
            format!("all memory limits together are {} MiB, and the host has {} MiB", sum >> 20, there >> 20);
        let hint = "that is allowed, as long as they do not all need it at once".to_owned();
        faults.note(&places.value(&["container"]), message, hint);
    }
}

/// Reports secrets that the host cannot open.
fn secrets(manifest: &Manifest, host: &HostDescription, places: &Places<'_>, faults: &Faults) {
    let Some(recipient) = &host.recipient else { return };
    for (name, secret) in &manifest.secrets {
        let place = places.value(&["secret", name.as_str(), "recipients"]);
        if secret.recipients.is_empty() {
            let message = format!("secret {} does not say for which hosts it is", quoted(name.as_str()));
            faults.note(&place, message, "`hostctl secret encrypt` writes its `recipients`".to_owned());
        } else if !secret.recipients.contains(recipient) {
            let message = format!("secret {} is not for this host", quoted(name.as_str()));
            faults.add_with(&place, message, format!("encrypt it again with `--recipient {recipient}`, too"));
        }
    }
}
