//! Seeds that once broke a rule, by the rule that they broke. What a seed draws may have changed since; then it is one more world.

use orien_protocol::sim::Scenario;

use crate::seeds::expect_clean;

/// The limit was computed before the turn in which a voucher raised the promise, and used after it.
#[test]
fn seed_64_a_voucher_does_not_let_the_charge_pass_what_may_wait_for_redemption() {
    expect_clean(&Scenario::of_seed(64));
}

/// What a cancelled run had worked beyond the credit was forgotten, so paused work went on for one more look.
#[test]
fn seed_86_ending_a_run_gives_no_more_credit() {
    expect_clean(&Scenario::of_seed(86));
}

/// Every restart of an agent added the tolerance of its stopwatch once more.
#[test]
fn seed_5831_a_stopwatch_that_is_resumed_adds_its_tolerance_once() {
    expect_clean(&Scenario::of_seed(5_831));
}

/// Settlement answered a top-up with twice what was asked for, and the agent took it.
#[test]
fn seed_6329_nobody_but_the_caller_raises_a_budget() {
    expect_clean(&Scenario::of_seed(6_329));
}
