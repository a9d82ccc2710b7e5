//! `cargo xtask image`: the bootable disk, with a line for each stage.

use crate::{Failure, build, packages};
use bennu_os_image::{Disk, Event, Inputs};

/// Builds the disk, or finds it in the cache, after everything it needs.
///
/// # Errors
/// Whatever stopped it: a package, a program of ours that does not compile, or a stage of the image.
pub(crate) fn image() -> Result<Disk, Failure> {
    packages::install(packages::IMAGE)?;
    let programs = build::programs()?;
    let inputs = Inputs {
        hostd: &programs.hostd,
        hostctl: &programs.hostctl,
        init: &programs.init,
        progress: &report,
    };
    Ok(bennu_os_image::build(&inputs)?)
}

/// Prints what the disk is and where, for a person.
pub(crate) fn print(disk: &Disk) {
    println!("disk     {}", disk.qcow2.display());
    println!("version  {}", disk.version);
    println!("root     sha256:{}", disk.root_digest);
    println!("key      {}", disk.key);
}

fn report(event: Event<'_>) {
    match event {
        Event::Started(stage) => eprintln!("{stage:<14} …"),
        Event::Finished { stage, bytes, took, cached } => {
            let mib = bytes.div_ceil(1 << 20);
            let how = if cached { "cached" } else { "built" };
            eprintln!("{stage:<14} {how}, {mib} MiB, {:.1} s", took.as_secs_f64());
        }
    }
}
