//! The desk's part that a chain needs: folding final logs, taking claims along in transactions, and what an operator is shown.
//!
//! It carries out what books and machine have planned, and reads the evidence that they need; it decides nothing.

use std::collections::BTreeSet;

use orien_chain::{OnChainClaim, Wei, call};
use orien_protocol::channel::{Channel, ChannelId};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::money::Usdc;
use orien_protocol::time::Timestamp;

use super::{Desk, DeskError, State, shut};
use crate::batch::{BATCH_ENTRIES_MAX, BATCH_EVIDENCE_BYTES_MAX};
use crate::books::{Books, Candidate, ChainChange, ChainTotals, Change, Cursor, FinalLog, Halt, Parked, Sight};
use crate::paying::{Choice, Flight, Policy, Sender, choose};

/// What the operator is told and nothing depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Notice {
    /// What.
    pub text: String,
    /// When it was seen last.
    pub at: Timestamp,
}

/// Where a sender stands, as it was stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// How far final logs are folded.
    pub cursor: Option<Cursor>,
    /// The sender's own state.
    pub sender: Sender,
    /// The flight under way.
    pub flight: Option<Flight>,
    /// Whether anything halts it.
    pub halted: bool,
}

/// A transaction that is worth it: its claims, and what it calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TakeOff {
    /// Its claims.
    pub choice: Choice,
    /// The call.
    pub calldata: Vec<u8>,
    /// The evidence of its claims.
    pub evidence: Vec<(ChannelId, Claim)>,
}

/// What an operator is shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChainStatus {
    /// How far final logs are folded.
    pub cursor: Option<Cursor>,
    /// How well the chain is seen.
    pub sight: Option<Sight>,
    /// Whether books and chain were found to say the same since this process started.
    pub compared: bool,
    /// Why nothing is promised or paid, if so.
    pub halts: Vec<Halt>,
    /// What else is to be told, by its code.
    pub notices: Vec<(&'static str, Notice)>,
    /// Number of the next transaction.
    pub sender: Sender,
    /// The one under way.
    pub flight: Option<Flight>,
    /// Claims that wait for one.
    pub waiting: usize,
    /// What those come to.
    pub waiting_amount: Usdc,
    /// Claims that are set aside, why, and what they come to.
    pub parked: Vec<(ChannelId, Parked, Usdc)>,
    /// Sums over all accounts.
    pub totals: ChainTotals,
    /// Escrow accounts known.
    pub accounts: usize,
}

impl Desk {
    /// Where the sender stands.
    pub fn standing(&self) -> Result<Standing, DeskError> {
        let state = self.enter()?;
        let books = &state.books;
        let (cursor, sender) = (books.cursor(), books.sender());
        Ok(Standing { cursor, sender, flight: books.flight().cloned(), halted: !books.halts().is_empty() })
    }

    /// Folds a stretch of final logs.
    pub fn fold(&self, logs: &[FinalLog], upto: Cursor, ours: &BTreeSet<Hash>, now: Timestamp) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        let named: BTreeSet<ChannelId> = logs.iter().filter_map(|log| channel_of(&log.log.event)).collect();
        for channel in &named {
            self.recall(&mut state, channel)?;
        }
        let planned = state.books.follow(logs, upto, ours, now);
        let done = planned.map_err(DeskError::from).and_then(|change| self.carry_out(&mut state, &change));
        for channel in &named {
            state.books.set_aside(channel);
        }
        done
    }

    /// Takes note of how well the chain is seen, and says whether what was folded of it is older than it should be.
    pub fn see(&self, sight: Sight) -> Result<bool, DeskError> {
        let mut state = self.enter()?;
        state.books.see(sight);
        Ok(state.books.is_late(sight))
    }

    /// Takes note that books and chain were compared, and say the same: from then on this process may promise.
    pub fn compared(&self) -> Result<(), DeskError> {
        self.enter()?.books.compared();
        Ok(())
    }

    /// Stops promising and paying until the operator has looked.
    pub fn halt(&self, code: &str, text: &str, now: Timestamp) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        let Some(halts) = state.books.halted(code, text.to_owned(), now) else { return Ok(()) };
        tracing::error!(code, text, "settlement is halted: nothing is reserved and nothing is sent until its operator has looked");
        let change = Change { chain: ChainChange { halts: Some(halts), ..ChainChange::default() }, ..Change::default() };
        self.carry_out(&mut state, &change)
    }

    /// Goes on after a halt, on the operator's word.
    pub fn clear_halts(&self) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        let change = state.books.cleared();
        self.carry_out(&mut state, &change)
    }

    /// Tells the operator something, or takes it back.
    pub fn notice(&self, code: &'static str, text: Option<String>, now: Timestamp) -> Result<(), DeskError> {
        tell(&mut *self.enter()?, code, text, now);
        Ok(())
    }

    /// Chooses the next transaction's claims and makes its call; none when none is worth it.
    pub fn take_off(&self, policy: &Policy, gas_price: Wei, now: Timestamp) -> Result<Option<TakeOff>, DeskError> {
        let mut state = self.enter()?;
        let left = state.books.day_left(policy.day_cap, now);
        let choice = choose(state.books.candidates(), policy, gas_price, left, now);
        for (claims, why) in [(&choice.over_cap, Parked::OverCap), (&choice.over_day_cap, Parked::OverDayCap)] {
            if !claims.is_empty() {
                let change = state.books.park(claims, why);
                self.carry_out(&mut state, &change)?;
            }
        }
        for (code, why, cap) in [("over_cap", Parked::OverCap, policy.payout_cap), ("over_day_cap", Parked::OverDayCap, policy.day_cap)] {
            let text = cap.and_then(|cap| over_cap(&state.books, why, cap));
            tell(&mut state, code, text, now);
        }
        if choice.claims.is_empty() {
            return Ok(None);
        }
        let (mut evidence, mut calls) = (Vec::new(), Vec::new());
        for candidate in &choice.claims {
            let claim = self.evidence_of(&mut state, candidate)?;
            calls.push(on_chain(&claim, candidate)?);
            evidence.push((candidate.channel, claim));
        }
        Ok(Some(TakeOff { calldata: call::redeem(&calls), choice, evidence }))
    }

    fn evidence_of(&self, state: &mut State, candidate: &Candidate) -> Result<Claim, DeskError> {
        let found = self.store.claim(&candidate.channel).map_err(|error| shut(state, &error))?;
        match found {
            Some((claim, _)) if claim.voucher.unverified().total == candidate.total => Ok(claim),
            _ => Err(shut(state, &format!("the claim of channel {} is missing", candidate.channel))),
        }
    }

    /// Stores a flight, its sender, and whatever goes with this step.
    pub fn keep_flight(&self, flight: &Flight, sender: Sender, with: ChainChange) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        let chain = ChainChange { flights: vec![flight.clone()], sender: Some(sender), ..with };
        self.carry_out(&mut state, &Change { chain, ..Change::default() })
    }

    /// What a flight that takes off takes along, for [`Desk::keep_flight`].
    pub fn luggage(&self, take_off: &TakeOff, now: Timestamp) -> Result<ChainChange, DeskError> {
        Ok(self.enter()?.books.take_along(take_off.evidence.clone(), take_off.choice.amount(), now))
    }

    /// Ends a flight whose final logs are folded, with its sender.
    pub fn conclude(&self, flight: &Flight, sender: Sender) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        for claim in &flight.claims {
            self.recall(&mut state, &claim.channel)?;
        }
        let mut change = state.books.conclude(flight);
        change.chain.sender = Some(sender);
        let done = self.carry_out(&mut state, &change);
        for claim in &flight.claims {
            state.books.set_aside(&claim.channel);
        }
        done
    }

    /// Notes that a call with these claims would have been reverted; no nonce was taken for it.
    pub fn would_revert(&self, claims: &[Candidate]) -> Result<(), DeskError> {
        let mut state = self.enter()?;
        let change = state.books.would_revert(claims);
        self.carry_out(&mut state, &change)
    }

    /// Stored bytes of a flight.
    pub fn raw(&self, nonce: u64, attempt: u32) -> Result<Option<Vec<u8>>, DeskError> {
        self.listed(self.store.raw(nonce, attempt))
    }

    /// Flights before a nonce, newest first.
    pub fn flights(&self, before: Option<u64>, limit: usize) -> Result<Vec<Flight>, DeskError> {
        self.listed(self.store.flights(before, limit))
    }

    /// The transaction that redeemed a batch.
    pub fn batch_transaction(&self, batch: &BatchId) -> Result<Option<Hash>, DeskError> {
        self.listed(self.store.batch_transaction(batch))
    }

    /// What an operator is shown of the chain.
    pub fn chain_status(&self) -> Result<ChainStatus, DeskError> {
        let state = self.enter()?;
        let books = &state.books;
        let waiting = books.candidates();
        Ok(ChainStatus {
            cursor: books.cursor(),
            sight: books.sight(),
            compared: books.is_compared(),
            halts: books.halts().to_vec(),
            notices: state.notices.iter().map(|(code, notice)| (*code, notice.clone())).collect(),
            sender: books.sender(),
            flight: books.flight().cloned(),
            waiting: waiting.len(),
            waiting_amount: waiting.iter().fold(Usdc::ZERO, |sum, claim| sum.plus(claim.amount).unwrap_or(sum)),
            parked: books.parked().into_iter().map(|(id, why)| (id, why, books.unredeemed(&id))).collect(),
            totals: books.chain_totals(),
            accounts: books.chain_accounts().count(),
        })
    }

    /// Settles what one transaction redeemed; none when nothing is left that can be proven.
    pub(super) fn batch_of_transaction(
        &self,
        state: &mut State,
        id: BatchId,
        key: Option<&str>,
        now: Timestamp,
    ) -> Result<Option<BatchId>, DeskError> {
        for channels in state.books.unbatched_by_transaction().into_values() {
            let (mut claims, mut bytes) = (Vec::new(), 0_usize);
            for channel in channels.iter().take(BATCH_ENTRIES_MAX) {
                let Some((claim, size)) = self.proof_of(state, channel)? else { continue };
                bytes = bytes.saturating_add(size);
                if !claims.is_empty() && bytes > BATCH_EVIDENCE_BYTES_MAX {
                    break;
                }
                claims.push(claim);
            }
            if !claims.is_empty() {
                let (change, made) = state.books.batch(id, key, claims, now)?;
                self.carry_out(state, &change)?;
                for record in &change.channels {
                    state.books.set_aside(&record.id());
                }
                return Ok(made);
            }
        }
        let (change, _) = state.books.batch(id, key, Vec::new(), now)?;
        self.carry_out(state, &change)?;
        Ok(None)
    }

    /// The claim that proves what was redeemed of a channel: the newest, or the one that a transaction took along. A payee who redeems alone may have shown us neither.
    fn proof_of(&self, state: &mut State, channel: &ChannelId) -> Result<Option<(Claim, usize)>, DeskError> {
        let Some(redeemed) = state.books.channel(channel).map(|record| record.redeemed) else { return Ok(None) };
        let newest = self.store.claim(channel).map_err(|error| shut(state, &error))?;
        let proves = |claim: &Claim| claim.voucher.unverified().total == redeemed;
        if let Some((claim, size)) = newest.filter(|(claim, _)| proves(claim)) {
            return Ok(Some((claim, size)));
        }
        let sent = self.store.sent_claim(channel).map_err(|error| shut(state, &error))?;
        Ok(sent.filter(proves).map(|claim| {
            let size = orien_protocol::codec::encode(&claim).map_or(0, |bytes| bytes.len());
            (claim, size)
        }))
    }
}

fn tell(state: &mut State, code: &'static str, text: Option<String>, now: Timestamp) {
    let known = state.notices.remove(code);
    if let Some(text) = text {
        if known.is_none() {
            tracing::warn!(code, %text, "the chain");
        }
        state.notices.insert(code, Notice { text, at: now });
    }
}

/// What is said of claims that a cap leaves out; none when there is none.
fn over_cap(books: &Books, why: Parked, cap: Usdc) -> Option<String> {
    let amounts: Vec<Usdc> = books.parked().into_iter().filter(|(_, parked)| *parked == why).map(|(id, _)| books.unredeemed(&id)).collect();
    let (count, largest) = (amounts.len(), amounts.into_iter().max()?);
    let of = if why == Parked::OverCap { "one payout" } else { "a day" };
    Some(format!(
        "{count} claims of up to {largest} USDC are above the cap of {cap} USDC for {of} and are not sent; raise it, or leave them to their payees"
    ))
}

fn channel_of(event: &orien_chain::EscrowEvent) -> Option<ChannelId> {
    use orien_chain::EscrowEvent::{ClaimRefused, Locked, Redeemed, Unlocked};
    match event {
        Redeemed { channel, .. } | ClaimRefused { channel, .. } | Locked { channel, .. } | Unlocked { channel, .. } => Some(*channel),
        _ => None,
    }
}

fn on_chain(claim: &Claim, candidate: &Candidate) -> Result<OnChainClaim, DeskError> {
    let terms = claim.terms.by_agent.unverified();
    let (agent, provider) = (terms.agent.unverified(), terms.provider.unverified());
    let channel = Channel {
        domain: terms.domain,
        account: agent.principal,
        spending_key: agent.money_key,
        payout: provider.principal,
        provider: provider.peer,
        settlement_signer: terms.settlement_signer,
        lane: terms.session,
    };
    let close = claim.close.filter(|_| candidate.closes);
    OnChainClaim::new(channel, claim.voucher, Some(claim.allowance), close)
        .map_err(|error| DeskError::Refused(Fault::new(FaultCode::INTERNAL, error)))
}
