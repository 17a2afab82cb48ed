//! A session that is given up for another sets aside what it may still cost, and signs nothing beyond that.

use orien_protocol::fault::FaultCode;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentEvent, AgentInput, AgentPhase, AgentRecord};

use crate::kit::usdc;
use crate::pair::Pair;

fn sealed_at(pair: &Pair) -> u64 {
    pair.agent.sealed().unwrap().micros()
}

fn voucher_totals(pair: &Pair) -> impl Iterator<Item = u64> + '_ {
    pair.agent_log.iter().filter_map(|record| match record {
        AgentRecord::Answered { voucher, .. } => Some(voucher.unverified().total.micros()),
        _ => None,
    })
}

#[test]
fn between_runs_nothing_is_set_aside_but_what_was_promised() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(12_340);
    pair.finish(run, EndReason::Exited, Some(0));
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Disconnected);
    pair.agent_input(AgentInput::Seal);
    assert_eq!((sealed_at(&pair), pair.agent.unused()), (12_340, usdc(100_000 - 12_340)));
    assert!(matches!(pair.agent.phase(), AgentPhase::Ending(_)));
    let written = pair.agent_log.len();
    pair.agent_input(AgentInput::Seal);
    assert_eq!(pair.agent_log.len(), written, "once");
    pair.agent_is_silent = false;
    pair.to_provider.clear();
    pair.reconnect();
    assert!(matches!(pair.agent.phase(), AgentPhase::Closed(_)));
    assert_eq!((pair.promised(), pair.claims.last().unwrap().close.unwrap().unverified().total), (12_340, usdc(12_340)));
}

#[test]
fn what_an_honest_provider_did_while_it_was_out_of_reach_is_set_aside_and_paid() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    let promised = pair.promised();
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Disconnected);
    pair.pass(3_000);
    pair.to_agent.clear();
    pair.agent_input(AgentInput::Seal);
    // 9 s since it was asked for, an interval and the tolerance.
    let margin = pair.agent.terms().map(|terms| terms.metering_interval.0 + terms.time_tolerance.0).unwrap();
    assert_eq!(sealed_at(&pair), 9_000 + 9 + margin);
    assert!(promised < sealed_at(&pair));
    pair.pass(1_000);
    pair.to_agent.clear();
    pair.agent_is_silent = false;
    pair.to_provider.clear();
    pair.reconnect();
    pair.finish(run, EndReason::SessionEnded, None);
    assert!(matches!(pair.agent.phase(), AgentPhase::Closed(_)) && !pair.was_disputed());
    assert_eq!(pair.charged(), pair.promised());
    assert!(pair.promised() > promised && pair.promised() <= sealed_at(&pair));
}

#[test]
fn a_receipt_beyond_what_was_set_aside_is_not_answered_and_is_no_dispute() {
    let mut pair = Pair::open(1_000_000);
    pair.credit = usdc(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(1_000);
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Disconnected);
    pair.agent_input(AgentInput::Seal);
    let most = sealed_at(&pair);
    for crashed in [false, true] {
        // The provider goes on for longer than anybody could know.
        pair.pass(20_000);
        pair.to_agent.clear();
        if crashed {
            pair.crash_agent();
            assert_eq!(sealed_at(&pair), most, "also after a restart");
        }
        pair.to_provider.clear();
        pair.agent_is_silent = false;
        pair.agent_input(AgentInput::Connected);
        pair.talk();
        pair.agent_is_silent = true;
        pair.agent_input(AgentInput::Disconnected);
    }
    pair.finish(run, EndReason::SessionEnded, None);
    assert!(
        pair.events.iter().any(|event| matches!(event, AgentEvent::VoucherRefused(fault) if fault.code == FaultCode::BUDGET_EXHAUSTED))
    );
    assert!(!pair.was_disputed());
    assert!(voucher_totals(&pair).all(|total| total <= most) && pair.agent.promised().micros() <= most);
}

#[test]
fn a_run_sets_aside_no_more_than_it_may_cost_and_one_that_was_never_sent_nothing() {
    let mut pair = Pair::open(100_000);
    pair.run(1, "call", Some(3_000));
    pair.pass(500);
    pair.agent_is_silent = true;
    pair.agent_input(AgentInput::Disconnected);
    let unsent = pair.run(2, "work", None);
    pair.agent_input(AgentInput::Seal);
    // The minimum of 5,000 covers the time of the first run: its fee comes on top of nothing.
    assert_eq!(sealed_at(&pair), 5_000);
    let fault = pair.refusal(unsent).unwrap();
    assert_eq!(fault.code, FaultCode::SESSION_ENDED);
    assert_eq!(pair.agent_log.iter().filter(|record| **record == AgentRecord::JobRefused(unsent)).count(), 1);
    pair.crash_agent();
    pair.agent_input(AgentInput::Connected);
    assert!(pair.agent.unfinished().all(|execution| execution != unsent), "it is not sent later");
}

#[test]
fn a_session_that_is_over_or_in_dispute_sets_aside_what_it_promised_and_one_that_never_opened_is_not_given_up() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(1_000);
    pair.tools.get_mut(&run).unwrap().ms = 90_000;
    pair.credit = usdc(1_000_000);
    pair.agent_is_silent = true;
    pair.finish(run, EndReason::Exited, Some(0));
    assert!(pair.was_disputed());
    pair.agent_input(AgentInput::Seal);
    assert_eq!(sealed_at(&pair), pair.agent.promised().micros());

    let mut over = Pair::open(100_000);
    over.agent_input(AgentInput::End);
    over.talk();
    over.agent_input(AgentInput::Seal);
    assert_eq!((sealed_at(&over), over.agent.unused()), (5_000, usdc(95_000)));

    let mut never = Pair::propose(100_000);
    never.agent_input(AgentInput::Seal);
    assert_eq!(never.agent.sealed(), None);
}
