//! A provider lets go of sessions that never opened, and of no others; what it has let go of never opens.

use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::money::Usdc;
use orien_protocol::offer::Offer;
use orien_protocol::session::agent::AgentKeys;
use orien_protocol::signing::Verified;
use orien_protocol::terms::SignedTerms;

use crate::agent::{Agent, Wire, stream_to};
use crate::kit::{Kit, agent_keys, eventually};
use crate::restart::{forgotten, killed};

/// An agent whose proposal was countersigned, and that waits for settlement.
async fn agreed<'a>(kit: &'a Kit, shop: &Shop, offer: &Verified<Offer>, seed: u8) -> Agent<'a> {
    let mut agent = Agent::propose(kit, shop, offer, agent_keys(seed), 1_000_000).await;
    agent.reserves = false;
    agent.until("countersigned", |agent| agent.session.terms().is_some()).await;
    agent
}

fn terms_of(agent: &Agent<'_>) -> SignedTerms {
    agent.session.terms().unwrap().to_signed()
}

async fn ask(stream: &mut Wire, frame: &AgentFrame) -> ProviderFrame {
    stream.send(frame).await.unwrap();
    stream.recv::<ProviderFrame>().await.unwrap().unwrap()
}

async fn let_go(shop: &Shop, keys: &AgentKeys, terms: &SignedTerms) -> ProviderFrame {
    ask(&mut stream_to(shop, keys, Purpose::Control), &AgentFrame::LetGo(Box::new(terms.clone()))).await
}

/// The reason that came with a good close of nothing.
fn closed(kit: &Kit, terms: &SignedTerms, answer: &ProviderFrame) -> CloseReason {
    let ProviderFrame::Closed { reason, close: Some(close) } = answer else { panic!("{answer:?}") };
    let terms = terms.clone().verify(&kit.network).unwrap();
    let close = close.verify(&kit.domain, &kit.provider.claim.address()).unwrap();
    assert_eq!((close.channel, close.total), (terms.channel(), Usdc::ZERO));
    *reason
}

fn code(answer: &ProviderFrame) -> FaultCode {
    let ProviderFrame::Refused(fault) = answer else { panic!("{answer:?}") };
    fault.code
}

async fn proposed_again(shop: &Shop, agent: &Agent<'_>) -> ProviderFrame {
    let proposal = AgentFrame::Propose(Box::new(terms_of(agent).by_agent));
    ask(&mut stream_to(shop, &agent.keys, Purpose::Control), &proposal).await
}

/// What is said to other terms under the id of a session: they would move the same channel.
async fn proposed_anew(kit: &Kit, shop: &Shop, offer: &Verified<Offer>, agent: &Agent<'_>) -> FaultCode {
    let mut terms = kit.terms(offer, offer.hash(), &agent.keys);
    terms.session = agent.session.id();
    let mut anew = Agent::propose_terms(kit, shop, terms, agent.keys.clone(), 1_000_000).await;
    anew.until("refused", |agent| agent.not_opened().is_some()).await;
    anew.not_opened().unwrap().code
}

#[test]
fn a_session_whose_agent_was_gone_before_it_opened_is_let_go_of_and_never_opens_also_after_a_restart() {
    let kit = Kit::new();
    let agent = killed(async {
        let (shop, offer) = kit.open().await;
        let mut agent = agreed(&kit, &shop, &offer, 1).await;
        agent.hang_up().await;
        eventually("its place is free", || *shop.free().borrow() == 4).await;
        agent.reconnect(&shop).await;
        agent.until("the close came", |agent| agent.handed_back.len() == 1).await;
        assert_eq!(code(&proposed_again(&shop, &agent).await), FaultCode::CONFLICT);
        forgotten(shop);
        agent
    });
    killed(async {
        let (shop, offer) = kit.open().await;
        let terms = terms_of(&agent);
        for _ in 0..2 {
            let again = let_go(&shop, &agent.keys, &terms).await;
            assert_eq!(closed(&kit, &terms, &again), CloseReason::NotOpened);
            assert!(matches!(again, ProviderFrame::Closed { close: Some(close), .. } if close == agent.handed_back[0]), "the same bytes");
        }
        assert_eq!(proposed_anew(&kit, &shop, &offer, &agent).await, FaultCode::CONFLICT);
        shop.close().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_live_proposal_is_let_go_of_at_once_and_its_own_stream_ends() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = agreed(&kit, &shop, &offer, 1).await;
    let terms = terms_of(&agent);
    assert_eq!(closed(&kit, &terms, &let_go(&shop, &agent.keys, &terms).await), CloseReason::NotOpened);
    eventually("its place is free", || *shop.free().borrow() == 4).await;
    agent.until("given up", |agent| agent.not_opened().is_some()).await;
    assert_eq!(agent.receipts().count(), 0);
    shop.close().await;
}

#[test]
fn a_session_that_nobody_paid_for_is_let_go_of_before_and_after_a_kill_of_the_node() {
    let kit = Kit::new();
    let unpaid = async |shop: &Shop, offer: &Verified<Offer>, seed| {
        let mut agent = Agent::propose(&kit, shop, offer, agent_keys(seed), 1_000_000).await;
        agent.signs = false;
        agent.until("receipt 1 came", |agent| agent.receipts().count() == 1).await;
        agent
    };
    let (first, second) = killed(async {
        let (shop, offer) = kit.open().await;
        let (first, second) = (unpaid(&shop, &offer, 1).await, unpaid(&shop, &offer, 2).await);
        let terms = terms_of(&first);
        assert_eq!(closed(&kit, &terms, &let_go(&shop, &first.keys, &terms).await), CloseReason::NotOpened);
        assert_eq!(code(&proposed_again(&shop, &first).await), FaultCode::CONFLICT);
        forgotten(shop);
        (first, second)
    });
    killed(async {
        let (shop, offer) = kit.open().await;
        for (agent, reason) in [(&first, CloseReason::NotOpened), (&second, CloseReason::ProviderStopped)] {
            let terms = terms_of(agent);
            assert_eq!(closed(&kit, &terms, &let_go(&shop, &agent.keys, &terms).await), reason);
            assert_eq!(proposed_anew(&kit, &shop, &offer, agent).await, FaultCode::CONFLICT);
        }
        // Its agent signed a voucher that never arrived: it resumes, and learns that nothing will be redeemed.
        let mut second = second;
        second.reconnect(&shop).await;
        second.until("closed", |agent| agent.closed().is_some()).await;
        assert_eq!((second.closed(), second.handed_back.len()), (Some(CloseReason::ProviderStopped), 1));
        shop.close().await;
    });
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn open_sessions_and_terms_of_others_are_not_let_go_of() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut open = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let terms = terms_of(&open);
    open.run_to_end("echo", &[("text", "x")]).await;
    assert_eq!(code(&let_go(&shop, &open.keys, &terms).await), FaultCode::WRONG_STATE);
    // On its own stream it is no first word.
    open.send(AgentFrame::LetGo(Box::new(terms.clone()))).await;
    assert!(open.run_to_end("echo", &[("text", "x")]).await.outcome.unwrap().succeeded(), "nothing has changed");
    let waiting = agreed(&kit, &shop, &offer, 2).await;
    let theirs = terms_of(&waiting);
    assert_eq!(code(&let_go(&shop, &open.keys, &theirs).await), FaultCode::NOT_YOURS);
    let uncountersigned = SignedTerms { by_provider: terms.by_provider, ..theirs };
    assert_eq!(code(&let_go(&shop, &waiting.keys, &uncountersigned).await), FaultCode::BAD_SIGNATURE);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_proposal_that_comes_at_the_same_moment_does_not_open_what_is_let_go_of() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let (mut let_go_first, mut refused) = (0, 0);
    for _ in 0..20 {
        eventually("every place is free", || *shop.free().borrow() == 4).await;
        let mut agent = agreed(&kit, &shop, &offer, 1).await;
        agent.hang_up().await;
        let terms = terms_of(&agent);
        let mut stream = stream_to(&shop, &agent.keys, Purpose::Control);
        let proposal = AgentFrame::Propose(Box::new(terms.by_agent.clone()));
        let (answer, proposed) = tokio::join!(let_go(&shop, &agent.keys, &terms), ask(&mut stream, &proposal));
        if matches!(proposed, ProviderFrame::Refused(_)) {
            refused += 1;
            continue;
        }
        let allowance = kit.allowance(&terms, Usdc::from_micros(1_000_000));
        let _ = stream.send(&AgentFrame::Present(allowance)).await;
        let heard = stream.recv::<ProviderFrame>().await;
        let opens = matches!(heard, Ok(Some(ProviderFrame::Receipt(_))));
        // One that waits for its voucher would keep its place for half a minute.
        let _ = stream.send(&AgentFrame::End).await;
        let is_let_go = matches!(answer, ProviderFrame::Closed { close: Some(_), .. });
        let_go_first += u32::from(is_let_go);
        assert!(!(opens && is_let_go), "the close is signed and the session opens: {answer:?}, {heard:?}");
    }
    assert!(let_go_first + refused > 0, "the two never met");
    shop.close().await;
}
