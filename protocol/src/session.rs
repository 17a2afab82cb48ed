//! The two sides of a session as pure state machines: [`provider`] and [`agent`].
//!
//! A machine is handed one input and the time, and hands back an ordered list of effects. **Its driver carries them out in order; after a persist nothing further happens until the commit has
//! returned, and if the commit fails the process ends.** All decisions about money are here; drivers make none.
//!
//! Opening (M14): the agent proposes terms, the provider countersigns and holds a place, settlement reserves, the provider issues receipt 1 for the minimum charge, and the
//! first voucher opens the session. From then on every receipt is answered by a voucher.

pub mod agent;
pub mod provider;

use thiserror::Error;

use crate::fault::Fault;
use crate::ledger::LedgerError;
use crate::signing::SignatureError;
use crate::terms::TermsError;
use crate::time::Millis;

/// How long a provider holds a place for a session whose first voucher has not come.
pub const HOLD: Millis = Millis::from_secs(30);
/// How long an agent waits for an opening: a provider gives up after one hold, settlement may take a while.
pub const OPENING_PATIENCE: Millis = Millis::from_secs(60);
/// How long paused work waits for a voucher before it is killed.
pub const VOUCHER_GRACE: Millis = Millis::from_secs(10);
/// How long paused work waits for settlement to redeem what was promised before it is killed, where what is redeemed counts at once: a claim is handed in at once, and settlement may be restarting.
pub const REDEMPTION_GRACE: Millis = Millis::from_secs(60);
/// How long an ending session waits for its last vouchers before it closes with a debt, or for the word of a connected provider before the agent gives up.
pub const DRAIN_GRACE: Millis = Millis::from_secs(30);
/// How long a session without a connection and without work is kept.
pub const AGENT_GONE: Millis = Millis::from_secs(300);
/// Most runs of one session: each leaves an entry in memory on both sides.
pub const RUNS_LIMIT: usize = 10_000;
/// Most jobs that wait for their turn within a session.
pub const WAITING_LIMIT: usize = 64;
/// Most receipts without a voucher; work is paused until some are answered.
pub const UNANSWERED_LIMIT: usize = 256;

/// How long paused work waits for a redemption in a network whose final block is so far behind: what is redeemed, or locked, in time counts only so much later.
pub const fn redemption_grace(finality_lag: Millis) -> Millis {
    Millis(REDEMPTION_GRACE.0.saturating_add(finality_lag.0))
}

/// Stored records do not form a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The records are not in the order in which they can happen.
    #[error("the records of the session are not in order")]
    Order,
    /// A signature on disk is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The terms on disk are wrong.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// The receipts on disk do not follow from each other.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An allowance or voucher on disk is wrong.
    #[error(transparent)]
    Money(#[from] Fault),
}
