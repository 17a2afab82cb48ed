//! What the store keeps, and how it adds up.

use orien_bootstrap::clock;
use orien_node::store::{Handed, Store};
use orien_protocol::frame::{AgentFrame, ChannelState, CloseReason};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderRecord, ProviderSession};
use orien_protocol::signing::{Address, Verified};
use orien_protocol::terms::ProposedTerms;
use orien_protocol::time::Timestamp;
use orien_protocol::voucher::{MoneyVerified, Voucher};

use crate::kit::{Kit, MINIMUM, agent_keys, usdc};

/// A session's opening and its first voucher, as the machine wants them kept.
fn opening(kit: &Kit) -> (SessionId, Address, Vec<ProviderRecord>) {
    let keys = agent_keys(1);
    let listing = kit.listing();
    let offer = listing.offer(1, clock::wall(), &orien_node::listing::Today::default());
    let terms = kit.terms(&offer, Hash::of(b"offer"), &keys);
    let (session, account) = (terms.session, keys.spending.address());
    let proposal = ProposedTerms::make(terms, &kit.network, &keys.peer).unwrap();
    let (mut machine, _) = ProviderSession::accept(proposal, kit.provider.clone(), clock::now()).unwrap();
    let allowance = kit.allowance(&machine.terms().to_signed(), usdc(1_000_000));
    let env = ProviderEnv {
        now: clock::now(),
        credit: usdc(1_000),
        unredeemed_ceiling: usdc(1_000),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &|_| Ok(()),
    };
    let mut records = Vec::new();
    let mut keep = |effects: Vec<ProviderEffect>| {
        records.extend(
            effects.into_iter().filter_map(|effect| if let ProviderEffect::Persist(record) = effect { Some(*record) } else { None }),
        );
        records.clone()
    };
    let so_far = keep(machine.handle(ProviderInput::Frame(AgentFrame::Present(allowance)), &env));
    let Some(ProviderRecord::Receipt(receipt)) = so_far.last().cloned() else { panic!("{so_far:?}") };
    let receipt: Verified<_> = receipt.verify(&kit.network, &kit.provider.peer.id()).unwrap();
    let voucher = Voucher { channel: machine.terms().channel(), total: usdc(MINIMUM), receipt_number: 1, receipt_hash: receipt.hash() };
    let voucher = *MoneyVerified::sign(voucher, &kit.domain, &keys.spending).signed();
    let records = keep(machine.handle(ProviderInput::Frame(AgentFrame::Voucher(voucher)), &env));
    (session, account, records)
}

fn open(kit: &Kit) -> Store {
    Store::open(&kit.directory.path().join("store.redb")).unwrap()
}

#[tokio::test]
async fn records_come_back_in_order_after_a_restart_and_sessions_do_not_mix() {
    let kit = Kit::new();
    let (one, two) = (opening(&kit), opening(&kit));
    let store = open(&kit);
    for record in &one.2 {
        store.append(one.0, vec![record.clone()]).await.unwrap();
        store.append(two.0, vec![record.clone()]).await.unwrap();
    }
    drop(store);
    let store = open(&kit);
    let read = store.read(one.0, |records| records.collect::<Vec<_>>()).await.unwrap();
    assert_eq!(read, one.2);
    let mut sessions = [one.0, two.0];
    sessions.sort_unstable();
    assert_eq!(store.sessions().await.unwrap(), sessions);
    assert_eq!(store.read(SessionId::from_parts(1, 1), |records| records.count()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_summary_holds_the_documents_that_redeem_what_was_promised() {
    let kit = Kit::new();
    let (session, account, records) = opening(&kit);
    let store = open(&kit);
    store.append(session, records).await.unwrap();
    let summary = store.summary(session).await.unwrap().unwrap();
    assert_eq!((summary.account(), summary.charged, summary.promised()), (account, usdc(MINIMUM), usdc(MINIMUM)));
    let claim = summary.claim().unwrap();
    assert_eq!(claim.receipt.unverified().number, claim.voucher.unverified().receipt_number);
    assert!(claim.close.is_none() && !summary.is_over());
}

#[tokio::test]
async fn receipts_come_in_pages_after_the_number_that_is_known() {
    let kit = Kit::new();
    let (session, _, records) = opening(&kit);
    let store = open(&kit);
    let receipt = records.iter().find(|record| matches!(record, ProviderRecord::Receipt(_))).unwrap();
    store.append(session, vec![receipt.clone(); 600]).await.unwrap();
    let (mut from, mut found) = (Some(0), 0);
    while let Some(position) = from {
        let page = store.receipts_after(session, 0, position).await.unwrap();
        assert!(page.receipts.len() <= 256);
        found += page.receipts.len();
        from = page.next;
    }
    assert_eq!(found, 600);
    assert!(store.receipts_after(session, 1, 0).await.unwrap().receipts.is_empty());
}

#[tokio::test]
async fn what_was_redeemed_never_falls_and_outlives_its_session() {
    let kit = Kit::new();
    let (session, account, records) = opening(&kit);
    let store = open(&kit);
    store.append(session, records).await.unwrap();
    let handed =
        |redeemed, close_taken| Handed { state: ChannelState { redeemed: usdc(redeemed), ..ChannelState::default() }, close_taken };
    store.note_handed(session, handed(MINIMUM, true)).await.unwrap();
    store.note_handed(session, handed(1, false)).await.unwrap();
    assert_eq!(store.handed(session).await.unwrap(), handed(MINIMUM, true));
    store.forget(session, account).await.unwrap();
    assert_eq!(store.sessions().await.unwrap(), []);
    assert_eq!(store.handed(session).await.unwrap(), Handed::default());
    assert_eq!(store.history().await.unwrap(), [(account, usdc(MINIMUM))]);
    store.forget(session, account).await.unwrap();
    assert_eq!(store.history().await.unwrap(), [(account, usdc(MINIMUM))], "forgetting twice counts once");
}

#[tokio::test]
async fn a_session_counts_once_when_it_opens_and_once_when_it_completes() {
    let kit = Kit::new();
    let (session, _, records) = opening(&kit);
    let store = open(&kit);
    store.append(session, records).await.unwrap();
    let closed = ProviderRecord::Closed { reason: CloseReason::Ended, close: None };
    store.append(session, vec![closed.clone()]).await.unwrap();
    store.append(session, vec![closed]).await.unwrap();
    store.note_running(Timestamp(1_000), 500).await.unwrap();
    store.note_running(Timestamp(9_000), 700).await.unwrap();
    let past = store.past().await.unwrap();
    assert_eq!((past.sessions_total, past.sessions_completed, past.first_start, past.ran_ms), (1, 1, Timestamp(1_000), 1_200));
    assert_eq!(Usdc::ZERO, store.summary(session).await.unwrap().unwrap().charged.minus(usdc(MINIMUM)).unwrap());
}
