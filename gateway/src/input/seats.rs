//! Who sends the input of a run: one at a time.
//!
//! Always true: of two senders of one run the second waits until the first has let go, or is refused.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_protocol::id::ExecutionId;
use tokio_util::sync::CancellationToken;

/// A sender that is told to stop lets go at once; it may only be slow to be woken.
const GONE_LIMIT: Duration = Duration::from_secs(5);

/// A sender's two signals.
#[derive(Clone, Debug, Default)]
struct Sender {
    /// Told to stop.
    stop: CancellationToken,
    /// Has stopped.
    gone: CancellationToken,
}

/// All senders; at most one for each request under way.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seats(Arc<Mutex<BTreeMap<ExecutionId, Sender>>>);

/// The right to send. Ends when it is dropped.
#[derive(Debug)]
pub(crate) struct Seat {
    seats: Seats,
    execution: ExecutionId,
    sender: Sender,
}

impl Seats {
    /// Takes the place of a run's sender. If there is one, it is stopped if `replace`, otherwise there is no place.
    pub(crate) async fn take(&self, execution: ExecutionId, replace: bool) -> Option<Seat> {
        if let Some(seat) = self.take_free(execution) {
            return Some(seat);
        }
        let other = self.lock().get(&execution).cloned().filter(|_| replace);
        if let Some(other) = other {
            other.stop.cancel();
            tokio::time::timeout(GONE_LIMIT, other.gone.cancelled()).await.ok()?;
        }
        self.take_free(execution)
    }

    fn take_free(&self, execution: ExecutionId) -> Option<Seat> {
        let mut senders = self.lock();
        if senders.contains_key(&execution) {
            return None;
        }
        let sender = Sender::default();
        senders.insert(execution, sender.clone());
        Some(Seat { seats: self.clone(), execution, sender })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<ExecutionId, Sender>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Seat {
    /// Back when another sender takes this place.
    pub(crate) async fn lost(&self) {
        self.sender.stop.cancelled().await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.seats.lock().remove(&self.execution);
        self.sender.gone.cancel();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_place_is_free_taken_or_taken_over() {
        let (seats, run) = (Seats::default(), ExecutionId::from_parts(1, 1));
        let first = seats.take(run, false).await.unwrap();
        assert!(seats.take(run, false).await.is_none());
        assert!(seats.take(ExecutionId::from_parts(1, 2), false).await.is_some());
        let waiting = tokio::spawn({
            let seats = seats.clone();
            async move { seats.take(run, true).await }
        });
        first.lost().await;
        drop(first);
        let second = waiting.await.unwrap().unwrap();
        assert!(seats.take(run, false).await.is_none());
        drop(second);
        assert!(seats.take(run, false).await.is_some());
    }
}
