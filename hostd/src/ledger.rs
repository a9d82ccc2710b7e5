//! What was accepted, what is active, and the floors: all that `hostd` remembers, on the state partition.
//!
//! ```text
//! ledger/
//!   format.json               {"version":1}
//!   floors.json               trust version, serial and digest per stream, latest time known; never go down
//!   pointer.json              which generations count, and the attempt under way
//!   trust/V.toml              each trust document that was taken after the provisioned one
//!   trust/V.toml.sig
//!   generations/N/host.toml   the exact bytes that were signed
//!   generations/N/host.toml.sig
//!   generations/N/record.json when it was accepted, who signed, what became of it
//!   generations/N/receipts.json what became of the host each time that it became active or was taken back
//!   receipt.json              the receipt of the change that is under way, with what there was before
//! ```
//!
//! **Invariant:** a generation's files are whole before the floors name its serial, and the floors are on disk before
//! the pointer names the generation; so a cut between two writes leaves either nothing or something that is taken up.
//! Likewise trust documents are whole before the floors name their version; that one write puts the last of them in force.

mod pointer;
mod receipts;
mod trust;

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_api::{Generation, HistoryEntry, SignedDocument};
use bennu_image_store::durable;
use bennu_manifests::model::{Digest, Manifest};
use bennu_manifests::{
    ChainNotAccepted, Floors, HostFacts, NotAccepted, Trust, Verified, VerifiedChain, verify_again,
};
use bennu_planner::update::Pointer;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

pub use receipts::OpenReceipt;
use trust::TrustLog;

/// How many generations are remembered; the active and the pending one always are.
const REMEMBERED: usize = 50;

const FORMAT: u32 = 1;
/// The folder of trust documents.
const TRUST: &str = "trust";

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// A file could not be read or written.
    #[error("{doing} {path}")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
    /// A file is not what this program writes.
    #[error("{path} is damaged: {reason}")]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It was written by a newer version.
    #[error("{path} has version {version}, and this hostd knows {FORMAT}")]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A manifest that was accepted once does not verify any more.
    #[error("generation {generation} does not verify any more")]
    NoLongerTrusted {
        /// The generation.
        generation: u64,
        /// The cause.
        source: NotAccepted,
    },
    /// The trust documents that were taken do not follow each other any more.
    #[error("the trust documents in {path} are not those that were taken")]
    TrustDamaged {
        /// Their folder.
        path: PathBuf,
        /// The cause.
        source: ChainNotAccepted,
    },
}

#[derive(Debug, Serialize, Deserialize)]
struct Format {
    version: u32,
}

/// A generation that can be applied.
#[derive(Debug, Clone)]
pub struct Applicable {
    /// What people are told of it.
    pub generation: Generation,
    /// Its manifest.
    pub manifest: Arc<Manifest>,
}

/// The ledger, as it is on disk.
#[derive(Debug)]
pub struct Ledger {
    dir: PathBuf,
    facts: HostFacts,
    floors: Floors,
    trust: TrustLog,
    pointer: Pointer,
    history: BTreeMap<u64, HistoryEntry>,
    active: Option<Applicable>,
    pending: Option<Applicable>,
}

impl Ledger {
    /// Reads the ledger, or begins one. The trust documents that were taken after `provisioned`, the active and the pending
    /// manifest are verified again, so that nothing is believed or applied that somebody wrote beside `hostd`.
    ///
    /// # Errors
    /// Where it can't be read, was written by a newer version, or something does not verify any more.
    pub fn open(dir: &Path, provisioned: &Trust, facts: &HostFacts) -> Result<Self, LedgerError> {
        let generations = dir.join("generations");
        std::fs::create_dir_all(&generations).map_err(|source| io_error("create", &generations, source))?;
        trust::prepare(dir, &dir.join(TRUST))?;
        remove_leftovers(dir)?;
        remove_leftovers(&dir.join(TRUST))?;
        match read_json::<Format>(&dir.join("format.json"))? {
            Some(format) if format.version == FORMAT => {}
            Some(format) => {
                return Err(LedgerError::Newer { path: dir.join("format.json"), version: format.version });
            }
            None => write_json(&dir.join("format.json"), &Format { version: FORMAT })?,
        }
        let floors: Floors = read_json(&dir.join("floors.json"))?.unwrap_or_default();
        let mut ledger = Self {
            trust: TrustLog::open(&dir.join(TRUST), provisioned, &floors)?,
            facts: facts.clone(),
            floors,
            pointer: read_json(&dir.join("pointer.json"))?.unwrap_or_default(),
            history: read_history(&generations)?,
            active: None,
            pending: None,
            dir: dir.to_owned(),
        };
        ledger.settle_kept();
        ledger.active = ledger.load(ledger.pointer.active)?;
        ledger.pending = ledger.load(ledger.pointer.pending)?;
        ledger.give_up_distrusted()?;
        Ok(ledger)
    }

    /// The same ledger on a host whose programs were built at `built`: whatever its clock says, it is later than that.
    #[must_use]
    pub fn built_at(mut self, built: Timestamp) -> Self {
        self.floors = self.floors.built_at(built);
        self
    }

    /// The trust document in force.
    pub fn trust(&self) -> &Trust {
        self.trust.current()
    }

    /// The text and the signatures of the trust document in force; `None` where it is the provisioned one.
    pub fn trust_document(&self) -> Option<&SignedDocument> {
        self.trust.in_force()
    }

    /// Takes up trust documents, `documents`, of which `chain` says that they follow the one in force; everything is on
    /// disk when this returns. What is active stays so. A pending generation whose signers do not count any more is given
    /// up; its number is returned.
    ///
    /// # Errors
    /// Where it can't be written. Then the trust document before them is in force, or, where only giving up the pending
    /// generation failed, the last of them; that is made good at the next start.
    pub fn take_trust(
        &mut self,
        chain: &VerifiedChain,
        documents: &[SignedDocument],
    ) -> Result<Option<u64>, LedgerError> {
        let newest = documents.last().expect("a chain has at least one document");
        let dir = self.dir.join(TRUST);
        for (trust, signed) in chain.steps().zip(documents) {
            trust::put(&dir, trust.version, signed)?;
        }
        let floors = self.floors.after_chain(chain);
        write_json(&self.dir.join("floors.json"), &floors)?;
        self.floors = floors;
        self.trust.extend(chain.steps(), newest.clone());
        self.give_up_distrusted()
    }

    /// What is not active yet has to be signed by who is trusted now. What runs goes on running.
    fn give_up_distrusted(&mut self) -> Result<Option<u64>, LedgerError> {
        let Some(number) = self.pending.as_ref().map(|pending| pending.generation.number) else {
            return Ok(None);
        };
        let Err(reason) = self.verify(number, self.trust.current())? else { return Ok(None) };
        let reason = match reason {
            NotAccepted::Refused(refusal) => refusal.to_string(),
            NotAccepted::Invalid(invalid) => invalid.to_string(),
        };
        // The reason first: after a cut between the two it is given up again, and not forgotten why.
        self.record(number, Err(&format!("by the new trust document: {reason}")))?;
        self.point(Pointer::without_pending)?;
        Ok(Some(number))
    }

    /// The floors.
    pub fn floors(&self) -> &Floors {
        &self.floors
    }

    /// What the host is.
    pub fn active(&self) -> Option<&Applicable> {
        self.active.as_ref()
    }

    /// What it is to become.
    pub fn pending(&self) -> Option<&Applicable> {
        self.pending.as_ref()
    }

    /// The story of each generation, oldest first.
    pub fn history(&self) -> impl Iterator<Item = &HistoryEntry> {
        self.history.values()
    }

    /// The number that the next generation gets.
    pub fn next_generation(&self) -> u64 {
        self.history.last_key_value().map_or(1, |(newest, _)| newest + 1)
    }

    /// Takes up a verified manifest as the pending generation, which is to become active by the plan of this digest alone where one
    /// is given; everything is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written. Then nothing is pending that was not before.
    pub fn accept(
        &mut self,
        verified: Verified,
        bytes: &[u8],
        signatures: &[u8],
        require_plan: Option<Digest>,
        now: Timestamp,
    ) -> Result<Generation, LedgerError> {
        let number = self.next_generation();
        let header = &verified.manifest().header;
        let generation = Generation {
            number,
            name: header.name.clone(),
            serial: header.serial,
            manifest: verified.sha256(),
            expires: header.expires,
        };
        let entry = HistoryEntry {
            generation: generation.clone(),
            accepted: now,
            signers: verified.signers().iter().map(ToString::to_string).collect(),
            trust_version: verified.trust_version(),
            converged: None,
            failure: None,
            root: None,
            require_plan,
            fetched: Vec::new(),
        };
        let dir = self.generation_dir(number);
        std::fs::create_dir_all(&dir).map_err(|source| io_error("create", &dir, source))?;
        write(&dir.join("host.toml"), bytes)?;
        write(&dir.join("host.toml.sig"), signatures)?;
        write_json(&dir.join("record.json"), &entry)?;
        let parent = self.dir.join("generations");
        durable::sync_dir(&parent).map_err(|source| io_error("sync", &parent, source))?;

        // The time learnt is that of the signature, not this machine's: a battery clock that ran ahead would otherwise
        // be remembered for good, and everything signed later would seem expired.
        let floors = self.floors.after(&verified, verified.manifest().header.signed_at);
        write_json(&self.dir.join("floors.json"), &floors)?;
        self.floors = floors;

        self.history.insert(number, entry);
        self.point(|pointer| pointer.accepted(number))?;
        self.forget_old();
        Ok(generation)
    }

    /// Writes down how far a generation came. A failure that is the one already written is not written again.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn record(&mut self, number: u64, outcome: Result<Timestamp, &str>) -> Result<(), LedgerError> {
        let path = self.generation_dir(number).join("record.json");
        let Some(entry) = self.history.get_mut(&number) else { return Ok(()) };
        let before = entry.clone();
        match outcome {
            Ok(when) => {
                entry.converged.get_or_insert(when);
                entry.failure = None;
            }
            Err(reason) => entry.failure = Some(reason.to_owned()),
        }
        if *entry == before { Ok(()) } else { write_json(&path, entry) }
    }

    /// Has a generation become active by the plan of this digest alone.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn require_plan(&mut self, number: u64, plan: Digest) -> Result<(), LedgerError> {
        let path = self.generation_dir(number).join("record.json");
        let Some(entry) = self.history.get_mut(&number) else { return Ok(()) };
        entry.require_plan = Some(plan);
        write_json(&path, entry)
    }

    /// The digest of the plan by which alone a generation may become active, where one was asked for.
    pub fn required_plan(&self, number: u64) -> Option<Digest> {
        self.history.get(&number)?.require_plan
    }

    /// A generation that was accepted, verified by the trust document by which it was.
    fn load(&self, number: Option<u64>) -> Result<Option<Applicable>, LedgerError> {
        let Some(number) = number else { return Ok(None) };
        let entry = self.entry(number)?;
        let verified = self
            .verify(number, self.trust.version(entry.trust_version))?
            .map_err(|source| LedgerError::NoLongerTrusted { generation: number, source })?;
        let manifest = Arc::new(verified.into_manifest());
        Ok(Some(Applicable { generation: entry.generation.clone(), manifest }))
    }

    /// Whether the files of a generation are what was accepted, by `trust`.
    fn verify(&self, number: u64, trust: &Trust) -> Result<Result<Verified, NotAccepted>, LedgerError> {
        let dir = self.generation_dir(number);
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| io_error("read", &path, source))
        };
        let generation = &self.entry(number)?.generation;
        // While a newer generation is pending, the floor is that one's, and a newer trust document may be in force; what
        // counts for this one is what is on record.
        let mut floors = self.floors.clone();
        floors.trust_version = floors.trust_version.min(trust.version);
        floors.serials.insert(generation.name.clone(), (generation.serial, Some(generation.manifest)));
        Ok(verify_again(&read("host.toml")?, &read("host.toml.sig")?, trust, &floors, &self.facts))
    }

    fn entry(&self, number: u64) -> Result<&HistoryEntry, LedgerError> {
        let path = || self.generation_dir(number).join("record.json");
        let missing = || LedgerError::Damaged { path: path(), reason: "it is missing".into() };
        self.history.get(&number).ok_or_else(missing)
    }

    /// What can't be removed now is left for the next time; it does no harm.
    fn forget_old(&mut self) {
        let held = self.pointer.generations();
        let excess = self.history.len().saturating_sub(REMEMBERED);
        let old: Vec<u64> = self.history.keys().copied().filter(|n| !held.contains(n)).take(excess).collect();
        for number in old {
            if let Err(error) = std::fs::remove_dir_all(self.generation_dir(number)) {
                tracing::warn!(number, %error, "forget a generation");
            } else {
                self.history.remove(&number);
            }
        }
    }

    fn generation_dir(&self, number: u64) -> PathBuf {
        self.dir.join("generations").join(number.to_string())
    }
}

/// A directory without a record was not finished when the power went; it is as if it had never been.
fn read_history(generations: &Path) -> Result<BTreeMap<u64, HistoryEntry>, LedgerError> {
    let list = std::fs::read_dir(generations).map_err(|source| io_error("list", generations, source))?;
    let mut history = BTreeMap::new();
    for item in list {
        let item = item.map_err(|source| io_error("list", generations, source))?;
        let Some(number) = item.file_name().to_str().and_then(|name| name.parse::<u64>().ok()) else {
            continue;
        };
        if let Some(entry) = read_json::<HistoryEntry>(&item.path().join("record.json"))? {
            history.insert(number, entry);
        }
    }
    Ok(history)
}

/// What a write that was cut short left beside its target.
fn remove_leftovers(dir: &Path) -> Result<(), LedgerError> {
    for item in std::fs::read_dir(dir).map_err(|source| io_error("list", dir, source))? {
        let path = item.map_err(|source| io_error("list", dir, source))?.path();
        let name = path.file_name().and_then(|name| name.to_str());
        if name.is_some_and(|name| name.starts_with(durable::TEMPORARY_PREFIX)) {
            std::fs::remove_file(&path).map_err(|source| io_error("remove", &path, source))?;
        }
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<(), LedgerError> {
    durable::replace(path, bytes).map_err(|source| io_error("write", path, source))
}

fn write_json<T: Serialize>(path: &Path, value: &T) -> Result<(), LedgerError> {
    write(path, &serde_json::to_vec(value).expect("these types always become JSON"))
}

/// The text of a file that must be there, of at most `max` bytes.
fn read_bounded(path: &Path, max: usize) -> Result<String, LedgerError> {
    use std::io::Read as _;
    let file = std::fs::File::open(path).map_err(|source| io_error("open", path, source))?;
    let mut text = String::new();
    file.take(max as u64 + 1).read_to_string(&mut text).map_err(|source| io_error("read", path, source))?;
    if text.len() > max {
        let reason = format!("it is larger than {max} bytes");
        return Err(LedgerError::Damaged { path: path.to_owned(), reason });
    }
    Ok(text)
}

fn read_json<T: for<'de> Deserialize<'de>>(path: &Path) -> Result<Option<T>, LedgerError> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(io_error("read", path, source)),
    };
    let damaged =
        |error: serde_json::Error| LedgerError::Damaged { path: path.to_owned(), reason: error.to_string() };
    serde_json::from_slice(&bytes).map(Some).map_err(damaged)
}

fn io_error(doing: &'static str, path: &Path, source: io::Error) -> LedgerError {
    LedgerError::Io { doing, path: path.to_owned(), source }
}
