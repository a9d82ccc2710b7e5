//! From an instance to the properties of its systemd unit.
//!
//! The values are typed, so nothing in them is parsed again: no specifier is expanded, no quote or backslash means
//! anything (systemd, `org.freedesktop.systemd1(5)`, `StartTransientUnit()`).
//!
//! ```text
//! RuntimeDirectory               what the runtime keeps of the container: made by systemd, and removed at each end
//! ExecStart         run          the runtime makes the container in the unit's control group, runs its program, and ends
//! PIDFile                        systemd takes that for the unit's main process
//! ExecStopPost      hostd        writes down whom the kernel ended for want of memory (kills.rs)
//! ```
//!
//! **Invariant:** nothing that has to be done before the next start is left to a process of the unit. What runs when a unit
//! ends has no more time than the container has to stop, and on a machine that is busy that may be too little. All that a
//! container leaves is its processes and what the runtime keeps: systemd itself ends the one with the control group and
//! removes the other.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bennu_manifests::model::{Container, Limits, Restart, Runtime};
use bennu_planner::Instance;
use nix::sys::signal::Signal;

use super::{kills, runtime};

/// The file in an instance's directory that the number of its first process is written to.
pub(super) const PID_FILE: &str = "pid";

/// The slice that all containers are in.
pub(super) const SLICE: &str = "bennu.slice";

/// The daemon's own unit.
const DAEMON: &str = "hostd.service";

/// How long the parts of a container and then the runtime have to make it before that counts as failed.
pub(super) const START_TIMEOUT: Duration = Duration::from_secs(240);

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
    /// `a(sasb)`
    Commands(Vec<Command>),
}

/// A command of a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Command {
    /// Its program.
    pub program: PathBuf,
    /// Its arguments, the program's name first.
    pub arguments: Vec<String>,
    /// Whether its failing is ignored.
    pub may_fail: bool,
}

impl Command {
    fn new(program: &Path, arguments: impl IntoIterator<Item = String>) -> Self {
        let name = program.display().to_string();
        let arguments = std::iter::once(name).chain(arguments).collect();
        Self { program: program.to_owned(), arguments, may_fail: false }
    }

    fn that_may_fail(self) -> Self {
        Self { may_fail: true, ..self }
    }
}

/// What a unit is made from.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted<'a> {
    /// The instance.
    pub instance: &'a Instance,
    /// What is declared.
    pub container: &'a Container,
    /// The program that makes it.
    pub runtime: Runtime,
    /// How long it may run, where that has a bound.
    pub deadline: Option<Duration>,
    /// The signal that the image asks to be stopped by.
    pub image_stop_signal: Option<&'a str>,
    /// Its directory.
    pub dir: &'a Path,
    /// The daemon's own program.
    pub hostd: &'a Path,
    /// Where the runtime keeps what it knows of this instance, below `/run`.
    pub runtime_state: &'a Path,
    /// Where the volumes are, so that the unit stops before they go away.
    pub state: &'a Path,
}

/// The name of an instance's unit.
pub(super) fn name(instance: &Instance) -> String {
    format!("bennu-{instance}.service")
}

/// The control group of an instance's unit.
pub(super) fn group(instance: &Instance) -> PathBuf {
    Path::new("/sys/fs/cgroup").join(SLICE).join(name(instance))
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
    let pid_file = path(&wanted.dir.join(PID_FILE));
    let bundle = path(&wanted.dir.join("bundle"));
    let run = told(wanted, &["run", "--detach", "--pid-file", &pid_file, "--bundle", &bundle, &id]);
    let note = [kills::NOTE.to_owned(), path(wanted.dir), path(&group(instance))];
    let note = Command::new(wanted.hostd, note).that_may_fail();
    let signal =
        container.stop_signal.as_deref().and_then(signal).or(wanted.image_stop_signal.and_then(signal));
    let mut properties = vec![
        ("Description", Value::Text(format!("Container {id}"))),
        ("Slice", text(SLICE)),
        // What is ordered before another unit stops after it: when the machine stops, the daemon ends containers in their order
        // (departure.rs), and systemd waits for it before it stops any by itself.
        ("Before", Value::Texts(vec![DAEMON.to_owned()])),
        ("RuntimeDirectory", Value::Texts(vec![below_run(wanted.runtime_state)])),
        ("RuntimeDirectoryMode", Value::Number(0o700)),
        ("Type", text("forking")),
        ("PIDFile", Value::Text(pid_file)),
        ("ExecStart", Value::Commands(vec![run])),
        ("ExecStopPost", Value::Commands(vec![note])),
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
        ("LogExtraFields", Value::Bytes(log_fields(instance, container))),
        ("RequiresMountsFor", Value::Texts(vec![path(wanted.state)])),
    ];
    properties.extend(runtime::started_in(wanted.runtime).map(|group| ("DelegateSubgroup", text(group))));
    properties.extend(wanted.deadline.map(|deadline| ("RuntimeMaxUSec", micros(deadline))));
    properties.extend(restart(container.restart));
    properties.extend(start_limit(container.restart_attempts));
    properties.extend(limits(&container.limits));
    properties.into_iter().map(|(name, value)| Property { name, value }).collect()
}

/// A directory as `RuntimeDirectory` has it: below `/run` (systemd.exec(5)). Another one is refused by systemd.
fn below_run(dir: &Path) -> String {
    dir.strip_prefix("/run").unwrap_or(dir).display().to_string()
}

/// What the runtime is told.
fn told(wanted: &Wanted<'_>, arguments: &[&str]) -> Command {
    let options = runtime::options(wanted.runtime, wanted.runtime_state);
    let arguments = arguments.iter().map(|&argument| argument.to_owned());
    Command::new(&runtime::program(wanted.runtime), options.into_iter().chain(arguments))
}

fn micros(time: Duration) -> Value {
    Value::Large(u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
}

fn log_fields(instance: &Instance, container: &Container) -> Vec<Vec<u8>> {
    let image = format!("BENNU_IMAGE={}", container.image.digest);
    [format!("BENNU_CONTAINER={}", instance.name), format!("BENNU_INSTANCE={instance}"), image]
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
            runtime: Runtime::Crun,
            deadline: None,
            image_stop_signal: Some("SIGQUIT"),
            dir: Path::new("/run/host/bennu/instances/web-3"),
            hostd: Path::new("/usr/bin/hostd"),
            runtime_state: Path::new("/run/bennu/runtime/web-3"),
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
    fn what_the_runtime_keeps_is_removed_by_systemd_itself_whenever_a_container_ends() {
        let (instance, container) = ("web-3".parse().unwrap(), container());
        let properties = properties(&wanted(&instance, &container));
        let kept = "bennu/runtime/web-3".to_owned();
        assert_eq!(*value(&properties, "RuntimeDirectory"), Value::Texts(vec![kept.clone()]));
        assert!(
            properties.iter().all(|p| p.name != "RuntimeDirectoryPreserve"),
            "its default is to remove it"
        );
        let commands = |name| match value(&properties, name) {
            Value::Commands(commands) => commands.clone(),
            other => panic!("{name} is {other:?}"),
        };
        for command in commands("ExecStart") {
            assert!(command.arguments.contains(&format!("--root=/run/{kept}")), "{command:?}");
        }
        assert!(
            commands("ExecStopPost").iter().all(|command| command.program == Path::new("/usr/bin/hostd")),
            "no start waits for what may be cut off"
        );
    }

    #[test]
    fn another_runtime_is_another_program_that_systemd_starts_beside_the_containers_group() {
        let (instance, container) = ("web-3".parse().unwrap(), container());
        let wanted = Wanted { runtime: Runtime::Runc, ..wanted(&instance, &container) };
        let properties = properties(&wanted);
        assert_eq!(*value(&properties, "DelegateSubgroup"), Value::Text("runtime".into()));
        let Value::Commands(run) = value(&properties, "ExecStart") else { panic!("it has none") };
        assert_eq!(run[0].program, Path::new("/usr/sbin/runc"));
        assert_eq!(run[0].arguments[..3], ["/usr/sbin/runc", "--root=/run/bennu/runtime/web-3", "run"]);
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
