//! Which claims could go into a transaction, and the record that they do.

use std::ops::Bound;

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::Claim;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Timestamp, UnixSeconds};

use super::{ChainChange, ChainChannel, FAILURES_MAX, Parked};
use crate::books::{Books, Change, ChannelRecord};

const SECONDS_PER_DAY: u64 = 24 * 3600;

/// A claim that waits for the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The channel.
    pub channel: ChannelId,
    /// Whose money it is.
    pub account: Address,
    /// Who is paid.
    pub payee: Address,
    /// The channel's total after it.
    pub total: Usdc,
    /// What it redeems beyond what is redeemed.
    pub amount: Usdc,
    /// Whether it ends the channel.
    pub closes: bool,
    /// No redemption after this.
    pub redeem_until: UnixSeconds,
    /// Since when it waits.
    pub waiting_since: Timestamp,
    /// Transactions with it in them that were reverted.
    pub failures: u8,
}

impl Books {
    /// Everything that waits and is not set aside.
    pub fn candidates(&self) -> Vec<Candidate> {
        self.chain.waiting.iter().filter_map(|id| candidate(self.channel(id)?, self.chain_channel(id)?)).collect()
    }

    /// Claims that are set aside, and why.
    pub fn parked(&self) -> Vec<(ChannelId, Parked)> {
        self.chain.channels.iter().filter_map(|(id, chain)| Some((*id, chain.parked?))).collect()
    }

    /// What a channel promises beyond what is redeemed of it.
    pub fn unredeemed(&self, id: &ChannelId) -> Usdc {
        let promised =
            |record: &ChannelRecord| record.voucher.map_or(Usdc::ZERO, |voucher| voucher.unverified().total).excess_over(record.redeemed);
        self.channel(id).map_or(Usdc::ZERO, promised)
    }

    /// What the cap of a day leaves at `now`.
    pub fn day_left(&self, cap: Option<Usdc>, now: Timestamp) -> Option<Usdc> {
        let totals = self.chain_totals();
        let sent = if totals.day == now.seconds().0 / SECONDS_PER_DAY { totals.day_sent } else { Usdc::ZERO };
        cap.map(|cap| cap.excess_over(sent))
    }

    /// Plans the record of what a flight takes along: the evidence that batches will need, and the day's sum.
    pub fn take_along(&self, sent: Vec<(ChannelId, Claim)>, amount: Usdc, now: Timestamp) -> ChainChange {
        let mut totals = self.chain_totals();
        let day = now.seconds().0 / SECONDS_PER_DAY;
        if day > totals.day {
            (totals.day, totals.day_sent) = (day, Usdc::ZERO);
        }
        totals.day_sent = totals.day_sent.plus(amount).unwrap_or(Usdc::from_micros(u64::MAX));
        ChainChange { sent, totals: Some(totals), ..ChainChange::default() }
    }

    /// Plans the note that a call with these claims would be reverted: from now on each goes alone, and one that is reverted alone too often is set aside.
    pub fn would_revert(&self, claims: &[Candidate]) -> Change {
        let note = |claim: &Candidate| {
            let chain = self.chain_channel(&claim.channel)?;
            let failures = chain.failures.saturating_add(1);
            let parked = (failures >= FAILURES_MAX).then_some(Parked::Reverts);
            Some((claim.channel, claim.account, ChainChannel { failures, parked, ..*chain }))
        };
        let channels = claims.iter().filter_map(note).collect();
        Change { chain: ChainChange { channels, ..ChainChange::default() }, ..Change::default() }
    }

    /// What is redeemed of every channel that is held in memory, live or not wholly in batches, after this one.
    pub fn held_channels_after(&self, after: Option<&ChannelId>) -> impl Iterator<Item = (ChannelId, Usdc)> {
        self.channels.range((beyond(after), Bound::Unbounded)).map(|(id, record)| (*id, record.redeemed))
    }

    /// Every escrow account after this one, and what it asked back.
    pub fn chain_accounts_after(&self, after: Option<&Address>) -> impl Iterator<Item = (Address, Usdc)> {
        self.chain.accounts.range((beyond(after), Bound::Unbounded)).map(|(address, record)| (*address, record.exiting))
    }

    /// Undelivered payments by payee after this one, in micro-USDC.
    pub fn credits_after(&self, after: Option<&Address>) -> impl Iterator<Item = (Address, u128)> {
        self.chain.credits.range((beyond(after), Bound::Unbounded)).map(|(payee, credit)| (*payee, *credit))
    }

    /// Plans setting claims aside.
    pub fn park(&self, claims: &[Candidate], why: Parked) -> Change {
        let park = |claim: &Candidate| {
            let chain = self.chain_channel(&claim.channel)?;
            Some((claim.channel, claim.account, ChainChannel { parked: Some(why), ..*chain }))
        };
        let channels = claims.iter().filter_map(park).collect();
        Change { chain: ChainChange { channels, ..ChainChange::default() }, ..Change::default() }
    }
}

fn beyond<T: Copy>(after: Option<&T>) -> Bound<T> {
    after.map_or(Bound::Unbounded, |after| Bound::Excluded(*after))
}

fn candidate(record: &ChannelRecord, chain: &ChainChannel) -> Option<Candidate> {
    let total = record.voucher?.unverified().total;
    let amount = total.excess_over(record.redeemed);
    let closes = !chain.close_sent && record.close.is_some_and(|close| close.unverified().total == total);
    let waits = record.live() && chain.parked.is_none() && (amount > Usdc::ZERO || closes);
    waits.then_some(Candidate {
        channel: record.id(),
        account: record.account,
        payee: record.payout,
        total: total.max(record.redeemed),
        amount,
        closes,
        redeem_until: record.redeem_until,
        waiting_since: chain.waiting_since?,
        failures: chain.failures,
    })
}
