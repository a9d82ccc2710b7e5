//! What the root is made of.

use crate::mirror;
use bennu_image_store::sha256::Sha256;
use std::path::Path;

/// The Debian release that the OS is made from.
pub(crate) const RELEASE: &str = "trixie";

/// Version of the OS: that of this workspace.
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// Packages beside those that Debian marks as essential. Recommended ones are not taken.
pub(crate) const PACKAGES: [&str; 24] = [
    // The system itself.
    "systemd",
    "systemd-sysv",
    "systemd-resolved",
    "systemd-timesyncd",
    "libnss-resolve",
    "udev",
    "kmod",
    "dbus-broker",
    // What hostd drives.
    "crun",
    "aardvark-dns",
    "nftables",
    "btrfs-progs",
    "cryptsetup-bin",
    "systemd-repart",
    // What seals the state by a TPM; systemd loads the libraries by name.
    "systemd-cryptsetup",
    "libtss2-esys-3.0.2-0t64",
    "libtss2-mu-4.0.1-0t64",
    "libtss2-rc0t64",
    "libtss2-tcti-device0t64",
    // What people at the console look at the network with.
    "iproute2",
    // What reaps for containers that ask for it, and the rules of time zones.
    "catatonit",
    "tzdata",
    // The authorities that registries are checked against, and names of protocols and services.
    "ca-certificates",
    "netbase",
];

/// Runs at the end of the installation, outside of the root, with its path as the argument.
pub(crate) const CUSTOMIZE: &str = include_str!("../files/customize.sh");

/// Files of our own in the root: path, and text. All belong to root and have mode 0644.
pub(crate) const FILES: [(&str, &str); 22] = [
    ("etc/hostname", include_str!("../files/root/etc/hostname")),
    ("etc/hosts", include_str!("../files/root/etc/hosts")),
    (
        "usr/lib/systemd/system/hostd.service",
        include_str!("../files/root/usr/lib/systemd/system/hostd.service"),
    ),
    (
        "usr/lib/systemd/system/bennu-came-up.service",
        include_str!("../files/root/usr/lib/systemd/system/bennu-came-up.service"),
    ),
    (
        "usr/lib/systemd/system/bennu-came-up.timer",
        include_str!("../files/root/usr/lib/systemd/system/bennu-came-up.timer"),
    ),
    (
        "usr/lib/systemd/system/bennu-last-resort.service",
        include_str!("../files/root/usr/lib/systemd/system/bennu-last-resort.service"),
    ),
    (
        "usr/lib/systemd/system/bennu-last-resort.timer",
        include_str!("../files/root/usr/lib/systemd/system/bennu-last-resort.timer"),
    ),
    (
        "usr/lib/systemd/system/run-.scope.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/system/run-.scope.d/10-bennu.conf"),
    ),
    (
        "usr/lib/systemd/system/systemd-udev-trigger.service.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/system/systemd-udev-trigger.service.d/10-bennu.conf"),
    ),
    ("usr/lib/bennu/repart.d/10-esp.conf", include_str!("../files/root/usr/lib/bennu/repart.d/10-esp.conf")),
    (
        "usr/lib/bennu/repart.d/20-state.conf",
        include_str!("../files/root/usr/lib/bennu/repart.d/20-state.conf"),
    ),
    (
        "usr/lib/bennu/repart.sealed.d/10-esp.conf",
        include_str!("../files/root/usr/lib/bennu/repart.d/10-esp.conf"),
    ),
    (
        "usr/lib/bennu/repart.sealed.d/20-state.conf",
        include_str!("../files/root/usr/lib/bennu/repart.sealed.d/20-state.conf"),
    ),
    (
        "usr/lib/bennu/repart.sealed.d/30-data.conf",
        include_str!("../files/root/usr/lib/bennu/repart.sealed.d/30-data.conf"),
    ),
    (
        "usr/lib/systemd/system/bennu-modules.service",
        include_str!("../files/root/usr/lib/systemd/system/bennu-modules.service"),
    ),
    (
        "usr/lib/systemd/system/bennu-state.service",
        include_str!("../files/root/usr/lib/systemd/system/bennu-state.service"),
    ),
    ("usr/lib/sysctl.d/50-bennu.conf", include_str!("../files/root/usr/lib/sysctl.d/50-bennu.conf")),
    (
        "usr/lib/systemd/network/50-wired.network",
        include_str!("../files/root/usr/lib/systemd/network/50-wired.network"),
    ),
    (
        "usr/lib/systemd/networkd.conf.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/networkd.conf.d/10-bennu.conf"),
    ),
    (
        "usr/lib/systemd/resolved.conf.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/resolved.conf.d/10-bennu.conf"),
    ),
    (
        "usr/lib/systemd/journald.conf.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/journald.conf.d/10-bennu.conf"),
    ),
    (
        "usr/lib/systemd/system.conf.d/10-bennu.conf",
        include_str!("../files/root/usr/lib/systemd/system.conf.d/10-bennu.conf"),
    ),
];

/// Symbolic links of our own in the root: path, and target. Units are enabled below `/usr`, since `/etc` is the
/// operator's and begins empty of units.
pub(crate) const LINKS: [(&str, &str); 17] = [
    ("etc/os-release", "../usr/lib/os-release"),
    // The real upstream servers rather than the local stub, so that aardvark-dns and containers can use the file.
    ("etc/resolv.conf", "../run/systemd/resolve/resolv.conf"),
    ("usr/lib/systemd/system/multi-user.target.wants/hostd.service", "../hostd.service"),
    ("usr/lib/systemd/system/sysinit.target.wants/bennu-came-up.timer", "../bennu-came-up.timer"),
    ("usr/lib/systemd/system/emergency.target.wants/bennu-came-up.timer", "../bennu-came-up.timer"),
    ("usr/lib/systemd/system/sysinit.target.wants/bennu-last-resort.timer", "../bennu-last-resort.timer"),
    ("usr/lib/systemd/system/emergency.target.wants/bennu-last-resort.timer", "../bennu-last-resort.timer"),
    (
        "usr/lib/systemd/system/multi-user.target.wants/systemd-networkd.service",
        "../systemd-networkd.service",
    ),
    (
        "usr/lib/systemd/system/multi-user.target.wants/systemd-resolved.service",
        "../systemd-resolved.service",
    ),
    (
        "usr/lib/systemd/system/multi-user.target.wants/systemd-timesyncd.service",
        "../systemd-timesyncd.service",
    ),
    ("usr/lib/systemd/system/multi-user.target.wants/dbus-broker.service", "../dbus-broker.service"),
    ("usr/lib/systemd/system/sockets.target.wants/systemd-networkd.socket", "../systemd-networkd.socket"),
    ("usr/lib/systemd/system/dbus.service", "dbus-broker.service"),
    ("usr/lib/systemd/system/dbus-org.freedesktop.resolve1.service", "systemd-resolved.service"),
    ("usr/lib/systemd/system/dbus-org.freedesktop.network1.service", "systemd-networkd.service"),
    ("usr/lib/systemd/system/dbus-org.freedesktop.timesync1.service", "systemd-timesyncd.service"),
    ("usr/lib/systemd/system/dbus-org.freedesktop.login1.service", "/dev/null"),
];

/// `os-release(5)` of the root and of the boot entry.
pub(crate) fn os_release(version: &str) -> String {
    format!(
        "ID=bennu\nID_LIKE=debian\nNAME=Bennu\nPRETTY_NAME=\"Bennu {version}\"\nVERSION_ID={version}\n\
         IMAGE_ID=bennu\nIMAGE_VERSION={version}\n"
    )
}

/// Lines of a `sources.list`, where this machine tells where it gets Debian from; otherwise mmdebstrap knows.
pub(crate) fn machine_sources() -> Option<String> {
    let text = std::fs::read_to_string("/etc/os-release").ok()?;
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    if value("ID") != Some("debian") {
        return None;
    }
    mirror::same_mirrors(&mirror::sources(Path::new("/")), value("VERSION_CODENAME")?, RELEASE)
}

/// A key over parts: what is made from other parts has another key.
pub(crate) fn key<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> String {
    let mut hash = Sha256::new();
    for part in parts {
        // Lengths go in too, so that no two lists of parts run together into the same bytes.
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finish().hex()
}

/// How the root is installed, before our own programs and files are added: with what the archive has, this decides what is in it.
pub(crate) fn base_key() -> String {
    let parts = [RELEASE, CUSTOMIZE].into_iter().chain(PACKAGES);
    key(parts.map(str::as_bytes))
}

/// What a base has to have been made by to be used again: how it is installed, and from where.
pub(crate) fn shelf_key() -> String {
    let sources = machine_sources().unwrap_or_default();
    key([base_key().as_bytes(), sources.as_bytes()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_tells_how_its_parts_are_split() {
        assert_ne!(key([&b"ab"[..], b"c"]), key([&b"a"[..], b"bc"]));
        assert_eq!(key([&b"ab"[..], b"c"]), key([&b"ab"[..], b"c"]));
    }
}
