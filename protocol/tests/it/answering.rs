//! Which receipts an agent answers, which it asks for again, and which it lets lie.

use std::collections::VecDeque;

use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::receipt::EndReason;
use orien_protocol::session::agent::{AgentInput, AgentPhase, AgentRecord};
use orien_protocol::signing::Verified;

use crate::kit::usdc;
use crate::pair::Pair;

/// A session with four receipts behind the first that the agent has not seen.
fn behind() -> (Pair, Vec<ProviderFrame>) {
    let mut pair = Pair::open(1_000_000);
    let mut frames = VecDeque::new();
    for n in 1..=4 {
        let run = pair.run(n, "work", None);
        pair.now.mono.0 += 1_000;
        pair.tools.remove(&run);
        let usage = orien_protocol::receipt::Usage { effective_ms: 1_000, ..Default::default() };
        let ended =
            orien_protocol::session::provider::ProviderInput::Ended { execution: run, usage, end: EndReason::Exited, exit_code: Some(0) };
        pair.provider_input(ended);
        frames.extend(pair.to_agent.drain(..).filter(|frame| matches!(frame, ProviderFrame::Receipt(_))));
    }
    assert_eq!(frames.len(), 4);
    (pair, frames.into())
}

fn resumes(pair: &Pair) -> usize {
    pair.to_provider.iter().filter(|frame| matches!(frame, AgentFrame::Resume { .. })).count()
}

#[test]
fn a_gap_in_the_receipts_is_asked_for_once_and_is_no_dispute() {
    let (mut pair, frames) = behind();
    for frame in &frames[1..] {
        pair.agent_input(AgentInput::Frame(frame.clone()));
    }
    assert_eq!((resumes(&pair), pair.to_provider.len(), pair.agent.is_disputed()), (1, 1, false));
    pair.talk();
    assert_eq!((pair.charged(), pair.promised(), pair.agent.is_disputed()), (5_000, 5_000, false));
    let resumed = pair.agent_log.iter().filter(|record| matches!(record, AgentRecord::Answered { .. })).count();
    assert_eq!(resumed, 5);
}

#[test]
fn the_newest_receipt_repeated_is_answered_with_the_same_voucher_and_an_older_one_is_not() {
    let (mut pair, frames) = behind();
    for frame in &frames {
        pair.agent_input(AgentInput::Frame(frame.clone()));
    }
    let last = pair.to_provider.back().cloned().unwrap();
    pair.to_provider.clear();
    pair.agent_input(AgentInput::Frame(frames[2].clone()));
    assert!(pair.to_provider.is_empty(), "{:?}", pair.to_provider);
    pair.agent_input(AgentInput::Frame(frames[3].clone()));
    assert_eq!(format!("{:?}", pair.to_provider), format!("{:?}", VecDeque::from([last])));
}

#[test]
fn another_receipt_under_the_newest_number_is_not_answered() {
    let (mut pair, frames) = behind();
    for frame in &frames {
        pair.agent_input(AgentInput::Frame(frame.clone()));
    }
    pair.to_provider.clear();
    let Some(ProviderFrame::Receipt(last)) = frames.last() else { panic!("no receipt") };
    let mut other = last.unverified().clone();
    other.at.0 += 1;
    let other = Verified::sign(other, &pair.kit.network, &pair.kit.provider.peer).into_signed();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(other))));
    assert!(pair.to_provider.is_empty(), "{:?}", pair.to_provider);
}

#[test]
fn an_agent_that_disputes_a_receipt_asks_for_the_end_and_answers_nothing_any_more() {
    let (mut pair, frames) = behind();
    let Some(ProviderFrame::Receipt(first)) = frames.first() else { panic!("no receipt") };
    let mut wrong = first.unverified().clone();
    wrong.charged = usdc(9_000);
    let wrong = Verified::sign(wrong, &pair.kit.network, &pair.kit.provider.peer).into_signed();
    pair.agent_input(AgentInput::Frame(ProviderFrame::Receipt(Box::new(wrong))));
    assert!(matches!(pair.agent.phase(), AgentPhase::Ending(_)), "{:?}", pair.agent.phase());
    assert!(matches!(pair.to_provider.make_contiguous(), [AgentFrame::End]), "{:?}", pair.to_provider);
    for frame in frames {
        pair.agent_input(AgentInput::Frame(frame));
    }
    assert_eq!(pair.to_provider.len(), 1, "{:?}", pair.to_provider);
}
