//! Worlds that are written by hand: one cheat each, many seeds, and the bound that must hold.

use orien_protocol::credit::CreditPolicy;
use orien_protocol::money::Usdc;
use orien_protocol::sim::{Adversary, Report, Scenario, Weather};

use crate::seeds::expect_clean;

/// Runs a cheat's world under several seeds.
fn worlds(adversary: Adversary, change: impl Fn(&mut Scenario)) -> Vec<(Scenario, Report)> {
    let world = |seed| {
        let mut scenario = Scenario::with(seed, Some(adversary));
        change(&mut scenario);
        let report = expect_clean(&scenario);
        (scenario, report)
    };
    (9_000..9_008).map(world).collect()
}

#[test]
fn an_agent_that_stops_signing_takes_no_more_than_the_credit() {
    let reports = worlds(Adversary::StopsSigning, |scenario| scenario.sessions = 5);
    let worst = reports.iter().map(|(_, report)| report.losses.provider).max();
    assert!(worst > Some(0), "nobody even tried");
    assert!(reports.iter().all(|(_, report)| report.losses.provider <= report.losses.provider_bound));
}

#[test]
fn an_account_that_owes_is_not_let_in_again() {
    let reports = worlds(Adversary::StopsSigning, |scenario| {
        (scenario.agents, scenario.accounts, scenario.providers, scenario.sessions) = (1, 1, 1, 12);
        (scenario.chaos_ms, scenario.weather, scenario.crashes) = (150_000, Weather::Orderly, 50);
    });
    assert!(reports.iter().any(|(_, report)| report.losses.unpaid > 0), "nobody owed anything");
}

#[test]
fn a_provider_that_adds_time_in_a_chain_of_its_own_stays_within_every_order() {
    let reports = worlds(Adversary::Inflates, |scenario| {
        (scenario.providers, scenario.sessions, scenario.chaos_ms) = (1, 6, 60_000);
        (scenario.weather, scenario.steps, scenario.crashes) = (Weather::Orderly, false, 50);
    });
    assert!(reports.iter().any(|(_, report)| report.losses.agent > 0), "nothing was added");
}

#[test]
fn an_agent_takes_no_allowance_for_anything_but_what_it_asked_for() {
    let reports = worlds(Adversary::Redirects, |scenario| {
        (scenario.agents, scenario.sessions, scenario.chaos_ms) = (3, 12, 60_000);
        (scenario.escrow, scenario.crashes) = (Usdc::from_micros(u64::MAX / 8), 50);
    });
    assert!(reports.iter().any(|(_, report)| report.counts.runs > 0), "nothing was ever opened");
}

#[test]
fn throw_away_agents_pay_at_least_as_much_as_they_take() {
    for (scenario, Report { losses, .. }) in worlds(Adversary::Sybils, |scenario| scenario.weather = Weather::Orderly) {
        // Each pays one interval to be let in, and takes one more on credit.
        let calls = 600 * u128::from(scenario.agents as u64);
        assert!(losses.unpaid <= losses.redeemed + losses.ticks + calls, "seed {}: {losses:?}", scenario.seed);
    }
}

#[test]
fn many_gateways_never_reserve_more_than_the_one_escrow_behind_them() {
    let reports = worlds(Adversary::SharesOneEscrow, |scenario| {
        (scenario.agents, scenario.accounts, scenario.sessions) = (4, 1, 8);
        scenario.weather = Weather::Orderly;
    });
    assert!(reports.iter().any(|(_, report)| report.counts.claims > 0));
    assert!(reports.iter().all(|(_, report)| report.losses.settlement == 0));
}

#[test]
fn a_settlement_that_promises_escrow_which_is_not_there_costs_a_provider_its_cap_at_most() {
    let reports = worlds(Adversary::OverPromises, |scenario| {
        scenario.credit = CreditPolicy { cap: Usdc::from_micros(1_000_000), unredeemed_cap: Usdc::from_micros(20_000) };
        scenario.sessions = 6;
    });
    let worst = reports.iter().map(|(_, report)| report.losses.provider).max().unwrap_or(0);
    assert!(worst > 5_000, "nobody even tried: {worst}");
}

#[test]
fn a_provider_that_reports_more_time_than_it_worked_gains_the_tolerance_at_most() {
    for (scenario, report) in worlds(Adversary::OverReports, |scenario| scenario.steps = false) {
        // A stopwatch's tolerance and the way of the messages, for every run; the auditor checks each run against its own stopwatch.
        let per_run = u128::from(scenario.price.per_minute.micros()) * 45_000 / 60_000 + 1;
        let runs = u128::from(report.counts.runs) + 1;
        assert!(report.losses.agent <= per_run * runs, "seed {}: {:?}", scenario.seed, report.losses);
    }
}

#[test]
fn a_provider_and_a_settlement_together_do_not_get_more_than_the_budget() {
    let reports = worlds(Adversary::IgnoresBudget, |scenario| {
        scenario.credit.unredeemed_cap = Usdc::from_micros(u64::MAX / 4);
        scenario.budget = Usdc::from_micros(scenario.budget.micros() / 4);
    });
    assert!(reports.iter().any(|(_, report)| report.counts.runs > 3));
}

#[test]
fn a_network_that_loses_repeats_and_reorders_everything_breaks_no_rule() {
    for seed in 9_100..9_120 {
        expect_clean(&Scenario { weather: Weather::Wild, crashes: 3_000, ..Scenario::with(seed, None) });
    }
}
