//! How money reaches settlement and leaves it: one implementation per way.
//!
//! The books are the same on every rail; a rail says what an account's credit rests on and what becomes of a payout. [`LedgerRail`] is the embedded default for private
//! networks: credit is what the operator granted, and a payout is a line in an exported file that the operator carries out. On [`EvmRail`] credit is what an escrow contract holds, and
//! a payout is what it paid in a final block.

use std::fmt;

use orien_protocol::money::Usdc;
use orien_protocol::time::Timestamp;

use crate::batch::{Payout, PayoutState};

/// A way for money to come and go.
pub trait Rail: fmt::Debug + Send + Sync {
    /// Stable name for people and APIs.
    fn name(&self) -> &'static str;

    /// What an account's reservations may come to, given what the operator granted it.
    fn credit(&self, granted: Usdc) -> Usdc;

    /// Hands a payable payout over; the state that it is in then.
    fn pay_out(&self, payout: &Payout, at: Timestamp) -> PayoutState;

    /// Whether the books are folded from a chain's final logs: then only those redeem, and money comes by deposit.
    fn follows_chain(&self) -> bool;
}

/// Credits granted by the operator; payouts exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct LedgerRail;

impl Rail for LedgerRail {
    fn name(&self) -> &'static str {
        "ledger"
    }

    fn credit(&self, granted: Usdc) -> Usdc {
        granted
    }

    fn pay_out(&self, _: &Payout, at: Timestamp) -> PayoutState {
        PayoutState::Exported(at)
    }

    fn follows_chain(&self) -> bool {
        false
    }
}

/// USDC in an escrow contract; redemptions and payouts are its transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct EvmRail;

impl Rail for EvmRail {
    fn name(&self) -> &'static str {
        "evm"
    }

    fn credit(&self, granted: Usdc) -> Usdc {
        granted
    }

    fn pay_out(&self, payout: &Payout, _: Timestamp) -> PayoutState {
        payout.state
    }

    fn follows_chain(&self) -> bool {
        true
    }
}
