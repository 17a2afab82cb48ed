//! What a node says of transactions that it is handed, understood.

use orien_chain::anvil::local_key;
use orien_chain::{Receipt, Sent, Transaction, Wei, call};
use orien_protocol::signing::{Address, MoneyKey};

use crate::kit::{World, included, usdc};

fn gwei(amount: u128) -> Wei {
    Wei(amount * 1_000_000_000)
}

fn call_of(world: &World, nonce: u64, fee: Wei) -> Transaction {
    Transaction {
        chain_id: 31_337,
        nonce,
        to: Some(world.local.facts().escrow),
        gas_limit: 200_000,
        max_fee: fee,
        max_priority_fee: Wei(fee.0 / 2),
        value: Wei::ZERO,
        data: call::set_daily_cap(usdc("1")),
    }
}

async fn sent(world: &World, transaction: &Transaction, key: &MoneyKey) -> Sent {
    world.chain().send_raw(&transaction.sign(key).raw).await.unwrap()
}

#[tokio::test]
async fn every_answer_of_a_real_node_is_told_apart() {
    let Some(world) = World::start().await else { return };
    let poor = local_key("poor");
    assert_eq!(sent(&world, &call_of(&world, 0, gwei(20)), &poor).await, Sent::InsufficientFunds);
    world.local.anvil.set_automine(false).await.unwrap();
    let first = call_of(&world, 0, gwei(20));
    assert_eq!(sent(&world, &first, &world.agent).await, Sent::Accepted);
    assert_eq!(sent(&world, &first, &world.agent).await, Sent::AlreadyKnown);
    let cheaper = Transaction { gas_limit: 190_000, ..call_of(&world, 0, gwei(19)) };
    assert_eq!(sent(&world, &cheaper, &world.agent).await, Sent::ReplacementUnderpriced);
    let dearer = call_of(&world, 0, gwei(25));
    assert_eq!(sent(&world, &dearer, &world.agent).await, Sent::Accepted);
    world.local.anvil.mine(1).await.unwrap();
    assert!(world.chain().receipt(&dearer.sign(&world.agent).hash).await.unwrap().unwrap().success);
    assert_eq!(world.chain().receipt(&first.sign(&world.agent).hash).await.unwrap(), None);
    assert_eq!(sent(&world, &first, &world.agent).await, Sent::NonceTooLow);
    assert_eq!(sent(&world, &call_of(&world, 1, Wei(2)), &world.agent).await, Sent::FeeTooLow);
    let little = Transaction { gas_limit: 100, ..call_of(&world, 1, gwei(20)) };
    assert!(matches!(sent(&world, &little, &world.agent).await, Sent::Rejected(_)));
    let elsewhere = Transaction { chain_id: 1, ..call_of(&world, 1, gwei(20)) };
    assert!(matches!(sent(&world, &elsewhere, &world.agent).await, Sent::Rejected(_)));
    assert!(matches!(world.chain().send_raw(&[1, 2, 3]).await.unwrap(), Sent::Rejected(_)));
}

#[tokio::test]
async fn the_gas_that_a_chain_counts_for_data_is_asked_of_it_and_is_none_where_there_is_no_such_thing() {
    let Some(world) = World::start().await else { return };
    let escrow = world.local.facts().escrow;
    let counted = async |to: Option<&Address>| world.chain().data_gas(to, &[1, 2, 3]).await.unwrap();
    assert_eq!(counted(Some(&escrow)).await, 0, "nothing is there");
    let there = Address::from_bytes(std::array::from_fn(|place| if place == 19 { 0xc8 } else { 0 }));
    // Answers three words, of which the first is 25,000, as a node of Arbitrum's kind would.
    let code = [0x61, 0x61, 0xa8, 0x60, 0, 0x52, 0x60, 0x60, 0x60, 0, 0xf3];
    world.local.anvil.set_code(&there, &code).await.unwrap();
    assert_eq!((counted(Some(&escrow)).await, counted(None).await), (25_000, 25_000));
    // Reverts: another contract.
    world.local.anvil.set_code(&there, &[0x60, 0, 0x60, 0, 0xfd]).await.unwrap();
    assert_eq!(counted(Some(&escrow)).await, 0);
}

#[tokio::test]
async fn a_transaction_that_was_forgotten_or_reorganised_away_has_no_receipt() {
    let Some(world) = World::start().await else { return };
    world.local.anvil.set_automine(false).await.unwrap();
    let forgotten = call_of(&world, 0, gwei(20)).sign(&world.agent);
    world.chain().send_raw(&forgotten.raw).await.unwrap();
    assert!(world.local.anvil.drop_transaction(&forgotten.hash).await.unwrap());
    world.local.anvil.mine(1).await.unwrap();
    assert_eq!(world.chain().receipt(&forgotten.hash).await.unwrap(), None);
    assert!(!world.chain().is_known(&forgotten.hash).await.unwrap());
    world.chain().send_raw(&forgotten.raw).await.unwrap();
    world.local.anvil.mine(1).await.unwrap();
    let Some(Receipt { success: true, .. }) = world.chain().receipt(&forgotten.hash).await.unwrap() else { panic!("it was sent again") };
    world.local.anvil.reorganise(1).await.unwrap();
    assert_eq!(world.chain().receipt(&forgotten.hash).await.unwrap(), None);
}

#[tokio::test]
async fn a_call_that_reverts_is_included_costs_gas_and_says_why_when_it_is_simulated() {
    let Some(world) = World::start().await else { return };
    let escrow = world.local.facts().escrow;
    let refused = Transaction { data: call::withdraw(), ..call_of(&world, 0, gwei(20)) };
    let signed = refused.sign(&world.agent);
    assert_eq!(world.chain().send_raw(&signed.raw).await.unwrap(), Sent::Accepted);
    let receipt = included(world.chain(), &signed.hash).await;
    assert!(!receipt.success && receipt.gas_used > 21_000 && receipt.logs.is_empty());
    assert!(receipt.effective_gas_price > Wei::ZERO);
    let why = world.chain().simulate(&world.agent.address(), &escrow, &call::withdraw()).await.unwrap().unwrap_err();
    assert_eq!(why.name, "NoExit");
    assert!(world.chain().simulate(&world.agent.address(), &escrow, &call::set_daily_cap(usdc("1"))).await.unwrap().is_ok());
    // USDC says why in words.
    let token = world.local.facts().token;
    let why = world.chain().simulate(&local_key("poor").address(), &token, &call::transfer(&escrow, usdc("1"))).await.unwrap().unwrap_err();
    assert!(why.name.contains("exceeds balance"), "{why}");
}
