//! How sessions open, and how they fail to.

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::session::agent::{AgentEvent, AgentInput, AgentPhase, AgentSession};
use orien_protocol::session::provider::{ProviderInput, ProviderPhase};
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::terms::{ProposedTerms, TermsError};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};
use orien_protocol::voucher::{Allowance, MoneyVerified};

use crate::kit::{Kit, START, usdc};
use crate::pair::Pair;

#[test]
fn opening_costs_the_minimum_charge_and_both_sides_hold_the_same_account() {
    let pair = Pair::open(100_000);
    assert_eq!((pair.charged(), pair.promised()), (5_000, 5_000));
    assert_eq!(pair.agent.promised(), usdc(5_000));
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Open);
}

#[test]
fn a_place_that_no_voucher_pays_for_is_given_back_after_thirty_seconds_and_nothing_is_owed() {
    let mut pair = Pair::propose(100_000);
    // Proposal, answer, twenty seconds at settlement, allowance, receipt 1; the voucher is lost.
    while !matches!(pair.to_provider.front(), Some(AgentFrame::Voucher(_))) {
        assert!(!(pair.to_agent.is_empty() && pair.to_provider.is_empty()), "nobody says anything: {:?}", pair.agent.phase());
        let was_there = pair.provider.is_some();
        step(&mut pair);
        if !was_there && pair.provider.is_some() {
            pair.now = Now { wall: pair.now.wall.plus(Millis(20_000)), mono: Millis(pair.now.mono.0 + 20_000) };
        }
    }
    pair.to_provider.clear();
    pair.pass(9_500);
    assert!(!pair.released);
    pair.pass(1_000);
    assert!(pair.released);
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::NotSigned));
    assert_eq!(pair.provider.as_ref().unwrap().unvouchered(), usdc(0));
}

/// Delivers one frame each way.
fn step(pair: &mut Pair) {
    if let Some(frame) = pair.to_agent.pop_front() {
        pair.agent_input(AgentInput::Frame(frame));
    } else if let Some(frame) = pair.to_provider.pop_front() {
        let rest: Vec<_> = pair.to_provider.drain(..).collect();
        pair.to_provider.push_back(frame);
        if pair.provider.is_none() {
            let Some(AgentFrame::Propose(signed)) = pair.to_provider.pop_front() else { panic!("not a proposal") };
            let proposal = ProposedTerms::verify(*signed, &pair.kit.network).unwrap();
            let keys = pair.kit.provider.clone();
            let (session, effects) = orien_protocol::session::provider::ProviderSession::accept(proposal, keys, pair.now).unwrap();
            pair.provider = Some(session);
            pair.carry_out_provider(effects);
        } else if let Some(frame) = pair.to_provider.pop_front() {
            pair.provider_input(ProviderInput::Frame(frame));
        }
        pair.to_provider.extend(rest);
    }
}

#[test]
fn an_allowance_of_a_stranger_for_other_terms_or_below_the_minimum_is_refused() {
    let mut pair = Pair::open(100_000);
    let terms = pair.provider.as_ref().unwrap().terms().to_signed();
    let good = pair.kit.allowance(&terms, usdc(200_000));
    let stranger = MoneyKey::from_bytes(&[66; 32]).unwrap();
    let forged = *MoneyVerified::sign(*good.unverified(), &pair.kit.domain, &stranger).signed();
    let changed = |change: fn(&mut Allowance)| {
        let mut allowance = *good.unverified();
        change(&mut allowance);
        *MoneyVerified::sign(allowance, &pair.kit.domain, &pair.kit.settlement).signed()
    };
    for (bad, code) in [
        (forged, FaultCode::BAD_SIGNATURE),
        (changed(|allowance| allowance.channel = ChannelId::from_hash(Hash::ZERO)), FaultCode::BAD_ALLOWANCE),
        (changed(|allowance| allowance.terms = Hash::ZERO), FaultCode::BAD_ALLOWANCE),
        (changed(|allowance| allowance.claim_key = Address::default()), FaultCode::BAD_ALLOWANCE),
        (changed(|allowance| allowance.work_until.0 += 1), FaultCode::BAD_ALLOWANCE),
        (changed(|allowance| allowance.redeem_until.0 += 1), FaultCode::BAD_ALLOWANCE),
        (pair.kit.allowance(&terms, usdc(10)), FaultCode::BUDGET_EXHAUSTED),
    ] {
        pair.provider_input(ProviderInput::Frame(AgentFrame::Present(bad)));
        let Some(ProviderFrame::Refused(fault)) = pair.to_agent.pop_back() else { panic!("not refused") };
        assert_eq!(fault.code, code);
    }
    assert_eq!(pair.provider.as_ref().unwrap().ceiling(), usdc(100_000));
    pair.provider_input(ProviderInput::Frame(AgentFrame::Present(good)));
    assert_eq!(pair.provider.as_ref().unwrap().ceiling(), usdc(200_000));
}

#[test]
fn a_provider_that_signs_other_terms_does_not_get_a_reservation() {
    let mut pair = Pair::propose(100_000);
    let wrong = pair.kit.terms().agent.by_peer.signature().to_owned();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Accepted(wrong)));
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::NotOpened));
    assert!(matches!(pair.events.last(), Some(AgentEvent::NotOpened(fault)) if fault.code == FaultCode::BAD_SIGNATURE));
}

#[test]
fn an_answer_that_comes_after_the_opening_was_given_up_reserves_nothing() {
    let mut pair = Pair::propose(100_000);
    step(&mut pair);
    let accepted = pair.to_agent.pop_front().unwrap();
    assert!(matches!(accepted, ProviderFrame::Accepted(_)));
    pair.agent_input(AgentInput::End);
    let before = pair.agent_log.len();
    pair.agent_input(AgentInput::Frame(accepted));
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::NotOpened));
    assert_eq!((pair.agent_log.len(), pair.agent.terms().is_none()), (before, true));
}

#[test]
fn terms_with_a_stolen_binding_a_wrong_order_of_times_or_no_tool_are_refused() {
    let kit = Kit::new();
    let refuse = |change: &dyn Fn(&mut orien_protocol::terms::Terms)| {
        let mut terms = kit.terms();
        change(&mut terms);
        AgentSession::propose(terms, usdc(1), &kit.network, kit.agent.clone()).err()
    };
    assert!(refuse(&|_| {}).is_none());
    assert!(matches!(refuse(&|t| t.agent.by_money_key = t.provider.by_money_key), Some(TermsError::Signature(_))));
    assert!(matches!(refuse(&|t| t.agent = t.provider.clone()), Some(TermsError::Senseless(_))));
    assert!(matches!(refuse(&|t| t.prices.clear()), Some(TermsError::Senseless(_))));
    assert!(matches!(refuse(&|t| t.redeem_until = t.work_until), Some(TermsError::Senseless(_))));
}

#[test]
fn times_are_checked_against_the_clock_and_the_exit_delay() {
    let terms = Kit::new().terms();
    let day = Millis::from_secs(86_400);
    assert_eq!(terms.check_times(START, Millis(0), day), Ok(()));
    for apart in [Timestamp(START.0 + 60_000), Timestamp(START.0 - 60_000)] {
        assert_eq!(terms.check_times(apart, Millis(0), day), Ok(()));
    }
    assert!(matches!(terms.check_times(Timestamp(START.0 + 60_001), Millis(0), day), Err(TermsError::Clocks { apart_ms: 60_001 })));
    // Two hours to redeem and one hour of margin need three hours of exit delay.
    assert_eq!(terms.check_times(START, Millis(0), Millis::from_secs(3 * 3600)), Ok(()));
    assert_eq!(terms.check_times(START, Millis(1), Millis::from_secs(3 * 3600)), Err(TermsError::TooLong { late_ms: 1 }));
}

#[test]
fn a_time_lies_in_the_second_that_began_before_it() {
    let seconds = |ms| Timestamp(ms).seconds();
    assert_eq!([0, 999, 1_000, 61_999].map(seconds), [UnixSeconds(0), UnixSeconds(0), UnixSeconds(1), UnixSeconds(61)]);
    assert_eq!(UnixSeconds(61).timestamp(), Timestamp(61_000));
}
