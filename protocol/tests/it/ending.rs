//! How either side ends a session: in time, by itself, without an answer, with a debt, with the payee's close, or with a refusal.

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::session::agent::{AgentInput, AgentPhase, AgentRecord};
use orien_protocol::session::provider::{ProviderInput, ProviderPhase};
use orien_protocol::session::{DRAIN_GRACE, HOLD};
use orien_protocol::time::Millis;
use orien_protocol::voucher::{Close, MoneyVerified};

use crate::kit::usdc;
use crate::pair::Pair;

#[test]
fn an_agent_asks_for_the_end_by_itself_when_the_time_for_work_is_over() {
    let mut pair = Pair::open(100_000);
    let over = pair.agent.proposed_terms().work_until.timestamp();
    pair.now.wall.0 = over.0 - 1;
    pair.agent_input(AgentInput::Tick);
    assert_eq!((pair.agent.phase(), pair.to_provider.len()), (AgentPhase::Open, 0));
    pair.now.wall = over;
    pair.agent_input(AgentInput::Tick);
    assert_eq!(pair.agent.phase(), AgentPhase::Ending(pair.now.mono));
    assert!(matches!(pair.to_provider.make_contiguous(), [AgentFrame::End]), "{:?}", pair.to_provider);
}

#[test]
fn an_agent_whose_provider_is_there_and_says_nothing_closes_after_the_drain_grace() {
    let mut pair = Pair::open(100_000);
    pair.agent_input(AgentInput::End);
    let since = pair.now.mono;
    pair.now.mono = Millis(since.0 + DRAIN_GRACE.0 - 1);
    pair.agent_input(AgentInput::Tick);
    assert_eq!(pair.agent.phase(), AgentPhase::Ending(since));
    pair.now.mono.0 += 1;
    pair.agent_input(AgentInput::Tick);
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Ended));
}

#[test]
fn only_the_payees_close_of_what_was_promised_is_kept_with_the_end() {
    let elsewhere = ChannelId::from_hash(Hash::ZERO);
    for (by_payee, other_channel, total, kept) in
        [(true, false, 5_000, true), (true, false, 5_001, false), (true, true, 5_000, false), (false, false, 5_000, false)]
    {
        let mut pair = Pair::open(100_000);
        let key = if by_payee { &pair.kit.provider.claim } else { &pair.kit.agent.spending };
        let channel = if other_channel { elsewhere } else { pair.agent.terms().unwrap().channel() };
        let close = *MoneyVerified::sign(Close { channel, total: usdc(total) }, &pair.kit.domain, key).signed();
        pair.agent_input(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::Ended, close: Some(close) }));
        let expected = AgentRecord::Closed { reason: CloseReason::Ended, close: kept.then_some(close) };
        assert_eq!(pair.agent_log.last(), Some(&expected));
        assert!(pair.handed_back.is_empty(), "what was promised is the provider's");
    }
}

#[test]
fn a_refusal_while_the_session_ends_is_a_dispute_only_if_it_had_opened() {
    let refused = || AgentInput::Frame(ProviderFrame::Refused(Fault::new(FaultCode::HISTORY_LOST, "lost")));
    let mut opened = Pair::open(100_000);
    opened.agent_input(AgentInput::End);
    opened.agent_input(refused());
    assert_eq!((opened.agent.phase(), opened.was_disputed()), (AgentPhase::Closed(CloseReason::Dispute), true));
    let mut unopened = Pair::propose(100_000);
    while unopened.agent.phase() != AgentPhase::Presenting {
        unopened.deliver_one();
        let frame = unopened.to_agent.pop_front().unwrap();
        unopened.agent_input(AgentInput::Frame(frame));
    }
    unopened.agent_input(AgentInput::End);
    unopened.agent_input(refused());
    assert_eq!((unopened.agent.phase(), unopened.was_disputed()), (AgentPhase::Closed(CloseReason::NotOpened), false));
}

#[test]
fn a_place_for_which_no_reservation_comes_is_held_for_thirty_seconds() {
    let mut pair = Pair::propose(100_000);
    pair.deliver_one();
    let phase = |pair: &Pair| pair.provider.as_ref().unwrap().phase();
    let since = pair.now.mono;
    let until = Millis(since.0 + HOLD.0);
    pair.now.mono.0 = until.0 - 1;
    pair.provider_input(ProviderInput::Tick);
    assert_eq!((phase(&pair), pair.released), (ProviderPhase::Proposed(until), false));
    pair.now.mono = until;
    pair.provider_input(ProviderInput::Tick);
    assert_eq!((phase(&pair), pair.released), (ProviderPhase::Closed(CloseReason::NotOpened), true));
    assert!(pair.provider_log.is_empty());
}

#[test]
fn a_provider_waits_for_the_last_voucher_as_long_as_the_drain_grace_and_closes_with_a_debt_then() {
    let mut pair = Pair::open(100_000);
    pair.run(1, "work", None);
    pair.pass(7_000);
    pair.agent_is_silent = true;
    pair.provider_input(ProviderInput::Stop);
    assert_eq!((pair.charged(), pair.promised()), (7_000, 5_000));
    let since = pair.now.mono;
    pair.pass(DRAIN_GRACE.0 - 250);
    let is = |pair: &Pair, phase| {
        let session = pair.provider.as_ref().unwrap();
        assert_eq!((session.phase(), session.unvouchered()), (phase, usdc(2_000)));
        session.is_released()
    };
    assert!(!is(&pair, ProviderPhase::Draining(CloseReason::ProviderStopped, since)));
    pair.pass(250);
    assert!(is(&pair, ProviderPhase::Owing(CloseReason::ProviderStopped)));
}

#[test]
fn an_end_of_a_session_that_is_over_is_answered_with_how_it_ended() {
    let mut pair = Pair::open(100_000);
    pair.provider_input(ProviderInput::Stop);
    pair.talk();
    pair.provider_input(ProviderInput::Frame(AgentFrame::End));
    let answer = ProviderFrame::Closed { reason: CloseReason::ProviderStopped, close: None };
    assert_eq!(pair.to_agent, [answer]);
}
