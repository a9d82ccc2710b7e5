//! `cargo xtask vm`: a host that is kept running, for trying things by hand.

use std::fs;
use std::io::{BufRead, IsTerminal, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use vm_tests::agent::Agent;
use vm_tests::machine::Files;
use vm_tests::{tail, wait};

use crate::session::{Desk, Session};
use crate::steps::Steps;
use crate::{Failure, build};

/// What can be done with the kept host.
#[derive(Debug, Subcommand)]
pub(crate) enum Vm {
    /// Builds and boots a host, with a registry beside it, and leaves both running
    Up,
    /// Pins, signs and pushes a manifest; `10.0.2.2:5000` in it becomes the registry that runs
    Push {
        /// The manifest
        file: PathBuf,
    },
    /// Follows the serial console; each line typed is run in the guest as a shell command
    Console,
    /// Stops host and registry and removes their files
    Down,
}

/// What is written down about a host that is kept.
#[derive(Debug, Serialize, Deserialize)]
struct Kept {
    desk: Desk,
    machine: PathBuf,
    processes: Vec<u32>,
}

/// Does it.
///
/// # Errors
/// Whatever stopped it; where no host runs, how to start one.
pub(crate) fn vm(command: Vm) -> Result<(), Failure> {
    match command {
        Vm::Up => {
            let session = Session::start(&fresh_directory()?, &mut Steps::default())?;
            let desk = session.desk.clone();
            keep(session)?;
            eprint!("{}", guide(&desk));
            Ok(())
        }
        Vm::Push { file } => {
            let desk = kept()?.desk;
            desk.deliver(&desk.take(&file)?)
        }
        Vm::Console => console(&Files::of(&kept()?.machine)),
        Vm::Down => down(),
    }
}

/// How to go on with a host that is kept.
pub(crate) fn guide(desk: &Desk) -> String {
    let hostctl = desk.hostctl();
    let (program, identity) = (hostctl.program.display(), hostctl.identity.display());
    let (web, directory) = (desk.ports[&8080], desk.directory.display());
    format!(
        "\nThe host keeps running. To talk to it from this shell:\n\
         \x20 export BENNU_HOST={} BENNU_IDENTITY={identity}\n\
         \x20 alias hostctl={program}\n\
         \x20 hostctl status; hostctl ps; hostctl logs web; hostctl exec web -- ls /srv/www\n\
         Port 8080 of the host is http://127.0.0.1:{web}/ here, and its registry is 127.0.0.1:{}.\n\
         A changed manifest (raise its serial):\n\
         \x20 cargo xtask vm push manifests/examples/demo-second.toml\n\
         Keys, trust and manifests are in {directory}.\n\
         Its console:  cargo xtask vm console\n\
         To stop it:   cargo xtask vm down\n",
        hostctl.address, desk.registry
    )
}

/// An empty directory for a session that is kept.
///
/// # Errors
/// Where a host runs already.
pub(crate) fn fresh_directory() -> Result<PathBuf, Failure> {
    let directory = directory();
    if let Ok(kept) = kept() {
        if kept.processes.iter().any(|process| runs(*process, &kept)) {
            return Err("a host is running already; stop it with `cargo xtask vm down`".into());
        }
        down()?;
    }
    if directory.exists() {
        fs::remove_dir_all(&directory)?;
    }
    fs::create_dir_all(&directory)?;
    Ok(directory)
}

/// Leaves a session running and writes down what it is.
///
/// # Errors
/// Where it cannot be written down; the session is ended then.
pub(crate) fn keep(mut session: Session) -> Result<(), Failure> {
    let kept = Kept {
        desk: session.desk.clone(),
        machine: session.vm.files().directory().to_owned(),
        processes: vec![session.vm.process()?, session.registry.process()],
    };
    fs::write(record(), serde_json::to_string_pretty(&kept)?)?;
    session.vm.detach();
    session.registry.detach();
    Ok(())
}

fn kept() -> Result<Kept, Failure> {
    let text =
        fs::read_to_string(record()).map_err(|_| "no host is running; start one with `cargo xtask vm up`")?;
    Ok(serde_json::from_str(&text)?)
}

fn directory() -> PathBuf {
    build::workspace().join(".bennu/vm")
}

fn record() -> PathBuf {
    directory().join("session.json")
}

/// Whether a process is still the one that was written down, and not another that got its number.
fn runs(process: u32, kept: &Kept) -> bool {
    let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
    let line = String::from_utf8_lossy(&line).into_owned();
    [&kept.machine, &kept.desk.directory].iter().any(|place| line.contains(&*place.to_string_lossy()))
}

fn down() -> Result<(), Failure> {
    let kept = kept()?;
    for process in kept.processes.iter().copied().filter(|process| runs(*process, &kept)) {
        let status = Command::new("kill").arg(process.to_string()).status()?;
        if !status.success() && runs(process, &kept) {
            return Err(format!("process {process} cannot be ended").into());
        }
        let what = format!("process {process} to end");
        wait::until(&what, Duration::from_secs(30), || Ok((!runs(process, &kept)).then_some(())))?;
    }
    for directory in [&kept.machine, &directory()] {
        if directory.exists() {
            fs::remove_dir_all(directory)?;
        }
    }
    eprintln!("host and registry are stopped");
    Ok(())
}

/// How much of the past the console shows, in bytes.
const PAST: usize = 4000;

fn console(files: &Files) -> Result<(), Failure> {
    let path = files.serial();
    let text = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    println!("{}", tail(&text, PAST));
    println!("-- each line is run as a shell command in the guest; end with Ctrl-D --");
    std::thread::spawn(move || follow(&path, text.len() as u64));
    let mut agent = Agent::connect(&files.agent())?;
    let prompt = || {
        if std::io::stdin().is_terminal() {
            print!("bennu# ");
        }
        std::io::stdout().flush()
    };
    prompt()?;
    for line in std::io::stdin().lock().lines() {
        let line = line?;
        if !line.trim().is_empty() {
            match agent.ask(&line, Duration::from_secs(300)) {
                Ok(output) => print!("{}", output.text),
                Err(error) => println!("{error}"),
            }
        }
        prompt()?;
    }
    Ok(())
}

/// Prints what is added to a file, until this process ends.
fn follow(path: &Path, from: u64) {
    let Ok(mut file) = fs::File::open(path) else { return };
    let _at_its_end = file.seek(SeekFrom::Start(from));
    let mut text = Vec::new();
    while file.read_to_end(&mut text).is_ok() {
        print!("{}", String::from_utf8_lossy(&text));
        text.clear();
        std::thread::sleep(Duration::from_millis(200));
    }
}
