//! A session whose provider is lost goes on elsewhere, once, and both together never cost more than was allowed.

use std::collections::BTreeSet;

use orien_bootstrap::FaultyDisk;
use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::{Shop, ShopPlan};
use crate::world::{World, text, until};

fn micros(value: &Value) -> u64 {
    (value.as_f64().unwrap_or_else(|| panic!("no amount: {value}")) * 1e6).round() as u64
}

async fn shops(world: &World) -> [Shop; 2] {
    let plan = |label, micros| ShopPlan { label, per_minute: Usdc::from_micros(micros), ..ShopPlan::default() };
    [world.shop("cheap", plan("cheap", 300_000)).await, world.shop("dear", plan("dear", 600_000)).await]
}

async fn open(client: &Client, key: &str, budget: &str) -> Value {
    let order = json!({ "providerId": "auto", "budgetAllowance": budget, "tools": ["echo"], "labels": { "a": "b" }, "mission": "go on" });
    client.post("/api/sessions", key, &order).await.ok(201)
}

/// Waits until a session says how its handover went.
async fn handed_over(client: &Client, id: &str) -> Value {
    let path = format!("/api/sessions/{id}");
    until("a successor", || async {
        let session = client.get(&path).await.ok(200);
        ["done", "failed"].iter().any(|status| session["handover"]["status"] == *status).then_some(session)
    })
    .await
}

/// All that a shop was ever promised.
fn promised(shop: &Shop) -> u64 {
    shop.see(|seen| seen.vouchers.iter().map(|voucher| voucher.total.micros()).max().unwrap_or(0))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_provider_stops_between_runs_goes_on_elsewhere_with_the_rest_of_its_budget() {
    let mut world = World::new().await;
    let [cheap, dear] = shops(&world).await;
    let client = world.client();
    let opened = open(&client, "open", "0.5").await;
    let old = text(&opened, "id");
    assert_eq!(
        (&opened["providerId"], &opened["failover"], &opened["replacedBy"]),
        (&json!(cheap.id().to_string()), &json!(true), &Value::Null)
    );
    let order = |id: &str| json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" }, "wait": 30 });
    let cost = micros(&client.post("/tools/run", "before", &order(&old)).await.ok(201)["cost"]);
    cheap.stop_sessions();

    let lost = handed_over(&client, &old).await;
    let new = text(&lost, "replacedBy");
    assert_eq!(
        (&lost["status"], &lost["endReason"], &lost["handover"]["reason"]),
        (&json!("failed"), &json!("provider_stopped"), &json!("provider_stopped"))
    );
    let successor = client.get(&format!("/api/sessions/{new}")).await.ok(200);
    assert_eq!((&successor["replaces"], &successor["providerId"]), (&json!(old), &json!(dear.id().to_string())));
    assert_eq!((&successor["labels"], &successor["mission"]), (&json!({ "a": "b" }), &json!("go on")));
    assert_eq!((successor["expiresAt"].clone(), &successor["status"]), (opened["expiresAt"].clone(), &json!("active")));
    assert!(text(&successor, "whyProvider").ends_with(&format!("; goes on for {old}")), "{successor}");
    assert_eq!(micros(&successor["budgetAllowance"]), 500_000 - cost);
    assert_eq!(micros(&lost["budgetConsumed"]), cost);

    let refused = client.post("/tools/run", "late", &order(&old)).await.problem(410, "session_replaced");
    assert_eq!(refused["successor"], new.as_str());
    assert_eq!(client.post("/tools/run", "after", &order(&new)).await.ok(201)["status"], "completed");
    let again = client
        .post(
            "/api/sessions",
            "open",
            &json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["echo"], "labels": { "a": "b" }, "mission": "go on" }),
        )
        .await;
    assert_eq!((again.header("idempotency-replayed"), &again.ok(201)["id"]), (Some("true"), &json!(old)));

    world.stop_gateway().await;
    world.start_gateway().await;
    let client = world.client();
    assert_eq!(client.get(&format!("/api/sessions/{old}")).await.ok(200)["replacedBy"], new.as_str());
    assert_eq!(client.get("/api/sessions?status=active").await.ok(200)["sessions"].as_array().unwrap().len(), 1, "once");
    let ended = client.post(&format!("/api/sessions/{new}/end"), "end", &json!({})).await.ok(200);
    assert!(promised(&cheap) + promised(&dear) <= 500_000);
    assert_eq!(promised(&cheap) + promised(&dear), cost + micros(&ended["budgetConsumed"]));
    let last = client.get("/api/providers?tool=echo").await.ok(200);
    assert!(text(&last["providers"][1], "why").ends_with("after the others because its newest session here failed"), "{last}");
    cheap.close().await;
    dear.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_whose_provider_vanishes_in_mid_run_sets_aside_what_the_run_may_have_cost() {
    let mut world = World::new().await;
    let [cheap, dear] = shops(&world).await;
    let client = world.client();
    let old = text(&open(&client, "open", "0.5").await, "id");
    let run = world.run("run", &old, "sleep", json!({})).await;
    until("the start", || async { (client.get(&format!("/executions/{run}")).await.ok(200)["status"] == "running").then_some(()) }).await;
    let named = json!({ "providerId": cheap.id().to_string(), "budgetAllowance": "0.5" });
    let named = client.post("/api/sessions", "named", &named).await.ok(201);
    let events = client.clone();
    let before = promised(&cheap);
    let reader = tokio::spawn({
        let (client, path) = (client.clone(), format!("/logs/{run}"));
        async move { client.get(&path).await.text() }
    });
    until("the first line", || async { (client.get(&format!("/executions/{run}")).await.ok(200)["output"] == "zzz\n").then_some(()) })
        .await;
    cheap.close().await;
    let never = world.run("never", &old, "echo", json!({ "text": "x" })).await;

    let lost = handed_over(&client, &old).await;
    let read = reader.await.unwrap();
    assert!(read.contains("zzz") && read.contains("id: 2\nevent: gap\ndata: {\"lines\":null}\n\nevent: end\n"), "{read}");
    let unread = client.get(&format!("/logs/{never}")).await.text();
    assert!(unread.contains("event: end\n") && !unread.contains("event: gap"), "it was never sent, so nothing is missing: {unread}");
    assert_eq!(
        (&lost["handover"]["reason"], &lost["endReason"], &lost["phase"]),
        (&json!("provider_vanished"), &json!("provider_vanished"), &json!("ending"))
    );
    let given_up = client.get(&format!("/executions/{run}")).await.ok(200);
    assert_eq!((&given_up["status"], &given_up["fault"]["code"]), (&json!("failed"), &json!("session_ended")));
    assert!(text(&given_up["fault"], "detail").contains("not repeated"), "{given_up}");
    let successor = client.get(&format!("/api/sessions/{}", text(&lost, "replacedBy"))).await.ok(200);
    let set_aside = 500_000 - micros(&successor["budgetAllowance"]);
    // The fee of the call, and its time at 5 micro-USDC per millisecond: 10 s until it counts as vanished, an interval of 5 s, 2 s of tolerance.
    assert!((10_000 + 17_000 * 5..10_000 + 30_000 * 5).contains(&set_aside), "{set_aside}");
    assert!(before <= set_aside && dear.see(|seen| seen.vouchers.len()) == 1, "{before}");
    assert_eq!(client.get(&format!("/api/sessions/{}", text(&named, "id"))).await.ok(200)["status"], "active", "nobody asked for another");
    let told = events.get(&format!("/api/sessions/{}", text(&lost, "replacedBy"))).await.ok(200);
    assert_eq!(told["replaces"], old.as_str());
    world.stop_gateway().await;
    world.start_gateway().await;
    let again = world.client().get(&format!("/logs/{run}")).await.text();
    assert_eq!(again, read, "it has ended, also for whoever comes after a restart");
    dear.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_without_another_provider_goes_on_at_its_own_when_that_is_back_and_ends_where_the_money_is_reserved() {
    let world = World::new().await;
    let shop = world.shop("only", ShopPlan::default()).await;
    let client = world.client();
    let old = text(&open(&client, "open", "0.5").await, "id");
    shop.stop_sessions();
    let lost = handed_over(&client, &old).await;
    let new = client.get(&format!("/api/sessions/{}", text(&lost, "replacedBy"))).await.ok(200);
    assert_eq!(new["providerId"], shop.id().to_string());

    // Of 10 USDC 6 stay reserved until the provider's claim frees them, and 0.5 and 0.49 for the others.
    let rich = text(&open(&client, "rich", "6").await, "id");
    shop.stop_sessions();
    let lost = handed_over(&client, &rich).await;
    assert_eq!((&lost["handover"]["status"], &lost["handover"]["fault"]["code"]), (&json!("failed"), &json!("insufficient_funds")));
    let order = json!({ "sessionId": rich, "toolId": "echo", "args": { "text": "x" } });
    let refused = client.post("/tools/run", "late", &order).await.problem(410, "session_ended");
    assert!(text(&refused, "detail").contains("insufficient_funds"), "{refused}");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_its_caller_ended_or_wanted_no_successor_for_is_not_replaced() {
    let world = World::new().await;
    let shop = world.shop("only", ShopPlan::default()).await;
    let client = world.client();
    let ended = text(&open(&client, "open", "0.5").await, "id");
    client.post(&format!("/api/sessions/{ended}/end"), "end", &json!({})).await.ok(200);
    let order = json!({ "providerId": "auto", "budgetAllowance": "0.5", "failover": false });
    let plain = text(&client.post("/api/sessions", "plain", &order).await.ok(201), "id");
    shop.stop_sessions();
    until("the end", || async { (client.get(&format!("/api/sessions/{plain}")).await.ok(200)["phase"] == "closed").then_some(()) }).await;
    tokio::time::sleep(std::time::Duration::from_millis(1_500)).await;
    for id in [ended, plain] {
        let session = client.get(&format!("/api/sessions/{id}")).await.ok(200);
        assert!(session["handover"].is_null() && session["replacedBy"].is_null(), "{session}");
    }
    assert_eq!(client.get("/api/sessions").await.ok(200)["sessions"].as_array().unwrap().len(), 2);
    shop.close().await;
    world.close().await;
}

/// Lets the power fail at an operation of a handover, starts again, and looks whether everything happened once; what is on the disk then.
async fn crash(world: &mut World, [cheap, dear]: &[Shop; 2], image: Vec<u8>, (number, at): (usize, u64)) -> (Vec<u8>, u64) {
    let what = format!("crash {number} at {at}");
    let disk = FaultyDisk::holding(image);
    world.start_gateway_over(&disk).await;
    for shop in [cheap, dear] {
        shop.see(|seen| (seen.jobs.clear(), seen.vouchers.clear()));
    }
    let order = json!({ "providerId": cheap.id().to_string(), "budgetAllowance": "0.12", "tools": ["echo"], "failover": true });
    let client = world.client();
    let old = text(&client.post("/api/sessions", &format!("open-{number}"), &order).await.ok(201), "id");
    let order = json!({ "sessionId": old, "toolId": "echo", "args": { "text": "x" }, "wait": 30 });
    let cost = micros(&client.post("/tools/run", &format!("run-{number}"), &order).await.ok(201)["cost"]);
    let from = disk.operations();
    disk.cut_at(from + at, at * 31 + 7);
    cheap.stop_sessions();
    let path = format!("/api/sessions/{old}");
    loop {
        // The gateway may die at any moment of this.
        if disk.is_off() {
            world.failed().await;
            break;
        }
        let done = client.try_get(&path).await.is_some_and(|answer| answer.status == 200 && answer.json()["handover"]["status"] == "done");
        if done {
            world.stop_gateway().await;
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let length = disk.operations() - from;
    let disk = FaultyDisk::holding(disk.left(at * 31 + 7));
    world.start_gateway_over(&disk).await;
    let client = world.client();
    let lost = handed_over(&client, &old).await;
    assert_eq!(lost["handover"]["status"], "done", "{what}: {lost}");
    let new = text(&lost, "replacedBy");
    let all = client.get("/api/sessions?limit=1000").await.ok(200);
    let heirs: BTreeSet<String> = all["sessions"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|session| session["replaces"] == old.as_str() && session["endReason"] != "not_opened")
        .map(|session| text(session, "id"))
        .collect();
    assert_eq!(heirs, BTreeSet::from([new.clone()]), "{what}: one successor");
    let ended = client.post(&format!("/api/sessions/{new}/end"), &format!("end-{number}"), &json!({})).await.ok(200);
    assert_eq!(micros(&ended["budgetAllowance"]) + cost, 120_000, "{what}: {ended}");
    let total = promised(cheap) + promised(dear);
    assert!(total <= 120_000 && total == cost + micros(&ended["budgetConsumed"]), "{what}: {total} was promised");
    world.stop_gateway().await;
    (disk.left(at), length)
}

#[tokio::test(flavor = "multi_thread")]
async fn whenever_the_power_fails_a_session_has_one_successor_and_both_stay_within_the_budget() {
    let mut world = World::new().await;
    let shops = shops(&world).await;
    world.stop_gateway().await;
    let is_all = std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all");
    // The first is let through, to see how long it is.
    let (mut image, length) = crash(&mut world, &shops, Vec::new(), (0, 1_000_000)).await;
    let step = if is_all { 1 } else { (length / 9).max(1) };
    for (number, at) in (1_usize..).zip((0..length).filter(|at| at.is_multiple_of(step))) {
        image = crash(&mut world, &shops, image, (number, at)).await.0;
    }
    let [cheap, dear] = shops;
    cheap.close().await;
    dear.close().await;
    world.start_gateway().await;
    world.close().await;
}
