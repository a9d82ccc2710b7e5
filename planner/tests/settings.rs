//! What a manifest sets of the host itself.

use std::collections::BTreeSet;

use bennu_manifests::model::Manifest;
use bennu_planner::{Seen, Setting, Step, Wanted, settings};

fn manifest(os: &str) -> Manifest {
    let text = format!(
        "schema = 1\nname = \"t\"\nserial = 1\nsigned-at = 2026-01-01T00:00:00Z\nexpires = 2027-01-01T00:00:00Z\n\
         allow-empty = true\n{os}"
    );
    bennu_manifests::check(text.as_bytes()).unwrap_or_else(|e| panic!("{}", e.render("t", &text)))
}

fn steps(os: &str, seen: &Seen) -> Vec<String> {
    let (rejected, due, completed) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    let manifest = manifest(os);
    let wanted =
        Wanted { generation: 1, manifest: &manifest, rejected: &rejected, due: &due, completed: &completed };
    let steps = bennu_planner::plan(wanted, seen).steps;
    let of_host = steps.iter().filter(|step| matches!(step, Step::Set { .. } | Step::Reset { .. }));
    of_host.map(|step| step.to_string().trim().to_owned()).collect()
}

const ALL: &str = "[os]\nmodules = [\"wireguard\"]\nsysctls = { \"net.ipv4.tcp_rmem\" = \"4096 1  6\" }\n\
                   host-name = \"attic\"\ntime-servers = [\"a.example\", \"b.example\"]\n\
                   [os.interface.eth0]\ndhcp = false\naddresses = [\"192.0.2.10/24\"]\ngateway = \"192.0.2.1\"\n\
                   dns = [\"192.0.2.53\"]\nmtu = 9000\n[os.interface.office]\nvlan = 20\nparent = \"eth1\"\n";

#[test]
fn what_is_declared_is_set_in_its_order_and_once() {
    let all = [
        "Set  module wireguard  to loaded",
        "Set  sysctl net.ipv4.tcp_rmem  to 4096 1 6",
        "Set  host-name  to attic",
        "Set  time-servers  to a.example b.example",
        "Set  vlan office  connections over it may end",
        "Set  interface eth0  connections over it may end",
        "Set  interface eth1  connections over it may end",
        "Set  interface office  connections over it may end",
    ];
    assert_eq!(steps(ALL, &Seen::default()), all);
    let mut seen = Seen { settings: settings(&manifest(ALL)), ..Seen::default() };
    assert_eq!(steps(ALL, &seen), Vec::<String>::new());
    *seen.settings.get_mut(&Setting::HostName).unwrap() = "cellar".to_owned();
    assert_eq!(steps(ALL, &seen), ["Set  host-name  to attic"], "somebody changed it");
    assert_eq!(steps("", &Seen::default()), Vec::<String>::new());
}

#[test]
fn what_is_not_declared_any_more_goes_back_the_last_first() {
    let seen = Seen { settings: settings(&manifest(ALL)), ..Seen::default() };
    let back = [
        "Reset  interface office  connections over it may end",
        "Reset  interface eth1  connections over it may end",
        "Reset  interface eth0  connections over it may end",
        "Reset  vlan office  connections over it may end",
        "Reset  time-servers",
        "Reset  host-name",
        "Reset  sysctl net.ipv4.tcp_rmem",
        "Reset  module wireguard  at the next boot",
    ];
    assert_eq!(steps("", &seen), back);
}

#[test]
fn an_interface_becomes_these_files() {
    let files = settings(&manifest(ALL));
    let text: Vec<_> = files
        .iter()
        .filter(|(setting, _)| matches!(setting, Setting::Vlan(_) | Setting::Interface(_)))
        .map(|(setting, value)| format!("--- {setting}\n{value}"))
        .collect();
    insta::assert_snapshot!(text.join("\n"));
}

#[test]
fn a_vlan_with_another_number_has_its_parent_configured_anew() {
    let seen = Seen { settings: settings(&manifest(ALL)), ..Seen::default() };
    assert_eq!(
        steps(&ALL.replace("vlan = 20", "vlan = 30"), &seen),
        ["Set  vlan office  connections over it may end", "Set  interface eth1  connections over it may end"]
    );
}

#[test]
fn settings_are_read_as_they_are_written() {
    for setting in settings(&manifest(ALL)).into_keys() {
        assert_eq!(setting.to_string().parse(), Ok(setting));
    }
    for wrong in ["", "host-name x", "module", "sysctl", "bridge x"] {
        assert!(wrong.parse::<Setting>().is_err(), "{wrong}");
    }
}
