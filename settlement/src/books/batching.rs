//! Batches: the redemptions since the last ones, put together, signed, and turned into payouts.

use std::collections::BTreeMap;

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::merkle;
use orien_protocol::money::{AmountOverflow, Split, Usdc};
use orien_protocol::network::NetworkId;
use orien_protocol::signing::{Address, Statement, Verified};
use orien_protocol::time::Timestamp;

use super::{Books, Change, FirstAnswer, Redemption, RequestKey, RequestRecord};
use crate::batch::{BATCH_ENTRIES_MAX, Batch, BatchEntry, BatchSummary, Payout, PayoutState, Settlement, payout_id};
use crate::ledger::{LedgerAccount, Postings, Reason};

impl BatchSummary {
    /// Its content id in a network.
    pub fn content_id(&self, network: &NetworkId) -> Hash {
        self.hash(network)
    }
}

impl Books {
    /// The channels of the next batch, in its order.
    pub fn unbatched(&self) -> impl Iterator<Item = ChannelId> {
        self.unbatched.iter().copied().take(BATCH_ENTRIES_MAX)
    }

    /// The answer to an operator's batch that was made before under this name.
    pub fn batch_made(&self, key: &str) -> Option<Option<BatchId>> {
        match self.requests.get(&RequestKey::Batch(key.to_owned())).map(|record| &record.answer) {
            Some(FirstAnswer::Batch(batch)) => Some(*batch),
            _ => None,
        }
    }

    /// Plans a batch out of the newest claims of channels from [`Books::unbatched`], in that order; nothing but the request when there are none. A name, if the operator
    /// gave one, makes the request repeatable.
    pub fn batch(&self, id: BatchId, name: Option<&str>, claims: Vec<Claim>, now: Timestamp) -> Result<(Change, Option<BatchId>), Fault> {
        let mut change = Change::default();
        let made = (!claims.is_empty()).then_some(id);
        if let Some(name) = name {
            let answer = FirstAnswer::Batch(made);
            change.requests.push((RequestKey::Batch(name.to_owned()), RequestRecord { body: Hash::ZERO, answer, keep_until: None }));
        }
        if made.is_none() {
            return Ok((change, None));
        }
        let mut entries = Vec::with_capacity(claims.len());
        for evidence in claims {
            entries.push(self.entry(evidence, id, now, &mut change)?);
        }
        let overflow = |error: AmountOverflow| Fault::new(FaultCode::INTERNAL, error);
        let receipts: Vec<Hash> = entries.iter().map(|entry| entry.receipt).collect();
        let summary = BatchSummary {
            id,
            made_at: now,
            previous: self.newest_batch,
            entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
            shares: sum(entries.iter().map(|entry| entry.shares)).map_err(overflow)?,
            root: merkle::root(&receipts),
        };
        let summary = Verified::sign(summary, &self.house().facts().network, self.house().peer()).into_signed();
        change.payouts = self.owed(&entries, id, now).map_err(overflow)?;
        if self.rail.follows_chain() {
            self.paid_by_chain(&mut change, id, now)?;
        }
        change.batch = Some(Batch { summary, entries, payouts: change.payouts.clone() });
        Ok((change, made))
    }

    fn entry(&self, evidence: Claim, batch: BatchId, now: Timestamp, change: &mut Change) -> Result<BatchEntry, Fault> {
        let internal = |text: &str| Fault::new(FaultCode::INTERNAL, text);
        let channel = evidence.voucher.unverified().channel;
        let old = self.channel(&channel).ok_or_else(|| internal("a batch names a channel that is not held"))?;
        let voucher = *evidence.voucher.unverified();
        if voucher.total != old.redeemed || old.batched >= old.redeemed {
            return Err(internal("the evidence of a channel is not for what was redeemed"));
        }
        if change.channels.iter().any(|other| other.id() == channel) {
            return Err(internal("a batch names a channel twice"));
        }
        let shares = Split::of(old.redeemed).minus(Split::of(old.batched)).map_err(|error| Fault::new(FaultCode::INTERNAL, error))?;
        let entry = BatchEntry {
            channel,
            session: old.session,
            from_total: old.batched,
            to_total: old.redeemed,
            shares,
            receipt: voucher.receipt_hash,
            from: old.batched_voucher,
            evidence,
        };
        let mut record = old.clone();
        record.batched = old.redeemed;
        record.batched_voucher = Some(entry.evidence.voucher);
        change.channels.push(record);
        change.settlements.push(Settlement { session: old.session, channel, batch, total: old.redeemed, settled_at: now });
        Ok(entry)
    }

    /// Channels that were redeemed further than their last batch, by the transaction that did it. On a rail with a chain one batch is of one transaction.
    pub fn unbatched_by_transaction(&self) -> BTreeMap<Hash, Vec<ChannelId>> {
        let mut found: BTreeMap<Hash, Vec<ChannelId>> = BTreeMap::new();
        for channel in &self.unbatched {
            if let Some(redemption) = self.chain_channel(channel).and_then(|chain| chain.redemption) {
                found.entry(redemption.transaction).or_default().push(*channel);
            }
        }
        found
    }

    /// What is in the batch was paid already: its payouts are final, and leave the books with it.
    fn paid_by_chain(&self, change: &mut Change, batch: BatchId, now: Timestamp) -> Result<(), Fault> {
        let mut postings = Postings::new(self.ledger(), now);
        for payout in &mut change.payouts {
            let mut channels = change.channels.iter().filter(|record| record.payout == payout.payee);
            let redemption = channels.find_map(|record| self.chain_channel(&record.id())?.redemption);
            let Some(Redemption { transaction, at, credited, .. }) = redemption else {
                return Err(Fault::new(FaultCode::INTERNAL, "a payout of a chain has no transaction"));
            };
            payout.state = if credited { PayoutState::Credited { transaction, at } } else { PayoutState::Final { transaction, at } };
            let (from, to) = (LedgerAccount::Payee(payout.payee), LedgerAccount::Settled(payout.payee));
            postings.add(from, to, payout.amount, Reason::PayOut).map_err(|error| Fault::new(FaultCode::INTERNAL, error))?;
            if change.chain.batches.is_empty() {
                change.chain.batches.push((batch, transaction));
            }
        }
        change.transfers = postings.finish();
        Ok(())
    }

    fn owed(&self, entries: &[BatchEntry], batch: BatchId, now: Timestamp) -> Result<Vec<Payout>, AmountOverflow> {
        let mut owed: BTreeMap<Address, Usdc> = BTreeMap::new();
        for entry in entries {
            let Some(record) = self.channel(&entry.channel) else { continue };
            let amount = owed.entry(record.payout).or_default();
            *amount = amount.plus(entry.shares.provider)?;
        }
        let payout = |(payee, amount): (Address, Usdc)| Payout {
            id: payout_id(&batch, now, &payee),
            batch,
            payee,
            amount,
            state: PayoutState::Payable,
        };
        Ok(owed.into_iter().filter(|(_, amount)| *amount > Usdc::ZERO).map(payout).collect())
    }
}

fn sum(shares: impl Iterator<Item = Split>) -> Result<Split, AmountOverflow> {
    let mut total = Split::default();
    for share in shares {
        total.provider = total.provider.plus(share.provider)?;
        total.platform = total.platform.plus(share.platform)?;
        total.reserve = total.reserve.plus(share.reserve)?;
    }
    Ok(total)
}
