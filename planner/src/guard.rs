//! What a manifest must say in so many words before it may do it.

use std::fmt;

use bennu_manifests::model::{Manifest, Name, VolumeLife};

use crate::seen::Seen;

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
            None => dangers.push(Danger::DropsVolume { volume: name.clone() }),
            Some(volume) if volume.life == VolumeLife::Scratch && !volume.destroy => {
                dangers.push(Danger::ForgetsVolume { volume: name.clone() });
            }
            Some(_) => {}
        }
    }
    dangers
}
