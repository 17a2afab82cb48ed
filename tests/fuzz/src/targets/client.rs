//! The agent's machine under a driver that commits what it persists and checks every effect against what was committed before it.
//!
//! The driver may crash between any two effects; the machine then comes back from exactly the records that were committed.

use std::collections::{BTreeMap, BTreeSet};

use orien_protocol::codec;
use orien_protocol::frame::{AgentFrame, CONTROL_FRAME_LIMIT};
use orien_protocol::id::ExecutionId;
use orien_protocol::money::Usdc;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentRecord, AgentSession};
use orien_protocol::signing::Signed;
use orien_protocol::terms::{SignedTerms, VerifiedTerms};
use orien_protocol::time::{Millis, Now};
use orien_protocol::voucher::{SignedAllowance, SignedClose};

use super::audit::Chain;
use super::world::{WORLD, start};

pub(crate) struct Client {
    pub(crate) terms: VerifiedTerms,
    pub(crate) session: AgentSession,
    pub(crate) now: Now,
    pub(crate) log: Vec<AgentRecord>,
    pub(crate) chain: Chain,
    pub(crate) to_provider: Vec<AgentFrame>,
    pub(crate) events: Vec<AgentEvent>,
    /// Questions to settlement that were not answered yet.
    pub(crate) reserving: Option<(SignedTerms, Usdc)>,
    /// Carry out so many effects of the next list, then crash.
    pub(crate) crash_after: Option<usize>,
    pub(crate) crashes: u64,
    /// Milliseconds that really passed, across restarts.
    lived: u64,
    asked: BTreeMap<ExecutionId, u64>,
    cancelled: BTreeSet<ExecutionId>,
    allowance: Option<SignedAllowance>,
    agreed: Option<SignedTerms>,
    disputed: bool,
    ending: bool,
    closed: bool,
    /// The provider's close of nothing, and whether settlement was asked to take it and has.
    let_go: Option<SignedClose>,
    handing_back: bool,
    released: bool,
    /// Given up for another, at this most.
    sealed: Option<u64>,
}

impl Client {
    pub(crate) fn new(terms: VerifiedTerms, proposed: (AgentSession, Vec<AgentEffect>)) -> Self {
        let (session, effects) = proposed;
        let mut client = Self {
            terms,
            session,
            now: start(),
            log: Vec::new(),
            chain: Chain::default(),
            to_provider: Vec::new(),
            events: Vec::new(),
            reserving: None,
            crash_after: None,
            crashes: 0,
            lived: 0,
            asked: BTreeMap::new(),
            cancelled: BTreeSet::new(),
            allowance: None,
            agreed: None,
            disputed: false,
            ending: false,
            closed: false,
            let_go: None,
            handing_back: false,
            released: false,
            sealed: None,
        };
        client.carry_out(effects);
        client
    }

    pub(crate) fn input(&mut self, input: AgentInput) {
        let effects = self.session.handle(input, self.now);
        self.carry_out(effects);
    }

    pub(crate) fn pass(&mut self, ms: u64) {
        self.lived = self.lived.saturating_add(ms);
        self.now.mono = Millis(self.now.mono.0.saturating_add(ms));
    }

    pub(crate) fn ceiling(&self) -> u64 {
        self.allowance.map_or(0, |allowance| allowance.unverified().ceiling.micros())
    }

    fn carry_out(&mut self, effects: Vec<AgentEffect>) {
        let cut = self.crash_after.take();
        for (index, effect) in effects.into_iter().enumerate() {
            // The proposal itself is the first thing there is; before it there is no session to lose.
            if cut == Some(index) && !self.log.is_empty() {
                return self.crash();
            }
            match effect {
                AgentEffect::Persist(record) => self.commit(*record),
                AgentEffect::Send(frame) => self.send(frame),
                AgentEffect::Reserve { terms, ceiling } => {
                    assert_eq!(self.agreed.as_ref(), Some(&*terms), "settlement is asked about terms that are committed");
                    self.reserving = Some((*terms, ceiling));
                }
                AgentEffect::HandBack { terms, close } => {
                    assert_eq!(self.agreed.as_ref(), Some(&*terms), "only what was agreed is handed back");
                    assert_eq!(self.let_go, Some(close), "a close is committed before it is handed on");
                    self.handing_back = true;
                }
                AgentEffect::Tell(event) => self.events.push(event),
            }
        }
        self.check_sums();
    }

    /// The process ends here and starts again from what was committed.
    pub(crate) fn crash(&mut self) {
        self.to_provider.clear();
        self.reserving = None;
        self.crash_after = None;
        self.crashes += 1;
        // A monotonic clock means nothing across restarts.
        self.now.mono = Millis(self.now.mono.0 % 1_000);
        let (session, effects) = restored(&self.log, self.now);
        assert_eq!(session.is_disputed(), self.disputed);
        let was_open = self.chain.newest_voucher.is_some() && !self.ending && !self.closed && !self.disputed;
        assert_eq!(session.phase() == AgentPhase::Open, was_open, "{:?}", session.phase());
        self.session = session;
        self.carry_out(effects);
    }

    fn commit(&mut self, record: AgentRecord) {
        assert!(codec::encode(&record).is_ok(), "every record can be stored");
        assert_eq!(self.log.is_empty(), matches!(record, AgentRecord::Proposed { .. }), "a session begins with its proposal");
        match &record {
            AgentRecord::Proposed { .. } => {}
            AgentRecord::Agreed(terms) => {
                assert!(self.agreed.replace(terms.clone()).is_none(), "terms are agreed once");
            }
            AgentRecord::Reserved(allowance) => {
                let ceiling = allowance.unverified().ceiling.micros();
                assert!(self.allowance.is_none() || ceiling > self.ceiling(), "a top-up raises the budget");
                self.allowance = Some(*allowance);
            }
            AgentRecord::Job(job) => {
                assert!(!self.ending && !self.closed && !self.disputed, "only an open session asks for work");
                self.chain.take_job(job);
                self.asked.insert(job.unverified().execution, self.lived);
            }
            AgentRecord::Cancelled(execution) => assert!(self.cancelled.insert(*execution), "a wish to stop is noted once"),
            AgentRecord::JobRefused(execution) => assert!(self.chain.job(execution).is_some()),
            AgentRecord::Answered { receipt, voucher } => {
                assert!(!self.disputed, "nothing is signed after a dispute");
                assert!(self.allowance.is_some(), "nothing is signed before there is a reservation");
                self.chain.take_receipt(receipt, &self.terms);
                self.chain.take_voucher(voucher, &self.terms);
                assert_eq!(self.chain.promised(), self.chain.charged(), "a promise is what the newest receipt charges");
                assert!(self.chain.promised() <= self.ceiling(), "never above the budget");
                assert!(self.sealed.is_none_or(|most| self.chain.promised() <= most), "never beyond the seal");
                self.check_time(receipt);
            }
            AgentRecord::Disputed(_) => assert!(!std::mem::replace(&mut self.disputed, true), "a dispute begins once"),
            AgentRecord::Ending => assert!(!std::mem::replace(&mut self.ending, true), "an end begins once"),
            AgentRecord::Closed { close, .. } => {
                assert!(!std::mem::replace(&mut self.closed, true), "closed once");
                let total = close.map(|close| close.unverified().total.micros());
                assert!(
                    total.is_none_or(|total| total == self.chain.promised() || total == 0),
                    "a close counts only for what was promised, or for nothing"
                );
                self.let_go = close.filter(|close| close.unverified().total.micros() == 0);
            }
            AgentRecord::LetGo(close) => {
                assert!(self.closed && close.unverified().total.micros() == 0, "let go of after the end, for nothing");
                assert!(self.let_go.replace(*close).is_none(), "let go of once");
            }
            AgentRecord::Sealed { most } => {
                let most = most.micros();
                assert!(self.chain.promised() <= most && most <= self.ceiling(), "between what was promised and the budget");
                assert!(self.sealed.replace(most).is_none(), "given up once");
            }
            AgentRecord::Released => assert!(self.closed && !std::mem::replace(&mut self.released, true), "released once"),
        }
        self.log.push(record);
    }

    /// No more time is signed for than passed since we asked, by either clock, plus the tolerance, once.
    /// The thousandth for drift comes anew with every restart.
    fn check_time(&self, receipt: &Signed<Receipt>) {
        let Some(work) = &receipt.unverified().work else { return };
        let asked = self.asked.get(&work.execution).copied().expect("only work that was asked for is answered");
        let issued = self.chain.job(&work.execution).unwrap().unverified().issued_at;
        let passed = (self.lived - asked).max(self.now.wall.since(issued).0);
        let drift = (passed / 1_000 + 1).saturating_mul(2 * (self.crashes + 1));
        let slack = drift.saturating_add(self.terms.time_tolerance.0);
        assert!(work.usage.effective_ms <= passed.saturating_add(slack), "signed for {} ms in {passed}", work.usage.effective_ms);
    }

    fn send(&mut self, frame: AgentFrame) {
        let bytes = codec::encode(&frame).expect("every frame can be encoded");
        assert!(bytes.len() <= CONTROL_FRAME_LIMIT, "every frame can be sent");
        match &frame {
            AgentFrame::Propose(terms) => {
                assert!(matches!(self.log.first(), Some(AgentRecord::Proposed { terms: committed, .. }) if *committed == **terms));
            }
            AgentFrame::Present(allowance) => assert_eq!(self.allowance, Some(*allowance), "a reservation is committed before it is shown"),
            AgentFrame::Run(job) => {
                assert_eq!(self.chain.job(&job.unverified().execution), Some(&**job), "a job is committed before it is sent");
            }
            AgentFrame::Cancel(execution) => assert!(self.cancelled.contains(execution), "a wish is committed before it is sent"),
            AgentFrame::Voucher(voucher) => {
                assert_eq!(self.chain.newest_voucher, Some(*voucher), "a voucher is committed before it is sent");
            }
            AgentFrame::LetGo(terms) => {
                assert_eq!(self.agreed.as_ref(), Some(&**terms), "only what was agreed is let go of");
                assert!((self.closed || self.ending) && self.let_go.is_none(), "let go of once it is over");
            }
            AgentFrame::End => assert!(self.ending || self.closed || self.disputed, "the end is committed before it is sent"),
            AgentFrame::Resume { session, head, head_hash } => {
                assert_eq!((*session, *head, *head_hash), (self.terms.session, self.chain.head().0, self.chain.head().1));
            }
        }
        self.to_provider.push(frame);
    }

    fn check_sums(&self) {
        assert_eq!((self.session.charged().micros(), self.session.promised().micros()), (self.chain.charged(), self.chain.promised()));
        assert_eq!(matches!(self.session.phase(), AgentPhase::Closed(_)), self.closed);
        assert_eq!(self.session.is_disputed(), self.disputed);
    }

    /// Any beginning of what was committed makes a session that promised what that beginning did.
    pub(crate) fn check_prefix(&self, choice: u8) {
        let length = 1 + usize::from(choice) % self.log.len();
        let (session, _) = restored(&self.log[..length], self.now);
        let promised = self.log[..length].iter().rev().find_map(|record| match record {
            AgentRecord::Answered { voucher, .. } => Some(voucher.unverified().total),
            _ => None,
        });
        assert_eq!(session.promised(), promised.unwrap_or_default());
        assert_eq!(session.charged(), session.promised());
    }
}

fn restored(records: &[AgentRecord], now: Now) -> (AgentSession, Vec<AgentEffect>) {
    let back = AgentSession::restore(records.to_vec(), &WORLD.network, WORLD.agent.clone(), now);
    back.unwrap_or_else(|error| panic!("what was committed does not come back: {error}"))
}
