//! The whole program on a chain with USDC's own code: many sessions paid out to the micro-USDC, what an agent cannot do with one escrow, and how everybody gets out.

pub(crate) mod cast;
mod making;
mod telling;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;
use serde_json::{Value, json};

use crate::kit::{Door, micros, orien, wait_for};

use self::cast::ChainCast;

/// Sessions of all agents together.
const SESSIONS: usize = 200;
/// Sessions of one agent at once.
const AT_ONCE: usize = 4;
/// What every agent deposits.
const DEPOSIT: &str = "20";

#[test]
fn three_agents_and_four_providers_are_paid_out_to_the_micro_usdc() {
    let Some(mut cast) = ChainCast::start() else { return };
    (0..4).for_each(|_| cast.add_node());
    (0..3).for_each(|_| cast.add_gateway(DEPOSIT));
    let charged = work(&cast);
    assert_eq!(charged.len(), SESSIONS);
    let settled = cast.all_settled(SESSIONS);
    let totals: BTreeMap<&str, u64> =
        settled.iter().map(|line| (line["sessionId"].as_str().unwrap(), micros(&line["totalCost"]))).collect();
    for (session, charge) in &charged {
        assert_eq!(totals.get(session.as_str()), Some(&charge.total), "{session}");
    }
    // What every session came to, split by itself, is what is on the chain, to the last micro-USDC.
    let mut by_payee: BTreeMap<usize, u64> = BTreeMap::new();
    let mut by_agent: BTreeMap<usize, u64> = BTreeMap::new();
    let (mut platform, mut reserve) = (0, 0);
    for charge in charged.values() {
        let split = Split::of(Usdc::from_micros(charge.total));
        *by_payee.entry(charge.provider).or_default() += split.provider.micros();
        *by_agent.entry(charge.agent).or_default() += charge.total;
        platform += split.platform.micros();
        reserve += split.reserve.micros();
    }
    assert!(by_payee.len() == 4 && by_agent.len() == 3, "everybody had work: {by_payee:?} {by_agent:?}");
    let mut left = 0;
    for (provider, paid) in &by_payee {
        assert_eq!(cast.tokens(&cast.payouts[*provider]).micros(), *paid, "provider {provider}");
    }
    let deposit = DEPOSIT.parse::<Usdc>().unwrap().micros();
    for (agent, spent) in &by_agent {
        let held = cast.held(&cast.accounts[*agent]).balance.micros();
        assert_eq!(held, deposit - spent, "agent {agent}");
        left += held;
    }
    let fees = cast.fees();
    assert_eq!((fees.platform.micros(), fees.reserve.micros()), (platform, reserve));
    assert_eq!(cast.tokens(&cast.escrow()).micros(), left + platform + reserve, "the escrow holds what it owes and nothing else");
    books_agree(&cast, &by_payee, &settled);
    telling::says_what_the_chain_says(&cast);
    exits(&mut cast, 0, deposit - by_agent[&0]);
}

/// What one session came to.
struct Charge {
    agent: usize,
    provider: usize,
    total: u64,
}

/// Every agent works with every provider in turn, several sessions at once.
fn work(cast: &ChainCast) -> BTreeMap<String, Charge> {
    let next = AtomicUsize::new(0);
    let providers: Vec<String> = (0..cast.nodes.len()).map(|node| cast.provider_id(node)).collect();
    let worker = |agent: usize| {
        let door = cast.gateways[agent].door();
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= SESSIONS {
                return done;
            }
            let provider = number % providers.len();
            let order = json!({ "providerId": providers[provider], "budgetAllowance": "0.2", "tools": ["say"] });
            let session = cast.open(&door, &order);
            for word in 0..number % 3 {
                let run = json!({ "sessionId": session, "toolId": "say", "args": { "words": format!("{number} {word}") } });
                let run = door.post("/tools/run", &run).ok()["executionId"].as_str().unwrap().to_owned();
                wait_for("the end of a run", || (door.get(&format!("/executions/{run}")).ok()["status"] == "completed").then_some(()));
            }
            let ended = door.post(&format!("/api/sessions/{session}/end"), &json!({})).ok();
            assert_eq!(ended["status"], "completed", "{ended}");
            done.push((session, Charge { agent, provider, total: micros(&ended["budgetConsumed"]) }));
        }
    };
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..cast.gateways.len() * AT_ONCE).map(|number| scope.spawn(move || worker(number / AT_ONCE))).collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect()
    })
}

/// The ledger, its batches and the chain say the same.
fn books_agree(cast: &ChainCast, by_payee: &BTreeMap<usize, u64>, settled: &[Value]) {
    assert!(
        settled.iter().all(|line| line["rail"] == "evm" && line["txHash"].as_str().is_some_and(|hash| hash.len() == 66)),
        "{settled:?}"
    );
    let ledger = cast.settlement_json(&["ledger"]);
    assert_eq!((&ledger["balanced"], &ledger["reserved"]), (&json!(true), &json!("0")), "{ledger}");
    let compared = cast.settlement_json(&["reconcile"]);
    assert_eq!(compared["same"], true, "{compared}");
    let batches = cast.settlement_json(&["batches"]);
    let mut audited = 0;
    for batch in batches["batches"].as_array().unwrap() {
        let id = batch["id"].as_str().unwrap();
        let file = cast.at("batch.json");
        std::fs::write(&file, cast.settlement_json(&["batches", id]).to_string()).unwrap();
        let report = cast.json(&["audit", file.to_str().unwrap(), "--network", cast.network.to_str().unwrap(), "--json"]);
        assert_eq!((&report["findings"], &report["networkCompared"]), (&json!([]), &json!(true)), "{report}");
        audited += report["entries"].as_u64().unwrap();
    }
    assert!(audited >= SESSIONS as u64, "{audited} sessions are in the evidence");
    let payouts = cast.settlement_json(&["payouts"]);
    let mut paid: BTreeMap<Address, u64> = BTreeMap::new();
    for payout in payouts["payouts"].as_array().unwrap() {
        assert_eq!(payout["state"], "final", "{payout}");
        *paid.entry(payout["payee"].as_str().unwrap().parse().unwrap()).or_default() += micros(&payout["amount"]);
    }
    for (provider, amount) in by_payee {
        assert_eq!(paid.get(&cast.payouts[*provider]), Some(amount), "provider {provider}");
    }
}

/// An agent takes out what it did not spend, with its wallet alone.
fn exits(cast: &mut ChainCast, agent: usize, left: u64) {
    cast.settlement.kill();
    telling::says_that_it_does_not_run(cast);
    let before = cast.tokens(&cast.accounts[agent]).micros();
    cast.wallet(agent, &["request-exit", "all"]);
    cast.advance(86_400 + 60);
    cast.wallet(agent, &["withdraw"]);
    assert_eq!((cast.held(&cast.accounts[agent]).balance.micros(), cast.tokens(&cast.accounts[agent]).micros()), (0, before + left));
}

#[test]
fn one_escrow_is_not_promised_twice_and_ending_a_session_with_a_friend_frees_nothing_before_the_chain_says_so() {
    let Some(mut cast) = ChainCast::start() else { return };
    cast.add_node();
    cast.add_gateway("1");
    cast.add_gateway_of(0);
    let (first, second) = (cast.gateways[0].door(), cast.gateways[1].door());
    let provider = cast.provider_id(0);
    // Only then does a refusal say something about money: settlement has read that both may spend, and both have found the provider.
    cast.knows_keys(0, 2);
    for door in [&first, &second] {
        wait_for("the provider's offer", || (door.get(&format!("/api/providers/{provider}")).status == 200).then_some(()));
    }
    let order = |budget: &str| json!({ "providerId": provider, "budgetAllowance": budget, "tools": ["say"], "failover": false });
    let session = cast.open(&first, &order("0.7"));
    lacks(&second, &order("0.7"));
    // The chain stands still, so nothing that happens now is final. The provider may be the agent's own: it closes at once, and nothing is free for that.
    cast.stand_still();
    let ended = first.post(&format!("/api/sessions/{session}/end"), &json!({})).ok();
    assert_eq!(ended["status"], "completed", "{ended}");
    wait_for("the claim", || (cast.status()["waitingClaims"] != 0 || !cast.status()["transaction"].is_null()).then_some(()));
    lacks(&first, &order("0.7"));
    lacks(&second, &order("0.7"));
    cast.go_on();
    cast.all_settled(1);
    let again = cast.open(&second, &order("0.7"));
    second.post(&format!("/api/sessions/{again}/end"), &json!({})).ok();
    let total: u64 = cast.all_settled(2).iter().map(|line| micros(&line["totalCost"])).sum();
    assert_eq!(cast.held(&cast.accounts[0]).balance.micros(), 1_000_000 - total);
}

/// An opening that the account cannot cover, with what is missing.
#[track_caller]
fn lacks(door: &Door, order: &Value) {
    let refused = door.post("/api/sessions", order);
    assert_eq!(refused.status, 402, "{refused:?}");
    assert!(micros(&refused.body["missing"]) > 0, "{refused:?}");
}

#[test]
fn a_provider_collects_alone_when_settlement_is_gone() {
    let Some(mut cast) = ChainCast::start() else { return };
    cast.add_node();
    cast.add_gateway("1");
    let door = cast.gateways[0].door();
    let order = json!({ "providerId": cast.provider_id(0), "budgetAllowance": "0.5", "tools": ["say"] });
    let session = cast.open(&door, &order);
    cast.settlement.kill();
    for word in ["one", "two"] {
        let run = json!({ "sessionId": session, "toolId": "say", "args": { "words": word } });
        let run = door.post("/tools/run", &run).ok()["executionId"].as_str().unwrap().to_owned();
        wait_for("the end of a run", || (door.get(&format!("/executions/{run}")).ok()["status"] == "completed").then_some(()));
    }
    let ended = door.post(&format!("/api/sessions/{session}/end"), &json!({})).ok();
    let total = Usdc::from_micros(micros(&ended["budgetConsumed"]));
    cast.give_gas_to_node(0);
    let node = cast.nodes[0].folder.to_str().unwrap().to_owned();
    let collected = cast.json(&["earnings", "collect", "--json", "--data-dir", &node]);
    assert_ne!(collected["status"], "nothing", "{collected}");
    wait_for("the payout", || (cast.tokens(&cast.payouts[0]) == Split::of(total).provider).then_some(()));
    // Settlement comes back, and reads from the chain what was done without it.
    cast.settlement.restart();
    let earned = Split::of(total).provider.to_string();
    wait_for("the books", || {
        let ledger = cast.settlement_json(&["ledger"]);
        (ledger["liveChannels"] == 0 && ledger["earned"] == earned.as_str() && ledger["balanced"] == true).then_some(())
    });
    // The node tells it all the same, so that there is evidence of the session.
    let settled = cast.all_settled(1);
    assert_eq!(micros(&settled[0]["totalCost"]), total.micros());
    assert_eq!(cast.settlement_json(&["reconcile"])["same"], true);
    assert_eq!(cast.tokens(&cast.payouts[0]), Split::of(total).provider);
}

#[test]
fn the_demonstration_on_a_chain_ends_in_a_payout_that_is_final() {
    if !cast::is_chain_here() {
        return;
    }
    let output = orien().args(["demo", "--chain", "anvil", "--json"]).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(summary["audit"]["findings"], json!([]));
    let (settled, chain) = (&summary["settlement"], &summary["chain"]);
    assert_eq!(
        (&settled["rail"], &settled["txHash"], &settled["providerPayout"]),
        (&json!("evm"), &chain["transaction"], &chain["paid"]),
        "{summary}"
    );
    assert!(chain["block"].as_u64().unwrap() <= chain["finalBlock"].as_u64().unwrap() && micros(&chain["paid"]) > 0, "{chain}");
}

#[test]
fn a_missing_anvil_is_named_with_how_to_install_it() {
    let nowhere = tempfile::tempdir().unwrap();
    let mut command = orien();
    command.args(["demo", "--chain", "anvil"]).env("PATH", nowhere.path()).env("XDG_CACHE_HOME", nowhere.path());
    let output = command.env_remove("ORIEN_ANVIL").env_remove("ORIEN_CLIENTS").output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && said.contains("anvil is not installed") && said.contains("npm install"), "{said}");
}
