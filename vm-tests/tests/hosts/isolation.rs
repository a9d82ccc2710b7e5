//! What a container may see and use, as the manifest says it.

use vm_tests::registry::Stocked;
use vm_tests::{Error, Failure, Host, on_host};

use crate::manifest::{manifest, sleeper};

/// All that [`is_as_declared`] looks for, as keys of the container `one`.
const DECLARED: &str = "hostname = \"www.example.org\"\ngroups = [\"44\"]\ninit = true\ntime-zone = \"Asia/Tokyo\"\n\
    extra-hosts = { \"db.example\" = \"10.9.9.9\" }\ndns = { search = [\"example.org\"], options = [\"ndots:2\"] }\n\
    shm-size = \"1MiB\"\nulimits = { nofile = { soft = 100, hard = 200 } }\n\
    sysctls = { \"net.core.somaxconn\" = \"77\" }\ndrop-capabilities = [\"CHOWN\"]\noom-score-adjust = 300\n\
    mac-address = \"02:42:ac:11:00:02\"\n\
    limits = { memory = \"64MiB\", memory-reservation = \"32MiB\", swap = \"0B\", cpu-weight = 50, cpuset = \"0\", io-weight = 20, pids = 50 }\n";

/// The containers `one` and `two`, which may use a device.
pub(crate) fn declared(registry: &Stocked) -> String {
    let two = "devices = [\"/dev/vda:/dev/disk:r\"]\n";
    sleeper(registry, "one", DECLARED) + &sleeper(registry, "two", two)
}

/// Demands that the containers of [`declared`] find what was declared of them.
pub(crate) fn is_as_declared(host: &mut Host, unit: &str) -> Result<(), Failure> {
    let hostctl = host.hostctl();
    let inside = |name: &str, command: &str| -> Result<String, Error> {
        let ran = hostctl.run(&["exec", name, "--", "sh", "-c", command])?.done()?;
        Ok(ran.stdout.trim().to_owned())
    };
    for (command, expected) in [
        ("hostname", "www.example.org"),
        ("id -G", "0 44"),
        ("cat /proc/1/comm", "bennu-init"),
        ("date +%Z", "JST"),
        ("grep db.example /etc/hosts", "10.9.9.9\tdb.example"),
        ("grep -c -e 'search example.org' -e 'options ndots:2' /etc/resolv.conf", "2"),
        ("df -k /dev/shm | grep -c ' 1024 '", "1"),
        ("set -- $(grep 'open files' /proc/1/limits); echo $4 $5", "100 200"),
        ("cat /proc/sys/net/core/somaxconn", "77"),
        ("touch /dev/shm/x; chown 5 /dev/shm/x 2>/dev/null || echo refused", "refused"),
        ("cat /proc/1/oom_score_adj", "300"),
        ("cat /sys/class/net/eth0/address", "02:42:ac:11:00:02"),
    ] {
        assert_eq!(inside("one", command)?, expected, "{command}");
    }
    let group = format!("/sys/fs/cgroup/bennu.slice/{unit}");
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.high", "33554432"),
        ("memory.swap.max", "0"),
        ("cpu.weight", "50"),
        ("cpuset.cpus", "0"),
        ("pids.max", "50"),
    ] {
        assert_eq!(host.vm.guest_ok(&format!("cat {group}/{file}"))?, expected, "{file}");
    }
    assert_eq!(inside("two", "dd if=/dev/disk bs=512 count=1 2>/dev/null | wc -c")?, "512");
    assert_eq!(inside("two", "dd if=/dev/null of=/dev/disk 2>/dev/null || echo refused")?, "refused");
    assert_eq!(inside("one", "ls /dev/vda /dev/disk 2>/dev/null | wc -l")?, "0", "nobody else has it");
    Ok(())
}

#[test]
fn what_is_declared_of_a_container_is_what_it_finds() -> Result<(), Failure> {
    on_host("what_is_declared_of_a_container_is_what_it_finds", |host| {
        host.converge("host.toml", &manifest(&host.registry, 1, &declared(&host.registry)))?;
        is_as_declared(host, "bennu-one-1.service")?;
        // Not so with every version of another runtime.
        let command = ["exec", "one", "--", "sh", "-c", "ulimit -Sn; ulimit -Hn"];
        let limits = host.hostctl().run(&command)?.done()?.stdout;
        assert_eq!(limits, "100\n200\n", "a command has the limits of open files, too");
        Ok(())
    })
}
