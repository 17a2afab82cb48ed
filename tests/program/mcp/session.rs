//! A session's own endpoint, and the Inspector's command line: each call a process of its own, so nothing is remembered between two of them.

use std::process::Command;

use serde_json::{Value, json};

use super::{Dev, shown};
use crate::clients::client;

/// What the Inspector's exit codes mean.
const TOOL_ERROR: i32 = 5;

/// The Inspector's command line against one server.
struct Inspector {
    node: std::path::PathBuf,
    program: std::path::PathBuf,
    server: Vec<String>,
    home: tempfile::TempDir,
}

impl Inspector {
    fn of(server: Vec<String>) -> Option<Self> {
        let node = client("typescript/bin/node")?;
        let program = client("typescript/node_modules/.bin/mcp-inspector")?;
        Some(Self { node, program, server, home: tempfile::tempdir().unwrap() })
    }

    fn over_http(dev: &Dev, path: &str) -> Option<Self> {
        let header = format!("Authorization: Bearer {}", dev.door().token);
        Self::of(vec![dev.url(path), "--transport".to_owned(), "http".to_owned(), "--header".to_owned(), header])
    }

    fn run(&self, more: &[&str]) -> (Option<i32>, Value) {
        let mut command = Command::new(&self.node);
        // Its own files go nowhere near the user's.
        command.arg(&self.program).arg("--cli").args(&self.server).args(more).args(["--format", "json"]).env("HOME", self.home.path());
        let output = command.output().unwrap();
        let told: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {}", shown(&output)));
        (output.status.code(), told)
    }

    fn tools(&self) -> Vec<Value> {
        // Strict: a schema that some host could not read is a failure.
        let (code, told) = self.run(&["--method", "tools/list", "--strict"]);
        assert_eq!(code, Some(0), "{told:#}");
        told["result"]["tools"].as_array().unwrap().clone()
    }

    /// Calls a tool; the code is the Inspector's, the value is the structured content.
    fn call(&self, tool: &str, arguments: &Value) -> (Option<i32>, Value) {
        let pairs: Vec<String> = arguments.as_object().unwrap().iter().map(|(name, value)| format!("{name}={}", plain(value))).collect();
        let mut words = vec!["--method", "tools/call", "--tool-name", tool];
        for pair in &pairs {
            words.extend(["--tool-arg", pair]);
        }
        let (code, told) = self.run(&words);
        (code, told["result"]["structuredContent"].clone())
    }

    #[track_caller]
    fn good(&self, tool: &str, arguments: &Value) -> Value {
        let (code, told) = self.call(tool, arguments);
        assert_eq!(code, Some(0), "{tool}: {told}");
        told
    }

    #[track_caller]
    fn bad(&self, tool: &str, arguments: &Value) -> Value {
        let (code, told) = self.call(tool, arguments);
        assert_eq!(code, Some(TOOL_ERROR), "{tool}: {told}");
        told
    }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[test]
fn the_inspector_does_the_whole_job_call_by_call() {
    let dev = Dev::start(&[]);
    let Some(inspector) = Inspector::over_http(&dev, "/mcp") else { return };
    assert!(inspector.tools().len() >= 10);
    let found = inspector.good("find_providers", &json!({ "tool": "count_words" }));
    let provider = &found["providers"][0]["provider_id"];
    let opened = inspector.good("open_session", &json!({ "budget_usdc": 0.5, "provider_id": provider }));
    let session = &opened["session_id"];
    inspector.good("put_file", &json!({ "session_id": session, "path": "a.txt", "text": "one two three" }));
    let run = inspector.good("run_tool", &json!({ "session_id": session, "tool_id": "count_words", "args": { "input_file": "a.txt" } }));
    assert!(run["status"] == "completed" && run["output"].as_str().unwrap().contains("3"), "{run}");
    let file = inspector.good("get_file", &json!({ "session_id": session, "path": "a.txt" }));
    assert_eq!(file["text"], "one two three");
    let detached =
        inspector.good("run_tool", &json!({ "session_id": session, "tool_id": "wait", "args": { "seconds": 60 }, "detach": true }));
    let stopped = inspector.good("cancel_run", &json!({ "run_id": detached["run_id"] }));
    assert_eq!(stopped["end_reason"], "cancelled", "{stopped}");
    let small = inspector.good("open_session", &json!({ "budget_usdc": 0.006, "provider_id": provider }));
    let broke = inspector.bad("run_tool", &json!({ "session_id": small["session_id"], "tool_id": "wait", "args": { "seconds": 60 } }));
    assert_eq!(broke["code"], "budget_exhausted", "{broke}");
    let status = inspector.good("session_status", &json!({ "session_id": session }));
    assert_eq!(status["runs_total"], 2, "{status}");
    let ended = inspector.good("end_session", &json!({ "session_id": session }));
    assert_eq!(ended["status"], "completed", "{ended}");
}

#[test]
fn a_sessions_own_endpoint_lists_the_rented_tools_as_if_they_were_the_hosts() {
    let dev = Dev::start(&[]);
    let session = dev.open("0.5");
    let path = format!("/mcp/s/{session}");
    let over_http = Inspector::over_http(&dev, &path);
    let over_stdio = Inspector::of(dev.stdio(&["--session", &session]));
    for inspector in [over_http, over_stdio].into_iter().flatten() {
        let tools = inspector.tools();
        let names: Vec<&str> = tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect();
        assert!(
            names.is_sorted() && ["count_words", "wait", "put_file", "end_session"].iter().all(|name| names.contains(name)),
            "{names:?}"
        );
        assert!(!names.contains(&"open_session") && !names.contains(&"run_tool"), "{names:?}");
        let wait = tools.iter().find(|tool| tool["name"] == "wait").unwrap();
        assert_eq!(wait["inputSchema"]["properties"]["seconds"]["maximum"], 300, "{wait}");
        inspector.good("put_file", &json!({ "path": "b.txt", "text": "one two" }));
        let run = inspector.good("count_words", &json!({ "input_file": "b.txt" }));
        assert!(run["output"].as_str().unwrap().contains("b.txt"), "{run}");
        let (code, refused) = inspector.call("wait", &json!({ "seconds": 301 }));
        assert!(code != Some(0), "{refused}");
        assert_eq!(inspector.good("session_status", &json!({}))["session_id"], session.as_str());
        // Input and limits of a run stand beside the tool's own arguments.
        let stdin = &wait["inputSchema"]["properties"]["stdin"];
        assert_eq!(stdin["type"], "string", "{wait}");
        let late = inspector.bad("wait", &json!({ "seconds": 60, "timeout_seconds": 1, "stdin": "unread" }));
        assert_eq!(
            (&late["code"], &late["next"]),
            (&json!("run_timeout"), &json!(["get_run"])),
            "only tools that are there are named: {late}"
        );
    }
}

#[test]
fn a_session_that_is_not_there_has_no_endpoint() {
    let dev = Dev::start(&[]);
    let words = dev.stdio(&["--session", "session_nope"]);
    let output = Command::new(&words[0]).args(&words[1..]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && said.contains("session_nope") && output.stdout.is_empty(), "{said}");
    let begin = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "by-hand", "version": "1" } } });
    let config = ureq::Agent::config_builder().http_status_as_error(false).build();
    let ask = |session: &str| {
        let request = ureq::Agent::from(config.clone()).post(dev.url(&format!("/mcp/s/{session}")));
        let request =
            request.header("Authorization", format!("Bearer {}", dev.door().token)).header("Accept", "application/json, text/event-stream");
        request.send_json(&begin).unwrap().body_mut().read_to_string().unwrap()
    };
    assert!(ask("nope").contains("session_not_found"), "{}", ask("nope"));
    assert!(ask(&dev.open("0.1")).contains("serverInfo"));
}

#[test]
fn a_host_that_starts_its_server_finds_the_gateway_as_every_command_does() {
    let dev = Dev::start(&[]);
    let begin = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": {
        "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "by-hand", "version": "1" } } });
    // The folder that `orien dev` was given.
    let mut child = crate::kit::orien()
        .args(["mcp", "--data-dir"])
        .arg(dev.gateway().parent().unwrap())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{begin}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("serverInfo"), "{}", shown(&output));
    // Beside one that runs nothing has to be said; it is found where such networks say that they are.
    let home = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(home.path().join("run")).unwrap();
    let pointer = home.path().join(format!("run/dev-{}", std::process::id()));
    std::fs::write(pointer, dev.gateway().parent().unwrap().as_os_str().as_encoded_bytes()).unwrap();
    let mut child = crate::kit::orien()
        .arg("mcp")
        .env("ORIEN_HOME", home.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), format!("{begin}\n").as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("serverInfo"), "{}", shown(&output));
}
