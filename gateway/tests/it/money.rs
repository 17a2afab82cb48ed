//! Budgets, disputes, and requests that are repeated.

use orien_protocol::money::Usdc;
use serde_json::json;

use crate::shop::ShopPlan;
use crate::world::{World, until};

#[tokio::test(flavor = "multi_thread")]
async fn a_run_beyond_the_budget_is_refused_with_the_missing_amount_before_anything_is_sent() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.04").await;
    let body = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" } });
    // A call fee of 0.01 and one interval of 0.05.
    assert_eq!(client.post("/tools/run", "poor", &body).await.problem(402, "budget_exhausted")["missing"], "0.02");
    assert!(shop.see(|seen| seen.jobs.is_empty()));
    let raised = client.post(&format!("/api/sessions/{id}/topup"), "more", &json!({ "budgetAllowance": 0.5 })).await.ok(200);
    assert_eq!(raised["budgetAllowance"], json!(0.5));
    client.post(&format!("/api/sessions/{id}/topup"), "less", &json!({ "budgetAllowance": 0.1 })).await.problem(409, "conflict");
    assert!(client.post("/tools/run", "poor", &body).await.header("idempotency-replayed").is_some(), "the same key gets the same answer");
    let execution = world.run("rich", &id, "echo", json!({ "text": "x" })).await;
    assert_eq!(world.over(&execution).await["status"], "completed");
    let capped = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" }, "maxCost": "0.005" });
    assert_eq!(client.post("/tools/run", "capped", &capped).await.problem(402, "budget_exhausted")["missing"], "0.005");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_that_the_account_cannot_reserve_is_refused_by_settlement() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let body = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "10.25" });
    let refused = world.client().post("/api/sessions", "open", &body).await;
    assert_eq!(refused.problem(402, "insufficient_funds")["missing"], "0.25");
    let tiny = json!({ "providerId": shop.id().to_string(), "budgetAllowance": "0.009" });
    assert_eq!(world.client().post("/api/sessions", "tiny", &tiny).await.problem(402, "budget_exhausted")["missing"], "0.001");
    let failed = world.client().get("/api/sessions?status=failed").await.ok(200);
    assert_eq!(failed["sessions"][0]["fault"]["code"], "insufficient_funds");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_for_time_that_never_passed_is_disputed_and_nothing_more_is_signed() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "5").await;
    world.run("run", &id, "liar", json!({})).await;
    let path = format!("/api/sessions/{id}");
    let session = until("the dispute", || async {
        let session = client.get(&path).await.ok(200);
        (session["fault"]["code"] == "bad_receipt").then_some(session)
    })
    .await;
    assert_eq!(session["budgetConsumed"], json!(0.01), "only the minimum charge stands");
    let receipts = client.get(&format!("{path}/receipts")).await.ok(200);
    assert_eq!(receipts["receipts"].as_array().unwrap().len(), 1);
    assert_eq!(receipts["disputed"][0]["providerSignatureValid"], true, "kept as evidence");
    assert!(shop.see(|seen| seen.vouchers.iter().all(|v| v.receipt == 1 && v.total == Usdc::from_micros(10_000))));
    let refused = client.post("/tools/run", "more", &json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" } })).await;
    assert!([409, 410].contains(&refused.status), "{}", refused.text());
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_repeated_request_runs_once_and_an_end_is_answered_again() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    assert_eq!(world.open("open", &shop, "0.5").await, id);
    let first = world.run("run", &id, "echo", json!({ "text": "x" })).await;
    assert_eq!(world.run("run", &id, "echo", json!({ "text": "x" })).await, first);
    let other = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "y" } });
    client.post("/tools/run", "run", &other).await.problem(422, "idempotency_mismatch");
    world.over(&first).await;
    assert_eq!(shop.see(|seen| seen.jobs.len()), 1);
    let end = format!("/api/sessions/{id}/end");
    let ended = client.post(&end, "end", &json!({})).await;
    let again = client.post(&end, "end", &json!({})).await;
    assert_eq!((ended.ok(200), again.header("idempotency-replayed")), (again.ok(200), Some("true")));
    assert_eq!(client.post(&end, "another", &json!({})).await.ok(200)["status"], "completed");
    shop.close().await;
    world.close().await;
}
