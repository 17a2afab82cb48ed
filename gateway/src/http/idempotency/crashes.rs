//! Power fails at every operation on the disk while requests are carried out; each is repeated as a caller repeats it that got no answer.

use std::collections::{BTreeMap, BTreeSet};

use orien_bootstrap::FaultyDisk;
use orien_protocol::id::ExecutionId;
use orien_protocol::time::Timestamp;
use serde_json::json;

use super::tests::{body, key};
use super::*;
use crate::rows::{ExecutionRow, RunStatus};

const REQUESTS: [&str; 6] = ["a", "b", "poor", "c", "d", "e"];

fn session() -> SessionId {
    SessionId::from_parts(1, 1)
}

/// What a run does: what it makes is written in one with the mark of its key, unless an earlier attempt made it.
async fn act(store: Store, name: &'static str, ticket: Ticket) -> Result<Done, Refusal> {
    if name == "poor" {
        return Err(Refusal::new(StatusCode::PAYMENT_REQUIRED, "code", "title", "detail"));
    }
    let made = ExecutionId::from_bytes(ticket.seed);
    if store.execution(made).await?.is_none() {
        let row = ExecutionRow {
            session: session(),
            tool: name.to_owned(),
            args: "{}".to_owned(),
            asked_at: Timestamp(1),
            started_at: None,
            completed_at: None,
            status: RunStatus::Pending,
            work: None,
            fault: None,
        };
        // Some answers are known beforehand, and nothing is written for them afterwards.
        let (mark, done) = match name {
            "b" | "d" => ticket.mark_answered(answer_of(made)?)?,
            _ => (ticket.mark()?, answer_of(made)?),
        };
        store.write(vec![mark, Put::execution(&made, &row)?]).await?;
        return Ok(done);
    }
    answer_of(made)
}

fn answer_of(made: ExecutionId) -> Result<Done, Refusal> {
    Done::new(StatusCode::CREATED, &json!({ "made": made.to_string() }))
}

async fn ask(store: &Store, name: &'static str) -> (u16, bool, String) {
    let theirs = store.clone();
    let acting = move |ticket| act(theirs, name, ticket);
    body(Keys::new(store.clone()).once("op", &key(name).await, &[name.as_bytes()], acting).await).await
}

/// Asks for everything, and gives the answers up to the first that is none.
async fn ask_all(store: &Store) -> BTreeMap<&'static str, String> {
    let mut answers = BTreeMap::new();
    for name in REQUESTS {
        let (status, replayed, text) = ask(store, name).await;
        if status >= 500 {
            break;
        }
        assert!(!replayed);
        answers.insert(name, text);
    }
    answers
}

async fn crash(operation: u64, seed: u64) {
    let what = format!("crash {operation} {seed}");
    let disk = FaultyDisk::default();
    disk.cut_at(operation, seed);
    let answers = match Store::over(disk.clone(), CancellationToken::new()) {
        Ok(store) => {
            let answers = ask_all(&store).await;
            for name in REQUESTS.into_iter().filter(|name| !answers.contains_key(name)) {
                assert!(ask(&store, name).await.0 >= 500, "{what}: {name} is answered after a failed write");
            }
            answers
        }
        Err(_) => BTreeMap::new(),
    };
    let store = Store::over(FaultyDisk::holding(disk.left(seed)), CancellationToken::new()).unwrap();
    let mut made = BTreeSet::new();
    for name in REQUESTS {
        let (status, replayed, text) = ask(&store, name).await;
        assert_eq!(status, if name == "poor" { 402 } else { 201 }, "{what}: {name}");
        if let Some(first) = answers.get(name) {
            assert_eq!((replayed, &text), (true, first), "{what}: {name} was answered already");
        }
        assert_eq!(ask(&store, name).await, (status, true, text.clone()), "{what}: {name}");
        made.insert(text);
    }
    let (runs, all) = store.executions_of(session(), None, 100).await.unwrap();
    let tools: BTreeSet<String> = runs.iter().map(|(_, row)| row.tool.clone()).collect();
    assert_eq!((all, tools.len(), made.len()), (5, 5, 6), "{what}: something was made twice");
    assert!(runs.iter().all(|(id, _)| made.contains(&json!({ "made": id.to_string() }).to_string())), "{what}");
}

#[tokio::test]
async fn whenever_the_power_fails_a_request_that_is_repeated_is_carried_out_once_and_answered_alike() {
    let disk = FaultyDisk::default();
    let store = Store::over(disk.clone(), CancellationToken::new()).unwrap();
    assert_eq!(ask_all(&store).await.len(), REQUESTS.len());
    drop(store);
    let end = disk.operations();
    let is_all = std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all");
    let step = if is_all { 1 } else { (end / 60).max(1) };
    for operation in (0..=end).filter(|operation| operation.is_multiple_of(step)) {
        crash(operation, operation).await;
    }
}
