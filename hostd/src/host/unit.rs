//! From an instance to the properties of its systemd unit.
//!
//! The values are typed, so nothing in them is parsed again: no specifier is expanded, no quote or backslash means
//! anything (systemd, `org.freedesktop.systemd1(5)`, `StartTransientUnit()`).
//!
//! ```text
//! ExecStart      crun create   the container's first process is made, in the unit's own control group, and waits
//! PIDFile                      systemd takes it for the unit's main process
//! ExecStartPost  crun start    it runs the program
//! ExecStopPost   crun delete   the name is free again, also before each new start
//! ```

use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_manifests::model::{Container, Limits, Restart};
use bennu_planner::Instance;
use nix::sys::signal::Signal;

/// The runtime.
pub(super) const CRUN: &str = "/usr/bin/crun";

/// The slice that all containers are in.
pub(super) const SLICE: &str = "bennu.slice";

/// How long the runtime has to make a container before that counts as failed.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(120);

/// The pauses before a container that ended is started again: from the first to the last in so many steps.
const RESTART_FIRST: Duration = Duration::from_secs(1);
const RESTART_LAST: Duration = Duration::from_secs(60);
const RESTART_STEPS: u32 = 6;

/// How long a container has to run for its start not to count as one of many that failed.
const RUNS_WELL: Duration = Duration::from_secs(10);

/// One property of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Property {
    /// Its name on the bus.
    pub name: &'static str,
    /// Its value.
    pub value: Value,
}

/// The types of values, with their D-Bus signatures.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Value {
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `b`
    Flag(bool),
    /// `i`
    Signed(i32),
    /// `u`
    Number(u32),
    /// `t`; times are in microseconds
    Large(u64),
    /// `aay`
    Bytes(Vec<Vec<u8>>),
    /// `ay`
    Mask(Vec<u8>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
    /// `a(sasb)` with one command: its program, its arguments with the program's name first, and whether its failing
    /// is ignored
    Command(PathBuf, Vec<String>, bool),
}

/// What a unit is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// What is declared.
    pub container: &'a Container,
    /// How long it may run, where that has a bound.
    pub deadline: Option<Duration>,
    /// The signal that the image asks to be stopped by.
    pub image_stop_signal: Option<&'a str>,
    /// The directory of its `config.json`.
    pub bundle: &'a Path,
    /// Where the runtime keeps what it knows.
    pub runtime_state: &'a Path,
    /// Where the number of its first process is written.
    pub pid_file: &'a Path,
    /// Where the volumes are, so that the unit stops before they go away.
    pub state: &'a Path,
}

/// The name of an instance's unit.
pub(super) fn name(instance: &Instance) -> String {
    format!("bennu-{instance}.service")
}

/// The instance that a unit is of, if it is of one.
pub(super) fn instance_of(unit: &str) -> Option<Instance> {
    unit.strip_prefix("bennu-")?.strip_suffix(".service")?.parse().ok()
}

/// The properties.
pub(super) fn properties(wanted: &Wanted<'_>) -> Vec<Property> {
    let Wanted { instance, container, .. } = wanted;
    let text = |value: &str| Value::Text(value.to_owned());
    let path = |path: &Path| path.display().to_string();
    let id = instance.to_string();
    let create = ["create", "--pid-file", &path(wanted.pid_file), "--bundle", &path(wanted.bundle), &id];
    let (create, start, delete) = (
        crun(wanted, &create, false),
        crun(wanted, &["start", &id], false),
        crun(wanted, &["delete", "--force", &id], true),
    );
    let signal =
        container.stop_signal.as_deref().and_then(signal).or(wanted.image_stop_signal.and_then(signal));
    let mut properties = vec![
        ("Description", Value::Text(format!("Container {id}"))),
        ("Slice", text(SLICE)),
        ("Type", text("forking")),
        ("PIDFile", Value::Text(path(wanted.pid_file))),
        ("ExecStart", create),
        ("ExecStartPost", start),
        ("ExecStopPost", delete),
        ("TimeoutStartUSec", micros(START_TIMEOUT)),
        ("TimeoutStopUSec", micros(Duration::from_millis(container.stop_timeout_ms))),
        ("KillMode", text("mixed")),
        ("KillSignal", Value::Signed(signal.unwrap_or(Signal::SIGTERM as i32))),
        ("Delegate", Value::Flag(true)),
        ("DevicePolicy", text(if container.privileged { "auto" } else { "closed" })),
        ("DeviceAllow", Value::Pairs(devices(container))),
        ("OOMScoreAdjust", Value::Signed(i32::try_from(container.oom_score_adjust).unwrap_or(0))),
        // The kernel ends one process; whether the container goes on without it is the container's own affair.
        ("OOMPolicy", text("continue")),
        ("StandardOutput", text("journal")),
        ("StandardError", text("journal")),
        ("SyslogIdentifier", text(instance.name.as_str())),
        ("LogExtraFields", Value::Bytes(log_fields(instance))),
        ("RequiresMountsFor", Value::Texts(vec![path(wanted.state)])),
    ];
    properties.extend(wanted.deadline.map(|deadline| ("RuntimeMaxUSec", micros(deadline))));
    properties.extend(restart(container.restart));
    properties.extend(start_limit(container.restart_attempts));
    properties.extend(limits(&container.limits));
    properties.into_iter().map(|(name, value)| Property { name, value }).collect()
}

fn crun(wanted: &Wanted<'_>, arguments: &[&str], may_fail: bool) -> Value {
    // The control group is the unit's own, so the limits are the unit's and nothing is left behind.
    let root = format!("--root={}", wanted.runtime_state.display());
    let common = [CRUN.to_owned(), root, "--cgroup-manager=disabled".to_owned()];
    let arguments = common.into_iter().chain(arguments.iter().map(|&a| a.to_owned())).collect();
    Value::Command(CRUN.into(), arguments, may_fail)
}

fn micros(time: Duration) -> Value {
    Value::Large(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn log_fields(instance: &Instance) -> Vec<Vec<u8>> {
    [format!("BENNU_CONTAINER={}", instance.name), format!("BENNU_INSTANCE={instance}")]
        .map(String::into_bytes)
        .into()
}

fn restart(restart: Restart) -> Vec<(&'static str, Value)> {
    let (when, remains) = match restart {
        Restart::Always => ("always", false),
        // What has ended for good stays known as such; else systemd would forget the unit, and it would look as if the
        // container had never been started.
        Restart::OnFailure => ("on-failure", true),
        Restart::No => ("no", true),
    };
    vec![
        ("Restart", Value::Text(when.to_owned())),
        ("RemainAfterExit", Value::Flag(remains)),
        ("RestartUSec", micros(RESTART_FIRST)),
        ("RestartMaxDelayUSec", micros(RESTART_LAST)),
        ("RestartSteps", Value::Number(RESTART_STEPS)),
    ]
}

/// A container that ends again and again is given up when it has been started so often within the time that as many
/// pauses take, with some time to run in each round: one that ran well for long begins anew.
fn start_limit(attempts: u64) -> Vec<(&'static str, Value)> {
    if attempts == 0 {
        return vec![("StartLimitIntervalUSec", Value::Large(0))];
    }
    let rounds = u32::try_from(attempts).unwrap_or(u32::MAX).saturating_add(1);
    let interval = (RESTART_LAST + RUNS_WELL).saturating_mul(rounds);
    vec![("StartLimitIntervalUSec", micros(interval)), ("StartLimitBurst", Value::Number(rounds))]
}

/// The devices that may be used, and how: `r`ead, `w`rite, `m`ake a node.
fn devices(container: &Container) -> Vec<(String, String)> {
    container.devices.iter().map(|device| (device.source.clone(), device.access.clone())).collect()
}

fn limits(limits: &Limits) -> Vec<(&'static str, Value)> {
    // CPU time per second of real time: a thousandth of a CPU is 1000 µs.
    let quota = |millis: u64| millis.saturating_mul(1000);
    let large = [
        ("MemoryMax", limits.memory),
        ("MemoryHigh", limits.memory_reservation),
        ("MemorySwapMax", limits.swap),
        ("CPUQuotaPerSecUSec", limits.cpu_millis.map(quota)),
        ("CPUWeight", limits.cpu_weight),
        ("IOWeight", limits.io_weight),
        ("TasksMax", limits.pids),
    ];
    let large = large.into_iter().filter_map(|(name, value)| Some((name, Value::Large(value?))));
    let cpus = limits.cpuset.as_deref().map(|cpus| ("AllowedCPUs", Value::Mask(cpu_mask(cpus))));
    large.chain(cpus).collect()
}

/// A set of CPUs as `0-1,3`, as bits: that of CPU 0 is the lowest one of the first byte.
fn cpu_mask(cpus: &str) -> Vec<u8> {
    let mut mask = Vec::new();
    for part in cpus.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        // What is no number was refused when the manifest was read.
        let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>()) else {
            continue;
        };
        for cpu in first..=last {
            let byte = usize::from(cpu / 8);
            mask.resize(mask.len().max(byte + 1), 0);
            mask[byte] |= 1 << (cpu % 8);
        }
    }
    mask
}

/// The number of a signal: `SIGTERM`, `TERM`, `15`, `SIGRTMIN+3` or `RTMAX-1` (signal(7); the C library keeps two
/// real-time signals to itself, so the first one is 34).
pub(super) fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let short = text.strip_prefix("SIG").unwrap_or(text);
    let offset = |rest: &str, sign: char| match rest {
        "" => Some(0),
        rest => rest.strip_prefix(sign)?.parse::<u8>().ok().map(i32::from),
    };
    let real_time = if let Some(rest) = short.strip_prefix("RTMIN") {
        Some(34 + offset(rest, '+')?)
    } else if let Some(rest) = short.strip_prefix("RTMAX") {
        Some(64 - offset(rest, '-')?)
    } else {
        None
    };
    match real_time {
        Some(number) => (34..=64).contains(&number).then_some(number),
        None => format!("SIG{short}").parse::<Signal>().ok().map(|signal| signal as i32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::spec::tests::container;

    fn wanted<'a>(instance: &'a Instance, container: &'a Container) -> Wanted<'a> {
        Wanted {
            instance,
            container,
            deadline: None,
            image_stop_signal: Some("SIGQUIT"),
            bundle: Path::new("/run/bennu/instances/web-3/bundle"),
            runtime_state: Path::new("/run/bennu/crun"),
            pid_file: Path::new("/run/bennu/instances/web-3/pid"),
            state: Path::new("/state"),
        }
    }

    fn value<'a>(properties: &'a [Property], name: &str) -> &'a Value {
        &properties.iter().find(|p| p.name == name).unwrap().value
    }

    #[test]
    fn a_unit_has_these_properties() {
        let mut container = container();
        container.limits =
            Limits { memory: Some(64 << 20), cpu_millis: Some(1500), pids: Some(100), ..Limits::default() };
        let instance = "web-3".parse().unwrap();
        let lines: Vec<_> = properties(&wanted(&instance, &container))
            .into_iter()
            .map(|p| format!("{}={:?}", p.name, p.value))
            .collect();
        insta::assert_snapshot!(lines.join("\n"));
    }

    #[test]
    fn sets_of_cpus_become_bits() {
        for (cpus, mask) in
            [("0", vec![1]), ("0-1,3", vec![0b1011]), ("8", vec![0, 1]), ("15,2", vec![4, 0x80])]
        {
            assert_eq!(cpu_mask(cpus), mask, "{cpus}");
        }
    }

    #[test]
    fn a_bound_of_starts_counts_those_within_the_time_of_their_pauses() {
        assert_eq!(start_limit(0), [("StartLimitIntervalUSec", Value::Large(0))]);
        let expected =
            [("StartLimitIntervalUSec", Value::Large(4 * 70_000_000)), ("StartLimitBurst", Value::Number(4))];
        assert_eq!(start_limit(3), expected);
    }

    #[test]
    fn the_manifest_decides_the_stop_signal_then_the_image() {
        let instance = "web-3".parse().unwrap();
        let mut container = container();
        container.stop_signal = None;
        let number = |c: &Container| value(&properties(&wanted(&instance, c)), "KillSignal").clone();
        assert_eq!(number(&container), Value::Signed(3));
        container.stop_signal = Some("SIGUSR1".into());
        assert_eq!(number(&container), Value::Signed(10));
    }

    #[test]
    fn signals_have_names_and_numbers() {
        for (text, number) in
            [("SIGTERM", 15), ("TERM", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX", 64), ("RTMAX-1", 63)]
        {
            assert_eq!(signal(text), Some(number), "{text}");
        }
        for text in ["", "0", "65", "SIGNONE", "RTMIN-1", "RTMIN+31", "RTMAX-31", "-1"] {
            assert_eq!(signal(text), None, "{text}");
        }
    }

    #[test]
    fn a_unit_is_known_by_its_name_and_others_are_not() {
        let instance: Instance = "my-web-12".parse().unwrap();
        assert_eq!(instance_of(&name(&instance)), Some(instance));
        for other in ["bennu-web.service", "bennu-web-1.scope", "web-1.service", "bennu-web-01.service"] {
            assert_eq!(instance_of(other), None, "{other}");
        }
    }
}
