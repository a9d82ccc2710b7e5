//! Who owns a new volume.

use std::fs::File;
use std::io;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;

use bennu_manifests::model::Volume;
use nix::fcntl::OFlag;

use crate::host::{idrange, user};

/// Gives a volume that holds nothing yet its owner and mode: those that are declared, else those of the directory that it is
/// mounted over, so that a program which is not root can use it as if it had been part of the image.
///
/// # Errors
/// Whatever the file system says.
pub(in crate::host) fn adopt(
    volume: &Path,
    declared: &Volume,
    rootfs: &File,
    target: &Path,
    host_start: u32,
) -> io::Result<()> {
    if std::fs::read_dir(volume)?.next().is_some() {
        return Ok(());
    }
    let covered = match user::open_in_root(rootfs, target, OFlag::O_PATH | OFlag::O_DIRECTORY) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        other => Some(File::from(other?).metadata()?),
    };
    // In the mounted tree the ids are the range's on the host; on disk they are the container's.
    let inside = |id: u32| id.checked_sub(host_start).filter(|&id| id < idrange::COUNT);
    let covered_by = covered.as_ref().map(|there| (inside(there.uid()), inside(there.gid())));
    let declared_owner = declared.owner.as_deref().and_then(|owner| owner.split_once(':'));
    let declared_owner = declared_owner.map(|(uid, gid)| (uid.parse().ok(), gid.parse().ok()));
    if let Some((uid, gid)) = declared_owner.or(covered_by) {
        std::os::unix::fs::lchown(volume, uid, gid)?;
    }
    let declared_mode = declared.mode.as_deref().and_then(|mode| u32::from_str_radix(mode, 8).ok());
    if let Some(mode) = declared_mode.or(covered.map(|there| there.mode() & 0o7777)) {
        std::fs::set_permissions(volume, std::fs::Permissions::from_mode(mode))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bennu_manifests::model::VolumeLife;

    use super::*;

    /// A volume that says no more than how long it lives.
    fn plain() -> Volume {
        let (size, owner, mode, snapshots) = (None, None, None, None);
        Volume { life: VolumeLife::Keep, size, owner, mode, snapshots, protected: false, destroy: false }
    }

    #[test]
    fn an_empty_volume_takes_on_the_mode_of_what_it_covers_and_a_full_one_does_not() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let covered = image.path().join("lib");
        std::fs::create_dir(&covered).unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o7777;
        let set = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap()
        };
        set(&covered, 0o1750);
        let root = File::open(image.path()).unwrap();
        adopt(volume.path(), &plain(), &root, Path::new("/lib"), 1 << 20).unwrap();
        assert_eq!(mode(volume.path()), 0o1750);
        std::fs::write(volume.path().join("x"), "data").unwrap();
        set(&covered, 0o700);
        adopt(volume.path(), &plain(), &root, Path::new("/lib"), 1 << 20).unwrap();
        assert_eq!(mode(volume.path()), 0o1750);
        adopt(volume.path(), &plain(), &root, Path::new("/none"), 1 << 20).unwrap();
    }

    #[test]
    fn declared_permissions_are_stronger_than_those_of_what_is_covered() {
        let (image, volume) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::create_dir(image.path().join("lib")).unwrap();
        let root = File::open(image.path()).unwrap();
        let declared = Volume { mode: Some("0700".to_owned()), ..plain() };
        for target in ["/lib", "/none"] {
            std::fs::set_permissions(volume.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
            adopt(volume.path(), &declared, &root, Path::new(target), 1 << 20).unwrap();
            assert_eq!(std::fs::metadata(volume.path()).unwrap().mode() & 0o7777, 0o700, "{target}");
        }
    }
}
