//! How a session is wanted: quoted before, labelled, extended, and ended by the gateway when its time is over or nobody does anything in it.

use std::sync::atomic::Ordering;

use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::ShopPlan;
use crate::world::{World, text, until};

async fn open(client: &Client, key: &str, extra: Value) -> Value {
    let mut body = json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["echo"] });
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    client.post("/api/sessions", key, &body).await.ok(201)
}

async fn over(client: &Client, id: &str) -> Value {
    let path = format!("/api/sessions/{id}");
    until("the end of a session", || async {
        let session = client.get(&path).await.ok(200);
        (session["phase"] == "closed").then_some(session)
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dry_run_quotes_the_price_and_the_provider_and_changes_nothing() {
    let world = World::new().await;
    let client = world.client();
    let dear = ShopPlan { label: "dear", per_minute: orien_protocol::money::Usdc::from_micros(900_000), ..ShopPlan::default() };
    let (shop, dear) = (world.shop("shop", ShopPlan::default()).await, world.shop("dear", dear).await);
    let order = |budget: &str| json!({ "providerId": "auto", "budgetAllowance": budget, "tools": ["echo"], "dryRun": true });
    let json_type = "content-type: application/json\r\n";
    let body = order("0.51").to_string();
    let answer = client.send("POST", "/api/sessions", json_type, body.as_bytes()).await.ok(200);
    assert_eq!(answer["dryRun"], true);
    let quote = &answer["quote"];
    assert_eq!((&quote["providerId"], &quote["minimumCharge"]), (&json!(shop.id().to_string()), &json!(0.01)));
    let tool = &quote["tools"][0];
    // 0.01 of 0.51 is the call's fee; a minute costs 0.6.
    assert_eq!((&tool["toolId"], &tool["callFee"], &tool["budgetBuysSeconds"]), (&json!("echo"), &json!(0.01), &json!(50)));
    assert_eq!(quote["funds"], json!({ "coversBudget": "yes", "available": 10, "missing": null }));
    assert_eq!((&quote["alternatives"][0]["providerLabel"], &quote["rejected"]), (&json!("dear"), &json!([])));
    assert!(text(&quote["alternatives"][0], "why").starts_with("number 2 of 2"), "{quote}");
    let rich = client.post("/api/sessions", "rich", &order("10.25")).await.ok(200);
    assert_eq!(rich["quote"]["funds"], json!({ "coversBudget": "no", "available": 10, "missing": 0.25 }));

    client.post("/api/sessions", "poor", &order("0.009")).await.problem(402, "budget_exhausted");
    let mut none = order("0.5");
    none["tools"] = json!(["other"]);
    client.post("/api/sessions", "none", &none).await.problem(404, "no_provider");
    world.silent.store(true, Ordering::SeqCst);
    assert_eq!(client.post("/api/sessions", "rich", &order("1")).await.ok(200)["quote"]["funds"]["coversBudget"], "unknown");
    world.silent.store(false, Ordering::SeqCst);
    assert_eq!((world.reserved(), client.get("/api/sessions").await.ok(200)["sessions"].clone()), (0, json!([])));
    // Nor is the key used up.
    let real = json!({ "providerId": "auto", "budgetAllowance": "0.5", "tools": ["echo"] });
    client.post("/api/sessions", "rich", &real).await.ok(201);
    client.send("POST", "/api/sessions", json_type, real.to_string().as_bytes()).await.problem(400, "idempotency_key_required");
    shop.close().await;
    dear.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_found_by_their_labels_also_after_a_restart() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let first = open(&client, "a", json!({ "labels": { "project": "alpha:1", "team/x": "" } })).await;
    assert_eq!(first["labels"], json!({ "project": "alpha:1", "team/x": "" }));
    open(&client, "b", json!({ "labels": { "project": "beta" } })).await;
    open(&client, "c", json!({})).await;
    client.post(&format!("/api/sessions/{}/end", text(&first, "id")), "end", &json!({})).await.ok(200);
    world.stop_gateway().await;
    world.start_gateway().await;
    let client = world.client();
    let found = client.get("/api/sessions?label=project:alpha:1").await.ok(200);
    assert_eq!(found["sessions"].as_array().unwrap().iter().map(|found| &found["id"]).collect::<Vec<_>>(), [&first["id"]]);
    assert_eq!(client.get("/api/sessions?label=project:alpha").await.ok(200)["sessions"], json!([]));
    client.get("/api/sessions?label=project").await.problem(400, "invalid_query");
    let many: serde_json::Map<String, Value> = (0..17).map(|n| (format!("l{n}"), json!("x"))).collect();
    for labels in [json!({ "": "x" }), json!({ "a b": "x" }), json!({ "a": "x\n" }), json!({ "a": "x".repeat(257) }), Value::from(many)] {
        let body = json!({ "providerId": "auto", "budgetAllowance": "0.5", "labels": labels });
        client.post("/api/sessions", "bad", &body).await.problem(422, "invalid_body");
    }
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_gateway_ends_what_is_over_in_time_or_idle_and_nothing_else() {
    let mut world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = |session: &Value| text(session, "id");
    let idle = id(&open(&client, "idle", json!({ "idleTimeoutSeconds": 10 })).await);
    let busy = id(&open(&client, "busy", json!({ "idleTimeoutSeconds": 10 })).await);
    let short = id(&open(&client, "short", json!({ "expirySeconds": 10 })).await);
    let extended = open(&client, "extended", json!({ "expirySeconds": 10 })).await;
    world.run("busy-run", &busy, "sleep", json!({})).await;
    let killed = world.run("short-run", &short, "sleep", json!({})).await;

    let path = format!("/api/sessions/{}/extend", id(&extended));
    let longer = client.post(&path, "longer", &json!({ "expirySeconds": 600 })).await.ok(200);
    assert!(text(&longer, "expiresAt") > text(&extended, "expiresAt"), "{longer}");
    assert_eq!(longer["extendableUntil"], extended["extendableUntil"]);
    let again = client.post(&path, "longer", &json!({ "expirySeconds": 600 })).await;
    assert_eq!((again.header("idempotency-replayed"), again.ok(200)), (Some("true"), longer.clone()));
    let shorter = client.post(&path, "shorter", &json!({ "expirySeconds": 60 })).await.ok(200);
    assert_eq!(shorter["expiresAt"], longer["expiresAt"], "it never ends earlier");
    client.post(&path, "odd", &json!({ "expirySeconds": 9 })).await.problem(422, "invalid_body");
    // 8 h from now are a moment more than 8 h from the opening: the session lasts as long as it can.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let longest = client.post(&path, "longest", &json!({ "expirySeconds": 8 * 3600 })).await.ok(200);
    assert_eq!(longest["expiresAt"], longer["extendableUntil"], "{longest}");
    client.post(&path, "beyond", &json!({ "expirySeconds": 8 * 3600 + 1 })).await.problem(422, "invalid_body");
    world.stop_gateway().await;
    world.start_gateway().await;
    let client = world.client();

    let ended = over(&client, &short).await;
    assert_eq!((&ended["status"], &ended["endReason"]), (&json!("expired"), &json!("expired")));
    let run = client.get(&format!("/executions/{killed}")).await.ok(200);
    assert_eq!((&run["status"], &run["endReason"]), (&json!("failed"), &json!("session_ended")));
    let ended = over(&client, &idle).await;
    assert_eq!((&ended["status"], &ended["endReason"]), (&json!("expired"), &json!("idle")));
    client.post(&format!("/api/sessions/{idle}/extend"), "late", &json!({ "expirySeconds": 60 })).await.problem(410, "session_ended");
    for other in [&busy, &id(&extended)] {
        let session = client.get(&format!("/api/sessions/{other}")).await.ok(200);
        assert_eq!((&session["status"], &session["phase"]), (&json!("active"), &json!("open")), "{session}");
    }
    let kept = client.get(&format!("/api/sessions/{}", id(&extended))).await.ok(200);
    assert_eq!(kept["expiresAt"], longest["expiresAt"]);
    shop.close().await;
    world.close().await;
}
