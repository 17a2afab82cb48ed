//! Corner cases of a session: late turns, lost words, crossing frames, drifting clocks and hostile orders. Each once went wrong.

use orien_protocol::credit::{CreditBook, CreditPolicy};
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::receipt::{EndReason, Receipt, Usage, Work};
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentRecord, AgentSession, RunOrder};
use orien_protocol::session::provider::{ProviderEffect, ProviderInput, ProviderPhase, ProviderRecord, ProviderSession};
use orien_protocol::signing::{Address, Verified};
use orien_protocol::terms::{ProposedTerms, SignedTerms, TIME_TOLERANCE, Terms};
use orien_protocol::time::{Millis, Now, Timestamp, UnixSeconds};

use crate::kit::{Kit, START, usdc};
use crate::pair::Pair;

fn open_with(budget: u64, credit: u64, change: impl FnOnce(&mut Terms)) -> Pair {
    let mut pair = Pair::propose_with(budget, credit, change);
    pair.talk();
    assert_eq!(pair.agent.phase(), AgentPhase::Open);
    pair
}

/// Settlement's answer to a question for just that much.
fn reserved(kit: &Kit, terms: &SignedTerms, ceiling: u64) -> AgentInput {
    AgentInput::Reserved { asked: usdc(ceiling), allowance: kit.allowance(terms, usdc(ceiling)) }
}

fn order(pair: &Pair, n: u128, tool: &str) -> RunOrder {
    RunOrder {
        execution: ExecutionId::from_parts(pair.now.wall.0, n),
        tool: tool.to_owned(),
        arguments: Vec::new(),
        max_cost: None,
        max_duration: Millis(3_600_000 * 24),
    }
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

    fn top_up(&mut self, ceiling: u64) {
        let terms = self.agent.terms().unwrap().to_signed();
        let allowance = self.kit.allowance(&terms, usdc(ceiling));
        self.agent_input(AgentInput::Reserved { asked: usdc(ceiling), allowance });
    }

    fn was_disputed(&self) -> bool {
        self.agent.is_disputed() || self.events.iter().any(|event| matches!(event, AgentEvent::Disputed(_)))
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
    let order = order(&pair, 99, "work");
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
fn an_opening_with_a_provider_that_says_nothing_ends_with_the_session_time_at_the_latest() {
    let kit = Kit::new();
    let (mut silent, _) = AgentSession::propose(kit.terms(), usdc(100_000), &kit.network, kit.agent.clone()).unwrap();
    let (_, mut presented, terms) = reserving(100_000);
    presented.handle(reserved(&kit, &terms, 100_000), now());
    let late = Now { wall: START.plus(Millis(86_400_000)), mono: Millis(90_000_000) };
    silent.handle(AgentInput::Tick, late);
    presented.handle(AgentInput::Tick, late);
    let closed = |agent: &AgentSession| matches!(agent.phase(), AgentPhase::Closed(_));
    assert!(closed(&silent) && closed(&presented), "{:?}, {:?}", silent.phase(), presented.phase());
}

#[test]
fn no_waiting_job_starts_while_too_much_waits_for_redemption() {
    let mut pair = Pair::open(1_000_000);
    let runs: Vec<_> = (0..3).map(|n| pair.run(n, "work", None)).collect();
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = orien_protocol::session::provider::ProviderEnv { now: pair.now, credit: usdc(5_000), unredeemed_ceiling: usdc(0), vet: &vet };
    let ended = ProviderInput::Ended { execution: runs[0], usage: Usage::default(), end: EndReason::Exited, exit_code: Some(0) };
    let effects = pair.provider.as_mut().unwrap().handle(ended, &env);
    assert!(!effects.iter().any(|effect| matches!(effect, ProviderEffect::Start { .. })), "started with no room left (M13)");
}

fn receipt_one(terms: &SignedTerms, kit: &Kit) -> ProviderFrame {
    let verified = terms.clone().verify(&kit.network).unwrap();
    let receipt = Receipt {
        session: verified.session,
        terms: verified.hash(),
        number: 1,
        previous: Hash::ZERO,
        at: START,
        confinement: verified.confinement,
        work: None,
        charged: verified.minimum_charge,
    };
    ProviderFrame::Receipt(Box::new(Verified::sign(receipt, &kit.network, &kit.provider.peer).into_signed()))
}

/// An agent whose terms are agreed; settlement has not answered.
fn reserving(budget: u64) -> (Kit, AgentSession, SignedTerms) {
    let kit = Kit::new();
    let (mut agent, effects) = AgentSession::propose(kit.terms(), usdc(budget), &kit.network, kit.agent.clone()).unwrap();
    let Some(AgentEffect::Send(AgentFrame::Propose(signed))) = effects.last() else { panic!("no proposal") };
    let proposal = ProposedTerms::verify((**signed).clone(), &kit.network).unwrap();
    let (_, effects) = ProviderSession::accept(proposal, kit.provider.clone(), now()).unwrap();
    let Some(ProviderEffect::Send(frame)) = effects.first() else { panic!("not accepted") };
    agent.handle(AgentInput::Frame(frame.clone()), now());
    assert_eq!(agent.phase(), AgentPhase::Reserving);
    let terms = agent.terms().unwrap().to_signed();
    (kit, agent, terms)
}

fn now() -> Now {
    Now { wall: START, mono: Millis(1_000_000) }
}

fn signs(effects: &[AgentEffect]) -> bool {
    effects.iter().any(|effect| matches!(effect, AgentEffect::Send(AgentFrame::Voucher(_))))
}

#[test]
fn nothing_is_signed_before_settlement_has_reserved_and_an_early_receipt_does_not_hang_the_opening() {
    let (kit, mut agent, terms) = reserving(100_000);
    let early = agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    let signed_early = signs(&early);
    agent.handle(reserved(&kit, &terms, 100_000), now());
    agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(!signed_early && agent.phase() == AgentPhase::Open, "signed early: {signed_early}, then {:?}", agent.phase());
}

#[test]
fn nothing_is_signed_for_a_session_that_did_not_open() {
    let (kit, mut agent, terms) = reserving(100_000);
    agent.handle(reserved(&kit, &terms, 100_000), now());
    let told = agent.handle(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::ProviderStopped, close: None }), now());
    assert!(told.iter().any(|effect| matches!(effect, AgentEffect::Tell(AgentEvent::NotOpened(_)))));
    let after = agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(!signs(&after), "promised {:?}", agent.promised());
}

#[test]
fn a_reservation_above_what_was_asked_for_does_not_raise_the_budget() {
    let (kit, mut agent, terms) = reserving(10_000);
    agent.handle(reserved(&kit, &terms, 1_000_000), now());
    agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(agent.budget() <= usdc(10_000), "{:?}", agent.budget());
}

#[test]
fn a_top_up_beyond_what_was_asked_for_raises_nothing() {
    let mut pair = Pair::open(100_000);
    let terms = pair.agent.terms().unwrap().to_signed();
    let allowance = pair.kit.allowance(&terms, usdc(900_000));
    pair.agent_input(AgentInput::Reserved { asked: usdc(200_000), allowance });
    assert_eq!(pair.agent.budget(), usdc(100_000));
    pair.top_up(200_000);
    assert_eq!(pair.agent.budget(), usdc(200_000));
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
    let order = order(&pair, 1, "work");
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
fn a_reservation_of_a_session_that_was_ended_before_it_opened_can_be_given_back() {
    let (kit, mut agent, terms) = reserving(100_000);
    let (mut session, _) = {
        let proposal = ProposedTerms::verify(terms.by_agent.clone(), &kit.network).unwrap();
        ProviderSession::accept(proposal, kit.provider.clone(), now()).unwrap()
    };
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env =
        orien_protocol::session::provider::ProviderEnv { now: now(), credit: usdc(5_000), unredeemed_ceiling: usdc(u64::MAX), vet: &vet };
    let mut from_agent = agent.handle(reserved(&kit, &terms, 100_000), now());
    from_agent.extend(agent.handle(AgentInput::End, now()));
    let mut handed_in = false;
    let mut kept = false;
    for effect in from_agent {
        let AgentEffect::Send(frame) = effect else { continue };
        for effect in session.handle(ProviderInput::Frame(frame), &env) {
            handed_in |= matches!(effect, ProviderEffect::HandIn(_));
            let ProviderEffect::Send(frame) = effect else { continue };
            for effect in agent.handle(AgentInput::Frame(frame), now()) {
                if let AgentEffect::Persist(record) = effect {
                    kept |= matches!(*record, AgentRecord::Closed { close: Some(_), .. });
                }
            }
        }
    }
    assert!(matches!(session.phase(), ProviderPhase::Closed(_)));
    assert!(matches!(agent.phase(), AgentPhase::Closed(_)));
    assert!(
        handed_in || kept,
        "both are honest, nothing was done, and the budget is locked until redeemUntil; promised {:?}",
        agent.promised()
    );
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

#[test]
fn a_run_that_is_being_killed_is_not_paused() {
    let mut pair = Pair::open(20_000);
    let run = pair.run(1, "work", None);
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = orien_protocol::session::provider::ProviderEnv {
        now: pair.now,
        credit: usdc(5_000),
        unredeemed_ceiling: usdc(u64::MAX),
        vet: &vet,
    };
    let usage = Usage { effective_ms: 20_000, ..Usage::default() };
    let effects = pair.provider.as_mut().unwrap().handle(ProviderInput::Progress(run, usage), &env);
    let killed = effects.iter().position(|effect| *effect == ProviderEffect::Kill(run)).unwrap();
    assert!(!effects[killed..].contains(&ProviderEffect::Pause(run)), "killed, then paused");
}
