//! F2, F3 and F4: a scenario is killed at each of its system calls on the store, and each of them fails.
//!
//! `BENNU_CRASH_CALLS` says how many calls of each scenario are tried for each fault, spread evenly (60 without it; 0 for all).

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use crash_tests::check::{check, expected};
use crash_tests::scenario::{MARK, SCENARIOS, Scenario, mark, marked};
use crash_tests::trace::{Fault, Run, run};
use nix::errno::Errno;

/// Scenarios that are followed side by side.
const SIDE_BY_SIDE: usize = 2;
/// The exit code of a Rust program that panicked.
const PANICKED: i32 = 101;
const ERRORS: [Errno; 5] = [Errno::EIO, Errno::ENOSPC, Errno::EROFS, Errno::EMFILE, Errno::ENOMEM];
/// Calls after which what was written before is durable, or should be.
const FLUSHES: [&str; 3] = ["fsync", "fdatasync", "syncfs"];

/// A place in memory, for neither a kill nor a failed call has anything to do with the disk.
fn place() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_owned() } else { std::env::temp_dir() };
    tempfile::tempdir_in(base).expect("a directory")
}

/// Runs a scenario with a fault; gives the run, how many steps were acknowledged, and where the store is.
fn attempt(place: &Path, scenario: &Scenario, fault: Option<(usize, Fault)>) -> (Run, usize, PathBuf) {
    let (store, marks, said) = (place.join("store"), place.join("marks"), place.join("said"));
    let _ = fs::remove_dir_all(&store);
    fs::write(&marks, mark(0)).expect("written");
    let program = Path::new(env!("CARGO_BIN_EXE_crash-tests"));
    let command = [program, Path::new(scenario.name), &store, &marks, Path::new("0")];
    let run = run(&command, &store, &said, fault).expect("followed");
    let bytes = fs::read(&marks).expect("read");
    assert_eq!(bytes.len() as u64, MARK);
    (run, marked(&bytes), store)
}

/// What is wrong after a fault at one call.
fn faults(place: &Path, scenario: &Scenario, number: usize, fault: Fault) -> Vec<String> {
    let (run, done, store) = attempt(place, scenario, Some((number, fault)));
    let mut faults = Vec::new();
    let hit = run.calls.iter().position(|call| call.failed);
    match (fault, run.code) {
        (Fault::Kill, None) => {}
        // With other turns of the threads there may be fewer calls.
        (_, Some(0)) if hit.is_none() && done == scenario.steps.len() => {}
        // An error that changes nothing, as of a blob that is looked for and fetched.
        (Fault::Error(_), Some(0)) if done == scenario.steps.len() => {}
        (Fault::Error(_), Some(1)) if done < scenario.steps.len() => {}
        (_, Some(PANICKED)) => faults.push("it panicked".to_owned()),
        (_, code) => faults.push(format!("it ended with {code:?} after {done} steps")),
    }
    if let (Some(at), Fault::Error(_)) = (hit, fault) {
        let failed = &run.calls[at];
        if FLUSHES.contains(&failed.name) {
            if run.code == Some(0) {
                faults.push("a failed flush went by unnoticed".to_owned());
            }
            // What was not flushed counts as lost, so nothing but its removal may follow.
            let later = run.calls[at + 1..].iter().filter(|call| call.path == failed.path);
            let used: Vec<_> = later.filter(|call| !call.name.starts_with("unlink")).collect();
            if store.join(&failed.path).is_file() || failed.path.starts_with("tmp") && !used.is_empty() {
                faults.push(format!("a file whose flush failed is used: {used:?}"));
            }
        }
    }
    faults.extend(check(&store, &expected(scenario, done)));
    faults.iter_mut().for_each(|text| {
        let call = hit.map(|at| &run.calls[at]);
        *text = format!("{}, call {number} {call:?}, {fault:?}: {text}", scenario.name);
    });
    faults
}

/// As many of these as are to be tried.
fn spread<T>(mut all: Vec<T>) -> Vec<T> {
    let most = std::env::var("BENNU_CRASH_CALLS").map_or(60, |value| value.parse().expect("a number"));
    let count = all.len();
    if most > 0 && most < count {
        let mut at = 0..;
        // One of each row of count / most.
        all.retain(|_| at.next().is_some_and(|i| i * most / count != (i + 1) * most / count));
    }
    all
}

/// Tries all that `of` makes of the number of a call and what it is.
fn try_all(of: impl Fn(usize, &str) -> Vec<Fault> + Sync) -> usize {
    let mut tries: Vec<(&Scenario, usize, Fault)> = Vec::new();
    for scenario in SCENARIOS {
        let place = place();
        let (plain, done, _) = attempt(place.path(), scenario, None);
        assert_eq!((plain.code, done), (Some(0), scenario.steps.len()), "{} without a fault", scenario.name);
        let before = tries.len();
        let calls = plain.calls.iter().enumerate().map(|(number, call)| (number, of(number, call.name)));
        let calls = calls.filter(|(_, faults)| !faults.is_empty()).collect();
        for (number, faults) in spread(calls) {
            tries.extend(faults.into_iter().map(|fault| (scenario, number, fault)));
        }
        println!("{}: {} calls, {} tries", scenario.name, plain.calls.len(), tries.len() - before);
    }
    let (next, bad) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|scope| {
        for _ in 0..SIDE_BY_SIDE {
            scope.spawn(|| {
                let place = place();
                while let Some((scenario, number, fault)) = tries.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let found = faults(place.path(), scenario, *number, *fault);
                    bad.lock().expect("no panic").extend(found);
                }
            });
        }
    });
    let bad = bad.into_inner().expect("no panic");
    println!("{} tries, {} faults", tries.len(), bad.len());
    assert!(bad.is_empty(), "{:#?}", &bad[..bad.len().min(10)]);
    tries.len()
}

#[test]
fn f2_a_kill_at_any_system_call_loses_nothing_that_was_acknowledged() {
    assert!(try_all(|_, _| vec![Fault::Kill]) >= 100, "too few tries to say anything");
}

#[test]
fn f3_a_system_call_that_fails_is_reported_and_leaves_a_store_that_can_be_used() {
    let all = std::env::var_os("BENNU_CRASH_CALLS").is_some();
    let tried = try_all(|number, _| {
        let errors: &[Errno] = if all { &ERRORS } else { &ERRORS[number % ERRORS.len()..][..1] };
        errors.iter().map(|error| Fault::Error(*error)).collect()
    });
    assert!(tried >= 100, "too few tries to say anything");
}

#[test]
fn f4_what_a_failed_flush_was_about_is_thrown_away() {
    let flush = |_: usize, name: &str| match FLUSHES.contains(&name) {
        true => vec![Fault::Error(Errno::EIO)],
        false => Vec::new(),
    };
    assert!(try_all(flush) >= 100, "too few tries to say anything");
}

/// What a power cut brings back may be what it likes of the file system, so it is the calls that are looked at.
#[test]
fn f1_a_record_that_was_removed_is_gone_for_good_before_any_blob_is() {
    let mut removed = 0;
    for scenario in SCENARIOS {
        let (run, _, _) = attempt(place().path(), scenario, None);
        let mut back = BTreeSet::new();
        for (number, call) in run.calls.iter().enumerate() {
            let parent = call.path.parent().unwrap_or(Path::new(""));
            match call.name {
                name if FLUSHES.contains(&name) => drop(back.remove(&call.path)),
                "unlink" | "unlinkat" if parent == Path::new("blobs/sha256") => {
                    assert!(
                        back.is_empty(),
                        "{}, call {number}, {call:?}: {back:?} may come back",
                        scenario.name
                    );
                    removed += 1;
                }
                "unlink" | "unlinkat" if parent.ends_with("sha256") => drop(back.insert(parent.to_owned())),
                _ => {}
            }
        }
    }
    assert!(removed >= 5, "only {removed} blobs were removed");
}

/// The harness itself: a fault at a call is seen, and a store that lost what it acknowledged is found out.
#[test]
fn a_run_is_stopped_at_the_call_that_was_chosen() {
    let place = place();
    let scenario = &SCENARIOS[0];
    let (plain, _, _) = attempt(place.path(), scenario, None);
    assert!(plain.calls.iter().any(|call| FLUSHES.contains(&call.name)), "{:?}", plain.calls);
    let rename = plain.calls.iter().position(|call| call.name.starts_with("rename")).expect("there is one");
    let (killed, done, store) = attempt(place.path(), scenario, Some((rename, Fault::Kill)));
    assert_eq!((killed.code, done, killed.calls.len()), (None, 0, rename + 1));
    assert!(!store.join("format.json").exists(), "the first rename of a store is that of its format");
    let (failed, done, _) = attempt(place.path(), scenario, Some((rename, Fault::Error(Errno::ENOSPC))));
    assert_eq!((failed.code, done), (Some(1), 0));
    // A flush that is not done and says that it was, as one whose error nobody looks at.
    let flush = plain.calls.iter().position(|call| FLUSHES.contains(&call.name)).expect("there is one");
    let unnoticed = faults(place.path(), scenario, flush, Fault::Error(Errno::UnknownErrno));
    assert!(unnoticed.iter().any(|fault| fault.contains("unnoticed")), "{unnoticed:?}");
    let (_, done, store) = attempt(place.path(), scenario, None);
    for record in fs::read_dir(store.join("images/sha256")).expect("listed") {
        File::create(record.expect("an entry").path()).expect("emptied");
    }
    assert!(!check(&store, &expected(scenario, done)).is_empty(), "nobody noticed what was lost");
}
