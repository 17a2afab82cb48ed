//! A provider on a chain: what it opens, what it counts, and how it collects without settlement. Everything here runs against a real node of a chain.

use std::sync::atomic::Ordering;
use std::time::Duration;

use orien_chain::anvil::{FaultyRpc, LocalChain, LocalSettings, chain_for_test};
use orien_chain::{ChainLimits, Wei, call};
use orien_node::chain::Collected;
use orien_node::shop::Shop;
use orien_protocol::fault::FaultCode;
use orien_protocol::money::Split;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::UnixSeconds;

use crate::agent::Agent;
use crate::kit::{HUNG, Kit, agent_keys, usdc};

/// The chain, with settlement's signer of every kit.
pub(crate) async fn chain() -> Option<LocalChain> {
    let signer = MoneyKey::from_bytes(&[9; 32]).unwrap().address();
    chain_for_test(&LocalSettings::new(signer)).await
}

/// Gives an agent's account money in the escrow, and makes that final.
pub(crate) async fn deposit(local: &LocalChain, seed: u8, amount: u64) {
    let key = agent_keys(seed).spending;
    local.fund(&key.address(), usdc(amount)).await.unwrap();
    local.deposit(&key, usdc(amount), &key.address()).await.unwrap();
    local.settle().await.unwrap();
}

/// What an address has of the token.
pub(crate) async fn paid(local: &LocalChain, payee: &Address) -> u64 {
    let at = local.chain().latest_block().await.unwrap();
    local.chain().token_balance(payee, &at).await.unwrap().micros()
}

/// What counts as redeemed at a provider.
pub(crate) async fn redeemed(shop: &Shop) -> u64 {
    shop.takings().await.unwrap().balance.redeemed.micros()
}

/// Makes blocks until a provider has seen so much redeemed.
pub(crate) async fn until_redeemed(local: &LocalChain, shop: &Shop, total: u64) {
    let seen = async {
        while redeemed(shop).await != total {
            local.settle().await.unwrap();
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    assert!(tokio::time::timeout(HUNG, seen).await.is_ok(), "{total} was never seen: {:?} {:?}", shop.takings().await, shop.chain());
}

/// Has a provider collect, with gas.
pub(crate) async fn collect(local: &LocalChain, kit: &Kit, shop: &Shop) {
    local.anvil.give_gas(&kit.provider.claim.address()).await.unwrap();
    let collected = shop.collect().await.unwrap().unwrap();
    assert!(matches!(collected, Collected::Sent { .. } | Collected::UnderWay { .. }), "{collected:?}");
}

/// A whole session with a run in it; what it promised.
pub(crate) async fn session(
    kit: &Kit,
    shop: &Shop,
    offer: &orien_protocol::signing::Verified<orien_protocol::offer::Offer>,
    seed: u8,
) -> u64 {
    let mut agent = Agent::open(kit, shop, offer, agent_keys(seed), 1_000_000).await;
    agent.run_to_end("echo", &[("text", "paid for")]).await;
    agent.end().await;
    agent.session.promised().micros()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowance_that_the_escrow_does_not_carry_opens_nothing_and_the_missing_amount_is_named() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    let refused = async |seed: u8, budget: u64| {
        let mut agent = Agent::propose(&kit, &shop, &offer, agent_keys(seed), budget).await;
        agent.until("refused", |agent| agent.not_opened().is_some()).await;
        let fault = agent.not_opened().unwrap().clone();
        (fault.code, fault.missing.map(|missing| missing.micros()))
    };
    // Settlement signs whatever it is asked for.
    assert_eq!(refused(1, 1_000_000).await, (FaultCode::KEY_NOT_AUTHORIZED, None), "nobody deposited anything");
    deposit(&local, 1, 700_000).await;
    assert_eq!(refused(1, 1_000_000).await, (FaultCode::INSUFFICIENT_FUNDS, Some(300_000)));
    // What an open session may still take is not there twice.
    let mut first = Agent::open(&kit, &shop, &offer, agent_keys(1), 500_000).await;
    assert_eq!(refused(1, 500_000).await, (FaultCode::INSUFFICIENT_FUNDS, Some(300_000)));
    // Money on its way out is not there either.
    let key = agent_keys(1).spending;
    local.send(&key, &local.facts().escrow, call::request_exit(usdc(150_000))).await.unwrap();
    local.settle().await.unwrap();
    assert_eq!(refused(1, 200_000).await, (FaultCode::INSUFFICIENT_FUNDS, Some(150_000)));
    // The owner's cap for a day.
    local.send(&key, &local.facts().escrow, call::set_daily_cap(usdc(20_000))).await.unwrap();
    local.settle().await.unwrap();
    assert_eq!(refused(1, 30_000).await, (FaultCode::DAILY_CAP, Some(10_000)));
    assert!(first.run_to_end("echo", &[("text", "what is open goes on")]).await.outcome.unwrap().succeeded());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_its_account_takes_back_opens_nothing_and_gets_no_new_job_while_what_it_promised_is_paid() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 2_000_000).await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    agent.run_to_end("echo", &[("text", "while it counts")]).await;
    let key = agent_keys(1).spending;
    local.send(&key, &local.facts().escrow, call::revoke_key(&key.address())).await.unwrap();
    local.settle().await.unwrap();
    let refusal = async {
        loop {
            let run = agent.run("echo", &[("text", "not any more")]).await;
            agent.until("answered", |agent| agent.refusal(run).is_some() || agent.final_work(run).is_some()).await;
            if let Some(fault) = agent.refusal(run) {
                return fault.code;
            }
        }
    };
    assert_eq!(tokio::time::timeout(HUNG, refusal).await.unwrap(), FaultCode::KEY_NOT_AUTHORIZED);
    let mut second = Agent::propose(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    second.until("refused", |agent| agent.not_opened().is_some()).await;
    assert_eq!(second.not_opened().unwrap().code, FaultCode::KEY_NOT_AUTHORIZED);
    agent.end().await;
    let promised = agent.session.promised().micros();
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_opens_while_the_chain_cannot_be_read_or_is_another_one() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 1_000_000).await;
    let proxy = FaultyRpc::start(local.anvil.rpc()).await.unwrap();
    let mut kit = Kit::on_chain(&local, 3);
    let limits = ChainLimits { attempts: 1, answer_within: Duration::from_secs(2), ..ChainLimits::default() };
    kit.chain = Some(local.through(&[proxy.rpc().clone()], limits).unwrap());
    proxy.fail_next(None, orien_chain::anvil::Fault::Drop, u64::MAX);
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::propose(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    assert_eq!(agent.not_opened().unwrap().code, FaultCode::CHAIN_UNREADABLE);
    proxy.calm();
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    assert!(agent.not_opened().is_none());
    shop.close().await;

    let other = Kit::on_chain(&local, 4);
    let wrong = orien_chain::ChainFacts { chain_id: 5, ..*local.facts() };
    let chain = orien_chain::Chain::new(wrong, &[local.anvil.rpc().clone()], ChainLimits::default()).unwrap();
    let other = Kit { chain: Some(chain), ..other };
    let (shop, offer) = other.open().await;
    let mut agent = Agent::propose(&other, &shop, &offer, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    assert_eq!(agent.not_opened().unwrap().code, FaultCode::CHAIN_UNREADABLE);
    assert!(agent.not_opened().unwrap().text.contains("chain 31337"), "{:?}", agent.not_opened());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_settlement_a_provider_is_paid_by_itself_and_says_what_it_lacks_when_it_cannot() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    kit.till.silent.store(true, Ordering::SeqCst);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let mut promised = 0;
    for _ in 0..3 {
        promised += session(&kit, &shop, &offer, 1).await;
    }
    let payer = kit.provider.claim.address();
    local.anvil.set_native_balance(&payer, Wei::ZERO).await.unwrap();
    let Some(Collected::NeedsGas { payer: named, has, needs }) = shop.collect().await.unwrap() else { panic!("without gas") };
    assert!(named == payer && has == Wei::ZERO && needs > Wei::ZERO);
    assert_eq!(shop.chain().unwrap().0.missing_gas, Some(needs));
    local.anvil.give_gas(&payer).await.unwrap();
    let Some(Collected::Sent { sessions, total, .. }) = shop.collect().await.unwrap() else { panic!("with gas") };
    assert_eq!((sessions, total.micros()), (3, promised));
    assert_eq!(redeemed(&shop).await, 0, "it is in a block and not final");
    until_redeemed(&local, &shop, promised).await;
    // Each session is split by itself; a batch pays their sum.
    let earnings = shop.earnings(10).await.unwrap();
    let due: u64 = earnings.newest.iter().map(|session| Split::of(session.balance.promised).provider.micros()).sum();
    assert_eq!(paid(&local, &kit.payout).await, due);
    assert_eq!(shop.collect().await.unwrap(), Some(Collected::Nothing));
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_that_settlement_leaves_waiting_collects_in_time_by_itself() {
    let Some(local) = chain().await else { return };
    let mut kit = Kit::on_chain(&local, 3);
    kit.till.silent.store(true, Ordering::SeqCst);
    // From the end of work on, which is seconds away.
    (kit.collect.before, kit.collect.parts) = (orien_protocol::time::Millis::from_secs(24 * 3600), 1);
    local.anvil.give_gas(&kit.provider.claim.address()).await.unwrap();
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let mut terms = kit.terms(&offer, offer.hash(), &agent_keys(1));
    terms.work_until = UnixSeconds(terms.issued_at.0 / 1000 + 6);
    terms.redeem_until = UnixSeconds(terms.work_until.0 + 3600);
    let mut agent = Agent::propose_terms(&kit, &shop, terms, agent_keys(1), 1_000_000).await;
    agent.opened().await;
    agent.run_to_end("echo", &[("text", "soon over")]).await;
    agent.end().await;
    let promised = agent.session.promised().micros();
    assert_eq!(redeemed(&shop).await, 0);
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_is_dropped_while_the_provider_is_down_is_sent_again_and_pays_once() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    kit.till.silent.store(true, Ordering::SeqCst);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    local.anvil.give_gas(&kit.provider.claim.address()).await.unwrap();
    local.anvil.set_automine(false).await.unwrap();
    let Some(Collected::Sent { transaction, .. }) = shop.collect().await.unwrap() else { panic!("not sent") };
    let again = shop.collect().await.unwrap();
    assert_eq!(again, Some(Collected::UnderWay { transaction, sessions: 1 }), "one at a time");
    shop.close().await;
    drop(shop);
    assert!(local.anvil.drop_transaction(&transaction).await.unwrap());
    local.anvil.set_automine(true).await.unwrap();
    let (shop, _) = kit.open().await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    assert_eq!(local.nonce(&kit.provider.claim.address()).await.unwrap(), 1, "under the one nonce");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_whose_look_fails_leaves_everything_to_be_looked_at_again_soon() {
    let Some(local) = chain().await else { return };
    let proxy = FaultyRpc::start(local.anvil.rpc()).await.unwrap();
    let mut kit = Kit::on_chain(&local, 3);
    kit.till.silent.store(true, Ordering::SeqCst);
    let limits = ChainLimits { attempts: 1, answer_within: Duration::from_secs(5), ..ChainLimits::default() };
    kit.chain = Some(local.through(&[proxy.rpc().clone()], limits).unwrap());
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let promised = agent.session.promised().micros();
    let voucher = async {
        // It may still be on its way when the agent calls the session open.
        while shop.takings().await.unwrap().balance.promised.micros() != promised {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HUNG, voucher).await.unwrap();
    // The session is open and nothing of it waits: it is looked at once an hour.
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let looked = || shop.chain().unwrap().0.at.unwrap().1;
    let before = looked();
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(looked(), before);
    proxy.fail_next(Some("eth_call"), orien_chain::anvil::Fault::Error(-32_000, "missing trie node".to_owned()), 1);
    assert!(shop.collect().await.is_err());
    let again = async {
        while looked() == before {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), again).await.expect("the look that failed counts as one");
    shop.close().await;
}
