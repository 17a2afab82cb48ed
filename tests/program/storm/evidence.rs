//! One session as a gateway shows it, checked against its receipts with the test's own arithmetic.

use std::collections::BTreeMap;

use serde_json::Value;

use super::field::{FEES, PROVIDERS};
use super::sums::NO_OPENING_IS_LOST;
use crate::kit::Door;

/// What a session came to.
#[derive(Debug)]
pub(crate) struct Outcome {
    pub(crate) id: String,
    pub(crate) provider: String,
    pub(crate) mission: String,
    pub(crate) budget: u64,
    /// Why it ended.
    pub(crate) reason: String,
    /// Receipts that were answered.
    pub(crate) receipts: usize,
    /// By the receipts.
    pub(crate) charged: u64,
    /// It has the first receipt alone, and its provider ended it or does not know it.
    pub(crate) only_opened: bool,
    pub(crate) runs: Vec<RunOutcome>,
}

/// What a run came to.
#[derive(Debug)]
pub(crate) struct RunOutcome {
    pub(crate) id: String,
    /// What tells requests apart.
    pub(crate) args: String,
    pub(crate) ran: bool,
    pub(crate) completed: bool,
}

/// Work of one run, by the newest receipt that names it.
struct Work {
    tool: String,
    ms: u64,
    /// Why it ended, if it has.
    end: Option<String>,
    charge: u64,
}

/// Millionths of an amount, or thousandths of a time, from a JSON number or text.
pub(crate) fn scaled(value: &Value, by: f64) -> u64 {
    let number = value.as_f64().or_else(|| value.as_str()?.parse().ok());
    let number = number.unwrap_or_else(|| panic!("{value} is not a number"));
    let whole = (number * by).round();
    assert!((0.0..9e15).contains(&whole) && (number * by - whole).abs() < 0.01, "{value} is not a whole number of units");
    format!("{whole}").parse().unwrap()
}

pub(crate) fn micros(value: &Value) -> u64 {
    scaled(value, 1e6)
}

/// What a session costs, from its prices and the milliseconds of each run: rounded down once, never below the minimum.
fn charge(price: u64, minimum: u64, works: &BTreeMap<String, Work>) -> u64 {
    let ran = works.values().filter(|work| work.end.as_deref() != Some("setup_failed"));
    let (ms, fees) = ran.fold((0_u128, 0), |(ms, fees), work| (ms + u128::from(work.ms), fees + fee(&work.tool)));
    minimum.max(u64::try_from(ms * u128::from(price) / 60_000).unwrap() + fees)
}

fn fee(tool: &str) -> u64 {
    FEES.iter().find(|(name, _)| *name == tool).unwrap().1
}

/// Checks one session that is over.
pub(crate) fn check(door: &Door, id: &str) -> Outcome {
    let session = door.get(&format!("/api/sessions/{id}")).ok();
    let evidence = door.get(&format!("/api/sessions/{id}/receipts?limit=1000")).ok();
    let receipts = evidence["receipts"].as_array().unwrap();
    assert!(evidence["nextCursor"].is_null() && evidence["disputed"].as_array().unwrap().is_empty(), "{session}\n{evidence}");
    let label = session["providerLabel"].as_str().unwrap();
    let (_, price, minimum) = *PROVIDERS.iter().find(|(name, ..)| *name == label).unwrap();
    let (charged, works) = replay(receipts, price, minimum);
    assert_eq!(micros(&session["budgetConsumed"]), charged, "charge and receipts differ: {session}\n{evidence}");
    assert_eq!(micros(&session["settlement"]["totalCost"]), charged, "promise and receipts differ: {session}\n{evidence}");
    let budget = micros(&session["budgetAllowance"]);
    assert!(charged <= budget, "more than the budget: {session}");
    let executions = session["executions"].as_array().unwrap();
    assert_eq!(session["executionsTotal"], executions.len(), "{session}");
    let runs: Vec<RunOutcome> = executions.iter().map(|run| check_run(run, &works, price)).collect();
    for execution in works.keys() {
        assert!(runs.iter().any(|run| run.id == *execution), "{execution} is charged and unknown: {session}\n{evidence}");
    }
    let text = |name: &str| session[name].as_str().unwrap_or_default().to_owned();
    let (provider, mission, reason) = (text("providerId"), text("mission"), text("endReason"));
    let forgotten = reason == "dispute" && session["fault"]["code"] == "not_found";
    let only_opened = receipts.len() == 1 && receipts[0]["work"].is_null() && (forgotten || reason == "provider_stopped");
    assert!(reason != "dispute" || (only_opened && !NO_OPENING_IS_LOST), "nobody here breaks a rule: {session}\n{evidence}");
    Outcome { id: id.to_owned(), provider, mission, budget, reason, receipts: receipts.len(), charged, only_opened, runs }
}

/// Follows the chain of receipts and recomputes every sum in it.
fn replay(receipts: &[Value], price: u64, minimum: u64) -> (u64, BTreeMap<String, Work>) {
    let (mut charged, mut works) = (0, BTreeMap::<String, Work>::new());
    for (place, receipt) in receipts.iter().enumerate() {
        assert_eq!(receipt["number"], place + 1, "a gap: {receipt}");
        assert!(place == 0 || receipt["previous"] == receipts[place - 1]["hash"], "the chain is broken: {receipt}");
        assert!(receipt["providerSignatureValid"] == true && receipt["voucherSignatureValid"] == true, "{receipt}");
        let voucher = &receipt["voucher"];
        assert!(voucher["receiptHash"] == receipt["hash"] && voucher["receiptNumber"] == receipt["number"], "{receipt}");
        if !receipt["work"].is_null() {
            note(&receipt["work"], &mut works);
        }
        let now = charge(price, minimum, &works);
        assert!(now >= charged, "a charge went down: {receipt}");
        charged = now;
        assert_eq!((micros(&receipt["charged"]), micros(&voucher["total"])), (charged, charged), "{receipt}");
    }
    (charged, works)
}

fn note(work: &Value, works: &mut BTreeMap<String, Work>) {
    let newest = Work {
        tool: work["toolId"].as_str().unwrap().to_owned(),
        ms: scaled(&work["effectiveDurationSeconds"], 1e3),
        end: work["endReason"].as_str().map(str::to_owned),
        charge: micros(&work["charge"]),
    };
    let before = works.get(work["executionId"].as_str().unwrap());
    assert!(before.is_none_or(|before| before.end.is_none() && before.ms <= newest.ms), "time went back, or a second end: {work}");
    works.insert(work["executionId"].as_str().unwrap().to_owned(), newest);
}

/// A run is in one final state, and charged for what its final receipt says or not at all.
fn check_run(run: &Value, works: &BTreeMap<String, Work>, price: u64) -> RunOutcome {
    let id = run["executionId"].as_str().unwrap();
    let completed = run["status"] == "completed";
    assert!(completed || run["status"] == "failed", "not in a final state: {run}");
    let cost = micros(&run["cost"]);
    let ran = match works.get(id) {
        None => {
            assert!(cost == 0 && !completed && run["fault"].is_object(), "no receipt, and yet: {run}");
            false
        }
        Some(work) => {
            assert_eq!((run["endReason"].as_str(), run["toolId"].as_str()), (work.end.as_deref(), Some(work.tool.as_str())), "{run}");
            let ran = work.end.as_deref() != Some("setup_failed");
            let due = u64::from(ran) * (u64::try_from(u128::from(work.ms) * u128::from(price) / 60_000).unwrap() + fee(&work.tool));
            assert_eq!((cost, work.charge), (due, due), "{run}");
            assert!(work.end.is_some(), "a receipt of its end is missing: {run}");
            assert!(ran || work.ms == 0, "it never ran and took time: {run}");
            ran
        }
    };
    if completed {
        assert_eq!((&run["endReason"], &run["exitCode"]), (&Value::from("exited"), &Value::from(0)), "{run}");
    }
    RunOutcome { id: id.to_owned(), args: run["args"].to_string(), ran, completed }
}
