//! Containers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::health::{Health, Readiness};
use super::isolation::{Bind, Device, Scope, Seccomp, Ulimit};
use super::{Dns, FileMount, ImageRef, Limits, Name, Port, Replacement};
use crate::document::{Item, Wrong};
use crate::language::{
    Form, Reader, deny_empty, each, flag, integer, later, list, map, needed, optional, or_empty, os,
    otherwise, signed, sub_table, table, text, word,
};
use crate::text::first_unsafe_in_script;
use crate::units::MIB;
use crate::values::{self, MAX_ENTRIES, MAX_WORD, MAX_WORDS, name};

table! {
    /// One container, wholly resolved: what it runs, what it may reach, and what it may use.
    pub struct Container {
        /// The image, pinned by digest: `HOST[:PORT]/NAME[:TAG]@sha256:…`. `hostctl pin` writes the digest from the tag.
        pub image: ImageRef = "image", needed(values::image()), "\"docker.io/library/nginx:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";
        /// The hosts that have it: those with all of these labels. Left out, every host of the manifest's audience does.
        pub on: BTreeMap<String, String> = "on", or_empty(values::labels()), "{ role = \"edge\" }";
        /// Replaces the image's entry point. The words arrive as they are: no shell looks at them.
        pub entrypoint: Option<Vec<String>> = "entrypoint", optional(command()), "[\"/usr/bin/tini\", \"--\"]";
        /// Replaces the image's command. The words arrive as they are: no shell looks at them.
        pub command: Option<Vec<String>> = "command", optional(command()), "[\"nginx\", \"-g\", \"daemon off;\"]";
        /// Added to the image's environment, and stronger than it.
        pub environment: BTreeMap<String, String> = "environment", or_empty(values::environment()), "{ TZ = \"UTC\" }";
        /// Configs or secrets that hold further variables, a line `NAME=VALUE` each; weaker than `environment`.
        pub environment_files: Vec<Name> = "environment-files", or_empty(each(name(), MAX_ENTRIES)), "[\"app-env\"]";
        /// Variables whose values are secrets. Programs pass their environment on and dump it: a file is safer.
        pub environment_secrets: BTreeMap<String, Name> = "environment-secrets", or_empty(map(values::variable_key(), values::read_variable, name(), MAX_WORDS)), "{ DB_PASSWORD = \"db-password\" }";
        /// `USER[:GROUP]`, names or numbers; replaces the image's.
        pub user: Option<String> = "user", optional(values::user()), "\"101:101\"";
        /// Further groups, names or numbers.
        pub groups: Vec<String> = "groups", or_empty(each(values::group(), MAX_ENTRIES)), "[\"dialout\", \"44\"]";
        /// Replaces the image's working directory; absolute and without `..`.
        pub working_directory: Option<String> = "working-directory", optional(values::path()), "\"/srv\"";
        /// What it thinks the machine is called. Left out, it is the container's name.
        pub hostname: Option<String> = "hostname", optional(values::host_name()), "\"web.example.org\"";
        /// Words about the container for other programs.
        pub labels: BTreeMap<String, String> = "labels", or_empty(values::labels()), "{ team = \"shop\" }";
        /// How many of it run. All answer to its name; they share its volumes, and cannot publish a port of the host.
        pub replicas: u64 = "replicas", otherwise(integer(1..=100), 1, "1"), "3";

        /// What is published on the host: `[ADDRESS:]HOST:CONTAINER[/tcp|/udp]`, each port a number or a range of as
        /// many (`8000-8010:9000-9010`). IPv6 addresses stand in brackets. Without an address it is every IPv4 address
        /// of the host.
        pub ports: Vec<Port> = "ports", or_empty(values::ports()), "[\"8080:80\", \"127.0.0.1:53:53/udp\"]";
        /// Networks it joins. Left out, it joins `default`.
        pub networks: Vec<Name> = "networks", otherwise(deny_empty(each(name(), MAX_ENTRIES), "leave `networks` out to join `default`, or join a network of kind `none`"), vec![values::default_network()], "[\"default\"]"), "[\"front\", \"back\"]";
        /// Further names it answers to on its networks.
        pub aliases: Vec<Name> = "aliases", or_empty(each(name(), MAX_ENTRIES)), "[\"sql\"]";
        /// Fixed addresses by network; they must lie in its subnet.
        pub addresses: BTreeMap<Name, std::net::IpAddr> = "addresses", or_empty(map(values::name_key(), crate::document::read_name, values::address(), MAX_ENTRIES)), "{ front = \"10.20.0.7\" }";
        /// A fixed hardware address.
        pub mac_address: Option<String> = "mac-address", optional(values::mac_address()), "\"02:42:ac:11:00:02\"";
        /// How it resolves names beside those of its networks.
        pub dns: Option<Dns> = "dns", optional(sub_table::<Dns>("container.NAME.dns")), "{ search = [\"example.org\"] }";
        /// Names with fixed addresses; `host-gateway` is the host as the container reaches it.
        pub extra_hosts: BTreeMap<String, String> = "extra-hosts", or_empty(values::extra_hosts()), "{ \"db.example.org\" = \"10.0.0.9\" }";

        /// Volumes and where they appear: `VOLUME:/TARGET`, and `:ro` behind it to mount it read-only.
        pub volumes: Vec<VolumeMount> = "volumes", or_empty(each(values::volume_mount(), MAX_ENTRIES)), "[\"data:/var/lib/app\"]";
        /// Paths of the host and where they appear: `/HOST:/TARGET`, and `:ro` behind it to mount it read-only. A volume
        /// is better: what lies on the host outside of volumes is gone at the next boot.
        pub binds: Vec<Bind> = "binds", os(or_empty(each(values::bind(), MAX_ENTRIES))), "[\"/dev/log:/dev/log\"]";
        /// Memory-backed places: `/TARGET[:SIZE]`; 64MiB where no size is given.
        pub tmpfs: Vec<Tmpfs> = "tmpfs", or_empty(each(values::tmpfs(), MAX_ENTRIES)), "[\"/run\", \"/var/cache/app:256MiB\"]";
        /// The size of `/dev/shm`.
        pub shm_size: u64 = "shm-size", otherwise(values::size("a size", 4096, 1 << 40), 64 * MIB, "\"64MiB\""), "\"256MiB\"";
        /// Secrets and where they appear: `NAME` is `/run/secrets/NAME`.
        pub secrets: Vec<FileMount> = "secrets", or_empty(values::secret_mounts()), "[\"db-password\"]";
        /// Configs and where they appear.
        pub configs: Vec<FileMount> = "configs", or_empty(values::config_mounts()), "[\"app-conf:/etc/app.conf\"]";
        /// What happens when a secret or config of it changes: it is replaced, or sent a signal.
        pub on_change: String = "on-change", otherwise(values::on_change(), "restart".to_owned(), "\"restart\""), "\"SIGHUP\"";

        /// Whether the root file system is read-only.
        pub read_only_root: bool = "read-only-root", otherwise(flag(), true, "true"), "false";
        /// Linux capabilities beyond the small default set, without `CAP_`. Some reach beyond the container and need the
        /// threshold of the `os` role.
        pub add_capabilities: Vec<String> = "add-capabilities", or_empty(each(values::added_capability(), MAX_ENTRIES)), "[\"NET_ADMIN\"]";
        /// Capabilities of the default set that it does without.
        pub drop_capabilities: Vec<String> = "drop-capabilities", or_empty(each(values::capability(), MAX_ENTRIES)), "[\"CHOWN\"]";
        /// Whether it is not kept apart from the host at all.
        pub privileged: bool = "privileged", os(otherwise(flag(), false, "false")), "true";
        /// Whether programs in it may not gain rights by setuid files.
        pub no_new_privileges: bool = "no-new-privileges", os(otherwise(flag(), true, "true")), "false";
        /// The filter of system calls.
        pub seccomp: Seccomp = "seccomp", os(otherwise(word("filter", Seccomp::WORDS), Seccomp::Default, "\"default\"")), "\"unconfined\"";
        /// Whose users it has. Its own: root in it is nobody on the host.
        pub user_namespace: Scope = "user-namespace", os(otherwise(word("scope", Scope::WORDS), Scope::Own, "\"own\"")), "\"host\"";
        /// Whose processes it sees.
        pub pid: Scope = "pid", os(otherwise(word("scope", Scope::WORDS), Scope::Own, "\"own\"")), "\"host\"";
        /// Whose shared memory and message queues it sees.
        pub ipc: Scope = "ipc", os(otherwise(word("scope", Scope::WORDS), Scope::Own, "\"own\"")), "\"host\"";
        /// Devices of the host: `/dev/X[:/dev/Y][:rwm]`.
        pub devices: Vec<Device> = "devices", os(or_empty(each(values::device(), MAX_ENTRIES))), "[\"/dev/ttyUSB0\"]";
        /// Kernel parameters of its own namespaces: `net.*`, `fs.mqueue.*`, and those of System V IPC.
        pub sysctls: BTreeMap<String, String> = "sysctls", or_empty(values::container_sysctls()), "{ \"net.core.somaxconn\" = \"1024\" }";
        /// Limits of its processes by name, as `nofile`: a number, or `{ soft = …, hard = … }`.
        pub ulimits: BTreeMap<String, Ulimit> = "ulimits", or_empty(values::ulimits()), "{ nofile = 65536 }";
        /// Limits that the kernel keeps.
        pub limits: Limits = "limits", or_empty(sub_table::<Limits>("container.NAME.limits")), "{ memory = \"256MiB\", pids = 100 }";
        /// How willingly the kernel ends it when memory runs out: the higher, the sooner.
        pub oom_score_adjust: i64 = "oom-score-adjust", otherwise(signed(-1000..=1000), 0, "0"), "500";
        /// Whether a small first program reaps what its programs leave behind.
        pub init: bool = "init", otherwise(flag(), false, "false"), "true";
        /// Whether its programs write to a terminal.
        pub tty: bool = "tty", later(otherwise(flag(), false, "false")), "true";
        /// The time zone in it, as the IANA database calls it.
        pub time_zone: Option<String> = "time-zone", optional(values::time_zone()), "\"Europe/Vienna\"";

        /// When it is started again after it ended.
        pub restart: Restart = "restart", otherwise(word("restart policy", Restart::WORDS), Restart::Always, "\"always\""), "\"on-failure\"";
        /// How often it is started again before it is given up; 0 is without bound.
        pub restart_attempts: u64 = "restart-attempts", otherwise(integer(0..=1_000_000), 0, "0"), "5";
        /// Containers that are started before this one and stopped after it: a list, or a table with a condition each.
        pub depends_on: Vec<Dependency> = "depends-on", or_empty(values::dependencies()), "[\"db\"]";
        /// How it is asked to stop: the name of a signal. Left out, it is the image's, else `SIGTERM`.
        pub stop_signal: Option<String> = "stop-signal", optional(values::signal()), "\"SIGQUIT\"";
        /// How long it has to stop before it is killed, in milliseconds in this crate.
        pub stop_timeout_ms: u64 = "stop-timeout", otherwise(values::duration("a container has at most 1h to stop", 0, 3_600_000), 10_000, "\"10s\""), "\"1m\"";
        /// How it is found out whether it still does its work.
        pub health: Option<Health> = "health", optional(crate::language::section_of::<Health>("container.NAME.health", Health::one_probe)), "{ http = \"http://:8080/healthz\", interval = \"10s\" }";
        /// How it is found out whether it can be reached already: ports move to it only then.
        pub readiness: Option<Readiness> = "readiness", optional(crate::language::section_of::<Readiness>("container.NAME.readiness", Readiness::one_probe)), "{ tcp = 8080 }";
        /// How it is replaced by its next version.
        pub update: Option<Replacement> = "update", optional(sub_table::<Replacement>("container.NAME.update")), "{ order = \"start-first\" }";
    }
}

/// A container as a value: its keys, and what they say against each other.
pub(crate) fn reader() -> impl Reader<Out = Container> {
    sub_table::<Container>("container.NAME")
}

/// The words of a command.
fn command() -> impl Reader<Out = Vec<String>> {
    let words = list(text("a word", MAX_WORD).without(first_unsafe_in_script), MAX_WORDS);
    deny_empty(words, "leave it out to take the image's own")
}

/// A volume and where it appears in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct VolumeMount {
    /// The declared volume.
    pub volume: Name,
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// Whether the container may only read it.
    pub read_only: bool,
}

/// A memory-backed file system in a container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tmpfs {
    /// Where it appears: absolute, normalised, not `/`.
    pub target: String,
    /// The most it may hold, in bytes.
    pub size: u64,
}

/// When a container is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Whenever it ends.
    #[default]
    Always,
    /// When it ends with a code other than 0 or by a signal.
    OnFailure,
    /// Never.
    No,
}

impl Restart {
    pub(crate) const WORDS: crate::language::Words<Self> = &[
        ("always", Self::Always, "whenever it ends"),
        ("on-failure", Self::OnFailure, "when it ends with a code other than 0 or by a signal"),
        ("no", Self::No, "never"),
    ];
}

/// A container that another one waits for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dependency {
    /// Its name.
    pub container: Name,
    /// What must be true of it.
    pub condition: Condition,
}

/// What must be true of a container before another one is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Condition {
    /// It was started.
    Started,
    /// Its health check holds.
    Healthy,
    /// It ended with code 0.
    Completed,
}

impl Condition {
    pub(crate) const WORDS: crate::language::Words<Self> = &[
        ("started", Self::Started, "it was started"),
        ("healthy", Self::Healthy, "its health check holds"),
        ("completed", Self::Completed, "it ended with code 0"),
    ];
}

/// Containers that are waited for.
pub(crate) struct Dependencies;

impl Reader for Dependencies {
    type Out = Vec<Dependency>;

    fn form(&self) -> Form {
        let conditions = map(
            values::name_key(),
            crate::document::read_name,
            word("condition", Condition::WORDS),
            MAX_ENTRIES,
        );
        Form::Either(vec![each(name(), MAX_ENTRIES).form(), conditions.form()])
    }

    fn read(&self, item: &Item<'_>) -> Option<Self::Out> {
        if item.is_list() {
            let started = |container| Dependency { container, condition: Condition::Started };
            return Some(each(name(), MAX_ENTRIES).read(item)?.into_iter().map(started).collect());
        }
        let mut all = Vec::new();
        for (name, item) in item.section()?.entries(MAX_ENTRIES) {
            let condition = word("condition", Condition::WORDS).read(&item);
            match crate::document::read_name(name.value) {
                Ok(container) => all.extend(condition.map(|condition| Dependency { container, condition })),
                Err(Wrong { message, hint }) => item.faults.add_with(&name.span, message, hint),
            }
        }
        Some(all)
    }
}

impl Container {
    /// Where something appears in it, and what; two things at one place would hide each other.
    pub(crate) fn targets(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let volumes = self.volumes.iter().map(|mount| ("volumes", mount.target.as_str()));
        let tmpfs = self.tmpfs.iter().map(|tmpfs| ("tmpfs", tmpfs.target.as_str()));
        let binds = self.binds.iter().map(|bind| ("binds", bind.target.as_str()));
        let secrets = self.secrets.iter().map(|mount| ("secrets", mount.target.as_str()));
        let configs = self.configs.iter().map(|mount| ("configs", mount.target.as_str()));
        volumes.chain(tmpfs).chain(binds).chain(secrets).chain(configs)
    }

    /// Whether a host with these labels has it.
    pub fn is_on(&self, labels: &BTreeMap<String, String>) -> bool {
        self.on.iter().all(|(key, value)| labels.get(key) == Some(value))
    }
}
