//! What must be true of all books together when a storm is over and everything has settled.

use std::collections::BTreeMap;

use serde_json::Value;

use super::evidence::{Outcome, micros};
use super::field::{Field, GRANT, PROVIDERS, account};
use super::worker::Asked;
use crate::kit::{Door, run_json};

/// A session that settlement has reserved for and that does not open gives its reservation back when its provider or its agent closes the channel. Until the agent can,
/// such a reservation waits for its end by time, is counted here, and must be covered by sessions that did not open. With `true` none may be left.
const EVERY_RESERVATION_ENDS: bool = true;

/// A provider that is killed after its first receipt and before the voucher for it is on its disk waits for that voucher at its next start, as long as for any last one, and an agent that comes
/// back within that time loses nothing. With `false` sessions that opened for their agent alone are counted instead, and settlement must have paid nothing for them.
pub(crate) const NO_OPENING_IS_LOST: bool = true;

/// What is left, see [`EVERY_RESERVATION_ENDS`] and [`NO_OPENING_IS_LOST`].
#[derive(Debug, Default)]
pub(crate) struct Stuck {
    pub(crate) lost: usize,
    pub(crate) channels: u64,
    pub(crate) micros: u64,
}

/// The three shares of a total: provider, platform, reserve.
fn split(total: u64) -> [u64; 3] {
    let fees = total / 10;
    let platform = fees * 7 / 10;
    [total - fees, platform, fees - platform]
}

/// Whether every answered request is there once, and no request led to two things.
pub(crate) fn check_once(asked: &[Asked], outcomes: &[Vec<Outcome>]) {
    for order in asked {
        let of_order: Vec<&Outcome> = outcomes[order.gateway].iter().filter(|session| session.mission == order.mission).collect();
        let opened = of_order.iter().filter(|session| session.reason != "not_opened").count();
        assert!(opened <= 1, "one request opened {opened} sessions: {of_order:?}");
        if let Some(id) = &order.session {
            assert!(of_order.iter().any(|session| session.id == *id), "{id} was answered and is not there: {order:?}");
        }
        let runs: Vec<_> = of_order.iter().flat_map(|session| &session.runs).collect();
        for run in &order.runs {
            let of_run: Vec<_> = runs.iter().filter(|known| known.args.contains(&run.mark)).collect();
            assert!(of_run.iter().filter(|known| known.ran).count() <= 1, "one request ran more than once: {of_run:?}");
            if let Some(id) = &run.execution {
                assert!(of_run.iter().any(|known| known.id == *id), "{id} was answered and is not there: {order:?}");
            }
        }
        assert!(runs.len() <= order.runs.len() * 3, "more runs than requests: {runs:?}");
    }
}

/// What settlement says of each session that it has paid out for.
struct Lines(BTreeMap<String, Value>);

impl Lines {
    /// Whether it opened for its agent alone.
    fn is_lost(&self, session: &Outcome) -> bool {
        !NO_OPENING_IS_LOST && session.only_opened && !self.0.contains_key(&session.id)
    }

    /// What has to be paid for it.
    fn due(&self, session: &Outcome) -> u64 {
        if self.is_lost(session) { 0 } else { session.charged }
    }

    /// Whether a reservation for it may still be held when everything has settled.
    fn may_hold(&self, session: &Outcome) -> bool {
        session.reason == "not_opened" || self.is_lost(session)
    }

    /// How much such sessions may still hold.
    fn room(&self, outcomes: &[Outcome]) -> u64 {
        outcomes.iter().filter(|session| self.may_hold(session)).map(|session| session.budget).sum()
    }
}

fn lines(door: &Door) -> Lines {
    let (mut all, mut after) = (BTreeMap::new(), String::new());
    loop {
        let page = door.get(&format!("/api/settlements?limit=1000{after}")).ok();
        for line in page["settlements"].as_array().unwrap() {
            let again = all.insert(line["sessionId"].as_str().unwrap().to_owned(), line.clone());
            assert!(again.is_none(), "a session is settled twice: {line} and {again:?}");
        }
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => return Lines(all),
        }
    }
}

/// What is not settled yet, in words; nothing when all books have come to rest.
pub(crate) fn unsettled(field: &Field, outcomes: &[Vec<Outcome>]) -> Vec<String> {
    let settlement = field.settlement().door();
    let mut missing = Vec::new();
    for node in field.nodes() {
        let (health, earnings) = (node.door().get("/health").ok(), node.door().get("/earnings").ok());
        if health["activeSessions"] != serde_json::json!([]) || health["running"] != 0 || micros(&earnings["waiting"]) != 0 {
            missing.push(format!("a node is not done: {health} {earnings}"));
        }
    }
    // What is redeemed waits for a batch at first.
    let earned = micros(&settlement.get("/api/ledger").ok()["earned"]);
    let payouts = settlement.get("/api/payouts?limit=1000").ok();
    let payable = payouts["payouts"].as_array().unwrap().iter().filter(|payout| payout["state"] == "payable");
    if payable.map(|payout| micros(&payout["amount"])).sum::<u64>() != earned {
        missing.push(format!("{earned} are earned, and not all of it is payable: {payouts}"));
    }
    let lines = lines(&settlement);
    let total = |session: &Outcome| lines.0.get(&session.id).map_or(0, |line| micros(&line["totalCost"]));
    let late = outcomes.iter().flatten().filter(|session| total(session) != lines.due(session));
    missing.extend(late.map(|session| format!("settlement has {} for {session:?}", total(session))));
    for (number, gateway) in field.gateways().iter().enumerate() {
        let (reserved, room) = (reserved(&settlement, &account(gateway)), lines.room(&outcomes[number]));
        if reserved > if EVERY_RESERVATION_ENDS { 0 } else { room } {
            missing.push(format!("{reserved} are reserved for gateway {number}, and sessions that did not open explain {room}"));
        }
    }
    missing
}

fn reserved(settlement: &Door, account: &str) -> u64 {
    micros(&settlement.get(&format!("/api/accounts/{account}")).ok()["reserved"])
}

/// Checks every sum of every book, from the sessions as the gateways' receipts say.
pub(crate) fn check(field: &Field, outcomes: &[Vec<Outcome>]) -> Stuck {
    let settlement = field.settlement().door();
    let lines = lines(&settlement);
    let mut shares = [0; 3];
    for session in outcomes.iter().flatten() {
        assert!(session.reason != "not_opened" || (session.receipts == 0 && session.runs.iter().all(|run| !run.ran)), "{session:?}");
        let Some(line) = lines.0.get(&session.id) else {
            assert_eq!(lines.due(session), 0, "it was never settled: {session:?}");
            continue;
        };
        let own = split(session.charged);
        let said = ["providerPayout", "platformFee", "reserve"].map(|name| micros(&line[name]));
        assert_eq!((micros(&line["totalCost"]), said), (session.charged, own), "{session:?} {line}");
        (0..3).for_each(|part| shares[part] += own[part]);
    }
    let known = |id: &String| outcomes.iter().flatten().any(|session| session.id == *id);
    assert!(lines.0.keys().all(known), "settlement paid for a session that no gateway knows");
    // Asked for under one key, also before and after a restart: every payout leaves once.
    let sent = settlement.post_with_key("/api/payouts/export", &serde_json::json!({}), "storm").ok();
    let amounts = sent["payouts"].as_array().unwrap().iter().map(|payout| micros(&payout["amount"]));
    assert_eq!(amounts.sum::<u64>(), shares[0], "{sent}");
    check_providers(field, outcomes, &settlement, &lines);
    let [channels, micros] = check_ledger(field, outcomes, &settlement, &lines, shares);
    check_batches(field, &settlement);
    Stuck { lost: outcomes.iter().flatten().filter(|session| lines.is_lost(session)).count(), channels, micros }
}

fn check_providers(field: &Field, outcomes: &[Vec<Outcome>], settlement: &Door, lines: &Lines) {
    for (node, (name, _, minimum)) in field.nodes().iter().zip(PROVIDERS) {
        let id = node.door().get("/health").ok()["peerId"].as_str().unwrap().to_owned();
        let own: Vec<&Outcome> = outcomes.iter().flatten().filter(|session| session.provider == id).collect();
        let total: u64 = own.iter().map(|session| lines.due(session)).sum();
        let earnings = node.door().get("/earnings").ok();
        let [charged, promised, redeemed] = ["charged", "promised", "redeemed"].map(|part| micros(&earnings[part]));
        assert_eq!((promised, redeemed), (total, total), "{name}: {earnings}");
        // A first receipt without a voucher is all that a provider may have charged in vain.
        let unopened = own.iter().filter(|session| lines.may_hold(session)).count() as u64;
        assert!(charged >= promised && (charged - promised) % minimum == 0, "{name}: {earnings}");
        assert!((charged - promised) / minimum <= unopened, "{name}: {earnings}, {unopened} sessions did not open");
        let payee = earnings["payoutAddress"].as_str().unwrap();
        let paid = settlement.get(&format!("/api/accounts/{payee}")).ok();
        let due: u64 = own.iter().map(|session| split(lines.due(session))[0]).sum();
        let said = ["earned", "settled", "pending"].map(|part| micros(&paid["earnings"][part]));
        assert_eq!(said, [due, due, 0], "{name}: {paid}");
    }
}

fn check_ledger(field: &Field, outcomes: &[Vec<Outcome>], settlement: &Door, lines: &Lines, shares: [u64; 3]) -> [u64; 2] {
    let mut held = 0;
    for (gateway, own) in field.gateways().iter().zip(outcomes) {
        let spent: u64 = own.iter().map(|session| lines.due(session)).sum();
        let account = settlement.get(&format!("/api/accounts/{}", account(gateway))).ok();
        let [funded, reserved, redeemed, available] = ["funded", "reserved", "redeemed", "available"].map(|name| micros(&account[name]));
        assert_eq!((funded, redeemed, available), (GRANT, spent, GRANT - spent - reserved), "{account}");
        assert!(reserved <= lines.room(own), "{account}");
        held += reserved;
    }
    let ledger = settlement.get("/api/ledger").ok();
    let granted = GRANT * field.gateways().len() as u64;
    let said = ["granted", "available", "reserved", "earned", "platform", "reserve", "settled"].map(|name| micros(&ledger[name]));
    let [provider, platform, reserve] = shares;
    let own = [granted, granted - held - provider - platform - reserve, held, 0, platform, reserve, provider];
    assert_eq!(said, own, "{ledger}");
    assert_eq!(ledger["balanced"], true, "{ledger}");
    let channels = ledger["liveChannels"].as_u64().unwrap();
    assert!(!EVERY_RESERVATION_ENDS || (held, channels) == (0, 0), "reservations are left: {ledger}");
    assert_eq!(held == 0, channels == 0, "a live channel holds something, and nothing else does: {ledger}");
    [channels, held]
}

/// The first, the middle and the last batch, by their published evidence alone.
fn check_batches(field: &Field, settlement: &Door) {
    let list = settlement.get("/api/batches?limit=1000").ok();
    let ids: Vec<&str> = list["batches"].as_array().unwrap().iter().map(|batch| batch["id"].as_str().unwrap()).collect();
    assert!(!ids.is_empty(), "{list}");
    for place in [0, ids.len() / 2, ids.len() - 1] {
        let file = field.root.path().join("batch.json");
        std::fs::write(&file, settlement.get(&format!("/api/batches/{}", ids[place])).ok().to_string()).unwrap();
        let report = run_json(&["audit", file.to_str().unwrap(), "--json"]);
        assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    }
}
