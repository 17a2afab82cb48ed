//! `orien providers`: who offers what, ranked by the gateway, or one provider with its tools.

use anyhow::Result;
use serde_json::{Value, json};

use crate::cli::{ProvidersArgs, SortName, Wish};
use crate::client::{Client, escaped};
use crate::output;
use crate::show::table::{Rows, facts};
use crate::show::{each, harmless, money, ms, text, usdc, when};

/// Providers asked for at once.
const PAGE: usize = 100;
/// Most pages: a catalogue has a limit of its own, below this.
const PAGES_LIMIT: usize = 1000;

/// Carries out the command.
pub(crate) fn run(args: &ProvidersArgs) -> Result<()> {
    let client = Client::find(&args.ask)?;
    match &args.id {
        Some(id) => one(&client.get(&format!("/api/providers/{}", escaped(id)))?, args.ask.json),
        None => list(&client, args),
    }
}

fn list(client: &Client, args: &ProvidersArgs) -> Result<()> {
    let query = query(args);
    let mut all = json!({ "providers": [] });
    pages(client, "/api/providers", &query, PAGE, "providers", |page| {
        if let Some(rejected) = page.get("rejected").filter(|list| list.is_array()) {
            all["rejected"] = rejected.clone();
        }
        extend(&mut all["providers"], &page["providers"]);
        true
    })?;
    if args.ask.json {
        return output::json(&all);
    }
    let mut rows = Rows::new(&["LABEL", "USDC/MIN", "UPTIME", "START", "LEVEL", "REGION", "FREE", "TOOLS"], &[1, 2, 3, 6]);
    for provider in each(&all["providers"]) {
        let tools: Vec<String> = each(&provider["tools"]).map(|tool| text(&tool["id"])).collect();
        rows.add(vec![
            text(&provider["label"]),
            usdc(&provider["pricePerMinute"]),
            format!("{} %", text(&provider["uptime"])),
            ms(&provider["measured"]["startP50Ms"]),
            text(&provider["confinement"]),
            text(&provider["region"]),
            format!("{}/{}", provider["capacity"]["free"], provider["capacity"]["sessions"]),
            tools.join(" "),
        ]);
    }
    rows.print("no provider fits, or none is known yet: they are found over the network, which may take a moment");
    for lacking in each(&all["rejected"]) {
        output::note(format!("{} does not fit: {}", text(&lacking["label"]), text(&lacking["why"])));
    }
    Ok(())
}

fn query(args: &ProvidersArgs) -> String {
    let sort = args.sort.map(|sort| match sort {
        SortName::Price => "price",
        SortName::Start => "start",
        SortName::Uptime => "uptime",
        SortName::Reputation => "reputation",
    });
    wishes(args.tool.as_deref(), &args.wish) + &parts([("sort", sort), ("rejected", args.rejected.then_some("true"))])
}

/// What a provider has to be like, as the end of a query.
pub(crate) fn wishes(tool: Option<&str>, wish: &Wish) -> String {
    let Wish { capability, max_price, min_uptime, region, confinement } = wish;
    let confinement = confinement.map(|level| format!("{level:?}"));
    parts([
        ("tool", tool),
        ("capability", capability.as_deref()),
        ("maxPricePerMinute", max_price.as_deref()),
        ("minUptime", min_uptime.as_deref()),
        ("region", region.as_deref()),
        ("confinement", confinement.as_deref()),
    ])
}

fn parts<const N: usize>(parts: [(&str, Option<&str>); N]) -> String {
    parts.into_iter().filter_map(|(name, value)| Some(format!("&{name}={}", escaped(value?)))).collect()
}

/// Asks for one page after the other until the last one, or until `take` has enough. Lists that do not know cursors have one page.
pub(crate) fn pages(client: &Client, path: &str, query: &str, page: usize, name: &str, mut take: impl FnMut(&Value) -> bool) -> Result<()> {
    let mut cursor = String::new();
    for _ in 0..PAGES_LIMIT {
        let separator = if path.contains('?') { '&' } else { '?' };
        // The first page is asked for plainly: nothing is said that need not be.
        let limit = if page > 0 { format!("limit={page}") } else { String::new() };
        let answer = client.get(&format!("{path}{separator}{limit}{query}{cursor}"))?;
        let more = take(&answer) && answer[name].is_array();
        match answer["nextCursor"].as_str() {
            Some(next) if more => cursor = format!("&cursor={}", escaped(next)),
            _ => return Ok(()),
        }
    }
    Ok(())
}

/// Adds the items of one list to another.
pub(crate) fn extend(all: &mut Value, more: &Value) {
    if let (Some(all), Some(more)) = (all.as_array_mut(), more.as_array()) {
        all.extend(more.iter().cloned());
    }
}

fn one(provider: &Value, as_json: bool) -> Result<()> {
    if as_json {
        return output::json(provider);
    }
    let reputation = &provider["reputation"];
    let measured = &provider["measured"];
    facts(&[
        ("id", text(&provider["id"])),
        ("label", text(&provider["label"])),
        ("name", text(&provider["name"])),
        ("ens", ens(provider)),
        ("paid to", text(&provider["payoutAddress"])),
        ("description", text(&provider["description"])),
        ("price", format!("{} per minute, at least {}", money(&provider["pricePerMinute"]), money(&provider["minimumCharge"]))),
        ("region", text(&provider["region"])),
        ("confinement", text(&provider["confinement"])),
        ("uptime", format!("{} %", text(&provider["uptime"]))),
        (
            "sessions",
            format!(
                "{} completed of {}, {} disputes with us",
                text(&reputation["completedSessions"]),
                text(&provider["totalSessions"]),
                text(&reputation["disputes"])
            ),
        ),
        (
            "start",
            measured["startP50Ms"]
                .as_u64()
                .map(|_| format!("{} p50, {} p95", ms(&measured["startP50Ms"]), ms(&measured["startP95Ms"])))
                .unwrap_or_default(),
        ),
        (
            "free",
            format!(
                "{} of {} sessions, {} runs each",
                provider["capacity"]["free"], provider["capacity"]["sessions"], provider["capacity"]["runsPerSession"]
            ),
        ),
        ("offer until", when(&provider["expiresAt"])),
    ]);
    for tool in each(&provider["tools"]) {
        output::line("");
        describe(tool);
    }
    Ok(())
}

/// The provider's name in ENS, and whether it leads to where it is paid; nothing if it has none.
fn ens(provider: &Value) -> String {
    let name = text(&provider["ensName"]);
    match provider["ensVerified"].as_bool() {
        _ if provider["ensName"].is_null() => String::new(),
        Some(true) => format!("{name} (verified)"),
        _ => format!("{name} (not verified: {})", text(&provider["ensDetail"])),
    }
}

fn describe(tool: &Value) {
    let limits = &tool["resourceLimits"];
    let mut fee = String::new();
    if usdc(&tool["callFee"]) != "0" {
        fee = format!(" and {} per call", money(&tool["callFee"]));
    }
    output::line(format!("{}: {}", text(&tool["id"]), text(&tool["description"])));
    output::line(format!(
        "  {} per minute{fee}; at most {} s, {} CPU, {}",
        money(&tool["pricePerMinute"]),
        text(&tool["maxDurationSeconds"]),
        text(&limits["cpu"]),
        text(&limits["memory"])
    ));
    for argument in each(&tool["args"]) {
        output::line(format!(
            "  {}=<{}>{} {}",
            text(&argument["name"]),
            kind(argument),
            if argument["required"] == true { "" } else { " (optional)" },
            text(&argument["description"])
        ));
    }
}

/// What an argument takes.
fn kind(argument: &Value) -> String {
    let name = argument["type"].as_str().unwrap_or("text");
    match (name, argument["minimum"].as_i64(), argument["maximum"].as_i64()) {
        ("choice", ..) => each(&argument["choices"]).map(text).collect::<Vec<_>>().join("|"),
        (_, Some(least), Some(most)) if least != i64::MIN || most != i64::MAX => format!("{} {least}..{most}", harmless(name)),
        _ => harmless(name),
    }
}
