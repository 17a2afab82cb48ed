//! Folds a session's receipts and vouchers into sums.
//!
//! An [`Account`] takes receipts in order and refuses any that does not follow: wrong number, wrong predecessor, time or charge that falls, a charge that differs from
//! its own computation. Agent and provider fold the same receipts, so they hold the same account.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use thiserror::Error;

use crate::hash::Hash;
use crate::id::ExecutionId;
use crate::money::{AmountOverflow, Meter, Price, Usdc};
use crate::receipt::{EndReason, Receipt};
use crate::signing::Verified;
use crate::terms::VerifiedTerms;

/// The three sums of a session or account.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Balance {
    /// What receipts say was used.
    pub charged: Usdc,
    /// What vouchers promise.
    pub promised: Usdc,
    /// What settlement has redeemed.
    pub redeemed: Usdc,
}

/// A receipt does not follow from the ones before and the terms.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum LedgerError {
    /// It is for another session or other terms.
    #[error("the receipt belongs to another session or to other terms")]
    Foreign,
    /// Its number is not the next one.
    #[error("receipt {found} arrived where {expected} is next")]
    Gap {
        /// The next number.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// It names another predecessor.
    #[error("receipt {0} does not continue the chain: it names another predecessor")]
    Fork(u64),
    /// Its time or end contradicts an earlier receipt of the execution.
    #[error("execution {0} went backwards or had already ended")]
    Backwards(ExecutionId),
    /// An interim receipt reports no more time than the one before.
    #[error("an interim receipt of execution {0} reports nothing new")]
    NothingNew(ExecutionId),
    /// The tool is not in the terms.
    #[error("the receipt is for a tool that the terms do not name")]
    UnknownTool,
    /// The charge is not what the terms say.
    #[error("the receipt charges {found} USDC where the terms give {expected} USDC")]
    Charge {
        /// What the terms give.
        expected: Usdc,
        /// What the receipt says.
        found: Usdc,
    },
    /// A sum does not fit.
    #[error(transparent)]
    Overflow(#[from] AmountOverflow),
}

/// An execution that has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Live {
    price: Price,
    effective_ms: u64,
}

/// The running account of one session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    head: (u64, Hash),
    ended: Meter,
    live: BTreeMap<ExecutionId, Live>,
    charged: Usdc,
}

impl Default for Account {
    fn default() -> Self {
        Self { head: (0, Hash::ZERO), ended: Meter::default(), live: BTreeMap::new(), charged: Usdc::ZERO }
    }
}

impl Account {
    /// Number and content id of the newest receipt; (0, zero) before the first.
    pub const fn head(&self) -> (u64, Hash) {
        self.head
    }

    /// The session's charge according to the newest receipt.
    pub const fn charged(&self) -> Usdc {
        self.charged
    }

    /// Effective milliseconds of an execution according to its newest receipt; zero before.
    pub fn receipted_ms(&self, execution: &ExecutionId) -> u64 {
        self.live.get(execution).map_or(0, |live| live.effective_ms)
    }

    /// Whether an execution has a receipt and no final one.
    pub fn has_live(&self, execution: &ExecutionId) -> bool {
        self.live.contains_key(execution)
    }

    /// Executions with a receipt that is not final.
    pub fn unfinished(&self) -> impl Iterator<Item = ExecutionId> + '_ {
        self.live.keys().copied()
    }

    /// The meter with these executions at these times instead of their receipted ones; others stay as receipted.
    pub fn meter_with(&self, running: impl IntoIterator<Item = (ExecutionId, Price, u64)>) -> Result<Meter, AmountOverflow> {
        let mut live = self.live.clone();
        for (execution, price, effective_ms) in running {
            live.insert(execution, Live { price, effective_ms });
        }
        let mut meter = self.ended;
        for entry in live.values() {
            meter.add(entry.price, entry.effective_ms)?;
        }
        Ok(meter)
    }

    /// The meter of everything but one execution, as receipted.
    pub fn meter_without(&self, execution: &ExecutionId) -> Result<Meter, AmountOverflow> {
        let mut meter = self.ended;
        for (_, entry) in self.live.iter().filter(|(id, _)| *id != execution) {
            meter.add(entry.price, entry.effective_ms)?;
        }
        Ok(meter)
    }

    /// The session's charge if `execution` stood at `effective_ms`, or had failed to start.
    pub fn charge_at(
        &self,
        terms: &VerifiedTerms,
        execution: &ExecutionId,
        price: Price,
        effective_ms: u64,
        end: Option<EndReason>,
    ) -> Result<Usdc, AmountOverflow> {
        let mut meter = self.meter_without(execution)?;
        if end != Some(EndReason::SetupFailed) {
            meter.add(price, effective_ms)?;
        }
        terms.charge(&meter)
    }

    /// How much `ceiling` falls short of paying for one more metering interval of `price`, on top of `meter`; none when it suffices.
    pub fn shortfall(terms: &VerifiedTerms, meter: Meter, price: Price, ceiling: Usdc) -> Result<Option<Usdc>, AmountOverflow> {
        let mut meter = meter;
        meter.add(price, terms.metering_interval.0)?;
        let needed = terms.charge(&meter)?;
        Ok(if needed > ceiling { Some(needed.minus(ceiling)?) } else { None })
    }

    /// Takes the next receipt.
    pub fn apply(&mut self, terms: &VerifiedTerms, receipt: &Verified<Receipt>) -> Result<(), LedgerError> {
        if receipt.session != terms.session || receipt.terms != terms.hash() || receipt.signer() != terms.provider() {
            return Err(LedgerError::Foreign);
        }
        let expected = self.head.0.saturating_add(1);
        if receipt.number != expected {
            return Err(LedgerError::Gap { expected, found: receipt.number });
        }
        if receipt.previous != self.head.1 {
            return Err(LedgerError::Fork(receipt.number));
        }
        self.apply_work(terms, receipt)?;
        self.head = (receipt.number, receipt.hash());
        self.charged = receipt.charged;
        Ok(())
    }

    fn apply_work(&mut self, terms: &VerifiedTerms, receipt: &Receipt) -> Result<(), LedgerError> {
        let Some(work) = &receipt.work else {
            return same(terms.charge(&self.meter_with([])?)?, receipt.charged);
        };
        let price = terms.price(&work.tool).ok_or(LedgerError::UnknownTool)?;
        let end = work.outcome.map(|outcome| outcome.end);
        let (effective_ms, earlier) = (work.usage.effective_ms, self.receipted_ms(&work.execution));
        let never_ran = end == Some(EndReason::SetupFailed);
        if effective_ms < earlier || (never_ran && (effective_ms != 0 || self.has_live(&work.execution))) {
            return Err(LedgerError::Backwards(work.execution));
        }
        if end.is_none() && effective_ms == earlier {
            return Err(LedgerError::NothingNew(work.execution));
        }
        same(self.charge_at(terms, &work.execution, price, effective_ms, end)?, receipt.charged)?;
        same(if never_ran { Usdc::ZERO } else { price.of(effective_ms)? }, work.charge)?;
        if end.is_none() {
            self.live.insert(work.execution, Live { price, effective_ms });
            return Ok(());
        }
        if !never_ran {
            self.ended.add(price, effective_ms)?;
        }
        self.live.remove(&work.execution);
        Ok(())
    }
}

fn same(expected: Usdc, found: Usdc) -> Result<(), LedgerError> {
    if expected == found { Ok(()) } else { Err(LedgerError::Charge { expected, found }) }
}
