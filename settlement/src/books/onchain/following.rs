//! Folds final logs into the books: deposits, exits, keys, redemptions, locks, fees. One stretch of blocks is one change, with the cursor in it.
//!
//! Always true: every log of the escrow is folded once, in the chain's order; what the chain did is taken as it is, and where it contradicts what these books held, the
//! books follow and a [`Halt`](super::Halt) says so. A log that cannot follow from what was folded before is refused with the whole stretch: then the node lies, or a
//! final block was taken back.

use std::collections::{BTreeMap, BTreeSet};

use orien_chain::{EscrowEvent, EscrowLog, Refusal};
use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::hash::Hash;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};

use super::{CHAIN_KEYS_MAX, ChainAccount, ChainChange, ChainChannel, ChainTotals, Cursor, Halt, Parked, Redemption, add_halt};
use crate::books::{AccountRecord, Books, Change, ChannelRecord, ChannelStatus};
use crate::ledger::{LedgerAccount, Postings, Reason};

/// A final log with the time of its block.
#[derive(Clone, Debug)]
pub struct FinalLog {
    /// The log.
    pub log: EscrowLog,
    /// The block's time.
    pub time: UnixSeconds,
}

impl Books {
    /// Plans the fold of a stretch of final logs that ends with the block `upto`. `ours` are the hashes of this settlement's own transactions: only what the contract says of
    /// claims in those is taken as said of ours.
    pub fn follow(&self, logs: &[FinalLog], upto: Cursor, ours: &BTreeSet<Hash>, now: Timestamp) -> Result<Change, Fault> {
        if self.cursor().is_some_and(|cursor| upto.number <= cursor.number) {
            return Err(contradiction("a stretch of blocks that is folded already"));
        }
        let mut fold = Fold::new(self, ours, now);
        fold.credited = logs.iter().filter_map(|log| credited(&log.log)).collect();
        for log in logs {
            fold.take(log)?;
        }
        Ok(fold.finish(upto))
    }
}

/// The payee whose payment of a transaction became credit.
fn credited(log: &EscrowLog) -> Option<(Hash, Address)> {
    match log.event {
        EscrowEvent::Credited { payee, .. } => Some((*log.transaction.hash(), payee)),
        _ => None,
    }
}

fn contradiction(text: impl std::fmt::Display) -> Fault {
    Fault::new(FaultCode::INTERNAL, format_args!("the chain contradicts its own final logs: {text}"))
}

/// A stretch in the making.
struct Fold<'a> {
    books: &'a Books,
    ours: &'a BTreeSet<Hash>,
    now: Timestamp,
    credited: BTreeSet<(Hash, Address)>,
    postings: Postings<'a>,
    accounts: BTreeMap<Address, (AccountRecord, ChainAccount)>,
    channels: BTreeMap<ChannelId, (ChannelRecord, ChainChannel)>,
    /// Locks of channels that are not in these books.
    strangers: BTreeMap<ChannelId, (Address, ChainChannel)>,
    credits: BTreeMap<Address, u128>,
    totals: ChainTotals,
    halts: Option<Vec<Halt>>,
}

impl<'a> Fold<'a> {
    fn new(books: &'a Books, ours: &'a BTreeSet<Hash>, now: Timestamp) -> Self {
        Self {
            books,
            ours,
            now,
            credited: BTreeSet::new(),
            postings: Postings::new(books.ledger(), now),
            accounts: BTreeMap::new(),
            channels: BTreeMap::new(),
            strangers: BTreeMap::new(),
            credits: BTreeMap::new(),
            totals: books.chain_totals(),
            halts: None,
        }
    }

    fn take(&mut self, log: &FinalLog) -> Result<(), Fault> {
        match log.log.event {
            EscrowEvent::Deposited { account, amount, .. } => self.deposited(account, amount),
            EscrowEvent::Withdrawn { account, amount } => self.withdrawn(account, amount, log.time),
            EscrowEvent::ExitRequested { account, amount, due } => {
                let (_, chain) = self.account(account);
                (chain.exiting, chain.exit_at) = (amount, due);
                Ok(())
            }
            EscrowEvent::ExitCancelled { account } => {
                let (_, chain) = self.account(account);
                (chain.exiting, chain.exit_at) = (Usdc::ZERO, UnixSeconds(0));
                Ok(())
            }
            EscrowEvent::KeyAuthorized { account, key } => {
                let (record, _) = self.account(account);
                if record.spending_keys.len() < CHAIN_KEYS_MAX && !record.spending_keys.contains(&key) {
                    record.spending_keys.push(key);
                }
                Ok(())
            }
            EscrowEvent::KeyRevoked { account, key, .. } => {
                self.account(account).0.spending_keys.retain(|known| *known != key);
                Ok(())
            }
            EscrowEvent::DailyCapSet { account, cap } => {
                self.account(account).0.daily_cap = (cap > Usdc::ZERO).then_some(cap);
                Ok(())
            }
            EscrowEvent::Redeemed { .. } => self.redeemed(log),
            EscrowEvent::ClaimRefused { channel, reason } => {
                self.refused(channel, reason, &log.log);
                Ok(())
            }
            EscrowEvent::Locked { channel, account, amount, .. } => self.lock(channel, account, amount),
            EscrowEvent::Unlocked { channel, account, .. } => {
                self.chain_channel(channel, account).locked = Usdc::ZERO;
                Ok(())
            }
            EscrowEvent::SignerChanged { from, to, old_until } => {
                self.signer_changed(from, to, old_until);
                Ok(())
            }
            _ => self.fees(&log.log.event),
        }
    }

    fn account(&mut self, address: Address) -> &mut (AccountRecord, ChainAccount) {
        let books = self.books;
        self.accounts.entry(address).or_insert_with(|| {
            (books.account(&address).cloned().unwrap_or_default(), books.chain_account(&address).copied().unwrap_or_default())
        })
    }

    /// A channel of these books, as it is by now.
    fn channel(&mut self, id: ChannelId) -> Option<&mut (ChannelRecord, ChainChannel)> {
        let books = self.books;
        if let std::collections::btree_map::Entry::Vacant(entry) = self.channels.entry(id) {
            let record = books.channel(&id)?;
            entry.insert((record.clone(), books.chain_channel(&id).copied().unwrap_or_default()));
        }
        self.channels.get_mut(&id)
    }

    fn chain_channel(&mut self, id: ChannelId, account: Address) -> &mut ChainChannel {
        if self.channel(id).is_some()
            && let Some((_, chain)) = self.channels.get_mut(&id)
        {
            return chain;
        }
        let known = self.books.chain.locks.get(&(account, id)).copied().unwrap_or_default();
        &mut self.strangers.entry(id).or_insert((account, ChainChannel { locked: known, ..ChainChannel::default() })).1
    }

    fn halt(&mut self, code: &str, text: String) {
        let known = self.halts.as_deref().unwrap_or(self.books.halts());
        if let Some(halts) = add_halt(known, code, text, self.now) {
            self.halts = Some(halts);
        }
    }

    fn post(&mut self, debit: LedgerAccount, credit: LedgerAccount, amount: Usdc, reason: Reason) -> Result<(), Fault> {
        self.postings.add(debit, credit, amount, reason).map_err(contradiction)
    }

    fn deposited(&mut self, address: Address, amount: Usdc) -> Result<(), Fault> {
        let (record, chain) = self.account(address);
        record.granted = record.granted.plus(amount).map_err(contradiction)?;
        chain.deposited = chain.deposited.plus(amount).map_err(contradiction)?;
        self.post(LedgerAccount::Operator, LedgerAccount::Agent(address), amount, Reason::Deposit)?;
        self.unpark_short(address);
        Ok(())
    }

    /// What waited for this account's escrow to reach is tried again.
    fn unpark_short(&mut self, address: Address) {
        let short = |(id, chain): (&ChannelId, &ChainChannel)| (chain.parked == Some(Parked::ShortEscrow)).then_some(*id);
        let waiting: Vec<ChannelId> = self.books.chain.channels.iter().filter_map(short).collect();
        for id in waiting {
            if let Some((_, chain)) = self.channel(id).filter(|(record, _)| record.account == address) {
                chain.parked = None;
            }
        }
    }

    /// Takes an amount out of what an account has free. What is not there was promised to somebody else: the chain has paid it all the same.
    fn draw(&mut self, address: Address, amount: Usdc) -> Result<(), Fault> {
        let free = self.postings.balance(&LedgerAccount::Agent(address));
        let missing = u128::from(amount.micros()).saturating_sub(free);
        let Some(missing) = u64::try_from(missing).ok().map(Usdc::from_micros).filter(|missing| *missing > Usdc::ZERO) else {
            return Ok(());
        };
        self.post(LedgerAccount::Operator, LedgerAccount::Agent(address), missing, Reason::Uncovered)?;
        let (record, chain) = self.account(address);
        record.granted = record.granted.plus(missing).map_err(contradiction)?;
        chain.uncovered = chain.uncovered.plus(missing).map_err(contradiction)?;
        self.halt("uncovered", format!("the chain paid {missing} USDC of account {address} that these books had promised to others"));
        Ok(())
    }

    fn withdrawn(&mut self, address: Address, amount: Usdc, time: UnixSeconds) -> Result<(), Fault> {
        // What ended before this block is not held any more.
        self.expire(time)?;
        self.draw(address, amount)?;
        self.post(LedgerAccount::Agent(address), LedgerAccount::Withdrawn(address), amount, Reason::Withdraw)?;
        let (record, chain) = self.account(address);
        record.granted = record.granted.minus(amount).map_err(contradiction)?;
        chain.withdrawn = chain.withdrawn.plus(amount).map_err(contradiction)?;
        (chain.exiting, chain.exit_at) = (Usdc::ZERO, UnixSeconds(0));
        Ok(())
    }

    fn redeemed(&mut self, log: &FinalLog) -> Result<(), Fault> {
        let EscrowEvent::Redeemed { channel, account, payout, paid, redeemed, closed } = log.log.event else { return Ok(()) };
        let before = redeemed.minus(paid).map_err(contradiction)?;
        let step = Split::of(redeemed).minus(Split::of(before)).map_err(contradiction)?;
        let fees = u128::from(step.platform.micros()).saturating_add(u128::from(step.reserve.micros()));
        self.totals.fees = self.totals.fees.saturating_add(fees);
        let transaction = *log.log.transaction.hash();
        let credited = self.credited.contains(&(transaction, payout));
        if self.channel(channel).is_none() {
            return self.redeemed_elsewhere(channel, account, paid, log.time);
        }
        self.raise(channel, before, redeemed)?;
        for (to, share) in [
            (LedgerAccount::Payee(payout), step.provider),
            (LedgerAccount::Platform, step.platform),
            (LedgerAccount::Reserve, step.reserve),
        ] {
            self.post(LedgerAccount::Channel(channel), to, share, Reason::Redeem)?;
        }
        let Some((record, chain)) = self.channel(channel) else { return Ok(()) };
        record.redeemed = redeemed;
        let claimed = record.voucher.map_or(Usdc::ZERO, |voucher| voucher.unverified().total);
        // A close that came while the same total was on its way still has to go there: without it the reservation lasts until its time is over.
        let still_closes = !closed && !chain.close_sent && record.close.is_some_and(|close| close.unverified().total == claimed);
        if claimed <= redeemed && !still_closes {
            chain.waiting_since = None;
        }
        if paid > Usdc::ZERO {
            chain.redemption = Some(Redemption { transaction, block: log.log.block, at: log.time, credited });
        }
        chain.locked = chain.locked.excess_over(paid);
        if closed { self.end(channel, ChannelStatus::Closed, Reason::Close) } else { Ok(()) }
    }

    /// Sees to it that the channel holds what the chain just took from it.
    fn raise(&mut self, id: ChannelId, before: Usdc, redeemed: Usdc) -> Result<(), Fault> {
        let Some((record, _)) = self.channel(id) else { return Ok(()) };
        if record.redeemed != before {
            let text = format!("channel {id} went from {before} to {redeemed} USDC, and had {}", record.redeemed);
            return Err(contradiction(text));
        }
        let (account, step) = (record.account, redeemed.excess_over(before));
        let held = self.postings.balance(&LedgerAccount::Channel(id));
        let missing = u64::try_from(u128::from(step.micros()).saturating_sub(held)).map_err(contradiction)?;
        if missing == 0 {
            return Ok(());
        }
        let missing = Usdc::from_micros(missing);
        self.draw(account, missing)?;
        self.post(LedgerAccount::Agent(account), LedgerAccount::Channel(id), missing, Reason::Reserve)?;
        if let Some((record, _)) = self.channel(id) {
            record.ceiling = record.ceiling.max(redeemed);
        }
        self.halt("beyond_ceiling", format!("the chain redeemed {missing} USDC of channel {id} beyond what these books reserved for it"));
        Ok(())
    }

    fn redeemed_elsewhere(&mut self, id: ChannelId, address: Address, paid: Usdc, time: UnixSeconds) -> Result<(), Fault> {
        self.draw(address, paid)?;
        self.post(LedgerAccount::Agent(address), LedgerAccount::Elsewhere, paid, Reason::Elsewhere)?;
        let (record, chain) = self.account(address);
        record.granted = record.granted.minus(paid).map_err(contradiction)?;
        chain.elsewhere = chain.elsewhere.plus(paid).map_err(contradiction)?;
        let lock = self.chain_channel(id, address);
        lock.locked = lock.locked.excess_over(paid);
        if time > self.totals.others_until {
            self.halt("unknown_channel", format!("the chain redeemed {paid} USDC through channel {id}, which these books never reserved"));
        }
        Ok(())
    }

    fn refused(&mut self, channel: ChannelId, reason: Refusal, log: &EscrowLog) {
        // Anybody can have a claim refused that names somebody's channel.
        if !self.ours.contains(log.transaction.hash()) {
            return;
        }
        if let Some((_, chain)) = self.channel(channel) {
            chain.parked = Some(Parked::Refused(reason));
        }
    }

    fn lock(&mut self, channel: ChannelId, account: Address, amount: Usdc) -> Result<(), Fault> {
        let chain = self.chain_channel(channel, account);
        chain.locked = chain.locked.plus(amount).map_err(contradiction)?;
        Ok(())
    }

    fn signer_changed(&mut self, from: Address, to: Address, old_until: UnixSeconds) {
        let own = self.books.house().facts().signer;
        if from == own && to != own {
            self.halt("signer_replaced", format!("the escrow takes allowances of {to} now; those of {own} count until {}", old_until.0));
        }
        // One that was not replaced counts for as long as nobody does.
        self.totals.others_until = if to == own { old_until } else { UnixSeconds(u64::MAX) };
    }

    fn fees(&mut self, event: &EscrowEvent) -> Result<(), Fault> {
        match event {
            EscrowEvent::FeesCollected { amount, .. } => {
                let amount = u128::from(amount.micros());
                self.totals.fees = self.totals.fees.checked_sub(amount).ok_or_else(|| contradiction("more fees left than came in"))?;
            }
            // What accrued until then became credit of the old recipients, by events of its own.
            EscrowEvent::RecipientsChanged { .. } => self.totals.fees = 0,
            EscrowEvent::Credited { payee, amount } => {
                let credit = self.credit(*payee);
                self.credits.insert(*payee, credit.saturating_add(u128::from(amount.micros())));
            }
            EscrowEvent::CreditPaid { payee, .. } => {
                self.credits.insert(*payee, 0);
            }
            _ => {}
        }
        Ok(())
    }

    fn credit(&self, payee: Address) -> u128 {
        self.credits.get(&payee).or_else(|| self.books.credits().get(&payee)).copied().unwrap_or(0)
    }

    /// Ends every channel whose time was over before a block.
    fn expire(&mut self, time: UnixSeconds) -> Result<(), Fault> {
        let over: Vec<ChannelId> = self.books.ends.iter().take_while(|(end, _)| *end < time).map(|(_, id)| *id).collect();
        for id in over {
            if self.channel(id).is_some_and(|(record, _)| record.live()) {
                self.end(id, ChannelStatus::Expired, Reason::Expire)?;
            }
        }
        Ok(())
    }

    fn end(&mut self, id: ChannelId, status: ChannelStatus, reason: Reason) -> Result<(), Fault> {
        let Some((record, _)) = self.channel(id) else { return Ok(()) };
        record.status = status;
        let record = record.clone();
        let held = self.postings.balance(&LedgerAccount::Channel(id));
        let rest = u64::try_from(held).map(Usdc::from_micros).map_err(contradiction)?;
        self.post(LedgerAccount::Channel(id), LedgerAccount::Agent(record.account), rest, reason)?;
        let now = self.now;
        let (account, _) = self.account(record.account);
        *account = account.with_returned(rest, now);
        Ok(())
    }

    fn finish(self, upto: Cursor) -> Change {
        let mut chain = ChainChange { cursor: Some(upto), halts: self.halts, ..ChainChange::default() };
        chain.totals = (self.totals != self.books.chain_totals()).then_some(self.totals);
        chain.credits = self.credits.into_iter().collect();
        let mut change = Change { transfers: self.postings.finish(), ..Change::default() };
        for (address, (record, account)) in self.accounts {
            change.accounts.push((address, record));
            chain.accounts.push((address, account));
        }
        for (id, (record, channel)) in self.channels {
            chain.channels.push((id, record.account, channel));
            change.channels.push(record);
        }
        chain.channels.extend(self.strangers.into_iter().map(|(id, (account, channel))| (id, account, channel)));
        change.chain = chain;
        change
    }
}
