//! Bad input at the gateway's door: each gives its own clear answer.

use serde_json::json;

use crate::shop::ShopPlan;
use crate::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn bad_requests_get_their_own_answers_and_the_gateway_stays_healthy() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let id = world.open("open", &shop, "0.5").await;

    let json_type = "content-type: application/json\r\n";
    let body = json!({ "sessionId": id, "toolId": "echo", "args": { "text": "x" } }).to_string();
    let keyless = client.send("POST", "/tools/run", json_type, body.as_bytes()).await;
    assert!(keyless.problem(400, "idempotency_key_required")["detail"].as_str().unwrap().contains("Idempotency-Key: "));
    let keyed = format!("{json_type}idempotency-key: k\r\n");
    client.send("POST", "/tools/run", &keyed, b"{\"sessionId\":").await.problem(400, "malformed_json");
    client.send("POST", "/tools/run", &keyed, b"{\"sessionId\":1}").await.problem(422, "invalid_body");
    let list = b"[\"auto\",0.5,null,null,[],null,null,null]";
    client.send("POST", "/api/sessions", &keyed, list).await.problem(422, "invalid_body");
    let unknown = client.post("/tools/run", "k1", &json!({ "sessionId": id, "toolId": "rm", "args": {} })).await;
    assert!(unknown.problem(422, "unknown_tool")["detail"].as_str().unwrap().contains("echo, sleep, liar"));
    let extra = client.post("/tools/run", "k2", &json!({ "sessionId": id, "toolId": "echo", "args": { "txet": "x" } })).await;
    assert_eq!(extra.problem(422, "bad_arguments")["problems"].as_array().unwrap().len(), 2);
    client.post("/tools/run", "k3", &json!({ "sessionId": "session_x", "toolId": "echo" })).await.problem(404, "session_not_found");
    client.get("/executions/exec_1").await.problem(404, "execution_not_found");
    client.get("/logs/nonsense").await.problem(404, "execution_not_found");

    for budget in [json!(-1), json!("1e3"), json!("0.0000001"), json!(null)] {
        client.post("/api/sessions", "k4", &json!({ "providerId": "auto", "budgetAllowance": budget })).await.problem(422, "invalid_body");
    }
    let open = |extra: serde_json::Value| {
        let mut body = json!({ "providerId": "auto", "budgetAllowance": 0.5 });
        body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        body
    };
    client.post("/api/sessions", "k5", &open(json!({ "providerId": "nobody" }))).await.problem(404, "provider_not_found");
    let none = client.post("/api/sessions", "k6", &open(json!({ "tools": ["other"] }))).await.problem(404, "no_provider");
    assert!(none["problems"][0]["problem"].as_str().unwrap().contains("does not offer other"));
    client.post("/api/sessions", "k7", &open(json!({ "expirySeconds": 9 }))).await.problem(422, "invalid_body");
    client.post("/api/sessions", "k8", &open(json!({ "surprise": 1 }))).await.problem(422, "invalid_body");
    client.get("/api/sessions?status=odd").await.problem(400, "invalid_query");

    for path in ["..%2fetc%2fpasswd", "a/%2e%2e/b", "a%00b", "a%0Ab", "a//b"] {
        client.get(&format!("/api/sessions/{id}/files/{path}")).await.problem(400, "bad_path");
    }
    let chunked = "transfer-encoding: chunked\r\n";
    let raw = client.send("PUT", &format!("/api/sessions/{id}/files/a"), chunked, b"").await;
    assert!([400, 411].contains(&raw.status), "{}", raw.text());
    assert_eq!(client.get("/health").await.ok(200)["activeSession"], id);
    shop.close().await;
    world.close().await;
}
