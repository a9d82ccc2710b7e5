//! What a plan comes to: what is interrupted, what survives, what is destroyed, and what was written where it cannot last.
//!
//! ```text
//! plan + seen + OS ──► interruption()  ─┐
//!           measured ──────────────────┴──► consequences()                  before
//! measured before + seen after ──────────────────────► came_out()           afterwards, from what is there
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use bennu_manifests::model::{Digest, Manifest, Name, VolumeLife};
use serde::{Deserialize, Serialize};

use crate::plan::survives_boots;
use crate::seen::{Instance, Seen, State};
use crate::step::{Plan, Reason, Step};

/// What is known of the operating systems of a host.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct OsSeen {
    /// The root that runs; `None` where it was not started by a boot entry of ours.
    pub running: Option<Digest>,
    /// The root of each image of an OS that is in the store.
    pub roots: BTreeMap<Digest, Digest>,
}

impl OsSeen {
    /// Whether the machine has to start again for what a manifest declares. An image that is not in the store yet counts as another
    /// OS: what its root is is known once it is there.
    pub fn restarts_for(&self, manifest: &Manifest) -> bool {
        let root = manifest.os_image().map(|image| self.roots.get(&image.digest));
        root.is_some_and(|root| root.is_none() || root.copied() != self.running)
    }
}

/// How much of what runs is interrupted. What is stronger comes later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Class {
    /// Nothing that runs is stopped, but for what a new instance takes over from without a gap.
    #[default]
    None,
    /// Containers are stopped, and started again where they are still declared.
    Restart,
    /// The machine starts again.
    Reboot,
}

impl fmt::Display for Class {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::Restart => "restart",
            Self::Reboot => "reboot",
        })
    }
}

/// What is interrupted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Interruption {
    /// How much.
    pub class: Class,
    /// The containers of which an instance that runs is stopped or started again; all that run where the machine starts again.
    pub containers: BTreeSet<Name>,
    /// The containers that a new instance takes over from, once it does its work.
    #[serde(default)]
    pub handed_over: BTreeSet<Name>,
}

/// A number of bytes that were counted, as far as the counting went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default, Serialize, Deserialize)]
pub struct Amount {
    /// Bytes.
    pub bytes: u64,
    /// Whether there may be more, for the counting was ended at its bound.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub at_least: bool,
}

/// What was written to a layer that is thrown away.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Layer {
    /// Bytes of its files.
    pub amount: Amount,
    /// Files, links and devices that were made or changed.
    pub files: u64,
    /// What of the image below was removed.
    #[serde(default)]
    pub removed: u64,
    /// Where most of it is, the largest first; not all of it where it is in many places.
    #[serde(default)]
    pub places: Vec<Place>,
}

/// A directory or file that something was written to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    /// Its path, as the writer sees it.
    pub path: String,
    /// Bytes in it.
    pub bytes: u64,
    /// Files in it.
    pub files: u64,
    /// The unit of the OS that it belongs to, where the unit says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
}

/// What is on a host beside images, with how much there is of it.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// The boot in which it was measured.
    pub boot: String,
    /// Volumes; `None` where it is not known how much one holds.
    pub volumes: BTreeMap<Name, SeenVolume>,
    /// What instances wrote to their own root.
    pub instances: BTreeMap<Instance, Layer>,
    /// What was written to `/etc` and `/var` of the host.
    pub host: Layer,
}

/// A volume that is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenVolume {
    /// How long it lives.
    pub life: VolumeLife,
    /// How much it holds, where that could be counted.
    pub holds: Option<Amount>,
}

/// A volume that goes on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Survivor {
    /// Its name.
    pub volume: Name,
    /// How much it holds, where that is known.
    pub holds: Option<Amount>,
}

/// Something that is gone for good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Destroyed {
    /// What.
    #[serde(flatten)]
    pub what: Doomed,
    /// How much is in it, where that is known.
    pub holds: Option<Amount>,
}

/// What can be destroyed.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "what")]
pub enum Doomed {
    /// A volume, with all data in it; one that is fresh at each boot, at a boot.
    Volume {
        /// Its name.
        volume: Name,
    },
    /// What an instance wrote to its own root.
    Layer {
        /// The instance.
        instance: Instance,
    },
    /// What was written to `/etc` and `/var` of the host.
    Host,
}

/// What somebody wrote outside of declared volumes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// Who.
    #[serde(flatten)]
    pub by: Writer,
    /// What.
    #[serde(flatten)]
    pub layer: Layer,
}

/// Who can write outside of declared volumes.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "by")]
pub enum Writer {
    /// A container, to its own root.
    Container {
        /// The instance.
        instance: Instance,
    },
    /// Units of the OS, to `/etc` and `/var`; which one is said of a place where it is known.
    Host,
}

/// What a plan comes to.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Consequences {
    /// What is interrupted.
    pub interruption: Interruption,
    /// Volumes that go on, with what is in them.
    pub survives: Vec<Survivor>,
    /// What is gone afterwards.
    pub destroyed: Vec<Destroyed>,
    /// What was written outside of declared volumes until now, whether it is destroyed by this plan or by a later one.
    pub written: Vec<Written>,
}

/// What a plan interrupts; `restarts` says that the machine has to start again for it.
pub fn interruption(plan: &Plan, seen: &Seen, restarts: bool) -> Interruption {
    let runs = |instance: &Instance| {
        let state = seen.instances.get(instance).map(|instance| instance.state);
        matches!(state, Some(State::Starting | State::Running | State::Restarting))
    };
    if restarts {
        let containers = seen.instances.keys().filter(|instance| runs(instance));
        let containers = containers.map(|instance| instance.name.clone()).collect();
        return Interruption { class: Class::Reboot, containers, handed_over: BTreeSet::new() };
    }
    let stopped = plan.steps.iter().filter_map(|step| match step {
        Step::Stop { instance, .. } | Step::Restart { instance, .. } if runs(instance) => {
            Some(instance.name.clone())
        }
        _ => None,
    });
    let containers: BTreeSet<Name> = stopped.collect();
    // Whoever is started while another instance of it goes on takes over from that one later.
    let handed_over = plan.steps.iter().filter_map(|step| match step {
        Step::Start { instance, .. } => Some(instance),
        _ => None,
    });
    let beside = |new: &&Instance| {
        let mut others = seen.instances_in((&new.name, new.replica)).map(|(old, _)| old);
        !containers.contains(&new.name) && others.any(runs)
    };
    let handed_over = handed_over.filter(beside).map(|instance| instance.name.clone()).collect();
    let class = if containers.is_empty() { Class::None } else { Class::Restart };
    Interruption { class, containers, handed_over }
}

/// What a plan comes to that interrupts so much, given how much there is.
pub fn consequences(plan: &Plan, interruption: Interruption, measured: &Measured) -> Consequences {
    let boots = interruption.class == Class::Reboot;
    let goes = |step: &Step, what: &Doomed| match (step, what) {
        (Step::DestroyVolume { volume }, Doomed::Volume { volume: doomed }) => volume == doomed,
        (Step::Stop { instance, .. }, Doomed::Layer { instance: doomed }) => instance == doomed,
        // An instance that is made anew under its name is stopped first.
        (Step::Start { instance, .. }, Doomed::Layer { instance: doomed }) => instance == doomed,
        _ => false,
    };
    let is_lost = |what: &Doomed| {
        let by_boot = boots
            && match what {
                Doomed::Volume { volume } => {
                    measured.volumes.get(volume).is_some_and(|there| !survives_boots(there.life))
                }
                Doomed::Layer { .. } | Doomed::Host => true,
            };
        by_boot || plan.steps.iter().any(|step| goes(step, what))
    };
    let (survives, destroyed) = parted(measured, is_lost);
    Consequences { interruption, survives, destroyed, written: written(measured) }
}

/// What of all that was there before is there afterwards and what is not, as it is seen afterwards, in the boot `boot`.
pub fn came_out(before: &Measured, after: &Seen, boot: &str) -> (Vec<Survivor>, Vec<Destroyed>) {
    let booted = before.boot != boot;
    parted(before, |what| match what {
        Doomed::Volume { volume } => {
            let was = before.volumes[volume].life;
            let is = after.volumes.get(volume);
            is.is_none_or(|is| survives_boots(*is) != survives_boots(was)) || booted && !survives_boots(was)
        }
        Doomed::Layer { instance } => booted || !after.instances.contains_key(instance),
        Doomed::Host => booted,
    })
}

/// What is there, parted by whether it is lost. Layers that nothing was written to are no loss.
fn parted(there: &Measured, is_lost: impl Fn(&Doomed) -> bool) -> (Vec<Survivor>, Vec<Destroyed>) {
    let (mut survives, mut destroyed) = (Vec::new(), Vec::new());
    for (volume, SeenVolume { holds, .. }) in &there.volumes {
        let what = Doomed::Volume { volume: volume.clone() };
        match is_lost(&what) {
            true => destroyed.push(Destroyed { what, holds: *holds }),
            false => survives.push(Survivor { volume: volume.clone(), holds: *holds }),
        }
    }
    let instances = there.instances.iter();
    let layers = instances.map(|(instance, layer)| (Doomed::Layer { instance: instance.clone() }, layer));
    let layers = layers.chain([(Doomed::Host, &there.host)]).filter(|(_, layer)| layer.is_written());
    let lost = layers.filter(|(what, _)| is_lost(what));
    destroyed.extend(lost.map(|(what, layer)| Destroyed { what, holds: Some(layer.amount) }));
    (survives, destroyed)
}

/// Who wrote outside of declared volumes.
pub fn written(measured: &Measured) -> Vec<Written> {
    let by = |instance: &Instance| Writer::Container { instance: instance.clone() };
    let containers = measured.instances.iter().map(|(instance, layer)| (by(instance), layer));
    let all = containers.chain([(Writer::Host, &measured.host)]).filter(|(_, layer)| layer.is_written());
    all.map(|(by, layer)| Written { by, layer: layer.clone() }).collect()
}

impl Layer {
    /// Whether anything was written to it.
    pub fn is_written(&self) -> bool {
        self.files > 0 || self.removed > 0 || self.amount.at_least
    }
}

impl Plan {
    /// What two plans have in common that do the same with the same manifest: SHA-256 of their canonical form.
    ///
    /// That form is JSON of this version of the form, the SHA-256 of the manifest's bytes, what is interrupted, what waits, and the
    /// steps in their order. It has no sizes, no addresses and no numbers of generations, so that hosts that are in the same
    /// situation have the same digest; no fetches, which are done before anything is changed; and no comings and goings of jobs,
    /// which go by the clock.
    pub fn digest(&self, manifest: &Digest, interruption: &Interruption) -> Digest {
        let steps: Vec<_> = self.steps.iter().filter(|step| !is_volatile(step)).map(canonical).collect();
        let waiting: Vec<_> = self.waiting.iter().map(|waiting| &waiting.what).collect();
        let form = serde_json::json!({
            "version": 1, "manifest": manifest, "interruption": interruption, "steps": steps, "waiting": waiting,
        });
        Digest::of(form.to_string().as_bytes())
    }
}

/// Whether a step may be in one of two plans for the same situation and not in the other.
fn is_volatile(step: &Step) -> bool {
    matches!(
        step,
        Step::Fetch { .. }
            | Step::Start { reason: Reason::Due, .. }
            | Step::Stop { reason: Reason::Finished, .. }
    )
}

/// A step without what differs between hosts that are in the same situation.
fn canonical(step: &Step) -> serde_json::Value {
    let mut value = serde_json::to_value(step).expect("a step becomes JSON");
    let fields = value.as_object_mut().expect("a step is a table");
    fields.retain(|name, _| name != "addresses" && name != "addresses6");
    let instance = match step {
        Step::Stop { instance, .. }
        | Step::Start { instance, .. }
        | Step::Restart { instance, .. }
        | Step::Refresh { instance, .. }
        | Step::Reject { instance, .. } => Some(instance),
        _ => None,
    };
    if let Some(Instance { name, replica, .. }) = instance {
        fields.insert("instance".to_owned(), serde_json::json!([name, replica]));
    }
    if let Some(ports) = fields.get_mut("ports").and_then(|ports| ports.as_array_mut()) {
        for port in ports {
            if let Some(port) = port.as_object_mut() {
                port.remove("to");
            }
        }
        // Their order is that of the addresses that they lead to.
        fields["ports"].as_array_mut().expect("it is a list").sort_by_key(ToString::to_string);
    }
    value
}
