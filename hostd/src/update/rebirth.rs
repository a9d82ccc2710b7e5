//! Beginning again: the machine starts anew with the generation that it has.
//!
//! A boot is all that it takes: `/etc` and `/var` are in memory, and what lives as long as a boot is encrypted with a key that is in
//! memory, too. So this writes down what is expected, and has the machine start again.

use super::{UpdateError, receipt};
use crate::core::Core;

/// What somebody's wish to begin again has led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rebirth {
    /// The machine is about to start again with this generation.
    Begun(u64),
    /// There is no generation yet.
    Nothing,
    /// A generation is on trial, or about to be.
    OnTrial(u64),
}

/// Has the machine start again with the active generation. What the host is about to do with its hands is done first.
///
/// # Errors
/// Where the machine does not start again.
pub async fn rebirth(core: &Core) -> Result<Rebirth, UpdateError> {
    let _hands = core.take_in_hand().await;
    let active = {
        let ledger = core.ledger.lock().await;
        if let Some(attempt) = &ledger.pointer().attempt {
            return Ok(Rebirth::OnTrial(attempt.generation));
        }
        ledger.active().cloned()
    };
    let Some(active) = active else { return Ok(Rebirth::Nothing) };
    receipt::of_rebirth(core, &active).await;
    core.host.restart_machine().await.map_err(UpdateError::Restart)?;
    Ok(Rebirth::Begun(active.generation.number))
}
