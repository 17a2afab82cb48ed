//! Runs the driver: a step at a time, more slowly while the chain does not answer, and at once when the operator asks for a comparison.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_chain::{ChainError, Expected};
use orien_protocol::id::BatchId;
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use super::reconciling::{Comparison, Progress};
use super::{ChainPort, Counter, Follower, Reconciliation, StepError};
use crate::desk::DeskError;

/// Most comparisons that wait to be made; each reads every account.
pub(crate) const REQUESTS_MAX: usize = 4;
/// Longest pause between two tries while the chain does not answer.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// What the operator is told under this name while the chain cannot be read.
const UNREAD: &str = "chain_unread";

/// The operator wants books and chain compared now.
#[derive(Debug)]
pub(crate) struct CompareNow {
    /// Whether halts are to be taken back if they say the same.
    pub(crate) clear: bool,
    /// Where the result goes; a text when it could not be made.
    pub(crate) reply: oneshot::Sender<Result<Reconciliation, String>>,
}

/// Follows the chain until `cancel`. It ends before that only when the chain is not what the network file says.
pub(crate) fn follow<P: ChainPort + 'static, D: Counter + 'static>(
    follower: Follower<P, D>,
    expected: Expected,
    every: Duration,
    requests: mpsc::Receiver<CompareNow>,
    cancel: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), ChainError>> + Send>> {
    // Boxed here, where chain and desk are any: with both known, the compiler cannot see that it may move between threads.
    Box::pin(follow_on(follower, expected, every, requests, cancel))
}

async fn follow_on<P: ChainPort, D: Counter>(
    mut follower: Follower<P, D>,
    expected: Expected,
    every: Duration,
    mut requests: mpsc::Receiver<CompareNow>,
    cancel: CancellationToken,
) -> Result<(), ChainError> {
    let mut pause = every;
    loop {
        // A look through a crowded block may take minutes. Whoever breaks it off loses nothing: what counts is stored.
        let Some(done) = cancel.run_until_cancelled(turn(&mut follower, &expected)).await else { return Ok(()) };
        pause = match done {
            Ok(()) if follower.is_comparing() => Duration::ZERO,
            Ok(()) => every,
            Err(StepError::Chain(error @ ChainError::Mismatch(_))) => return Err(error),
            // The desk tells whoever runs it.
            Err(StepError::Desk(DeskError::Shut(_))) => return Ok(()),
            Err(error) => {
                follower.unread(&error).await;
                pause.max(every).saturating_mul(2).min(PAUSE_MAX)
            }
        };
        tokio::select! {
            biased;
            () = cancel.cancelled() => return Ok(()),
            Some(request) = requests.recv() => {
                if cancel.run_until_cancelled(compare(&mut follower, &expected, request)).await.is_none() {
                    return Ok(());
                }
            }
            () = sleep(pause) => {}
        }
    }
}

async fn turn<P: ChainPort, D: Counter>(follower: &mut Follower<P, D>, expected: &Expected) -> Result<(), StepError> {
    if !follower.checked {
        follower.preflight(expected).await?;
        tracing::info!("chain, escrow, token and signer are those of the network");
    }
    follower.step(clock::wall(), &mut || clock::random_id(BatchId::from_parts).ok()).await?;
    follower.desk.call(|desk| desk.notice(UNREAD, None, clock::wall())).await?;
    Ok(())
}

async fn compare<P: ChainPort, D: Counter>(follower: &mut Follower<P, D>, expected: &Expected, request: CompareNow) {
    let found = match compare_all(follower, expected).await {
        Ok(Some(found)) => Ok(found),
        Ok(None) => Err("nothing of the chain was read yet".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let clears = request.clear && found.as_ref().is_ok_and(|found| found.differences.is_empty());
    let found = match clears.then(|| follower.desk.call(|desk| desk.clear_halts())) {
        Some(cleared) => cleared.await.map_err(|error| error.to_string()).and(found),
        None => found,
    };
    if clears {
        // The sender starts anew from what is stored.
        follower.machine = None;
    }
    // Whoever asked may be gone.
    drop(request.reply.send(found));
}

/// Compares all of it, and goes on paying between two parts.
async fn compare_all<P: ChainPort, D: Counter>(
    follower: &mut Follower<P, D>,
    expected: &Expected,
) -> Result<Option<Reconciliation>, StepError> {
    let mut comparison = Comparison::new();
    while follower.compare_some(&mut comparison).await? == Progress::More {
        // What is wrong with it is found again by the next one.
        if let Err(error) = turn(follower, expected).await {
            follower.unread(&error).await;
        }
    }
    follower.conclude_comparison(comparison, clock::wall()).await
}

impl<P: ChainPort, D: Counter> Follower<P, D> {
    async fn unread(&self, error: &StepError) {
        let (text, now) = (error.to_string(), clock::wall());
        if let Err(error) = self.desk.call(move |desk| desk.notice(UNREAD, Some(text), now)).await {
            tracing::debug!(%error, "the operator could not be told");
        }
    }
}
