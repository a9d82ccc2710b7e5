//! Whatever comes in, the answer is a manifest or an error, never a panic; and nothing is dropped in silence.

use std::collections::BTreeMap;

use bennu_import::{
    ComposeOptions, Imported, NoFiles, QuadletOptions, RunOptions, Unit, compose, quadlet, run,
};
use proptest::prelude::*;

fn options() -> ComposeOptions {
    ComposeOptions {
        file: "compose.yaml".to_owned(),
        name: None,
        project: "app".to_owned(),
        now: jiff::Timestamp::UNIX_EPOCH,
        environment: BTreeMap::from([("A".to_owned(), "$A ${A}".to_owned())]),
    }
}

fn import(text: &str) -> Option<Imported> {
    let imported = compose(text, &options(), &NoFiles).ok()?;
    let parsed: Result<toml_edit::DocumentMut, _> = imported.manifest.parse();
    assert!(parsed.is_ok(), "{parsed:?}\n{}", imported.manifest);
    Some(imported)
}

/// Keys of services and of what is in them, so that chance gets far.
const KEYS: [&str; 60] = [
    "image",
    "build",
    "command",
    "entrypoint",
    "environment",
    "env_file",
    "ports",
    "expose",
    "volumes",
    "networks",
    "links",
    "depends_on",
    "healthcheck",
    "test",
    "interval",
    "deploy",
    "resources",
    "limits",
    "replicas",
    "update_config",
    "restart_policy",
    "mem_limit",
    "memswap_limit",
    "cpus",
    "cpu_shares",
    "cpuset",
    "pids_limit",
    "ulimits",
    "sysctls",
    "shm_size",
    "cap_add",
    "cap_drop",
    "privileged",
    "devices",
    "security_opt",
    "read_only",
    "tmpfs",
    "user",
    "group_add",
    "working_dir",
    "hostname",
    "dns",
    "extra_hosts",
    "init",
    "stop_signal",
    "stop_grace_period",
    "restart",
    "labels",
    "secrets",
    "configs",
    "logging",
    "extends",
    "network_mode",
    "target",
    "published",
    "source",
    "type",
    "container_name",
    "scale",
    "x-y",
];

/// Values of every form that some key takes.
const WORDS: [&str; 32] = [
    "nginx",
    "1",
    "-1",
    "0",
    "true",
    "null",
    "~",
    "80:80",
    "1-2:3-4/udp",
    "[::1]:1:1",
    "a:/b",
    "./x:/y:ro",
    "/a:/b:z",
    "10s",
    "1m30s",
    "64m",
    "1.5g",
    "KEY=value",
    "KEY",
    "${A}",
    "${B:-c}",
    "$$x",
    "$",
    "host",
    "service:a",
    "on-failure:3",
    "sh -c 'x'",
    "no",
    "../..",
    "ä\u{202e}",
    "a.b:1.2.3.4",
    "99999999999999999999",
];

const UNIT_KEYS: [&str; 24] = [
    "Image",
    "Exec",
    "Environment",
    "PublishPort",
    "Volume",
    "Mount",
    "Network",
    "User",
    "Group",
    "Secret",
    "Tmpfs",
    "PodmanArgs",
    "HealthCmd",
    "Label",
    "Sysctl",
    "Ulimit",
    "After",
    "Restart",
    "CPUQuota",
    "MemoryMax",
    "OnCalendar",
    "Subnet",
    "Gateway",
    "Options",
];

const FLAGS: [&str; 24] = [
    "-p",
    "-v",
    "-e",
    "-it",
    "--name",
    "--mount",
    "--network",
    "--link",
    "--secret",
    "--ulimit",
    "--cpus",
    "-m",
    "--memory-swap",
    "--cpu-quota",
    "--cpu-period",
    "--health-cmd",
    "--entrypoint",
    "--tmpfs",
    "--ip",
    "--user",
    "type=bind,source=/a,target=/b",
    "a,type=env",
    "nofile=1:2",
    "--",
];

fn value() -> impl Strategy<Value = String> {
    let word = prop_oneof![
        4 => prop::sample::select(&WORDS[..]).prop_map(|word| format!("{word:?}")),
        1 => "[ -~]{0,12}".prop_map(|text| format!("{text:?}")),
    ];
    word.prop_recursive(3, 16, 4, |inner| {
        let pair = (prop::sample::select(&KEYS[..]), inner.clone());
        prop_oneof![
            prop::collection::vec(inner, 0..4).prop_map(|list| format!("[{}]", list.join(", "))),
            prop::collection::btree_map(pair.0, pair.1, 0..4).prop_map(|map| {
                let pairs: Vec<_> = map.iter().map(|(key, value)| format!("{key}: {value}")).collect();
                format!("{{{}}}", pairs.join(", "))
            }),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_text_is_an_answer_and_not_a_panic(text in "(services:\n|[ \t\n:{}&*<!|>$-]|[a-z]{1,3}|\\PC){0,80}") {
        import(&text);
    }

    #[test]
    fn random_services_are_an_answer_and_not_a_panic(
        services in prop::collection::btree_map("[a-zA-Z_.0-9]{1,5}", prop::collection::btree_map(
            prop::sample::select(&KEYS[..]), value(), 0..8), 1..4),
    ) {
        let mut text = "services:\n".to_owned();
        for (name, keys) in &services {
            text.push_str(&format!("  {name:?}:\n    image: nginx\n"));
            for (key, value) in keys.iter().filter(|(key, _)| **key != "image") {
                text.push_str(&format!("    {key}: {value}\n"));
            }
        }
        import(&text);
    }

    #[test]
    fn random_units_and_lines_are_an_answer_and_not_a_panic(
        settings in prop::collection::vec((
            prop::sample::select(&["Container", "Unit", "Service", "Volume", "Network", "Timer"][..]),
            prop_oneof![prop::sample::select(&UNIT_KEYS[..]).prop_map(str::to_owned), "[A-Za-z]{1,6}"],
            prop_oneof![prop::sample::select(&WORDS[..]).prop_map(str::to_owned), "[ -~]{0,16}\\\\?"],
        ), 0..12),
        kind in prop::sample::select(&["volume", "network", "timer", "image", "pod", "x"][..]),
        words in prop::collection::vec(prop_oneof![
            prop::sample::select(&WORDS[..]).prop_map(str::to_owned),
            prop::sample::select(&FLAGS[..]).prop_map(str::to_owned),
            "-{0,2}[a-z]{0,3}=?[ -~]{0,4}",
        ], 0..10),
    ) {
        let now = jiff::Timestamp::UNIX_EPOCH;
        let mut text = "[Container]\nImage=nginx\n".to_owned();
        for (section, key, value) in &settings {
            text.push_str(&format!("[{section}]\n{key}={value}\n"));
        }
        let unit = |file: &str| Unit { file: file.to_owned(), text: text.clone() };
        let units = [unit("a.container"), unit(&format!("a.{kind}"))];
        let results = [
            quadlet(&units, &QuadletOptions { name: None, now }, &NoFiles),
            run(&[&["docker".to_owned(), "run".to_owned()], &words[..]].concat(), &RunOptions { name: None, now }, &NoFiles),
            run(&[format!("podman run {}", words.join(" "))], &RunOptions { name: None, now }, &NoFiles),
        ];
        for imported in results.into_iter().flatten() {
            let parsed: Result<toml_edit::DocumentMut, _> = imported.manifest.parse();
            prop_assert!(parsed.is_ok(), "{:?}\n{}", parsed, imported.manifest);
        }
    }

    /// A word that is nowhere else is found in the manifest or named in a note, wherever it is put.
    #[test]
    fn a_word_is_carried_over_or_named(key in prop::sample::select(&KEYS[..]), nested in 0..4) {
        let value = match nested {
            0 => "zyxwvu".to_owned(),
            1 => "[zyxwvu]".to_owned(),
            2 => "{zyxwvu: zyxwvu}".to_owned(),
            _ => "[{target: zyxwvu}]".to_owned(),
        };
        let image = if key == "image" { "" } else { "image: nginx" };
        let text = format!("services:\n  a:\n    {key}: {value}\n    {image}\n");
        if let Some(Imported { manifest, notes }) = import(&text) {
            let named = notes.iter().any(|note| note.path.starts_with("services.a"));
            prop_assert!(manifest.to_lowercase().contains("zyxwvu") || named, "{text}\n{manifest}");
        }
    }
}

#[test]
fn every_leaf_of_an_input_is_carried_over_or_named() {
    // Each leaf of the largest inputs is replaced by an empty map, which no key takes without a word about it.
    for name in ["compose-every-key", "compose-no-place"] {
        let path = format!("{}/tests/golden/{name}/compose.yaml", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).expect("the input");
        let before = compose(&text, &options(), &NoFiles).expect("it can be imported").notes.len();
        let mut tried = 0;
        for (number, line) in text.lines().enumerate() {
            let Some((key, value)) = line.split_once(": ") else { continue };
            if !line.starts_with("    ")
                || value.starts_with(['{', '[', '|', '&', '"'])
                || key.contains(['{', '[', '-'])
            {
                continue;
            }
            let lines: Vec<String> = text
                .lines()
                .enumerate()
                .map(
                    |(other, line)| {
                        if other == number { format!("{key}: {{qqq: 1}}") } else { line.to_owned() }
                    },
                )
                .collect();
            let after = compose(&lines.join("\n"), &options(), &NoFiles).expect("it can be imported").notes;
            let at = number + 1;
            assert!(
                after.len() > before || after.iter().any(|note| note.place.line == at),
                "line {at} of {name}: {line}"
            );
            tried += 1;
        }
        assert!(tried > 15, "only {tried} leaves of {name} were tried");
    }
}
