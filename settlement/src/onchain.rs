//! The driver between a chain and the desk: it follows final blocks, brings claims into transactions, and compares books and chain.
//!
//! Always true: final logs go into the books with their cursor before anything is concluded from them; a transaction leaves after its bytes are on disk; when the chain
//! contradicts itself or the books, the desk is halted and says why. It decides nothing about money: books and [`crate::paying`] do.
//!
//! One step is made at a time. It does not know when: whoever runs it passes the time in.

mod folding;
mod port;
mod reconciling;
mod rounds;
mod sending;

use std::sync::Arc;

use orien_chain::{ChainError, ChainFacts, Expected, Wei};
use orien_protocol::id::BatchId;
use orien_protocol::signing::MoneyKey;
use orien_protocol::time::{Millis, Timestamp};
use thiserror::Error;

use crate::desk::DeskError;
use crate::paying::{Machine, Policy, Rules};

pub(crate) use folding::STANDSTILL;
pub use port::{ChainPort, Counter};
use reconciling::Comparison;
pub use reconciling::{Difference, Reconciliation};
pub(crate) use rounds::{CompareNow, REQUESTS_MAX, follow};

/// When a comparison that could not be made is tried again.
const COMPARE_AGAIN: Millis = Millis::from_secs(60);
/// The same for the first of a process, which every promise waits for.
const COMPARE_FIRST_AGAIN: Millis = Millis::from_secs(2);
/// Most batches of one step; each is of one transaction.
const BATCHES_PER_STEP: usize = 50;

/// How a driver works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Works {
    /// When claims are worth a transaction.
    pub policy: Policy,
    /// Times and limits of transactions.
    pub rules: Rules,
    /// Books and chain are compared this often, and at the start.
    pub reconcile_every: Millis,
    /// Below this the operator is told that the sender runs out of gas money.
    pub gas_money_low: Wei,
}

impl Default for Works {
    fn default() -> Self {
        Self {
            policy: Policy::default(),
            rules: Rules::default(),
            reconcile_every: Millis::from_secs(3_600),
            // Some ten transactions of sixty claims at 10 gwei.
            gas_money_low: Wei(1_000_000_000_000_000_000),
        }
    }
}

/// Why a step was not finished. The next one goes on from what is stored.
#[derive(Debug, Error)]
pub enum StepError {
    /// The desk refused or is shut.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// The chain could not be read, or says what cannot be.
    #[error(transparent)]
    Chain(#[from] ChainError),
}

/// Follows one chain for one desk, with one sender.
#[derive(Debug)]
pub struct Follower<P, D> {
    port: P,
    desk: D,
    facts: ChainFacts,
    key: Arc<MoneyKey>,
    works: Works,
    machine: Option<Machine>,
    checked: bool,
    compare_at: Option<Timestamp>,
    /// The comparison that is not at its end.
    comparing: Option<Comparison>,
    /// Whether a comparison was made since this driver began.
    compared: bool,
    gas_money_seen_at: Option<Timestamp>,
}

impl<P: ChainPort, D: Counter> Follower<P, D> {
    /// A driver that has done nothing yet. `key` sends its transactions and pays for their gas.
    pub const fn new(port: P, desk: D, facts: ChainFacts, key: Arc<MoneyKey>, works: Works) -> Self {
        Self {
            port,
            desk,
            facts,
            key,
            works,
            machine: None,
            checked: false,
            compare_at: None,
            comparing: None,
            compared: false,
            gas_money_seen_at: None,
        }
    }

    /// Checks that chain, escrow and token are those of the network, with this settlement's signer.
    pub async fn preflight(&mut self, expected: &Expected) -> Result<(), ChainError> {
        self.port.preflight(expected).await?;
        self.checked = true;
        Ok(())
    }

    /// Makes one step: reads what is new, settles what is final, compares when that is due, sends what is worth it. `batch_ids` gives names for new batches.
    pub async fn step(&mut self, now: Timestamp, batch_ids: &mut (dyn FnMut() -> Option<BatchId> + Send)) -> Result<(), StepError> {
        self.fold(now).await?;
        for _ in 0..BATCHES_PER_STEP {
            let Some(id) = batch_ids() else { break };
            let made = self.desk.call(move |desk| desk.batch(id, None, now)).await?;
            match made {
                Some(batch) => tracing::info!(%batch, "settled what a transaction redeemed"),
                None => break,
            }
        }
        // The first comes before anything is paid. Later ones hold up nothing that waits to be sent.
        let first = !self.compared;
        if first {
            self.compare_when_due(now).await?;
        }
        self.pay(now).await?;
        self.look_at_gas_money(now).await?;
        if first { Ok(()) } else { self.compare_when_due(now).await }
    }

    /// Whether a comparison is under way, so that the next step need not be waited for.
    pub(crate) fn is_comparing(&self) -> bool {
        self.comparing.is_some() && self.compare_at.is_none()
    }

    /// A comparison that fails holds up no payment: some nodes keep no state of older blocks. Until the first has been made nothing is promised.
    async fn compare_when_due(&mut self, now: Timestamp) -> Result<(), StepError> {
        if self.compare_at.is_some_and(|at| now < at) {
            return Ok(());
        }
        let again = if self.compared { COMPARE_AGAIN } else { COMPARE_FIRST_AGAIN };
        let (pause, text) = match self.go_on_comparing(now).await {
            Ok(Some(Some(_))) => {
                self.compared = true;
                (self.works.reconcile_every, None)
            }
            Ok(Some(None)) => (again, None),
            // There is more: it goes on with the next step.
            Ok(None) => {
                self.compare_at = None;
                return Ok(());
            }
            Err(StepError::Chain(error)) => (again, Some(error.to_string())),
            Err(error) => return Err(error),
        };
        self.compare_at = Some(now.plus(pause));
        Ok(self.desk.call(move |desk| desk.notice("not_reconciled", text, now)).await?)
    }

    async fn look_at_gas_money(&mut self, now: Timestamp) -> Result<(), StepError> {
        /// Often enough to be told in time, and no burden for a node.
        const EVERY: Millis = Millis::from_secs(300);
        if self.gas_money_seen_at.is_some_and(|at| now.since(at) < EVERY) {
            return Ok(());
        }
        let address = self.key.address();
        let held = self.port.native_balance(&address).await?;
        self.gas_money_seen_at = Some(now);
        let low = (held < self.works.gas_money_low).then(|| format!("{address} holds {held} of the chain's coin to pay for gas"));
        Ok(self.desk.call(move |desk| desk.notice("gas_money_low", low, now)).await?)
    }
}
