//! Runs, from the agent's side: what is asked for, what may be afforded, how long ago it was sent, and what was taken back.

use super::{AgentEffect, AgentEvent, AgentPhase, AgentRecord, AgentSession, Effects};
use crate::fault::{Fault, FaultCode};
use crate::frame::AgentFrame;
use crate::id::ExecutionId;
use crate::job::{Argument, Job, Stdin};
use crate::ledger::Account;
use crate::money::Usdc;
use crate::session::RUNS_LIMIT;
use crate::signing::Verified;
use crate::time::{Millis, Now};

/// What the caller wants to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunOrder {
    /// Made by the caller of the machine.
    pub execution: ExecutionId,
    /// Which tool.
    pub tool: String,
    /// With what.
    pub arguments: Vec<Argument>,
    /// Most it may cost; none for all that the budget still holds.
    pub max_cost: Option<Usdc>,
    /// Longest effective time.
    pub max_duration: Millis,
    /// What the tool finds on its standard input.
    pub stdin: Stdin,
}

#[derive(Clone, Debug)]
pub(super) struct Run {
    pub(super) job: Verified<Job>,
    pub(super) clock: Stopwatch,
    /// Sent on the connection that there is now.
    pub(super) offered: bool,
    /// A provider may have heard of it.
    pub(super) sent: bool,
    pub(super) cancelled: bool,
}

/// How long ago a job was sent, by every clock that can tell.
#[derive(Clone, Copy, Debug)]
pub(super) enum Stopwatch {
    /// Sent by this process, then.
    Started(Millis),
    /// Picked up after a restart: so much was receipted before, and since then so much time has passed.
    Resumed { receipted_ms: u64, at: Millis },
}

impl Run {
    /// Milliseconds since the job was sent. A monotonic clock may stop while a machine sleeps, and a wall clock may be set back, so the larger counts.
    pub(super) fn elapsed_ms(&self, now: Now) -> u64 {
        let wall = now.wall.since(self.job.issued_at).0;
        let mono = match self.clock {
            Stopwatch::Started(at) => now.mono.0.saturating_sub(at.0),
            Stopwatch::Resumed { receipted_ms, at } => receipted_ms.saturating_add(now.mono.0.saturating_sub(at.0)),
        };
        wall.max(mono)
    }
}

impl AgentSession {
    pub(super) fn tell_run(&self, execution: ExecutionId, event: AgentEvent, fx: &mut Effects) {
        if self.runs.contains_key(&execution) {
            fx.push(AgentEffect::Tell(event));
        }
    }

    /// Why a run cannot be afforded now, before anything is sent.
    pub fn check_run(&self, tool: &str, max_cost: Option<Usdc>) -> Result<(), Fault> {
        let Some(terms) = self.terms().filter(|_| self.phase == AgentPhase::Open) else {
            return Err(Fault::new(FaultCode::WRONG_STATE, "the session takes no runs"));
        };
        if self.disputed {
            return Err(Fault::new(FaultCode::BAD_RECEIPT, "the session is in dispute"));
        }
        let price = terms.price(tool).ok_or_else(|| Fault::new(FaultCode::UNKNOWN_TOOL, "the session's terms do not name this tool"))?;
        if let Some(missing) = max_cost.and_then(|cost| price.call_fee.minus(cost).ok()).filter(|missing| *missing > Usdc::ZERO) {
            return Err(Fault::new(FaultCode::BUDGET_EXHAUSTED, "maxCost does not cover the call fee").missing(missing));
        }
        let overflow = |error| Fault::new(FaultCode::BUDGET_EXHAUSTED, error);
        let meter = self.account.meter_with([]).map_err(overflow)?;
        match Account::shortfall(terms, meter, price, self.budget()).map_err(overflow)? {
            None => Ok(()),
            Some(missing) => {
                let text = "the budget does not cover the call fee and one metering interval of this tool";
                Err(Fault::new(FaultCode::BUDGET_EXHAUSTED, text).missing(missing))
            }
        }
    }

    pub(super) fn on_run(&mut self, order: RunOrder, now: Now, fx: &mut Effects) {
        let execution = order.execution;
        let refuse = |fault, fx: &mut Effects| fx.push(AgentEffect::Tell(AgentEvent::RunRefused(execution, fault)));
        if self.runs.contains_key(&execution) || self.over.contains(&execution) {
            return;
        }
        if self.runs.len().saturating_add(self.over.len()) >= RUNS_LIMIT {
            return refuse(Fault::new(FaultCode::BUSY, "the session has run too many jobs; open another"), fx);
        }
        if let Err(fault) = self.check_run(&order.tool, order.max_cost) {
            return refuse(fault, fx);
        }
        let job = Job {
            session: self.id(),
            execution,
            tool: order.tool,
            arguments: order.arguments,
            max_cost: order.max_cost.unwrap_or(self.budget()).min(self.budget()),
            max_duration: order.max_duration,
            issued_at: now.wall,
            stdin: order.stdin,
        };
        if let Err(error) = job.check() {
            return refuse(Fault::new(FaultCode::TOO_LARGE, error), fx);
        }
        let network = self.proposed_terms().agent.unverified().network.clone();
        let job = Verified::sign(job, &network, &self.keys.peer);
        fx.push(AgentEffect::Persist(Box::new(AgentRecord::Job(job.signed().clone()))));
        fx.push(AgentEffect::Send(AgentFrame::Run(Box::new(job.signed().clone()))));
        let run = Run { job, clock: Stopwatch::Started(now.mono), offered: self.connected, sent: self.connected, cancelled: false };
        self.runs.insert(execution, run);
    }

    /// Keeps no more of a run than that there was one: its arguments may be large, and a session may have many. Whether it was one that had not ended.
    pub(super) fn end_run(&mut self, execution: ExecutionId) -> bool {
        let was_running = self.runs.remove(&execution).is_some();
        if was_running {
            self.over.insert(execution);
        }
        was_running
    }

    pub(super) fn on_cancel(&mut self, execution: ExecutionId, fx: &mut Effects) {
        let Some(run) = self.runs.get_mut(&execution) else { return };
        if !std::mem::replace(&mut run.cancelled, true) {
            fx.push(AgentEffect::Persist(Box::new(AgentRecord::Cancelled(execution))));
        }
        fx.push(AgentEffect::Send(AgentFrame::Cancel(execution)));
    }

    pub(super) fn on_job_refused(&mut self, execution: ExecutionId, fault: Fault, fx: &mut Effects) {
        if !self.account.has_live(&execution) && self.end_run(execution) {
            fx.push(AgentEffect::Persist(Box::new(AgentRecord::JobRefused(execution))));
            fx.push(AgentEffect::Tell(AgentEvent::RunRefused(execution, fault)));
        }
    }
}
