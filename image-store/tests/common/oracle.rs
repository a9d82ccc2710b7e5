//! What `umoci` makes of an image, and what we do.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Output};

use bennu_image_store::listing::files;
use bennu_image_store::mount::Mounts;
use bennu_image_store::{Store, sha256};
use nix::sys::stat::{major, minor};

use super::layout::{pull, write_layout};
use super::{can_mount, has_program};

/// What a tree says of one path: type, mode, owner, size and time; target or device; attributes; digest of the content.
pub(crate) type Facts = (String, Option<String>, BTreeMap<String, String>, Option<String>);

/// As listings escape.
fn escape(bytes: &[u8]) -> String {
    let plain = |b: &u8| b.is_ascii_graphic() && !b"\\,=".contains(b);
    bytes.iter().map(|b| if plain(b) { char::from(*b).to_string() } else { format!("\\x{b:02x}") }).collect()
}

/// What a tree on disk says of each of its paths.
pub(crate) fn on_disk(root: &Path) -> BTreeMap<String, Facts> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(path) = waiting.pop() {
        let meta = fs::symlink_metadata(&path).expect("there");
        let file_type = meta.file_type();
        let (kind, target) = if file_type.is_symlink() {
            let target = fs::read_link(&path).expect("a link").into_os_string().into_vec();
            ("link", Some(escape(&target)))
        } else if file_type.is_char_device() || file_type.is_block_device() {
            let kind = if file_type.is_char_device() { "char" } else { "block" };
            (kind, Some(format!("{},{}", major(meta.rdev()), minor(meta.rdev()))))
        } else if file_type.is_fifo() {
            ("fifo", None)
        } else if file_type.is_dir() {
            waiting.extend(fs::read_dir(&path).expect("listed").map(|entry| entry.expect("an entry").path()));
            ("dir", None)
        } else {
            ("file", None)
        };
        let content = (kind == "file").then(|| sha256::digest(&fs::read(&path).expect("read")).hex());
        let size = if kind == "file" { meta.len() } else { 0 };
        let mode = if kind == "link" { 0 } else { meta.mode() & 0o7777 };
        let (seconds, nanos) = (meta.mtime(), meta.mtime_nsec());
        let time = if nanos == 0 { seconds.to_string() } else { format!("{seconds}.{nanos:09}") };
        let facts = format!("{kind} {mode:04o} {}:{} {size} {time}", meta.uid(), meta.gid());
        let below = path.strip_prefix(root).expect("below").as_os_str().as_bytes();
        found.insert(format!("/{}", escape(below)), (facts, target, xattrs(&path), content));
    }
    found
}

fn xattrs(path: &Path) -> BTreeMap<String, String> {
    let mut names = vec![0; 4096];
    let len = rustix::fs::llistxattr(path, &mut names).expect("listed");
    let names = names[..len].split(|b| *b == 0).filter(|name| !name.is_empty());
    names
        .map(|name| {
            let mut value = vec![0; 4096];
            let key = OsString::from_vec(name.to_vec());
            let len = rustix::fs::lgetxattr(path, key.as_os_str(), &mut value).expect("read");
            (escape(name), escape(&value[..len]))
        })
        .collect()
}

/// Unpacks the image of a layout, as root.
pub(crate) fn unpack(layout: &Path, to: &Path) -> Output {
    let mut umoci = Command::new("umoci");
    umoci.args(["raw", "unpack", "--image"]).arg(format!("{}:latest", layout.display())).arg(to);
    umoci.output().expect("umoci runs")
}

/// The layers as umoci and as we understand them.
fn both(layers: &[Vec<u8>]) -> (BTreeMap<String, Facts>, BTreeMap<String, Facts>) {
    let dir = tempfile::tempdir().expect("a directory");
    let layout = dir.path().join("layout");
    write_layout(&layout, layers);
    let unpacked = dir.path().join("unpacked");
    let output = unpack(&layout, &unpacked);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));

    let store = Store::open(&dir.path().join("store"), super::confined()).expect("a store");
    let image = pull(&store, &layout).expect("pulled");
    assert_eq!(store.verify().expect("looked at"), []);
    if can_mount() {
        let mounts = Mounts::new(&dir.path().join("run")).expect("a place for mounts");
        let target = dir.path().join("mounted");
        fs::create_dir(&target).expect("made");
        mounts.mount_image(&store, &image.layers, &target, None, None).expect("mounted");
        let mut seen = on_disk(&target);
        mounts.unmount_image(&target).expect("unmounted");
        let mut there = on_disk(&unpacked);
        // The time and the attributes of the root are those of the mount.
        for tree in [&mut seen, &mut there] {
            tree.remove("/");
        }
        compare(&there, &seen);
    }
    let lines = files(&store, &image).expect("listed");
    let ours = lines.into_iter().map(|line| {
        let mode = if line.kind == "link" { 0 } else { line.mode };
        let facts =
            format!("{} {mode:04o} {}:{} {} {}", line.kind, line.uid, line.gid, line.size, line.mtime);
        (line.path, (facts, line.target, line.xattrs, line.sha256.map(|digest| digest.hex())))
    });
    (on_disk(&unpacked), ours.collect())
}

/// Compares what umoci unpacks of an image of these layers with what is listed and mounted of it.
#[track_caller]
pub(crate) fn check(layers: &[Vec<u8>]) {
    let (theirs, ours) = both(layers);
    compare(&theirs, &ours);
}

#[track_caller]
pub(crate) fn compare(theirs: &BTreeMap<String, Facts>, ours: &BTreeMap<String, Facts>) {
    let paths: BTreeSet<&String> = theirs.keys().chain(ours.keys()).collect();
    let differing: Vec<_> = paths.into_iter().filter(|path| theirs.get(*path) != ours.get(*path)).collect();
    let shown = differing
        .iter()
        .take(5)
        .map(|path| format!("{path}\n  umoci {:?}\n  ours  {:?}\n", theirs.get(*path), ours.get(*path)));
    assert!(differing.is_empty(), "{} paths differ:\n{}", differing.len(), shown.collect::<String>());
}

/// Whether trees can be compared here; see [`can_mount`].
pub(crate) fn able() -> bool {
    // Only root can make devices and give files away.
    nix::unistd::geteuid().is_root() && has_program("umoci")
}
