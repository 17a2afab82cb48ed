//! A provider that dies is replaced by another, and nobody pays more than was allowed.

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{micros, orien, wait_for};

const BUDGET: u64 = 500_000;

/// Two providers that offer the same, and a session with one of them; its number among the nodes.
fn open() -> (Cast, Value, usize) {
    let mut cast = Cast::start();
    cast.add_node();
    cast.add_node();
    cast.add_gateway("10");
    let door = cast.gateway();
    wait_for("both providers", || (Cast::providers(&door).len() == 2).then_some(()));
    let order = json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["wait"], "labels": { "job": "nightly" } });
    let session = door.post("/api/sessions", &order).ok();
    let label = session["providerLabel"].as_str().unwrap();
    let chosen = label.strip_prefix("test_bench_").unwrap().parse().unwrap();
    (cast, session, chosen)
}

fn wait_run(cast: &Cast, session: &str, seconds: u32) -> Value {
    let order = json!({ "sessionId": session, "toolId": "wait", "args": { "seconds": seconds }, "wait": 60 });
    cast.gateway().post("/tools/run", &order).ok()
}

/// Waits for the session that goes on for one.
fn successor(cast: &Cast, old: &str) -> Value {
    let door = cast.gateway();
    let id = wait_for("the successor", || {
        let session = door.get(&format!("/api/sessions/{old}")).ok();
        assert_ne!(session["handover"]["status"], "failed", "{session}");
        session["replacedBy"].as_str().map(str::to_owned)
    });
    door.get(&format!("/api/sessions/{id}")).ok()
}

/// Brings everybody back, ends what is left and looks whether all was settled, within the budget.
fn settle(mut cast: Cast, chosen: usize, old: &str, new: &str) -> (u64, u64) {
    let ended = cast.end(new);
    assert_eq!(ended["status"], "completed", "{ended}");
    cast.nodes[chosen].restart();
    let door = cast.gateway();
    wait_for("the end of the old session", || (door.get(&format!("/api/sessions/{old}")).ok()["phase"] == "closed").then_some(()));
    let consumed = |session: &str| micros(&door.get(&format!("/api/sessions/{session}")).ok()["budgetConsumed"]);
    let [first, second] = [old, new].map(|session| {
        let total = consumed(session);
        // What was redeemed while it ran is in a batch already, and the rest in the next one.
        wait_for("the last batch", || (micros(&cast.settled(session)["totalCost"]) == total).then_some(total))
    });
    assert!(first + second <= BUDGET, "{first} and {second}");
    (first, second)
}

#[test]
fn a_session_whose_node_is_killed_between_runs_goes_on_elsewhere_and_both_are_settled_within_the_budget() {
    let (mut cast, session, chosen) = open();
    let old = session["id"].as_str().unwrap();
    let cost = micros(&wait_run(&cast, old, 2)["cost"]);
    cast.nodes[chosen].kill();
    let new = successor(&cast, old);
    assert_ne!(new["providerId"], session["providerId"]);
    assert_eq!((&new["replaces"], &new["labels"]), (&json!(old), &json!({ "job": "nightly" })));
    assert_eq!(micros(&new["budgetAllowance"]), BUDGET - cost, "nothing was under way");
    let new = new["id"].as_str().unwrap().to_owned();
    let late = cast.gateway().post("/tools/run", &json!({ "sessionId": old, "toolId": "wait", "args": { "seconds": 0 } }));
    assert_eq!((late.status, late.code(), &late.body["successor"]), (410, "session_replaced", &json!(new)));
    let run = wait_run(&cast, &new, 1);
    assert_eq!(run["status"], "completed", "{run}");
    // The command line goes where the session went, and says so.
    let said = orien().args(["session", "run", old, "wait", "seconds=0"]).env("ORIEN_DATA_DIR", &cast.gateways[0].folder).output().unwrap();
    let notes = String::from_utf8(said.stderr).unwrap();
    assert!(said.status.success() && notes.contains(&format!("{new} goes on for it")), "{notes}");
    let old = old.to_owned();
    let (first, second) = settle(cast, chosen, &old, &new);
    assert_eq!(first, cost);
    assert!(second > 0);
}

#[test]
fn a_gateway_killed_while_its_session_moves_opens_one_successor_and_a_run_of_a_dead_node_is_not_repeated() {
    let (mut cast, session, chosen) = open();
    let old = session["id"].as_str().unwrap().to_owned();
    let run = cast.start_run(&old, "wait", json!({ "seconds": 95 }));
    wait_for("some paid intervals", || (micros(&cast.execution(&run)["cost"]) > 20_000).then_some(()));
    cast.nodes[chosen].kill();
    let door = cast.gateway();
    let path = format!("/api/sessions/{old}");
    wait_for("the decision", || (!door.get(&path).ok()["handover"].is_null()).then_some(()));
    cast.gateways[0].kill();
    cast.gateways[0].restart();
    let new = successor(&cast, &old);
    let id = new["id"].as_str().unwrap().to_owned();
    let all = cast.gateway().get("/api/sessions").ok();
    let opened = |session: &&Value| session["replaces"] == old.as_str() && session["endReason"] != "not_opened";
    assert_eq!(all["sessions"].as_array().unwrap().iter().filter(opened).count(), 1, "{all}");
    let lost = cast.execution(&run);
    assert_eq!((&lost["status"], &lost["fault"]["code"]), (&json!("failed"), &json!("session_ended")), "{lost}");
    assert_eq!(cast.gateway().get(&format!("/executions?sessionId={id}")).ok()["executions"], json!([]), "not repeated");
    let set_aside = BUDGET - micros(&new["budgetAllowance"]);
    let (first, _) = settle(cast, chosen, &old, &id);
    assert!(first <= set_aside, "{first} of {set_aside}");
}
