//! From packages and files to the compressed tar of a layer.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use sha2::{Digest, Sha256};

use super::recipe::Layer;
use crate::cache;
use crate::error::{Error, IoContext, run};

/// A finished layer.
#[derive(Debug)]
pub(super) struct Tars {
    /// The tar itself, from which the diff id is made.
    pub tar: PathBuf,
    /// The same with gzip.
    pub gzip: PathBuf,
}

/// What packages bring that no container needs, and what mmdebstrap leaves behind.
const LEFT_OUT: &[&str] = &[
    "dev",
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "usr/share/info",
    "usr/share/lintian",
    "usr/share/bug",
    "var/cache/apt",
    "var/lib/apt",
    "var/lib/dpkg",
    "usr/lib/systemd",
    "etc/systemd",
    // What PostgreSQL needs to compile queries, and the scripts around it.
    "usr/lib/llvm-19",
    "usr/lib/x86_64-linux-gnu/libLLVM.so.19.1",
    "usr/lib/x86_64-linux-gnu/libz3.so.4",
    "usr/share/i18n",
    "usr/lib/postgresql/17/lib/bitcode",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/share/perl",
];

/// Makes the tars of all layers in `scratch`, each without what the layers below it hold.
pub(super) fn build(layers: &[Layer], scratch: &Path) -> Result<Vec<Tars>, Error> {
    let mut below = BTreeSet::new();
    let mut packages: Vec<&str> = Vec::new();
    let mut finished = Vec::new();
    for (number, layer) in layers.iter().enumerate() {
        let tree = scratch.join(format!("tree-{number}"));
        fs::create_dir(&tree).doing("make", &tree)?;
        if !layer.packages.is_empty() {
            packages.extend(layer.packages);
            unpack(&packages, &tree)?;
        }
        write(layer, &tree)?;
        let mut entries = BTreeSet::new();
        walk(&tree, Path::new(""), &mut entries)?;
        // What a layer says itself counts even where it replaces what is below.
        let said = |path: &Path| {
            layer.files.iter().any(|file| path == Path::new(file.0))
                || layer.links.iter().any(|link| path == Path::new(link.0))
        };
        let new: Vec<_> =
            entries.iter().filter(|path| !below.contains(*path) || said(path)).cloned().collect();
        finished.push(pack(&tree, &new, &scratch.join(format!("layer-{number}.tar")))?);
        below.append(&mut entries);
    }
    Ok(finished)
}

/// Unpacks packages with all that they depend on. Their scripts are not run: nothing here needs a chroot.
///
/// The tree of a list of packages is kept, so that two images that share a layer share its bytes.
fn unpack(packages: &[&str], tree: &Path) -> Result<(), Error> {
    let list = packages.join(",");
    let key = cache::hex(&Sha256::digest(format!("trixie amd64 {list}")));
    let kept = cache::get_or_make("packages", &key, 16, |directory| {
        let mut command = Command::new("mmdebstrap");
        command.args(["--quiet", "--variant=extract", "--architectures=amd64"]);
        command.arg(format!("--include={list}")).arg("trixie").arg(directory.join("tree.tar"));
        run(&mut command).map(drop)
    })?;
    // Device nodes need privileges and belong to no layer.
    let mut command = Command::new("tar");
    command.args(["--extract", "--no-same-owner", "--preserve-permissions", "--exclude=./dev/*", "--file"]);
    run(command.arg(kept.join("tree.tar")).arg("-C").arg(tree)).map(drop)
}

fn write(layer: &Layer, tree: &Path) -> Result<(), Error> {
    for directory in layer.directories {
        let path = tree.join(directory);
        fs::create_dir_all(&path).doing("make", &path)?;
    }
    for (path, target) in &layer.links {
        let path = tree.join(path);
        parents(&path)?;
        symlink(target, &path).doing("link", &path)?;
    }
    for (path, mode, content) in &layer.files {
        let path = tree.join(path);
        parents(&path)?;
        fs::write(&path, content).doing("write", &path)?;
        fs::set_permissions(&path, Permissions::from_mode(*mode)).doing("set the mode of", &path)?;
    }
    Ok(())
}

fn parents(path: &Path) -> Result<(), Error> {
    let parent = path.parent().expect("a path below the tree has a parent");
    fs::create_dir_all(parent).doing("make", parent)
}

/// Lists a tree in order, without what is left out.
fn walk(tree: &Path, below: &Path, entries: &mut BTreeSet<PathBuf>) -> Result<(), Error> {
    let directory = tree.join(below);
    for entry in fs::read_dir(&directory).doing("list", &directory)? {
        let entry = entry.doing("list", &directory)?;
        let path = below.join(entry.file_name());
        if LEFT_OUT.iter().any(|left_out| path == Path::new(left_out)) {
            continue;
        }
        if entry.file_type().doing("look at", &path)?.is_dir() {
            walk(tree, &path, entries)?;
        }
        entries.insert(path);
    }
    Ok(())
}

/// Packs the entries so that the same tree gives the same bytes everywhere.
fn pack(tree: &Path, entries: &[PathBuf], tar: &Path) -> Result<Tars, Error> {
    let list = tar.with_extension("list");
    let lines: Vec<_> = entries.iter().map(|path| path.display().to_string()).collect();
    fs::write(&list, lines.join("\n") + "\n").doing("write", &list)?;
    let mut command = Command::new("tar");
    command.args(["--create", "--format=gnu", "--no-recursion", "--numeric-owner", "--owner=0", "--group=0"]);
    command.args(["--mtime=@0", "--mode=a+rX", "--file"]).arg(tar).arg("-C").arg(tree);
    run(command.args(["--verbatim-files-from", "--files-from"]).arg(&list))?;
    let gzip = tar.with_extension("tar.gz");
    run(Command::new("gzip").args(["--no-name", "--keep", "-6"]).arg(tar))?;
    Ok(Tars { tar: tar.to_owned(), gzip })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_holds_only_what_the_layers_below_do_not() {
        let scratch = tempfile::tempdir().expect("a temporary directory");
        let file =
            |path, text: &str| Layer { files: vec![(path, 0o644, text.to_owned())], ..Layer::default() };
        let layers = [file("etc/a", "1"), file("etc/b", "2"), file("etc/a", "3")];
        let made = build(&layers, scratch.path()).expect("plain files");
        let list = |tars: &Tars| run(Command::new("tar").arg("tf").arg(&tars.tar)).expect("a tar");
        assert_eq!(list(&made[0]), "etc/\netc/a\n");
        assert_eq!(list(&made[1]), "etc/b\n");
        assert_eq!(list(&made[2]), "etc/a\n", "a file that is replaced");
    }

    #[test]
    fn the_same_layer_gives_the_same_bytes() {
        let bytes = || {
            let scratch = tempfile::tempdir().expect("a temporary directory");
            let layer =
                Layer { links: vec![("bin/sh", "busybox")], directories: &["tmp"], ..Layer::default() };
            let made = build(&[layer], scratch.path()).expect("a link and a directory");
            fs::read(&made[0].gzip).expect("the layer")
        };
        assert_eq!(bytes(), bytes());
    }
}
