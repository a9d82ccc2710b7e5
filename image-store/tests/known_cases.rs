//! What was done to other programs that take archives apart, and what comes of it here.
//!
//! The names are those of the tests of containerd (`pkg/archive`, `TestBreakouts`), of moby and containers/storage (`pkg/archive`,
//! `TestUntarInvalid…`), and of the advisories.

mod common;

use std::error::Error;
use std::fs;

use bennu_image_store::listing::files;
use common::Tar;
use common::layout::pulled;

/// What has to come of a case.
enum Outcome {
    /// A refusal with this reason.
    Refused(&'static str),
    /// A tree with these lines among its own: path, type, and size or target; with `!` before it, a path that is not there.
    Taken(&'static [&'static str]),
}
use Outcome::{Refused, Taken};

fn tar() -> Tar {
    Tar::new()
}

fn etc() -> Tar {
    tar().dir("etc").file("etc/passwd", "inside")
}

/// A file whose size stands in a pax record, and whose header says that it has none; an archive in it.
fn smuggled() -> Tar {
    let inner = tar().file("smuggled", "").cut();
    let size = inner.len().to_string();
    let outer = tar().pax(&[("size", size.as_bytes())]).entry("carrier", b'0', "", b"", |_| {});
    outer.raw(&inner).file("after", "")
}

const BENEATH: &str = "on its way is no directory";
const MISSING: &str = "which this layer does not contain";
const PARENT: &str = "contains '..'";
const WHITEOUT: &str = "the whiteout removes no proper name";

/// Name, lower layer, the layer in question, what has to come of it.
fn cases() -> Vec<(&'static str, Tar, Tar, Outcome)> {
    let linked = || etc().symlink("localetc", "/etc");
    let in_etc = || etc().dir("breakouts");
    let same = &["/localpasswd file 6", "/etc/passwd file 6"];
    vec![
        // containerd
        ("SymlinkAbsolute", tar(), linked().file("localetc/unbroken", "x"), Refused(BENEATH)),
        (
            "SymlinkUpAndOut",
            tar(),
            tar().dir("etc").dir("dummy").symlink("localetc", "/dummy/../etc").file("localetc/unbroken", "x"),
            Refused(BENEATH),
        ),
        (
            "SymlinkMultipleAbsolute",
            tar(),
            tar().dir("etc").dir("dummy").symlink("dummy/etc", "/etc").file("dummy/etc/unbroken", "x"),
            Refused(BENEATH),
        ),
        (
            "SymlinkMultipleRelative",
            tar(),
            tar().dir("dummy").symlink("dummy/etc", "../etc").file("/dummy/etc/unbroken", "x"),
            Refused(BENEATH),
        ),
        ("SymlinkEmptyFile", tar(), linked().file("/localetc/passwd", ""), Refused(BENEATH)),
        (
            "HardlinkRelative",
            tar(),
            in_etc().symlink("breakouts/d1", "../../etc").hard_link("breakouts/mine", "/breakouts/d1/passwd"),
            Refused(MISSING),
        ),
        (
            "HardlinkDownAndOut",
            tar(),
            in_etc()
                .symlink("breakouts/d1", "../downandout/../../etc")
                .hard_link("breakouts/mine", "/breakouts/d1/passwd"),
            Refused(MISSING),
        ),
        ("HardlinkAbsolute", tar(), linked().hard_link("mine", "/localetc/passwd"), Refused(MISSING)),
        (
            "HardlinkRelativeLong",
            tar(),
            etc().symlink("localetc", "../../../../../../../etc").hard_link("mine", "/localetc/passwd"),
            Refused(MISSING),
        ),
        (
            "HardlinkRelativeUpAndOut",
            tar(),
            etc().symlink("localetc", "upandout/../../../etc").hard_link("mine", "/localetc/passwd"),
            Refused(MISSING),
        ),
        (
            "HardlinkDirectRelative",
            tar(),
            etc().hard_link("localpasswd", "../../../../../etc/passwd"),
            Refused(PARENT),
        ),
        ("HardlinkDirectAbsolute", tar(), etc().hard_link("localpasswd", "/etc/passwd"), Taken(same)),
        ("SymlinkParentDirectory", tar(), etc().symlink("..", "/etc/"), Refused(PARENT)),
        ("SymlinkEmptyFilename", tar(), etc().symlink("", "/etc/"), Refused("is empty")),
        ("SymlinkParentRelative", tar(), etc().symlink("localetc/sub/..", "/etc/"), Refused(PARENT)),
        (
            "SymlinkSlashEnded",
            tar(),
            etc().dir("localetc/").hard_link("/localetc/localpasswd", "/etc/passwd"),
            Taken(&["/localetc/localpasswd file 6"]),
        ),
        (
            "SymlinkOverrideDirectory",
            etc().dir("localetc"),
            tar().symlink("localetc", "/etc").hard_link("/localetc/localpasswd", "/etc/passwd"),
            Refused(BENEATH),
        ),
        (
            "SymlinkOverrideDirectoryRelative",
            etc().dir("localetc"),
            tar().symlink("localetc", "../../etc").hard_link("/localetc/localpasswd", "/etc/passwd"),
            Refused(BENEATH),
        ),
        (
            "DirectoryOverrideSymlink",
            linked(),
            tar().dir("/localetc/").hard_link("/localetc/localpasswd", "/etc/passwd"),
            Taken(&["/localetc dir 0", "/localetc/localpasswd file 6", "!/etc/localpasswd"]),
        ),
        (
            "DirectoryOverrideSymlinkAndHardlink",
            linked().hard_link("etc/localpasswd", "etc/passwd"),
            tar().dir("/localetc/").file("/localetc/localpasswd", "different"),
            Taken(&["/localetc/localpasswd file 9", "/etc/localpasswd file 6", "/etc/passwd file 6"]),
        ),
        ("WhiteoutRootParent", etc(), tar().file(".wh...", ""), Refused(WHITEOUT)),
        ("WhiteoutParent", etc(), tar().file("etc/.wh...", ""), Refused(WHITEOUT)),
        ("WhiteoutRoot", etc(), tar().file(".wh..", ""), Refused(WHITEOUT)),
        ("WhiteoutCurrentDirectory", etc(), tar().file("etc/.wh..", ""), Refused(WHITEOUT)),
        (
            "WhiteoutSymlink",
            linked(),
            tar().file(".wh.localetc", ""),
            Taken(&["/etc/passwd file 6", "!/localetc"]),
        ),
        (
            "WhiteoutSymlinkPath",
            linked().file("etc/whitedout", "x"),
            tar().file("localetc/.wh.whitedout", ""),
            Taken(&["/etc/passwd file 6", "!/etc/whitedout", "/localetc link /etc"]),
        ),
        (
            "WhiteoutDirectoryName",
            linked(),
            tar().file(".wh.etc/somefile", "non-empty"),
            Taken(&["/etc/passwd file 6", "/.wh.etc/somefile file 9"]),
        ),
        (
            "WhiteoutDeadSymlinkParent",
            etc().symlink("localetc", "/dne"),
            tar().file("localetc/.wh.etc", ""),
            Taken(&["/etc/passwd file 6", "/localetc link /dne", "!/dne"]),
        ),
        ("WhiteoutRelativePath", etc(), tar().file("dne/../.wh.etc", ""), Refused(PARENT)),
        (
            "HardlinkSymlinkBeforeCreateTarget",
            tar(),
            tar()
                .dir("etc")
                .symlink("localpasswd", "/etc/passwd")
                .hard_link("localpasswd-dup", "localpasswd")
                .file("/etc/passwd", "after"),
            Taken(&["/localpasswd-dup link /etc/passwd", "/etc/passwd file 5"]),
        ),
        (
            "HardlinkSymlinkRelative",
            tar(),
            etc().symlink("passwdlink", "../../../../../etc/passwd").hard_link("localpasswd", "/passwdlink"),
            Taken(&["/localpasswd link ../../../../../etc/passwd"]),
        ),
        (
            "HardlinkSymlinkAbsolute",
            tar(),
            etc().symlink("passwdlink", "/etc/passwd").hard_link("localpasswd", "/passwdlink"),
            Taken(&["/localpasswd link /etc/passwd", "/etc/passwd file 6"]),
        ),
        (
            "HardlinkSymlinkChmod, CVE-2021-32760",
            tar(),
            tar().symlink("/tmp/outside", "/tmp/perm400").hard_link("sketchylink", "/tmp/outside"),
            Taken(&["/sketchylink link /tmp/perm400", "/tmp/outside link /tmp/perm400"]),
        ),
        (
            "DirectoryCreation",
            tar().dir("etc"),
            tar().dir("/etc/subdir").dir("/etc/subdir2/more").dir("/other/noparent-1/1"),
            Taken(&["/etc/subdir dir 0", "/etc/subdir2/more dir 0", "/other/noparent-1/1 dir 0"]),
        ),
        // moby and containers/storage
        ("TestUntarInvalidFilenames", tar(), tar().file("../victim/dear", "x"), Refused(PARENT)),
        ("TestUntarInvalidFilenames, with a slash", tar(), tar().file("/../victim/x", ""), Refused(PARENT)),
        ("TestUntarInvalidHardlink", tar(), tar().hard_link("dotdot", "../victim/hello"), Refused(PARENT)),
        (
            "TestUntarInvalidHardlink, chain",
            tar(),
            tar().hard_link("loophole", "../victim").hard_link("copy", "loophole/hello"),
            Refused(PARENT),
        ),
        (
            "TestUntarInvalidHardlink, write through",
            tar(),
            tar().file("loophole", "").file("loophole/file", "x"),
            Refused(BENEATH),
        ),
        (
            "TestUntarInvalidSymlink",
            tar(),
            tar().symlink("loophole", "../victim").file("loophole/newdir/file", "x"),
            Refused(BENEATH),
        ),
        (
            "TestUntarInvalidSymlink, hard link through",
            tar(),
            tar().symlink("loophole", "../victim").hard_link("copy", "loophole/hello"),
            Refused(MISSING),
        ),
        // umoci and others: over a link of a lower layer nothing leaves the root.
        ("CVE-2021-29136, root as a link", tar(), tar().symlink(".", "/etc"), Refused("the root must be")),
        (
            "a lower link that leads out",
            etc().symlink("out", "../../../../etc"),
            tar().file("out/shadow", "x"),
            Taken(&["/etc/shadow file 1", "/out link ../../../../etc"]),
        ),
        (
            "a lower link to itself",
            tar().symlink("loop", "loop"),
            tar().file("loop/file", "x"),
            Refused(BENEATH),
        ),
        // The Rust crates
        (
            "RUSTSEC-2025-0111, size in pax alone",
            tar(),
            smuggled(),
            Taken(&["/carrier file 512", "/after file 0", "!/smuggled"]),
        ),
        (
            "RUSTSEC-2026-0066, malformed pax",
            tar(),
            tar().entry("x", b'x', "", b"99 path=../x\n", |_| {}).file("a", ""),
            Refused("the pax header is malformed"),
        ),
        (
            "RUSTSEC-2026-0067, directory over a link",
            tar(),
            tar().symlink("s", "/outside").dir("s").file("s/f", ""),
            Taken(&["/s dir 0", "/s/f file 0"]),
        ),
        (
            "RUSTSEC-2026-0068, size of what has no data",
            tar(),
            tar().pax(&[("size", b"512")]).symlink("s", "t").raw(&[0; 512]),
            Refused("cannot have data"),
        ),
        (
            "RUSTSEC-2026-0112, size before a long name",
            tar(),
            tar()
                .pax(&[("size", b"512")])
                .entry("L", b'L', "", b"long\0", |_| {})
                .entry("short", b'0', "", b"", |_| {})
                .raw(&[b'x'; 512])
                .file("after", ""),
            Taken(&["/long file 512", "/after file 0", "!/short"]),
        ),
        // What has to come through as it is
        (
            "modes that set ids",
            tar(),
            tar().entry("su", b'0', "", b"", |header| header[100..108].copy_from_slice(b"0006755\0")),
            Taken(&["/su file 0"]),
        ),
        (
            "names that differ in case or hold control bytes",
            tar(),
            tar().file("A", "1").file("a", "22").file("n\nl", "").file("t\tb", "").file("\u{1b}[2J", ""),
            Taken(&["/A file 1", "/a file 2", "/n\\x0al file 0", "/t\\x09b file 0", "/\\x1b[2J file 0"]),
        ),
        ("a name twice", tar(), tar().file("a", "1").file("./a", "22"), Taken(&["/a file 2"])),
    ]
}

#[test]
fn t15_what_broke_other_programs_is_refused_or_stays_in_its_tree() {
    let cases = cases();
    assert!(cases.len() >= 50, "{} cases", cases.len());
    let mut wrong = Vec::new();
    for (name, base, top, outcome) in cases {
        let (dir, image) = pulled(&[base.end(), top.end()]);
        let left = fs::read_dir(dir.path().join("store/tmp")).expect("listed").count();
        let said = match (image, outcome) {
            (Err(error), Refused(reason)) => {
                let mut text = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    text.push_str(&format!(": {error}"));
                    cause = error.source();
                }
                (!error.is_refusal() || !text.contains(reason)).then_some(text)
            }
            (Ok((store, image)), Taken(expected)) => {
                let lines = files(&store, &image).expect("listed");
                let seen: Vec<String> = lines
                    .iter()
                    .map(|line| {
                        let what = line.target.clone().unwrap_or_else(|| line.size.to_string());
                        format!("{} {} {what}", line.path, line.kind)
                    })
                    .collect();
                let fits = |line: &&&str| match line.strip_prefix('!') {
                    Some(path) => lines.iter().all(|line| line.path != path),
                    None => seen.iter().any(|seen| seen == **line),
                };
                (!expected.iter().all(|line| fits(&line))).then(|| format!("taken as {seen:?}"))
            }
            (Ok(_), Refused(_)) => Some("it was taken".to_owned()),
            (Err(error), Taken(_)) => Some(format!("{error}: {:?}", error.source())),
        };
        wrong.extend(said.map(|said| format!("{name}: {said}")));
        assert_eq!(left, 0, "{name}: something is left in tmp/");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
