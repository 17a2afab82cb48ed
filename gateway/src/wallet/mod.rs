//! The account that pays, as the chain says: what its escrow holds, whether our key may promise it, and what was redeemed of each of our channels.
//!
//! Always true: everything here is read from final blocks and from nobody else; a session whose budget the escrow does not carry is not opened; nothing here promises or moves money.
//!
//! It does not know settlement, whose word is shown beside it.

mod store;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::clock;
use orien_bootstrap::escrow::{self, EscrowReading};
use orien_chain::{Block, Chain, ChainError, ChainFacts, EscrowEvent};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::terms::Terms;
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::store::StoreError;
use store::WalletStore;
pub(crate) use store::{ChannelRow, Redemption};

/// Between two looks while a channel of ours can still be redeemed from.
const LOOK_OPEN: Duration = Duration::from_secs(30);
/// Between two looks while there is none: an exit takes many times as long (M13).
const LOOK_EVERY: Duration = Duration::from_secs(3600);
/// After a failure; the chain's own client has tried several times by then.
const LOOK_FAILED: Duration = Duration::from_secs(15);
/// A reading that is younger says enough for one more opening; a "no" is always asked for again.
const FRESH: Duration = Duration::from_secs(20);
/// Longest wait for the chain at an opening.
const OPENING_LIMIT: Duration = Duration::from_secs(12);

/// Whose money it is, and who may promise it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parties {
    pub(crate) account: Address,
    pub(crate) spending_key: Address,
    pub(crate) signer: Address,
}

/// What is known, for people.
#[derive(Clone, Debug, Default)]
pub(crate) struct WalletView {
    /// What was last read, and when.
    pub(crate) reading: Option<(EscrowReading, Timestamp)>,
    /// Why it could not be read since.
    pub(crate) problem: Option<String>,
}

#[derive(Debug, Default)]
struct Known {
    view: WalletView,
    read_at: Option<Instant>,
}

/// The wallet.
#[derive(Debug)]
pub(crate) struct Wallet {
    chain: Chain,
    parties: Parties,
    exit_delay: Millis,
    /// Whether the chain was found to be what the network says.
    is_checked: AtomicBool,
    store: WalletStore,
    known: Mutex<Known>,
    news: Notify,
}

/// Why a look failed.
#[derive(Debug, thiserror::Error)]
enum LookError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Wallet {
    /// The wallet of an account, with what it remembers in the file at `path`.
    pub(crate) fn open(chain: Chain, parties: Parties, exit_delay: Millis, path: &Path) -> Result<Self, StoreError> {
        let store = WalletStore::open(path)?;
        Ok(Self { chain, parties, exit_delay, is_checked: AtomicBool::new(false), store, known: Mutex::default(), news: Notify::new() })
    }

    /// Which chain, and where on it the money is.
    pub(crate) fn facts(&self) -> &ChainFacts {
        self.chain.facts()
    }

    /// What is known, for people.
    pub(crate) fn view(&self) -> WalletView {
        self.known().view.clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the escrow carries `budget` under these terms, beside `others` that is promised already; what is missing, if not.
    pub(crate) async fn check(&self, terms: &Terms, budget: Usdc, others: Usdc) -> Result<(), Fault> {
        let fits = |reading: &EscrowReading| escrow::check_fit(reading, terms, budget, others, self.exit_delay);
        let fresh = {
            let known = self.known();
            known.view.reading.map(|(reading, _)| reading).filter(|_| known.read_at.is_some_and(|at| at.elapsed() < FRESH))
        };
        if fresh.is_some_and(|reading| fits(&reading).is_ok()) {
            return Ok(());
        }
        let unreadable = |text: &dyn std::fmt::Display| {
            Fault::new(FaultCode::CHAIN_UNREADABLE, format_args!("this gateway cannot read the escrow now and opens nothing: {text}"))
        };
        let reading = match timeout(OPENING_LIMIT, self.read()).await {
            Ok(Ok(reading)) => reading,
            Ok(Err(error)) => {
                self.failed(&error);
                return Err(unreadable(&error));
            }
            Err(_) => return Err(unreadable(&"no answer in time")),
        };
        fits(&reading).map_err(|unfit| unfit.fault())
    }

    /// Looks at a session's channel from now on, until it can no longer be redeemed from.
    pub(crate) async fn add(&self, terms: &Terms) -> Result<(), StoreError> {
        let row = ChannelRow {
            channel: terms.channel(),
            redeem_until: terms.redeem_until,
            redeemed: Usdc::ZERO,
            locked: Usdc::ZERO,
            closed: false,
            last: None,
        };
        self.store.add(terms.session, row).await?;
        self.news.notify_one();
        Ok(())
    }

    /// Channels that can still be redeemed from.
    pub(crate) async fn live(&self) -> Result<Vec<(SessionId, ChannelRow)>, StoreError> {
        self.store.live().await
    }

    /// What is known of the channels of these sessions.
    pub(crate) async fn channels(&self, sessions: Vec<SessionId>) -> Result<BTreeMap<SessionId, ChannelRow>, StoreError> {
        self.store.find(sessions).await
    }

    /// Looks until `stop`; back earlier only when the store failed.
    pub(crate) async fn work(self: Arc<Self>, stop: CancellationToken) -> Result<(), StoreError> {
        stop.run_until_cancelled(self.rounds()).await.unwrap_or(Ok(()))
    }

    async fn rounds(&self) -> Result<(), StoreError> {
        loop {
            let pause = match self.look().await {
                Ok(true) => LOOK_OPEN,
                Ok(false) => LOOK_EVERY,
                Err(LookError::Chain(error)) => {
                    self.failed(&error);
                    LOOK_FAILED
                }
                Err(LookError::Store(error)) => return Err(error),
            };
            tokio::select! {
                () = sleep(pause) => {}
                // A channel that was not there when nothing had to be looked at for an hour.
                () = self.news.notified() => {}
            }
        }
    }

    fn failed(&self, error: &ChainError) {
        let text = error.to_string();
        let mut known = self.known();
        if known.view.problem.as_deref() != Some(&text) {
            tracing::warn!(error = text, code = error.code(), "the chain cannot be read");
        }
        known.view.problem = Some(text);
    }

    /// Reads the account at the newest final block.
    async fn read(&self) -> Result<EscrowReading, ChainError> {
        self.ready().await?;
        let at = self.chain.final_block().await?;
        self.read_at(at).await
    }

    async fn read_at(&self, at: Block) -> Result<EscrowReading, ChainError> {
        let Parties { account, spending_key, signer } = &self.parties;
        let reading = EscrowReading::of_parties(&self.chain, at, account, spending_key, signer).await?;
        let mut known = self.known();
        if let Some((before, _)) = &known.view.reading {
            self.tell_changes(before, &reading);
        }
        known.view = WalletView { reading: Some((reading, clock::wall())), problem: None };
        known.read_at = Some(Instant::now());
        Ok(reading)
    }

    /// What the account's owner has done elsewhere shows in the log.
    fn tell_changes(&self, before: &EscrowReading, now: &EscrowReading) {
        let account = self.parties.account;
        if now.account.exiting > before.account.exiting {
            tracing::warn!(%account, exiting = %now.account.exiting, free = %now.free(), "money of the account is on its way out");
        }
        if now.key_until != before.key_until {
            tracing::warn!(%account, spending_key = %self.parties.spending_key, "the account has changed what our key may do");
        }
    }

    /// Whether it is the right chain, and the escrow is what this program knows; asked until it is once.
    async fn ready(&self) -> Result<(), ChainError> {
        if !self.is_checked.load(Ordering::Acquire) {
            escrow::preflight(&self.chain, self.parties.signer, self.exit_delay).await?;
            self.is_checked.store(true, Ordering::Release);
        }
        Ok(())
    }

    /// One look; whether a channel can still change.
    async fn look(&self) -> Result<bool, LookError> {
        self.ready().await?;
        let at = self.chain.final_block().await?;
        self.read_at(at).await?;
        let live = self.store.live().await?;
        let read_to = self.store.read_to().await?;
        if live.is_empty() {
            // Nothing of ours was redeemed up to here that is not known.
            self.store.keep(Vec::new(), Some(at.number)).await?;
            return Ok(false);
        }
        let mut seen: BTreeMap<SessionId, ChannelRow> = live.into_iter().collect();
        let ids: Vec<ChannelId> = seen.values().map(|row| row.channel.id()).collect();
        let mut changed = false;
        for (row, there) in seen.values_mut().zip(self.chain.channels(&ids, &at).await?) {
            changed |= there.redeemed != row.redeemed || there.closed != row.closed;
            (row.redeemed, row.locked, row.closed) = (there.redeemed, there.locked, there.closed);
        }
        // Logs are read only when they have something to say.
        let from = read_to.map_or(at.number, |block| block.saturating_add(1));
        if changed && from <= at.number {
            self.note_redemptions(from, &at, &mut seen).await?;
        }
        let is_live = |row: &ChannelRow| !row.closed && row.redeem_until >= at.time;
        let goes_on = seen.values().any(is_live);
        let kept = seen.into_iter().map(|(session, row)| (session, row, is_live(&row))).collect();
        let read_to = if changed || read_to.is_none() { Some(at.number) } else { None };
        self.store.keep(kept, read_to).await?;
        Ok(goes_on)
    }

    /// When and by which transaction each channel was last redeemed from.
    async fn note_redemptions(&self, from: u64, at: &Block, seen: &mut BTreeMap<SessionId, ChannelRow>) -> Result<(), LookError> {
        let mut times: BTreeMap<u64, UnixSeconds> = BTreeMap::from([(at.number, at.time)]);
        for log in self.chain.redemptions(&self.parties.account, from, at.number).await? {
            let EscrowEvent::Redeemed { channel, .. } = log.event else { continue };
            let Some(session) = self.store.session_of(channel).await? else { continue };
            let is_read = times.contains_key(&log.block);
            if !is_read {
                let block = self.chain.block(log.block).await?;
                times.insert(log.block, block.map_or(at.time, |block| block.time));
            }
            if let Some(row) = seen.get_mut(&session) {
                row.last = times.get(&log.block).map(|at| Redemption { at: *at, transaction: log.transaction });
            }
        }
        Ok(())
    }
}
