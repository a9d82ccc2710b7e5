//! What all pulls of one client share, so that ten images at once take no more than one.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Layers that are fetched side by side, unless something else is said.
pub(crate) const LAYERS_AT_ONCE: usize = 3;
/// Memory for the windows of zstd, in MiB.
const WINDOWS: u32 = 32;

/// The window that a zstd layer may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Window {
    /// 8 MiB, which every decoder should have and no encoder should exceed (RFC 8878, section 3.1.1.1.2).
    Usual,
    /// 32 MiB, for those that do, one after the other.
    Large,
}

impl Window {
    /// Its size as a power of two.
    pub(crate) fn log(self) -> u32 {
        match self {
            Self::Usual => 23,
            Self::Large => 25,
        }
    }

    /// Its size in MiB.
    pub(crate) fn mib(self) -> u32 {
        1 << (self.log() - 20)
    }
}

/// Turns are taken in the order in which they were asked for.
#[derive(Debug, Clone)]
pub(crate) struct Budget {
    layers: Arc<Semaphore>,
    windows: Arc<Semaphore>,
}

/// While it is held, something is used up.
#[derive(Debug)]
pub(crate) struct Turn {
    _held: OwnedSemaphorePermit,
}

impl Budget {
    pub(crate) fn new(layers_at_once: usize) -> Self {
        let layers = Arc::new(Semaphore::new(layers_at_once.clamp(1, Semaphore::MAX_PERMITS)));
        Self { layers, windows: Arc::new(Semaphore::new(WINDOWS as usize)) }
    }

    /// A turn to fetch a layer.
    pub(crate) async fn layer(&self) -> Turn {
        turn(&self.layers, 1).await
    }

    /// A turn to decompress with such a window.
    pub(crate) async fn window(&self, window: Window) -> Turn {
        turn(&self.windows, window.mib()).await
    }

    /// A turn to apply a patch, which needs more than all windows together: one at a time, and no window beside it.
    pub(crate) async fn patch(&self) -> Turn {
        turn(&self.windows, WINDOWS).await
    }
}

impl Default for Budget {
    fn default() -> Self {
        Self::new(LAYERS_AT_ONCE)
    }
}

async fn turn(of: &Arc<Semaphore>, count: u32) -> Turn {
    Turn { _held: of.clone().acquire_many_owned(count).await.expect("nobody closes it") }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[tokio::test]
    async fn no_more_layers_have_a_turn_than_were_allowed() {
        let budget = Budget::new(2);
        let first = budget.layer().await;
        let _second = budget.clone().layer().await;
        assert!(budget.layer().now_or_never().is_none());
        drop(first);
        assert!(budget.layer().now_or_never().is_some());
    }

    #[tokio::test]
    async fn a_large_window_waits_until_it_is_alone() {
        let budget = Budget::default();
        let usual = budget.window(Window::Usual).await;
        assert!(budget.window(Window::Large).now_or_never().is_none());
        assert!(budget.window(Window::Usual).now_or_never().is_some());
        drop(usual);
        let _large = budget.window(Window::Large).now_or_never().expect("alone");
        assert!(budget.window(Window::Usual).now_or_never().is_none());
    }

    #[tokio::test]
    async fn a_patch_is_applied_alone() {
        let budget = Budget::default();
        let usual = budget.window(Window::Usual).await;
        assert!(budget.patch().now_or_never().is_none());
        drop(usual);
        let _patch = budget.patch().now_or_never().expect("alone");
        assert!(
            budget.patch().now_or_never().is_none() && budget.window(Window::Usual).now_or_never().is_none()
        );
    }
}
