//! What all sessions of this provider share.
//!
//! Always true: each lock is held for one look or one note and never across an await; the first failed write is kept and ends the process.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use orien_protocol::credit::CreditBook;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::offer::Offer;
use orien_protocol::session::provider::{ProviderEffect, ProviderKeys};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::{Offers, Standing};
use crate::chain::Ways;
use crate::clerk::{Clerk, Counter, SessionView};
use crate::collector::HandIns;
use crate::executor::Workshop;
use crate::places::Places;
use crate::store::{Store, StoreError};

/// Sessions read back from disk at the same time: each checks every signature it ever had.
const RESTORES_MAX: usize = 2;
/// Sessions given up at the same time, so that strangers who let go of many do not keep the store from those who work.
const LETTING_GO_MAX: usize = 2;

/// The shared parts.
pub(crate) struct House {
    pub(crate) standing: Standing,
    pub(crate) keys: ProviderKeys,
    pub(crate) workshop: Arc<Workshop>,
    pub(crate) store: Store,
    pub(crate) places: Places,
    pub(crate) collector: HandIns,
    /// The chain, where the network has one.
    pub(crate) chain: Option<Ways>,
    /// Promises that are handed in without waiting for the usual time.
    pub(crate) hand_in_at: Usdc,
    /// Every task of every session.
    pub(crate) tasks: TaskTracker,
    /// Ends them all at once.
    pub(crate) halt: CancellationToken,
    pub(crate) restores: Semaphore,
    /// Each that is given up costs a few signatures and a commit.
    pub(crate) letting_go: Semaphore,
    /// Session ids that are being opened or given up at this moment.
    deciding: Mutex<BTreeSet<SessionId>>,
    /// Cancelled at the first failed write.
    pub(crate) broken: CancellationToken,
    failure: OnceLock<StoreError>,
    book: Mutex<CreditBook>,
    offers: Mutex<Offers>,
    counters: Mutex<BTreeMap<SessionId, Counter>>,
}

/// What a house is made of.
pub(crate) struct Parts {
    pub(crate) standing: Standing,
    pub(crate) keys: ProviderKeys,
    pub(crate) workshop: Workshop,
    pub(crate) store: Store,
    pub(crate) places: Places,
    pub(crate) collector: HandIns,
    pub(crate) chain: Option<Ways>,
    pub(crate) hand_in_at: Usdc,
    pub(crate) book: CreditBook,
}

impl House {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { standing, keys, workshop, store, places, collector, chain, hand_in_at, book } = parts;
        Arc::new(Self {
            standing,
            keys,
            workshop: Arc::new(workshop),
            store,
            places,
            collector,
            chain,
            hand_in_at,
            tasks: TaskTracker::new(),
            halt: CancellationToken::new(),
            restores: Semaphore::new(RESTORES_MAX),
            letting_go: Semaphore::new(LETTING_GO_MAX),
            deciding: Mutex::default(),
            broken: CancellationToken::new(),
            failure: OnceLock::new(),
            book: Mutex::new(book),
            offers: Mutex::default(),
            counters: Mutex::default(),
        })
    }

    /// Keeps everybody else from deciding whether a session id is used, until the decision can be seen; none while somebody does.
    pub(crate) fn decide(self: &Arc<Self>, session: SessionId) -> Option<Deciding> {
        lock(&self.deciding).insert(session).then(|| Deciding { house: Arc::clone(self), session })
    }

    /// The exposure to every account.
    pub(crate) fn book(&self) -> MutexGuard<'_, CreditBook> {
        lock(&self.book)
    }

    /// An offer of ours that still holds, and others of late.
    pub(crate) fn offers(&self) -> MutexGuard<'_, Offers> {
        lock(&self.offers)
    }

    /// Honours an offer from now on.
    pub(crate) fn honour(&self, hash: Hash, offer: Offer) {
        self.offers().push(hash, offer);
    }

    /// The counter of a session that is here.
    pub(crate) fn counter(&self, session: SessionId) -> Option<Counter> {
        lock(&self.counters).get(&session).cloned()
    }

    /// Whether a session is here and has its workspace.
    pub(crate) fn is_at_work(&self, session: SessionId) -> bool {
        lock(&self.counters).get(&session).is_some_and(|counter| !counter.released.is_cancelled())
    }

    /// Every session that is here, as it stands.
    pub(crate) fn views(&self) -> Vec<(SessionId, SessionView)> {
        lock(&self.counters).iter().map(|(id, counter)| (*id, *counter.view.borrow())).collect()
    }

    pub(crate) fn counters(&self) -> Vec<Counter> {
        lock(&self.counters).values().cloned().collect()
    }

    /// Puts a clerk to work; gives it back when another already has the session. Whoever decided that the session may begin has decided when it can be seen, and before it says its first word.
    pub(crate) fn employ(
        self: &Arc<Self>,
        session: SessionId,
        clerk: Clerk,
        counter: Counter,
        first: Vec<ProviderEffect>,
        decided: Option<Deciding>,
    ) -> Result<(), Box<Clerk>> {
        {
            let mut counters = lock(&self.counters);
            if counters.get(&session).is_some_and(|there| !there.visits.is_closed()) {
                return Err(Box::new(clerk));
            }
            counters.insert(session, counter.clone());
        }
        drop(decided);
        let house = Arc::clone(self);
        self.tasks.spawn(async move {
            clerk.work(first).await;
            let mut counters = lock(&house.counters);
            // Somebody may have begun anew with the session since the clerk stopped listening.
            if counters.get(&session).is_some_and(|there| there.visits.same_channel(&counter.visits)) {
                counters.remove(&session);
            }
        });
        Ok(())
    }

    /// Keeps the first failed write.
    pub(crate) fn fail(&self, error: StoreError) {
        // Later ones follow from it.
        let _ = self.failure.set(error);
        self.broken.cancel();
        self.halt.cancel();
    }

    /// The write that failed, if one did.
    pub(crate) fn failure(&self) -> Option<&StoreError> {
        self.failure.get()
    }
}

/// One decision over a session id: whoever holds this looks, writes or employs, and drops it.
pub(crate) struct Deciding {
    house: Arc<House>,
    session: SessionId,
}

impl Drop for Deciding {
    fn drop(&mut self) {
        lock(&self.house.deciding).remove(&self.session);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Each is changed in one step, so a panic elsewhere leaves it whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
