//! What a plan is made of.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use bennu_manifests::model::{Digest, ImageRef, Name, VolumeLife};
use serde::{Deserialize, Serialize};

use crate::seen::{Instance, Published, SeenNetwork};
use crate::settings::Setting;

/// What is to be done, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Plan {
    /// The steps.
    pub steps: Vec<Step>,
    /// What is not to be done yet, and why.
    pub waiting: Vec<Waiting>,
}

/// One thing to do. It names all that it needs; whoever carries it out decides nothing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "step")]
pub enum Step {
    /// Fetch an image and verify it. What runs is not touched.
    Fetch {
        /// The image.
        image: ImageRef,
        /// The containers that need it; none where it is the image of the OS.
        used_by: Vec<Name>,
    },
    /// Set something of the host itself.
    Set {
        /// What.
        setting: Setting,
        /// To what; of an interface it is the file that systemd-networkd reads.
        value: String,
    },
    /// Have something of the host itself be as it was before it was set.
    Reset {
        /// What.
        setting: Setting,
    },
    /// Make an empty volume.
    CreateVolume {
        /// Its name.
        volume: Name,
        /// How long it lives.
        life: VolumeLife,
    },
    /// Change the most that a volume may hold. What uses it goes on.
    LimitVolume {
        /// Its name.
        volume: Name,
        /// The most bytes that it may hold; `None` is without limit.
        size: Option<u64>,
    },
    /// Stop an instance and remove all that it left.
    Stop {
        /// The instance.
        instance: Instance,
        /// Why.
        reason: Reason,
    },
    /// Take a network down.
    RemoveNetwork {
        /// Its name.
        network: Name,
        /// What it was.
        was: SeenNetwork,
    },
    /// Set a network up.
    CreateNetwork {
        /// Its name.
        network: Name,
        /// What it is to be.
        spec: SeenNetwork,
    },
    /// Make an instance of a declared container and start it.
    Start {
        /// The instance.
        instance: Instance,
        /// Its image.
        image: ImageRef,
        /// What it is made from.
        fingerprint: Digest,
        /// Its address on each of its networks.
        addresses: BTreeMap<Name, Ipv4Addr>,
        /// Its IPv6 address on each of its networks that has such ones.
        #[serde(default)]
        addresses6: BTreeMap<Name, Ipv6Addr>,
        /// Why.
        reason: Reason,
    },
    /// Stop an instance's program and start it again; everything else of it stays.
    Restart {
        /// The instance.
        instance: Instance,
        /// Why.
        reason: Reason,
    },
    /// Give an instance its configs and secrets as they are now, and tell it by a signal.
    Refresh {
        /// The instance.
        instance: Instance,
        /// The signal.
        signal: String,
        /// What they are now.
        contents: Digest,
    },
    /// Write down that an instance did not do its work, so that it is not tried again.
    Reject {
        /// The instance.
        instance: Instance,
        /// Its image.
        image: ImageRef,
        /// What it was made from.
        fingerprint: Digest,
        /// Why.
        why: String,
    },
    /// Publish exactly these ports, in one transaction.
    Publish {
        /// All that is to be published.
        ports: Vec<Published>,
    },
    /// Make the rules that keep networks apart as they were, and publish exactly these ports, in one transaction.
    RestoreFirewall {
        /// All that is to be published.
        ports: Vec<Published>,
    },
    /// Start what answers containers that ask for each other's names.
    ServeNames,
    /// Stop what runs among the containers and is none.
    RemoveUnit {
        /// The unit, or the control group where it is of no unit.
        unit: String,
    },
    /// Destroy a volume and what is in it.
    DestroyVolume {
        /// Its name.
        volume: Name,
    },
}

/// Why a step is in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Reason {
    /// The container is declared and not there.
    New,
    /// Its image is another one.
    ImageChanged,
    /// Something else about it changed.
    Changed,
    /// It is not declared any more.
    Removed,
    /// It is declared, there, and not running although it should be.
    NotRunning,
    /// A part of it that it was made with is not there any more.
    Damaged,
    /// Its health check failed.
    Unhealthy,
    /// It did not do its work when it was tried.
    Rejected,
    /// It is a job whose time has come.
    Due,
    /// It is a job that has ended.
    Finished,
}

/// Something that is not to be done yet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Waiting {
    /// What waits.
    pub what: String,
    /// What it waits for.
    pub why: String,
    /// Whether that comes by itself.
    pub waits_for: WaitsFor,
}

/// What has to change so that something can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum WaitsFor {
    /// Containers, which may become so by themselves.
    Containers,
    /// Somebody has to change something.
    Somebody,
}

impl Plan {
    /// Whether there is nothing to do and nothing to wait for.
    pub fn is_empty(&self) -> bool {
        self.steps.is_empty() && self.waiting.is_empty()
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::New => "new",
            Self::ImageChanged => "image changed",
            Self::Changed => "changed",
            Self::Removed => "not declared",
            Self::NotRunning => "not running",
            Self::Damaged => "a part of it is missing",
            Self::Unhealthy => "unhealthy",
            Self::Rejected => "rejected",
            Self::Due => "due",
            Self::Finished => "finished",
        })
    }
}

/// One line a step: what, of whom, and what there is to know.
impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (verb, whom, more) = match self {
            Self::Fetch { image, used_by } => {
                let names: Vec<_> = used_by.iter().map(Name::as_str).collect();
                let whom = if names.is_empty() { "the OS".to_owned() } else { names.join(", ") };
                ("Fetch", image.to_string(), format!("for {whom}"))
            }
            Self::Set { setting, value } => {
                let more = match setting {
                    Setting::Interface(_) | Setting::Vlan(_) => "connections over it may end".to_owned(),
                    _ => format!("to {value}"),
                };
                ("Set", setting.to_string(), more)
            }
            Self::Reset { setting } => {
                let more = match setting {
                    Setting::Interface(_) | Setting::Vlan(_) => "connections over it may end",
                    // Something may use it by now.
                    Setting::Module(_) => "at the next boot",
                    _ => "",
                };
                ("Reset", setting.to_string(), more.to_owned())
            }
            Self::CreateVolume { volume, life } => {
                ("Create", format!("volume {volume}"), life_word(*life).into())
            }
            Self::LimitVolume { volume, size } => (
                "Limit",
                format!("volume {volume}"),
                size.map_or("without limit".into(), |size| format!("to {size} bytes")),
            ),
            Self::Stop { instance, reason } => ("Stop", instance.to_string(), reason.to_string()),
            Self::RemoveNetwork { network, was } => {
                ("Remove", format!("network {network}"), was.subnet.to_string())
            }
            Self::CreateNetwork { network, spec } => {
                ("Create", format!("network {network}"), spec.subnet.to_string())
            }
            Self::Start { instance, reason, .. } => ("Start", instance.to_string(), reason.to_string()),
            Self::Restart { instance, reason } => ("Restart", instance.to_string(), reason.to_string()),
            Self::Refresh { instance, signal, .. } => ("Refresh", instance.to_string(), signal.clone()),
            Self::Reject { instance, why, .. } => ("Reject", instance.to_string(), why.clone()),
            Self::Publish { ports } => {
                let to = |p: &Published| SocketAddr::new(p.to, p.to_port);
                let list: Vec<_> = ports.iter().map(|p| format!("{}→{}", p.port, to(p))).collect();
                ("Publish", if list.is_empty() { "nothing".into() } else { list.join(" ") }, String::new())
            }
            Self::RestoreFirewall { .. } => {
                ("Restore", "firewall".into(), "its rules are not as they were made".into())
            }
            Self::ServeNames => ("Restore", "names".into(), "nobody answers for containers' names".into()),
            Self::RemoveUnit { unit } => ("Stop", unit.clone(), "no container".into()),
            Self::DestroyVolume { volume } => {
                ("Destroy", format!("volume {volume}"), "and all data in it".into())
            }
        };
        write!(f, "{verb:>8}  {whom}")?;
        if more.is_empty() { Ok(()) } else { write!(f, "  {more}") }
    }
}

fn life_word(life: VolumeLife) -> &'static str {
    match life {
        VolumeLife::Keep | VolumeLife::Snapshot => "kept",
        VolumeLife::Scratch => "fresh at each boot",
    }
}
