//! That containers which come and go leave nothing behind.

use std::time::Duration;

use vm_tests::registry::Stocked;
use vm_tests::{Error, Failure, Host, on_host, wait};

use crate::manifest::{allow_empty, manifest, sleeper};

/// How many containers there are, and how often all of them are replaced where `BENNU_ROUNDS` does not say it: 20 rounds make 200
/// starts and 200 stops, which take some ten minutes where the machine is translated.
const CONTAINERS: usize = 10;
const ROUNDS: u64 = 3;

/// What containers could leave behind, a number a line. What the daemon makes once it has served for half a minute is none of that.
const COUNT: &str = "daemon=$(systemctl show --property=MainPID --value hostd.service)\n\
    echo processes: $(cat /proc/[0-9]*/cgroup 2>/dev/null | grep -c bennu.slice)\n\
    echo ended and not waited for: $(grep -l '^State:.Z' /proc/[0-9]*/status 2>/dev/null | wc -l)\n\
    echo mounts: $(wc -l </proc/1/mountinfo) and $(wc -l </proc/$daemon/mountinfo)\n\
    echo network namespaces: $(readlink /proc/[0-9]*/ns/net | sort -u | wc -l)\n\
    echo links: $(ls /sys/class/net | wc -l)\n\
    echo rules: $(nft --stateless list ruleset | wc -l)\n\
    echo control groups: $(find /sys/fs/cgroup/bennu.slice -type d 2>/dev/null | wc -l)\n\
    echo units: $(systemctl list-units --all --plain --no-legend 'bennu-*.service' | wc -l)\n\
    echo loop devices: $(ls -d /sys/block/loop*/loop 2>/dev/null | wc -l)\n\
    echo what runtimes keep: $(find /run/bennu/runtime /run/host/bennu/instances -mindepth 1 2>/dev/null | wc -l)\n\
    echo in memory: $(find /run/bennu /run/host/bennu ! -name came-up ! -name esp | wc -l)\n\
    echo names: $(cat /run/bennu/names/* | wc -l)\n\
    echo thrown away: $(find /state/scratch -maxdepth 2 2>/dev/null | wc -l)";

/// What [`COUNT`] does not: the daemon has more connections open at one time than at another.
const OPEN: &str = "ls /proc/$(systemctl show --property=MainPID --value hostd.service)/fd | wc -l";

/// So many containers that have a part of everything; half of them end when they are told to, half are killed.
fn containers(registry: &Stocked, edition: u64) -> String {
    let one = |number: usize| {
        let ends = if number.is_multiple_of(2) { "init = true" } else { "stop-signal = \"SIGKILL\"" };
        let more = format!(
            "{ends}\nports = [\"{}:80\"]\nvolumes = [\"data:/data\"]\ntmpfs = [\"/tmp\"]\nread-only-root = false\n\
             environment = {{ EDITION = \"{edition}\" }}\n\
             command = [\"sh\", \"-c\", \"echo $EDITION >/written; exec sleep 1000000\"]\n",
            9000 + number
        );
        sleeper(registry, &format!("c{number}"), &more)
    };
    "[volume.data]\nlife = \"keep\"\n".to_owned() + &(0..CONTAINERS).map(one).collect::<String>()
}

fn nothing(host: &Host, serial: u64) -> Result<(), Error> {
    let declared = manifest(&host.registry, serial, "[volume.data]\nlife = \"keep\"\n");
    host.converge("nothing.toml", &allow_empty(&declared))
}

#[test]
fn containers_that_come_and_go_leave_nothing_behind() -> Result<(), Failure> {
    on_host("containers_that_come_and_go_leave_nothing_behind", |host| {
        // What the first container needs and stays for all others is not what is looked for.
        host.converge("first.toml", &manifest(&host.registry, 1, &containers(&host.registry, 1)))?;
        nothing(host, 2)?;
        let before = host.vm.guest_ok(COUNT)?;
        let open: u64 = host.vm.guest_ok(OPEN)?.parse()?;

        let rounds = std::env::var("BENNU_ROUNDS").map_or(Ok(ROUNDS), |text| text.parse())?;
        for round in 1..=rounds {
            let serial = 2 + round;
            host.converge(
                "all.toml",
                &manifest(&host.registry, serial, &containers(&host.registry, serial)),
            )?;
        }
        let running = host.vm.guest_ok(COUNT)?;
        assert_ne!(before, running, "what is counted is there while containers run");
        nothing(host, 3 + rounds)?;
        let count = || host.vm.guest_ok(COUNT);
        let waited =
            wait::until_good("all to be as before", Duration::from_secs(60), count, |now| *now == before);
        assert!(
            waited.is_ok(),
            "before:\n{before}\nwhile they ran:\n{running}\nafter: {}",
            host.vm.guest_ok(COUNT)?
        );
        // One for each start would be more.
        let after: u64 = host.vm.guest_ok(OPEN)?.parse()?;
        assert!(after < open + 20, "{open} open files before, {after} after");
        Ok(())
    })
}
