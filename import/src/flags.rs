//! The options of `docker run` and `podman run` as they stand on a command line: long, short, together.
//!
//! Source: docker-run(1), docker-create(1), podman-run(1).

use crate::error::ImportError;
use crate::note::{Place, Site, quoted};

/// One option, by its long name.
pub(crate) struct Flag {
    pub(crate) name: &'static str,
    /// Of options without a value, `true` or `false`.
    pub(crate) value: String,
    pub(crate) site: Site,
}

/// Options that take a value: the long names (the first is what it is called here) and the letter.
const VALUES: [(&[&str], &str); 94] = [
    (&["add-host"], ""),
    (&["annotation"], ""),
    (&["attach"], "a"),
    (&["authfile"], ""),
    (&["blkio-weight"], ""),
    (&["blkio-weight-device"], ""),
    (&["cap-add"], ""),
    (&["cap-drop"], ""),
    (&["cgroup-parent"], ""),
    (&["cgroupns"], ""),
    (&["cgroups"], ""),
    (&["cidfile"], ""),
    (&["conmon-pidfile"], ""),
    (&["cpu-count"], ""),
    (&["cpu-percent"], ""),
    (&["cpu-period"], ""),
    (&["cpu-quota"], ""),
    (&["cpu-rt-period"], ""),
    (&["cpu-rt-runtime"], ""),
    (&["cpu-shares"], "c"),
    (&["cpus"], ""),
    (&["cpuset-cpus"], ""),
    (&["cpuset-mems"], ""),
    (&["detach-keys"], ""),
    (&["device"], ""),
    (&["device-cgroup-rule"], ""),
    (&["device-read-bps"], ""),
    (&["device-read-iops"], ""),
    (&["device-write-bps"], ""),
    (&["device-write-iops"], ""),
    (&["dns"], ""),
    (&["dns-option", "dns-opt"], ""),
    (&["dns-search"], ""),
    (&["domainname"], ""),
    (&["entrypoint"], ""),
    (&["env", "environment"], "e"),
    (&["env-file"], ""),
    (&["expose"], ""),
    (&["gidmap"], ""),
    (&["gpus"], ""),
    (&["group-add"], ""),
    (&["health-cmd"], ""),
    (&["health-interval"], ""),
    (&["health-on-failure"], ""),
    (&["health-retries"], ""),
    (&["health-start-interval"], ""),
    (&["health-start-period"], ""),
    (&["health-startup-cmd"], ""),
    (&["health-timeout"], ""),
    (&["hostname"], "h"),
    (&["ip"], ""),
    (&["ip6"], ""),
    (&["ipc"], ""),
    (&["isolation"], ""),
    (&["label"], "l"),
    (&["label-file"], ""),
    (&["link"], ""),
    (&["link-local-ip"], ""),
    (&["log-driver"], ""),
    (&["log-opt"], ""),
    (&["mac-address"], ""),
    (&["memory"], "m"),
    (&["memory-reservation"], ""),
    (&["memory-swap"], ""),
    (&["memory-swappiness"], ""),
    (&["mount"], ""),
    (&["name"], ""),
    (&["network", "net"], ""),
    (&["network-alias", "net-alias"], ""),
    (&["oom-score-adj"], ""),
    (&["pid"], ""),
    (&["pids-limit"], ""),
    (&["platform", "arch"], ""),
    (&["pod"], ""),
    (&["publish"], "p"),
    (&["pull"], ""),
    (&["requires"], ""),
    (&["restart"], ""),
    (&["runtime"], ""),
    (&["sdnotify"], ""),
    (&["secret"], ""),
    (&["security-opt"], ""),
    (&["shm-size"], ""),
    (&["stop-signal"], ""),
    (&["stop-timeout"], ""),
    (&["storage-opt"], ""),
    (&["sysctl"], ""),
    (&["tmpfs"], ""),
    (&["tz"], ""),
    (&["uidmap"], ""),
    (&["ulimit"], ""),
    (&["user"], "u"),
    (&["userns"], ""),
    (&["uts"], ""),
];

/// More options that take a value; a table of its own only because arrays of this length read badly.
const MORE_VALUES: [(&[&str], &str); 4] =
    [(&["volume"], "v"), (&["volume-driver"], ""), (&["volumes-from"], ""), (&["workdir"], "w")];

/// Options that are there or not.
const SWITCHES: [(&[&str], &str); 18] = [
    (&["detach"], "d"),
    (&["disable-content-trust"], ""),
    (&["init"], ""),
    (&["interactive"], "i"),
    (&["no-healthcheck"], ""),
    (&["no-hostname"], ""),
    (&["no-hosts"], ""),
    (&["oom-kill-disable"], ""),
    (&["privileged"], ""),
    (&["publish-all"], "P"),
    (&["quiet"], "q"),
    (&["read-only"], ""),
    (&["replace"], ""),
    (&["rm"], ""),
    (&["rmi"], ""),
    (&["sig-proxy"], ""),
    (&["tls-verify"], ""),
    (&["tty"], "t"),
];

/// What an option is called here, and whether it takes a value.
fn find(is: impl Fn(&[&str], &str) -> bool) -> Option<(&'static str, bool)> {
    let values = VALUES.iter().chain(&MORE_VALUES).map(|known| (known, true));
    let mut all = values.chain(SWITCHES.iter().map(|known| (known, false)));
    all.find(|((names, letter), _)| is(names, letter)).map(|((names, _), value)| (names[0], value))
}

/// Reads options until the first word that is none; the number of words that they took. `place` is that of the word
/// with a number.
pub(crate) fn read(
    words: &[String],
    place: &dyn Fn(usize) -> Place,
) -> Result<(Vec<Flag>, usize), ImportError> {
    let mut flags = Vec::new();
    let mut at = 0;
    while let Some(word) = words.get(at) {
        let here = at;
        at += 1;
        let unknown = || ImportError::Syntax {
            place: place(here),
            message: format!("the option {} is not known; leave it out", quoted(word)),
        };
        let mut add = |name: &'static str, value: String| {
            let site = Site { place: place(here), path: format!("--{name}") };
            flags.push(Flag { name, value, site });
        };
        let mut next = |name: &str| {
            let value = words.get(at).cloned();
            at += 1;
            value.ok_or_else(|| ImportError::Syntax {
                place: place(here),
                message: format!("there is no value after `--{name}`"),
            })
        };
        if word == "--" {
            return Ok((flags, at));
        } else if let Some(long) = word.strip_prefix("--") {
            let (long, value) =
                long.split_once('=').map_or((long, None), |(name, value)| (name, Some(value)));
            let (name, takes) = find(|names, _| names.contains(&long)).ok_or_else(unknown)?;
            let value = match value {
                Some(value) => value.to_owned(),
                None if takes => next(name)?,
                None => "true".to_owned(),
            };
            add(name, value);
        } else if let Some(letters) = word.strip_prefix('-').filter(|letters| !letters.is_empty()) {
            let mut rest = letters;
            while let Some(letter) = rest.chars().next() {
                let is = |known: &str| known.chars().eq([letter]);
                let (name, takes) = find(|_, known| is(known)).ok_or_else(unknown)?;
                rest = &rest[letter.len_utf8()..];
                if takes {
                    let value = rest.strip_prefix('=').unwrap_or(rest);
                    add(name, if rest.is_empty() { next(name)? } else { value.to_owned() });
                    break;
                }
                add(name, "true".to_owned());
            }
        } else {
            return Ok((flags, here));
        }
    }
    Ok((flags, at))
}
