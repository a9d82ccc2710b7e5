//! Stacks of layers that nobody thought of beforehand, unpacked by `umoci` and merged by us: the trees are equal.

mod common;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::process::Command;

use bennu_image_store::archive::Form;
use bennu_image_store::export::Compression;
use bennu_image_store::listing::files;
use bennu_image_store::{Image, Origin, PullError, Store, StoreError, sha256};
use common::layout::{pull, pulled, write_layout};
use common::oracle::{able, check, compare, on_disk, unpack};
use common::{Tar, has_program};

/// Images, and trees in each of them, side by side.
const IMAGES: u64 = 10;
const TREES: usize = 50;
const LAYERS: usize = 4;

/// Names of entries; some differ in case only, some are not UTF-8.
const NAMES: [&[u8]; 12] = [
    b"a", b"A", b"b", b"..b", b"c c", b"d\nd", b"e\te", b"f\xff\xfe", b"\x01\x7f", b"-", b"caf\xc3\xa9",
    b"a-name-that-is-longer-than-what-the-header-of-an-entry-has-room-for-so-that-it-has-to-stand-in-a-record-before-it",
];
const TIMES: [&str; 6] = ["0", "1", "1700000000.123456789", "-1", "-100000.25", "4294967300.5"];
/// `VFS_CAP_REVISION_2` and `VFS_CAP_REVISION_3` with the root of a namespace (Linux, `include/uapi/linux/capability.h`).
const CAPABILITIES: [&[u8]; 2] = [
    b"\x01\0\0\x02\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0",
    b"\x01\0\0\x03\0\x04\0\0\0\0\0\0\0\0\0\0\0\0\0\0\xe8\x03\0\0",
];

/// Numbers that look random and are the same every time (xorshift).
struct Noise(u64);

impl Noise {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 8) as usize % end
    }

    fn one_in(&mut self, chance: usize) -> bool {
        self.below(chance) == 0
    }

    fn of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Is {
    Directory,
    File,
    Other,
}

/// A tree that grows layer by layer. Left out is where umoci's result depends on the clock or the order of the archive, and what
/// `docs/layers.md` calls absent.
struct Growing {
    prefix: Vec<u8>,
    /// What is there, by path, after the layers so far.
    there: BTreeMap<Vec<u8>, Is>,
    /// Symbolic links to directories, by their path.
    ways: BTreeMap<Vec<u8>, Vec<u8>>,
    /// How often each feature was used.
    used: BTreeMap<&'static str, usize>,
}

impl Growing {
    fn note(&mut self, what: &'static str) {
        *self.used.entry(what).or_default() += 1;
    }

    fn remove(&mut self, path: &[u8], itself: bool) {
        let below = [path, b"/"].concat();
        self.there.retain(|other, _| !(other.starts_with(&below) || itself && other == path));
    }

    fn directories(&self) -> Vec<Vec<u8>> {
        self.there.iter().filter(|(_, is)| **is == Is::Directory).map(|(path, _)| path.clone()).collect()
    }

    fn layer(&mut self, mut tar: Tar, noise: &mut Noise, first: bool) -> Tar {
        if first {
            self.there.insert(self.prefix.clone(), Is::Directory);
            tar = entry(tar, &self.prefix.clone(), b'5', b"", b"", &[], noise);
        }
        let mut late = Vec::new();
        // Names that this layer removes are not used by it again; what is opaque only gets new things.
        let mut closed: BTreeSet<Vec<u8>> = BTreeSet::new();
        if !first {
            for _ in 0..noise.below(3) {
                let path = noise.of(&self.there.keys().collect::<Vec<_>>()).clone();
                let whiteout = if path != self.prefix && !noise.one_in(3) {
                    let (parent, name) = split(&path);
                    self.note("whiteout");
                    self.remove(&path, true);
                    closed.insert(path.clone());
                    [parent, b"/.wh.", name].concat()
                } else if self.there[&path] == Is::Directory
                    && !closed.iter().any(|gone| gone.starts_with(&[&path[..], b"/"].concat()))
                {
                    self.note("opaque");
                    self.remove(&path, false);
                    [&path[..], b"/.wh..wh..opq"].concat()
                } else {
                    continue;
                };
                closed.insert(whiteout.clone());
                // umoci gives a directory the time of the test where a late opaque whiteout removes something deeper.
                if noise.one_in(2) || whiteout.ends_with(b".opq") {
                    tar = entry(tar, &whiteout, b'0', b"", b"", &[], noise);
                } else {
                    late.push(whiteout);
                }
            }
        }
        // Files of this layer that a hard link may name.
        let mut own: Vec<Vec<u8>> = Vec::new();
        let mut described: BTreeSet<Vec<u8>> = BTreeSet::new();
        let lower_ways = self.ways.clone();
        for _ in 0..3 + noise.below(8) {
            let parent = noise.of(&self.directories().iter().collect::<Vec<_>>()).clone();
            let name = noise.of(&NAMES);
            let path = [&parent[..], b"/", name].concat();
            if path.len() > 2000 || closed.contains(&path) || described.contains(&path) {
                continue;
            }
            // A link of a lower layer on the way, which this layer neither replaces nor has an entry for.
            let way = lower_ways.iter().find(|(way, directory)| {
                **directory == parent
                    && **way != path
                    && self.there.get(*way) == Some(&Is::Other)
                    && [*way, *directory]
                        .iter()
                        .all(|path| !described.contains(*path) && !closed.contains(*path))
            });
            let written = match way {
                Some((way, directory)) if noise.one_in(2) => {
                    self.note("through a symbolic link");
                    described.extend([way.clone(), directory.clone()]);
                    [&way[..], b"/", name].concat()
                }
                _ => path.clone(),
            };
            let before = self.there.get(&path).copied();
            // umoci would let a later whiteout remove what replaced something in the same layer.
            if own.iter().any(|file| file.starts_with(&[&path[..], b"/"].concat())) {
                continue;
            }
            if described.iter().any(|other| other.starts_with(&[&path[..], b"/"].concat())) {
                continue;
            }
            if described.contains(&parent) {
                self.note("in a directory with an entry");
            } else {
                self.note("in a directory without one");
            }
            let kind = noise.below(10);
            self.ways.remove(&path);
            let mut xattrs: Vec<(String, Vec<u8>)> = Vec::new();
            if noise.one_in(4) && kind < 6 {
                self.note("xattr");
                xattrs.push(("user.x".to_owned(), vec![b'=', noise.below(256) as u8, 0, b'\n']));
            }
            match kind {
                0..3 => {
                    match before {
                        Some(Is::Directory) => self.note("directory again"),
                        Some(_) => self.note("directory for something else"),
                        None => self.note("directory"),
                    }
                    tar = entry(tar, &written, b'5', b"", b"", &xattrs, noise);
                    self.there.insert(path.clone(), Is::Directory);
                }
                3..7 => {
                    if before == Some(Is::Directory) {
                        self.note("file for a directory");
                    }
                    self.remove(&path, true);
                    if noise.one_in(4) {
                        self.note("capability");
                        xattrs.push(("security.capability".to_owned(), noise.of(&CAPABILITIES).to_vec()));
                    }
                    let len = noise.of(&[0, 1, 511, 512, 4096, 9000]);
                    let data: Vec<u8> = (0..len).map(|i| (i + kind) as u8).collect();
                    if noise.one_in(5) {
                        self.note("sparse");
                        let (size, at) = (len + 20_000, 4096 + noise.below(5000));
                        let map = [
                            ("GNU.sparse.size", size.to_string()),
                            ("GNU.sparse.numblocks", "1".to_owned()),
                            ("GNU.sparse.map", format!("{at},{len}")),
                        ];
                        tar = sparse(tar, &written, &data, &map, noise);
                    } else {
                        tar = entry(tar, &written, b'0', b"", &data, &xattrs, noise);
                    }
                    own.push(path.clone());
                    self.there.insert(path.clone(), Is::File);
                }
                7 => {
                    let files = self.there.iter().filter(|(_, is)| **is == Is::File);
                    let files: Vec<_> = files.map(|(path, _)| path).collect();
                    if files.is_empty() {
                        continue;
                    }
                    let target = noise.of(&files).clone();
                    if target == path
                        || own.contains(&path)
                        || target.starts_with(&[&path[..], b"/"].concat())
                    {
                        continue;
                    }
                    let lower = !described.contains(&target);
                    self.note(if lower { "hard link to a lower layer" } else { "hard link" });
                    self.remove(&path, true);
                    tar = entry(tar, &written, b'1', &target, b"", &[], noise);
                    self.there.insert(path.clone(), Is::File);
                }
                8 => {
                    self.note("symbolic link");
                    self.remove(&path, true);
                    let mut target =
                        noise.of(&[&b"/"[..], b"..", b"../../../etc/passwd", b"\xff", b"a b"]).to_vec();
                    if noise.one_in(2) {
                        let directory = noise.of(&self.directories().iter().collect::<Vec<_>>()).clone();
                        target = [noise.of(&[&b"/"[..], b"/../", b"/./"]), &directory[..]].concat();
                        self.ways.insert(path.clone(), directory);
                    }
                    let target = &target;
                    tar = entry(tar, &written, b'2', target, b"", &[], noise);
                    self.there.insert(path.clone(), Is::Other);
                }
                _ => {
                    self.note("device or pipe");
                    self.remove(&path, true);
                    let kind = noise.of(b"346");
                    tar = entry(tar, &written, kind, b"", b"", &[], noise);
                    self.there.insert(path.clone(), Is::Other);
                }
            }
            described.insert(path);
        }
        for whiteout in late {
            // What replaced the directory has hidden the name as well.
            if self.there.get(split(&whiteout).0) != Some(&Is::Directory) {
                continue;
            }
            tar = entry(tar, &whiteout, b'0', b"", b"", &[], noise);
        }
        tar
    }
}

fn split(path: &[u8]) -> (&[u8], &[u8]) {
    let at = path.iter().rposition(|b| *b == b'/').expect("below the prefix");
    (&path[..at], &path[at + 1..])
}

/// An entry whose name, link and time stand in records, with a mode and owner by chance.
fn entry(
    tar: Tar,
    path: &[u8],
    kind: u8,
    link: &[u8],
    data: &[u8],
    xattrs: &[(String, Vec<u8>)],
    noise: &mut Noise,
) -> Tar {
    let time = noise.of(&TIMES);
    let mut records: Vec<(String, Vec<u8>)> =
        vec![("path".to_owned(), path.to_vec()), ("mtime".to_owned(), time.as_bytes().to_vec())];
    if !link.is_empty() {
        records.push(("linkpath".to_owned(), link.to_vec()));
    }
    let xattrs = xattrs.iter().map(|(name, value)| (format!("SCHILY.xattr.{name}"), value.clone()));
    records.extend(xattrs);
    finish(tar, kind, data, &records, noise)
}

fn sparse(tar: Tar, path: &[u8], data: &[u8], map: &[(&str, String)], noise: &mut Noise) -> Tar {
    let mut records = vec![("path".to_owned(), path.to_vec()), ("mtime".to_owned(), b"5".to_vec())];
    records.extend(map.iter().map(|(key, value)| ((*key).to_owned(), value.clone().into_bytes())));
    finish(tar, b'0', data, &records, noise)
}

fn finish(tar: Tar, kind: u8, data: &[u8], records: &[(String, Vec<u8>)], noise: &mut Noise) -> Tar {
    let mode = noise.of(&[0o644, 0o755, 0o4711, 0o2750, 0o1777, 0o000, 0o6555]);
    let ids = [noise.of(&[0, 1000, 2_000_000]), noise.of(&[0, 7, 65_534])];
    let device = [noise.below(3) + 1, noise.below(5)];
    let records: Vec<(&str, &[u8])> =
        records.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    tar.pax(&records).entry("short", kind, "", data, |header| {
        header[100..108].copy_from_slice(format!("{mode:07o}\0").as_bytes());
        for (field, id) in [108, 116].into_iter().zip(ids) {
            header[field..field + 8].copy_from_slice(format!("{id:07o}\0").as_bytes());
        }
        if matches!(kind, b'3' | b'4') {
            for (field, number) in [329, 337].into_iter().zip(device) {
                header[field..field + 8].copy_from_slice(format!("{number:07o}\0").as_bytes());
            }
        }
    })
}

/// What we export is for umoci what the layers were, and for us what we would export again.
fn check_export(layers: &[Vec<u8>]) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = |name: &str| dir.path().join(name);
    write_layout(&path("layout"), layers);
    let store = Store::open(&path("store"), common::confined()).expect("a store");
    let export = |image: &Image, name: &str| {
        let exported = store.export(&image.digest, &path(name), Form::Directory, "latest", Compression::None);
        exported.expect("exported").digest
    };
    let unpacked = |layout: &str, into: &str| {
        let output = unpack(&path(layout), &path(into));
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        on_disk(&path(into))
    };
    let exported = export(&pull(&store, &path("layout")).expect("pulled"), "exported");
    compare(&unpacked("layout", "unpacked"), &unpacked("exported", "unpacked again"));
    let again = pull(&store, &path("exported")).expect("pulled");
    assert_eq!(export(&again, "exported again"), exported, "an export of an export is another image");
}

/// Layers one above the other, with many trees in each; counts what is in them.
fn stack(seed: u64, used: &mut BTreeMap<&'static str, usize>) -> Vec<Vec<u8>> {
    let mut noise = Noise(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    let mut trees: Vec<Growing> = (0..TREES)
        .map(|i| Growing {
            prefix: format!("t{i}").into_bytes(),
            there: BTreeMap::new(),
            ways: BTreeMap::new(),
            used: BTreeMap::new(),
        })
        .collect();
    let mut layers = Vec::new();
    for layer in 0..LAYERS {
        let mut tar = Tar::new();
        // Always in the first, or umoci's root has the time of the test; sometimes in others.
        if layer == 0 || noise.one_in(3) {
            tar = entry(tar, b"./", b'5', b"", b"", &[], &mut noise);
        }
        for tree in &mut trees {
            tar = tree.layer(tar, &mut noise, layer == 0);
        }
        layers.push(tar.end());
    }
    for (what, count) in trees.iter().flat_map(|tree| &tree.used) {
        *used.entry(what).or_default() += count;
    }
    layers
}

#[test]
fn what_is_exported_is_unpacked_by_umoci_as_the_layers_were() {
    if able() {
        (1..=3).for_each(|seed| check_export(&stack(seed, &mut BTreeMap::new())));
    }
}

#[test]
fn t15_500_stacks_of_layers_are_merged_as_umoci_unpacks_them() {
    if !able() {
        return;
    }
    let mut used: BTreeMap<&'static str, usize> = BTreeMap::new();
    for seed in 1..=IMAGES {
        check(&stack(seed, &mut used));
    }
    // Every feature was there often enough to mean something.
    assert!(used.len() >= 16 && used.values().all(|count| *count >= 20), "{used:?}");
}

/// What layers imply, root and whiteouts included, where umoci says the same whatever the time is.
#[test]
fn t15_what_a_layer_only_implies_stays_as_lower_layers_have_it() {
    if !able() {
        return;
    }
    let mode = |tar: Tar, name: &str, mode: &'static [u8; 8]| {
        tar.entry(name, b'5', "", b"", |header| header[100..108].copy_from_slice(mode))
    };
    let base = || {
        let tar = mode(Tar::new(), "./", b"0001750\0");
        mode(mode(tar, "d", b"0000700\0"), "d/e", b"0002711\0").file("d/e/f", "f").end()
    };
    check(&[base(), Tar::new().file("d/e/g", "g").end()]);
    check(&[base(), Tar::new().file("d/e/.wh.f", "").end()]);
    check(&[base(), Tar::new().file("d/e/.wh.f", "").file(".wh.d", "").end()]);
    check(&[base(), Tar::new().file(".wh.d", "").file("d/e/.wh.f", "").end()]);
    check(&[base(), Tar::new().file("d/.wh..wh..opq", "").end()]);
    check(&[base(), Tar::new().file(".wh..wh..opq", "").end()]);
    check(&[base(), Tar::new().file("x", "").end(), Tar::new().file("d/e/x", "").end()]);
    check(&[base(), mode(Tar::new(), "./", b"0000711\0").end(), Tar::new().file("d/x", "").end()]);
}

fn merged() -> Vec<u8> {
    let mode = |tar: Tar, name: &str| {
        tar.entry(name, b'5', "", b"", |header| header[100..108].copy_from_slice(b"0000750\0"))
    };
    let tar = mode(mode(Tar::new().dir("./").dir("usr"), "usr/lib"), "usr/lib/deep");
    let tar = tar.pax(&[("SCHILY.xattr.user.a", b"b")]).file("usr/lib/old", "o".repeat(9000));
    let tar = tar.file("usr/lib/deep/file", "").symlink("lib", "usr/lib").symlink("up", "../../usr/./lib");
    tar.symlink("again", "/lib")
        .symlink("nowhere", "no/where")
        .symlink("to-file", "file")
        .file("file", "f")
        .end()
}

#[test]
fn t15_entries_beneath_a_symbolic_link_of_a_lower_layer_go_where_it_leads() {
    if !able() {
        return;
    }
    let over = |tar: Tar| check(&[merged(), tar.end()]);
    over(Tar::new().file("lib/new", "n").file("up/two", "2").file("again/three", "3"));
    over(Tar::new().file("lib/deep/new", "n").file("usr/lib/deep/file", "changed"));
    over(Tar::new().file("lib/new", "n").dir("usr/lib").file("usr/lib/beside", "b"));
    over(Tar::new().file("lib/.wh.old", ""));
    over(Tar::new().file("lib/.wh..wh..opq", "").file("lib/new", "n"));
    over(Tar::new().dir("lib").file("lib/new", "n"));
    over(Tar::new().file(".wh.lib", "").dir("lib").file("lib/new", "n"));
    over(Tar::new().file("file/.wh.nothing", "").file("there/is/.wh.nothing", "").dir("usr/lib"));
    over(Tar::new().symlink("usr/lib", "x").dir("usr/lib").file("usr/lib/new", "n"));
    // Where the link leads nowhere directories are made, of which umoci says the time.
    let layers = [merged(), Tar::new().file("nowhere/new", "n").end()];
    let (_dir, image) = pulled(&layers);
    let (store, image) = image.expect("taken");
    let lines = files(&store, &image).expect("listed");
    assert!(lines.iter().any(|line| line.path == "/no/where/new"), "{lines:?}");
}

#[test]
fn t15_hard_links_to_lower_layers_are_their_files() {
    if !able() {
        return;
    }
    let over = |tar: Tar| check(&[merged(), tar.end()]);
    over(
        Tar::new().hard_link("one", "usr/lib/old").hard_link("two", "lib/old").hard_link("usr/three", "one"),
    );
    over(Tar::new().hard_link("one", "lib"));
    over(Tar::new().hard_link("file", "usr/lib/old"));
    over(Tar::new().hard_link("one", "file").file("file", "another"));
    over(Tar::new().hard_link("one", "usr/lib/old").file("usr/lib/.wh.old", ""));
    over(Tar::new().file("usr/lib/own", "own").hard_link("one", "lib/own"));
    over(Tar::new().file("lib/own", "own").hard_link("one", "usr/lib/own"));
    check(&[merged(), Tar::new().hard_link("one", "file").end(), Tar::new().hard_link("two", "one").end()]);
}

#[test]
fn t15_what_does_not_fit_over_the_lower_layers_is_refused_as_umoci_does() {
    if !able() {
        return;
    }
    let mut looping = Tar::new().symlink("a", "b").symlink("b", "a").end();
    looping.truncate(looping.len() - 1024);
    let base = [looping, merged()].concat();
    for top in [
        Tar::new().hard_link("one", "usr/lib/none"),
        Tar::new().hard_link("one", "usr"),
        Tar::new().file("usr/lib/.wh.old", "").hard_link("one", "usr/lib/old"),
        Tar::new().file("usr/.wh.lib", "").hard_link("one", "usr/lib/old"),
        Tar::new().file("usr/lib/.wh..wh..opq", "").hard_link("one", "usr/lib/old"),
        Tar::new().hard_link("file", "file"),
        Tar::new().file("file/new", ""),
        Tar::new().file("to-file/new", ""),
        Tar::new().file("a/new", ""),
    ] {
        let layers = [base.clone(), top.end()];
        let (dir, image) = pulled(&layers);
        let error = image.expect_err("it was taken");
        assert!(error.is_refusal(), "{error:?}");
        assert_eq!(fs::read_dir(dir.path().join("store/tmp")).expect("listed").count(), 0);
        assert!(!unpack(&dir.path().join("layout"), &dir.path().join("unpacked")).status.success());
    }
}

#[test]
fn a_layer_that_was_put_over_others_is_found_over_the_same_ones_only() {
    let base = merged();
    let other = Tar::new().dir("./").file("file", "another").end();
    let (top, above) = (Tar::new().hard_link("one", "file").end(), Tar::new().file("above", "").end());
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(&dir.path().join("store"), common::confined()).expect("a store");
    let pull_of = |name: &str, layers: &[&Vec<u8>], without: &[&Vec<u8>]| {
        let layout = dir.path().join(name);
        write_layout(&layout, &layers.iter().map(|layer| (*layer).clone()).collect::<Vec<_>>());
        for layer in without {
            fs::remove_file(layout.join("blobs/sha256").join(sha256::digest(layer).hex())).expect("removed");
        }
        pull(&store, &layout)
    };
    let first = pull_of("first", &[&base, &top], &[]).expect("pulled");
    assert_eq!(first.layers[1].origin, Origin::Stacked);
    store.pin("first", &[first.digest]).expect("pinned");
    let layers = first.layers.clone();
    // The blob of the layer alone is nobody's once the pull has let go of it.
    drop(first);
    let first = layers;
    assert_eq!(store.gc().expect("collected").blobs.len(), 1);
    assert_eq!(store.verify().expect("looked at"), []);
    let second = pull_of("second", &[&base, &top, &above], &[&top]).expect("pulled without the layer");
    assert_eq!(second.layers[..2], first);
    pull_of("third", &[&other, &top], &[&top]).expect_err("the layer over others was taken for the same");
    let third = pull_of("fourth", &[&other, &top], &[]).expect("pulled");
    assert_eq!(third.layers[1].diff_id, first[1].diff_id);
    assert_ne!(third.layers[1].blob, first[1].blob);
    let lines = files(&store, &third).expect("listed");
    let one = lines.iter().find(|line| line.path == "/one").expect("there");
    assert_eq!(one.sha256, Some(sha256::digest(b"another")));
}

/// What `tar` makes of the files of some installed packages, as layers of Debian are made.
fn packages(names: &[&str], dir: &Path) -> Vec<u8> {
    let listed = Command::new("dpkg").arg("--listfiles").args(names).output().expect("dpkg runs");
    assert!(listed.status.success(), "{}", String::from_utf8_lossy(&listed.stderr));
    let listed = String::from_utf8(listed.stdout).expect("text");
    // Installations leave documentation out, and dpkg says so beside diverted files.
    let there = |path: &&str| {
        // What lies elsewhere changes while it is read, and the links at the root are those of the layer below.
        let kept = ["/bin/", "/etc", "/lib/", "/lib64/", "/sbin/", "/usr"];
        kept.iter().any(|start| path.starts_with(start)) && fs::symlink_metadata(path).is_ok()
    };
    let paths: BTreeSet<&str> = listed.lines().filter(there).map(|path| &path[1..]).collect();
    let list = dir.join("list");
    fs::write(&list, paths.into_iter().collect::<Vec<_>>().join("\n")).expect("written");
    let tar = Command::new("tar")
        .args(["--create", "--no-recursion", "--numeric-owner", "--format=pax", "--directory=/"])
        .args(["--xattrs", "--xattrs-include=*"])
        .arg(format!("--files-from={}", list.display()))
        .output()
        .expect("tar runs");
    assert!(tar.status.success(), "{}", String::from_utf8_lossy(&tar.stderr));
    tar.stdout
}

#[test]
fn t15_an_image_of_debian_packages_is_the_tree_that_umoci_unpacks() {
    if !able() || !has_program("dpkg") {
        return;
    }
    let dir = tempfile::tempdir().expect("a directory");
    let merged =
        ["bin", "sbin", "lib", "lib64"].into_iter().fold(Tar::new().dir("./").dir("usr"), |tar, name| {
            tar.dir(&format!("usr/{name}")).symlink(name, &format!("usr/{name}"))
        });
    let layers = [
        merged.end(),
        packages(&["base-files", "base-passwd", "libc-bin", "coreutils"], dir.path()),
        packages(&["passwd", "util-linux", "bash", "tar", "perl-base"], dir.path()),
        // Names of both kinds, through links that Debian has at its root.
        Tar::new()
            .file("bin/.wh.bash", "")
            .file("usr/share/doc/.wh..wh..opq", "")
            .file("usr/share/doc/note", "n")
            .file("lib/added", "a")
            .hard_link("usr/bin/again", "bin/cat")
            .end(),
    ];
    assert!(layers[1].len() > 1 << 20 && layers[2].len() > 1 << 20, "this is no Debian system");
    check(&layers);
}

#[test]
fn t20_a_layer_is_not_put_over_one_that_is_bad() {
    let (base, top) = (merged(), Tar::new().hard_link("one", "usr/lib/old").end());
    let (dir, image) = pulled(std::slice::from_ref(&base));
    let (store, image) = image.expect("pulled");
    let path = store.blob_path(&image.layers[0].blob);
    let mut bytes = fs::read(&path).expect("read");
    let at = bytes.windows(100).position(|bytes| bytes == [b'o'; 100]).expect("the content of a file");
    bytes[at] ^= 1;
    // Not in place: where the file system has fs-verity it would not let us.
    fs::remove_file(&path).and_then(|()| fs::write(&path, bytes)).expect("spoiled");
    let layout = dir.path().join("second");
    write_layout(&layout, &[base, top]);
    let error = pull(&store, &layout).expect_err("what a bad disk gave got a name of its own");
    assert!(matches!(error, PullError::Store(StoreError::Damaged { .. })), "{error:?}");
    for bad in store.scrub().expect("scrubbed") {
        store.repair(&bad.blob).expect("put aside");
    }
    let image = pull(&store, &layout).expect("fetched again");
    let lines = files(&store, &image).expect("listed");
    let one = lines.iter().find(|line| line.path == "/one").expect("there");
    assert_eq!(one.sha256, Some(sha256::digest("o".repeat(9000).as_bytes())));
}
