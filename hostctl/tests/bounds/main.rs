//! What `hostctl check` costs at worst. Times are for `cargo xtask bench manifest`; here is what no slow machine changes:
//! memory, and how the work grows with the document.

mod documents;

use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::resource::{Usage, UsageWho, getrusage};
use nix::sys::time::TimeValLike;

/// The most that a document may take in memory, in KiB. Nearly all of it is the parsed tree, which is bounded by what the reader
/// counts before it makes one. With the 6 MiB that the released program takes to start it stays below 64 MiB; without optimisation
/// a program takes four times as much to start, which says nothing of documents.
const MEMORY: i64 = 56 << 10;
/// The largest document.
const LARGE: usize = 1 << 20;
/// A smaller one, to compare with.
const SMALL: usize = 1 << 18;
/// For four times the bytes: linear work is 4, that of a square 16.
const GROWTH: u32 = 8;
/// Starting the program, and what a busy machine adds.
const SLACK: Duration = Duration::from_millis(50);

fn children() -> Usage {
    getrusage(UsageWho::RUSAGE_CHILDREN).expect("it can be asked")
}

fn processor() -> Duration {
    let usage = children();
    Duration::from_micros((usage.user_time() + usage.system_time()).num_microseconds().unsigned_abs())
}

/// Checks `text`, and says how much time of a processor that took.
fn check(text: &str, code: i32) -> Duration {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let file = dir.path().join("host.toml");
    std::fs::write(&file, text).expect("it can be written");
    let before = processor();
    let status = Command::new(env!("CARGO_BIN_EXE_hostctl"))
        .arg("check")
        .arg(&file)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .expect("hostctl runs");
    assert_eq!(status.code(), Some(code));
    processor() - before
}

// One test, because the memory of all children is asked for together.
#[test]
fn the_worst_documents_take_bounded_memory_and_work_that_grows_with_their_size_alone() {
    check("", 2);
    let idle = children().max_rss();
    check(&documents::containers(1000), 0);
    let small = documents::hostile(SMALL);
    let mut wrong = Vec::new();
    for ((name, large), (_, small)) in documents::hostile(LARGE).iter().zip(&small) {
        assert!((LARGE - 64..=LARGE).contains(&large.len()), "{name}: {} bytes", large.len());
        // The least of three, for other programs run as well.
        let least = |text: &str| (0..3).map(|_| check(text, 2)).min().expect("three");
        let (took, before) = (least(large), least(small));
        assert!(
            took <= before * GROWTH + SLACK,
            "{name}: {before:?} for {SMALL} bytes, {took:?} for {LARGE}"
        );
        // The most of any of them so far.
        let peak = children().max_rss() - idle;
        if peak > MEMORY {
            wrong.push(format!("{name}: {peak} KiB"));
        }
        println!("{name}: {before:?}, {took:?}, at most {peak} KiB more than to start so far");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
