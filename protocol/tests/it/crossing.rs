//! Words that cross, come twice or are lost on the way between the two sides of a session. Each once went wrong.

use orien_protocol::frame::{CloseReason, ProviderFrame};
use orien_protocol::receipt::{EndReason, Usage};
use orien_protocol::session::agent::{AgentEvent, AgentInput, AgentPhase, AgentRecord};
use orien_protocol::session::provider::{ProviderInput, ProviderPhase, ProviderRecord};
use orien_protocol::time::{Millis, Now};

use crate::kit::usdc;
use crate::pair::Pair;

#[test]
fn a_top_up_that_was_lost_on_the_way_reaches_the_provider_after_the_next_connection() {
    let mut pair = Pair::open(100_000);
    pair.agent_is_silent = true;
    pair.top_up(200_000);
    pair.talk();
    pair.agent_is_silent = false;
    pair.reconnect();
    assert_eq!(pair.agent.budget(), usdc(200_000));
    assert_eq!(pair.provider.as_ref().unwrap().ceiling(), usdc(200_000));
}

#[test]
fn a_cancel_that_was_lost_on_the_way_stops_the_run_after_the_next_connection() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(1_000);
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Cancel(run));
    pair.talk();
    pair.agent_is_silent = false;
    pair.reconnect();
    pair.pass(5_000);
    assert!(!pair.tools.contains_key(&run), "runs on and is charged {}", pair.charged());
}

#[test]
fn a_run_taken_and_taken_back_while_the_provider_was_away_never_starts() {
    let mut pair = Pair::open(100_000);
    pair.agent_is_silent = true;
    let run = pair.run(1, "work", None);
    pair.agent_input(AgentInput::Cancel(run));
    pair.talk();
    pair.agent_is_silent = false;
    pair.reconnect();
    assert!(!pair.tools.contains_key(&run));
}

#[test]
fn a_dropped_job_whose_refusal_was_lost_is_not_unfinished_for_ever() {
    let mut pair = Pair::open(1_000_000);
    let runs: Vec<_> = (0..3).map(|n| pair.run(n, "work", None)).collect();
    pair.agent_input(AgentInput::Cancel(runs[2]));
    let frame = pair.to_provider.pop_front().unwrap();
    pair.provider_input(ProviderInput::Frame(frame));
    assert!(matches!(pair.to_agent.pop_back(), Some(ProviderFrame::JobRefused { .. })), "lost with the connection");
    pair.reconnect();
    pair.pass(10_000);
    assert!(!pair.agent.unfinished().any(|id| id == runs[2]));
}

#[test]
fn a_job_refused_once_and_offered_twice_is_no_dispute() {
    let mut pair = Pair::open(1_000_000_000);
    // Two run, sixty-four wait.
    for n in 0..66 {
        pair.run(n, "work", None);
    }
    // The connection is new; the caller asks for a run before the provider has answered the resumption.
    pair.agent_input(AgentInput::Connected);
    let order = pair.order(99, "work");
    let last = order.execution;
    pair.agent_input(AgentInput::Run(order));
    for _ in 0..2 {
        let frame = pair.to_provider.pop_front().unwrap();
        pair.provider_input(ProviderInput::Frame(frame));
    }
    // Refused (busy) and under way to the agent; which hears of the resumption first and offers all its jobs again.
    let resumed = pair.to_agent.pop_front().unwrap();
    assert!(matches!(resumed, ProviderFrame::Resumed { .. }));
    assert!(pair.to_agent.iter().any(|f| matches!(f, ProviderFrame::JobRefused { .. })));
    pair.agent_input(AgentInput::Frame(resumed));
    // A tool ends: there is room now.
    let first = *pair.tools.keys().next().unwrap();
    pair.tools.remove(&first);
    pair.provider_input(ProviderInput::Ended { execution: first, usage: Usage::default(), end: EndReason::Exited, exit_code: Some(0) });
    pair.talk();
    let mut turns = 0;
    while !pair.tools.is_empty() && turns < 200 {
        turns += 1;
        let next = *pair.tools.keys().next().unwrap();
        pair.pass(250);
        pair.finish(next, EndReason::Exited, Some(0));
    }
    assert!(pair.refusal(last).is_some() ^ pair.outcome(last).is_some(), "refused or run, not both nor neither");
    assert!(!pair.was_disputed(), "{:?}", pair.events.iter().find(|event| matches!(event, AgentEvent::Disputed(_))));
}

#[test]
fn a_session_that_is_being_ended_starts_no_job_after_a_reconnection() {
    let mut pair = Pair::open(100_000);
    pair.agent_is_silent = true;
    pair.run(1, "call", None);
    pair.agent_input(AgentInput::End);
    pair.talk();
    pair.agent_is_silent = false;
    pair.reconnect();
    assert!(!pair.provider_log.iter().any(|record| matches!(record, ProviderRecord::Job(_))), "{:?}", pair.events.last());
}

#[test]
fn an_honest_agent_that_ends_while_its_words_are_lost_is_not_over_while_its_vouchers_are_not_delivered() {
    let mut pair = Pair::open(100_000);
    pair.run(1, "work", None);
    pair.pass(6_000);
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Disconnected);
    pair.agent_input(AgentInput::End);
    let run = *pair.tools.keys().next().unwrap();
    pair.pass(1_000);
    pair.finish(run, EndReason::Exited, Some(0));
    for _ in 0..60 {
        pair.now = Now { wall: pair.now.wall.plus(Millis(1_000)), mono: Millis(pair.now.mono.0 + 1_000) };
        pair.provider_input(ProviderInput::Tick);
        pair.to_agent.clear();
        pair.agent_input(AgentInput::Tick);
    }
    assert!(!matches!(pair.agent.phase(), AgentPhase::Closed(_)), "{:?}", pair.agent.phase());
    pair.agent_is_silent = false;
    pair.to_provider.clear();
    pair.agent_input(AgentInput::Connected);
    pair.agent_input(AgentInput::Tick);
    pair.talk();
    assert_eq!((pair.charged(), pair.agent.promised().micros()), (pair.promised(), pair.promised()));
    assert!(
        matches!(pair.agent.phase(), AgentPhase::Closed(_)) && matches!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(_))
    );
}

#[test]
fn a_top_up_that_crosses_the_providers_end_is_not_a_dispute() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_100);
    // The provider stops; its final receipt and the top-up cross.
    pair.tools.clear();
    pair.provider_input(ProviderInput::Stop);
    let usage = Usage { effective_ms: 6_100, ..Usage::default() };
    pair.provider_input(ProviderInput::Ended { execution: run, usage, end: EndReason::Signalled, exit_code: None });
    pair.top_up(200_000);
    pair.talk();
    assert!(!pair.was_disputed());
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::ProviderStopped));
}

#[test]
fn a_disputed_session_ends_also_when_the_agent_crashed_right_after_the_dispute() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(1_000);
    pair.tools.get_mut(&run).unwrap().ms = 90_000;
    pair.credit = usdc(1_000_000);
    pair.agent_is_silent = true;
    pair.finish(run, EndReason::Exited, Some(0));
    let at = pair.agent_log.iter().position(|record| matches!(record, AgentRecord::Disputed(_))).unwrap();
    pair.agent_log.truncate(at + 1);
    pair.crash_agent();
    pair.agent_is_silent = false;
    pair.reconnect();
    for _ in 0..100 {
        pair.agent_input(AgentInput::Tick);
        pair.talk();
    }
    assert!(!matches!(pair.agent.phase(), AgentPhase::Open));
}
