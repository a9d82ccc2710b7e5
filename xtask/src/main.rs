//! What developers run: builds, tests and virtual machines, as `cargo xtask COMMAND`.

mod bench;
mod build;
mod demo;
mod fuzz;
mod image;
mod packages;
mod session;
mod steps;
mod test;
mod vm;

use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// Why a command failed: one message, with its causes below it.
type Failure = Box<dyn std::error::Error>;

/// Builds, tests and virtual machines of Bennu.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Builds the bootable disk, or finds it in the cache
    Image(image::Arguments),
    /// Makes keys for Secure Boot in a new folder
    Keys(image::Keys),
    /// Installs the packages that building and testing need
    Packages,
    /// Boots a host and makes it what one signed manifest says: nginx and redis
    Demo {
        /// Power off, remove what was started, and say `demo ok`
        #[arg(long)]
        once: bool,
    },
    /// Measures, and fails where something is over its bound
    #[command(subcommand)]
    Bench(bench::Bench),
    /// Tries inputs that break a parser, from the kept corpus on
    Fuzz(fuzz::Fuzz),
    /// Runs every check and test
    Test,
    /// Keeps a host for trying things by hand
    #[command(subcommand)]
    Vm(vm::Vm),
}

fn main() -> ExitCode {
    let done = match Arguments::parse().command {
        Command::Image(arguments) => image::make(&arguments),
        Command::Keys(arguments) => image::keys(&arguments),
        Command::Demo { once } => demo::demo(once),
        Command::Bench(what) => bench::bench(&what),
        Command::Fuzz(args) => fuzz::fuzz(&args),
        Command::Test => test::test(),
        Command::Vm(command) => vm::vm(command),
        Command::Packages => packages::install(&[packages::IMAGE, packages::TEST].concat()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let causes = std::iter::successors(failure.source(), |error| error.source());
            let chain = causes.fold(failure.to_string(), |text, cause| format!("{text}: {cause}"));
            eprintln!("error: {chain}");
            ExitCode::FAILURE
        }
    }
}
