//! Keeps the catalogue on disk: one task that owns the store.
//!
//! Always true: an order to keep our own version is confirmed only after the commit; what is written for a provider is its state at the time of writing,
//! so late or repeated orders do no harm. A failed write ends the task, and with it the peer.

use std::collections::BTreeSet;
use std::sync::Arc;

use orien_protocol::peer::PeerId;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use crate::shared::SharedCatalogue;
use crate::store::{Change, Store, StoreError};

/// Orders waiting; who has more waits with them, since the disk is slower than the network.
const ORDERS_QUEUE: usize = 1024;

/// Orders in one commit: a commit costs a sync of the disk, whatever is in it. At 64 KiB an offer it holds at most 16 MiB.
const BATCH_LIMIT: usize = 256;

#[derive(Debug)]
enum Order {
    /// The offer of this provider changed.
    Touch(PeerId),
    /// Our own offer is about to be published under this version.
    OwnVersion(u64, oneshot::Sender<()>),
}

/// The keeper has stopped, so nothing is kept any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("the catalogue store is closed")]
pub struct KeeperGone;

/// A cheap handle on the task that owns the store.
#[derive(Clone, Debug)]
pub(crate) struct Keeper {
    orders: mpsc::Sender<Order>,
}

impl Keeper {
    /// Sees to it that the store follows the catalogue for one provider, soon.
    pub(crate) async fn touch(&self, provider: PeerId) {
        if self.orders.send(Order::Touch(provider)).await.is_err() {
            tracing::debug!(%provider, "the catalogue store is closed; a change is not kept");
        }
    }

    /// Keeps the version of our own offer; it is on disk when this returns.
    pub(crate) async fn own_version(&self, version: u64) -> Result<(), KeeperGone> {
        let (done, kept) = oneshot::channel();
        self.orders.send(Order::OwnVersion(version, done)).await.map_err(|_| KeeperGone)?;
        kept.await.map_err(|_| KeeperGone)
    }
}

/// The handle, and the orders that [`keep`] carries out.
pub(crate) fn keeper() -> (Keeper, Orders) {
    let (orders, receiver) = mpsc::channel(ORDERS_QUEUE);
    (Keeper { orders }, Orders(receiver))
}

/// Orders on their way to the task.
#[derive(Debug)]
pub(crate) struct Orders(mpsc::Receiver<Order>);

/// Carries out orders until `stop`, and then those already given.
pub(crate) async fn keep(store: Store, catalogue: SharedCatalogue, mut orders: Orders, stop: CancellationToken) -> Result<(), StoreError> {
    let store = Arc::new(store);
    let mut batch = Vec::with_capacity(BATCH_LIMIT);
    loop {
        let count = tokio::select! {
            count = orders.0.recv_many(&mut batch, BATCH_LIMIT) => count,
            () = stop.cancelled(), if !orders.0.is_closed() => {
                orders.0.close();
                continue;
            }
        };
        if count == 0 {
            return Ok(());
        }
        carry_out(&store, &catalogue, batch.drain(..)).await?;
    }
}

async fn carry_out(store: &Arc<Store>, catalogue: &SharedCatalogue, batch: impl Iterator<Item = Order>) -> Result<(), StoreError> {
    let mut touched = BTreeSet::new();
    let mut version = None;
    let mut waiting = Vec::new();
    for order in batch {
        match order {
            Order::Touch(provider) => drop(touched.insert(provider)),
            Order::OwnVersion(number, done) => {
                version = version.max(Some(number));
                waiting.push(done);
            }
        }
    }
    let changes: Vec<Change> = touched
        .into_iter()
        .map(|provider| catalogue.provider(&provider).map_or(Change::Remove(provider), |listed| Change::Put(listed.offer)))
        .collect();
    let store = Arc::clone(store);
    let written = tokio::task::spawn_blocking(move || {
        if let Some(version) = version {
            store.set_own_version(version)?;
        }
        if changes.is_empty() { Ok(()) } else { store.apply(&changes) }
    });
    match written.await {
        Ok(written) => written?,
        // The runtime is going away, or the store panicked: either way nothing is known to be written.
        Err(error) => return Err(StoreError::interrupted(&error)),
    }
    for done in waiting {
        // Whoever gave up waiting does not need to know.
        let _ = done.send(());
    }
    Ok(())
}
