//! The program that the firmware starts: it starts the boot loader, and the machine again where that comes back.

use crate::BuildError;
use crate::command::{at, run};
use std::fs;
use std::path::Path;
use std::process::Command;

const SOURCE: &str = include_str!("../files/again.s");

/// Makes the program at `out`; temporary files go to `work`.
pub(crate) fn assemble(out: &Path, work: &Path) -> Result<(), BuildError> {
    let (source, object) = (work.join("again.s"), work.join("again.o"));
    fs::write(&source, SOURCE).map_err(at("write", &source))?;
    run(Command::new("as").arg("--64").arg("-o").arg(&object).arg(&source))?;
    run(Command::new("objcopy").args(["-O", "binary", "-j", ".text"]).arg(&object).arg(out))?;
    [source, object].iter().try_for_each(|path| fs::remove_file(path).map_err(at("remove", path)))
}

/// What the program is made of, for keys of caches.
pub(crate) fn source() -> &'static str {
    SOURCE
}
