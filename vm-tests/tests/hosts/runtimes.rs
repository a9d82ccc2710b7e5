//! Containers that another runtime makes.

use bennu_os_image::Variant;
use vm_tests::os::Releases;
use vm_tests::{Failure, on_host};

use crate::isolation::{declared, is_as_declared};
use crate::looking::{fed, in_terminal, text};
use crate::manifest::{manifest, web};
use crate::updates::{kept, status, with_os};

#[test]
fn another_runtime_makes_containers_and_one_that_is_not_there_is_refused() -> Result<(), Failure> {
    on_host("another_runtime_makes_containers_and_one_that_is_not_there_is_refused", |host| {
        let releases = Releases::new()?;
        let both = Variant {
            programs: vec![("usr/sbin/runc", "/usr/sbin/runc".into())],
            ..Variant::of_version("9.1.0")
        };
        let both = releases.publish(host, &both)?;
        let containers = web(&host.registry, "1", "") + &declared(&host.registry);

        let file = host.signed(
            "one.toml",
            &manifest(&host.registry, 1, &format!("[os]\nruntime = \"runc\"\n{containers}")),
        )?;
        let ran = host.push(&file, &[])?;
        assert_eq!(ran.code, 2, "{}", ran.stderr);
        assert!(ran.stderr.contains("no container runtime runc, but crun"), "{}", ran.stderr);
        host.converge("one.toml", &manifest(&host.registry, 1, &containers))?;

        let two =
            with_os(host, &releases, 2, &both, &containers).replace("[os]\n", "[os]\nruntime = \"runc\"\n");
        let file = host.signed("two.toml", &two)?;
        host.push(&file, &[])?.done()?;
        let after = status(host, "the other runtime to be kept", |s| kept(s, 2))?;
        assert_eq!(after["os"]["root"], both.root.as_str());
        let made = host.vm.guest_ok(
            "cd /run/bennu/runtime && ls */*/state.json | wc -l; ls */*/status 2>/dev/null | wc -l",
        )?;
        assert_eq!(made, "3\n0", "each is one of runc's, and none of crun's");

        host.wait_for_page("first edition")?;
        is_as_declared(host, "bennu-one-2.service")?;
        let ran = fed(host, &["exec", "-i", "one", "--", "sh", "-c", "cat; exit 7"], b"words")?;
        assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(7), "words"), "{ran:?}");
        let shown = in_terminal(host, "$HOSTCTL exec -it one -- sh -c 'busybox stty size; exit 9'")?;
        assert!(text(&shown.stdout).contains("50 132"), "{}", text(&shown.stdout));
        assert_eq!(shown.status.code(), Some(9), "{}", text(&shown.stdout));
        let image = host.registry.pinned("redis", "1");
        let shell = ["debug-shell", "two", "--image", &image, "--", "sh", "-c", "cat /proc/1/comm; exit 3"];
        let ran = fed(host, &shell, b"")?;
        assert_eq!((ran.status.code(), text(&ran.stdout).as_str()), (Some(3), "sleep\n"), "{ran:?}");

        // Without its key the usual one is back, on the same operating system.
        host.converge("three.toml", &with_os(host, &releases, 3, &both, &containers))?;
        host.wait_for_page("first edition")?;
        let made = host.vm.guest_ok(
            "cd /run/bennu/runtime && ls */*/status | wc -l; ls */*/state.json 2>/dev/null | wc -l",
        )?;
        assert_eq!(made, "3\n0", "and nothing of the other one is left");
        Ok(())
    })
}
