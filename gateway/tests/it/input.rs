//! Standard input over HTTP: sent in pieces, gone on with after every kind of break, refused where it has no business.

use std::time::Duration;

use orien_protocol::id::ExecutionId;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::client::{Answer, Client, HUNG};
use crate::shop::{Shop, ShopPlan};
use crate::world::{World, text, until};

struct Ground {
    world: World,
    shop: Shop,
    client: Client,
    session: String,
}

impl Ground {
    async fn new() -> Self {
        let world = World::new().await;
        let shop = world.shop("shop", ShopPlan::default()).await;
        let session = world.open("open", &shop, "0.9").await;
        Self { client: world.client(), world, shop, session }
    }

    async fn try_run(&self, key: &str, tool: &str, stdin: Value) -> Answer {
        let args = if tool == "echo" { json!({ "text": "x" }) } else { json!({}) };
        let body = json!({ "sessionId": self.session, "toolId": tool, "args": args, "stdin": stdin });
        self.client.post("/tools/run", key, &body).await
    }

    /// A run that lasts until it is cancelled, and wants input.
    async fn run(&self, key: &str) -> String {
        text(&self.try_run(key, "sleep", json!({ "stream": true })).await.ok(201), "executionId")
    }

    async fn put(&self, execution: &str, query: &str, bytes: &[u8]) -> Answer {
        self.client.send("POST", &format!("/executions/{execution}/stdin{query}"), "", bytes).await
    }

    async fn look(&self, execution: &str) -> Answer {
        self.client.get(&format!("/executions/{execution}/stdin")).await
    }

    async fn cancel(&self, execution: &str) {
        self.client.send("POST", &format!("/executions/{execution}/cancel"), "", b"").await.ok(202);
        self.world.over(execution).await;
    }

    fn taken(&self, execution: &str) -> (Vec<u8>, bool) {
        let execution: ExecutionId = execution.parse().unwrap();
        let taken = self.shop.see(|seen| seen.inputs.taken.get(&execution).cloned()).unwrap_or_default();
        (taken.bytes, taken.ended)
    }

    async fn close(self) {
        self.shop.close().await;
        self.world.close().await;
    }
}

fn received(answer: &Answer) -> u64 {
    answer.json()["received"].as_u64().unwrap()
}

fn numbers(count: u32) -> Vec<u8> {
    (0..count).flat_map(u32::to_le_bytes).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_follow_one_another_until_one_says_that_it_is_the_last() {
    let ground = Ground::new().await;
    let run = ground.run("run").await;
    assert_eq!(ground.look(&run).await.ok(200), json!({ "executionId": run, "received": 0, "ended": false }));
    let one = ground.put(&run, "", b"one ").await.ok(200);
    assert_eq!(one, json!({ "executionId": run, "received": 4, "ended": false }));
    assert_eq!(received(&ground.put(&run, "", b"").await), 4);
    // What was received is skipped, so a body may be sent again with its offset.
    assert_eq!(received(&ground.put(&run, "?offset=0", b"one two ").await), 8);
    assert_eq!(received(&ground.put(&run, "?offset=4", b"two").await), 8);
    let gap = ground.put(&run, "?offset=9", b"x").await.problem(409, "conflict");
    assert_eq!(gap["received"], 8);
    let last = ground.put(&run, "?end=true", b"three").await.ok(200);
    assert_eq!((last["received"].as_u64(), last["ended"].as_bool()), (Some(13), Some(true)));
    // The same end again is the same; another is not.
    assert_eq!(ground.put(&run, "?offset=8&end=true", b"three").await.ok(200), last);
    assert_eq!(ground.put(&run, "", b"more").await.problem(409, "conflict")["received"], 13);
    ground.put(&run, "?offset=0&end=true", b"one").await.problem(409, "conflict");
    assert_eq!(ground.taken(&run), (b"one two three".to_vec(), true));
    ground.cancel(&run).await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn only_a_run_that_asked_and_goes_on_takes_input() {
    let ground = Ground::new().await;
    let deaf = ground.world.run("deaf", &ground.session, "sleep", json!({})).await;
    ground.put(&deaf, "", b"x").await.problem(409, "stdin_not_wanted");
    ground.look(&deaf).await.problem(409, "stdin_not_wanted");
    ground.put("01890000000000000000000000000000", "", b"x").await.problem(404, "execution_not_found");
    let run = ground.run("run").await;
    for query in ["?offset=-1", "?end=perhaps", "?at=0"] {
        let status = ground.put(&run, query, b"x").await.status;
        assert!((400..500).contains(&status), "{query}: {status}");
    }
    ground.cancel(&run).await;
    ground.put(&run, "", b"x").await.problem(410, "stdin_closed");
    ground.look(&run).await.problem(410, "stdin_closed");
    ground.cancel(&deaf).await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_that_break_are_opened_again_and_no_byte_is_lost_or_doubled() {
    let ground = Ground::new().await;
    ground.shop.see(|seen| seen.inputs.frames_per_stream = Some(3));
    let run = ground.run("run").await;
    let bytes = numbers(200_000);
    let answer = ground.put(&run, "?end=true", &bytes).await.ok(200);
    assert_eq!(answer["received"].as_u64(), Some(bytes.len() as u64));
    assert!(ground.taken(&run) == (bytes, true));
    assert!(ground.shop.see(|seen| seen.inputs.streams) > 4);
    ground.cancel(&run).await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_dies_goes_on_at_what_was_received() {
    let ground = Ground::new().await;
    let run = ground.run("run").await;
    let bytes = numbers(100_000);
    let mut socket = half_a_body(&ground.client, &run, "", bytes.len(), &bytes[..150_000]).await;
    until("the first half", || async { (ground.taken(&run).0.len() == 150_000).then_some(()) }).await;
    socket.shutdown().await.unwrap();
    drop(socket);
    let so_far = received(&ground.look(&run).await);
    assert_eq!(so_far, 150_000);
    // From before it, as a client does that does not know better.
    let answer = ground.put(&run, "?offset=100000&end=true", &bytes[100_000..]).await.ok(200);
    assert_eq!(answer["received"].as_u64(), Some(bytes.len() as u64));
    assert!(ground.taken(&run) == (bytes, true));
    ground.cancel(&run).await;
    ground.close().await;
}

/// Announces a body and sends less than that.
async fn half_a_body(client: &Client, run: &str, query: &str, announced: usize, bytes: &[u8]) -> TcpStream {
    let Client { address, token } = client;
    let mut socket = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /executions/{run}/stdin{query} HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {token}\r\ncontent-length: {announced}\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).await.unwrap();
    socket.write_all(bytes).await.unwrap();
    socket
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_that_waits_is_replaced_by_one_that_says_where_it_goes_on_and_by_no_other() {
    let ground = Ground::new().await;
    ground.shop.see(|seen| seen.inputs.room = Some(200_000));
    let run = ground.run("run").await;
    let bytes = numbers(500_000);
    let waiting = tokio::spawn({
        let (client, path, bytes) = (ground.client.clone(), format!("/executions/{run}/stdin"), bytes.clone());
        async move { client.send("POST", &path, "", &bytes).await }
    });
    until("the room is used", || async { (ground.taken(&run).0.len() > 130_000).then_some(()) }).await;
    ground.put(&run, "", b"x").await.problem(409, "wrong_state");
    let so_far = received(&ground.look(&run).await);
    assert!(!waiting.is_finished());
    ground.shop.see(|seen| seen.inputs.room = None);
    let rest = usize::try_from(so_far).unwrap();
    let answer = ground.put(&run, &format!("?offset={so_far}&end=true"), &bytes[rest..]).await;
    let replaced = tokio::time::timeout(HUNG, waiting).await.unwrap().unwrap();
    // Room came, and who was first to use it is a matter of luck; either way every byte is there once.
    if replaced.status == 409 {
        replaced.problem(409, "conflict");
    } else {
        assert_eq!(received(&replaced), bytes.len() as u64);
    }
    assert_eq!(answer.ok(200)["received"].as_u64(), Some(bytes.len() as u64));
    assert!(ground.taken(&run) == (bytes, true));
    ground.cancel(&run).await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sender_to_a_tool_that_does_not_read_is_told_when_the_run_is_over() {
    let ground = Ground::new().await;
    ground.shop.see(|seen| seen.inputs.room = Some(70_000));
    let run = ground.run("run").await;
    let waiting = tokio::spawn({
        let (client, path) = (ground.client.clone(), format!("/executions/{run}/stdin"));
        async move { client.send("POST", &path, "", &numbers(1_000_000)).await }
    });
    until("the room is used", || async { (!ground.taken(&run).0.is_empty()).then_some(()) }).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!waiting.is_finished());
    ground.cancel(&run).await;
    let told = tokio::time::timeout(HUNG, waiting).await.unwrap().unwrap().problem(410, "stdin_closed");
    assert_eq!(told["received"].as_u64(), Some(ground.taken(&run).0.len() as u64));
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_short_text_comes_with_the_run_once_however_often_it_is_asked_for() {
    let ground = Ground::new().await;
    ground.shop.see(|seen| seen.inputs.frames_per_stream = Some(1));
    let longest = "\u{e9}".repeat(32 * 1024);
    let first = ground.try_run("run", "sleep", json!({ "text": longest })).await.ok(201);
    let run = text(&first, "executionId");
    assert!(ground.taken(&run) == (longest.clone().into_bytes(), true));
    assert_eq!(ground.try_run("run", "sleep", json!({ "text": longest })).await.ok(201), first);
    ground.try_run("run", "sleep", json!({ "text": "other" })).await.problem(422, "idempotency_mismatch");
    ground.shop.see(|seen| seen.inputs.frames_per_stream = None);
    ground.put(&run, "", b"x").await.problem(409, "conflict");
    assert_eq!(ground.shop.see(|seen| seen.jobs.len()), 1);
    // One that is over before it could read is none the worse for it.
    let echo = text(&ground.try_run("echo", "echo", json!({ "text": "unread" })).await.ok(201), "executionId");
    assert_eq!(ground.world.over(&echo).await["status"], "completed");
    ground.cancel(&run).await;
    ground.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_input_starts_nothing() {
    let ground = Ground::new().await;
    let long = "x".repeat(64 * 1024 + 1);
    ground.try_run("long", "sleep", json!({ "text": long })).await.problem(413, "too_large");
    for (key, wrong) in
        [("both", json!({ "text": "x", "stream": true })), ("none", json!({})), ("kind", json!("x")), ("more", json!({ "bytes": "x" }))]
    {
        ground.try_run(key, "sleep", wrong).await.problem(422, "invalid_body");
    }
    assert_eq!(ground.shop.see(|seen| seen.jobs.len()), 0);
    let run = text(&ground.try_run("off", "sleep", json!({ "stream": false })).await.ok(201), "executionId");
    ground.put(&run, "", b"x").await.problem(409, "stdin_not_wanted");
    ground.cancel(&run).await;
    ground.close().await;
}
