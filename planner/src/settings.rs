//! What a manifest sets of the host itself: kernel modules and parameters, its name, time servers, network interfaces.
//!
//! Each of them is one value, written as text; that of an interface is the file that systemd-networkd reads. What is set is what is
//! compared: a host that has other text than the manifest comes to is set anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write as _};
use std::str::FromStr;

use bennu_manifests::model::{Interface, Manifest};
use serde::{Deserialize, Serialize};

use crate::seen::Seen;
use crate::step::Step;

/// One thing of the host that can be set, in the order in which they are: parameters may be those of a module, and an interface names
/// the VLANs on it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Setting {
    /// Whether a kernel module is loaded.
    Module(String),
    /// A kernel parameter, as sysctl(8) writes it.
    Sysctl(String),
    /// What the host is called.
    HostName,
    /// Who tells the time.
    TimeServers,
    /// An interface that is a VLAN: its `.netdev` (systemd.netdev(5)).
    Vlan(String),
    /// How an interface is configured: its `.network` (systemd.network(5)).
    Interface(String),
}

/// The value of a module: there is no other one.
pub const LOADED: &str = "loaded";

/// A string that names no setting.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotASetting;

impl fmt::Display for NotASetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting is 'host-name', 'time-servers', or 'module', 'sysctl', 'vlan' or 'interface' and a name")
    }
}

impl std::error::Error for NotASetting {}

impl fmt::Display for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(name) => write!(f, "module {name}"),
            Self::Sysctl(name) => write!(f, "sysctl {name}"),
            Self::HostName => f.write_str("host-name"),
            Self::TimeServers => f.write_str("time-servers"),
            Self::Vlan(name) => write!(f, "vlan {name}"),
            Self::Interface(name) => write!(f, "interface {name}"),
        }
    }
}

impl FromStr for Setting {
    type Err = NotASetting;

    fn from_str(text: &str) -> Result<Self, NotASetting> {
        match text.split_once(' ') {
            None if text == "host-name" => Ok(Self::HostName),
            None if text == "time-servers" => Ok(Self::TimeServers),
            Some(("module", name)) => Ok(Self::Module(name.to_owned())),
            Some(("sysctl", name)) => Ok(Self::Sysctl(name.to_owned())),
            Some(("vlan", name)) => Ok(Self::Vlan(name.to_owned())),
            Some(("interface", name)) => Ok(Self::Interface(name.to_owned())),
            _ => Err(NotASetting),
        }
    }
}

impl Serialize for Setting {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Setting {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// What is to be done for the host's settings: what is not declared any more goes back first, the last of them before those that it
/// relies on.
pub(crate) fn settings_that_change(manifest: &Manifest, seen: &Seen) -> Vec<Step> {
    let wanted = settings(manifest);
    let goes = seen.settings.keys().rev().filter(|setting| !wanted.contains_key(*setting));
    let mut steps: Vec<_> = goes.map(|setting| Step::Reset { setting: setting.clone() }).collect();
    let comes = wanted.into_iter().filter(|(setting, value)| seen.settings.get(setting) != Some(value));
    steps.extend(comes.map(|(setting, value)| Step::Set { setting, value }));
    steps
}

/// All that a manifest sets.
pub fn settings(manifest: &Manifest) -> BTreeMap<Setting, String> {
    let mut settings = BTreeMap::new();
    let Some(os) = &manifest.os else { return settings };
    settings.extend(os.modules.iter().map(|name| (Setting::Module(name.clone()), LOADED.to_owned())));
    settings.extend(os.sysctls.iter().map(|(name, value)| (Setting::Sysctl(name.clone()), plain(value))));
    settings.extend(os.host_name.iter().map(|name| (Setting::HostName, name.clone())));
    if !os.time_servers.is_empty() {
        settings.insert(Setting::TimeServers, os.time_servers.join(" "));
    }
    // Whatever a VLAN is on has to name it, whether it is declared itself or not.
    let parents = os.interfaces.values().filter_map(|interface| interface.parent.as_ref());
    let names: BTreeSet<&String> = os.interfaces.keys().chain(parents).collect();
    for name in names {
        let undeclared = undeclared();
        let interface = os.interfaces.get(name).unwrap_or(&undeclared);
        if let Some(id) = interface.vlan {
            let netdev = format!("[NetDev]\nName={name}\nKind=vlan\n\n[VLAN]\nId={id}\n");
            settings.insert(Setting::Vlan(name.clone()), netdev);
        }
        let vlans = os.interfaces.iter().filter(|(_, vlan)| vlan.parent.as_ref() == Some(name));
        let vlans = vlans.filter_map(|(vlan, interface)| Some((vlan.as_str(), interface.vlan?)));
        settings.insert(Setting::Interface(name.clone()), network(name, interface, vlans));
    }
    settings
}

/// An interface of which nothing is said.
fn undeclared() -> Interface {
    let (addresses, dns) = (Vec::new(), Vec::new());
    Interface { dhcp: true, addresses, gateway: None, dns, mtu: None, vlan: None, parent: None }
}

/// A value as it is compared: the kernel puts tabs between several numbers.
pub fn plain(value: &str) -> String {
    value.split_ascii_whitespace().collect::<Vec<_>>().join(" ")
}

/// What systemd-networkd is told of an interface (systemd.network(5)).
fn network<'a>(name: &str, interface: &Interface, vlans: impl Iterator<Item = (&'a str, u64)>) -> String {
    let mut text = format!("[Match]\nName={name}\n\n");
    if let Some(mtu) = interface.mtu {
        let _ = write!(text, "[Link]\nMTUBytes={mtu}\n\n");
    }
    let automatic = if interface.dhcp { "yes" } else { "no" };
    let _ = write!(text, "[Network]\nDHCP={automatic}\nIPv6AcceptRA={automatic}\n");
    let mut line = |key: &str, value: &dyn fmt::Display| {
        let _ = writeln!(text, "{key}={value}");
    };
    interface.addresses.iter().for_each(|address| line("Address", address));
    interface.gateway.iter().for_each(|gateway| line("Gateway", gateway));
    interface.dns.iter().for_each(|server| line("DNS", server));
    for (vlan, id) in vlans {
        // Only a file that differs has its interface configured anew, and a VLAN with another number is made by that.
        line("# ID", &id);
        line("VLAN", &vlan);
    }
    if interface.dhcp {
        // What the host is called is declared.
        text.push_str("\n[DHCPv4]\nClientIdentifier=mac\nUseHostname=no\n\n[DHCPv6]\nUseHostname=no\n");
    }
    text
}
