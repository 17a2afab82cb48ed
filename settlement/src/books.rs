//! The books: who has credit, which channels hold some of it, what was redeemed, what is owed to whom.
//!
//! Every operation is planned against the books without changing them and gives a [`Change`]; whoever keeps the books stores the change first and applies it then. All sums
//! are folded from transfers and channel records. Repeating an operation, or getting claims late or out of order, changes nothing.
//!
//! Nothing here reads a clock, a disk or a random source.

mod batching;
mod claiming;
mod granting;
mod onchain;
mod payouts;
mod record;
mod releasing;
mod reserving;
mod restoring;
mod sweeping;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::{ChannelState, Earnings, Funds};
use orien_protocol::hash::Hash;
use orien_protocol::id::PayoutId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use thiserror::Error;

use crate::batch::{Payout, PayoutState};
use onchain::ChainBooks;

use crate::house::House;
use crate::ledger::{Ledger, LedgerAccount, PostError, Sums};
use crate::rail::Rail;

pub use granting::Grant;
pub use onchain::{
    CHAIN_KEYS_MAX, Candidate, ChainAccount, ChainChange, ChainChannel, ChainTotals, Cursor, FinalLog, Halt, Parked, Redemption, Sight,
};
pub use record::{AccountRecord, Change, ChannelRecord, ChannelStatus, FirstAnswer, RequestKey, RequestRecord};
pub use reserving::{LIVE_CHANNELS_MAX, REQUESTS_PER_CHANNEL_MAX};
pub use restoring::Restore;

/// Most spending keys of one account: one per gateway that it feeds.
pub const SPENDING_KEYS_MAX: usize = 16;

/// Stored records contradict each other, or a planned change does not fit: going on would invent or lose money.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum BooksError {
    /// A transfer is out of place.
    #[error(transparent)]
    Post(#[from] PostError),
    /// Transfers and records do not agree.
    #[error("the books do not add up: {what} is {ledger} micro-USDC by the transfers and {records} by the records")]
    Disagree {
        /// Which sum.
        what: String,
        /// By the transfers.
        ledger: u128,
        /// By the records.
        records: u128,
    },
    /// A record is missing or impossible.
    #[error("the books are damaged: {0}")]
    Damaged(String),
}

/// An account with what follows from its channels.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
struct AccountState {
    record: AccountRecord,
    reserved: u128,
    redeemed: u128,
    live: usize,
}

/// All that settlement knows, as far as it is needed to decide. Channels whose story is over may be set aside, see [`Books::set_aside`].
#[derive(Clone, Debug)]
pub struct Books {
    house: Arc<House>,
    rail: Arc<dyn Rail>,
    ledger: Ledger,
    accounts: BTreeMap<Address, AccountState>,
    channels: BTreeMap<ChannelId, ChannelRecord>,
    /// Live channels by the end of their redemption.
    ends: BTreeSet<(UnixSeconds, ChannelId)>,
    /// Channels that were redeemed further than their last batch.
    unbatched: BTreeSet<ChannelId>,
    requests: BTreeMap<RequestKey, RequestRecord>,
    payable: BTreeMap<PayoutId, Payout>,
    newest_batch: Hash,
    chain: ChainBooks,
}

impl Books {
    /// Empty books.
    pub fn new(house: Arc<House>, rail: Arc<dyn Rail>) -> Self {
        Self {
            house,
            rail,
            ledger: Ledger::default(),
            accounts: BTreeMap::new(),
            channels: BTreeMap::new(),
            ends: BTreeSet::new(),
            unbatched: BTreeSet::new(),
            requests: BTreeMap::new(),
            payable: BTreeMap::new(),
            newest_batch: Hash::ZERO,
            chain: ChainBooks::default(),
        }
    }

    /// Takes a change that was stored. A failure means that stored and held books differ: stop and start again from the store.
    pub fn apply(&mut self, change: &Change) -> Result<(), BooksError> {
        for transfer in &change.transfers {
            self.ledger.post(transfer)?;
        }
        for (address, record) in &change.accounts {
            self.accounts.entry(*address).or_default().record = record.clone();
        }
        for record in &change.channels {
            self.put_channel(record)?;
        }
        for (key, record) in &change.requests {
            self.requests.insert(key.clone(), record.clone());
        }
        for key in &change.forgotten {
            self.requests.remove(key);
        }
        if let Some(batch) = &change.batch {
            self.newest_batch = batch.summary.unverified().content_id(&self.house.facts().network);
        }
        for payout in &change.payouts {
            match payout.state {
                PayoutState::Payable => self.payable.insert(payout.id, *payout),
                PayoutState::Exported(_) | PayoutState::Final { .. } | PayoutState::Credited { .. } => self.payable.remove(&payout.id),
            };
        }
        self.chain.apply(&change.chain);
        for (channel, _, _) in &change.chain.channels {
            if !self.channels.contains_key(channel) {
                self.chain.set_aside(channel);
            }
        }
        Ok(())
    }

    fn put_channel(&mut self, record: &ChannelRecord) -> Result<(), BooksError> {
        let id = record.id();
        let account = self.accounts.entry(record.account).or_default();
        let (mut held, mut redeemed, mut live) = (0, 0, 0);
        if let Some(old) = self.channels.get(&id) {
            (held, redeemed, live) = (old.held(), u128::from(old.redeemed.micros()), usize::from(old.live()));
        }
        let damaged = || BooksError::Damaged(format!("channel {id} went backwards"));
        let step = |sum: u128, old: u128, new: u128| sum.checked_sub(old).and_then(|rest| rest.checked_add(new)).ok_or_else(damaged);
        account.reserved = step(account.reserved, held, record.held())?;
        account.redeemed = step(account.redeemed, redeemed, u128::from(record.redeemed.micros()))?;
        account.live = account.live.saturating_sub(live).saturating_add(usize::from(record.live()));
        self.index(record);
        self.channels.insert(id, record.clone());
        Ok(())
    }

    fn index(&mut self, record: &ChannelRecord) {
        let id = record.id();
        let end = (record.redeem_until, id);
        if record.live() {
            self.ends.insert(end)
        } else {
            self.ends.remove(&end)
        };
        if record.batched < record.redeemed {
            self.unbatched.insert(id)
        } else {
            self.unbatched.remove(&id)
        };
    }

    /// Whether a channel is held here; one that is not may have been set aside.
    pub fn holds(&self, channel: &ChannelId) -> bool {
        self.channels.contains_key(channel)
    }

    /// Drops a channel that has ended and is wholly in batches; its sums stay. Gives whether it did.
    pub fn set_aside(&mut self, channel: &ChannelId) -> bool {
        let over = self.channels.get(channel).is_some_and(|record| !record.live() && record.batched == record.redeemed);
        if over {
            self.channels.remove(channel);
            self.chain.set_aside(channel);
        }
        over
    }

    /// Takes a channel back that was set aside, because somebody asks about it. Its sums are already counted.
    pub fn recall(&mut self, record: ChannelRecord, chain: Option<ChainChannel>) {
        if !self.holds(&record.id()) {
            if let Some(chain) = chain {
                self.chain.put_channel(record.id(), record.account, chain);
            }
            self.index(&record);
            self.channels.insert(record.id(), record);
        }
    }

    /// What an account is worth.
    pub fn funds(&self, account: &Address) -> Funds {
        let Some(state) = self.accounts.get(account) else { return Funds::default() };
        let funded = self.rail.credit(state.record.granted);
        let (reserved, redeemed) = (micros(state.reserved), micros(state.redeemed));
        let standing = micros(self.ledger.balance(&LedgerAccount::Agent(*account)));
        let bound = self.chain.accounts.get(account).map_or(0, |chain| {
            let wide = |amount: Usdc| u128::from(amount.micros());
            self.locked_beyond(account).saturating_add(wide(chain.exiting)).saturating_add(wide(chain.uncovered))
        });
        let available = standing.min(funded.excess_over(reserved).excess_over(redeemed)).excess_over(micros(bound));
        Funds { funded, reserved, redeemed, available }
    }

    /// An account's keys and limits.
    pub fn account(&self, account: &Address) -> Option<&AccountRecord> {
        self.accounts.get(account).map(|state| &state.record)
    }

    /// A channel's record.
    pub fn channel(&self, channel: &ChannelId) -> Option<&ChannelRecord> {
        self.channels.get(channel)
    }

    /// A channel in short; the empty state for one that was never reserved.
    pub fn channel_state(&self, channel: &ChannelId) -> ChannelState {
        self.channels.get(channel).map(ChannelRecord::state).unwrap_or_default()
    }

    /// What a payout address earned.
    pub fn earnings(&self, payee: &Address) -> Earnings {
        let pending = micros(self.ledger.balance(&LedgerAccount::Payee(*payee)));
        let settled = micros(self.ledger.balance(&LedgerAccount::Settled(*payee)));
        // Both together are at most what was granted to accounts, each of which fits; a sum that does not is shown as the largest amount.
        let earned = pending.plus(settled).unwrap_or(Usdc::from_micros(u64::MAX));
        Earnings { earned, settled, pending }
    }

    /// All balances.
    pub fn sums(&self) -> Sums {
        self.ledger.sums()
    }

    /// The ledger.
    pub const fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The house.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// How many channels are live.
    pub fn live_channels(&self) -> usize {
        self.ends.len()
    }

    /// Checks that balances and records say the same of every account, and that all sums come to zero.
    pub fn check_sums(&self) -> Result<(), BooksError> {
        let sums = self.sums();
        if !sums.balanced() {
            let records = sums.parts().iter().fold(0_u128, |sum, part| sum.saturating_add(*part));
            return Err(BooksError::Disagree { what: "the sum of all accounts".to_owned(), ledger: sums.granted, records });
        }
        let mut reserved = 0_u128;
        for (address, state) in &self.accounts {
            let granted = u128::from(state.record.granted.micros());
            let standing = self.ledger.balance(&LedgerAccount::Agent(*address));
            let records = standing.saturating_add(state.reserved).saturating_add(state.redeemed);
            agree(|| format!("the credit of {address}"), granted, records)?;
            reserved = reserved.saturating_add(state.reserved);
        }
        agree(|| "what is reserved in channels".to_owned(), sums.reserved, reserved)?;
        for record in self.channels.values() {
            let held = self.ledger.balance(&LedgerAccount::Channel(record.id()));
            agree(|| format!("channel {}", record.id()), held, record.held())?;
        }
        Ok(())
    }
}

fn agree(what: impl FnOnce() -> String, ledger: u128, records: u128) -> Result<(), BooksError> {
    if ledger == records { Ok(()) } else { Err(BooksError::Disagree { what: what(), ledger, records }) }
}

/// A balance as an amount; one beyond 64 bits is shown as the largest.
fn micros(balance: u128) -> Usdc {
    Usdc::from_micros(u64::try_from(balance).unwrap_or(u64::MAX))
}
