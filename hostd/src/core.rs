//! What the reconciler and the API share: the ledger, the host, and what is being done now.

use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bennu_api::{
    Accepted, Activity, Dump, Generation, Happening, History, Image, Images, Os, Phase, Planned, Problem,
    ProblemKind, Receipts, Scrub, Status, Submission, TrustInForce, TrustSubmission, TrustTaken, Volume,
    Volumes, WhyNot,
};
use bennu_image_store::registry::Client;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::verity::{self, Measured};
use bennu_image_store::{Store, policy};
use bennu_manifests::model::{Digest, ImageRef, Manifest, Name};
use bennu_manifests::{
    Freshness, HostFacts, NotAccepted, Verified, protected_changes, verify, verify_trust_chain,
};
use bennu_planner::{Seen, guard};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::host::Host;
use crate::ledger::{Applicable, Ledger};
use crate::provision::Identity;

use crate::events::Events;
use crate::foresee::{foresee, os_seen};
use crate::forward::Forwards;
use crate::health::Monitor;
use crate::jobs::Jobs;
use crate::kills::Kills;
use crate::registries::{Clients, RegistriesError};
use crate::rejections::Rejections;
use crate::update::{Updates, plan_changed};
use crate::volumes::Hands;

/// The daemon's one state.
#[derive(Debug)]
pub struct Core {
    /// The host's verbs.
    pub host: Host,
    /// The image store.
    pub store: Arc<Store>,
    /// Who this host is and whom it trusts.
    pub identity: Identity,
    /// What manifests are checked against.
    pub facts: HostFacts,
    /// What was accepted. Held only while it is read or written, never while something is fetched or started.
    pub ledger: tokio::sync::Mutex<Ledger>,
    /// What happened.
    pub events: Events,
    /// Where lines go.
    pub forwards: Forwards,
    /// Whether containers do their work.
    pub health: Monitor,
    jobs: Mutex<Jobs>,
    kills: Mutex<Kills>,
    rejections: Mutex<Rejections>,
    updates: Mutex<Updates>,
    hands: tokio::sync::Mutex<Hands>,
    /// How often somebody had the host in hand.
    turns: AtomicU64,
    /// Wakes the reconciler: a manifest was accepted.
    pub accepted: Notify,
    clients: Clients,
    now: Mutex<Now>,
    os: Os,
    verified_reads: bool,
}

/// What survives a restart of the daemon.
#[derive(Debug)]
pub struct Remembered {
    /// What was accepted.
    pub ledger: Ledger,
    /// When jobs ran.
    pub jobs: Jobs,
    /// What was tried in vain.
    pub rejections: Rejections,
    /// How far updates are.
    pub updates: Updates,
    /// What happened since the host was booted.
    pub events: Events,
    /// Which programs were ended for want of memory since then.
    pub kills: Kills,
}

/// What is being done, and what keeps it from being done.
#[derive(Debug, Clone, Default)]
pub struct Now {
    /// What is being done.
    pub activity: Activity,
    /// What went wrong last, while it is so.
    pub failure: Option<String>,
    /// When it is tried again.
    pub retry_at: Option<Timestamp>,
    /// The generation that was whole when it was last looked at.
    pub converged: Option<u64>,
    /// The generation that was whole at some time since it became active: from then on each difference is drift.
    pub settled: Option<u64>,
    /// What the last scrub has shown.
    pub scrub: Scrub,
    /// What the host was made to be last. The ledger may name another generation already, for which the machine starts again.
    pub made: Option<Arc<Manifest>>,
}

impl Core {
    /// Puts the parts together.
    pub fn new(
        host: Host,
        store: Arc<Store>,
        identity: Identity,
        facts: HostFacts,
        remembered: Remembered,
        os: Os,
    ) -> Self {
        let Remembered { ledger, jobs, rejections, updates, events, kills } = remembered;
        let made = ledger.active().map(|active| active.manifest.clone());
        Self {
            health: Monitor::default(),
            jobs: Mutex::new(jobs),
            kills: Mutex::new(kills),
            rejections: Mutex::new(rejections),
            updates: Mutex::new(updates),
            host,
            identity,
            facts,
            ledger: tokio::sync::Mutex::new(ledger),
            events,
            forwards: Forwards::default(),
            hands: tokio::sync::Mutex::default(),
            turns: AtomicU64::default(),
            accepted: Notify::new(),
            clients: Clients::default(),
            now: Mutex::new(Now { made, ..Now::default() }),
            verified_reads: os.root.is_some_and(|root| is_checked_by_kernel(&store, root)),
            os,
            store,
        }
    }

    /// Held by whoever starts or stops containers or swaps volumes, so that only one does.
    pub async fn take_in_hand(&self) -> tokio::sync::MutexGuard<'_, Hands> {
        let hands = self.hands.lock().await;
        self.turns.fetch_add(1, Ordering::Relaxed);
        hands
    }

    /// How often somebody had the host in hand.
    pub fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// What is being done, to read or to change.
    pub fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When jobs ran, to read or to change. Held for a file or two, never while something is started.
    pub fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Which programs were ended for want of memory, to read or to change.
    pub(crate) fn kills(&self) -> MutexGuard<'_, Kills> {
        self.kills.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was tried in vain, to read or to change.
    pub fn rejections(&self) -> MutexGuard<'_, Rejections> {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How far updates are, to read or to change.
    pub fn updates(&self) -> MutexGuard<'_, Updates> {
        self.updates.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The root of the OS that runs, where a boot entry of ours started it.
    pub fn running_root(&self) -> Option<Digest> {
        self.os.root
    }

    /// Whether the machine has to start again for what was kept.
    pub(crate) async fn runs_another_os_than_was_kept(&self) -> bool {
        let ledger = self.ledger.lock().await;
        let kept = ledger.pointer().kept.and_then(|kept| ledger.root_of(kept));
        kept.is_some() && kept != self.running_root()
    }

    /// Nothing is on its way any more.
    pub fn settled(&self) {
        let mut updates = self.updates();
        (updates.phase, updates.staged) = (Phase::Settled, None);
        updates.why.clear();
        updates.gates.clear();
    }

    /// Takes a manifest in, or says why not. Everything that was accepted is on disk when this returns.
    ///
    /// # Errors
    /// Where it is refused, not valid, or can't be written down.
    pub async fn submit(&self, submission: &Submission) -> Result<Accepted, Problem> {
        let answer = self.accept(submission).await;
        self.told(answer)
    }

    /// What a submission declares, where it would be accepted as far as its signatures and its words decide; nothing changes.
    ///
    /// # Errors
    /// Where it is refused or not valid.
    pub async fn acceptable(&self, submission: &Submission) -> Result<Manifest, Problem> {
        let ledger = self.ledger.lock().await;
        let verified = self.verify(&ledger, submission, Timestamp::now());
        self.told(verified.map(|verified| verified.manifest().clone()))
    }

    /// Tells what was not accepted as an event.
    fn told<T>(&self, answer: Result<T, Problem>) -> Result<T, Problem> {
        if let Err(problem) = &answer {
            let (rule, reason) = (problem.rule.clone(), problem.message.clone());
            self.events.add(Happening::Refused { rule, reason });
        }
        answer
    }

    async fn accept(&self, submission: &Submission) -> Result<Accepted, Problem> {
        let mut ledger = self.ledger.lock().await;
        let now = Timestamp::now();
        let verified = self.verify(&ledger, submission, now)?;
        let manifest = verified.sha256();
        let newest = ledger.pending().or(ledger.active()).map(|newest| &newest.generation);
        let same = newest.filter(|newest| newest.manifest == manifest).map(|same| same.number);
        if let Some(required) = submission.require_plan {
            let wanted = applicable(same.unwrap_or(ledger.next_generation()), &verified);
            let planned = foresee(self, &wanted, ledger.active()).await.map_err(failed)?;
            if planned.digest != required {
                return Err(plan_changed(required, planned.digest));
            }
        }
        if let Some(generation) = same {
            if let Some(plan) = submission.require_plan {
                ledger.require_plan(generation, plan).map_err(failed)?;
            }
            return Ok(Accepted { generation, manifest, unchanged: true });
        }
        self.refuse_rejected(&verified)?;
        self.require_runtime(verified.manifest())?;
        let seen = self.seen().await?;
        refuse_dangers(verified.manifest(), &seen)?;
        let serial = verified.manifest().header.serial;
        let (bytes, signatures) = (submission.manifest.as_bytes(), submission.signatures.as_bytes());
        let generation =
            ledger.accept(verified, bytes, signatures, submission.require_plan, now).map_err(failed)?;
        self.events.add(Happening::Accepted { generation: generation.number, serial });
        self.now().failure = None;
        self.accepted.notify_one();
        Ok(Accepted { generation: generation.number, manifest, unchanged: false })
    }

    /// Refuses what was tried on this host and did not do its work.
    fn refuse_rejected(&self, verified: &Verified) -> Result<(), Problem> {
        let updates = self.updates();
        let Some(known) = updates.rejected.against(&verified.sha256(), verified.manifest()) else {
            return Ok(());
        };
        let message = format!(
            "it declares what was tried as generation {} and taken back: {}; a manifest with a newer serial and `retry = true` in \
             [update] is tried once more",
            known.generation, known.why
        );
        Err(Problem::new(ProblemKind::Invalid, message))
    }

    /// Refuses a manifest for the operating system that runs, where that does not have the program to make its containers. What
    /// another one has is looked at once it is in the store, before anything is changed.
    fn require_runtime(&self, manifest: &Manifest) -> Result<(), Problem> {
        let root = |image: &ImageRef| os_seen(self, [image.digest]).roots.get(&image.digest).copied();
        let stays = manifest
            .os_image()
            .is_none_or(|image| root(image).is_some_and(|root| Some(root) == self.running_root()));
        let missing = self.host.missing_runtime(manifest).filter(|_| stays);
        missing.map_or(Ok(()), |message| Err(Problem::new(ProblemKind::Invalid, message)))
    }

    /// What a manifest would do, decided from what the host is now; nothing changes.
    ///
    /// # Errors
    /// As [`Core::submit`].
    pub async fn plan(&self, submission: &Submission) -> Result<Planned, Problem> {
        let ledger = self.ledger.lock().await;
        let verified = self.verify(&ledger, submission, Timestamp::now())?;
        let newest = ledger.pending().or(ledger.active()).map(|newest| &newest.generation);
        let same = newest.filter(|newest| newest.manifest == verified.sha256());
        let wanted = applicable(same.map_or(ledger.next_generation(), |same| same.number), &verified);
        let active = ledger.active().cloned();
        drop(ledger);
        self.require_runtime(&wanted.manifest)?;
        let planned = foresee(self, &wanted, active.as_ref()).await.map_err(failed)?;
        refuse_dangers(&wanted.manifest, planned.seen())?;
        Ok(planned.told(self, &wanted).await)
    }

    fn verify(&self, ledger: &Ledger, submission: &Submission, now: Timestamp) -> Result<Verified, Problem> {
        let (bytes, signatures) = (submission.manifest.as_bytes(), submission.signatures.as_bytes());
        let verified = verify(bytes, signatures, ledger.trust(), ledger.floors(), &self.facts, now)
            .map_err(|error| not_accepted(error, "manifest", &submission.manifest))?;
        // What is active holds what there is, what is pending what it is to become: neither is to be undone by fewer keys.
        let before = [ledger.active(), ledger.pending()].into_iter().flatten();
        let changes: Vec<String> =
            before.flat_map(|known| protected_changes(&known.manifest, verified.manifest())).collect();
        verified
            .require_os(&changes, ledger.trust())
            .map_err(|error| not_accepted(error, "manifest", &submission.manifest))?;
        // Known before anything is fetched: a policy that names nobody could never be fulfilled.
        policy::declared(verified.manifest(), ledger.trust())
            .map_err(|error| Problem::new(ProblemKind::Invalid, chain(&error)))?;
        Ok(verified)
    }

    /// Takes trust documents in, or says why not. Everything is on disk when this returns; what runs goes on running.
    ///
    /// # Errors
    /// Where one of them is refused or not valid, or they can't be written down. Then none of them counts.
    pub async fn take_trust(&self, submission: &TrustSubmission) -> Result<TrustTaken, Problem> {
        let answer = self.follow_trust(submission).await;
        self.events.add(match &answer {
            Ok(taken) => Happening::TrustTaken { version: taken.version },
            Err(problem) => {
                Happening::Refused { rule: problem.rule.clone(), reason: problem.message.clone() }
            }
        });
        answer
    }

    async fn follow_trust(&self, submission: &TrustSubmission) -> Result<TrustTaken, Problem> {
        let documents = &submission.chain;
        let links: Vec<(&[u8], &[u8])> =
            documents.iter().map(|d| (d.document.as_bytes(), d.signatures.as_bytes())).collect();
        let mut ledger = self.ledger.lock().await;
        let chain = verify_trust_chain(ledger.trust(), &links, ledger.floors(), Timestamp::now()).map_err(
            |refused| {
                let document = refused.hop.checked_sub(1).and_then(|at| documents.get(at));
                let text = document.map_or("", |signed| &signed.document);
                let mut problem = not_accepted(refused.reason, "trust document", text);
                if documents.len() > 1 && refused.hop > 0 {
                    problem.message =
                        format!("document {} of {}: {}", refused.hop, documents.len(), problem.message);
                }
                problem
            },
        )?;
        let given_up = ledger.take_trust(&chain, documents).map_err(failed)?;
        Ok(TrustTaken { version: chain.newest().version, given_up })
    }

    /// The trust document in force.
    pub async fn trust(&self) -> TrustInForce {
        let ledger = self.ledger.lock().await;
        let (document, signatures) = match ledger.trust_document() {
            Some(signed) => (signed.document.clone(), signed.signatures.clone()),
            None => (self.identity.provision.trust.clone(), String::new()),
        };
        let trust = ledger.trust();
        TrustInForce { version: trust.version, expires: trust.expires, document, signatures }
    }

    /// What the host is now; what checks of containers say is not part of it.
    ///
    /// # Errors
    /// Where it can't be observed.
    pub async fn seen(&self) -> Result<Seen, Problem> {
        self.host.observe().await.map_err(failed)
    }

    /// What asks the registries of a generation.
    ///
    /// # Errors
    /// Where its manifest says something about them that cannot be carried out.
    pub fn client(&self, wanted: &Applicable) -> Result<Client, RegistriesError> {
        self.clients.of(wanted, &self.identity.secrets)
    }

    /// The platform whose images run here.
    pub fn platform(&self) -> Platform {
        Platform::linux(&self.facts.arch)
    }

    /// What people are told of the host.
    pub async fn status(&self) -> Status {
        let (active, pending, floors, pointer) = {
            let ledger = self.ledger.lock().await;
            let pointer = ledger.pointer().clone();
            (ledger.active().cloned(), ledger.pending().cloned(), ledger.floors().clone(), pointer)
        };
        let update = self.updates().status(&pointer);
        let now = self.now().clone();
        let active = active.map(|a| a.generation);
        Status {
            host: self.identity.provision.name.to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            os: self.os.clone(),
            converged: pending.is_none()
                && active.is_some()
                && now.converged == active.as_ref().map(|a| a.number),
            stale: active
                .as_ref()
                .is_some_and(|a| Freshness::of(a.expires, &floors, Timestamp::now()).is_stale()),
            generation: active,
            pending: pending.map(|p| p.generation),
            activity: now.activity,
            failure: now.failure,
            retry_at: now.retry_at,
            verified_reads: self.verified_reads,
            rejected: self.rejections().all().to_vec(),
            jobs: self.jobs().runs(),
            forwards: self.forwards.status(),
            oom_kills: self.kills().status(),
            scrub: Scrub { bad: crate::scrub::still_bad(&self.store, &now.scrub.bad), ..now.scrub },
            secrets_recipient: self.identity.secrets.recipient().to_string(),
            machine: crate::os::machine(&self.facts),
            update,
        }
    }

    /// How far the newest generation is.
    pub async fn phase(&self) -> Phase {
        let ledger = self.ledger.lock().await;
        self.updates().phase(ledger.pointer())
    }

    /// The one answer to why the host has not updated.
    pub async fn why(&self) -> WhyNot {
        let (pointer, given_up) = {
            let ledger = self.ledger.lock().await;
            let pointer = ledger.pointer().clone();
            let newest = pointer.pending.or(pointer.active);
            let newer = ledger.history().last().filter(|last| newest < Some(last.generation.number));
            let given_up = newer.and_then(|newer| Some((newer.generation.number, newer.failure.clone()?)));
            (pointer, given_up)
        };
        let failure = self.now().failure.clone();
        self.updates().why(&pointer, given_up, failure)
    }

    /// What the changes to and from a generation have come to; without one, those of the newest that has any.
    ///
    /// # Errors
    /// Where there are none, or they can't be read.
    pub async fn receipts(&self, generation: Option<u64>) -> Result<Receipts, Problem> {
        let receipts = self.ledger.lock().await.receipts(generation).map_err(failed)?;
        let which = generation.map(|number| format!(" of generation {number}")).unwrap_or_default();
        let message = format!("there is no receipt{which}: it never became active, or is forgotten");
        receipts.ok_or_else(|| Problem::new(ProblemKind::NotFound, message))
    }

    /// Somebody says yes to the pending generation, which is given back.
    pub async fn approve(&self) -> Option<u64> {
        let pending = self.ledger.lock().await.pending().map(|pending| pending.generation.number)?;
        self.updates().approved.insert(pending);
        self.accepted.notify_one();
        Some(pending)
    }

    /// The active and the pending generation.
    pub async fn generations(&self) -> (Option<Applicable>, Option<Applicable>) {
        let ledger = self.ledger.lock().await;
        (ledger.active().cloned(), ledger.pending().cloned())
    }

    /// The story of each generation.
    pub async fn history(&self) -> History {
        History { entries: self.ledger.lock().await.history().cloned().collect() }
    }

    /// The images in the store.
    ///
    /// # Errors
    /// Where the store can't be read.
    pub async fn images(&self) -> Result<Images, Problem> {
        let active = self.generations().await.0;
        let image = |image: bennu_image_store::Image| Image {
            digest: image.digest,
            layers: image.layers.len(),
            size: image.layers.iter().map(|layer| layer.size).sum(),
            used_by: users(active.as_ref(), |c| c.image.digest == image.digest),
        };
        Ok(Images { images: self.store.images().map_err(failed)?.into_iter().map(image).collect() })
    }

    /// The volumes on the host.
    ///
    /// # Errors
    /// Where the host can't be observed.
    pub async fn volumes(&self) -> Result<Volumes, Problem> {
        let (seen, active) = (self.seen().await?, self.generations().await.0);
        let volume = |(name, life): (Name, _)| {
            let quota = seen.quotas.get(&name).copied().unwrap_or_default();
            let declared = active.as_ref().and_then(|active| active.manifest.volumes.get(&name));
            Ok(Volume {
                path: self.host.volume_path(&name, life).display().to_string(),
                used_by: users(active.as_ref(), |c| c.volumes.iter().any(|v| v.volume == name)),
                // On disk those that go back with a generation are as those that are kept.
                life: declared.map_or(life, |declared| declared.life),
                used: quota.used,
                size: quota.limit,
                snapshots: self.host.snapshots(&name).map_err(failed)?.len() as u64,
                name,
            })
        };
        Ok(Volumes { volumes: seen.volumes.into_iter().map(volume).collect::<Result<_, Problem>>()? })
    }

    /// What a plan is made of.
    ///
    /// # Errors
    /// Where the host can't be observed.
    pub async fn dump(&self) -> Result<Dump, Problem> {
        let next_generation = self.ledger.lock().await.next_generation();
        let seen = self.seen().await?;
        let measured = Some(self.host.measure(&seen).await);
        let os = os_seen(self, seen.images.iter().copied());
        Ok(Dump { status: self.status().await, seen, next_generation, measured, os })
    }
}

/// Whether the kernel checks each read of the blobs, shown by the one that the OS runs from.
fn is_checked_by_kernel(store: &Store, root: Digest) -> bool {
    let measured = File::open(store.blob_path(&root)).and_then(|blob| verity::measure(&blob));
    matches!(measured, Ok(Measured::Digest(digest)) if digest == root)
}

/// The declared containers of which something holds.
fn users(
    active: Option<&Applicable>,
    holds: impl Fn(&bennu_manifests::model::Container) -> bool,
) -> Vec<Name> {
    let containers = active.into_iter().flat_map(|a| a.manifest.programs());
    containers.filter(|(_, container)| holds(container)).map(|(name, _)| name.clone()).collect()
}

/// What was verified, as the generation of this number.
fn applicable(number: u64, verified: &Verified) -> Applicable {
    let header = &verified.manifest().header;
    let (name, serial, expires) = (header.name.clone(), header.serial, header.expires);
    let generation = Generation { number, name, serial, manifest: verified.sha256(), expires };
    Applicable { generation, manifest: Arc::new(verified.manifest().clone()) }
}

fn refuse_dangers(manifest: &Manifest, seen: &Seen) -> Result<(), Problem> {
    let dangers = guard(manifest, seen);
    if dangers.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = dangers.iter().map(ToString::to_string).collect();
    let message =
        format!("the manifest would destroy what it does not say it destroys: {}", lines.join("; "));
    Err(Problem::new(ProblemKind::Invalid, message))
}

/// Why a document was not accepted; `text` is that of what is called `what`.
fn not_accepted(error: NotAccepted, what: &str, text: &str) -> Problem {
    match error {
        NotAccepted::Refused(refusal) => Problem {
            kind: ProblemKind::Refused,
            rule: refusal.rule.code().to_owned(),
            message: refusal.to_string(),
            detail: String::new(),
        },
        NotAccepted::Invalid(invalid) => Problem {
            kind: ProblemKind::Invalid,
            rule: String::new(),
            message: format!("the {what} is signed, but not valid"),
            detail: invalid.render(what, text),
        },
    }
}

/// A failure of the host itself, with all its causes on one line.
pub fn failed(error: impl std::error::Error) -> Problem {
    Problem::new(ProblemKind::Failed, chain(&error))
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
