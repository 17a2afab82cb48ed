//! What a route takes in: JSON, queries, paths, keys, and bodies that are too large or never come.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::house::{Answer, House};

const JSON: &str = "content-type: application/json\r\n";

#[tokio::test]
async fn a_json_body_goes_in_and_out() {
    let house = House::open().await;
    let answer = house.post("/json", JSON, r#"{"tool":"run_build","seconds":3}"#).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.json()["tool"], "run_build");
    house.close().await;
}

#[tokio::test]
async fn text_that_is_not_json_is_refused_with_line_and_column() {
    let house = House::open().await;
    for body in ["", "{", "{\"tool\":\n  nonsense}", "\u{0}", r#"{"tool":"a","seconds":1} trailing"#] {
        let members = house.post("/json", JSON, body).await.problem(400, "malformed_json");
        let detail = members["detail"].as_str().unwrap();
        assert!(detail.contains("line") && detail.contains("column"), "{detail}");
    }
    house.close().await;
}

#[tokio::test]
async fn json_nested_without_end_is_refused() {
    let house = House::open().await;
    house.post("/value", JSON, &"[".repeat(100_000)).await.problem(400, "malformed_json");
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn json_of_another_shape_is_refused_naming_the_field() {
    let house = House::open().await;
    for (body, named) in [
        (r#"{"tool":"a","seconds":1,"shell":true}"#, "shell"),
        (r#"{"tool":"a","seconds":"1"}"#, "seconds"),
        (r#"{"tool":"a","seconds":-1}"#, "seconds"),
        (r#"{"tool":"a"}"#, "seconds"),
        (r#"{"tool":"a","tool":"b","seconds":1}"#, "tool"),
        ("7", "struct Run"),
    ] {
        let members = house.post("/json", JSON, body).await.problem(422, "invalid_body");
        let detail = members["detail"].as_str().unwrap();
        assert!(detail.contains(named) && detail.contains("column"), "{detail}");
    }
    house.close().await;
}

#[tokio::test]
async fn a_body_that_is_not_called_json_is_refused() {
    let house = House::open().await;
    for kind in ["", "content-type: text/plain\r\n", "content-type: application/x-www-form-urlencoded\r\n"] {
        house.post("/json", kind, "{}").await.problem(415, "unsupported_media_type");
    }
    house.close().await;
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_and_the_client_can_read_why() {
    let house = House::open().await;
    let over = format!("\"{}\"", "x".repeat(1024 * 1024));
    house.post("/json", JSON, &over).await.problem(413, "body_too_large");

    // In pieces whose sum nobody announced.
    let (address, token) = (house.address, &house.token);
    let mut chunked = format!(
        "POST /json HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{JSON}\
         transfer-encoding: chunked\r\nconnection: close\r\n\r\n"
    );
    for _ in 0..20 {
        chunked.push_str("10000\r\n");
        chunked.push_str(&"x".repeat(0x10000));
        chunked.push_str("\r\n");
    }
    chunked.push_str("0\r\n\r\n");
    house.send(chunked).await.problem(413, "body_too_large");
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn a_body_that_announces_too_much_is_not_waited_for() {
    let house = House::open().await;
    let (address, token) = (house.address, &house.token);
    for (path, length) in [("/json", "99999999999"), ("/json", "1048577"), ("/wide", "4194305")] {
        let head = format!(
            "POST {path} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\n{JSON}content-length: {length}\r\nconnection: close\r\n\r\n"
        );
        house.send(head).await.problem(413, "body_too_large");
    }
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn a_route_may_have_a_limit_of_its_own() {
    let house = House::open().await;
    let body = |bytes: usize| format!("\"{}\"", "x".repeat(bytes));
    assert_eq!(house.post("/wide", JSON, &body(2 * 1024 * 1024)).await.body, "taken");
    house.post("/wide", JSON, &body(5 * 1024 * 1024)).await.problem(413, "body_too_large");
    house.close().await;
}

#[tokio::test]
async fn a_refusal_can_be_read_by_a_client_that_sends_its_whole_body_first() {
    let house = House::open().await;
    let body = "x".repeat(8 * 1024 * 1024);
    let request = house.request("POST /upload", "", &body).replace(&house.token, "wrong");
    house.send(request).await.problem(401, "unauthorized");
    house.close().await;
}

#[tokio::test]
async fn a_streaming_route_takes_more_than_the_limit() {
    let house = House::open().await;
    let body = "x".repeat(3 * 1024 * 1024);
    assert_eq!(house.post("/upload", "", &body).await.body, body.len().to_string());
    house.close().await;
}

#[tokio::test]
async fn a_body_that_stops_coming_is_given_up() {
    let house = House::open_with(|config| config.limits.body_stall = Duration::from_millis(50)).await;
    let request = house.request("POST /json", JSON, "{}").replace("content-length: 2", "content-length: 200");
    house.send(request).await.problem(408, "body_stalled");
    let request = house.request("POST /upload", "", "ab").replace("content-length: 2", "content-length: 200");
    house.send(request).await.problem(400, "bad_request");
    house.close().await;
}

#[tokio::test]
async fn a_client_that_leaves_in_mid_body_harms_nobody() {
    let house = House::open().await;
    for path in ["/json", "/upload"] {
        let mut stream = house.connect().await;
        let request = house.request(&format!("POST {path}"), JSON, "{}").replace("length: 2", "length: 200");
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        Answer::read(&mut stream).await;
    }
    house.assert_healthy().await;
    house.close().await;
}

#[tokio::test]
async fn a_wrong_query_and_a_wrong_path_are_refused() {
    let house = House::open().await;
    assert_eq!(house.get("/query?limit=5").await.body, "5");
    for query in ["", "?limit=", "?limit=many", "?limit=-1"] {
        house.get(&format!("/query{query}")).await.problem(400, "invalid_query");
    }
    assert_eq!(house.get("/number/5").await.body, "5");
    for number in ["five", "-1", "99999999999", "%ff", "5%00"] {
        house.get(&format!("/number/{number}")).await.problem(400, "invalid_path");
    }
    house.close().await;
}

#[tokio::test]
async fn an_idempotency_key_is_checked_required_or_not() {
    let house = House::open().await;
    house.post("/keyed", "", "").await.problem(400, "idempotency_key_required");
    assert_eq!(house.post("/maybe", "", "").await.body, "none");

    let (longest, too_long) = ("k".repeat(255), "k".repeat(256));
    for path in ["/keyed", "/maybe"] {
        for key in ["open-1", "with a space", longest.as_str()] {
            assert_eq!(house.post(path, &format!("idempotency-key: {key}\r\n"), "").await.body, key);
        }
        for lines in ["idempotency-key: \r\n", "idempotency-key: caf\u{e9}\r\n", "idempotency-key: a\tb\r\n"] {
            house.post(path, lines, "").await.problem(400, "invalid_idempotency_key");
        }
        let lines = format!("idempotency-key: {too_long}\r\n");
        house.post(path, &lines, "").await.problem(400, "invalid_idempotency_key");
        let lines = "idempotency-key: a\r\nidempotency-key: b\r\n";
        house.post(path, lines, "").await.problem(400, "invalid_idempotency_key");
    }
    house.close().await;
}
