//! Decompressing: the decoders, and a child that runs one of them as a reader.

use std::io::{self, BufRead, Read};
use std::process::{ChildStdin, ChildStdout, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;

use super::report::Report;
use super::role::{Packed, Task};
use super::start::{Running, Timed};
use super::{Program, WorkerError};

/// Decompresses in this process.
pub(crate) fn decoder<'a>(from: impl BufRead + 'a, packed: Packed) -> io::Result<Box<dyn Read + 'a>> {
    Ok(match packed {
        Packed::Gzip => Box::new(flate2::bufread::MultiGzDecoder::new(from)),
        Packed::Zstd { window_log } => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(from)?;
            decoder.window_log_max(window_log)?;
            Box::new(decoder)
        }
    })
}

/// What a child decompresses. Its end is only reported where the child says so and all bytes came that it was to get. An error that
/// is a [`WorkerError`] inside is the child's, any other one that of the bytes.
#[derive(Debug)]
pub(crate) struct Unpacked {
    running: Running,
    unpacked: Timed<ChildStdout>,
    feeding: Option<JoinHandle<io::Result<()>>>,
    /// Whether there is nothing more to give, so that the child has no reason to wait.
    fed: Arc<AtomicBool>,
    ended: bool,
}

impl Unpacked {
    /// Starts a child that decompresses what `from` gives.
    pub(crate) fn new(
        program: &Program,
        from: impl BufRead + Send + 'static,
        packed: Packed,
    ) -> Result<Self, WorkerError> {
        let (mut running, input) = program.start(&Task::Unpack(packed), Stdio::piped())?;
        let unpacked = Timed::new(running.output().expect("it was asked for"), program.patience);
        let fed = Arc::new(AtomicBool::new(false));
        let told = fed.clone();
        let feeding = std::thread::Builder::new().name("feed".to_owned()).spawn(move || {
            let fed = feed(from, input);
            told.store(true, Ordering::Release);
            fed
        });
        let feeding = Some(feeding.map_err(WorkerError::Start)?);
        Ok(Self { running, unpacked, feeding, fed, ended: false })
    }

    /// Why there are no more bytes; nothing where they were all there are.
    fn end(&mut self) -> io::Result<()> {
        let report = self.running.report::<()>().map_err(io::Error::other)?;
        match report {
            Report::Done(()) => {}
            Report::Read(fault) | Report::Write(fault) => return Err(fault.into()),
            Report::Refused(_) | Report::Unconfined(_) => {
                return Err(io::Error::other(WorkerError::Untrue("it does not read archives")));
            }
        }
        match self.feeding.take() {
            Some(feeding) => feeding.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)),
            None => Ok(()),
        }
    }
}

/// Gives the child all that `from` has, as long as it takes it.
fn feed(mut from: impl BufRead, mut input: Timed<ChildStdin>) -> io::Result<()> {
    loop {
        let bytes = match from.fill_buf() {
            Ok([]) => return Ok(()),
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let count = bytes.len();
        match input.give(bytes) {
            Ok(true) => from.consume(count),
            // It says itself why it wants no more.
            Ok(false) => return Ok(()),
            Err(error) => return Err(io::Error::other(error)),
        }
    }
}

impl Read for Unpacked {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.ended {
            return Ok(0);
        }
        loop {
            let waited_for_nothing = self.fed.load(Ordering::Acquire);
            match self.unpacked.read(buf) {
                // The network may be as slow as it likes: it has bounds of its own.
                Err(error) if error.kind() == io::ErrorKind::TimedOut && !waited_for_nothing => {}
                Err(error) => {
                    let patience = self.running.patience();
                    return Err(io::Error::other(super::start::failed(error, patience)));
                }
                Ok(0) if !buf.is_empty() => {
                    self.ended = true;
                    return self.end().map(|()| 0);
                }
                read => return read,
            }
        }
    }
}
