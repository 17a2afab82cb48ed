//! What settlement does by itself from time to time: ends what is over, and settles what was redeemed.

use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::id::BatchId;
use tokio::time::{Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::clerk::Clerk;
use crate::desk::DeskError;

/// How often expired channels are looked for; also how late a reservation is released at most.
const SWEEP_INTERVAL: Duration = Duration::from_secs(5);
/// A batch costs a signature and a commit; more often than this would only be load.
const SHORTEST_BATCH_INTERVAL: Duration = Duration::from_millis(100);
/// Most batches made in one round, and most sweeps; what is left waits for the next.
const STEPS_PER_ROUND: usize = 20;

/// Makes its rounds until `cancel`, with a batch each `batch_interval` if there is anything to settle.
pub(crate) async fn make_rounds(clerk: Clerk, batch_interval: Duration, cancel: CancellationToken) {
    let mut sweeps = tokio::time::interval(SWEEP_INTERVAL);
    let batch_interval = batch_interval.max(SHORTEST_BATCH_INTERVAL);
    let mut batches = tokio::time::interval_at(Instant::now() + batch_interval, batch_interval);
    sweeps.set_missed_tick_behavior(MissedTickBehavior::Delay);
    batches.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let done = tokio::select! {
            biased;
            () = cancel.cancelled() => return,
            _ = sweeps.tick() => sweep(&clerk).await,
            _ = batches.tick() => settle(&clerk).await,
        };
        match done {
            Ok(()) => {}
            Err(DeskError::Refused(fault)) => tracing::error!(%fault, "a round was not finished"),
            // The desk tells whoever runs it.
            Err(DeskError::Shut(_)) => return,
        }
    }
}

async fn sweep(clerk: &Clerk) -> Result<(), DeskError> {
    for _ in 0..STEPS_PER_ROUND {
        if !clerk.call(|desk, now| desk.sweep(now)).await? {
            break;
        }
    }
    Ok(())
}

async fn settle(clerk: &Clerk) -> Result<(), DeskError> {
    for _ in 0..STEPS_PER_ROUND {
        let Ok(id) = clock::random_id(BatchId::from_parts) else {
            tracing::error!("no randomness for the name of a batch");
            break;
        };
        match clerk.call(move |desk, now| desk.batch(id, None, now)).await? {
            Some(batch) => tracing::info!(%batch, "settled a batch"),
            None => break,
        }
    }
    Ok(())
}
