//! What a generation would do to the host as it is now: the plan, its digest, and what it comes to.

use std::collections::BTreeSet;
use std::time::Duration;

use bennu_api::{ImageToFetch, Planned, ToFetch};
use bennu_image_store::source::Source;
use bennu_manifests::model::{Digest, ImageRef};
use bennu_planner::{
    Consequences, Interruption, Measured, OsSeen, Plan, Seen, Step, Wanted, consequences, interruption, plan,
};
use tokio::time::{Instant, timeout_at};

use crate::core::{Core, chain};
use crate::host::ObserveError;
use crate::ledger::Applicable;
use crate::registries;
use crate::update::OsImage;

/// How long registries have to say how much there is to fetch, all together.
const ASK: Duration = Duration::from_secs(20);

/// How long what was seen of the host counts as what it is.
const FRESH: Duration = Duration::from_secs(1);

/// What a generation would do.
#[derive(Debug)]
pub(crate) struct Foreseen {
    pub plan: Plan,
    pub digest: Digest,
    pub interruption: Interruption,
    looked: Looked,
}

/// What was on the host at some moment.
#[derive(Debug)]
pub(crate) struct Looked {
    /// What it was.
    pub seen: Seen,
    at: Instant,
    /// How often somebody had had the host in hand then.
    turns: u64,
}

impl Looked {
    /// Whether it may be acted by still: a moment later, by the first who has the host in hand since, which is now for the `turns`th time.
    pub(crate) fn is_fresh(&self, turns: u64) -> bool {
        self.at.elapsed() < FRESH && turns == self.turns + 1
    }
}

/// Decides what `wanted` would do to the host, on which `active` runs.
///
/// # Errors
/// Where the host can't be looked at.
pub(crate) async fn foresee(
    core: &Core,
    wanted: &Applicable,
    active: Option<&Applicable>,
) -> Result<Foreseen, ObserveError> {
    let os = os_seen(core, wanted.manifest.os_image().map(|image| image.digest));
    foresee_with(core, wanted, active, os.restarts_for(&wanted.manifest)).await
}

/// Decides what `wanted` would do, where it is known already whether the machine has to start again for it.
///
/// # Errors
/// As [`foresee`].
pub(crate) async fn foresee_with(
    core: &Core,
    wanted: &Applicable,
    active: Option<&Applicable>,
    restarts: bool,
) -> Result<Foreseen, ObserveError> {
    let (at, turns) = (Instant::now(), core.turns());
    let mut seen = core.host.observe().await?;
    if let Some(active) = active {
        core.health.judge(&active.manifest, &mut seen);
    }
    let (generation, manifest) = (wanted.generation.number, &*wanted.manifest);
    let (rejected, due) = (core.rejections().in_force(manifest, generation), BTreeSet::new());
    let plan = plan(Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &due }, &seen);
    let interruption = interruption(&plan, &seen, restarts);
    let digest = plan.digest(&wanted.generation.manifest, &interruption);
    Ok(Foreseen { plan, digest, interruption, looked: Looked { seen, at, turns } })
}

/// What is known of operating systems: the one that runs, and those of these images that are in the store.
pub(crate) fn os_seen(core: &Core, images: impl IntoIterator<Item = Digest>) -> OsSeen {
    let root = |image: Digest| Some((image, OsImage::of(&core.store, &image).ok()?.root));
    OsSeen { running: core.running_root(), roots: images.into_iter().filter_map(root).collect() }
}

impl Foreseen {
    /// What is on the host, as it was decided from.
    pub(crate) fn seen(&self) -> &Seen {
        &self.looked.seen
    }

    /// The same, where nothing else of it is needed.
    pub(crate) fn into_looked(self) -> Looked {
        self.looked
    }

    /// What the plan comes to, given how much there is.
    pub(crate) fn consequences(&self, measured: &Measured) -> Consequences {
        consequences(&self.plan, self.interruption.clone(), measured)
    }

    /// All that is to be told of it, which asks registries.
    pub(crate) async fn told(self, core: &Core, wanted: &Applicable) -> Planned {
        let fetch = to_fetch(core, wanted, &self.plan).await;
        let measured = core.host.measure(self.seen()).await;
        let consequences = Some(self.consequences(&measured));
        Planned { plan: self.plan, digest: Some(self.digest), fetch: Some(fetch), consequences }
    }
}

/// What a plan would fetch. What registries do not say in time is not known.
async fn to_fetch(core: &Core, wanted: &Applicable, plan: &Plan) -> ToFetch {
    let images = plan.steps.iter().filter_map(|step| match step {
        Step::Fetch { image, .. } => Some(image),
        _ => None,
    });
    let images: Vec<&ImageRef> = images.collect();
    if images.is_empty() {
        return ToFetch { bytes: Some(0), images: Vec::new() };
    }
    let unknown = |image: &ImageRef, why: String| ImageToFetch {
        image: image.to_string(),
        bytes: None,
        unknown: Some(why),
    };
    // A client of its own: the one of a generation is that of a manifest that was accepted.
    let client = match registries::client(&wanted.manifest, &core.identity.secrets) {
        Ok(client) => client,
        Err(error) => {
            let images = images.into_iter().map(|image| unknown(image, chain(&error))).collect();
            return ToFetch { bytes: None, images };
        }
    };
    let (deadline, platform) = (Instant::now() + ASK, core.platform());
    let (mut counted, mut told) = (BTreeSet::new(), Vec::with_capacity(images.len()));
    for image in images {
        let (source, name) = (Source::registry(&client, image), image.to_string());
        let estimate = core.store.estimate(&source, &name, &image.digest, &platform);
        told.push(match timeout_at(deadline, estimate).await {
            Ok(Ok(estimate)) => {
                // A layer that several images have is fetched once.
                let new = estimate.layers.iter().filter(|layer| counted.insert(layer.digest));
                let bytes = new.map(|layer| layer.bytes).sum();
                ImageToFetch { image: name, bytes: Some(bytes), unknown: None }
            }
            Ok(Err(error)) => unknown(image, chain(&error)),
            Err(_late) => unknown(image, "its registry did not answer in time".to_owned()),
        });
    }
    ToFetch { bytes: told.iter().map(|image| image.bytes).sum(), images: told }
}
