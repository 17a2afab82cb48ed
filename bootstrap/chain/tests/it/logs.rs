//! Logs come whole, in order, and only from a node that has come so far.

use orien_chain::anvil::Fault;
use orien_chain::{ChainError, ChainLimits, EscrowEvent, call};

use crate::kit::{World, impatient, usdc};

#[tokio::test]
async fn everything_since_the_escrow_was_deployed_comes_in_order() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    world.local.send(&world.agent, &world.local.facts().escrow, call::set_daily_cap(usdc("3"))).await.unwrap();
    let to = world.chain().latest_block().await.unwrap();
    let logs = world.chain().logs(world.local.facts().escrow_block, to.number).await.unwrap();
    let agent = world.agent.address();
    let kinds: Vec<EscrowEvent> = logs.iter().map(|log| log.event).collect();
    assert!(matches!(
        kinds[..3],
        [EscrowEvent::OperatorChanged { .. }, EscrowEvent::SignerChanged { .. }, EscrowEvent::RecipientsChanged { .. }]
    ));
    assert_eq!(
        kinds[3..],
        [
            EscrowEvent::KeyAuthorized { account: agent, key: world.spender.address() },
            EscrowEvent::Deposited { account: agent, spending_key: world.spender.address(), amount: usdc("1") },
            EscrowEvent::DailyCapSet { account: agent, cap: usdc("3") },
        ]
    );
    assert_eq!((logs[5].block, logs[5].block_hash), (to.number, to.hash));
    assert!(logs.windows(2).all(|pair| (pair[0].block, pair[0].index) < (pair[1].block, pair[1].index)));
    assert_eq!(world.chain().logs(to.number + 1, to.number).await.unwrap(), []);
}

#[tokio::test]
async fn a_node_that_gives_few_blocks_at_once_still_gives_all() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let to = chain.latest_block().await.unwrap().number;
    let whole = world.chain().logs(0, to).await.unwrap();
    for message in ["query returned more than 10000 results", "exceed maximum block range: 5"] {
        proxies[0].fail_next(Some("eth_getLogs"), Fault::Error(-32005, message.to_owned()), 2);
    }
    assert_eq!(chain.logs(0, to).await.unwrap(), whole);
    let asked = proxies[0].requests("eth_getLogs");
    assert!(asked > 6, "{asked}");
    // It remembers what the node takes.
    assert_eq!(chain.logs(0, to).await.unwrap(), whole);
    let shorter = proxies[0].requests("eth_getLogs") - asked;
    assert!(shorter > 2 && shorter < asked, "{asked} and then {shorter}");
}

#[tokio::test]
async fn an_answer_that_is_too_large_is_asked_for_in_parts_and_a_node_that_is_gone_is_given_up() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let proxies = world.proxies(1).await;
    let chain = world.through_with(&proxies, ChainLimits { answer_bytes: 100_000, ..impatient() });
    let to = chain.latest_block().await.unwrap().number;
    let whole = world.chain().logs(0, to).await.unwrap();
    proxies[0].fail_next(Some("eth_getLogs"), Fault::Oversize(200_000), 2);
    assert_eq!(chain.logs(0, to).await.unwrap(), whole);
    // As to somebody who does not know yet that it is asked for few blocks at once.
    let chain = world.through(&proxies);
    let before = proxies[0].requests("eth_getLogs");
    proxies[0].fail_next(Some("eth_getLogs"), Fault::Drop, 1000);
    assert!(matches!(chain.logs(0, to).await, Err(ChainError::Unanswered { .. })));
    // Four ranges, each asked for three times.
    assert_eq!(proxies[0].requests("eth_getLogs") - before, 12);
}

#[tokio::test]
async fn a_node_that_lags_says_so_and_does_not_give_fewer_logs() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let stale = chain.latest_block().await.unwrap().number;
    world.deposit("1").await;
    let to = world.chain().latest_block().await.unwrap().number;
    proxies[0].stand_still(Some(stale));
    let error = chain.logs(0, to).await.unwrap_err();
    assert!(matches!(error, ChainError::NoState { block, .. } if block == to) && error.is_passing(), "{error}");
    proxies[0].calm();
    assert!(!chain.logs(0, to).await.unwrap().is_empty());
}

#[tokio::test]
async fn more_logs_than_are_taken_at_once_are_an_error_and_not_a_part() {
    let Some(world) = World::start().await else { return };
    world.deposit("1").await;
    let proxies = world.proxies(1).await;
    let chain = world.through_with(&proxies, ChainLimits { logs: 3, ..impatient() });
    let to = chain.latest_block().await.unwrap().number;
    assert_eq!(chain.logs(0, to).await.unwrap_err(), ChainError::TooMany { what: "the escrow's log", limit: 3 });
}
