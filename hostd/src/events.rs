//! What happened lately, in order, for those who ask and those who wait.

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use bennu_api::{Event, Happening};
use jiff::Timestamp;
use tokio::sync::watch;

/// How many events are kept; older ones are forgotten.
const KEPT: usize = 1024;

/// The events since `hostd` started. They live in memory: the ledger is what is remembered.
#[derive(Debug)]
pub struct Events {
    kept: Mutex<VecDeque<Event>>,
    newest: watch::Sender<u64>,
}

impl Default for Events {
    fn default() -> Self {
        Self { kept: Mutex::default(), newest: watch::Sender::new(0) }
    }
}

impl Events {
    /// Adds one, and wakes those who wait.
    pub fn add(&self, what: Happening) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let cursor = *self.newest.borrow() + 1;
        tracing::info!(event = ?what, "event");
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Event { cursor, time: Timestamp::now(), what });
        // Sent under the lock: who is woken by a cursor finds its event.
        self.newest.send_replace(cursor);
    }

    /// Those after a cursor (0: all that are kept), oldest first.
    pub fn after(&self, cursor: u64) -> Vec<Event> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().filter(|event| event.cursor > cursor).cloned().collect()
    }

    /// A receiver that changes with each new event.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.newest.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn converged(generation: u64) -> Happening {
        Happening::Converged { generation }
    }

    #[test]
    fn events_come_in_order_and_resume_after_a_cursor() {
        let events = Events::default();
        (1..=3).for_each(|n| events.add(converged(n)));
        let after_first: Vec<_> = events.after(1).into_iter().map(|e| (e.cursor, e.what)).collect();
        assert_eq!(after_first, [(2, converged(2)), (3, converged(3))]);
        assert_eq!(*events.watch().borrow(), 3);
    }

    #[test]
    fn old_events_are_forgotten_and_cursors_go_on() {
        let events = Events::default();
        (0..KEPT as u64 + 5).for_each(|n| events.add(converged(n)));
        let kept = events.after(0);
        assert_eq!(kept.len(), KEPT);
        assert_eq!(kept[0].cursor, 6);
    }
}
