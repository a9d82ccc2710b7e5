//! `SPECIFICATION.md` and the tests that it names.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("a member of the workspace")
}

/// Names of all functions that follow a `#[test]`, in every Rust file of the workspace.
fn tests() -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let mut folders: Vec<PathBuf> = vec![workspace().to_owned()];
    while let Some(folder) = folders.pop() {
        for item in fs::read_dir(&folder).expect("a folder of the workspace") {
            let path = item.expect("an entry").path();
            let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
            if path.is_dir() && name != "target" && !name.starts_with('.') {
                folders.push(path);
            } else if name.ends_with(".rs") {
                let text = fs::read_to_string(&path).expect("a Rust file");
                let mut after_attribute = false;
                for line in text.lines().map(str::trim) {
                    if matches!(line, "#[test]" | "#[tokio::test]") {
                        after_attribute = true;
                    } else if let Some(function) = line.trim_start_matches("async ").strip_prefix("fn ")
                        && after_attribute
                    {
                        names.extend(function.split('(').next().map(ToOwned::to_owned));
                        after_attribute = false;
                    }
                }
            }
        }
    }
    names
}

/// Each promise: its number, and what stands in backticks after it.
fn promises(text: &str) -> Vec<(String, Vec<String>)> {
    let promises = text.split("\n- **").skip(1);
    promises
        .map(|promise| {
            let number = promise.split("**").next().unwrap_or_default().to_owned();
            let quoted = promise.split('`').skip(1).step_by(2).map(ToOwned::to_owned);
            (number, quoted.filter(|word| word.contains('_')).collect())
        })
        .collect()
}

#[test]
fn every_promise_names_tests_that_exist() {
    let text = fs::read_to_string(workspace().join("SPECIFICATION.md")).expect("the specification");
    let (tests, promises) = (tests(), promises(&text));
    let mut wrong = Vec::new();
    for (number, names) in &promises {
        if names.is_empty() {
            wrong.push(format!("{number} names no test"));
        }
        wrong.extend(names.iter().filter(|n| !tests.contains(*n)).map(|n| format!("{number}: no test {n}")));
    }
    assert!(promises.len() > 20, "the promises were not found");
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_number_is_used_once() {
    let text = fs::read_to_string(workspace().join("SPECIFICATION.md")).expect("the specification");
    let numbers: Vec<_> = promises(&text).into_iter().map(|(number, _)| number).collect();
    assert_eq!(numbers.iter().collect::<BTreeSet<_>>().len(), numbers.len(), "{numbers:?}");
}
