//! The OS image, from its builder.

use bennu_os_image::{Disk, Event, Firmware, Inputs};

use crate::Error;
use crate::programs::Programs;

/// Builds the disk, or finds it in the cache.
///
/// # Errors
/// [`Error::Image`].
pub fn disk(programs: &Programs, progress: &dyn Fn(Event<'_>)) -> Result<Disk, Error> {
    let inputs =
        Inputs { hostd: &programs.hostd, hostctl: &programs.hostctl, init: &programs.init, progress };
    bennu_os_image::build(&inputs).map_err(|source| Error::Image { source })
}

/// The firmware of this machine's distribution.
///
/// # Errors
/// [`Error::Image`] where it is not installed.
pub fn firmware() -> Result<Firmware, Error> {
    bennu_os_image::firmware().map_err(|source| Error::Image { source })
}
