//! Seeds that once broke a rule, by the rule that they broke. What a seed draws may have changed since; then it is one more world.

use orien_protocol::sim::Scenario;

use crate::seeds::expect_clean;

/// The limit was computed before the turn in which a voucher raised the promise, and used after it.
#[test]
fn seed_64_a_voucher_does_not_let_the_charge_pass_what_may_wait_for_redemption() {
    expect_clean(&Scenario::of_seed(64));
}
