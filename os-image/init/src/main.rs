//! The first program of the initrd: finds the state partition, checks the OS root named on the kernel's command
//! line against its fs-verity digest, mounts it and hands the machine to systemd.
//!
//! ```text
//! modules ──► command line ──► state partition ──► blob, measured ──► root = EROFS + throw-away /etc, /var ──► systemd
//! ```
//!
//! **Invariant:** there is no shell and no way on after a refusal: the reason is printed and the machine starts
//! again. Nothing of the root is read before its digest was compared.

mod command_line;
mod modules;
mod partition;
mod root;
mod verity;

use modules::Modules;
use nix::sys::reboot::{RebootMode, reboot};
use std::convert::Infallible;
use std::time::Duration;

/// How long a machine stands still after it could not boot, so that a person can read why.
const PAUSE: Duration = Duration::from_secs(10);
/// The same where the loader has nothing else left to start: nothing is gained by starting again soon.
const LAST_PAUSE: Duration = Duration::from_secs(300);

/// Why the machine cannot boot: what was being done, and the causes below it.
type Failure = Box<dyn std::error::Error>;

fn main() {
    let Err(failure) = boot();
    say(&format!("cannot boot: {}", chain(failure.as_ref())));
    let (pause, last) = match root::is_counted_entry() {
        Ok(true) => (PAUSE, ""),
        Ok(false) => (LAST_PAUSE, ", and nothing else is left to start"),
        // Who can't be asked is no reason to keep a machine from its other entries.
        Err(error) => {
            say(&format!("cannot tell whether there is another entry: {error}"));
            (PAUSE, "")
        }
    };
    say(&format!("starting again in {} s{last}", pause.as_secs()));
    std::thread::sleep(pause);
    nix::unistd::sync();
    // The first process must not end: the kernel would panic, and say nothing of the reason. If the kernel refuses
    // to reboot there is nothing left to try.
    let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
    say(&format!("cannot reboot: {error}"));
    loop {
        nix::unistd::pause();
    }
}

fn boot() -> Result<Infallible, Failure> {
    root::mount_kernel_file_systems()?;
    let mut modules = Modules::load()?;
    let text =
        std::fs::read("/proc/cmdline").map_err(|error| because("read the kernel's command line", error))?;
    let wanted = command_line::root_digest(&text)?;
    let device = partition::wait_for_state(|| modules.load_for_new_devices())?;
    root::mount_state(&device)?;
    let blob = verity::open_checked(&wanted)?;
    root::mount_root(&blob)?;
    drop(blob);
    root::keep_measurements()?;
    root::switch_to_systemd()
}

/// Writes a line to the console, which is where standard output of the first process goes. A machine whose console
/// cannot be written to boots all the same.
fn say(line: &str) {
    use std::io::Write as _;
    writeln!(std::io::stdout(), "bennu-init: {line}").ok();
}

/// A failed system call, with what it was for.
#[derive(Debug)]
struct Because {
    doing: String,
    cause: std::io::Error,
}

impl std::fmt::Display for Because {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}", self.doing)
    }
}

impl std::error::Error for Because {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.cause)
    }
}

/// Names what a failed system call was for.
fn because(doing: impl Into<String>, cause: impl Into<std::io::Error>) -> Because {
    Because { doing: doing.into(), cause: cause.into() }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    std::iter::successors(Some(error), |error| error.source())
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join(": ")
}
