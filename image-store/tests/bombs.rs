//! T14: archives that are small and would be large. Each ends at a limit, whatever the archive says, and the store is as before.
//!
//! What is read and written is bounded, not the time: both are counted.

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use bennu_image_store::tar::{Limits, Reason};
use bennu_image_store::{Confinement, ImportError, Store, sha256};
use common::layout::{pull, write_layout_of};
use common::registry::gzip;
use common::{Tar, pax_records};

/// The limits of most bombs: a hundredth or less of what a pull allows, so that reaching them takes little.
const LIMITS: Limits = Limits { bytes: 4 << 20, entries: 3000, metadata_bytes: 200_000 };
/// What may be read or written beyond the limit on bytes: buffers, and the blocks around the data.
const SLACK: u64 = 1 << 20;

/// Counts what is read of an archive.
struct Counting<R>(R, u64);

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.0.read(buf)?;
        self.1 += read as u64;
        Ok(read)
    }
}

/// Bytes that this process has written so far, to files and everything else (Linux, `proc_pid_io(5)`, `wchar`).
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").expect("read");
    let line = io.lines().find_map(|line| line.strip_prefix("wchar: "));
    line.expect("it is there").parse().expect("a number")
}

/// Every file below a directory, with its length, and the blocks that all take.
fn inventory(root: &Path) -> (BTreeMap<String, u64>, u64) {
    let (mut files, mut blocks) = (BTreeMap::new(), 0);
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(&directory).expect("listed") {
            let path = entry.expect("an entry").path();
            let meta = fs::symlink_metadata(&path).expect("there");
            if meta.is_dir() {
                waiting.push(path);
            } else {
                blocks += meta.blocks();
                files.insert(path.display().to_string(), meta.len());
            }
        }
    }
    (files, blocks)
}

/// An archive that begins with this and never ends.
type Endless = Box<dyn Read>;

fn once(tar: Tar) -> Endless {
    Box::new(io::Cursor::new(tar.end()))
}

/// `first`, and then again and again what `next` makes of a number.
fn repeated(first: Tar, next: impl Fn(usize) -> Tar + 'static) -> Endless {
    struct Repeated<F>(io::Cursor<Vec<u8>>, usize, F);
    impl<F: Fn(usize) -> Tar> Read for Repeated<F> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            loop {
                match self.0.read(buf)? {
                    0 => self.0 = io::Cursor::new((self.2)(self.1).cut()),
                    read => return Ok(read),
                }
                self.1 += 1;
            }
        }
    }
    Box::new(Repeated(io::Cursor::new(first.cut()), 0, next))
}

/// An entry whose header claims so many bytes, in base 256 (GNU tar manual, "Extensions to the tar format").
fn claims(kind: u8, bytes: u64) -> Tar {
    Tar::new().entry("claim", kind, "", b"", |header| {
        header[124] = 0x80;
        header[125..128].fill(0);
        header[128..136].copy_from_slice(&bytes.to_be_bytes());
    })
}

fn zeros() -> Endless {
    Box::new(io::repeat(0))
}

fn sparse(records: &[(&str, &str)], data: &str) -> Endless {
    let records: Vec<_> = records.iter().map(|(key, value)| (*key, value.as_bytes())).collect();
    once(Tar::new().pax(&records).file("sparse", data))
}

/// GNU's own sparse header, with room for more in blocks behind it that are empty and say that others follow.
fn chained_map() -> Endless {
    let header = Tar::new().entry("chain", b'S', "", b"", |header| {
        header[257..265].copy_from_slice(b"ustar  \0");
        header[482] = 1;
        header[483..495].copy_from_slice(b"00000000000\0");
    });
    repeated(header, |_| {
        let mut block = [0; 512];
        block[504] = 1;
        Tar::new().raw(&block)
    })
}

fn inflated(bytes: impl Read + 'static) -> Endless {
    Box::new(flate2::bufread::MultiGzDecoder::new(io::BufReader::new(bytes)))
}

/// What bounds each bomb.
#[derive(Debug, PartialEq)]
enum Ends {
    /// The limit on bytes.
    Bytes,
    /// The limit on entries.
    Entries,
    /// The limit on names and attributes.
    Metadata,
    /// A bound of its own.
    Other,
}

fn bombs() -> Vec<(&'static str, Endless, Ends)> {
    let long = |i: usize| format!("{i:0200}/{i:0250}/{}", "d".repeat(200));
    let xattr = |i: usize, len: usize| (format!("SCHILY.xattr.user.{i}"), vec![b'x'; len]);
    let many_xattrs: Vec<_> = (0..4).map(|i| xattr(i, 60_000)).collect();
    let many_xattrs: Vec<_> =
        many_xattrs.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
    let parts = (0..1_100_000).map(|i| format!("{i}\n0\n")).collect::<String>();
    let text = format!("1100000\n{parts}");
    vec![
        (
            "a file of a tebibyte",
            Box::new(io::Cursor::new(claims(b'0', 1 << 40).cut()).chain(zeros())),
            Ends::Bytes,
        ),
        (
            "a file of 16 exbibytes",
            Box::new(io::Cursor::new(claims(b'0', u64::MAX >> 1).cut()).chain(zeros())),
            Ends::Bytes,
        ),
        (
            "zeros behind the end",
            Box::new(io::Cursor::new(Tar::new().file("a", "").end()).chain(zeros())),
            Ends::Bytes,
        ),
        (
            "a hole of 8 tebibytes",
            sparse(
                &[
                    ("GNU.sparse.size", "8796093022208"),
                    ("GNU.sparse.numblocks", "0"),
                    ("GNU.sparse.map", ""),
                ],
                "",
            ),
            Ends::Bytes,
        ),
        (
            "a hole of 8 exbibytes behind a byte",
            sparse(
                &[
                    ("GNU.sparse.size", "9223372036854775807"),
                    ("GNU.sparse.numblocks", "1"),
                    ("GNU.sparse.map", "0,1"),
                ],
                "x",
            ),
            Ends::Bytes,
        ),
        (
            "many holes of a mebibyte",
            repeated(Tar::new(), |i| {
                let hole: [(&str, &[u8]); 3] = [
                    ("GNU.sparse.size", b"1048576"),
                    ("GNU.sparse.numblocks", b"0"),
                    ("GNU.sparse.map", b""),
                ];
                Tar::new().pax(&hole).file(&i.to_string(), "")
            }),
            Ends::Bytes,
        ),
        (
            "a map of more than a million parts",
            sparse(
                &[("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "9999999")],
                &text,
            ),
            Ends::Other,
        ),
        ("a map that goes on for ever", chained_map(), Ends::Bytes),
        ("entries without end", repeated(Tar::new(), |i| Tar::new().file(&i.to_string(), "")), Ends::Entries),
        ("one entry again and again", repeated(Tar::new(), |_| Tar::new().file("same", "")), Ends::Entries),
        (
            "directories that are only implied",
            repeated(Tar::new(), |i| {
                Tar::new()
                    .file(&format!("{i}/{}", "d/".repeat(45)), "")
                    .dir(&format!("{i}/{}x", "e/".repeat(40)))
            }),
            Ends::Other,
        ),
        (
            "paths of 4 KiB, 200 deep",
            repeated(Tar::new(), |i| {
                let path = format!("{i}/{}", format!("{}/", "d".repeat(19)).repeat(200));
                Tar::new().pax(&[("path", path.as_bytes())]).dir("short")
            }),
            Ends::Entries,
        ),
        (
            "long names",
            repeated(Tar::new(), move |i| Tar::new().pax(&[("path", long(i).as_bytes())]).file("a", "")),
            Ends::Metadata,
        ),
        (
            "long targets",
            repeated(Tar::new(), |i| {
                let target = "t".repeat(4000);
                Tar::new().pax(&[("linkpath", target.as_bytes())]).symlink(&i.to_string(), "short")
            }),
            Ends::Metadata,
        ),
        (
            "attributes of a directory that comes again and again",
            repeated(Tar::new(), |_| Tar::new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 60_000])]).dir("same")),
            Ends::Metadata,
        ),
        ("attributes of one entry", once(Tar::new().pax(&many_xattrs).file("a", "")), Ends::Other),
        (
            "an attribute of 128 KiB",
            once(Tar::new().pax(&[("SCHILY.xattr.user.a", &[b'x'; 131_072])]).file("a", "")),
            Ends::Other,
        ),
        (
            "hard links to one file",
            repeated(Tar::new().file("one", "x"), |i| Tar::new().hard_link(&format!("l{i}"), "one")),
            Ends::Entries,
        ),
        ("whiteouts", repeated(Tar::new(), |i| Tar::new().file(&format!(".wh.{i}"), "")), Ends::Entries),
        (
            "comments for all that follows",
            repeated(Tar::new(), |_| {
                Tar::new().entry("g", b'g', "", &pax_records(&[("comment", b"x")]), |_| {})
            }),
            Ends::Entries,
        ),
        (
            "a pax header of a gibibyte",
            Box::new(io::Cursor::new(claims(b'x', 1 << 30).cut()).chain(zeros())),
            Ends::Other,
        ),
        (
            "a long name of a gibibyte",
            Box::new(io::Cursor::new(claims(b'L', 1 << 30).cut()).chain(zeros())),
            Ends::Other,
        ),
        (
            "a thousand times smaller with gzip",
            inflated(io::Cursor::new(gzip(&Tar::new().file("zeros", vec![0; 64 << 20]).end()))),
            Ends::Bytes,
        ),
        (
            "a thousand times smaller with zstd",
            Box::new(zstd::stream::read::Decoder::new(io::Cursor::new(zstded(64 << 20))).expect("a decoder")),
            Ends::Bytes,
        ),
    ]
}

fn zstded(bytes: usize) -> Vec<u8> {
    zstd::encode_all(Tar::new().file("zeros", vec![0; bytes]).end().as_slice(), 1).expect("in memory")
}

#[test]
fn t14_bombs_end_at_a_limit_and_the_disk_is_as_before() {
    bombs_end_at_a_limit(Confinement::None);
}

#[test]
fn t14_bombs_end_at_a_limit_in_a_confined_process_too() {
    bombs_end_at_a_limit(common::confined());
}

fn bombs_end_at_a_limit(confinement: Confinement) {
    let dir = tempfile::tempdir().expect("a directory");
    let store = Store::open(dir.path(), confinement.clone()).expect("a store");
    let before = inventory(dir.path());
    let bombs = bombs();
    assert!(bombs.len() >= 20, "{} bombs", bombs.len());
    for (name, archive, ends) in bombs {
        let mut archive = Counting(archive, 0);
        let wrote = written();
        let error = store.import_layer(&mut archive, LIMITS).expect_err(name);
        let wrote = written() - wrote;
        let ImportError::Refused(refusal) = &error else { panic!("{name}: {error:?}") };
        let found = match &refusal.reason {
            Reason::TooMuch { limit, .. } if *limit == LIMITS.bytes => Ends::Bytes,
            Reason::TooMuch { limit, .. } if *limit == LIMITS.entries => Ends::Entries,
            Reason::TooMuch { limit, .. } if *limit == LIMITS.metadata_bytes => Ends::Metadata,
            _ => Ends::Other,
        };
        if ends != Ends::Other {
            assert_eq!(found, ends, "{name}: {refusal}");
        }
        assert!(archive.1 <= LIMITS.bytes + SLACK, "{name}: {} bytes were read", archive.1);
        // Confined processes are written to, too: each byte of the tar goes through a pipe to both of them.
        let ways = if matches!(confinement, Confinement::None) { 1 } else { 2 };
        assert!(wrote <= ways * LIMITS.bytes + SLACK, "{name}: {wrote} bytes were written");
        assert_eq!(inventory(dir.path()), before, "{name}");
    }

    // What only a pull sees.
    let hole = [("GNU.sparse.size", "8796093022208"), ("GNU.sparse.numblocks", "0"), ("GNU.sparse.map", "")];
    let mut tar = Vec::new();
    sparse(&hole, "").read_to_end(&mut tar).expect("in memory");
    let zipped = gzip(&tar);
    let long_window = |tar: &[u8]| {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).expect("an encoder");
        encoder.window_log(31).and_then(|()| encoder.write_all(tar)).expect("in memory");
        encoder.finish().expect("in memory")
    };
    let empty = gzip(b"");
    let layer = "application/vnd.oci.image.layer.v1.tar";
    for (name, bytes, compression) in [
        ("a hole in gzip", zipped.clone(), "+gzip"),
        ("gzip in gzip", gzip(&gzip(&zipped)), "+gzip"),
        ("a hundred thousand empty members", [empty.repeat(100_000), zipped.clone()].concat(), "+gzip"),
        ("bytes behind gzip", [zipped, vec![1; 100]].concat(), "+gzip"),
        ("a hole in zstd", zstd::encode_all(tar.as_slice(), 1).expect("in memory"), "+zstd"),
        ("a window of 2 GiB", long_window(&tar), "+zstd"),
        (
            "frames that are passed over",
            [b"\x50\x2a\x4d\x18\0\0\0\0".repeat(100_000), long_window(&tar)].concat(),
            "+zstd",
        ),
    ] {
        let layout = dir.path().join("layout");
        let size = bytes.len() as u64;
        write_layout_of(&layout, &[(sha256::digest(&tar), bytes)], &format!("{layer}{compression}"));
        let wrote = written();
        let error = pull(&store, &layout).expect_err(name);
        let wrote = written() - wrote;
        assert!(error.is_refusal(), "{name}: {error:?}");
        assert!(wrote <= size + SLACK, "{name}: {wrote} bytes were written");
        fs::remove_dir_all(&layout).expect("removed");
        assert_eq!(inventory(dir.path()), before, "{name}");
    }
}
