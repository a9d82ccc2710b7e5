//! Documents to start from.

/// 64 hexadecimal digits.
pub(crate) const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// A valid header.
pub(crate) const HEADER: &str = "schema = 1\nname = \"demo\"\nserial = 5\n\
     signed-at = 2026-03-01T12:00:00Z\nexpires = 2026-06-01T12:00:00Z\n";

/// A line with a pinned image.
pub(crate) fn image() -> String {
    format!("image = \"registry.example:5000/web:1@sha256:{HEX}\"\n")
}

/// A manifest with one container `web` that has these further lines, which may go on with other tables.
pub(crate) fn with_container(lines: &str) -> String {
    format!("{HEADER}[container.web]\n{}{lines}\n", image())
}

/// A manifest of about two kilobytes that uses every key.
pub(crate) fn full() -> String {
    let image = image();
    format!(
        r#"schema = 1
name = "demo"
serial = 5
signed-at = 2026-03-01T12:00:00Z
expires = 2026-06-01T14:00:00+02:00
allow-empty = false

[audience]
arch = "amd64"
labels = {{ site = "attic", "example.org/ring" = "early" }}

[registry."registry.example:5000"]
plain-http = true

[network.front]
subnet = "10.20.0.0/24"

[network.back]
subnet = "10.20.1.0/24"
internal = true

[volume.data]
life = "keep"
destroy = false

[volume.cache]
life = "scratch"

[container.db]
{image}entrypoint = ["/usr/bin/db"]
command = ["--dir", "/data", "line one\nline two"]
user = "100:101"
working-directory = "/data"
networks = ["back"]
aliases = ["sql"]
volumes = ["data:/data", "cache:/var/cache:rw"]
read-only-root = false
add-capabilities = ["NET_ADMIN", "SYS_NICE"]
limits = {{ memory = "1GiB", cpu = "1.5", pids = 200 }}
restart = "on-failure"
stop-signal = "SIGINT"
stop-timeout = "1m"

[container.web]
{image}environment = {{ GREETING = "hello wörld", "java.opts" = "-Xmx64m" }}
ports = ["8080:80", "127.0.0.1:8443:443/tcp", "53:53/udp", "127.0.0.1:9000:80"]
networks = ["front", "back"]
volumes = ["data:/srv:ro"]
tmpfs = ["/run", "/var/cache/web:16MiB"]
limits = {{ memory = 67108864, cpu = 2 }}
depends-on = ["db"]

[container.alone]
{image}restart = "no"
limits = {{ cpu = "500m" }}
"#
    )
}
