//! A node that fails: what is asked is answered all the same, or it is said that nothing is known.

use std::time::{Duration, Instant};

use orien_chain::anvil::Fault;
use orien_chain::{ChainError, ChainLimits, Sent, Transaction, Wei, call};
use orien_protocol::signing::Address;

use crate::kit::{World, impatient, included, usdc};

#[tokio::test]
async fn each_passing_failure_is_survived_by_asking_again() {
    let Some(world) = World::start().await else { return };
    world.deposit("10").await;
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let block = chain.latest_block().await.unwrap();
    for fault in [
        Fault::Delay(Duration::from_millis(200)),
        Fault::Drop,
        Fault::DropAfter,
        Fault::Status(429, None),
        Fault::Status(503, None),
        Fault::Error(-32005, "rate limited".to_owned()),
        Fault::Error(429, "compute units".to_owned()),
        Fault::Truncate,
    ] {
        proxies[0].fail_next(Some("eth_call"), fault.clone(), 2);
        let account = chain.account(&world.agent.address(), &block).await;
        assert_eq!(account.map(|account| account.balance), Ok(usdc("10")), "{fault:?}");
        proxies[0].calm();
    }
}

#[tokio::test]
async fn a_failure_that_stays_is_named_with_the_node_and_what_was_asked() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(1).await;
    let host = proxies[0].rpc().host();
    let chain = world.through_with(&proxies, ChainLimits { answer_within: Duration::from_secs(1), answer_bytes: 100_000, ..impatient() });
    let block = chain.latest_block().await.unwrap();
    let agent = world.agent.address();
    for (fault, expected, requests) in [
        (Fault::Drop, "did not answer eth_call", 3),
        (Fault::Delay(Duration::from_secs(4)), "no answer within 1 s", 3),
        (Fault::Status(502, None), "HTTP status 502", 3),
        (Fault::Status(429, None), "asks for fewer requests", 3),
        (Fault::Oversize(200_000), "longer than 100000 bytes", 1),
        (Fault::Garbage, "something that cannot be", 1),
        (Fault::Error(-32603, "internal error".to_owned()), "refused eth_call: internal error (code -32603)", 1),
        (Fault::Error(-32000, "missing trie node 0xab".to_owned()), "keeps no history", 1),
    ] {
        let before = proxies[0].requests("eth_call");
        proxies[0].fail_next(Some("eth_call"), fault.clone(), 100);
        let error = chain.account(&agent, &block).await.unwrap_err().to_string();
        assert!(error.contains(expected) && error.contains(&host), "{fault:?}: {error}");
        assert_eq!(proxies[0].requests("eth_call") - before, requests, "{fault:?}");
        proxies[0].calm();
    }
    assert!(chain.account(&agent, &block).await.is_ok());
}

#[tokio::test]
async fn a_node_that_asks_for_patience_gets_it_up_to_a_limit() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(1).await;
    let chain = world.through_with(&proxies, ChainLimits { pause_max: Duration::from_millis(700), ..impatient() });
    proxies[0].fail_next(None, Fault::Status(429, Some(3600)), 1);
    let begun = Instant::now();
    chain.latest_block().await.unwrap();
    let waited = begun.elapsed();
    assert!(waited >= Duration::from_millis(700) && waited < Duration::from_secs(30), "{waited:?}");
}

#[tokio::test]
async fn a_transaction_without_an_answer_is_unknown_and_was_carried_out() {
    let Some(world) = World::start().await else { return };
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let to = Address::from_bytes([0x61; 20]);
    let transaction = Transaction {
        chain_id: 31_337,
        nonce: world.local.nonce(&world.agent.address()).await.unwrap(),
        to: Some(world.local.facts().token),
        gas_limit: 200_000,
        max_fee: Wei(10_000_000_000),
        max_priority_fee: Wei(1_000_000_000),
        value: Wei::ZERO,
        data: call::transfer(&to, usdc("1")),
    };
    let signed = transaction.sign(&world.agent);
    proxies[0].fail_next(Some("eth_sendRawTransaction"), Fault::DropAfter, 1);
    let unknown = chain.send_raw(&signed.raw).await.unwrap_err();
    assert!(matches!(unknown, ChainError::Unanswered { .. }) && unknown.is_passing(), "{unknown}");
    assert_eq!(proxies[0].requests("eth_sendRawTransaction"), 1, "it is not sent again by itself");
    let receipt = included(&chain, &signed.hash).await;
    assert!(receipt.success);
    let again = chain.send_raw(&signed.raw).await.unwrap();
    assert!(matches!(again, Sent::AlreadyKnown | Sent::NonceTooLow), "{again:?}");
    // It is in the chain, whatever a second answer says; the first answer never came.
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.token_balance(&to, &block).await.unwrap(), usdc("1"));
}

#[tokio::test]
async fn a_storm_of_failures_changes_no_answer() {
    let Some(world) = World::start().await else { return };
    world.deposit("10").await;
    let proxies = world.proxies(1).await;
    let chain = world.through_with(&proxies, ChainLimits { attempts: 8, ..impatient() });
    let block = world.chain().latest_block().await.unwrap();
    let expected = world.chain().logs(0, block.number).await.unwrap();
    proxies[0].storm(11, 300);
    let mut answered = 0;
    for _ in 0..40 {
        match chain.logs(0, block.number).await {
            Ok(logs) => {
                assert_eq!(logs, expected);
                answered += 1;
            }
            // What is not JSON is not asked for twice.
            Err(error) => assert!(matches!(error, ChainError::Malformed { .. }), "{error}"),
        }
    }
    assert!(proxies[0].faults() > 20 && answered > 20, "{} faults, {answered} answers", proxies[0].faults());
}
