//! Our own programs, built from the sources as they are now.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::{Error, run};

/// What runs in the image.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The programs, built.
#[derive(Debug, Clone)]
pub struct Programs {
    /// The daemon.
    pub hostd: PathBuf,
    /// The operator's command.
    pub hostctl: PathBuf,
    /// The first program of the initrd; static.
    pub init: PathBuf,
}

impl Programs {
    /// Builds what is not up to date.
    ///
    /// They are built as they are released: a debug build takes several times as long to convert a layer.
    ///
    /// # Errors
    /// [`Error::Program`] with what the compiler says.
    pub fn build() -> Result<Self, Error> {
        let target = target_directory()?;
        build(&target, &["--package=hostd", "--package=hostctl"], None)?;
        // A directory of its own keeps builds with other flags from undoing each other, and the named target keeps
        // the flags away from build scripts.
        let apart = target.join("static");
        build(&apart, &["--package=bennu-init", "--target", TARGET], Some("-C target-feature=+crt-static"))?;
        let release = target.join("release");
        Ok(Self {
            hostd: release.join("hostd"),
            hostctl: release.join("hostctl"),
            init: apart.join(TARGET).join("release/bennu-init"),
        })
    }
}

/// The program that tries the ways out of a container, static, built where it is not up to date.
///
/// # Errors
/// [`Error::Program`] with what the compiler says.
pub fn probe() -> Result<PathBuf, Error> {
    let apart = target_directory()?.join("static");
    build(&apart, &["--package=bennu-probe", "--target", TARGET], Some("-C target-feature=+crt-static"))?;
    Ok(apart.join(TARGET).join("release/bennu-probe"))
}

fn build(target: &Path, arguments: &[&str], flags: Option<&str>) -> Result<(), Error> {
    let mut command = cargo();
    command.args(["build", "--quiet", "--release"]).args(arguments).env("CARGO_TARGET_DIR", target);
    if let Some(flags) = flags {
        command.env("RUSTFLAGS", flags);
    }
    run(&mut command).map(drop)
}

/// `cargo` in the workspace, as if it was called from a shell.
///
/// What calls us was mostly started by `cargo` itself, which tells it about its package in the environment. Build
/// scripts (that of `ring` above all) look at the same variables, so with them everything that depends on `ring` would
/// be built anew whenever another package calls.
pub fn cargo() -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let told = std::env::vars_os().map(|(name, _)| name).filter(|name| {
        let name = name.to_string_lossy();
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"]
            .iter()
            .any(|start| name.starts_with(start))
    });
    for name in told {
        command.env_remove(name);
    }
    command.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
    command
}

/// Where `cargo` puts what it builds.
///
/// # Errors
/// Where `cargo` does not say.
pub fn target_directory() -> Result<PathBuf, Error> {
    let text = run(cargo().args(["metadata", "--format-version=1", "--no-deps", "--offline"]))?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| Error::Answer { who: "cargo metadata".into(), text: error.to_string() })?;
    Ok(json["target_directory"].as_str().unwrap_or("target").into())
}
