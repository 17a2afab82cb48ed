//! What settlement's door and its operator's commands say of the chain, beside what the chain itself says.

use orien_chain::{At, EscrowEvent, TxHash};
use serde_json::{Value, json};

use super::cast::ChainCast;
use crate::kit::micros;

/// Every route about the chain, and every command that shows one, when everything is paid out.
pub(super) fn says_what_the_chain_says(cast: &ChainCast) {
    let status = cast.settlement.door().get("/api/chain").ok();
    status_is_the_chains(cast, &status);
    let transactions = transactions_are_the_chains(cast, &status);
    comparison_is_the_chains(cast, &status);
    commands_say_the_same(cast, &status, &transactions);
    bad_input_has_its_own_codes(cast);
}

fn status_is_the_chains(cast: &ChainCast, status: &Value) {
    let facts = cast.facts();
    let (signer, escrow, token) = (cast.signer(), facts.escrow.to_string(), facts.token.to_string());
    for (name, expected) in [
        ("rail", json!("evm")),
        ("state", json!("ok")),
        ("chainId", json!(facts.chain_id)),
        ("escrow", json!(escrow)),
        ("token", json!(token)),
        ("sender", json!(signer.to_string())),
        ("halts", json!([])),
        ("parked", json!([])),
        ("transaction", Value::Null),
        ("waitingClaims", json!(0)),
        ("waitingAmount", json!("0")),
        ("accounts", json!(cast.accounts.len())),
    ] {
        assert_eq!(status[name], expected, "{name}: {status}");
    }
    let number = status["folded"]["number"].as_u64().unwrap();
    let (block, last, nonce) = cast.ask(async |chain| {
        let nonce = chain.nonce(&signer, At::Latest).await.unwrap();
        (chain.block(number).await.unwrap().unwrap(), chain.final_block().await.unwrap(), nonce)
    });
    assert!(number <= last.number, "{number} is folded and {} is final", last.number);
    assert_eq!(status["folded"]["hash"], format!("0x{}", block.hash));
    assert_eq!(status["nextNonce"], nonce, "a nonce is stuck");
}

/// Every transaction of settlement's is in a block, with just the redemptions that it is said to have.
fn transactions_are_the_chains(cast: &ChainCast, status: &Value) -> Vec<Value> {
    let door = cast.settlement.door();
    let whole = door.get("/api/transactions?limit=1000").ok();
    let all = whole["transactions"].as_array().unwrap().clone();
    assert_eq!(whole["next"], Value::Null);
    let (mut pages, mut before) = (Vec::new(), String::new());
    loop {
        let page = door.get(&format!("/api/transactions?limit=2{before}")).ok();
        let rows = page["transactions"].as_array().unwrap();
        assert!(rows.len() <= 2, "{page}");
        pages.extend(rows.clone());
        match page["next"].as_u64() {
            Some(next) => before = format!("&before={next}"),
            None => break,
        }
    }
    assert_eq!(pages, all, "page by page it is the same");
    let nonces: Vec<u64> = all.iter().map(|row| row["nonce"].as_u64().unwrap()).collect();
    let next = status["nextNonce"].as_u64().unwrap();
    assert_eq!(nonces, (0..next).rev().collect::<Vec<_>>(), "newest first, and none is missing");
    for row in &all {
        assert_eq!(row["state"], "final", "{row}");
        let hash: TxHash = row["txHash"].as_str().unwrap().parse().unwrap();
        let receipt = cast.ask(async |chain| chain.receipt(&hash).await.unwrap().unwrap());
        let paid: Vec<u64> = receipt
            .logs
            .iter()
            .filter_map(|log| match log.event {
                EscrowEvent::Redeemed { paid, .. } => Some(paid.micros()),
                _ => None,
            })
            .collect();
        assert!(receipt.success && receipt.gas_used <= row["gasLimit"].as_u64().unwrap(), "{row}");
        assert_eq!((paid.len() as u64, paid.iter().sum::<u64>()), (row["claims"].as_u64().unwrap(), micros(&row["amount"])), "{row}");
        assert!(row["attempts"].as_array().unwrap().iter().any(|attempt| attempt["txHash"] == row["txHash"]), "{row}");
    }
    all
}

fn comparison_is_the_chains(cast: &ChainCast, status: &Value) {
    let found = cast.settlement.door().post("/api/reconcile", &json!({})).ok();
    assert_eq!((&found["same"], &found["differences"], &found["accounts"]), (&json!(true), &json!([]), &status["accounts"]), "{found}");
    let number = found["block"]["number"].as_u64().unwrap();
    let block = cast.ask(async |chain| chain.block(number).await.unwrap().unwrap());
    assert_eq!(found["block"]["hash"], format!("0x{}", block.hash));
    let cleared = cast.settlement.door().post("/api/reconcile", &json!({ "clearHalts": true })).ok();
    assert_eq!(cleared["same"], true, "{cleared}");
}

fn commands_say_the_same(cast: &ChainCast, status: &Value, transactions: &[Value]) {
    let said = cast.settlement_json(&["status"]);
    for name in ["state", "chainId", "escrow", "token", "sender", "nextNonce", "sentToday", "accounts", "waitingClaims"] {
        assert_eq!(said[name], status[name], "{name}");
    }
    assert_eq!(cast.settlement_json(&["transactions"])["transactions"], json!(transactions));
    let payouts = cast.settlement_json(&["payouts"])["payouts"].as_array().unwrap().clone();
    let csv = printed(cast, &["payouts", "--csv"]);
    assert_eq!(csv.lines().count(), payouts.len() + 1, "a heading and a line each: {csv}");
    for payout in &payouts {
        let hash = &payout["txHash"];
        assert!(transactions.iter().any(|row| row["txHash"] == *hash), "{payout}");
        assert!(csv.contains(payout["id"].as_str().unwrap()) && csv.contains(hash.as_str().unwrap()), "{payout}");
    }
    // For people: a line for each fact.
    let text = printed(cast, &["status"]);
    let escrow = status["escrow"].as_str().unwrap();
    assert!(text.lines().any(|line| line.starts_with("escrow ") && line.ends_with(escrow)), "{text}");
    assert!(text.lines().any(|line| line.starts_with("waiting ") && line.ends_with("0 claims, 0 USDC")), "{text}");
    assert!(!text.contains("HALT") && !text.contains("PARKED"), "{text}");
    let text = printed(cast, &["transactions"]);
    assert_eq!(text.lines().count(), 1 + transactions.len(), "a heading and a line each: {text}");
    assert!(transactions.iter().all(|row| text.contains(row["txHash"].as_str().unwrap())), "{text}");
    let text = printed(cast, &["payouts"]);
    assert!(payouts.iter().all(|row| text.contains(row["txHash"].as_str().unwrap())), "{text}");
    for words in [&["reconcile"][..], &["reconcile", "--clear"]] {
        assert!(printed(cast, words).starts_with("books and chain are the same at block "), "{words:?}");
    }
}

fn printed(cast: &ChainCast, words: &[&str]) -> String {
    let output = cast.settlement_said(words);
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn bad_input_has_its_own_codes(cast: &ChainCast) {
    let door = cast.settlement.door();
    for query in ["limit=many", "limit=-1", "before=0x1", "before=-1", "after=1", "before=99999999999999999999999"] {
        let refused = door.get(&format!("/api/transactions?{query}"));
        assert_eq!((refused.status, refused.code()), (400, "invalid_query"), "{query}");
    }
    // More than may be asked for is what may be asked for.
    assert!(door.get("/api/transactions?limit=18446744073709551615").ok()["transactions"].is_array());
    assert_eq!(door.get("/api/transactions?before=0").ok(), json!({ "transactions": [], "next": null }));
    for body in [json!({ "clearHalts": "yes" }), json!({ "clear": true }), json!("clear"), json!(null)] {
        let refused = door.post("/api/reconcile", &body);
        assert_eq!((refused.status, refused.code()), (422, "invalid_body"), "{body}");
    }
    assert_eq!(door.post_bytes("/api/reconcile", b"{}").code(), "idempotency_key_required");
    assert_eq!((door.get("/api/reconcile").status, door.post("/api/chain", &json!({})).status), (405, 405));
    for words in [&["status", "more"][..], &["transactions", "--limit", "3"], &["reconcile", "--clear=maybe"], &["payouts", "--csvv"]] {
        assert_eq!(cast.settlement_said(words).status.code(), Some(2), "{words:?}");
    }
}

/// The commands that need it running say so when it does not, and where they looked; with a door file that its process left behind, too.
pub(super) fn says_that_it_does_not_run(cast: &ChainCast) {
    let folder = cast.settlement.folder.to_str().unwrap();
    for words in [&["status"][..], &["status", "--json"], &["payouts"], &["payouts", "--csv"], &["transactions"], &["reconcile"]] {
        let output = cast.settlement_said(words);
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success(), "{words:?}: {output:?}");
        assert!(said.contains("settlement does not run in") && said.contains(folder), "{words:?}: {said}");
        if words.contains(&"--json") {
            let told: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert!(told["error"]["message"].as_str().is_some_and(|message| said.contains(message)), "{words:?}: {output:?}");
        } else {
            assert!(output.stdout.is_empty(), "{words:?}: {output:?}");
        }
    }
}
