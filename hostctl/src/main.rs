//! The operator's command: writes, checks, signs and hands over manifests, and looks at hosts.
//!
//! ```text
//! command line ──► cli ──► one file per command ──► Out (results: text or JSON, standard output)
//!                             │        │
//!                             │        └──► client (a host's API)      exit (why not, and which exit code)
//!                             └──► manifests, planner, image-store     progress: standard error
//! ```
//!
//! **Invariant:** nothing is decided here. What may be accepted is said by `manifests`, what is to be done by
//! `planner`, with the code that hosts run.

mod authority;
mod bundle;
mod check;
mod cli;
mod client;
mod cp;
mod debug;
mod events;
mod exec;
mod exit;
mod files;
mod fmt;
mod host;
mod identity;
mod import;
mod inspect;
mod keyfile;
mod login;
mod pin;
mod plan;
mod provision;
mod push;
mod reach;
mod receipt;
#[cfg(test)]
mod reference;
mod render;
mod secret;
mod sign;
mod store;
mod talk;
mod terminal;
mod trust;
mod update;
mod verify;
mod verify_image;
mod volumes;

use std::io::Write;
use std::process::ExitCode;

use clap::Parser;
use jiff::Timestamp;

use crate::cli::{Cli, Command, Global};
use crate::client::Host;
use crate::exit::{Failure, Outcome};
use crate::render::Out;

fn main() -> ExitCode {
    // Before there is a second thread: where this was started to parse a layer, it does nothing else.
    bennu_image_store::worker::run_if_asked();
    let cli = Cli::parse();
    let mut out = Out::new(cli.global.json);
    let outcome = run(&cli, &mut out);
    match outcome {
        Ok(code) => code.into(),
        Err(failure) => {
            if cli.global.json {
                // Where standard output is gone, too, the exit code is all that is left to say.
                let _ = out.write((failure.json() + "\n").as_bytes());
            } else {
                let _ = std::io::stderr().lock().write_all(failure.text().as_bytes());
            }
            failure.code().into()
        }
    }
}

fn run(cli: &Cli, out: &mut Out) -> Outcome {
    let now = Timestamp::now();
    match &cli.command {
        Command::Check(args) => check::run(args, now, out),
        Command::Schema => schema(out),
        Command::Fmt(args) => fmt::run(args, out),
        Command::Import(command) => import::run(command, now, out),
        Command::Sign(args) => sign::run(args, out),
        Command::Verify(args) => verify::run(args, now, out),
        Command::Trust(command) if !matches!(command, cli::Trust::Push { .. }) => trust::run(command, out),
        Command::Secret(command) => secret::run(command, out),
        Command::Provision(args) => provision::run(args, now, out),
        Command::Identity(args) => identity::run(args, now, out),
        Command::Plan(args) if let Some(state) = &args.state => plan::offline(&args.file, state, out),
        Command::Debug(command) => debug::run(command, out),
        Command::Store(args) => store::run(args, out),
        command => to_its_end(talk(command, &cli.global, now, out)),
    }
}

/// Prints the JSON Schema of manifests.
fn schema(out: &mut Out) -> Outcome {
    out.write(bennu_manifests::json_schema().as_bytes())?;
    Ok(0)
}

/// Commands that talk to something.
async fn talk(command: &Command, global: &Global, now: Timestamp, out: &mut Out) -> Outcome {
    match command {
        Command::Pin(args) => return pin::run(args, out).await,
        Command::VerifyImage(args) => return verify_image::run(args, out).await,
        Command::Bundle(command) => return bundle::run(command, now, out).await,
        _ => {}
    }
    let host = Host::choose(global)?;
    match command {
        Command::Plan(args) => plan::online(&host, args, out).await,
        Command::Push(args) => push::run(&host, args, out).await,
        Command::Trust(cli::Trust::Push { files }) => trust::push(&host, files, out).await,
        Command::Status => host::status(&host, now, out).await,
        Command::Why => update::why(&host, out).await,
        Command::Approve => update::approve(&host, out).await,
        Command::Confirm => update::confirm(&host, out).await,
        Command::Rollback => update::roll_back(&host, out).await,
        Command::Rebirth => update::rebirth(&host, out).await,
        Command::Facts => host::facts_for_checks(&host, out).await,
        Command::Ps(args) => host::containers(&host, args.stats, now, out).await,
        Command::Logs(args) => host::logs(&host, args, now, out).await,
        Command::Events(args) => events::run(&host, args, now, out).await,
        Command::Inspect { name } => inspect::run(&host, name, now, out).await,
        Command::History => host::history(&host, out).await,
        Command::Receipt { generation } => receipt::run(&host, *generation, out).await,
        Command::Images => host::images(&host, out).await,
        Command::Volumes { command } => volumes::run(&host, command.as_ref(), now, out).await,
        Command::Exec(args) => exec::run(&host, args, out).await,
        Command::DebugShell(args) => exec::debug_shell(&host, args, out).await,
        Command::Cp { source, target } => cp::run(&host, source, target, out).await,
        Command::Dump => host::dump(&host, out).await,
        _ => unreachable!("every other command was carried out before"),
    }
}

/// Runs work of a command to its end on this thread.
fn to_its_end<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::failed("start the runtime").because(e))?
        .block_on(work)
}
