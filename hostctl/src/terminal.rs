//! The terminal of whoever runs `hostctl`: raw while it is another machine's, and put back in every case.

use std::io::{self, IsTerminal as _, stdin, stdout};
use std::os::fd::AsFd as _;
use std::sync::{Mutex, PoisonError};

use bennu_api::Size;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcgetwinsize, tcsetattr};

use crate::exit::Failure;

/// How it was before; here, so that a panic puts it back, too: then nothing is dropped.
static BEFORE: Mutex<Option<Termios>> = Mutex::new(None);

/// The terminal is raw as long as this is there.
#[derive(Debug)]
pub(crate) struct Raw(());

impl Raw {
    /// Makes the terminal on standard input raw: each key goes on as it is, and none means anything here.
    pub(crate) fn enter() -> Result<Self, Failure> {
        let failed = |e: rustix::io::Errno| Failure::failed("use this terminal").because(io::Error::from(e));
        let before = tcgetattr(stdin()).map_err(failed)?;
        let mut raw = before.clone();
        raw.make_raw();
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        let said = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            restore();
            said(panic);
        }));
        // From here on dropping it puts back what was.
        let entered = Self(());
        tcsetattr(stdin(), OptionalActions::Drain, &raw).map_err(failed)?;
        Ok(entered)
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        restore();
    }
}

fn restore() {
    if let Some(before) = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // With the terminal gone there is nothing to put back.
        let _ = tcsetattr(stdin(), OptionalActions::Drain, &before);
    }
}

/// Whether standard input is a terminal.
pub(crate) fn is_there() -> bool {
    stdin().is_terminal()
}

/// The size of the terminal that is read from or written to; 80 times 24 where there is none, or it does not know.
pub(crate) fn size() -> Size {
    let (input, output) = (stdin(), stdout());
    let known =
        [input.as_fd(), output.as_fd()].into_iter().filter_map(|terminal| tcgetwinsize(terminal).ok());
    let mut known = known.filter(|size| size.ws_row > 0 && size.ws_col > 0);
    known
        .next()
        .map_or(Size { rows: 24, columns: 80 }, |size| Size { rows: size.ws_row, columns: size.ws_col })
}
