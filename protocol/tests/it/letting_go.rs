//! Openings that fail give back what settlement reserved, whoever crashes and when; and nothing that was worked for can be taken back that way.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, ChannelState, CloseReason, ProviderFrame};
use orien_protocol::money::{Price, Usdc};
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentPhase, AgentRecord, AgentSession};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderPhase, ProviderRecord, ProviderSession};
use orien_protocol::signing::MoneyKey;
use orien_protocol::terms::SignedTerms;
use orien_protocol::time::{Millis, Now};
use orien_protocol::voucher::{Close, MoneyVerified, SignedClose};

use crate::kit::usdc;
use crate::pair::Pair;

const BUDGET: u64 = 100_000;
/// Frames that an opening takes: proposal, answer, allowance, receipt 1, voucher.
const FRAMES: usize = 5;

/// An opening of which so many frames have arrived.
fn opening(frames: usize, settlement_is_silent: bool) -> Pair {
    let mut pair = Pair::propose(BUDGET);
    pair.settlement_is_silent = settlement_is_silent;
    for _ in 0..frames {
        if let Some(frame) = pair.to_agent.pop_front() {
            pair.agent_input(AgentInput::Frame(frame));
        } else {
            pair.deliver_one();
        }
    }
    pair
}

impl Pair {
    /// The stream breaks; what was on it is lost. A node keeps nothing of a proposal whose agent is gone.
    fn hang_up(&mut self) {
        self.to_agent.clear();
        self.to_provider.clear();
        self.agent_input(AgentInput::Disconnected);
        if let Some(session) = &self.provider {
            let is_proposed = matches!(session.phase(), ProviderPhase::Proposed(_));
            self.provider_input(ProviderInput::Disconnected);
            if is_proposed {
                self.provider_input(ProviderInput::Stop);
            }
        }
        self.to_agent.clear();
        self.to_provider.clear();
    }

    /// Both are there again, for long enough.
    fn recover(&mut self) {
        self.settlement_is_silent = false;
        for close in std::mem::take(&mut self.handed_back) {
            // What was handed in without an answer is handed in again.
            self.handed_back.push(close);
            self.agent_input(AgentInput::HandedBack(Ok(ChannelState { closed: true, ..ChannelState::default() })));
        }
        for _ in 0..3 {
            if !self.agent.owes_release() && matches!(self.agent.phase(), AgentPhase::Closed(_)) {
                return;
            }
            self.hang_up();
            self.agent_input(AgentInput::Connected);
            self.talk();
        }
    }

    fn wait(&mut self, ms: u64) {
        self.now = Now { wall: self.now.wall.plus(Millis(ms)), mono: Millis(self.now.mono.0 + ms) };
        self.agent_input(AgentInput::Tick);
    }

    fn terms(&self) -> SignedTerms {
        self.agent.terms().unwrap().to_signed()
    }

    fn close(&self, key: &MoneyKey, total: u64) -> SignedClose {
        let terms = self.agent.terms().unwrap();
        *MoneyVerified::sign(Close { channel: terms.channel(), total: usdc(total) }, &terms.domain, key).signed()
    }

    /// Nothing is reserved without an open session, and nothing that was promised and taken was given back.
    fn check(&self, case: &str) {
        let (agent, provider) = (self.agent.phase(), self.provider.as_ref().map(ProviderSession::phase));
        let is_open = agent == AgentPhase::Open;
        assert_eq!(self.reserved.is_some(), is_open, "{case}: agent {agent:?}, provider {provider:?}");
        assert!(is_open || matches!(agent, AgentPhase::Closed(_)), "{case}: {agent:?}");
        assert!(!self.agent.owes_release(), "{case}");
        if !self.handed_back.is_empty() {
            let taken = self.provider_log.iter().any(|record| matches!(record, ProviderRecord::Voucher(_)));
            assert!(!taken && self.claims.is_empty(), "{case}: a session that was worked for was given back");
        }
    }
}

#[test]
fn whoever_crashes_hangs_up_or_gives_up_at_any_step_of_an_opening_nothing_stays_reserved_for_it() {
    type Trouble = (&'static str, fn(&mut Pair));
    let troubles: [Trouble; 7] = [
        ("the agent crashes", Pair::crash_agent),
        ("the provider crashes", |pair| {
            if pair.provider.is_some() {
                pair.crash_provider();
            }
            pair.agent_input(AgentInput::Disconnected);
        }),
        ("both crash", |pair| {
            pair.crash_agent();
            if pair.provider.is_some() {
                pair.crash_provider();
            }
        }),
        ("the stream breaks", Pair::hang_up),
        ("the agent ends it", |pair| pair.agent_input(AgentInput::End)),
        ("the agent ends it and crashes", |pair| {
            pair.agent_input(AgentInput::End);
            pair.crash_agent();
        }),
        ("nobody says anything for a minute", |pair| {
            pair.wait(0);
            pair.to_agent.clear();
            pair.to_provider.clear();
            pair.wait(60_000);
            if pair.provider.is_some() {
                pair.provider_input(ProviderInput::Tick);
            }
        }),
    ];
    for (name, trouble) in troubles {
        for silent in [false, true] {
            for frames in 0..=FRAMES {
                let case = format!("{name} after {frames} frames, settlement silent: {silent}");
                let mut pair = opening(frames, silent);
                trouble(&mut pair);
                pair.recover();
                pair.talk();
                pair.check(&case);
                let before = pair.agent_log.len();
                pair.crash_agent();
                pair.recover();
                pair.check(&format!("{case}, and a crash after it"));
                assert!(pair.agent_log.len() == before, "{case}: what is done is not done again");
            }
        }
    }
}

#[test]
fn an_agent_that_crashes_at_any_record_of_giving_back_goes_on_from_there() {
    let mut whole = opening(2, true);
    whole.crash_agent();
    whole.settlement_is_silent = false;
    whole.agent_input(AgentInput::Connected);
    whole.talk();
    assert!(matches!(whole.agent_log.last(), Some(AgentRecord::Released)), "{:?}", whole.agent_log.last());
    let [.., AgentRecord::Closed { close: None, .. }, AgentRecord::LetGo(close), AgentRecord::Released] = &whole.agent_log[..] else {
        panic!("{:?}", whole.agent_log)
    };
    let all = whole.agent_log.len();
    for (missing, hands_back) in [(0, false), (1, true), (2, false)] {
        let records = whole.agent_log[..all - missing].to_vec();
        let (mut agent, effects) = AgentSession::restore(records, &whole.kit.network, whole.kit.agent.clone(), whole.now).unwrap();
        let handed: Vec<_> =
            effects.iter().filter(|effect| matches!(effect, AgentEffect::HandBack { close: c, .. } if c == close)).collect();
        assert_eq!((effects.len(), handed.len()), (usize::from(hands_back), usize::from(hands_back)), "{effects:?}");
        assert_eq!(agent.owes_release(), missing > 0);
        let asks = agent.handle(AgentInput::Connected, whole.now);
        assert_eq!(asks.iter().any(|effect| matches!(effect, AgentEffect::Send(AgentFrame::LetGo(_)))), missing == 2);
    }
}

#[test]
fn a_provider_writes_that_it_gives_up_before_it_signs_a_close_and_opens_no_more() {
    let mut pair = opening(1, true);
    pair.agent_input(AgentInput::Frame(pair.to_agent[0].clone()));
    let terms = pair.terms();
    let vet = |_: &orien_protocol::job::Job| Ok(());
    let env = ProviderEnv {
        now: pair.now,
        credit: usdc(0),
        unredeemed_ceiling: usdc(u64::MAX),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    };
    let close = pair.close(&pair.kit.provider.claim, 0);
    let allowance = pair.kit.allowance(&terms, usdc(BUDGET));
    let provider = pair.provider.as_mut().unwrap();
    let effects = provider.handle(ProviderInput::Frame(AgentFrame::LetGo(Box::new(terms.clone()))), &env);
    let expected = [
        ProviderEffect::Persist(Box::new(ProviderRecord::GivenUp { redeem_until: terms.by_agent.unverified().redeem_until })),
        ProviderEffect::Send(ProviderFrame::Closed { reason: CloseReason::NotOpened, close: Some(close) }),
        ProviderEffect::Release(CloseReason::NotOpened),
    ];
    assert_eq!(effects, expected);
    assert_eq!(provider.handle(ProviderInput::Frame(AgentFrame::Present(allowance)), &env), []);
    assert_eq!(provider.phase(), ProviderPhase::Closed(CloseReason::NotOpened));
}

#[test]
fn a_session_that_ended_with_nothing_on_disk_signs_no_close_itself() {
    let mut pair = opening(1, true);
    pair.agent_input(AgentInput::Frame(pair.to_agent[0].clone()));
    let terms = Box::new(pair.terms());
    pair.provider_input(ProviderInput::Stop);
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(CloseReason::ProviderStopped));
    pair.provider_input(ProviderInput::Frame(AgentFrame::LetGo(terms)));
    assert!(matches!(pair.to_agent.back(), Some(ProviderFrame::Refused(fault)) if fault.code == FaultCode::BUSY), "{:?}", pair.to_agent);
    assert!(pair.provider_log.is_empty());
}

#[test]
fn a_session_that_waits_for_its_first_voucher_is_let_go_of_with_its_close_on_disk() {
    let mut pair = opening(3, false);
    assert!(matches!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Unpaid(_)));
    let terms = Box::new(pair.terms());
    pair.to_agent.clear();
    for _ in 0..2 {
        pair.provider_input(ProviderInput::Frame(AgentFrame::LetGo(terms.clone())));
        let close = Some(pair.close(&pair.kit.provider.claim, 0));
        assert_eq!(pair.to_agent.pop_back(), Some(ProviderFrame::Closed { reason: CloseReason::NotOpened, close }));
        assert_eq!(pair.provider_log.last(), Some(&ProviderRecord::Closed { reason: CloseReason::NotOpened, close }));
        // Once more, after a restart.
        pair.crash_provider();
    }
    assert_eq!(pair.provider_log.iter().filter(|record| matches!(record, ProviderRecord::Closed { .. })).count(), 1);
}

#[test]
fn a_provider_that_crashes_before_it_has_voucher_1_takes_it_when_the_agent_comes_back() {
    let mut pair = opening(4, false);
    assert!(matches!(pair.to_provider.make_contiguous(), [AgentFrame::Voucher(_)]), "{:?}", pair.to_provider);
    pair.crash_provider();
    pair.pass(10_000);
    pair.reconnect();
    let closed = CloseReason::ProviderStopped;
    assert_eq!(pair.provider.as_ref().unwrap().phase(), ProviderPhase::Closed(closed));
    assert_eq!((pair.agent.phase(), pair.agent.charged(), pair.promised()), (AgentPhase::Closed(closed), usdc(5_000), 5_000));
    assert_eq!(pair.claims.last().and_then(|claim| claim.close).map(|close| close.unverified().total), Some(usdc(5_000)));
    assert!(pair.handed_back.is_empty());
}

#[test]
fn a_provider_that_crashes_before_it_has_voucher_1_waits_for_the_drain_grace_or_until_it_is_told_that_there_is_none() {
    let nothing =
        |pair: &Pair| ProviderRecord::Closed { reason: CloseReason::ProviderStopped, close: Some(pair.close(&pair.kit.provider.claim, 0)) };
    let mut alone = opening(3, false);
    alone.crash_provider();
    alone.pass(29_750);
    assert!(matches!(alone.provider.as_ref().unwrap().phase(), ProviderPhase::Draining(..)));
    alone.pass(250);
    assert_eq!(alone.provider_log.last(), Some(&nothing(&alone)));
    let mut told = opening(3, false);
    told.crash_provider();
    told.provider_input(ProviderInput::Frame(AgentFrame::LetGo(Box::new(told.terms()))));
    assert_eq!(told.provider_log.last(), Some(&nothing(&told)));
}

#[test]
fn a_session_with_a_voucher_or_under_other_terms_is_not_let_go_of() {
    let mut pair = Pair::open(BUDGET);
    let terms = pair.terms();
    let refusal = |pair: &mut Pair, terms: &SignedTerms| {
        pair.provider_input(ProviderInput::Frame(AgentFrame::LetGo(Box::new(terms.clone()))));
        let Some(ProviderFrame::Refused(fault)) = pair.to_agent.pop_back() else { panic!("not refused") };
        fault.code
    };
    assert_eq!(refusal(&mut pair, &terms), FaultCode::WRONG_STATE);
    let other = Pair::propose_with(BUDGET, 5_000, |terms| terms.minimum_charge = usdc(1));
    let by_agent = match &other.agent_log[0] {
        AgentRecord::Proposed { terms, .. } => terms.clone(),
        other => panic!("{other:?}"),
    };
    let foreign = SignedTerms { by_agent, ..terms.clone() };
    assert_eq!(refusal(&mut pair, &foreign), FaultCode::CONFLICT);
    pair.agent_input(AgentInput::End);
    pair.talk();
    assert_eq!(refusal(&mut pair, &terms), FaultCode::WRONG_STATE, "also after its end");
    assert!(pair.handed_back.is_empty(), "what was promised is the provider's");
}

#[test]
fn only_the_payees_close_of_nothing_is_handed_in() {
    let mut pair = opening(2, true);
    pair.hang_up();
    let stranger = MoneyKey::from_bytes(&[66; 32]).unwrap();
    let elsewhere = Close { channel: orien_protocol::channel::ChannelId::from_hash(orien_protocol::hash::Hash::ZERO), total: Usdc::ZERO };
    let elsewhere = *MoneyVerified::sign(elsewhere, &pair.kit.domain, &pair.kit.provider.claim).signed();
    let before = pair.agent_log.len();
    for bad in [None, Some(pair.close(&stranger, 0)), Some(pair.close(&pair.kit.provider.claim, 1)), Some(elsewhere)] {
        pair.agent_input(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::NotOpened, close: bad }));
    }
    assert_eq!((pair.agent_log.len(), pair.handed_back.len(), pair.agent.is_let_go()), (before, 0, false));
    let good = pair.close(&pair.kit.provider.claim, 0);
    for _ in 0..2 {
        pair.agent_input(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::NotOpened, close: Some(good) }));
    }
    assert_eq!((pair.agent_log.len(), pair.handed_back.len()), (before + 1, 1), "once");
    assert!(pair.agent.is_let_go() && pair.agent.owes_release(), "settlement has not answered");
}

#[test]
fn a_close_that_comes_with_the_end_of_the_opening_is_handed_in_without_asking_for_another() {
    let mut pair = opening(3, false);
    pair.to_agent.clear();
    // Receipt 1 is lost, and the hold runs out.
    pair.now = Now { wall: pair.now.wall.plus(Millis(30_000)), mono: Millis(pair.now.mono.0 + 30_000) };
    pair.provider_input(ProviderInput::Tick);
    assert!(pair.to_provider.is_empty());
    pair.talk();
    assert_eq!((pair.reserved, pair.handed_back.len()), (None, 1));
    assert!(!pair.agent.owes_release());
    assert!(pair.agent_log.iter().any(|record| matches!(record, AgentRecord::Closed { close: Some(_), .. })));
}

#[test]
fn what_settlement_refused_to_reserve_is_not_given_back_and_what_it_may_have_reserved_is() {
    let fault = || Fault::new(FaultCode::INSUFFICIENT_FUNDS, "no");
    let mut refused = opening(2, true);
    refused.agent_input(AgentInput::NotReserved(fault()));
    assert!(!refused.agent.owes_release());
    refused.crash_agent();
    assert!(!refused.agent.owes_release(), "also after a restart");
    refused.agent_input(AgentInput::Connected);
    assert!(refused.to_provider.is_empty(), "nothing is asked for: {:?}", refused.to_provider);
    let mut unknown = opening(2, true);
    unknown.agent_input(AgentInput::NotAnswered(fault()));
    assert!(unknown.agent.owes_release());
    unknown.crash_agent();
    assert!(unknown.agent.owes_release(), "also after a restart");
    let mut unasked = opening(1, true);
    unasked.agent_input(AgentInput::End);
    assert!(!unasked.agent.owes_release(), "nobody was asked");
}

#[test]
fn settlement_is_told_again_until_it_gives_an_answer_that_will_not_change() {
    for (code, goes_on) in [
        (FaultCode::BUSY, true),
        (FaultCode::INTERNAL, true),
        (FaultCode::NOT_FOUND, false),
        (FaultCode::WRONG_STATE, false),
        (FaultCode::CONFLICT, false),
    ] {
        let mut pair = opening(2, true);
        pair.agent_input(AgentInput::NotAnswered(Fault::new(FaultCode::INTERNAL, "silence")));
        let answer = || AgentInput::HandedBack(Err(Fault::new(code, "")));
        pair.agent_input(answer());
        assert!(pair.agent.owes_release(), "nothing was handed in yet");
        let close = pair.close(&pair.kit.provider.claim, 0);
        pair.agent_input(AgentInput::Frame(ProviderFrame::Closed { reason: CloseReason::NotOpened, close: Some(close) }));
        pair.agent_input(answer());
        assert_eq!(pair.agent.owes_release(), goes_on, "{code:?}");
    }
}

#[test]
fn after_redemption_has_ended_nothing_is_given_back_any_more() {
    let mut pair = opening(2, true);
    pair.hang_up();
    pair.wait(7_199_000);
    assert!(pair.agent.owes_release());
    pair.wait(1_000);
    assert!(!pair.agent.owes_release());
    pair.crash_agent();
    assert!(!pair.agent.owes_release());
}

#[test]
fn a_session_that_cost_nothing_is_closed_by_its_provider_and_not_given_back() {
    let mut pair = Pair::propose_with(BUDGET, 5_000, |terms| {
        terms.minimum_charge = Usdc::ZERO;
        terms.prices.iter_mut().for_each(|tool| tool.price = Price::default());
    });
    pair.talk();
    pair.agent_input(AgentInput::End);
    pair.talk();
    assert_eq!(pair.agent.phase(), AgentPhase::Closed(CloseReason::Ended));
    assert!(pair.handed_back.is_empty() && !pair.agent.owes_release());
    assert!(pair.claims.last().unwrap().close.is_some());
}
