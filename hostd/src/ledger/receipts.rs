//! What changes of generations have come to.
//!
//! A receipt is opened before anything is changed, in a file of its own, and filed with its generation once everything is there: so
//! it goes over boots, and tells what there was before. Where something else comes before the end it is filed as it is.

use std::path::PathBuf;

use bennu_api::{Change, FetchedImage, Receipt, Receipts};
use bennu_planner::Measured;
use serde::{Deserialize, Serialize};

use super::{Ledger, LedgerError, read_json, write_json};

/// How many receipts of one generation are kept.
const KEPT: usize = 8;

/// A change that is under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OpenReceipt {
    /// What is expected of it.
    pub receipt: Receipt,
    /// What there was before.
    pub before: Measured,
}

impl Ledger {
    /// The change that is under way.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn open_receipt(&self) -> Result<Option<OpenReceipt>, LedgerError> {
        Ok(read_json::<Option<OpenReceipt>>(&self.open_path())?.flatten())
    }

    /// Begins one; another one that is under way is filed as it is, but for one of the same change, which came to nothing.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn begin_receipt(&mut self, open: OpenReceipt) -> Result<(), LedgerError> {
        let same = |a: &Receipt, b: &Receipt| (a.change, a.from, a.to) == (b.change, b.from, b.to);
        if let Some(before) = self.open_receipt()?.filter(|before| !same(&before.receipt, &open.receipt)) {
            self.file(before.receipt)?;
        }
        write_json(&self.open_path(), &Some(open))
    }

    /// Ends the one that is under way: files it as `receipt`.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn end_receipt(&mut self, receipt: Receipt) -> Result<(), LedgerError> {
        // Filed first: after a cut between the two it is ended once more, in the same place.
        self.file(receipt)?;
        write_json::<Option<OpenReceipt>>(&self.open_path(), &None)
    }

    /// The receipts of a generation, or of the newest one that has any; `None` where there are none.
    ///
    /// # Errors
    /// Where they can't be read.
    pub fn receipts(&self, generation: Option<u64>) -> Result<Option<Receipts>, LedgerError> {
        let open = self.open_receipt()?.map(|open| open.receipt);
        let mut numbers: Vec<u64> = match generation {
            Some(number) => vec![number],
            None => self.history.keys().rev().copied().collect(),
        };
        numbers.retain(|number| self.history.contains_key(number));
        for number in numbers {
            let mut receipts = self.filed(number)?;
            receipts.extend(open.iter().filter(|open| is_of(open) == number).cloned());
            if !receipts.is_empty() {
                return Ok(Some(Receipts { generation: number, receipts }));
            }
        }
        Ok(None)
    }

    /// Adds to what was fetched for a generation.
    ///
    /// # Errors
    /// Where it can't be written.
    pub fn fetched(&mut self, number: u64, image: &str, bytes: u64) -> Result<(), LedgerError> {
        let path = self.generation_dir(number).join("record.json");
        let Some(entry) = self.history.get_mut(&number) else { return Ok(()) };
        match entry.fetched.iter_mut().find(|known| known.image == image) {
            Some(known) => known.bytes += bytes,
            None => entry.fetched.push(FetchedImage { image: image.to_owned(), bytes }),
        }
        write_json(&path, entry)
    }

    fn file(&mut self, receipt: Receipt) -> Result<(), LedgerError> {
        let number = is_of(&receipt);
        // A generation may be forgotten before its receipt is ended.
        if !self.history.contains_key(&number) {
            return Ok(());
        }
        let mut filed = self.filed(number)?;
        filed.retain(|known| (known.began, known.change) != (receipt.began, receipt.change));
        filed.push(receipt);
        let excess = filed.len().saturating_sub(KEPT);
        filed.drain(..excess);
        write_json(&self.generation_dir(number).join("receipts.json"), &filed)
    }

    fn filed(&self, number: u64) -> Result<Vec<Receipt>, LedgerError> {
        Ok(read_json(&self.generation_dir(number).join("receipts.json"))?.unwrap_or_default())
    }

    fn open_path(&self) -> PathBuf {
        self.dir.join("receipt.json")
    }
}

/// The generation that something became of.
fn is_of(receipt: &Receipt) -> u64 {
    match receipt.change {
        Change::Active | Change::Reborn => receipt.to,
        Change::TakenBack => receipt.from.unwrap_or(receipt.to),
    }
}
