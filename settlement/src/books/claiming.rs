//! Claims: a provider, or anybody for it, shows the documents of a channel and has the newest total redeemed, exactly once.
//!
//! On a rail with a chain a claim is checked and kept just so, and waits: what is redeemed then is what final logs say.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::ChannelState;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::time::Timestamp;

use super::{Books, Change, ChannelRecord, ChannelStatus};
use crate::evidence::CheckedClaim;
use crate::ledger::{LedgerAccount, Postings, Reason};

impl Books {
    /// Plans a redemption. A claim that is not newer than what is known gets the current state and changes nothing.
    pub fn claim(&self, claim: &CheckedClaim, now: Timestamp) -> Result<(Change, ChannelState), Fault> {
        let channel = claim.terms().channel();
        let old = self.channel(&channel).ok_or_else(|| Fault::new(FaultCode::NOT_FOUND, "nothing was reserved for this channel here"))?;
        if old.terms != claim.terms().hash() {
            return Err(Fault::new(FaultCode::BAD_ALLOWANCE, "the channel was reserved under other terms"));
        }
        if claim.allowance().ceiling > old.ceiling {
            return Err(Fault::new(FaultCode::HISTORY_LOST, "the allowance is newer than what settlement holds of the channel"));
        }
        let newer = claim.voucher().rank() > old.rank();
        let claimed = old.voucher.map_or(Usdc::ZERO, |voucher| voucher.unverified().total);
        let total = claim.voucher().total.max(old.redeemed).max(claimed);
        let closes = self.closes(claim, old, total)?;
        if !newer && !closes {
            return Ok((Change::default(), old.state()));
        }
        // What the chain redeemed already can still be proven.
        let proves = self.rail.follows_chain() && claim.voucher().total <= old.redeemed;
        if !old.live() && !proves {
            return Err(Fault::new(FaultCode::SESSION_ENDED, "the channel has ended and redeems nothing more"));
        }
        if now.seconds() > old.redeem_until && !proves {
            return Err(Fault::new(FaultCode::TIMES, "the time to redeem this channel is over"));
        }
        if self.rail.follows_chain() {
            return Ok(self.keep(claim, old, newer, closes, now));
        }
        self.redeem(claim, old, newer, closes, now)
    }

    /// Keeps a claim until the chain has redeemed it.
    fn keep(&self, claim: &CheckedClaim, old: &ChannelRecord, newer: bool, closes: bool, now: Timestamp) -> (Change, ChannelState) {
        let (mut record, mut chain) = (old.clone(), self.chain_channel(&old.id()).copied().unwrap_or_default());
        if newer {
            record.voucher = Some(claim.claim().voucher);
        }
        if closes {
            record.close = claim.claim().close;
            chain.close_sent = false;
        }
        if record.live() && (closes || claim.voucher().total > record.redeemed) {
            chain.waiting_since = chain.waiting_since.or(Some(now));
            // A newer claim may be what an older one was not.
            (chain.parked, chain.failures) = (None, 0);
        }
        let state = record.state();
        let mut change = Change { claims: vec![(record.id(), claim.claim().clone())], ..Change::default() };
        change.chain.channels.push((record.id(), record.account, chain));
        change.channels.push(record);
        (change, state)
    }

    /// Whether the claim's close ends the channel now: it names the very total that is redeemed then. One overtaken by a higher voucher is ignored.
    fn closes(&self, claim: &CheckedClaim, old: &ChannelRecord, total: Usdc) -> Result<bool, Fault> {
        match claim.close_total() {
            Some(close) if close > total => Err(Fault::new(FaultCode::BAD_VOUCHER, "the close names a total that no voucher promised")),
            Some(close) => Ok(close == total && old.live() && !self.is_closing(old, close)),
            None => Ok(false),
        }
    }

    /// Whether a close at this total is kept already and waits for the chain.
    fn is_closing(&self, old: &ChannelRecord, total: Usdc) -> bool {
        self.rail.follows_chain() && old.close.is_some_and(|close| close.unverified().total == total)
    }

    fn redeem(
        &self,
        claim: &CheckedClaim,
        old: &ChannelRecord,
        newer: bool,
        closes: bool,
        now: Timestamp,
    ) -> Result<(Change, ChannelState), Fault> {
        let internal = |error: &dyn std::error::Error| Fault::new(FaultCode::INTERNAL, error);
        let mut record = old.clone();
        if newer {
            record.redeemed = claim.voucher().total;
            record.voucher = Some(claim.claim().voucher);
        }
        let step = Split::of(record.redeemed).minus(Split::of(old.redeemed)).map_err(|error| internal(&error))?;
        let mut postings = Postings::new(self.ledger(), now);
        let from = LedgerAccount::Channel(old.id());
        for (to, share) in [
            (LedgerAccount::Payee(old.payout), step.provider),
            (LedgerAccount::Platform, step.platform),
            (LedgerAccount::Reserve, step.reserve),
        ] {
            postings.add(from, to, share, Reason::Redeem).map_err(|error| internal(&error))?;
        }
        let mut change = Change::default();
        if closes {
            record.status = ChannelStatus::Closed;
            record.close = claim.claim().close;
            let rest = Self::give_rest_back(&record, Reason::Close, &mut postings)?;
            let account = self.account(&record.account).map(|account| account.with_returned(rest, now));
            change.accounts.extend(account.map(|account| (record.account, account)));
        }
        let state = record.state();
        change.transfers = postings.finish();
        if newer {
            change.claims.push((record.id(), claim.claim().clone()));
        }
        change.channels.push(record);
        Ok((change, state))
    }

    /// Gives back what a channel that just ended still holds; how much that is.
    pub(super) fn give_rest_back(record: &ChannelRecord, reason: Reason, postings: &mut Postings<'_>) -> Result<Usdc, Fault> {
        let rest = record.ceiling.excess_over(record.redeemed);
        let (from, to) = (LedgerAccount::Channel(record.id()), LedgerAccount::Agent(record.account));
        postings.add(from, to, rest, reason).map_err(|error| Fault::new(FaultCode::INTERNAL, error))?;
        Ok(rest)
    }
}
