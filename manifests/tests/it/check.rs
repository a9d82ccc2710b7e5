//! What a manifest may say, and beside each permission what it may not.

use bennu_manifests::model::{Name, Protocol, Restart, VolumeLife};
use bennu_manifests::{Invalid, check};

use crate::samples::{HEADER, HEX, full, image, with_container};

fn refused(text: &str) -> Invalid {
    let invalid = check(text.as_bytes()).expect_err(text);
    assert!(!invalid.errors.is_empty());
    invalid
}

/// `text` has exactly one fault, whose text as a person sees it contains `expect`.
fn one_fault(text: &str, expect: &str) {
    let invalid = refused(text);
    let shown = invalid.render("f", text);
    assert_eq!(invalid.errors.len(), 1, "{shown}");
    assert!(shown.contains(expect), "{expect:?} is not in:\n{shown}");
}

fn taken(text: &str) -> bennu_manifests::model::Manifest {
    check(text.as_bytes()).unwrap_or_else(|invalid| panic!("{}", invalid.render("f", text)))
}

fn name(text: &str) -> Name {
    text.parse().expect("a name")
}

#[test]
fn every_key_arrives_in_the_manifest() {
    let manifest = taken(&full());
    assert_eq!(manifest.header.serial, 5);
    assert_eq!(manifest.header.expires.to_string(), "2026-06-01T12:00:00Z");
    assert_eq!(manifest.header.audience.arch.as_deref(), Some("amd64"));
    assert_eq!(manifest.header.audience.labels["example.org/ring"], "early");
    assert!(manifest.registries["registry.example:5000"].plain_http);
    assert_eq!(manifest.networks.len(), 3);
    assert_eq!(manifest.networks[&name("back")].subnet.expect("it is there").to_string(), "10.20.1.0/24");
    assert!(manifest.networks[&name("back")].internal && !manifest.networks[&name("front")].internal);
    assert_eq!(manifest.volumes[&name("cache")].life, VolumeLife::Scratch);

    let db = &manifest.containers[&name("db")];
    assert_eq!(db.command.as_ref().expect("a command")[2], "line one\nline two");
    assert_eq!(
        (db.limits.memory, db.limits.cpu_millis, db.limits.pids),
        (Some(1 << 30), Some(1500), Some(200))
    );
    assert_eq!((db.restart, db.stop_timeout_ms, db.read_only_root), (Restart::OnFailure, 60_000, false));
    assert_eq!(db.stop_signal.as_deref(), Some("SIGINT"));
    assert_eq!(db.add_capabilities, ["NET_ADMIN", "SYS_NICE"]);

    let web = &manifest.containers[&name("web")];
    assert_eq!(web.environment["GREETING"], "hello wörld");
    assert_eq!((web.ports.len(), web.ports[2].protocol), (4, Protocol::Udp));
    assert!(web.volumes[0].read_only);
    assert_eq!((web.tmpfs[0].size, web.tmpfs[1].size), (64 << 20, 16 << 20));
    assert_eq!((web.limits.memory, web.limits.cpu_millis), (Some(64 << 20), Some(2000)));
    assert_eq!(web.depends_on[0].container, name("db"));
}

#[test]
fn what_is_left_out_has_the_safe_value() {
    let manifest = taken(&with_container(""));
    let web = &manifest.containers[&name("web")];
    assert!(web.read_only_root && web.add_capabilities.is_empty() && web.ports.is_empty());
    assert_eq!(web.networks, [name("default")]);
    assert_eq!((web.restart, web.stop_timeout_ms), (Restart::Always, 10_000));
    assert!(manifest.networks.contains_key(&name("default")));
    assert!(taken(HEADER).containers.is_empty());
}

#[test]
fn the_default_network_may_be_declared_and_named() {
    let manifest =
        taken(&with_container("networks = [\"default\"]\n[network.default]\nsubnet = \"10.9.0.0/16\""));
    assert_eq!(manifest.networks[&name("default")].subnet.expect("it is there").to_string(), "10.9.0.0/16");
    taken(&with_container("networks = [\"default\"]"));
}

#[test]
fn faults_of_the_header_are_found() {
    for (from, to, expect) in [
        ("schema = 1", "schema = 2", "schema 2 is not known here"),
        ("schema = 1", "schema = \"1\"", "`schema` is a string, an integer is expected"),
        ("schema = 1\n", "", "the document has no `schema`"),
        ("serial = 5", "serial = 0", "`serial` must be an integer from 1"),
        ("serial = 5", "serial = -1", "`serial` must be"),
        ("serial = 5", "serial = 9223372036854775808", "`serial` must be"),
        ("serial = 5", "serial = 5.0", "`serial` is a float"),
        ("serial = 5\n", "", "help: add `serial = 1`"),
        ("\"demo\"", "\"Demo\"", "`Demo` is no name"),
        ("\"demo\"", "\"\"", "`` is no name"),
        ("2026-03-01T12:00:00Z", "2026-03-01", "offset is missing"),
        ("2026-03-01T12:00:00Z", "2026-03-01T12:00:00", "offset is missing"),
        ("2026-03-01T12:00:00Z", "\"2026-03-01T12:00:00Z\"", "a date-time without quotes is expected"),
        ("2026-03-01T12:00:00Z", "2026-06-01T12:00:00Z", "expires before it was signed"),
        ("2026-06-01T12:00:00Z", "2026-03-01T13:00:00+02:00", "expires before it was signed"),
        ("serial = 5", "serial = 5\nserail = 6", "help: did you mean `serial`?"),
        ("serial = 5", "serial = 5\nserial = 5", "duplicate key"),
        ("serial = 5", "serial = 5\naudience = { arch = \"x86_64\" }", "help: write `amd64`"),
        (
            "serial = 5",
            "serial = 5\naudience = { labels = { \"A b\" = \"c\" } }",
            "`A b` is no name of a label",
        ),
        (
            "serial = 5",
            "serial = 5\nallow-empty = 1",
            "`allow-empty` is an integer, true or false is expected",
        ),
    ] {
        let text = HEADER.replacen(from, to, 1);
        assert_ne!(text, HEADER, "{from}");
        one_fault(&text, expect);
    }
    taken(&HEADER.replace("12:00:00Z", "12:00Z"));
}

#[test]
fn faults_of_a_container_are_found() {
    for (line, expect) in [
        ("ports = [\"80\"]", "help: write `80:80`"),
        ("ports = [80]", "`container.web.ports[0]` is an integer, a string is expected"),
        ("ports = \"80:80\"", "an array is expected"),
        ("ports = [\"80:80\", \"80:81\"]", "port 80 of the host is already published by container `web`"),
        ("ports = [\"80:80\", \"127.0.0.1:80:81\"]", "already published"),
        ("ports = [\"80:80\", \"80:80\"]", "says this twice"),
        ("prots = [\"80:80\"]", "help: did you mean `ports`?"),
        ("networks = [\"frnt\"]\n[network.front]", "help: did you mean `front`?"),
        ("networks = [\"other\"]", "help: declare it by `[network.other]`"),
        ("networks = []", "leave `networks` out"),
        ("volumes = [\"data:/data\"]", "there is no volume `data`"),
        ("volumes = [\"/etc:/data\"]", "is a path of the host"),
        ("volumes = [\"v\"]", "`v` is no mount of a volume"),
        ("volumes = [\"v:data\"]\n[volume.v]\nlife = \"keep\"", "not an absolute path"),
        ("volumes = [\"v:/a/../b\"]\n[volume.v]\nlife = \"keep\"", "not a normalised path"),
        ("volumes = [\"v:/\"]\n[volume.v]\nlife = \"keep\"", "nothing can be mounted at `/`"),
        ("volumes = [\"v:/proc/1\"]\n[volume.v]\nlife = \"keep\"", "nothing can be mounted at `/proc/1`"),
        ("volumes = [\"v:/a:rx\"]\n[volume.v]\nlife = \"keep\"", "no mount of a volume"),
        ("volumes = [\"v:/a\"]\ntmpfs = [\"/a\"]\n[volume.v]\nlife = \"keep\"", "mounts two things at `/a`"),
        ("[volume.v]", "has no `life`"),
        ("[volume.v]\nlife = \"forever\"", "is no life of a volume"),
        ("tmpfs = [\"/a\", \"/a:1MiB\"]", "mounts two things at `/a`"),
        ("tmpfs = [\"/a:1M\"]", "help: write `1MiB`"),
        ("tmpfs = [\"/a:0B\"]", "from 4KiB"),
        ("limits = { memory = \"64m\" }", "help: write `64MiB`"),
        ("limits = { memory = \"1KiB\" }", "memory is from 1MiB"),
        ("limits = { memory = 1 }", "must be an integer from 1048576"),
        ("limits = { memory = 1.5 }", "is a float, an integer is expected"),
        ("limits = { cpu = 0.5 }", "is a float"),
        ("limits = { cpu = \"half\" }", "is no share of CPUs"),
        ("limits = { cpu = \"0.001\" }", "CPUs are from 0.01"),
        ("limits = { cpu = 0 }", "from 1 to 1024"),
        ("limits = { pids = 0 }", "from 1 to 4194304"),
        ("limits = { swab = 1 }", "unknown key `swab` in `container.web.limits`"),
        ("depends-on = [\"wbe\"]", "help: did you mean `web`?"),
        ("depends-on = [\"web\"]", "wait for each other: web → web"),
        ("aliases = [\"web\"]", "already the name of a container"),
        ("aliases = [\"A\"]", "`A` is no name"),
        ("user = \"a b\"", "is no user"),
        ("user = \"4294967295\"", "is no user"),
        ("user = \"0:\"", "is no user"),
        ("working-directory = \"srv\"", "not an absolute path"),
        ("working-directory = \"/srv/..\"", "not a normalised path"),
        ("working-directory = \"/proc/self/fd/7\\n\"", "contains the character \\u{a}"),
        ("add-capabilities = [\"CAP_NET_ADMIN\"]", "help: write `NET_ADMIN`"),
        ("add-capabilities = [\"FLY\"]", "`FLY` is no capability"),
        ("stop-signal = \"TERM\"", "help: did you mean `SIGTERM`?"),
        ("stop-timeout = 10", "a string is expected"),
        ("stop-timeout = \"10\"", "help: write a whole number and ms, s, m or h"),
        ("stop-timeout = \"2h\"", "at most 1h"),
        ("restart = \"allways\"", "help: did you mean `always`?"),
        ("restart = \"never\"", "write `always`, `on-failure` or `no`"),
        ("command = []", "leave it out"),
        ("command = \"nginx\"", "an array is expected"),
        ("command = [\"a\", 1]", "`container.web.command[1]` is an integer"),
        ("environment = { \"A=B\" = \"c\" }", "no name of an environment variable"),
        ("environment = { \"\" = \"c\" }", "no name of an environment variable"),
        ("environment = { A = 1 }", "`container.web.environment.A` is an integer"),
        ("environment = { A = \"a\\u0000b\" }", "contains the character \\u{0}"),
        ("environment = { A = \"a\\u202eb\" }", "contains the character \\u{202e}"),
        ("environment = { A = \"a\\nb\" }", "contains the character \\u{a}"),
        ("entrypoint = [\"a\\u001b[2J\"]", "contains the character \\u{1b}"),
        ("[network.a]\nsubnet = \"10.0.0.1/24\"", "is no subnet"),
        ("[network.a]\nsubnet = \"10.0.0.0/31\"", "is no subnet"),
        ("[network.a]\nsubnet = \"127.1.0.0/16\"", "overlaps loopback"),
        ("[network.a]\nsubnet = \"224.0.0.0/8\"", "is not for hosts"),
        (
            "[network.a]\nsubnet = \"10.0.0.0/8\"\n[network.b]\nsubnet = \"10.1.0.0/16\"",
            "overlaps 10.0.0.0/8",
        ),
        ("[network.Front]", "`Front` is no name"),
        ("[registry.\"https://a\"]", "is no registry"),
        ("[registry.\"a.example\"]\nplain_http = true", "help: did you mean `plain-http`?"),
        ("[container.-a]", "`-a` is no name"),
        ("[[container.b]]", "`container.b` is an array, a table is expected"),
    ] {
        let mut text = with_container(line);
        if line == "[container.-a]" {
            text.push_str(&image());
        }
        one_fault(&text, expect);
    }
}

#[test]
fn images_are_taken_with_a_digest_only() {
    for (image, expect) in [
        ("docker.io/library/nginx:1", "help: run `hostctl pin FILE`"),
        ("docker.io/library/nginx", "not pinned by a digest"),
        ("nginx:1", "help: name the registry, as `docker.io/library/nginx:1`"),
        ("library/nginx:1", "names no registry"),
        ("docker.io/library/nginx@sha256:1234", "is no digest"),
        ("https://docker.io/library/nginx", "is no registry"),
        ("docker.io/Library/nginx:1", "is no repository name"),
    ] {
        one_fault(&format!("{HEADER}[container.web]\nimage = \"{image}\"\n"), expect);
    }
    one_fault(&format!("{HEADER}[container.web]\n"), "`container.web` has no `image`");
    let upper = HEX.to_uppercase();
    one_fault(&format!("{HEADER}[container.web]\nimage = \"a.example/b@sha256:{upper}\"\n"), "is no digest");
}

#[test]
fn containers_that_wait_for_each_other_are_named_in_order() {
    let image = image();
    let text = format!(
        "{HEADER}[container.a]\n{image}depends-on = [\"b\"]\n[container.b]\n{image}depends-on = [\"c\"]\n\
         [container.c]\n{image}depends-on = [\"d\", \"a\"]\n[container.d]\n{image}"
    );
    one_fault(&text, "containers wait for each other: a → b → c → a");
    let sound = text.replace("\"d\", \"a\"", "\"d\"");
    assert_eq!(taken(&sound).containers.len(), 4);
}

#[test]
fn one_port_for_two_containers_is_refused_where_addresses_overlap() {
    let image = image();
    let two = |a: &str, b: &str| {
        format!("{HEADER}[container.a]\n{image}ports = [\"{a}\"]\n[container.b]\n{image}ports = [\"{b}\"]\n")
    };
    one_fault(&two("80:80", "80:8080"), "already published by container `a`");
    one_fault(&two("127.0.0.1:80:80", "0.0.0.0:80:80"), "already published by container `a`");
    taken(&two("80:80", "80:80/udp"));
    taken(&two("127.0.0.1:80:80", "127.0.0.2:80:80"));
}

#[test]
fn all_faults_are_reported_at_once_in_the_order_of_the_text() {
    let text = "schema = 1\nname = \"Demo\"\nserial = 0\nsigned-at = 2026-03-01T12:00:00Z\nexpires = 1\ncolour = 2\n\
                [container.web]\nimage = \"nginx\"\nports = [\"a\", \"b\"]\nnetworks = [\"c\"]\n";
    let invalid = refused(text);
    let places: Vec<_> = invalid.errors.iter().map(|fault| (fault.line, fault.column)).collect();
    assert_eq!(places, [(2, 8), (3, 10), (5, 11), (6, 1), (8, 9), (9, 10), (9, 15), (10, 13)]);
    assert!(
        invalid.errors.iter().all(|fault| fault.span.start < fault.span.end && fault.span.end <= text.len())
    );
}

#[test]
fn a_fault_is_shown_with_its_line_a_mark_and_what_to_write() {
    let text = with_container("volumes = [\"dta:/data\"]\n[volume.data]\nlife = \"keep\"");
    let expect = "host.toml:8:12: error: there is no volume `dta`\n\
                  8 | volumes = [\"dta:/data\"]\n  |            ^^^^^^^^^^^\n  = help: did you mean `data`?\n";
    assert_eq!(refused(&text).render("host.toml", &text), expect);
}

#[test]
fn faults_are_json() {
    let invalid = refused(&with_container("prots = 1"));
    let json = serde_json::to_value(&invalid).expect("plain data");
    assert_eq!(json["errors"][0]["line"], 8);
    assert_eq!(json["errors"][0]["hint"], "did you mean `ports`?");
}

#[test]
fn faults_of_the_hosts_interfaces_are_found() {
    let with = |interfaces: &str| format!("{HEADER}allow-empty = true\n{interfaces}");
    for (interfaces, expect) in [
        ("[os.interface.a]\nvlan = 20", "help: name that one as `parent`"),
        ("[os.interface.a]\nparent = \"eth0\"", "help: say which VLAN it is by `vlan`"),
        ("[os.interface.a]\nvlan = 20\nparent = \"a\"", "an interface can't be on itself"),
        (
            "[os.interface.a]\nvlan = 20\nparent = \"b\"\n[os.interface.b]\nvlan = 21\nparent = \"eth0\"",
            "a VLAN can't be on a VLAN",
        ),
        ("[os.interface.a]\ndhcp = false\ngateway = \"192.0.2.1\"", "the router can't be reached"),
        (
            "[os.interface.a]\ndhcp = false\naddresses = [\"2001:db8::2/64\"]\ngateway = \"192.0.2.1\"",
            "the router can't be reached",
        ),
        ("[os.interface.lo]", "`lo` is no interface that can be configured"),
    ] {
        one_fault(&with(interfaces), expect);
    }
    taken(&with(
        "[os.interface.a]\nvlan = 20\nparent = \"eth0\"\n[os.interface.eth0]\ngateway = \"192.0.2.1\"",
    ));
    let fixed = "dhcp = false\naddresses = [\"2001:db8::2/64\"]\ngateway = \"2001:db8::1\"";
    taken(&with(&format!("[os.interface.eth0]\n{fixed}")));
}
