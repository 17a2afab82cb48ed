//! Who finds whom.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::cast::Cast;
use crate::kit::{run_json, wait_for};

#[test]
fn three_nodes_reach_two_gateways_and_a_late_one_knows_all_within_two_seconds() {
    let mut cast = Cast::start();
    cast.add_node();
    cast.add_gateway("1");
    cast.add_node();
    cast.add_node();
    let early = cast.gateway();
    wait_for("three offers at the first gateway", || (Cast::providers(&early).len() == 3).then_some(()));
    cast.add_gateway("1");
    let late = cast.gateways[1].door();
    let begun = Instant::now();
    while Cast::providers(&late).len() < 3 {
        assert!(begun.elapsed() < Duration::from_secs(2), "a late gateway knows {} of 3 offers", Cast::providers(&late).len());
        std::thread::sleep(Duration::from_millis(20));
    }
    // The cheapest is chosen and the answer says why.
    let session = late.post("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["wait"] })).ok();
    assert!(!session["whyProvider"].as_str().unwrap().is_empty(), "{session}");

    // Every role of the folder answers.
    let status = run_json(&["status", "--json", "--data-dir", cast.root.path().to_str().unwrap()]);
    assert_eq!(status["roles"].as_array().unwrap().len(), 2, "bootstrap and settlement have the usual names: {status}");
}

#[test]
fn a_provider_that_is_gone_is_not_chosen() {
    let mut cast = Cast::small();
    let door = cast.gateway();
    wait_for("the offer", || (Cast::providers(&door).len() == 1).then_some(()));
    cast.nodes[0].kill();
    let refused = door.post("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["wait"] }));
    assert!(["provider_unreachable", "no_provider"].contains(&refused.code()), "{refused:?}");
}

#[test]
fn peers_of_another_network_do_not_meet() {
    let one = Cast::start();
    let mut other = Cast::start();
    other.bootstrap_address.clone_from(&one.bootstrap_address);
    let node = other.add_node().door();
    let health = node.get("/health").ok();
    assert_eq!(health["status"], "ok");
    let catalogue = one.bootstrap.door().get("/catalogue").ok();
    assert_eq!(catalogue["offers"], json!([]), "{catalogue}");
    assert_eq!(one.bootstrap.door().get("/health").ok()["status"], "ok");
}
