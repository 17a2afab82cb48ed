//! What the books know besides on a rail with a chain: escrow accounts, redemptions and locks as final logs tell them, and why reservations are halted.
//!
//! Always true: every record here is folded from final logs, in one change with the [`Cursor`] that says how far they were read. An account's credit is what it deposited, less
//! what it took out, less what was redeemed, less what it asked back; a reservation ends only by a redemption, a close or a time that is final.
//!
//! It does not know how logs are read, nor how claims get into a transaction.

mod concluding;
mod following;
mod planning;

use std::collections::{BTreeMap, BTreeSet};

use orien_bootstrap::escrow::STANDSTILL;
use orien_chain::{Block, Refusal};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use serde::{Deserialize, Serialize};

use super::Books;
use crate::paying::{Flight, STRANGERS_NONCE, Sender};

pub use following::FinalLog;
pub use planning::Candidate;

/// Most spending keys of one account that reservations accept; a further one counts only on chain. Naming one costs its owner gas, remembering it costs us room.
pub const CHAIN_KEYS_MAX: usize = 64;
/// Most reasons for a halt that are kept; the first ones say what began it.
pub(super) const HALTS_MAX: usize = 32;
/// Attempts that a claim takes part in and that the chain reverts, before it is set aside.
pub(super) const FAILURES_MAX: u8 = 3;

/// How far final logs were folded: a block that was final then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// Its height; every log up to and in it is in the books.
    pub number: u64,
    /// Its hash; another one at this height means that the chain broke its word.
    pub hash: Hash,
    /// Its time: the clock of whatever time ends.
    pub time: UnixSeconds,
}

impl From<Block> for Cursor {
    fn from(block: Block) -> Self {
        Self { number: block.number, hash: block.hash, time: block.time }
    }
}

impl From<Cursor> for Block {
    fn from(cursor: Cursor) -> Self {
        Self { number: cursor.number, hash: cursor.hash, time: cursor.time }
    }
}

/// An escrow account by its final logs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainAccount {
    /// All that ever came in.
    pub deposited: Usdc,
    /// All that was taken out again.
    pub withdrawn: Usdc,
    /// Redeemed through channels that are not in these books.
    pub elsewhere: Usdc,
    /// Asked back and not taken yet.
    pub exiting: Usdc,
    /// From when that can be taken.
    pub exit_at: UnixSeconds,
    /// By how much the chain paid out more than these books had free: zero for ever, unless somebody else signed allowances with our key.
    pub uncovered: Usdc,
}

/// The redemption that brought a channel to its total.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Redemption {
    /// Its transaction.
    pub transaction: Hash,
    /// The block's height.
    pub block: u64,
    /// The block's time.
    pub at: UnixSeconds,
    /// Whether the token refused the payee, so that the escrow keeps the payment as credit.
    pub credited: bool,
}

/// Why a claim is not put into transactions for now.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Parked {
    /// The contract passed it over.
    Refused(Refusal),
    /// The escrow of its account did not reach; a deposit brings it back.
    ShortEscrow,
    /// Transactions with it in them were reverted, alone too.
    Reverts,
    /// It is more than one payout may be; the payee can collect it alone.
    OverCap,
    /// It is more than the transactions of a whole day may redeem; the payee can collect it alone.
    OverDayCap,
}

impl Parked {
    /// Whether it is the operator's own caps that leave it out. They are given at each start, and may be others then.
    pub(super) const fn is_by_cap(self) -> bool {
        matches!(self, Self::OverCap | Self::OverDayCap)
    }

    /// Stable name for people and APIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Refused(Refusal::ChannelClosed) => "channel_closed",
            Self::Refused(Refusal::SignerUnknown) => "signer_unknown",
            Self::Refused(Refusal::KeyUnknown) => "key_unknown",
            Self::Refused(Refusal::BadVoucher) => "bad_voucher",
            Self::Refused(Refusal::NoAllowance) => "no_allowance",
            Self::Refused(Refusal::BadAllowance) => "bad_allowance",
            Self::Refused(Refusal::TooLate) => "too_late",
            Self::Refused(Refusal::BadClose) => "bad_close",
            Self::Refused(Refusal::Other(_)) => "refused",
            Self::ShortEscrow => "short_escrow",
            Self::Reverts => "reverts",
            Self::OverCap => "over_cap",
            Self::OverDayCap => "over_day_cap",
        }
    }
}

/// What the chain adds to a channel of the books.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainChannel {
    /// The newest redemption; none before the first.
    pub redemption: Option<Redemption>,
    /// What is locked on chain for this channel alone.
    pub locked: Usdc,
    /// Since when there is something to redeem.
    pub waiting_since: Option<Timestamp>,
    /// Whether its payee's close is on chain or not needed any more.
    pub close_sent: bool,
    /// Transactions with it in them that were reverted, since its newest claim.
    pub failures: u8,
    /// Why it is left out.
    pub parked: Option<Parked>,
}

/// Sums over all accounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ChainTotals {
    /// Fees that the escrow holds for platform and reserve, in micro-USDC.
    pub fees: u128,
    /// Until when allowances of other signers than ours count at the escrow.
    pub others_until: UnixSeconds,
    /// The day (since 1970, UTC) that `day_sent` is about.
    pub day: u64,
    /// What that day put into transactions.
    pub day_sent: Usdc,
}

/// Why reservations and transactions are halted until the operator has looked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halt {
    /// Stable name of the kind.
    pub code: String,
    /// What was found.
    pub text: String,
    /// When, on this settlement's clock.
    pub at: Timestamp,
}

/// What one operation changes of all this.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct ChainChange {
    /// How far logs are folded now.
    pub cursor: Option<Cursor>,
    /// Replaced records.
    pub accounts: Vec<(Address, ChainAccount)>,
    /// Replaced records, with the account they belong to.
    pub channels: Vec<(ChannelId, Address, ChainChannel)>,
    /// Undelivered payments by payee, in micro-USDC; zero removes.
    pub credits: Vec<(Address, u128)>,
    /// Replaced.
    pub totals: Option<ChainTotals>,
    /// Replaced.
    pub halts: Option<Vec<Halt>>,
    /// Claims that go into a transaction: the evidence of what it will have redeemed.
    pub sent: Vec<(ChannelId, Claim)>,
    /// The transaction that redeemed what is in a batch.
    pub batches: Vec<(BatchId, Hash)>,
    /// The sender's own state.
    pub sender: Option<Sender>,
    /// Replaced.
    pub flights: Vec<Flight>,
    /// Flights whose bytes are not needed any more.
    pub landed: Vec<u64>,
    /// What a flight sends: its nonce, which attempt, and the bytes; the calldata has [`CALLDATA`](crate::paying::CALLDATA) for its attempt.
    pub raws: Vec<(u64, u32, Vec<u8>)>,
}

/// How well the chain is seen; not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sight {
    /// When it was looked at last, on this settlement's clock.
    pub at: Timestamp,
    /// How old the folded block was then: by the chain's newest block, or by this settlement's clock if that says more.
    pub behind: Millis,
}

/// The chain's part of the books.
#[derive(Clone, Debug, Default)]
pub(super) struct ChainBooks {
    pub(super) cursor: Option<Cursor>,
    pub(super) accounts: BTreeMap<Address, ChainAccount>,
    /// Of those, the ones with something to redeem.
    pub(super) waiting: BTreeSet<ChannelId>,
    /// Of channels that are held.
    pub(super) channels: BTreeMap<ChannelId, ChainChannel>,
    /// What is locked, of channels held or not.
    pub(super) locks: BTreeMap<(Address, ChannelId), Usdc>,
    pub(super) credits: BTreeMap<Address, u128>,
    pub(super) totals: ChainTotals,
    pub(super) halts: Vec<Halt>,
    pub(super) sender: Sender,
    pub(super) flight: Option<Flight>,
    pub(super) sight: Option<Sight>,
    /// Whether books and chain were found to say the same since this process started.
    pub(super) compared: bool,
}

impl ChainBooks {
    pub(super) fn apply(&mut self, change: &ChainChange) {
        self.cursor = change.cursor.or(self.cursor);
        self.accounts.extend(change.accounts.iter().copied());
        for (channel, account, record) in &change.channels {
            self.put_channel(*channel, *account, *record);
        }
        for (payee, credit) in &change.credits {
            self.put_credit(*payee, *credit);
        }
        self.totals = change.totals.unwrap_or(self.totals);
        if let Some(halts) = &change.halts {
            self.halts.clone_from(halts);
        }
        self.sender = change.sender.unwrap_or(self.sender);
        for flight in &change.flights {
            self.put_flight(flight.clone());
        }
    }

    pub(super) fn put_channel(&mut self, channel: ChannelId, account: Address, record: ChainChannel) {
        if record.locked == Usdc::ZERO {
            self.locks.remove(&(account, channel));
        } else {
            self.locks.insert((account, channel), record.locked);
        }
        if record.waiting_since.is_some() && record.parked.is_none() {
            self.waiting.insert(channel);
        } else {
            self.waiting.remove(&channel);
        }
        self.channels.insert(channel, record);
    }

    /// Forgets a channel that is not held; what is locked for it stays known.
    pub(super) fn set_aside(&mut self, channel: &ChannelId) {
        self.channels.remove(channel);
        self.waiting.remove(channel);
    }

    pub(super) fn put_credit(&mut self, payee: Address, credit: u128) {
        if credit == 0 {
            self.credits.remove(&payee);
        } else {
            self.credits.insert(payee, credit);
        }
    }

    /// The one flight that is under way; those that ended are only in the store.
    pub(super) fn put_flight(&mut self, flight: Flight) {
        self.flight = (!flight.is_over()).then_some(flight);
    }
}

impl Books {
    /// How far final logs are folded.
    pub fn cursor(&self) -> Option<Cursor> {
        self.chain.cursor
    }

    /// An escrow account by its final logs.
    pub fn chain_account(&self, account: &Address) -> Option<&ChainAccount> {
        self.chain.accounts.get(account)
    }

    /// Every escrow account that final logs named.
    pub fn chain_accounts(&self) -> impl Iterator<Item = (&Address, &ChainAccount)> {
        self.chain.accounts.iter()
    }

    /// What the escrow should hold of an account, in micro-USDC.
    pub fn escrow_balance(&self, account: &Address) -> u128 {
        let Some(state) = self.accounts.get(account) else { return 0 };
        let uncovered = self.chain.accounts.get(account).map_or(0, |record| u128::from(record.uncovered.micros()));
        u128::from(state.record.granted.micros()).saturating_sub(uncovered).saturating_sub(state.redeemed)
    }

    /// What the chain adds to a channel; none for one that is not held, or that nothing happened to.
    pub fn chain_channel(&self, channel: &ChannelId) -> Option<&ChainChannel> {
        self.chain.channels.get(channel)
    }

    /// Undelivered payments by payee, in micro-USDC.
    pub fn credits(&self) -> &BTreeMap<Address, u128> {
        &self.chain.credits
    }

    /// Sums over all accounts.
    pub const fn chain_totals(&self) -> ChainTotals {
        self.chain.totals
    }

    /// Why reservations are halted; empty while they are not.
    pub fn halts(&self) -> &[Halt] {
        &self.chain.halts
    }

    /// The sender's own state.
    pub const fn sender(&self) -> Sender {
        self.chain.sender
    }

    /// The flight that is under way.
    pub const fn flight(&self) -> Option<&Flight> {
        self.chain.flight.as_ref()
    }

    /// How well the chain is seen.
    pub const fn sight(&self) -> Option<Sight> {
        self.chain.sight
    }

    /// Takes note of how well the chain is seen.
    pub const fn see(&mut self, sight: Sight) {
        self.chain.sight = Some(sight);
    }

    /// Whether what was folded is older than finality explains. The operator is told at half of what stops promises.
    pub fn is_late(&self, sight: Sight) -> bool {
        sight.behind.0 > self.house.finality_lag.0.saturating_add(STANDSTILL.0 / 2)
    }

    /// Whether books and chain were found to say the same since this process started.
    pub const fn is_compared(&self) -> bool {
        self.chain.compared
    }

    /// Takes note that books and chain were compared, and say the same.
    pub const fn compared(&mut self) {
        self.chain.compared = true;
    }

    /// The list of halts with one more; none when one of its code is there already.
    pub fn halted(&self, code: &str, text: String, at: Timestamp) -> Option<Vec<Halt>> {
        add_halt(&self.chain.halts, code, text, at)
    }

    /// Takes halts back that the operator has looked into.
    pub fn cleared(&self) -> super::Change {
        // Where somebody else used our key, the next nonce is what the chain says. Otherwise we know it better than a node that may be behind.
        let was_used = self.halts().iter().any(|halt| halt.code == STRANGERS_NONCE);
        let sender = (was_used && self.chain.flight.is_none()).then(Sender::default);
        // What would have been reverted is tried again: the reason may have been what was looked into.
        let again = |(id, chain): (&ChannelId, &ChainChannel)| {
            let record = self.channel(id).filter(|_| chain.parked == Some(Parked::Reverts))?;
            Some((*id, record.account, ChainChannel { parked: None, failures: 0, ..*chain }))
        };
        let channels = self.chain.channels.iter().filter_map(again).collect();
        super::Change {
            chain: ChainChange { halts: Some(Vec::new()), sender, channels, ..ChainChange::default() },
            ..super::Change::default()
        }
    }

    /// Of an account's locks, what is beyond the reservation of the channel: money that neither another channel nor a new reservation can have.
    pub(super) fn locked_beyond(&self, account: &Address) -> u128 {
        let (first, last) = (ChannelId::from_hash(Hash::ZERO), ChannelId::from_hash(Hash::from_bytes([0xff; 32])));
        let locks = self.chain.locks.range((*account, first)..=(*account, last));
        locks.fold(0_u128, |sum, ((_, channel), locked)| {
            let held = self.channel(channel).map_or(0, super::ChannelRecord::held);
            sum.saturating_add(u128::from(locked.micros()).saturating_sub(held))
        })
    }

    /// Refuses while what the chain says is not known well enough to promise anything.
    pub(super) fn check_sight(&self, now: Timestamp) -> Result<(), Fault> {
        if !self.rail.follows_chain() {
            return Ok(());
        }
        if let Some(halt) = self.chain.halts.first() {
            let text = format!("settlement is halted ({}): its operator has to look", halt.code);
            return Err(Fault::new(FaultCode::BUSY, text));
        }
        let Some(sight) = self.chain.sight else {
            return Err(Fault::new(FaultCode::BUSY, "settlement has not read the chain yet; ask again"));
        };
        // A copy of these books that is older than its last promises looks whole until the chain is asked.
        if !self.chain.compared {
            return Err(Fault::new(FaultCode::BUSY, "settlement has not compared its books with the chain since it started; ask again"));
        }
        let blind = Millis(now.since(sight.at).0.saturating_add(sight.behind.0));
        // M12 leaves an hour beside the lag of finality; what is older than that could hide an exit.
        let limit = Millis(self.house.finality_lag.0.saturating_add(STANDSTILL.0));
        if blind > limit {
            let text = format!("settlement has not seen the last {} s of the chain; ask again", blind.0 / 1000);
            return Err(Fault::new(FaultCode::BUSY, text));
        }
        Ok(())
    }
}

pub(super) fn add_halt(halts: &[Halt], code: &str, text: String, at: Timestamp) -> Option<Vec<Halt>> {
    if halts.iter().any(|halt| halt.code == code) || halts.len() >= HALTS_MAX {
        return None;
    }
    let mut halts = halts.to_vec();
    halts.push(Halt { code: code.to_owned(), text, at });
    Some(halts)
}
