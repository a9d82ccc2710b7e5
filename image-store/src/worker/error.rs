//! Why a worker did not do its work.

use std::io;
use std::process::ExitStatus;
use std::time::Duration;

/// What went wrong with the process that parses a layer, rather than with the layer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WorkerError {
    /// There is no process.
    #[error("could not start the process that parses layers")]
    Start(#[source] io::Error),
    /// The kernel does not take its rights away, and without that it reads nothing.
    #[error("could not confine the process that parses layers: {0}")]
    Confine(String),
    /// It ended without a word: it ran into one of its bounds, or the layer broke it.
    #[error("the process that parses the layer ended early, {status}")]
    Ended {
        /// How it ended.
        status: ExitStatus,
    },
    /// It did nothing, and was ended.
    #[error("the process that parses the layer did nothing for {} s and was ended", .0.as_secs())]
    Stalled(Duration),
    /// What it says is no report, or does not fit what it did.
    #[error("the process that parses the layer says something that is not so: {0}")]
    Untrue(&'static str),
    /// The pipe to it failed.
    #[error("could not talk to the process that parses the layer")]
    Pipe(#[source] io::Error),
}
