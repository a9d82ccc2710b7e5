//! Bits that flip on the disk: an error, never wrong data.

use vm_tests::gate::Rule;
use vm_tests::{Error, Failure, Host, on_host};

use crate::manifest::{manifest, web};

/// The block of a file that is spoiled; far enough from the beginning that no header is hit.
const BLOCK: u32 = 7;

#[test]
fn a_flipped_bit_in_the_os_is_an_error_and_not_data() -> Result<(), Failure> {
    on_host("a_flipped_bit_in_the_os_is_an_error_and_not_data", |host| {
        // Comes with the certificates, and is used by nothing that runs here.
        let file = "/usr/bin/openssl";
        let content = block(host, file)?;
        spoil(host, &content)?;
        unreadable(host, file)
    })
}

#[test]
fn a_flipped_bit_in_a_layer_is_an_error_and_not_data() -> Result<(), Failure> {
    on_host("a_flipped_bit_in_a_layer_is_an_error_and_not_data", |host| {
        let registry = &host.registry;
        host.converge("host.toml", &manifest(registry, 1, &web(registry, "1", "")))?;
        // Without a registry there is nothing to repair the layer from.
        registry.gate.rule(Rule::BreakAfter(0));
        let content = block(host, &in_container(host, "/usr/bin/sort")?)?;
        spoil(host, &content)?;
        host.wait_for_api()?;
        host.wait_until_converged()?;
        unreadable(host, &in_container(host, "/usr/bin/sort")?)?;
        let read = host.hostctl().run(&["exec", "web", "--", "cat", "/usr/bin/sort"])?;
        assert_ne!(read.code, 0, "the container gets an error, too");
        // What does not need the block goes on.
        host.wait_for_page("first edition")?;
        Ok(())
    })
}

fn in_container(host: &Host, path: &str) -> Result<String, Error> {
    Ok(format!("/proc/{}/root{path}", host.hostctl().container("web")?["pid"]))
}

/// The block, in base64 as the guest reads it.
fn block(host: &mut Host, file: &str) -> Result<String, Error> {
    let content =
        host.vm.guest_ok(&format!("dd if={file} bs=4096 skip={BLOCK} count=1 status=none | base64 -w0"))?;
    host.vm.guest_ok("sync")?;
    Ok(content)
}

/// Cuts the power, flips one bit of the block wherever it is on the disk, and boots again.
fn spoil(host: &mut Host, content: &str) -> Result<(), Error> {
    host.vm.power_off();
    let places = vm_tests::disk::flip_bit(&host.vm.files().disk(), content)?;
    assert!(places > 0, "the block is on the disk as it is in the file");
    host.vm.power_cut()
}

fn unreadable(host: &mut Host, file: &str) -> Result<(), Failure> {
    let read = |host: &mut Host, block: u32| {
        host.vm.guest(&format!("dd if={file} of=/run/read bs=4096 skip={block} count=1 status=none; code=$?; wc -c </run/read; exit $code"))
    };
    let spoilt = read(host, BLOCK)?;
    assert_ne!(spoilt.code, 0, "it could be read");
    assert!(spoilt.text.contains("Input/output error"), "{}", spoilt.text);
    assert!(spoilt.text.trim_end().ends_with("\n0"), "not one byte of it was returned: {}", spoilt.text);
    assert_eq!(read(host, 0)?.code, 0, "the rest of the file can be read");
    Ok(())
}
