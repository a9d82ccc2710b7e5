//! On a real btrfs, in a file that is mounted for one test.

use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, symlink};
use std::process::Command;

use bennu_api::Why;
use bennu_planner::Quota;
use futures_util::{StreamExt as _, stream};

use super::*;

/// A btrfs with volumes on it.
struct Disk {
    volumes: Volumes,
    dir: tempfile::TempDir,
}

impl Disk {
    /// `None` where this machine can't make one, which `BENNU_TESTS_MUST_RUN` makes a failure.
    async fn create() -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            assert!(std::env::var_os("BENNU_TESTS_MUST_RUN").is_none(), "mounting btrfs needs root");
            println!("skipped: mounting btrfs needs root");
            return None;
        }
        let dir = tempfile::tempdir().unwrap();
        let (image, mount) = (dir.path().join("disk"), dir.path().join("state"));
        std::fs::File::create(&image).unwrap().set_len(1 << 30).unwrap();
        std::fs::create_dir(&mount).unwrap();
        said(Command::new("mkfs.btrfs").arg("--quiet").arg(&image));
        said(Command::new("mount").args(["-o", "loop"]).args([&image, &mount]));
        let volumes = Volumes::new(&mount, "boot");
        volumes.prepare().await.unwrap();
        volumes.prepare_scratch().await.unwrap();
        Some(Self { volumes, dir })
    }

    /// A kept volume with a file in it.
    async fn with_data() -> Option<Self> {
        let disk = Self::create().await?;
        disk.volumes.create(&data(), VolumeLife::Keep).await.unwrap();
        std::fs::write(disk.at("x"), "first").unwrap();
        Some(disk)
    }

    fn at(&self, path: &str) -> PathBuf {
        self.volumes.path(&data(), VolumeLife::Keep).join(path)
    }

    fn read(&self, path: &str) -> String {
        std::fs::read_to_string(self.at(path)).unwrap()
    }

    fn archives(&self) -> Archives {
        Archives { cells: self.volumes.scratch() }
    }

    /// The volume, packed.
    async fn export(&self) -> Vec<u8> {
        let still = self.volumes.still(&data(), None).await.unwrap();
        let packed = self.archives().pack(still).unwrap();
        let pieces: Vec<_> = packed.into_stream().collect().await;
        pieces.into_iter().flat_map(|piece| piece.unwrap()).collect()
    }

    async fn import(&self, tar: &[u8]) -> Result<Incoming, ArchiveError> {
        let incoming = self.volumes.empty(&data()).await.unwrap();
        let pieces = stream::iter(tar.chunks(1000).map(|piece| Ok(piece.to_vec())));
        self.archives().unpack(&incoming, pieces).await.map(|()| incoming)
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        said(Command::new("umount").arg("--lazy").arg(self.dir.path().join("state")));
    }
}

fn said(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn data() -> Name {
    name("data")
}

fn at(second: i64) -> jiff::Timestamp {
    jiff::Timestamp::from_second(1_700_000_000 + second).unwrap()
}

#[tokio::test]
async fn a_volume_goes_back_to_a_snapshot_and_what_it_held_is_kept() {
    let Some(disk) = Disk::with_data().await else { return };
    let volumes = &disk.volumes;
    let snapshot = volumes.take_snapshot(&data(), at(0), Why::Hand).await.unwrap();
    std::fs::write(disk.at("x"), "second").unwrap();
    assert!(std::fs::write(volumes.snapshots.join(format!("data/{snapshot}/x")), "no").is_err(), "read-only");

    let incoming = volumes.copy_of(&data(), snapshot).await.unwrap();
    let before =
        volumes.replace(&data(), incoming, at(0), Why::Replaced).await.unwrap().expect("it held something");
    assert_eq!(disk.read("x"), "first");
    std::fs::write(disk.at("x"), "it can be written").unwrap();
    assert_eq!((before.why, volumes.snapshots(&data()).unwrap()), (Why::Replaced, vec![snapshot, before]));

    let incoming = volumes.copy_of(&data(), before).await.unwrap();
    volumes.replace(&data(), incoming, at(1), Why::Replaced).await.unwrap();
    assert_eq!(disk.read("x"), "second");
    let missing = SnapshotName::new(at(99), Why::Hand);
    assert!(matches!(volumes.copy_of(&data(), missing).await, Err(VolumeError::NoSnapshot { .. })));
}

#[tokio::test]
async fn snapshots_of_one_second_have_different_names_and_go_with_the_volume() {
    let Some(disk) = Disk::with_data().await else { return };
    let volumes = &disk.volumes;
    let first = volumes.take_snapshot(&data(), at(0), Why::Hand).await.unwrap();
    let second = volumes.take_snapshot(&data(), at(0), Why::Hand).await.unwrap();
    assert!(first < second);
    volumes.remove_snapshot(&data(), first).await.unwrap();
    assert_eq!(volumes.snapshots(&data()).unwrap(), [second]);
    assert!(matches!(volumes.remove_snapshot(&data(), first).await, Err(VolumeError::NoSnapshot { .. })));
    volumes.destroy(&data()).await.unwrap();
    assert_eq!(volumes.snapshots(&data()).unwrap(), []);
    assert_eq!(std::fs::read_dir(&volumes.snapshots).unwrap().count(), 0);
    assert_eq!(std::fs::read_dir(&volumes.keep).unwrap().count(), 0);
    volumes.create(&name("scratch"), VolumeLife::Scratch).await.unwrap();
    let fresh = volumes.take_snapshot(&name("scratch"), at(0), Why::Hand).await;
    assert!(matches!(fresh, Err(VolumeError::NotKept { .. })));
    let gone = volumes.take_snapshot(&data(), at(0), Why::Hand).await;
    assert!(matches!(gone, Err(VolumeError::NoVolume { .. })));
}

#[tokio::test]
async fn what_was_to_take_a_volumes_place_when_the_power_went_is_removed() {
    let Some(disk) = Disk::with_data().await else { return };
    let incoming = disk.volumes.empty(&data()).await.unwrap();
    std::fs::write(incoming.path.join("half"), "written").unwrap();
    std::mem::forget(incoming);
    disk.volumes.prepare().await.unwrap();
    disk.volumes.prepare_scratch().await.unwrap();
    let left: Vec<_> = entries(&disk.volumes.keep).unwrap();
    assert_eq!(left, ["data"]);
    assert_eq!(disk.read("x"), "first");
}

#[tokio::test]
async fn a_full_volume_takes_no_more_and_another_one_still_does() {
    let Some(disk) = Disk::with_data().await else { return };
    let volumes = &disk.volumes;
    volumes.create(&name("other"), VolumeLife::Keep).await.unwrap();
    let all = volumes.list().unwrap();
    assert_eq!(volumes.quotas(&all).unwrap(), BTreeMap::new(), "nobody counts before there is a size");
    volumes.limit(&data(), None).await.unwrap();
    let size = 8 << 20;
    volumes.limit(&data(), Some(size)).await.unwrap();
    said(Command::new("btrfs").args(["quota", "rescan", "-W"]).arg(&volumes.keep));
    let quota = volumes.quotas(&all).unwrap()[&data()];
    assert_eq!(quota.limit, Some(size));
    assert!(quota.used.is_some_and(|used| used < size), "{quota:?}");

    let much = vec![7u8; 20 << 20];
    let full = std::fs::write(disk.at("much"), &much).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded, "{full}");
    std::fs::write(volumes.path(&name("other"), VolumeLife::Keep).join("much"), &much).unwrap();
    // Room is made by removing, also when it is full, and a larger size counts at once.
    std::fs::remove_file(disk.at("much")).unwrap();
    volumes.limit(&data(), Some(64 << 20)).await.unwrap();
    std::fs::write(disk.at("much"), &much).unwrap();
    volumes.limit(&data(), None).await.unwrap();
    assert_eq!(volumes.quotas(&all).unwrap()[&data()].limit, None);
}

#[tokio::test]
async fn a_restored_volume_has_the_same_limit_and_snapshots_take_none_of_its_room() {
    let Some(disk) = Disk::with_data().await else { return };
    let volumes = &disk.volumes;
    volumes.limit(&data(), Some(16 << 20)).await.unwrap();
    said(Command::new("btrfs").args(["quota", "rescan", "-W"]).arg(&volumes.keep));
    // Three times its size, each time other data, and each time a snapshot that keeps it.
    let mut last = None;
    for round in 0..5 {
        std::fs::write(disk.at("x"), vec![round; 10 << 20]).unwrap();
        last = Some(volumes.take_snapshot(&data(), at(i64::from(round)), Why::Schedule).await.unwrap());
        std::fs::remove_file(disk.at("x")).unwrap();
        // The room is free when the removal is on disk.
        sync_all(&volumes.keep);
    }
    let incoming = volumes.copy_of(&data(), last.unwrap()).await.unwrap();
    volumes.replace(&data(), incoming, at(100), Why::Replaced).await.unwrap();
    let Quota { used, limit } = volumes.quotas(&volumes.list().unwrap()).unwrap()[&data()];
    assert_eq!(limit, Some(16 << 20));
    assert!(used.is_some_and(|used| used > 10 << 20), "{used:?}");
    let full = std::fs::write(disk.at("more"), vec![9; 10 << 20]).unwrap_err();
    assert_eq!(full.kind(), io::ErrorKind::QuotaExceeded, "{full}");
}

fn sync_all(dir: &Path) {
    nix::unistd::syncfs(std::fs::File::open(dir).unwrap()).unwrap();
}

#[tokio::test]
async fn an_export_holds_everything_and_an_import_brings_it_back() {
    let Some(disk) = Disk::with_data().await else { return };
    std::os::unix::fs::chown(disk.at("x"), Some(999), Some(998)).unwrap();
    std::fs::set_permissions(disk.at("x"), std::fs::Permissions::from_mode(0o640)).unwrap();
    std::fs::set_permissions(disk.at("."), std::fs::Permissions::from_mode(0o2750)).unwrap();
    symlink("/etc/passwd", disk.at("link")).unwrap();
    std::fs::hard_link(disk.at("x"), disk.at("same")).unwrap();
    std::fs::File::create(disk.at("holes")).unwrap().set_len(100 << 20).unwrap();
    // Version 2, then tag, permissions and id of each entry: owner, user 7, group, mask, others
    // (`include/uapi/linux/posix_acl_xattr.h`).
    let entries = [(1, 6, u32::MAX), (2, 4, 7), (4, 4, u32::MAX), (16, 4, u32::MAX), (32, 0, u32::MAX)];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend([u16::to_le_bytes(tag), u16::to_le_bytes(permissions)].concat());
        acl.extend(id.to_le_bytes());
    }
    for (name, value) in [("user.note", &b"kept"[..]), ("system.posix_acl_access", &acl)] {
        rustix::fs::setxattr(disk.at("x"), name, value, rustix::fs::XattrFlags::empty()).unwrap();
    }
    let state = |disk: &Disk| {
        let find = ["-printf", "%P %y %m %U:%G %s %n %T@ %l\n"];
        let list = said(Command::new("find").arg(disk.at(".")).args(find));
        let list: std::collections::BTreeSet<String> = list.lines().map(str::to_owned).collect();
        let attributes = ["user.note", "system.posix_acl_access"].map(|name| {
            let mut value = [0; 200];
            let length = rustix::fs::getxattr(disk.at("x"), name, &mut value).unwrap();
            value[..length].to_vec()
        });
        (list, attributes)
    };
    let before = state(&disk);
    let tar = disk.export().await;
    assert!(tar.len() < 1 << 20, "holes are not written out: {}", tar.len());

    std::fs::remove_file(disk.at("link")).unwrap();
    std::fs::write(disk.at("x"), "other").unwrap();
    let incoming = disk.import(&tar).await.unwrap();
    let kept = disk.volumes.replace(&data(), incoming, at(0), Why::Replaced).await.unwrap();
    assert!(kept.is_some());
    assert_eq!(state(&disk), before);
    assert_eq!(std::fs::metadata(disk.at("holes")).unwrap().blocks(), 0);
}

#[tokio::test]
async fn an_archive_that_is_cut_short_or_is_none_is_not_taken() {
    let Some(disk) = Disk::with_data().await else { return };
    let tar = disk.export().await;
    for (what, bytes) in [("cut", &tar[..700]), ("empty", &[][..]), ("other", &[7; 5000])] {
        let refused = disk.import(bytes).await.unwrap_err();
        assert!(matches!(refused, ArchiveError::Refused { .. }), "{what}: {refused}");
    }
    let incoming = disk.volumes.empty(&data()).await.unwrap();
    let broken = stream::iter([Ok(tar[..700].to_vec()), Err(io::ErrorKind::ConnectionReset.into())]);
    let cut = disk.archives().unpack(&incoming, broken).await.unwrap_err();
    assert!(matches!(cut, ArchiveError::CutShort(_)), "{cut}");
    assert_eq!(disk.read("x"), "first");
}

/// A tar of these entries, which no sane program would write.
fn hostile(entries: &[(tar::EntryType, &str, &str)]) -> Vec<u8> {
    let mut archive = tar::Builder::new(Vec::new());
    for (kind, path, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(*kind);
        header.set_mode(0o644);
        let content = if kind.is_file() { &b"hostile"[..] } else { b"" };
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_cksum();
        archive.append(&header, content).unwrap();
    }
    archive.into_inner().unwrap()
}

#[tokio::test]
async fn t14_a_hostile_archive_reaches_nothing_outside_of_the_volume() {
    use tar::EntryType::{Link, Regular, Symlink};
    let Some(disk) = Disk::with_data().await else { return };
    let outside = tempfile::tempdir().unwrap();
    let secret = outside.path().join("secret");
    std::fs::write(&secret, "secret").unwrap();
    let (to, dir) = (secret.to_str().unwrap(), outside.path().to_str().unwrap());
    let up = format!("../../../../../../../../..{to}");
    let attacks: [(&str, Vec<_>); 6] = [
        ("an absolute path", vec![(Regular, to, "")]),
        ("a path upwards", vec![(Regular, &up, "")]),
        ("a link and a file through it", vec![(Symlink, "d", dir), (Regular, "d/secret", "")]),
        (
            "a link upwards and a file through it",
            vec![(Symlink, "d", "../.."), (Regular, "d/volumes/data/x", "")],
        ),
        ("a hard link to a file outside", vec![(Link, "h", to), (Regular, "h", "")]),
        ("a file that replaces its link", vec![(Symlink, "s", to), (Regular, "s", "")]),
    ];
    for (what, entries) in attacks {
        // Whether it is taken is tar's to say; what counts is what it did.
        if let Ok(incoming) = disk.import(&hostile(&entries)).await {
            assert!(!incoming.path.join("h").exists(), "{what}: nothing outside is linked");
        }
        assert_eq!(std::fs::read_to_string(&secret).unwrap(), "secret", "{what}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{what}");
        assert_eq!(disk.read("x"), "first", "{what}");
    }
}
