//! The log of an execution as a stream.
//!
//! Always true: a reader first gets what it has not seen (`Last-Event-ID`), then what comes; the stream ends with an event that says so, and a reader who comes back
//! with everything is told that there is no more (204); where output is missing, there is a `gap`.

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
use serde_json::{Value, json};
use tokio::sync::watch;

use super::models::run_status;
use super::runs::find;
use super::{App, Shared};
use crate::decimal::Time;
use crate::lines::Skipped;
use crate::logs::LiveLog;
use crate::rows::{LogLine, OutputTail, Refusal};

/// Lines taken from a log at a time.
const BATCH: usize = 256;
/// How long the end of a log waits for the receipt that says how the run ended.
const OUTCOME_LIMIT: Duration = Duration::from_secs(3);

/// The output of a run, line by line: what was written, then what is being written, then `end`.
///
/// | Event | Data |
/// | --- | --- |
/// | `stdout`, `stderr` | `timestamp`, `line`; a line of more than 16 KiB comes in pieces |
/// | `gap` | `lines` that are missing here; null if nobody knows how many |
/// | `end` | `executionId`, `status`, `exitCode`, `endReason`; nothing follows |
///
/// The gateway keeps the newest 8 MiB of a run's output while it is in memory, and the last 64 KiB after that. A `gap` with a number is a place where output never came to this gateway: it
/// was written faster than it could be fetched, or its provider was lost. One without a number stands for lines that came and are not kept any more. After the gateway was started anew
/// while a run went on, lines keep their numbers up to the first such place; from there on numbers are higher than all before, and what a reader had may come a second time.
#[utoipa::path(get, path = "/logs/{id}", operation_id = "followLog", tag = "runs", params(super::openapi::FollowHeader), responses(
    (status = 200, description = "Events `stdout`, `stderr`, `gap`, `end`.", content((crate::http::openapi::EventJson = "text/event-stream"), (crate::http::openapi::EventLineJson = "application/x-ndjson"))),
    (status = 204, description = "The run has ended, and you have everything that there is."),
    (status = 400, description = "`invalid_last_event_id`"),
    (status = 404, description = "`execution_not_found`"),
))]
pub(super) async fn log(State(app): Shared, Path(id): Path<String>, follow: Follow) -> Result<Response, Refusal> {
    let (execution, row) = find(&app, &id).await?;
    let after = follow.last_event_id().unwrap_or(0);
    if let Some(log) = app.sessions.context.logs.get(&execution) {
        if follow.last_event_id().is_some() && matches!(log.after(after, 1), (replay, true) if replay.lines.is_empty()) {
            return Ok(follow.finished());
        }
        let changes = log.watch();
        let reader = LogReader { app, execution, log, changes, after, ready: VecDeque::new(), done: false };
        return Ok(follow.respond(stream::unfold(reader, LogReader::turn)));
    }
    let tail = app.sessions.kept_output(execution, &row).await?;
    if follow.last_event_id().is_some() && tail.lines.last().is_none_or(|last| last.number <= after) {
        return Ok(follow.finished());
    }
    let mut events: Vec<Event> = skipped_of(&tail, after).map(gap).into_iter().collect();
    events.extend(tail.lines.iter().filter(|line| line.number > after).map(line));
    events.push(end(&app, execution).await);
    Ok(follow.respond(stream::iter(events)))
}

/// What a reader wanted of a log of which only the end is kept.
fn skipped_of(tail: &OutputTail, after: u64) -> Option<Skipped> {
    let first = tail.lines.first().filter(|first| !first.is_gap())?;
    match first.number.saturating_sub(after).saturating_sub(1) {
        0 => None,
        count => Some(tail.hash.map_or(Skipped::Unknown, |_| Skipped::Lines(count))),
    }
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
            self.ready.extend(replay.skipped.map(gap));
            self.ready.extend(replay.lines.iter().map(line));
            self.after = replay.after;
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
    if line.is_gap() {
        return Event::numbered(line.number, "gap", gap_data(Skipped::Unknown));
    }
    let name = match line.stream {
        OutputStream::Stdout => "stdout",
        OutputStream::Stderr => "stderr",
    };
    let text = line.text.strip_suffix('\r').unwrap_or(&line.text);
    Event::numbered(line.number, name, json!({ "timestamp": Time(line.at).to_string(), "line": text }))
}

fn gap(skipped: Skipped) -> Event {
    Event::new("gap", gap_data(skipped))
}

fn gap_data(skipped: Skipped) -> Value {
    let lines = match skipped {
        Skipped::Lines(count) => Some(count),
        Skipped::Unknown => None,
    };
    json!({ "lines": lines })
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
