//! Budgets, refusals and repeats, through the door.

use serde_json::json;

use crate::cast::Cast;
use crate::kit::{micros, wait_for};

#[test]
fn a_run_beyond_the_budget_is_refused_before_it_starts_with_the_missing_amount() {
    let cast = Cast::small();
    // The minimum charge is one interval: 0.01 USDC; a run needs that much again only beyond it.
    let session = cast.open("0.012");
    let run = cast.start_run(&session, "wait", json!({ "seconds": 1 }));
    cast.ended(&run);
    let refused = cast.gateway().post("/tools/run", &json!({ "sessionId": session, "toolId": "wait", "args": { "seconds": 1 } }));
    assert_eq!((refused.status, refused.code()), (402, "budget_exhausted"), "{refused:?}");
    assert!(micros(&refused.body["missing"]) > 0, "{refused:?}");
    let list = cast.gateway().get(&format!("/api/sessions/{session}")).ok();
    assert_eq!(list["executions"].as_array().unwrap().iter().filter(|run| run["status"] != "failed").count(), 1, "{list}");
    cast.end(&session);
    cast.settled(&session);
}

#[test]
fn a_run_that_reaches_the_budget_is_stopped_and_costs_no_more() {
    let cast = Cast::small();
    let session = cast.open("0.025");
    let run = cast.start_run(&session, "wait", json!({ "seconds": 60 }));
    let ended = cast.ended(&run);
    assert_eq!(ended["status"], "failed", "{ended}");
    let done = cast.end(&session);
    assert_eq!(micros(&done["budgetConsumed"]), 25_000, "{done}");
    assert_eq!(micros(&cast.settled(&session)["totalCost"]), 25_000);
}

#[test]
fn a_cancelled_run_costs_the_time_it_ran() {
    let cast = Cast::small();
    let session = cast.open("1");
    let run = cast.start_run(&session, "wait", json!({ "seconds": 60 }));
    wait_for("the start", || (cast.execution(&run)["status"] == "running").then_some(()));
    cast.gateway().post(&format!("/executions/{run}/cancel"), &json!({})).ok();
    let ended = cast.ended(&run);
    assert_eq!(ended["status"], "failed", "{ended}");
    assert!(micros(&ended["cost"]) < 300_000, "{ended}");
    cast.end(&session);
    cast.settled(&session);
}

#[test]
fn the_same_request_twice_opens_and_runs_once_and_a_changed_one_is_refused() {
    let cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let order = json!({ "providerId": "auto", "budgetAllowance": "1", "tools": ["say"] });
    let first = door.post_with_key("/api/sessions", &order, "open-once").ok();
    let second = door.post_with_key("/api/sessions", &order, "open-once").ok();
    assert_eq!(first["id"], second["id"]);
    let other =
        door.post_with_key("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": "2", "tools": ["say"] }), "open-once");
    assert_eq!(other.status, 422, "{other:?}");
    let run = json!({ "sessionId": first["id"], "toolId": "say", "args": { "words": "hello" } });
    let first_run = door.post_with_key("/tools/run", &run, "run-once").ok();
    let second_run = door.post_with_key("/tools/run", &run, "run-once").ok();
    assert_eq!(first_run["executionId"], second_run["executionId"]);
    let session = first["id"].as_str().unwrap();
    cast.ended(first_run["executionId"].as_str().unwrap());
    let seen = door.get(&format!("/api/sessions/{session}")).ok();
    assert_eq!(seen["executions"].as_array().unwrap().len(), 1, "{seen}");
    cast.end(session);
    cast.settled(session);
}

#[test]
fn a_budget_can_be_raised_and_funds_that_are_not_there_cannot_be_reserved() {
    let cast = Cast::small();
    let session = cast.open("0.5");
    // Each answer has the budget that it speaks of.
    for budget in (501..=550).chain([2000]) {
        let wanted = format!("{}.{:03}", budget / 1000, budget % 1000);
        let raised = cast.gateway().post(&format!("/api/sessions/{session}/topup"), &json!({ "budgetAllowance": wanted })).ok();
        assert_eq!(micros(&raised["budgetAllowance"]), budget * 1000, "{raised}");
    }
    let refused = cast.gateway().post(&format!("/api/sessions/{session}/topup"), &json!({ "budgetAllowance": "50" }));
    assert_eq!((refused.status, refused.code()), (402, "insufficient_funds"), "{refused:?}");
    assert_eq!(micros(&refused.body["missing"]), 40_000_000, "{refused:?}");
    cast.end(&session);
    cast.settled(&session);
}

#[test]
fn sessions_asked_for_at_once_all_open_and_the_one_beyond_the_places_is_told_so() {
    let cast = Cast::small();
    let door = cast.gateway();
    wait_for("a provider", || (!Cast::providers(&door).is_empty()).then_some(()));
    let order = json!({ "providerId": "auto", "budgetAllowance": "0.1", "tools": ["wait"] });
    let opened: Vec<_> = std::thread::scope(|scope| {
        let asked: Vec<_> = (0..8).map(|_| scope.spawn(|| cast.gateway().post("/api/sessions", &order))).collect();
        asked.into_iter().map(|thread| thread.join().unwrap().ok()["id"].as_str().unwrap().to_owned()).collect()
    });
    let beyond = door.post("/api/sessions", &order);
    assert!(["busy", "no_provider"].contains(&beyond.code()), "{beyond:?}");
    for session in &opened {
        cast.end(session);
    }
    cast.settled(&opened[0]);
}
