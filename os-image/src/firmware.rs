//! Where the distribution keeps the UEFI firmware for virtual machines.

use crate::BuildError;
use std::path::{Path, PathBuf};

/// UEFI firmware as two flash images.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Firmware {
    /// The code: map it read-only.
    pub code: PathBuf,
    /// Empty variables: each machine needs a copy of its own.
    pub vars: PathBuf,
}

/// Code and variables of Debian's and Ubuntu's `ovmf` package, best first: the 4 MiB builds without Secure Boot
/// (Debian 12 and 13, Ubuntu 24.04), then the 2 MiB ones (Debian 12).
const PLACES: [(&str, &str); 2] = [
    ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("/usr/share/OVMF/OVMF_CODE.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
];

/// Finds the firmware of this machine's distribution.
///
/// # Errors
/// [`BuildError::NoFirmware`] where the package is not installed.
pub fn firmware() -> Result<Firmware, BuildError> {
    find(&PLACES)
}

/// The builds with Secure Boot and without anybody's keys, which keep their variables by System Management Mode.
const SECURE: [(&str, &str); 1] =
    [("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd")];

/// As [`firmware`], but firmware that can be told whose programs to start.
///
/// # Errors
/// As [`firmware`].
pub fn secure_firmware() -> Result<Firmware, BuildError> {
    find(&SECURE)
}

fn find(places: &[(&str, &str)]) -> Result<Firmware, BuildError> {
    let names = || places.iter().map(|(code, _)| *code).collect::<Vec<_>>().join(", ");
    places
        .iter()
        .find(|(code, vars)| Path::new(code).is_file() && Path::new(vars).is_file())
        .map(|(code, vars)| Firmware { code: code.into(), vars: vars.into() })
        .ok_or_else(|| BuildError::NoFirmware { looked_for: names() })
}
