//! Figures, measured on the machine at hand; `docs/performance.md` keeps those of one.

#[path = "../../hostctl/tests/bounds/documents.rs"]
mod documents;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use clap::Subcommand;
use serde::{Deserialize, Serialize};

use crate::build::{target_dir, workspace};
use crate::{Failure, packages};

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// `hostctl check`: a manifest of 1,000 containers beside Python's tomllib and jsonschema, and the worst 1 MiB
    Manifest,
    /// Runs a program once and says what it took, for the others
    #[command(hide = true)]
    Measure {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// How often each thing is measured; the middle of them is shown.
const TIMES: usize = 11;
/// The bounds that were set: time and memory in KiB.
const LARGE: Duration = Duration::from_millis(50);
const HOSTILE: (Duration, i64) = (Duration::from_millis(100), 64 << 10);
/// Reads the document and checks it against the schema, without the time that Python and its modules take to start.
const PEER: &str = "import json, sys, time, tomllib, jsonschema\n\
    schema = json.load(open(sys.argv[1])); text = open(sys.argv[2], 'rb').read()\n\
    began = time.perf_counter(); document = tomllib.loads(text.decode()); parsed = time.perf_counter()\n\
    def plain(value):\n\
    \x20   if isinstance(value, dict): return {k: plain(v) for k, v in value.items()}\n\
    \x20   if isinstance(value, list): return [plain(v) for v in value]\n\
    \x20   return value if isinstance(value, (str, int, float, bool)) else value.isoformat()\n\
    document = plain(document); between = time.perf_counter()\n\
    jsonschema.validators.validator_for(schema)(schema).validate(document)\n\
    print(json.dumps([parsed - began, time.perf_counter() - between]))";

/// Measures.
///
/// # Errors
/// Where something cannot be built or run, or is over its bound.
pub(crate) fn bench(what: &Bench) -> Result<(), Failure> {
    match what {
        Bench::Manifest => manifest(),
        Bench::Measure { command } => measure(command),
    }
}

/// One run of a program.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Run {
    code: Option<i32>,
    /// From its start to its end, in seconds.
    seconds: f64,
    /// The most memory that it held, in KiB.
    peak: i64,
}

/// This process has one child and is small, so the memory of all its children is that of the program.
fn measure(command: &[String]) -> Result<(), Failure> {
    use nix::sys::resource::{UsageWho, getrusage};
    let (program, arguments) = command.split_first().expect("clap asks for one");
    let began = Instant::now();
    let status =
        Command::new(program).args(arguments).stdout(Stdio::null()).stderr(Stdio::null()).status()?;
    let seconds = began.elapsed().as_secs_f64();
    let peak = getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss();
    println!("{}", serde_json::to_string(&Run { code: status.code(), seconds, peak })?);
    Ok(())
}

/// The middle of several runs, which all have to end with `code`.
fn check(hostctl: &Path, file: &Path, code: i32) -> Result<Run, Failure> {
    let mut runs = Vec::new();
    for _ in 0..TIMES {
        let mut command = Command::new(std::env::current_exe()?);
        let output = command.args(["bench", "measure"]).arg(hostctl).arg("check").arg(file).output()?;
        let run: Run = serde_json::from_slice(&output.stdout)?;
        if run.code != Some(code) {
            return Err(format!("{} ended with {:?}", file.display(), run.code).into());
        }
        runs.push(run);
    }
    Ok(middle(runs))
}

fn middle(mut runs: Vec<Run>) -> Run {
    runs.sort_by(|a, b| a.seconds.total_cmp(&b.seconds));
    let peak = runs.iter().map(|run| run.peak).max().unwrap_or_default();
    Run { peak, ..runs[runs.len() / 2] }
}

fn manifest() -> Result<(), Failure> {
    packages::install(&["python3", "python3-jsonschema"])?;
    let hostctl = build()?;
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("host.toml");
    let text = documents::containers(1000);
    std::fs::write(&file, &text)?;
    let run = check(&hostctl, &file, 0)?;
    let (parsed, checked) = peer(&file)?;
    println!("| 1,000 containers, {} kB | time | beside hostctl |\n|---|---|---|", text.len() / 1000);
    println!("| `hostctl check`, the whole program | {} | 1 |", shown(run.seconds));
    println!("| Python tomllib, reading alone | {} | {:.1} |", shown(parsed), parsed / run.seconds);
    let both = parsed + checked;
    println!("| Python tomllib and jsonschema | {} | {:.1} |", shown(both), both / run.seconds);
    let mut over = Vec::new();
    if run.seconds > LARGE.as_secs_f64() {
        over.push("1,000 containers".to_owned());
    }
    println!("\n| 1 MiB made to do harm | time | most memory |\n|---|---|---|");
    for (name, text) in documents::hostile(1 << 20) {
        std::fs::write(&file, text)?;
        let run = check(&hostctl, &file, 2)?;
        println!("| {name} | {} | {:.1} MiB |", shown(run.seconds), run.peak as f64 / 1024.0);
        if run.seconds > HOSTILE.0.as_secs_f64() || run.peak > HOSTILE.1 {
            over.push(name.to_owned());
        }
    }
    if over.is_empty() { Ok(()) } else { Err(format!("over the bound: {}", over.join(", ")).into()) }
}

fn shown(seconds: f64) -> String {
    format!("{:.1} ms", seconds * 1000.0)
}

/// The middle of several runs of [`PEER`]: reading, and checking, in seconds.
fn peer(file: &Path) -> Result<(f64, f64), Failure> {
    let schema = file.with_file_name("schema.json");
    std::fs::write(&schema, bennu_manifests::json_schema())?;
    let mut runs: Vec<(f64, f64)> = Vec::new();
    for _ in 0..TIMES {
        let output = Command::new("python3").args(["-c", PEER]).arg(&schema).arg(file).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        runs.push(serde_json::from_slice(&output.stdout)?);
    }
    runs.sort_by(|a, b| (a.0 + a.1).total_cmp(&(b.0 + b.1)));
    Ok(runs[TIMES / 2])
}

/// `hostctl` as it is released.
fn build() -> Result<PathBuf, Failure> {
    let mut command = vm_tests::programs::cargo();
    command.args(["build", "--quiet", "--release", "--package=hostctl"]).current_dir(workspace());
    let status = command.status()?;
    if status.success() { Ok(target_dir().join("release/hostctl")) } else { Err("cargo failed".into()) }
}
