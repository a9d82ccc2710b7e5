//! What a manifest may change only with the `os` role, because of what the manifest before it says.
//!
//! Most of what needs the role can be read off a document alone ([`crate::accept`]). What it leaves out can't: that takes
//! the document that it follows.

use crate::model::Manifest;

/// The entries of `now` that `next` changes or leaves out although they are protected, as paths in a manifest.
///
/// A volume is protected by its own entry (`protected = true`). Each difference counts, so that neither its data nor the
/// protection itself can be taken away by whoever may deploy containers; an entry that stays as it is needs nobody.
pub fn protected_changes(now: &Manifest, next: &Manifest) -> Vec<String> {
    let protected = now.volumes.iter().filter(|(_, volume)| volume.protected);
    let changed = protected.filter(|(name, volume)| next.volumes.get(*name) != Some(*volume));
    changed.map(|(name, _)| format!("volume.{name}")).collect()
}
