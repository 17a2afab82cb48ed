//! The traps that other payers fell into, each by its name.

use orien_chain::anvil::{Fault, FaultyRpc};
use orien_chain::{At, EscrowEvent, Receipt, Transaction, Wei};
use orien_protocol::money::Usdc;
use orien_protocol::time::Millis;
use orien_settlement::paying::Stage;
use serde_json::{Value, json};

use super::paying::{Here, runtime};
use super::scene::Scene;
use super::sim::Faults;
use super::site::{Session, Site, works};
use crate::kit::usdc;

/// Sessions with a payee each, and a claim of each.
async fn claims(here: &Here, count: usize) -> Vec<Session> {
    let mut sessions = Vec::new();
    for n in 0..count {
        let mut session = here.open(0, n, "1").await;
        here.claim(&mut session, usdc("0.5"), false).await;
        sessions.push(session);
    }
    sessions
}

/// What a node says that a call needs, at a block or now.
async fn estimate(here: &Here, calldata: &[u8], block: Option<u64>) -> u64 {
    let (from, to) = (here.site.keys.money().address().to_string(), here.site.chain.facts().escrow.to_string());
    let call = json!({ "from": from, "to": to, "data": format!("0x{}", hex::encode(calldata)) });
    let block = block.map_or_else(|| "latest".to_owned(), |number| format!("0x{number:x}"));
    let said: Value = here.site.anvil().ask("eth_estimateGas", json!([call, block])).await.unwrap();
    u64::from_str_radix(said.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
}

/// Somebody sends the same claims with so much gas.
async fn sent_with(here: &Here, calldata: &[u8], gas_limit: u64) -> Receipt {
    let (chain, key) = (here.site.chain.chain(), here.site.chain.operator());
    let nonce = chain.nonce(&key.address(), At::Latest).await.unwrap();
    let fee = Wei(10_000_000_000);
    let (to, data) = (Some(chain.facts().escrow), calldata.to_vec());
    let (chain_id, value) = (chain.facts().chain_id, Wei::ZERO);
    let transaction = Transaction { chain_id, nonce, to, gas_limit, max_fee: fee, max_priority_fee: Wei(1), value, data };
    let signed = transaction.sign(key);
    chain.send_raw(&signed.raw).await.unwrap();
    for _ in 0..100 {
        if let Some(receipt) = chain.receipt(&signed.hash).await.unwrap() {
            return receipt;
        }
        here.site.anvil().mine(1).await.unwrap();
    }
    panic!("no block took it");
}

fn credited(receipt: &Receipt) -> bool {
    receipt.logs.iter().any(|log| matches!(log.event, EscrowEvent::Credited { .. }))
}

/// The trap: gas is estimated, then the chain changes, and the whole batch runs out of it. Here the deposit came between: before it each claim is passed over, after it each is paid.
#[test]
fn a_batch_whose_gas_was_estimated_before_the_chain_changed_is_reverted_and_ours_is_not_estimated() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 40).await else { return };
        let sessions = claims(&here, 40).await;
        let take_off = here.desk.take_off(&works().policy, Wei(1), here.now().await).unwrap().unwrap();
        assert_eq!(take_off.choice.claims.len(), 40);
        let before = estimate(&here, &take_off.calldata, Some(here.site.chain.facts().escrow_block)).await;
        let receipt = sent_with(&here, &take_off.calldata, before).await;
        assert!(!receipt.success, "{before} gas, as it was estimated, was enough");
        here.settle().await;
        here.audit(&sessions).await;
        let flights = here.desk.flights(None, 10).unwrap();
        assert!(matches!(flights[..], [ref one] if matches!(one.stage, Stage::Final { success: true, .. })), "{flights:?}");
    });
}

/// The trap: an estimate is the least gas at which the call as a whole succeeds. A call inside gets 63 of 64 parts of what is left, and with exactly that it may fail alone.
#[test]
fn with_the_least_gas_at_which_a_batch_goes_through_everybody_is_delivered_to_and_with_less_nobody_is_touched() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 10).await else { return };
        let sessions = claims(&here, 10).await;
        let take_off = here.desk.take_off(&works().policy, Wei(1), here.now().await).unwrap().unwrap();
        let least = estimate(&here, &take_off.calldata, None).await;
        assert!(take_off.choice.gas_limit() > least, "{} and {least}", take_off.choice.gas_limit());
        for gas in [least / 2, least * 9 / 10, least - 10_000] {
            let receipt = sent_with(&here, &take_off.calldata, gas).await;
            assert!(!receipt.success && !credited(&receipt), "{gas} of {least}");
        }
        let receipt = sent_with(&here, &take_off.calldata, least).await;
        assert!(receipt.success && !credited(&receipt), "a delivery had too little gas");
        here.settle().await;
        here.audit(&sessions).await;
    });
}

/// The trap: a nonce is counted up, then a step before sending fails, and everything after it waits for ever.
#[test]
fn a_call_that_would_be_reverted_takes_no_nonce() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 2).await else { return };
        let mut sessions = vec![here.open(0, 0, "1").await, here.open(0, 1, "1").await];
        for session in &mut sessions {
            here.claim(session, usdc("0.4"), false).await;
        }
        let escrow = here.site.chain.facts().escrow;
        let code = here.site.anvil().ask("eth_getCode", json!([escrow.to_string(), "latest"])).await.unwrap();
        // Everything is reverted.
        here.site.anvil().set_code(&escrow, &[0x5f, 0x5f, 0xfd]).await.unwrap();
        here.step().await;
        let standing = here.desk.standing().unwrap();
        assert_eq!((standing.flight, standing.sender.next_nonce), (None, None));
        let code = hex::decode(code.as_str().unwrap().trim_start_matches("0x")).unwrap();
        here.site.anvil().set_code(&escrow, &code).await.unwrap();
        here.settle().await;
        here.audit(&sessions).await;
    });
}

/// The same trap by another door: the node breaks off while it is asked whether the call would go through, or for the nonce itself.
#[test]
fn a_node_that_breaks_off_before_a_transaction_is_signed_costs_no_nonce() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
        let chain = site.chain_of(&[proxy.rpc().clone()]);
        let mut here = Here::over(site, chain).await;
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), false).await;
        for method in ["eth_call", "eth_getTransactionCount", "eth_feeHistory"] {
            // More often than it is tried.
            proxy.fail_next(Some(method), Fault::Drop, 10);
            here.step().await;
            let standing = here.desk.standing().unwrap();
            assert_eq!((standing.flight, standing.sender.next_nonce), (None, None), "{method}");
            proxy.calm();
        }
        here.settle().await;
        here.audit(&[session]).await;
    });
}

/// The trap: a receipt is shown for a block that is not, or not any more, part of the chain.
#[test]
fn a_payment_in_a_block_that_is_taken_back_is_made_again_and_counted_once() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 1).await else { return };
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), false).await;
        // Blocks are made by hand, so that it is known which one has it.
        here.site.anvil().set_automine(false).await.unwrap();
        here.step().await;
        here.site.anvil().mine(1).await.unwrap();
        here.step().await;
        assert!(matches!(here.desk.standing().unwrap().flight.unwrap().stage, Stage::Included { .. }));
        assert_eq!(here.desk.channel_state(&session.terms.channel()).unwrap().redeemed, Usdc::ZERO, "not final");
        here.site.anvil().reorganise(1).await.unwrap();
        assert_eq!(here.token(&session.terms.payout()).await, Usdc::ZERO);
        here.settle().await;
        here.audit(&[session]).await;
    });
}

/// The trap: a receipt comes before its block does, and the block never comes.
#[test]
fn a_receipt_of_a_block_that_never_comes_is_taken_for_nothing() {
    let mut scene = Scene::new(3);
    scene.deposit_all();
    (0..10).for_each(|_| scene.tick());
    scene.open();
    scene.reserve();
    scene.claim();
    // The chain stands still, and the node shows receipts all the same.
    scene.faults(Faults { preconfirmed: 100, ..Faults::default() });
    for _ in 0..30 {
        scene.now = scene.now.plus(Millis(20_000));
        scene.step();
        let stage = scene.desk.standing().unwrap().flight.map(|flight| flight.stage);
        assert!(matches!(stage, None | Some(Stage::Submitted)), "{stage:?}");
    }
    let flight = scene.desk.standing().unwrap().flight.unwrap();
    assert!(flight.amount > Usdc::ZERO && flight.attempts.len() > 1, "it is sent again, and for more");
    scene.faults(Faults::default());
    (0..20).for_each(|_| scene.tick());
    scene.audit_end(3);
}
