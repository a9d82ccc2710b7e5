//! Loads the kernel modules that the initrd brings.

use crate::{Failure, because, say};
use nix::errno::Errno;
use nix::kmod::{ModuleInitFlags, finit_module};
use std::fs::File;

/// Paths of the modules in the order of loading, one a line; written when the image is built, from `modules.dep`.
const LIST: &str = "/modules";

/// Loads every module of the list.
///
/// A module that does not load is no failure by itself: most are drivers for hardware that this machine has not.
/// What was truly needed is missed a moment later, by name.
pub(crate) fn load_all() -> Result<(), Failure> {
    let list = std::fs::read_to_string(LIST).map_err(|error| because(format!("read {LIST}"), error))?;
    for path in list.lines() {
        let file = File::open(path).map_err(|error| because(format!("open {path}"), error))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            // Not there, or not the processor for it; or it is loaded already.
            Ok(()) | Err(Errno::ENODEV | Errno::EEXIST) => {}
            Err(error) => say(&format!("cannot load {path}: {error}")),
        }
    }
    Ok(())
}
