//! The values of the language: how each is written, what its bounds are, and what is said of a wrong one.

mod calendar;
mod files;
mod host;
mod network;
mod process;
mod security;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

pub(crate) use calendar::{calendar, read_calendar, when};
pub(crate) use files::{
    age_armour, age_recipient, bind, config_mounts, device, mode, owner, path, secret_mounts, tmpfs,
    volume_mount,
};
pub(crate) use host::{
    container_sysctls, forward_url, host_name, host_sysctls, kernel_argument, kernel_module, probe_url,
    ssh_public_key, time_zone, url,
};
pub(crate) use network::{
    address, address_with_prefix, dns_domain, dns_option, extra_hosts, interface_key, interface_name,
    mac_address, ports, read_interface, subnet, subnet6,
};
pub(crate) use process::{
    dependencies, environment, group, image, read_variable, reference_fault, ulimits, user, variable_key,
};
pub(crate) use security::{added_capability, arch, capability, on_change, signal};

use crate::document::{Wrong, read_name};
use crate::fault::quoted;
use crate::language::{Reader, TextForm, either, integer, map, spec, text};
use crate::model::Name;
use crate::reference::is_registry;
use crate::units::{read_cpu, read_duration, read_size};

/// The most containers in a manifest, and the most jobs.
pub const MAX_CONTAINERS: usize = 1024;
/// The most networks in a manifest, and the most volumes, configs and secrets.
pub const MAX_NETWORKS: usize = 256;
/// The most entries in most lists and tables.
pub(crate) const MAX_ENTRIES: usize = 64;
/// The most environment variables, and the most words of a command.
pub(crate) const MAX_WORDS: usize = 256;
/// The longest environment value, and the longest word of a command, in bytes.
pub(crate) const MAX_WORD: usize = 32 * 1024;
/// The longest specification of a port or a mount, in bytes; the longest path is shorter.
pub(crate) const MAX_SPEC: usize = 2048;
/// The longest label, name or value, in bytes.
const MAX_LABEL: usize = 256;
/// Integers of TOML are signed.
pub(crate) const COUNTER: RangeInclusive<u64> = 1..=i64::MAX as u64;

const NAME_PATTERN: &str = "^[a-z]([a-z0-9-]{0,38}[a-z0-9])?$";
const NAME_SYNTAX: &str = "1 to 40 of `a-z`, `0-9` and `-`, beginning with a letter and not ending with `-`";

/// What may be said of a string, by one who has its form at hand.
fn form(what: &'static str, syntax: &str, pattern: &'static str, max: usize) -> TextForm {
    TextForm { what, syntax: syntax.to_owned(), pattern, max }
}

/// A name of something that the document declares.
pub(crate) fn name() -> impl Reader<Out = Name> {
    spec("a name", NAME_SYNTAX, NAME_PATTERN, Name::MAX, read_name)
}

/// The network of containers that name none.
pub(crate) fn default_network() -> Name {
    crate::relations::DEFAULT_NETWORK.parse().expect("`default` is a name")
}

/// Names as keys of a table.
pub(crate) fn name_key() -> TextForm {
    form("a name", NAME_SYNTAX, NAME_PATTERN, Name::MAX)
}

/// Labels: words with words.
pub(crate) fn labels() -> impl Reader<Out = BTreeMap<String, String>> {
    let key = form("a label", "of `a-z`, `0-9`, `-`, `_`, `.` and `/`", "^[a-z0-9_./-]+$", MAX_LABEL);
    map(key, read_label, text("a value", MAX_LABEL), MAX_ENTRIES)
}

fn read_label(text: &str) -> Result<String, Wrong> {
    let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.' | b'/');
    if (1..=MAX_LABEL).contains(&text.len()) && text.bytes().all(word) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no name of a label", quoted(text)))
        .hint("it is of a-z, 0-9, `-`, `_`, `.` and `/`"))
}

/// A size within bounds, in bytes.
pub(crate) fn size(what: &'static str, min: u64, max: u64) -> impl Reader<Out = u64> {
    let (low, high) = (shown_size(min), shown_size(max));
    let syntax = format!("a whole number and B, KiB, MiB, GiB or TiB, from {low} to {high}");
    spec(what, syntax, "^[0-9]+(B|KiB|MiB|GiB|TiB)$", MAX_SPEC, move |text| {
        let size = read_size(text)?;
        if (min..=max).contains(&size) {
            return Ok(size);
        }
        let what = what.strip_prefix("a ").unwrap_or(what);
        Err(Wrong::new(format!("{what} is from {} to {}", shown_size(min), shown_size(max))))
    })
}

/// As [`size`], or an integer of bytes.
pub(crate) fn size_or_bytes(what: &'static str, min: u64, max: u64) -> impl Reader<Out = u64> {
    either(size(what, min, max), integer(min..=max))
}

/// A size in the largest unit that it is a multiple of, up to TiB.
fn shown_size(size: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let steps = (0..4).take_while(|step| size != 0 && size.trailing_zeros() >= 10 * (step + 1)).count();
    format!("{}{}", size >> (10 * steps), units[steps])
}

/// A duration within bounds, in milliseconds; `range` says the bounds.
pub(crate) fn duration(range: &'static str, min: u64, max: u64) -> impl Reader<Out = u64> {
    let syntax = format!("a whole number and ms, s, m or h; {range}");
    spec("a duration", syntax, "^[0-9]+(ms|s|m|h)$", MAX_SPEC, move |text| {
        let duration = read_duration(text)?;
        if (min..=max).contains(&duration) { Ok(duration) } else { Err(Wrong::new(range)) }
    })
}

/// CPUs, in thousandths; a hundredth of one is the least that systemd's `CPUQuota` takes.
pub(crate) fn cpu() -> impl Reader<Out = u64> {
    const RANGE: RangeInclusive<u64> = 10..=1_024_000;
    struct Whole<R>(R);
    impl<R: Reader<Out = u64>> Reader for Whole<R> {
        type Out = u64;

        fn form(&self) -> crate::language::Form {
            self.0.form()
        }

        fn read(&self, item: &crate::document::Item<'_>) -> Option<u64> {
            self.0.read(item).map(|cpus| cpus * 1000)
        }
    }
    let syntax = "CPUs with at most three decimals, or thousandths and `m`, from 0.01 to 1024";
    let share = spec("a share of CPUs", syntax, "^([0-9]+(\\.[0-9]{1,3})?|[0-9]+m)$", MAX_SPEC, |text| {
        let millis = read_cpu(text)?;
        if RANGE.contains(&millis) { Ok(millis) } else { Err(Wrong::new("CPUs are from 0.01 to 1024")) }
    });
    either(share, Whole(integer(1..=1024)))
}

/// Numbers of CPUs, as the kernel lists them (cpuset(7), "List format").
pub(crate) fn cpu_set() -> impl Reader<Out = String> {
    let syntax = "numbers and ranges, separated by commas; at most 8191";
    spec("a list of CPUs", syntax, "^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", MAX_SPEC, |text| {
        let number = |text: &str| {
            let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
            text.parse::<u16>().ok().filter(|number| plain && *number < 8192)
        };
        let sound = |part: &str| match part.split_once('-') {
            None => number(part).is_some(),
            Some((first, last)) => number(first).zip(number(last)).is_some_and(|(first, last)| first <= last),
        };
        if text.split(',').all(sound) {
            return Ok(text.to_owned());
        }
        Err(Wrong::new(format!("{} is no list of CPUs", quoted(text))).hint("write it as `0-1,3`"))
    })
}

/// Registries as keys of a table.
pub(crate) fn registry_key() -> TextForm {
    form("a registry", "`HOST[:PORT]`, in quotes and in lower case, as images name it", "", MAX_LABEL)
}

/// A registry, as images name it.
pub(crate) fn read_registry(text: &str) -> Result<String, Wrong> {
    if text.len() <= MAX_LABEL && is_registry(text) {
        return Ok(text.to_owned());
    }
    let hint = "it is `[registry.\"HOST:PORT\"]`, in quotes and in lower case, as images name it";
    Err(Wrong::new(format!("{} is no registry", quoted(text))).hint(hint))
}

/// A registry, or what stands in for one, as a value.
pub(crate) fn registry_name() -> impl Reader<Out = String> {
    spec("a host", "`HOST[:PORT]`, in lower case", "", MAX_LABEL, read_registry)
}

/// Beginnings of image names as keys of a table.
pub(crate) fn repository_key() -> TextForm {
    form(
        "the beginning of image names",
        "`HOST[:PORT]`, or with whole parts of a path behind it",
        "",
        MAX_LABEL,
    )
}

/// `HOST[:PORT][/PATH]`: where a registry's content is, or where the names of images begin.
pub(crate) fn read_repository_prefix(text: &str) -> Result<String, Wrong> {
    let (host, path) = text.split_once('/').map_or((text, None), |(host, path)| (host, Some(path)));
    let part = |part: &str| {
        let word = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_' | b'.');
        !part.is_empty() && part.bytes().all(word) && !part.starts_with(['-', '_', '.'])
    };
    if text.len() <= MAX_LABEL && is_registry(host) && path.is_none_or(|path| path.split('/').all(part)) {
        return Ok(text.to_owned());
    }
    Err(Wrong::new(format!("{} is no place in a registry", quoted(text)))
        .hint("write `HOST[:PORT]` or `HOST[:PORT]/PATH`, in lower case"))
}

/// A place in a registry that has what another one has.
pub(crate) fn mirror() -> impl Reader<Out = String> {
    spec("a place in a registry", "`HOST[:PORT][/PATH]`", "", MAX_LABEL, read_repository_prefix)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_shown_in_their_largest_unit() {
        let shown = [0, 1, 4096, 1 << 20, 3 << 30, 1 << 40, 1024 << 40].map(shown_size);
        assert_eq!(shown, ["0B", "1B", "4KiB", "1MiB", "3GiB", "1TiB", "1024TiB"]);
    }

    #[test]
    fn places_in_registries_have_whole_parts() {
        for good in ["a.example", "a.example:5000", "localhost/x", "a.example/x/y_z"] {
            assert!(read_repository_prefix(good).is_ok(), "{good}");
        }
        for bad in
            ["", "a.example/", "a.example//x", "A.example", "a.example/X", "a.example/../x", "https://a"]
        {
            assert!(read_repository_prefix(bad).is_err(), "{bad}");
        }
    }
}
