//! What a manifest must say in so many words before it may do it.

use std::fmt;

use bennu_manifests::model::{Manifest, Name, Volume, VolumeLife};

use crate::plan::survives_boots;
use crate::seen::{Quota, Seen};

/// Something that a manifest would do and has not said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Danger {
    /// It declares no container, and the host runs some.
    RemovesEveryContainer,
    /// It leaves out a volume whose data is kept.
    DropsVolume {
        /// The volume.
        volume: Name,
    },
    /// It gives a volume less room than its data takes up.
    ShrinksVolume {
        /// The volume.
        volume: Name,
        /// The most bytes that it may hold from now on.
        size: u64,
        /// The bytes that it holds.
        used: u64,
    },
    /// It declares a kept volume as one that is fresh at each boot.
    ForgetsVolume {
        /// The volume.
        volume: Name,
    },
}

impl fmt::Display for Danger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::RemovesEveryContainer => f.write_str(
                "it declares no container, and would remove every container that runs; if that is meant, say `allow-empty = true`",
            ),
            Self::DropsVolume { volume } => write!(
                f,
                "it does not declare volume {volume}, which holds data; declare it still, or say `destroy = true` in [volume.{volume}]"
            ),
            Self::ShrinksVolume { volume, size, used } => write!(
                f,
                "it gives volume {volume} {size} bytes, and {used} are in it; declare a larger `size`, or remove data first"
            ),
            Self::ForgetsVolume { volume } => write!(
                f,
                "it declares volume {volume} as `scratch`, but its data is kept; say `destroy = true` in [volume.{volume}] first"
            ),
        }
    }
}

/// All that a manifest would do to a host and has not said; empty where it may be applied.
pub fn guard(manifest: &Manifest, seen: &Seen) -> Vec<Danger> {
    let mut dangers = Vec::new();
    if manifest.containers.is_empty() && !manifest.header.allow_empty && !seen.instances.is_empty() {
        dangers.push(Danger::RemovesEveryContainer);
    }
    for (name, life) in &seen.volumes {
        if *life != VolumeLife::Keep {
            continue;
        }
        match manifest.volumes.get(name) {
            Some(Volume { size: Some(size), destroy: false, life, .. })
                if survives_boots(*life)
                    && let Some(used) = too_full(seen.quotas.get(name), *size) =>
            {
                dangers.push(Danger::ShrinksVolume { volume: name.clone(), size: *size, used });
            }
            None => dangers.push(Danger::DropsVolume { volume: name.clone() }),
            Some(volume) if volume.life == VolumeLife::Scratch && !volume.destroy => {
                dangers.push(Danger::ForgetsVolume { volume: name.clone() });
            }
            Some(_) => {}
        }
    }
    dangers
}

/// The bytes in a volume that do not fit into its new size. One that has this limit already, and is fuller because it was so
/// before the limit came, is left as it is: a manifest for something else is no reason to speak of it.
fn too_full(now: Option<&Quota>, size: u64) -> Option<u64> {
    let now = now.filter(|now| now.limit.is_none_or(|limit| size < limit))?;
    now.used.filter(|used| *used > size)
}
