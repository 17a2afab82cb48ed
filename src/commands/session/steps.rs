//! What changes a session as a whole: a higher budget, more time, its end.

use anyhow::{Context, Result};
use orien_protocol::money::Usdc;
use serde_json::{Value, json};

use super::{act, end as end_one, is_talkative, resolve};
use crate::cli::Ask;
use crate::client::Client;
use crate::output;
use crate::show::{amount, money, text, usdc, when};

/// `orien session top-up`.
pub(crate) fn top_up(client: &Client, session: &str, budget: &str, ask: &Ask) -> Result<()> {
    let id = resolve(client, session)?;
    let said = |text: &str| text.parse::<Usdc>().with_context(|| format!("the budget `{text}`"));
    let total = match budget.strip_prefix('+') {
        None => said(budget)?,
        Some(more) => {
            let now = client.get(&format!("/api/sessions/{id}"))?;
            amount(&now["budgetAllowance"]).context("the gateway says no budget")?.plus(said(more)?)?
        }
    };
    let after = act(client, &id, "topup", &json!({ "budgetAllowance": total.to_string() }))?;
    changed(&after, ask, |session| {
        format!(
            "{} has {} now, of which {} are used",
            text(&session["id"]),
            money(&session["budgetAllowance"]),
            usdc(&session["budgetConsumed"])
        )
    })
}

/// `orien session extend`.
pub(crate) fn extend(client: &Client, session: &str, seconds: u64, ask: &Ask) -> Result<()> {
    let id = resolve(client, session)?;
    let after = act(client, &id, "extend", &json!({ "expirySeconds": seconds }))?;
    changed(&after, ask, |session| format!("{} goes on until {}", text(&session["id"]), when(&session["expiresAt"])))
}

/// `orien session end`.
pub(crate) fn end(client: &Client, sessions: &[String], ask: &Ask) -> Result<()> {
    // All are looked for first: a misspelt one ends none.
    let ids = sessions.iter().map(|session| resolve(client, session)).collect::<Result<Vec<String>>>()?;
    let mut ended = Vec::new();
    for id in &ids {
        let session = end_one(client, id)?;
        if is_talkative(ask) {
            output::line(said_end(&session));
        }
        ended.push(session);
    }
    match ended.as_slice() {
        [one] if ask.json => output::json(one),
        several if ask.json => output::json(&json!({ "sessions": several })),
        _ => Ok(()),
    }
}

/// What an ended session came to.
pub(crate) fn said_end(session: &Value) -> String {
    format!(
        "{} is {}: it cost {} of {}",
        text(&session["id"]),
        text(&session["status"]),
        usdc(&session["budgetConsumed"]),
        money(&session["budgetAllowance"])
    )
}

fn changed(session: &Value, ask: &Ask, said: impl Fn(&Value) -> String) -> Result<()> {
    if ask.json {
        return output::json(session);
    }
    if !ask.quiet {
        output::line(said(session));
    }
    Ok(())
}
