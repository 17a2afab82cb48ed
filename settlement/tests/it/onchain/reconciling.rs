//! Books against a real chain: nothing is promised before they were compared, what is given to the escrow is nobody's, and what is missing from it stops everything.

use std::sync::Arc;

use orien_bootstrap::clock;
use orien_chain::anvil::{Fault, FaultyRpc};
use orien_protocol::fault::FaultCode;
use orien_protocol::id::RequestId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::{Millis, Timestamp};
use orien_settlement::desk::{Desk, DeskError};
use serde_json::json;

use super::paying::{AtDesk, Here, runtime};
use super::scene::Scene;
use super::site::Site;
use crate::kit::usdc;

/// Why a desk does not reserve; none when it does.
pub(crate) fn refusal(site: &Site, desk: &Desk, now: Timestamp) -> Option<String> {
    let terms = site.terms(0, 0, now);
    let request = clock::random_id(RequestId::from_parts).unwrap();
    match desk.reserve(site.agents[0].peer.id(), request, terms.to_signed(), usdc("1"), now) {
        Ok(_) => None,
        Err(DeskError::Refused(fault)) => {
            assert_eq!(fault.code, FaultCode::BUSY, "{}", fault.text);
            Some(fault.text)
        }
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn after_a_start_nothing_is_promised_before_books_and_chain_were_compared() {
    runtime().block_on(async {
        let Some(site) = Site::start(1, 1).await else { return };
        let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
        let chain = site.chain_of(&[proxy.rpc().clone()]);
        let here = Here::over(site, chain).await;
        assert_eq!(refusal(&here.site, &here.desk, here.now().await), None);
        // The process starts again, and its node answers everything but what a comparison asks.
        let Here { site, desk, follower } = here;
        drop((follower, desk));
        let desk = Arc::new(site.desk());
        let mut follower = site.follower(AtDesk(Arc::clone(&desk)), site.chain_of(&[proxy.rpc().clone()]));
        proxy.fail_next(Some("eth_call"), Fault::Error(-32_000, "missing trie node".to_owned()), 1_000);
        let now = clock::wall().max(site.chain.now().await.unwrap().timestamp());
        follower.step(now, &mut || None).await.unwrap();
        let status = desk.chain_status().unwrap();
        assert!(status.sight.is_some() && status.notices.iter().any(|(code, _)| *code == "not_reconciled"), "{status:?}");
        let text = refusal(&site, &desk, now).unwrap();
        assert!(text.contains("not compared"), "{text}");
        proxy.calm();
        let now = now.plus(Millis(2_000));
        follower.step(now, &mut || None).await.unwrap();
        assert_eq!(refusal(&site, &desk, now), None);
    });
}

#[test]
fn tokens_that_somebody_sends_to_the_escrow_are_nobodys_and_halt_nothing() {
    runtime().block_on(async {
        let Some(mut here) = Here::start(1, 1).await else { return };
        let escrow = here.site.chain.facts().escrow;
        here.site.chain.mint(&escrow, usdc("12.345678")).await.unwrap();
        let mut session = here.open(0, 0, "1").await;
        here.claim(&mut session, usdc("0.4"), true).await;
        here.settle().await;
        here.audit(&[session]).await;
        assert_eq!(refusal(&here.site, &here.desk, here.now().await), None);
        let account = here.site.agents[0].principal;
        let (funds, held) = (here.desk.funds(&account).unwrap(), here.token(&escrow).await);
        assert_eq!(funds.available, usdc("98.6"), "nobody was credited");
        // What is owed, a tenth of 0.4 as fees, and the present.
        assert_eq!(held, usdc("99.6").plus(usdc("0.04")).and_then(|owed| owed.plus(usdc("12.345678"))).unwrap());
    });
}

#[test]
fn tokens_that_are_missing_from_the_escrow_halt_and_nothing_is_promised_any_more() {
    runtime().block_on(async {
        let Some(here) = Here::start(1, 1).await else { return };
        let facts = *here.site.chain.facts();
        // No call of the contract does this: as if its code, or the token's, had a hole.
        here.site.anvil().give_gas(&facts.escrow).await.unwrap();
        here.site.anvil().ask("anvil_impersonateAccount", json!([facts.escrow.to_string()])).await.unwrap();
        let thief = here.site.chain.operator().address();
        let data = format!("0xa9059cbb{:0>64}{:064x}", hex::encode(thief.as_bytes()), 1);
        let call = json!([{ "from": facts.escrow.to_string(), "to": facts.token.to_string(), "data": data }]);
        here.site.anvil().ask("eth_sendTransaction", call).await.unwrap();
        // It is answered before there is a block with it.
        here.site.anvil().mine(1).await.unwrap();
        here.site.chain.settle().await.unwrap();
        let Here { site, desk, mut follower } = here;
        let now = clock::wall().max(site.chain.now().await.unwrap().timestamp());
        follower.step(now, &mut || None).await.unwrap();
        let found = follower.reconcile(now).await.unwrap().unwrap();
        let differences: Vec<(&str, u128, u128)> =
            found.differences.iter().map(|found| (found.what.as_str(), found.books, found.chain)).collect();
        assert_eq!(differences, [("the tokens of the escrow", 100_000_000, 99_999_999)]);
        assert_eq!(desk.chain_status().unwrap().halts[0].code, "difference");
        let text = refusal(&site, &desk, now).unwrap();
        assert!(text.contains("halted"), "{text}");
        assert_ne!(desk.funds(&site.agents[0].principal).unwrap().available, Usdc::ZERO);
    });
}

#[test]
fn thousands_of_accounts_are_compared_in_parts_and_payments_come_before_them() {
    const ACCOUNTS: usize = 3_000;
    const AT_A_STEP: usize = 1_200;
    let mut scene = Scene::new(5);
    scene.deposit_all();
    (0..10).for_each(|_| scene.tick());
    let compared = |scene: &Scene| scene.desk.chain_status().unwrap().compared;
    assert!(compared(&scene), "few are compared in one step");
    for n in 0..ACCOUNTS {
        let mut bytes = [0xaa; 20];
        bytes[12..].copy_from_slice(&(n as u64).to_be_bytes());
        scene.world().deposit(Address::from_bytes(bytes), scene.agents[0].money.address(), 1);
    }
    (0..10).for_each(|_| scene.tick());
    scene.open();
    scene.reserve();
    // An hour later the next comparison is due, and a claim waits.
    scene.now = scene.now.plus(Millis::from_secs(3_700));
    let now = scene.now.seconds().0;
    scene.world().tick(now);
    scene.claim();
    scene.world().accounts_read = 0;
    scene.world().read_before_sending = usize::MAX;
    scene.step();
    assert_eq!(scene.world().read_before_sending, 0, "the payment was sent first");
    let (mut reads, mut steps) = (scene.world().accounts_read, 1);
    assert_eq!(reads, AT_A_STEP);
    while reads < ACCOUNTS + 3 {
        scene.step();
        let more = scene.world().accounts_read - reads;
        assert!(more > 0 && more <= AT_A_STEP, "{more} in a step, after {reads}");
        (reads, steps) = (reads + more, steps + 1);
    }
    assert_eq!((reads, steps), (ACCOUNTS + 3, 3));
    scene.step();
    assert_eq!(scene.world().accounts_read, reads, "it is over");
    (0..20).for_each(|_| scene.tick());
    scene.audit_end(5);
}

#[test]
fn a_difference_in_any_part_of_many_halts() {
    let mut scene = Scene::new(6);
    scene.deposit_all();
    (0..10).for_each(|_| scene.tick());
    for n in 0..1_500_u64 {
        let mut bytes = [0xaa; 20];
        bytes[12..].copy_from_slice(&n.to_be_bytes());
        scene.world().deposit(Address::from_bytes(bytes), scene.agents[0].money.address(), 1);
    }
    (0..10).for_each(|_| scene.tick());
    // Money is missing of which no log tells; it shows in the sums, which come last.
    scene.world().lose(1);
    (0..10).for_each(|_| scene.tick());
    assert!(scene.desk.chain_status().unwrap().halts.is_empty(), "it is not looked for yet");
    scene.now = scene.now.plus(Millis::from_secs(3_700));
    for _ in 0..12 {
        scene.tick();
    }
    let halts = scene.desk.chain_status().unwrap().halts;
    assert!(halts.len() == 1 && halts[0].code == "difference" && halts[0].text.starts_with("the tokens of the escrow"), "{halts:?}");
}
