//! Event streams: format, resumption, keep-alive.

use std::time::Duration;

use tokio::io::AsyncWriteExt;

use crate::house::{House, read_until};

/// The data of a chunked body.
fn unchunk(body: &str) -> String {
    let (mut rest, mut data) = (body, String::new());
    while let Some((size, after)) = rest.split_once("\r\n") {
        let size = usize::from_str_radix(size, 16).unwrap();
        data.push_str(&after[..size]);
        rest = after[size..].strip_prefix("\r\n").unwrap_or("");
    }
    data
}

#[tokio::test]
async fn events_are_numbered_named_and_on_one_line_each() {
    let house = House::open().await;
    let answer = house.get("/events").await;
    assert_eq!(answer.header("content-type"), Some("text/event-stream"));
    assert_eq!(answer.header("x-accel-buffering"), Some("no"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert_eq!(
        unchunk(&answer.body),
        "retry: 1000\n\n\
         id: 1\nevent: stdout\ndata: {\"text\":\"line\\n1\"}\n\n\
         id: 2\nevent: stdout\ndata: {\"text\":\"line\\n2\"}\n\n\
         id: 3\nevent: stdout\ndata: {\"text\":\"line\\n3\"}\n\n\
         event: end\ndata: {}\n\n"
    );
    house.close().await;
}

#[tokio::test]
async fn a_reader_who_comes_back_resumes_and_one_who_has_all_is_told_so() {
    let house = House::open().await;
    let answer = house.send(house.request("GET /events", "last-event-id: 2\r\n", "")).await;
    let text = unchunk(&answer.body);
    assert!(text.contains("id: 3\n") && !text.contains("id: 2\n"), "{text}");
    let answer = house.send(house.request("GET /events", "last-event-id: 3\r\n", "")).await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    let answer = house.send(house.request("GET /events", "last-event-id: \r\n", "")).await;
    assert!(unchunk(&answer.body).contains("id: 1\n"));
    for id in ["x", "-1", "1.5", "99999999999999999999999"] {
        let lines = format!("last-event-id: {id}\r\n");
        house.send(house.request("GET /events", &lines, "")).await.problem(400, "invalid_last_event_id");
    }
    house.close().await;
}

#[tokio::test]
async fn a_program_gets_one_json_object_per_line() {
    let house = House::open().await;
    let lines = "accept: text/html, Application/X-NDJSON;q=0.9\r\n";
    let answer = house.send(house.request("GET /events", lines, "")).await;
    assert_eq!(answer.header("content-type"), Some("application/x-ndjson"));
    let text = unchunk(&answer.body);
    let events: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events.len(), 4);
    assert_eq!(events[0], serde_json::json!({ "id": 1, "event": "stdout", "data": { "text": "line\n1" } }));
    assert_eq!(events[3], serde_json::json!({ "event": "end", "data": {} }));
    house.close().await;
}

#[tokio::test]
async fn a_silent_stream_begins_at_once_and_is_kept_alive() {
    let house = House::open_with(|config| config.limits.keep_alive = Duration::from_millis(20)).await;
    let mut stream = house.connect().await;
    stream.write_all(house.request("GET /quiet", "", "").as_bytes()).await.unwrap();
    let begun = read_until(&mut stream, ": keep-alive\n\n").await;
    assert!(begun.contains("retry: 1000\n\n"), "{begun}");
    read_until(&mut stream, ": keep-alive\n\n").await;

    let mut lines = house.connect().await;
    lines.write_all(house.request("GET /quiet", "accept: application/x-ndjson\r\n", "").as_bytes()).await.unwrap();
    read_until(&mut lines, "{\"event\":\"keep_alive\"}\n").await;
    drop((stream, lines));
    house.close().await;
}
