//! Containers beside those of crun alone, podman and docker, all in one virtual machine and one run.
//!
//! The machine is translated where there is no KVM, so its times are long; what counts is the columns beside ours.

mod peers;

use clap::Args;
use serde_json::Value;
use vm_tests::images::{self, Image, Recipe};
use vm_tests::registry::Registry;
use vm_tests::{Host, on_host_alone};

use crate::{Failure, packages};

/// How often, and with how many.
#[derive(Debug, Args)]
pub(crate) struct Options {
    /// How often one container is started; the middle one is shown
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u8).range(1..))]
    runs: u8,
    /// How many containers are started together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u8).range(1..))]
    containers: u8,
}

/// What a start may take, beside crun alone; and how many times more the others must take.
const OF_BARE: f64 = 2.0;
const START: f64 = 5.0;
/// How many times longer podman must take for many.
const MANY: f64 = 3.0;
/// KiB that a container may cost besides what runs in it.
const OVERHEAD: f64 = 512.0;
/// KiB that the daemon may hold.
const RESIDENT: f64 = 30.0 * 1024.0;
/// Milliseconds of processor time of a round that changes nothing, on a machine that is not translated.
const ROUND: f64 = 10.0;
/// How many rounds are looked at, and the seconds between two of them.
const ROUNDS: u32 = 4;
const EVERY: u32 = 30;

/// Measures and prints tables.
///
/// # Errors
/// Where something cannot be built or run, or is over its bound.
pub(super) fn bench(options: &Options) -> Result<(), Failure> {
    packages::install(&[packages::IMAGE, packages::TEST].concat())?;
    let mut over = Vec::new();
    on_host_alone("bench-runtime", |host| {
        let lab = Lab::furnish(host)?;
        over.extend(lab.one(host, options.runs)?);
        over.extend(lab.many(host, options.containers)?);
        over.extend(lab.ports(host)?);
        Ok(())
    })?;
    if over.is_empty() { Ok(()) } else { Err(format!("over the bound: {}", over.join(", ")).into()) }
}

/// What the tables share.
struct Lab {
    _directory: tempfile::TempDir,
    registry: Registry,
    peers: Image,
    server: Image,
    /// The image that sleeps, as all of them pull it.
    sleeps: String,
    /// Where it comes from.
    sleeps_from: String,
}

impl Lab {
    /// Puts the peers into the machine; their daemon runs when this returns, and each has the images.
    fn furnish(host: &mut Host) -> Result<Self, Failure> {
        let directory = tempfile::tempdir()?;
        let registry = Registry::start(directory.path())?;
        let stock = |recipe: &Recipe| -> Result<Image, Failure> {
            let image = images::build(recipe)?;
            image.push(&registry.address().to_string())?;
            Ok(image)
        };
        let (peers, server) = (stock(&peers::peers())?, stock(&peers::server())?);
        let test =
            host.registry.images.iter().find(|image| image.name == "test").expect("one of the recipes");
        test.push(&registry.address().to_string())?;
        let sleeps = format!("{}/test:1@{}", registry.from_guest(), test.digest);
        let sleeps_from = registry.from_guest();
        let lab = Self { _directory: directory, registry, peers, server, sleeps, sleeps_from };

        eprintln!("podman and docker go into the machine …");
        host.converge("manifest.toml", &lab.manifest(1, &lab.sleeper("first")))?;
        put_script(host)?;
        guest(host, &format!("prepare {} {} {}", lab.sleeps_from, lab.sleeps, lab.pinned(&lab.server)))?;
        Ok(lab)
    }

    fn pinned(&self, image: &Image) -> String {
        format!("{}/{}:{}@{}", self.registry.from_guest(), image.name, image.tag, image.digest)
    }

    /// A manifest with the peers, and these containers.
    fn manifest(&self, serial: u64, containers: &str) -> String {
        format!(
            "schema = 1\nname = \"bench\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
             expires = 2036-01-01T00:00:00Z\n[registry.\"{}\"]\nplain-http = true\n\
             [update]\ntrial = \"5s\"\n[volume.peers]\nlife = \"keep\"\n\
             [container.peers]\nimage = \"{}\"\nprivileged = true\nread-only-root = false\nvolumes = [\"peers:/var/lib\"]\n\
             {containers}",
            self.sleeps_from,
            self.pinned(&self.peers),
        )
    }

    fn sleeper(&self, name: &str) -> String {
        format!("[container.{name}]\nimage = \"{}\"\n", self.sleeps)
    }

    /// One container, from the decision (for the others: from the command) until its process runs.
    fn one(&self, host: &mut Host, runs: u8) -> Result<Vec<String>, Failure> {
        guest(host, "bundle")?;
        let mut rows: [Vec<f64>; 4] = Default::default();
        let mut all = self.sleeper("first");
        for run in 1..=runs {
            let name = format!("one{run}");
            // Those before stay, so that nothing is stopped meanwhile.
            all += &self.sleeper(&name);
            host.converge("manifest.toml", &self.manifest(u64::from(run) + 1, &all))?;
            rows[0].push(until_started(host, &format!("{name}-"))?);
            rows[1].push(number(&guest(host, &format!("one_bare {run}"))?)? / 1000.0);
            rows[2]
                .push(number(&guest(host, &format!("inside one_podman {run} {}", self.sleeps))?)? / 1000.0);
            rows[3]
                .push(number(&guest(host, &format!("inside one_docker {run} {}", self.sleeps))?)? / 1000.0);
        }
        let [ours, bare, podman, docker] = rows.map(middle);
        println!("\n| one container | ms in the machine | beside ours |\n|---|---|---|");
        for (name, row) in [
            ("`hostd`, from the decision", ours),
            ("`crun create` and `start`, no network", bare),
            ("`podman run -d`", podman),
            ("`docker run -d`", docker),
        ] {
            println!("| {name} | {row:.1} | {:.2} |", row / ours);
        }
        Ok(over([
            ("a start beside crun alone", ours <= OF_BARE * bare),
            ("a start beside podman", START * ours <= podman),
            ("a start beside docker", START * ours <= docker),
        ]))
    }

    /// Many containers, what they cost, and what the daemon does while nothing changes.
    fn many(&self, host: &mut Host, count: u8) -> Result<Vec<String>, Failure> {
        let all: String = (1..=count).map(|number| self.sleeper(&format!("many{number}"))).collect();
        let before = number(&guest(host, "held")?)?;
        host.converge("manifest.toml", &self.manifest(1000, &(self.sleeper("first") + &all)))?;
        let ours = until_started(host, "many")?;
        let held = (number(&guest(host, "held")?)? - before) / f64::from(count);
        let resident = number(&guest(host, "resident")?)?;
        let used = number(&guest(host, "processor")?)?;
        let wait = format!("sleep {}", ROUNDS * EVERY);
        host.vm.guest_within(&wait, std::time::Duration::from_secs(u64::from(2 * ROUNDS * EVERY)))?;
        let round = (number(&guest(host, "processor")?)? - used) / 1000.0 / f64::from(ROUNDS);
        let slower = slower(host)?;

        // Those of ours go before the others come: there is not memory for all.
        host.converge("manifest.toml", &self.manifest(1001, &self.sleeper("first")))?;
        let mut rows = vec![("`hostd`, from the decision".to_owned(), ours, held)];
        for who in ["podman", "docker"] {
            let told = guest(host, &format!("inside many {who} {} {count}", self.sleeps))?;
            let mut told = told.lines().map(number);
            let mut next = || told.next().ok_or("two numbers were to be told")?;
            let (took, grown) = (next()? / 1000.0, next()?);
            rows.push((format!("`{who} run -d`, two at a time"), took, grown / f64::from(count)));
        }
        println!(
            "\n| {count} containers | s in the machine | beside ours | KiB a container |\n|---|---|---|---|"
        );
        for (name, took, held) in &rows {
            println!("| {name} | {:.1} | {:.2} | {held:.0} |", took / 1000.0, took / ours);
        }
        println!(
            "\nWith {count} containers `hostd` holds {:.1} MiB. A round that changes nothing takes {round:.1} ms of processor time in the \
             machine, which is {slower:.1} times slower than this one: {:.1} ms.",
            resident / 1024.0,
            round / slower
        );
        Ok(over([
            ("the start of many beside podman", MANY * ours <= rows[1].1),
            ("memory of a container", held <= OVERHEAD),
            ("memory of hostd", resident <= RESIDENT),
            ("a round that changes nothing", round / slower <= ROUND),
        ]))
    }

    /// A published port: requests for a small file, and bytes of a large one.
    fn ports(&self, host: &mut Host) -> Result<Vec<String>, Failure> {
        let server = format!(
            "[container.web]\nimage = \"{}\"\nports = [\"8080:80\"]\ntmpfs = [\"/run\", \"/var/log/nginx\", \"/var/lib/nginx\"]\n",
            self.pinned(&self.server)
        );
        host.converge("manifest.toml", &self.manifest(1002, &(self.sleeper("first") + &server)))?;
        guest(host, "client")?;
        guest(host, &format!("inside serve_podman {}", self.pinned(&self.server)))?;
        let mut of = [Vec::new(), Vec::new()];
        // In turn, so that what disturbs one disturbs the other.
        for _ in 0..3 {
            for (port, rows) in [8080, 8081].into_iter().zip(&mut of) {
                let small = Load::read(&guest(host, &format!("load {port} index.html 8"))?)?;
                let big = Load::read(&guest(host, &format!("load {port} big 2"))?)?;
                rows.push((small.requests, small.latency, big.bytes));
            }
        }
        let [ours, podman] = of.map(|rows| {
            let column = |of: fn(&(f64, f64, f64)) -> f64| middle(rows.iter().map(of).collect());
            (column(|row| row.0), column(|row| row.1), column(|row| row.2))
        });
        println!(
            "\n| a published port | requests a second | beside ours | 99 of 100 within ms | beside ours | MB a second | beside ours |"
        );
        println!("|---|---|---|---|---|---|---|");
        for (name, row) in [("`hostd`", ours), ("podman with netavark", podman)] {
            println!(
                "| {name} | {:.0} | {:.2} | {:.2} | {:.2} | {:.1} | {:.2} |",
                row.0,
                row.0 / ours.0,
                row.1,
                row.1 / ours.1,
                row.2 / 1e6,
                row.2 / ours.2
            );
        }
        // Two runs of the same differ by so much.
        const NOISE: f64 = 1.1;
        Ok(over([
            ("requests at a port", ours.0 * NOISE >= podman.0),
            ("latency at a port", ours.1 <= podman.1 * NOISE),
            ("bytes through a port", ours.2 * NOISE >= podman.2),
        ]))
    }
}

/// What wrk says (wrk 4.1, `src/wrk.c`, its closing lines).
struct Load {
    /// A second.
    requests: f64,
    /// That 99 of 100 stay below, in milliseconds.
    latency: f64,
    /// A second.
    bytes: f64,
}

impl Load {
    fn read(text: &str) -> Result<Self, Failure> {
        let value = |name: &str| -> Result<(f64, String), Failure> {
            let line = text.lines().find_map(|line| line.trim().strip_prefix(name));
            let word = line.ok_or_else(|| format!("{name} is missing: {text}"))?.trim();
            let digits = word.trim_end_matches(|sign: char| sign.is_ascii_alphabetic());
            Ok((number(digits)?, word[digits.len()..].to_owned()))
        };
        let (latency, unit) = value("99%")?;
        let latency = match unit.as_str() {
            "us" => latency / 1000.0,
            "ms" => latency,
            "s" => latency * 1000.0,
            _ => return Err(format!("a unit of time is not known: {unit}").into()),
        };
        let (bytes, unit) = value("Transfer/sec:")?;
        let bytes = match unit.as_str() {
            "KB" => bytes * 1024.0,
            "MB" => bytes * 1024.0 * 1024.0,
            "GB" => bytes * 1024.0 * 1024.0 * 1024.0,
            _ => return Err(format!("a unit of size is not known: {unit}").into()),
        };
        Ok(Self { requests: value("Requests/sec:")?.0, latency, bytes })
    }
}

/// Puts `runtime/guest.sh` where [`guest`] runs it, until the next boot.
fn put_script(host: &mut Host) -> Result<(), Failure> {
    let put = format!("cat >/run/bench.sh <<'BENCH'\n{}BENCH", include_str!("runtime/guest.sh"));
    Ok(host.vm.guest_ok(&put).map(drop)?)
}

/// Runs a function of `runtime/guest.sh` in the guest.
fn guest(host: &mut Host, call: &str) -> Result<String, Failure> {
    let within = std::time::Duration::from_secs(1800);
    let output = host.vm.guest_within(&format!("bash /run/bench.sh {call}"), within)?;
    if output.code == 0 { Ok(output.text) } else { Err(format!("{call}: {}", output.text).into()) }
}

/// Milliseconds from the decision for the newest generation until all instances ran whose names begin with this.
fn until_started(host: &Host, name: &str) -> Result<f64, Failure> {
    let told = host.hostctl().run(&["--json", "events"])?.done()?.stdout;
    let events: Vec<Value> = told.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let tried = events.iter().rposition(|event| event["event"] == "tried").ok_or("nothing was tried")?;
    let is_one = |event: &&Value| {
        let instance = event["step"]["instance"].as_str().unwrap_or_default();
        event["event"] == "applied" && event["step"]["step"] == "start" && instance.starts_with(name)
    };
    let end = events[tried..].iter().rfind(is_one).ok_or("no start is told of")?;
    let time = |event: &Value| -> Result<jiff::Timestamp, Failure> {
        Ok(event["time"].as_str().unwrap_or_default().parse()?)
    };
    Ok(time(end)?.duration_since(time(&events[tried])?).as_secs_f64() * 1000.0)
}

/// How many times longer the same work takes in the machine than here.
pub(super) fn slower(host: &mut Host) -> Result<f64, Failure> {
    put_script(host)?;
    let there = number(&guest(host, "timed work")?)?;
    let script = tempfile::NamedTempFile::new()?;
    std::fs::write(script.path(), include_str!("runtime/guest.sh"))?;
    let mut here = std::process::Command::new("bash");
    let here = number(&super::program::read(here.arg(script.path()).args(["timed", "work"]))?)?;
    Ok(there / here)
}

fn number(text: &str) -> Result<f64, Failure> {
    text.trim().parse().map_err(|_| format!("{text:?} is no number").into())
}

pub(super) fn middle(mut row: Vec<f64>) -> f64 {
    row.sort_by(f64::total_cmp);
    row[row.len() / 2]
}

/// The names of those that did not hold.
pub(super) fn over<const N: usize>(checks: [(&str, bool); N]) -> Vec<String> {
    checks.into_iter().filter(|(_, held)| !held).map(|(what, _)| what.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::Load;

    #[test]
    fn what_wrk_says_is_read() {
        let text = "Running 10s test @ http://192.0.2.1:8080/\n  1 threads and 8 connections\n  Latency Distribution\n     \
                    50%    2.10ms\n     99%    1.25s\n  100 requests in 10.00s, 80.00KB read\nRequests/sec:   1034.50\n\
                    Transfer/sec:      1.50MB\n";
        let load = Load::read(text).unwrap();
        assert_eq!((load.requests, load.latency, load.bytes), (1034.5, 1250.0, 1.5 * 1024.0 * 1024.0));
        assert!(Load::read("nothing").is_err());
    }
}
