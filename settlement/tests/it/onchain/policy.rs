//! When what waits is worth a transaction, and what goes into it.

use orien_chain::Wei;
use orien_protocol::channel::ChannelId;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, Timestamp};
use orien_settlement::books::Candidate;
use orien_settlement::paying::{Choice, Policy, choose};

use crate::kit::{START, address, after, usdc};

/// Far away from every rule.
fn policy() -> Policy {
    Policy { amount: usdc("10"), age: Millis::from_secs(600), near: Millis::from_secs(3_600), ..Policy::default() }
}

fn candidate(n: u8, payee: Address, amount: &str) -> Candidate {
    Candidate {
        channel: ChannelId::from_hash(Hash::from_bytes([n; 32])),
        account: address(1),
        payee,
        total: usdc(amount),
        amount: usdc(amount),
        closes: false,
        redeem_until: after(Millis::from_secs(7_200)).seconds(),
        waiting_since: START,
        failures: 0,
    }
}

fn chosen(candidates: Vec<Candidate>, policy: &Policy, now: Timestamp) -> Choice {
    choose(candidates, policy, Wei(1_000_000_000), None, now)
}

#[test]
fn little_waits_until_it_is_much_or_old_or_its_time_is_near() {
    let one = || vec![candidate(1, address(9), "9")];
    assert!(chosen(one(), &policy(), START).claims.is_empty());
    assert_eq!(chosen(vec![candidate(1, address(9), "9"), candidate(2, address(9), "1")], &policy(), START).claims.len(), 2, "much");
    assert_eq!(chosen(one(), &policy(), after(Millis::from_secs(600))).claims.len(), 1, "old");
    let patient = Policy { age: Millis(u64::MAX), ..policy() };
    assert!(chosen(one(), &patient, after(Millis::from_secs(3_599))).claims.is_empty());
    assert_eq!(chosen(one(), &patient, after(Millis::from_secs(3_600))).claims.len(), 1, "near");
    assert!(chosen(one(), &patient, after(Millis::from_secs(7_180))).claims.is_empty(), "too late to be in a block in time");
}

#[test]
fn a_small_share_of_gas_is_worth_it_when_a_coin_has_a_price() {
    // 470,000 gas at 1 gwei are 0.00047 coins.
    let one = || vec![candidate(1, address(9), "9")];
    let priced = |price: &str, percent| Policy { coin_price: Some(usdc(price)), gas_percent: percent, ..policy() };
    assert_eq!(chosen(one(), &priced("100", 1), START).claims.len(), 1, "0.047 of 9 USDC");
    assert!(chosen(one(), &priced("2000", 1), START).claims.is_empty(), "0.94 of 9 USDC");
    assert!(chosen(one(), &priced("100", 0), START).claims.is_empty(), "left out");
}

#[test]
fn claims_of_one_payee_stand_beside_each_other() {
    let claims = (0..20).map(|n| candidate(n, address(n % 3), "1")).collect();
    let payees: Vec<Address> = chosen(claims, &policy(), START).claims.iter().map(|claim| claim.payee).collect();
    let mut runs = payees.clone();
    runs.dedup();
    assert_eq!((payees.len(), runs.len()), (20, 3));
}

#[test]
fn a_flood_leaves_the_most_urgent_in_and_fits_a_block() {
    let mut claims: Vec<Candidate> = (0..200).map(|n| candidate(n, address(n), "1")).collect();
    claims[150].redeem_until = after(Millis::from_secs(4_000)).seconds();
    let choice = chosen(claims.clone(), &policy(), START);
    assert!(choice.claims.len() < 100 && choice.claims.iter().any(|claim| claim.channel == claims[150].channel));
    assert!(choice.gas_limit() < 1 << 24, "{}", choice.gas_limit());
}

#[test]
fn caps_leave_out_what_is_beyond_them_and_nothing_else() {
    let claims = || {
        vec![candidate(1, address(1), "20"), candidate(2, address(2), "6"), candidate(3, address(2), "6"), candidate(4, address(3), "3")]
    };
    let capped = Policy { payout_cap: Some(usdc("10")), ..policy() };
    let choice = chosen(claims(), &capped, START);
    assert_eq!(choice.over_cap.iter().map(|claim| claim.amount).collect::<Vec<_>>(), [usdc("20")]);
    assert_eq!(choice.amount(), usdc("9"), "one of the payee's two now, the other in the next");
    let choice = choose(claims(), &policy(), Wei(1), Some(usdc("9")), START);
    assert_eq!(choice.amount(), usdc("9"), "what the day leaves");
    assert!(choose(claims(), &policy(), Wei(1), Some(Usdc::ZERO), START).claims.is_empty());
}

#[test]
fn a_claim_above_the_cap_of_a_day_is_left_out_for_good_and_one_above_the_rest_of_a_day_until_the_next() {
    let capped = Policy { day_cap: Some(usdc("10")), ..policy() };
    let claims = || vec![candidate(1, address(1), "10.000001"), candidate(2, address(2), "8"), candidate(3, address(3), "1")];
    let choice = choose(claims(), &capped, Wei(1), Some(usdc("5")), START);
    assert_eq!(choice.over_day_cap.iter().map(|claim| claim.channel).collect::<Vec<_>>(), [candidate(1, address(1), "1").channel]);
    // What cannot go now does not have what can go by itself: each small claim would have a transaction of its own until the day is over.
    assert_eq!(choice.claims, []);
    let old = choose(claims(), &capped, Wei(1), Some(usdc("5")), after(Millis::from_secs(600)));
    assert_eq!(old.amount(), usdc("1"));
    let next = choose(claims(), &capped, Wei(1), Some(usdc("10")), after(Millis::from_secs(600)));
    assert_eq!(next.amount(), usdc("9"));
    // One that was reverted before is not beyond the cap either.
    let mut failed = candidate(4, address(4), "8");
    failed.failures = 1;
    assert_eq!(choose(vec![failed], &capped, Wei(1), Some(usdc("5")), after(Millis::from_secs(600))).claims, []);
}

#[test]
fn what_was_reverted_and_may_wait_does_not_hold_up_what_is_worth_a_transaction() {
    let mut failed = candidate(1, address(1), "1");
    failed.failures = 1;
    let choice = chosen(vec![failed, candidate(2, address(2), "10")], &policy(), START);
    assert_eq!(choice.amount(), usdc("10"));
}

#[test]
fn dust_is_left_to_its_payee_and_a_close_is_not_dust() {
    let dust = Policy { dust: usdc("0.01"), ..policy() };
    let mut close = candidate(2, address(2), "0");
    close.closes = true;
    let claims = vec![candidate(1, address(1), "0.009"), close, candidate(3, address(3), "10")];
    let amounts: Vec<Usdc> = chosen(claims, &dust, START).claims.iter().map(|claim| claim.amount).collect();
    assert_eq!(amounts, [Usdc::ZERO, usdc("10")]);
}

#[test]
fn what_was_reverted_before_takes_nobody_with_it() {
    let mut bad = candidate(1, address(1), "10");
    bad.failures = 1;
    let good = candidate(2, address(2), "10");
    assert_eq!(chosen(vec![bad, good], &policy(), START).claims.len(), 1);
    bad.redeem_until = after(Millis::from_secs(7_000)).seconds();
    let choice = chosen(vec![bad, good], &policy(), START);
    assert_eq!((choice.claims.len(), choice.claims[0].channel), (1, bad.channel), "its time is nearer");
    assert_eq!(chosen(vec![bad], &policy(), START).claims.len(), 1);
}
