//! The events of a session as a stream: what happened, and what it costs meanwhile.
//!
//! Always true: a reader first gets what it has not seen (`Last-Event-ID`), then what comes; what is gone for good is told as `gap`; the last event is `end`, and a reader who comes back
//! with everything is told that there is no more (204). Money in events is a decimal string. Meter readings have no number: only the newest one means anything.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use futures::stream;
use orien_bootstrap::clock;
use orien_door::Path;
use orien_door::sse::{Event, Follow};
use orien_protocol::money::Usdc;
use serde_json::json;
use tokio::sync::watch;
use tokio::time::Instant;

use super::{Shared, session_id};
use crate::decimal::Time;
use crate::desk::{self, Desk, Phase};
use crate::meter::Reading;
use crate::news::{Missed, SessionEvent};
use crate::rows::Refusal;

/// How often the meter is told while something runs.
const METER: Duration = Duration::from_secs(1);

/// What happens in a session, as it happens.
///
/// | Event | Data |
/// | --- | --- |
/// | `opened` | |
/// | `run` | `executionId`, `toolId`, `status`; `startedAt`; at the end `cost`, `effectiveMs`, `endReason`, `exitCode`, or `fault` |
/// | `receipt` | `number`, `budgetConsumed`; of a run also `executionId`, `effectiveMs`, `cost`, `endReason`, `exitCode` |
/// | `meter` | `charged` and `remaining` by receipts, and `minimumUnused` of the minimum charge, which runs can still use; `estimatedCharge` and `estimatedRemaining` with what runs since by this gateway's clock; `ratePerMinute`, `running`; each second while something runs |
/// | `artifact` | after a run: `executionId`, `files` that are new or changed since it began, `more` |
/// | `warning` | `kind` `budget`: four fifths of it are used; once, and again after a top-up |
/// | `topped_up` | `budgetAllowance` |
/// | `connected`, `disconnected` | whether the provider can be reached |
/// | `disputed`, `voucher_refused` | `fault` |
/// | `extended` | `expiresAt` |
/// | `failover`, `replaced`, `replaces`, `failover_failed` | the provider was lost: how the session goes on, with which other session, or why it does not |
/// | `gap` | `events` that are gone for good; null if nobody knows how many |
/// | `end` | `reason`, `status`, `budgetConsumed`, `fault`; nothing follows |
#[utoipa::path(get, path = "/api/sessions/{id}/events", operation_id = "followSession", tag = "sessions", params(super::openapi::FollowHeader), responses(
    (status = 200, description = "Events until the session ends.", content((crate::http::openapi::EventJson = "text/event-stream"), (crate::http::openapi::EventLineJson = "application/x-ndjson"))),
    (status = 204, description = "The session has ended, and you have everything."),
    (status = 400, description = "`invalid_last_event_id`"),
    (status = 404, description = "`session_not_found`"),
))]
pub(super) async fn session(State(app): Shared, Path(id): Path<String>, follow: Follow) -> Result<Response, Refusal> {
    let session = session_id(&id)?;
    let view = app.view(session).await?;
    let seen = follow.last_event_id();
    if let Some(desk) = app.sessions.desk(&session) {
        let has_all = desk.read(|state| state.phase == Phase::Closed && seen.is_some_and(|seen| seen >= state.news.last()));
        if has_all {
            return Ok(follow.finished());
        }
        return Ok(follow.respond(stream::unfold(Reader::new(desk, seen), Reader::turn)));
    }
    match view.closing {
        Some(closing) if seen.is_none_or(|seen| seen < closing.at.0) => {
            let end = Event::numbered(closing.at.0, "end", desk::end_data(&closing, &view.plan, view.handover.as_ref()));
            Ok(follow.respond(stream::iter([end])))
        }
        _ => Ok(follow.finished()),
    }
}

struct Reader {
    changes: watch::Receiver<u64>,
    desk: Arc<Desk>,
    seen: Option<u64>,
    ready: VecDeque<Event>,
    /// The newest reading that was told, and when.
    told: Option<(Reading, [Usdc; 2], Instant)>,
    done: bool,
}

impl Reader {
    fn new(desk: Arc<Desk>, seen: Option<u64>) -> Self {
        Self { changes: desk.watch(), desk, seen, ready: VecDeque::new(), told: None, done: false }
    }

    async fn turn(mut self) -> Option<(Event, Self)> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                return Some((event, self));
            }
            if self.done {
                return None;
            }
            self.changes.mark_unchanged();
            self.look();
            if !self.ready.is_empty() || self.done {
                continue;
            }
            let running = self.told.filter(|(reading, ..)| reading.running > 0);
            let tick = async {
                match running {
                    Some((.., at)) => tokio::time::sleep_until(at + METER).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                changed = self.changes.changed() => changed.ok()?,
                () = tick => {}
            }
        }
    }

    /// Takes what is new.
    fn look(&mut self) {
        let now = clock::now();
        self.desk.want_artifacts(now.mono);
        let ((missed, events), last, over, reading, sums, unused) = self.desk.read(|state| {
            let reading = state.meters.read(state.charged, state.budget, now.mono);
            let sums = [state.charged, state.budget];
            (state.news.after(self.seen), state.news.last(), state.phase == Phase::Closed, reading, sums, state.meters.minimum_unused())
        });
        if let Some(missed) = missed {
            self.ready.push_back(gap(missed));
        }
        self.seen = Some(last);
        self.ready.extend(events.into_iter().map(event));
        self.done = over;
        if !over && self.is_due(&reading, sums) {
            self.told = Some((reading, sums, Instant::now()));
            self.ready.push_back(meter(&reading, sums, unused, &Time(now.wall)));
        }
    }

    /// Whether the meter has to be told: it never was, money or runs have changed, or something runs and it is time.
    fn is_due(&self, reading: &Reading, sums: [Usdc; 2]) -> bool {
        self.told.is_none_or(|(told, sums_told, at)| {
            let changed = sums != sums_told || (told.running, told.per_minute) != (reading.running, reading.per_minute);
            changed || (reading.running > 0 && at.elapsed() >= METER)
        })
    }
}

fn event(event: SessionEvent) -> Event {
    Event::numbered(event.number, event.name, event.data)
}

fn gap(missed: Missed) -> Event {
    let events = match missed {
        Missed::Events(count) => Some(count),
        Missed::EarlierRun => None,
    };
    Event::new("gap", json!({ "events": events }))
}

fn meter(reading: &Reading, [charged, budget]: [Usdc; 2], unused: Usdc, at: &Time) -> Event {
    Event::new(
        "meter",
        json!({
            "at": at.to_string(),
            "charged": charged.to_string(),
            "remaining": budget.excess_over(charged).to_string(),
            "minimumUnused": unused.to_string(),
            "estimatedCharge": reading.estimated.to_string(),
            "estimatedRemaining": budget.excess_over(reading.estimated).to_string(),
            "ratePerMinute": reading.per_minute.to_string(),
            "running": reading.running,
        }),
    )
}
