//! When what waits is worth a transaction, and which of it goes into the next one.
//!
//! It knows amounts, ages and what gas costs; it does not know the chain.

use std::collections::{BTreeMap, BTreeSet};

use orien_chain::{Wei, gas};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, Timestamp};

use crate::books::Candidate;

/// Most claims of one transaction. With the limits below this stays under 2^24 gas, which is the most that chains of today take of one transaction.
pub(super) const CLAIMS_MAX: usize = 60;
/// A claim that cannot be in a block before this much of its time is left is not tried: it would only be refused.
const TOO_LATE: Millis = Millis::from_secs(30);

/// What an operator decides about transactions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Worth it as soon as so much waits.
    pub amount: Usdc,
    /// Worth it when something waits for so long.
    pub age: Millis,
    /// Worth it when the time of something ends so soon.
    pub near: Millis,
    /// Worth it when gas is at most this share of what waits, in percent; 0 leaves it out.
    pub gas_percent: u8,
    /// What a whole coin of the chain costs in USDC, for `gas_percent`; on a chain whose coin is USDC it is one.
    pub coin_price: Option<Usdc>,
    /// Claims below this are left to their payees.
    pub dust: Usdc,
    /// Most that one transaction pays to one payee; what is more is left to the payee.
    pub payout_cap: Option<Usdc>,
    /// Most that the transactions of a day (UTC) redeem; a claim of more is left to its payee.
    pub day_cap: Option<Usdc>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            amount: Usdc::from_micros(10_000_000),
            age: Millis::from_secs(600),
            near: Millis::from_secs(3_600),
            gas_percent: 1,
            coin_price: None,
            dust: Usdc::ZERO,
            payout_cap: None,
            day_cap: None,
        }
    }
}

/// What goes into the next transaction.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Choice {
    /// In the order of the transaction: claims of one payee beside each other.
    pub claims: Vec<Candidate>,
    /// Candidates that are more than one payout may be.
    pub over_cap: Vec<Candidate>,
    /// Candidates that are more than a whole day may redeem.
    pub over_day_cap: Vec<Candidate>,
}

impl Choice {
    /// What it should redeem.
    pub fn amount(&self) -> Usdc {
        sum(&self.claims)
    }

    /// Gas that its transaction may use, beside what the chain counts for its data.
    pub fn gas_limit(&self) -> u64 {
        gas_limit(&self.claims)
    }
}

fn gas_limit(claims: &[Candidate]) -> u64 {
    let payees: BTreeSet<Address> = claims.iter().map(|claim| claim.payee).collect();
    gas::of_claims(claims.len(), payees.len())
}

fn sum(claims: &[Candidate]) -> Usdc {
    claims.iter().fold(Usdc::ZERO, |sum, claim| sum.plus(claim.amount).unwrap_or(Usdc::from_micros(u64::MAX)))
}

/// Chooses the next transaction's claims; none when it is not worth one yet. `day_left` is what the day's cap leaves.
pub fn choose(candidates: Vec<Candidate>, policy: &Policy, gas_price: Wei, day_left: Option<Usdc>, now: Timestamp) -> Choice {
    let mut choice = Choice::default();
    let mut waiting: Vec<Candidate> = Vec::new();
    for claim in candidates {
        let too_late = claim.redeem_until.timestamp() < now.plus(TOO_LATE);
        let is_dust = claim.amount < policy.dust && !(claim.closes && claim.amount == Usdc::ZERO);
        if policy.payout_cap.is_some_and(|cap| claim.amount > cap) {
            choice.over_cap.push(claim);
        } else if policy.day_cap.is_some_and(|cap| claim.amount > cap) {
            choice.over_day_cap.push(claim);
        } else if !too_late && !is_dust {
            waiting.push(claim);
        }
    }
    // The most urgent first: a flood of others cannot keep it out.
    waiting.sort_by_key(|claim| (claim.redeem_until, claim.channel));
    // Of what can go today, and not of all that waits: what the day has no room for would make each small claim worth a transaction.
    let due = possible(waiting, day_left).into_iter().find(|claims| is_due(claims, policy, gas_price, day_left, now));
    choice.claims = pack(due.unwrap_or_default(), policy);
    choice.claims.sort_by_key(|claim| (claim.payee, claim.channel));
    choice
}

/// What can go today, in the order in which it is tried. What was reverted before goes alone, so that it takes nobody with it.
fn possible(waiting: Vec<Candidate>, day_left: Option<Usdc>) -> [Vec<Candidate>; 2] {
    let (failed, sound): (Vec<Candidate>, Vec<Candidate>) = waiting.into_iter().partition(|claim| claim.failures > 0);
    let mut alone = within_day(failed, day_left);
    alone.truncate(1);
    let sound = within_day(sound, day_left);
    let urgency = |claims: &[Candidate]| claims.first().map(|claim| (claim.redeem_until, claim.channel));
    if urgency(&alone) < urgency(&sound) { [alone, sound] } else { [sound, alone] }
}

/// What the day has room for, one claim after the other.
fn within_day(mut claims: Vec<Candidate>, day_left: Option<Usdc>) -> Vec<Candidate> {
    if let Some(mut left) = day_left {
        claims.retain(|claim| {
            let fits = claim.amount <= left;
            left = if fits { left.excess_over(claim.amount) } else { left };
            fits
        });
    }
    claims
}

/// What of it goes into one transaction.
fn pack(claims: Vec<Candidate>, policy: &Policy) -> Vec<Candidate> {
    let mut packed: Vec<Candidate> = Vec::new();
    let mut payees: BTreeMap<Address, Usdc> = BTreeMap::new();
    for claim in claims {
        let paid = payees.get(&claim.payee).copied().unwrap_or_default().plus(claim.amount).unwrap_or(Usdc::from_micros(u64::MAX));
        if packed.len() < CLAIMS_MAX && policy.payout_cap.is_none_or(|cap| paid <= cap) {
            payees.insert(claim.payee, paid);
            packed.push(claim);
        }
    }
    packed
}

fn is_due(waiting: &[Candidate], policy: &Policy, gas_price: Wei, day_left: Option<Usdc>, now: Timestamp) -> bool {
    if waiting.is_empty() {
        return false;
    }
    let amount = sum(waiting);
    let old = waiting.iter().any(|claim| now.since(claim.waiting_since) >= policy.age);
    let near = waiting.iter().any(|claim| claim.redeem_until.timestamp() <= now.plus(policy.near));
    // A day with less room than that is full with less.
    let enough = day_left.map_or(policy.amount, |left| left.min(policy.amount)).max(Usdc::from_micros(1));
    amount >= enough || waiting.len() >= CLAIMS_MAX || old || near || is_cheap(waiting, amount, policy, gas_price)
}

/// Whether gas is a small enough share of what waits.
fn is_cheap(waiting: &[Candidate], amount: Usdc, policy: &Policy, gas_price: Wei) -> bool {
    const WEI_PER_COIN: u128 = 1_000_000_000_000_000_000;
    let Some(price) = policy.coin_price.filter(|_| policy.gas_percent > 0 && amount > Usdc::ZERO) else { return false };
    let wei = gas_price.0.saturating_mul(u128::from(gas_limit(waiting)));
    let micros = wei.saturating_mul(u128::from(price.micros())) / WEI_PER_COIN;
    micros.saturating_mul(100) <= u128::from(amount.micros()).saturating_mul(u128::from(policy.gas_percent))
}
