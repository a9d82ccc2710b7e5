//! `hostctl check`, beside Python reading the same file.

#[path = "../../../hostctl/tests/bounds/documents.rs"]
mod documents;

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::measure::{self, Run, middle};
use crate::{Failure, packages};

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

/// Measures `hostctl check` and prints tables.
///
/// # Errors
/// Where something cannot be built or run, or is over its bound.
pub(super) fn bench() -> Result<(), Failure> {
    packages::install(&["python3", "python3-jsonschema"])?;
    let hostctl = super::build()?;
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

/// The middle of several runs, which all have to end with `code`.
fn check(hostctl: &Path, file: &Path, code: i32) -> Result<Run, Failure> {
    let mut runs = Vec::new();
    for _ in 0..TIMES {
        let run = measure::run(Command::new(hostctl).arg("check").arg(file))?;
        if run.code != Some(code) {
            return Err(format!("{} ended with {:?}", file.display(), run.code).into());
        }
        runs.push(run);
    }
    Ok(middle(runs))
}
