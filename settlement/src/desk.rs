//! The desk: books and their store together, for everybody who asks settlement something.
//!
//! Always true: a change is planned, stored, applied and only then answered, one at a time. If storing or applying fails, the desk is shut for good: it answers
//! [`DeskError::Shut`] to everything, and whoever runs it must stop the process and start again from the store.
//!
//! Calls block (disk, signatures); drivers make them on a thread for blocking work. The time and random ids are passed in.

mod chain;
mod held;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::Fault;
use orien_protocol::frame::{ChannelState, Claim, Earnings, Funds};
use orien_protocol::id::{BatchId, PayoutId, RequestId};
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, Signed};
use orien_protocol::terms::SignedTerms;
use orien_protocol::time::Timestamp;
use orien_protocol::voucher::{SignedAllowance, SignedClose};
use thiserror::Error;
use tokio_util::sync::CancellationToken;

use crate::batch::{BATCH_EVIDENCE_BYTES_MAX, Batch, BatchSummary, Payout, Settlement};
use crate::books::{AccountRecord, Books, Change, Grant, Restore};
use crate::evidence::{CheckedClaim, CheckedRelease, check_terms};
use crate::house::House;
use crate::ledger::Sums;
use crate::rail::Rail;
pub use chain::{ChainStatus, Notice, Standing, TakeOff};
pub use held::{Held, Part};

use crate::store::{RestoreError, StorageBackend, Store, StoreError, settlement_key};

/// Why the desk did not do something.
#[derive(Debug, Clone, Error)]
pub enum DeskError {
    /// The asker is refused; the desk is well.
    #[error(transparent)]
    Refused(#[from] Fault),
    /// The desk failed and does nothing more: stop the process.
    #[error("settlement cannot go on: {0}")]
    Shut(Arc<str>),
}

/// The desk cannot be opened: the store cannot be read, or does not add up.
#[derive(Debug, Error)]
#[error(transparent)]
pub struct OpenDeskError(#[from] RestoreError);

/// Books and their store.
#[derive(Debug)]
pub struct Desk {
    house: Arc<House>,
    rail: Arc<dyn Rail>,
    store: Store,
    failed: CancellationToken,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    books: Books,
    /// What the operator is told of the chain and nothing depends on, by its code.
    notices: BTreeMap<&'static str, Notice>,
    shut: Option<Arc<str>>,
    failed: CancellationToken,
}

impl Desk {
    /// Opens or makes the store at `path` and folds it into books.
    pub fn open(path: &Path, house: Arc<House>, rail: Arc<dyn Rail>) -> Result<Self, OpenDeskError> {
        let store = Store::open(path, house.facts()).map_err(RestoreError::from)?;
        Self::with(store, house, rail)
    }

    /// The same on another storage than a file.
    pub fn over(storage: impl StorageBackend, house: Arc<House>, rail: Arc<dyn Rail>) -> Result<Self, OpenDeskError> {
        let store = Store::over(storage, house.facts()).map_err(RestoreError::from)?;
        Self::with(store, house, rail)
    }

    fn with(store: Store, house: Arc<House>, rail: Arc<dyn Rail>) -> Result<Self, OpenDeskError> {
        let mut restore = Restore::new(Arc::clone(&house), Arc::clone(&rail));
        store.restore(&mut restore)?;
        let books = restore.finish().map_err(RestoreError::from)?;
        let failed = CancellationToken::new();
        let state = Mutex::new(State { books, notices: BTreeMap::new(), shut: None, failed: failed.clone() });
        Ok(Self { house, rail, store, failed, state })
    }

    /// The house.
    pub fn house(&self) -> &House {
        &self.house
    }

    /// The rail.
    pub fn rail(&self) -> &dyn Rail {
        &*self.rail
    }

    /// Cancelled when the desk is shut; whoever runs it stops then.
    pub const fn failed(&self) -> &CancellationToken {
        &self.failed
    }

    /// Why the desk is shut, if it is.
    pub fn why_shut(&self) -> Option<Arc<str>> {
        match self.enter() {
            Err(DeskError::Shut(why)) => Some(why),
            _ => None,
        }
    }

    /// Shuts the desk for a reason that shows outside of it: a call that broke off may have left anything behind.
    pub(crate) fn give_up(&self, why: &str) -> DeskError {
        match self.enter() {
            Ok(mut state) => shut(&mut state, &why),
            Err(error) => error,
        }
    }

    /// Grants credit, once per `key`; what the account is worth then.
    pub fn grant(&self, key: &str, grant: &Grant, now: Timestamp) -> Result<Funds, DeskError> {
        let mut state = self.enter()?;
        let change = state.books.grant(key, grant, now)?;
        self.carry_out(&mut state, &change)?;
        Ok(state.books.funds(&grant.account))
    }

    /// Reserves for terms, asked for by an authenticated peer.
    pub fn reserve(
        &self,
        caller: PeerId,
        request: RequestId,
        terms: SignedTerms,
        ceiling: Usdc,
        now: Timestamp,
    ) -> Result<SignedAllowance, DeskError> {
        let terms = check_terms(terms, self.house.facts())?;
        let mut state = self.enter()?;
        self.recall(&mut state, &terms.channel())?;
        let planned = state.books.reserve(caller, request, &terms, ceiling, now);
        state.books.set_aside(&terms.channel());
        let (change, allowance) = planned?;
        self.carry_out(&mut state, &change)?;
        Ok(allowance)
    }

    /// Redeems a claim; the channel as it is then.
    pub fn claim(&self, claim: Claim, now: Timestamp) -> Result<ChannelState, DeskError> {
        let claim = CheckedClaim::check(claim, self.house.facts())?;
        let channel = claim.terms().channel();
        let mut state = self.enter()?;
        self.recall(&mut state, &channel)?;
        let planned = state.books.claim(&claim, now);
        let done = planned.map_err(DeskError::from).and_then(|(change, answer)| self.carry_out(&mut state, &change).map(|()| answer));
        state.books.set_aside(&channel);
        done
    }

    /// Ends a channel from which nothing was redeemed, on its payee's word; the channel as it is then.
    pub fn release(&self, caller: PeerId, terms: SignedTerms, close: SignedClose, now: Timestamp) -> Result<ChannelState, DeskError> {
        let release = CheckedRelease::check(terms, close, self.house.facts())?;
        let channel = release.terms().channel();
        let mut state = self.enter()?;
        self.recall(&mut state, &channel)?;
        let planned = state.books.release(caller, &release, now);
        let done = planned.map_err(DeskError::from).and_then(|(change, answer)| self.carry_out(&mut state, &change).map(|()| answer));
        state.books.set_aside(&channel);
        done
    }

    /// What an account is worth.
    pub fn funds(&self, account: &Address) -> Result<Funds, DeskError> {
        Ok(self.enter()?.books.funds(account))
    }

    /// An account's keys and limits; none if it was never granted anything.
    pub fn account(&self, account: &Address) -> Result<Option<AccountRecord>, DeskError> {
        Ok(self.enter()?.books.account(account).cloned())
    }

    /// What a channel holds.
    pub fn channel_state(&self, channel: &ChannelId) -> Result<ChannelState, DeskError> {
        let mut state = self.enter()?;
        if state.books.holds(channel) {
            return Ok(state.books.channel_state(channel));
        }
        let stored = self.store.channel(channel).map_err(|error| shut(&mut state, &error))?;
        Ok(stored.map(|record| record.state()).unwrap_or_default())
    }

    /// What a payout address earned.
    pub fn earnings(&self, payee: &Address) -> Result<Earnings, DeskError> {
        Ok(self.enter()?.books.earnings(payee))
    }

    /// All balances, live channels, and payouts that wait.
    pub fn sums(&self) -> Result<(Sums, usize, usize), DeskError> {
        let state = self.enter()?;
        Ok((state.books.sums(), state.books.live_channels(), state.books.payable()))
    }

    /// Ends what is over at `now`; whether there may be more of it.
    pub fn sweep(&self, now: Timestamp) -> Result<bool, DeskError> {
        let mut state = self.enter()?;
        let change = state.books.sweep(now)?;
        self.carry_out(&mut state, &change)?;
        for record in &change.channels {
            state.books.set_aside(&record.id());
        }
        Ok(!change.is_empty())
    }

    /// Settles what was redeemed since the last batches, under the name `id`; none when there is nothing. With a `key`, repeating it gives the first batch again.
    pub fn batch(&self, id: BatchId, key: Option<&str>, now: Timestamp) -> Result<Option<BatchId>, DeskError> {
        let mut state = self.enter()?;
        if let Some(made) = key.and_then(|key| state.books.batch_made(key)) {
            return Ok(made);
        }
        if self.rail.follows_chain() {
            return self.batch_of_transaction(&mut state, id, key, now);
        }
        let channels: Vec<ChannelId> = state.books.unbatched().collect();
        let (mut claims, mut bytes) = (Vec::new(), 0_usize);
        for channel in &channels {
            let found = self.store.claim(channel).map_err(|error| shut(&mut state, &error))?;
            let Some((claim, size)) = found else { return Err(shut(&mut state, &format!("the evidence of channel {channel} is missing"))) };
            bytes = bytes.saturating_add(size);
            if !claims.is_empty() && bytes > BATCH_EVIDENCE_BYTES_MAX {
                break;
            }
            claims.push(claim);
        }
        let (change, made) = state.books.batch(id, key, claims, now)?;
        self.carry_out(&mut state, &change)?;
        for record in &change.channels {
            state.books.set_aside(&record.id());
        }
        Ok(made)
    }

    /// Exports what is payable, once per `key`; repeated, the same payouts.
    pub fn export(&self, key: &str, now: Timestamp) -> Result<Vec<Payout>, DeskError> {
        let mut state = self.enter()?;
        let (change, ids) = state.books.export(key, now)?;
        self.carry_out(&mut state, &change)?;
        let mut payouts = Vec::with_capacity(ids.len());
        for id in ids {
            match self.store.payout(&id).map_err(|error| shut(&mut state, &error))? {
                Some(payout) => payouts.push(payout),
                None => return Err(shut(&mut state, &format!("payout {id} is missing"))),
            }
        }
        Ok(payouts)
    }

    /// Batches after one, oldest first.
    pub fn batches(&self, after: Option<&BatchId>, limit: usize) -> Result<Vec<Signed<BatchSummary>>, DeskError> {
        self.listed(self.store.batches(after, limit))
    }

    /// A batch with its evidence and payouts.
    pub fn batch_evidence(&self, id: &BatchId) -> Result<Option<Batch>, DeskError> {
        let Some((summary, entries)) = self.listed(self.store.batch(id))? else { return Ok(None) };
        let made_at = summary.unverified().made_at;
        let mut payouts = Vec::new();
        for payee in entries.iter().map(|entry| entry.evidence.terms.by_agent.unverified().provider.unverified().principal) {
            let payout = crate::batch::payout_id(id, made_at, &payee);
            payouts.extend(self.listed(self.store.payout(&payout))?);
        }
        payouts.sort_by_key(|payout| payout.payee);
        payouts.dedup();
        Ok(Some(Batch { summary, entries, payouts }))
    }

    /// Payouts after one, oldest first.
    pub fn payouts(&self, after: Option<&PayoutId>, limit: usize) -> Result<Vec<Payout>, DeskError> {
        self.listed(self.store.payouts(after, limit))
    }

    /// Settled sessions after one, oldest first.
    pub fn settlements(&self, after: Option<&Settlement>, limit: usize) -> Result<Vec<Settlement>, DeskError> {
        let after = after.map(settlement_key);
        self.listed(self.store.settlements(after.as_ref().map(<[u8; 48]>::as_slice), limit))
    }

    /// Stored rows can be read beside a change in progress; a failure still shuts the desk, and a desk that is shut lists nothing.
    fn listed<T>(&self, rows: Result<T, StoreError>) -> Result<T, DeskError> {
        if self.failed.is_cancelled() {
            drop(self.enter()?);
        }
        match rows {
            Ok(rows) => Ok(rows),
            Err(error) => Err(shut(&mut *self.enter()?, &error)),
        }
    }

    fn enter(&self) -> Result<MutexGuard<'_, State>, DeskError> {
        let poisoned = self.state.is_poisoned();
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if poisoned && state.shut.is_none() {
            shut(&mut state, &"an earlier change broke off half-way");
        }
        match &state.shut {
            None => Ok(state),
            Some(why) => Err(DeskError::Shut(Arc::clone(why))),
        }
    }

    fn recall(&self, state: &mut State, channel: &ChannelId) -> Result<(), DeskError> {
        if state.books.holds(channel) {
            return Ok(());
        }
        if let Some(record) = self.store.channel(channel).map_err(|error| shut(state, &error))? {
            let chain = self.store.chain_channel(channel).map_err(|error| shut(state, &error))?;
            state.books.recall(record, chain);
        }
        Ok(())
    }

    fn carry_out(&self, state: &mut State, change: &Change) -> Result<(), DeskError> {
        if change.is_empty() {
            return Ok(());
        }
        let newest = change.batch.as_ref().map(|batch| batch.summary.unverified().content_id(&self.house.facts().network));
        self.store.commit(change, newest).map_err(|error| shut(state, &error))?;
        state.books.apply(change).map_err(|error| shut(state, &error))
    }
}

fn shut(state: &mut State, why: &dyn std::fmt::Display) -> DeskError {
    let why: Arc<str> = Arc::from(why.to_string());
    tracing::error!(%why, "the settlement desk is shut");
    state.shut = Some(Arc::clone(&why));
    state.failed.cancel();
    DeskError::Shut(why)
}
