//! `orien earnings`: what a provider earned, from its node's door, and collecting it without settlement.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use orien_bootstrap::{DoorFile, RoleName};
use serde_json::{Value, json};

use crate::cli::{AtNode, EarningsArgs, EarningsCommand};
use crate::client::Client;
use crate::{output, roles};

/// Between two looks at a transaction.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Longest wait for one to become final: the slowest chains take a quarter of an hour.
const FINAL_WITHIN: Duration = Duration::from_secs(40 * 60);

pub(crate) fn run(args: EarningsArgs) -> anyhow::Result<()> {
    match args.command {
        None => show(&args.at, args.limit),
        Some(EarningsCommand::Collect { no_wait, at }) => collect(&at, !no_wait),
    }
}

/// The door of the node, or why there is none.
fn door(at: &AtNode) -> anyhow::Result<Client> {
    let folder = roles::home_of(RoleName::Node, at.data_dir.as_deref())?;
    let start = format!("start it with: orien node --data-dir {}", folder.display());
    let file = DoorFile::read(&folder).with_context(|| format!("no node runs in {}; {start}", folder.display()))?;
    let client = Client::open(file.address, &file.token_file)?;
    if !client.is_there() {
        bail!("the node in {} does not answer; {start}", folder.display());
    }
    Ok(client)
}

fn show(at: &AtNode, limit: usize) -> anyhow::Result<()> {
    let earnings = door(at)?.get(&format!("/api/earnings?limit={limit}"))?;
    if at.json {
        return output::json(&earnings);
    }
    for (name, key) in [
        ("sessions", "sessions"),
        ("pending", "pending"),
        ("redeemable", "redeemable"),
        ("redeemed", "redeemed"),
        ("paid to", "payoutAddress"),
        ("rail", "rail"),
    ] {
        output::line(format!("{name:<12} {}", text(&earnings[key])));
    }
    if let Some(chain) = earnings["chain"].as_object() {
        for (name, key) in [
            ("final block", "block"),
            ("undelivered", "undelivered"),
            ("gas payer", "gasPayer"),
            ("missing gas", "missingGas"),
            ("transaction", "transaction"),
            ("problem", "problem"),
        ] {
            if let Some(value) = chain.get(key) {
                output::line(format!("{name:<12} {}", text(value)));
            }
        }
    }
    for session in earnings["bySession"].as_array().into_iter().flatten() {
        output::line(format!(
            "{}  {:<10}  charged {}  promised {}  redeemed {}  payout {}",
            text(&session["sessionId"]),
            text(&session["status"]),
            text(&session["charged"]),
            text(&session["promised"]),
            text(&session["redeemed"]),
            text(&session["providerPayout"]),
        ));
    }
    Ok(())
}

fn collect(at: &AtNode, wait: bool) -> anyhow::Result<()> {
    let client = door(at)?;
    let mut answer = client.post("/api/earnings/collect", &json!({}), None)?;
    if !at.json {
        output::line(match text(&answer["status"]).as_str() {
            "nothing" => "nothing waits that the escrow would pay".to_owned(),
            "under_way" => format!("a transaction is on its way already: {}", text(&answer["transaction"])),
            _ => format!("sent {} for {} sessions, {} USDC", text(&answer["transaction"]), answer["sessions"], text(&answer["total"])),
        });
    }
    if wait && answer["status"] != "nothing" {
        let earnings = until_final(&client)?;
        if !at.json {
            output::line(format!("final: redeemed {}, redeemable {}", text(&earnings["redeemed"]), text(&earnings["redeemable"])));
        }
        answer["earnings"] = earnings;
    }
    if at.json { output::json(&answer) } else { Ok(()) }
}

/// Waits until no transaction of the node is on its way any more.
fn until_final(client: &Client) -> anyhow::Result<Value> {
    let started = Instant::now();
    loop {
        let earnings = client.get("/api/earnings")?;
        if earnings["chain"]["transaction"].is_null() {
            return Ok(earnings);
        }
        if started.elapsed() > FINAL_WITHIN {
            bail!("the transaction is not final yet; the node goes on with it, `orien earnings` shows it");
        }
        std::thread::sleep(LOOK_EVERY);
    }
}

fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}
