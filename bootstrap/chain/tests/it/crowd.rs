//! A block in which somebody has the escrow log more than nodes answer at once is read all the same, or it is said what it was too much of.

use orien_chain::anvil::{Fault, FaultyRpc};
use orien_chain::{Chain, ChainError, ChainLimits, EscrowEvent, EscrowLog, call};

use crate::kit::{World, impatient, usdc};

/// What public nodes answer at once.
const NODES_LIMIT: usize = 10_000;

/// A chain with a block of so many logs between two of others; a proxy that answers at most `limit`; all logs, as a node without limits has them.
async fn crowded(logs: usize, limit: usize) -> Option<(World, FaultyRpc, u64, Vec<EscrowLog>)> {
    let world = World::start().await?;
    world.deposit("1").await;
    let block = world.local.crowd(logs).await.unwrap();
    world.local.send(&world.agent, &world.local.facts().escrow, call::set_daily_cap(usdc("3"))).await.unwrap();
    let mut proxies = world.proxies(1).await;
    let proxy = proxies.pop().unwrap();
    proxy.limit_logs(Some(limit));
    let to = world.chain().latest_block().await.unwrap().number;
    let whole = world.chain().logs(0, to).await.unwrap();
    assert!(whole.len() > logs && whole.iter().filter(|log| log.block == block).count() == logs);
    Some((world, proxy, block, whole))
}

fn through(world: &World, proxy: &FaultyRpc, limits: ChainLimits) -> Chain {
    world.local.through(std::slice::from_ref(proxy.rpc()), limits).unwrap()
}

fn no_such_method() -> Fault {
    Fault::Error(-32601, "the method does not exist".to_owned())
}

#[tokio::test]
async fn a_block_with_more_logs_than_a_node_answers_is_read_from_its_receipts() {
    let Some((world, proxy, block, whole)) = crowded(NODES_LIMIT + 1, NODES_LIMIT).await else { return };
    let chain = through(&world, &proxy, impatient());
    assert_eq!(chain.logs(0, whole.last().unwrap().block).await.unwrap(), whole);
    assert_eq!((proxy.requests("eth_getBlockReceipts"), proxy.requests("eth_getTransactionReceipt")), (1, 0));
    let last = whole.iter().rfind(|log| log.block == block).unwrap();
    assert!(matches!(last.event, EscrowEvent::DailyCapSet { .. }), "{last:?}");
}

#[tokio::test]
async fn a_node_that_does_not_know_the_receipts_of_a_block_is_asked_for_those_of_its_transactions() {
    let Some((world, proxy, block, whole)) = crowded(9_000, 1_000).await else { return };
    let chain = through(&world, &proxy, impatient());
    proxy.fail_next(Some("eth_getBlockReceipts"), no_such_method(), 1_000);
    assert_eq!(chain.logs(0, whole.last().unwrap().block).await.unwrap(), whole);
    assert_eq!(proxy.requests("eth_getTransactionReceipt"), 3, "one for each transaction of the block");
    // It breaks off at the last of them: what was read before is not asked for again.
    proxy.fail_next(Some("eth_getBlockReceipts"), no_such_method(), 1_000);
    for _ in 0..2 {
        proxy.fail_next(Some("eth_getTransactionReceipt"), Fault::Delay(std::time::Duration::ZERO), 1);
    }
    proxy.fail_next(Some("eth_getTransactionReceipt"), Fault::Status(429, None), 3);
    let error = chain.logs(block, block).await.unwrap_err();
    assert!(matches!(error, ChainError::RateLimited { .. }), "{error}");
    let before = proxy.requests("eth_getTransactionReceipt");
    let expected: Vec<EscrowLog> = whole.iter().filter(|log| log.block == block).copied().collect();
    assert_eq!(chain.logs(block, block).await.unwrap(), expected);
    assert!(proxy.requests("eth_getTransactionReceipt") - before < 3, "all of them were asked for again");
}

#[tokio::test]
async fn receipts_of_another_block_are_an_error_and_not_fewer_logs() {
    let Some((world, proxy, block, _)) = crowded(300, 200).await else { return };
    let chain = through(&world, &proxy, impatient());
    proxy.move_receipts(Some(block));
    let error = chain.logs(block, block).await.unwrap_err();
    assert!(matches!(error, ChainError::NoState { block: of, .. } if of == block), "{error}");
    // The block is another one when its receipts have been read.
    proxy.calm();
    proxy.limit_logs(Some(200));
    proxy.fail_next(Some("eth_getBlockReceipts"), Fault::Reorganise(2), 1);
    let error = chain.logs(block - 1, block).await.unwrap_err();
    assert!(matches!(error, ChainError::NoState { block: of, .. } if of == block), "{error}");
}

#[tokio::test]
async fn a_node_that_leaves_a_receipt_out_is_asked_for_each_of_them() {
    let Some((world, proxy, block, whole)) = crowded(9_000, 1_000).await else { return };
    let chain = through(&world, &proxy, impatient());
    proxy.hide_logs(true);
    let expected: Vec<EscrowLog> = whole.iter().filter(|log| log.block == block).copied().collect();
    assert_eq!(chain.logs(block, block).await.unwrap(), expected);
    assert_eq!((proxy.requests("eth_getBlockReceipts"), proxy.requests("eth_getTransactionReceipt")), (1, 3));
}

#[tokio::test]
async fn a_block_that_no_node_should_have_is_named_with_what_it_has_too_much_of() {
    let Some((world, proxy, block, whole)) = crowded(300, 200).await else { return };
    let to = whole.last().unwrap().block;
    for limit in [None, Some(200)] {
        proxy.limit_logs(limit);
        let error = through(&world, &proxy, ChainLimits { block_logs: 299, ..impatient() }).logs(block, block).await.unwrap_err();
        let named = matches!(error, ChainError::BlockTooLarge { block: of, found: 300, limit: 299, .. } if of == block);
        assert!(named && !error.is_passing(), "{error}");
    }
    assert_eq!(through(&world, &proxy, ChainLimits { block_logs: 300, ..impatient() }).logs(0, to).await.unwrap(), whole);
    // Receipts that have to be asked for one by one have a limit of their own.
    proxy.fail_next(Some("eth_getBlockReceipts"), no_such_method(), 1_000);
    let error = through(&world, &proxy, ChainLimits { block_transactions: 0, ..impatient() }).logs(block, block).await.unwrap_err();
    assert!(matches!(error, ChainError::BlockTooLarge { what: "transactions", found: 1, limit: 0, .. }), "{error}");
}

#[tokio::test]
async fn a_node_that_gives_neither_says_why_it_gave_no_logs() {
    let Some((world, proxy, block, _)) = crowded(300, 200).await else { return };
    for method in ["eth_getBlockReceipts", "eth_getTransactionReceipt"] {
        proxy.fail_next(Some(method), no_such_method(), 1_000);
    }
    let error = through(&world, &proxy, impatient()).logs(block, block).await.unwrap_err().to_string();
    assert!(error.contains("query returned more than 200 results"), "{error}");
}

#[tokio::test]
async fn logs_that_are_too_long_for_one_answer_are_read_whatever_the_number_of_blocks() {
    let Some((world, proxy, _, whole)) = crowded(2_000, 1_000_000).await else { return };
    // All of it in one answer is more than is read, and so is the one block.
    let chain = through(&world, &proxy, ChainLimits { answer_bytes: 200_000, ..impatient() });
    assert_eq!(chain.logs(0, whole.last().unwrap().block).await.unwrap(), whole);
    assert_eq!(proxy.requests("eth_getBlockReceipts"), 1);
}

#[tokio::test]
async fn what_is_redeemed_of_one_account_is_found_beside_whatever_others_have_the_escrow_log() {
    let Some((world, proxy, block, _)) = crowded(300, 200).await else { return };
    let (channel, escrow) = (world.channel(1, orien_chain::anvil::local_key("payee").address()), world.local.facts().escrow);
    let paid = world.local.send(&world.agent, &escrow, call::redeem(&[world.claim(channel, "0.5", "1", false)])).await.unwrap();
    let chain = through(&world, &proxy, impatient());
    let found = chain.redemptions(&world.agent.address(), block, paid.block).await.unwrap();
    assert!(matches!(found[..], [EscrowLog { event: EscrowEvent::Redeemed { .. }, .. }]), "{found:?}");
    assert_eq!(found[0].block, paid.block);
    assert_eq!((proxy.requests("eth_getLogs"), proxy.requests("eth_getBlockReceipts")), (1, 0), "the others do not count");
    assert_eq!(chain.redemptions(&world.spender.address(), 0, paid.block).await.unwrap(), []);
}

#[tokio::test]
async fn a_node_is_asked_for_many_blocks_again_after_one_that_was_too_much() {
    let Some((world, proxy, _, whole)) = crowded(300, 200).await else { return };
    world.local.anvil.mine(200).await.unwrap();
    let chain = through(&world, &proxy, ChainLimits { log_blocks: 64, ..impatient() });
    let to = world.chain().latest_block().await.unwrap().number;
    assert_eq!(chain.logs(0, to).await.unwrap(), whole);
    let before = proxy.requests("eth_getLogs");
    assert_eq!(chain.logs(to - 63, to).await.unwrap(), []);
    assert!(proxy.requests("eth_getLogs") - before <= 8, "{} requests for 64 blocks", proxy.requests("eth_getLogs") - before);
}
