//! Names of ENS, resolved through a registry of a few instructions.

use orien_chain::ens::{self, Resolved};
use orien_protocol::signing::Address;

use crate::kit::World;

const REGISTRY: Address = Address::from_bytes([0xe1; 20]);
const RESOLVER: Address = Address::from_bytes([0xe2; 20]);

/// Code that answers every call with one word: an address.
fn always(address: &Address) -> Vec<u8> {
    let mut code = vec![0x73];
    code.extend_from_slice(address.as_bytes());
    // MSTORE(0, address), RETURN(0, 32)
    code.extend_from_slice(&[0x60, 0x00, 0x52, 0x60, 0x20, 0x60, 0x00, 0xf3]);
    code
}

#[tokio::test]
async fn a_name_leads_to_an_address_or_nowhere_or_cannot_be_checked() {
    let Some(world) = World::start().await else { return };
    let (anvil, chain) = (&world.local.anvil, world.chain());
    let payout = Address::from_bytes([0x77; 20]);
    let resolve = async |name: &str| {
        anvil.mine(1).await.unwrap();
        let block = chain.latest_block().await.unwrap();
        ens::resolve(chain, &REGISTRY, name, &block).await.unwrap()
    };
    anvil.set_code(&REGISTRY, &always(&RESOLVER)).await.unwrap();
    anvil.set_code(&RESOLVER, &always(&payout)).await.unwrap();
    assert_eq!(resolve("render-farm.eth").await, Resolved::To(payout));
    anvil.set_code(&RESOLVER, &always(&Address::default())).await.unwrap();
    assert_eq!(resolve("render-farm.eth").await, Resolved::Nowhere);
    // As resolvers do that answer from elsewhere.
    anvil.set_code(&RESOLVER, &[0x60, 0x00, 0x60, 0x00, 0xfd]).await.unwrap();
    assert!(matches!(resolve("render-farm.eth").await, Resolved::Unchecked(reason) if reason.contains("resolver")));
    anvil.set_code(&REGISTRY, &always(&Address::default())).await.unwrap();
    assert_eq!(resolve("render-farm.eth").await, Resolved::Nowhere);
    assert!(matches!(resolve("Render.eth").await, Resolved::Unchecked(reason) if reason.contains("lower-case")));
    let block = chain.latest_block().await.unwrap();
    let elsewhere = ens::resolve(chain, &ens::REGISTRY, "render-farm.eth", &block).await.unwrap();
    assert!(matches!(elsewhere, Resolved::Unchecked(reason) if reason.contains("another chain")));
}
