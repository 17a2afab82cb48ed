//! Whether the escrow carries an allowance: each refusal alone, at its very edge, and those of the chain's clock and of settlement's signer against a real chain.

use std::time::Duration;

use orien_bootstrap::clock;
use orien_bootstrap::escrow::{EscrowReading, Unfit, check_fit};
use orien_chain::{Block, EscrowAccount, EscrowChannel, FOREVER, call};
use orien_node::listing::Today;
use orien_protocol::fault::FaultCode;
use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::MoneyKey;
use orien_protocol::terms::{EXIT_MARGIN, Terms};
use orien_protocol::time::{Millis, UnixSeconds};

use crate::agent::Agent;
use crate::chain::{chain, deposit};
use crate::kit::{HUNG, Kit, agent_keys, usdc};

const DAY: Millis = Millis::from_secs(86_400);
/// Seconds that redemption has to be over before an exit may be due.
const MARGIN: u64 = EXIT_MARGIN.0 / 1000;

/// Terms of an honest agent, and what the escrow says when it carries a dollar under them, and nothing more.
fn fitting() -> (Terms, EscrowReading) {
    let kit = Kit::new();
    let offer = kit.listing().offer(1, clock::wall(), &Today::default());
    let terms = kit.terms(&offer, Hash::ZERO, &agent_keys(1));
    let reading = EscrowReading {
        at: Block { number: 9, hash: Hash::ZERO, time: terms.issued_at.seconds() },
        account: EscrowAccount { balance: usdc(1_000_000), ..EscrowAccount::default() },
        key_until: FOREVER,
        signer_until: FOREVER,
        channel: EscrowChannel::default(),
    };
    (terms, reading)
}

fn judged(reading: &EscrowReading, terms: &Terms, ceiling: u64) -> Result<(), Unfit> {
    check_fit(reading, terms, usdc(ceiling), Usdc::ZERO, DAY)
}

/// The refusal, and what a peer is told of it.
fn refused(reading: &EscrowReading, terms: &Terms) -> (Unfit, FaultCode) {
    let unfit = judged(reading, terms, 1_000_000).unwrap_err();
    (unfit, unfit.fault().code)
}

#[test]
fn redemption_has_to_be_over_before_an_exit_that_the_final_block_does_not_show_can_be_due() {
    let (terms, mut reading) = fitting();
    let end = terms.redeem_until.0;
    // An exit asked for right after this block is due a day later, and redemption has to be over an hour before.
    reading.at.time = UnixSeconds(end + MARGIN - DAY.0 / 1000);
    assert_eq!(judged(&reading, &terms, 1_000_000), Ok(()));
    reading.at.time = UnixSeconds(reading.at.time.0 - 1);
    assert_eq!(refused(&reading, &terms), (Unfit::TooLate { late_seconds: 1, at: reading.at.time }, FaultCode::TIMES));
    // A chain that stands still for a week says nothing about exits since.
    reading.at.time = UnixSeconds(reading.at.time.0 - 7 * 86_400);
    assert_eq!(refused(&reading, &terms), (Unfit::TooLate { late_seconds: 7 * 86_400 + 1, at: reading.at.time }, FaultCode::TIMES));
    let never = Terms { redeem_until: UnixSeconds(u64::MAX), ..terms };
    assert!(matches!(refused(&reading, &never), (Unfit::TooLate { .. }, FaultCode::TIMES)));
}

#[test]
fn redemption_that_is_over_by_the_chains_clock_opens_nothing() {
    let (terms, mut reading) = fitting();
    reading.at.time = UnixSeconds(terms.redeem_until.0 - 1);
    assert_eq!(judged(&reading, &terms, 1_000_000), Ok(()));
    reading.at.time = terms.redeem_until;
    assert_eq!(refused(&reading, &terms), (Unfit::Over { seconds: 0 }, FaultCode::TIMES));
    reading.at.time = UnixSeconds(terms.redeem_until.0 + 5);
    assert_eq!(refused(&reading, &terms), (Unfit::Over { seconds: 5 }, FaultCode::TIMES));
}

#[test]
fn a_signer_or_key_that_the_escrow_does_not_know_for_good_opens_nothing() {
    let (terms, reading) = fitting();
    let signer = terms.settlement_signer;
    let key = terms.channel().spending_key;
    let late = UnixSeconds(u64::MAX - 1);
    let unknown = EscrowReading { signer_until: UnixSeconds(0), ..reading };
    assert_eq!(refused(&unknown, &terms), (Unfit::SignerUnknown(signer), FaultCode::SIGNER_NOT_CURRENT));
    // However long it counts: what it signs now is signed by nobody that the operator stands for.
    let replaced = EscrowReading { signer_until: late, ..reading };
    assert_eq!(refused(&replaced, &terms), (Unfit::SignerReplaced { until: late }, FaultCode::SIGNER_NOT_CURRENT));
    let unnamed = EscrowReading { key_until: UnixSeconds(0), ..reading };
    assert_eq!(refused(&unnamed, &terms), (Unfit::KeyUnknown(key), FaultCode::KEY_NOT_AUTHORIZED));
    let revoked = EscrowReading { key_until: late, ..reading };
    assert_eq!(refused(&revoked, &terms), (Unfit::KeyRevoked { until: late }, FaultCode::KEY_NOT_AUTHORIZED));
}

#[test]
fn a_closed_channel_a_cap_and_money_that_is_locked_or_leaving_open_nothing() {
    let (terms, reading) = fitting();
    let closed = EscrowReading { channel: EscrowChannel { closed: true, ..reading.channel }, ..reading };
    assert_eq!(refused(&closed, &terms), (Unfit::Closed, FaultCode::SESSION_ENDED));
    let with = |change: fn(&mut EscrowAccount)| {
        let mut reading = reading;
        change(&mut reading.account);
        refused(&reading, &terms).0.fault()
    };
    let capped = with(|account| account.daily_cap = usdc(999_999));
    assert_eq!((capped.code, capped.missing), (FaultCode::DAILY_CAP, Some(usdc(1))));
    for change in [
        (|account| account.balance = usdc(999_999)) as fn(&mut EscrowAccount),
        |account| account.locked = usdc(1),
        |account| account.exiting = usdc(1),
    ] {
        let short = with(change);
        assert_eq!((short.code, short.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc(1))));
    }
    // What this very channel has locked or was paid is not needed again.
    let own = EscrowChannel { redeemed: usdc(200_000), locked: usdc(300_000), ..reading.channel };
    let account = EscrowAccount { balance: usdc(800_000), locked: usdc(300_000), ..reading.account };
    assert_eq!(judged(&EscrowReading { channel: own, account, ..reading }, &terms, 1_000_000), Ok(()));
    let others = check_fit(&reading, &terms, usdc(400_000), usdc(600_001), DAY).unwrap_err().fault();
    assert_eq!((others.code, others.missing), (FaultCode::INSUFFICIENT_FUNDS, Some(usdc(1))));
}

/// What a provider says to these terms.
async fn answer(kit: &Kit, shop: &orien_node::shop::Shop, terms: Terms) -> orien_protocol::fault::Fault {
    let mut agent = Agent::propose_terms(kit, shop, terms, agent_keys(1), 100_000).await;
    agent.until("refused", |agent| agent.not_opened().is_some()).await;
    agent.not_opened().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_provider_judges_times_by_the_last_final_block_and_not_by_its_own_clock() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 1_000_000).await;
    let at = local.chain().final_block().await.unwrap().time;
    // Two seconds more than the final block allows, and by our own clock early enough.
    let ahead = async {
        while clock::wall().seconds().0 < at.0 + 4 {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    };
    tokio::time::timeout(HUNG, ahead).await.unwrap();
    let latest = UnixSeconds(at.0 + DAY.0 / 1000 - MARGIN);
    let terms = Terms { redeem_until: UnixSeconds(latest.0 + 2), ..kit.terms(&offer, offer.hash(), &agent_keys(1)) };
    let fault = answer(&kit, &shop, terms).await;
    assert!(fault.code == FaultCode::TIMES && fault.text.contains("2 s too late for the escrow's exit delay"), "{fault:?}");
    let terms = Terms { redeem_until: latest, ..kit.terms(&offer, offer.hash(), &agent_keys(1)) };
    let mut agent = Agent::propose_terms(&kit, &shop, terms, agent_keys(1), 100_000).await;
    agent.opened().await;
    // The chain's clock runs ahead of ours: what it will refuse is not begun.
    local.anvil.advance(8 * 3600).await.unwrap();
    local.settle().await.unwrap();
    let fault = answer(&kit, &shop, kit.terms(&offer, offer.hash(), &agent_keys(1))).await;
    assert!(fault.code == FaultCode::TIMES && fault.text.contains("by the chain's clock redemption is over"), "{fault:?}");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_settlement_whose_signer_the_operator_has_replaced_opens_nothing_more() {
    let Some(local) = chain().await else { return };
    let kit = Kit::on_chain(&local, 3);
    let (shop, offer) = kit.open().await;
    deposit(&local, 1, 1_000_000).await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 100_000).await;
    let next = MoneyKey::from_bytes(&[0x77; 32]).unwrap().address();
    local.send(local.operator(), &local.facts().escrow, call::change_signer(&next)).await.unwrap();
    // Until that is final it may still be taken back.
    local.settle().await.unwrap();
    let fault = answer(&kit, &shop, kit.terms(&offer, offer.hash(), &agent_keys(1))).await;
    assert_eq!(fault.code, FaultCode::SIGNER_NOT_CURRENT, "{fault:?}");
    assert!(agent.run_to_end("echo", &[("text", "what is open goes on")]).await.outcome.unwrap().succeeded());
    shop.close().await;
}
