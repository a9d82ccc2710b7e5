//! Reading every block of every blob, at the pace that the caller gives, and going on where an earlier pass was stopped.
//!
//! Blobs are read in the order of their names, so one name says how far a pass has come. It stands in `scrub.json`, with the names
//! of the blobs that were found bad, as long as a pass is not at its end.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::ControlFlow;

use bennu_manifests::model::Digest;
use nix::fcntl::{FlockArg, PosixFadviseAdvice, posix_fadvise};
use serde::{Deserialize, Serialize};

use crate::blob::is_damage;
use crate::claim::flock;
use crate::durable;
use crate::leaves::{self, Health};
use crate::store::{Store, StoreLock, read_bounded, write_json};
use crate::store_error::StoreError;

/// Bytes that are read before it is written down how far a pass has come, so at most this much is read a second time.
const BETWEEN_CURSORS: u64 = 1 << 30;

/// A blob that is not what its name says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct BadBlob {
    /// Its name.
    pub blob: Digest,
    /// What is wrong with it.
    pub damage: Damage,
}

/// What is wrong with a blob.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
#[non_exhaustive]
pub enum Damage {
    /// These blocks of its image are not what its leaves say.
    Blocks {
        /// Numbers of 4096-byte blocks, sorted.
        blocks: Vec<u64>,
    },
    /// Its leaves are bad, its image is right.
    Leaves,
    /// Too much is bad to say what.
    Lost,
    /// It cannot be opened.
    Unreadable {
        /// What the system says.
        error: String,
    },
}

/// How far a pass is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize)]
#[serde(rename_all = "kebab-case")]
pub struct Pass {
    /// Blobs that are done, those of the pass that is gone on with included.
    pub blobs: u64,
    /// Blobs of the store.
    pub of_blobs: u64,
    /// Bytes that this call has read.
    pub bytes: u64,
}

/// Sets the pace of a scrub, and is told how it is getting on.
pub trait Watch {
    /// Is asked before so many bytes are read, and returns when they may be. [`ControlFlow::Break`] stops the scrub.
    fn pace(&mut self, bytes: usize) -> ControlFlow<()>;

    /// A blob is bad. It may be repaired at once, by another thread.
    fn found(&mut self, _bad: &BadBlob) {}

    /// A blob is done.
    fn checked(&mut self, pass: Pass);
}

/// As fast as it goes, to the end.
impl Watch for () {
    fn pace(&mut self, _: usize) -> ControlFlow<()> {
        ControlFlow::Continue(())
    }

    fn checked(&mut self, _: Pass) {}
}

/// What a scrub came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scrubbed {
    /// What is bad, also what the pass had found before it was stopped.
    pub bad: Vec<BadBlob>,
    /// Whether the pass is at its end. Otherwise the next scrub goes on with it.
    pub complete: bool,
    /// Whether this call went on with an earlier pass.
    pub resumed: bool,
    /// How far the pass is.
    pub pass: Pass,
}

/// `scrub.json`
#[derive(Debug, Default, Serialize, Deserialize)]
struct Cursor {
    /// The last blob that was read; all with smaller names were, too.
    after: Option<Digest>,
    /// Blobs that were bad.
    bad: BTreeSet<Digest>,
}

impl Store {
    /// Reads every blob once, from the first, as fast as it goes. Blocks for as long as that takes.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be listed; a blob that cannot be read is a [`BadBlob`].
    pub fn scrub(&self) -> Result<Vec<BadBlob>, StoreError> {
        let mut bad = Vec::new();
        for blob in self.digests_in(&self.inner.names.blobs())? {
            if let ControlFlow::Continue(Some(damage)) = self.examine(&blob, &mut ()) {
                bad.push(BadBlob { blob, damage });
            }
        }
        Ok(bad)
    }

    /// Goes on with the last pass, or begins one where that was completed or `restart` says so. A store that may only be
    /// read is read as a whole each time.
    ///
    /// # Errors
    /// [`StoreError`] where the store cannot be listed or the cursor not be written; [`StoreError::Busy`] while another call goes on
    /// with a pass, in whatever process: both would read the same, and one of them forget what the other found.
    pub fn scrub_on(&self, restart: bool, watch: &mut dyn Watch) -> Result<Scrubbed, StoreError> {
        let path = self.inner.names.scrub();
        let _alone = if self.inner.read_only { None } else { Some(self.scrub_alone()?) };
        let mut cursor = if restart { Cursor::default() } else { self.cursor()? };
        let resumed = cursor.after.is_some();
        let blobs = self.digests_in(&self.inner.names.blobs())?;
        let mut pass = Pass { of_blobs: blobs.len() as u64, ..Pass::default() };
        let mut bad = Vec::new();
        let mut unwritten = 0;
        let mut complete = true;
        for blob in blobs {
            let done_before = cursor.after.is_some_and(|after| blob <= after);
            if done_before && !cursor.bad.contains(&blob) {
                pass.blobs += 1;
                continue;
            }
            let mut counting = Counting { watch: &mut *watch, bytes: 0 };
            let examined = self.examine(&blob, &mut counting);
            unwritten += counting.bytes;
            pass.bytes += counting.bytes;
            let ControlFlow::Continue(damage) = examined else {
                complete = false;
                break;
            };
            pass.blobs += 1;
            if !done_before {
                cursor.after = Some(blob);
            }
            let news = damage.is_some() != cursor.bad.contains(&blob);
            match damage {
                None => drop(cursor.bad.remove(&blob)),
                Some(damage) => {
                    cursor.bad.insert(blob);
                    let found = BadBlob { blob, damage };
                    watch.found(&found);
                    bad.push(found);
                }
            }
            if (news || unwritten >= BETWEEN_CURSORS) && !self.inner.read_only {
                self.write_cursor(&cursor)?;
                unwritten = 0;
            }
            watch.checked(pass);
        }
        if !self.inner.read_only {
            if complete {
                durable::remove(&path).map_err(StoreError::io("remove", path))?;
            } else {
                self.write_cursor(&cursor)?;
            }
        }
        Ok(Scrubbed { bad, complete, resumed, pass })
    }

    /// Whether a pass was begun and is not at its end.
    pub fn is_scrub_under_way(&self) -> bool {
        self.inner.names.scrub().exists()
    }

    /// How far the last pass came. A cursor that cannot be believed is none.
    fn cursor(&self) -> Result<Cursor, StoreError> {
        let sound =
            read_bounded(&self.inner.names.scrub())?.filter(|bytes| crate::sealed::check(bytes).is_ok());
        Ok(sound.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default())
    }

    /// Whoever has this has the cursor.
    fn scrub_alone(&self) -> Result<StoreLock, StoreError> {
        let path = self.inner.names.blobs();
        let directory = File::open(&path).map_err(StoreError::io("open", &path))?;
        match flock(directory, FlockArg::LockExclusiveNonblock) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(StoreError::Busy),
            other => other.map_err(StoreError::io("lock", path)),
        }
    }

    fn write_cursor(&self, cursor: &Cursor) -> Result<(), StoreError> {
        let _lock = self.lock(FlockArg::LockShared)?;
        write_json(&self.inner.names.scrub(), cursor)
    }

    /// What is wrong with the blob; one that is gone has nothing wrong with it.
    pub(crate) fn examine(&self, blob: &Digest, watch: &mut dyn Watch) -> ControlFlow<(), Option<Damage>> {
        let health = match File::open(self.inner.names.blob(blob)) {
            Ok(file) => examine(&file, blob, watch),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return ControlFlow::Continue(None),
            Err(error) => Err(error),
        };
        ControlFlow::Continue(match health {
            Ok(ControlFlow::Break(())) => return ControlFlow::Break(()),
            Ok(ControlFlow::Continue(Health::Sound)) => None,
            Ok(ControlFlow::Continue(Health::BadBlocks(blocks))) => Some(Damage::Blocks { blocks }),
            Ok(ControlFlow::Continue(Health::BadLeaves)) => Some(Damage::Leaves),
            Ok(ControlFlow::Continue(Health::Lost)) => Some(Damage::Lost),
            Err(error) => Some(Damage::Unreadable { error: error.to_string() }),
        })
    }

    /// Whether the content of the file at the name of `blob` is what the name says, whatever fs-verity measures: its digest is
    /// that of a tree which was made long ago, and says nothing about what the disk gives now.
    pub(crate) fn is_sound(&self, file: &File, blob: &Digest) -> Result<bool, StoreError> {
        match examine(file, blob, &mut ()) {
            Ok(health) => Ok(health == ControlFlow::Continue(Health::Sound)),
            Err(error) if is_damage(&error) => Ok(false),
            Err(error) => Err(StoreError::io("look at", self.inner.names.blob(blob))(error)),
        }
    }
}

fn examine(file: &File, blob: &Digest, watch: &mut dyn Watch) -> io::Result<ControlFlow<(), Health>> {
    let len = file.metadata()?.len();
    // What memory still holds would hide what has become of the disk. Pages that are not written yet stay, and a file system
    // that does not know the call reads from memory: no reason not to look.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
    let health = leaves::examine(file, len, blob, |bytes| match watch.pace(bytes) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(()),
    });
    Ok(health.map_or(ControlFlow::Break(()), ControlFlow::Continue))
}

struct Counting<'a> {
    watch: &'a mut dyn Watch,
    bytes: u64,
}

impl Watch for Counting<'_> {
    fn pace(&mut self, bytes: usize) -> ControlFlow<()> {
        self.watch.pace(bytes)?;
        self.bytes += bytes as u64;
        ControlFlow::Continue(())
    }

    fn checked(&mut self, _: Pass) {}
}
