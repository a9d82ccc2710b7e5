//! `cargo xtask image`: the bootable disk and the image that hosts update themselves from, with a line for each stage.

use crate::{Failure, build, packages};
use bennu_os_image::{
    Disk, Enroll, Event, Inputs, Keys as Signing, Measured, OsImage, Packages, SecureBoot, Variant,
};
use clap::Args;
use std::path::PathBuf;

/// What is built.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Sign what boots with the keys in this folder, for Secure Boot
    #[arg(long, value_name = "FOLDER")]
    secure_boot: Option<PathBuf>,
    /// Have machines that are not virtual take these keys into their firmware, too, where it has no owner yet
    #[arg(long, requires = "secure_boot")]
    enroll_everywhere: bool,
    /// Sign what a TPM measures with the key in this folder, for hosts that seal their state
    #[arg(long, value_name = "FOLDER")]
    measured: Option<PathBuf>,
    /// Build the image that hosts update themselves from, called by this version, rather than a disk
    #[arg(long, value_name = "VERSION")]
    release: Option<String>,
}

/// Where keys are made.
#[derive(Debug, Args)]
pub(crate) struct Keys {
    /// The folder; it must not have keys
    folder: PathBuf,
    /// What the certificates are called
    #[arg(long, default_value = "Bennu")]
    owner: String,
}

/// Builds what is asked for, and prints what and where it is.
///
/// # Errors
/// As [`image`].
pub(crate) fn make(arguments: &Arguments) -> Result<(), Failure> {
    let enroll = match arguments.enroll_everywhere {
        true => Enroll::Everywhere,
        false => Enroll::InVirtualMachines,
    };
    let secure_boot =
        arguments.secure_boot.as_ref().map(|folder| SecureBoot::of(folder, enroll)).transpose()?;
    let measured = arguments.measured.as_deref().map(Measured::of).transpose()?;
    if secure_boot.is_some() || measured.is_some() {
        packages::install(packages::SECURE_BOOT)?;
    }
    let keys = Signing { secure_boot: secure_boot.as_ref(), measured: measured.as_ref() };
    match &arguments.release {
        Some(version) => {
            let variant = Variant::of_version(version);
            let made = with_inputs(keys, |inputs| bennu_os_image::os_image(inputs, &variant))?;
            print_release(&made);
        }
        None => print(&with_inputs(keys, bennu_os_image::build)?),
    }
    Ok(())
}

/// Makes keys for Secure Boot and for measured boot.
///
/// # Errors
/// Where there are keys, or where a program fails.
pub(crate) fn keys(arguments: &Keys) -> Result<(), Failure> {
    packages::install(packages::SECURE_BOOT)?;
    SecureBoot::create(&arguments.folder, &arguments.owner)?;
    Measured::create(&arguments.folder)?;
    let folder = arguments.folder.display();
    println!("keys     {folder}");
    println!("sign     cargo xtask image --secure-boot {folder} --measured {folder}");
    println!(
        "keep     PK.key and KEK.key away from the machine that builds: they decide whom the firmware trusts"
    );
    Ok(())
}

/// Builds the disk, or finds it in the cache, after everything it needs.
///
/// # Errors
/// Whatever stopped it: a package, a program of ours that does not compile, or a stage of the image.
pub(crate) fn image() -> Result<Disk, Failure> {
    with_inputs(Signing::default(), bennu_os_image::build)
}

fn with_inputs<T>(
    keys: Signing<'_>,
    make: impl FnOnce(&Inputs<'_>) -> Result<T, bennu_os_image::BuildError>,
) -> Result<T, Failure> {
    packages::install(packages::IMAGE)?;
    let programs = build::programs()?;
    let inputs = Inputs {
        hostd: &programs.hostd,
        hostctl: &programs.hostctl,
        init: &programs.init,
        keys,
        packages: Packages::Current,
        progress: &report,
    };
    Ok(make(&inputs)?)
}

/// Prints what the disk is and where, for a person.
fn print(disk: &Disk) {
    println!("disk     {}", disk.qcow2.display());
    println!("version  {}", disk.version);
    println!("packages {}", disk.packages);
    println!("root     sha256:{}", disk.root_digest);
    println!("key      {}", disk.key);
}

/// Prints what the image is, where it is, and what to do with it.
fn print_release(image: &OsImage) {
    println!("layout   {}", image.layout.display());
    println!("digest   {}", image.digest);
    println!("packages {}", image.packages);
    println!("root     sha256:{}", image.root_digest);
    println!("push     skopeo copy --preserve-digests oci:{} docker://…", image.layout.display());
}

fn report(event: Event<'_>) {
    match event {
        Event::Started(stage) => eprintln!("{stage:<14} …"),
        Event::Unasked(why) => {
            eprintln!("{:<14} packages as they were installed last, which may lack fixes: {why}", "");
        }
        Event::Finished { stage, bytes, took, cached } => {
            let mib = bytes.div_ceil(1 << 20);
            let how = if cached { "cached" } else { "built" };
            eprintln!("{stage:<14} {how}, {mib} MiB, {:.1} s", took.as_secs_f64());
        }
    }
}
