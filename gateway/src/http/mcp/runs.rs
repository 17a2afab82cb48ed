//! `run_tool`, `get_run` and `cancel_run`.
//!
//! Always true: a run that this call has begun and that nobody waits for any more is stopped, unless the caller said to let it go on; its handle is good for as
//! long as the gateway knows the run, whatever becomes of this connection.

use std::time::Duration;

use rmcp::model::{CreateTaskResult, ProtocolVersion, Resource, Task};
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::api::segment;
use super::call::{Call, key};
use super::failure::Failure;
use super::inputs::{CancelRun, GetRun, RunTool};
use super::reply::Reply;
use super::sessions::remaining;
use super::shapes::{Run, RunIn, StartedIn};
use super::watch::{self, Keep, Seen, Stopped};

/// How long `run_tool` waits unless told otherwise: some hosts give up on a call after a minute and lose its answer.
const WAIT_SECONDS: u32 = 45;
/// Longest wait.
const WAIT_LIMIT_SECONDS: u32 = 300;
/// How often a host should look at a run that it follows as a task.
const POLL_MS: u64 = 2000;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Order<'a> {
    session_id: &'a str,
    tool_id: &'a str,
    args: &'a Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
}

pub(super) async fn run(call: &Call, input: RunTool) -> Result<Reply, Failure> {
    let key = key("run_tool", &input.session_id, input.request_id.as_deref())?;
    let order = Order {
        session_id: &input.session_id,
        tool_id: &input.tool_id,
        args: &input.args,
        stdin: input.stdin.as_ref().map(|text| json!({ "text": text })),
        max_cost: input.max_cost_usdc.map(|amount| amount.0.to_string()),
        timeout_seconds: input.timeout_seconds,
    };
    // Not given up half-way: whoever begins a run has to know its id to stop it.
    let started: Result<StartedIn, Failure> = call.api.post("/tools/run", &order, &key).await;
    let run = match started {
        Ok(started) => started.execution_id,
        Err(failure) => return Err(explained(call, &input.session_id, failure).await),
    };
    if input.detach {
        let (seen, _) = watch::watch(call, &run, Keep::Last, Duration::ZERO).await?;
        return shown(call, &watch::fetch(call, &run).await?, &seen);
    }
    let wait = Duration::from_secs(input.wait_s.unwrap_or(WAIT_SECONDS).min(WAIT_LIMIT_SECONDS).into());
    let (seen, stopped) = watch::watch(call, &run, Keep::Last, wait).await?;
    match stopped {
        Stopped::Over => finished(call, &watch::ended(call, &run).await?, &seen).await,
        Stopped::Waiting => {
            let now = watch::fetch(call, &run).await?;
            if now.is_over() { finished(call, &now, &seen).await } else { shown_or_task(call, &now, &seen) }
        }
        // When the gateway stops, callers are gone too, but what they pay for goes on: they find it again by its id.
        Stopped::Cancelled if call.shared.is_stopping() => Err(Failure::unreachable("the gateway is stopping; the run goes on")),
        Stopped::Cancelled => {
            let stopped = watch::stop(call, &run).await?;
            tracing::info!(run, cost = %stopped.cost.0, "a run was stopped because its caller has gone or cancelled it");
            finished(call, &stopped, &seen).await
        }
    }
}

pub(super) async fn get(call: &Call, input: GetRun) -> Result<Reply, Failure> {
    let run = watch::fetch(call, &input.run_id).await?;
    let keep = input.log_cursor.map_or(Keep::Last, Keep::After);
    let wait = Duration::from_secs(input.wait_s.unwrap_or(0).min(WAIT_LIMIT_SECONDS).into());
    // Whoever only looks does not stop it by looking away.
    let (seen, stopped) = watch::watch(call, &run.execution_id, keep, wait).await?;
    let now = match stopped {
        Stopped::Over => watch::ended(call, &run.execution_id).await?,
        Stopped::Waiting | Stopped::Cancelled => watch::fetch(call, &run.execution_id).await?,
    };
    // One of which nobody knows how it ended is nothing that the caller could have meant.
    if now.is_over() && now.fault.is_some() { finished(call, &now, &seen).await } else { shown(call, &now, &seen) }
}

pub(super) async fn cancel(call: &Call, input: CancelRun) -> Result<Reply, Failure> {
    let run = watch::stop(call, &input.run_id).await?;
    let (seen, _) = watch::watch(call, &input.run_id, Keep::Last, Duration::ZERO).await?;
    shown(call, &run, &seen)
}

/// The result of a run that is over, however it was followed.
pub(super) async fn result(call: &Call, run: &RunIn) -> Result<Reply, Failure> {
    let (seen, _) = watch::watch(call, &run.execution_id, Keep::Last, Duration::ZERO).await?;
    finished(call, run, &seen).await
}

/// A run that was waited for to its end: an error if it failed, as a tool of the host's own would be.
async fn finished(call: &Call, run: &RunIn, seen: &Seen) -> Result<Reply, Failure> {
    if run.status != "failed" {
        return shown(call, run, seen);
    }
    let reason = run.end_reason.as_deref().unwrap_or_default();
    let code = match (reason, &run.fault) {
        ("cancelled", _) => "run_cancelled",
        ("timed_out", _) => "run_timeout",
        ("cost_reached", _) => "max_cost_reached",
        ("budget_reached", _) => "budget_exhausted",
        ("" | "exited" | "signalled", None) => "run_failed",
        ("", Some(fault)) => fault.code.as_str(),
        (other, _) => other,
    };
    let how = match (run.exit_code, &run.fault) {
        (Some(code), _) => format!("the tool exited with code {code}"),
        (None, Some(fault)) => fault.detail.clone(),
        (None, None) => format!("the run ended: {reason}"),
    };
    let output = seen.text();
    let detail = format!("{how}; run {}, charged {} USDC", run.execution_id, run.cost.0);
    let mut failure = Failure::new(code, if output.is_empty() { detail } else { format!("{detail}\n{output}") });
    let facts = serde_json::to_value(line(run, seen)).unwrap_or_default();
    for (name, value) in facts.as_object().into_iter().flatten() {
        failure = failure.with(name, value.clone());
    }
    Err(explained(call, &run.session_id, failure).await)
}

/// A refusal for want of budget, with what remains of it; one for want of a session, with the session that goes on.
async fn explained(call: &Call, session: &str, failure: Failure) -> Failure {
    let failure = failure.with("session_id", session);
    if failure.is_about_an_end() {
        let successor = super::sessions::fetch(call, session).await.ok().and_then(|session| session.replaced_by);
        return successor.into_iter().fold(failure, Failure::goes_on_in);
    }
    if !failure.is_about_budget() {
        return failure;
    }
    match remaining(call, session).await {
        Ok(left) => failure.with("remaining_usdc", left.to_string()),
        Err(_) => failure,
    }
}

/// A run that goes on, or a task that the host follows, if it can.
fn shown_or_task(call: &Call, run: &RunIn, seen: &Seen) -> Result<Reply, Failure> {
    // Tasks of the older era were others, and hosts that name them do not know these.
    let modern = call.context.protocol_version().is_some_and(|version| version.as_str() >= ProtocolVersion::V_2026_07_28.as_str());
    let follows = modern && call.context.client_capabilities().is_some_and(|capabilities| capabilities.supports_tasks());
    if follows { Ok(Reply::Task(CreateTaskResult::new(task(run)))) } else { shown(call, run, seen) }
}

/// A run as a task of the protocol.
pub(super) fn task(run: &RunIn) -> Task {
    let begun = run.started_at.clone().unwrap_or_default();
    let changed = run.completed_at.clone().unwrap_or_else(|| begun.clone());
    let status = if run.is_over() { rmcp::model::TaskStatus::Completed } else { rmcp::model::TaskStatus::Working };
    let message = format!("{} of {}: charged {} USDC so far", run.status, run.tool_id, run.cost.0);
    Task::new(run.execution_id.clone(), status, begun, changed).with_poll_interval_ms(POLL_MS).with_status_message(message)
}

/// A run as it stands, with what was seen of its output.
pub(super) fn shown(call: &Call, run: &RunIn, seen: &Seen) -> Result<Reply, Failure> {
    let line = line(run, seen);
    let exit = run.exit_code.map(|code| format!(", exit code {code}")).unwrap_or_default();
    let reason = run.end_reason.as_deref().filter(|reason| *reason != "exited").map(|reason| format!(" ({reason})")).unwrap_or_default();
    let mut text =
        format!("Run {} is {}{reason}{exit}; {} USDC so far; log_cursor {}", run.execution_id, run.status, run.cost.0, seen.cursor);
    if let Some(hint) = &line.hint {
        text.push_str(&format!("\n{hint}"));
    }
    if !line.output.is_empty() {
        let cut = if line.truncated { "(some lines are missing)\n" } else { "" };
        text.push_str(&format!("\n---\n{cut}{}", line.output));
    }
    let mut links = Vec::new();
    if line.truncated || line.more {
        let address = format!("{}/logs/{}", call.api.base(), segment(&run.execution_id));
        links.push(Resource::new(address, "log").with_description("The whole log of the run, as an event stream"));
    }
    Reply::with_links(text, &line, links)
}

fn line(run: &RunIn, seen: &Seen) -> Run {
    let hint = match () {
        () if seen.full => Some("There is more output: call get_run with this run_id and log_cursor.".to_owned()),
        () if !run.is_over() => {
            Some("Still running and charged by the second: call get_run with this run_id and log_cursor, or cancel_run.".to_owned())
        }
        () => None,
    };
    Run {
        run_id: run.execution_id.clone(),
        session_id: run.session_id.clone(),
        tool_id: run.tool_id.clone(),
        status: run.status.clone(),
        exit_code: run.exit_code,
        end_reason: run.end_reason.clone(),
        cost_so_far_usdc: run.cost.0.clone(),
        effective_seconds: run.effective_duration_seconds.as_ref().map(|seconds| seconds.0.clone()),
        output: seen.text(),
        truncated: seen.cut,
        more: seen.full,
        log_cursor: seen.cursor,
        started_at: run.started_at.clone(),
        completed_at: run.completed_at.clone(),
        hint,
    }
}
