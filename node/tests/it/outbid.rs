//! A provider's own transaction on a chain whose gas grows dearer: what it offers then, and what it never offers.

use std::sync::atomic::Ordering;
use std::time::Duration;

use orien_chain::anvil::LocalChain;
use orien_chain::{TxHash, Wei};
use orien_node::chain::{Collected, SendingRules};
use orien_node::shop::Shop;
use orien_protocol::money::Split;
use orien_protocol::time::Millis;

use crate::chain::{chain, deposit, paid, redeemed, session, until_redeemed};
use crate::kit::{HUNG, Kit, usdc};

/// A provider without a settlement that raises what it offers after a second, to at most `cap` gwei.
fn kit(local: &LocalChain, cap: u64) -> Kit {
    let mut kit = Kit::on_chain(local, 3);
    kit.till.silent.store(true, Ordering::SeqCst);
    let second = Millis::from_secs(1);
    kit.collect.sending = SendingRules { resend_after: second, raise_after: second, fee_cap: Wei::from_gwei(cap) };
    kit
}

/// Makes a block without transactions after which the next one asks for so much.
async fn base_fee(local: &LocalChain, gwei: u64) {
    // The next block's follows from this one's, and falls by an eighth since it is empty.
    let this = Wei(Wei::from_gwei(gwei).0 * 8 / 7);
    local.anvil.set_base_fee(this).await.unwrap();
    local.anvil.mine(1).await.unwrap();
}

fn newest(shop: &Shop) -> Option<TxHash> {
    shop.chain().unwrap().0.sending.map(|(hash, _)| hash)
}

/// Waits for another form than this.
async fn another(shop: &Shop, than: TxHash) -> TxHash {
    let raised = async {
        loop {
            match newest(shop) {
                Some(hash) if hash != than => return hash,
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    };
    tokio::time::timeout(HUNG, raised).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_collection_that_is_outbid_is_raised_to_the_market_and_pays_once() {
    let Some(local) = chain().await else { return };
    let kit = kit(&local, 500);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let payer = kit.provider.claim.address();
    local.anvil.give_gas(&payer).await.unwrap();
    local.anvil.set_automine(false).await.unwrap();
    let Some(Collected::Sent { transaction: first, .. }) = shop.collect().await.unwrap() else { panic!("not sent") };
    // Gas is fifty times as dear before it is in a block.
    base_fee(&local, 50).await;
    assert_eq!(local.chain().receipt(&first).await.unwrap(), None, "it offers too little");
    let mut found = None;
    let included = async {
        let mut last = first;
        while found.is_none() {
            last = another(&shop, last).await;
            local.anvil.mine(1).await.unwrap();
            found = local.chain().receipt(&last).await.unwrap();
        }
    };
    tokio::time::timeout(HUNG, included).await.unwrap();
    let receipt = found.unwrap();
    assert!(receipt.success && receipt.effective_gas_price.0 > Wei::from_gwei(20).0, "{receipt:?}");
    local.anvil.set_automine(true).await.unwrap();
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    let share = Split::of(usdc(promised));
    let fees = local.chain().fees(&local.chain().final_block().await.unwrap()).await.unwrap();
    assert_eq!((fees.platform, fees.reserve), (share.platform, share.reserve));
    assert_eq!(local.nonce(&payer).await.unwrap(), 1, "all of it under one nonce");
    assert_eq!(local.chain().receipt(&first).await.unwrap(), None);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_never_offers_more_than_its_cap_and_goes_on_when_gas_is_cheap_again() {
    let Some(local) = chain().await else { return };
    let kit = kit(&local, 10);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let payer = kit.provider.claim.address();
    local.anvil.give_gas(&payer).await.unwrap();
    base_fee(&local, 50).await;
    let Some(Collected::GasTooDear { base_fee: asked, cap }) = shop.collect().await.unwrap() else { panic!("it was sent") };
    assert!(asked > cap && cap == Wei::from_gwei(10), "{asked:?} {cap:?}");
    assert_eq!((redeemed(&shop).await, newest(&shop)), (0, None));
    // Cheap enough to begin, and dear again before it is in a block.
    base_fee(&local, 4).await;
    local.anvil.set_automine(false).await.unwrap();
    let Some(Collected::Sent { transaction: first, .. }) = shop.collect().await.unwrap() else { panic!("not sent") };
    base_fee(&local, 50).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let last = newest(&shop).unwrap();
    assert_eq!(local.chain().receipt(&last).await.unwrap(), None);
    base_fee(&local, 4).await;
    // What it sends again every second is in a block now, at no more than the cap.
    local.anvil.set_automine(true).await.unwrap();
    until_redeemed(&local, &shop, promised).await;
    let mut found = None;
    for hash in [first, last] {
        found = found.or(local.chain().receipt(&hash).await.unwrap());
    }
    assert!(found.is_some_and(|receipt| receipt.effective_gas_price <= cap), "one of the forms within the cap");
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    assert_eq!(local.nonce(&payer).await.unwrap(), 1);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_raise_stops_at_what_the_payer_can_pay_and_what_it_can_pay_for_is_sent_again() {
    let Some(local) = chain().await else { return };
    let kit = kit(&local, 500);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 5_000_000).await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let payer = kit.provider.claim.address();
    local.anvil.set_native_balance(&payer, Wei::ZERO).await.unwrap();
    let Some(Collected::NeedsGas { needs, .. }) = shop.collect().await.unwrap() else { panic!("without gas") };
    // Enough for the first form, and for none that offers an eighth more.
    local.anvil.set_native_balance(&payer, Wei(needs.0 * 21 / 20)).await.unwrap();
    local.anvil.set_automine(false).await.unwrap();
    let Some(Collected::Sent { transaction, .. }) = shop.collect().await.unwrap() else { panic!("not sent") };
    base_fee(&local, 50).await;
    let said = async {
        while shop.chain().unwrap().0.missing_gas.is_none() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(HUNG, said).await.unwrap();
    // Raised to twice the base fee and the tip, it would need some hundred gwei per gas.
    let missing = shop.chain().unwrap().0.missing_gas.unwrap();
    assert!(missing > needs.times(10), "{missing} are said to be missing, and {needs} were needed at first");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(newest(&shop), Some(transaction), "nothing was signed that cannot be paid for");
    // Every node has lost it, and gas is cheap again.
    local.anvil.drop_all_transactions().await.unwrap();
    local.anvil.set_base_fee(Wei(1_000_000_000)).await.unwrap();
    local.anvil.set_automine(true).await.unwrap();
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    assert_eq!((local.nonce(&payer).await.unwrap(), shop.chain().unwrap().0.missing_gas), (1, None));
    shop.close().await;
}
