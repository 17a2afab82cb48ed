//! The log of an execution as a stream.
//!
//! Always true: a reader first gets what it has not seen (`Last-Event-ID`), then what comes; the stream ends with an event that says so, and a reader who comes back
//! with everything is told that there is no more (204).

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures::stream;
use orien_door::Path;
use orien_door::sse::{Event, Follow};
use orien_protocol::frame::OutputStream;
use orien_protocol::id::ExecutionId;
use serde_json::json;
use tokio::sync::watch;

use super::models::run_status;
use super::runs::find;
use super::{App, Shared};
use crate::decimal::Time;
use crate::logs::LiveLog;
use crate::rows::{LogLine, Refusal};

/// Lines taken from a log at a time.
const BATCH: usize = 256;
/// How long the end of a log waits for the receipt that says how the run ended.
const OUTCOME_LIMIT: Duration = Duration::from_secs(3);

/// The output of a run, line by line: what was written, then what is being written, then `end`.
#[utoipa::path(get, path = "/logs/{id}", operation_id = "followLog", tag = "runs", params(super::openapi::FollowHeader), responses(
    (status = 200, description = "Events `stdout`, `stderr`, `gap`, `end`.", content((crate::http::openapi::EventJson = "text/event-stream"), (crate::http::openapi::EventLineJson = "application/x-ndjson"))),
    (status = 204, description = "The run has ended, and you have everything."),
    (status = 400, description = "`invalid_last_event_id`"),
    (status = 404, description = "`execution_not_found`"),
))]
pub(super) async fn log(State(app): Shared, Path(id): Path<String>, follow: Follow) -> Result<Response, Refusal> {
    let (execution, _) = find(&app, &id).await?;
    let after = follow.last_event_id().unwrap_or(0);
    if let Some(log) = app.sessions.context.logs.get(&execution) {
        if follow.last_event_id().is_some() && matches!(log.after(after, 1), (replay, true) if replay.lines.is_empty()) {
            return Ok(follow.finished());
        }
        let changes = log.watch();
        let reader = LogReader { app, execution, log, changes, after, ready: VecDeque::new(), done: false };
        return Ok(follow.respond(stream::unfold(reader, LogReader::turn)));
    }
    let tail = app.sessions.context.store.output(execution).await?.unwrap_or_default();
    if follow.last_event_id().is_some() && tail.lines.last().is_none_or(|last| last.number <= after) {
        return Ok(follow.finished());
    }
    let mut events: Vec<Event> = Vec::new();
    if let Some(first) = tail.lines.first().filter(|first| first.number > after.saturating_add(1)) {
        events.push(gap(first.number.saturating_sub(after).saturating_sub(1)));
    }
    events.extend(tail.lines.iter().filter(|line| line.number > after).map(line));
    events.push(end(&app, execution).await);
    Ok(follow.respond(stream::iter(events)))
}

struct LogReader {
    app: Arc<App>,
    execution: ExecutionId,
    log: Arc<LiveLog>,
    changes: watch::Receiver<u64>,
    after: u64,
    ready: VecDeque<Event>,
    done: bool,
}

impl LogReader {
    async fn turn(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            if self.done {
                return None;
            }
            self.changes.mark_unchanged();
            let (replay, ended) = self.log.after(self.after, BATCH);
            if replay.skipped > 0 {
                self.ready.push_back(gap(replay.skipped));
                self.after = self.after.saturating_add(replay.skipped);
            }
            if let Some(last) = replay.lines.last() {
                self.after = last.number;
                self.ready.extend(replay.lines.iter().map(line));
            }
            if ended {
                self.ready.push_back(end(&self.app, self.execution).await);
                self.done = true;
            } else if self.ready.is_empty() && self.changes.changed().await.is_err() {
                return None;
            }
        }
    }
}

fn line(line: &LogLine) -> Event {
    let name = match line.stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    };
    let text = line.text.strip_suffix('\r').unwrap_or(&line.text);
    Event::numbered(line.number, name, json!({ "timestamp": Time(line.at).to_string(), "line": text }))
}

fn gap(lines: u64) -> Event {
    Event::new("gap", json!({ "lines": lines }))
}

/// The last event of a log: how the run ended, if its receipt comes in time.
async fn end(app: &App, execution: ExecutionId) -> Event {
    let row = match app.sessions.execution(execution).await {
        Ok(Some(row)) if !row.is_over() => {
            if let Some(desk) = app.sessions.desk(&row.session) {
                // Without it the status is the one of now.
                desk.wait_over(execution, OUTCOME_LIMIT).await;
            }
            app.sessions.execution(execution).await.ok().flatten().or(Some(row))
        }
        other => other.ok().flatten(),
    };
    let outcome = row.as_ref().and_then(|row| row.work.as_ref()).and_then(|work| work.outcome);
    Event::new(
        "end",
        json!({
            "executionId": execution.to_string(),
            "status": row.as_ref().map(run_status),
            "exitCode": outcome.and_then(|outcome| outcome.exit_code),
            "endReason": outcome.map(|outcome| outcome.end.name()),
        }),
    )
}
