//! What stands between a stranger's bytes and root: every crate that verifying a manifest is linked with.

use std::collections::BTreeSet;
use std::process::Command;

/// The most crates with code of their own.
const MOST: usize = 12;

/// Crates that are listed and hold no code that runs: what they consist of instead.
const WITHOUT_CODE: [(&str, &str); 3] = [
    ("cfg-if", "one macro"),
    ("libc", "the declarations of the C library, which every program is linked with"),
    ("serde", "names for what is in serde_core, and for its derive macros"),
];

/// All crates that the library is linked with, on this machine's target. What runs in the compiler only (derive macros,
/// build scripts) is left out; their output is compiled with us, and counts as ours.
fn linked() -> BTreeSet<String> {
    let output = Command::new(env!("CARGO"))
        .args(["tree", "--locked", "--offline", "--package", "bennu-manifests"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let list = String::from_utf8(output.stdout).expect("names are text");
    let names = list.lines().filter_map(|line| line.split(' ').next());
    names.filter(|name| !name.is_empty() && *name != "bennu-manifests").map(ToOwned::to_owned).collect()
}

#[test]
fn verifying_is_linked_with_at_most_12_crates_that_hold_code() {
    let linked = linked();
    for known in ["ring", "toml_parser", "jiff"] {
        assert!(linked.contains(known), "{known} is not among {linked:?}: is the list read wrongly?");
    }
    for (name, what) in WITHOUT_CODE {
        assert!(linked.contains(name), "{name} ({what}) is not linked any more: take it out of the list");
    }
    let code: Vec<&String> =
        linked.iter().filter(|name| WITHOUT_CODE.iter().all(|(without, _)| without != name)).collect();
    assert!(code.len() <= MOST, "{} crates: {code:?}", code.len());
    // Neither a network, nor a clock or a runtime of its own.
    for unwanted in ["tokio", "reqwest", "nix", "rustix", "zbus", "serde_json", "regex"] {
        assert!(!linked.contains(unwanted), "{unwanted}");
    }
}
