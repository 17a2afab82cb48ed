//! What this provider reads of the escrow itself, and how it collects without settlement.
//!
//! Always true: on this rail nothing counts as redeemed but what a final block says, and it is stored before it counts; whoever looks, looks at one final block for everything that belongs together;
//! looking and sending happen one at a time. What cannot be read stays as it was last known, and opens nothing new.
//!
//! It does not know sessions' machines; they learn from the book of credit how far they may go.

mod looking;
mod opening;
mod outbox;
mod sending;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::escrow;
use orien_chain::fees::{FEE_CAP, RAISE_AFTER, RESEND_AFTER};
use orien_chain::{Block, Chain, ChainError, EscrowAccount, EscrowChannel, TxHash, Wei};
use orien_protocol::channel::Channel;
use orien_protocol::fault::Fault;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use tokio::sync::{Notify, Semaphore};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

pub(crate) use outbox::Outgoing;
pub use sending::Collected;

use crate::house::House;
use crate::store::StoreError;

/// Between two looks at accounts whose sessions wait for nothing: an exit takes many times as long (M13).
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// Between two looks at a transaction that is on its way.
const LOOK_SENDING: Duration = Duration::from_secs(5);
/// After news, before a look: what comes at once is looked at once.
const LOOK_SOON: Duration = Duration::from_millis(500);
/// After a failure; the chain's own client has tried several times by then.
const LOOK_FAILED: Duration = Duration::from_secs(15);

/// When a provider collects by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CollectPolicy {
    /// So long before redemption ends it no longer waits for settlement.
    pub before: Millis,
    /// But settlement is always left all but one of so many parts of the time between the end of work and the end of redemption.
    pub parts: u64,
    /// Less than this together is not worth a transaction; by hand it is.
    pub least: Usdc,
    /// Of a session at work with more than this waiting for redemption, the rest of its allowance is locked on the chain.
    pub lock_at: Usdc,
    /// Between two looks while something waits for redemption.
    pub look_every: Duration,
    /// How its transactions are sent.
    pub sending: SendingRules,
}

/// How a transaction of a provider's is brought into a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SendingRules {
    /// The same bytes are handed out again after this.
    pub resend_after: Millis,
    /// More is offered after this.
    pub raise_after: Millis,
    /// Most that is offered per gas.
    pub fee_cap: Wei,
}

impl Default for SendingRules {
    fn default() -> Self {
        Self { resend_after: RESEND_AFTER, raise_after: RAISE_AFTER, fee_cap: FEE_CAP }
    }
}

impl Default for CollectPolicy {
    fn default() -> Self {
        // Two hours outlast the slowest finality and an evening of an operator who has to send gas; a cent is what a transaction costs on a cheap chain.
        // Settlement makes a batch about once a minute, and a look costs a few requests.
        Self {
            before: Millis::from_secs(2 * 3600),
            parts: 2,
            least: Usdc::from_micros(10_000),
            lock_at: Usdc::from_micros(50_000_000),
            look_every: Duration::from_secs(60),
            sending: SendingRules::default(),
        }
    }
}

/// A session whose money is looked at.
#[derive(Clone, Debug)]
struct Watched {
    channel: Channel,
    ceiling: Usdc,
    work_until: UnixSeconds,
    redeem_until: UnixSeconds,
    /// Whether its allowance was to be locked already.
    lock_tried: bool,
    /// Why it takes no new jobs, if the account has taken its key back.
    bar: Option<Fault>,
    /// The channel, as last seen.
    seen: EscrowChannel,
}

/// What is known, for people.
#[derive(Clone, Debug, Default)]
pub struct ChainView {
    /// The final block that was last read, and when.
    pub at: Option<(Block, Timestamp)>,
    /// Why it could not be read since.
    pub problem: Option<String>,
    /// Payments of the payout address that the token did not deliver.
    pub undelivered: Usdc,
    /// The transaction that is on its way: its newest form, and for how many sessions.
    pub sending: Option<(TxHash, usize)>,
    /// How much of the chain's coin is missing to collect, at the price of gas when it was last tried.
    pub missing_gas: Option<Wei>,
}

/// The provider's side of the chain.
#[derive(Debug)]
pub(crate) struct Ways {
    chain: Chain,
    /// Pays for gas when the provider collects by itself.
    key: Arc<MoneyKey>,
    exit_delay: Millis,
    policy: CollectPolicy,
    /// Whether the chain was found to be what the network says.
    is_checked: AtomicBool,
    /// Held while somebody looks or sends.
    turn: Semaphore,
    news: Notify,
    known: Mutex<Known>,
}

#[derive(Debug, Default)]
struct Known {
    watched: BTreeMap<SessionId, Watched>,
    /// Accounts of those sessions, as last seen.
    accounts: BTreeMap<Address, EscrowAccount>,
    view: ChainView,
    /// When everything was last looked at, to the end.
    all_at: Option<Instant>,
    /// How often it was asked that everything be looked at again: what is asked during a look is not answered by it.
    asked: u64,
}

impl Known {
    /// Has everything looked at again.
    fn forget_look(&mut self) {
        self.all_at = None;
        self.asked = self.asked.wrapping_add(1);
    }
}

/// Why a round failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RoundError {
    /// The chain could not be read; it is tried again.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// The store failed; the process ends.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Ways {
    pub(crate) fn new(chain: Chain, key: Arc<MoneyKey>, exit_delay: Millis, policy: CollectPolicy) -> Self {
        let (turn, news) = (Semaphore::new(1), Notify::new());
        Self { chain, key, exit_delay, policy, is_checked: AtomicBool::new(false), turn, news, known: Mutex::default() }
    }

    /// The address that pays for gas.
    pub(crate) fn payer(&self) -> Address {
        self.key.address()
    }

    /// What is known, for people.
    pub(crate) fn view(&self) -> ChainView {
        self.known().view.clone()
    }

    /// The channel of a session as last seen; none for one that is not looked at.
    pub(crate) fn seen(&self, session: SessionId) -> Option<EscrowChannel> {
        self.known().watched.get(&session).map(|watched| watched.seen)
    }

    /// Why a session takes no new jobs, if it does not.
    pub(crate) fn bar(&self, session: SessionId) -> Option<Fault> {
        self.known().watched.get(&session).and_then(|watched| watched.bar.clone())
    }

    /// A session may be promised more from now on.
    pub(crate) fn raise(&self, session: SessionId, ceiling: Usdc) {
        if let Some(watched) = self.known().watched.get_mut(&session) {
            watched.ceiling = watched.ceiling.max(ceiling);
        }
        self.look_soon();
    }

    /// Has everything looked at again soon.
    pub(crate) fn look_soon(&self) {
        self.known().forget_look();
        self.news.notify_one();
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks and collects until `stop`.
    pub(crate) async fn work(&self, house: &House, stop: CancellationToken) {
        stop.run_until_cancelled(self.rounds(house)).await;
    }

    async fn rounds(&self, house: &House) {
        loop {
            let pause = match self.round(house).await {
                Ok(()) => self.pause(),
                Err(RoundError::Chain(error)) => {
                    self.failed(&error);
                    LOOK_FAILED
                }
                Err(RoundError::Store(error)) => {
                    tracing::error!(%error, "the store failed; this process ends");
                    return house.fail(error);
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = self.news.notified() => sleep(LOOK_SOON).await,
            }
        }
    }

    fn pause(&self) -> Duration {
        let every = self.policy.look_every;
        if self.known().view.sending.is_some() { every.min(LOOK_SENDING) } else { every }
    }

    fn failed(&self, error: &ChainError) {
        let text = error.to_string();
        let mut known = self.known();
        if known.view.problem.as_deref() != Some(&text) {
            tracing::warn!(error = text, code = error.code(), "the chain cannot be read; nothing new is opened until it can");
        }
        known.view.problem = Some(text);
        // Nothing counts as looked at.
        known.forget_look();
    }

    /// Whether it is the right chain, and the escrow is what this program knows; asked until it is once.
    async fn ready(&self, house: &House) -> Result<(), ChainError> {
        if !self.is_checked.load(Ordering::Acquire) {
            escrow::preflight(&self.chain, house.standing.settlement_signer, self.exit_delay).await?;
            self.is_checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    async fn round(&self, house: &House) -> Result<(), RoundError> {
        // Never closed.
        let _turn = self.turn.acquire().await;
        self.ready(house).await?;
        self.advance(house).await?;
        self.look(house).await?;
        self.collect_what_is_due(house).await?;
        self.lock_what_nears_the_limit(house).await
    }
}
