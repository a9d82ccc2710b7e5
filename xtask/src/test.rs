//! `cargo xtask test`: everything that must hold before a change is merged.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};

use crate::steps::Steps;
use crate::{Failure, fuzz, image, packages};

/// Runs every stage in order and stops at the first that fails. A test that was skipped fails its stage.
///
/// # Errors
/// The stage that failed; what it has to say, it has said itself.
pub(crate) fn test() -> Result<(), Failure> {
    let mut steps = Steps::default();
    let wanted = [packages::IMAGE, packages::TEST].concat();
    steps.loud("packages", || packages::install(&wanted))?;
    let tools = steps.loud("tools", packages::tools)?;
    let cargo = |arguments: &str| {
        let mut command = cargo(&tools);
        command.args(arguments.split(' '));
        command
    };

    steps.loud("formatting", || succeed(&mut cargo("fmt --all --check")))?;
    steps.loud("clippy", || {
        succeed(&mut cargo("clippy --quiet --workspace --all-targets -- --deny warnings"))
    })?;
    steps.loud("documentation", || {
        let mut command = cargo("doc --quiet --workspace --no-deps --document-private-items");
        succeed(command.env("RUSTDOCFLAGS", "--deny warnings"))
    })?;
    steps.loud("licences, bans, sources", || {
        succeed(&mut cargo("deny --log-level error check --hide-inclusion-graph licenses bans sources"))
    })?;
    steps.loud("advisories", || advisories(cargo))?;

    let mut closing = Vec::new();
    steps.loud("unit and property tests", || {
        nextest(&mut cargo("nextest run --workspace --exclude vm-tests"), &mut closing)?;
        nextest(&mut cargo("nextest run --package vm-tests --lib"), &mut closing)
    })?;
    steps.loud("tests in the documentation", || succeed(&mut cargo("test --quiet --workspace --doc")))?;
    steps.loud("fuzzing", fuzz::briefly)?;
    steps.loud("image", || image::image().map(drop))?;
    steps.loud("tests in virtual machines", || {
        nextest(&mut cargo("nextest run --package vm-tests --test hosts --test-threads 4"), &mut closing)
    })?;

    eprint!("\nHow long it took:\n{}", steps.table());
    for line in closing {
        println!("{line}");
    }
    Ok(())
}

/// `cargo` in the workspace, with the tools that were installed for it.
fn cargo(tools: &Path) -> Command {
    let mut command = vm_tests::programs::cargo();
    let paths = std::env::var_os("PATH").unwrap_or_default();
    let paths = std::iter::once(tools.to_owned()).chain(std::env::split_paths(&paths));
    let paths =
        std::env::join_paths(paths).expect("what was split can be joined, and the cache's path has no colon");
    // A test that cannot run on the machine at hand says so and passes, but not here.
    command.env("PATH", paths).env("BENNU_TESTS_MUST_RUN", "1");
    command
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let status = command.status().map_err(|error| format!("cannot start {command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?} ended with {status}").into()) }
}

/// Checks for known vulnerabilities where the database can be had; where it cannot, that is said and is no failure,
/// because it says nothing about the change.
fn advisories(cargo: impl Fn(&str) -> Command) -> Result<(), Failure> {
    let fetched = cargo("deny --log-level error fetch db").stdin(Stdio::null()).output()?;
    if !fetched.status.success() {
        eprintln!("the advisory database cannot be reached; known vulnerabilities are NOT checked");
        return Ok(());
    }
    succeed(&mut cargo("deny --log-level error check --disable-fetch --hide-inclusion-graph advisories"))
}

/// Runs nextest, shows what it says, and keeps its closing lines. Fails where a test was skipped.
fn nextest(command: &mut Command, closing: &mut Vec<String>) -> Result<(), Failure> {
    let mut child = command
        .stderr(Stdio::piped())
        .stdin(Stdio::null())
        .spawn()
        .map_err(|error| format!("cannot start {command:?}: {error}"))?;
    let mut summary = Vec::new();
    for line in BufReader::new(child.stderr.take().expect("it was asked for")).lines() {
        let line = line?;
        eprintln!("{line}");
        if !summary.is_empty() || line.trim_start().starts_with("Summary [") {
            summary.push(line);
        }
    }
    let status = child.wait()?;
    let skipped = nothing_skipped(summary.first().map_or("", String::as_str));
    closing.append(&mut summary);
    match (status.success(), skipped) {
        (true, true) => Ok(()),
        (true, false) => {
            Err("a test was skipped, or none was run: a test that cannot run is a failure".into())
        }
        (false, _) => Err(format!("{command:?} ended with {status}").into()),
    }
}

/// Whether a summary of nextest says that tests were run and none was skipped, as in
/// `Summary [   1.2s] 3 tests run: 3 passed, 0 skipped`.
fn nothing_skipped(summary: &str) -> bool {
    summary.contains(" run: ")
        && summary.trim_end().ends_with(" 0 skipped")
        && !summary.contains("] 0 tests run")
}

#[cfg(test)]
mod tests {
    use super::nothing_skipped;

    #[test]
    fn a_summary_without_skips_is_good() {
        assert!(nothing_skipped("     Summary [   0.612s] 23 tests run: 23 passed, 0 skipped"));
        assert!(nothing_skipped("     Summary [   9.1s] 2 tests run: 2 passed (1 slow), 0 skipped"));
    }

    #[test]
    fn skips_and_nothing_at_all_are_not() {
        assert!(!nothing_skipped("     Summary [   0.612s] 23 tests run: 23 passed, 10 skipped"));
        assert!(!nothing_skipped("     Summary [   0.612s] 22 tests run: 22 passed, 1 skipped"));
        assert!(!nothing_skipped("     Summary [   0.000s] 0 tests run: 0 passed, 0 skipped"));
        assert!(!nothing_skipped(""));
    }
}
