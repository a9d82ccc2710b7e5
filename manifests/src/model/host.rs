//! The host itself.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};

use super::{ImageRef, Name};
use crate::language::{
    Words, each, flag, integer, later, needed, optional, or_empty, otherwise, sub_table, table, tables, word,
};
use crate::units::{MIB, TIB};
use crate::values::{self, MAX_ENTRIES};

table! {
    /// The host itself below the containers.
    pub struct Os {
        /// The operating system's image, pinned by digest. Left out, the one stays that is there.
        pub image: Option<ImageRef> = "image", optional(values::image()), "\"registry.example/bennu-os:1@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\"";
        /// The program that makes containers. Bennu's own image of an operating system has `crun` alone: a host refuses a manifest that names a runtime which is not there. With another one every container is made anew.
        pub runtime: Runtime = "runtime", otherwise(word("runtime", Runtime::WORDS), Runtime::Crun, "\"crun\""), "\"runc\"";
        /// Added to the kernel's command line; root, trust and console options are the image's.
        pub kernel_arguments: Vec<String> = "kernel-arguments", later(or_empty(each(values::kernel_argument(), MAX_ENTRIES))), "[\"mitigations=auto\"]";
        /// Kernel modules that are loaded.
        pub modules: Vec<String> = "modules", or_empty(each(values::kernel_module(), MAX_ENTRIES)), "[\"wireguard\"]";
        /// Kernel parameters.
        pub sysctls: BTreeMap<String, String> = "sysctls", or_empty(values::host_sysctls()), "{ \"vm.swappiness\" = \"10\" }";
        /// What the host is called. Left out, it is the name that it was provisioned with.
        pub host_name: Option<String> = "host-name", optional(values::host_name()), "\"attic.example.org\"";
        /// The time zone of the calendars of jobs and snapshots that name none.
        pub time_zone: String = "time-zone", otherwise(values::time_zone(), "UTC".to_owned(), "\"UTC\""), "\"Europe/Vienna\"";
        /// Time servers, by name or address. Left out, they are those that the network tells.
        pub time_servers: Vec<String> = "time-servers", or_empty(each(values::host_name(), 16)), "[\"time.example.org\"]";
        /// Keys (OpenSSH format) of people who may open a shell in the debug container.
        pub debug_keys: Vec<String> = "debug-keys", later(or_empty(each(values::ssh_public_key(), MAX_ENTRIES))), "[\"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIPXXJ2dOar+m2w6HnhRRp5tHX8tzNRKG5ZRSKKS7TLLb\"]";
        /// Network interfaces by name. What is not named takes its configuration from the network.
        pub interfaces: BTreeMap<String, Interface> = "interface", or_empty(tables(values::interface_key(), values::read_interface, sub_table::<Interface>("os.interface.NAME"), MAX_ENTRIES)), "{ eth0 = { addresses = [\"192.0.2.10/24\"] } }";
    }
}

/// A program that makes containers, by the OCI runtime specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Runtime {
    /// crun.
    #[default]
    Crun,
    /// runc, from 1.1 on.
    Runc,
}

impl Runtime {
    const WORDS: Words<Self> = &[
        ("crun", Self::Crun, "crun, which needs the least memory and time"),
        ("runc", Self::Runc, "runc, from 1.1 on"),
    ];

    /// Every one that there is.
    pub const ALL: [Self; 2] = [Self::Crun, Self::Runc];

    /// Its path in the operating system's image, without a leading slash: that of Debian's package.
    #[must_use]
    pub const fn program(self) -> &'static str {
        match self {
            Self::Crun => "usr/bin/crun",
            Self::Runc => "usr/sbin/runc",
        }
    }
}

impl std::fmt::Display for Runtime {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Crun => "crun",
            Self::Runc => "runc",
        })
    }
}

table! {
    /// A network interface of the host.
    pub struct Interface {
        /// Whether addresses, routes and name servers come from the network (DHCP, IPv6 router advertisements).
        pub dhcp: bool = "dhcp", otherwise(flag(), true, "true"), "false";
        /// Fixed addresses with their prefix length.
        pub addresses: Vec<String> = "addresses", or_empty(each(values::address_with_prefix(), MAX_ENTRIES)), "[\"192.0.2.10/24\"]";
        /// The router.
        pub gateway: Option<IpAddr> = "gateway", optional(values::address()), "\"192.0.2.1\"";
        /// Name servers.
        pub dns: Vec<IpAddr> = "dns", or_empty(each(values::address(), 8)), "[\"192.0.2.53\"]";
        /// The largest packet, in bytes.
        pub mtu: Option<u64> = "mtu", optional(integer(1280..=65535)), "9000";
        /// The VLAN, where this interface is one on `parent`.
        pub vlan: Option<u64> = "vlan", optional(integer(1..=4094)), "20\nparent = \"eth0\"";
        /// The interface that a VLAN is on.
        pub parent: Option<String> = "parent", optional(values::interface_name()), "\"eth0\"\nvlan = 20";
    }
}

table! {
    /// Logs.
    pub struct Logs {
        /// How much of the journal the host keeps, in memory, and never more than half of what `/run` may use. The oldest goes first.
        pub keep: u64 = "keep", otherwise(values::size("a size", MIB, TIB), Logs::KEEP, "\"64MiB\""), "\"256MiB\"";
        /// Where they go beside the journal, by name.
        pub forwards: BTreeMap<Name, Forward> = "forward", or_empty(tables(values::name_key(), crate::document::read_name, sub_table::<Forward>("logs.forward.NAME"), 8)), "{ central = { kind = \"syslog\", url = \"tls://logs.example:6514\" } }";
    }
}

impl Logs {
    /// How much of the journal is kept where nothing is said, in bytes.
    pub const KEEP: u64 = 64 * MIB;
}

table! {
    /// Somewhere that logs go.
    pub struct Forward {
        /// How they are sent.
        pub kind: ForwardKind = "kind", needed(word("kind of forwarding", ForwardKind::WORDS)), "\"syslog\"";
        /// Where to: `tcp://HOST:PORT` or `tls://HOST:PORT` for `syslog`, `https://…` for the others.
        pub url: String = "url", needed(values::forward_url()), "\"tls://logs.example:6514\"";
        /// The config with the certificates (PEM) that the receiver's own is signed by.
        pub ca: Option<Name> = "ca", optional(values::name()), "\"logs-ca\"";
        /// How much waits for a receiver that is away; the oldest goes first.
        pub buffer: u64 = "buffer", otherwise(values::size("a size", 64 << 10, 1 << 30), 16 * MIB, "\"16MiB\""), "\"64MiB\"";
    }
}

/// How logs are sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardKind {
    /// RFC 5424 over TCP or TLS.
    Syslog,
    /// OpenTelemetry over HTTP.
    Otlp,
    /// Lines of JSON, posted.
    Http,
}

impl ForwardKind {
    const WORDS: Words<Self> = &[
        ("syslog", Self::Syslog, "RFC 5424 over TCP or TLS"),
        ("otlp", Self::Otlp, "OpenTelemetry over HTTP"),
        ("http", Self::Http, "lines of JSON, posted"),
    ];
}
