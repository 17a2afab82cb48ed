//! `orien session open`: a budget becomes a session.

use anyhow::Result;
use serde_json::{Value, json};

use super::is_talkative;
use crate::cli::{Ask, Opening};
use crate::client::Client;
use crate::output;
use crate::show::table::{Rows, facts};
use crate::show::{each, money, text, usdc, when};

/// Carries out the command.
pub(crate) fn run(client: &Client, mut order: Value, dry_run: bool, ask: &Ask) -> Result<()> {
    if dry_run {
        order["dryRun"] = json!(true);
        let answer = client.post("/api/sessions", &order, None)?;
        if ask.json {
            return output::json(&answer);
        }
        quote(&answer["quote"]);
        return Ok(());
    }
    let session = client.post("/api/sessions", &order, None)?;
    if ask.json {
        return output::json(&session);
    }
    output::line(text(&session["id"]));
    if is_talkative(ask) {
        output::note(format!(
            "open with {}, at most {}, expires {}; chosen because: {}",
            text(&session["providerLabel"]),
            money(&session["budgetAllowance"]),
            when(&session["expiresAt"]),
            text(&session["whyProvider"])
        ));
    }
    Ok(())
}

/// The request for a session. Nothing is said that was not asked for: what the gateway does then is its own to know.
pub(crate) fn order(provider: &str, opening: &Opening, (idle_timeout, failover): (Option<u64>, Option<bool>), tools: &[String]) -> Value {
    let mut order = json!({ "providerId": provider, "budgetAllowance": opening.budget });
    let wish = &opening.wish;
    let parts = [
        ("mission", opening.mission.as_ref().map(|text| json!(text))),
        ("expirySeconds", opening.expiry.map(|seconds| json!(seconds))),
        ("idleTimeoutSeconds", idle_timeout.map(|seconds| json!(seconds))),
        ("failover", failover.map(|wanted| json!(wanted))),
        ("capability", wish.capability.as_ref().map(|text| json!(text))),
        ("maxPricePerMinute", wish.max_price.as_ref().map(|text| json!(text))),
        ("minUptime", wish.min_uptime.as_ref().map(|text| json!(text))),
        ("region", wish.region.as_ref().map(|text| json!(text))),
        ("confinement", wish.confinement.map(|level| json!(format!("{level:?}")))),
        ("tools", (!tools.is_empty()).then(|| json!(tools))),
        ("labels", (!opening.labels.is_empty()).then(|| opening.labels.iter().map(|(name, value)| (name.clone(), json!(value))).collect())),
    ];
    for (name, value) in parts {
        if let Some(value) = value {
            order[name] = value;
        }
    }
    order
}

fn quote(quote: &Value) {
    let cap = &quote["spendCap"];
    let left = |missing: &Value| if missing.is_null() { String::new() } else { format!(" ({} too little)", usdc(missing)) };
    facts(&[
        ("provider", format!("{} ({})", text(&quote["providerLabel"]), text(&quote["providerId"]))),
        ("because", text(&quote["whyProvider"])),
        ("budget", money(&quote["budgetAllowance"])),
        ("at least", money(&quote["minimumCharge"])),
        ("expires", when(&quote["expiresAt"])),
        (
            "available",
            if quote["funds"]["available"].is_null() {
                String::new()
            } else {
                format!("{}{}", money(&quote["funds"]["available"]), left(&quote["funds"]["missing"]))
            },
        ),
        (
            "token's cap",
            if cap.is_null() {
                String::new()
            } else {
                format!("{}, committed {}{}", money(&cap["cap"]), usdc(&cap["committed"]), left(&cap["missing"]))
            },
        ),
    ]);
    let mut rows = Rows::new(&["TOOL", "USDC/MIN", "PER CALL", "THE BUDGET BUYS"], &[1, 2, 3]);
    for tool in each(&quote["tools"]) {
        let buys = tool["budgetBuysSeconds"].as_f64().map(|seconds| format!("{seconds} s")).unwrap_or_default();
        rows.add(vec![text(&tool["toolId"]), usdc(&tool["pricePerMinute"]), usdc(&tool["callFee"]), buys]);
    }
    rows.print("no tools");
}
