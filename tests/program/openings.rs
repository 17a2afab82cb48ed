//! An opening that breaks off after settlement has reserved leaves nothing locked.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{Door, micros, wait_for};

/// A reservation that comes back by itself takes hours; one that is given back takes seconds, of which a restart is most.
const SOON: Duration = Duration::from_secs(30);

/// Has a session asked for, and stops the world between settlement's reservation and the first receipt: the node has countersigned and is frozen, settlement has reserved.
fn broken_off(cast: &Cast) {
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let places = free(cast);
    cast.settlement.freeze();
    // Nobody waits for the answer: it comes from a gateway that is killed, or late.
    std::thread::spawn(move || ask(&door));
    wait_for("the node's countersignature", || (free(cast) < places).then_some(()));
    // The signature is on its way to the gateway, which has nothing else to do.
    std::thread::sleep(Duration::from_millis(500));
    cast.nodes[0].freeze();
    cast.settlement.thaw();
    wait_for("the reservation", || (reserved(cast) == 2_000_000).then_some(()));
}

fn ask(door: &Door) {
    let order = json!({ "providerId": "auto", "budgetAllowance": "2", "tools": ["wait"] });
    let asked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| door.post("/api/sessions", &order).status));
    assert_ne!(asked.ok(), Some(201), "the session must not open");
}

fn free(cast: &Cast) -> u64 {
    cast.nodes[0].door().get("/health").ok()["freeSessions"].as_u64().unwrap()
}

fn reserved(cast: &Cast) -> u64 {
    micros(&cast.ledger()["reserved"])
}

/// The reservation comes back soon, the session has failed, and the next one opens with all the credit there is.
fn given_back(cast: &Cast) {
    let begun = Instant::now();
    let door = cast.gateway();
    let failed = wait_for("the failed session", || {
        let all = door.get("/api/sessions?status=failed").ok();
        all["sessions"].get(0).cloned()
    });
    assert_eq!(failed["endReason"], "not_opened", "{failed}");
    wait_for("the end of the reservation", || (reserved(cast) == 0).then_some(()));
    assert!(begun.elapsed() < SOON, "it took {:?}", begun.elapsed());
    let ledger: Value = cast.ledger();
    assert_eq!((&ledger["balanced"], &ledger["liveChannels"]), (&json!(true), &json!(0)), "{ledger}");
    let next = cast.open("10");
    cast.end(&next);
    cast.settled(&next);
}

#[test]
fn a_gateway_killed_right_after_settlement_reserved_gives_the_reservation_back_when_it_is_there_again() {
    let mut cast = Cast::small();
    broken_off(&cast);
    cast.gateways[0].kill();
    cast.nodes[0].thaw();
    cast.gateways[0].restart();
    given_back(&cast);
}

#[test]
fn a_reservation_for_a_node_that_was_killed_in_the_opening_is_given_back_when_the_node_is_there_again() {
    let mut cast = Cast::small();
    broken_off(&cast);
    cast.nodes[0].kill();
    cast.nodes[0].restart();
    given_back(&cast);
}

#[test]
fn a_reservation_is_given_back_when_gateway_node_and_settlement_were_all_killed() {
    let mut cast = Cast::small();
    broken_off(&cast);
    cast.gateways[0].kill();
    cast.nodes[0].kill();
    cast.settlement.kill();
    cast.gateways[0].restart();
    cast.settlement.restart();
    cast.nodes[0].restart();
    given_back(&cast);
}
