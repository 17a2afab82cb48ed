//! What an agent makes of settlement's answers and of a provider that speaks before its time, while a session opens.

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{AgentFrame, CloseReason, ProviderFrame};
use orien_protocol::hash::Hash;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentRecord, AgentSession};
use orien_protocol::session::provider::{ProviderEffect, ProviderInput, ProviderPhase, ProviderSession};
use orien_protocol::signing::{Address, Verified};
use orien_protocol::terms::{ProposedTerms, SignedTerms};
use orien_protocol::time::{Millis, Now};
use orien_protocol::voucher::{Allowance, MoneyVerified};

use crate::kit::{Kit, START, usdc};
use crate::pair::Pair;

/// Settlement's answer to a question for just that much.
fn reserved(kit: &Kit, terms: &SignedTerms, ceiling: u64) -> AgentInput {
    AgentInput::Reserved { asked: usdc(ceiling), allowance: kit.allowance(terms, usdc(ceiling)) }
}

fn receipt_one(terms: &SignedTerms, kit: &Kit) -> ProviderFrame {
    receipt_one_of(terms, kit, |_| {})
}

fn receipt_one_of(terms: &SignedTerms, kit: &Kit, change: impl FnOnce(&mut Receipt)) -> ProviderFrame {
    let verified = terms.clone().verify(&kit.network).unwrap();
    let mut receipt = Receipt {
        session: verified.session,
        terms: verified.hash(),
        number: 1,
        previous: Hash::ZERO,
        at: START,
        confinement: verified.confinement,
        work: None,
        charged: verified.minimum_charge,
    };
    change(&mut receipt);
    ProviderFrame::Receipt(Box::new(Verified::sign(receipt, &kit.network, &kit.provider.peer).into_signed()))
}

/// An agent whose terms are agreed; settlement has not answered.
fn reserving(budget: u64) -> (Kit, AgentSession, SignedTerms) {
    let kit = Kit::new();
    let (mut agent, effects) = AgentSession::propose(kit.terms(), usdc(budget), &kit.network, kit.agent.clone()).unwrap();
    let Some(AgentEffect::Send(AgentFrame::Propose(signed))) = effects.last() else { panic!("no proposal") };
    let proposal = ProposedTerms::verify((**signed).clone(), &kit.network).unwrap();
    let (_, effects) = ProviderSession::accept(proposal, kit.provider.clone(), now()).unwrap();
    let Some(ProviderEffect::Send(frame)) = effects.first() else { panic!("not accepted") };
    agent.handle(AgentInput::Frame(frame.clone()), now());
    assert_eq!(agent.phase(), AgentPhase::Reserving);
    let terms = agent.terms().unwrap().to_signed();
    (kit, agent, terms)
}

fn now() -> Now {
    Now { wall: START, mono: Millis(1_000_000) }
}

fn signs(effects: &[AgentEffect]) -> bool {
    effects.iter().any(|effect| matches!(effect, AgentEffect::Send(AgentFrame::Voucher(_))))
}

#[test]
fn an_opening_with_a_provider_that_says_nothing_ends_with_the_session_time_at_the_latest() {
    let kit = Kit::new();
    let (mut silent, _) = AgentSession::propose(kit.terms(), usdc(100_000), &kit.network, kit.agent.clone()).unwrap();
    let (_, mut presented, terms) = reserving(100_000);
    presented.handle(reserved(&kit, &terms, 100_000), now());
    let late = Now { wall: START.plus(Millis(86_400_000)), mono: Millis(90_000_000) };
    silent.handle(AgentInput::Tick, late);
    presented.handle(AgentInput::Tick, late);
    let closed = |agent: &AgentSession| matches!(agent.phase(), AgentPhase::Closed(_));
    assert!(closed(&silent) && closed(&presented), "{:?}, {:?}", silent.phase(), presented.phase());
}

#[test]
fn nothing_is_signed_before_settlement_has_reserved_and_an_early_receipt_does_not_hang_the_opening() {
    let (kit, mut agent, terms) = reserving(100_000);
    let early = agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    let signed_early = signs(&early);
    agent.handle(reserved(&kit, &terms, 100_000), now());
    agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(!signed_early && agent.phase() == AgentPhase::Open, "signed early: {signed_early}, then {:?}", agent.phase());
}

#[test]
fn nothing_is_signed_for_a_session_that_did_not_open() {
    let (kit, mut agent, terms) = reserving(100_000);
    agent.handle(reserved(&kit, &terms, 100_000), now());
    let told = agent.handle(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::ProviderStopped, close: None }), now());
    assert!(told.iter().any(|effect| matches!(effect, AgentEffect::Tell(AgentEvent::NotOpened(_)))));
    let after = agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(!signs(&after), "promised {:?}", agent.promised());
}

#[test]
fn a_reservation_above_what_was_asked_for_does_not_raise_the_budget() {
    let (kit, mut agent, terms) = reserving(10_000);
    agent.handle(reserved(&kit, &terms, 1_000_000), now());
    agent.handle(AgentInput::Frame(receipt_one(&terms, &kit)), now());
    assert!(agent.budget() <= usdc(10_000), "{:?}", agent.budget());
}

#[test]
fn a_top_up_beyond_what_was_asked_for_raises_nothing() {
    let mut pair = Pair::open(100_000);
    let terms = pair.agent.terms().unwrap().to_signed();
    let allowance = pair.kit.allowance(&terms, usdc(900_000));
    pair.agent_input(AgentInput::Reserved { asked: usdc(200_000), allowance });
    assert_eq!(pair.agent.budget(), usdc(100_000));
    pair.top_up(200_000);
    assert_eq!(pair.agent.budget(), usdc(200_000));
}

#[test]
fn a_reservation_of_a_session_that_was_ended_before_it_opened_can_be_given_back() {
    let (kit, mut agent, terms) = reserving(100_000);
    let (mut session, _) = {
        let proposal = ProposedTerms::verify(terms.by_agent.clone(), &kit.network).unwrap();
        ProviderSession::accept(proposal, kit.provider.clone(), now()).unwrap()
    };
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = orien_protocol::session::provider::ProviderEnv {
        now: now(),
        credit: usdc(5_000),
        unredeemed_ceiling: usdc(u64::MAX),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let mut from_agent = agent.handle(reserved(&kit, &terms, 100_000), now());
    from_agent.extend(agent.handle(AgentInput::End, now()));
    let mut handed_in = false;
    let mut kept = false;
    for effect in from_agent {
        let AgentEffect::Send(frame) = effect else { continue };
        for effect in session.handle(ProviderInput::Frame(frame), &env) {
            handed_in |= matches!(effect, ProviderEffect::HandIn(_));
            let ProviderEffect::Send(frame) = effect else { continue };
            for effect in agent.handle(AgentInput::Frame(frame), now()) {
                if let AgentEffect::Persist(record) = effect {
                    kept |= matches!(*record, AgentRecord::Closed { close: Some(_), .. });
                }
            }
        }
    }
    assert!(matches!(session.phase(), ProviderPhase::Closed(_)));
    assert!(matches!(agent.phase(), AgentPhase::Closed(_)));
    assert!(
        handed_in || kept,
        "both are honest, nothing was done, and the budget is locked until redeemUntil; promised {:?}",
        agent.promised()
    );
}

/// Settlement's answer with a word changed, under its own signature.
fn answer(kit: &Kit, terms: &SignedTerms, change: impl FnOnce(&mut Allowance)) -> AgentInput {
    let mut body = *kit.allowance(terms, usdc(100_000)).unverified();
    change(&mut body);
    let allowance = *MoneyVerified::sign(body, &kit.domain, &kit.settlement).signed();
    AgentInput::Reserved { asked: usdc(100_000), allowance }
}

#[test]
fn an_allowance_for_another_channel_other_terms_another_payee_or_other_times_ends_the_opening() {
    let changes: [fn(&mut Allowance); 5] = [
        |allowance| allowance.channel = ChannelId::from_hash(Hash::ZERO),
        |allowance| allowance.terms = Hash::ZERO,
        |allowance| allowance.claim_key = Address::default(),
        |allowance| allowance.work_until.0 += 1,
        |allowance| allowance.redeem_until.0 += 1,
    ];
    for (n, change) in changes.into_iter().enumerate() {
        let (kit, mut agent, terms) = reserving(100_000);
        let effects = agent.handle(answer(&kit, &terms, change), now());
        assert_eq!(agent.phase(), AgentPhase::Closed(CloseReason::NotOpened), "change {n}");
        let says = |effect: &AgentEffect| matches!(effect, AgentEffect::Tell(AgentEvent::NotOpened(fault)) if fault.code == FaultCode::BAD_ALLOWANCE);
        assert!(effects.iter().any(says), "change {n}: {effects:?}");
        assert!(!effects.iter().any(|effect| matches!(effect, AgentEffect::Send(AgentFrame::Present(_)))), "change {n}");
    }
}

#[test]
fn a_senseless_answer_after_the_right_one_does_not_end_the_opening() {
    let (kit, mut agent, terms) = reserving(100_000);
    agent.handle(answer(&kit, &terms, |_| {}), now());
    let effects = agent.handle(answer(&kit, &terms, |allowance| allowance.work_until.0 += 1), now());
    assert_eq!((agent.phase(), effects.len()), (AgentPhase::Presenting, 0), "{effects:?}");
}

#[test]
fn an_allowance_that_both_sides_have_is_nothing_new_and_an_older_one_lowers_nothing() {
    let mut pair = Pair::open(100_000);
    let old = pair.kit.allowance(&pair.agent.terms().unwrap().to_signed(), usdc(100_000));
    pair.top_up(200_000);
    pair.talk();
    let before = (pair.agent_log.len(), pair.provider_log.len(), pair.events.len());
    pair.provider_input(ProviderInput::Frame(AgentFrame::Present(old)));
    pair.top_up(200_000);
    let again = pair.kit.allowance(&pair.agent.terms().unwrap().to_signed(), usdc(200_000));
    pair.provider_input(ProviderInput::Frame(AgentFrame::Present(again)));
    pair.talk();
    assert_eq!((pair.agent_log.len(), pair.provider_log.len(), pair.events.len()), before);
    assert_eq!((pair.agent.budget(), pair.provider.as_ref().unwrap().ceiling()), (usdc(200_000), usdc(200_000)));
}

#[test]
fn a_wrong_first_receipt_ends_the_opening_at_once() {
    let (kit, mut agent, terms) = reserving(100_000);
    agent.handle(reserved(&kit, &terms, 100_000), now());
    let dear = receipt_one_of(&terms, &kit, |receipt| receipt.charged = usdc(5_001));
    let effects = agent.handle(AgentInput::Frame(dear), now());
    assert_eq!((agent.phase(), agent.is_disputed()), (AgentPhase::Closed(CloseReason::NotOpened), true));
    assert!(effects.iter().any(|effect| matches!(effect, AgentEffect::Tell(AgentEvent::NotOpened(_)))), "{effects:?}");
}
