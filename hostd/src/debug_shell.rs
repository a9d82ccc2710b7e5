//! Debugging shells: a command of another image beside a container, for as long as somebody talks with it.
//!
//! The image need not be of the manifest, but it is bound by all that the manifest says of images: registries, and whose
//! signatures they must carry.

use std::sync::Arc;

use bennu_api::{Happening, Problem};
use bennu_image_store::{Image, policy};
use bennu_manifests::model::ImageRef;
use bennu_planner::Instance;

use crate::core::{Core, chain, failed};
use crate::host::{Input, Running, Talk};

/// Opens a shell beside `instance`, and writes down who asked for it.
///
/// # Errors
/// Where the image is not here and can't be had, does not carry the signatures that it needs, or can't be run.
pub(crate) async fn open(
    core: &Arc<Core>,
    instance: &Instance,
    image: &ImageRef,
    talk: Talk<'_>,
    by: &str,
) -> Result<(Running, Input), Problem> {
    let found = have(core, image).await?;
    let opened = core.host.debug_shell(instance, &found, talk).await.map_err(failed)?;
    core.events.add(Happening::DebugShell {
        container: instance.name.clone(),
        image: image.to_string(),
        by: by.to_owned(),
    });
    Ok(opened)
}

/// The image, claimed, so that nothing removes it until it is mounted.
async fn have(core: &Core, image: &ImageRef) -> Result<Image, Problem> {
    let active = core.generations().await.0;
    // A container runs, so a generation is active.
    let active = active.ok_or_else(|| failed(std::io::Error::other("no manifest is active yet")))?;
    let client = core.client(&active).map_err(failed)?;
    let policies = policy::declared(&active.manifest, core.ledger.lock().await.trust()).map_err(failed)?;
    let kept = core.store.signatures(&image.digest).map_err(failed)?;
    policy::require(&client, &policies, image, &kept).await.map_err(failed)?;
    let pulled = core.store.pull(&client, image, &core.platform(), &()).await;
    pulled.map_err(|error| failed(std::io::Error::other(format!("fetch {image}: {}", chain(&error)))))
}
