//! A layer becomes a blob in a child.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::report::{Made, Report};
use super::role::Task;
use super::start::as_output;
use super::{Program, WorkerError};
use crate::layer::{Below, ConvertError, Converted};
use crate::sha256::HashingReader;
use crate::tar::{Limits, Reason, Refusal, TarError};

/// Bytes that are given to the child at a time.
const BUFFER: usize = 1 << 17;

/// Why there is no blob.
#[derive(Debug)]
pub(crate) enum Failed {
    /// By the fault of the layer, of the source or of the disk.
    Layer(ConvertError),
    Worker(WorkerError),
}

impl<E: Into<ConvertError>> From<E> for Failed {
    fn from(error: E) -> Self {
        Self::Layer(error.into())
    }
}

impl From<WorkerError> for Failed {
    fn from(error: WorkerError) -> Self {
        Self::Worker(error)
    }
}

/// As [`crate::layer::convert`]; `out` is written by a child of `program`, and open nowhere else when this returns. The diff id and the number of bytes are those of what the
/// child was given. The digest of the blob, and whether the layer is open, are what the child says: the length fits the file, and
/// whether the digest does, is for the caller to see.
pub(crate) fn convert(
    program: &Program,
    reader: impl Read,
    out: File,
    spill: &Path,
    limits: Limits,
    below: Below,
) -> Result<Converted, Failed> {
    let spill = std::path::absolute(spill).map_err(ConvertError::Write)?;
    let (mut running, mut input) =
        program.start(&Task::Convert { limits, below, spill }, as_output(&out)?)?;
    let mut tar = HashingReader::new(reader);
    let mut buffer = vec![0; BUFFER];
    let mut cut = None;
    let all = loop {
        match tar.read(&mut buffer) {
            Ok(0) => break true,
            Ok(n) if !input.give(&buffer[..n])? => break false,
            // The child sees that, too; this is for one that does not want to.
            Ok(_) if tar.count() > limits.bytes.saturating_add(BUFFER as u64) => break false,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                cut = Some(error);
                break false;
            }
        }
    };
    drop(input);
    let report = running.report::<Made>();
    if let Some(error) = cut {
        // What was wrong before the bytes ended was seen before.
        return Err(match report {
            Ok(Report::Refused(refusal)) if refusal.reason != Reason::Truncated => TarError::Refused(refusal),
            _ => TarError::Read(error),
        }
        .into());
    }
    let made = match report? {
        Report::Done(made) => made,
        Report::Refused(refusal) => Err(TarError::Refused(refusal))?,
        Report::Read(fault) => Err(TarError::Read(fault.into()))?,
        Report::Write(fault) => Err(ConvertError::Write(fault.into()))?,
        Report::Unconfined(why) => Err(WorkerError::Confine(why))?,
    };
    if tar.count() > limits.bytes {
        let reason = Reason::TooMuch { what: "bytes in the archive".into(), limit: limits.bytes };
        Err(TarError::Refused(Refusal { offset: limits.bytes, path: None, reason }))?;
    }
    if !all {
        Err(WorkerError::Untrue("it did not read all of the layer"))?;
    }
    let written = out.metadata().map_err(ConvertError::Write)?.len();
    if written != made.size {
        Err(WorkerError::Untrue("the blob has another length"))?;
    }
    let (diff_id, tar_size) = tar.finish();
    Ok(Converted { diff_id, tar_size, blob: made.blob, size: made.size, open: made.open })
}
