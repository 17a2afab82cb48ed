//! Hands promises in at settlement until they are redeemed.
//!
//! Always true: a claim is made of what is on disk at that moment, so none is lost with the process and none is older than it has to be; what settlement answers is
//! stored before it counts as redeemed; nothing is asked again sooner than its back-off allows.
//!
//! It does not know how settlement is reached, and decides nothing about how much may wait.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::Fault;
use orien_protocol::frame::{ChannelState, Claim};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::house::House;
use crate::store::{Handed, StoreError, Summary};

/// The first wait after a failure, doubled with each further one.
const RETRY_FIRST: Duration = Duration::from_secs(1);
/// Settlement is asked at least this often while it cannot be reached.
const RETRY_MAX: Duration = Duration::from_secs(60);
/// What was taken and not redeemed yet waits for a batch, and what was refused for an operator.
const LOOK_AGAIN: Duration = Duration::from_secs(300);

/// Why a claim was not taken.
#[derive(Debug)]
pub enum ClaimError {
    /// Settlement will not take it as it is.
    Refused(Fault),
    /// There was no answer; it is not known whether it was taken.
    Unanswered(String),
}

/// The way to settlement.
pub trait Settlement: Send + Sync + 'static {
    /// Has a claim redeemed. Asking twice redeems once.
    fn claim(&self, claim: Claim) -> impl Future<Output = Result<ChannelState, ClaimError>> + Send;
}

/// Where sessions leave word that there is something to hand in. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HandIns {
    asked: Arc<Mutex<BTreeSet<SessionId>>>,
    news: Arc<Notify>,
    waiting: Arc<watch::Sender<usize>>,
}

impl Default for HandIns {
    fn default() -> Self {
        Self { asked: Arc::default(), news: Arc::default(), waiting: Arc::new(watch::Sender::new(0)) }
    }
}

impl HandIns {
    /// Has a session's newest promise handed in soon. A session waits once, however often it asks.
    pub fn hand_in(&self, session: SessionId) {
        let mut asked = self.lock();
        asked.insert(session);
        self.waiting.send_modify(|waiting| *waiting = (*waiting).max(1));
        drop(asked);
        self.news.notify_one();
    }

    /// How many sessions wait to be handed in; changes with every round.
    pub fn waiting(&self) -> watch::Receiver<usize> {
        self.waiting.subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, BTreeSet<SessionId>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// When a session is handed in next.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Instant,
    /// Failures in a row.
    failures: u32,
}

/// What one attempt led to.
enum Attempt {
    Done,
    /// Everything is in settlement's hands; it is looked at again now and then.
    Taken,
    Failed,
}

/// The task that hands in.
pub(crate) struct Collector<S> {
    house: Arc<House>,
    settlement: S,
    due: BTreeMap<SessionId, Due>,
}

impl<S: Settlement> Collector<S> {
    pub(crate) fn new(house: Arc<House>, settlement: S) -> Self {
        Self { house, settlement, due: BTreeMap::new() }
    }

    /// Until `stop`. A claim on its way is given up then; it is made again at the next start.
    pub(crate) async fn work(mut self, stop: CancellationToken) {
        let until = stop.clone();
        until.run_until_cancelled(self.rounds()).await;
    }

    async fn rounds(&mut self) {
        loop {
            let at = self.due.values().map(|due| due.at).min();
            let news = Arc::clone(&self.house.collector.news);
            tokio::select! {
                () = news.notified() => {}
                () = at_or_never(at) => {}
            }
            if let Err(error) = self.round().await {
                tracing::error!(%error, "the store failed; this process ends");
                return self.house.fail(error);
            }
        }
    }

    async fn round(&mut self) -> Result<(), StoreError> {
        let now = Instant::now();
        for session in std::mem::take(&mut *self.house.collector.lock()) {
            self.due.entry(session).and_modify(|due| due.at = now).or_insert(Due { at: now, failures: 0 });
        }
        let ready: Vec<(SessionId, Due)> = self.due.iter().filter(|(_, due)| due.at <= now).map(|(id, due)| (*id, *due)).collect();
        for (session, due) in ready {
            match self.attempt(session).await? {
                Attempt::Done => drop(self.due.remove(&session)),
                Attempt::Taken => drop(self.due.insert(session, Due { at: Instant::now() + LOOK_AGAIN, failures: 0 })),
                Attempt::Failed => {
                    let wait = RETRY_FIRST.saturating_mul(2_u32.saturating_pow(due.failures)).min(RETRY_MAX);
                    let again = Due { at: Instant::now() + wait, failures: due.failures.saturating_add(1) };
                    self.due.insert(session, again);
                    // Whoever did not answer will not answer the next one either.
                    self.put_off(again.at);
                    break;
                }
            }
        }
        let soon = Instant::now() + RETRY_MAX;
        let waiting = self.due.values().filter(|due| due.at <= soon).count().max(self.house.collector.lock().len());
        self.house.collector.waiting.send_replace(waiting);
        Ok(())
    }

    fn put_off(&mut self, until: Instant) {
        self.due.values_mut().for_each(|due| due.at = due.at.max(until));
    }

    /// Where a chain says what is redeemed, settlement's word for it does not count (M13).
    fn counted(&self, state: ChannelState, before: &Handed) -> ChannelState {
        match &self.house.chain {
            None => state,
            Some(_) => ChannelState { redeemed: before.state.redeemed, closed: before.state.closed, ..state },
        }
    }

    async fn attempt(&self, session: SessionId) -> Result<Attempt, StoreError> {
        let Some(summary) = self.house.store.summary(session).await? else { return Ok(Attempt::Done) };
        let before = self.house.store.handed(session).await?;
        if is_settled(&summary, &before) {
            return Ok(Attempt::Done);
        }
        if summary.redeem_until().timestamp() <= clock::wall() {
            // A provider that collected by itself has lost nothing: only settlement's evidence is without the session then.
            if before.state.redeemed < summary.promised() {
                tracing::error!(%session, promised = %summary.promised(), redeemed = %before.state.redeemed, "the time of redemption is over; the rest is lost");
            }
            return Ok(Attempt::Done);
        }
        let Some(claim) = summary.claim() else { return Ok(Attempt::Done) };
        match self.settlement.claim(claim).await {
            Ok(state) => {
                let state = self.counted(state, &before);
                let handed = Handed { state, close_taken: summary.is_over() };
                self.house.store.note_handed(session, handed).await?;
                self.house.book().redeemed(summary.account(), session, state.redeemed);
                tracing::info!(%session, promised = %summary.promised(), redeemed = %state.redeemed, "claim taken");
                Ok(if state.redeemed >= summary.promised() { Attempt::Done } else { Attempt::Taken })
            }
            Err(ClaimError::Refused(fault)) => {
                tracing::error!(%session, %fault, promised = %summary.promised(), "settlement refuses a claim");
                Ok(Attempt::Taken)
            }
            Err(ClaimError::Unanswered(reason)) => {
                tracing::warn!(%session, reason, "settlement did not answer");
                Ok(Attempt::Failed)
            }
        }
    }
}

/// Whether settlement has nothing more to do for a session as it stands.
pub(crate) fn is_settled(summary: &Summary, handed: &Handed) -> bool {
    let promised = summary.promised();
    let is_redeemed = promised == Usdc::ZERO || handed.state.redeemed >= promised;
    is_redeemed && (!summary.is_over() || handed.close_taken)
}

async fn at_or_never(at: Option<Instant>) {
    match at {
        Some(at) => sleep_until(at).await,
        None => std::future::pending().await,
    }
}
