//! What the reconciler and the API share: the ledger, the host, and what is being done now.

use std::collections::BTreeSet;
use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bennu_api::{
    Accepted, Activity, Dump, Happening, History, Image, Images, Os, Problem, ProblemKind, Scrub, Status,
    Submission, TrustInForce, TrustSubmission, TrustTaken, Volume, Volumes,
};
use bennu_image_store::Store;
use bennu_image_store::registry::Client;
use bennu_image_store::registry::document::Platform;
use bennu_image_store::verity::{self, Measured};
use bennu_manifests::model::{Digest, Manifest, Name};
use bennu_manifests::{Freshness, HostFacts, NotAccepted, Verified, verify, verify_trust_chain};
use bennu_planner::{Plan, Seen, Wanted, guard, plan};
use jiff::Timestamp;
use tokio::sync::Notify;

use crate::host::Host;
use crate::ledger::{Applicable, Ledger};
use crate::provision::Identity;

use crate::events::Events;
use crate::health::Monitor;
use crate::image_policy;
use crate::jobs::Jobs;
use crate::registries::{Clients, RegistriesError};
use crate::rejections::Rejections;

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
    /// Whether containers do their work.
    pub health: Monitor,
    jobs: Mutex<Jobs>,
    rejections: Mutex<Rejections>,
    /// Wakes the reconciler: a manifest was accepted.
    pub accepted: Notify,
    clients: Clients,
    now: Mutex<Now>,
    os: Os,
    verified_reads: bool,
}

/// What survives a boot.
#[derive(Debug)]
pub struct Remembered {
    /// What was accepted.
    pub ledger: Ledger,
    /// When jobs ran.
    pub jobs: Jobs,
    /// What was tried in vain.
    pub rejections: Rejections,
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
    /// What the last scrub has shown.
    pub scrub: Scrub,
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
        let Remembered { ledger, jobs, rejections } = remembered;
        Self {
            health: Monitor::default(),
            jobs: Mutex::new(jobs),
            rejections: Mutex::new(rejections),
            host,
            identity,
            facts,
            ledger: tokio::sync::Mutex::new(ledger),
            events: Events::default(),
            accepted: Notify::new(),
            clients: Clients::default(),
            now: Mutex::default(),
            verified_reads: os.root.is_some_and(|root| is_checked_by_kernel(&store, root)),
            os,
            store,
        }
    }

    /// What is being done, to read or to change.
    pub fn now(&self) -> MutexGuard<'_, Now> {
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When jobs ran, to read or to change. Held for a file or two, never while something is started.
    pub fn jobs(&self) -> MutexGuard<'_, Jobs> {
        self.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was tried in vain, to read or to change.
    pub fn rejections(&self) -> MutexGuard<'_, Rejections> {
        self.rejections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a manifest in, or says why not. Everything that was accepted is on disk when this returns.
    ///
    /// # Errors
    /// Where it is refused, not valid, or can't be written down.
    pub async fn submit(&self, submission: &Submission) -> Result<Accepted, Problem> {
        let answer = self.accept(submission).await;
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
        if let Some(same) = newest.filter(|newest| newest.manifest == manifest) {
            return Ok(Accepted { generation: same.number, manifest, unchanged: true });
        }
        let seen = self.seen().await?;
        refuse_dangers(verified.manifest(), &seen)?;
        let serial = verified.manifest().header.serial;
        let (bytes, signatures) = (submission.manifest.as_bytes(), submission.signatures.as_bytes());
        let generation = ledger.accept(verified, bytes, signatures, now).map_err(failed)?;
        self.events.add(Happening::Accepted { generation: generation.number, serial });
        self.now().failure = None;
        self.accepted.notify_one();
        Ok(Accepted { generation: generation.number, manifest, unchanged: false })
    }

    /// What a manifest would do, decided from what the host is now; nothing changes.
    ///
    /// # Errors
    /// As [`Core::submit`].
    pub async fn plan(&self, submission: &Submission) -> Result<Plan, Problem> {
        let ledger = self.ledger.lock().await;
        let verified = self.verify(&ledger, submission, Timestamp::now())?;
        let newest = ledger.pending().or(ledger.active()).map(|newest| &newest.generation);
        let same = newest.filter(|newest| newest.manifest == verified.sha256());
        let generation = same.map_or(ledger.next_generation(), |same| same.number);
        let active = ledger.active().cloned();
        drop(ledger);
        let mut seen = self.seen().await?;
        if let Some(active) = active {
            self.health.judge(&active.manifest, &mut seen);
        }
        refuse_dangers(verified.manifest(), &seen)?;
        let manifest = verified.manifest();
        let (rejected, due) = (self.rejections().in_force(manifest, generation), BTreeSet::new());
        Ok(plan(Wanted { generation, manifest, rejected: &rejected, due: &due, completed: &due }, &seen))
    }

    fn verify(&self, ledger: &Ledger, submission: &Submission, now: Timestamp) -> Result<Verified, Problem> {
        let (bytes, signatures) = (submission.manifest.as_bytes(), submission.signatures.as_bytes());
        let verified = verify(bytes, signatures, ledger.trust(), ledger.floors(), &self.facts, now)
            .map_err(|error| not_accepted(error, "manifest", &submission.manifest))?;
        // Known before anything is fetched: a policy that names nobody could never be fulfilled.
        image_policy::all(verified.manifest(), ledger.trust()).map_err(|error| Problem {
            kind: ProblemKind::Invalid,
            rule: String::new(),
            message: chain(&error),
            detail: String::new(),
        })?;
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
        let (active, pending, floors) = {
            let ledger = self.ledger.lock().await;
            (ledger.active().cloned(), ledger.pending().cloned(), ledger.floors().clone())
        };
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
            scrub: Scrub { bad: crate::scrub::still_bad(&self.store, &now.scrub.bad), ..now.scrub },
            secrets_recipient: self.identity.secrets.recipient().to_string(),
            machine: crate::os::machine(&self.facts),
        }
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
        let volume = |(name, life): (Name, _)| Volume {
            path: self.host.volume_path(&name, life).display().to_string(),
            used_by: users(active.as_ref(), |c| c.volumes.iter().any(|v| v.volume == name)),
            name,
            life,
        };
        Ok(Volumes { volumes: seen.volumes.into_iter().map(volume).collect() })
    }

    /// What a plan is made of.
    ///
    /// # Errors
    /// Where the host can't be observed.
    pub async fn dump(&self) -> Result<Dump, Problem> {
        let next_generation = self.ledger.lock().await.next_generation();
        Ok(Dump { status: self.status().await, seen: self.seen().await?, next_generation })
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

fn refuse_dangers(manifest: &Manifest, seen: &Seen) -> Result<(), Problem> {
    let dangers = guard(manifest, seen);
    if dangers.is_empty() {
        return Ok(());
    }
    let lines: Vec<_> = dangers.iter().map(ToString::to_string).collect();
    Err(Problem {
        kind: ProblemKind::Invalid,
        rule: String::new(),
        message: format!("the manifest would destroy what it does not say it destroys: {}", lines.join("; ")),
        detail: String::new(),
    })
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
    Problem { kind: ProblemKind::Failed, rule: String::new(), message: chain(&error), detail: String::new() }
}

/// An error and its causes on one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
