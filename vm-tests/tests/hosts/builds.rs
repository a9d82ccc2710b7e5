//! What is built is the same each time.

use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;

use sha2::{Digest, Sha256};
use vm_tests::Failure;
use vm_tests::programs::cargo;

/// What `cargo xtask image` says of what it made.
struct Built {
    disk: String,
    packages: String,
    root: String,
}

fn built(cache: Option<&Path>) -> Result<Built, Failure> {
    let mut command = cargo();
    command.args(["run", "--quiet", "--package", "xtask", "--", "image"]);
    if let Some(cache) = cache {
        command.env("BENNU_CACHE", cache);
    }
    let said = vm_tests::run(&mut command)?;
    let of = |what: &str| {
        let line = said.lines().find_map(|line| line.strip_prefix(what));
        line.map(|rest| rest.trim().to_owned()).ok_or_else(|| format!("nothing is said of {what}: {said}"))
    };
    let root = of("root")?;
    if root.len() != "sha256:".len() + 64 {
        return Err(format!("{root} is no digest").into());
    }
    Ok(Built { disk: of("disk")?, packages: of("packages")?, root })
}

/// The digest of the first bytes of a disk: partition table and boot partition. What follows is a btrfs, which mkfs gives random
/// numbers, with the root in it as a file.
fn boot_partition(qcow2: &str, work: &Path) -> Result<String, Failure> {
    const BYTES: u64 = 513 << 20;
    let raw = work.join("disk.img");
    vm_tests::run(Command::new("qemu-img").args(["convert", "-O", "raw", qcow2]).arg(&raw))?;
    let (mut hash, mut left) = (Sha256::new(), File::open(&raw)?.take(BYTES));
    let mut buffer = vec![0; 1 << 20];
    loop {
        match left.read(&mut buffer)? {
            0 => break,
            read => hash.update(&buffer[..read]),
        }
    }
    std::fs::remove_file(&raw)?;
    Ok(hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[test]
fn two_builds_of_the_same_inputs_are_the_same_bytes() -> Result<(), Failure> {
    let folder = tempfile::tempdir()?;
    let again = folder.path().join("cache");
    let (mut first, second) = (built(None)?, built(Some(&again))?);
    if first.packages != second.packages {
        // The archive changed in between.
        first = built(None)?;
    }
    assert_eq!(first.packages, second.packages, "the same inputs");
    assert_ne!(first.disk, second.disk, "it was built twice");
    assert_eq!(first.root, second.root, "fs-verity digests of the roots");
    assert_eq!(boot_partition(&first.disk, folder.path())?, boot_partition(&second.disk, folder.path())?);
    Ok(())
}
