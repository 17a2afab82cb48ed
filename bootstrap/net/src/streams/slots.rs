//! Places for open streams of one direction: so many with one peer, so many in total.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// The places one connection draws from.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    pub(super) total: Arc<Semaphore>,
    pub(super) peer: Arc<Semaphore>,
}

/// One place taken, given back when dropped.
#[derive(Debug)]
pub(super) struct Slot {
    _total: OwnedSemaphorePermit,
    _peer: OwnedSemaphorePermit,
}

impl Slots {
    /// Takes a place if both the peer and the total have one left.
    pub(super) fn take(&self) -> Option<Slot> {
        let peer = Arc::clone(&self.peer).try_acquire_owned().ok()?;
        let total = Arc::clone(&self.total).try_acquire_owned().ok()?;
        Some(Slot { _total: total, _peer: peer })
    }
}
