//! Archives that no honest program writes, and what becomes of them.

mod common;

use bennu_image_store::erofs::{FileType, Image, ReadError};
use bennu_image_store::listing::{ListError, layer_listing};
use bennu_image_store::tar::{Limits, PathFault, Reason, Refusal, TarError};
use bennu_image_store::{Confinement, ImportError, Store};
use common::{Tar, pax_records};

/// What an import of `archive` is refused for, which is the same in this process and in a confined one. The store is as empty
/// afterwards as it was before.
fn refused(archive: &[u8], limits: Limits) -> Result<Reason, String> {
    let here = refused_by(Confinement::None, archive, limits);
    assert_eq!(refused_by(common::confined(), archive, limits), here);
    here.map(|refusal| refusal.reason)
}

fn refused_by(confinement: Confinement, archive: &[u8], limits: Limits) -> Result<Refusal, String> {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), confinement).expect("a store");
    match store.import_layer(archive, limits) {
        Ok(_) => Err("it was taken".to_owned()),
        Err(ImportError::Refused(refusal)) => {
            for directory in ["tmp", "blobs/sha256", "layers/sha256"] {
                let left = std::fs::read_dir(dir.path().join(directory)).expect("listed").count();
                assert_eq!(left, 0, "something is left in {directory}");
            }
            Ok(refusal)
        }
        Err(other) => Err(format!("{other}: another kind of error")),
    }
}

#[track_caller]
fn check(archive: Vec<u8>, expected: Reason) {
    assert_eq!(refused(&archive, Limits::default()), Ok(expected));
}

#[test]
fn paths_that_leave_the_tree_are_refused() {
    for (name, fault) in [
        ("../etc/passwd", PathFault::Parent),
        ("/../etc/passwd", PathFault::Parent),
        ("a/../../b", PathFault::Parent),
        ("..", PathFault::Parent),
    ] {
        check(Tar::new().file(name, "x").end(), Reason::Path(fault));
    }
    check(Tar::new().pax(&[("path", b"a/../../b")]).file("a", "x").end(), Reason::Path(PathFault::Parent));
    check(
        Tar::new().entry("L", b'L', "", b"../../x\0", |_| {}).file("a", "").end(),
        Reason::Path(PathFault::Parent),
    );
    check(
        Tar::new().entry("L", b'L', "", b"a\0b\0", |_| {}).file("a", "").end(),
        Reason::Path(PathFault::Nul),
    );
    let long = "n".repeat(256);
    check(
        Tar::new().pax(&[("path", long.as_bytes())]).file("a", "").end(),
        Reason::Path(PathFault::LongComponent),
    );
    let deep = "d/".repeat(2049);
    check(Tar::new().pax(&[("path", deep.as_bytes())]).dir("a").end(), Reason::Path(PathFault::Long));
}

#[test]
fn links_that_leave_the_tree_are_refused_or_harmless() {
    check(Tar::new().hard_link("a", "../../etc/shadow").end(), Reason::LinkTarget(PathFault::Parent));
    // An absolute target is one inside the layer, as everywhere; and there is none such.
    check(Tar::new().hard_link("a", "/etc/shadow").end(), Reason::MissingLinkTarget("etc/shadow".to_owned()));
    check(Tar::new().dir("d").hard_link("a", "d").end(), Reason::DirectoryLink("d".to_owned()));
    check(Tar::new().hard_link("a", "a").end(), Reason::MissingLinkTarget("a".to_owned()));
    check(
        Tar::new().symlink("s", "/").hard_link("a", "s/etc/shadow").end(),
        Reason::MissingLinkTarget("s/etc/shadow".to_owned()),
    );
    check(Tar::new().symlink("s", "").end(), Reason::LinkTarget(PathFault::Empty));
}

#[test]
fn nothing_can_be_put_beneath_what_is_no_directory() {
    check(Tar::new().symlink("s", "/etc").file("s/passwd", "x").end(), Reason::NotADirectory("s".to_owned()));
    check(Tar::new().file("f", "x").dir("f/d").end(), Reason::NotADirectory("f".to_owned()));
    check(
        Tar::new().symlink("a", ".").file("b/c/d", "").file("a/x/../y", "").end(),
        Reason::Path(PathFault::Parent),
    );
    check(
        Tar::new().dir("a").symlink("a/b", "..").file("a/b/c", "").end(),
        Reason::NotADirectory("a/b".to_owned()),
    );
}

#[test]
fn whiteouts_that_name_nothing_proper_are_refused() {
    for name in [".wh.", ".wh..", ".wh...", "a/.wh.", "a/.wh...", ".wh..wh.plnk", ".wh..wh..wh..opq"] {
        check(Tar::new().file(name, "").end(), Reason::Whiteout);
    }
}

#[test]
fn a_device_that_overlayfs_would_take_for_a_whiteout_is_refused_and_others_are_not() {
    let device = |kind: u8, major: &'static [u8; 8], minor: &'static [u8; 8]| {
        let tar = Tar::new().entry("dev", kind, "", b"", |header| {
            header[329..337].copy_from_slice(major);
            header[337..345].copy_from_slice(minor);
        });
        tar.end()
    };
    check(device(b'3', b"0000000\0", b"0000000\0"), Reason::WhiteoutDevice);
    check(device(b'3', &[0; 8], &[0; 8]), Reason::WhiteoutDevice);
    let dir = tempfile::tempdir().expect("a directory");
    for (kind, minor, listed) in [
        (b'3', b"0000003\0", ("char", "1,3")),
        (b'3', b"0000000\0", ("char", "1,0")),
        (b'4', b"0000000\0", ("block", "1,0")),
    ] {
        let archive = device(kind, b"0000001\0", minor);
        let lines = layer_listing(archive.as_slice(), dir.path(), Limits::default()).expect("sound");
        assert_eq!((lines[1].kind, lines[1].target.as_deref()), (listed.0, Some(listed.1)));
    }
    let block = device(b'4', b"0000000\0", b"0000000\0");
    let lines = layer_listing(block.as_slice(), dir.path(), Limits::default()).expect("no whiteout");
    assert_eq!(lines[1].kind, "block");
}

#[test]
fn the_root_cannot_become_something_else() {
    check(Tar::new().symlink("./", "/etc").end(), Reason::Root);
    check(Tar::new().symlink(".", "/etc").end(), Reason::Root);
    check(Tar::new().file("./.", "x").end(), Reason::Root);
}

#[test]
fn headers_that_readers_would_understand_differently_are_refused() {
    // A size in the pax header and another one in the ustar header of something that has no data (RUSTSEC-2026-0068).
    check(Tar::new().pax(&[("size", b"512")]).symlink("s", "t").end(), Reason::UnexpectedData);
    check(Tar::new().entry("d", b'5', "", &[0; 512], |_| {}).end(), Reason::UnexpectedData);
    check(Tar::new().pax(&[("path", b"b")]).pax(&[("path", b"c")]).file("a", "").end(), Reason::Ambiguous);
    let two_names = Tar::new().pax(&[("path", b"b")]).entry("L", b'L', "", b"c\0", |_| {}).file("a", "");
    check(two_names.end(), Reason::Ambiguous);
    check(Tar::new().raw(&[0; 512]).file("a", "x").end(), Reason::Ambiguous);
    check(
        Tar::new().entry("g", b'g', "", &pax_records(&[("path", b"x")]), |_| {}).end(),
        Reason::GlobalPax("path".to_owned()),
    );
}

#[test]
fn malformed_headers_are_refused() {
    let sound = Tar::new().file("a", "x").end();
    let mut spoiled = sound.clone();
    spoiled[0] ^= 1;
    check(spoiled, Reason::Checksum);
    check(sound[..512].to_vec(), Reason::Truncated);
    check(sound[..1100].to_vec(), Reason::Truncated);
    check(sound[..100].to_vec(), Reason::Truncated);
    check(Tar::new().pax(&[("path", b"b")]).cut(), Reason::Truncated);
    check(
        Tar::new().entry("a", b'0', "", b"", |h| h[124..136].fill(0xff)).end(),
        Reason::Number("size".into()),
    );
    check(
        Tar::new().entry("a", b'0', "", b"", |h| h[108..116].copy_from_slice(b"00000x0\0")).end(),
        Reason::Number("uid".into()),
    );
    check(Tar::new().pax(&[("uid", b"4294967295")]).file("a", "").end(), Reason::Number("uid".into()));
    check(Tar::new().entry("a", b'x', "", b"99 path=b\n", |_| {}).file("a", "").end(), Reason::Pax);
    check(
        Tar::new().entry("a", b'3', "", b"", |h| h[329..337].copy_from_slice(b"7777777\0")).end(),
        Reason::Number("devmajor".into()),
    );
    check(Tar::new().entry("a", b'Z', "", b"", |_| {}).end(), Reason::Type('Z'));
    check(Tar::new().entry("a", b'S', "", b"", |_| {}).end(), Reason::Sparse);
    check(Tar::new().pax(&[("GNU.sparse.major", b"1")]).file("a", "").end(), Reason::Sparse);
}

#[test]
fn attributes_that_are_too_much_or_steer_overlayfs_are_refused() {
    let xattr = |name: &str, value: &[u8]| {
        Tar::new().pax(&[(&format!("SCHILY.xattr.{name}"), value)]).file("a", "").end()
    };
    for archive in [
        xattr("trusted.overlay.redirect", b"/etc"),
        xattr("trusted.overlay.opaque", b"y"),
        xattr(&format!("user.{}", "n".repeat(251)), b"x"),
        xattr("user.a", &vec![b'x'; 65_536]),
        xattr("", b"x"),
    ] {
        assert!(matches!(refused(&archive, Limits::default()), Ok(Reason::Xattr { .. })));
    }
    let many: Vec<_> = (0..4).map(|i| (format!("SCHILY.xattr.user.{i}"), vec![b'x'; 65_000])).collect();
    let many: Vec<_> = many.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    assert!(matches!(
        refused(&Tar::new().pax(&many).file("a", "").end(), Limits::default()),
        Ok(Reason::TooMuch { .. })
    ));
}

/// As Go's archive/tar takes it, and so every program that runs containers; `umoci insert` writes layers that end behind their data.
#[test]
fn an_archive_may_end_where_nothing_is_missing() {
    let whole = Tar::new().file("a", "x").file("b", vec![1; 700]).end();
    let listed = |archive: &[u8]| {
        let dir = tempfile::tempdir().expect("a directory");
        layer_listing(archive, dir.path(), Limits::default()).map(|lines| format!("{lines:?}"))
    };
    let expected = listed(&whole).expect("sound");
    // Header, block of data, header, 700 bytes of data.
    let data_ends = 1024 + 512 + 700;
    for end in [data_ends, data_ends + 1, 1024 + 512 + 1023, 1024 + 512 + 1024, 1024 + 512 + 1024 + 512] {
        assert_eq!(listed(&whole[..end]).expect("taken"), expected, "{end}");
    }
    for end in [data_ends - 1, 1024 + 512, 1024 + 511] {
        check(whole[..end].to_vec(), Reason::Truncated);
    }
    // What belongs to a header that is missing is no entry, and says so.
    let records = pax_records(&[("path", b"b")]);
    let pax = Tar::new().pax(&[("path", b"b")]).cut();
    check(pax[..512 + records.len()].to_vec(), Reason::Truncated);
}

#[test]
fn bombs_end_at_the_limit_and_leave_nothing() {
    let limits = Limits { bytes: 1 << 20, entries: 100, metadata_bytes: 10_000 };
    let limited = |archive: &[u8], expected: u64| match refused(archive, limits) {
        Ok(Reason::TooMuch { limit, .. }) => assert_eq!(limit, expected),
        other => panic!("{other:?}"),
    };
    limited(&Tar::new().file("a", vec![0; 2 << 20]).end(), 1 << 20);
    // A size that is only claimed costs nothing: the archive ends long before.
    let claimed =
        Tar::new().entry("a", b'0', "", b"", |h| h[124..136].copy_from_slice(b"77777777777\0")).cut();
    assert_eq!(refused(&claimed, limits), Ok(Reason::Truncated));
    let many = (0..101).fold(Tar::new(), |tar, i| tar.file(&format!("f{i}"), ""));
    limited(&many.end(), 100);
    // Directories that are only implied count as well.
    limited(
        &Tar::new().dir(&"d/".repeat(49)).file(&format!("{}f", "e/".repeat(49)), "").file("x/y/z", "").end(),
        100,
    );
    let names =
        (0..60).fold(Tar::new(), |tar, i| tar.pax(&[("path", format!("{i:0250}").as_bytes())]).file("a", ""));
    limited(&names.end(), 10_000);
    let header =
        Tar::new().entry("x", b'x', "", b"", |h| h[124..136].copy_from_slice(b"00100000000\0")).end();
    limited(&header, 1 << 20);
}

#[test]
fn t14_holes_count_as_if_they_were_there() {
    // A file of 2 TiB, and one that just does not fit any more, in an archive of a few hundred bytes.
    let limits = Limits { bytes: 1 << 20, ..Limits::default() };
    for size in ["2199023255552", "1048576"] {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")];
        let archive = Tar::new().pax(&records).file("a", "").end();
        assert_eq!(
            refused(&archive, limits),
            Ok(Reason::TooMuch { what: "bytes in the archive".into(), limit: 1 << 20 }),
            "{size}"
        );
    }
    let halves = (0..2).fold(Tar::new(), |tar, i| {
        let records: [(&str, &[u8]); 3] =
            [("GNU.sparse.size", b"600000"), ("GNU.sparse.numblocks", b"0"), ("GNU.sparse.map", b"")];
        tar.pax(&records).file(&i.to_string(), "")
    });
    assert!(matches!(refused(&halves.end(), limits), Ok(Reason::TooMuch { limit: 1_048_576, .. })));
}

#[test]
fn sparse_files_whose_map_is_not_plain_are_refused() {
    let sparse = |records: &[(&str, &[u8])], data: &[u8]| Tar::new().pax(records).file("a", data).end();
    let map = |map: &'static [u8], count: &'static [u8]| -> [(&'static str, &'static [u8]); 3] {
        [("GNU.sparse.size", b"100"), ("GNU.sparse.numblocks", count), ("GNU.sparse.map", map)]
    };
    check(sparse(&map(b"0,4", b"1"), b"12345"), Reason::Sparse);
    check(sparse(&map(b"98,4", b"1"), b"1234"), Reason::Sparse);
    check(sparse(&map(b"10,2,5,2", b"2"), b"1234"), Reason::Sparse);
    check(sparse(&map(b"0,4", b"2"), b"1234"), Reason::Sparse);
    let text: [(&str, &[u8]); 3] =
        [("GNU.sparse.major", b"1"), ("GNU.sparse.minor", b"0"), ("GNU.sparse.realsize", b"100")];
    check(sparse(&text, b"1\n0\n4\n"), Reason::Sparse);
    check(Tar::new().pax(&map(b"", b"0")).symlink("s", "t").end(), Reason::Sparse);
    // More blocks of the map are announced than there are.
    let cut = Tar::new().entry("a", b'S', "", b"", |h| {
        h[257..265].copy_from_slice(b"ustar  \0");
        h[482] = 1;
    });
    check(cut.cut(), Reason::Truncated);
    check(Tar::new().pax(&[("SCHILY.realsize", b"9")]).file("a", "").end(), Reason::Sparse);
    let global = Tar::new().entry("g", b'g', "", &pax_records(&[("GNU.sparse.major", b"1")]), |_| {});
    check(global.end(), Reason::GlobalPax("GNU.sparse.major".to_owned()));
}

#[test]
fn a_file_with_a_slash_at_the_end_of_its_name_is_refused_where_readers_disagree() {
    check(Tar::new().file("dir/", "").end(), Reason::FileWithSlash);
    // Before ustar there was no type for directories.
    let dir = tempfile::tempdir().expect("a directory");
    let old = Tar::new().entry("dir/", 0, "", b"", |_| {}).end();
    let lines = layer_listing(old.as_slice(), dir.path(), Limits::default()).expect("sound");
    assert_eq!(lines[1].kind, "dir");
}

#[test]
fn odd_but_sound_archives_are_taken() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    for archive in [
        Vec::new(),
        Tar::new().end(),
        Tar::new().cut(),
        Tar::new().file("a", "x").cut(),
        Tar::new().dir("/").file("//a///b", "x").file("./a/./c", "y").end(),
        Tar::new().file("a", "x").file("a", "y").end(),
        Tar::new().dir("a").file("a/b", "x").file("a", "y").end(),
        Tar::new().file("a", "x").dir("a").end(),
        Tar::new().file("a", "x").hard_link("b", "a").hard_link("b", "a").hard_link("a", "b").end(),
        Tar::new().entry("dir/", 0, "", b"", |_| {}).end(),
        Tar::new().raw(&Tar::new().file("a", "x").end()).raw(b"what follows the end is not looked at").cut(),
        Tar::new().pax(&[("SCHILY.xattr.user.a", b""), ("comment", "ä".as_bytes())]).file("a", "").end(),
    ] {
        store.import_layer(archive.as_slice(), Limits::default()).expect("sound");
    }
}

/// Numbers that look random and are the same every time.
fn noise(seed: u64) -> impl Iterator<Item = usize> {
    let mut state = seed | 1;
    std::iter::repeat_with(move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 8) as usize
    })
}

#[test]
fn archives_spoiled_at_random_are_taken_or_refused_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let sound = Tar::new()
        .dir("./")
        .pax(&[("path", b"a/long/name"), ("SCHILY.xattr.user.a", b"b"), ("mtime", b"1.5")])
        .file("x", "data")
        .entry("L", b'L', "", b"another/long/name\0", |_| {})
        .symlink("s", "target")
        .hard_link("h", "a/long/name")
        .file("a/.wh.b", "")
        .end();
    let mut numbers = noise(42);
    let mut next = |below: usize| numbers.next().expect("endless") % below;
    let (mut taken, mut refused) = (0, 0);
    for _ in 0..3000 {
        let mut spoiled = sound.clone();
        for _ in 0..=next(3) {
            let at = next(spoiled.len());
            spoiled[at] = next(256) as u8;
        }
        // Checksums are mended, or hardly anything would get past them.
        for header in spoiled.chunks_exact_mut(512).filter(|block| &block[257..262] == b"ustar") {
            header[148..156].fill(b' ');
            let sum: u32 = header.iter().map(|b| u32::from(*b)).sum();
            header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
        match layer_listing(spoiled.as_slice(), dir.path(), Limits { bytes: 1 << 20, ..Limits::default() }) {
            Ok(_) => taken += 1,
            Err(ListError::Tar(TarError::Refused(_))) => refused += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(taken > 100 && refused > 100, "{taken} taken, {refused} refused: this tests nothing");
}

#[test]
fn blobs_spoiled_at_random_are_listed_or_called_damaged_and_nothing_else() {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), common::confined()).expect("a store");
    let tar =
        Tar::new().pax(&[("SCHILY.xattr.user.a", b"b")]).file("d/f", vec![1; 5000]).symlink("s", "t").end();
    let layer = store.import_layer(tar.as_slice(), Limits::default()).expect("sound");
    let sound = std::fs::read(&layer.path).expect("read");
    // The last block holds the leaves, the one before it the inodes; what is before that is data.
    let inodes = sound.len() - 2 * 4096;
    let mut numbers = noise(7);
    let mut next = |below: usize| numbers.next().expect("endless") % below;
    let path = dir.path().join("tmp/spoiled");
    let (mut listed, mut damaged) = (0, 0);
    for _ in 0..3000 {
        let mut spoiled = sound.clone();
        for _ in 0..=next(3) {
            spoiled[inodes + next(1024)] = next(256) as u8;
        }
        std::fs::write(&path, &spoiled).expect("written");
        match visit(&path) {
            Ok(()) => listed += 1,
            Err(ReadError::Damaged(_)) => damaged += 1,
            Err(other) => panic!("{other:?}"),
        }
    }
    assert!(listed > 100 && damaged > 100, "{listed} listed, {damaged} damaged: this tests nothing");
}

/// Reads everything that the root leads to in two steps.
fn visit(path: &std::path::Path) -> Result<(), ReadError> {
    let image = Image::open(std::fs::File::open(path)?)?;
    for (_, nid) in image.entries(&image.root()?)? {
        let inode = image.inode(nid)?;
        match inode.file_type() {
            FileType::Directory => {
                for (_, nid) in image.entries(&inode)? {
                    let inode = image.inode(nid)?;
                    image.read(&inode, 0, &mut [0; 100])?;
                    image.read(&inode, inode.size / 2, &mut [0; 100])?;
                }
            }
            FileType::Symlink => drop(image.link_target(&inode)?),
            _ => drop(image.read(&inode, 0, &mut [0; 100])?),
        }
    }
    Ok(())
}
