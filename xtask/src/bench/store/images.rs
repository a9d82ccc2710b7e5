//! The images that are pulled: made of packages of Debian, once, and kept under `target/bench`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::packages::{Apt, Versions};
use crate::Failure;
use crate::bench::program::succeed;

/// Changes whenever the same packages become another image.
const FORMAT: &str = "1";
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
};
/// Two large runtimes.
pub(super) const BIG: Recipe =
    Recipe { name: "big", layers: &[BASE, &["openjdk-17-jre-headless"], &["nodejs"]] };

/// What an image is made of.
#[derive(Debug)]
pub(super) struct Recipe {
    pub(super) name: &'static str,
    /// Packages; each layer has those that the layers below do not have.
    layers: &'static [&'static [&'static str]],
}

/// An image in an OCI layout.
#[derive(Debug)]
pub(super) struct Made {
    /// The layout.
    pub(super) layout: PathBuf,
    pub(super) tag: &'static str,
}

/// Makes the versions of an image, or finds them: `one`, `two`, of which one small file in the topmost layer differs, and
/// `upgraded`, of newer packages, of which every layer differs.
///
/// # Errors
/// Where packages cannot be fetched or a tool fails.
pub(super) fn made(shelf: &Path, recipe: &Recipe) -> Result<Vec<Made>, Failure> {
    let layout = shelf.join(format!("{}-{FORMAT}", recipe.name));
    let tags = ["one", "two", "upgraded"];
    if !layout.is_dir() {
        eprintln!("image to make: {}", recipe.name);
        let making = tempfile::tempdir_in(shelf)?;
        let path = making.path().join("layout");
        succeed(Command::new("umoci").args(["init", "--layout"]).arg(&path))?;
        let released = tars(recipe, Versions::Released, shelf, making.path(), &path, "one")?;
        let upper = released.last().ok_or("an image without layers")?;
        let changed = making.path().join("changed");
        succeed(Command::new("cp").arg("--archive").arg(upper).arg(&changed))?;
        fs::write(changed.join("etc/bennu-bench"), "changed\n")?;
        add(&path, "two", &released[..released.len() - 1], &changed, making.path())?;
        tars(recipe, Versions::Upgraded, shelf, making.path(), &path, "upgraded")?;
        fs::rename(&path, &layout)?;
    }
    Ok(tags.map(|tag| Made { layout: layout.clone(), tag }).into())
}

/// Unpacks the layers of one version and makes an image of them; gives the folders.
fn tars(
    recipe: &Recipe,
    versions: Versions,
    shelf: &Path,
    scratch: &Path,
    layout: &Path,
    tag: &str,
) -> Result<Vec<PathBuf>, Failure> {
    let apt = Apt::prepare(&shelf.join(format!("apt-{versions:?}")), versions)?;
    let mut trees = Vec::new();
    for (at, packages) in apt.groups(recipe.layers)?.iter().enumerate() {
        let tree = scratch.join(format!("{tag}-{at}"));
        fs::create_dir_all(tree.join("etc"))?;
        for package in packages {
            succeed(Command::new("dpkg-deb").arg("--extract").args([package, &tree]))?;
        }
        // What a rebuild always changes somewhere in a layer: the time it was built at.
        fs::write(tree.join("etc").join(format!("built-{at}")), format!("{versions:?}\n"))?;
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
