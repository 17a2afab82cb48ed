//! Several nodes: what decides is said alike by enough of them.

use std::time::{Duration, Instant};

use orien_chain::anvil::{Anvil, AnvilSettings, Fault};
use orien_chain::{Chain, ChainError, ChainLimits, Mismatch, call};
use orien_protocol::signing::Address;

use crate::kit::{World, impatient, included, usdc};

#[tokio::test]
async fn the_final_block_is_the_lowest_that_the_agreeing_nodes_report() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let proxies = world.proxies(2).await;
    let chain = world.through(&proxies);
    let (last, latest) = (world.chain().final_block().await.unwrap(), world.chain().latest_block().await.unwrap());
    // One of them says of the newest block that it is final.
    proxies[1].claim_final(Some(latest.number));
    assert_eq!(chain.final_block().await.unwrap(), last);
    // One of them lags: the final block waits, and does not go back.
    proxies[1].claim_final(Some(last.number - 2));
    assert_eq!(chain.final_block().await.unwrap(), last);
    let fresh = world.through(&proxies);
    assert_eq!(fresh.final_block().await.unwrap().number, last.number - 2);
}

#[tokio::test]
async fn nodes_that_differ_about_a_final_block_are_both_named() {
    let Some(world) = World::start().await else { return };
    world.local.settle().await.unwrap();
    let proxies = world.proxies(2).await;
    let chain = world.through(&proxies);
    let last = world.chain().final_block().await.unwrap();
    proxies[1].claim_other_hash(Some(last.number));
    let error = chain.final_block().await.unwrap_err();
    assert!(matches!(error, ChainError::Disagree { .. }) && !error.is_passing(), "{error}");
    let text = error.to_string();
    assert!(proxies.iter().all(|proxy| text.contains(&proxy.rpc().host())), "{text}");
}

#[tokio::test]
async fn a_log_that_one_node_hides_is_noticed_and_outvoted_by_a_third() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let to = world.chain().latest_block().await.unwrap().number;
    let whole = world.chain().logs(0, to).await.unwrap();
    let proxies = world.proxies(3).await;
    proxies[0].hide_logs(true);
    let two = world.through(&proxies[..2]);
    assert!(matches!(two.logs(0, to).await, Err(ChainError::Disagree { what: "the escrow's logs", .. })));
    let three = world.through(&proxies);
    assert_eq!(three.logs(0, to).await.unwrap(), whole);
    // A node alone is believed: that is what one node means.
    let one = world.through(&proxies[..1]);
    assert_eq!(one.logs(0, to).await.unwrap().len(), whole.len() - 1);
}

#[tokio::test]
async fn a_dead_node_among_three_is_done_without_and_among_two_is_waited_for() {
    let Some(world) = World::start().await else { return };
    world.deposit("10").await;
    let block = world.chain().latest_block().await.unwrap();
    let proxies = world.proxies(3).await;
    proxies[0].fail_next(None, Fault::Drop, 1000);
    let three = world.through(&proxies);
    assert_eq!(three.account(&world.agent.address(), &block).await.unwrap().balance, usdc("10"));
    // It is not asked first again.
    let before = proxies[0].requests("eth_call");
    three.account(&world.agent.address(), &block).await.unwrap();
    assert_eq!(proxies[0].requests("eth_call"), before);
    let two = world.through(&proxies[..2]);
    let error = two.account(&world.agent.address(), &block).await.unwrap_err();
    assert!(matches!(error, ChainError::TooFewAnswers { needed: 2, got: 1, .. }) && error.is_passing(), "{error}");
    // Whoever wants one answer alone says so.
    let either = world.through_with(&proxies[..2], ChainLimits { agree: 1, ..impatient() });
    assert_eq!(either.account(&world.agent.address(), &block).await.unwrap().balance, usdc("10"));
}

#[tokio::test]
async fn a_node_that_is_named_twice_does_not_agree_with_itself() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let proxies = world.proxies(1).await;
    proxies[0].hide_logs(true);
    let twice =
        world.local.through(&[proxies[0].rpc().clone(), proxies[0].rpc().clone(), world.local.anvil.rpc().clone()], impatient()).unwrap();
    let to = world.chain().latest_block().await.unwrap().number;
    assert!(matches!(twice.logs(0, to).await, Err(ChainError::Disagree { .. })));
}

#[tokio::test]
async fn a_final_block_that_changes_is_an_alarm_that_stays() {
    let Some(world) = World::start_final_at_once().await else { return };
    let chain = world.chain();
    world.deposit("1").await;
    let kept = chain.final_block().await.unwrap();
    chain.confirm(&kept).await.unwrap();
    world.local.anvil.reorganise(1).await.unwrap();
    let expected = |error: ChainError| matches!(error, ChainError::Reorganised { number, .. } if number == kept.number);
    assert!(expected(chain.final_block().await.unwrap_err()));
    assert!(expected(chain.block(kept.number).await.unwrap_err()));
    assert!(expected(chain.confirm(&kept).await.unwrap_err()));
    // Whoever kept the block across a restart notices it too.
    let fresh = Chain::new(*world.local.facts(), std::slice::from_ref(world.local.anvil.rpc()), ChainLimits::default()).unwrap();
    assert!(expected(fresh.confirm(&kept).await.unwrap_err()));
}

#[tokio::test]
async fn a_transaction_goes_to_every_node_and_one_that_takes_it_is_enough() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(2).await;
    proxies[0].fail_next(Some("eth_sendRawTransaction"), Fault::Drop, 1);
    let chain = world.through(&proxies);
    let fees = chain.fees_now().await.unwrap();
    let transaction = orien_chain::Transaction {
        chain_id: 31_337,
        nonce: 0,
        to: Some(world.local.facts().escrow),
        gas_limit: 200_000,
        max_fee: fees.base_fee.times(3),
        max_priority_fee: fees.base_fee,
        value: orien_chain::Wei::ZERO,
        data: call::set_daily_cap(usdc("1")),
    };
    let signed = transaction.sign(&world.agent);
    assert_eq!(chain.send_raw(&signed.raw).await.unwrap(), orien_chain::Sent::Accepted);
    assert!(chain.is_known(&signed.hash).await.unwrap());
    assert!(included(&chain, &signed.hash).await.success);
}

#[tokio::test]
async fn one_node_neither_makes_gas_dear_nor_keeps_a_call_from_being_tried() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(2).await;
    let chain = world.through(&proxies);
    let honest = chain.fees_now().await.unwrap();
    proxies[0].claim_tip(Some(400_000_000_000));
    assert_eq!(chain.fees_now().await.unwrap().tip, honest.tip, "the lower of two");
    proxies[1].claim_tip(Some(400_000_000_000));
    let bound = honest.base_fee.times(2).max(orien_chain::Wei::from_gwei(3));
    assert_eq!(chain.fees_now().await.unwrap().tip, bound, "what nobody has to pay");

    let (agent, escrow, data) = (world.agent.address(), world.local.facts().escrow, call::set_daily_cap(usdc("1")));
    let reverted = || Fault::Error(3, "execution reverted".to_owned());
    proxies[0].fail_next(Some("eth_call"), reverted(), 1);
    assert!(chain.simulate(&agent, &escrow, &data).await.unwrap().is_ok(), "one says that it would be reverted");
    proxies.iter().for_each(|proxy| proxy.fail_next(Some("eth_call"), reverted(), 1));
    assert!(chain.simulate(&agent, &escrow, &data).await.unwrap().is_err(), "both do");
}

#[tokio::test]
async fn a_receipt_is_found_at_any_node_and_a_dead_one_is_not_waited_for() {
    let Some(world) = World::start().await else { return };
    let signed =
        world.local.send(&world.agent, &world.local.facts().escrow, call::set_daily_cap(usdc("1"))).await.unwrap().logs[0].transaction;
    let proxies = world.proxies(3).await;
    proxies[0].fail_next(None, Fault::Drop, 1000);
    proxies[1].fail_next(Some("eth_getTransactionReceipt"), Fault::Null, 1000);
    let chain = world.through(&proxies);
    assert!(chain.receipt(&signed).await.unwrap().unwrap().success);
    let two = world.through(&proxies[..2]);
    assert_eq!(two.receipt(&signed).await.unwrap(), None);
    let dead = world.through(&proxies[..1]);
    assert!(dead.receipt(&signed).await.unwrap_err().is_passing());
}

#[tokio::test]
async fn a_node_of_another_chain_is_noticed_at_the_start() {
    let Some(world) = World::start().await else { return };
    let stranger = Anvil::start(&AnvilSettings { chain_id: 5, ..AnvilSettings::default() }).await.unwrap();
    let urls = [world.local.anvil.rpc().clone(), stranger.rpc().clone()];
    let chain = world.local.through(&urls, ChainLimits { agree: 1, ..impatient() }).unwrap();
    let error = chain.preflight(world.local.expected()).await.unwrap_err();
    assert_eq!(error, ChainError::Mismatch(Mismatch::ChainId { expected: 31_337, found: 5 }));
}

#[tokio::test]
async fn nodes_are_asked_together_and_not_one_after_the_other() {
    let Some(world) = World::start().await else { return };
    let block = world.chain().latest_block().await.unwrap();
    let proxies = world.proxies(2).await;
    let chain = world.through(&proxies);
    for proxy in &proxies {
        proxy.fail_next(Some("eth_call"), Fault::Delay(Duration::from_millis(600)), 1);
    }
    let begun = Instant::now();
    chain.account(&world.agent.address(), &block).await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(600) && waited < Duration::from_millis(1150), "{waited:?}");
}

#[tokio::test]
async fn many_accounts_are_asked_for_several_at_once_and_come_in_their_order() {
    let Some(world) = World::start().await else { return };
    world.deposit("10").await;
    let block = world.chain().latest_block().await.unwrap();
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let delay = Duration::from_millis(300);
    proxies[0].fail_next(Some("eth_call"), Fault::Delay(delay), 16);
    let owners: Vec<_> = (0..16).map(|n| if n == 9 { world.agent.address() } else { Address::from_bytes([n; 20]) }).collect();
    let begun = Instant::now();
    let accounts = chain.accounts(&owners, &block).await.unwrap();
    assert!(begun.elapsed() < delay * 8, "one after the other: {:?}", begun.elapsed());
    let balances: Vec<_> = accounts.iter().map(|account| account.balance).collect();
    let expected: Vec<_> = (0..16).map(|n| if n == 9 { usdc("10") } else { usdc("0") }).collect();
    assert_eq!(balances, expected);
}
