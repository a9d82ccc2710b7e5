//! The manifest as the rest of the system sees it: checked once, unable to hold nonsense.
//!
//! Values of these types are made by [`crate::check()`] alone. Every name, bound and cross-reference has been
//! checked there; later stages rely on it and never check again.

mod container;
mod data;
mod health;
mod host;
mod isolation;
mod job;
mod limits;
mod name;
mod network;
mod port;
mod registry;
mod update;

use std::collections::BTreeMap;

use jiff::Timestamp;

pub(crate) use container::Dependencies;
pub use container::{Condition, Container, Dependency, Restart, Tmpfs, VolumeMount};
pub use data::{Config, FileMount, Secret, Snapshots, Volume, VolumeLife};
pub use health::{Health, OnFailure, Probe, Readiness};
pub use host::{Forward, ForwardKind, Interface, Logs, Os, Runtime};
pub use isolation::{Bind, Device, Scope, Seccomp, Ulimit};
pub use job::{Job, When};
pub use limits::Limits;
pub(crate) use name::serde_as_text;
pub use name::{Digest, ImageRef, Name, NotADigest, NotAName, NotASubnet, NotASubnet6, Subnet, Subnet6};
pub use network::{Dns, Network, NetworkKind};
pub use port::{Port, Protocol};
pub use registry::{Credentials, ImagePolicy, Proxy, Registry};
pub use update::{FleetLock, Order, Replacement, Updates, Window};

use crate::document::read_name;
use crate::language::{
    flag, flatten, integer, moment, needed, optional, or_empty, os, otherwise, standing_in, sub_table, table,
    tables,
};
use crate::values::{COUNTER, MAX_CONTAINERS, MAX_NETWORKS, name, name_key, registry_key, repository_key};

table! {
    /// One signed document: what a host is to be, whole. What is not declared here is not on the host.
    pub struct Manifest {
        /// Who it is for, which one it is, and how long it may be applied.
        pub header: Header = "", flatten::<Header>(), "";
        /// How to reach registries that need more than HTTPS and a public certificate, by `HOST[:PORT]` as images name
        /// them.
        pub registries: BTreeMap<String, Registry> = "registry",
            or_empty(tables(registry_key(), crate::values::read_registry, registry::registry_reader(), 64)),
            "{ \"registry.example:5000\" = { plain-http = true } }";
        /// Through whom registries are reached. Left out, they are reached directly.
        pub proxy: Option<Proxy> = "proxy", optional(sub_table::<Proxy>("proxy")), "{ url = \"http://proxy.example:3128\" }";
        /// Whose signatures images must carry, by the beginning of their names. The longest beginning that fits counts.
        pub image_policies: BTreeMap<String, ImagePolicy> = "image-policy",
            or_empty(tables(repository_key(), crate::values::read_repository_prefix, sub_table::<ImagePolicy>("image-policy.\"HOST/PATH\""), 64)),
            "{ \"registry.example/shop\" = { keys = [\"ci\"] } }";
        /// Networks by name. Every container that names none joins `default`, which always exists.
        pub networks: BTreeMap<Name, Network> = "network",
            or_empty(tables(name_key(), read_name, network::reader(), MAX_NETWORKS)), "{ front = {} }";
        /// Volumes by name.
        pub volumes: BTreeMap<Name, Volume> = "volume",
            or_empty(tables(name_key(), read_name, data::volume_reader(), MAX_NETWORKS)),
            "{ data = { life = \"keep\" } }";
        /// Files that are in the document itself, by name.
        pub configs: BTreeMap<Name, Config> = "config",
            or_empty(tables(name_key(), read_name, sub_table::<Config>("config.NAME"), MAX_NETWORKS)),
            "{ motd = { content = \"hello\" } }";
        /// Files that only the hosts they are for can read, by name.
        pub secrets: BTreeMap<Name, Secret> = "secret",
            or_empty(tables(name_key(), read_name, sub_table::<Secret>("secret.NAME"), MAX_NETWORKS)),
            "{ token = { age = \"-----BEGIN AGE ENCRYPTED FILE-----\\nYQ==\\n-----END AGE ENCRYPTED FILE-----\\n\" } }";
        /// Containers by name. The name is what other containers reach it by.
        pub containers: BTreeMap<Name, Container> = "container",
            or_empty(tables(name_key(), read_name, container::reader(), MAX_CONTAINERS)),
            "{ web = { image = \"docker.io/library/nginx:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\" } }";
        /// What runs to its end: once, at each boot, or on a calendar.
        pub jobs: BTreeMap<Name, Job> = "job",
            or_empty(tables(name_key(), read_name, job::reader(), MAX_CONTAINERS)),
            "{ backup = { image = \"docker.io/library/backup:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\", when = \"daily\" } }";
        /// The host itself below the containers.
        pub os: Option<Os> = "os",
            os(optional(sub_table::<Os>("os"))),
            "{ host-name = \"attic\" }";
        /// When a host may change, and when a change is kept.
        pub update: Option<Updates> = "update",
            optional(sub_table::<Updates>("update")), "{ health-deadline = \"5m\" }";
        /// Where logs go beside the host's own journal.
        pub logs: Option<Logs> = "logs",
            optional(sub_table::<Logs>("logs")),
            "{ forward = { central = { kind = \"syslog\", url = \"tls://logs.example:6514\" } } }";
    }
}

impl Manifest {
    /// Everything that runs at some time: containers, and what jobs run.
    pub fn programs(&self) -> impl Iterator<Item = (&Name, &Container)> {
        self.containers.iter().chain(self.jobs.iter().map(|(name, job)| (name, &job.container)))
    }

    /// The image of the operating system, where one is declared.
    pub fn os_image(&self) -> Option<&ImageRef> {
        self.os.as_ref()?.image.as_ref()
    }

    /// The program that makes its containers.
    pub fn runtime(&self) -> Runtime {
        self.os.as_ref().map(|os| os.runtime).unwrap_or_default()
    }

    /// Every image that it needs: those of all programs, and that of the operating system. One may be named more than once.
    pub fn images(&self) -> impl Iterator<Item = &ImageRef> {
        self.programs().map(|(_, program)| &program.image).chain(self.os_image())
    }
}

table! {
    /// The signed header.
    pub struct Header {
        /// The version of the language. What a newer version of it adds is refused by an older host, by name.
        pub schema: u64 = "schema", needed(integer(1..=1)), "1";
        /// The stream of manifests that this one belongs to; `serial` grows within it.
        pub name: Name = "name", needed(standing_in(name(), crate::values::default_network())), "\"web-hosts\"";
        /// Strictly growing within `name`; the same serial with other bytes is refused.
        pub serial: u64 = "serial", needed(standing_in(integer(COUNTER), 1)), "1";
        /// When its author says it was signed; a lower bound for the host's idea of the time.
        pub signed_at: Timestamp = "signed-at", needed(standing_in(moment(), Timestamp::MIN)), "2026-03-01T12:00:00Z";
        /// From this moment it is never newly applied. What runs goes on running.
        pub expires: Timestamp = "expires", needed(standing_in(moment(), Timestamp::MAX)), "2026-06-01T12:00:00Z";
        /// The hosts it is for. Left out, it is for every host that trusts its signatures.
        pub audience: Audience = "audience", or_empty(sub_table::<Audience>("audience")), "{ arch = \"amd64\" }";
        /// Accept that this manifest declares no container at all where the host runs some.
        pub allow_empty: bool = "allow-empty", otherwise(flag(), false, "false"), "true";
        /// Words about the document for other programs, as a Git revision. A host shows them and does nothing by them.
        pub labels: BTreeMap<String, String> = "labels", or_empty(crate::values::labels()), "{ revision = \"4f2c1d\" }";
    }
}

table! {
    /// The hosts that a manifest is for; all conditions must hold.
    #[derive(Default)]
    pub struct Audience {
        /// The architecture, in the words of OCI. Left out, it is any.
        pub arch: Option<String> = "arch", optional(crate::values::arch()), "\"amd64\"";
        /// Labels that the host must carry with these values.
        pub labels: BTreeMap<String, String> = "labels", or_empty(crate::values::labels()), "{ site = \"attic\" }";
    }
}
