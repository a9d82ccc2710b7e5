//! What comes out of a blob is what went into the archive.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use bennu_image_store::listing::{Line, layer_listing};
use bennu_image_store::mount::mount_layer;
use bennu_image_store::tar::Limits;
use bennu_image_store::{Store, sha256, verity};
use common::{Tar, can_mount, has_program};

/// A tree with everything that an ordinary user can make.
fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("sizes")).expect("made");
    for size in [0, 1, 100, 4031, 4032, 4033, 4095, 4096, 4097, 8128, 8192, 8193, 131_072, 131_073, 1_000_000]
    {
        let data: Vec<u8> = (0..size).map(|i: usize| (i * 7 + i / 256) as u8).collect();
        fs::write(root.join(format!("sizes/{size}")), data).expect("written");
    }
    fs::create_dir(root.join("many")).expect("made");
    for i in 0..700 {
        fs::write(root.join(format!("many/{i}{}", "n".repeat(i % 240))), i.to_string()).expect("written");
    }
    fs::create_dir(root.join("names")).expect("made");
    // Names on both sides of "." and "..", which are sorted among the others on disk.
    for name in ["!", "-", ".hidden", "...", "a b", "ä", "\n", "~", "\\", "\u{7f}"] {
        fs::write(root.join("names").join(name), name).expect("written");
    }
    fs::hard_link(root.join("names/~"), root.join("sizes/link")).expect("linked");
    fs::hard_link(root.join("names/~"), root.join("many/link")).expect("linked");
    symlink("../names", root.join("names/link")).expect("linked");
    symlink("x".repeat(4000), root.join("names/long link")).expect("linked");
    symlink("y".repeat(4095), root.join("names/longest link")).expect("linked");
    let deep = format!("deep/{}", vec!["d".repeat(200); 15].join("/"));
    fs::create_dir_all(root.join(&deep)).expect("made");
    fs::write(root.join(&deep).join("file"), "deep").expect("written");
    fs::set_permissions(root.join("sizes/1"), fs::Permissions::from_mode(0o6751)).expect("changed");
    fs::set_permissions(root.join("many"), fs::Permissions::from_mode(0o1777)).expect("changed");
    fs::set_permissions(root, fs::Permissions::from_mode(0o751)).expect("changed");
    // 0.123456789 s after the hundredth second, and a moment before 1970.
    let times = [("sizes/100", 100, 123_456_789), ("sizes/1", -5, 1_000_000)];
    for (name, seconds, nanos) in times {
        let time = nix::sys::time::TimeSpec::new(seconds, nanos);
        nix::sys::stat::utimensat(
            nix::fcntl::AT_FDCWD,
            &root.join(name),
            &time,
            &time,
            nix::sys::stat::UtimensatFlags::NoFollowSymlink,
        )
        .expect("set");
    }
}

fn tar(root: &Path, format: &str) -> Vec<u8> {
    let output = Command::new("tar")
        .args(["--create", "--sort=name", "--numeric-owner", format])
        .arg("--directory")
        .arg(root)
        .arg(".")
        .output()
        .expect("tar runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

/// Mode, owner, group, size, seconds, nanoseconds, content or target, names.
type Expected = (u32, u32, u32, u64, i64, i64, String, u64);

/// What a listing should say, read from the file system itself.
fn expected(root: &Path) -> BTreeMap<Vec<u8>, Expected> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        let content = if meta.is_symlink() {
            fs::read_link(&path).expect("a link").to_string_lossy().into_owned()
        } else if meta.is_file() {
            sha256::digest(&fs::read(&path).expect("read")).hex()
        } else {
            waiting.extend(fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path()));
            String::new()
        };
        let size = if meta.is_dir() { 0 } else { meta.len() };
        let nlink = if meta.is_dir() { 0 } else { meta.nlink() };
        let key = path.strip_prefix(root).expect("below").as_os_str().as_bytes().to_vec();
        let (mtime, nanos) = (meta.mtime(), meta.mtime_nsec());
        found.insert(key, (meta.mode(), meta.uid(), meta.gid(), size, mtime, nanos, content, nlink));
    }
    found
}

/// The escaping of listings, undone.
fn unescape(text: &str) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if let (b'\\', [b'x', a, b, after @ ..]) = (first, after) {
            let digits = String::from_utf8(vec![*a, *b]).expect("digits");
            out.push(u8::from_str_radix(&digits, 16).expect("hexadecimal"));
            rest = after;
        } else {
            out.push(*first);
            rest = after;
        }
    }
    out
}

#[test]
fn a_listing_of_the_blob_says_what_the_file_system_said() {
    if !has_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    make_tree(&root);
    let lines =
        layer_listing(tar(&root, "--format=pax").as_slice(), dir.path(), Limits::default()).expect("sound");
    let expected = expected(&root);
    assert_eq!(lines.len(), expected.len());
    for line in &lines {
        let path = unescape(line.path.strip_prefix('/').expect("a path from the root"));
        let (mode, uid, gid, size, mtime, nanos, content, _) = expected.get(&path).expect(&line.path);
        let time = if *nanos == 0 { mtime.to_string() } else { format!("{mtime}.{nanos:09}") };
        assert_eq!(u32::from(line.mode), mode & 0o7777, "{}", line.path);
        assert_eq!((line.uid, line.gid), (*uid, *gid), "{}", line.path);
        assert_eq!(line.mtime, time, "{}", line.path);
        match line.kind {
            "file" => {
                assert_eq!((line.size, line.sha256.expect("of a file").hex()), (*size, content.clone()))
            }
            "link" => assert_eq!(unescape(line.target.as_deref().expect("of a link")), content.as_bytes()),
            kind => assert_eq!(kind, "dir"),
        }
    }
}

#[test]
fn every_format_that_tar_writes_gives_the_same_tree() {
    if !has_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    make_tree(&root);
    // Whole seconds, which is all that the older formats know.
    let list = |format: &str| -> Vec<Line> {
        let lines =
            layer_listing(tar(&root, format).as_slice(), dir.path(), Limits::default()).expect(format);
        let whole = |mtime: &str| mtime.split('.').next().unwrap_or_default().to_owned();
        lines.into_iter().map(|line| Line { mtime: whole(&line.mtime), ..line }).collect()
    };
    assert_eq!(list("--format=gnu"), list("--format=pax"));
}

#[test]
fn the_kernel_and_fsck_read_the_blob_as_the_file_system_was() {
    if !has_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    make_tree(&root);
    let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
    let layer = store.import_layer(tar(&root, "--format=pax").as_slice(), Limits::default()).expect("sound");
    if has_program("fsck.erofs") {
        let output = Command::new("fsck.erofs").arg(&layer.path).output().expect("fsck runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    if can_mount() {
        let target = dir.path().join("mounted");
        fs::create_dir(&target).expect("made");
        mount_layer(&layer.path, &layer.blob, &target).expect("mounted");
        let (before, after) = (expected(&root), expected(&target));
        // Every name must be found by the kernel's own search, not only listed.
        let all_found = before.keys().all(|name| {
            fs::symlink_metadata(target.join(<std::ffi::OsStr as OsStrExt>::from_bytes(name))).is_ok()
        });
        nix::mount::umount(&target).expect("unmounted");
        assert_eq!(before, after);
        assert!(all_found);
    }
}

#[test]
fn a_blob_is_barely_larger_than_its_archive() {
    if !has_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    make_tree(&root);
    let archive = tar(&root, "--format=gnu");
    let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
    let layer = store.import_layer(archive.as_slice(), Limits::default()).expect("sound");
    assert!(layer.size * 100 <= archive.len() as u64 * 105, "{} of {}", layer.size, archive.len());
}

#[test]
fn files_with_holes_read_as_if_the_holes_were_zeros_in_every_format_that_tar_writes() {
    if !has_program("tar") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let root = dir.path().join("tree");
    fs::create_dir(&root).expect("made");
    // More parts than a header holds, and more than the first block behind it; an odd end; nothing but a hole; no hole.
    let sparse = |name: &str, size: u64, parts: &[u64]| {
        use std::os::unix::fs::FileExt;
        let file = fs::File::create(root.join(name)).expect("made");
        file.set_len(size).expect("set");
        for at in parts {
            file.write_all_at(format!("data at {at}").as_bytes(), *at).expect("written");
        }
    };
    sparse("many", 8 << 20, &(0..60).map(|i| i * 131_072).collect::<Vec<_>>());
    sparse("few", 1_000_001, &[0, 500_000, 999_900]);
    sparse("empty", 3 << 20, &[]);
    fs::write(root.join("ordinary"), "no hole").expect("written");
    let list = |options: &[&str]| -> Vec<Line> {
        let output = Command::new("tar")
            .args(["--create", "--sort=name", "--numeric-owner", "--mtime=@1"])
            .args(options)
            .arg("--directory")
            .arg(&root)
            .arg(".")
            .output()
            .expect("tar runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        if options.contains(&"--sparse") {
            assert!(output.stdout.len() < 1 << 20, "{options:?}: the holes are in the archive");
        }
        layer_listing(output.stdout.as_slice(), dir.path(), Limits::default()).expect("sound")
    };
    let whole = list(&["--format=pax"]);
    assert_eq!(list(&["--sparse", "--format=gnu"]), whole);
    for version in ["0.0", "0.1", "1.0"] {
        let version = format!("--sparse-version={version}");
        assert_eq!(list(&["--sparse", "--format=pax", &version]), whole, "{version}");
    }
}

fn golden_tar() -> Vec<u8> {
    Tar::new()
        .dir("./")
        .dir("etc/")
        .pax(&[("SCHILY.xattr.user.a", b"b"), ("mtime", b"1700000000.5")])
        .file("etc/config", "x".repeat(5000))
        .hard_link("etc/same", "etc/config")
        .symlink("link", "etc/config")
        .file("etc/.wh.gone", "")
        .file("var/.wh..wh..opq", "")
        .file("large", vec![7; 300_000])
        .end()
}

#[test]
fn attributes_and_marks_are_listed_and_seen_by_the_kernel() {
    let dir = tempfile::tempdir().expect("a directory");
    let lines = layer_listing(golden_tar().as_slice(), dir.path(), Limits::default()).expect("sound");
    let xattrs = |path: &str| {
        let line = lines.iter().find(|line| line.path == path).expect(path);
        line.xattrs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(xattrs("/etc/config"), "user.a=b");
    assert_eq!(xattrs("/var"), "trusted.overlay.bennu.implied=y trusted.overlay.opaque=y");
    assert_eq!(xattrs("/large"), "");
    let text = lines.iter().find(|line| line.path == "/etc/same").expect("a hard link").to_string();
    let digest = sha256::digest("x".repeat(5000).as_bytes()).hex();
    assert_eq!(
        text,
        format!("/etc/same\tfile\t0644\t0:0\t5000\t1700000000.500000000\t-\tuser.a=b\t{digest}")
    );
    if can_mount() {
        let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
        let layer = store.import_layer(golden_tar().as_slice(), Limits::default()).expect("sound");
        let target = dir.path().join("mounted");
        fs::create_dir(&target).expect("made");
        mount_layer(&layer.path, &layer.blob, &target).expect("mounted");
        let mut value = [0; 16];
        let len = rustix::fs::getxattr(target.join("etc/same"), "user.a", &mut value);
        let opaque = rustix::fs::getxattr(target.join("var"), "trusted.overlay.opaque", &mut [0; 16]);
        nix::mount::umount(&target).expect("unmounted");
        assert_eq!((len, value[0]), (Ok(1), b'b'));
        assert_eq!(opaque, Ok(1));
    }
}

/// The format of our blobs is a promise: whoever changes one byte of it changes the name of every blob there is.
#[test]
fn the_same_archive_gives_the_same_blob_on_every_machine_and_in_every_version() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let layer = store.import_layer(golden_tar().as_slice(), Limits::default()).expect("sound");
    assert_eq!(layer.blob.hex(), "039b7a7c79163b7b88c964066050b6ed32ed9aec8ea16e6ffa7d6b62cf7c2939");
    let bytes = fs::read(&layer.path).expect("read");
    assert_eq!(verity::digest(bytes.as_slice()).expect("read"), (layer.blob, layer.size));
    assert_eq!(layer.diff_id, sha256::digest(&golden_tar()));
}

#[test]
fn of_two_entries_with_one_path_the_last_counts() {
    let list = |tar: Vec<u8>| {
        let dir = tempfile::tempdir().expect("a directory");
        let lines = layer_listing(tar.as_slice(), dir.path(), Limits::default()).expect("sound");
        lines.iter().map(|line| format!("{} {} {}", line.path, line.kind, line.size)).collect::<Vec<_>>()
    };
    let replaced = Tar::new().file("a", "x").hard_link("b", "a").file("a", "yyy").end();
    assert_eq!(list(replaced), ["/ dir 0", "/a file 3", "/b file 1"]);
    let directory_kept = Tar::new().dir("d").file("d/f", "x").dir("d").end();
    assert_eq!(list(directory_kept), ["/ dir 0", "/d dir 0", "/d/f file 1"]);
    let directory_gone = Tar::new().dir("d").file("d/f", "x").symlink("d", "e").dir("d").end();
    assert_eq!(list(directory_gone), ["/ dir 0", "/d dir 0"]);
    let whiteouts = Tar::new().file(".wh.a", "").file("a", "x").file(".wh.b", "").end();
    assert_eq!(list(whiteouts), ["/ dir 0", "/a file 1", "/b whiteout 0"]);
}
