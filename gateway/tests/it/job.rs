//! The main job, from the catalogue to the end of the session.

use orien_protocol::hash::Hash;
use serde_json::{Value, json};

use crate::shop::ShopPlan;
use crate::world::{World, text};

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_opened_used_and_ended_and_its_charge_is_shared_90_7_3() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();

    let providers = client.get("/api/providers?tool=echo&maxPricePerMinute=0.6").await.ok(200);
    assert_eq!(providers["providers"][0]["id"], shop.id().to_string());
    assert_eq!(client.get("/api/providers?capability=other").await.ok(200)["providers"], json!([]));
    assert_eq!(client.get("/api/providers/shop").await.ok(200)["pricePerMinute"], json!(0.6));

    let order = json!({ "providerId": "auto", "tools": ["echo"], "budgetAllowance": 0.5, "mission": "try it" });
    let session = client.post("/api/sessions", "open", &order).await.ok(201);
    let id = text(&session, "id");
    assert_eq!(session["status"], "active");
    assert!(text(&session, "whyProvider").contains("the only provider that offers echo: 0.6 USDC per minute"), "{session}");
    assert_eq!(client.get("/health").await.ok(200)["activeSession"], id);
    assert_eq!(client.get("/api/balance").await.ok(200)["reserved"], json!(0.5));
    assert_eq!(
        client.get(&format!("/tools?sessionId={id}")).await.ok(200)["tools"][0]["resourceLimits"],
        json!({ "cpu": "2", "memory": "4GB" })
    );

    let execution = world.run("run", &id, "echo", json!({ "text": "world" })).await;
    let log = client.get(&format!("/logs/{execution}")).await;
    let lines: Vec<String> =
        log.text().lines().filter(|line| line.starts_with("data: ") && line.contains("\"line\"")).map(str::to_owned).collect();
    assert!(lines[0].contains("\"line\":\"hello\"") && lines[1].contains("\"line\":\"world\""), "{}", log.text());
    assert!(log.text().contains("event: end\ndata: "), "{}", log.text());
    let run = world.over(&execution).await;
    assert_eq!((&run["status"], &run["exitCode"], &run["output"]), (&json!("completed"), &json!(0), &json!("hello\nworld\n")));
    assert_eq!(run["args"], json!({ "text": "world" }));
    assert_eq!((&run["effectiveDurationSeconds"], &run["cost"]), (&json!(0.005), &json!(0.01005)));
    assert_eq!(run["usage"]["outputVerified"], true);

    let receipts = client.get(&format!("/api/sessions/{id}/receipts")).await.ok(200);
    let receipts = receipts["receipts"].as_array().unwrap();
    assert_eq!(receipts.len(), 2);
    assert!(receipts.iter().all(|r| r["providerSignatureValid"] == true && r["voucherSignatureValid"] == true), "{receipts:?}");
    assert_eq!(receipts[1]["previous"], receipts[0]["hash"]);

    let ended = client.post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
    assert_eq!((&ended["status"], &ended["endReason"], &ended["budgetConsumed"]), (&json!("completed"), &json!("ended"), &json!(0.01005)));
    let settlement = id.replace("session_", "settlement_");
    let expected = json!({ "id": settlement, "sessionId": id, "totalCost": 0.01005, "providerPayout": 0.009_045, "platformFee": 0.000_703, "reserve": 0.000_302, "settledAt": null, "txHash": null });
    assert_eq!(ended["settlement"], expected);
    assert_eq!(ended["executions"][0]["id"], execution);

    assert_eq!(client.get("/api/sessions?status=completed").await.ok(200)["sessions"][0]["id"], id);
    assert_eq!(client.get("/api/sessions?status=active").await.ok(200)["sessions"], json!([]));
    assert_eq!(client.get(&format!("/api/sessions/{id}/files")).await.problem(410, "session_ended")["status"], 410);
    client
        .post("/tools/run", "late", &json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" } }))
        .await
        .problem(410, "session_ended");
    let kept = client.get(&format!("/logs/{execution}")).await.text();
    assert!(kept.contains("\"line\":\"world\"") && kept.contains("event: end"), "{kept}");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn files_go_in_and_out_with_a_hash_and_other_bytes_are_noticed() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    let path = |name: &str| format!("/api/sessions/{id}/files/{name}");
    let large: Vec<u8> = (0..3_000_000_u32).flat_map(|n| n.to_le_bytes()).take(5_000_000).collect();

    let stored = client.send("PUT", &path("src/a%20b.c"), "x-executable: true\r\n", b"int main;").await.ok(201);
    assert_eq!(stored, json!({ "path": "src/a b.c", "size": 9, "hash": format!("blake3:{}", Hash::of(b"int main;")) }));
    assert_eq!(shop.see(|seen| seen.files["src/a b.c"].clone()), (b"int main;".to_vec(), true));
    client.send("PUT", &path("large"), "", &large).await.ok(201);

    let small = client.get(&path("src/a%20b.c")).await;
    assert_eq!((small.status, small.body.as_slice()), (200, b"int main;".as_slice()));
    assert_eq!(small.header("x-content-hash"), Some(format!("blake3:{}", Hash::of(b"int main;")).as_str()));
    let plain = client.get(&path("large")).await;
    assert!(plain.body == large && plain.header("content-length") == Some("5000000"));
    let trailed = client.send("GET", &path("large"), "te: trailers\r\n", b"").await;
    assert_eq!(trailed.body[..large.len()], large[..]);
    let trailer = String::from_utf8_lossy(&trailed.body[large.len()..]).into_owned();
    assert!(trailer.contains(&format!("x-content-hash: blake3:{}", Hash::of(&large))), "{trailer}");

    let listing = client.get(&format!("/api/sessions/{id}/files")).await.ok(200);
    assert_eq!(listing["files"][1]["path"], "src/a b.c");
    assert_eq!(client.send("DELETE", &path("src/a%20b.c"), "", b"").await.status, 204);
    client.get(&path("src/a%20b.c")).await.problem(404, "no_such_file");

    client.send("PUT", &path("wrong.bin"), "", b"abc").await.problem(502, "hash_mismatch");
    client.get(&path("wrong.bin")).await.problem(502, "hash_mismatch");
    shop.see(|seen| seen.files.insert("wrong-large".to_owned(), (large.clone(), false)));
    let broken = client.get(&path("wrong-large")).await;
    assert!(broken.body.len() < large.len(), "the last piece of wrong bytes was handed out");
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn auto_goes_on_to_the_next_provider_when_the_best_one_is_busy() {
    let world = World::new().await;
    let cheap = ShopPlan {
        label: "cheap",
        per_minute: orien_protocol::money::Usdc::from_micros(1),
        refuse: Some(orien_protocol::fault::FaultCode::BUSY),
        ..ShopPlan::default()
    };
    let busy = world.shop("busy", cheap).await;
    let dear = world.shop("dear", ShopPlan { label: "dear", ..ShopPlan::default() }).await;
    let order = json!({ "providerId": "auto", "capability": "pretend", "budgetAllowance": "0.5" });
    let session = world.client().post("/api/sessions", "open", &order).await.ok(201);
    assert_eq!(session["providerId"], dear.id().to_string());
    assert!(text(&session, "whyProvider").starts_with("number 2 of 2"), "{session}");
    let order = json!({ "providerId": "cheap", "budgetAllowance": "0.5" });
    let refused = world.client().post("/api/sessions", "named", &order).await;
    refused.problem(503, "busy");
    assert!(refused.header("retry-after").is_some());
    busy.close().await;
    dear.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn answers_have_the_names_that_the_owner_gave_them() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let has = |value: &Value, names: &[&str]| names.iter().for_each(|name| assert!(value.get(name).is_some(), "no {name} in {value}"));
    let provider = client.get(&format!("/api/providers/{}", shop.id())).await.ok(200);
    has(&provider, &["id", "name", "description", "pricePerMinute", "tools", "uptime", "totalSessions", "reputation", "payoutAddress"]);
    has(&provider["reputation"], &["completedSessions", "disputes", "avgResponseTime"]);
    has(&provider["tools"][0], &["id", "name", "description", "command", "args", "maxDurationSeconds", "resourceLimits"]);
    let id = world.open("open", &shop, "0.5").await;
    let started = client.post("/tools/run", "run", &json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" } })).await.ok(201);
    has(&started, &["executionId", "status", "startedAt"]);
    let execution = world.over(&text(&started, "executionId")).await;
    has(
        &execution,
        &[
            "id",
            "executionId",
            "sessionId",
            "toolId",
            "args",
            "status",
            "startedAt",
            "completedAt",
            "effectiveDurationSeconds",
            "output",
            "exitCode",
            "cost",
        ],
    );
    let session = client.get(&format!("/api/sessions/{id}")).await.ok(200);
    has(
        &session,
        &[
            "id",
            "agentId",
            "providerId",
            "budgetAllowance",
            "budgetConsumed",
            "status",
            "startedAt",
            "effectiveExecutionSeconds",
            "executions",
        ],
    );
    assert_eq!(session["executions"][0], execution);
    let ended = client.post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
    has(&ended, &["endedAt"]);
    has(&ended["settlement"], &["sessionId", "totalCost", "providerPayout", "platformFee", "reserve", "settledAt", "txHash"]);
    has(&client.get("/health").await.ok(200), &["status", "uptime", "activeSession"]);
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_go_on_after_the_last_event_that_a_reader_has() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;
    let execution = world.run("run", &id, "echo", json!({ "text": "world" })).await;
    world.over(&execution).await;
    let path = format!("/logs/{execution}");
    let rest = client.send("GET", &path, "last-event-id: 1\r\n", b"").await.text();
    assert!(!rest.contains("hello") && rest.contains("id: 2\nevent: stdout\n"), "{rest}");
    assert_eq!(client.send("GET", &path, "last-event-id: 2\r\n", b"").await.status, 204);
    let lines = client.send("GET", &path, "accept: application/x-ndjson\r\n", b"").await.text();
    let last: Value = serde_json::from_str(lines.lines().rfind(|line| !line.is_empty()).unwrap()).unwrap();
    assert_eq!((&last["event"], &last["data"]["status"], &last["data"]["exitCode"]), (&json!("end"), &json!("completed"), &json!(0)));

    client.post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
    let events = client.get(&format!("/api/sessions/{id}/events")).await.text();
    assert!(events.contains("event: end") && events.contains("\"reason\":\"ended\""), "{events}");
    shop.close().await;
    world.close().await;
}
