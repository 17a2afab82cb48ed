//! The gateway stops and starts again.

use std::sync::atomic::Ordering;

use serde_json::json;

use crate::shop::ShopPlan;
use crate::world::{World, text, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_gateway_goes_on_with_its_sessions_and_remembers_its_answers() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let id = world.open("open", &shop, "0.5").await;
    let done = world.run("echo", &id, "echo", json!({ "text": "before" })).await;
    world.over(&done).await;
    let sleeping = world.run("sleep", &id, "sleep", json!({})).await;
    let path = format!("/executions/{sleeping}");
    until("the start of the tool", || async { (world.client().get(&path).await.ok(200)["status"] == "running").then_some(()) }).await;

    world.stop_gateway().await;
    world.start_gateway().await;
    let client = world.client();
    assert_eq!(world.open("open", &shop, "0.5").await, id);
    assert_eq!(world.run("sleep", &id, "sleep", json!({})).await, sleeping);
    assert_eq!(client.get(&format!("/executions/{done}")).await.ok(200)["output"], "hello\nbefore\n");
    let session = format!("/api/sessions/{id}");
    until("the session resumed", || async { (client.get(&session).await.ok(200)["connected"] == true).then_some(()) }).await;
    assert_eq!(client.send("POST", &format!("{path}/cancel"), "", b"").await.status, 202);
    let run = world.over(&sleeping).await;
    assert_eq!((&run["status"], &run["endReason"], &run["endParty"]), (&json!("failed"), &json!("cancelled"), &json!("agent")));
    assert_eq!(run["output"], "zzz\n");
    assert_eq!(
        shop.see(|seen| seen
            .jobs
            .iter()
            .filter(|job| job.tool == "sleep")
            .map(|job| job.execution.to_string())
            .collect::<std::collections::BTreeSet<_>>()
            .len()),
        1
    );
    let ended = client.post(&format!("{session}/end"), "end", &json!({})).await.ok(200);
    assert_eq!((&ended["status"], &ended["executionsTotal"]), (&json!("completed"), &json!(2)));
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_opening_that_a_stop_interrupted_is_given_up_and_its_request_opens_one_session_when_repeated() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    world.silent.store(true, Ordering::SeqCst);
    let body = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "0.5" });
    let waiting = {
        let (client, body) = (world.client(), body.clone());
        tokio::spawn(async move { client.post("/api/sessions", "open", &body).await.status })
    };
    let client = world.client();
    let first =
        until("the proposal", || async { client.get("/api/sessions").await.ok(200)["sessions"].get(0).map(|session| text(session, "id")) })
            .await;
    assert_eq!(client.post("/api/sessions", "open", &body).await.problem(409, "in_progress")["retryAfterSeconds"], 1);
    world.stop_gateway().await;
    assert_eq!(waiting.await.unwrap(), 503, "whoever waited was told");
    assert!(shop.see(|seen| seen.vouchers.is_empty()), "nothing was promised");

    world.silent.store(false, Ordering::SeqCst);
    world.start_gateway().await;
    let client = world.client();
    // At once, while the first attempt may still be on its way out.
    let second = text(&client.post("/api/sessions", "open", &body).await.ok(201), "id");
    let given_up = client.get(&format!("/api/sessions/{first}")).await.ok(200);
    assert_eq!((&given_up["status"], &given_up["endReason"]), (&json!("failed"), &json!("not_opened")));
    assert_ne!(second, first);
    assert_eq!(text(&client.post("/api/sessions", "open", &body).await.ok(201), "id"), second);
    assert_eq!(client.get("/api/sessions?status=active").await.ok(200)["sessions"].as_array().unwrap().len(), 1);
    assert_eq!(shop.see(|seen| seen.vouchers.len()), 1);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_reserved_for_a_session_that_did_not_open_is_given_back_also_after_a_restart() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan { hangs_up: true, ..ShopPlan::default() }).await;
    let body = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "0.5" });
    assert!(world.client().post("/api/sessions", "open", &body).await.status >= 400);
    let failed = world.client().get("/api/sessions?status=failed").await.ok(200);
    assert_eq!(failed["sessions"].as_array().unwrap().len(), 1, "it is over for everybody else");
    until("the provider was asked", || async { shop.see(|seen| seen.asked_to_let_go > 0).then_some(()) }).await;
    assert_eq!(world.reserved(), 1);

    world.stop_gateway().await;
    shop.see(|seen| (seen.lets_go, seen.asked_to_let_go) = (true, 0));
    world.start_gateway().await;
    until("the reservation was given back", || async { (world.reserved() == 0).then_some(()) }).await;
    assert_eq!(world.client().get("/api/sessions?status=failed").await.ok(200), failed, "nothing else has changed");

    // What is done is not done again.
    world.stop_gateway().await;
    let asked = shop.see(|seen| seen.asked_to_let_go);
    world.start_gateway().await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(shop.see(|seen| seen.asked_to_let_go), asked);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn output_that_had_not_arrived_when_the_gateway_stopped_arrives_after_its_start() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let id = world.open("open", &shop, "0.5").await;
    shop.see(|seen| seen.holds_logs = true);
    let run = world.run("echo", &id, "echo", json!({ "text": "late" })).await;
    let before = world.over(&run).await;
    assert_eq!((&before["status"], &before["output"]), (&json!("completed"), &json!("")));
    world.stop_gateway().await;
    world.start_gateway().await;
    // A reader who has the first line waits for the second instead of being told that there is none.
    let reader = tokio::spawn({
        let (client, path) = (world.client(), format!("/logs/{run}"));
        async move { client.send("GET", &path, "last-event-id: 1\r\n", b"").await }
    });
    shop.see(|seen| seen.holds_logs = false);
    let read = reader.await.unwrap();
    assert!(read.status == 200 && read.text().contains("\"line\":\"late\"") && read.text().contains("event: end"), "{}", read.text());
    assert!(!read.text().contains("hello"), "{}", read.text());
    let after = world.over(&run).await;
    assert_eq!((&after["output"], &after["usage"]["outputVerified"]), (&json!("hello\nlate\n"), &json!(true)));
    shop.close().await;
    world.close().await;
}
