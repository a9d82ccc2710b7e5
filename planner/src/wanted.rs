//! What a host is to be: a manifest and the number of the generation that it became.

use bennu_manifests::model::{Container, Digest, Manifest, Name, Network, VolumeLife};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What a host is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The generation; new instances are named after it.
    pub generation: u64,
    /// The accepted manifest.
    pub manifest: &'a Manifest,
}

/// Changed with the meaning of a fingerprint, so that an update of this program is seen as a change where it is one.
const FINGERPRINT_VERSION: u32 = 1;

/// The SHA-256 of all that an instance is made from: instances with equal fingerprints need not be replaced.
///
/// Published ports and dependencies are left out: they are carried out beside the instance and change without it.
/// # Panics
/// If `name` is not declared in the manifest.
pub fn fingerprint(manifest: &Manifest, name: &Name) -> Digest {
    #[derive(Serialize)]
    struct MadeFrom<'a> {
        version: u32,
        container: &'a Container,
        networks: Vec<(&'a Name, &'a Network)>,
        volumes: Vec<(&'a Name, VolumeLife)>,
    }
    let mut container = manifest.containers[name].clone();
    container.ports.clear();
    container.depends_on.clear();
    container.on.clear();
    container.labels.clear();
    // The tag is for people; the digest is what runs.
    container.image.tag = None;
    let made_from = MadeFrom {
        version: FINGERPRINT_VERSION,
        networks: container.networks.iter().map(|n| (n, &manifest.networks[n])).collect(),
        volumes: container.volumes.iter().map(|v| (&v.volume, manifest.volumes[&v.volume].life)).collect(),
        container: &container,
    };
    let text = serde_json::to_vec(&made_from).expect("maps with string keys always become JSON");
    Digest::from_bytes(Sha256::digest(text).into())
}

/// Names of the containers, each after all that it depends on; alphabetical where nothing else decides.
pub(crate) fn start_order(manifest: &Manifest) -> Vec<&Name> {
    fn visit<'a>(manifest: &'a Manifest, name: &'a Name, order: &mut Vec<&'a Name>) {
        if order.contains(&name) {
            return;
        }
        // The check of the manifest has refused cycles, so this ends.
        for dependency in &manifest.containers[name].depends_on {
            visit(manifest, &dependency.container, order);
        }
        order.push(name);
    }
    let mut order = Vec::with_capacity(manifest.containers.len());
    for name in manifest.containers.keys() {
        visit(manifest, name, &mut order);
    }
    order
}
