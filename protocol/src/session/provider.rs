//! The provider's side of a session.
//!
//! Always true: a receipt is persisted before it is sent; what receipts charge never exceeds the allowance, nor what was promised plus the credit; no tool runs before
//! the first voucher; nothing is started after `work_until`. An execution that a crash interrupted ends at its last committed receipt.
//!
//! It does not know how tools run (an executor reports usage), how other sessions stand (the driver passes the credit in), or whether an argument fits a tool (a function passed in says so).

mod letting_go;
mod metering;
mod opening;
mod restore;
mod runs;

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, Claim, CloseReason, ProviderFrame};
use crate::hash::Hash;
use crate::id::ExecutionId;
use crate::job::Job;
use crate::ledger::Account;
use crate::money::{Price, Usdc};
use crate::receipt::{EndReason, Receipt, Usage};
use crate::session::{AGENT_GONE, DRAIN_GRACE, VOUCHER_GRACE};
use crate::signing::{MoneyKey, PeerKey, Signed, Verified};
use crate::terms::{SignedTerms, VerifiedTerms};
use crate::time::{Millis, Now, UnixSeconds};
use crate::voucher::{Allowance, Close, MoneyVerified, SignedAllowance, SignedClose, SignedVoucher, Voucher};

pub use super::RestoreError;
pub use letting_go::let_go;

/// The keys that a provider signs with.
#[derive(Clone, Debug)]
pub struct ProviderKeys {
    /// Receipts and terms.
    pub peer: Arc<PeerKey>,
    /// Closes.
    pub claim: Arc<MoneyKey>,
}

/// What the driver knows at one turn.
pub struct ProviderEnv<'a> {
    /// The clocks.
    pub now: Now,
    /// Most unvouchered charge this session may have now (see [`crate::credit::CreditBook::credit`]).
    pub credit: Usdc,
    /// How far this session's charge may go before something must be redeemed (see [`crate::credit::CreditBook::unredeemed_ceiling`]).
    pub unredeemed_ceiling: Usdc,
    /// How long paused work waits for a redemption (see [`crate::session::redemption_grace`]).
    pub redemption_grace: Millis,
    /// Whether a job fits its tool.
    pub vet: &'a dyn Fn(&Job) -> Result<(), Fault>,
}

impl std::fmt::Debug for ProviderEnv<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ProviderEnv").field("now", &self.now).field("credit", &self.credit).finish_non_exhaustive()
    }
}

/// What can happen to a session.
#[derive(Clone, Debug)]
pub enum ProviderInput {
    /// The agent said something on the control stream.
    Frame(AgentFrame),
    /// The agent's control stream is gone.
    Disconnected,
    /// The executor started a tool.
    Started(ExecutionId),
    /// A running tool's usage, now.
    Progress(ExecutionId, Usage),
    /// A tool ended.
    Ended {
        /// Which execution.
        execution: ExecutionId,
        /// Its final usage.
        usage: Usage,
        /// Why it ended, unless the machine itself asked for the end.
        end: EndReason,
        /// The tool's exit code, if it ran.
        exit_code: Option<i32>,
    },
    /// Time passed.
    Tick,
    /// The node is stopping.
    Stop,
}

/// What the driver must do, in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ProviderEffect {
    /// Commit this before anything that follows.
    Persist(Box<ProviderRecord>),
    /// Send this if the agent is connected.
    Send(ProviderFrame),
    /// Send every stored receipt after this number.
    SendReceiptsAfter(u64),
    /// Start a tool.
    Start {
        /// The agent's job.
        job: Box<Job>,
        /// Kill it after this much effective time at the latest.
        limit: Millis,
    },
    /// Stop a tool's processes for now; the time does not count.
    Pause(ExecutionId),
    /// Let them go on.
    Unpause(ExecutionId),
    /// Kill a tool.
    Kill(ExecutionId),
    /// Have settlement redeem this.
    HandIn(Box<Claim>),
    /// Remove the workspace and free the place; the session takes no work any more.
    Release(CloseReason),
}

/// What a session leaves on disk, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[expect(clippy::large_enum_variant, reason = "effects carry records boxed, and a list of them is short-lived")]
pub enum ProviderRecord {
    /// Terms and reservation.
    Opened {
        /// Signed by both.
        terms: SignedTerms,
        /// Signed by settlement.
        allowance: SignedAllowance,
    },
    /// A reservation with a higher ceiling.
    ToppedUp(SignedAllowance),
    /// A job that was taken.
    Job(Signed<Job>),
    /// A taken job that never ran.
    JobDropped(ExecutionId),
    /// What happened.
    Receipt(Signed<Receipt>),
    /// What the agent promised.
    Voucher(SignedVoucher),
    /// The session takes no more work.
    Draining(CloseReason),
    /// The session is over; with the payee's close when nothing is owed.
    Closed {
        /// Why.
        reason: CloseReason,
        /// Signed by the claim key.
        close: Option<SignedClose>,
    },
    /// The session will never be opened; alone in its session, and written before a close of nothing is signed for it.
    GivenUp {
        /// Until when a close of it means something.
        redeem_until: UnixSeconds,
    },
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProviderPhase {
    /// Countersigned; waits for the allowance until then.
    Proposed(Millis),
    /// Receipt 1 is out; waits for its voucher until then.
    Unpaid(Millis),
    /// Takes work.
    Open,
    /// Takes no more work and waits for vouchers since then.
    Draining(CloseReason, Millis),
    /// Released, and something is still owed.
    Owing(CloseReason),
    /// Over.
    Closed(CloseReason),
}

#[derive(Clone, Debug)]
enum Run {
    /// Since when on the monotonic clock.
    Waiting(Box<Verified<Job>>, Millis),
    Running {
        job: Box<Verified<Job>>,
        price: Price,
        usage: Usage,
        kill: Option<EndReason>,
        paused: bool,
    },
}

impl Run {
    const fn job_hash(&self) -> Hash {
        match self {
            Self::Waiting(job, _) | Self::Running { job, .. } => job.hash(),
        }
    }
}

/// What became of a job, with its content id.
#[derive(Clone, Copy, Debug)]
enum Over {
    /// Given back without having run.
    Dropped(Hash),
    Ended(Hash),
}

impl Over {
    const fn job_hash(self) -> Hash {
        match self {
            Self::Dropped(hash) | Self::Ended(hash) => hash,
        }
    }
}

/// What paused work waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    /// The agent's next voucher.
    Voucher,
    /// Settlement, to redeem what was promised.
    Redemption,
}

type Effects = Vec<ProviderEffect>;

/// One session, as the provider sees it.
#[derive(Clone, Debug)]
pub struct ProviderSession {
    keys: ProviderKeys,
    terms: VerifiedTerms,
    phase: ProviderPhase,
    allowance: Option<MoneyVerified<Allowance>>,
    account: Account,
    voucher: Option<MoneyVerified<Voucher>>,
    /// The receipt that the newest voucher names; evidence for a claim.
    vouched: Option<Signed<Receipt>>,
    /// Receipts without a voucher: number to receipt.
    unanswered: BTreeMap<u64, Verified<Receipt>>,
    /// Jobs that wait or run: what is looked through at every turn.
    runs: BTreeMap<ExecutionId, Run>,
    /// The others, which are only looked up.
    over: BTreeMap<ExecutionId, Over>,
    waiting: VecDeque<ExecutionId>,
    /// What ended runs worked beyond what could be charged for want of credit. It is never charged, and counts as unvouchered until every receipt is answered: else whoever does not
    /// sign would be given one more look's worth of work with every run that ends.
    written_off: Usdc,
    /// Since when work is paused, and for want of what.
    short_since: Option<(Want, Millis)>,
    gone_since: Option<Millis>,
    /// Restored with receipt 1 and without a voucher: its agent may have signed one, and has a while to say so.
    may_be_paid: bool,
}

impl ProviderSession {
    /// The terms.
    pub const fn terms(&self) -> &VerifiedTerms {
        &self.terms
    }

    /// Where it stands.
    pub const fn phase(&self) -> ProviderPhase {
        self.phase
    }

    /// Whether the driver may forget it: released and nothing owed.
    pub const fn is_over(&self) -> bool {
        matches!(self.phase, ProviderPhase::Closed(_))
    }

    /// Whether the workspace and the place are given back.
    pub const fn is_released(&self) -> bool {
        matches!(self.phase, ProviderPhase::Closed(_) | ProviderPhase::Owing(_))
    }

    /// What receipts charge.
    pub const fn charged(&self) -> Usdc {
        self.account.charged()
    }

    /// What the newest voucher promises.
    pub fn promised(&self) -> Usdc {
        self.voucher.as_ref().map_or(Usdc::ZERO, |voucher| voucher.total)
    }

    /// Charge without a voucher, running work included: the provider's exposure. Before the first voucher no work was done, so nothing is at risk.
    pub fn unvouchered(&self) -> Usdc {
        if self.voucher.is_none() { Usdc::ZERO } else { self.ahead(self.live_charge()) }
    }

    /// By how much a charge, with what was written off, is ahead of what is promised.
    fn ahead(&self, charge: Usdc) -> Usdc {
        // What can still be asked for, once nothing runs any more.
        let written_off = if self.is_released() { Usdc::ZERO } else { self.written_off };
        charge.plus(written_off).unwrap_or(Usdc::from_micros(u64::MAX)).excess_over(self.promised())
    }

    /// Executions that run now.
    pub fn running(&self) -> impl Iterator<Item = ExecutionId> + '_ {
        self.runs.iter().filter(|(_, run)| matches!(run, Run::Running { .. })).map(|(id, _)| *id)
    }

    /// Whether and with what job an execution id was used.
    fn job_hash(&self, execution: &ExecutionId) -> Option<Hash> {
        self.runs.get(execution).map(Run::job_hash).or_else(|| self.over.get(execution).map(|over| over.job_hash()))
    }

    /// A job neither waits nor runs any more; whether it did.
    fn put_away(&mut self, execution: ExecutionId, how: fn(Hash) -> Over) -> bool {
        let run = self.runs.remove(&execution);
        if let Some(run) = &run {
            self.over.insert(execution, how(run.job_hash()));
        }
        run.is_some()
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: ProviderInput, env: &ProviderEnv<'_>) -> Vec<ProviderEffect> {
        let mut fx = Effects::new();
        match input {
            ProviderInput::Frame(frame) => self.on_frame(frame, env, &mut fx),
            ProviderInput::Disconnected => self.gone_since = Some(env.now.mono),
            ProviderInput::Started(execution) => fx.push(ProviderEffect::Send(ProviderFrame::Started { execution, at: env.now.wall })),
            ProviderInput::Progress(execution, usage) => self.on_progress(execution, usage, env, &mut fx),
            ProviderInput::Ended { execution, usage, end, exit_code } => self.on_ended(execution, usage, end, exit_code, env, &mut fx),
            ProviderInput::Tick => self.on_tick(env, &mut fx),
            ProviderInput::Stop => self.drain(CloseReason::ProviderStopped, EndReason::ProviderStopped, env, &mut fx),
        }
        fx
    }

    fn on_frame(&mut self, frame: AgentFrame, env: &ProviderEnv<'_>, fx: &mut Effects) {
        self.gone_since = None;
        match frame {
            AgentFrame::Propose(_) => fx.push(refused(FaultCode::CONFLICT, "the session was already proposed")),
            AgentFrame::Present(allowance) => self.on_allowance(allowance, env, fx),
            AgentFrame::Run(job) => self.on_run(*job, env, fx),
            AgentFrame::Cancel(execution) => self.on_cancel(execution, fx),
            AgentFrame::Voucher(voucher) => self.on_voucher(voucher, env, fx),
            AgentFrame::End => self.on_end(env, fx),
            AgentFrame::Resume { head, head_hash, .. } => self.on_resume(head, head_hash, fx),
            AgentFrame::LetGo(terms) => self.on_let_go(&terms, env, fx),
        }
    }

    fn on_voucher(&mut self, signed: SignedVoucher, env: &ProviderEnv<'_>, fx: &mut Effects) {
        if self.is_over() {
            return;
        }
        let voucher = match self.check_voucher(signed) {
            Ok(Some(voucher)) => voucher,
            Ok(None) => return,
            Err(fault) => return fx.push(ProviderEffect::Send(ProviderFrame::VoucherRefused(fault))),
        };
        fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Voucher(*voucher.signed()))));
        self.take_voucher(voucher);
        if matches!(self.phase, ProviderPhase::Unpaid(_)) {
            self.phase = ProviderPhase::Open;
        }
        self.settle_up(env, fx);
    }

    /// A voucher that moves the promise; none for one that is old news.
    fn check_voucher(&self, signed: SignedVoucher) -> Result<Option<MoneyVerified<Voucher>>, Fault> {
        let voucher =
            signed.verify(&self.terms.domain, &self.terms.spending_key()).map_err(|error| Fault::new(FaultCode::BAD_SIGNATURE, error))?;
        if voucher.channel != self.terms.channel() {
            return Err(Fault::new(FaultCode::BAD_VOUCHER, "the voucher is for another channel"));
        }
        if self.voucher.as_ref().is_some_and(|held| voucher.rank() <= held.rank()) {
            return Ok(None);
        }
        match self.unanswered.get(&voucher.receipt_number) {
            Some(receipt) if receipt.hash() == voucher.receipt_hash && receipt.charged == voucher.total => Ok(Some(voucher)),
            Some(_) => Err(Fault::new(FaultCode::BAD_VOUCHER, "the voucher's total or hash differs from the receipt it names")),
            None => Err(Fault::new(FaultCode::BAD_VOUCHER, "the voucher names a receipt that was not issued or is already answered")),
        }
    }

    fn take_voucher(&mut self, voucher: MoneyVerified<Voucher>) {
        let number = voucher.receipt_number;
        self.vouched = self.unanswered.get(&number).map(|receipt| receipt.signed().clone());
        self.unanswered = self.unanswered.split_off(&number.saturating_add(1));
        self.voucher = Some(voucher);
        if self.unanswered.is_empty() {
            self.written_off = Usdc::ZERO;
        }
    }

    /// After anything that may free credit or end the last run: unpause, start what waits, or close.
    fn settle_up(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        // Work that ran ahead is receipted piece by piece, as far as each voucher lets it.
        self.issue_interim(env, fx);
        if self.may_go_on(env) {
            self.unpause(fx);
        } else if self.short_since.is_some() {
            self.note_want(env);
        }
        self.start_waiting(env, fx);
        self.close_if_done(env, fx);
    }

    /// Nothing is owed: every receipt is answered, or no work was ever done.
    fn is_settled(&self) -> bool {
        self.unanswered.is_empty() || self.voucher.is_none()
    }

    fn close_if_done(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let (reason, released) = match self.phase {
            ProviderPhase::Draining(reason, since) => {
                if self.running().next().is_some() {
                    return;
                }
                let waited = env.now.mono.0.saturating_sub(since.0) >= DRAIN_GRACE.0;
                let hopes = self.may_be_paid && self.voucher.is_none();
                if (hopes || !self.is_settled()) && !waited {
                    return;
                }
                (reason, false)
            }
            ProviderPhase::Owing(reason) => (reason, true),
            _ => return,
        };
        let close = self.is_settled().then(|| {
            let close = Close { channel: self.terms.channel(), total: self.promised() };
            *MoneyVerified::sign(close, &self.terms.domain, &self.keys.claim).signed()
        });
        if close.is_none() && released {
            return;
        }
        fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Closed { reason, close })));
        fx.push(ProviderEffect::Send(ProviderFrame::Closed { reason, close }));
        self.phase = if close.is_some() { ProviderPhase::Closed(reason) } else { ProviderPhase::Owing(reason) };
        if let Some(claim) = self.claim(close) {
            fx.push(ProviderEffect::HandIn(Box::new(claim)));
        }
        if !released {
            fx.push(ProviderEffect::Release(reason));
        }
    }

    /// Everything settlement needs to redeem what was promised so far; none before the first voucher.
    pub fn claim(&self, close: Option<SignedClose>) -> Option<Claim> {
        Some(Claim {
            terms: self.terms.to_signed(),
            allowance: *self.allowance?.signed(),
            voucher: *self.voucher?.signed(),
            receipt: self.vouched.clone()?,
            close,
        })
    }

    /// Takes no more work: drops what waits, kills what runs, waits for vouchers.
    fn drain(&mut self, reason: CloseReason, end: EndReason, env: &ProviderEnv<'_>, fx: &mut Effects) {
        match self.phase {
            ProviderPhase::Proposed(_) => {
                self.phase = ProviderPhase::Closed(reason);
                fx.push(ProviderEffect::Send(ProviderFrame::Closed { reason, close: None }));
                fx.push(ProviderEffect::Release(reason));
            }
            ProviderPhase::Unpaid(_) | ProviderPhase::Open => {
                self.phase = ProviderPhase::Draining(reason, env.now.mono);
                fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Draining(reason))));
                for execution in std::mem::take(&mut self.waiting) {
                    self.drop_job(execution, Fault::new(FaultCode::SESSION_ENDED, "the session ended before the job's turn came"), fx);
                }
                self.kill_all(end, fx);
                self.close_if_done(env, fx);
            }
            ProviderPhase::Draining(..) | ProviderPhase::Owing(_) | ProviderPhase::Closed(_) => {}
        }
    }

    fn on_end(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        match self.phase {
            ProviderPhase::Closed(reason) | ProviderPhase::Owing(reason) => {
                fx.push(ProviderEffect::Send(ProviderFrame::Closed { reason, close: None }))
            }
            _ => self.drain(CloseReason::Ended, EndReason::SessionEnded, env, fx),
        }
    }

    fn on_resume(&mut self, head: u64, head_hash: Hash, fx: &mut Effects) {
        let (own, own_hash) = self.account.head();
        let known = if head == own { Some(own_hash) } else { self.unanswered.get(&head).map(Verified::hash) };
        if head > own || known.is_some_and(|hash| hash != head_hash) {
            return fx.push(refused(FaultCode::HISTORY_LOST, "the agent holds receipts that this provider did not keep"));
        }
        fx.push(ProviderEffect::Send(ProviderFrame::Resumed { head: own }));
        fx.push(ProviderEffect::SendReceiptsAfter(head));
        if let ProviderPhase::Closed(reason) = self.phase {
            let close = Close { channel: self.terms.channel(), total: self.promised() };
            let close = Some(*MoneyVerified::sign(close, &self.terms.domain, &self.keys.claim).signed());
            fx.push(ProviderEffect::Send(ProviderFrame::Closed { reason, close }));
        }
    }

    fn on_tick(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let now = env.now.mono;
        match self.phase {
            ProviderPhase::Proposed(until) if now >= until => self.drain(CloseReason::NotOpened, EndReason::SessionEnded, env, fx),
            ProviderPhase::Unpaid(until) if now >= until => self.drain(CloseReason::NotSigned, EndReason::SessionEnded, env, fx),
            ProviderPhase::Open if env.now.wall >= self.terms.work_until.timestamp() => {
                self.drain(CloseReason::Expired, EndReason::SessionEnded, env, fx)
            }
            ProviderPhase::Open => self.on_tick_open(now, env, fx),
            ProviderPhase::Draining(..) => self.close_if_done(env, fx),
            _ => {}
        }
    }

    fn on_tick_open(&mut self, now: Millis, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let passed = |since: Option<Millis>, grace: Millis| since.is_some_and(|since| now.0.saturating_sub(since.0) >= grace.0);
        let short = |want: Want| self.short_since.filter(|(wanted, _)| *wanted == want).map(|(_, since)| since);
        if passed(short(Want::Voucher), VOUCHER_GRACE) {
            self.drain(CloseReason::NotSigned, EndReason::CreditExhausted, env, fx);
        } else if passed(short(Want::Redemption), env.redemption_grace) {
            self.drain(CloseReason::Unredeemed, EndReason::Unredeemed, env, fx);
        } else if passed(self.gone_since, AGENT_GONE) && self.running().next().is_none() {
            self.drain(CloseReason::AgentGone, EndReason::SessionEnded, env, fx);
        } else {
            self.settle_up(env, fx);
            self.give_up_first_waiting(env, fx);
        }
    }
}

fn refused(code: FaultCode, text: &str) -> ProviderEffect {
    ProviderEffect::Send(ProviderFrame::Refused(Fault::new(code, text)))
}
