//! Manifests of the tests.

use vm_tests::registry::Stocked;

/// A manifest of the stream `test` with this serial; `rest` declares what it is about.
pub(crate) fn manifest(registry: &Stocked, serial: u64, rest: &str) -> String {
    format!(
        "schema = 1\nname = \"test\"\nserial = {serial}\nsigned-at = 2026-01-01T00:00:00Z\n\
         expires = 2036-01-01T00:00:00Z\n\n[registry.\"{}\"]\nplain-http = true\n\n{rest}",
        registry.from_guest()
    )
}

/// The same manifest, which says that it may declare no container.
pub(crate) fn allow_empty(manifest: &str) -> String {
    manifest.replacen("\nserial", "\nallow-empty = true\nserial", 1)
}

/// A container of the smallest image, which sleeps; `more` are further keys.
pub(crate) fn sleeper(registry: &Stocked, name: &str, more: &str) -> String {
    format!(
        "[container.{name}]\nimage = \"{}\"\nstop-timeout = \"1s\"\n{more}\n",
        registry.pinned("test", "1")
    )
}

/// nginx of this edition, published on port 8080.
pub(crate) fn web(registry: &Stocked, tag: &str, more: &str) -> String {
    let image = registry.pinned("nginx", tag);
    format!(
        "[container.web]\nimage = \"{image}\"\nports = [\"8080:80\"]\n\
         tmpfs = [\"/run\", \"/var/log/nginx\", \"/var/lib/nginx\"]\n{more}\n"
    )
}

/// redis under the name `cache`, its data in a volume that is kept.
pub(crate) fn cache(registry: &Stocked) -> String {
    let image = registry.pinned("redis", "1");
    format!(
        "[volume.data]\nlife = \"keep\"\n[container.cache]\nimage = \"{image}\"\nvolumes = [\"data:/data\"]\n"
    )
}
