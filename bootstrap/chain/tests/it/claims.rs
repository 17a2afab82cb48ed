//! The life of money: deposited, promised, redeemed, split, closed, locked, asked back.

use orien_chain::{EscrowEvent, EscrowLog, OnChainClaim, OtherChannel, Refusal, call};
use orien_protocol::hash::Hash;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::Address;
use orien_protocol::time::UnixSeconds;
use orien_protocol::voucher::{MoneyVerified, Voucher};

use crate::kit::{LATE, World, usdc};

const PAYOUT: Address = Address::from_bytes([0x51; 20]);
const OTHER: Address = Address::from_bytes([0x52; 20]);

fn events(logs: &[EscrowLog]) -> Vec<EscrowEvent> {
    logs.iter().map(|log| log.event).collect()
}

#[tokio::test]
async fn a_batch_pays_every_good_claim_exactly_and_says_why_not_of_the_others() {
    let Some(world) = World::start().await else { return };
    let (chain, facts) = (world.chain(), *world.local.facts());
    world.deposit("20").await;
    let channels = [world.channel(1, PAYOUT), world.channel(2, PAYOUT), world.channel(3, OTHER)];
    let mut bad = world.channel(4, OTHER);
    bad.spending_key = world.agent.address();
    let claims = [
        world.claim(channels[0], "1.000003", "5", true),
        world.claim(channels[1], "2", "5", false),
        world.claim(channels[2], "9", "3", false),
        world.claim(bad, "1", "1", false),
    ];
    assert_eq!(claims.iter().map(OnChainClaim::total).collect::<Vec<_>>(), [usdc("1.000003"), usdc("2"), usdc("3"), usdc("1")]);
    let receipt = world.local.send(&world.agent, &facts.escrow, call::redeem(&claims)).await.unwrap();
    let redeemed = |place: usize, paid: &str, closed| EscrowEvent::Redeemed {
        channel: channels[place].id(),
        account: world.agent.address(),
        payout: channels[place].payout,
        paid: usdc(paid),
        redeemed: usdc(paid),
        closed,
    };
    // The key of the last one is not the account's.
    let refused = EscrowEvent::ClaimRefused { channel: bad.id(), reason: Refusal::KeyUnknown };
    assert_eq!(events(&receipt.logs), [redeemed(0, "1.000003", true), redeemed(1, "2", false), redeemed(2, "3", false), refused]);
    let block = chain.latest_block().await.unwrap();
    let shares = [usdc("1.000003"), usdc("2"), usdc("3")].map(Split::of);
    let sum = |share: fn(&Split) -> Usdc, of: &[Split]| Usdc::from_micros(of.iter().map(|split| share(split).micros()).sum());
    assert_eq!(chain.token_balance(&PAYOUT, &block).await.unwrap(), sum(|s| s.provider, &shares[..2]));
    assert_eq!(chain.token_balance(&OTHER, &block).await.unwrap(), shares[2].provider);
    let fees = chain.fees(&block).await.unwrap();
    assert_eq!((fees.platform, fees.reserve), (sum(|s| s.platform, &shares), sum(|s| s.reserve, &shares)));
    let held = chain.channels(&channels.map(|channel| channel.id()), &block).await.unwrap();
    assert_eq!(
        held.iter().map(|c| (c.redeemed, c.ceiling, c.redeem_until, c.closed)).collect::<Vec<_>>(),
        [(usdc("1.000003"), usdc("5"), LATE, true), (usdc("2"), usdc("5"), LATE, false), (usdc("3"), usdc("3"), LATE, false),]
    );
    assert_eq!(chain.account(&world.agent.address(), &block).await.unwrap().balance, usdc("13.999997"));
    // The same again changes nothing, and the closed one is refused.
    let again = world.local.send(&world.agent, &facts.escrow, call::redeem(&claims[..2])).await.unwrap();
    assert_eq!(events(&again.logs), [EscrowEvent::ClaimRefused { channel: channels[0].id(), reason: Refusal::ChannelClosed }]);
    // Under the ceiling that the escrow knows by now, the voucher alone is enough.
    let more = Voucher { channel: channels[1].id(), total: usdc("4"), receipt_number: 9, receipt_hash: Hash::of(b"more") };
    let more = *MoneyVerified::sign(more, &facts.domain(), &world.spender).signed();
    let alone = OnChainClaim::new(channels[1], more, None, None).unwrap();
    let paid = world.local.send(&world.agent, &facts.escrow, call::redeem(&[alone])).await.unwrap();
    assert!(matches!(paid.logs[0].event, EscrowEvent::Redeemed { paid, redeemed, .. } if paid == usdc("2") && redeemed == usdc("4")));
    for (data, recipient) in [(call::collect_platform(), "platform"), (call::collect_reserve(), "reserve")] {
        let collected = world.local.send(&world.agent, &facts.escrow, data).await.unwrap();
        let to = orien_chain::anvil::local_key(recipient).address();
        assert!(matches!(collected.logs[0].event, EscrowEvent::FeesCollected { recipient, .. } if recipient == to));
    }
}

#[tokio::test]
async fn a_payment_that_the_token_refuses_waits_as_credit_and_holds_up_nobody() {
    let Some(world) = World::start().await else { return };
    let (chain, escrow) = (world.chain(), world.local.facts().escrow);
    world.deposit("10").await;
    world.local.set_blocklisted(&PAYOUT, true).await.unwrap();
    let claims = [world.claim(world.channel(1, PAYOUT), "1", "1", true), world.claim(world.channel(2, OTHER), "1", "1", true)];
    let receipt = world.local.send(&world.agent, &escrow, call::redeem(&claims)).await.unwrap();
    assert!(receipt.logs.iter().any(|log| log.event == EscrowEvent::Credited { payee: PAYOUT, amount: usdc("0.9") }));
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.credit(&PAYOUT, &block).await.unwrap(), usdc("0.9"));
    assert_eq!(chain.token_balance(&OTHER, &block).await.unwrap(), usdc("0.9"));
    world.local.set_blocklisted(&PAYOUT, false).await.unwrap();
    world.local.send(&world.agent, &escrow, call::pay_credit(&PAYOUT)).await.unwrap();
    let block = chain.latest_block().await.unwrap();
    assert_eq!(
        (chain.credit(&PAYOUT, &block).await.unwrap(), chain.token_balance(&PAYOUT, &block).await.unwrap()),
        (Usdc::ZERO, usdc("0.9"))
    );
}

#[tokio::test]
async fn a_lock_is_for_its_channel_alone_and_is_given_back_after_the_close() {
    let Some(world) = World::start().await else { return };
    let (chain, escrow) = (world.chain(), world.local.facts().escrow);
    world.deposit("10").await;
    let channel = world.channel(1, PAYOUT);
    let now = chain.latest_block().await.unwrap().time;
    let until = UnixSeconds(now.0 + 3600);
    let claim = claim_until(&world, channel, "1", "6", until);
    let locked = world.local.send(&world.agent, &escrow, call::lock(&claim)).await.unwrap();
    let account = world.agent.address();
    assert_eq!(events(&locked.logs), [EscrowEvent::Locked { channel: channel.id(), account, amount: usdc("6"), until }]);
    let early = world.chain().simulate(&account, &escrow, &call::unlock(&claim)).await.unwrap().unwrap_err();
    assert_eq!(early.name, format!("StillLocked({})", until.0));
    let twice = claim_until(&world, world.channel(2, PAYOUT), "1", "6", until);
    let refused = world.chain().simulate(&account, &escrow, &call::lock(&twice)).await.unwrap().unwrap_err();
    assert_eq!(refused.name, "NotEnoughFree(4000000, 6000000)");
    world.local.send(&world.agent, &escrow, call::redeem(std::slice::from_ref(&claim))).await.unwrap();
    world.local.anvil.advance(3601).await.unwrap();
    let unlocked = world.local.send(&world.agent, &escrow, call::unlock(&claim)).await.unwrap();
    assert_eq!(events(&unlocked.logs), [EscrowEvent::Unlocked { channel: channel.id(), account, amount: usdc("5") }]);
}

#[tokio::test]
async fn an_account_leaves_with_what_is_its_own_after_the_delay_and_not_before() {
    let Some(world) = World::start().await else { return };
    let (chain, escrow, account) = (world.chain(), world.local.facts().escrow, world.agent.address());
    world.deposit("10").await;
    let requested = world.local.send(&world.agent, &escrow, call::request_exit(usdc("12"))).await.unwrap();
    let EscrowEvent::ExitRequested { due, amount, .. } = requested.logs[0].event else { panic!("{requested:?}") };
    assert_eq!(amount, usdc("12"));
    let early = chain.simulate(&account, &escrow, &call::withdraw()).await.unwrap().unwrap_err();
    assert_eq!(early.name, format!("ExitNotDue({})", due.0));
    let cancelled = world.local.send(&world.agent, &escrow, call::cancel_exit()).await.unwrap();
    assert_eq!(events(&cancelled.logs), [EscrowEvent::ExitCancelled { account }]);
    world.local.send(&world.agent, &escrow, call::request_exit(usdc("12"))).await.unwrap();
    world.local.anvil.advance(86_401).await.unwrap();
    let left = world.local.send(&world.agent, &escrow, call::withdraw()).await.unwrap();
    assert_eq!(events(&left.logs), [EscrowEvent::Withdrawn { account, amount: usdc("10") }]);
    let block = chain.latest_block().await.unwrap();
    assert_eq!(chain.token_balance(&account, &block).await.unwrap(), usdc("100"));
}

#[tokio::test]
async fn documents_of_another_channel_make_no_claim() {
    let Some(world) = World::start().await else { return };
    let (one, other) = (world.channel(1, PAYOUT), world.channel(2, PAYOUT));
    let voucher = Voucher { channel: other.id(), total: usdc("1"), receipt_number: 1, receipt_hash: Hash::ZERO };
    let voucher = *MoneyVerified::sign(voucher, &one.domain, &world.spender).signed();
    assert_eq!(OnChainClaim::new(one, voucher, None, None).unwrap_err(), OtherChannel { document: "voucher" });
}

/// A claim whose allowance ends at a time of one's own.
fn claim_until(world: &World, channel: orien_protocol::channel::Channel, total: &str, ceiling: &str, until: UnixSeconds) -> OnChainClaim {
    let domain = channel.domain;
    let id = channel.id();
    let voucher = Voucher { channel: id, total: usdc(total), receipt_number: 3, receipt_hash: Hash::ZERO };
    let allowance = orien_protocol::voucher::Allowance {
        channel: id,
        ceiling: usdc(ceiling),
        work_until: until,
        redeem_until: until,
        terms: Hash::ZERO,
        claim_key: world.claimer.address(),
    };
    let voucher = *MoneyVerified::sign(voucher, &domain, &world.spender).signed();
    OnChainClaim::new(channel, voucher, Some(*MoneyVerified::sign(allowance, &domain, &world.signer).signed()), None).unwrap()
}
