//! What the store promises.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::OutputStream;
use orien_protocol::session::agent::AgentRecord;
use orien_protocol::time::Timestamp;

use super::put::Change;
use super::*;
use crate::rows::{LogLine, RunStatus};

fn open(directory: &tempfile::TempDir) -> Store {
    Store::open(&directory.path().join("store"), CancellationToken::new()).unwrap()
}

fn session(n: u128) -> SessionId {
    SessionId::from_parts(u64::try_from(n).unwrap(), n)
}

fn row(of: SessionId, status: RunStatus) -> ExecutionRow {
    ExecutionRow {
        session: of,
        tool: "echo".to_owned(),
        args: "{}".to_owned(),
        asked_at: Timestamp(1),
        started_at: None,
        completed_at: None,
        status,
        work: None,
        fault: Some(Fault::new(FaultCode::BUSY, "x")),
    }
}

#[tokio::test]
async fn what_was_written_is_there_after_a_restart_in_its_order() {
    let directory = tempfile::tempdir().unwrap();
    let records = [AgentRecord::Ending, AgentRecord::JobRefused(ExecutionId::from_parts(1, 1)), AgentRecord::Ending];
    {
        let store = open(&directory);
        for (seq, record) in (0_u64..).zip(&records) {
            store.write(vec![Put::record(&session(1), seq, record).unwrap()]).await.unwrap();
        }
        store.write(vec![Put::record(&session(2), 0, &records[0]).unwrap()]).await.unwrap();
        let request = RequestId::from_parts(5, 5);
        store.write(vec![Put::reservation(&session(1), Usdc::from_micros(7), &request)]).await.unwrap();
    }
    let store = open(&directory);
    assert_eq!(store.records(session(1)).await.unwrap(), records);
    assert_eq!(store.records(session(3)).await.unwrap(), []);
    assert_eq!(store.reservation(session(1), Usdc::from_micros(7)).await.unwrap(), Some(RequestId::from_parts(5, 5)));
    assert_eq!(store.reservation(session(1), Usdc::from_micros(8)).await.unwrap(), None);
}

#[tokio::test]
async fn runs_are_found_by_session_newest_first_and_the_unfinished_apart() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    for n in 0..5_u8 {
        let status = if n == 2 { RunStatus::Pending } else { RunStatus::Completed };
        let put = Put::execution(&ExecutionId::from_parts(u64::from(n), 0), &row(session(1), status)).unwrap();
        store.write(vec![put]).await.unwrap();
    }
    store.write(vec![Put::execution(&ExecutionId::from_parts(9, 0), &row(session(2), RunStatus::Pending)).unwrap()]).await.unwrap();
    let (newest, all) = store.executions_of(session(1), None, 2).await.unwrap();
    assert_eq!(all, 5);
    assert_eq!(newest.iter().map(|(id, _)| *id).collect::<Vec<_>>(), [ExecutionId::from_parts(4, 0), ExecutionId::from_parts(3, 0)]);
    let unfinished = store.unfinished_of(session(1)).await.unwrap();
    assert_eq!(unfinished.into_keys().collect::<Vec<_>>(), [ExecutionId::from_parts(2, 0)]);
}

#[tokio::test]
async fn a_full_tail_fits_into_a_stored_value() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut lines = crate::lines::Lines::default();
    lines.push(Timestamp(1), OutputStream::Stderr, &b"\n".repeat(1_000_000));
    let id = ExecutionId::from_parts(1, 1);
    store.write(vec![Put::output(&id, &lines.tail()).unwrap()]).await.unwrap();
    let kept = store.output(id).await.unwrap().unwrap();
    assert!(kept.cut && kept.lines.last().is_some_and(|line: &LogLine| line.number == 1_000_000));
}

#[tokio::test]
async fn writes_at_the_same_time_are_all_there() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let mut writes = tokio::task::JoinSet::new();
    for seq in 0..500 {
        let store = store.clone();
        writes.spawn(async move { store.write(vec![Put::record(&session(1), seq, &AgentRecord::Ending).unwrap()]).await });
    }
    while let Some(written) = writes.join_next().await {
        written.unwrap().unwrap();
    }
    assert_eq!(store.records(session(1)).await.unwrap().len(), 500);
}

#[tokio::test]
async fn a_value_of_an_unknown_layout_is_a_clear_error() {
    let directory = tempfile::tempdir().unwrap();
    let store = open(&directory);
    let id = session(1);
    store.write(vec![Put(Change::Session { session: *id.as_bytes(), value: vec![9, 1, 2] })]).await.unwrap();
    let error = store.session(id).await.unwrap_err().to_string();
    assert!(error.contains("layout 9"), "{error}");
}

#[tokio::test]
async fn something_else_than_a_store_is_not_opened() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    std::fs::write(&path, b"not a database").unwrap();
    assert!(matches!(Store::open(&path, CancellationToken::new()), Err(StoreError::Open { .. })));
    std::fs::remove_file(&path).unwrap();
    let _held = open(&directory);
    assert!(matches!(Store::open(&path, CancellationToken::new()), Err(StoreError::Open { .. })), "a second opener");
}
