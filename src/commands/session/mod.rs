//! `orien session`: what an agent does with a session, one request at a time.
//!
//! Always true: a session is named by its id, by a part of it that only one has, by a label, or as `last`, the newest that is active; what fits several is refused with their ids, never guessed.

pub(crate) mod arguments;
pub(crate) mod copy;
mod following;
mod input;
mod look;
pub(crate) mod open;
pub(crate) mod running;
mod steps;

use std::process::ExitCode;

use anyhow::Result;
use serde_json::{Value, json};

use super::providers::pages;
use crate::cli::{Ask, SessionCommand};
use crate::client::Client;
use crate::failure::{Failure, Told};
use crate::show::each;
use crate::show::harmless;

/// Shortest part of an id that names a session.
const PART_MIN: usize = 4;
/// Sessions asked for at once when looking for one.
const PAGE: usize = 200;
/// Most candidates that are told.
const TOLD: usize = 5;

/// Carries out one of the commands.
pub(crate) fn run(command: SessionCommand) -> Result<ExitCode> {
    let client = Client::find(command.ask())?;
    match command {
        SessionCommand::Open { provider, opening, idle_timeout, failover, tools, dry_run, ask } => {
            let order = open::order(&provider, &opening, (idle_timeout, failover), &tools);
            open::run(&client, order, dry_run, &ask)
        }
        SessionCommand::Ls { status, label, limit, ask } => look::list(&client, status.as_deref(), label.as_ref(), limit, &ask),
        SessionCommand::Show(one) => look::show(&client, &one),
        SessionCommand::Events(one) => look::events(&client, &one),
        SessionCommand::Receipts(one) => look::receipts(&client, &one),
        SessionCommand::Run { session, call, detach, ask } => return running::run(&client, &session, &call, detach, &ask),
        SessionCommand::Logs { session, run, follow, raw, ask } => {
            return running::logs(&client, &session, run.as_deref(), follow, raw, &ask);
        }
        SessionCommand::Cancel { session, run, ask } => running::cancel(&client, &session, run.as_deref(), &ask),
        SessionCommand::Cp { sources, target, fresh, ask } => copy::run(&client, &sources, &target, fresh, &ask),
        SessionCommand::Files { path, ask } => copy::list(&client, &path, &ask),
        SessionCommand::Rm { paths, recursive, ask } => copy::remove(&client, &paths, recursive, &ask),
        SessionCommand::TopUp { session, budget, ask } => steps::top_up(&client, &session, &budget, &ask),
        SessionCommand::Extend { session, time, ask } => steps::extend(&client, &session, time, &ask),
        SessionCommand::End { sessions, ask } => steps::end(&client, &sessions, &ask),
    }?;
    Ok(ExitCode::SUCCESS)
}

/// The id of the session that a person means.
pub(crate) fn resolve(client: &Client, text: &str) -> Result<String> {
    meant(client, text, false)
}

/// The same for who only looks: `last` is the newest one that is over if none is active.
pub(crate) fn resolve_over(client: &Client, text: &str) -> Result<String> {
    meant(client, text, true)
}

fn meant(client: &Client, text: &str, may_be_over: bool) -> Result<String> {
    if is_whole(text) {
        return Ok(text.to_owned());
    }
    let missing =
        |why: &str| Told::error(Failure::Missing, format!("no session is {}{why}; `orien session ls` shows them", harmless(text)));
    let (mut found, mut newest, mut newest_over): (Vec<(bool, String)>, Option<String>, Option<String>) = (Vec::new(), None, None);
    pages(client, "/api/sessions", "", PAGE, "sessions", |page| {
        for session in each(&page["sessions"]) {
            let (id, is_active) = (session["id"].as_str().unwrap_or_default(), session["status"] == "active");
            if newest.is_none() && is_active {
                newest = Some(id.to_owned());
            }
            if newest_over.is_none() && may_be_over {
                newest_over = Some(id.to_owned());
            }
            if fits(session, text) {
                found.push((is_active, id.to_owned()));
            }
        }
        !(text == "last" && newest.is_some())
    })?;
    if found.is_empty() && text == "last" {
        return newest.or(newest_over).ok_or_else(|| missing(if may_be_over { ": there is none" } else { ": none is active" }));
    }
    // A label of sessions that are over may be used again.
    if found.iter().any(|(is_active, _)| *is_active) {
        found.retain(|(is_active, _)| *is_active);
    }
    match found.as_slice() {
        [] => Err(missing("")),
        [(_, only)] => Ok(only.clone()),
        several => {
            let ids: Vec<&str> = several.iter().take(TOLD).map(|(_, id)| id.as_str()).collect();
            Err(Told::error(
                Failure::Missing,
                format!("{} sessions are {}: {}; say more of the id", several.len(), harmless(text), ids.join(", ")),
            ))
        }
    }
}

fn is_whole(text: &str) -> bool {
    text.strip_prefix("session_").is_some_and(|rest| rest.len() == 26)
}

/// Whether a text names this session: a beginning or an end of its id, or one of its labels.
fn fits(session: &Value, text: &str) -> bool {
    let id = session["id"].as_str().unwrap_or_default();
    let bare = id.strip_prefix("session_").unwrap_or(id);
    let (upper, part) = (text.to_uppercase(), text.strip_prefix("session_").unwrap_or(text));
    let is_part = part.len() >= PART_MIN && (bare.starts_with(&part.to_uppercase()) || bare.ends_with(&upper));
    let mut labels = session["labels"].as_object().into_iter().flatten();
    is_part || labels.any(|(name, value)| value == text || value.as_str().is_some_and(|value| text == format!("{name}={value}")))
}

/// Posts something that acts on a session.
pub(crate) fn act(client: &Client, session: &str, what: &str, body: &Value) -> Result<Value> {
    client.post(&format!("/api/sessions/{session}/{what}"), body, None)
}

/// Ends a session, whatever its state, and says how it stands then.
pub(crate) fn end(client: &Client, session: &str) -> Result<Value> {
    act(client, session, "end", &json!({}))
}

/// Whether a note is wanted.
pub(crate) const fn is_talkative(ask: &Ask) -> bool {
    !ask.quiet && !ask.json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_named_by_a_part_of_its_id_or_by_a_label() {
        let session = json!({ "id": "session_01J9ZZ4Q3T8R9W0X2Y3Z4A5B6C", "labels": { "job": "nightly" } });
        for text in ["session_01J9ZZ", "01j9zz", "A5B6C", "a5b6c", "nightly", "job=nightly"] {
            assert!(fits(&session, text), "{text}");
        }
        for text in ["01J", "", "session_", "9ZZ4", "job", "nightly2", "other=nightly"] {
            assert!(!fits(&session, text), "{text}");
        }
    }
}
