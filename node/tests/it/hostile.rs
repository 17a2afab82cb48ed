//! The bounds of docs/PROTOCOL.md section 16 with a chain in the loop: a settlement that over-promises, redirects, withholds, reorders, or lies about what is redeemed and final. The loss that
//! was found is printed beside each bound.

use std::collections::BTreeMap;
use std::time::Duration;

use orien_chain::anvil::LocalChain;
use orien_chain::{EscrowEvent, OnChainClaim, Refusal, call, deposit as deposits};
use orien_node::shop::Shop;
use orien_protocol::channel::Channel;
use orien_protocol::codec;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::Claim;
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Split;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::time::UnixSeconds;
use orien_protocol::voucher::{Allowance, Close, MoneyVerified, SignedVoucher, Voucher};

use crate::agent::Agent;
use crate::chain::{chain, collect, deposit, paid, redeemed, session, until_redeemed};
use crate::kit::{HUNG, Kit, agent_keys, usdc};

/// What was lost at most, beside what may be.
#[expect(clippy::print_stdout, reason = "the figures belong beside the bounds in the documentation")]
fn bounded(what: &str, lost: u64, bound: u64) {
    println!("worst loss found, {what}: {} USDC; bound {} USDC", usdc(lost), usdc(bound));
    assert!(lost <= bound, "{what}: {lost} of {bound}");
}

/// Another of the kit's channel's claims, signed by whoever signs them.
pub(crate) fn on_chain(kit: &Kit, claim: &Claim) -> OnChainClaim {
    let terms = claim.terms.clone().verify(&kit.network).unwrap();
    OnChainClaim::new((*terms).channel(), claim.voucher, Some(claim.allowance), claim.close).unwrap()
}

/// One escrow, promised to two providers: each is within its own limit, and together they have what there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_escrow_that_is_promised_twice_costs_a_provider_no_more_than_its_limit() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 800_000).await;
    let limit = 620_000;
    let mut kits = [3, 4, 5].map(|seed| Kit::on_chain(&local, seed));
    for kit in &mut kits {
        kit.credit.unredeemed_cap = usdc(limit);
        kit.till.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    }
    let mut promised = Vec::new();
    let mut shops = Vec::new();
    for kit in &kits[..2] {
        let (shop, offer) = kit.open().await;
        let mut agent = Agent::open(kit, &shop, &offer, agent_keys(1), 800_000).await;
        assert!(agent.run_to_end("call", &[]).await.outcome.unwrap().succeeded());
        // A second one would be beyond the budget, and beyond the limit.
        let refused = agent.run("call", &[]).await;
        agent.until("refused", |agent| agent.refusal(refused).is_some()).await;
        agent.end().await;
        promised.push(agent.session.promised().micros());
        shops.push(shop);
    }
    assert!(promised.iter().sum::<u64>() > 800_000, "{promised:?}");
    for (kit, shop) in kits.iter().zip(&shops) {
        collect(&local, kit, shop).await;
        local.settle().await.unwrap();
    }
    until_redeemed(&local, &shops[0], promised[0]).await;
    until_redeemed(&local, &shops[1], 800_000 - promised[0]).await;
    let got: u64 = [paid(&local, &kits[0].payout).await, paid(&local, &kits[1].payout).await].iter().sum();
    let shares = Split::of(usdc(promised[0])).provider.micros() + Split::of(usdc(800_000 - promised[0])).provider.micros();
    assert_eq!(got, shares, "all that there was");
    bounded("one escrow promised twice", promised[1] - (800_000 - promised[0]), limit);
    // A third one reads what is left.
    let (shop, offer) = kits[2].open().await;
    let mut agent = Agent::propose(&kits[2], &shop, &offer, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    let fault = agent.not_opened().unwrap();
    assert_eq!((fault.code, fault.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc(100_000))));
    for shop in shops.iter().chain([&shop]) {
        shop.close().await;
    }
}

/// The till of the kit says that everything is redeemed, and nothing is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_that_says_redeemed_and_redeems_nothing_stops_the_work_at_the_limit_until_the_provider_collects() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 5_000_000).await;
    let mut kit = Kit::on_chain(&local, 3);
    let limit = 60_000;
    kit.credit.unredeemed_cap = usdc(limit);
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 4_000_000).await;
    let run = agent.run("sleep", &[("seconds", "3")]).await;
    agent.until("all that may wait is promised", |agent| agent.session.promised().micros() >= limit).await;
    agent.while_doing(tokio::time::sleep(Duration::from_secs(2))).await;
    assert!(agent.final_work(run).is_none(), "it is paused");
    bounded("redeemed is a lie", agent.session.promised().micros() - redeemed(&shop).await, limit);
    assert!(kit.till.redeemed(agent.session.id()).is_some_and(|(said, _)| said > 0), "settlement said so");
    // The provider does not need it.
    let id = agent.session.id();
    while agent.final_work(run).is_none() {
        agent.while_doing(collect_again(&local, &kit, &shop)).await;
        let waits = agent.session.promised().micros() - redeemed(&shop).await;
        bounded("redeemed is a lie, later", waits, limit);
    }
    agent.end().await;
    let promised = agent.session.promised().micros();
    assert!(promised > limit, "it went on: {promised}");
    agent.while_doing(collect_again(&local, &kit, &shop)).await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros(), "{id}");
    shop.close().await;
}

/// Nobody redeems anything, and nobody has to: the provider has the rest of the allowance locked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_allowance_that_is_locked_on_the_chain_lets_work_go_on_beyond_the_limit() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 5_000_000).await;
    let mut kit = Kit::on_chain(&local, 3);
    let limit = 60_000;
    (kit.credit.unredeemed_cap, kit.collect.lock_at) = (usdc(limit), usdc(limit / 2));
    kit.till.silent.store(true, std::sync::atomic::Ordering::SeqCst);
    local.anvil.give_gas(&kit.provider.claim.address()).await.unwrap();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 4_000_000).await;
    let run = agent.run("sleep", &[("seconds", "2")]).await;
    while agent.final_work(run).is_none() {
        agent.while_doing(tokio::time::sleep(Duration::from_millis(300))).await;
        local.settle().await.unwrap();
    }
    let promised = agent.session.promised().micros();
    assert!(promised > 2 * limit, "{promised}");
    let at = local.chain().final_block().await.unwrap();
    let channel = agent.session.terms().unwrap().channel();
    let there = local.chain().channels(&[channel], &at).await.unwrap()[0];
    assert_eq!((there.locked.micros(), there.redeemed.micros()), (4_000_000, 0));
    agent.end().await;
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    // The close gives the rest back to the account.
    let at = local.chain().final_block().await.unwrap();
    let account = local.chain().account(&agent_keys(1).spending.address(), &at).await.unwrap();
    assert_eq!((account.balance.micros(), account.locked.micros()), (5_000_000 - promised, 0));
    shop.close().await;
}

async fn collect_again(local: &LocalChain, kit: &Kit, shop: &Shop) {
    local.anvil.give_gas(&kit.provider.claim.address()).await.unwrap();
    shop.collect().await.unwrap();
    local.settle().await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
}

/// Documents of one provider, in the hands of a settlement that would rather be paid itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_claim_pays_its_own_payee_whatever_settlement_signs_withholds_or_reorders() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 3_000_000).await;
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let claim = until_claimed(&kit, promised).await;
    let honest = on_chain(&kit, &claim);
    let thief = Address::from_bytes([0x66; 20]);
    let stolen = Channel { payout: thief, ..*honest.channel() };
    // The voucher as it is, for a channel that pays the thief: its signature is for another one.
    let body = Voucher { channel: stolen.id(), ..*claim.voucher.unverified() };
    let forged: SignedVoucher = codec::decode(&codec::encode(&(body, claim.voucher.signature())).unwrap(), 4096).unwrap();
    let allowance = Allowance { channel: stolen.id(), ..*claim.allowance.unverified() };
    let allowance = *MoneyVerified::sign(allowance, &kit.domain, &kit.settlement).signed();
    let redirected = OnChainClaim::new(stolen, forged, Some(allowance), None).unwrap();
    let relayer = MoneyKey::from_bytes(&[0x55; 32]).unwrap();
    local.anvil.give_gas(&relayer.address()).await.unwrap();
    let escrow = local.facts().escrow;
    let receipt = local.send(&relayer, &escrow, call::redeem(&[redirected])).await.unwrap();
    let refused = receipt.logs.iter().any(|log| matches!(log.event, EscrowEvent::ClaimRefused { reason: Refusal::BadVoucher, .. }));
    assert!(refused, "{receipt:?}");
    assert_eq!(paid(&local, &thief).await, 0);

    // A part first, then all, then the part again: only what is new is paid. Here the agent signs a smaller voucher itself.
    let part = Voucher { total: usdc(promised / 2), receipt_number: 1, ..*claim.voucher.unverified() };
    let part = *MoneyVerified::sign(part, &kit.domain, &agent_keys(1).spending).signed();
    let part = OnChainClaim::new(*honest.channel(), part, Some(claim.allowance), None).unwrap();
    let all = OnChainClaim::new(*honest.channel(), claim.voucher, Some(claim.allowance), None).unwrap();
    for claims in [vec![part.clone()], vec![all.clone(), part.clone()], vec![part, all]] {
        local.send(&relayer, &escrow, call::redeem(&claims)).await.unwrap();
    }
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}

/// What the till was handed, once it has a voucher of this total.
pub(crate) async fn until_claimed(kit: &Kit, promised: u64) -> Claim {
    let found = || kit.till.claims.lock().unwrap().values().find(|claim| claim.voucher.unverified().total.micros() == promised).cloned();
    let waited = async {
        loop {
            if let Some(claim) = found() {
                return claim;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(HUNG, waited).await.unwrap()
}

/// Redeemed in a block that does not stay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_redeemed_in_a_block_that_is_taken_back_never_counts() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 3_000_000).await;
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    let promised = session(&kit, &shop, &offer, 1).await;
    let claim = until_claimed(&kit, promised).await;
    let relayer = MoneyKey::from_bytes(&[0x55; 32]).unwrap();
    local.anvil.give_gas(&relayer.address()).await.unwrap();
    local.send(&relayer, &local.facts().escrow, call::redeem(&[on_chain(&kit, &claim)])).await.unwrap();
    let at = local.chain().latest_block().await.unwrap();
    assert_eq!(local.chain().channels(&[claim.voucher.unverified().channel], &at).await.unwrap()[0].redeemed.micros(), promised);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(redeemed(&shop).await, 0, "settlement says redeemed, and the newest block says redeemed; it is not final");
    local.anvil.reorganise(1).await.unwrap();
    local.settle().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(redeemed(&shop).await, 0);
    collect(&local, &kit, &shop).await;
    until_redeemed(&local, &shop, promised).await;
    assert_eq!(paid(&local, &kit.payout).await, Split::of(usdc(promised)).provider.micros());
    shop.close().await;
}

/// A claim of a made-up session of an agent, for a payee.
fn made_up(local: &LocalChain, agent: u8, payout: Address, lane: u8, total: u64) -> OnChainClaim {
    let (settlement, claims) = (MoneyKey::from_bytes(&[9; 32]).unwrap(), MoneyKey::from_bytes(&[8; 32]).unwrap());
    let (domain, key) = (local.facts().domain(), agent_keys(agent).spending);
    let channel = Channel {
        domain,
        account: key.address(),
        spending_key: key.address(),
        payout,
        provider: agent_keys(8).peer.id(),
        settlement_signer: settlement.address(),
        lane: SessionId::from_bytes([lane; 16]),
    };
    let id = channel.id();
    let until = UnixSeconds(orien_bootstrap::clock::wall().0 / 1000 + 3600);
    let voucher = Voucher { channel: id, total: usdc(total), receipt_number: 1, receipt_hash: Hash::ZERO };
    let allowance = Allowance {
        channel: id,
        ceiling: usdc(total),
        work_until: until,
        redeem_until: until,
        terms: Hash::ZERO,
        claim_key: claims.address(),
    };
    let close = Close { channel: id, total: usdc(total) };
    OnChainClaim::new(
        channel,
        *MoneyVerified::sign(voucher, &domain, &key).signed(),
        Some(*MoneyVerified::sign(allowance, &domain, &settlement).signed()),
        Some(*MoneyVerified::sign(close, &domain, &claims).signed()),
    )
    .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dust_a_forged_claim_and_a_payee_that_the_token_refuses_hold_up_nobody_else() {
    let Some(local) = chain().await else { return };
    deposit(&local, 1, 3_000_000).await;
    let [listed, other] = [Address::from_bytes([0x71; 20]), Address::from_bytes([0x72; 20])];
    local.set_blocklisted(&listed, true).await.unwrap();
    let mut claims: Vec<OnChainClaim> = (1..=20).map(|lane| made_up(&local, 1, listed, lane, 1)).collect();
    claims.push(made_up(&local, 1, listed, 21, 400_000));
    // An agent who never deposited anything.
    claims.push(made_up(&local, 2, other, 22, 900_000));
    claims.extend((23..=30).map(|lane| made_up(&local, 1, other, lane, 100_000)));
    let relayer = MoneyKey::from_bytes(&[0x55; 32]).unwrap();
    local.anvil.give_gas(&relayer.address()).await.unwrap();
    let receipt = local.send(&relayer, &local.facts().escrow, call::redeem(&claims)).await.unwrap();
    let at = local.chain().latest_block().await.unwrap();
    let share = |total: u64| Split::of(usdc(total)).provider.micros();
    assert_eq!(paid(&local, &other).await, 8 * share(100_000));
    assert_eq!(paid(&local, &listed).await, 0);
    assert_eq!(local.chain().credit(&listed, &at).await.unwrap().micros(), 20 * share(1) + share(400_000), "kept for the same address");
    let refused: BTreeMap<_, _> = receipt
        .logs
        .iter()
        .filter_map(|log| if let EscrowEvent::ClaimRefused { channel, reason } = log.event { Some((channel, reason)) } else { None })
        .collect();
    assert_eq!(refused.into_values().collect::<Vec<_>>(), [Refusal::KeyUnknown]);
    local.set_blocklisted(&listed, false).await.unwrap();
    local.send(&relayer, &local.facts().escrow, call::pay_credit(&listed)).await.unwrap();
    assert_eq!(paid(&local, &listed).await, 20 * share(1) + share(400_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deposit_that_is_run_ahead_of_goes_to_its_account_under_its_key_or_nowhere() {
    let Some(local) = chain().await else { return };
    let account = MoneyKey::from_bytes(&[0x31; 32]).unwrap();
    let (spending, thief) = (agent_keys(1).spending.address(), MoneyKey::from_bytes(&[0x66; 32]).unwrap());
    local.mint(&account.address(), usdc(2_000_000)).await.unwrap();
    local.anvil.give_gas(&thief.address()).await.unwrap();
    let at = local.chain().latest_block().await.unwrap();
    let token = local.chain().token_domain(&at).await.unwrap();
    let honest = deposits::Authorization {
        account: account.address(),
        escrow: local.facts().escrow,
        amount: usdc(2_000_000),
        spending_key: spending,
        salt: Hash::of(b"salt"),
        valid_after: UnixSeconds(0),
        valid_before: UnixSeconds(at.time.0 + 3600),
    };
    let signature = honest.sign(&token, &account);
    // The thief sees it in the mempool and is first, with its own key, its own account, another amount.
    let theirs = [
        deposits::Authorization { spending_key: thief.address(), ..honest },
        deposits::Authorization { account: thief.address(), spending_key: thief.address(), ..honest },
        deposits::Authorization { amount: usdc(1), ..honest },
    ];
    for attempt in theirs {
        let sent = local.send(&thief, &local.facts().escrow, call::deposit_with_authorization(&attempt, &signature)).await;
        assert!(sent.is_err(), "{attempt:?}");
    }
    // First with the very same: then it has relayed the deposit and paid for it.
    local.send(&thief, &local.facts().escrow, call::deposit_with_authorization(&honest, &signature)).await.unwrap();
    let at = local.chain().latest_block().await.unwrap();
    let held = local.chain().account(&account.address(), &at).await.unwrap();
    assert_eq!(held.balance.micros(), 2_000_000);
    let until = async |key: &Address| local.chain().key_until(&account.address(), key, &at).await.unwrap();
    assert_eq!((until(&spending).await, until(&thief.address()).await), (orien_chain::FOREVER, UnixSeconds(0)));
    assert_eq!(local.chain().account(&thief.address(), &at).await.unwrap().balance.micros(), 0);
}
