//! What the children do.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::NAME;
use super::confine::{Bounds, close_others, confine, unnamed};
use super::report::{Made, Report};
use super::unpack::decoder;
use crate::layer::{self, Below};
use crate::spill::Scratch;
use crate::tar::Limits;

/// Bytes that are read or written at a time.
const BUFFER: usize = 1 << 17;
/// Bytes that are read of a tar at least, so that the headers of small files are not each asked for. What is left of the data of a
/// large file is read to its place, if that is more.
const READ_AHEAD: usize = 1 << 16;
/// Memory of the decompressor beside a window of zstd: the state of inflate, and buffers.
const UNPACKING: u64 = 16 << 20;
/// Memory of the converter: the most that a layer within [`Limits`] can need.
const CONVERTING: u64 = 1 << 30;

/// What a child is to do, as its only argument says in JSON.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Task {
    /// Decompress standard input to standard output.
    Unpack(Packed),
    /// Make a blob in standard output of the tar on standard input.
    Convert {
        limits: Limits,
        below: Below,
        /// Where temporary files are made, before the first byte is read.
        spill: PathBuf,
    },
}

/// How a layer is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Packed {
    Gzip,
    Zstd {
        /// The largest window, as a power of two.
        window_log: u32,
    },
}

/// Does the work of a process that parses layers where this one was started as such, and ends it then; else does nothing. A program
/// that gives [`super::Program::this`] to a store calls it before anything else: it must be alone, with one thread.
pub fn run_if_asked() {
    let mut arguments = std::env::args_os();
    if arguments.next().is_none_or(|name| name != NAME) {
        return;
    }
    let task = arguments.next().and_then(|task| serde_json::from_str(task.to_str()?).ok());
    let said = match task {
        Some(Task::Unpack(packed)) => said(unpack(packed)),
        Some(Task::Convert { limits, below, spill }) => said(convert(limits, below, &spill)),
        None => b"this is no program to be started by hand\n".to_vec(),
    };
    // Where nobody listens any more there is nothing left to do.
    let _ = io::stderr().write_all(&said);
    std::process::exit(0);
}

fn said<T: Serialize>(report: Report<T>) -> Vec<u8> {
    serde_json::to_vec(&report).expect("a report is plain data")
}

fn unpack(packed: Packed) -> Report<()> {
    let window = match packed {
        Packed::Gzip => 0,
        Packed::Zstd { window_log } => 1 << window_log.min(31),
    };
    let confined = || {
        close_others()?;
        let files = (input()?, output()?);
        confine(Bounds { memory: UNPACKING + 2 * window, file: 0 })?;
        Ok(files)
    };
    let (input, mut output) = match confined() {
        Ok(files) => files,
        Err(why) => return Report::Unconfined(why),
    };
    let mut decoder = match decoder(BufReader::with_capacity(BUFFER, input), packed) {
        Ok(decoder) => decoder,
        Err(error) => return Report::Read(error.into()),
    };
    let mut buffer = vec![0; BUFFER];
    loop {
        match decoder.read(&mut buffer) {
            Ok(0) => return Report::Done(()),
            Ok(n) => {
                if let Err(error) = output.write_all(&buffer[..n]) {
                    return Report::Write(error.into());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Report::Read(error.into()),
        }
    }
}

fn convert(limits: Limits, below: Below, spill: &Path) -> Report<Made> {
    let confined = || {
        close_others()?;
        let files = (input()?, output()?, Scratch::Files { tails: unnamed(spill)?, leaves: unnamed(spill)? });
        confine(Bounds { memory: CONVERTING, file: largest_blob(limits) })?;
        Ok(files)
    };
    let (tar, out, scratch) = match confined() {
        Ok(files) => files,
        Err(why) => return Report::Unconfined(why),
    };
    let tar = BufReader::with_capacity(READ_AHEAD, tar);
    match layer::build(tar, out, scratch, limits, below) {
        Ok((_, _, built)) => Report::Done(Made { blob: built.blob, size: built.size, open: built.open }),
        Err(error) => error.into(),
    }
}

/// More bytes than the blob of a layer within these limits has: data, names, inodes, their padding, and the leaves.
fn largest_blob(limits: Limits) -> u64 {
    let content = limits.bytes.saturating_add(limits.metadata_bytes).saturating_mul(2);
    content.saturating_add(limits.entries.saturating_mul(512)).saturating_add(16 << 20)
}

fn input() -> Result<File, String> {
    own(io::stdin().as_fd())
}

fn output() -> Result<File, String> {
    own(io::stdout().as_fd())
}

/// The same file, without the buffers of the standard library.
fn own(of: impl AsFd) -> Result<File, String> {
    let file = of.as_fd().try_clone_to_owned();
    file.map(File::from).map_err(|error| format!("its files: {error}"))
}
