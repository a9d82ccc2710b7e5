//! Secure Boot: what is not signed is neither tried nor started.

use bennu_os_image::Variant;
use vm_tests::os::{Release, Releases};
use vm_tests::{Failure, Host, on_new_secure_host};

use crate::manifest::{manifest, sleeper};
use crate::updates::{SHORT, kept, status, with_os};

#[test]
fn with_secure_boot_only_what_is_signed_is_tried_and_started() -> Result<(), Failure> {
    on_new_secure_host("with_secure_boot_only_what_is_signed_is_tried_and_started", |host| {
        assert_eq!(host.hostctl().status()?["os"]["secure_boot"], true);
        let one = sleeper(&host.registry, "one", "");
        host.converge("one.toml", &manifest(&host.registry, 1, &format!("{SHORT}{one}")))?;
        status(host, "the first generation to be kept", |s| kept(s, 1))?;
        let boot = host.vm.boot_id()?;

        // An OS that nobody signed is told so before the machine starts again.
        let releases = Releases::new()?;
        let unsigned = releases.publish(host, &Variant::of_version("9.0.0"))?;
        let file = host.signed("two.toml", &with_os(host, &releases, 2, &unsigned, &one))?;
        host.push(&file, &[])?.done()?;
        let told = |s: &serde_json::Value| s["failure"].to_string().contains("not signed by a certificate");
        status(host, "the unsigned OS to be refused", told)?;
        assert_eq!(host.vm.boot_id()?, boot, "what runs goes on running");

        // Put there by hand the firmware refuses it, and the machine comes back with what it had.
        // (Stopped in order, the daemon would put the entries right.)
        put_by_hand(host, &unsigned)?;
        host.vm.power_cut()?;
        let root = format!(
            "sha256:{}",
            host.vm.guest_ok("sed 's/.*bennu.root=sha256:\\([0-9a-f]*\\).*/\\1/' /proc/cmdline")?
        );
        assert_ne!(root, unsigned.root);
        let serial = std::fs::read_to_string(host.vm.files().serial())?;
        assert!(serial.contains("The boot loader came back"), "it was not even tried: {serial}");
        host.wait_for_api()?;

        Ok(())
    })
}

/// Writes the boot image of an OS, which is in the store, and an entry with one try for it, as somebody who has the disk in their hands.
fn put_by_hand(host: &mut Host, os: &Release) -> Result<(), Failure> {
    let hex = os.root.trim_start_matches("sha256:");
    let shell = format!(
        "set -e; mkdir -p /run/hand /run/boot; mount /dev/disk/by-partlabel/bennu-esp /run/hand
         for blob in /state/store/blobs/sha256/*; do
             mount -t erofs -o ro $blob /run/boot 2>/dev/null || continue
             if [ -f /run/boot/boot/bennu.efi ]; then cp /run/boot/boot/bennu.efi /run/hand/EFI/bennu/{hex}.efi; fi
             umount /run/boot
         done
         printf 'title by hand\\nsort-key bennu\\nversion 99\\nefi /EFI/bennu/{hex}.efi\\n' >/run/hand/loader/entries/bennu-99+1.conf
         ls -l /run/hand/EFI/bennu/{hex}.efi
         umount /run/hand; sync"
    );
    host.vm.guest_ok(&shell)?;
    Ok(())
}
