//! Carrying out one step of a plan.

use std::time::Duration;

use bennu_api::{Happening, Rejection};
use bennu_manifests::model::{Container, Digest, ImageRef, Job, Manifest, Name, NetworkKind, Restart};
use bennu_planner::{Instance, Step, contents};
use jiff::Timestamp;

use crate::contents::Contents;
use crate::core::{Core, chain};
use crate::host::StartInstance;
use crate::ledger::Applicable;

/// Carries a step of a plan for the active generation out, and says in words why it did not work.
pub(crate) async fn apply(core: &Core, active: &Applicable, step: &Step) -> Result<(), String> {
    let host = &core.host;
    let said = |error: &dyn std::error::Error| chain(error);
    match step {
        Step::Fetch { .. } => Ok(()),
        Step::Set { setting, value } => host.set(setting, value).await.map_err(|e| said(&e)),
        Step::Reset { setting } => host.reset(setting).await.map_err(|e| said(&e)),
        Step::CreateVolume { volume, life } => host.create_volume(volume, *life).await.map_err(|e| said(&e)),
        Step::DestroyVolume { volume } => host.destroy_volume(volume).await.map_err(|e| said(&e)),
        Step::LimitVolume { volume, size } => host.limit_volume(volume, *size).await.map_err(|e| said(&e)),
        Step::CreateNetwork { network, spec } => {
            host.create_network(network, spec).await.map_err(|e| said(&e))
        }
        Step::RemoveNetwork { network, .. } => host.remove_network(network).await.map_err(|e| said(&e)),
        Step::Stop { instance, .. } => host.stop(instance).await.map_err(|e| said(&e)),
        Step::Publish { ports } | Step::RestoreFirewall { ports } => {
            host.publish(ports).await.map_err(|e| said(&e))
        }
        Step::ServeNames => host.serve_names().await.map_err(|e| said(&e)),
        Step::RemoveUnit { unit } => host.remove_stranger(unit).await.map_err(|e| said(&e)),
        Step::Restart { instance, .. } => {
            let container = declared(&active.manifest, &instance.name)?.0;
            // Its next start is asked anew, also where this fails.
            core.health.forget(instance);
            host.restart(instance, &container).await.map_err(|e| said(&e))
        }
        Step::Refresh { instance, contents: digest, .. } => {
            let container = declared(&active.manifest, &instance.name)?.0;
            let contents = opened(core, &active.manifest, &container)?;
            host.refresh(instance, &container, &contents, *digest).await.map_err(|e| said(&e))
        }
        Step::Reject { instance, image, fingerprint, why } => {
            let tried = Tried { instance, image, fingerprint: *fingerprint, why };
            reject(core, active.generation.number, tried).await
        }
        Step::Start { instance, image, fingerprint, addresses, addresses6, .. } => {
            let (container, deadline) = declared(&active.manifest, &instance.name)?;
            let found = core.store.image(&image.digest).map_err(|e| said(&e))?;
            let image = found.ok_or("its image is not in the store any more")?;
            let opened = opened(core, &active.manifest, &container)?;
            let networks =
                host.networks().map_err(|error| format!("look which networks there are: {error}"))?;
            if deadline.is_some() {
                let starting = core.jobs().starting(instance, *fingerprint, Timestamp::now());
                starting.map_err(|error| format!("write down that the job starts: {error}"))?;
            }
            let start = StartInstance {
                instance,
                container: &container,
                image: &image,
                fingerprint: *fingerprint,
                runtime: active.manifest.runtime(),
                addresses,
                addresses6,
                networks: &networks,
                network_kind: network_kind(&active.manifest, &container),
                volumes: &active.manifest.volumes,
                contents: &opened,
                contents_digest: contents(&active.manifest, &container),
                deadline,
            };
            let started = host.start(&start).await;
            if started.is_err() {
                job_not_started(core, active, &instance.name)?;
            }
            started.map_err(|e| said(&e))
        }
    }
}

/// Has a job that was not started tried again, or counts it as failed.
fn job_not_started(core: &Core, active: &Applicable, name: &Name) -> Result<(), String> {
    let Some(job) = active.manifest.jobs.get(name) else { return Ok(()) };
    let ended = core.jobs().not_started(name, job, Timestamp::now());
    let ended = ended.map_err(|error| format!("write down that the job did not start: {error}"))?;
    if let Some(run) = ended {
        core.events.add(Happening::JobEnded { job: name.clone(), run });
    }
    Ok(())
}

/// What is declared under a name: a container, or the container of a job and how long it may run.
fn declared(manifest: &Manifest, name: &Name) -> Result<(Container, Option<Duration>), String> {
    if let Some(container) = manifest.containers.get(name) {
        return Ok((container.clone(), None));
    }
    let job = manifest.jobs.get(name).ok_or("the plan names a container that the manifest does not")?;
    Ok((container_of(job), Some(Duration::from_millis(job.deadline_ms))))
}

/// The container of a job is started again as often as it may fail, and never when it has done its work.
fn container_of(job: &Job) -> Container {
    let restart = if job.retries > 0 { Restart::OnFailure } else { Restart::No };
    Container { restart, restart_attempts: job.retries, ..job.container.clone() }
}

/// What the networks of a container are. One without addresses of its own is never one of several.
fn network_kind(manifest: &Manifest, container: &Container) -> NetworkKind {
    let first = container.networks.first().and_then(|name| manifest.networks.get(name));
    first.map(|network| network.kind).unwrap_or_default()
}

fn opened(core: &Core, manifest: &Manifest, container: &Container) -> Result<Contents, String> {
    Contents::of(manifest, container, &core.identity.secrets).map_err(|error| chain(&error))
}

struct Tried<'a> {
    instance: &'a Instance,
    image: &'a ImageRef,
    fingerprint: Digest,
    why: &'a str,
}

async fn reject(core: &Core, generation: u64, tried: Tried<'_>) -> Result<(), String> {
    let rejection = Rejection {
        container: tried.instance.name.clone(),
        image: tried.image.clone(),
        fingerprint: tried.fingerprint,
        generation,
        when: Timestamp::now(),
        why: tried.why.to_owned(),
        said: core.host.last_lines(tried.instance).await,
    };
    let added = core.rejections().add(rejection.clone());
    added.map_err(|error| format!("write down what was rejected: {error}"))?;
    core.events.add(Happening::Rejected { rejection: Box::new(rejection) });
    Ok(())
}
