//! Commands inside containers.
//!
//! `POST /v1/exec` runs a command and answers with a stream of [`ExecOutput`]. `GET /v1/exec` and `GET /v1/debug-shell`
//! become a WebSocket (RFC 6455), over which both sides talk:
//!
//! ```text
//! client                                  host
//! text    [`ToCommand::Start`], first ──►
//! text    [`ToCommand`]               ──►
//! binary  bytes for standard input    ──►
//!                                     ◄── text    [`FromCommand`]; an exit or a problem is the last
//!                                     ◄── binary  [`STDOUT`] or [`STDERR`], then the bytes
//! ```
//!
//! When the socket closes before the command ended, the command and all that it started gets `SIGHUP`, and is killed a
//! little later.

use bennu_manifests::model::{ImageRef, Name};
use serde::{Deserialize, Serialize};

use crate::Problem;

/// A command to run inside a container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The container.
    #[cfg_attr(test, schemars(with = "String"))]
    pub container: Name,
    /// The program and its arguments, at least one.
    pub command: Vec<String>,
}

/// What a command wrote, or how it ended.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum ExecOutput {
    /// Bytes on standard output, in base64.
    Stdout {
        /// The bytes.
        data: String,
    },
    /// Bytes on standard error, in base64.
    Stderr {
        /// The bytes.
        data: String,
    },
    /// It ended.
    Exit {
        /// Its exit code; 128 and the signal's number where a signal ended it.
        code: i32,
    },
}

/// The first byte of a binary message with bytes of standard output.
pub const STDOUT: u8 = 1;

/// The first byte of a binary message with bytes of standard error.
pub const STDERR: u8 = 2;

/// The largest message of a socket, in bytes.
pub const MAX_MESSAGE: usize = 256 << 10;

/// What a client says to a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "kind", deny_unknown_fields)]
pub enum ToCommand {
    /// Run it; the first message and no other.
    Start(Box<Start>),
    /// The terminal has another size now.
    Resize(Size),
    /// Nothing more comes for its standard input.
    EndOfInput,
}

/// A command that is talked with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Start {
    /// The container.
    #[cfg_attr(test, schemars(with = "String"))]
    pub container: Name,
    /// The program and its arguments, at least one. For a debugging shell it may be empty: then it is the image's own.
    pub command: Vec<String>,
    /// Whether it gets what the client sends; else its standard input is empty.
    #[serde(default)]
    pub input: bool,
    /// The terminal that it gets; `None` is none.
    #[serde(default)]
    pub terminal: Option<Terminal>,
    /// The image of a debugging shell, which `GET /v1/debug-shell` needs and `GET /v1/exec` refuses.
    #[serde(default)]
    #[cfg_attr(test, schemars(with = "Option<String>"))]
    pub image: Option<ImageRef>,
}

/// A terminal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Terminal {
    /// What the client's is called (`TERM`): letters, digits, `-`, `+`, `.` and `_`, at most 64 of them; empty where it is
    /// not known.
    #[serde(default)]
    pub name: String,
    /// Its size.
    pub size: Size,
}

/// The size of a terminal, in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields)]
pub struct Size {
    /// Lines.
    pub rows: u16,
    /// Characters in a line.
    pub columns: u16,
}

/// What a host says of a command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum FromCommand {
    /// It ended; the last message.
    Exit {
        /// Its exit code; 128 and the signal's number where a signal ended it.
        code: i32,
    },
    /// It was not run; the last message.
    Problem {
        /// Why.
        problem: Problem,
    },
}
