//! One step of a peer's start, and so of its stop: some tasks that end together.
//!
//! Always true: every task is tracked, hears of the stop, and is dropped where it stands if it does not listen; a panic in one is reported, never lost.

use std::sync::{Arc, OnceLock};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::peer::PeerFailure;

/// Where parts of a peer report that they failed for good.
#[derive(Clone, Debug)]
pub(crate) struct Alarm {
    first: Arc<OnceLock<Arc<PeerFailure>>>,
    /// Cancelled with the first failure; the role listens.
    raised: CancellationToken,
}

impl Alarm {
    pub(crate) fn new(raised: CancellationToken) -> Self {
        Self { first: Arc::default(), raised }
    }

    pub(crate) fn raise(&self, failure: PeerFailure) {
        tracing::error!(%failure, "a part of this peer failed; it must stop");
        // Only the first is kept: the others follow from it.
        let _ = self.first.set(Arc::new(failure));
        self.raised.cancel();
    }

    pub(crate) fn failure(&self) -> Option<Arc<PeerFailure>> {
        self.first.get().cloned()
    }
}

/// Tasks that start and stop together.
#[derive(Debug)]
pub(crate) struct Stage {
    name: &'static str,
    stop: CancellationToken,
    kill: CancellationToken,
    tasks: TaskTracker,
    alarm: Alarm,
}

impl Stage {
    pub(crate) fn new(name: &'static str, alarm: Alarm) -> Self {
        let (stop, kill) = (CancellationToken::new(), CancellationToken::new());
        Self { name, stop, kill, tasks: TaskTracker::new(), alarm }
    }

    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// What its tasks listen to.
    pub(crate) fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Starts a task; its error, its panic, or its end before the stop is the failure of the peer.
    pub(crate) fn spawn<E>(&self, work: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<PeerFailure> + Send + 'static,
    {
        let (name, stop, alarm, kill) = (self.name, self.stop.clone(), self.alarm.clone(), self.kill.clone());
        let work = self.tasks.spawn(async move { kill.run_until_cancelled(work).await });
        self.tasks.spawn(async move {
            match work.await {
                Ok(Some(Err(failure))) => alarm.raise(failure.into()),
                Ok(Some(Ok(()))) if !stop.is_cancelled() => alarm.raise(PeerFailure::Ended { stage: name }),
                Ok(_) => {}
                Err(_) => alarm.raise(PeerFailure::Panicked { stage: name }),
            }
        });
    }

    /// Tells the tasks to stop and waits for them.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Ends the tasks where they stand.
    pub(crate) fn kill(&self) {
        self.stop.cancel();
        self.kill.cancel();
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stage() -> (Stage, CancellationToken) {
        let raised = CancellationToken::new();
        (Stage::new("test", Alarm::new(raised.clone())), raised)
    }

    #[tokio::test]
    async fn a_task_that_panics_or_ends_early_raises_the_alarm() {
        let (stage, raised) = stage();
        stage.spawn::<PeerFailure>(async { panic!("for the test") });
        raised.cancelled().await;
        assert!(matches!(*stage.alarm.failure().unwrap(), PeerFailure::Panicked { stage: "test" }));
        let (stage, raised) = self::stage();
        stage.spawn::<PeerFailure>(async { Ok(()) });
        raised.cancelled().await;
        assert!(matches!(*stage.alarm.failure().unwrap(), PeerFailure::Ended { stage: "test" }));
    }

    #[tokio::test]
    async fn an_orderly_stop_raises_no_alarm_and_a_deaf_task_is_ended() {
        let (stage, raised) = stage();
        let stop = stage.stop_token();
        stage.spawn::<PeerFailure>(async move {
            stop.cancelled().await;
            Ok(())
        });
        stage.spawn::<PeerFailure>(std::future::pending());
        stage.kill();
        stage.stop().await;
        assert!(stage.tasks.is_empty() && !raised.is_cancelled());
    }
}
