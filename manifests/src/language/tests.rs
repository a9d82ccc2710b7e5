//! What is read, what is described and what is shown are the same.

use super::form::{KeyInfo, Presence, TableInfo};
use crate::check::examine;
use crate::language::Table;
use crate::model::Manifest;

/// All tables of the language, each once.
fn tables() -> Vec<TableInfo> {
    let mut all = vec![Manifest::info("manifest")];
    let mut next = 0;
    while next < all.len() {
        let inner: Vec<TableInfo> = all[next].keys.iter().flat_map(|key| key.form.tables()).collect();
        for table in inner {
            if all.iter().all(|known| known.title != table.title) {
                all.push(table);
            }
        }
        next += 1;
    }
    all
}

/// What the examples refer to.
const DECLARED: &str = r#"
schema = 1
name = "demo"
serial = 5
signed-at = 2026-03-01T12:00:00Z
expires = 2026-06-01T12:00:00Z
network = { front = { subnet = "10.20.0.0/24" }, back = {} }
volume = { data = { life = "keep" } }
config = { app-env = { content = "" }, app-conf = { content = "" }, registry-ca = { content = "" }, registry-client = { content = "" }, logs-ca = { content = "" } }

[secret]
db-password.age = "-----BEGIN AGE ENCRYPTED FILE-----\nYQ==\n-----END AGE ENCRYPTED FILE-----\n"
registry-password.age = "-----BEGIN AGE ENCRYPTED FILE-----\nYQ==\n-----END AGE ENCRYPTED FILE-----\n"
registry-client-key.age = "-----BEGIN AGE ENCRYPTED FILE-----\nYQ==\n-----END AGE ENCRYPTED FILE-----\n"

[container.db]
image = "a.example/b@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"#;

/// What a key cannot stand without.
fn companions(table: &TableInfo, key: &str) -> &'static str {
    match (table.title.as_str(), key) {
        ("network.NAME", "kind") => "parent = \"eth0\"\nsubnet = \"10.0.0.0/24\"",
        ("network.NAME", "parent") => "kind = \"macvlan\"\nsubnet = \"10.0.0.0/24\"",
        ("network.NAME", "vlan") => "kind = \"macvlan\"\nparent = \"eth0\"\nsubnet = \"10.0.0.0/24\"",
        ("network.NAME", "gateway") => "subnet = \"10.30.0.0/24\"",
        ("container.NAME" | "job.NAME", "addresses") => "networks = [\"front\"]",
        ("registry.\"HOST\"", "client-certificate") => "client-key = \"registry-client-key\"",
        ("registry.\"HOST\"", "client-key") => "client-certificate = \"registry-client\"",
        ("image-policy.\"HOST/PATH\"", "threshold") => "keys = [\"a\", \"b\"]",
        (title, key) if title.ends_with("ness") || title.ends_with(".health") => match key {
            "exec" | "http" | "tcp" => "",
            _ => "tcp = 80",
        },
        _ => "",
    }
}

/// A document in which the key has its example, in a table that has what it needs.
fn document(table: &TableInfo, key: &KeyInfo) -> String {
    let parsed =
        |text: &str| -> toml::Table { text.parse().unwrap_or_else(|error| panic!("{text}: {error}")) };
    let mut root = parsed(DECLARED);
    let mut lines = toml::Table::new();
    let others = table.keys.iter().filter(|other| other.presence == Presence::Needed);
    let examples = others.map(|other| format!("{} = {}", other.key, other.example));
    for text in
        examples.chain([format!("{} = {}", key.key, key.example), companions(table, key.key).to_owned()])
    {
        lines.extend(parsed(&text));
    }
    let title = match table.title.as_str() {
        "manifest" => String::new(),
        title => title.replace("HOST/PATH", "a.example/b").replace("HOST", "a.example"),
    };
    let path = title.replace("NAME", "x").replace("LIMIT", "nofile");
    let mut at = &mut root;
    // A name in quotes may have dots.
    let mut quoted = false;
    let names = path.split(|c| {
        quoted ^= c == '"';
        c == '.' && !quoted
    });
    for name in names.filter(|name| !name.is_empty()) {
        let name = name.trim_matches('"');
        let inner = match name.strip_suffix("[]") {
            Some(list) => {
                at.insert(list.to_owned(), vec![toml::Table::new()].into());
                at[list].as_array_mut().and_then(|list| list[0].as_table_mut())
            }
            None => at.entry(name.to_owned()).or_insert(toml::Table::new().into()).as_table_mut(),
        };
        at = inner.expect("tables lead to the place");
        if path.starts_with("volume.x.") && name == "x" {
            at.extend(parsed("life = \"keep\""));
        }
        if path.starts_with("container.x.") && name == "x" {
            at.extend(parsed(DECLARED)["container"]["db"].as_table().expect("a container").clone());
        }
    }
    for (name, value) in lines {
        match (at.get_mut(&name).and_then(toml::Value::as_table_mut), value) {
            (Some(there), toml::Value::Table(more)) => there.extend(more),
            (_, value) => drop(at.insert(name, value)),
        }
    }
    root.to_string()
}

/// The path that faults of the key name in [`document`].
fn own_path(table: &TableInfo, key: &KeyInfo) -> String {
    if table.title == "manifest" {
        return key.key.to_owned();
    }
    let title = table.title.replace("HOST/PATH", "a.example/b").replace("HOST", "a.example").replace('"', "");
    format!("{}.{}", title.replace("NAME", "x").replace("LIMIT", "nofile").replace("[]", "[0]"), key.key)
}

#[test]
fn every_key_takes_its_example_and_says_how_it_is_marked() {
    let staying = ["restart", "restart-attempts", "update", "health", "readiness", "replicas"];
    let mut count = 0;
    for table in tables() {
        for key in &table.keys {
            if table.title == "job.NAME" && staying.contains(&key.key) {
                continue;
            }
            let text = document(&table, key);
            let checked = examine(text.as_bytes(), None).unwrap_or_else(|invalid| {
                panic!("{} {}:\n{}", table.title, key.key, invalid.render("f", &text))
            });
            let own = own_path(&table, key);
            let needs_os = checked.needs_os.contains(&own);
            assert_eq!(needs_os, key.os, "{own}: {:?}", checked.needs_os);
            let said = format!("`{own}` is not carried out by hosts of this release");
            let not_yet = checked.not_yet.iter().any(|fault| fault.message == said);
            assert_eq!(not_yet, !key.carried_out, "{own}: {:?}", checked.not_yet);
            count += 1;
        }
    }
    assert!(count > 150, "only {count} keys were tried");
}

#[test]
fn every_table_and_key_says_what_it_is() {
    for table in tables() {
        assert!(table.doc.ends_with('.'), "{}: {}", table.title, table.doc);
        for key in &table.keys {
            assert!(key.doc.ends_with('.'), "{} {}: {}", table.title, key.key, key.doc);
            assert!(!key.example.is_empty(), "{} {}", table.title, key.key);
        }
    }
}
