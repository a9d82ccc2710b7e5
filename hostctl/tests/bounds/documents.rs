//! Documents that are measured: a large one as people write it, and the worst of one size that we could think of.
//!
//! `cargo xtask bench manifest` reads this file too, so that its figures and the test are about the same documents.

use std::fmt::Write as _;

const HEADER: &str = "schema = 1\nname = \"bench\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2100-01-01T00:00:00Z\n";

/// A manifest has at most 256.
const VOLUMES: usize = 200;

fn image() -> String {
    format!("registry.example/team/app:1@sha256:{}", "ab".repeat(32))
}

/// A valid manifest with this many containers, each with what a container mostly has.
pub(crate) fn containers(count: usize) -> String {
    let mut text = format!("{HEADER}[network.front]\n");
    let image = image();
    for n in 0..VOLUMES {
        writeln!(text, "[volume.data-{n}]\nlife = \"keep\"").expect("memory can be written");
    }
    for n in 0..count {
        let volume = n % VOLUMES;
        write!(
            text,
            "\n# The service number {n}.\n[container.app-{n}]\nimage = \"{image}\"\n\
             command = [\"app\", \"--number\", \"{n}\"]\nenvironment = {{ LEVEL = \"info\", NUMBER = \"{n}\" }}\n\
             networks = [\"front\"]\nvolumes = [\"data-{volume}:/data\"]\nports = [\"{}:80\"]\ntmpfs = [\"/run\"]\n",
            10_000 + n
        )
        .expect("memory can be written");
        if n > 0 {
            writeln!(text, "depends-on = [\"app-{}\"]", n - 1).expect("memory can be written");
        }
    }
    text
}

/// Documents of `size` bytes that were made to cost much, with their names.
pub(crate) fn hostile(size: usize) -> Vec<(&'static str, String)> {
    let container = format!("{HEADER}[container.a]\nimage = \"{}\"\n", image());
    // As many pieces as have room, and what ends them.
    let many = |begin: &str, end: &str, piece: &dyn Fn(usize) -> String| {
        let mut text = begin.to_owned();
        for n in 0.. {
            let piece = piece(n);
            if text.len() + piece.len() + end.len() > size {
                break;
            }
            text.push_str(&piece);
        }
        text + end
    };
    let fixed = |piece: &'static str| move |_: usize| piece.to_owned();
    vec![
        ("nested arrays", many("a = ", "", &fixed("["))),
        ("nested inline tables", many("a = ", "", &fixed("{a="))),
        ("one dotted key", many("", "a = 1\n", &fixed("a."))),
        ("one long key", many("", " = 1\n", &fixed("k"))),
        ("one long string of escapes", many("name = \"", "\"\n", &fixed("\\u0041"))),
        ("many keys", many(HEADER, "", &|n| format!("k{n}=1\n"))),
        ("many dotted keys", many(HEADER, "", &|n| format!("a.b{n}.c=1\n"))),
        ("many tables", many(HEADER, "", &|n| format!("[t{n}]\n"))),
        ("many arrays of tables", many(HEADER, "", &fixed("[[a]]\n"))),
        ("one key again and again", many(HEADER, "", &fixed("a=1\n"))),
        ("a large array", many(&format!("{container}command = ["), "]\n", &fixed("\"\","))),
        ("a large array of small tables", many(&format!("{container}secrets = ["), "]\n", &fixed("{},"))),
        ("numbers that are none", many(&format!("{HEADER}a = ["), "]\n", &fixed("1e999,"))),
        ("many faults", many(&container, "", &|n| format!("x{n}=\"\\u202e\"\n"))),
        ("near misses of keys", many(&container, "", &|n| format!("comman{n}=1\n"))),
        (
            "near misses of names",
            many(HEADER, "", &|n| {
                format!("[container.some-service-{n}]\ndepends-on=[\"some-servicf-{n}\"]\n")
            }),
        ),
        (
            "near misses of volumes",
            many(HEADER, "", &|n| {
                format!("[volume.some-volume-{n}]\n[container.c{n}]\nvolumes=[\"some-volumf-{n}:/a\"]\n")
            }),
        ),
        (
            "the same port everywhere",
            many(HEADER, "", &|n| {
                format!("[container.c{n}]\nimage=\"r.e/a:1\"\nports=[\"80:80\",\"80:80/udp\"]\n")
            }),
        ),
        ("line breaks", many(HEADER, "x = 1\n", &fixed("\n"))),
        ("comments", many(HEADER, "x = 1\n", &fixed("#\n"))),
    ]
}
