//! The OS image, from its builder.

use bennu_os_image::{Disk, Event, Firmware, Inputs, Keys, Packages};

use crate::Error;
use crate::programs::Programs;

/// Builds the disk, or finds it in the cache. What boots is signed with the keys, where there are any.
///
/// # Errors
/// [`Error::Image`].
pub fn disk(programs: &Programs, keys: Keys<'_>, progress: &dyn Fn(Event<'_>)) -> Result<Disk, Error> {
    bennu_os_image::build(&inputs(programs, keys, progress)).map_err(|source| Error::Image { source })
}

/// What an operating system is built from.
pub(crate) fn inputs<'a>(
    programs: &'a Programs,
    keys: Keys<'a>,
    progress: &'a dyn Fn(Event<'_>),
) -> Inputs<'a> {
    // The archive is asked before the tests run, by `cargo xtask`, and not by each of them.
    let packages = Packages::AsInstalled;
    Inputs {
        hostd: &programs.hostd,
        hostctl: &programs.hostctl,
        init: &programs.init,
        keys,
        packages,
        progress,
    }
}

/// The firmware of this machine's distribution.
///
/// # Errors
/// [`Error::Image`] where it is not installed.
pub fn firmware() -> Result<Firmware, Error> {
    bennu_os_image::firmware().map_err(|source| Error::Image { source })
}

/// The same with Secure Boot, and without anybody's keys yet.
///
/// # Errors
/// [`Error::Image`] where it is not installed.
pub fn secure_firmware() -> Result<Firmware, Error> {
    bennu_os_image::secure_firmware().map_err(|source| Error::Image { source })
}
