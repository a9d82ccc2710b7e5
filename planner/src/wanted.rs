//! What a host is to be: a manifest and the number of the generation that it became.

use std::collections::BTreeSet;

use bennu_manifests::model::{
    Config, Container, Digest, Manifest, Name, Network, Runtime, Secret, VolumeLife,
};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

/// What a host is to be.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The generation; new instances are named after it.
    pub generation: u64,
    /// The accepted manifest.
    pub manifest: &'a Manifest,
    /// Containers that were tried and did not do their work: their names, and what they were made from.
    pub rejected: &'a BTreeSet<(Name, Digest)>,
    /// Jobs that are to run now.
    pub due: &'a BTreeSet<Name>,
    /// Jobs that have done their work, as they are declared now.
    pub completed: &'a BTreeSet<Name>,
}

/// Changed with the meaning of a fingerprint, so that an update of this program is seen as a change where it is one.
const FINGERPRINT_VERSION: u32 = 2;

/// The word of a container that is made anew when its configs or secrets change.
pub(crate) const RESTART: &str = "restart";

/// The SHA-256 of all that an instance is made from: instances with equal fingerprints need not be replaced.
///
/// Left out is what is carried out beside the instance and changes without it: published ports, dependencies, checks, the
/// number of replicas, the way it is replaced, and configs and secrets that it is told of by a signal.
pub fn fingerprint(manifest: &Manifest, container: &Container) -> Digest {
    #[derive(Serialize)]
    struct MadeFrom<'a> {
        version: u32,
        container: &'a Container,
        networks: Vec<(&'a Name, &'a Network)>,
        volumes: Vec<(&'a Name, VolumeLife)>,
        contents: Option<Digest>,
        /// Left out where it is the usual one: what ran before there was a choice goes on running.
        #[serde(skip_serializing_if = "is_usual")]
        runtime: Runtime,
    }
    fn is_usual(runtime: &Runtime) -> bool {
        *runtime == Runtime::default()
    }
    let mut container = container.clone();
    container.ports.clear();
    container.depends_on.clear();
    container.on.clear();
    container.labels.clear();
    container.replicas = 1;
    (container.health, container.readiness, container.update) = (None, None, None);
    // The tag is for people; the digest is what runs.
    container.image.tag = None;
    let networks = container.networks.iter().map(|name| (name, &manifest.networks[name])).collect();
    // A volume that goes back with its generation lies where a kept one does: a container does not notice the change.
    let life = |name: &Name| match manifest.volumes[name].life {
        VolumeLife::Snapshot => VolumeLife::Keep,
        life => life,
    };
    let volumes = container.volumes.iter().map(|mount| (&mount.volume, life(&mount.volume))).collect();
    let contents = (container.on_change == RESTART).then(|| contents(manifest, &container));
    let (version, runtime) = (FINGERPRINT_VERSION, manifest.runtime());
    digest(&MadeFrom { version, networks, volumes, contents, runtime, container: &container })
}

/// The SHA-256 of the configs and secrets that a container uses, as the manifest has them: secrets are encrypted there, so
/// one that is encrypted anew counts as changed.
pub fn contents(manifest: &Manifest, container: &Container) -> Digest {
    let mounted = container.configs.iter().chain(&container.secrets).map(|mount| &mount.source);
    let names: BTreeSet<&Name> =
        mounted.chain(&container.environment_files).chain(container.environment_secrets.values()).collect();
    let each = |name| (name, manifest.configs.get(name), manifest.secrets.get(name));
    let contents: Vec<(&Name, Option<&Config>, Option<&Secret>)> = names.into_iter().map(each).collect();
    digest(&contents)
}

fn digest(value: &impl Serialize) -> Digest {
    let text = serde_json::to_vec(value).expect("maps with string keys always become JSON");
    Digest::from_bytes(Sha256::digest(text).into())
}

/// Names of the containers, each after all that it depends on; alphabetical where nothing else decides.
pub(crate) fn start_order(manifest: &Manifest) -> Vec<&Name> {
    fn visit<'a>(
        manifest: &'a Manifest,
        name: &'a Name,
        visited: &mut BTreeSet<&'a Name>,
        order: &mut Vec<&'a Name>,
    ) {
        if !visited.insert(name) {
            return;
        }
        // The check of the manifest has refused cycles, so this ends.
        for dependency in &manifest.containers[name].depends_on {
            // A job that is waited for is started beside the containers.
            if manifest.containers.contains_key(&dependency.container) {
                visit(manifest, &dependency.container, visited, order);
            }
        }
        order.push(name);
    }
    let (mut visited, mut order) = (BTreeSet::new(), Vec::with_capacity(manifest.containers.len()));
    for name in manifest.containers.keys() {
        visit(manifest, name, &mut visited, &mut order);
    }
    order
}
