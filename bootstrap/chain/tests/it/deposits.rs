//! Deposits that somebody else carries to the chain.

use orien_chain::anvil::{LocalToken, local_key};
use orien_chain::deposit::{Authorization, PermittedDeposit};
use orien_chain::{EscrowEvent, call};
use orien_protocol::hash::Hash;
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;

use crate::kit::{LATE, World, usdc};

fn authorization(world: &World, amount: &str) -> Authorization {
    Authorization {
        account: world.agent.address(),
        escrow: world.local.facts().escrow,
        amount: usdc(amount),
        spending_key: world.spender.address(),
        salt: Hash::of(b"salt"),
        valid_after: UnixSeconds(0),
        valid_before: LATE,
    }
}

async fn relays(world: &World) {
    let (chain, escrow, agent) = (world.chain(), world.local.facts().escrow, world.agent.address());
    let relayer = local_key("relayer");
    world.local.anvil.give_gas(&relayer.address()).await.unwrap();
    let block = chain.latest_block().await.unwrap();
    let token = chain.token_domain(&block).await.unwrap();
    let authorization = authorization(world, "2.5");
    let signature = authorization.sign(&token, &world.agent);
    // Whoever relays it can change neither the key nor the amount.
    for changed in [
        Authorization { spending_key: relayer.address(), ..authorization },
        Authorization { amount: usdc("3"), ..authorization },
        Authorization { account: relayer.address(), ..authorization },
    ] {
        let refused = chain.simulate(&relayer.address(), &escrow, &call::deposit_with_authorization(&changed, &signature)).await.unwrap();
        assert!(refused.is_err(), "{changed:?}");
    }
    let data = call::deposit_with_authorization(&authorization, &signature);
    let receipt = world.local.send(&relayer, &escrow, data.clone()).await.unwrap();
    let deposited = EscrowEvent::Deposited { account: agent, spending_key: world.spender.address(), amount: usdc("2.5") };
    assert_eq!(receipt.logs.last().unwrap().event, deposited);
    let nonce = orien_chain::deposit::nonce(&agent, &authorization.spending_key, &authorization.salt);
    let block = chain.latest_block().await.unwrap();
    assert!(chain.authorization_used(&agent, &nonce, &block).await.unwrap());
    assert!(chain.simulate(&relayer.address(), &escrow, &data).await.unwrap().is_err(), "it counts once");

    let permitted = PermittedDeposit {
        account: agent,
        amount: usdc("4"),
        spending_key: world.spender.address(),
        salt: Hash::of(b"salt"),
        deadline: LATE,
    };
    let nonce = chain.permit_nonce(&agent, &block).await.unwrap();
    let (own, permit) = permitted.sign(&world.local.facts().domain(), nonce, &token, &world.agent);
    let stolen = PermittedDeposit { spending_key: relayer.address(), ..permitted };
    let refused =
        chain.simulate(&relayer.address(), &escrow, &call::deposit_with_permit(&stolen, &own, &permit)).await.unwrap().unwrap_err();
    assert_eq!(refused.name, "BadDepositSignature");
    let data = call::deposit_with_permit(&permitted, &own, &permit);
    world.local.send(&relayer, &escrow, data.clone()).await.unwrap();
    let repeated = chain.simulate(&relayer.address(), &escrow, &data).await.unwrap().unwrap_err();
    assert_eq!(repeated.name, "DepositRepeated");
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.account(&agent, &block).await.unwrap().balance, usdc("6.5"));
    assert_eq!(chain.permit_nonce(&agent, &block).await.unwrap(), 1);
}

#[tokio::test]
async fn a_relayed_deposit_of_usdc_arrives_as_the_account_signed_it_and_once() {
    let Some(world) = World::start().await else { return };
    relays(&world).await;
}

#[tokio::test]
async fn the_stand_in_for_usdc_takes_the_same_deposits() {
    let Some(world) = World::start_with(|settings| settings.token = Some(LocalToken::LocalDollar)).await else { return };
    assert_eq!(world.chain().preflight(world.local.expected()).await.unwrap().token.name, "Local Dollar");
    let block = world.chain().latest_block().await.unwrap();
    assert_eq!(world.chain().is_blocklisted(&Address::from_bytes([1; 20]), &block).await.unwrap(), Some(false));
    relays(&world).await;
}
