//! The pages and the schema that are made from the language.

use std::path::Path;

use serde_json::Value;

use crate::samples::{full, with_container};

/// Compares a file of the repository with what it is made from; `UPDATE_REFERENCE=1` writes it.
fn up_to_date(path: &str, made: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    if std::env::var_os("UPDATE_REFERENCE").is_some() {
        std::fs::write(&file, made).expect("the repository can be written");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == made,
        "{path} is stale: run `UPDATE_REFERENCE=1 cargo test -p bennu-manifests --test it reference`"
    );
}

#[test]
fn the_reference_of_the_language_is_what_the_types_say() {
    up_to_date("../docs/manifest.md", &bennu_manifests::reference());
}

#[test]
fn the_schema_is_what_the_types_say() {
    up_to_date("manifest.schema.json", &bennu_manifests::json_schema());
}

/// A document as JSON, as an editor sees it: date-times are strings.
fn json(text: &str) -> Value {
    fn value(toml: toml::Value) -> Value {
        match toml {
            toml::Value::String(text) => text.into(),
            toml::Value::Integer(number) => number.into(),
            toml::Value::Float(number) => number.into(),
            toml::Value::Boolean(flag) => flag.into(),
            toml::Value::Datetime(moment) => moment.to_string().into(),
            toml::Value::Array(array) => array.into_iter().map(value).collect(),
            toml::Value::Table(table) => table.into_iter().map(|(key, inner)| (key, value(inner))).collect(),
        }
    }
    value(toml::Value::Table(text.parse().expect("TOML")))
}

#[test]
fn the_schema_takes_what_is_valid_and_refuses_what_a_schema_can_see() {
    let schema: Value = serde_json::from_str(&bennu_manifests::json_schema()).expect("JSON");
    let schema = jsonschema::draft202012::new(&schema).expect("a schema");
    let examples = ["../manifests/examples/demo.toml", "../manifests/examples/demo-second.toml"];
    let digest = format!("@sha256:{}", "0".repeat(64));
    let v6 = "networks = [\"n\"]\nports = [\"8000-8010:80-90\", \"[::1]:53:53/udp\"]\n[network.n]\nsubnet6 = \"fd00:20::/64\"\ngateway = \"fd00:20::fe\"";
    let mut valid = vec![full(), with_container(v6)];
    for example in examples {
        let text =
            std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(example)).expect("an example");
        valid.push(text.replace(":1\"\n", &format!(":1{digest}\"\n")));
    }
    for text in valid {
        let errors: Vec<String> = schema.iter_errors(&json(&text)).map(|error| error.to_string()).collect();
        assert!(errors.is_empty(), "{errors:?}\n{text}");
        bennu_manifests::check(text.as_bytes())
            .unwrap_or_else(|invalid| panic!("{}", invalid.render("f", &text)));
    }
    for line in [
        "prots = []",
        "ports = [80]",
        "ports = [\"80\"]",
        "ports = \"80:80\"",
        "limits = { memory = \"64m\" }",
        "limits = { pids = 0 }",
        "restart = \"never\"",
        "read-only-root = 1",
        "stop-timeout = \"10\"",
        "tmpfs = [\"run\"]",
        "volumes = [\"/etc:/data\"]",
        "health = { htpp = \"\" }",
        "environment = { A = 1 }",
        "environment = { \"A=B\" = \"\" }",
        "[network.Front]",
        "[volume.v]",
        "[volume.v]\nlife = \"for ever\"",
        "[colour]",
    ] {
        let text = with_container(line);
        assert!(!schema.is_valid(&json(&text)), "the schema takes {line}");
        assert!(bennu_manifests::check(text.as_bytes()).is_err(), "the reader takes {line}");
    }
}
