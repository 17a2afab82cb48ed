//! A provider without its network: its store, its sandbox, its sessions, and the way to settlement.
//!
//! Always true: when it opens, nothing of an earlier process runs, every unfinished session of an earlier process has been ended with the receipts it is owed, and every
//! promise that is not redeemed is on its way to settlement; when it has closed, no task and no tool of it is left.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_chain::{Chain, ChainError};
use orien_protocol::binding::Binding;
use orien_protocol::credit::{CreditBook, CreditPolicy};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::network::NetworkId;
use orien_protocol::offer::{Confinement, Offer};
use orien_protocol::peer::PeerId;
use orien_protocol::session::provider::{ProviderKeys, ProviderPhase};
use orien_protocol::signing::{Address, MoneyDomain};
use orien_protocol::time::{Millis, Timestamp};
use orien_sandbox::{Level, Sandbox, SandboxConfig};
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::admission::Standing;
use crate::chain::{ChainView, CollectPolicy, Collected, RoundError, Ways};
use crate::clerk::Visit;
use crate::collector::{Collector, HandIns, Settlement, is_settled};
use crate::config::ProviderConfig;
use crate::desk::{self, Desk};
use crate::earnings::{self, Earnings, Takings};
use crate::executor::Workshop;
use crate::house::{House, Parts};
use crate::line::Io;
use crate::places::Places;
use crate::store::{Past, Store, StoreError, Summary};
use crate::toolbox::Toolbox;

pub use crate::clerk::SessionView;
pub use crate::desk::Purpose;

/// Sessions get so long for their last receipts and vouchers when the node stops; what is left then is picked up at the next start.
const STOP_TIME_MAX: Duration = Duration::from_secs(10);
/// The last claims get so long; they are made again at the next start.
const LAST_CLAIMS_TIME_MAX: Duration = Duration::from_secs(3);
/// What was said last gets so long to be written.
const LAST_WORDS_TIME_MAX: Duration = Duration::from_secs(1);
/// Tasks that were told to end at once are waited for no longer than a workspace takes to be removed.
const HALT_TIME_MAX: Duration = Duration::from_secs(20);
/// How often time in service is noted.
const CHORES_EVERY: Duration = Duration::from_secs(60);
/// How often old sessions are looked for, which reads every record.
const FORGET_EVERY: Duration = Duration::from_secs(3600);
/// A session is kept for so long after its promises can no longer be redeemed, so that a repeated request still finds its answer.
const KEPT_AFTER_REDEMPTION: Millis = Millis::from_secs(24 * 3600);
/// Promises are handed in at once when they make up this part of what may wait.
const HAND_IN_PART: u64 = 4;

/// What a shop is opened with.
#[derive(Clone, Debug)]
pub struct ShopConfig {
    /// The store's file.
    pub store: PathBuf,
    /// The directory for workspaces; everything in it is removed.
    pub workspaces: PathBuf,
    /// The program that answers to the sandbox's hidden arguments; none for the running one.
    pub helper: Option<PathBuf>,
    /// What is sold.
    pub provider: ProviderConfig,
    /// What receipts and closes are signed with.
    pub keys: ProviderKeys,
    /// Where earnings go.
    pub payout: Address,
    /// The network.
    pub network: NetworkId,
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Whose allowances count.
    pub settlement_signer: Address,
    /// How long the chain takes to be sure.
    pub finality_lag: Millis,
    /// How long an account's exit takes.
    pub exit_delay: Millis,
    /// How much is risked with each account.
    pub credit: CreditPolicy,
    /// The chain, where the network has one.
    pub chain: Option<Chain>,
    /// When the provider collects without settlement.
    pub collect: CollectPolicy,
}

/// Why a shop does not open.
#[derive(Debug, Error)]
pub enum OpenShopError {
    /// The store cannot be used.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// Tools cannot be confined here.
    #[error(transparent)]
    Sandbox(#[from] orien_sandbox::OpenError),
}

/// The chain did not let the provider collect; nothing is known to have been sent.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct CollectError(pub ChainError);

/// A provider at work.
pub struct Shop {
    house: Arc<House>,
    desk: Desk,
    helpers: TaskTracker,
    stop_helpers: CancellationToken,
}

impl std::fmt::Debug for Shop {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shop").field("sessions", &self.house.views()).finish_non_exhaustive()
    }
}

impl Shop {
    /// Opens the store, clears what an earlier process left, picks its sessions up, and starts to hand in.
    pub async fn open(config: ShopConfig, settlement: impl Settlement) -> Result<Self, OpenShopError> {
        let store = Store::open(&config.store)?;
        Self::over(store, config, settlement).await
    }

    /// The same with a store that is open already.
    pub async fn over(store: Store, config: ShopConfig, settlement: impl Settlement) -> Result<Self, OpenShopError> {
        let mut sandbox = SandboxConfig::new(config.workspaces.clone());
        sandbox.helper = config.helper.clone().unwrap_or(sandbox.helper);
        sandbox.min_level = config.provider.sandbox.min_level;
        sandbox.first_user = config.provider.sandbox.first_user;
        // Tools of an earlier process are killed before their sessions are reported on.
        let sandbox = Sandbox::open(sandbox).await?;
        store.note_running(clock::wall(), 0).await?;
        let house = House::new(parts(&config, sandbox, store));
        pick_up(&house).await?;
        let stop_helpers = CancellationToken::new();
        let helpers = TaskTracker::new();
        helpers.spawn(Collector::new(Arc::clone(&house), settlement).work(stop_helpers.clone()));
        helpers.spawn(chores(Arc::clone(&house), stop_helpers.clone()));
        helpers.spawn(watch_chain(Arc::clone(&house), stop_helpers.clone()));
        Ok(Self { desk: Desk::new(Arc::clone(&house)), house, helpers, stop_helpers })
    }

    /// Takes a stream that an authenticated peer opened.
    pub fn receive(&self, peer: PeerId, purpose: Purpose, io: impl Io) {
        self.desk.receive(peer, purpose, Box::new(io));
    }

    /// Honours an offer from now on, until it expires.
    pub fn honour(&self, hash: Hash, offer: Offer) {
        self.house.honour(hash, offer);
    }

    /// Where earnings go.
    pub fn payout(&self) -> Address {
        self.house.standing.binding.principal
    }

    /// How strongly tools are confined here.
    pub fn confinement(&self) -> Confinement {
        match self.house.workshop.sandbox.level() {
            Level::S0 => Confinement::S0,
            Level::S1 => Confinement::S1,
            Level::S2 => Confinement::S2,
            Level::S3 => Confinement::S3,
        }
    }

    /// How many sessions could be opened, now and whenever that changes.
    pub fn free(&self) -> watch::Receiver<u16> {
        self.house.places.free()
    }

    /// Sessions that are here, as they stand.
    pub fn sessions(&self) -> Vec<(SessionId, SessionView)> {
        self.house.views()
    }

    /// The provider's own past.
    pub async fn past(&self) -> Result<Past, StoreError> {
        self.house.store.past().await
    }

    /// What was earned, folded from what is stored.
    pub async fn takings(&self) -> Result<Takings, StoreError> {
        Ok(self.earnings(0).await?.takings)
    }

    /// The same, with so many of the newest sessions.
    pub async fn earnings(&self, newest: usize) -> Result<Earnings, StoreError> {
        earnings::of(&self.house, newest).await
    }

    /// What is known of the chain, and who pays for gas; none where there is no chain.
    pub fn chain(&self) -> Option<(ChainView, Address)> {
        self.house.chain.as_ref().map(|chain| (chain.view(), chain.payer()))
    }

    /// Redeems everything that waits, without settlement; none where there is no chain.
    pub async fn collect(&self) -> Result<Option<Collected>, CollectError> {
        let Some(chain) = &self.house.chain else { return Ok(None) };
        match chain.collect(&self.house).await {
            Ok(collected) => Ok(Some(collected)),
            Err(RoundError::Chain(error)) => Err(CollectError(error)),
            Err(RoundError::Store(error)) => {
                // What is on disk counts: the process ends, and goes on from there.
                let reason = error.to_string();
                self.house.fail(error);
                Err(CollectError(ChainError::Config(reason)))
            }
        }
    }

    /// Back when a write has failed: the process has to end then.
    pub async fn broken(&self) {
        self.house.broken.cancelled().await;
    }

    /// The write that failed, if one did.
    pub fn failure(&self) -> Option<String> {
        self.house.failure().map(ToString::to_string)
    }

    /// Ends every session in an orderly way as far as a few seconds allow, hands in what they earned, and stops everything.
    pub async fn close(&self) {
        let deadline = Instant::now() + STOP_TIME_MAX;
        for counter in self.house.counters() {
            // Full or gone: it is told by the halt.
            let _ = counter.visits.try_send(Visit::Stop);
        }
        self.house.tasks.close();
        let _ = tokio::time::timeout_at(deadline, until_no_sessions(&self.house)).await;
        let mut waiting = self.house.collector.waiting();
        let _ = timeout(LAST_CLAIMS_TIME_MAX, waiting.wait_for(|waiting| *waiting == 0)).await;
        let _ = timeout(LAST_WORDS_TIME_MAX, self.house.tasks.wait()).await;
        self.house.halt.cancel();
        if timeout(HALT_TIME_MAX, self.house.tasks.wait()).await.is_err() {
            tracing::error!(left = self.house.tasks.len(), "tasks do not end");
        }
        self.stop_helpers.cancel();
        self.helpers.close();
        self.helpers.wait().await;
    }
}

impl Drop for Shop {
    /// A shop that was not closed in order still leaves no task behind.
    fn drop(&mut self) {
        self.house.halt.cancel();
        self.stop_helpers.cancel();
    }
}

fn parts(config: &ShopConfig, sandbox: Sandbox, store: Store) -> Parts {
    let peer = config.keys.peer.id();
    let binding = Binding { peer, money_key: config.keys.claim.address(), principal: config.payout, network: config.network.clone() };
    Parts {
        standing: Standing {
            network: config.network.clone(),
            binding,
            domain: config.domain,
            settlement_signer: config.settlement_signer,
            finality_lag: config.finality_lag,
            exit_delay: config.exit_delay,
        },
        keys: config.keys.clone(),
        workshop: Workshop {
            sandbox,
            toolbox: Toolbox::new(&config.provider),
            workspace: config.provider.workspace,
            network_bytes: config.provider.sandbox.network_bytes,
            runs_per_session: config.provider.runs_per_session,
        },
        store,
        places: Places::new(config.provider.sessions),
        collector: HandIns::default(),
        chain: config.chain.clone().map(|chain| Ways::new(chain, Arc::clone(&config.keys.claim), config.exit_delay, config.collect)),
        hand_in_at: Usdc::from_micros(config.credit.unredeemed_cap.micros() / HAND_IN_PART),
        book: CreditBook::new(config.credit),
    }
}

/// Folds what is stored into the book, and ends what an earlier process left open.
async fn pick_up(house: &Arc<House>) -> Result<(), StoreError> {
    // Sessions that are forgotten count as one that is long over.
    let past = SessionId::from_bytes([0; 16]);
    for (account, redeemed) in house.store.history().await? {
        let mut book = house.book();
        book.note(account, past, Usdc::ZERO, redeemed, true);
        book.redeemed(account, past, redeemed);
    }
    for session in house.store.sessions().await? {
        let Some(summary) = house.store.summary(session).await? else {
            tracing::error!(%session, "a stored session does not begin with its opening and is left alone");
            continue;
        };
        let handed = house.store.handed(session).await?;
        // One that never opened promised nothing, and is only kept so that it cannot open any more.
        if summary.has_opened() {
            house.book().note(summary.account(), session, Usdc::ZERO, summary.promised(), summary.is_over());
            house.book().redeemed(summary.account(), session, handed.state.redeemed);
        }
        if let Some(chain) = house.chain.as_ref().filter(|_| summary.has_opened()) {
            chain.watch(summary.terms.by_agent.unverified(), summary.allowance.unverified().ceiling);
        }
        if summary.has_opened() && !is_settled(&summary, &handed) {
            house.collector.hand_in(session);
        }
        if !summary.is_over() {
            end(house, session, &summary).await?;
        }
    }
    Ok(())
}

async fn end(house: &Arc<House>, session: SessionId, summary: &Summary) -> Result<(), StoreError> {
    match desk::restore(house, session).await? {
        Ok((clerk, counter, effects)) => {
            tracing::info!(%session, charged = %summary.charged, promised = %summary.promised(), "a session of an earlier start is ended");
            // Nobody else can have it: the desk is not open yet.
            let _ = house.employ(session, clerk, counter, effects, None);
        }
        Err(error) => tracing::error!(%session, %error, "a stored session cannot be picked up and is left alone"),
    }
    Ok(())
}

/// Looks at the chain, where there is one.
async fn watch_chain(house: Arc<House>, stop: CancellationToken) {
    if let Some(chain) = &house.chain {
        chain.work(&house, stop).await;
    }
}

/// Until every session that is told to stop has nothing left to do.
async fn until_no_sessions(house: &House) {
    for counter in house.counters() {
        counter.visits.closed().await;
    }
}

/// Notes time in service and forgets what nobody can ask for any more.
async fn chores(house: Arc<House>, stop: CancellationToken) {
    let mut since = Instant::now();
    let mut looked_at = None::<Instant>;
    loop {
        let stopped = stop.run_until_cancelled(tokio::time::sleep(CHORES_EVERY)).await.is_none();
        let ran = u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX);
        since = Instant::now();
        let is_due = !stopped && looked_at.is_none_or(|at| at.elapsed() >= FORGET_EVERY);
        let done = async {
            house.store.note_running(clock::wall(), ran).await?;
            if is_due { forget_old(&house).await } else { Ok(()) }
        };
        if let Err(error) = done.await {
            return house.fail(error);
        }
        if stopped {
            return;
        }
        if is_due {
            looked_at = Some(since);
        }
    }
}

async fn forget_old(house: &House) -> Result<(), StoreError> {
    let now = clock::wall();
    house.store.forget_given_up(Timestamp(now.0.saturating_sub(KEPT_AFTER_REDEMPTION.0)).seconds()).await?;
    for session in house.store.sessions().await? {
        if house.counter(session).is_some() {
            continue;
        }
        let Some(summary) = house.store.summary(session).await? else { continue };
        let kept_until = summary.redeem_until().timestamp().plus(KEPT_AFTER_REDEMPTION);
        // What is owed is remembered for as long as it is owed.
        if summary.is_over() && kept_until <= now {
            house.store.forget(session, summary.account()).await?;
        }
    }
    Ok(())
}

/// Whether a session is one that the owner would call active.
pub(crate) fn is_active(view: &SessionView) -> bool {
    matches!(view.phase, ProviderPhase::Open | ProviderPhase::Unpaid(_) | ProviderPhase::Draining(..))
}
