//! Where a charge, a pause or a kill begins and where it does not yet: the last value on either side of each limit of a running tool.

use orien_protocol::frame::CloseReason;
use orien_protocol::id::ExecutionId;
use orien_protocol::money::Price;
use orien_protocol::receipt::{EndReason, Receipt, Usage};
use orien_protocol::session::UNANSWERED_LIMIT;
use orien_protocol::session::agent::AgentPhase;
use orien_protocol::session::provider::{ProviderInput, ProviderPhase, ProviderRecord};

use crate::kit::usdc;
use crate::pair::Pair;

fn used(effective_ms: u64) -> Usage {
    Usage { effective_ms, ..Usage::default() }
}

impl Pair {
    fn with_credit(budget: u64, credit: u64) -> Self {
        let mut pair = Self::propose_with(budget, credit, |_| {});
        pair.talk();
        assert_eq!(pair.agent.phase(), AgentPhase::Open);
        pair
    }

    /// The executor knows no deadline: what ends the tool is the session.
    fn unlimited(&mut self, execution: ExecutionId) {
        self.tools.get_mut(&execution).unwrap().limit = u64::MAX;
    }

    /// The executor says that the tool ended after so much time.
    fn ended(&mut self, execution: ExecutionId, effective_ms: u64, end: EndReason) {
        self.tools.remove(&execution);
        self.provider_input(ProviderInput::Ended { execution, usage: used(effective_ms), end, exit_code: None });
        self.talk();
    }

    fn receipts(&self) -> Vec<&Receipt> {
        let mut receipts = Vec::new();
        for record in &self.provider_log {
            if let ProviderRecord::Receipt(receipt) = record {
                receipts.push(receipt.unverified());
            }
        }
        receipts
    }

    fn unvouchered(&self) -> u64 {
        self.provider.as_ref().unwrap().unvouchered().micros()
    }
}

#[test]
fn a_run_that_may_cost_no_more_than_its_call_fee_has_the_time_that_is_worth_nothing() {
    // 10 micro-USDC a minute: the first costs six seconds.
    let mut pair = Pair::propose_with(100_000, 5_000, |terms| {
        terms.prices[1].price = Price { per_minute: usdc(10), call_fee: usdc(500) };
    });
    pair.talk();
    let run = pair.run(1, "call", Some(500));
    pair.unlimited(run);
    pair.pass(5_750);
    assert!(pair.tools.contains_key(&run), "{:?}", pair.outcome(run));
    pair.pass(250);
    assert_eq!(pair.outcome(run).map(|(end, _)| end), Some(EndReason::CostReached));
}

#[test]
fn the_minimum_charge_is_worked_off_before_a_budget_of_just_that_is_reached() {
    let mut pair = Pair::open(5_000);
    let run = pair.run(1, "work", None);
    pair.unlimited(run);
    pair.pass(4_750);
    assert!(pair.tools.contains_key(&run), "{:?}", pair.outcome(run));
    pair.pass(1_000);
    assert!(!pair.tools.contains_key(&run));
    assert_eq!((pair.charged(), pair.promised()), (5_000, 5_000));
}

#[test]
fn a_receipt_comes_when_half_of_the_credit_is_used_and_none_while_nothing_new_is_charged() {
    let mut pair = Pair::with_credit(1_000_000, 4_000);
    pair.run(1, "work", None);
    pair.pass(7_000);
    assert_eq!(pair.promised(), 7_000, "2,000 of 4,000 were used");
    // So little credit that half of it is nothing: no receipt per tick for time that the minimum covers.
    let mut pair = Pair::with_credit(1_000_000, 1);
    pair.run(1, "work", None);
    pair.pass(4_750);
    assert_eq!(pair.receipts().len(), 1);
}

#[test]
fn a_tool_is_paused_as_soon_as_no_room_is_left_although_nothing_is_unvouchered() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.room = usdc(5_001);
    pair.pass(1_000);
    assert!(!pair.tools[&run].paused);
    pair.room = usdc(5_000);
    pair.pass(250);
    assert!(pair.tools[&run].paused && pair.unvouchered() == 0);
}

#[test]
fn a_tool_is_paused_when_as_many_receipts_as_may_be_are_unanswered() {
    let mut pair = Pair::with_credit(100_000_000, 100_000_000);
    let run = pair.run(1, "work", None);
    pair.agent_is_silent = true;
    // The first receipt was answered.
    while pair.receipts().len() <= UNANSWERED_LIMIT {
        assert!(!pair.tools[&run].paused, "{} receipts", pair.receipts().len());
        pair.pass(5_000);
    }
    pair.pass(250);
    assert!(pair.tools[&run].paused, "{} receipts", pair.receipts().len());
}

#[test]
fn an_agent_that_does_not_sign_is_blamed_also_when_settlement_leaves_little_room() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(4_000);
    pair.agent_is_silent = true;
    pair.room = usdc(8_000);
    pair.pass(20_000);
    assert!(!pair.tools.contains_key(&run), "killed after the grace of ten seconds");
    pair.pass(40_000);
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Owing(CloseReason::NotSigned));
}

#[test]
fn where_credit_and_redemption_leave_the_same_the_shorter_patience_counts() {
    let end = |credit, room| {
        let mut pair = Pair::open(1_000_000);
        pair.run(1, "work", None);
        pair.pass(6_000);
        assert_eq!((pair.charged(), pair.promised()), (5_000, 5_000));
        pair.pass(4_000);
        pair.credit = usdc(credit);
        pair.room = usdc(pair.promised() + room);
        pair.pass(10_500);
        pair.provider.as_ref().unwrap().phase()
    };
    assert_eq!(end(0, 0), ProviderPhase::Closed(CloseReason::NotSigned));
    assert_eq!(end(1, 0), ProviderPhase::Open, "settlement is given a minute");
}

#[test]
fn a_final_usage_below_what_was_seen_already_takes_no_time_back() {
    let mut pair = Pair::open(1_000_000);
    let run = pair.run(1, "work", None);
    pair.pass(7_000);
    pair.ended(run, 100, EndReason::Exited);
    assert_eq!(pair.outcome(run), Some((EndReason::Exited, 7_000)));
    assert_eq!((pair.charged(), pair.agent.is_disputed()), (7_000, false));
}

#[test]
fn the_executors_deadline_is_named_by_what_set_it() {
    let end_of = |budget: u64, max_cost: u64, ms: u64| {
        let mut pair = Pair::with_credit(budget, 10_000_000);
        let run = pair.run(1, "call", Some(max_cost));
        // The agent's stopwatch moves; the executor does not report.
        pair.now.mono.0 += ms;
        pair.now.wall = pair.now.wall.plus(orien_protocol::time::Millis(ms));
        pair.ended(run, ms, EndReason::TimedOut);
        pair.outcome(run).unwrap()
    };
    // One millisecond more would cost more than allowed; 500 of it is the call fee.
    assert_eq!(end_of(100_000, 7_000, 6_500), (EndReason::CostReached, 6_500));
    assert_eq!(end_of(100_000, 7_000, 6_499), (EndReason::TimedOut, 6_499));
    // The job's own limit counts before its cost.
    assert_eq!(end_of(100_000_000, 3_600_500, 3_600_000), (EndReason::TimedOut, 3_600_000));
}

#[test]
fn a_deadline_with_the_budget_used_up_by_two_runs_is_the_budgets() {
    let end_of = |ms: u64| {
        let mut pair = Pair::with_credit(20_000, 10_000_000);
        let (one, two) = (pair.run(1, "work", Some(20_000)), pair.run(2, "work", Some(20_000)));
        pair.now.mono.0 += 20_000;
        pair.now.wall = pair.now.wall.plus(orien_protocol::time::Millis(20_000));
        pair.provider_input(ProviderInput::Progress(one, used(8_000)));
        pair.talk();
        pair.ended(two, ms, EndReason::TimedOut);
        pair.outcome(two).unwrap()
    };
    assert_eq!(end_of(12_000), (EndReason::BudgetReached, 12_000));
    assert_eq!(end_of(11_999), (EndReason::TimedOut, 11_999));
}

#[test]
fn time_that_credit_keeps_off_the_last_receipt_counts_as_unvouchered_and_nothing_else_does() {
    // The agent promised 5,000 for the opening, and signs nothing more.
    let silent = |tool: &str| {
        let mut pair = Pair::open(1_000_000);
        let run = pair.run(1, tool, None);
        pair.agent_is_silent = true;
        (pair, run)
    };
    let (mut pair, run) = silent("call");
    pair.ended(run, 12_000, EndReason::Exited);
    // 10,000 are charged: the fee and 9,500 ms. The rest of 2,500 is rounded up by one.
    assert_eq!((pair.charged(), pair.unvouchered()), (10_000, 5_000 + 2_501));
    let (mut pair, run) = silent("call");
    pair.ended(run, 7_500, EndReason::Exited);
    assert_eq!((pair.charged(), pair.unvouchered()), (8_000, 3_000));
    // What could not start is not owed, however long it tried; nor is what an interim receipt leaves for the next.
    let (mut pair, run) = silent("work");
    pair.ended(run, 12_000, EndReason::SetupFailed);
    assert_eq!((pair.charged(), pair.unvouchered()), (5_000, 0));
    let (mut pair, run) = silent("work");
    pair.provider_input(ProviderInput::Progress(run, used(12_000)));
    assert_eq!((pair.charged(), pair.receipts().len()), (10_000, 2));
    assert!(pair.unvouchered() <= 7_000, "{}", pair.unvouchered());
}

#[test]
fn a_run_leaves_the_call_fees_of_the_others_in_the_budget_once() {
    let at_the_end = |others_first: u64| {
        let mut pair = Pair::with_credit(13_000, 10_000_000);
        let (one, other) = (pair.run(1, "work", None), pair.run(2, "call", None));
        pair.now.mono.0 += 30_000;
        pair.now.wall = pair.now.wall.plus(orien_protocol::time::Millis(30_000));
        if others_first > 0 {
            pair.provider_input(ProviderInput::Progress(other, used(others_first)));
            pair.talk();
        }
        pair.ended(one, 20_000, EndReason::Exited);
        pair.outcome(one).unwrap().1
    };
    assert_eq!(at_the_end(0), 12_500, "the other's fee of 500 is not receipted yet");
    assert_eq!(at_the_end(5_000), 13_000 - 5_500, "it is in the other's receipt");
}
