//! The chain is the one that the network file means, or it is said how not.

use orien_chain::{Chain, ChainError, ChainFacts, ChainLimits, Expected, FOREVER, Mismatch};
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;

use crate::kit::World;

#[tokio::test]
async fn the_right_chain_passes_and_says_who_is_who() {
    let Some(world) = World::start().await else { return };
    let found = world.chain().preflight(world.local.expected()).await.unwrap();
    assert_eq!(found.signer_until, FOREVER);
    assert_eq!(found.operator, world.local.operator().address());
    assert_eq!((found.token.chain_id, found.token.token), (31_337, world.local.facts().token));
    assert!(found.block.number >= world.local.facts().escrow_block);
}

#[tokio::test]
async fn each_difference_is_named() {
    let Some(world) = World::start().await else { return };
    let (facts, expected) = (*world.local.facts(), *world.local.expected());
    let refusal = async |facts: ChainFacts, expected: Expected| {
        let chain = Chain::new(facts, std::slice::from_ref(world.local.anvil.rpc()), ChainLimits::default()).unwrap();
        match chain.preflight(&expected).await.unwrap_err() {
            ChainError::Mismatch(mismatch) => mismatch,
            other => panic!("{other}"),
        }
    };
    let nowhere = Address::from_bytes([9; 20]);
    let other_chain = refusal(ChainFacts { chain_id: 1, ..facts }, expected).await;
    assert_eq!(other_chain, Mismatch::ChainId { expected: 1, found: 31_337 });
    let absent = refusal(ChainFacts { escrow: nowhere, ..facts }, expected).await;
    assert_eq!(absent, Mismatch::NoCode { what: "escrow", address: nowhere });
    let other_code = refusal(ChainFacts { escrow: facts.token, ..facts }, expected).await;
    assert_eq!(other_code, Mismatch::OtherCode { address: facts.token });
    let no_token = refusal(ChainFacts { token: nowhere, ..facts }, expected).await;
    assert_eq!(no_token, Mismatch::NoCode { what: "token", address: nowhere });
    let other_token = refusal(ChainFacts { token: facts.escrow, ..facts }, expected).await.to_string();
    assert!(other_token.contains("the escrow's token is") && other_token.contains(&facts.token.to_string()), "{other_token}");
    let other_delay = refusal(facts, Expected { exit_delay: UnixSeconds(3600), ..expected }).await.to_string();
    assert_eq!(other_delay, "the escrow's exit delay in seconds is 86400, expected 3600");
    world.local.set_blocklisted(&facts.escrow, true).await.unwrap();
    world.local.settle().await.unwrap();
    assert_eq!(refusal(facts, expected).await, Mismatch::Blocklisted { what: "escrow", address: facts.escrow });
    world.local.set_blocklisted(&facts.escrow, false).await.unwrap();
    world.local.settle().await.unwrap();
    let other_signer = refusal(facts, Expected { signer: nowhere, ..expected }).await.to_string();
    assert!(other_signer.contains("the settlement signer is unknown to the escrow"), "{other_signer}");
}

#[tokio::test]
async fn a_signer_that_was_replaced_passes_until_its_time_is_over() {
    let Some(world) = World::start().await else { return };
    let next = orien_chain::anvil::local_key("next signer").address();
    let escrow = world.local.facts().escrow;
    world.local.send(world.local.operator(), &escrow, orien_chain::call::change_signer(&next)).await.unwrap();
    world.local.settle().await.unwrap();
    let found = world.chain().preflight(world.local.expected()).await.unwrap();
    assert!(found.signer_until > found.block.time && found.signer_until < FOREVER);
    world.local.anvil.advance(86_401).await.unwrap();
    world.local.settle().await.unwrap();
    let late = world.chain().preflight(world.local.expected()).await.unwrap_err().to_string();
    assert!(late.contains("valid until"), "{late}");
}
