//! The clerk carries calls from async tasks to the desk and back.
//!
//! Desk calls block on the disk and on signatures, so each runs on a thread for blocking work; a bounded number wait at the desk at once, and all of them are over when
//! [`Clerk::leave`] returns. It reads the clock once per call.

use std::sync::Arc;

use orien_bootstrap::clock;
use orien_protocol::time::Timestamp;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use crate::desk::{Desk, DeskError};

/// Most calls at the desk at once. Changes are made one at a time anyway; these are the signature checks and reads beside them.
const CALLS_AT_ONCE: usize = 16;

/// A cheap handle to the desk.
#[derive(Clone, Debug)]
pub(crate) struct Clerk {
    desk: Arc<Desk>,
    slots: Arc<Semaphore>,
    calls: TaskTracker,
}

impl Clerk {
    pub(crate) fn new(desk: Arc<Desk>) -> Self {
        Self { desk, slots: Arc::new(Semaphore::new(CALLS_AT_ONCE)), calls: TaskTracker::new() }
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.desk
    }

    /// Makes one call. It is carried through even if nobody waits for its answer any more.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Desk, Timestamp) -> Result<T, DeskError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let slot = Arc::clone(&self.slots).acquire_owned().await.map_err(|_| DeskError::Shut(Arc::from("the service is stopping")))?;
        let desk = Arc::clone(&self.desk);
        let done = self.calls.spawn_blocking(move || {
            let answer = call(&desk, clock::wall());
            drop(slot);
            answer
        });
        done.await.unwrap_or_else(|error| Err(self.desk.give_up(&format!("a call broke off: {error}"))))
    }

    /// Lets no more calls begin and waits for those that did.
    pub(crate) async fn leave(&self) {
        self.slots.close();
        self.calls.close();
        self.calls.wait().await;
    }
}
