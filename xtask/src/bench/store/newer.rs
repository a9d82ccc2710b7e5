//! Programs of Debian 13, whatever this machine runs: podman 4, which Debian 12 has, fetches `zstd:chunked` layers whole.

use std::path::{Path, PathBuf};
use std::process::Command;

use bennu_os_image::mirror;

use crate::Failure;
use crate::bench::program::succeed;
use crate::build::target_dir;

/// The release.
const SUITE: &str = "trixie";
/// What is taken from it.
const PACKAGES: &str = "--include=ca-certificates,podman,skopeo";
/// Runs a program in the root `$1`, in which the directory `$2` is where it is here. What is mounted for that is gone with the
/// program.
const ENTER: &str = "root=$1 shared=$2; shift 2; for dir in /proc /sys /dev \"$shared\"; do \
                     mkdir -p \"$root$dir\"; mount --rbind \"$dir\" \"$root$dir\"; done; exec chroot \"$root\" \"$@\"";

fn root() -> PathBuf {
    target_dir().join("bench").join(SUITE)
}

/// Makes the root that the programs are in, unless it is there.
///
/// # Errors
/// Where this machine does not say which mirror it uses, or the packages can't be had.
pub(super) fn make() -> Result<(), Failure> {
    let root = root();
    if root.exists() {
        return Ok(());
    }
    let known = mirror::sources(Path::new("/"));
    let archive = ["bookworm", SUITE].iter().find_map(|suite| mirror::archive_of(&known, suite));
    let archive = archive.ok_or("apt's sources name no mirror of Debian")?;
    let unfinished = root.with_extension("unfinished");
    if unfinished.exists() {
        std::fs::remove_dir_all(&unfinished)?;
    }
    let mut made = Command::new("mmdebstrap");
    made.args(["--quiet", "--variant=essential", "--mode=root", "--architectures=amd64"]);
    made.args(["--aptopt=APT::Install-Recommends \"false\"", PACKAGES, SUITE]);
    succeed(made.arg(&unfinished).arg(format!("deb {archive} {SUITE} main")))?;
    Ok(std::fs::rename(unfinished, root)?)
}

/// A program of the root, for which `shared` is where it is here.
pub(super) fn command(program: &str, shared: &Path) -> Command {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation=private", "sh", "-ec", ENTER, "sh"]);
    command.arg(root()).arg(shared).arg(program);
    command
}
