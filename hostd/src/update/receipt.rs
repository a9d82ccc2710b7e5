//! Receipts: what a change of generations is expected to do, written down before it, and what came of it.
//!
//! No change waits for its receipt: what can't be looked at or written is told in the log, and the change goes on.

use bennu_api::{Change, Receipt};
use bennu_planner::{Seen, came_out};
use jiff::Timestamp;

use crate::core::{Core, chain};
use crate::foresee::{Foreseen, foresee_with};
use crate::ledger::{Applicable, LedgerError, OpenReceipt};

/// Begins the receipt of `to` becoming the active generation, as it was foreseen.
pub(super) async fn of_activation(core: &Core, to: &Applicable, foreseen: &Foreseen) {
    let from = core.ledger.lock().await.pointer().active;
    begin(core, Change::Active, from, to, None, Some(foreseen)).await;
}

/// Begins the receipt of `from` being taken back for `to`; `restarts` says that the machine has to start again for it.
pub(super) async fn of_return(core: &Core, from: u64, to: u64, restarts: bool, why: &str) {
    let (active, to) = {
        let ledger = core.ledger.lock().await;
        (ledger.active().cloned(), ledger.generation(to))
    };
    let Ok(Some(to)) = to else { return };
    let foreseen = foresee_with(core, &to, active.as_ref(), restarts).await;
    let foreseen =
        foreseen.inspect_err(|error| tracing::warn!(error = chain(error), "look what is there")).ok();
    begin(core, Change::TakenBack, Some(from), &to, Some(why.to_owned()), foreseen.as_ref()).await;
}

/// Begins the receipt of the machine starting anew with the active generation.
pub(super) async fn of_rebirth(core: &Core, active: &Applicable) {
    let foreseen = foresee_with(core, active, Some(active), true).await;
    let foreseen =
        foreseen.inspect_err(|error| tracing::warn!(error = chain(error), "look what is there")).ok();
    let number = active.generation.number;
    begin(core, Change::Reborn, Some(number), active, None, foreseen.as_ref()).await;
}

async fn begin(
    core: &Core,
    change: Change,
    from: Option<u64>,
    to: &Applicable,
    reason: Option<String>,
    foreseen: Option<&Foreseen>,
) {
    let (before, expected) = match foreseen {
        Some(foreseen) => {
            let measured = core.host.measure(foreseen.seen()).await;
            let expected = foreseen.consequences(&measured);
            (measured, expected)
        }
        None => Default::default(),
    };
    let number = to.generation.number;
    let mut ledger = core.ledger.lock().await;
    let fetched = match change {
        Change::Active => ledger.history().find(|entry| entry.generation.number == number),
        Change::TakenBack | Change::Reborn => None,
    };
    let receipt = Receipt {
        change,
        from,
        to: number,
        reason,
        plan: foreseen.map(|foreseen| foreseen.digest),
        began: Timestamp::now(),
        ended: None,
        interruption: expected.interruption,
        fetched: fetched.map(|entry| entry.fetched.clone()).unwrap_or_default(),
        survived: expected.survives,
        destroyed: expected.destroyed,
        written: expected.written,
    };
    warn(ledger.begin_receipt(OpenReceipt { receipt, before }));
}

/// The machine came back without what was to become active: what it left is taken for the beginning of the way back.
pub(super) async fn of_boot_that_failed(core: &Core, back_to: Option<u64>, why: &str) {
    let mut ledger = core.ledger.lock().await;
    let Ok(Some(OpenReceipt { receipt, before })) = ledger.open_receipt() else { return };
    let Some(to) = back_to.filter(|_| receipt.change == Change::Active && receipt.ended.is_none()) else {
        return;
    };
    let tried = Receipt { ended: None, ..receipt.clone() };
    let back = Receipt {
        change: Change::TakenBack,
        from: Some(receipt.to),
        to,
        reason: Some(why.to_owned()),
        plan: None,
        fetched: Vec::new(),
        ..receipt
    };
    warn(ledger.end_receipt(tried));
    warn(ledger.begin_receipt(OpenReceipt { receipt: back, before }));
}

/// Everything that the active generation declares is there: the receipt tells from now on what came out.
pub(crate) async fn settle(core: &Core, generation: u64, seen: &Seen) {
    let mut ledger = core.ledger.lock().await;
    let open = match ledger.open_receipt() {
        // One that begins again is whole before the machine has stopped, too.
        Ok(Some(open)) if open.receipt.change == Change::Reborn && open.before.boot == core.host.boot() => {
            return;
        }
        Ok(Some(open)) if open.receipt.to == generation => open,
        Ok(_) => return,
        Err(error) => return warn(Err(error)),
    };
    let (survived, destroyed) = came_out(&open.before, seen, core.host.boot());
    let receipt = Receipt { ended: Some(Timestamp::now()), survived, destroyed, ..open.receipt };
    warn(ledger.end_receipt(receipt));
}

fn warn(written: Result<(), LedgerError>) {
    if let Err(error) = written {
        tracing::warn!(error = chain(&error), "write a receipt");
    }
}
