//! The account that pays, on a chain: what is refused before anybody is asked, and what the chain says of each session.

use orien_chain::anvil::LocalChain;
use orien_chain::{OnChainClaim, call};
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::{Address, MoneyKey};
use serde_json::{Value, json};

use crate::shop::ShopPlan;
use crate::world::{World, until};

fn owner() -> MoneyKey {
    MoneyKey::from_bytes(&[0x41; 32]).unwrap()
}

async fn deposit(local: &LocalChain, amount: u64, spending_key: &Address) {
    let (owner, amount) = (owner(), Usdc::from_micros(amount));
    local.fund(&owner.address(), amount).await.unwrap();
    local.deposit(&owner, amount, spending_key).await.unwrap();
    local.settle().await.unwrap();
}

fn usdc(value: &Value) -> Usdc {
    value.to_string().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn what_the_escrow_does_not_carry_is_refused_before_settlement_or_provider_are_asked() {
    let Some((world, local)) = World::on_chain(owner().address(), 31_337).await else { return };
    let shop = world.shop("shop", ShopPlan::default()).await;
    let client = world.client();
    let open = |key: &'static str, budget: &'static str| {
        let body = json!({ "providerId": shop.id().to_string(), "budgetAllowance": budget });
        let client = client.clone();
        async move { client.post("/api/sessions", key, &body).await }
    };
    open("unknown", "1").await.problem(402, "key_not_authorized");
    deposit(&local, 1_500_000, &world.spending_key()).await;
    assert_eq!(open("rich", "2").await.problem(402, "insufficient_funds")["missing"], "0.5");
    open("first", "1").await.ok(201);
    // The first may take its whole budget.
    assert_eq!(open("second", "1").await.problem(402, "insufficient_funds")["missing"], "0.5");
    // Money that the owner asked back is not there any more. What a reading of the last seconds says no to is read again.
    local.send(&owner(), &local.facts().escrow, call::request_exit(Usdc::from_micros(400_000))).await.unwrap();
    local.settle().await.unwrap();
    assert_eq!(open("third", "1").await.problem(402, "insufficient_funds")["missing"], "0.9");
    assert_eq!(open("fourth", "0.3").await.problem(402, "insufficient_funds")["missing"], "0.2");
    assert_eq!(world.reserved(), 1, "settlement heard of the first alone");
    let wallet = client.get("/api/wallet").await.ok(200);
    let escrow = &wallet["escrow"];
    assert_eq!(
        (&wallet["rail"], &wallet["account"], &wallet["spendingKeyStatus"], &wallet["chain"]["chainId"]),
        (&json!("evm"), &json!(owner().address().to_string()), &json!("authorized"), &json!(31_337))
    );
    assert_eq!((&escrow["balance"], &escrow["exiting"], &escrow["free"]), (&json!(1.5), &json!(0.4), &json!(1.1)));
    assert!(escrow["exitAt"].is_string() && escrow["dailyCap"].is_null(), "{escrow}");
    assert_eq!(wallet["settlement"]["reserved"], json!(1));
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_shows_when_and_by_which_transaction_it_was_settled() {
    let Some((mut world, local)) = World::on_chain(owner().address(), 31_337).await else { return };
    deposit(&local, 5_000_000, &world.spending_key()).await;
    let shop = world.shop("shop", ShopPlan::default()).await;
    let id = world.open("open", &shop, "2").await;
    let run = world.run("run", &id, "echo", json!({ "text": "x" })).await;
    world.over(&run).await;
    let ended = world.client().post(&format!("/api/sessions/{id}/end"), "end", &json!({})).await.ok(200);
    let promised = usdc(&ended["settlement"]["totalCost"]);
    assert!(ended["settlement"]["settledAt"].is_null() && ended["settlement"]["txHash"].is_null(), "{ended}");
    assert_eq!(ended["settlement"]["id"], id.replacen("session", "settlement", 1));

    let claim = until("the provider's claim", || async { shop.see(|seen| seen.claims.last().cloned()) }).await;
    let channel = claim.terms.by_agent.unverified().channel();
    let payout = channel.payout;
    let claim = OnChainClaim::new(channel, claim.voucher, Some(claim.allowance), claim.close).unwrap();
    let relayer = MoneyKey::from_bytes(&[0x55; 32]).unwrap();
    local.anvil.give_gas(&relayer.address()).await.unwrap();
    let receipt = local.send(&relayer, &local.facts().escrow, call::redeem(&[claim])).await.unwrap();
    let transaction = receipt.logs.first().unwrap().transaction;
    local.settle().await.unwrap();
    let path = format!("/api/sessions/{id}");
    let client = world.client();
    let settled = async || {
        until("the settlement", || async {
            let session = client.get(&path).await.ok(200);
            session["settlement"]["settledAt"].is_string().then_some(session)
        })
        .await
    };
    let settlement = settled().await["settlement"].clone();
    assert_eq!(settlement["txHash"], transaction.to_string());
    let split = Split::of(promised);
    assert_eq!(
        ["totalCost", "providerPayout", "platformFee", "reserve"].map(|name| usdc(&settlement[name])),
        [promised, split.provider, split.platform, split.reserve]
    );
    let at = local.chain().final_block().await.unwrap();
    assert_eq!(local.chain().token_balance(&payout, &at).await.unwrap(), split.provider);
    // It is remembered, and the channel is over.
    world.stop_gateway().await;
    world.start_gateway().await;
    let session = world.client().get(&path).await.ok(200);
    assert_eq!(session["settlement"], settlement);
    assert_eq!(world.client().get("/api/wallet").await.ok(200)["channels"], json!([]));
    shop.close().await;
    world.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_an_offer_is_verified_only_if_the_chain_leads_from_it_to_the_payout_address() {
    // The registry of names is where it is on Ethereum: here one that has the same answer for every name.
    let Some((world, local)) = World::on_chain(owner().address(), 1).await else { return };
    let resolver = Address::from_bytes([0x77; 20]);
    local.anvil.set_code(&orien_chain::ens::REGISTRY, &answering(&resolver)).await.unwrap();
    local.anvil.set_code(&resolver, &answering(&Address::from_bytes([7; 20]))).await.unwrap();
    local.settle().await.unwrap();
    let shown = async |name: &'static str, label: &'static str| {
        let shop = world.shop(label, ShopPlan { label, ens_name: Some(name), ..ShopPlan::default() }).await;
        let path = format!("/api/providers/{}", shop.id());
        let client = world.client();
        let provider = until("a look at the name", || async {
            let provider = client.get(&path).await.ok(200);
            (provider["ensVerified"] == true || !provider["ensDetail"].as_str().unwrap().contains("yet")).then_some(provider)
        })
        .await;
        shop.close().await;
        (provider["ensVerified"].clone(), provider["ensDetail"].as_str().unwrap_or_default().to_owned())
    };
    assert_eq!(shown("render.eth", "one").await, (json!(true), String::new()));
    let odd = shown("R\u{e9}nder.eth", "two").await;
    assert!(odd.0 == false && odd.1.contains("only names"), "{odd:?}");
    // The same name, looked up for another payout address.
    local.anvil.set_code(&resolver, &answering(&Address::from_bytes([8; 20]))).await.unwrap();
    local.anvil.mine(4).await.unwrap();
    let stranger = shown("stranger.eth", "three").await;
    assert!(stranger.0 == false && stranger.1.contains("leads to"), "{stranger:?}");
    world.close().await;
}

/// A contract that answers every call with one address.
fn answering(address: &Address) -> Vec<u8> {
    // PUSH20 address, MSTORE at 0, RETURN 32 bytes.
    let mut code = vec![0x73];
    code.extend_from_slice(address.as_bytes());
    code.extend_from_slice(&[0x60, 0, 0x52, 0x60, 32, 0x60, 0, 0xf3]);
    code
}
