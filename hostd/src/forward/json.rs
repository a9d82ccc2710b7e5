//! Lines as JSON: one object a line, or what OpenTelemetry asks for (OTLP 1.x over HTTP, in the JSON mapping of Protocol
//! Buffers: enumerations are numbers, 64-bit integers are strings).

use bennu_api::LogLine;
use serde::Serialize;
use serde_json::{Value, json};

use super::syslog::INFORMATIONAL;

/// A line with the host that it came from.
#[derive(Serialize)]
struct OfHost<'a> {
    host: &'a str,
    #[serde(flatten)]
    line: &'a LogLine,
}

/// One JSON object a line.
pub(super) fn lines<'a>(lines: impl IntoIterator<Item = &'a LogLine>, host: &str) -> Vec<u8> {
    let mut text = Vec::new();
    for line in lines {
        // A line is text and numbers, which always become JSON.
        let _ = serde_json::to_writer(&mut text, &OfHost { host, line });
        text.push(b'\n');
    }
    text
}

/// An `ExportLogsServiceRequest` (opentelemetry-proto, `collector/logs/v1/logs_service.proto`). Lines of one instance that
/// follow each other share a resource.
pub(super) fn otlp<'a>(lines: impl IntoIterator<Item = &'a LogLine>, host: &str) -> Vec<u8> {
    let mut resources: Vec<(&LogLine, Vec<Value>)> = Vec::new();
    for line in lines {
        match resources.last_mut() {
            Some((first, records)) if same_resource(first, line) => records.push(record(line)),
            _ => resources.push((line, vec![record(line)])),
        }
    }
    let resources: Vec<Value> = resources
        .into_iter()
        .map(|(first, records)| {
            json!({
                "resource": { "attributes": resource(first, host) },
                "scopeLogs": [{ "scope": { "name": "bennu" }, "logRecords": records }],
            })
        })
        .collect();
    json!({ "resourceLogs": resources }).to_string().into_bytes()
}

fn same_resource(one: &LogLine, other: &LogLine) -> bool {
    (&one.container, &one.instance, &one.image) == (&other.container, &other.instance, &other.image)
}

/// Attributes by the names of OpenTelemetry's semantic conventions, where they have one.
fn resource(line: &LogLine, host: &str) -> Vec<Value> {
    let service = if line.container.is_empty() { "hostd" } else { &line.container };
    let mut attributes = vec![attribute("host.name", host), attribute("service.name", service)];
    if !line.container.is_empty() {
        attributes.push(attribute("container.name", &line.container));
        attributes.push(attribute("service.instance.id", &line.instance));
    }
    attributes.extend(line.image.as_ref().map(|image| attribute("oci.manifest.digest", image)));
    attributes.extend(line.generation.map(|number| integer("bennu.generation", number)));
    attributes
}

fn record(line: &LogLine) -> Value {
    let priority = line.priority.unwrap_or(INFORMATIONAL);
    let (number, word) = severity(priority);
    // Nanoseconds since 1970; before, it would be a clock that is wrong.
    let time = u64::try_from(line.time.as_nanosecond()).unwrap_or(0).to_string();
    let mut attributes = vec![];
    attributes.extend(line.pid.map(|pid| integer("process.pid", pid.into())));
    attributes.extend(line.fields.iter().map(|(key, value)| json!({ "key": key, "value": any(value, 0) })));
    json!({
        "timeUnixNano": time,
        "observedTimeUnixNano": time,
        "severityNumber": number,
        "severityText": word,
        "body": { "stringValue": line.message.trim_end_matches('\n') },
        "attributes": attributes,
    })
}

/// The numbers for syslog's severities (OpenTelemetry, "Logs Data Model", appendix B).
fn severity(priority: u8) -> (u8, &'static str) {
    match priority {
        0 => (21, "emergency"),
        1 => (19, "alert"),
        2 => (18, "critical"),
        3 => (17, "error"),
        4 => (13, "warning"),
        5 => (10, "notice"),
        7 => (5, "debug"),
        _ => (9, "informational"),
    }
}

fn attribute(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn integer(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// How deep a value of a line may be; what is deeper is told as text.
const DEPTH: u32 = 16;

/// A value as an `AnyValue` (`common/v1/common.proto`).
fn any(value: &Value, depth: u32) -> Value {
    match value {
        Value::Null => json!({}),
        Value::Bool(flag) => json!({ "boolValue": flag }),
        Value::Number(number) => match number.as_i64() {
            Some(integer) => json!({ "intValue": integer.to_string() }),
            None => json!({ "doubleValue": number.as_f64() }),
        },
        Value::String(text) => json!({ "stringValue": text }),
        _ if depth >= DEPTH => json!({ "stringValue": value.to_string() }),
        Value::Array(items) => {
            let values: Vec<_> = items.iter().map(|item| any(item, depth + 1)).collect();
            json!({ "arrayValue": { "values": values } })
        }
        Value::Object(entries) => {
            let entry = |(key, value)| json!({ "key": key, "value": any(value, depth + 1) });
            json!({ "kvlistValue": { "values": entries.iter().map(entry).collect::<Vec<_>>() } })
        }
    }
}

/// How many of the records a receiver did not take, by its answer (`ExportLogsPartialSuccess`).
pub(super) fn rejected(answer: &[u8]) -> u64 {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    match &answer["partialSuccess"]["rejectedLogRecords"] {
        Value::String(number) => number.parse().unwrap_or(0),
        number => number.as_u64().unwrap_or(0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forward::tests::line;

    #[test]
    fn a_line_becomes_this_object() {
        let text = String::from_utf8(lines([&line("hello"), &line("again")], "attic")).unwrap();
        let first = text.lines().next().unwrap();
        let expected = json!({
            "host": "attic", "time": "2026-03-01T12:00:00.000001Z", "container": "web", "instance": "web-3",
            "generation": 3, "image": "sha256:ab", "priority": 6, "pid": 77, "message": "hello",
        });
        assert_eq!(serde_json::from_str::<Value>(first).unwrap(), expected);
        assert_eq!(text.lines().count(), 2);
    }

    #[test]
    fn a_line_with_breaks_in_it_stays_one_line() {
        let text = lines([&line("one\ntwo\r\n")], "attic");
        assert_eq!(text.iter().filter(|&&byte| byte == b'\n').count(), 1);
    }

    #[test]
    fn lines_become_this_request_of_otlp() {
        let fields = json!({ "ms": 1.5, "n": 7, "ok": true, "user": { "ids": [1, null] } });
        let rich =
            LogLine { fields: fields.as_object().unwrap().clone(), priority: Some(4), ..line("warm\n") };
        let daemon = LogLine { time: rich.time, message: "started".into(), ..LogLine::default() };
        let request = otlp([&line("hello"), &rich, &daemon], "attic");
        let request: Value = serde_json::from_slice(&request).unwrap();
        insta::assert_snapshot!(serde_json::to_string_pretty(&request).unwrap());
    }

    #[test]
    fn a_value_that_is_too_deep_is_told_as_text() {
        let deep = (0..100).fold(json!(1), |inner, _| json!([inner]));
        let told = any(&deep, 0).to_string();
        assert!(told.contains("stringValue"), "{told}");
    }

    #[test]
    fn what_a_receiver_did_not_take_is_counted() {
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedLogRecords":"3","errorMessage":"x"}}"#), 3);
        assert_eq!(rejected(br#"{"partialSuccess":{"rejectedLogRecords":2}}"#), 2);
        for none in [&b"{}"[..], b"", b"<html>", br#"{"partialSuccess":null}"#] {
            assert_eq!(rejected(none), 0);
        }
    }
}
