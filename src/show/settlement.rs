//! What a settlement says to its operator, for people.

use serde_json::Value;

use super::table::{Rows, facts};
use super::{each, money, relative, seconds, text, usdc, when};
use crate::output;

/// How a settlement stands to its chain.
pub(crate) fn chain(status: &Value) {
    let block = match (&status["folded"]["number"], status["behindSeconds"].as_u64()) {
        (Value::Number(number), Some(behind)) => format!("block {number} (final), {} old", seconds(behind)),
        (Value::Number(number), None) => format!("block {number} (final)"),
        _ => "nothing yet".to_owned(),
    };
    let under_way = match &status["transaction"] {
        Value::Null => "nothing".to_owned(),
        flight => format!(
            "{} for {} claims, nonce {}, {}: {}",
            money(&flight["amount"]),
            text(&flight["claims"]),
            text(&flight["nonce"]),
            text(&flight["state"]),
            text(&flight["txHash"])
        ),
    };
    facts(&[
        ("state", text(&status["state"])),
        ("chain", text(&status["chainId"])),
        ("escrow", text(&status["escrow"])),
        ("token", text(&status["token"])),
        ("sender", format!("{}, next nonce {}", text(&status["sender"]), known(&status["nextNonce"]))),
        ("books", block),
        ("seen", when(&status["seenAt"])),
        ("accounts", text(&status["accounts"])),
        ("waiting", format!("{} claims, {}", text(&status["waitingClaims"]), money(&status["waitingAmount"]))),
        ("under way", under_way),
        ("paid today", format!("{}{}", money(&status["sentToday"]), of_cap(&status["dayCap"]))),
    ]);
    for (name, what) in [("halts", "HALT"), ("notices", "NOTICE")] {
        for said in each(&status[name]) {
            output::line(format!("{what}  {}: {} ({})", text(&said["code"]), text(&said["text"]), relative(&said["at"])));
        }
    }
    parked(status);
}

/// Claims that are not sent.
pub(crate) fn parked(status: &Value) {
    for parked in each(&status["parked"]) {
        let (channel, amount, reason) = (text(&parked["channel"]), money(&parked["amount"]), text(&parked["reason"]));
        output::line(format!("PARKED  channel {channel}: {amount}, {reason}{}", of_cap(&parked["cap"])));
    }
}

fn of_cap(cap: &Value) -> String {
    if cap.is_null() { String::new() } else { format!(" (cap {})", money(cap)) }
}

/// Transactions, the newest first.
pub(crate) fn transactions(all: &Value) {
    let mut rows = Rows::new(&["NONCE", "STATE", "USDC", "CLAIMS", "SENT", "PLANNED", "TRANSACTION"], &[0, 2, 3, 4]);
    for flight in each(all) {
        rows.add(vec![
            text(&flight["nonce"]),
            text(&flight["state"]),
            usdc(&flight["amount"]),
            text(&flight["claims"]),
            format!(
                "{}x",
                each(&flight["attempts"]).fold(0, |sum: u64, attempt| sum.saturating_add(attempt["sends"].as_u64().unwrap_or(0)))
            ),
            time(&flight["plannedAt"]),
            text(&flight["txHash"]),
        ]);
    }
    rows.print("no transactions yet");
}

/// Payouts.
pub(crate) fn payouts(all: &Value) {
    let mut rows = Rows::new(&["STATE", "USDC", "PAYEE", "PAYOUT", "TRANSACTION"], &[1]);
    for payout in each(all) {
        rows.add(vec![
            text(&payout["state"]),
            usdc(&payout["amount"]),
            text(&payout["payee"]),
            text(&payout["id"]),
            text(&payout["txHash"]),
        ]);
    }
    rows.print("no payouts yet");
}

/// Batches.
pub(crate) fn batches(all: &Value) {
    let mut rows = Rows::new(&["BATCH", "SESSIONS", "USDC", "PROVIDERS", "PLATFORM", "RESERVE"], &[1, 2, 3, 4, 5]);
    for batch in each(all) {
        rows.add(vec![
            text(&batch["id"]),
            text(&batch["entries"]),
            usdc(&batch["totalCost"]),
            usdc(&batch["providerPayout"]),
            usdc(&batch["platformFee"]),
            usdc(&batch["reserve"]),
        ]);
    }
    rows.print("no batches yet");
}

/// What comparing books and chain has found.
pub(crate) fn comparison(found: &Value) {
    let (block, accounts, channels) = (text(&found["block"]["number"]), text(&found["accounts"]), text(&found["channels"]));
    if found["same"] == true {
        return output::line(format!("books and chain are the same at block {block}: {accounts} accounts, {channels} channels"));
    }
    let mut rows = Rows::new(&["WHAT", "BOOKS", "CHAIN"], &[1, 2]);
    for difference in each(&found["differences"]) {
        rows.add(vec![text(&difference["what"]), usdc(&difference["books"]), usdc(&difference["chain"])]);
    }
    output::line(format!("books and chain differ at block {block}, of {accounts} accounts and {channels} channels:"));
    rows.print("");
}

fn known(value: &Value) -> String {
    if value.is_null() { "not known yet".to_owned() } else { text(value) }
}

fn time(value: &Value) -> String {
    if super::is_seen() { relative(value) } else { text(value) }
}
