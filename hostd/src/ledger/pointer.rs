//! Which generations count: one file, replaced as a whole; how it changes is decided in [`bennu_planner::update::Pointer`].

use bennu_manifests::model::Digest;
use bennu_planner::update::Pointer;

use super::{Applicable, Ledger, LedgerError, write_json};

impl Ledger {
    /// Which generations count.
    pub fn pointer(&self) -> &Pointer {
        &self.pointer
    }

    /// Changes which generations count; what they are is read and verified before. Everything is on disk when this returns.
    ///
    /// # Errors
    /// Where it can't be written, or one of them can't be read or does not verify any more; nothing has changed then.
    pub fn point(&mut self, change: impl FnOnce(Pointer) -> Pointer) -> Result<(), LedgerError> {
        let pointer = change(self.pointer.clone());
        let known = |number: Option<u64>| {
            let mut known = [&self.active, &self.pending].into_iter().flatten();
            known.find(|known| Some(known.generation.number) == number).cloned()
        };
        let load = |number| known(number).map_or_else(|| self.load(number), |known| Ok(Some(known)));
        let (active, pending) = (load(pointer.active)?, load(pointer.pending)?);
        if pointer != self.pointer {
            write_json(&self.dir.join("pointer.json"), &pointer)?;
        }
        (self.pointer, self.active, self.pending) = (pointer, active, pending);
        Ok(())
    }

    /// The pending generation becomes the active one, and nothing is tried; where another one is pending by now, nothing happens.
    ///
    /// # Errors
    /// Where it can't be written. Then it is pending still.
    pub fn activate(&mut self, number: u64) -> Result<(), LedgerError> {
        if self.pointer.pending != Some(number) {
            return Ok(());
        }
        self.point(|pointer| pointer.activated(number, None))
    }

    /// A generation that was accepted, verified again.
    ///
    /// # Errors
    /// Where it can't be read or does not verify any more.
    pub fn generation(&self, number: u64) -> Result<Option<Applicable>, LedgerError> {
        self.load(Some(number))
    }

    /// Writes down on which root a generation runs.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn runs_on(&mut self, number: u64, root: Digest) -> Result<(), LedgerError> {
        let path = self.generation_dir(number).join("record.json");
        match self.history.get_mut(&number) {
            Some(entry) if entry.root != Some(root) => {
                entry.root = Some(root);
                write_json(&path, entry)
            }
            _ => Ok(()),
        }
    }

    /// The root that a generation ran on last, where it ever did.
    pub fn root_of(&self, number: u64) -> Option<Digest> {
        self.history.get(&number)?.root
    }

    /// A ledger of a `hostd` that did not try generations: what has converged was kept.
    pub(super) fn settle_kept(&mut self) {
        let converged = |number: &u64| self.history.get(number).is_some_and(|e| e.converged.is_some());
        if self.pointer.kept.is_none() && self.pointer.attempt.is_none() {
            self.pointer.kept = self.pointer.active.filter(converged);
        }
    }
}
