//! Bad input at every door gets its own clear answer and leaves the process healthy.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::{Value, json};

use crate::cast::Cast;
use crate::kit::{Door, orien, run, wait_for};

#[test]
fn the_gateway_answers_every_bad_request_with_its_own_code() {
    let mut cast = Cast::small();
    let session = cast.open("1");
    let door = cast.gateway();
    let run = |body: Value| door.post("/tools/run", &body);
    let args = |args: Value| json!({ "sessionId": session, "toolId": "wait", "args": args });
    for (said, codes) in [
        (run(json!({ "sessionId": session, "toolId": "rm_rf", "args": {} })), &["unknown_tool"][..]),
        (run(args(json!({}))), &["bad_arguments"]),
        (run(args(json!({ "seconds": "five" }))), &["bad_arguments"]),
        (run(args(json!({ "seconds": 101 }))), &["bad_arguments"]),
        (run(args(json!({ "seconds": 1, "extra": 2 }))), &["bad_arguments"]),
        (run(json!({ "sessionId": session, "toolId": "say", "args": { "words": "--help" } })), &["bad_arguments"]),
        (run(json!({ "sessionId": session, "toolId": "count_words", "args": { "input_file": "../../etc/passwd" } })), &["bad_arguments"]),
        (run(json!({ "sessionId": "session_nobody", "toolId": "wait", "args": {} })), &["not_found", "invalid_body", "session_not_found"]),
        (run(json!({ "toolId": "wait" })), &["invalid_body"]),
        (door.post("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": "-1" })), &["invalid_body", "bad_amount"]),
        (door.post("/api/sessions", &json!({ "providerId": "auto", "budgetAllowance": 0.000_000_1 })), &["invalid_body", "bad_amount"]),
        (
            door.post("/api/sessions", &json!({ "providerId": "12D3KooWnobody", "budgetAllowance": 1 })),
            &["provider_not_found", "not_found", "no_provider"],
        ),
        (door.get("/executions/exec_nothing"), &["not_found", "invalid_path", "execution_not_found"]),
        (door.get("/no/such/path"), &["not_found"]),
    ] {
        assert!(codes.contains(&said.code()), "wanted one of {codes:?}: {said:?}");
    }
    assert_healthy(&door);
    assert!(cast.nodes[0].is_running());
}

#[test]
fn tricks_with_file_names_never_leave_the_workspace() {
    let cast = Cast::small();
    let session = cast.open("1");
    let door = cast.gateway();
    let secret = cast.root.path().join("secret");
    std::fs::write(&secret, b"secret").unwrap();
    for path in [
        "../../../secret",
        "..%2f..%2fsecret",
        "%2e%2e/%2e%2e/secret",
        "/etc/passwd",
        "a%00b",
        "a/../../b",
        "%2fetc%2fpasswd",
        &"x".repeat(2000),
    ] {
        let url = format!("/api/sessions/{session}/files/{path}");
        let stored = door.put(&url, b"x");
        assert!(stored.status >= 400, "{path}: {stored:?}");
        let (status, bytes) = door.download(&url);
        assert!(status >= 400 && bytes != b"secret", "{path}");
    }
    assert_eq!(std::fs::read(&secret).unwrap(), b"secret");
    assert_healthy(&door);
}

#[test]
fn strangers_and_broken_requests_at_the_doors_are_refused() {
    let cast = Cast::small();
    for role in [&cast.bootstrap, &cast.settlement, &cast.nodes[0], &cast.gateways[0]] {
        let mut stranger = role.door();
        stranger.token = "0".repeat(64);
        let path = match role.name {
            "bootstrap" => "/catalogue",
            "settlement" => "/api/ledger",
            "node" => "/tools",
            _ => "/api/providers",
        };
        assert_eq!(stranger.get(path).status, 401, "{}", role.name);
        let address = stranger.base.strip_prefix("http://").unwrap();
        for bytes in [
            &b"\x16\x03\x01\x02\x00garbage"[..],
            b"GET / HTTP/9.9\r\n\r\n",
            b"GET /health HTTP/1.1\r\nHost: evil.example\r\n\r\n",
            &[0xff; 70_000],
        ] {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = stream.write_all(bytes);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let mut answer = Vec::new();
            let _ = stream.take(64 * 1024).read_to_end(&mut answer);
            assert!(!answer.starts_with(b"HTTP/1.1 200"), "{}: {}", role.name, String::from_utf8_lossy(&answer));
        }
        assert_healthy(&role.door());
    }
}

#[test]
fn garbage_on_the_peer_port_harms_nobody() {
    let cast = Cast::small();
    let address = cast.bootstrap_address.split('/').collect::<Vec<_>>();
    let port: u16 = address[4].parse().unwrap();
    for _ in 0..20 {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
        let _ = stream.write_all(&[0xa5; 4096]);
    }
    assert_healthy(&cast.bootstrap.door());
    let door = cast.gateway();
    wait_for("the offer", || (!Cast::providers(&door).is_empty()).then_some(()));
}

#[test]
fn a_second_process_on_the_same_directory_is_told_who_holds_it() {
    let cast = Cast::small();
    for role in [&cast.bootstrap, &cast.settlement, &cast.nodes[0], &cast.gateways[0]] {
        let folder = role.folder.to_str().unwrap();
        let network = cast.network.to_str().unwrap();
        let mut command = orien();
        command.args([role.name, "--data-dir", folder, "--network", network, "--http", "127.0.0.1:0"]);
        if role.name == "node" {
            command.args(["--tools", cast.root.path().join("node0.json").to_str().unwrap()]);
        }
        let output = command.output().unwrap();
        assert!(!output.status.success());
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("process"), "{}: {said}", role.name);
        assert_healthy(&role.door());
    }
}

#[test]
fn wrong_words_on_the_command_line_are_explained() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere");
    for (words, expected) in [
        (vec!["node", "--data-dir", nowhere.to_str().unwrap()], "orien init settlement"),
        (vec!["init", "node", "--data-dir", nowhere.to_str().unwrap()], "--network"),
        (vec!["settlement", "grant", "0x12", "5"], "0x and 40 hexadecimal"),
        (vec!["tools", "check", "/no/such/file"], "/no/such/file"),
        (vec!["audit", "/dev/null"], "not a batch"),
        (vec!["status", "--data-dir", nowhere.to_str().unwrap()], "nothing runs"),
        (vec!["keys", "--data-dir", nowhere.to_str().unwrap()], "no key"),
    ] {
        let output = run(&words);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{words:?}: {said}");
    }
}

#[track_caller]
fn assert_healthy(door: &Door) {
    assert_eq!(door.get("/health").ok()["status"], "ok");
}
