//! A provider that reads the chain through several nodes, one of which lies: it takes the side on which nothing can be lost.

use std::sync::atomic::Ordering;
use std::time::Duration;

use orien_chain::anvil::{FaultyRpc, LocalChain, LocalSettings, chain_for_test};
use orien_chain::{ChainLimits, EscrowAccount, EscrowChannel, call};
use orien_node::shop::Shop;
use orien_protocol::fault::FaultCode;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::MoneyKey;
use orien_protocol::time::UnixSeconds;

use crate::agent::Agent;
use crate::chain::{chain, collect, deposit, paid, redeemed, session, until_redeemed};
use crate::hostile::{on_chain, until_claimed};
use crate::kit::{Kit, agent_keys, usdc};

/// A provider that asks `honest` nodes and one that lies when it is told to.
async fn provider(local: &LocalChain, honest: usize) -> (Kit, FaultyRpc, Vec<FaultyRpc>) {
    let liar = FaultyRpc::start(local.anvil.rpc()).await.unwrap();
    let mut others = Vec::new();
    for _ in 0..honest {
        others.push(FaultyRpc::start(local.anvil.rpc()).await.unwrap());
    }
    let mut kit = Kit::on_chain(local, 3);
    // The liar is asked first.
    let nodes: Vec<_> = [&liar].into_iter().chain(&others).map(|node| node.rpc().clone()).collect();
    let limits = ChainLimits { answer_within: Duration::from_secs(5), attempts: 2, ..ChainLimits::default() };
    kit.chain = Some(local.through(&nodes, limits).unwrap());
    (kit, liar, others)
}

async fn refusal(kit: &Kit, shop: &Shop, offer: &orien_protocol::signing::Verified<orien_protocol::offer::Offer>) -> FaultCode {
    let mut agent = Agent::propose(kit, shop, offer, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    agent.not_opened().unwrap().code
}

/// Waits for some rounds of looks, of which there are five in a second.
async fn some_looks() {
    tokio::time::sleep(Duration::from_secs(2)).await;
}

const RICH: EscrowAccount = EscrowAccount {
    balance: usdc(1_000_000_000),
    locked: Usdc::ZERO,
    exiting: Usdc::ZERO,
    exit_at: orien_protocol::time::UnixSeconds(0),
    daily_cap: Usdc::ZERO,
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn money_that_one_of_two_nodes_makes_up_opens_nothing() {
    let Some(local) = chain().await else { return };
    let (kit, liar, _honest) = provider(&local, 1).await;
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 99_999).await;
    assert_eq!(refusal(&kit, &shop, &offer).await, FaultCode::INSUFFICIENT_FUNDS);
    liar.claim_account(Some(RICH));
    assert_eq!(refusal(&kit, &shop, &offer).await, FaultCode::CHAIN_UNREADABLE, "which of them lies nobody knows");
    // A chain that the liar alone has ever seen: it says of a later block that it is final.
    liar.calm();
    liar.claim_other_hash(Some(local.chain().final_block().await.unwrap().number));
    assert_eq!(refusal(&kit, &shop, &offer).await, FaultCode::CHAIN_UNREADABLE);
    liar.calm();
    deposit(&local, 1, 1).await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    assert!(agent.not_opened().is_none(), "and it is whole again when they agree");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_opened_on_a_chain_that_stands_still_and_the_node_is_named() {
    let signer = MoneyKey::from_bytes(&[9; 32]).unwrap().address();
    let mut settings = LocalSettings::new(signer);
    let ago = |minutes: u64| Some(UnixSeconds(orien_bootstrap::clock::wall().seconds().0 - minutes * 60));
    settings.anvil.begins_at = ago(120);
    let Some(local) = chain_for_test(&settings).await else { return };
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 1_000_000).await;
    let mut agent = Agent::propose(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    let fault = agent.not_opened().unwrap().clone();
    assert_eq!(fault.code, FaultCode::CHAIN_UNREADABLE, "{}", fault.text);
    assert!(fault.text.contains(&local.anvil.rpc().host()) && fault.text.contains("stands at block"), "{}", fault.text);
    shop.close().await;
    // So old and no older is what half an hour allows.
    settings.anvil.begins_at = ago(20);
    let Some(local) = chain_for_test(&settings).await else { return };
    let kit = Kit::on_chain(&local, 4);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 1_000_000).await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    assert!(agent.not_opened().is_none());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_liar_among_three_nodes_changes_nothing() {
    let Some(local) = chain().await else { return };
    let (kit, liar, _honest) = provider(&local, 2).await;
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 99_999).await;
    liar.claim_account(Some(RICH));
    assert_eq!(refusal(&kit, &shop, &offer).await, FaultCode::INSUFFICIENT_FUNDS, "two of three say so");
    deposit(&local, 1, 1).await;
    liar.claim_account(Some(EscrowAccount::default()));
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    assert!(agent.not_opened().is_none());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redemption_that_one_of_two_nodes_makes_up_never_counts() {
    let Some(local) = chain().await else { return };
    let (kit, liar, _honest) = provider(&local, 1).await;
    kit.till.silent.store(true, Ordering::SeqCst);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 3_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    liar.claim_channel(Some(EscrowChannel { redeemed: usdc(promised), closed: true, ..EscrowChannel::default() }));
    some_looks().await;
    assert_eq!(redeemed(&shop).await, 0);
    assert!(shop.chain().unwrap().0.problem.is_some_and(|problem| problem.contains("channelsOf")), "{:?}", shop.chain());
    liar.calm();
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_that_one_of_two_nodes_calls_final_too_early_does_not_count() {
    let Some(local) = chain().await else { return };
    let (kit, liar, _honest) = provider(&local, 1).await;
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 3_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let claim = on_chain(&kit, &until_claimed(&kit, promised).await);
    let relayer = MoneyKey::from_bytes(&[0x55; 32]).unwrap();
    local.anvil.give_gas(&relayer.address()).await.unwrap();
    let receipt = local.send(&relayer, &local.facts().escrow, call::redeem(&[claim])).await.unwrap();
    liar.claim_final(Some(receipt.block));
    some_looks().await;
    assert_eq!(redeemed(&shop).await, 0, "the newest block is final for the liar alone");
    local.anvil.reorganise(1).await.unwrap();
    liar.calm();
    local.settle().await.unwrap();
    some_looks().await;
    assert_eq!((redeemed(&shop).await, paid(&local, &kit.payout).await), (0, 0));
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}
