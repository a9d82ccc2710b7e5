//! The order of tables and keys in a manifest: what it is, how it runs, whom it talks to, what it may do.

/// The tables, after the header.
pub(crate) const TABLES: [&str; 14] = [
    "audience",
    "labels",
    "os",
    "update",
    "logs",
    "registry",
    "proxy",
    "image-policy",
    "network",
    "volume",
    "config",
    "secret",
    "container",
    "job",
];

/// The keys of the header.
pub(crate) const HEADER: [&str; 6] = ["schema", "name", "serial", "signed-at", "expires", "allow-empty"];

/// The keys of containers and jobs; those that stand under a header of their own come last all the same.
const WORKLOAD: [&str; 56] = [
    "image",
    "when",
    "deadline",
    "retries",
    "history",
    "on",
    "replicas",
    "entrypoint",
    "command",
    "environment",
    "environment-files",
    "environment-secrets",
    "working-directory",
    "user",
    "groups",
    "hostname",
    "init",
    "tty",
    "time-zone",
    "networks",
    "aliases",
    "addresses",
    "mac-address",
    "dns",
    "extra-hosts",
    "ports",
    "volumes",
    "binds",
    "read-only-root",
    "tmpfs",
    "shm-size",
    "devices",
    "secrets",
    "configs",
    "on-change",
    "no-new-privileges",
    "privileged",
    "add-capabilities",
    "drop-capabilities",
    "seccomp",
    "user-namespace",
    "pid",
    "ipc",
    "sysctls",
    "ulimits",
    "oom-score-adjust",
    "limits",
    "depends-on",
    "restart",
    "restart-attempts",
    "stop-signal",
    "stop-timeout",
    "health",
    "readiness",
    "update",
    "labels",
];

const NETWORK: [&str; 9] =
    ["kind", "parent", "vlan", "subnet", "subnet6", "gateway", "internal", "isolated", "mtu"];
const VOLUME: [&str; 7] = ["life", "size", "owner", "mode", "protected", "destroy", "snapshots"];
const SECRET: [&str; 2] = ["recipients", "age"];
const LIMITS: [&str; 8] =
    ["memory", "memory-reservation", "swap", "cpu", "cpu-weight", "cpuset", "io-weight", "pids"];
const HEALTH: [&str; 8] =
    ["exec", "http", "tcp", "interval", "timeout", "start-period", "retries", "on-failure"];

/// Tables that stand under a header of their own, and not in braces, where the text is written anew.
pub(crate) const OWN_TABLES: [&str; 6] =
    ["limits", "health", "readiness", "environment", "environment-secrets", "labels"];

/// Where `key` stands among the keys of the table at `path` (its keys from the top, names included); keys that are
/// not known come last and keep their order.
pub(crate) fn rank(path: &[&str], key: &str) -> usize {
    let keys: &[&str] = match path {
        [] => return position(&HEADER, key).or_else(|| Some(100 + position(&TABLES, key)?)).unwrap_or(99),
        ["network", _] => &NETWORK,
        ["volume", _] => &VOLUME,
        ["secret", _] => &SECRET,
        ["container" | "job", _] => &WORKLOAD,
        ["container" | "job", _, "limits"] => &LIMITS,
        ["container" | "job", _, "health" | "readiness"] => &HEALTH,
        _ => return usize::MAX,
    };
    position(keys, key).unwrap_or(usize::MAX)
}

fn position(keys: &[&str], key: &str) -> Option<usize> {
    keys.iter().position(|known| *known == key)
}
