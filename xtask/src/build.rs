//! Builds the programs of the image with cargo.

use crate::Failure;
use std::path::{Path, PathBuf};

/// The programs that an image is made of.
#[derive(Debug)]
pub(crate) struct Programs {
    /// The daemon.
    pub(crate) hostd: PathBuf,
    /// The operator's command.
    pub(crate) hostctl: PathBuf,
    /// The first program of the initrd.
    pub(crate) init: PathBuf,
}

/// Target of everything that runs in the image.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Root of the checkout.
#[must_use]
pub(crate) fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask is a member of the workspace")
}

/// Builds the programs for release.
///
/// # Errors
/// Where cargo cannot be started or does not succeed; what it has to say, it says itself.
pub(crate) fn programs() -> Result<Programs, Failure> {
    let target = target_dir();
    cargo(&target, &["--package=hostd", "--package=hostctl"], None)?;
    // Naming the target keeps the flags away from build scripts. A folder of its own keeps builds with other flags from
    // undoing each other.
    let init = target.join("static");
    cargo(&init, &["--package=bennu-init", "--target", TARGET], Some("-C target-feature=+crt-static"))?;
    Ok(Programs {
        hostd: target.join("release/hostd"),
        hostctl: target.join("release/hostctl"),
        init: init.join(TARGET).join("release/bennu-init"),
    })
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace().join("target"), |dir| workspace().join(dir))
}

fn cargo(target: &Path, arguments: &[&str], flags: Option<&str>) -> Result<(), Failure> {
    let mut command = vm_tests::programs::cargo();
    command.args(["build", "--release"]).args(arguments);
    command.env("CARGO_TARGET_DIR", target);
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    let status = command.status().map_err(|error| format!("cannot start cargo: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("cargo failed ({status})").into()) }
}
