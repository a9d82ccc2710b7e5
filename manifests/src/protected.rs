//! What a manifest may change only with the `os` role, because of what the manifest before it says.
//!
//! Most of what needs the role can be read off a document alone ([`crate::accept`]). What it leaves out can't: that takes
//! the document that it follows.

use std::collections::BTreeMap;

use crate::model::{Manifest, Os, Runtime};

/// The entries of `now` that `next` changes or leaves out although they are protected, as paths in a manifest.
///
/// A volume is protected by its own entry (`protected = true`). Each difference counts, so that neither its data nor the
/// protection itself can be taken away by whoever may deploy containers; an entry that stays as it is needs nobody. What is set of the
/// host itself is protected as it stands: who leaves it out sets it back.
pub fn protected_changes(now: &Manifest, next: &Manifest) -> Vec<String> {
    let protected = now.volumes.iter().filter(|(_, volume)| volume.protected);
    let changed = protected.filter(|(name, volume)| next.volumes.get(*name) != Some(*volume));
    let volumes = changed.map(|(name, _)| format!("volume.{name}"));
    volumes.chain(changed_settings(now.os.as_ref(), next.os.as_ref())).collect()
}

/// The paths of what is set otherwise of the host. Its image is not among it: left out, that stays which is there.
fn changed_settings(now: Option<&Os>, next: Option<&Os>) -> impl Iterator<Item = String> {
    let nothing = Os {
        image: None,
        runtime: Runtime::default(),
        kernel_arguments: Vec::new(),
        modules: Vec::new(),
        sysctls: BTreeMap::new(),
        host_name: None,
        time_zone: "UTC".to_owned(),
        time_servers: Vec::new(),
        debug_keys: Vec::new(),
        interfaces: BTreeMap::new(),
    };
    let (now, next) = (now.unwrap_or(&nothing), next.unwrap_or(&nothing));
    let changed = [
        ("runtime", now.runtime != next.runtime),
        ("modules", now.modules != next.modules),
        ("sysctls", now.sysctls != next.sysctls),
        ("host-name", now.host_name != next.host_name),
        ("time-zone", now.time_zone != next.time_zone),
        ("time-servers", now.time_servers != next.time_servers),
        ("interface", now.interfaces != next.interfaces),
    ];
    changed.into_iter().filter(|(_, changed)| *changed).map(|(key, _)| format!("os.{key}"))
}
