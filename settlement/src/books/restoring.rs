//! Builds the books again out of what was stored, and refuses when the stored parts do not tell one story.
//!
//! Balances are folded from transfers alone, then compared with what channels, accounts and payouts say.

use std::collections::BTreeMap;
use std::sync::Arc;

use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;

use super::{AccountRecord, Books, BooksError, ChainAccount, ChainChange, ChainChannel, ChannelRecord, RequestKey, RequestRecord, agree};
use crate::batch::{Payout, PayoutState};
use crate::house::House;
use crate::ledger::{LedgerAccount, Transfer};
use crate::rail::Rail;

/// Books in the making. Accounts come before channels; otherwise in any order, transfers in theirs.
#[derive(Debug)]
pub struct Restore {
    books: Books,
    /// What channels say that payees, platform and reserve earned.
    earned: BTreeMap<Address, u128>,
    platform: u128,
    reserve: u128,
    /// What payouts say that left.
    settled: BTreeMap<Address, u128>,
}

impl Restore {
    /// Nothing yet.
    pub fn new(house: Arc<House>, rail: Arc<dyn Rail>) -> Self {
        Self { books: Books::new(house, rail), earned: BTreeMap::new(), platform: 0, reserve: 0, settled: BTreeMap::new() }
    }

    /// The next transfer.
    pub fn transfer(&mut self, transfer: &Transfer) -> Result<(), BooksError> {
        Ok(self.books.ledger.post(transfer)?)
    }

    /// An account.
    pub fn account(&mut self, address: Address, record: AccountRecord) {
        self.books.accounts.entry(address).or_default().record = record;
    }

    /// A channel.
    pub fn channel(&mut self, record: &ChannelRecord) -> Result<(), BooksError> {
        let id = record.id();
        if record.batched > record.redeemed || record.redeemed > record.ceiling {
            return Err(BooksError::Damaged(format!("channel {id} has more redeemed than reserved, or more in batches than redeemed")));
        }
        let shares = Split::of(record.redeemed);
        let payee = self.earned.entry(record.payout).or_default();
        *payee = payee.saturating_add(wide(shares.provider));
        self.platform = self.platform.saturating_add(wide(shares.platform));
        self.reserve = self.reserve.saturating_add(wide(shares.reserve));
        self.books.put_channel(record)?;
        let held = self.books.ledger.balance(&LedgerAccount::Channel(id));
        agree(|| format!("channel {id}"), held, record.held())?;
        self.books.set_aside(&id);
        Ok(())
    }

    /// An escrow account.
    pub fn chain_account(&mut self, address: Address, record: ChainAccount) {
        self.books.chain.accounts.insert(address, record);
    }

    /// What the chain adds to a channel, and what is locked for one that is not in these books. Before the channels.
    pub fn chain_channel(&mut self, channel: ChannelId, account: Address, record: ChainChannel) {
        let parked = record.parked.filter(|parked| !parked.is_by_cap());
        self.books.chain.put_channel(channel, account, ChainChannel { parked, ..record });
    }

    /// Everything else that is folded from a chain, and its sender.
    pub fn chain(&mut self, rest: ChainChange) {
        self.books.chain.apply(&rest);
    }

    /// A request.
    pub fn request(&mut self, key: RequestKey, record: RequestRecord) {
        self.books.requests.insert(key, record);
    }

    /// A payout.
    pub fn payout(&mut self, payout: &Payout) {
        if payout.state == PayoutState::Payable {
            self.books.payable.insert(payout.id, *payout);
            return;
        }
        let settled = self.settled.entry(payout.payee).or_default();
        *settled = settled.saturating_add(wide(payout.amount));
    }

    /// The content id of the newest batch.
    pub fn newest_batch(&mut self, id: Hash) {
        self.books.newest_batch = id;
    }

    /// The books, if everything adds up.
    pub fn finish(mut self) -> Result<Books, BooksError> {
        let strangers: Vec<ChannelId> = self.books.chain.channels.keys().filter(|id| !self.books.holds(id)).copied().collect();
        for channel in strangers {
            self.books.chain.set_aside(&channel);
        }
        self.books.check_sums()?;
        let ledger = &self.books.ledger;
        let (platform, reserve) = (ledger.balance(&LedgerAccount::Platform), ledger.balance(&LedgerAccount::Reserve));
        agree(|| "the platform's share".to_owned(), platform, self.platform)?;
        agree(|| "the reserve's share".to_owned(), reserve, self.reserve)?;
        for (payee, records) in &self.earned {
            let settled = ledger.balance(&LedgerAccount::Settled(*payee));
            let standing = ledger.balance(&LedgerAccount::Payee(*payee)).saturating_add(settled);
            agree(|| format!("what {payee} earned"), standing, *records)?;
            agree(|| format!("what left for {payee}"), settled, self.settled.get(payee).copied().unwrap_or(0))?;
        }
        let sums = ledger.sums();
        let total = |map: &BTreeMap<Address, u128>| map.values().fold(0_u128, |sum, part| sum.saturating_add(*part));
        agree(|| "what left for all payees".to_owned(), sums.settled, total(&self.settled))?;
        agree(|| "what all payees earned".to_owned(), sums.earned.saturating_add(sums.settled), total(&self.earned))?;
        Ok(self.books)
    }
}

fn wide(amount: Usdc) -> u128 {
    u128::from(amount.micros())
}
