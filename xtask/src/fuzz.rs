//! Runs the targets of `fuzz/` under libFuzzer, with the stable compiler: LLVM's coverage counters are switched on by
//! flags, and no sanitizer is (they need the nightly one). Safe code has no need of them; a panic ends the program.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use clap::Args;

use crate::Failure;
use crate::build::{target_dir, workspace};

/// Which targets, and for how long.
#[derive(Debug, Args)]
pub(crate) struct Fuzz {
    /// A target [default: all of them]
    target: Option<String>,
    /// How long each target runs
    #[arg(long, value_name = "SECONDS", default_value_t = SECONDS)]
    seconds: u32,
    /// Run the target on this input alone
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

/// How long a target runs in the tests, in seconds.
const SECONDS: u32 = 5;
/// The names of the programs in `fuzz/src/bin`, besides [`CANARY`].
const TARGETS: [&str; 12] = [
    "manifest",
    "trust",
    "signatures",
    "reference",
    "registry",
    "secret",
    "compose",
    "layer",
    "pull",
    "blob",
    "record",
    "patch",
];
/// The program that breaks where libFuzzer finds what it looks for.
const CANARY: &str = "canary";
/// Naming the target keeps the flags away from build scripts.
const TRIPLE: &str = "x86_64-unknown-linux-gnu";
/// LLVM's SanitizerCoverage pass, as libFuzzer wants it (LLVM, `docs/SanitizerCoverage.rst`).
const FLAGS: &str = "-Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// What one target may take: memory in MiB, an input in seconds and bytes. A document has at most 1 MiB; what is slow for
/// 16 KiB is slow for that too, and many more inputs can be tried.
const LIMITS: [&str; 3] = ["-rss_limit_mb=512", "-timeout=10", "-max_len=16384"];
/// How many run side by side.
const SIDE_BY_SIDE: usize = 2;

/// Runs what was asked for.
///
/// # Errors
/// Where an input breaks a target; where it lies is said.
pub(crate) fn fuzz(args: &Fuzz) -> Result<(), Failure> {
    let chosen: Vec<&str> = match &args.target {
        Some(name) => vec![
            *TARGETS
                .iter()
                .find(|known| *known == name)
                .ok_or_else(|| format!("there is no target {name}; there are {}", TARGETS.join(", ")))?,
        ],
        None => TARGETS.to_vec(),
    };
    let programs = build()?;
    if let Some(input) = &args.input {
        let status = Command::new(programs.join(chosen[0])).args(LIMITS).arg(input).status()?;
        return if status.success() { Ok(()) } else { Err(format!("it breaks ({status})").into()) };
    }
    canary(&programs)?;
    for pair in chosen.chunks(SIDE_BY_SIDE) {
        let ended: Vec<Result<String, String>> = thread::scope(|scope| {
            let running: Vec<_> =
                pair.iter().map(|name| scope.spawn(|| run(&programs, name, args.seconds))).collect();
            running.into_iter().map(|thread| thread.join().expect("it does not panic")).collect()
        });
        for line in ended {
            eprintln!("{}", line?);
        }
    }
    Ok(())
}

/// As [`fuzz`], for all targets, as long as the tests take.
///
/// # Errors
/// As [`fuzz`].
pub(crate) fn briefly() -> Result<(), Failure> {
    fuzz(&Fuzz { target: None, seconds: SECONDS, input: None })
}

/// The folder of the programs, built with counters.
fn build() -> Result<PathBuf, Failure> {
    // A folder of its own keeps builds with other flags from undoing each other.
    let target = target_dir().join("fuzz");
    let mut command = vm_tests::programs::cargo();
    command.args(["build", "--quiet", "--package=bennu-fuzz", "--profile=fuzz", "--target", TRIPLE]);
    command.env("CARGO_TARGET_DIR", &target).env("RUSTFLAGS", FLAGS);
    let status = command.status().map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() {
        Ok(target.join(TRIPLE).join("fuzz"))
    } else {
        Err(format!("cargo failed ({status})").into())
    }
}

/// Where a target's inputs lie that were found here, and those that break it.
fn folders(name: &str) -> Result<(PathBuf, PathBuf), String> {
    let found = bennu_os_image::cache_dir().join("fuzz").join(name);
    let broken = target_dir().join("fuzz/broken").join(name);
    for folder in [&found, &broken] {
        fs::create_dir_all(folder).map_err(|error| format!("make {}: {error}", folder.display()))?;
    }
    Ok((found, broken))
}

/// Runs one target on the kept corpus, and on from there; one line of what was done.
fn run(programs: &Path, name: &str, seconds: u32) -> Result<String, String> {
    let (found, broken) = folders(name)?;
    let kept = workspace().join("fuzz/corpus").join(name);
    let mut command = Command::new(programs.join(name));
    command
        .args(LIMITS)
        .arg(format!("-max_total_time={seconds}"))
        .args(["-print_final_stats=1", "-close_fd_mask=1"]);
    command.arg(format!("-artifact_prefix={}/", broken.display()));
    let dictionary = workspace().join("fuzz/dictionaries").join(format!("{name}.dict"));
    if dictionary.exists() {
        command.arg(format!("-dict={}", dictionary.display()));
    }
    // What is new goes into the first folder.
    let output = command.arg(&found).arg(&kept).stdin(Stdio::null()).output();
    let output = output.map_err(|error| format!("start {name}: {error}"))?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() {
        let tail: Vec<&str> = log.lines().rev().take(40).collect();
        let tail: Vec<&str> = tail.into_iter().rev().collect();
        return Err(format!(
            "{}\nthe target {name} broke ({}); the input is in {}\ntry it again with: cargo xtask fuzz {name} --input FILE",
            tail.join("\n"),
            output.status,
            broken.display()
        ));
    }
    let report = Report::read(&log).ok_or_else(|| format!("{name} did not say what it did:\n{log}"))?;
    // Without counters libFuzzer guesses blindly, and says nothing of it.
    if report.counters < 100 || report.runs == 0 {
        return Err(format!("{name} ran {} inputs with {} counters", report.runs, report.counters));
    }
    Ok(format!(
        "{name}: {} inputs, {} of {} counters reached, nothing broke",
        report.runs, report.reached, report.counters
    ))
}

/// Runs the target that has to break.
fn canary(programs: &Path) -> Result<(), Failure> {
    let (_, broken) = folders(CANARY)?;
    let output = Command::new(programs.join(CANARY))
        .args(LIMITS)
        .args(["-max_total_time=60", "-max_len=16"])
        .arg(format!("-artifact_prefix={}/", broken.display()))
        .stdin(Stdio::null())
        .output()?;
    let log = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() && log.contains("the canary was found") {
        return Ok(());
    }
    Err(format!("libFuzzer did not find what breaks the canary, so it finds nothing at all:\n{log}").into())
}

/// What libFuzzer says of a run.
#[derive(Debug, PartialEq, Eq)]
struct Report {
    runs: u64,
    counters: u64,
    reached: u64,
}

impl Report {
    /// Reads `INFO: Loaded 1 modules (N inline 8-bit counters): …`, the last `cov: N` and
    /// `stat::number_of_executed_units: N`.
    fn read(log: &str) -> Option<Self> {
        let after = |line: &str, word: &str| -> Option<u64> {
            let rest = line[line.find(word)? + word.len()..].trim_start();
            rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
        };
        let loaded = log.lines().find(|line| line.contains("inline 8-bit counters"))?;
        Some(Self {
            runs: log.lines().find_map(|line| after(line, "stat::number_of_executed_units:"))?,
            counters: after(loaded, "(")?,
            reached: log.lines().rev().find_map(|line| after(line, " cov:"))?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_of_libfuzzer_is_read() {
        let log = "INFO: Loaded 1 modules   (7051 inline 8-bit counters): 7051 [0x1, 0x2),\n\
                   #2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 28Mb\n\
                   #9\tDONE   cov: 340 ft: 900 corp: 80/9Kb lim: 4096 exec/s: 9 rss: 40Mb\n\
                   stat::number_of_executed_units: 1234\n";
        assert_eq!(Report::read(log), Some(Report { runs: 1234, counters: 7051, reached: 340 }));
        assert_eq!(Report::read("INFO: No counters\n"), None);
    }

    #[test]
    fn every_target_has_a_program_and_a_corpus() {
        let programs: Vec<String> = fs::read_dir(workspace().join("fuzz/src/bin"))
            .expect("it is there")
            .map(|entry| {
                entry.expect("listed").path().file_stem().expect("a name").to_string_lossy().into_owned()
            })
            .filter(|name| name != CANARY)
            .collect();
        assert_eq!(programs.len(), TARGETS.len(), "{programs:?}");
        for name in TARGETS {
            assert!(programs.iter().any(|program| program == name), "{name} has no program");
            assert!(workspace().join("fuzz/corpus").join(name).is_dir(), "{name} has no corpus");
        }
    }
}
