//! What containers reach, what reaches them, and by which names and addresses.
//!
//! A neighbour of the host is another network namespace in the same machine, at the other end of a pair of interfaces.
//! There the static `busybox` of a container's tree serves and asks.

use vm_tests::{Error, Failure, Host, on_host};

use crate::manifest::{manifest, sleeper};

/// The static program with all plain programs, in the tree of the container `one`.
const BUSYBOX: &str = "/run/host/bennu/instances/one-1/rootfs/usr/bin/busybox";

/// What a container serves: its `/etc`, in which `hostname` tells who answers.
fn serving(ports: &[u16]) -> String {
    let servers: Vec<_> = ports.iter().map(|port| format!("httpd -f -v -p {port} -h /etc &")).collect();
    format!("command = [\"sh\", \"-c\", \"{} sleep 100000\"]\n", servers.join(" "))
}

/// Runs a script of lines `NAME COMMAND` in the guest or a container, and says for each whether it succeeded.
fn script(lines: &[(&str, String)]) -> String {
    lines
        .iter()
        .map(|(name, command)| format!("({command}) >/dev/null 2>&1 && echo {name} yes || echo {name} no\n"))
        .collect()
}

/// What [`script`] says where all is as expected.
fn expected(lines: &[(&str, bool)]) -> String {
    let line = |(name, yes): &(&str, bool)| format!("{name} {}\n", if *yes { "yes" } else { "no" });
    lines.iter().map(line).collect::<String>().trim_end().to_owned()
}

/// One thing that is tried: what it is called, the command, and whether it is to succeed.
type Tried<'a> = (&'a str, String, bool);

fn assert_tried(ran: Result<String, Error>, tried: &[Tried<'_>]) -> Result<(), Failure> {
    let expected = expected(&tried.iter().map(|(name, _, yes)| (*name, *yes)).collect::<Vec<_>>());
    assert_eq!(ran?.trim_end(), expected);
    Ok(())
}

fn in_guest(host: &mut Host, tried: &[Tried<'_>]) -> Result<(), Failure> {
    let lines: Vec<_> = tried.iter().map(|(name, command, _)| (*name, command.clone())).collect();
    assert_tried(host.vm.guest_ok(&script(&lines)), tried)
}

fn inside(host: &Host, container: &str, tried: &[Tried<'_>]) -> Result<(), Failure> {
    let lines: Vec<_> = tried.iter().map(|(name, command, _)| (*name, command.clone())).collect();
    let ran = host.hostctl().run(&["exec", container, "--", "sh", "-c", &script(&lines)])?.done()?;
    assert_tried(Ok(ran.stdout), tried)
}

/// Somebody else answers at this place, and says this name.
fn gets(wget: &str, place: &str, name: &str) -> String {
    format!("{wget} -T 5 -qO- http://{place}/hostname | grep -qx {name}")
}

/// A neighbour of the host in the network namespace `name`, at the other end of the interface `name`0.
fn neighbour(name: &str, addresses: &[(&str, &str)]) -> String {
    let mut lines = format!(
        "set -e; ip link add {name}0 type veth peer name {name}1; ip netns add {name}; ip link set {name}1 netns {name}\n\
         ip link set {name}0 up; ip -n {name} link set {name}1 up; ip -n {name} link set lo up\n"
    );
    for (here, there) in addresses {
        let nodad = if there.contains(':') { "nodad" } else { "" };
        if !here.is_empty() {
            lines.push_str(&format!("ip address add {here} dev {name}0 {nodad}\n"));
        }
        lines.push_str(&format!("ip -n {name} address add {there} dev {name}1 {nodad}\n"));
    }
    lines
}

#[test]
fn containers_reach_what_they_should_and_are_reached_where_they_are_published() -> Result<(), Failure> {
    on_host("containers_reach_what_they_should_and_are_reached_where_they_are_published", |host| {
        host.vm.guest_ok(&neighbour(
            "out",
            &[("192.0.2.1/24", "192.0.2.2/24"), ("2001:db8::1/64", "2001:db8::2/64")],
        ))?;
        let networks = "[network.front]\nsubnet = \"10.30.0.0/24\"\nsubnet6 = \"fd00:30::/64\"\ngateway = \"10.30.0.254\"\n\
                        [network.back]\ninternal = true\n[network.apart]\nisolated = true\n";
        let of = |name: &str, network: &str, more: &str| {
            sleeper(&host.registry, name, &format!("networks = [\"{network}\"]\n{more}"))
        };
        let ports = "ports = [\"8080:80\", \"192.0.2.1:8100-8102:9000-9002\", \"[::]:8080:80\", \
                     \"[2001:db8::1]:8100-8102:9000-9002\", \"53:53/udp\"]\naliases = [\"www\"]\n";
        let web = of("web", "front", &format!("{ports}{}", serving(&[80, 9000, 9001, 9002])));
        let one = of("one", "front", "extra-hosts = { \"the-host\" = \"host-gateway\" }\n");
        let finder = of("finder", "front", "dns = { search = [\"podman\"] }\n");
        let two = of("two", "front", &format!("replicas = 2\n{}", serving(&[80])));
        let back =
            of("inner", "back", &serving(&[80])) + &of("asker", "back", "add-capabilities = [\"NET_ADMIN\"]");
        let apart = of("lone", "apart", &serving(&[80])) + &of("other", "apart", "");
        let all = format!("{networks}{web}{one}{finder}{two}{back}{apart}");
        host.converge("host.toml", &manifest(&host.registry, 1, &all))?;

        let address = |host: &Host, name: &str, number: usize| -> Result<String, Failure> {
            let container = host.hostctl().container(name)?;
            Ok(container["addresses"][number].as_str().ok_or("it has no such address")?.to_owned())
        };

        // Whoever asks from outside, by every way in that is published, and by none that is not.
        let (web4, web6) = (address(host, "web", 0)?, address(host, "web", 1)?);
        let wget = format!("ip netns exec out {BUSYBOX} wget");
        let from_out = |place: &str| gets(&wget, place, "web");
        host.vm.guest_ok("ip -n out route add 10.30.0.0/24 via 192.0.2.1; ip -n out route add fd00:30::/64 via 2001:db8::1")?;
        in_guest(
            host,
            &[
                ("v4", from_out("192.0.2.1:8080"), true),
                ("v6", from_out("[2001:db8::1]:8080"), true),
                ("range-first", from_out("192.0.2.1:8100"), true),
                ("range-last", from_out("192.0.2.1:8102"), true),
                ("range-v6", from_out("[2001:db8::1]:8101"), true),
                ("beyond-range", from_out("192.0.2.1:8103"), false),
                ("unpublished-v4", from_out(&web4), false),
                ("unpublished-v6", from_out(&format!("[{web6}]")), false),
                ("host-itself", format!("{BUSYBOX} wget -T 5 -qO- http://127.0.0.1:8080/hostname"), true),
                ("host-v6", format!("{BUSYBOX} wget -T 5 -qO- http://[2001:db8::1]:8080/hostname"), true),
                (
                    "addressed-elsewhere",
                    format!("{BUSYBOX} wget -T 5 -qO- http://127.0.0.1:8100/hostname"),
                    false,
                ),
            ],
        )?;
        let log = host.hostctl().run(&["logs", "web"])?.done()?.stdout;
        assert!(
            log.contains("192.0.2.2]:") && log.contains("2001:db8::2]:"),
            "clients keep their addresses: {log}"
        );
        // Nobody listens on the port, so what arrives is counted where it arrives.
        let no_ports = "/^Udp:/ && ++n == 2 { print $3 }";
        let counted = |host: &Host| -> Result<u64, Failure> {
            let ran = host
                .hostctl()
                .run(&["exec", "web", "--", "busybox", "awk", no_ports, "/proc/net/snmp"])?
                .done()?;
            Ok(ran.stdout.trim().parse()?)
        };
        let before = counted(host)?;
        host.vm.guest_ok("ip netns exec out bash -c 'echo x >/dev/udp/192.0.2.1/53'")?;
        assert_eq!(counted(host)?, before + 1, "a datagram arrives, and names are still answered below");

        // Whom a container finds, by which name, and what it does not reach.
        host.vm.guest_ok(&format!(
            "ip netns exec out {BUSYBOX} httpd -f -v -p 81 -h /etc </dev/null >/run/out.log 2>&1 &"
        ))?;
        let name = host.vm.guest_ok("cat /etc/hostname")?;
        let inner = address(host, "inner", 0)?;
        let lookup = |kind: &str, name: &str| format!("nslookup -type={kind} {name} | grep -v ':53$'");
        inside(
            host,
            "one",
            &[
                ("name", gets("wget", "web", "web"), true),
                ("alias", gets("wget", "www", "web"), true),
                ("aaaa", format!("{} | grep -q fd00:30::", lookup("aaaa", "web")), true),
                (
                    "replicas",
                    format!("[ $({} | grep -c '^Address:.*10.30.0.') = 2 ]", lookup("a", "two")),
                    true,
                ),
                ("published", gets("wget", "192.0.2.1:8080", "web"), true),
                ("published-v6", gets("wget", "[2001:db8::1]:8080", "web"), true),
                ("out", gets("wget", "192.0.2.2:81", &name), true),
                ("out-v6", gets("wget", "[2001:db8::2]:81", &name), true),
                ("gateway", "ip route | grep -q 'default via 10.30.0.254'".to_owned(), true),
                ("host-gateway", "grep -q '^10.30.0.254.*the-host' /etc/hosts".to_owned(), true),
                ("other-bridge", gets("wget", &inner, "inner"), false),
                ("other-name", gets("wget", "inner", "inner"), false),
                ("no-search", gets("wget", "web.dns", "web"), false),
                ("hosts-loopback", "wget -T 3 -qO- http://127.0.0.1:8080/".to_owned(), false),
            ],
        )?;
        // aardvark-dns answers for all names with `.dns.podman` behind them, too.
        inside(
            host,
            "finder",
            &[
                ("search", gets("wget", "web.dns", "web"), true),
                ("beyond-search", gets("wget", "web.elsewhere", "web"), false),
            ],
        )?;
        let out = host.vm.guest_ok("cat /run/out.log")?;
        assert!(
            out.contains("192.0.2.1]:") && out.contains("2001:db8::1]:"),
            "the way out leads through the host: {out}"
        );
        // A container that may change its own network does not leave an internal one by that.
        let router = inner.rsplit_once('.').map_or_else(String::new, |(net, _)| format!("{net}.1"));
        inside(
            host,
            "asker",
            &[("route", format!("ip route add default via {router} && ip route | grep -q default"), true)],
        )?;
        inside(
            host,
            "asker",
            &[
                ("name", gets("wget", "inner", "inner"), true),
                ("out", gets("wget", "192.0.2.2:81", &name), false),
                ("other-bridge", gets("wget", &web4, "web"), false),
            ],
        )?;
        inside(
            host,
            "other",
            &[
                ("neighbour", gets("wget", "lone", "lone"), false),
                ("out", gets("wget", "192.0.2.2:81", &name), true),
            ],
        )?;

        // Nothing of a network is left when nothing is on it.
        host.converge("empty.toml", &format!("allow-empty = true\n{}", manifest(&host.registry, 2, "")))?;
        let left = host
            .vm
            .guest_ok("ls /sys/class/net | grep -c '^bn-\\|^veth' || true; ls /run/bennu/networks | wc -l")?;
        assert_eq!(left, "0\n0");
        Ok(())
    })
}

#[test]
fn networks_beside_the_host_and_the_hosts_own_are_what_they_say() -> Result<(), Failure> {
    on_host("networks_beside_the_host_and_the_hosts_own_are_what_they_say", |host| {
        host.vm.guest_ok(&neighbour("lana", &[("", "192.168.77.2/24")]))?;
        host.vm.guest_ok(&neighbour("lanb", &[("", "192.168.79.2/24")]))?;
        host.vm.guest_ok(
            "set -e; ip -n lana address add 198.51.100.1/32 dev lo\n\
             ip -n lana link add link lana1 name tagged type vlan id 20\n\
             ip -n lana address add 192.168.78.2/24 dev tagged; ip -n lana link set tagged up",
        )?;
        let networks = "[network.mac]\nkind = \"macvlan\"\nparent = \"lana0\"\nsubnet = \"192.168.77.0/24\"\ngateway = \"192.168.77.2\"\n\
                        [network.ipv]\nkind = \"ipvlan\"\nparent = \"lanb0\"\nsubnet = \"192.168.79.0/24\"\n\
                        [network.vlan]\nkind = \"macvlan\"\nparent = \"lana0\"\nvlan = 20\nsubnet = \"192.168.78.0/24\"\n\
                        [network.hosts]\nkind = \"host\"\n[network.nothing]\nkind = \"none\"\n";
        let of = |name: &str, network: &str, more: &str| {
            sleeper(&host.registry, name, &format!("networks = [\"{network}\"]\n{more}"))
        };
        let all = [
            networks.to_owned(),
            of("one", "mac", &format!("addresses = {{ mac = \"192.168.77.10\" }}\n{}", serving(&[80]))),
            of("two", "ipv", &format!("addresses = {{ ipv = \"192.168.79.10\" }}\n{}", serving(&[80]))),
            of("three", "vlan", &format!("addresses = {{ vlan = \"192.168.78.10\" }}\n{}", serving(&[80]))),
            of("four", "hosts", ""),
            of("five", "nothing", ""),
            sleeper(&host.registry, "strong", "privileged = true\n"),
            sleeper(&host.registry, "shared", "pid = \"host\"\nipc = \"host\"\nuser-namespace = \"host\"\n"),
        ];
        host.converge("host.toml", &manifest(&host.registry, 1, &all.concat()))?;

        let from = |namespace: &str, place: &str, name: &str| {
            gets(&format!("ip netns exec {namespace} {BUSYBOX} wget"), place, name)
        };
        in_guest(
            host,
            &[
                ("macvlan", from("lana", "192.168.77.10", "one"), true),
                ("ipvlan", from("lanb", "192.168.79.10", "two"), true),
                ("vlan", from("lana", "192.168.78.10", "three"), true),
            ],
        )?;
        let log = host.hostctl().run(&["logs", "one"])?.done()?.stdout;
        assert!(log.contains("192.168.77.2]:"), "nothing stands between: {log}");
        let servers = host.vm.guest_ok("grep ^nameserver /etc/resolv.conf")?;
        inside(
            host,
            "one",
            &[
                ("router", "ip route | grep -q 'default via 192.168.77.2'".to_owned(), true),
                ("servers", format!("[ \"$(grep ^nameserver /etc/resolv.conf)\" = '{servers}' ]"), true),
            ],
        )?;
        let mine = "cat /proc/net/dev | grep -c lana0";
        inside(host, "four", &[("interfaces", mine.to_owned(), true)])?;
        inside(host, "one", &[("interfaces", mine.to_owned(), false)])?;
        inside(
            host,
            "five",
            &[("alone", "[ $(grep -c : /proc/net/dev) = 1 ] && grep -q lo: /proc/net/dev".to_owned(), true)],
        )?;
        let strong = [
            ("mounts", "mount -t tmpfs none /mnt 2>/dev/null || mount -t tmpfs none /tmp".to_owned(), true),
            ("devices", "dd if=/dev/vda of=/dev/null bs=512 count=1".to_owned(), true),
            ("users", "grep -q '^ *0 *0 *4294967295' /proc/self/uid_map".to_owned(), true),
        ];
        inside(host, "strong", &strong)?;
        inside(host, "five", &strong.map(|(name, command, _)| (name, command, false)))?;
        let shared = [
            ("processes", "grep -qx systemd /proc/1/comm".to_owned(), true),
            ("users", "grep -q '^ *0 *0 *4294967295' /proc/self/uid_map".to_owned(), true),
        ];
        inside(host, "shared", &shared)?;
        inside(host, "five", &shared.map(|(name, command, _)| (name, command, false)))?;
        let ipc = host.vm.guest_ok("readlink /proc/1/ns/ipc")?;
        let of_container = |host: &mut Host, name: &str| -> Result<String, Failure> {
            let pid = host.hostctl().container(name)?["pid"].to_string();
            Ok(host.vm.guest_ok(&format!("readlink /proc/{pid}/ns/ipc"))?)
        };
        assert_eq!(of_container(host, "shared")?, ipc);
        assert_ne!(of_container(host, "five")?, ipc);

        host.converge("empty.toml", &format!("allow-empty = true\n{}", manifest(&host.registry, 2, "")))?;
        assert_eq!(host.vm.guest_ok("ls /sys/class/net | grep -c '^bn-' || true")?, "0", "the VLAN went too");
        Ok(())
    })
}
