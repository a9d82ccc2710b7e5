//! `inspect`: what is declared of a container, and what came of it.

use std::fmt::Write as _;

use bennu_api::{Inspected, InspectedInstance};
use jiff::Timestamp;

use crate::client::Host;
use crate::exit::Outcome;
use crate::host::{container_name, health_word, state};
use crate::render::{Out, age, bytes, facts, printable};

/// Shows all about one container.
pub(crate) async fn run(host: &Host, name: &str, now: Timestamp, out: &mut Out) -> Outcome {
    let name = container_name(name)?;
    let inspected: Inspected = host.get(&format!("/v1/containers/{name}")).await?;
    out.result(&inspected, |inspected| text(inspected, now))?;
    Ok(0)
}

fn text(inspected: &Inspected, now: Timestamp) -> String {
    let mut text = String::new();
    for instance in &inspected.instances {
        text.push_str(&facts(&told(instance, now)));
        text.push('\n');
    }
    if inspected.instances.is_empty() {
        let _ = writeln!(text, "{} is declared, and no instance of it is there\n", inspected.name);
    }
    match &inspected.declared {
        // What is left out of the manifest is as good as not said; the whole of it is in the JSON.
        Some(serde_json::Value::Object(keys)) => {
            let said = keys.iter().filter(|(_, value)| !is_nothing(value));
            let lines: Vec<_> = said.map(|(key, value)| format!("  {key} = {value}")).collect();
            let _ = writeln!(text, "declared\n{}", printable_lines(&lines));
        }
        _ => text.push_str("the active manifest does not declare it any more\n"),
    }
    text
}

fn printable_lines(lines: &[String]) -> String {
    lines.iter().map(|line| printable(line)).collect::<Vec<_>>().join("\n")
}

fn is_nothing(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null => true,
        serde_json::Value::Bool(flag) => !flag,
        serde_json::Value::Array(items) => items.is_empty(),
        serde_json::Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

fn told(instance: &InspectedInstance, now: Timestamp) -> Vec<(&'static str, String)> {
    let container = &instance.container;
    let since = container.since.map(|since| format!(" for {}", age(since, now))).unwrap_or_default();
    let limit = |limit: Option<u64>| limit.map_or("no limit".to_owned(), bytes);
    let joined = |lines: Vec<String>| printable_lines(&lines);
    let networks = instance.networks.iter().map(|joined| format!("{} {}", joined.network, joined.address));
    let mounts = instance.mounts.iter().map(|mount| {
        let access = if mount.options.iter().any(|option| option == "ro") { "ro" } else { "rw" };
        let source = match mount.kind.as_str() {
            "bind" => mount.source.clone(),
            kind => format!("{kind} {}", mount.source).trim_end().to_owned(),
        };
        format!("{} {access} from {source}", mount.target)
    });
    let ids =
        instance.first_id.map_or("the host's".to_owned(), |first| format!("{first} to {}", first + 65_535));
    let mut lines = vec![
        ("instance", container.instance.clone()),
        ("state", format!("{}{since}, {} restarts", state(container.state), container.restarts)),
        ("image", container.image.to_string()),
        ("program", printable(&instance.arguments.join(" "))),
        ("process", container.pid.to_string()),
        ("unit", instance.unit.clone()),
        ("user", format!("{}:{} inside; ids on the host are {ids}", instance.user.0, instance.user.1)),
        ("capabilities", instance.capabilities.join(" ")),
        ("networks", joined(networks.collect())),
        ("ports", container.ports.iter().map(crate::host::port).collect::<Vec<_>>().join(", ")),
        ("memory", format!("{} of {}", bytes(container.usage.memory), limit(container.usage.memory_limit))),
        ("mounts", joined(mounts.collect())),
        ("variables", printable(&instance.variables.join(" "))),
    ];
    let health = health_word(container.health);
    if !health.is_empty() {
        lines.insert(2, ("health", health.to_owned()));
    }
    lines.retain(|(_, value)| !value.is_empty());
    lines
}
