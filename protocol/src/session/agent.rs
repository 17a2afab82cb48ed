//! The agent's side of a session.
//!
//! Always true: a voucher promises exactly what a checked receipt charges, and both are persisted before the voucher is sent; the promise never exceeds the allowance; a receipt is signed for
//! only if it follows from the ones before, names a job of ours, and reports no more time than our own stopwatch saw plus the tolerance. After one receipt that does not, nothing is signed any more.
//!
//! It does not know how a provider was chosen, how settlement is reached, or what an answer looks like in HTTP.

mod opening;
mod receipts;
mod release;
mod restore;
mod runs;
mod sealing;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, ChannelState, CloseReason, ProviderFrame};
use crate::hash::Hash;
use crate::id::{ExecutionId, SessionId};
use crate::job::Job;
use crate::ledger::Account;
use crate::money::Usdc;
use crate::receipt::Receipt;
use crate::session::{DRAIN_GRACE, OPENING_PATIENCE};
use crate::signing::{MoneyKey, PeerKey, Signed, Verified};
use crate::terms::{ProposedTerms, SignedTerms, Terms, VerifiedTerms};
use crate::time::{Millis, Now, Timestamp};
use crate::voucher::{Allowance, MoneyVerified, SignedAllowance, SignedClose, SignedVoucher, Voucher};

pub use super::RestoreError;
use runs::Run;
pub use runs::RunOrder;

/// The keys that an agent signs with.
#[derive(Clone, Debug)]
pub struct AgentKeys {
    /// Terms and jobs.
    pub peer: Arc<PeerKey>,
    /// Vouchers.
    pub spending: Arc<MoneyKey>,
}

/// What can happen to a session.
#[derive(Clone, Debug)]
pub enum AgentInput {
    /// The provider said something on the control stream.
    Frame(ProviderFrame),
    /// The control stream is (back) in place.
    Connected,
    /// The control stream is gone.
    Disconnected,
    /// Settlement reserved, for the opening or a top-up.
    Reserved {
        /// The ceiling that was asked for; more than that is not taken.
        asked: Usdc,
        /// Signed by settlement.
        allowance: SignedAllowance,
    },
    /// Settlement refused the opening's reservation: nothing is held.
    NotReserved(Fault),
    /// Settlement did not say whether it reserved for the opening: something may be held.
    NotAnswered(Fault),
    /// What settlement says to a close of nothing that it was handed.
    HandedBack(Result<ChannelState, Fault>),
    /// The caller wants a run.
    Run(RunOrder),
    /// The caller wants a run to stop.
    Cancel(ExecutionId),
    /// The caller ends the session.
    End,
    /// The caller goes on elsewhere: the session begins nothing new, ends, and costs no more than is set aside for it now.
    Seal,
    /// Time passed.
    Tick,
}

/// What the driver must do, in order.
#[derive(Clone, Debug)]
pub enum AgentEffect {
    /// Commit this before anything that follows.
    Persist(Box<AgentRecord>),
    /// Send this if the provider is connected.
    Send(AgentFrame),
    /// Ask settlement to reserve; the answer comes back as an input.
    Reserve {
        /// Signed by both.
        terms: Box<SignedTerms>,
        /// The budget.
        ceiling: Usdc,
    },
    /// Hand settlement this close of nothing, again until it has an answer; no question to reserve may be asked any more. The answer comes back as an input.
    HandBack {
        /// Signed by both.
        terms: Box<SignedTerms>,
        /// The payee's, of a total of zero.
        close: SignedClose,
    },
    /// Tell whoever waits for it.
    Tell(AgentEvent),
}

/// News for the caller's side.
#[derive(Clone, Debug)]
pub enum AgentEvent {
    /// The first voucher is out: runs are accepted.
    Opened,
    /// The session did not open.
    NotOpened(Fault),
    /// The budget was raised.
    ToppedUp(Usdc),
    /// The provider took a job, which waits for its turn.
    Waiting(ExecutionId),
    /// The provider started a tool.
    Started(ExecutionId, Timestamp),
    /// A job never ran.
    RunRefused(ExecutionId, Fault),
    /// A receipt was checked and answered.
    Receipt(Box<Verified<Receipt>>),
    /// The provider broke the rules; nothing is signed any more.
    Disputed(Fault),
    /// The provider would not take a voucher.
    VoucherRefused(Fault),
    /// The session is over.
    Closed(CloseReason),
}

/// What a session leaves on disk, in the order it happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum AgentRecord {
    /// Terms that we signed; written before the provider or settlement is asked.
    Proposed {
        /// Signed by us.
        terms: Signed<Terms>,
        /// The budget.
        budget: Usdc,
    },
    /// Terms that both signed, before settlement is asked.
    Agreed(SignedTerms),
    /// A reservation: the first, or one with a higher ceiling.
    Reserved(SignedAllowance),
    /// A job, before it is sent.
    Job(Signed<Job>),
    /// A run that the caller wants stopped.
    Cancelled(ExecutionId),
    /// A job that never ran.
    JobRefused(ExecutionId),
    /// A receipt and the voucher that answers it.
    Answered {
        /// Signed by the provider.
        receipt: Signed<Receipt>,
        /// Signed by us.
        voucher: SignedVoucher,
    },
    /// A receipt that does not follow; evidence.
    Disputed(Signed<Receipt>),
    /// We asked for the end.
    Ending,
    /// The session is over.
    Closed {
        /// Why.
        reason: CloseReason,
        /// The payee's close, when it sent one.
        close: Option<SignedClose>,
    },
    /// The payee's close of nothing, which came after the session was over.
    LetGo(SignedClose),
    /// Nothing is reserved any more, or nothing can be done about it.
    Released,
    /// The session is given up for another, and nothing beyond this total is signed any more.
    Sealed {
        /// In all, what was promised included.
        most: Usdc,
    },
}

/// Where a session stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentPhase {
    /// Waits for the provider's signature.
    Proposing,
    /// Waits for settlement.
    Reserving,
    /// Waits for receipt 1.
    Presenting,
    /// Takes work.
    Open,
    /// Asked for the end then.
    Ending(Millis),
    /// Over.
    Closed(CloseReason),
}

#[derive(Clone, Debug)]
enum Agreement {
    Proposed(Box<ProposedTerms>),
    Agreed(Box<VerifiedTerms>),
}

type Effects = Vec<AgentEffect>;

/// One session, as the agent sees it.
#[derive(Clone, Debug)]
pub struct AgentSession {
    keys: AgentKeys,
    agreement: Agreement,
    phase: AgentPhase,
    budget: Usdc,
    allowance: Option<MoneyVerified<Allowance>>,
    account: Account,
    voucher: Option<MoneyVerified<Voucher>>,
    /// Asked for and without a final receipt.
    runs: BTreeMap<ExecutionId, Run>,
    /// Asked for and over, in whatever way.
    over: BTreeSet<ExecutionId>,
    /// A receipt did not follow: never sign again.
    disputed: bool,
    /// Missing receipts were asked for and have not come.
    catching_up: bool,
    connected: bool,
    /// Since when the opening is waited for, as far as ticks tell.
    opening_since: Option<Millis>,
    /// The payee's close of nothing.
    let_go: Option<SignedClose>,
    /// Settlement holds nothing for this session any more, or it is too late.
    released: bool,
    /// Given up for another: nothing beyond this is signed.
    sealed: Option<Usdc>,
    /// A receipt charged more than that: nothing is signed any more.
    beyond_seal: bool,
}

impl AgentSession {
    /// The session's id.
    pub fn id(&self) -> SessionId {
        self.proposed_terms().session
    }

    /// The terms, agreed or only proposed.
    pub fn proposed_terms(&self) -> &Terms {
        match &self.agreement {
            Agreement::Proposed(proposal) => proposal.terms(),
            Agreement::Agreed(terms) => terms,
        }
    }

    /// The terms, once both have signed.
    pub fn terms(&self) -> Option<&VerifiedTerms> {
        match &self.agreement {
            Agreement::Proposed(_) => None,
            Agreement::Agreed(terms) => Some(terms),
        }
    }

    /// Where it stands.
    pub const fn phase(&self) -> AgentPhase {
        self.phase
    }

    /// Most that the session may cost.
    pub fn budget(&self) -> Usdc {
        self.allowance.map_or(self.budget, |allowance| allowance.ceiling)
    }

    /// What answered receipts charge.
    pub const fn charged(&self) -> Usdc {
        self.account.charged()
    }

    /// What our newest voucher promises.
    pub fn promised(&self) -> Usdc {
        self.voucher.as_ref().map_or(Usdc::ZERO, |voucher| voucher.total)
    }

    /// What the session can no longer use: budget less promise, or less what was set aside when it was given up for another; the most that a successor may be given.
    pub fn unused(&self) -> Usdc {
        self.budget().excess_over(self.sealed.unwrap_or(self.promised()))
    }

    /// Whether the provider broke the rules.
    pub const fn is_disputed(&self) -> bool {
        self.disputed
    }

    /// Executions without a final receipt.
    pub fn unfinished(&self) -> impl Iterator<Item = ExecutionId> + '_ {
        self.runs.keys().copied()
    }

    /// Takes one input and says what to do.
    pub fn handle(&mut self, input: AgentInput, now: Now) -> Vec<AgentEffect> {
        let mut fx = Effects::new();
        match input {
            AgentInput::Frame(frame) => self.on_frame(frame, now, &mut fx),
            AgentInput::Connected => self.on_connected(now, &mut fx),
            AgentInput::Disconnected => {
                self.connected = false;
                if matches!(self.phase, AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting) {
                    self.fail_opening(Fault::new(FaultCode::INTERNAL, "the provider hung up while the session was opening"), &mut fx);
                }
            }
            AgentInput::Reserved { asked, allowance } => self.on_reserved(asked, allowance, &mut fx),
            AgentInput::NotReserved(fault) => self.on_not_reserved(fault, &mut fx),
            AgentInput::NotAnswered(fault) => self.fail_opening(fault, &mut fx),
            AgentInput::HandedBack(answer) => self.on_handed_back(answer, &mut fx),
            AgentInput::Run(order) => self.on_run(order, now, &mut fx),
            AgentInput::Cancel(execution) => self.on_cancel(execution, &mut fx),
            AgentInput::End => self.on_end(now, &mut fx),
            AgentInput::Seal => self.on_seal(now, &mut fx),
            AgentInput::Tick => self.on_tick(now, &mut fx),
        }
        fx
    }

    fn on_frame(&mut self, frame: ProviderFrame, now: Now, fx: &mut Effects) {
        match frame {
            ProviderFrame::Accepted(signature) => self.on_accepted(signature, fx),
            ProviderFrame::Refused(fault) => self.on_refused(fault.tamed(), fx),
            ProviderFrame::Receipt(receipt) => self.on_receipt(*receipt, now, fx),
            ProviderFrame::Waiting(execution) => self.tell_run(execution, AgentEvent::Waiting(execution), fx),
            ProviderFrame::Started { execution, at } => self.tell_run(execution, AgentEvent::Started(execution, at), fx),
            ProviderFrame::JobRefused { execution, fault } => self.on_job_refused(execution, fault.tamed(), fx),
            ProviderFrame::Resumed { head } => self.on_resumed(head, fx),
            ProviderFrame::VoucherRefused(fault) => fx.push(AgentEffect::Tell(AgentEvent::VoucherRefused(fault.tamed()))),
            ProviderFrame::Closed { reason, close } => self.on_closed(reason, close, fx),
        }
    }

    fn on_end(&mut self, now: Now, fx: &mut Effects) {
        match self.phase {
            AgentPhase::Open | AgentPhase::Presenting => {
                self.phase = AgentPhase::Ending(now.mono);
                fx.push(AgentEffect::Persist(Box::new(AgentRecord::Ending)));
                fx.push(AgentEffect::Send(AgentFrame::End));
            }
            AgentPhase::Proposing | AgentPhase::Reserving => {
                self.fail_opening(Fault::new(FaultCode::CANCELLED, "ended before it opened"), fx)
            }
            AgentPhase::Ending(_) | AgentPhase::Closed(_) => {}
        }
    }

    fn on_tick(&mut self, now: Now, fx: &mut Effects) {
        let over = now.wall >= self.proposed_terms().work_until.timestamp();
        let passed = |since: Millis, span: Millis| now.mono.0.saturating_sub(since.0) >= span.0;
        match self.phase {
            AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting => {
                let since = *self.opening_since.get_or_insert(now.mono);
                if over || passed(since, OPENING_PATIENCE) {
                    self.fail_opening(Fault::new(FaultCode::INTERNAL, "the opening was not answered in time"), fx);
                }
            }
            AgentPhase::Open if over => self.on_end(now, fx),
            // Without a connection the provider may hold receipts that we owe an answer to: until they can no longer be redeemed.
            AgentPhase::Ending(since) => {
                let hopeless = now.wall >= self.proposed_terms().redeem_until.timestamp();
                let unanswered = passed(since, DRAIN_GRACE) && (self.connected || self.disputed);
                if hopeless || unanswered {
                    self.close(if over { CloseReason::Expired } else { CloseReason::Ended }, None, fx);
                }
            }
            AgentPhase::Closed(_) => self.give_up_release(now, fx),
            AgentPhase::Open => {}
        }
    }

    fn on_closed(&mut self, reason: CloseReason, close: Option<SignedClose>, fx: &mut Effects) {
        if self.terms().is_none() || matches!(self.phase, AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting) {
            let text = format!("the provider closed the session before it opened: {}", reason.name());
            return self.fail_opening_with(Fault::new(FaultCode::SESSION_ENDED, text), close, fx);
        }
        if matches!(self.phase, AgentPhase::Closed(_)) {
            return self.on_let_go(close, fx);
        }
        let close = close.filter(|close| self.is_our_close(close) || self.is_close_of_nothing(close));
        self.close(reason, close, fx);
    }

    /// A close counts as such only if the payee signed it for what we promised.
    fn is_our_close(&self, close: &SignedClose) -> bool {
        let Some(terms) = self.terms() else { return false };
        let checked = close.verify(&terms.domain, &terms.claim_key());
        checked.is_ok_and(|close| close.channel == terms.channel() && close.total == self.promised())
    }

    fn close(&mut self, reason: CloseReason, close: Option<SignedClose>, fx: &mut Effects) {
        if matches!(self.phase, AgentPhase::Closed(_)) {
            return;
        }
        self.phase = AgentPhase::Closed(reason);
        self.let_go = close.filter(|close| self.is_close_of_nothing(close));
        fx.push(AgentEffect::Persist(Box::new(AgentRecord::Closed { reason, close })));
        fx.push(AgentEffect::Tell(AgentEvent::Closed(reason)));
        self.hand_back(fx);
    }

    fn on_connected(&mut self, now: Now, fx: &mut Effects) {
        // The provider has its time from now on: what it owes us an answer for, or we it, could not be said before.
        if let AgentPhase::Ending(since) = &mut self.phase {
            *since = now.mono;
        }
        self.catching_up = false;
        self.connected = true;
        for run in self.runs.values_mut() {
            run.offered = false;
        }
        if self.account.head().0 > 0 {
            let (head, head_hash) = self.account.head();
            fx.push(AgentEffect::Send(AgentFrame::Resume { session: self.id(), head, head_hash }));
        } else {
            self.ask_to_let_go(fx);
        }
    }

    fn on_resumed(&mut self, head: u64, fx: &mut Effects) {
        self.catching_up = false;
        let own: (u64, Hash) = self.account.head();
        // A voucher that was lost on the way is sent again; so are jobs and a wish to end.
        if own.0 >= head
            && let Some(voucher) = &self.voucher
        {
            fx.push(AgentEffect::Send(AgentFrame::Voucher(*voucher.signed())));
        }
        // The end goes first, so that no job starts only to be killed.
        if matches!(self.phase, AgentPhase::Ending(_)) {
            fx.push(AgentEffect::Send(AgentFrame::End));
        } else if let Some(allowance) = &self.allowance {
            fx.push(AgentEffect::Send(AgentFrame::Present(*allowance.signed())));
        }
        for (execution, run) in &mut self.runs {
            if run.cancelled {
                fx.push(AgentEffect::Send(AgentFrame::Cancel(*execution)));
            } else if !std::mem::replace(&mut run.offered, true) && !self.account.has_live(execution) {
                run.sent = true;
                fx.push(AgentEffect::Send(AgentFrame::Run(Box::new(run.job.signed().clone()))));
            }
        }
    }
}
