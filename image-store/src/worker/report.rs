//! What a worker says at its end, on its standard error, as JSON.
//!
//! A worker that a layer has broken says what the layer wants, so a report is one more piece of a stranger's input: bounded, without
//! a character that could move a cursor, and never more than a claim.

use std::io::{self, Read};

use bennu_manifests::model::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::layer::ConvertError;
use crate::tar::{Refusal, TarError};

/// The longest report that is read, in bytes.
const MAX_REPORT: u64 = 64 << 10;

/// How it went.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Report<T> {
    /// All of it is done.
    Done(T),
    /// The archive is refused.
    Refused(Refusal),
    /// What came cannot be read.
    Read(Fault),
    /// The file cannot be written.
    Write(Fault),
    /// It could not give up its rights, and did nothing.
    Unconfined(String),
}

/// The blob that was made.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) struct Made {
    pub(super) blob: Digest,
    pub(super) size: u64,
    pub(super) open: bool,
}

/// An [`io::Error`].
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Fault {
    /// `errno(3)`, where the kernel said it.
    errno: Option<i32>,
    kind: Kind,
    message: String,
}

/// Those of [`io::ErrorKind`] that anybody looks at.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Kind {
    UnexpectedEof,
    InvalidData,
    InvalidInput,
    StorageFull,
    Other,
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::UnexpectedEof => Kind::UnexpectedEof,
            io::ErrorKind::InvalidData => Kind::InvalidData,
            io::ErrorKind::InvalidInput => Kind::InvalidInput,
            io::ErrorKind::StorageFull => Kind::StorageFull,
            _ => Kind::Other,
        };
        Self { errno: error.raw_os_error(), kind, message: error.to_string() }
    }
}

impl From<Fault> for io::Error {
    fn from(fault: Fault) -> Self {
        if let Some(errno) = fault.errno {
            return Self::from_raw_os_error(errno);
        }
        let kind = match fault.kind {
            Kind::UnexpectedEof => io::ErrorKind::UnexpectedEof,
            Kind::InvalidData => io::ErrorKind::InvalidData,
            Kind::InvalidInput => io::ErrorKind::InvalidInput,
            Kind::StorageFull => io::ErrorKind::StorageFull,
            Kind::Other => io::ErrorKind::Other,
        };
        Self::new(kind, fault.message)
    }
}

impl From<ConvertError> for Report<Made> {
    fn from(error: ConvertError) -> Self {
        match error {
            ConvertError::Tar(TarError::Refused(refusal)) => Self::Refused(refusal),
            ConvertError::Tar(TarError::Read(error)) => Self::Read(error.into()),
            ConvertError::Write(error) => Self::Write(error.into()),
        }
    }
}

/// Reads a report to its end; `None` for anything that is none.
pub(super) fn read<T: DeserializeOwned>(from: impl Read) -> io::Result<Option<Report<T>>> {
    let mut bytes = Vec::new();
    from.take(MAX_REPORT + 1).read_to_end(&mut bytes)?;
    Ok(parse(&bytes))
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Option<Report<T>> {
    if bytes.len() as u64 > MAX_REPORT {
        return None;
    }
    let value: Value = serde_json::from_slice(bytes).ok()?;
    if !is_printable(&value) {
        return None;
    }
    serde_json::from_value(value).ok()
}

/// Whether no text in it has more than what [`crate::tar::printable`] leaves. serde_json bounds how deep it can be.
fn is_printable(value: &Value) -> bool {
    match value {
        Value::String(text) => text.chars().all(|c| c == ' ' || c == '…' || c.is_ascii_graphic()),
        Value::Array(values) => values.iter().all(is_printable),
        // The letter of a kind of entry may be any byte, and is escaped where it is shown.
        Value::Object(values) => values.iter().all(|(key, value)| {
            is_printable(value)
                || key == "type" && value.as_str().is_some_and(|kind| kind.chars().count() == 1)
        }),
        Value::Null | Value::Bool(_) | Value::Number(_) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tar::Reason;

    fn back(report: &Report<Made>) -> Option<Report<Made>> {
        parse(&serde_json::to_vec(report).expect("JSON"))
    }

    #[test]
    fn what_a_worker_says_arrives_as_it_was() {
        let refusal = |path: &str| Refusal {
            offset: 512,
            path: Some(path.to_owned()),
            reason: Reason::TooMuch { what: "entries".into(), limit: 7 },
        };
        assert!(
            matches!(back(&Report::Refused(refusal("a/b"))), Some(Report::Refused(r)) if r == refusal("a/b"))
        );
        let full = io::Error::from_raw_os_error(nix::errno::Errno::ENOSPC as i32);
        let Some(Report::Write(fault)) = back(&Report::Write(full.into())) else { panic!("another report") };
        assert_eq!(io::Error::from(fault).kind(), io::ErrorKind::StorageFull);
        let short = io::Error::new(io::ErrorKind::UnexpectedEof, "it ends in the middle");
        let Some(Report::Read(fault)) = back(&Report::Read(short.into())) else { panic!("another report") };
        let fault = io::Error::from(fault);
        assert_eq!(
            (fault.kind(), fault.to_string().as_str()),
            (io::ErrorKind::UnexpectedEof, "it ends in the middle")
        );
    }

    #[test]
    fn a_report_that_could_move_a_cursor_or_has_no_end_is_none() {
        let refusal = Refusal { offset: 0, path: Some("\u{1b}[2J".to_owned()), reason: Reason::Checksum };
        assert!(back(&Report::Refused(refusal)).is_none());
        let endless = format!(r#"{{"unconfined":"{}"}}"#, "x".repeat(MAX_REPORT as usize));
        assert!(parse::<Made>(endless.as_bytes()).is_none());
        for text in
            ["", "{}", "thread panicked", r#"{"done":null}"#, r#"{"done":{"blob":"x","size":1,"open":true}}"#]
        {
            assert!(parse::<Made>(text.as_bytes()).is_none(), "{text}");
        }
    }
}
