//! The whole driver with real books and a real store, against a chain that misbehaves and a process that dies at every question and every commit, by a seed.
//!
//! Every claim is redeemed exactly once, books equal chain to the micro-USDC, no nonce is stuck, and no account's reservations ever exceed what is final. `ORIEN_SEEDS=n` runs more.

use orien_protocol::time::Millis;

use super::scene::Scene;
use super::sim::Faults;
use crate::kit::Party;

const SEEDS: u64 = 60;
const ACTIVE_TICKS: u64 = 90;
/// Longest time until everything is quiet; long enough for an hourly comparison to find what a lie did.
const SETTLING_TICKS: u64 = 300;
/// So many blocks without anything new make everything final.
const QUIET_TICKS: u64 = 10;

/// Runs one seed; how many crashes it had, or none when it ended in a halt because of a lie.
fn run(seed: u64, faults: Faults) -> Option<u64> {
    let mut scene = Scene::new(seed);
    if seed.is_multiple_of(3) {
        scene.world().ground.blocklisted.insert(Party::new(12).principal);
    }
    scene.deposit_all();
    (0..10).for_each(|_| scene.tick());
    scene.faults(faults);
    for _ in 0..ACTIVE_TICKS {
        scene.tick();
        (0..3).for_each(|_| scene.act());
        if !scene.world().lied {
            scene.audit_promises();
        }
    }
    scene.faults(Faults::default());
    let mut quiet = 0;
    for _ in 0..SETTLING_TICKS {
        scene.tick();
        let status = scene.desk.chain_status().unwrap();
        // What somebody lied about may show later than that.
        quiet = if status.flight.is_none() && status.waiting == 0 && scene.world().is_idle() { quiet + 1 } else { 0 };
        if quiet >= QUIET_TICKS && !scene.world().lied {
            break;
        }
        if scene.world().lied && !status.halts.is_empty() {
            assert!(status.halts.iter().all(|halt| ["reorganised", "contradiction", "difference"].contains(&&*halt.code)), "{status:?}");
            return None;
        }
    }
    scene.audit_end(seed);
    leave(&mut scene);
    scene.audit_end(seed);
    Some(scene.crashes)
}

/// The agents take back what is left.
fn leave(scene: &mut Scene) {
    for agent in 0..3 {
        let account = scene.agents[agent].principal;
        scene.world().request_exit(account, u64::MAX / 2);
    }
    (0..20).for_each(|_| scene.tick());
    scene.now = scene.now.plus(Millis::from_secs(super::EXIT_DELAY + 60));
    for agent in 0..3 {
        let account = scene.agents[agent].principal;
        scene.world().withdraw(account);
    }
    (0..20).for_each(|_| scene.tick());
    assert!(scene.world().is_idle());
    let left: u64 = scene.world().head().accounts.values().map(|held| held.balance).sum();
    assert_eq!(left, 0, "everybody has taken everything");
}

fn seeds() -> u64 {
    std::env::var("ORIEN_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(SEEDS)
}

#[test]
fn every_claim_is_redeemed_exactly_once_whatever_chain_and_process_do() {
    let mut crashes = 0;
    for seed in 0..seeds() {
        let faults = Faults { lost: 4, crash: 1, reorg: 12, dropped: 10, stall: 3, preconfirmed: 20, lies: 0 };
        crashes += run(seed, faults).expect("nobody lied");
    }
    assert!(crashes > seeds(), "{crashes} crashes in {} seeds", seeds());
}

#[test]
fn a_chain_that_behaves_is_followed_without_a_crash() {
    for seed in 1_000_000..1_000_005 {
        assert_eq!(run(seed, Faults::default()), Some(0));
    }
}

#[test]
fn a_node_that_lies_about_finality_halts_settlement_or_does_no_harm() {
    let mut halted = 0;
    for seed in 2_000_000..2_000_000 + seeds() / 2 {
        let faults = Faults { lost: 2, crash: 1, reorg: 25, dropped: 5, stall: 3, preconfirmed: 20, lies: 5 };
        halted += u64::from(run(seed, faults).is_none());
    }
    assert!(halted > 0, "no seed shows a lie that was found out");
}
