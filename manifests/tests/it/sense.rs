//! What the parts of a manifest say about each other, what is probably not meant, and what one host cannot do.

use bennu_manifests::{Checked, HostDescription, examine};

use crate::samples::{HEADER, image, with_container};

const ARMOUR: &str = "-----BEGIN AGE ENCRYPTED FILE-----\\nYQ==\\n-----END AGE ENCRYPTED FILE-----\\n";

fn taken(text: &str) -> Checked {
    examine(text.as_bytes(), None).unwrap_or_else(|invalid| panic!("{}\n{text}", invalid.render("f", text)))
}

/// `text` has exactly one fault, whose text as a person sees it contains `expect`.
fn one_fault(text: &str, host: Option<&HostDescription>, expect: &str) {
    let invalid = examine(text.as_bytes(), host).expect_err(text);
    let shown = invalid.render("f", text);
    assert_eq!(invalid.errors.len(), 1, "{shown}");
    assert!(shown.contains(expect), "{expect:?} is not in:\n{shown}");
}

fn notes(text: &str, host: Option<&HostDescription>) -> Vec<String> {
    let checked = examine(text.as_bytes(), host).expect(text);
    checked.notes.into_iter().map(|note| note.message).collect()
}

#[test]
fn references_lead_to_what_is_declared() {
    for (line, expect) in [
        ("secrets = [\"tokn\"]\n[secret.token]\nage = \"ARMOUR\"", "help: did you mean `token`?"),
        ("configs = [\"conf:/etc/conf\"]", "help: declare it by `[config.conf]`"),
        ("environment-secrets = { A = \"token\" }", "there is no secret `token`"),
        ("environment-files = [\"env\"]", "there is no config `env`"),
        ("depends-on = { migrate = \"completed\" }", "there is no job `migrate`"),
        (
            "depends-on = { db = \"healthy\" }\n[container.db]\nIMAGE",
            "container `db` has no health check to wait for",
        ),
        (
            "addresses = { front = \"10.0.0.2\" }\n[network.front]\nsubnet = \"10.0.0.0/24\"",
            "it does not join network `front`",
        ),
        (
            "networks = [\"front\"]\naddresses = { front = \"10.0.1.2\" }\n[network.front]\nsubnet = \"10.0.0.0/24\"",
            "not in the network's subnet",
        ),
        (
            "[registry.\"a.example\"]\ncredentials = { username = \"u\", password = \"p\" }",
            "there is no secret `p`",
        ),
        ("[registry.\"a.example\"]\nca = \"ca\"", "there is no config `ca`"),
        ("[logs.forward.x]\nkind = \"syslog\"\nurl = \"tls://a:1\"\nca = \"ca\"", "there is no config `ca`"),
        (
            "[image-policy.\"a.example\"]\nkeys = [\"ci\"]\nthreshold = 2",
            "2 keys must have signed, and there are 1",
        ),
    ] {
        one_fault(&with_container(&line.replace("ARMOUR", ARMOUR).replace("IMAGE", &image())), None, expect);
    }
}

#[test]
fn things_that_do_not_go_together_are_refused() {
    for (line, expect) in [
        (
            "networks = [\"host\", \"front\"]\n[network.front]\n[network.host]\nkind = \"host\"",
            "nothing can be joined beside `host`",
        ),
        (
            "networks = [\"bare\"]\nports = [\"80:80\"]\n[network.bare]\nkind = \"none\"",
            "nothing can be published from `bare`",
        ),
        ("ports = [\"[::]:80:80\"]", "without an IPv6 address cannot be published on one"),
        (
            "networks = [\"a\"]\naddresses = { a = \"fd00:1::7\" }\n[network.a]\nsubnet6 = \"fd00:2::/64\"",
            "not in the network's subnet",
        ),
        (
            "networks = [\"a\"]\naddresses = { a = \"10.0.0.1\" }\n[network.a]\nsubnet = \"10.0.0.0/24\"",
            "the address is that of the network's router",
        ),
        (
            "[network.a]\nsubnet6 = \"fd00:1::/64\"\n[network.b]\nsubnet6 = \"fd00:1::/48\"",
            "overlaps fd00:1::/64",
        ),
        ("[network.a]\ngateway = \"10.0.0.9\"", "no address for a machine in the network's subnet"),
        ("[network.a]\nsubnet = \"10.0.0.0/24\"\ngateway = \"10.0.0.255\"", "no address for a machine"),
        ("[network.a]\nsubnet = \"10.0.0.0/24\"\ngateway = \"fd00::1\"", "no address for a machine"),
        ("[network.a]\nkind = \"macvlan\"", "on which interface"),
        ("[network.a]\nparent = \"eth0\"", "are for networks of kind"),
        ("[network.a]\nkind = \"host\"\nsubnet = \"10.0.0.0/24\"", "no addresses of its own"),
        ("replicas = 2\nports = [\"80:80\"]", "cannot publish one port"),
        ("health = { interval = \"10s\" }", "exactly one of `exec`, `http` and `tcp`"),
        ("health = { tcp = 80, http = \"http://:80/\" }", "exactly one of"),
        ("ulimits = { nofile = { soft = 2, hard = 1 } }", "`soft` is above `hard`"),
        ("ulimits = { nofiles = 1 }", "help: did you mean `nofile`?"),
        ("sysctls = { \"kernel.core_pattern\" = \"x\" }", "is the host's, not the container's own"),
        (
            "[volume.v]\nlife = \"scratch\"\nsnapshots = { schedule = \"daily\", keep = 1 }",
            "nothing to take snapshots of",
        ),
        ("[volume.v]\nlife = \"scratch\"\nprotected = true", "nothing to protect"),
        ("[job.web]\nIMAGEwhen = \"once\"", "already the name of a container"),
        ("[job.b]\nIMAGEwhen = \"daily\"\nrestart = \"no\"", "a job ends, so it has no `restart`"),
        ("[job.b]\nIMAGEwhen = \"dayly\"", "no calendar expression"),
        ("[secret.s]\nage = \"hunter2\"", "is no encrypted file"),
        ("[os]\nkernel-arguments = [\"init=/bin/sh\"]", "is decided by the image"),
        (
            "configs = [\"c:/etc/x\"]\nvolumes = [\"v:/etc/x\"]\n[config.c]\ncontent = \"\"\n[volume.v]\nlife = \"keep\"",
            "mounts two things at `/etc/x`",
        ),
    ] {
        one_fault(&with_container(&line.replace("IMAGE", &image())), None, expect);
    }
}

#[test]
fn ports_of_containers_that_never_meet_may_be_the_same() {
    let two = |a: &str, b: &str| {
        let one =
            |name: &str, on: &str| format!("[container.{name}]\n{}ports = [\"80:80\"]\non = {on}\n", image());
        format!("{HEADER}{}{}", one("a", a), one("b", b))
    };
    let checked = taken(&two("{ role = \"edge\" }", "{ role = \"core\" }"));
    let labels = [("role".to_owned(), "core".to_owned())].into();
    let here = checked.manifest.for_host(&labels);
    assert_eq!(here.containers.keys().map(|name| name.as_str()).collect::<Vec<_>>(), ["b"]);
    one_fault(
        &two("{ role = \"edge\" }", "{ site = \"attic\" }"),
        None,
        "already published by container `a`",
    );
    one_fault(&two("{ role = \"edge\" }", "{}"), None, "already published by container `a`");
}

#[test]
fn a_dependency_must_be_wherever_it_is_waited_for() {
    let text = |web: &str, db: &str| {
        format!(
            "{HEADER}[container.web]\n{}depends-on = [\"db\"]\non = {web}\n[container.db]\n{}on = {db}\n",
            image(),
            image()
        )
    };
    taken(&text("{ role = \"edge\", site = \"a\" }", "{ role = \"edge\" }"));
    one_fault(
        &text("{ role = \"edge\" }", "{ role = \"core\" }"),
        None,
        "is not on every host that has `web`",
    );
    one_fault(&text("{}", "{ role = \"core\" }"), None, "is not on every host");
    let audience = text("{}", "{ role = \"core\" }").replacen(
        "[container.web]",
        "[audience.labels]\nrole = \"core\"\n[container.web]",
        1,
    );
    taken(&audience);
}

#[test]
fn what_is_probably_not_meant_is_noted_and_not_refused() {
    assert_eq!(notes(&with_container(""), None), ["nothing can reach container `web`"]);
    assert_eq!(notes(&with_container("ports = [\"80:80\"]"), None), [""; 0]);
    let pair = with_container(&format!("[container.db]\n{}", image()));
    assert_eq!(notes(&pair, None), [""; 0]);
    let unused = with_container("ports = [\"80:80\"]\n[volume.v]\nlife = \"keep\"\n[network.n]");
    assert_eq!(notes(&unused, None), ["volume `v` is used by nothing", "network `n` is used by nothing"]);
}

#[test]
fn a_host_is_not_asked_for_more_than_it_has() {
    let host = HostDescription {
        arch: Some("amd64".into()),
        labels: [("site".to_owned(), "attic".to_owned())].into(),
        memory: Some(1 << 30),
        cpus: Some(2),
        recipient: Some(format!("age1{}", "q".repeat(58))),
    };
    let web = |lines: &str| with_container(&format!("ports = [\"80:80\"]\n{lines}"));
    assert_eq!(notes(&web("limits = { memory = \"1GiB\", cpu = 2 }"), Some(&host)), [""; 0]);
    one_fault(&web("limits = { memory = \"1025MiB\" }"), Some(&host), "the host has 1024 MiB of memory");
    one_fault(&web("limits = { cpu = \"2.5\" }"), Some(&host), "the host has 2 CPUs");
    one_fault(
        &web("[audience]\narch = \"arm64\""),
        Some(&host),
        "the manifest is for `arm64`, and the host is `amd64`",
    );
    one_fault(
        &web("[audience]\nlabels = { site = \"cellar\" }"),
        Some(&host),
        "does not have the label `site`",
    );
    let two = web(&format!(
        "limits = {{ memory = \"600MiB\" }}\n[container.b]\n{}limits = {{ memory = \"600MiB\" }}",
        image()
    ));
    assert_eq!(
        notes(&two, Some(&host)),
        ["all memory limits together are 1200 MiB, and the host has 1024 MiB"]
    );

    let secret = |recipients: &str| web(&format!("[secret.s]\nage = \"{ARMOUR}\"\n{recipients}"));
    let ours = format!("recipients = [\"age1{}\"]", "q".repeat(58));
    assert_eq!(notes(&secret(&ours), Some(&host)), [""; 0]);
    one_fault(&secret(&ours.replace('q', "p")), Some(&host), "secret `s` is not for this host");
    assert_eq!(notes(&secret(""), Some(&host)), ["secret `s` does not say for which hosts it is"]);
}

#[test]
fn what_hosts_do_not_carry_out_is_told_with_its_place() {
    let text = with_container("ports = [\"80:80\"]\ntty = true");
    let checked = taken(&text);
    let told: Vec<_> = checked.not_yet.iter().map(|fault| (fault.line, fault.message.as_str())).collect();
    assert_eq!(told.len(), 1);
    assert_eq!(told[0], (9, "`container.web.tty` is not carried out by hosts of this release"));
    assert!(checked.render("f", &text).starts_with("f:9:1: warning: `container.web.tty` is not carried out"));
}

#[test]
fn what_reaches_beyond_containers_is_listed_for_the_os_role() {
    let text = with_container(
        "add-capabilities = [\"NET_ADMIN\", \"SYS_ADMIN\"]\nprivileged = true\nbinds = [\"/a:/b\"]\ndevices = [\"/dev/null\"]\nuser-namespace = \"host\"\n[os]\nhost-name = \"a\"\n[network.n]\nkind = \"host\"",
    );
    let expect = [
        "container.web.add-capabilities[1]: capability SYS_ADMIN",
        "container.web.privileged",
        "container.web.binds",
        "container.web.devices",
        "container.web.user-namespace",
        "os",
        "network.n.kind",
    ];
    assert_eq!(taken(&text).needs_os, expect);
    assert_eq!(taken(&with_container("ports = [\"80:80\"]")).needs_os, [""; 0]);
}
