//! The distribution's packages that building and testing need, installed where they are missing.
//!
//! For Debian 12, Debian 13 and Ubuntu 24.04. What is there already costs one call of `dpkg-query`, and nothing is ever
//! removed.

mod backports;

use crate::Failure;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// Packages that [`crate::image`] needs.
pub(crate) const IMAGE: &[&str] = &[
    // The root: its packages, the keys they are signed with, and user namespaces for those who are not root.
    "mmdebstrap",
    "debian-archive-keyring",
    "uidmap",
    "xz-utils",
    // The boot image; `ukify` itself comes with the root.
    "python3",
    "python3-pefile",
    // What the firmware starts first is assembled.
    "binutils",
    // The partitions.
    "dosfstools",
    "mtools",
    "btrfs-progs",
    "gdisk",
    "qemu-utils",
    // Programs of ours are linked for the image; the first one statically.
    "gcc",
    "libc6-dev",
];

/// Packages that signing for Secure Boot needs besides.
pub(crate) const SECURE_BOOT: &[&str] = &["sbsigntool", "efitools", "faketime", "openssl"];

/// QEMU's packages, which must be of version [`backports::OLDEST`] at least.
const OF_QEMU: [&str; 2] = ["qemu-system-x86", "qemu-utils"];

/// Packages that the tests need besides.
pub(crate) const TEST: &[&str] = &[
    "qemu-system-x86",
    "ovmf",
    // Secure Boot.
    "sbsigntool",
    "efitools",
    "faketime",
    // A TPM.
    "swtpm",
    // libFuzzer.
    "g++",
    // Registries and images that are not ours.
    "docker-registry",
    "skopeo",
    "umoci",
    "podman",
    // A runtime of containers that our image does not have.
    "runc",
    // Signatures that are not ours.
    "openssh-client",
    // Signatures of images that are not ours.
    "openssl",
    // Secrets that are not ours.
    "age",
    // A receiver of logs that is not ours, and its TLS.
    "rsyslog",
    "rsyslog-gnutls",
    // Small disks whose power is cut, and system calls that do nothing.
    "e2fsprogs",
    "strace",
    "cpio",
    "curl",
    "git",
    "zstd",
    "erofs-utils",
];

/// Packages that `cargo xtask bench store` needs besides: who is measured, and what images are made with.
pub(crate) const BENCH: &[&str] = &[
    "podman",
    "containerd",
    "docker.io",
    "skopeo",
    "umoci",
    "docker-registry",
    "casync",
    "curl",
    "gzip",
    "zstd",
    "e2fsprogs",
    "btrfs-progs",
    // Programs of a newer release, in a root of their own.
    "mmdebstrap",
    // The packages that the images are made of are signed with these keys.
    "debian-archive-keyring",
];

/// Installs the packages that are missing, and a newer QEMU where the one at hand is too old.
///
/// # Errors
/// Where apt cannot install them; it says itself why.
pub(crate) fn install(wanted: &[&str]) -> Result<(), Failure> {
    let installed = installed(wanted)?;
    let missing: Vec<&str> = wanted
        .iter()
        .copied()
        .filter(|package| match installed.get(*package) {
            Some(version) => OF_QEMU.contains(package) && backports::too_old(version),
            None => true,
        })
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    eprintln!("packages to install: {}", missing.join(" "));
    // A machine that never asked its mirrors knows of no candidates.
    let mut candidates = candidates(&missing)?;
    if missing.iter().any(|package| !candidates.contains_key(*package)) {
        apt_get(&["update", "--quiet=2"])?;
        candidates = self::candidates(&missing)?;
    }
    let (qemu, plain): (Vec<&str>, Vec<&str>) = missing.iter().partition(|package| {
        OF_QEMU.contains(package)
            && candidates.get(**package).is_some_and(|version| backports::too_old(version))
    });
    install_from(None, &plain)?;
    if !qemu.is_empty() {
        let suite = backports::add()?;
        apt_get(&["update", "--quiet=2"])?;
        install_from(Some(&suite), &qemu)?;
    }
    Ok(())
}

/// Names of programs that cargo itself installs, and the subcommand each of them is.
const TOOLS: [(&str, &str); 2] = [("cargo-nextest", "nextest"), ("cargo-deny", "deny")];

/// Makes sure that the subcommands of cargo which the tests use are there, and gives back the folder to put before
/// `PATH` for them.
///
/// # Errors
/// Where cargo cannot install one.
pub(crate) fn tools() -> Result<PathBuf, Failure> {
    let root = bennu_os_image::cache_dir().join("tools");
    let cargo = || Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    for (package, subcommand) in TOOLS {
        let found = root.join("bin").join(package).is_file()
            || cargo().args([subcommand, "--version"]).output().is_ok_and(|output| output.status.success());
        if !found {
            eprintln!("tool to install: {package}");
            // They run for seconds: building them fast counts for more than what they take.
            let mut install = cargo();
            install.args(["install", "--quiet", "--locked", "--debug", package, "--root"]).arg(&root);
            // Away from the checkout, whose settings are not meant for it.
            install.env("CARGO_PROFILE_DEV_DEBUG", "0").current_dir("/");
            succeed(&mut install)?;
        }
    }
    Ok(root.join("bin"))
}

/// The installed ones of these packages, with their versions.
fn installed(packages: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
    // Fails where a package is unknown, but prints the others all the same.
    let output = Command::new("dpkg-query")
        .args(["--show", "--showformat=${db:Status-Status} ${Package} ${Version}\n"])
        .args(packages)
        .stderr(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start dpkg-query; only Debian and Ubuntu are supported: {error}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(text
        .lines()
        .filter_map(|line| {
            let (package, version) = line.strip_prefix("installed ")?.split_once(' ')?;
            Some((package.to_owned(), version.to_owned()))
        })
        .collect())
}

/// The versions that apt would install, of those packages that it knows.
fn candidates(packages: &[&str]) -> Result<BTreeMap<String, String>, Failure> {
    let output = Command::new("apt-cache")
        .env("LC_ALL", "C")
        .arg("policy")
        .args(packages)
        .output()
        .map_err(|error| format!("cannot start apt-cache: {error}"))?;
    Ok(parse_policy(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads what `apt-cache policy` prints: a line `PACKAGE:`, and below it `  Candidate: VERSION` or `(none)`.
fn parse_policy(text: &str) -> BTreeMap<String, String> {
    let mut package = "";
    let mut found = BTreeMap::new();
    for line in text.lines() {
        if let Some(version) = line.strip_prefix("  Candidate: ") {
            if version != "(none)" {
                found.insert(package.to_owned(), version.to_owned());
            }
        } else if !line.starts_with(' ') {
            package = line.trim_end_matches(':');
        }
    }
    found
}

fn install_from(suite: Option<&str>, packages: &[&str]) -> Result<(), Failure> {
    if packages.is_empty() {
        return Ok(());
    }
    let mut arguments = vec!["install", "--yes", "--quiet=2", "--no-install-recommends"];
    arguments.extend(suite.iter().flat_map(|suite| ["--target-release", suite]));
    arguments.extend(packages);
    if apt_get(&arguments).is_err() {
        // Mirrors drop a version when its successor comes, so an old list names files that are gone.
        apt_get(&["update", "--quiet=2"])?;
        apt_get(&arguments)?;
    }
    Ok(())
}

fn apt_get(arguments: &[&str]) -> Result<(), Failure> {
    succeed(as_root("apt-get").env("DEBIAN_FRONTEND", "noninteractive").args(arguments))
}

/// The program, through `sudo` where this process is not root.
fn as_root(program: &str) -> Command {
    use std::os::unix::fs::MetadataExt as _;
    if std::fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0) {
        return Command::new(program);
    }
    let mut command = Command::new("sudo");
    command.args(["--preserve-env=DEBIAN_FRONTEND", program]);
    command
}

fn succeed(command: &mut Command) -> Result<(), Failure> {
    let name = command.get_program().to_string_lossy().into_owned();
    // What programs print on standard output here is progress, not this command's result.
    let status = command
        .stdin(Stdio::null())
        .stdout(std::io::stderr())
        .status()
        .map_err(|error| format!("cannot start {name}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{name} failed ({status})").into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_without_a_candidate_is_not_known() {
        let text = "qemu-utils:\n  Installed: (none)\n  Candidate: 1:7.2+dfsg-7\n  Version table:\n     1:7.2 500\n\
                    nothing:\n  Installed: (none)\n  Candidate: (none)\n  Version table:\n";
        let known = parse_policy(text);
        assert_eq!(known.into_iter().collect::<Vec<_>>(), [("qemu-utils".into(), "1:7.2+dfsg-7".into())]);
    }
}
