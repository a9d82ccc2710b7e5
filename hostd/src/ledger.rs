//! What was accepted, what is active, and the floors: all that `hostd` remembers, on the state partition.
//!
//! ```text
//! ledger/
//!   format.json               {"version":1}
//!   floors.json               trust version, serial and digest per stream, latest time known; never go down
//!   pointer.json              {"active":N|null,"pending":N|null}
//!   generations/N/host.toml   the exact bytes that were signed
//!   generations/N/host.toml.sig
//!   generations/N/record.json when it was accepted, who signed, what became of it
//! ```
//!
//! **Invariant:** a generation's files are whole before the floors name its serial, and the floors are on disk before
//! the pointer names the generation; so a cut between two writes leaves either nothing or something that is taken up.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bennu_api::{Generation, HistoryEntry};
use bennu_image_store::durable;
use bennu_manifests::model::Manifest;
use bennu_manifests::{Floors, HostFacts, NotAccepted, Trust, Verified, verify_again};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// How many generations are remembered; the active and the pending one always are.
const REMEMBERED: usize = 50;

const FORMAT: u32 = 1;

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
}

/// Which generations count.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pointer {
    /// What the host is.
    pub active: Option<u64>,
    /// What it is to become as soon as everything for it is in the store.
    pub pending: Option<u64>,
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
    floors: Floors,
    pointer: Pointer,
    history: BTreeMap<u64, HistoryEntry>,
    active: Option<Applicable>,
    pending: Option<Applicable>,
}

impl Ledger {
    /// Reads the ledger, or begins one. The active and the pending manifest are verified again, so that nothing is
    /// applied that somebody wrote beside `hostd`.
    ///
    /// # Errors
    /// Where it can't be read, was written by a newer version, or a manifest does not verify any more.
    pub fn open(dir: &Path, trust: &Trust, facts: &HostFacts) -> Result<Self, LedgerError> {
        let generations = dir.join("generations");
        std::fs::create_dir_all(&generations).map_err(|source| io_error("create", &generations, source))?;
        remove_leftovers(dir)?;
        match read_json::<Format>(&dir.join("format.json"))? {
            Some(format) if format.version == FORMAT => {}
            Some(format) => {
                return Err(LedgerError::Newer { path: dir.join("format.json"), version: format.version });
            }
            None => write_json(&dir.join("format.json"), &Format { version: FORMAT })?,
        }
        let mut ledger = Self {
            floors: read_json(&dir.join("floors.json"))?.unwrap_or_default(),
            pointer: read_json(&dir.join("pointer.json"))?.unwrap_or_default(),
            history: read_history(&generations)?,
            active: None,
            pending: None,
            dir: dir.to_owned(),
        };
        ledger.active = ledger.load(ledger.pointer.active, trust, facts)?;
        ledger.pending = ledger.load(ledger.pointer.pending, trust, facts)?;
        Ok(ledger)
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

    /// Takes up a verified manifest as the pending generation; everything is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written. Then nothing is pending that was not before.
    pub fn accept(
        &mut self,
        verified: Verified,
        bytes: &[u8],
        signatures: &[u8],
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
            converged: None,
            failure: None,
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

        self.point(Pointer { active: self.pointer.active, pending: Some(number) })?;
        self.history.insert(number, entry);
        self.pending =
            Some(Applicable { generation: generation.clone(), manifest: Arc::new(verified.into_manifest()) });
        self.forget_old();
        Ok(generation)
    }

    /// The pending generation becomes the active one.
    ///
    /// # Errors
    /// Where it can't be written. Then it is pending still.
    pub fn activate(&mut self, number: u64) -> Result<(), LedgerError> {
        if self.pointer.pending != Some(number) {
            // A newer one was accepted in the meantime; it is that one's turn.
            return Ok(());
        }
        self.point(Pointer { active: Some(number), pending: None })?;
        self.active = self.pending.take();
        Ok(())
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

    fn point(&mut self, pointer: Pointer) -> Result<(), LedgerError> {
        write_json(&self.dir.join("pointer.json"), &pointer)?;
        self.pointer = pointer;
        Ok(())
    }

    fn load(
        &self,
        number: Option<u64>,
        trust: &Trust,
        facts: &HostFacts,
    ) -> Result<Option<Applicable>, LedgerError> {
        let Some(number) = number else { return Ok(None) };
        let dir = self.generation_dir(number);
        let read = |name: &str| {
            let path = dir.join(name);
            std::fs::read(&path).map_err(|source| io_error("read", &path, source))
        };
        let record = dir.join("record.json");
        let missing = || LedgerError::Damaged { path: record, reason: "it is missing".into() };
        let generation = &self.history.get(&number).ok_or_else(missing)?.generation;
        // While a newer generation is pending, the floor is that one's; the active one is the one on record.
        let mut floors = self.floors.clone();
        floors.serials.insert(generation.name.clone(), (generation.serial, Some(generation.manifest)));
        let verified = verify_again(&read("host.toml")?, &read("host.toml.sig")?, trust, &floors, facts)
            .map_err(|source| LedgerError::NoLongerTrusted { generation: number, source })?;
        let manifest = Arc::new(verified.into_manifest());
        Ok(Some(Applicable { generation: generation.clone(), manifest }))
    }

    /// What can't be removed now is left for the next time; it does no harm.
    fn forget_old(&mut self) {
        let held = [self.pointer.active, self.pointer.pending];
        let excess = self.history.len().saturating_sub(REMEMBERED);
        let old: Vec<u64> =
            self.history.keys().copied().filter(|n| !held.contains(&Some(*n))).take(excess).collect();
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
