//! Work is charged exactly, never beyond budget, cost, credit or time.

use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::money::Split;
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentEvent, AgentInput, AgentPhase};
use orien_protocol::session::provider::{ProviderInput, ProviderPhase, ProviderRecord};
use orien_protocol::session::{REDEMPTION_GRACE, redemption_grace};
use orien_protocol::signing::Verified;
use orien_protocol::time::Millis;
use orien_protocol::voucher::{MoneyVerified, Voucher};

use crate::kit::usdc;
use crate::pair::Pair;

#[test]
fn a_run_is_charged_by_the_millisecond_above_the_minimum_and_the_close_names_the_total() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "work", None);
    pair.pass(12_340);
    pair.finish(run, EndReason::Exited, Some(0));
    assert_eq!(pair.outcome(run), Some((EndReason::Exited, 12_340)));
    pair.agent_input(AgentInput::End);
    pair.talk();
    assert_eq!((pair.charged(), pair.promised()), (12_340, 12_340));
    assert_eq!((pair.agent.charged(), pair.agent.unused()), (usdc(12_340), usdc(100_000 - 12_340)));
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Ended));
    let claim = pair.claims.last().unwrap();
    assert_eq!(claim.close.unwrap().unverified().total, usdc(12_340));
    assert_eq!(claim.voucher.unverified().total, usdc(12_340));
    let split = Split::of(usdc(12_340));
    assert_eq!((split.provider.micros(), split.platform.micros(), split.reserve.micros()), (11_106, 863, 371));
    assert!(pair.released);
}

#[test]
fn short_runs_share_the_minimum_and_round_down_once() {
    let mut pair = Pair::open(100_000);
    for n in 0..20 {
        let run = pair.run(n, "work", None);
        pair.pass(100);
        pair.finish(run, EndReason::Exited, Some(0));
    }
    assert_eq!(pair.charged(), 5_000, "2 s of work stay below the minimum");
    let run = pair.run(99, "call", None);
    pair.pass(4_000);
    pair.finish(run, EndReason::Exited, Some(1));
    assert_eq!(pair.charged(), 2_000 + 4_000 + 500);
}

#[test]
fn a_run_that_the_budget_cannot_pay_for_is_refused_by_the_agent_with_the_missing_amount() {
    let mut pair = Pair::open(5_400);
    let run = pair.run(1, "call", None);
    let fault = pair.refusal(run).unwrap();
    assert_eq!((fault.code, fault.missing), (FaultCode::BUDGET_EXHAUSTED, Some(usdc(100))));
    assert!(pair.tools.is_empty());
    assert!(pair.provider_log.iter().all(|record| !matches!(record, ProviderRecord::Job(_))));
}

#[test]
fn a_run_that_reaches_the_budget_is_stopped_and_never_charged_above_it() {
    let mut pair = Pair::open(13_777);
    let run = pair.run(1, "work", None);
    pair.pass(60_000);
    assert_eq!(pair.outcome(run).map(|(end, _)| end), Some(EndReason::BudgetReached));
    assert_eq!((pair.charged(), pair.promised()), (13_777, 13_777));
    assert!(pair.run_is_refused());
}

impl Pair {
    fn run_is_refused(&mut self) -> bool {
        let run = self.run(50, "work", None);
        self.refusal(run).is_some_and(|fault| fault.code == FaultCode::BUDGET_EXHAUSTED)
    }
}

#[test]
fn two_runs_together_stop_at_the_budget_too() {
    let mut pair = Pair::open(21_001);
    let (one, two) = (pair.run(1, "work", None), pair.run(2, "work", None));
    pair.pass(60_000);
    assert!(pair.outcome(one).is_some() && pair.outcome(two).is_some());
    assert!(pair.charged() <= 21_001 && pair.charged() > 20_000, "{}", pair.charged());
    assert_eq!(pair.charged(), pair.promised());
}

#[test]
fn a_run_is_stopped_at_its_maximum_cost() {
    let mut pair = Pair::open(100_000);
    let run = pair.run(1, "call", Some(7_000));
    pair.pass(30_000);
    assert_eq!(pair.outcome(run), Some((EndReason::CostReached, 6_500)));
    assert_eq!(pair.charged(), 7_000);
}

#[test]
fn an_agent_that_answers_is_never_paused() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    for _ in 0..240 {
        pair.pass(250);
        assert!(!pair.tools[&run].paused);
    }
    assert!(pair.promised() >= 57_000);
}

#[test]
fn an_agent_that_stops_signing_is_paused_within_the_credit_then_killed_and_leaves_a_debt() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(20_000);
    let promised = pair.promised();
    pair.agent_is_silent = true;
    pair.pass(6_000);
    assert!(pair.tools[&run].paused);
    pair.pass(10_500);
    assert!(!pair.tools.contains_key(&run), "killed after the grace");
    assert_eq!(pair.promised(), promised);
    assert!(pair.charged() - promised <= 5_000, "charged {} of promised {promised}", pair.charged());
    pair.pass(31_000);
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Owing(CloseReason::NotSigned));
    assert!(pair.released && pair.provider.as_ref().unwrap().unvouchered() > usdc(0));

    // The debt can be made good later; then the session closes.
    pair.agent_is_silent = false;
    pair.agent_input(AgentInput::Connected);
    pair.talk();
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::NotSigned));
    assert_eq!(pair.charged(), pair.promised());
}

#[test]
fn an_agent_that_signs_nothing_gets_no_work_out_of_ending_what_is_paused() {
    let mut pair = Pair::open(1_000_000);
    pair.run(1, "work", None);
    pair.pass(4_000);
    pair.agent_is_silent = true;
    let mut worked = 0;
    for n in 2..60 {
        // Each run ends just after the provider looked, before the next look; another takes its place.
        let order = pair.tools.keys().copied().collect::<Vec<_>>();
        for execution in order {
            worked += pair.tools[&execution].ms;
            pair.provider_input(ProviderInput::Frame(AgentFrame::Cancel(execution)));
        }
        pair.order_unheard(n);
        pair.pass(250);
    }
    let credit_and_ticks = 5_000 + 5_000 + 3 * 2 * 250;
    assert!(worked <= credit_and_ticks, "{worked} ms of work for a promise of {}", pair.promised());
}

#[test]
fn work_stops_where_settlement_does_not_redeem_and_goes_on_when_it_does() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(6_000);
    // Nothing more is risked; the agent signs all that it is shown.
    pair.room = usdc(6_000);
    pair.pass(30_000);
    assert!(pair.tools[&run].paused && pair.promised() == pair.charged() && pair.charged() <= 6_250, "charged {}", pair.charged());
    pair.room = usdc(100_000);
    pair.pass(1_000);
    assert!(!pair.tools[&run].paused);
    pair.room = usdc(6_000);
    pair.pass(61_000);
    assert_eq!(pair.outcome(run).map(|(end, _)| end), Some(EndReason::Unredeemed));
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::Unredeemed));
}

#[test]
fn work_waits_for_a_redemption_as_long_as_the_chain_takes_to_be_sure_and_a_minute_more() {
    let quarter = Millis::from_secs(15 * 60);
    let mut pair = Pair::open(1_000_000);
    pair.redemption_grace = redemption_grace(quarter);
    let run = pair.run(1, "work", None);
    pair.room = usdc(6_000);
    pair.pass(10_000);
    assert!(pair.tools[&run].paused);
    // What is redeemed at once is final, and counts, a quarter of an hour later.
    pair.pass(quarter.0);
    assert_eq!(pair.outcome(run), None, "it is still waited for");
    pair.room = usdc(10_000);
    pair.pass(1_000);
    assert!(!pair.tools[&run].paused);
    pair.pass(quarter.0 + 70_000);
    assert_eq!(pair.outcome(run).map(|(end, _)| end), Some(EndReason::Unredeemed));
    assert_eq!(redemption_grace(Millis(0)), REDEMPTION_GRACE, "what a ledger redeems counts at once");
}

#[test]
fn paused_time_is_not_charged() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(10_000);
    pair.agent_is_silent = true;
    pair.pass(9_000);
    assert!(pair.tools[&run].paused);
    let stood = pair.tools[&run].ms;
    pair.agent_is_silent = false;
    pair.agent_input(AgentInput::Connected);
    pair.talk();
    assert!(!pair.tools[&run].paused);
    pair.pass(1_000);
    pair.finish(run, EndReason::Exited, Some(0));
    assert_eq!(pair.outcome(run), Some((EndReason::Exited, stood + 1_000)));
}

#[test]
fn jobs_beyond_the_places_wait_their_turn_and_a_waiting_one_can_be_taken_back() {
    let mut pair = Pair::open(1_000_000);
    let runs: Vec<_> = (0..4).map(|n| pair.run(n, "work", None)).collect();
    assert_eq!(pair.tools.len(), 2);
    pair.agent_input(AgentInput::Cancel(runs[2]));
    pair.talk();
    assert_eq!(pair.refusal(runs[2]).map(|fault| fault.code), Some(FaultCode::CANCELLED));
    pair.finish(runs[0], EndReason::Exited, Some(0));
    assert!(pair.tools.contains_key(&runs[3]) && pair.tools.len() == 2);
    pair.agent_input(AgentInput::Cancel(runs[3]));
    pair.talk();
    assert_eq!(pair.outcome(runs[3]).map(|(end, _)| end), Some(EndReason::Cancelled));
}

#[test]
fn a_tool_that_could_not_start_costs_nothing() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "call", None);
    pair.finish(run, EndReason::SetupFailed, None);
    assert_eq!(pair.charged(), 5_000);
    assert_eq!(pair.outcome(run), Some((EndReason::SetupFailed, 0)));
}

#[test]
fn the_same_job_twice_runs_once_and_another_under_its_id_is_a_conflict() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    let job = pair.provider_log.iter().find_map(|r| if let ProviderRecord::Job(job) = r { Some(job.clone()) } else { None }).unwrap();
    pair.provider_input(ProviderInput::Frame(AgentFrame::Run(Box::new(job.clone()))));
    assert_eq!(pair.tools.len(), 1);
    let mut other = job.unverified().clone();
    other.max_cost = usdc(1);
    let other = Verified::sign(other, &pair.kit.network, &pair.kit.agent.peer).into_signed();
    pair.to_agent.clear();
    pair.provider_input(ProviderInput::Frame(AgentFrame::Run(Box::new(other))));
    assert!(
        matches!(pair.to_agent.back(), Some(ProviderFrame::JobRefused { execution, fault }) if *execution == run && fault.code == FaultCode::CONFLICT)
    );
}

#[test]
fn a_voucher_that_differs_from_its_receipt_moves_nothing() {
    let mut pair = Pair::open(1_000_000);
    let channel = pair.provider.as_ref().unwrap().terms().channel();
    let (hash, domain) = (orien_protocol::hash::Hash::of(b"x"), pair.kit.domain);
    for (total, number, key) in
        [(9_000, 1, &pair.kit.agent.spending), (5_000, 7, &pair.kit.agent.spending), (9_000, 2, &pair.kit.provider.claim)]
    {
        let voucher = Voucher { channel, total: usdc(total), receipt_number: number, receipt_hash: hash };
        let signed = *MoneyVerified::sign(voucher, &domain, key).signed();
        let key_ok = std::sync::Arc::ptr_eq(key, &pair.kit.agent.spending);
        let session = pair.provider.as_mut().unwrap();
        let vet = |_: &orien_protocol::job::Job| Ok(());
        let env = orien_protocol::session::provider::ProviderEnv {
            now: pair.now,
            credit: usdc(5_000),
            unredeemed_ceiling: usdc(9),
            redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
            vet: &vet,
        };
        let effects = session.handle(ProviderInput::Frame(AgentFrame::Voucher(signed)), &env);
        assert!(effects.iter().all(|e| !matches!(e, orien_protocol::session::provider::ProviderEffect::Persist(_))), "{key_ok}");
        assert_eq!(session.promised(), usdc(5_000));
    }
}

#[test]
fn a_voucher_counts_only_with_the_hash_and_the_total_of_the_receipt_that_it_names() {
    let mut pair = Pair::open(1_000_000);
    pair.run(1, "work", None);
    pair.agent_is_silent = true;
    pair.pass(7_500);
    let receipt = pair.provider_log.iter().rev().find_map(|record| match record {
        ProviderRecord::Receipt(receipt) => Some(receipt.clone()),
        _ => None,
    });
    let receipt = receipt.unwrap().verify(&pair.kit.network, &pair.kit.provider.peer.id()).unwrap();
    assert_eq!((receipt.charged.micros(), pair.promised()), (7_500, 5_000));
    let channel = pair.agent.terms().unwrap().channel();
    let right = Voucher { channel, total: receipt.charged, receipt_number: receipt.number, receipt_hash: receipt.hash() };
    let other_hash = Voucher { receipt_hash: orien_protocol::hash::Hash::of(b"x"), ..right };
    for (voucher, promised) in [(Voucher { total: usdc(9_000), ..right }, 5_000), (other_hash, 5_000), (right, 7_500)] {
        let signed = *MoneyVerified::sign(voucher, &pair.kit.domain, &pair.kit.agent.spending).signed();
        pair.to_agent.clear();
        pair.provider_input(ProviderInput::Frame(AgentFrame::Voucher(signed)));
        let refused = matches!(pair.to_agent.front(), Some(ProviderFrame::VoucherRefused(fault)) if fault.code == FaultCode::BAD_VOUCHER);
        assert_eq!((pair.promised(), refused), (promised, promised == 5_000), "{voucher:?}");
    }
}

#[test]
fn an_agent_signs_nothing_for_time_that_its_stopwatch_did_not_see() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(1_000);
    pair.tools.get_mut(&run).unwrap().ms = 90_000;
    pair.credit = usdc(1_000_000);
    let promised = pair.promised();
    pair.finish(run, EndReason::Exited, Some(0));
    assert!(pair.events.iter().any(|event| matches!(event, AgentEvent::Disputed(fault) if fault.code == FaultCode::BAD_RECEIPT)));
    assert_eq!(pair.promised(), promised);
    assert!(pair.agent.is_disputed());
}

#[test]
fn work_ends_when_the_session_time_is_over() {
    let mut pair = Pair::open(100_000_000);
    let run = pair.run(1, "work", None);
    pair.now.wall = orien_protocol::time::Timestamp(pair.now.wall.0 + 3_600_000);
    pair.pass(250);
    assert_eq!(pair.outcome(run).map(|(end, _)| end), Some(EndReason::SessionEnded));
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::Expired));
}

#[test]
fn a_waiting_job_does_not_start_after_the_time_for_work_although_no_tick_has_come() {
    let mut pair = Pair::open(100_000_000);
    let runs: Vec<_> = (0..3).map(|n| pair.run(n, "work", None)).collect();
    assert!(!pair.tools.contains_key(&runs[2]));
    pair.now.wall = orien_protocol::time::Timestamp(pair.now.wall.0 + 3_600_000);
    pair.finish(runs[0], EndReason::Exited, Some(0));
    assert!(!pair.tools.contains_key(&runs[2]), "a place was free, and no time was left");
    pair.pass(250);
    assert_eq!(pair.refusal(runs[2]).map(|fault| fault.code), Some(FaultCode::SESSION_ENDED));
}
