//! All that is known of an instance, from its record and from what the runtime was told.

use std::io;
use std::path::{Path, PathBuf};

use bennu_api::{Container, InspectedInstance, Joined, Mounted};
use bennu_planner::Instance;
use oci_spec::runtime::{Mount, Spec};

use super::describe::config_of;
use super::record::{self, Record};
use super::{Host, unit};

/// Why an instance can't be told of.
#[derive(Debug, thiserror::Error)]
#[error("read what is known of container {instance}")]
pub struct InspectError {
    /// The instance.
    instance: String,
    /// What went wrong.
    source: io::Error,
}

impl Host {
    /// What is known of an instance beside what `container` tells.
    ///
    /// # Errors
    /// Where its record or its specification can't be read: it may have been removed meanwhile.
    pub fn inspect(&self, container: Container) -> Result<InspectedInstance, InspectError> {
        let error = |source| InspectError { instance: container.instance.clone(), source };
        let gone = || io::Error::from(io::ErrorKind::NotFound);
        let instance: Instance = container.instance.parse().map_err(|_| error(gone()))?;
        let dir = self.paths.instance(&instance);
        let record: Option<Record> = record::read(&dir.join("record.json")).map_err(error)?;
        let record = record.ok_or_else(|| error(gone()))?;
        let spec = read_spec(&config_of(&dir)).map_err(error)?;
        let volumes = [self.paths.volumes(&instance), self.volumes.kept(), self.volumes.scratch()];
        Ok(told(container, &instance, record, &spec, &volumes))
    }
}

/// What the runtime was told of an instance.
///
/// # Errors
/// Where it can't be read.
pub(super) fn read_spec(config: &Path) -> io::Result<Spec> {
    record::read(config)?.ok_or_else(|| io::ErrorKind::NotFound.into())
}

/// `volumes` are the directories in which volumes appear under their names.
fn told(
    container: Container,
    instance: &Instance,
    record: Record,
    spec: &Spec,
    volumes: &[PathBuf],
) -> InspectedInstance {
    let process = spec.process().clone().unwrap_or_default();
    let name = |variable: &String| variable.split('=').next().unwrap_or_default().to_owned();
    let bounding = process.capabilities().as_ref().and_then(|sets| sets.bounding().clone());
    let mut capabilities: Vec<String> =
        bounding.unwrap_or_default().iter().map(|capability| format!("CAP_{capability}")).collect();
    capabilities.sort();
    let joined = |member: record::Membership| Joined { network: member.network, address: member.address };
    InspectedInstance {
        unit: unit::name(instance),
        cgroup: format!("{}/{}", unit::SLICE, unit::name(instance)),
        first_id: record.host_start,
        networks: record.networks.into_iter().map(joined).collect(),
        aliases: record.aliases,
        fingerprint: record.fingerprint.to_string(),
        arguments: process.args().clone().unwrap_or_default(),
        working_directory: process.cwd().display().to_string(),
        user: (process.user().uid(), process.user().gid()),
        variables: process.env().iter().flatten().map(name).collect(),
        capabilities,
        read_only_root: spec.root().as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
        mounts: spec.mounts().iter().flatten().map(|mount| mounted(mount, volumes)).collect(),
        container,
    }
}

fn mounted(mount: &Mount, volumes: &[PathBuf]) -> Mounted {
    let kind = mount.typ().clone().unwrap_or_else(|| "bind".to_owned());
    let (kind, source) = match mount.source() {
        Some(source) if kind == "bind" => match volume(source, volumes) {
            Some(name) => ("volume".to_owned(), name),
            None => (kind, source.display().to_string()),
        },
        // The kernel's file systems come from nowhere.
        _ => (kind, String::new()),
    };
    Mounted {
        target: mount.destination().display().to_string(),
        source,
        kind,
        options: mount.options().clone().unwrap_or_default(),
    }
}

/// The volume that this directory is.
fn volume(source: &Path, volumes: &[PathBuf]) -> Option<String> {
    let within = source.parent().is_some_and(|parent| volumes.iter().any(|dir| dir == parent));
    source.file_name().filter(|_| within).map(|name| name.to_string_lossy().into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inspected_instance_is_told_without_the_values_of_its_variables() {
        let spec: Spec = serde_json::from_value(serde_json::json!({
            "ociVersion": "1.0.2", "root": {"path": "/x", "readonly": true},
            "process": {"user": {"uid": 101, "gid": 102}, "args": ["serve", "-v"], "cwd": "/srv",
                "env": ["PASSWORD=hunter2", "EMPTY="], "capabilities": {"bounding": ["CAP_KILL", "CAP_CHOWN"]}},
            "mounts": [
                {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid"]},
                {"destination": "/data", "type": "bind", "source": "/run/volumes/web-3/data", "options": ["bind", "ro"]},
                {"destination": "/srv", "type": "bind", "source": "/srv/volumes/data", "options": ["bind"]}],
        }))
        .unwrap();
        let record = record::tests::record();
        let container: Container = serde_json::from_value(serde_json::json!({
            "name": "web", "instance": "web-3", "generation": 3, "state": "running", "pid": 7, "restarts": 1,
            "since": null, "image": record.image, "ports": [], "addresses": [], "memory": 5,
        }))
        .unwrap();
        let told = told(container, &"web-3".parse().unwrap(), record, &spec, &["/run/volumes/web-3".into()]);
        let json = serde_json::to_string(&told).unwrap();
        assert!(!json.contains("hunter2"), "{json}");
        assert_eq!(told.variables, ["PASSWORD", "EMPTY"]);
        assert_eq!(told.capabilities, ["CAP_CHOWN", "CAP_KILL"]);
        assert_eq!((told.user, told.read_only_root, told.first_id), ((101, 102), true, Some(1 << 20)));
        assert_eq!(told.unit, "bennu-web-3.service");
        assert_eq!(told.networks.len(), 2);
        let mounts = told.mounts.iter().map(|mount| (mount.kind.as_str(), mount.source.as_str()));
        let expected = [("proc", ""), ("volume", "data"), ("bind", "/srv/volumes/data")];
        assert_eq!(mounts.collect::<Vec<_>>(), expected);
        assert!(json.contains("\"restarts\":1"), "what ps tells is part of it: {json}");
    }
}
