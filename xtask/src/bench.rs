//! Figures, measured on the machine at hand; `docs/performance.md` keeps those of one.

mod manifest;
mod measure;
mod program;
mod runtime;
mod store;
mod update;

use std::path::PathBuf;

use clap::Subcommand;

use crate::Failure;
use crate::build;

/// What is measured.
#[derive(Debug, Subcommand)]
pub(crate) enum Bench {
    /// `hostctl check`: a manifest of 1,000 containers beside Python's tomllib and jsonschema, and the worst 1 MiB
    Manifest,
    /// `hostctl store`: pulls beside podman, containerd, docker, skopeo with umoci, and the least that any of them could take
    Store(store::Options),
    /// `hostd`: containers beside those of crun alone, podman and docker, in a virtual machine
    Runtime(runtime::Options),
    /// A new OS: its interruption beside a restart, a boot beside one of systemd alone, in a virtual machine; and its size
    Update(update::Options),
    /// Runs a program once and says what it took, for the others
    #[command(hide = true)]
    Measure {
        /// The program and its arguments
        #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
}

/// Measures.
///
/// # Errors
/// Where something cannot be built or run, or is over its bound.
pub(crate) fn bench(what: &Bench) -> Result<(), Failure> {
    match what {
        Bench::Manifest => manifest::bench(),
        Bench::Store(options) => store::bench(options),
        Bench::Runtime(options) => runtime::bench(options),
        Bench::Update(options) => update::bench(options),
        Bench::Measure { command } => measure::child(command),
    }
}

/// `hostctl` as it is released, built together with all that is: alone it would have other features of what it is made of.
fn build() -> Result<PathBuf, Failure> {
    Ok(build::programs()?.hostctl)
}
