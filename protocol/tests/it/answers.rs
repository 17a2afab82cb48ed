//! What has to be right about a receipt before an agent signs for it, one field at a time.

use orien_protocol::frame::ProviderFrame;
use orien_protocol::hash::Hash;
use orien_protocol::offer::Confinement;
use orien_protocol::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use orien_protocol::session::agent::AgentInput;
use orien_protocol::signing::Verified;

use crate::kit::usdc;
use crate::pair::Pair;

/// A session whose run has worked for a second and has no receipt yet, and the receipt that would be right.
fn at_work() -> (Pair, Receipt) {
    let mut pair = Pair::open(1_000_000);
    let execution = pair.run(1, "work", None);
    pair.now.mono.0 += 1_000;
    pair.now.wall.0 += 1_000;
    let session = pair.provider.as_ref().unwrap();
    let (terms, job) = (session.terms().clone(), job_of(&pair));
    let usage = Usage { effective_ms: 1_000, ..Usage::default() };
    let work = Work { execution, job, tool: "work".to_owned(), usage, charge: usdc(1_000), outcome: None };
    let (number, previous) = (2, first_receipt(&pair));
    let receipt = Receipt {
        session: terms.session,
        terms: terms.hash(),
        number,
        previous,
        at: pair.now.wall,
        confinement: terms.confinement,
        work: Some(work),
        charged: usdc(5_000),
    };
    (pair, receipt)
}

fn job_of(pair: &Pair) -> Hash {
    let job = pair.agent_log.iter().find_map(|record| match record {
        orien_protocol::session::agent::AgentRecord::Job(job) => Some(job.clone()),
        _ => None,
    });
    job.unwrap().verify(&pair.kit.network, &pair.kit.agent.peer.id()).unwrap().hash()
}

fn first_receipt(pair: &Pair) -> Hash {
    let receipt = pair.provider_log.iter().find_map(|record| match record {
        orien_protocol::session::provider::ProviderRecord::Receipt(receipt) => Some(receipt.clone()),
        _ => None,
    });
    receipt.unwrap().verify(&pair.kit.network, &pair.kit.provider.peer.id()).unwrap().hash()
}

/// Whether the agent signs for a receipt that was changed.
fn signs(change: impl FnOnce(&mut Receipt)) -> bool {
    let (mut pair, mut receipt) = at_work();
    change(&mut receipt);
    let signed = Verified::sign(receipt, &pair.kit.network, &pair.kit.provider.peer).into_signed();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(signed))));
    assert_eq!(
        pair.agent.is_disputed(),
        !pair.to_provider.iter().any(|frame| matches!(frame, orien_protocol::frame::AgentFrame::Voucher(_)))
    );
    !pair.agent.is_disputed()
}

fn work(receipt: &mut Receipt) -> &mut Work {
    receipt.work.as_mut().unwrap()
}

#[test]
fn a_receipt_is_signed_for_only_if_it_names_our_job_and_its_tool() {
    assert!(signs(|_| {}));
    assert!(!signs(|receipt| work(receipt).job = Hash::of(b"another job")));
    assert!(!signs(|receipt| {
        work(receipt).tool = "call".to_owned();
        work(receipt).charge = usdc(1_500);
    }));
}

#[test]
fn a_run_that_ended_is_not_signed_for_again() {
    let (mut pair, mut receipt) = at_work();
    work(&mut receipt).outcome = Some(Outcome::of(EndReason::Exited, Some(0)));
    let last = Verified::sign(receipt.clone(), &pair.kit.network, &pair.kit.provider.peer);
    let again = Receipt { number: 3, previous: last.hash(), ..receipt };
    let again = Verified::sign(again, &pair.kit.network, &pair.kit.provider.peer);
    for receipt in [last, again] {
        assert!(!pair.agent.is_disputed());
        pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(receipt.into_signed()))));
    }
    assert!(pair.agent.is_disputed());
}

#[test]
fn a_tool_confined_less_than_the_terms_say_is_not_signed_for_and_one_confined_better_is() {
    let weak = |confinement| {
        let mut pair = Pair::propose_with(1_000_000, 5_000, |terms| terms.confinement = Confinement::S2);
        pair.talk();
        pair.run(1, "work", None);
        pair.now.mono.0 += 1_000;
        let (terms, previous) = (pair.provider.as_ref().unwrap().terms().clone(), first_receipt(&pair));
        let usage = Usage { effective_ms: 1_000, ..Usage::default() };
        let execution = *pair.tools.keys().next().unwrap();
        let work = Work { execution, job: job_of(&pair), tool: "work".to_owned(), usage, charge: usdc(1_000), outcome: None };
        let (session, hash) = (terms.session, terms.hash());
        let receipt =
            Receipt { session, terms: hash, number: 2, previous, at: pair.now.wall, confinement, work: Some(work), charged: usdc(5_000) };
        let signed = Verified::sign(receipt, &pair.kit.network, &pair.kit.provider.peer).into_signed();
        pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(signed))));
        pair.agent.is_disputed()
    };
    assert_eq!([Confinement::S1, Confinement::S2, Confinement::S3].map(weak), [true, false, false]);
}

#[test]
fn time_is_signed_for_up_to_the_stopwatch_its_drift_and_the_tolerance_and_not_a_millisecond_more() {
    // A second and its thousandth, and the kit's tolerance of 100 ms.
    let at = |ms| {
        signs(|receipt| {
            work(receipt).usage.effective_ms = ms;
            work(receipt).charge = usdc(ms);
        })
    };
    assert_eq!((at(1_101), at(1_102)), (true, false));
}
