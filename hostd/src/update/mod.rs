//! Updates as the daemon carries them out: what is decided in [`bennu_planner::update`] is asked for, written down and done here.
//!
//! ```text
//!  stage ──► advance ──► gates closed: wait
//!                   ├──► containers alone: activate, on trial
//!                   └──► another OS: write down the attempt ─► boot entry ─► the machine starts again
//!  start ──► begin: what did the boot mean? ─► arrived · once more · rejected · fell back
//!  round ──► judge: kept, taken back, or not decided yet
//! ```
//! The order of writes is always: the ledger says what is intended, then the boot partition is changed, then the machine starts
//! again. So a power cut leaves what was, or something that is taken up at the next start.

mod baseline;
mod clock;
mod esp;
mod fleet_lock;
mod gates;
mod measured;
mod os_image;
mod pe;
mod rebirth;
mod receipt;
mod rejected;
pub(crate) mod secure_boot;
mod state;
mod trial;

pub use esp::EspError;
pub use os_image::{NotAnOs, OsImage};
pub use rebirth::{Rebirth, rebirth};
pub use rejected::{Rejected, contents};
pub use state::Updates;

use std::io;
use std::path::Path;
use std::time::Duration;

use bennu_api::{Happening, Phase, Problem, ProblemKind};
use bennu_manifests::model::Digest;
use bennu_planner::update::{AfterBoot, Attempt, EspStep, Found, Pointer, Rearm, Room, Start, esp_steps};
use jiff::Timestamp;

use crate::core::{Core, chain};
use crate::foresee::{Looked, foresee};
use crate::ledger::{Applicable, LedgerError};
use crate::sealed::{self, Roots};
use crate::volumes;
use clock::Trial;
use esp::{Contents, Esp};

pub(crate) use gates::Facts;
pub use trial::{confirm, roll_back};

pub(crate) use fleet_lock::release as release_lock;
pub(crate) use receipt::settle as settle_receipt;
pub(crate) use trial::judge;

/// Why an update could not be carried on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UpdateError {
    /// The ledger can't be written.
    #[error("write down how far the update is")]
    Ledger(#[from] LedgerError),
    /// The boot partition can't be read or written.
    #[error(transparent)]
    Esp(#[from] EspError),
    /// A root can't be put where the initrd finds it.
    #[error("put the roots that are booted where the initrd finds them")]
    Roots(#[source] io::Error),
    /// The image of the OS is none.
    #[error(transparent)]
    Os(#[from] NotAnOs),
    /// What was rejected can't be written down.
    #[error("write down what was rejected")]
    Rejected(#[source] io::Error),
    /// The machine does not start again.
    #[error("start the machine again")]
    Restart(#[source] crate::host::BusError),
    /// The volumes that go back with the generation can't be kept or put back.
    #[error("{0}")]
    Volumes(String),
    /// The host can't be looked at.
    #[error("look what the update would do")]
    Look(#[from] crate::host::ObserveError),
    /// It is not known which OS runs, so no other one can be tried.
    #[error("the OS that runs was not started by a boot entry of ours, so another one can't be tried")]
    UnknownOs,
}

/// What became of a generation for which all is in the store.
#[derive(Debug)]
pub(crate) enum Advanced {
    /// It is the active one, and this is the host for which that was decided; what it needs is pinned still as what comes next.
    Active(Box<Looked>),
    /// Something keeps the host from changing.
    Waits(String),
    /// It is given up: another plan than the one that was asked for would be carried out.
    GivenUp,
    /// The machine is about to start again.
    Restarting,
}

/// Takes up what a boot means for an update that was under way. Called once, when the daemon starts. Whether the machine is about to
/// start again is returned.
///
/// # Errors
/// Where it can't be written down; the daemon is started again then.
pub async fn begin(core: &Core) -> Result<bool, UpdateError> {
    let Some(running) = core.running_root() else { return trial::started(core).await };
    let contents = look(core).unwrap_or_else(|error| {
        tracing::warn!(error = chain(&error), "read the boot partition");
        Contents::default()
    });
    let ledger = core.ledger.lock().await;
    let is_rejected = |number| core.updates().rejected.all().iter().any(|known| known.generation == number);
    let pointer = ledger.pointer();
    // What was active when the machine stopped wrote to its volumes; before an attempt has arrived that is what was kept.
    let had_volumes = pointer.active;
    let entries = &contents.entries;
    let found = Found { pointer, running, entries, now: Timestamp::now() };
    let Start { meaning, attempt, next, goes_back } =
        found.start(is_rejected, |number| ledger.root_of(number));
    drop(ledger);
    if meaning != AfterBoot::GoOn {
        tracing::info!(?meaning, "an update was under way when the machine started");
    }
    // What is rejected is written down before the pointer moves: after a cut between the two it is rejected again.
    if let (AfterBoot::GiveUp { why }, Some(attempt)) = (&meaning, &attempt) {
        let tries = entries.iter().filter(|entry| entry.name.generation == attempt.generation);
        let evidence = tries.map(|entry| format!("boot entry {}", entry.name)).collect();
        trial::reject(core, attempt.generation, why, trial::Fault::Boot(evidence)).await?;
    }
    match &meaning {
        AfterBoot::GiveUp { why } => receipt::of_boot_that_failed(core, next.active, why).await,
        // What was kept long ago has no receipt that is open.
        AfterBoot::Again { .. } | AfterBoot::FellBack { .. } => {
            receipt::of_boot_that_failed(core, next.active, "its OS did not come up; it is tried again")
                .await;
        }
        AfterBoot::GoOn | AfterBoot::Arrived => {}
    }
    if let (Some(from), Some(to)) = (had_volumes, next.active)
        && from != to
    {
        give_volumes_back(core, from, to).await?;
    }
    core.ledger.lock().await.point(|_| next)?;
    // The loader may have passed over an OS because its boot image on the boot partition is damaged.
    if meaning != AfterBoot::GoOn
        && let Err(error) = mend_boot_images(core).await
    {
        tracing::error!(error = chain(&error), "look for damaged boot images");
    }
    let written = write_entries(core, Rearm::Nothing).await;
    if let Err(error) = &written {
        tracing::error!(error = chain(error), "write the boot entries");
    }
    // With the entries as they are it would come up with the same OS again.
    let restarts = goes_back && written.is_ok();
    if restarts {
        restart(core).await?;
        return Ok(true);
    }
    trial::started(core).await
}

/// Has the machine start again. Until it stops nothing is done for what the ledger names from now on: that is for the machine after it.
async fn restart(core: &Core) -> Result<(), UpdateError> {
    core.updates().phase = Phase::Restarting;
    let asked = core.host.restart_machine().await.map_err(UpdateError::Restart);
    if asked.is_err() {
        core.settled();
    }
    asked
}

/// The daemon serves from now on: if it ends without having been asked to, that is counted against what is on trial.
pub fn serves(core: &Core) {
    core.updates().clock.serves(true);
}

/// The daemon was asked to end: that is no fault of what is on trial, nor of the OS, however soon the machine stops.
pub async fn ends(core: &Core) {
    core.updates().clock.serves(false);
    stays(core).await;
}

/// The daemon has served for a while: the OS came up, and where it is not on trial its entry gets all its tries again. Where it can't
/// be written it is at the next start.
pub async fn stays(core: &Core) {
    if let Err(error) = write_entries(core, Rearm::Running).await {
        tracing::error!(error = chain(&error), "write the boot entries");
    }
}

/// Brings a generation on whose images are all in the store: it waits, becomes the active one, or has the machine start again.
///
/// # Errors
/// [`UpdateError`]; what runs goes on running.
pub(crate) async fn advance(core: &Core, pending: &Applicable) -> Result<Advanced, UpdateError> {
    let generation = pending.generation.number;
    let running = core.running_root();
    let os = match pending.manifest.os_image() {
        Some(image) => {
            let os = OsImage::of(&core.store, &image.digest)?;
            // Before anything is written or started again: containers could not be made there.
            os.require_runtime(&core.store, pending.manifest.runtime())?;
            if Some(os.root) != running {
                os.require_signature(&core.store, Path::new(secure_boot::VARIABLES))?;
                if sealed::is_sealed() {
                    os.require_measurements(&core.store, Path::new(sealed::PUBLIC_KEY))?;
                }
            }
            Some(os)
        }
        None => None,
    };
    let root = os.as_ref().map_or(running, |os| Some(os.root));
    let restarts = root != running;
    if restarts && running.is_none() {
        return Err(UpdateError::UnknownOs);
    }
    let (before, kept) = {
        let ledger = core.ledger.lock().await;
        let pointer = ledger.pointer();
        let before = pointer.attempt.clone().filter(|attempt| attempt.generation == generation);
        (before, pointer.kept.and_then(|kept| ledger.root_of(kept)))
    };
    let facts = Facts { pending, before: before.as_ref(), starts: os.filter(|_| restarts), restarts };
    if let Err(why) = gates::pass(core, &facts).await? {
        core.updates().phase = Phase::Waiting;
        return Ok(Advanced::Waits(why));
    }
    let active = core.generations().await.0;
    let foreseen = foresee(core, pending, active.as_ref()).await?;
    let required = core.ledger.lock().await.required_plan(generation);
    // What was tried before has passed here: a boot that came to nothing is no other situation.
    if let Some(required) = required.filter(|required| *required != foreseen.digest && before.is_none()) {
        give_up(core, generation, &plan_changed(required, foreseen.digest)).await?;
        return Ok(Advanced::GivenUp);
    }
    receipt::of_activation(core, pending, &foreseen).await;
    let first = Attempt::at(generation, root, running, kept);
    let attempt = match before {
        Some(before) => Attempt { os: first.os, arrived: first.arrived, not_before: None, ..before },
        None => Attempt { baseline: baseline::observe(foreseen.seen()).await, ..first },
    };
    let within = pending.manifest.update.as_ref().and_then(|updates| updates.confirm_within_ms);
    let confirm_by =
        within.and_then(|within| Timestamp::now().checked_add(Duration::from_millis(within)).ok());
    let attempt = Attempt { confirm_by, confirmed: false, ..attempt };
    keep_volumes(core, pending).await.map_err(UpdateError::Volumes)?;
    core.events.add(Happening::Tried { generation, os: root.filter(|_| restarts) });
    if attempt.os.is_some() {
        core.ledger.lock().await.point(|pointer| pointer.attempting(attempt.clone()))?;
        write_entries(core, Rearm::Attempt).await?;
    }
    if restarts {
        restart(core).await?;
        return Ok(Advanced::Restarting);
    }
    let attempt = Attempt { arrived: true, ..attempt };
    // Before it is on trial: a daemon that ends over it is counted.
    core.updates().clock.begin(Trial::of(&attempt));
    core.ledger.lock().await.point(|pointer| pointer.activated(generation, Some(attempt)))?;
    core.updates().phase = Phase::Trial;
    Ok(Advanced::Active(Box::new(foreseen.into_looked())))
}

/// Why a plan is not carried out that is not the one that was asked for.
pub(crate) fn plan_changed(required: Digest, now: Digest) -> Problem {
    let message = format!("the plan {required} is required, and the host would carry out {now}");
    Problem { kind: ProblemKind::Refused, rule: "plan.changed".to_owned(), message, detail: String::new() }
}

/// Gives the pending generation up. What runs goes on running.
async fn give_up(core: &Core, generation: u64, why: &Problem) -> Result<(), UpdateError> {
    {
        let mut ledger = core.ledger.lock().await;
        // The reason first: after a cut between the two it is given up again, and not forgotten why.
        ledger.record(generation, Err(&why.message))?;
        ledger.point(Pointer::without_pending)?;
    }
    core.settled();
    core.events.add(Happening::Refused { rule: why.rule.clone(), reason: why.message.clone() });
    crate::pins::follow(core).await.map_err(NotAnOs::Store)?;
    Ok(())
}

/// Keeps the state in which the active generation leaves the volumes that go back with it.
async fn keep_volumes(core: &Core, pending: &Applicable) -> Result<(), String> {
    let (active, history) = (core.generations().await.0, core.history().await.entries);
    match active {
        Some(active) => {
            volumes::before_activation(core, &active, &pending.manifest, &history, Timestamp::now()).await
        }
        None => Ok(()),
    }
}

/// Puts the volumes that go back with their generation into the state in which generation `to` left them, after generation `from`
/// had them. It can be repeated.
async fn give_volumes_back(core: &Core, from: u64, to: u64) -> Result<(), UpdateError> {
    let Some(from) = core.ledger.lock().await.generation(from)? else { return Ok(()) };
    let hands = core.take_in_hand().await;
    let back = volumes::restore_to_generation(core, &hands, &from, to, Timestamp::now()).await;
    back.map(drop).map_err(UpdateError::Volumes)
}

/// What is on the boot partition.
fn look(core: &Core) -> Result<Contents, EspError> {
    Esp::mount_to_read(core.host.run_directory())?.contents()
}

/// What has to be written before this OS can be started, and what is free there.
fn boot_rooms(core: &Core, os: &OsImage) -> Result<Vec<Room>, UpdateError> {
    let image = os.boot_image(&core.store)?.bytes();
    let mut rooms = vec![Esp::mount_to_read(core.host.run_directory())?.room(&os.root, image)?];
    if let Some(roots) = Roots::of_host() {
        rooms.push(roots.room(&os.root, &core.store.blob_path(&os.root)).map_err(UpdateError::Roots)?);
    }
    Ok(rooms)
}

/// Makes the boot entries those that the ledger asks for. `rearm` says which of them gets all its tries again.
///
/// # Errors
/// [`UpdateError`]; there is a way to boot at any time.
pub(crate) async fn write_entries(core: &Core, rearm: Rearm) -> Result<(), UpdateError> {
    let Some(running) = core.running_root() else { return Ok(()) };
    let wanted = {
        let ledger = core.ledger.lock().await;
        ledger.pointer().wanted_entries(running, rearm, |number| ledger.root_of(number))
    };
    let boot_image = boot_images(core).await;
    let esp = Esp::mount(core.host.run_directory())?;
    let contents = esp.contents()?;
    let steps = esp_steps(&wanted, &contents.entries, &contents.images);
    let roots = Roots::of_host();
    if let Some(roots) = &roots {
        let booted = steps.iter().filter_map(|step| match step {
            EspStep::WriteImage(root) | EspStep::WriteEntry(_, root) => Some(root),
            EspStep::RemoveEntry(_) | EspStep::RemoveImage(_) => None,
        });
        for root in booted {
            let (roots, root, from) = (roots.clone(), *root, core.store.blob_path(root));
            // Some hundred MiB: meanwhile the host answers.
            let added = tokio::task::spawn_blocking(move || roots.add(&root, &from)).await;
            added.unwrap_or_else(|error| Err(error.into())).map_err(UpdateError::Roots)?;
        }
    }
    esp.carry_out(&steps, "Bennu", boot_image)?;
    if let Some(roots) = &roots {
        let mut booted = esp.contents()?.images;
        booted.insert(running);
        roots.keep_only(&booted).map_err(UpdateError::Roots)?;
    }
    Ok(())
}

/// Writes the boot images anew that are damaged on the boot partition, which nothing else checks, as far as the store has them.
///
/// # Errors
/// [`UpdateError`]; what was there before stays then.
pub(crate) async fn mend_boot_images(core: &Core) -> Result<(), UpdateError> {
    let boot_image = boot_images(core).await;
    let esp = Esp::mount(core.host.run_directory())?;
    for root in esp.damaged(&boot_image)? {
        let what = format!(
            "the boot image for the root {root} was damaged on the boot partition; it is written anew"
        );
        core.events.add(Happening::Drift { what });
        esp.carry_out(&[EspStep::WriteImage(root)], "Bennu", &boot_image)?;
    }
    Ok(())
}

/// Opens the boot image of a root, from the images of the generations that count.
async fn boot_images(core: &Core) -> impl Fn(&Digest) -> io::Result<Box<dyn io::Read>> {
    let ledger = core.ledger.lock().await;
    let numbers = ledger.pointer().generations().into_iter();
    let generations = numbers.filter_map(|number| ledger.generation(number).ok()?);
    let images: Vec<Digest> = generations
        .filter_map(|generation| generation.manifest.os_image().map(|image| image.digest))
        .collect();
    move |root| {
        let mut known = images.iter().filter_map(|image| OsImage::of(&core.store, image).ok());
        let os = known.find(|os| os.root == *root);
        let os = os.ok_or_else(|| io::Error::other(format!("no image in the store has the root {root}")))?;
        Ok(Box::new(os.boot_image(&core.store).map_err(io::Error::other)?))
    }
}
