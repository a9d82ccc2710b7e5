//! The images that are pulled: made of packages of Debian, once, and kept under `target/bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::{Apt, Versions};
use crate::Failure;
use crate::bench::program::succeed;

/// Changes whenever the same packages become another image.
const FORMAT: &str = "2";
/// What every image begins with: a small Debian.
const BASE: &[&str] = &[
    "apt",
    "base-files",
    "base-passwd",
    "bash",
    "ca-certificates",
    "coreutils",
    "dash",
    "debianutils",
    "diffutils",
    "findutils",
    "grep",
    "gzip",
    "hostname",
    "init-system-helpers",
    "libc-bin",
    "login",
    "mount",
    "ncurses-bin",
    "passwd",
    "perl-base",
    "sed",
    "sysvinit-utils",
    "tar",
    "util-linux",
];
/// A web service: a base, a language, a framework, its modules, a server.
pub(super) const APP: Recipe = Recipe {
    name: "app",
    layers: &[BASE, &["python3"], &["python3-django"], &["python3-psycopg2", "gunicorn"], &["nginx"]],
    few: &[],
};
/// Two large runtimes.
pub(super) const BIG: Recipe =
    Recipe { name: "big", layers: &[BASE, &["openjdk-17-jre-headless"], &["nodejs"]], few: &[] };
/// The root of an operating system for hosts, in one layer, its kernel and modules too.
pub(super) const OS: Recipe = Recipe {
    name: "os",
    layers: &[&[
        "aardvark-dns",
        "apt",
        "base-files",
        "bash",
        "btrfs-progs",
        "ca-certificates",
        "coreutils",
        "crun",
        "curl",
        "dbus",
        "dosfstools",
        "e2fsprogs",
        "iproute2",
        "kmod",
        "less",
        "libc-bin",
        "linux-image-amd64",
        "login",
        "mount",
        "netavark",
        "nftables",
        "openssh-client",
        "perl-base",
        "procps",
        "systemd",
        "systemd-resolved",
        "systemd-timesyncd",
        "tar",
        "tzdata",
        "udev",
        "util-linux",
    ]],
    few: &["curl", "libcurl4", "libssl3", "openssl", "libgnutls30", "openssh-client", "libc6", "libc-bin"],
};

/// What an image is made of.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Packages; each layer has those that the layers below do not have.
    layers: &'static [&'static [&'static str]],
    /// Those that are upgraded alone in the version `few`, which stands in the place of `two` where there are any.
    few: &'static [&'static str],
}

/// An image in an OCI layout.
#[derive(Debug)]
pub(super) struct Made {
    /// The layout.
    pub(super) layout: PathBuf,
    pub(super) tag: &'static str,
}

/// Where the layout of an image is, once it was made.
pub(super) fn layout(shelf: &Path, recipe: &Recipe) -> PathBuf {
    shelf.join(format!("{}-{FORMAT}", recipe.name))
}

/// Makes the versions of an image, or finds them: `one`, `two`, of which one small file in the topmost layer differs, or `few`, with
/// some newer packages, and `upgraded`, of newer packages throughout.
///
/// # Errors
/// Where packages cannot be fetched or a tool fails.
pub(super) fn made(shelf: &Path, recipe: &Recipe) -> Result<Vec<Made>, Failure> {
    let layout = layout(shelf, recipe);
    let tags = ["one", if recipe.few.is_empty() { "two" } else { "few" }, "upgraded"];
    if !layout.is_dir() {
        eprintln!("image to make: {}", recipe.name);
        let making = tempfile::tempdir_in(shelf)?;
        let path = making.path().join("layout");
        succeed(Command::new("umoci").args(["init", "--layout"]).arg(&path))?;
        let packages = |versions| -> Result<Vec<Vec<PathBuf>>, Failure> {
            // Of its own: apt does not list what it has fetched before, for another image.
            Apt::prepare(&making.path().join(format!("apt-{versions:?}")), versions)?.groups(recipe.layers)
        };
        let (released, upgraded) = (packages(Versions::Released)?, packages(Versions::Upgraded)?);
        let trees = tars(&released, "Released", making.path(), &path, "one")?;
        if recipe.few.is_empty() {
            let upper = trees.last().ok_or("an image without layers")?;
            let changed = making.path().join("changed");
            succeed(Command::new("cp").arg("--archive").arg(upper).arg(&changed))?;
            fs::write(changed.join("etc/bennu-bench"), "changed\n")?;
            add(&path, "two", &trees[..trees.len() - 1], &changed, making.path())?;
        } else {
            tars(&with_few(&released, &upgraded, recipe.few), "few", making.path(), &path, "few")?;
        }
        tars(&upgraded, "Upgraded", making.path(), &path, "upgraded")?;
        fs::rename(&path, &layout)?;
    }
    Ok(tags.map(|tag| Made { layout: layout.clone(), tag }).into())
}

/// The released packages, but for these, which are the upgraded ones.
fn with_few(released: &[Vec<PathBuf>], upgraded: &[Vec<PathBuf>], few: &[&str]) -> Vec<Vec<PathBuf>> {
    let name = |file: &Path| {
        let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.split('_').next().unwrap_or_default().to_owned()
    };
    let newer = |file: &PathBuf| {
        let wanted = Some(name(file)).filter(|name| few.contains(&name.as_str()))?;
        upgraded.iter().flatten().find(|file| name(file) == wanted).cloned()
    };
    let group = |group: &Vec<PathBuf>| group.iter().map(|file| newer(file).unwrap_or(file.clone())).collect();
    released.iter().map(group).collect()
}

/// Unpacks the layers of one version and makes an image of them; gives the folders.
fn tars(
    packages: &[Vec<PathBuf>],
    built: &str,
    scratch: &Path,
    layout: &Path,
    tag: &str,
) -> Result<Vec<PathBuf>, Failure> {
    let mut trees = Vec::new();
    for (at, packages) in packages.iter().enumerate() {
        let tree = scratch.join(format!("{tag}-{at}"));
        fs::create_dir_all(tree.join("etc"))?;
        for package in packages {
            succeed(Command::new("dpkg-deb").arg("--extract").args([package, &tree]))?;
        }
        // What a rebuild always changes somewhere in a layer: the time it was built at.
        fs::write(tree.join("etc").join(format!("built-{at}")), format!("{built}\n"))?;
        trees.push(tree);
    }
    let (top, below) = trees.split_last().ok_or("an image without layers")?;
    add(layout, tag, below, top, scratch)?;
    Ok(trees)
}

/// Adds an image of these trees to the layout.
fn add(layout: &Path, tag: &str, below: &[PathBuf], top: &Path, scratch: &Path) -> Result<(), Failure> {
    let image = format!("{}:{tag}", layout.display());
    succeed(Command::new("umoci").args(["new", "--image", &image]))?;
    let tar = scratch.join("layer.tar");
    for tree in below.iter().map(PathBuf::as_path).chain([top]) {
        let mut pack = Command::new("tar");
        pack.args([
            "--sort=name",
            "--numeric-owner",
            "--mtime=@1700000000",
            "--clamp-mtime",
            "--create",
            "--file",
        ]);
        succeed(pack.arg(&tar).arg("--directory").arg(tree).arg("."))?;
        succeed(Command::new("umoci").args(["raw", "add-layer", "--image", &image]).arg(&tar))?;
    }
    Ok(())
}
