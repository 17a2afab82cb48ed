//! What tokens may commit, and whose sessions they may use.

use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::{Shop, ShopPlan};
use crate::world::{World, text};

/// A caller with a token of these scopes.
async fn caller(world: &World, scopes: &[&str], cap: Option<&str>) -> Client {
    let mut body = json!({ "name": "a test", "scopes": scopes });
    if let Some(cap) = cap {
        body["cap"] = json!(cap);
    }
    let made = world.client().post("/api/tokens", "none", &body).await.ok(201);
    Client { token: text(&made, "token"), ..world.client() }
}

fn order(shop: &Shop, budget: &str) -> Value {
    json!({ "providerId": shop.id().to_string(), "budgetAllowance": budget })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_commits_no_more_than_its_cap_also_after_a_restart_and_gets_back_what_was_not_used() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let agent = caller(&world, &["spend"], Some("2.5")).await;
    let first = text(&agent.post("/api/sessions", "one", &order(&shop, "1")).await.ok(201), "id");
    agent.post("/api/sessions", "two", &order(&shop, "1")).await.ok(201);
    assert_eq!(agent.post("/api/sessions", "three", &order(&shop, "1")).await.problem(402, "spend_cap_reached")["missing"], "0.5");
    let quoted = |budget: &'static str| {
        let (mut order, agent) = (order(&shop, budget), agent.clone());
        order["dryRun"] = json!(true);
        async move { agent.post("/api/sessions", "quote", &order).await.ok(200)["quote"]["spendCap"].clone() }
    };
    assert_eq!(quoted("1").await, json!({ "coversBudget": false, "cap": 2.5, "committed": 2, "missing": 0.5 }));
    assert_eq!(quoted("0.5").await, json!({ "coversBudget": true, "cap": 2.5, "committed": 2, "missing": null }));
    let raise = |budget: &'static str| json!({ "budgetAllowance": budget });
    let top_up = format!("/api/sessions/{first}/topup");
    assert_eq!(agent.post(&top_up, "more", &raise("1.75")).await.problem(402, "spend_cap_reached")["missing"], "0.25");
    agent.post(&top_up, "some", &raise("1.5")).await.ok(200);
    assert_eq!(agent.post("/api/sessions", "four", &order(&shop, "0.1")).await.problem(402, "spend_cap_reached")["missing"], "0.1");

    world.stop_gateway().await;
    world.start_gateway().await;
    let agent = Client { token: agent.token, ..world.client() };
    assert_eq!(agent.post("/api/sessions", "five", &order(&shop, "0.1")).await.problem(402, "spend_cap_reached")["missing"], "0.1");
    assert_eq!(text(&agent.post("/api/sessions", "one", &order(&shop, "1")).await.ok(201), "id"), first, "a repetition costs nothing");
    agent.post(&format!("/api/sessions/{first}/end"), "end", &json!({})).await.ok(200);
    // The minimum charge of 0.01 is gone.
    assert_eq!(agent.post("/api/sessions", "six", &order(&shop, "1.5")).await.problem(402, "spend_cap_reached")["missing"], "0.01");
    agent.post("/api/sessions", "seven", &order(&shop, "1.49")).await.ok(201);
    world.client().post("/api/sessions", "owner", &order(&shop, "5")).await.ok(201);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn openings_at_the_same_time_cannot_both_have_the_last_of_a_cap() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let agent = caller(&world, &["spend"], Some("2")).await;
    let keys: Vec<String> = (0..6).map(|number| format!("key-{number}")).collect();
    let body = order(&shop, "1");
    let answers = futures::future::join_all(keys.iter().map(|key| agent.post("/api/sessions", key, &body))).await;
    let opened = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!(opened, 2, "{:?}", answers.iter().map(crate::client::Answer::text).collect::<Vec<_>>());
    for refused in answers.iter().filter(|answer| answer.status != 201) {
        assert_eq!(refused.problem(402, "spend_cap_reached")["missing"], "1");
    }
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_spender_uses_only_what_it_opened_and_a_runner_ends_nothing() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let owner = world.client();
    let (spender, runner) = (caller(&world, &["spend"], Some("2")).await, caller(&world, &["run"], None).await);
    let reader = caller(&world, &["read"], None).await;
    let theirs = text(&owner.post("/api/sessions", "same", &order(&shop, "1")).await.ok(201), "id");
    let own = text(&spender.post("/api/sessions", "same", &order(&shop, "1")).await.ok(201), "id");
    assert_ne!(own, theirs, "the same key of another caller is another key");
    let run = |session: &str| json!({ "sessionId": session, "toolId": "echo", "args": { "text": "x" } });

    spender.post("/tools/run", "a", &run(&theirs)).await.problem(403, "not_your_session");
    let execution = text(&spender.post("/tools/run", "b", &run(&own)).await.ok(201), "executionId");
    spender.post("/tools/run", "c", &run("ses_nothing")).await.problem(404, "session_not_found");
    let others = text(&owner.post("/tools/run", "d", &run(&theirs)).await.ok(201), "executionId");
    spender.send("POST", &format!("/executions/{others}/cancel"), "", b"").await.problem(403, "not_your_session");
    runner.post("/tools/run", "e", &run(&theirs)).await.ok(201);
    runner.send("POST", &format!("/executions/{execution}/cancel"), "", b"").await.ok(202);

    let file = |session: &str| format!("/api/sessions/{session}/files/a");
    spender.send("PUT", &file(&theirs), "", b"x").await.problem(403, "not_your_session");
    spender.send("DELETE", &file(&theirs), "", b"").await.problem(403, "not_your_session");
    spender
        .post(&format!("/api/sessions/{theirs}/topup"), "f", &json!({ "budgetAllowance": "1.5" }))
        .await
        .problem(403, "not_your_session");
    spender.post(&format!("/api/sessions/{theirs}/end"), "g", &json!({})).await.problem(403, "not_your_session");
    runner.post(&format!("/api/sessions/{own}/end"), "h", &json!({})).await.problem(403, "insufficient_scope");
    for (method, path) in [("POST", "/api/sessions"), ("POST", "/tools/run"), ("PUT", file(&own).as_str())] {
        reader
            .send(method, path, "idempotency-key: i\r\ncontent-type: application/json\r\n", b"{}")
            .await
            .problem(403, "insufficient_scope");
    }
    for caller in [&reader, &runner, &spender] {
        assert_eq!(caller.get("/api/sessions").await.ok(200)["sessions"].as_array().unwrap().len(), 2, "everybody sees everything");
    }
    spender.post(&format!("/api/sessions/{own}/end"), "j", &json!({})).await.ok(200);
    shop.close().await;
    world.close().await;
}
