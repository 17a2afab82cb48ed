//! What strangers, garbage and forged documents meet.

use orien_node::shop::{Purpose, Shop};
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, FileAnswer, InputAnswer, LogFrame, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::session::agent::AgentInput;
use orien_protocol::session::provider::ProviderPhase;
use tokio::io::AsyncWriteExt;

use crate::agent::{Agent, stream_to};
use crate::kit::{Kit, agent_keys, eventually};

async fn is_healthy(kit: &Kit, shop: &Shop, offer: &orien_protocol::signing::Verified<orien_protocol::offer::Offer>) {
    let mut agent = Agent::open(kit, shop, offer, agent_keys(7), 1_000_000).await;
    assert!(agent.run_to_end("echo", &[("text", "well")]).await.outcome.unwrap().succeeded());
    agent.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_on_any_stream_gets_a_fault_or_an_end_and_the_shop_stays_healthy() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let oversized = u32::MAX.to_be_bytes().to_vec();
    let nonsense = [&[0, 0, 0, 5][..], &[0xff; 5]].concat();
    for (bytes, expected) in [(oversized, FaultCode::TOO_LARGE), (nonsense, FaultCode::MALFORMED)] {
        for purpose in [Purpose::Control, Purpose::Log, Purpose::File, Purpose::Input] {
            let mut stream = stream_to(&shop, &agent_keys(1), purpose);
            stream.raw().write_all(&bytes).await.unwrap();
            let fault = match purpose {
                Purpose::Control => match stream.recv::<ProviderFrame>().await.unwrap().unwrap() {
                    ProviderFrame::Refused(fault) => fault,
                    other => panic!("{other:?}"),
                },
                Purpose::Log => match stream.recv::<LogFrame>().await.unwrap().unwrap() {
                    LogFrame::Refused(fault) => fault,
                    other => panic!("{other:?}"),
                },
                Purpose::File => match stream.recv::<FileAnswer>().await.unwrap().unwrap() {
                    FileAnswer::Refused(fault) => fault,
                    other => panic!("{other:?}"),
                },
                Purpose::Input => match stream.recv::<InputAnswer>().await.unwrap().unwrap() {
                    InputAnswer::Refused(fault) => fault,
                    other => panic!("{other:?}"),
                },
            };
            assert_eq!(fault.code, expected);
        }
    }
    is_healthy(&kit, &shop, &offer).await;
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_in_the_middle_of_a_session_ends_its_stream_and_the_session_goes_on_over_a_new_one() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    eventually("the voucher arrived", || shop.sessions().iter().all(|(_, view)| view.phase == ProviderPhase::Open)).await;
    let mut second = stream_to(&shop, &agent.keys, Purpose::Control);
    second
        .send(&AgentFrame::Resume {
            session: agent.session.id(),
            head: 1,
            head_hash: agent.receipts().next().map_or(Hash::ZERO, |_| head(&agent)),
        })
        .await
        .unwrap();
    assert!(matches!(second.recv::<ProviderFrame>().await.unwrap(), Some(ProviderFrame::Resumed { head: 1 })));
    second.raw().write_all(&[0, 0, 0, 2, 0xff, 0xff]).await.unwrap();
    assert!(
        matches!(second.recv::<ProviderFrame>().await.unwrap(), Some(ProviderFrame::Refused(fault)) if fault.code == FaultCode::MALFORMED)
    );
    agent.reconnect(&shop).await;
    assert!(agent.run_to_end("echo", &[("text", "x")]).await.outcome.unwrap().succeeded());
    shop.close().await;
}

fn head(agent: &Agent<'_>) -> Hash {
    agent
        .events
        .iter()
        .find_map(|event| match event {
            orien_protocol::session::agent::AgentEvent::Receipt(receipt) => Some(receipt.hash()),
            _ => None,
        })
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stranger_can_neither_resume_a_session_nor_learn_that_it_exists() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let agent = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let mut answers = Vec::new();
    for session in [agent.session.id(), SessionId::from_parts(1, 1)] {
        let mut stream = stream_to(&shop, &agent_keys(2), Purpose::Control);
        stream.send(&AgentFrame::Resume { session, head: 1, head_hash: Hash::ZERO }).await.unwrap();
        answers.push(stream.recv::<ProviderFrame>().await.unwrap().unwrap());
    }
    assert!(matches!(&answers[0], ProviderFrame::Refused(fault) if fault.code == FaultCode::NOT_FOUND));
    assert_eq!(answers[0], answers[1]);
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_of_someone_else_forged_repeated_or_about_another_offer_are_refused() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let refusal = async |terms, keys| {
        let mut agent = Agent::propose_terms(&kit, &shop, terms, keys, 1_000_000).await;
        agent.until("refused", |agent| agent.not_opened().is_some()).await;
        agent.not_opened().unwrap().code
    };
    let terms = kit.terms(&offer, Hash::of(b"another offer"), &agent_keys(1));
    assert_eq!(refusal(terms, agent_keys(1)).await, FaultCode::OFFER_CHANGED);

    let terms = kit.terms(&offer, offer.hash(), &agent_keys(1));
    let mut thief = stream_to(&shop, &agent_keys(2), Purpose::Control);
    let proposal = orien_protocol::signing::Verified::sign(terms.clone(), &kit.network, &agent_keys(1).peer);
    thief.send(&AgentFrame::Propose(Box::new(proposal.signed().clone()))).await.unwrap();
    let answer = thief.recv::<ProviderFrame>().await.unwrap().unwrap();
    assert!(matches!(answer, ProviderFrame::Refused(fault) if fault.code == FaultCode::NOT_YOURS));

    let forged = orien_protocol::signing::Verified::sign(terms.clone(), &kit.network, &agent_keys(2).peer);
    let mut stream = stream_to(&shop, &agent_keys(1), Purpose::Control);
    stream.send(&AgentFrame::Propose(Box::new(forged.signed().clone()))).await.unwrap();
    let answer = stream.recv::<ProviderFrame>().await.unwrap().unwrap();
    assert!(matches!(answer, ProviderFrame::Refused(fault) if fault.code == FaultCode::BAD_SIGNATURE));

    let mut agent = Agent::propose_terms(&kit, &shop, terms.clone(), agent_keys(1), 1_000_000).await;
    agent.until("opened", |agent| agent.has(|event| matches!(event, orien_protocol::session::agent::AgentEvent::Opened))).await;
    assert_eq!(refusal(terms.clone(), agent_keys(1)).await, FaultCode::CONFLICT);
    agent.end().await;
    assert_eq!(refusal(terms, agent_keys(1)).await, FaultCode::CONFLICT, "also after its end");
    shop.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_forged_voucher_and_a_stream_that_begins_with_something_else_are_refused() {
    let kit = Kit::new();
    let (shop, offer) = kit.open().await;
    let mut stream = stream_to(&shop, &agent_keys(1), Purpose::Control);
    stream.send(&AgentFrame::End).await.unwrap();
    let answer = stream.recv::<ProviderFrame>().await.unwrap().unwrap();
    assert!(matches!(answer, ProviderFrame::Refused(fault) if fault.code == FaultCode::WRONG_STATE));

    let mut one = Agent::open(&kit, &shop, &offer, agent_keys(1), 1_000_000).await;
    let two = Agent::open(&kit, &shop, &offer, agent_keys(2), 1_000_000).await;
    let foreign = two.records.iter().find_map(|record| match record {
        orien_protocol::session::agent::AgentRecord::Answered { voucher, .. } => Some(*voucher),
        _ => None,
    });
    one.send(AgentFrame::Voucher(foreign.unwrap())).await;
    one.until("refused", |agent| agent.has(|event| matches!(event, orien_protocol::session::agent::AgentEvent::VoucherRefused(_)))).await;
    one.input(AgentInput::Tick).await;
    is_healthy(&kit, &shop, &offer).await;
    shop.close().await;
}
