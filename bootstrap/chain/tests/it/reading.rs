//! What is read is what was true at the block that was named.

use orien_chain::{At, ChainError, EscrowAccount, EscrowFees, FOREVER, Wei, call};
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;

use crate::kit::{World, usdc};

#[tokio::test]
async fn an_account_is_read_at_the_block_that_is_named() {
    let Some(world) = World::start().await else { return };
    let (chain, agent) = (world.chain(), world.agent.address());
    let before = chain.latest_block().await.unwrap();
    world.deposit("10").await;
    let held = chain.latest_block().await.unwrap();
    world.local.send(&world.agent, &world.local.facts().escrow, call::set_daily_cap(usdc("3"))).await.unwrap();
    world.local.send(&world.agent, &world.local.facts().escrow, call::request_exit(usdc("4"))).await.unwrap();
    let after = chain.latest_block().await.unwrap();
    assert_eq!(chain.account(&agent, &before).await.unwrap(), EscrowAccount::default());
    let expected = EscrowAccount { balance: usdc("10"), ..EscrowAccount::default() };
    assert_eq!(chain.account(&agent, &held).await.unwrap(), expected);
    let exiting = chain.account(&agent, &after).await.unwrap();
    assert_eq!((exiting.exiting, exiting.daily_cap), (usdc("4"), usdc("3")));
    assert_eq!(exiting.exit_at, UnixSeconds(after.time.0 + 86_400));
    assert_eq!(chain.token_balance(&world.local.facts().escrow, &held).await.unwrap(), usdc("10"));
    assert_eq!(chain.token_balance(&agent, &held).await.unwrap(), usdc("90"));
    assert_eq!(chain.fees(&after).await.unwrap(), EscrowFees::default());
    assert_eq!(chain.credit(&agent, &after).await.unwrap(), Usdc::ZERO);
}

#[tokio::test]
async fn many_channels_are_read_by_few_calls_and_in_their_order() {
    let Some(world) = World::start().await else { return };
    world.deposit("10").await;
    let payee = Address::from_bytes([9; 20]);
    let channels: Vec<_> = (0..450).map(|lane| world.channel(lane, payee)).collect();
    // Some of them are known to the escrow, in all three parts.
    let paid = [0, 199, 200, 449];
    let claims: Vec<_> = paid.iter().map(|place| world.claim(channels[*place], &format!("0.{:03}", place + 1), "1", false)).collect();
    world.local.send(&world.agent, &world.local.facts().escrow, call::redeem(&claims)).await.unwrap();
    let proxies = world.proxies(1).await;
    let chain = world.through(&proxies);
    let at = chain.latest_block().await.unwrap();
    let ids: Vec<_> = channels.iter().map(orien_protocol::channel::Channel::id).collect();
    let found = chain.channels(&ids, &at).await.unwrap();
    assert_eq!(proxies[0].requests("eth_call"), 3);
    let redeemed: Vec<(usize, u64)> =
        found.iter().map(|channel| channel.redeemed.micros()).enumerate().filter(|(_, redeemed)| *redeemed > 0).collect();
    assert_eq!((found.len(), redeemed), (450, paid.map(|place| (place, 1_000 * (place as u64 + 1))).to_vec()));
    assert_eq!(chain.channels(&[], &at).await.unwrap(), []);
    assert_eq!(proxies[0].requests("eth_call"), 3);
}

#[tokio::test]
async fn keys_and_signers_say_until_when_they_count() {
    let Some(world) = World::start().await else { return };
    let (chain, agent, key) = (world.chain(), world.agent.address(), world.spender.address());
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.key_until(&agent, &key, &block).await.unwrap(), UnixSeconds(0));
    assert_eq!(chain.signer_until(&world.signer.address(), &block).await.unwrap(), FOREVER);
    assert_eq!(chain.signer_until(&agent, &block).await.unwrap(), UnixSeconds(0));
    world.deposit("1").await;
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.key_until(&agent, &key, &block).await.unwrap(), FOREVER);
    world.local.send(&world.agent, &world.local.facts().escrow, call::revoke_key(&key)).await.unwrap();
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.key_until(&agent, &key, &block).await.unwrap(), UnixSeconds(block.time.0 + 86_400));
}

#[tokio::test]
async fn the_final_block_is_behind_the_newest_and_nonces_are_read_at_either() {
    let Some(world) = World::start().await else { return };
    let (chain, agent) = (world.chain(), world.agent.address());
    world.local.settle().await.unwrap();
    let (sent, settled) = (chain.nonce(&agent, At::Latest).await.unwrap(), chain.nonce(&agent, At::Final).await.unwrap());
    assert_eq!((sent, settled), (0, 0));
    world.deposit("1").await;
    assert_eq!(chain.nonce(&agent, At::Latest).await.unwrap(), 2);
    let (last, latest) = (chain.final_block().await.unwrap(), chain.latest_block().await.unwrap());
    assert_eq!(last.number + 2, latest.number);
    assert_eq!(chain.nonce(&agent, At::Final).await.unwrap(), 0);
    world.local.settle().await.unwrap();
    assert_eq!(chain.nonce(&agent, At::Final).await.unwrap(), 2);
    assert_eq!(chain.block(latest.number).await.unwrap(), Some(latest));
    assert_eq!(chain.block(1_000_000).await.unwrap(), None);
}

#[tokio::test]
async fn the_blocklist_of_usdc_is_read_and_a_token_without_one_says_so() {
    let Some(world) = World::start().await else { return };
    let (chain, agent) = (world.chain(), world.agent.address());
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.is_blocklisted(&agent, &block).await.unwrap(), Some(false));
    world.local.set_blocklisted(&agent, true).await.unwrap();
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.is_blocklisted(&agent, &block).await.unwrap(), Some(true));
    // A token that answers to nothing: code that always reverts.
    world.local.anvil.set_code(&world.local.facts().token, &[0x60, 0x00, 0x60, 0x00, 0xfd]).await.unwrap();
    world.local.anvil.mine(1).await.unwrap();
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.is_blocklisted(&agent, &block).await.unwrap(), None);
}

#[tokio::test]
async fn coins_for_gas_are_another_quantity() {
    let Some(world) = World::start().await else { return };
    let nobody = Address::from_bytes([0x42; 20]);
    assert_eq!(world.chain().native_balance(&nobody).await.unwrap(), Wei::ZERO);
    world.local.anvil.set_native_balance(&nobody, Wei(7)).await.unwrap();
    assert_eq!(world.chain().native_balance(&nobody).await.unwrap(), Wei(7));
    let fees = world.chain().fees_now().await.unwrap();
    assert!(fees.base_fee > Wei::ZERO);
}

#[tokio::test]
async fn a_block_that_is_no_longer_part_of_the_chain_is_not_read_at() {
    let Some(world) = World::start().await else { return };
    let chain = world.chain();
    world.deposit("10").await;
    let gone = chain.latest_block().await.unwrap();
    world.local.anvil.reorganise(1).await.unwrap();
    let error = chain.account(&world.agent.address(), &gone).await.unwrap_err();
    assert!(matches!(error, ChainError::NoState { block, .. } if block == gone.number) && error.is_passing(), "{error}");
}
