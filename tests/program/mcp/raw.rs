//! The protocol by hand: what no client does yet, and what no caller may do.

use std::time::Duration;

use serde_json::{Value, json};

use super::Dev;
use crate::kit::wait_for;

const REVISION: &str = "2026-07-28";
const TASKS: &str = "io.modelcontextprotocol/tasks";

/// A host of the newer era that follows tasks.
struct Host {
    url: String,
    token: String,
    agent: ureq::Agent,
}

impl Host {
    fn of(dev: &Dev) -> Self {
        let config = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(Duration::from_secs(120))).build();
        Self { url: dev.url("/mcp"), token: dev.door().token, agent: config.into() }
    }

    /// One request, and the JSON-RPC answer to it.
    fn ask(&self, method: &str, name: Option<&str>, mut params: Value) -> Value {
        params["_meta"] = json!({
            "io.modelcontextprotocol/protocolVersion": REVISION,
            "io.modelcontextprotocol/clientInfo": { "name": "by-hand", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": { "extensions": { (TASKS): {} } },
        });
        let mut request = self.agent.post(&self.url).header("Authorization", format!("Bearer {}", self.token));
        request = request.header("Accept", "application/json, text/event-stream").header("MCP-Protocol-Version", REVISION);
        request = request.header("Mcp-Method", method);
        if let Some(name) = name {
            request = request.header("Mcp-Name", name);
        }
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let text = request.send_json(&body).unwrap().body_mut().read_to_string().unwrap();
        let last = text.lines().filter_map(|line| line.strip_prefix("data:")).next_back().unwrap_or(&text);
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    fn call(&self, tool: &str, arguments: &Value) -> Value {
        self.ask("tools/call", Some(tool), json!({ "name": tool, "arguments": arguments }))["result"].clone()
    }

    fn task(&self, id: &str) -> Value {
        self.ask("tasks/get", Some(id), json!({ "taskId": id }))["result"].clone()
    }
}

#[test]
fn a_run_that_goes_on_is_a_task_for_a_host_that_follows_tasks() {
    let dev = Dev::start(&[]);
    let (host, session) = (Host::of(&dev), dev.open("0.5"));
    let info = host.ask("server/discover", None, json!({}));
    assert!(info["result"]["capabilities"]["extensions"][TASKS].is_object(), "{info}");

    let begun = host.call("run_tool", &json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 2 }, "wait_s": 0 }));
    assert_eq!((&begun["resultType"], &begun["status"]), (&json!("task"), &json!("working")), "{begun}");
    let id = begun["taskId"].as_str().unwrap();
    let done = wait_for("the end of the task", || Some(host.task(id)).filter(|task| task["status"] != "working"));
    assert_eq!(done["status"], "completed", "{done}");
    let result = &done["result"]["structuredContent"];
    assert!(result["run_id"] == id && result["status"] == "completed" && result["exit_code"] == 0, "{done}");

    let long = host.call("run_tool", &json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 60 }, "wait_s": 0 }));
    let id = long["taskId"].as_str().unwrap();
    assert_eq!(host.task(id)["status"], "working");
    let acknowledged = host.ask("tasks/cancel", Some(id), json!({ "taskId": id }));
    assert!(acknowledged["error"].is_null(), "{acknowledged}");
    assert_eq!(host.task(id)["status"], "cancelled");
    // A task is a run, and a run is found in every other way too.
    assert_eq!(dev.door().get(&format!("/executions/{id}")).ok()["endReason"], "cancelled");

    // Who asks for a handle gets that, not a task.
    let handle = host.call("run_tool", &json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 60 }, "detach": true }));
    assert!(handle["resultType"] == "complete" && handle["structuredContent"]["run_id"].is_string(), "{handle}");

    // What is over when the answer is due needs no task.
    let short = host.call("run_tool", &json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 0 } }));
    assert!(short["resultType"] == "complete" && short["structuredContent"]["status"] == "completed", "{short}");
    let unknown = host.ask("tasks/get", Some("nothing"), json!({ "taskId": "nothing" }));
    assert!(unknown["error"]["code"].is_i64(), "{unknown}");
}

#[test]
fn what_a_model_can_mend_is_a_result_and_what_it_cannot_is_an_error() {
    let dev = Dev::start(&[]);
    let host = Host::of(&dev);
    let cases = [
        ("session_status", json!({ "session_id": "../../tokens" }), "session_not_found"),
        ("session_status", json!({ "sesion_id": "x" }), "invalid_arguments"),
        ("get_run", json!({ "run_id": "a/b?c" }), "execution_not_found"),
        ("open_session", json!({ "budget_usdc": "much" }), "invalid_arguments"),
        ("open_session", json!({ "budget_usdc": 0.5, "tools": ["no_such_tool"] }), "no_provider"),
        ("open_session", json!({ "budget_usdc": 1_000_000 }), "insufficient_funds"),
        ("get_provider", json!({ "provider_id": "nobody" }), "provider_not_found"),
        ("put_file", json!({ "session_id": "x", "path": "a", "text": "a", "base64": "YQ==" }), "invalid_arguments"),
    ];
    for (tool, arguments, code) in cases {
        let result = host.call(tool, &arguments);
        assert!(result["isError"] == true && result["structuredContent"]["code"] == code, "{tool} {arguments}: {result}");
        assert!(result["content"][0]["text"].as_str().unwrap().starts_with(code), "{result}");
    }
    let none = host.call("find_providers", &json!({ "tool": "wait", "max_price_per_minute_usdc": 0.01 }));
    let lacks = &none["structuredContent"]["rejected"][0];
    assert!(
        none["isError"] == false && lacks["provider"] == "example_workshop" && lacks["why"].as_str().is_some_and(|why| !why.is_empty()),
        "{none}"
    );
    let unknown = host.ask("tools/call", Some("no_such_tool"), json!({ "name": "no_such_tool", "arguments": {} }));
    assert_eq!(unknown["error"]["code"], -32602, "{unknown}");
    let elsewhere = host.ask("resources/read", Some("file:///etc/passwd"), json!({ "uri": "file:///etc/passwd" }));
    assert!(elsewhere["error"]["code"].is_i64(), "{elsewhere}");
}

#[test]
fn a_quote_opens_nothing_and_a_session_has_its_labels_and_gets_more_time() {
    let dev = Dev::start(&[]);
    let host = Host::of(&dev);
    let quote = host.call("quote_session", &json!({ "budget_usdc": 0.5, "tools": ["wait"] }));
    let told = &quote["structuredContent"];
    assert!(quote["isError"] == false && told["provider"] == "example_workshop" && told["funds"] == "yes", "{quote}");
    let wait = told["tools"].as_array().unwrap().iter().find(|tool| tool["tool_id"] == "wait").unwrap();
    assert!(wait["budget_buys_seconds"].is_string() && told["cap_missing_usdc"].is_null(), "{quote}");
    let dear = host.call("quote_session", &json!({ "budget_usdc": 1_000_000 }));
    assert!(dear["structuredContent"]["funds"] == "no" && dear["structuredContent"]["missing_usdc"].is_string(), "{dear}");
    let made = dev.door().post("/api/tokens", &json!({ "name": "a model", "scopes": ["spend"], "cap": 0.3 })).ok();
    let model = Host { token: made["token"].as_str().unwrap().to_owned(), ..Host::of(&dev) };
    let capped = model.call("quote_session", &json!({ "budget_usdc": 0.5 }));
    assert_eq!(capped["structuredContent"]["cap_missing_usdc"], "0.2", "{capped}");
    assert_eq!(dev.door().get("/api/sessions").ok()["sessions"], json!([]), "nothing was opened");

    let opened = model.call("open_session", &json!({ "budget_usdc": 0.2, "labels": { "job": "nightly" }, "expiry_seconds": 60 }));
    let session = &opened["structuredContent"];
    assert_eq!(session["labels"], json!({ "job": "nightly" }), "{opened}");
    let asked = json!({ "session_id": session["session_id"], "expiry_seconds": 7200, "request_id": "more" });
    let extended = model.call("extend_session", &asked);
    assert!(extended["structuredContent"]["expires_at"].as_str() > session["expires_at"].as_str(), "{extended}");
    let again = model.call("extend_session", &asked);
    assert_eq!(again["structuredContent"]["expires_at"], extended["structuredContent"]["expires_at"], "once");
    let too_long = model.call("extend_session", &json!({ "session_id": session["session_id"], "expiry_seconds": 999_999 }));
    assert!(too_long["isError"] == true, "{too_long}");
}

#[test]
fn what_the_endpoint_refuses_before_a_message_is_looked_at_is_a_problem_too() {
    let dev = Dev::start(&[]);
    let host = Host::of(&dev);
    let ask = |method: &str, kind: &str, accept: &str, session: Option<&str>, body: &str| {
        let mut request =
            ureq::http::Request::builder().method(method).uri(&host.url).header("Authorization", format!("Bearer {}", host.token));
        request = request.header("Accept", accept).header("Content-Type", kind);
        if let Some(session) = session {
            request = request.header("Mcp-Session-Id", session);
        }
        let mut answer = host.agent.run(request.body(body.to_owned()).unwrap()).unwrap();
        let kind = answer.headers()["content-type"].to_str().unwrap().to_owned();
        let text = answer.body_mut().read_to_string().unwrap();
        assert_eq!(kind, "application/problem+json", "{text}");
        (answer.status().as_u16(), serde_json::from_str::<Value>(&text).unwrap()["code"].as_str().unwrap().to_owned())
    };
    let (json, both) = ("application/json", "application/json, text/event-stream");
    let ping = r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#;
    let told = |status: u16, code: &str| (status, code.to_owned());
    assert_eq!(ask("POST", json, both, None, "{bad json"), told(400, "invalid_message"));
    assert_eq!(ask("POST", json, both, None, &format!("[{ping}]")), told(400, "invalid_message"));
    assert_eq!(ask("POST", "text/plain", both, None, ping), told(415, "unsupported_media_type"));
    assert_eq!(ask("POST", json, "text/html", None, ping), told(406, "not_acceptable"));
    assert_eq!(ask("POST", json, both, Some("nobody"), ping), told(404, "connection_not_found"));
    assert_eq!(ask("POST", json, both, None, &" ".repeat(2 * 1024 * 1024 + 1)), told(413, "body_too_large"));
    assert_eq!(ask("PATCH", json, both, None, ping), told(405, "method_not_allowed"));
}

#[test]
fn params_that_are_not_those_of_a_method_are_told_from_a_method_that_is_not_there() {
    let dev = Dev::start(&[]);
    let host = Host::of(&dev);
    let odd = host.ask("tools/call", Some("session_status"), json!({ "name": "session_status", "arguments": "x" }));
    assert_eq!(odd["error"]["code"], -32602, "{odd}");
    let unknown = host.ask("tools/frobnicate", None, json!({}));
    assert_eq!(unknown["error"]["code"], -32601, "{unknown}");
    let misspelt = host.ask(
        "prompts/get",
        Some("do_on_a_rented_machine"),
        json!({ "name": "do_on_a_rented_machine", "arguments": { "task": "x", "budget": "3" } }),
    );
    assert_eq!(misspelt["error"]["code"], -32602, "{misspelt}");
}

#[test]
fn who_may_not_come_in_at_the_door_may_not_call_a_tool_either() {
    let dev = Dev::start(&[]);
    let host = Host::of(&dev);
    let bearer = format!("Bearer {}", host.token);
    let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for path in ["/mcp", "/mcp/s/session_x"] {
        let cases: [(&[(&str, &str)], u16); 4] = [
            (&[], 401),
            (&[("Authorization", "Bearer 0000")], 401),
            (&[("Authorization", &bearer), ("Host", "evil.example")], 421),
            (&[("Authorization", &bearer), ("Origin", "http://evil.example")], 403),
        ];
        for (headers, status) in cases {
            let mut request = host.agent.post(dev.url(path)).header("Accept", "application/json, text/event-stream");
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let answer = request.send_json(&body).unwrap();
            assert_eq!(answer.status().as_u16(), status, "{path} {headers:?}");
        }
    }
}

#[test]
fn a_tool_call_has_the_rights_of_its_token_and_no_more() {
    let dev = Dev::start(&[]);
    let session = dev.open("0.1");
    let made = dev.door().post("/api/tokens", &json!({ "name": "looker", "scopes": ["read"] })).ok();
    let reader = Host { token: made["token"].as_str().unwrap().to_owned(), ..Host::of(&dev) };
    assert_eq!(reader.call("session_status", &json!({ "session_id": session }))["isError"], false);
    for (tool, arguments) in [
        ("open_session", json!({ "budget_usdc": 0.1 })),
        ("run_tool", json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 0 } })),
        ("put_file", json!({ "session_id": session, "path": "a", "text": "a" })),
        ("end_session", json!({ "session_id": session })),
    ] {
        let result = reader.call(tool, &arguments);
        assert!(result["isError"] == true && result["structuredContent"]["code"] == "insufficient_scope", "{tool}: {result}");
    }
    assert_eq!(dev.door().get(&format!("/api/sessions/{session}")).ok()["status"], "active");
}
