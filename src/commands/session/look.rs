//! Looking at sessions: the list, one with its runs, its events, its receipts.

use anyhow::Result;
use serde_json::{Value, json};

use super::resolve_over;
use crate::cli::{Ask, OneSession};
use crate::client::{Client, escaped};
use crate::commands::providers::{extend, pages};
use crate::output;
use crate::show::table::{Rows, facts};
use crate::show::{each, harmless, is_seen, money, relative, text, usdc, when};

/// Receipts asked for at once.
const RECEIPTS_PAGE: usize = 500;
/// Sessions asked for at once.
const PAGE: u32 = 100;

/// `orien session ls`.
pub(crate) fn list(client: &Client, status: Option<&str>, label: Option<&(String, String)>, limit: u32, ask: &Ask) -> Result<()> {
    let status = status.map(|status| format!("&status={}", escaped(status))).unwrap_or_default();
    let label = label.map(|(name, value)| format!("&label={}", escaped(&format!("{name}:{value}")))).unwrap_or_default();
    let (mut all, limit) = (json!({ "sessions": [] }), usize::try_from(limit)?);
    pages(client, "/api/sessions", &format!("{status}{label}"), limit.min(PAGE as usize), "sessions", |page| {
        extend(&mut all["sessions"], &page["sessions"]);
        all["sessions"].as_array().is_some_and(|list| list.len() < limit)
    })?;
    if let Some(list) = all["sessions"].as_array_mut() {
        list.truncate(limit);
    }
    if ask.json {
        return output::json(&all);
    }
    let mut rows = Rows::new(&["SESSION", "STATUS", "PROVIDER", "USED", "OF", "STARTED", "LABELS"], &[3, 4]);
    for session in each(&all["sessions"]) {
        let labels = session["labels"].as_object().into_iter().flatten();
        let labels: Vec<String> = labels.map(|(name, value)| format!("{}={}", harmless(name), text(value))).collect();
        rows.add(vec![
            short(&session["id"]),
            text(&session["status"]),
            text(&session["providerLabel"]),
            usdc(&session["budgetConsumed"]),
            usdc(&session["budgetAllowance"]),
            if is_seen() { relative(&session["startedAt"]) } else { text(&session["startedAt"]) },
            labels.join(" "),
        ]);
    }
    rows.print("no sessions");
    Ok(())
}

/// An id in a table: on a terminal its end, which tells sessions of the same minute apart and names it as well.
fn short(id: &Value) -> String {
    let id = text(id);
    match id.len().checked_sub(10).and_then(|from| id.get(from..)) {
        Some(end) if is_seen() => end.to_owned(),
        _ => id,
    }
}

/// `orien session show`.
pub(crate) fn show(client: &Client, one: &OneSession) -> Result<()> {
    let id = resolve_over(client, &one.session)?;
    let session = client.get(&format!("/api/sessions/{id}"))?;
    if one.ask.json {
        return output::json(&session);
    }
    facts(&session_facts(&session));
    let mut rows = Rows::new(&["RUN", "TOOL", "STATUS", "EXIT", "SECONDS", "USDC", "STARTED"], &[3, 4, 5]);
    let mut some = false;
    for run in each(&session["executions"]) {
        some = true;
        let end = run["endReason"]
            .as_str()
            .filter(|reason| *reason != "exited")
            .map(|reason| format!("{} ({})", text(&run["status"]), harmless(reason)));
        rows.add(vec![
            short(&run["executionId"]),
            text(&run["toolId"]),
            end.unwrap_or_else(|| text(&run["status"])),
            text(&run["exitCode"]),
            text(&run["effectiveDurationSeconds"]),
            usdc(&run["cost"]),
            if is_seen() { relative(&run["startedAt"]) } else { text(&run["startedAt"]) },
        ]);
    }
    if some {
        rows.print("");
    }
    Ok(())
}

/// What there is to say about a session itself.
fn session_facts(session: &Value) -> Vec<(&'static str, String)> {
    let split = |name: &str| money(&session["settlement"][name]);
    let settled = session["settlement"].is_object().then(|| {
        format!(
            "{} to the provider, {} to the platform, {} to the reserve",
            split("providerPayout"),
            split("platformFee"),
            split("reserve")
        )
    });
    let paid = match (&session["settlement"]["txHash"], &session["settlement"]["settledAt"]) {
        (Value::String(transaction), at) => format!("by transaction {}, {}", harmless(transaction), when(at)),
        _ => String::new(),
    };
    let ended = session["endedAt"].is_string().then(|| {
        let reason = session["endReason"].as_str().map(|reason| format!(": {}", harmless(reason))).unwrap_or_default();
        format!("{}{reason}", when(&session["endedAt"]))
    });
    let fault =
        session["fault"].is_object().then(|| format!("{} [{}]", text(&session["fault"]["detail"]), text(&session["fault"]["code"])));
    let labels = session["labels"].as_object().into_iter().flatten();
    let labels: Vec<String> = labels.map(|(name, value)| format!("{}={}", harmless(name), text(value))).collect();
    let expires = if ended.is_none() { when(&session["expiresAt"]) } else { String::new() };
    vec![
        ("session", text(&session["id"])),
        (
            "status",
            format!(
                "{}{}",
                text(&session["status"]),
                if session["connected"] == false && ended.is_none() { " (not connected)" } else { "" }
            ),
        ),
        ("mission", text(&session["mission"])),
        ("labels", labels.join(" ")),
        ("provider", format!("{} ({})", text(&session["providerLabel"]), text(&session["providerId"]))),
        ("because", text(&session["whyProvider"])),
        ("used", format!("{} of {}", usdc(&session["budgetConsumed"]), money(&session["budgetAllowance"]))),
        ("worked", format!("{} s", text(&session["effectiveExecutionSeconds"]))),
        ("started", when(&session["startedAt"])),
        ("expires", expires),
        ("ended", ended.unwrap_or_default()),
        ("replaces", text(&session["replaces"])),
        ("goes on as", text(&session["replacedBy"])),
        ("fault", fault.unwrap_or_default()),
        ("settlement", settled.unwrap_or_default()),
        ("paid", paid),
    ]
}

/// `orien session events`.
pub(crate) fn events(client: &Client, one: &OneSession) -> Result<()> {
    let id = resolve_over(client, &one.session)?;
    client.follow_to(&format!("/api/sessions/{id}/events"), "end", |event| {
        if one.ask.json {
            output::line(json!({ "id": event.id, "event": event.name, "data": event.data }));
        } else {
            let parts = event.data.as_object().into_iter().flatten().filter(|(_, value)| !value.is_null());
            let parts: Vec<String> = parts.map(|(name, value)| format!("{}={}", harmless(name), text(value))).collect();
            output::line(format!("{:<10} {}", harmless(&event.name), parts.join("  ")));
        }
        // As older gateways say it.
        event.name != "closed"
    })
}

/// `orien session receipts`.
pub(crate) fn receipts(client: &Client, one: &OneSession) -> Result<()> {
    let id = resolve_over(client, &one.session)?;
    let mut all: Option<Value> = None;
    pages(client, &format!("/api/sessions/{id}/receipts"), "", RECEIPTS_PAGE, "receipts", |page| {
        match &mut all {
            Some(all) => extend(&mut all["receipts"], &page["receipts"]),
            None => all = Some(page.clone()),
        }
        true
    })?;
    let mut all = all.unwrap_or_default();
    all["nextCursor"] = Value::Null;
    if one.ask.json {
        return output::json(&all);
    }
    let mut rows = Rows::new(&["NO", "WHAT", "END", "EXIT", "SECONDS", "CHARGED", "SIGNED BY"], &[0, 3, 4, 5]);
    for receipt in each(&all["receipts"]).chain(each(&all["disputed"])) {
        let work = &receipt["work"];
        rows.add(vec![
            text(&receipt["number"]),
            work["toolId"].as_str().map_or_else(|| "opening".to_owned(), harmless),
            work["endReason"].as_str().map_or_else(|| if work.is_null() { String::new() } else { "running".to_owned() }, harmless),
            text(&work["exitCode"]),
            text(&work["effectiveDurationSeconds"]),
            usdc(&receipt["charged"]),
            signatures(receipt),
        ]);
    }
    rows.print("no receipts");
    Ok(())
}

/// Whose signatures are good.
fn signatures(receipt: &Value) -> String {
    let side = |name: &str, member: &str| match receipt[member].as_bool() {
        Some(true) => name.to_owned(),
        Some(false) => format!("{name}: WRONG"),
        None => format!("{name}: none"),
    };
    format!("{}, {}", side("provider", "providerSignatureValid"), side("agent", "voucherSignatureValid"))
}
