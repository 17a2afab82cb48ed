//! Corner cases of running work: late turns, drifting clocks, little credit, hostile orders. Each once went wrong.

use orien_protocol::credit::{CreditBook, CreditPolicy};
use orien_protocol::frame::ProviderFrame;
use orien_protocol::id::SessionId;
use orien_protocol::money::{Price, Usdc};
use orien_protocol::receipt::{EndReason, Receipt, Usage, Work};
use orien_protocol::session::agent::{AgentInput, AgentPhase};
use orien_protocol::session::provider::{ProviderEffect, ProviderInput, ProviderRecord};
use orien_protocol::signing::{Address, Verified};
use orien_protocol::terms::{TIME_TOLERANCE, Terms};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};

use crate::kit::{START, usdc};
use crate::pair::Pair;

fn open_with(budget: u64, credit: u64, change: impl FnOnce(&mut Terms)) -> Pair {
    let mut pair = Pair::propose_with(budget, credit, change);
    pair.talk();
    assert_eq!(pair.agent.phase(), AgentPhase::Open);
    pair
}

impl Pair {
    /// As the node's clerk ticks: usage of every run, paused or not.
    fn clerk_ticks(&mut self, ms: u64) {
        let mut left = ms;
        while left > 0 {
            let step = left.min(250);
            left -= step;
            self.now = Now { wall: self.now.wall.plus(Millis(step)), mono: Millis(self.now.mono.0 + step) };
            for execution in self.tools.keys().copied().collect::<Vec<_>>() {
                let Some(tool) = self.tools.get_mut(&execution) else { continue };
                if !tool.paused {
                    tool.ms += step;
                }
                let usage = Usage { effective_ms: tool.ms, ..Usage::default() };
                self.provider_input(ProviderInput::Progress(execution, usage));
                self.talk();
            }
            self.provider_input(ProviderInput::Tick);
            self.talk();
        }
    }
}

#[test]
fn work_goes_on_after_one_late_turn_of_the_node_when_the_agent_answers_every_receipt() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(5_000);
    // The node was late by twelve seconds.
    pair.now = Now { wall: pair.now.wall.plus(Millis(12_000)), mono: Millis(pair.now.mono.0 + 12_000) };
    pair.tools.get_mut(&run).unwrap().ms += 12_000;
    pair.clerk_ticks(30_000);
    assert_eq!(pair.charged(), pair.promised(), "the agent answered everything");
    assert!(pair.tools.contains_key(&run), "killed: {:?}, {:?}", pair.outcome(run), pair.provider.as_ref().unwrap().phase());
}

#[test]
fn runs_of_an_answering_agent_survive_when_other_sessions_of_the_account_hold_the_credit() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(5_000);
    pair.credit = usdc(100);
    pair.clerk_ticks(30_000);
    assert_eq!(pair.charged(), pair.promised(), "the agent answered everything");
    assert!(pair.tools.contains_key(&run), "killed: {:?}", pair.outcome(run));
}

#[test]
fn a_tool_that_costs_less_than_a_micro_per_interval_can_be_used() {
    let mut pair = open_with(1_000, 0, |terms| {
        terms.prices[0].price = Price { per_minute: usdc(10), call_fee: usdc(0) };
        terms.prices.truncate(1);
        terms.minimum_charge = terms.interval_charge();
    });
    pair.credit = pair.provider.as_ref().unwrap().terms().interval_charge();
    let run = pair.run(1, "work", None);
    pair.clerk_ticks(60_000);
    assert!(pair.tools.contains_key(&run), "killed: {:?}", pair.outcome(run));
}

#[test]
fn a_running_tool_profits_from_a_top_up() {
    let mut pair = Pair::open(20_000);
    let first = pair.run(1, "work", None);
    pair.pass(10_000);
    pair.finish(first, EndReason::Exited, Some(0));
    let run = pair.run(2, "work", None);
    pair.pass(1_000);
    pair.top_up(100_000);
    pair.talk();
    assert_eq!(pair.provider.as_ref().unwrap().ceiling(), usdc(100_000));
    pair.pass(14_000);
    assert!(pair.tools.contains_key(&run), "may cost 20000, budget 100000, ended {:?} at {}", pair.outcome(run), pair.charged());
}

#[test]
fn no_waiting_job_starts_while_too_much_waits_for_redemption() {
    let mut pair = Pair::open(1_000_000);
    let runs: Vec<_> = (0..3).map(|n| pair.run(n, "work", None)).collect();
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = orien_protocol::session::provider::ProviderEnv {
        now: pair.now,
        credit: usdc(5_000),
        unredeemed_ceiling: usdc(0),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let ended = ProviderInput::Ended { execution: runs[0], usage: Usage::default(), end: EndReason::Exited, exit_code: Some(0) };
    let effects = pair.provider.as_mut().unwrap().handle(ended, &env);
    assert!(!effects.iter().any(|effect| matches!(effect, ProviderEffect::Start { .. })), "started with no room left (M13)");
}

#[test]
fn a_tool_reported_as_never_set_up_after_an_interim_receipt_still_ends() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    let other = pair.run(2, "work", None);
    pair.pass(6_000);
    pair.finish(run, EndReason::SetupFailed, None);
    pair.pass(60_000);
    assert!(pair.outcome(run).is_some(), "no final receipt; the other tool runs: {}", pair.tools.contains_key(&other));
}

#[test]
fn a_job_whose_call_fee_is_above_the_credit_is_refused_or_started_but_does_not_wait_for_ever() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    pair.finish(run, EndReason::Exited, Some(0));
    pair.credit = usdc(400);
    let call = pair.run(2, "call", None);
    let behind = pair.run(3, "work", None);
    pair.pass(600_000);
    assert_eq!(pair.charged(), pair.promised());
    let waits = |id| !pair.tools.contains_key(&id) && pair.refusal(id).is_none() && pair.outcome(id).is_none();
    assert!(!waits(call) && !waits(behind), "call waits: {}, the one behind it: {}", waits(call), waits(behind));
}

#[test]
fn a_closed_session_noted_again_after_it_was_redeemed_does_not_count_twice() {
    let policy = CreditPolicy { cap: usdc(1_000_000), unredeemed_cap: usdc(500) };
    let (mut book, account, session) = (CreditBook::new(policy), Address::default(), SessionId::from_parts(1, 1));
    book.note(account, session, Usdc::ZERO, usdc(450), true);
    book.redeemed(account, session, usdc(450));
    assert_eq!(book.unredeemed_ceiling(account, session), usdc(500));
    // The clerk of a closed session lingers for thirty seconds and notes at every tick.
    book.note(account, session, Usdc::ZERO, usdc(450), true);
    assert_eq!(book.unredeemed_ceiling(account, session), usdc(500), "the room is gone for good");
}

#[test]
fn clocks_that_drift_by_a_hundred_parts_in_a_million_do_not_make_a_dispute_of_a_long_run() {
    let mut pair = open_with(1_000_000_000, 1_000_000_000, |terms| {
        terms.time_tolerance = TIME_TOLERANCE;
        terms.work_until = UnixSeconds(START.0 / 1000 + 12 * 3600);
        terms.redeem_until = UnixSeconds(START.0 / 1000 + 24 * 3600);
    });
    let order = pair.order(1, "work");
    let run = order.execution;
    pair.agent_input(AgentInput::Run(order));
    pair.talk();
    for step in 1..=60_u64 {
        let ms = step * 600_000;
        pair.now = Now { wall: START.plus(Millis(ms)), mono: Millis(1_000_000 + ms) };
        let usage = Usage { effective_ms: ms + ms / 10_000, ..Usage::default() };
        pair.provider_input(ProviderInput::Progress(run, usage));
        pair.talk();
        assert!(!pair.was_disputed(), "after {ms} ms");
    }
}

#[test]
fn an_agents_machine_that_slept_for_a_minute_does_not_dispute() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    pair.credit = usdc(1_000_000);
    // The monotonic clock stands still in suspend; the wall clock and the provider do not.
    pair.now.wall = Timestamp(pair.now.wall.0 + 60_000);
    pair.tools.get_mut(&run).unwrap().ms += 60_000;
    pair.finish(run, EndReason::Exited, Some(0));
    assert!(!pair.was_disputed());
}

#[test]
fn a_wall_clock_set_back_across_an_agents_restart_does_not_make_a_dispute() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(20_000);
    pair.crash_agent();
    pair.now.wall = Timestamp(pair.now.wall.0 - 15_000);
    pair.reconnect();
    pair.pass(6_000);
    pair.finish(run, EndReason::Exited, Some(0));
    assert!(!pair.was_disputed());
}

#[test]
fn a_provider_cannot_make_the_agent_store_receipts_that_say_nothing_new() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    let terms = pair.provider.as_ref().unwrap().terms().clone();
    let mut receipts = pair.provider_log.iter().filter_map(|r| if let ProviderRecord::Receipt(r) = r { Some(r.clone()) } else { None });
    let mut last = receipts.next_back().unwrap().verify(&pair.kit.network, &terms.provider()).unwrap();
    let before = pair.agent_log.len();
    for _ in 0..300 {
        let work: Work = last.work.clone().unwrap();
        assert_eq!(work.execution, run);
        let next = Receipt { number: last.number + 1, previous: last.hash(), ..(*last).clone() };
        last = Verified::sign(next, &pair.kit.network, &pair.kit.provider.peer);
        pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(last.signed().clone()))));
    }
    assert!(pair.agent_log.len() - before < 300, "{} records in no time at all", pair.agent_log.len() - before);
}

#[test]
fn a_run_that_is_being_killed_is_not_paused() {
    let mut pair = Pair::open(20_000);
    let run = pair.run(1, "work", None);
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = orien_protocol::session::provider::ProviderEnv {
        now: pair.now,
        credit: usdc(5_000),
        unredeemed_ceiling: usdc(u64::MAX),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let usage = Usage { effective_ms: 20_000, ..Usage::default() };
    let effects = pair.provider.as_mut().unwrap().handle(ProviderInput::Progress(run, usage), &env);
    let killed = effects.iter().position(|effect| *effect == ProviderEffect::Kill(run)).unwrap();
    assert!(!effects[killed..].contains(&ProviderEffect::Pause(run)), "killed, then paused");
}
