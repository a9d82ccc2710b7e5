//! From an instance whose tree is mounted to the `config.json` that the runtime makes it from.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use bennu_image_store::mount::{is_mount_point, mount_with_ids};
use bennu_manifests::model::{Container, Name};
use bennu_planner::Instance;

use super::instance::StartInstance;
use super::record::{self, Record};
use super::spec::{self, SpecError};
use super::user::{self, NoUser, User};
use super::{Host, namespaces, private, runtime, unit, volume};
use crate::contents::ContentsError;

/// Why an instance was not described.
pub(super) enum Described {
    Io(io::Error),
    User(NoUser),
    Spec(SpecError),
    Contents(ContentsError),
}

impl From<io::Error> for Described {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

impl From<NoUser> for Described {
    fn from(error: NoUser) -> Self {
        Self::User(error)
    }
}

impl From<SpecError> for Described {
    fn from(error: SpecError) -> Self {
        Self::Spec(error)
    }
}

impl From<ContentsError> for Described {
    fn from(error: ContentsError) -> Self {
        Self::Contents(error)
    }
}

/// What a runtime was told of the instance with this directory. It is a file whenever it is there, which that in the bundle is not.
pub(super) fn config_of(dir: &Path) -> PathBuf {
    dir.join("config.json")
}

impl Host {
    /// Finds its user, gives new volumes their owners, puts its files and devices in their places, and writes
    /// the configuration, of which the path is returned.
    pub(super) fn describe(
        &self,
        start: &StartInstance<'_>,
        record: &Record,
        rootfs: &Path,
        dir: &Path,
    ) -> Result<PathBuf, Described> {
        let container = start.container;
        let config = start.image.config.config().as_ref();
        let root = File::open(rootfs)?;
        let of_image = || config.and_then(|config| config.user().clone());
        let user = find_user(container, of_image, &root)?;
        // Where it has the host's users, its ids are the host's.
        let host_start = record.host_start.unwrap_or(0);
        let mut volumes = BTreeMap::new();
        for mount in &container.volumes {
            let Some(declared) = start.volumes.get(&mount.volume) else { continue };
            let path = self.volumes.path(&mount.volume, declared.life);
            volume::adopt(&path, declared, &root, Path::new(&mount.target), host_start)?;
            let seen = match record.host_start {
                Some(_) => self.with_its_ids(start.instance, &mount.volume, &path)?,
                None => path,
            };
            volumes.insert(mount.volume.clone(), seen);
        }
        let placing = private::Wanted { container, contents: start.contents, user: &user, host_start };
        let placed = private::place(dir, &placing)?;
        let places = spec::Places {
            rootfs: rootfs.to_owned(),
            user_namespace: namespaces::of_users(dir),
            network_namespace: dir.join("ns/net"),
            files: dir.join("files"),
        };
        let mut spec = spec::spec(&spec::Wanted {
            name: &start.instance.name,
            container,
            image: config,
            user: &user,
            network_kind: record.network_kind,
            variables: &start.contents.variables(container)?,
            volumes: &volumes,
            files: &placed.files,
            devices: &placed.devices,
            places: &places,
        })?;
        let group = runtime::group(record.runtime, &unit::group(start.instance));
        runtime::complete(record.runtime, &mut spec, &group, record.host_start).map_err(SpecError::from)?;
        let described = config_of(dir);
        record::write(&described, &spec)?;
        Ok(described)
    }
}

impl Host {
    /// A volume as an instance with users of its own sees it. On disk the ids are the container's (0 to 65535), whichever range it
    /// has on this host; so that any runtime shows them as they are, the mount that it is given maps them already.
    fn with_its_ids(&self, instance: &Instance, volume: &Name, path: &Path) -> io::Result<PathBuf> {
        let target = self.paths.volumes(instance).join(volume.as_str());
        // The same volume may be at several places in a container.
        if is_mount_point(&target)? {
            return Ok(target);
        }
        // Without the mount nobody may write there: it would be to memory.
        DirBuilder::new().recursive(true).mode(0o711).create(self.paths.volumes(instance))?;
        DirBuilder::new().mode(0o0).create(&target)?;
        let namespace = File::open(namespaces::of_users(&self.paths.instance(instance)))?.into();
        mount_with_ids(path, &target, &namespace).map_err(io::Error::other)?;
        Ok(target)
    }
}

fn find_user(
    container: &Container,
    of_image: impl FnOnce() -> Option<String>,
    root: &File,
) -> Result<User, Described> {
    let wanted = container.user.clone().or_else(of_image).unwrap_or_default();
    let (passwd, group) = (read_list(root, "/etc/passwd")?, read_list(root, "/etc/group")?);
    let user = user::find(&wanted, &passwd, &group)?;
    Ok(user.with_groups(&container.groups, &group)?)
}

fn read_list(root: &File, path: &str) -> io::Result<String> {
    user::read_list(root, Path::new(path))
        .map_err(|error| io::Error::new(error.kind(), format!("{path} in the image: {error}")))
}
