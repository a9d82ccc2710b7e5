//! Blobs and images, really mounted.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use bennu_image_store::listing::files;
use bennu_image_store::mount::{IdMap, MountError, Mounts, Upper, mount_layer, mount_with_ids, namespaces};
use bennu_image_store::{Claims, Image, LayerRecord, Origin, Store, sha256};
use common::{Tar, can_mount};

fn import(store: &Store, tar: Vec<u8>) -> LayerRecord {
    let layer = store.import_layer(tar.as_slice(), Default::default()).expect("a sound layer");
    LayerRecord { diff_id: layer.diff_id, blob: layer.blob, size: layer.size, origin: Origin::Tar }
}

struct Bench {
    dir: tempfile::TempDir,
    store: Store,
    mounts: Mounts,
}

impl Bench {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
        let mounts = Mounts::new(&dir.path().join("run")).expect("a place for mounts");
        fs::create_dir(dir.path().join("root")).expect("made");
        Self { dir, store, mounts }
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.dir.path().join(name)
    }

    /// Whatever the test left mounted, so that the directory can go away.
    fn mounted_layers(&self) -> usize {
        fs::read_dir(self.path("run/layers")).expect("listed").count()
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        for target in self.mounts.targets().unwrap_or_default() {
            let _ = self.mounts.unmount_image(&target);
        }
    }
}

fn layers(store: &Store) -> Vec<LayerRecord> {
    let base = Tar::new()
        .dir("./")
        .dir("etc/")
        .file("etc/one", "1")
        .file("etc/two", "2")
        .dir("gone/")
        .file("gone/file", "x")
        .dir("replaced/")
        .file("replaced/old", "old");
    let middle = Tar::new().file("etc/.wh.one", "").file("etc/two", "two").file(".wh.gone", "");
    // The whiteout and what takes its place, in the order that is easily got wrong.
    let top = Tar::new()
        .dir("replaced/")
        .file("replaced/new", "new")
        .file("replaced/.wh..wh..opq", "")
        .dir("gone/")
        .file("gone/again", "y")
        .file(".wh.gone", "");
    [base, middle, top].into_iter().map(|tar| import(store, tar.end())).collect()
}

#[test]
fn a_layer_that_says_nothing_about_the_root_leaves_it_as_it_was() {
    if !can_mount() {
        return;
    }
    let root = |mode: &'static [u8; 8]| {
        Tar::new().entry("./", b'5', "", b"", |header| {
            header[100..108].copy_from_slice(mode);
            header[108..116].copy_from_slice(b"0001750\0");
        })
    };
    let (base, described) = (root(b"0000750\0").file("a", "a").end(), root(b"0001711\0").end());
    let silent = Tar::new().file("b", "b").end();
    for (stack, mode) in [
        (vec![&base, &silent], 0o750),
        (vec![&base, &described, &silent], 0o1711),
        (vec![&base, &silent, &described], 0o1711),
    ] {
        let bench = Bench::new();
        let layers: Vec<_> = stack.into_iter().map(|tar| import(&bench.store, tar.clone())).collect();
        let target = bench.path("root");
        let map = IdMap { host_start: 100_000, count: 65_536 };
        let ids = namespaces(map, false).expect("made").user;
        for (ids, owner) in [(None, 1000), (Some(&ids), 101_000)] {
            bench.mounts.mount_image(&bench.store, &layers, &target, None, ids).expect("mounted");
            let meta = fs::metadata(&target).expect("there");
            let seen =
                (meta.mode() & 0o7777, meta.uid(), fs::read_to_string(target.join("b")).expect("read"));
            let shown = rustix::fs::listxattr(&target, &mut [0; 256]).expect("listed");
            bench.mounts.unmount_image(&target).expect("unmounted");
            assert_eq!(seen, (mode, owner, "b".to_owned()));
            assert_eq!(shown, 0, "the mark is shown");
        }
        let (upper, work) = (bench.path("upper"), bench.path("work"));
        [&upper, &work].into_iter().for_each(|path| fs::create_dir(path).expect("made"));
        let writable = Some(Upper { upper: &upper, work: &work });
        bench.mounts.mount_image(&bench.store, &layers, &target, writable, None).expect("mounted");
        let meta = fs::metadata(&target).expect("there");
        bench.mounts.unmount_image(&target).expect("unmounted");
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (mode, 1000));
        assert_eq!(fs::read_dir(bench.path("run/lower")).expect("listed").count(), 0);
    }
}

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(path)
        .expect("listed")
        .map(|entry| entry.expect("an entry").file_name().into_string().expect("text"))
        .collect();
    names.sort();
    names
}

#[test]
fn layers_are_stacked_and_whiteouts_hide_what_is_below() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    bench.mounts.mount_image(&bench.store, &layers(&bench.store), &root, None, None).expect("mounted");
    assert_eq!(names(&root), ["etc", "gone", "replaced"]);
    assert_eq!(names(&root.join("etc")), ["two"]);
    assert_eq!(fs::read_to_string(root.join("etc/two")).expect("read"), "two");
    assert_eq!(names(&root.join("gone")), ["again"]);
    assert_eq!(names(&root.join("replaced")), ["new"]);
    assert!(fs::write(root.join("file"), "x").is_err(), "the image could be written to");
    bench.mounts.unmount_image(&root).expect("unmounted");
    assert_eq!(names(&root), Vec::<String>::new());
    assert_eq!(bench.mounted_layers(), 0);
}

#[test]
fn the_listing_of_an_image_names_what_is_seen_when_it_is_mounted() {
    let bench = Bench::new();
    let layers = layers(&bench.store);
    let size = layers.iter().map(|layer| layer.size).sum();
    let image = Image {
        digest: layers[0].diff_id,
        manifest_digest: layers[0].diff_id,
        manifest_size: 0,
        config: Default::default(),
        layers,
        size,
        claims: Claims::default(),
        index: Vec::new(),
    };
    let lines = files(&bench.store, &image).expect("listed");
    let listed: Vec<_> = lines.iter().map(|line| line.path.as_str()).collect();
    assert_eq!(listed, ["/", "/etc", "/etc/two", "/gone", "/gone/again", "/replaced", "/replaced/new"]);
    assert_eq!(lines[2].sha256, Some(sha256::digest(b"two")));
    assert!(lines.iter().all(|line| line.xattrs.is_empty()), "marks between layers are shown");
    if !can_mount() {
        return;
    }
    let root = bench.path("root");
    bench.mounts.mount_image(&bench.store, &image.layers, &root, None, None).expect("mounted");
    for line in &lines[1..] {
        let meta = fs::symlink_metadata(root.join(&line.path[1..])).expect(&line.path);
        assert_eq!((meta.mode() & 0o7777, meta.uid()), (u32::from(line.mode), line.uid), "{}", line.path);
    }
    bench.mounts.unmount_image(&root).expect("unmounted");
}

#[test]
fn two_images_share_the_mounts_of_their_layers() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let layers = layers(&bench.store);
    let (first, second) = (bench.path("first"), bench.path("second"));
    for target in [&first, &second] {
        fs::create_dir(target).expect("made");
    }
    bench.mounts.mount_image(&bench.store, &layers, &first, None, None).expect("mounted");
    bench.mounts.mount_image(&bench.store, &layers[..1], &second, None, None).expect("mounted");
    // A second call for the same target changes nothing.
    bench.mounts.mount_image(&bench.store, &layers[..1], &second, None, None).expect("still mounted");
    assert_eq!(bench.mounted_layers(), 3);
    assert_eq!(bench.mounts.targets().expect("listed"), [first.clone(), second.clone()]);
    bench.mounts.unmount_image(&first).expect("unmounted");
    assert_eq!(bench.mounted_layers(), 1);
    assert_eq!(fs::read_to_string(second.join("etc/one")).expect("read"), "1");
    bench.mounts.unmount_image(&second).expect("unmounted");
    bench.mounts.unmount_image(&second).expect("nothing there is no error");
    assert_eq!(bench.mounted_layers(), 0);
}

#[test]
fn files_belong_to_the_ids_of_the_container_and_can_be_changed_by_them() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    let (upper, work) = (bench.path("upper"), bench.path("work"));
    fs::create_dir(&upper).expect("made");
    fs::create_dir(&work).expect("made");
    let tar = Tar::new()
        .dir("./")
        .entry("mine", b'0', "", b"old", |h| h[108..116].copy_from_slice(b"0001750\0"))
        .entry("null", b'3', "", b"", |h| {
            h[329..337].copy_from_slice(b"0000001\0");
            h[337..345].copy_from_slice(b"0000003\0");
        });
    let layers = [import(&bench.store, tar.end()), import(&bench.store, Tar::new().file("other", "x").end())];
    let ids = namespaces(IdMap { host_start: 300_000, count: 65_536 }, false).expect("made").user;
    let upper_and_work = Upper { upper: &upper, work: &work };
    bench
        .mounts
        .mount_image(&bench.store, &layers, &root, Some(upper_and_work), Some(&ids))
        .expect("mounted");
    let uid = |name: &str| fs::symlink_metadata(root.join(name)).expect("there").uid();
    assert_eq!((uid(""), uid("mine"), uid("other")), (300_000, 301_000, 300_000));
    fs::write(root.join("mine"), "new").expect("written");
    assert_eq!(uid("mine"), 301_000, "what was copied up changed its owner");
    assert_eq!(fs::read_to_string(upper.join("mine")).expect("read"), "new");
    assert!(fs::symlink_metadata(root.join("null")).expect("there").file_type().is_char_device());
    assert!(fs::File::open(root.join("null")).is_err(), "a device of the image could be opened");
    assert_eq!(
        fs::read_dir(bench.path("run/lower")).expect("listed").count(),
        0,
        "clones are still attached"
    );
    bench.mounts.unmount_image(&root).expect("unmounted");
}

#[test]
fn an_image_of_many_layers_can_be_mounted() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    let layers: Vec<_> = (0..130)
        .map(|i| import(&bench.store, Tar::new().file(&format!("f{i}"), format!("{i}")).end()))
        .collect();
    let ids = namespaces(IdMap { host_start: 300_000, count: 65_536 }, false).expect("made").user;
    bench.mounts.mount_image(&bench.store, &layers, &root, None, Some(&ids)).expect("mounted");
    assert_eq!(names(&root).len(), 130);
    bench.mounts.unmount_image(&root).expect("unmounted");
}

#[test]
fn a_target_in_use_is_not_unmounted_and_can_be_later() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    bench.mounts.mount_image(&bench.store, &layers(&bench.store), &root, None, None).expect("mounted");
    let open = fs::File::open(root.join("etc/two")).expect("opened");
    assert!(matches!(bench.mounts.unmount_image(&root), Err(MountError::Io { .. })));
    drop(open);
    bench.mounts.unmount_image(&root).expect("unmounted");
    assert_eq!(bench.mounted_layers(), 0);
}

#[test]
fn a_failed_mount_leaves_nothing_mounted() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let layers = layers(&bench.store);
    let missing = bench.path("missing");
    bench.mounts.mount_image(&bench.store, &layers, &missing, None, None).expect_err("no target");
    assert_eq!(bench.mounted_layers(), 0);
    assert!(bench.mounts.targets().expect("listed").is_empty());
    let gone = LayerRecord { blob: layers[0].diff_id, ..layers[0] };
    bench.mounts.mount_image(&bench.store, &[gone], &bench.path("root"), None, None).expect_err("no blob");
    assert_eq!(bench.mounted_layers(), 0);
}

#[test]
fn one_blob_can_be_mounted_alone() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let layer = import(&bench.store, Tar::new().file("a", "b").end());
    let target = bench.path("root");
    mount_layer(&bench.store.blob_path(&layer.blob), &layer.blob, &target).expect("mounted");
    assert_eq!(fs::read_to_string(target.join("a")).expect("read"), "b");
    nix::mount::umount(&target).expect("unmounted");
}

#[test]
fn a_collection_leaves_what_is_mounted_even_where_no_pin_holds_it() {
    if !can_mount() {
        return;
    }
    let bench = Bench::new();
    let root = bench.path("root");
    // Content of its own: a blob of the same name that is mounted from another store would hold this one, too.
    let unique = root.to_string_lossy().into_owned();
    let layers = [import(&bench.store, Tar::new().file("mounted", unique).end())];
    let loose = import(&bench.store, Tar::new().file("loose", "x").end());
    bench.mounts.mount_image(&bench.store, &layers, &root, None, None).expect("mounted");
    assert_eq!(bench.store.gc().expect("collected").blobs, [loose.blob]);
    assert!(layers.iter().all(|layer| bench.store.blob_path(&layer.blob).exists()));
    bench.mounts.unmount_image(&root).expect("unmounted");
    let plan = bench.store.gc().expect("collected");
    assert_eq!(plan.blobs.len(), layers.len(), "{plan:?}");
}

#[test]
fn a_directory_is_mounted_a_second_time_with_the_ids_of_a_user_namespace() {
    if !can_mount() {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let (data, seen) = (dir.path().join("data"), dir.path().join("seen"));
    [&data, &seen].into_iter().for_each(|path| fs::create_dir(path).expect("made"));
    fs::write(data.join("file"), "x").expect("written");
    std::os::unix::fs::chown(data.join("file"), Some(33), Some(33)).expect("given away");
    let mut holder = std::process::Command::new("unshare")
        .args(["--user", "--", "cat"])
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .expect("a namespace");
    // What comes back tells that the program runs, so the namespace is there.
    holder.stdin.as_mut().expect("a pipe").write_all(b"x").expect("asked");
    holder.stdout.as_mut().expect("a pipe").read_exact(&mut [0]).expect("answered");
    let process = format!("/proc/{}", holder.id());
    for map in ["uid_map", "gid_map"] {
        fs::write(format!("{process}/{map}"), "0 100000 65536\n").expect("mapped");
    }
    let namespace = fs::File::open(format!("{process}/ns/user")).expect("there").into();
    drop(holder.stdin.take());
    holder.wait().expect("ended");
    mount_with_ids(&data, &seen, &namespace).expect("mounted");
    let owner = fs::metadata(seen.join("file")).expect("there").uid();
    rustix::mount::unmount(&seen, rustix::mount::UnmountFlags::empty()).expect("unmounted");
    assert_eq!(owner, 100_033);
}

#[test]
fn namespaces_are_made_by_many_at_once() {
    let (done, all) = std::sync::mpsc::channel();
    for thread in 0..8 {
        let done = done.clone();
        std::thread::spawn(move || {
            for turn in 0..25 {
                let host_start = (1 << 20) + (thread * 25 + turn) * 65_536;
                let made = namespaces(IdMap { host_start, count: 65_536 }, true).expect("made");
                assert!(made.network.is_some());
            }
            done.send(()).expect("somebody waits");
        });
    }
    for _ in 0..8 {
        // A child that waits for another one, which waits for it, waits for ever.
        all.recv_timeout(std::time::Duration::from_secs(60)).expect("all come to their end");
    }
}
