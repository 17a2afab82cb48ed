//! What a model is told by the tools of the MCP server.

use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use crate::client::Client;
use crate::shop::ShopPlan;
use crate::world::{World, text, until};

/// Calls a tool as a host of the newer era does, which needs no handshake; the result.
async fn call(client: &Client, tool: &str, arguments: Value) -> Value {
    let about = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientInfo": { "name": "by-hand", "version": "1" },
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    let params = json!({ "name": tool, "arguments": arguments, "_meta": about });
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params }).to_string();
    let head = format!(
        "content-type: application/json\r\naccept: application/json, text/event-stream\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: {tool}\r\n"
    );
    let answer = client.send("POST", "/mcp", &head, body.as_bytes()).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    let told = answer.text();
    let last = told.lines().filter_map(|line| line.strip_prefix("data:")).next_back().unwrap_or(&told).to_owned();
    serde_json::from_str::<Value>(&last).unwrap_or_else(|error| panic!("{error}: {told}"))["result"].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_whose_provider_is_lost_is_an_error_for_the_model_that_waits_for_it_and_names_the_session_that_goes_on() {
    let world = World::new().await;
    let plan = |label, micros| ShopPlan { label, per_minute: Usdc::from_micros(micros), ..ShopPlan::default() };
    let [cheap, dear] = [world.shop("cheap", plan("cheap", 300_000)).await, world.shop("dear", plan("dear", 600_000)).await];
    let client = world.client();
    let opened = call(&client, "open_session", json!({ "budget_usdc": "0.5", "tools": ["sleep"] })).await;
    let session = text(&opened["structuredContent"], "session_id");
    let order = json!({ "session_id": session, "tool_id": "sleep", "args": {}, "wait_s": 300 });
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, "run_tool", order).await }
    });
    until("the start", || async {
        let now = client.get(&format!("/api/sessions/{session}")).await.ok(200);
        (now["executions"][0]["output"] == "zzz\n").then_some(())
    })
    .await;
    cheap.close().await;
    let lost = waiting.await.unwrap();
    let told = &lost["structuredContent"];
    let successor = client.get(&format!("/api/sessions/{session}")).await.ok(200)["replacedBy"].clone();
    assert!(successor.is_string());
    let check = |result: &Value| {
        assert_eq!((&result["isError"], &result["structuredContent"]["code"]), (&json!(true), &json!("session_ended")), "{result}");
        assert_eq!(result["structuredContent"]["successor_session_id"], successor, "{result}");
        assert!(text(&result["structuredContent"], "detail").contains("the provider was lost"), "{result}");
        assert_eq!(result["structuredContent"]["next"], json!(["session_status", "run_tool"]), "{result}");
    };
    check(&lost);
    assert_eq!((&told["output"], &told["status"]), (&json!("zzz\n"), &json!("failed")), "{lost}");
    check(&call(&client, "get_run", json!({ "run_id": told["run_id"] })).await);
    dear.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_learns_what_of_the_minimum_charge_can_still_be_used_and_how_many_runs_there_were() {
    let world = World::new().await;
    let shop = world.shop("shop", ShopPlan { minimum_charge: Usdc::from_micros(100_000), ..ShopPlan::default() }).await;
    let client = world.client();
    let opened = call(&client, "open_session", json!({ "budget_usdc": "0.1" })).await["structuredContent"].clone();
    let session = text(&opened, "session_id");
    let status = |told: &Value| {
        [&told["spent_usdc"], &told["remaining_usdc"], &told["minimum_unused_usdc"]].map(|amount| amount.as_str().map(str::to_owned))
    };
    let amounts = |spent: &str, left: &str, unused: &str| [spent, left, unused].map(|amount| Some(amount.to_owned()));
    let now = call(&client, "session_status", json!({ "session_id": session })).await;
    assert_eq!(status(&now["structuredContent"]), amounts("0.1", "0", "0.1"), "{now}");
    let said = text(&now["content"][0], "text");
    assert!(said.contains("0.1 of 0.1 USDC charged, 0 left beside 0.1 of the minimum charge that runs have not used yet"), "{said}");
    // A call costs a hundredth, and its 5 ms 0.00005.
    let ran = call(&client, "run_tool", json!({ "session_id": session, "tool_id": "echo", "args": { "text": "x" } })).await;
    assert_eq!(ran["structuredContent"]["status"], "completed", "{ran}");
    let raised = call(&client, "top_up_session", json!({ "session_id": session, "budget_usdc": "0.2" })).await;
    assert_eq!(status(&raised["structuredContent"]), amounts("0.1", "0.1", "0.08995"), "{raised}");
    assert_eq!(
        (&raised["structuredContent"]["runs_total"], &raised["structuredContent"]["runs"][0]["tool_id"]),
        (&json!(1), &json!("echo"))
    );
    let extended = call(&client, "extend_session", json!({ "session_id": session, "expiry_seconds": 600 })).await;
    assert_eq!(extended["structuredContent"]["runs_total"], 1, "{extended}");

    let path = format!("/api/sessions/{session}");
    let shown = client.get(&path).await.ok(200);
    assert_eq!((&shown["executionsTotal"], &shown["minimumUnused"]), (&json!(1), &json!(0.08995)));
    let listed = client.get("/api/sessions").await.ok(200)["sessions"][0].clone();
    assert!(listed.get("executionsTotal").is_none() && listed["executions"] == json!([]), "not counted, so not said: {listed}");
    let events = tokio::spawn({
        let (client, path) = (client.clone(), format!("{path}/events"));
        async move { client.get(&path).await.text() }
    });
    for number in 0..9 {
        let order = json!({ "sessionId": session, "toolId": "echo", "args": { "text": "x" }, "wait": 30 });
        client.post("/tools/run", &format!("run-{number}"), &order).await.ok(201);
    }
    let shown = client.get(&path).await.ok(200);
    assert_eq!((&shown["budgetConsumed"], &shown["minimumUnused"]), (&json!(0.1005), &json!(0)), "all of it is worked off");
    let ended = call(&client, "end_session", json!({ "session_id": session })).await;
    let said = text(&ended["content"][0], "text");
    assert!(said.contains("0.1005 of 0.2 USDC charged") && !said.contains("left"), "nothing is left of a session that has ended: {said}");
    assert_eq!((&ended["structuredContent"]["runs_total"], ended["structuredContent"].get("minimum_unused_usdc")), (&json!(10), None));
    let events = events.await.unwrap();
    assert!(events.contains("\"minimumUnused\":\"0.08995\"") && events.contains("\"minimumUnused\":\"0\""), "{events}");
    shop.close().await;
    world.close().await;
}
