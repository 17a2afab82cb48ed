//! Settlement as the world sees it: anything that reserves, redeems and pays.
//!
//! A world is given its settlement, so that the one that is run for real can be put into it. [`PlainHouse`] is the least that could be right: no ledger, no batches, no evidence kept.

use std::collections::{BTreeMap, BTreeSet};

use crate::channel::ChannelId;
use crate::fault::{Fault, FaultCode};
use crate::frame::{ChannelState, Claim};
use crate::id::RequestId;
use crate::money::{Split, Usdc};
use crate::network::NetworkId;
use crate::peer::PeerId;
use crate::signing::{Address, MoneyDomain, MoneyKey};
use crate::terms::{SignedTerms, TermsError, VerifiedTerms};
use crate::time::{Millis, Timestamp, UnixSeconds};
use crate::voucher::{Allowance, MoneyVerified, SignedAllowance, SignedClose};

/// Finality lag and exit delay of every simulated network.
pub const LAG_AND_DELAY: (Millis, Millis) = (Millis::from_secs(60), Millis::from_secs(24 * 3600));

/// What settlement holds of one account.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AccountFacts {
    /// All that was granted.
    pub granted: u128,
    /// Held for live channels.
    pub reserved: u128,
    /// Redeemed.
    pub redeemed: u128,
    /// What can still be reserved.
    pub available: u128,
}

/// What settlement says of its books, for the auditor.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HouseFacts {
    /// By account.
    pub accounts: BTreeMap<Address, AccountFacts>,
    /// By channel.
    pub channels: BTreeMap<ChannelId, ChannelState>,
    /// Earned and not settled, and settled, by payout address.
    pub payees: BTreeMap<Address, (u128, u128)>,
    /// Shares of platform and reserve.
    pub fees: (u128, u128),
}

/// One payment that left settlement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payment {
    /// Unique.
    pub id: u128,
    /// To whom.
    pub payee: Address,
    /// How much.
    pub amount: Usdc,
}

/// A settlement that a world can be given. Whatever returns has been committed.
pub trait House {
    /// Gives an account credit that `spending_key` may promise.
    fn grant(&mut self, account: Address, spending_key: Address, amount: Usdc, now: Timestamp);

    /// Reserves; the same request again gets the same answer.
    fn reserve(
        &mut self,
        caller: PeerId,
        request: RequestId,
        terms: SignedTerms,
        ceiling: Usdc,
        now: Timestamp,
    ) -> Result<SignedAllowance, Fault>;

    /// Redeems.
    fn claim(&mut self, claim: Claim, now: Timestamp) -> Result<ChannelState, Fault>;

    /// Ends a channel that nothing was redeemed from, because its payee says so; one that was never reserved, too.
    fn release(&mut self, caller: PeerId, terms: SignedTerms, close: SignedClose, now: Timestamp) -> Result<ChannelState, Fault>;

    /// Ends what is over.
    fn sweep(&mut self, now: Timestamp);

    /// Settles and pays what was redeemed since the last time.
    fn pay(&mut self, now: Timestamp) -> Vec<Payment>;

    /// Loses everything that was not committed and starts again from what was.
    fn crash(&mut self);

    /// The books.
    fn facts(&self) -> HouseFacts;
}

#[derive(Clone, Debug)]
struct Reservation {
    account: Address,
    payout: Address,
    terms: crate::hash::Hash,
    rank: (u64, u64),
    state: ChannelState,
    redeem_until: UnixSeconds,
    paid: Usdc,
    /// Checked when it was made.
    signed: VerifiedTerms,
}

impl Reservation {
    fn of(terms: &VerifiedTerms, state: ChannelState) -> Self {
        let (account, payout, redeem_until) = (terms.account(), terms.payout(), terms.redeem_until);
        Self { account, payout, terms: terms.hash(), rank: (0, 0), state, redeem_until, paid: Usdc::ZERO, signed: terms.clone() }
    }
}

/// The plainest settlement.
#[derive(Debug)]
pub struct PlainHouse {
    network: NetworkId,
    domain: MoneyDomain,
    key: MoneyKey,
    granted: BTreeMap<Address, u64>,
    spenders: BTreeSet<(Address, Address)>,
    channels: BTreeMap<ChannelId, Reservation>,
    answers: BTreeMap<(PeerId, RequestId), (crate::hash::Hash, Usdc, SignedAllowance)>,
    settled: BTreeMap<Address, u128>,
    payments: u128,
}

impl PlainHouse {
    /// One that signs with `key`.
    pub const fn new(network: NetworkId, domain: MoneyDomain, key: MoneyKey) -> Self {
        Self {
            network,
            domain,
            key,
            granted: BTreeMap::new(),
            spenders: BTreeSet::new(),
            channels: BTreeMap::new(),
            answers: BTreeMap::new(),
            settled: BTreeMap::new(),
            payments: 0,
        }
    }

    /// Terms that are checked, now or when their channel was made.
    fn terms(&self, signed: SignedTerms) -> Result<VerifiedTerms, Fault> {
        let channel = signed.by_agent.unverified().channel().id();
        match self.channels.get(&channel).map(|channel| &channel.signed) {
            Some(known) if known.to_signed() == signed => Ok(known.clone()),
            _ => signed.verify(&self.network).map_err(|error| terms_fault(&error)),
        }
    }

    fn facts_of(&self, account: Address) -> AccountFacts {
        let mut facts = AccountFacts { granted: u128::from(self.granted.get(&account).copied().unwrap_or(0)), ..AccountFacts::default() };
        for channel in self.channels.values().filter(|channel| channel.account == account) {
            facts.redeemed += u128::from(channel.state.redeemed.micros());
            if !channel.state.closed {
                facts.reserved += u128::from(channel.state.ceiling.excess_over(channel.state.redeemed).micros());
            }
        }
        facts.available = facts.granted.saturating_sub(facts.reserved).saturating_sub(facts.redeemed);
        facts
    }
}

fn terms_fault(error: &TermsError) -> Fault {
    Fault::new(FaultCode::TIMES, error)
}

impl House for PlainHouse {
    fn grant(&mut self, account: Address, spending_key: Address, amount: Usdc, _: Timestamp) {
        let sum = self.granted.entry(account).or_default();
        *sum = sum.saturating_add(amount.micros());
        self.spenders.insert((account, spending_key));
    }

    fn reserve(
        &mut self,
        caller: PeerId,
        request: RequestId,
        terms: SignedTerms,
        ceiling: Usdc,
        now: Timestamp,
    ) -> Result<SignedAllowance, Fault> {
        let fault = |code, text: &str| Err(Fault::new(code, text));
        let terms = self.terms(terms)?;
        if let Some((hash, asked, allowance)) = self.answers.get(&(caller, request)) {
            let same = *hash == terms.hash() && *asked == ceiling;
            return if same { Ok(*allowance) } else { fault(FaultCode::CONFLICT, "the request was another one") };
        }
        if caller != terms.agent() || !self.spenders.contains(&(terms.account(), terms.spending_key())) {
            return fault(FaultCode::NOT_YOURS, "not the agent of the terms, or not a spending key of the account");
        }
        let old = self.channels.get(&terms.channel());
        match old {
            None => terms.check_times(now, LAG_AND_DELAY.0, LAG_AND_DELAY.1).map_err(|error| terms_fault(&error))?,
            Some(old) if old.terms != terms.hash() || old.state.closed || ceiling < old.state.ceiling => {
                return fault(FaultCode::WRONG_STATE, "the channel has other terms, has ended, or holds more");
            }
            Some(_) => {}
        }
        if terms.work_until.timestamp() <= now {
            return fault(FaultCode::SESSION_ENDED, "the time to work is over");
        }
        let raise = ceiling.excess_over(old.map_or(Usdc::ZERO, |old| old.state.ceiling));
        if u128::from(raise.micros()) > self.facts_of(terms.account()).available {
            return fault(FaultCode::INSUFFICIENT_FUNDS, "the account has less");
        }
        let (work_until, redeem_until) = (terms.work_until, terms.redeem_until);
        let (channel, claim_key) = (terms.channel(), terms.claim_key());
        let allowance = Allowance { channel, ceiling, work_until, redeem_until, terms: terms.hash(), claim_key };
        let allowance = *MoneyVerified::sign(allowance, &self.domain, &self.key).signed();
        let entry = self.channels.entry(channel).or_insert_with(|| Reservation::of(&terms, ChannelState::default()));
        entry.state.ceiling = ceiling;
        self.answers.insert((caller, request), (terms.hash(), ceiling, allowance));
        Ok(allowance)
    }

    fn claim(&mut self, claim: Claim, now: Timestamp) -> Result<ChannelState, Fault> {
        let bad = |text: &str| Err(Fault::new(FaultCode::BAD_VOUCHER, text));
        let signature = |error| Fault::new(FaultCode::BAD_SIGNATURE, error);
        let terms = self.terms(claim.terms)?;
        let allowance = claim.allowance.verify(&self.domain, &self.key.address()).map_err(signature)?;
        let voucher = claim.voucher.verify(&self.domain, &terms.spending_key()).map_err(signature)?;
        let receipt = claim.receipt.verify(&self.network, &terms.provider()).map_err(signature)?;
        let close = claim.close.map(|close| close.verify(&self.domain, &terms.claim_key())).transpose().map_err(signature)?;
        let named = receipt.number == voucher.receipt_number && receipt.hash() == voucher.receipt_hash && receipt.charged == voucher.total;
        let Some(channel) = self.channels.get_mut(&terms.channel()) else { return bad("nothing was reserved") };
        let ours = allowance.channel == terms.channel()
            && voucher.channel == terms.channel()
            && close.is_none_or(|close| close.channel == terms.channel())
            && channel.terms == terms.hash();
        if !ours || !named || voucher.total > allowance.ceiling || voucher.total > channel.state.ceiling {
            return bad("the documents do not fit together");
        }
        let newer = voucher.rank() > channel.rank;
        let closes = !channel.state.closed && close.is_some_and(|close| close.total == channel.state.redeemed.max(voucher.total));
        if !newer && !closes {
            return Ok(channel.state);
        }
        if channel.state.closed || now.seconds() > channel.redeem_until {
            return bad("the channel has ended");
        }
        if newer {
            channel.rank = voucher.rank();
            channel.state.redeemed = voucher.total;
        }
        channel.state.closed = closes;
        Ok(channel.state)
    }

    fn release(&mut self, caller: PeerId, terms: SignedTerms, close: SignedClose, _: Timestamp) -> Result<ChannelState, Fault> {
        let terms = self.terms(terms)?;
        let close = close.verify(&self.domain, &terms.claim_key()).map_err(|error| Fault::new(FaultCode::BAD_SIGNATURE, error))?;
        if caller == terms.agent() {
            // A question to reserve that is still on its way finds the channel closed.
            self.channels.entry(terms.channel()).or_insert_with(|| Reservation::of(&terms, ChannelState::default()));
        }
        let Some(channel) = self.channels.get_mut(&terms.channel()) else {
            return Err(Fault::new(FaultCode::NOT_FOUND, "nothing was reserved"));
        };
        if close.channel != terms.channel() || channel.terms != terms.hash() || close.total != channel.state.redeemed {
            return Err(Fault::new(FaultCode::BAD_VOUCHER, "the close is for another channel or total"));
        }
        channel.state.closed = true;
        Ok(channel.state)
    }

    fn sweep(&mut self, now: Timestamp) {
        for channel in self.channels.values_mut() {
            channel.state.closed |= channel.redeem_until < now.seconds();
        }
    }

    fn pay(&mut self, _: Timestamp) -> Vec<Payment> {
        let mut due: BTreeMap<Address, u64> = BTreeMap::new();
        for channel in self.channels.values_mut() {
            let step = Split::of(channel.state.redeemed).provider.excess_over(Split::of(channel.paid).provider);
            *due.entry(channel.payout).or_default() += step.micros();
            channel.paid = channel.state.redeemed;
        }
        let mut payments = Vec::new();
        for (payee, amount) in due.into_iter().filter(|(_, amount)| *amount > 0) {
            self.payments += 1;
            *self.settled.entry(payee).or_default() += u128::from(amount);
            payments.push(Payment { id: self.payments, payee, amount: Usdc::from_micros(amount) });
        }
        payments
    }

    fn crash(&mut self) {}

    fn facts(&self) -> HouseFacts {
        let mut facts = HouseFacts::default();
        for account in self.granted.keys() {
            facts.accounts.insert(*account, self.facts_of(*account));
        }
        for (id, channel) in &self.channels {
            facts.channels.insert(*id, channel.state);
            let (share, paid) = (Split::of(channel.state.redeemed), Split::of(channel.paid));
            let payee = facts.payees.entry(channel.payout).or_default();
            payee.0 += u128::from(share.provider.excess_over(paid.provider).micros());
            facts.fees.0 += u128::from(share.platform.micros());
            facts.fees.1 += u128::from(share.reserve.micros());
        }
        for (payee, settled) in &self.settled {
            facts.payees.entry(*payee).or_default().1 = *settled;
        }
        facts
    }
}
