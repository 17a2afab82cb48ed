//! Running a tool in a session: its arguments, its output as it comes, how it ended.
//!
//! Always true: the two streams of the tool come out apart, in their order; on a terminal nothing in them can act on it unless `--raw` was said, and elsewhere they come out as they are.

use std::io::{IsTerminal, Read, Write};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::arguments::{Given, Words};
use super::{following, input, is_talkative, resolve, resolve_over};
use crate::cli::{Ask, Call};
use crate::client::events::Event;
use crate::client::{Client, Problem};
use crate::failure::{Failure, Told};
use crate::interrupt::Interrupt;
use crate::output;
use crate::show::{each, harmless, harmless_line, money, text};

/// How long the end of a run is waited for once its output has ended.
const END_LIMIT: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Most sessions that are followed to the one that goes on; a gateway hands one over less often.
const SUCCESSORS_LIMIT: usize = 16;

/// `orien session run`.
pub(crate) fn run(client: &Client, session: &str, call: &Call, detach: bool, ask: &Ask) -> Result<ExitCode> {
    let id = resolve(client, session)?;
    if detach {
        let started = start_or_follow(client, id, call, &Words::read(call)?, ask)?;
        if ask.json {
            output::json(&started)?;
        } else {
            output::line(text(&started["executionId"]));
        }
        return Ok(ExitCode::SUCCESS);
    }
    let interrupt = Interrupt::watch(client)?;
    let mut words = Words::read(call)?;
    let input = words.input.take();
    let run = see_through(client, &start_or_follow(client, id, call, &words, ask)?, input, call, ask, &interrupt)?;
    if ask.json {
        output::json(&run)?;
    }
    let code = exit_code(&run, &interrupt);
    if is_talkative(ask) {
        output::note(said(&run));
    }
    Ok(code.into())
}

/// Starts a tool in a session, or in the one that goes on for it since its provider was lost.
fn start_or_follow(client: &Client, mut id: String, call: &Call, words: &Words<'_>, ask: &Ask) -> Result<Value> {
    let start = |session: &str| start(client, session, call, words.for_session(client, session, call)?);
    for _ in 0..SUCCESSORS_LIMIT {
        let error = match start(&id) {
            Ok(started) => return Ok(started),
            Err(error) => error,
        };
        let Some(next) = error.downcast_ref::<Problem>().and_then(Problem::successor).map(str::to_owned) else { return Err(error) };
        if is_talkative(ask) {
            let session = client.get(&format!("/api/sessions/{next}"))?;
            let provider = text(&session["providerLabel"]);
            output::note(format!("{id} lost its provider; {} goes on for it with {provider}, in an empty workspace", harmless(&next)));
        }
        id = next;
    }
    start(&id)
}

/// Runs a tool with these arguments, follows it to its end, and says how it stands then.
pub(crate) fn carry_out(client: &Client, session: &str, call: &Call, given: Given, ask: &Ask, interrupt: &Interrupt) -> Result<Value> {
    see_through(client, &start(client, session, call, given.args)?, given.input, call, ask, interrupt)
}

/// Follows a run to its end, and says how it stands then.
fn see_through(
    client: &Client,
    started: &Value,
    input: Option<Box<dyn Read + Send>>,
    call: &Call,
    ask: &Ask,
    interrupt: &Interrupt,
) -> Result<Value> {
    let run = started["executionId"].as_str().context("the gateway did not say which run it is")?;
    interrupt.follows(client, run);
    if let Some(input) = input {
        input::feed(client, run, input)?;
    }
    let ended = watch(client, run, call.raw, ask, interrupt)?;
    interrupt.over();
    Ok(ended)
}

/// What a gateway is asked for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Order<'a> {
    session_id: &'a str,
    tool_id: &'a str,
    /// As text: a number is sent with the digits that were typed.
    args: Box<RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    max_cost: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeout_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    stdin: Option<Value>,
}

/// Starts a tool in a session.
fn start(client: &Client, session: &str, call: &Call, args: Box<RawValue>) -> Result<Value> {
    let order = Order {
        session_id: session,
        tool_id: &call.tool,
        args,
        max_cost: call.max_cost.as_deref(),
        timeout_seconds: call.timeout,
        stdin: call.stdin.is_some().then(|| json!({ "stream": true })),
    };
    client.post("/tools/run", &order, None)
}

fn watch(client: &Client, run: &str, raw: bool, ask: &Ask, interrupt: &Interrupt) -> Result<Value> {
    let mut sink = Sink::new(raw, ask.json);
    let mut lost = false;
    following::follow(client, run, interrupt, |event| {
        if !lost && !sink.take(event) {
            lost = true;
            // Who reads no more output wants no more of it made.
            interrupt.hit(client);
        }
    })?;
    ended(client, run)
}

/// A run that has written its last line, as soon as its receipt is there.
fn ended(client: &Client, run: &str) -> Result<Value> {
    let begun = Instant::now();
    loop {
        let state = client.get(&format!("/executions/{run}"))?;
        if state["status"] == "completed" || state["status"] == "failed" {
            return Ok(state);
        }
        if begun.elapsed() > END_LIMIT {
            return Err(Told::error(Failure::Stopped, format!("{run} wrote its last line, and its provider does not say how it ended")));
        }
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// The exit code that a run stands for.
pub(crate) fn exit_code(run: &Value, interrupt: &Interrupt) -> u8 {
    let failure = match run["endReason"].as_str() {
        Some("exited" | "signalled") => {
            // A tool cannot say more than one byte.
            return run["exitCode"].as_i64().and_then(|code| u8::try_from(code).ok()).unwrap_or(Failure::Stopped.code());
        }
        _ if interrupt.is_hit() => Failure::Interrupted,
        Some("timed_out") => Failure::Late,
        Some("cost_reached" | "budget_reached" | "credit_exhausted" | "unredeemed") => Failure::Money,
        _ => match run["fault"]["code"].as_str() {
            Some("budget_exhausted" | "insufficient_funds" | "debt" | "unredeemed_limit" | "daily_cap" | "key_not_authorized") => {
                Failure::Money
            }
            _ => Failure::Stopped,
        },
    };
    failure.code()
}

/// How a run ended, in one line.
pub(crate) fn said(run: &Value) -> String {
    let how = match (run["endReason"].as_str(), run["exitCode"].as_i64()) {
        (Some("exited"), Some(code)) => format!("exit {code}"),
        // The tool's own limit or the caller's: nobody's fault.
        (Some("timed_out"), _) => "timed out".to_owned(),
        (Some(reason), _) => format!("{} by {}", harmless(&reason.replace('_', " ")), text(&run["endParty"])),
        (None, _) => format!("{}: {} [{}]", text(&run["status"]), text(&run["fault"]["detail"]), text(&run["fault"]["code"])),
    };
    format!("{how} after {} s, {}", text(&run["effectiveDurationSeconds"]), money(&run["cost"]))
}

/// Where the output of a tool goes.
struct Sink {
    raw: bool,
    /// With `--json` standard output is for the result alone.
    all_to_stderr: bool,
}

impl Sink {
    fn new(raw: bool, all_to_stderr: bool) -> Self {
        Self { raw, all_to_stderr }
    }

    /// Writes what an event brings; false when nobody reads it any more.
    fn take(&mut self, event: &Event) -> bool {
        match (event.name.as_str(), event.data["line"].as_str()) {
            ("stdout", Some(line)) if !self.all_to_stderr => self.write(std::io::stdout().lock(), line),
            ("stdout" | "stderr", Some(line)) => self.write(std::io::stderr().lock(), line),
            ("gap", _) => {
                output::note(match event.data["lines"].as_u64() {
                    Some(count) => format!("({count} lines are not kept any more)"),
                    None => "(some output is missing here)".to_owned(),
                });
                true
            }
            _ => true,
        }
    }

    fn write(&self, mut stream: impl Write + IsTerminal, line: &str) -> bool {
        let shown = if self.raw || !stream.is_terminal() { line.to_owned() } else { harmless_line(line) };
        stream.write_all(shown.as_bytes()).and_then(|()| stream.write_all(b"\n")).and_then(|()| stream.flush()).is_ok()
    }
}

/// `orien session logs`.
pub(crate) fn logs(client: &Client, session: &str, run: Option<&str>, follow: bool, raw: bool, ask: &Ask) -> Result<ExitCode> {
    let run = find_run(client, session, run, false)?;
    let mut sink = Sink::new(raw, false);
    let take = |event: &Event| {
        if ask.json {
            output::line(json!({ "id": event.id, "event": event.name, "data": event.data }));
            return true;
        }
        sink.take(event)
    };
    if follow {
        client.follow_to(&format!("/logs/{run}"), "end", take)?;
    } else {
        client.peek(&format!("/logs/{run}"), take)?;
    }
    Ok(ExitCode::SUCCESS)
}

/// `orien session cancel`.
pub(crate) fn cancel(client: &Client, session: &str, run: Option<&str>, ask: &Ask) -> Result<()> {
    let run = find_run(client, session, run, true)?;
    client.post(&format!("/executions/{run}/cancel"), &json!({}), None)?;
    let ended = ended(client, &run)?;
    if ask.json {
        return output::json(&ended);
    }
    if !ask.quiet {
        output::line(format!("{run}: {}", said(&ended)));
    }
    Ok(())
}

/// The run that a person means: by its id, by an end of it, or the newest of a session.
fn find_run(client: &Client, session: &str, run: Option<&str>, still_runs: bool) -> Result<String> {
    if let Some(id) =
        [run.unwrap_or_default(), session].into_iter().find(|text| text.strip_prefix("exec_").is_some_and(|rest| rest.len() == 26))
    {
        return Ok(id.to_owned());
    }
    let session = if still_runs { resolve(client, session)? } else { resolve_over(client, session)? };
    let state = client.get(&format!("/api/sessions/{session}"))?;
    let fits = |candidate: &&Value| {
        let id = candidate["executionId"].as_str().unwrap_or_default();
        let is_named = run.is_none_or(|run| id.ends_with(&run.to_uppercase()) || id.starts_with(run));
        is_named && (!still_runs || candidate["completedAt"].is_null())
    };
    let mut found: Vec<&str> = each(&state["executions"]).filter(fits).filter_map(|run| run["executionId"].as_str()).collect();
    // Ids sort by time.
    found.sort_unstable();
    match (found.as_slice(), run) {
        ([], _) => Err(Told::error(Failure::Missing, format!("{session} has no such run; `orien session show` lists them"))),
        ([.., newest], None) => Ok((*newest).to_owned()),
        ([only], Some(_)) => Ok((*only).to_owned()),
        (several, Some(run)) => bail!("{} runs end in {}: {}", several.len(), harmless(run), several.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_did_not_end_by_itself_has_an_exit_code_of_ours() {
        let code = |run: Value| exit_code(&run, &Interrupt::default());
        for (run, expected) in [
            (json!({ "endReason": "exited", "exitCode": 0 }), 0),
            (json!({ "endReason": "exited", "exitCode": 42 }), 42),
            (json!({ "endReason": "signalled", "exitCode": 139 }), 139),
            (json!({ "endReason": "timed_out" }), 124),
            (json!({ "endReason": "budget_reached" }), 120),
            (json!({ "endReason": "cost_reached" }), 120),
            (json!({ "endReason": "memory_limit", "exitCode": 137 }), 122),
            (json!({ "endReason": "cancelled" }), 122),
            (json!({ "fault": { "code": "budget_exhausted" } }), 120),
            (json!({ "fault": { "code": "busy" } }), 122),
            (json!({}), 122),
        ] {
            assert_eq!(code(run.clone()), expected, "{run}");
        }
    }
}
