//! The provider's machine under a driver that commits what it persists and checks every effect against what was committed before it.
//!
//! The driver may crash between any two effects; the machine then comes back from exactly the records that were committed.

use std::collections::BTreeMap;

use orien_protocol::codec;
use orien_protocol::fault::{FAULT_TEXT_LIMIT, Fault};
use orien_protocol::frame::{AgentFrame, CONTROL_FRAME_LIMIT, Claim, ProviderFrame};
use orien_protocol::id::ExecutionId;
use orien_protocol::job::Job;
use orien_protocol::money::Usdc;
use orien_protocol::receipt::{EndReason, Usage};
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderRecord, ProviderSession};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Now};
use orien_settlement::evidence::CheckedClaim;

use super::audit::{Chain, Ends, Once};
use super::world::{WORLD, start, usdc};

/// What the executor knows of a tool.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tool {
    pub(crate) ms: u64,
    pub(crate) limit: u64,
    pub(crate) paused: bool,
    pub(crate) killed: bool,
}

pub(crate) struct Shop {
    pub(crate) terms: VerifiedTerms,
    /// As it was proposed: what is left when a crash comes before anything was committed.
    fresh: ProviderSession,
    pub(crate) session: ProviderSession,
    pub(crate) now: Now,
    pub(crate) credit: u64,
    pub(crate) room: u64,
    pub(crate) log: Vec<ProviderRecord>,
    pub(crate) chain: Chain,
    pub(crate) tools: BTreeMap<ExecutionId, Tool>,
    pub(crate) to_agent: Vec<ProviderFrame>,
    pub(crate) released: bool,
    /// Carry out so many effects of the next list, then crash.
    pub(crate) crash_after: Option<usize>,
    pub(crate) crashes: u32,
    ends: Ends,
    started: Once,
    ceiling: u64,
    most_credit: u64,
    most_reported: BTreeMap<ExecutionId, u64>,
}

impl Shop {
    pub(crate) fn new(session: ProviderSession, credit: u64) -> Self {
        Self {
            terms: session.terms().clone(),
            fresh: session.clone(),
            session,
            now: start(),
            credit,
            room: u64::MAX,
            log: Vec::new(),
            chain: Chain::default(),
            tools: BTreeMap::new(),
            to_agent: Vec::new(),
            released: false,
            crash_after: None,
            crashes: 0,
            ends: Ends::default(),
            started: Once::default(),
            ceiling: 0,
            most_credit: credit,
            most_reported: BTreeMap::new(),
        }
    }

    pub(crate) fn set_credit(&mut self, credit: u64) {
        self.credit = credit;
        self.most_credit = self.most_credit.max(credit);
    }

    pub(crate) fn say(&mut self, frame: AgentFrame) {
        self.input(ProviderInput::Frame(frame));
    }

    pub(crate) fn input(&mut self, input: ProviderInput) {
        let effects = with_env(self.now, self.credit, self.room, |env| self.session.handle(input, env));
        self.carry_out(effects);
    }

    /// The executor reports what a tool used.
    pub(crate) fn report(&mut self, execution: ExecutionId, ms: u64) {
        let most = self.most_reported.entry(execution).or_default();
        *most = (*most).max(ms);
        self.input(ProviderInput::Progress(execution, Usage { effective_ms: ms, ..Usage::default() }));
    }

    /// The executor reports the end of a tool.
    pub(crate) fn finish(&mut self, execution: ExecutionId, end: EndReason, ms: u64) {
        self.tools.remove(&execution);
        let most = self.most_reported.entry(execution).or_default();
        *most = (*most).max(ms);
        let usage = Usage { effective_ms: ms, ..Usage::default() };
        self.input(ProviderInput::Ended { execution, usage, end, exit_code: Some(0) });
    }

    fn carry_out(&mut self, effects: Vec<ProviderEffect>) {
        let cut = self.crash_after.take();
        for (index, effect) in effects.into_iter().enumerate() {
            if cut == Some(index) {
                return self.crash();
            }
            self.carry_out_one(effect);
        }
        self.check_sums();
    }

    /// The process ends here and starts again from what was committed.
    pub(crate) fn crash(&mut self) {
        self.tools.clear();
        self.to_agent.clear();
        self.released = false;
        self.crash_after = None;
        self.crashes += 1;
        if self.log.is_empty() {
            self.session = self.fresh.clone();
            return;
        }
        // A monotonic clock means nothing across restarts.
        self.now.mono = Millis(self.now.mono.0 % 1_000);
        let (session, effects) = restored(&self.log, self.now, self.credit);
        self.session = session;
        self.carry_out(effects);
        self.to_agent.clear();
    }

    fn carry_out_one(&mut self, effect: ProviderEffect) {
        match effect {
            ProviderEffect::Persist(record) => self.commit(*record),
            ProviderEffect::Send(frame) => self.send(frame),
            ProviderEffect::SendReceiptsAfter(number) => {
                let after = self.chain.receipts.iter().filter(|receipt| receipt.unverified().number > number);
                self.to_agent.extend(after.map(|receipt| ProviderFrame::Receipt(Box::new(receipt.clone()))));
            }
            ProviderEffect::Start { job, limit } => self.start(&job, limit),
            ProviderEffect::Pause(execution) => {
                let tool = self.tools.get_mut(&execution).expect("only a running tool is paused");
                assert!(!std::mem::replace(&mut tool.paused, true), "paused twice");
            }
            ProviderEffect::Unpause(execution) => {
                // One that was killed meanwhile may have gone already.
                if let Some(tool) = self.tools.get_mut(&execution) {
                    assert!(std::mem::replace(&mut tool.paused, false), "unpaused twice");
                }
            }
            ProviderEffect::Kill(execution) => {
                let tool = self.tools.get_mut(&execution).expect("only a running tool is killed");
                assert!(!std::mem::replace(&mut tool.killed, true), "killed twice");
            }
            ProviderEffect::HandIn(claim) => self.hand_in(*claim),
            ProviderEffect::Release(_) => {
                assert!(!std::mem::replace(&mut self.released, true), "released twice");
                assert!(self.tools.is_empty(), "a workspace is not removed under a running tool");
            }
        }
    }

    fn commit(&mut self, record: ProviderRecord) {
        assert!(!self.ends.closed, "nothing is recorded after the close: {record:?}");
        let first = matches!(record, ProviderRecord::Opened { .. } | ProviderRecord::GivenUp { .. });
        assert_eq!(self.log.is_empty(), first, "a session begins with its opening, or is given up before it");
        assert!(codec::encode(&record).is_ok(), "every record can be stored");
        match &record {
            ProviderRecord::Opened { allowance, .. } => self.ceiling = allowance.unverified().ceiling.micros(),
            ProviderRecord::GivenUp { .. } => self.ends.closed = true,
            ProviderRecord::ToppedUp(allowance) => {
                let ceiling = allowance.unverified().ceiling.micros();
                assert!(ceiling > self.ceiling, "a top-up raises the budget");
                self.ceiling = ceiling;
            }
            ProviderRecord::Job(job) => {
                assert!(!self.ends.begun && self.chain.newest_voucher.is_some(), "work is taken only by an open session");
                self.chain.take_job(job);
            }
            ProviderRecord::JobDropped(execution) => assert!(self.chain.job(execution).is_some()),
            ProviderRecord::Receipt(receipt) => {
                let promised = self.chain.promised();
                self.chain.take_receipt(receipt, &self.terms);
                self.check_charge(promised);
                if let Some(work) = &receipt.unverified().work {
                    let most = self.most_reported.get(&work.execution).copied().unwrap_or(0);
                    assert!(work.usage.effective_ms <= most, "a receipt never says more than the executor did");
                }
            }
            ProviderRecord::Voucher(voucher) => self.chain.take_voucher(voucher, &self.terms),
            ProviderRecord::Draining(_) => assert!(!std::mem::replace(&mut self.ends.begun, true), "draining begins once"),
            ProviderRecord::Closed { close, .. } => {
                self.ends.closed = close.is_some();
                self.ends.closes.extend(*close);
                let total = close.map(|close| close.unverified().total.micros());
                assert!(total.is_none_or(|total| total == self.chain.promised()), "a close names what was promised");
            }
        }
        self.log.push(record);
    }

    fn check_charge(&self, promised: u64) {
        let charged = self.chain.charged();
        assert!(charged <= self.ceiling, "charged {charged} of an allowance of {}", self.ceiling);
        let covered = promised.saturating_add(self.most_credit).max(self.terms.minimum_charge.micros());
        assert!(charged <= covered, "charged {charged} where promise and credit cover {covered}");
    }

    fn send(&mut self, frame: ProviderFrame) {
        let bytes = codec::encode(&frame).expect("every frame can be encoded");
        assert!(bytes.len() <= CONTROL_FRAME_LIMIT, "every frame can be sent");
        match &frame {
            ProviderFrame::Receipt(receipt) => {
                let number = usize::try_from(receipt.unverified().number).unwrap();
                assert_eq!(self.chain.receipts.get(number - 1), Some(&**receipt), "a receipt is committed before it is sent");
            }
            ProviderFrame::Closed { close: Some(close), .. } => {
                let given_up = matches!(self.log.first(), Some(ProviderRecord::GivenUp { .. })) && close.unverified().total.micros() == 0;
                let committed = self.log.is_empty() || given_up || self.ends.closes.contains(close);
                assert!(committed, "a close is committed before it is sent");
            }
            ProviderFrame::Refused(fault) | ProviderFrame::VoucherRefused(fault) | ProviderFrame::JobRefused { fault, .. } => {
                assert!(fault.text.len() <= FAULT_TEXT_LIMIT);
            }
            _ => {}
        }
        self.to_agent.push(frame);
    }

    fn start(&mut self, job: &Job, limit: Millis) {
        let committed = self.chain.job(&job.execution).expect("a job is committed before its tool starts");
        assert_eq!(committed.unverified(), job);
        assert!(self.chain.newest_voucher.is_some() && !self.ends.begun, "no tool runs before the first voucher or after the end");
        assert!(self.now.wall < self.terms.work_until.timestamp(), "nothing starts after work_until");
        assert!(limit <= job.max_duration);
        self.started.note(job.execution, "started");
        self.tools.insert(job.execution, Tool { limit: limit.0, ..Tool::default() });
        assert!(self.tools.len() <= usize::from(self.terms.runs_at_once), "no more run at once than the terms say");
    }

    /// Whatever is handed in convinces settlement, and is for no more than was promised.
    fn hand_in(&self, claim: Claim) {
        assert_eq!(Some(claim.voucher), self.chain.newest_voucher);
        let close = claim.close;
        let checked = CheckedClaim::check(claim, &WORLD.facts).expect("settlement takes what a provider hands in");
        assert_eq!(checked.close_total().is_some(), close.is_some());
        assert!(checked.close_total().is_none_or(|total| total == checked.voucher().total));
    }

    fn check_sums(&self) {
        assert_eq!(self.session.charged().micros(), self.chain.charged());
        assert_eq!(self.session.promised().micros(), self.chain.promised());
        assert!(self.chain.promised() <= self.chain.charged() && self.chain.charged() <= self.ceiling);
    }

    /// Any beginning of what was committed makes a session with the sums of that beginning, and bringing it back adds no charge.
    pub(crate) fn check_prefix(&self, choice: u8) {
        if self.log.is_empty() {
            return;
        }
        let length = 1 + usize::from(choice) % self.log.len();
        let mut chain = Chain::default();
        for record in &self.log[..length] {
            match record {
                ProviderRecord::Job(job) => chain.take_job(job),
                ProviderRecord::Receipt(receipt) => chain.take_receipt(receipt, &self.terms),
                ProviderRecord::Voucher(voucher) => chain.take_voucher(voucher, &self.terms),
                _ => {}
            }
        }
        let (session, _) = restored(&self.log[..length], self.now, self.credit);
        assert_eq!((session.charged().micros(), session.promised().micros()), (chain.charged(), chain.promised()));
    }
}

fn restored(records: &[ProviderRecord], now: Now, credit: u64) -> (ProviderSession, Vec<ProviderEffect>) {
    let keys = WORLD.provider.clone();
    let back = with_env(now, credit, u64::MAX, |env| ProviderSession::restore(records.to_vec(), &WORLD.network, keys, env));
    back.unwrap_or_else(|error| panic!("what was committed does not come back: {error}"))
}

/// A job is fit unless its arguments say otherwise.
fn with_env<T>(now: Now, credit: u64, room: u64, act: impl FnOnce(&ProviderEnv<'_>) -> T) -> T {
    let vet = |job: &Job| -> Result<(), Fault> {
        if job.arguments.is_empty() { Ok(()) } else { Err(Fault::new(orien_protocol::fault::FaultCode::BAD_ARGUMENTS, "none are taken")) }
    };
    act(&ProviderEnv {
        now,
        credit: usdc(credit),
        unredeemed_ceiling: Usdc::from_micros(room),
        redemption_grace: orien_protocol::session::REDEMPTION_GRACE,
        vet: &vet,
    })
}
