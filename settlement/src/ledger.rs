//! The double-entry ledger: accounts, transfers between two of them, and the balances that all transfers fold into.
//!
//! Always true: a transfer has one debit and one credit side, a whole positive amount and the next number, and is never changed; no balance is below zero except
//! the operator's, which is exactly minus the sum of all others.
//!
//! It does not know why money moves, who may move it, or where transfers are kept.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Where money stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum LedgerAccount {
    /// The source of every grant; the only account below zero.
    Operator,
    /// What an account can still reserve.
    Agent(Address),
    /// What is held for one channel and not redeemed.
    Channel(ChannelId),
    /// What a payout address earned and was not sent yet.
    Payee(Address),
    /// The platform's share.
    Platform,
    /// The reserve's share.
    Reserve,
    /// What a payout address earned and was sent.
    Settled(Address),
    /// What an account took out of the escrow again.
    Withdrawn(Address),
    /// What was redeemed on chain through channels that these books do not know.
    Elsewhere,
}

/// Why money moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reason {
    /// The operator granted credit.
    Grant,
    /// A channel's ceiling was raised.
    Reserve,
    /// A voucher was redeemed.
    Redeem,
    /// The payee closed the channel.
    Close,
    /// Redemption ended by time.
    Expire,
    /// A payout left.
    PayOut,
    /// A deposit is final on chain.
    Deposit,
    /// A withdrawal is final on chain.
    Withdraw,
    /// The chain paid out what these books held for others; an alarm goes with it.
    Uncovered,
    /// The chain redeemed a channel that these books do not know.
    Elsewhere,
}

/// Number of a transfer: from 1, without gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TransferId(pub u64);

/// Money that moved from one account to another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Transfer {
    /// Its number.
    pub id: TransferId,
    /// When, on this settlement's clock; for people.
    pub at: Timestamp,
    /// Whose balance falls.
    pub debit: LedgerAccount,
    /// Whose balance rises.
    pub credit: LedgerAccount,
    /// By how much; never zero.
    pub amount: Usdc,
    /// Why.
    pub reason: Reason,
}

/// A transfer that the ledger does not take. Out of a store it means that the store is damaged; out of our own planning, a bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PostError {
    /// A number is missing or used twice.
    #[error("transfer {found} stands where {expected} is next")]
    Number {
        /// The next number.
        expected: u64,
        /// The number it has.
        found: u64,
    },
    /// It moves nothing, or from an account to itself, or back to the operator.
    #[error("transfer {0} moves nothing, or between accounts that do not trade")]
    Senseless(u64),
    /// The debit side does not hold so much.
    #[error("transfer {id} takes {amount} USDC from {account:?}, which holds less")]
    Overdrawn {
        /// Which transfer.
        id: u64,
        /// From whom.
        account: LedgerAccount,
        /// How much.
        amount: Usdc,
    },
    /// A balance left 128 bits.
    #[error("transfer {0} does not fit: a balance would leave its range")]
    Overflow(u64),
}

/// All balances at one time, in micro-USDC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Sums {
    /// All that the operator ever granted: minus its balance.
    pub granted: u128,
    /// What accounts can still reserve.
    pub available: u128,
    /// Held for channels.
    pub reserved: u128,
    /// Earned by payees and not sent.
    pub earned: u128,
    /// The platform's.
    pub platform: u128,
    /// The reserve's.
    pub reserve: u128,
    /// Sent to payees.
    pub settled: u128,
    /// Taken out again by accounts.
    pub withdrawn: u128,
    /// Redeemed on chain through channels that are not in these books.
    pub elsewhere: u128,
}

impl Sums {
    /// Every place where granted money can stand.
    pub const fn parts(&self) -> [u128; 8] {
        [self.available, self.reserved, self.earned, self.platform, self.reserve, self.settled, self.withdrawn, self.elsewhere]
    }

    /// Whether every granted micro-USDC stands somewhere, once.
    pub fn balanced(&self) -> bool {
        self.parts().iter().try_fold(0_u128, |sum, part| sum.checked_add(*part)) == Some(self.granted)
    }
}

/// The balances that a list of transfers folds into.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Ledger {
    /// Every account but the operator's; an empty one is absent, so that ended channels take no room.
    balances: BTreeMap<LedgerAccount, u128>,
    /// Minus the operator's balance.
    granted: u128,
    /// Number of the newest transfer.
    newest: u64,
}

impl Ledger {
    /// What an account holds, in micro-USDC; zero for one never seen. The operator holds nothing: see [`Sums::granted`].
    pub fn balance(&self, account: &LedgerAccount) -> u128 {
        self.balances.get(account).copied().unwrap_or(0)
    }

    /// Number of the newest transfer; 0 before the first.
    pub const fn newest(&self) -> u64 {
        self.newest
    }

    /// All balances.
    pub fn sums(&self) -> Sums {
        let mut sums = Sums { granted: self.granted, ..Sums::default() };
        for (account, balance) in &self.balances {
            let part = match account {
                LedgerAccount::Operator => continue,
                LedgerAccount::Agent(_) => &mut sums.available,
                LedgerAccount::Channel(_) => &mut sums.reserved,
                LedgerAccount::Payee(_) => &mut sums.earned,
                LedgerAccount::Platform => &mut sums.platform,
                LedgerAccount::Reserve => &mut sums.reserve,
                LedgerAccount::Settled(_) => &mut sums.settled,
                LedgerAccount::Withdrawn(_) => &mut sums.withdrawn,
                LedgerAccount::Elsewhere => &mut sums.elsewhere,
            };
            // All balances together are at most `granted`, which is checked where it grows.
            *part = part.saturating_add(*balance);
        }
        sums
    }

    /// Takes the next transfer, or changes nothing.
    pub fn post(&mut self, transfer: &Transfer) -> Result<(), PostError> {
        let mut postings = Postings::new(self, transfer.at);
        postings.take(transfer)?;
        let Postings { touched, granted, newest, .. } = postings;
        self.granted = granted;
        self.newest = newest;
        for (account, balance) in touched {
            if balance == 0 {
                self.balances.remove(&account);
            } else {
                self.balances.insert(account, balance);
            }
        }
        Ok(())
    }
}

/// Transfers in the making, checked against a ledger that they do not change yet.
#[derive(Debug)]
pub struct Postings<'a> {
    ledger: &'a Ledger,
    at: Timestamp,
    touched: BTreeMap<LedgerAccount, u128>,
    granted: u128,
    newest: u64,
    transfers: Vec<Transfer>,
}

impl<'a> Postings<'a> {
    /// Starts after the ledger's newest transfer.
    pub const fn new(ledger: &'a Ledger, at: Timestamp) -> Self {
        Self { ledger, at, touched: BTreeMap::new(), granted: ledger.granted, newest: ledger.newest, transfers: Vec::new() }
    }

    /// Moves an amount; nothing at all when it is zero.
    pub fn add(&mut self, debit: LedgerAccount, credit: LedgerAccount, amount: Usdc, reason: Reason) -> Result<(), PostError> {
        if amount == Usdc::ZERO {
            return Ok(());
        }
        let id = self.newest.checked_add(1).ok_or(PostError::Overflow(self.newest))?;
        let transfer = Transfer { id: TransferId(id), at: self.at, debit, credit, amount, reason };
        self.take(&transfer)?;
        self.transfers.push(transfer);
        Ok(())
    }

    /// What an account will hold.
    pub fn balance(&self, account: &LedgerAccount) -> u128 {
        self.touched.get(account).copied().unwrap_or_else(|| self.ledger.balance(account))
    }

    /// The finished transfers.
    pub fn finish(self) -> Vec<Transfer> {
        self.transfers
    }

    fn take(&mut self, transfer: &Transfer) -> Result<(), PostError> {
        let id = transfer.id.0;
        let expected = self.newest.checked_add(1).ok_or(PostError::Overflow(id))?;
        if id != expected {
            return Err(PostError::Number { expected, found: id });
        }
        if transfer.amount == Usdc::ZERO || transfer.debit == transfer.credit || transfer.credit == LedgerAccount::Operator {
            return Err(PostError::Senseless(id));
        }
        let amount = u128::from(transfer.amount.micros());
        let credited = self.balance(&transfer.credit).checked_add(amount).ok_or(PostError::Overflow(id))?;
        if transfer.debit == LedgerAccount::Operator {
            self.granted = self.granted.checked_add(amount).ok_or(PostError::Overflow(id))?;
        } else {
            let overdrawn = PostError::Overdrawn { id, account: transfer.debit, amount: transfer.amount };
            let left = self.balance(&transfer.debit).checked_sub(amount).ok_or(overdrawn)?;
            self.touched.insert(transfer.debit, left);
        }
        self.touched.insert(transfer.credit, credited);
        self.newest = id;
        Ok(())
    }
}
