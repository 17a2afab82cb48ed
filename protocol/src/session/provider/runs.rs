//! Jobs: taken, waiting, started, cancelled.

use super::{Effects, Over, ProviderEffect, ProviderEnv, ProviderPhase, ProviderRecord, ProviderSession, Run};
use crate::fault::{Fault, FaultCode};
use crate::frame::ProviderFrame;
use crate::id::ExecutionId;
use crate::job::Job;
use crate::ledger::Account;
use crate::money::{AmountOverflow, Meter, Price, Usdc};
use crate::receipt::{EndReason, Usage};
use crate::session::{RUNS_LIMIT, UNANSWERED_LIMIT, VOUCHER_GRACE, WAITING_LIMIT};
use crate::signing::{Signed, Verified};
use crate::time::Millis;

impl ProviderSession {
    pub(super) fn on_run(&mut self, signed: Signed<Job>, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let execution = signed.unverified().execution;
        match self.check_job(signed, env) {
            Ok(Some(job)) => {
                fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Job(job.signed().clone()))));
                fx.push(ProviderEffect::Send(ProviderFrame::Waiting(execution)));
                self.runs.insert(execution, Run::Waiting(Box::new(job), env.now.mono));
                self.waiting.push_back(execution);
                self.settle_up(env, fx);
            }
            Ok(None) => self.repeat_state(execution, env, fx),
            Err(fault) => fx.push(ProviderEffect::Send(ProviderFrame::JobRefused { execution, fault })),
        }
    }

    /// A job to take; none when it was taken before.
    fn check_job(&self, signed: Signed<Job>, env: &ProviderEnv<'_>) -> Result<Option<Verified<Job>>, Fault> {
        let fault = |code, text: &str| Err(Fault::new(code, text));
        let job = signed.verify(self.terms.network(), &self.terms.agent()).map_err(|e| Fault::new(FaultCode::BAD_SIGNATURE, e))?;
        if job.session != self.terms.session {
            return fault(FaultCode::NOT_YOURS, "the job names another session");
        }
        if let Some(known) = self.job_hash(&job.execution) {
            let same = known == job.hash();
            return if same { Ok(None) } else { fault(FaultCode::CONFLICT, "this execution id was used for another job") };
        }
        match self.phase {
            ProviderPhase::Open => {}
            ProviderPhase::Proposed(_) | ProviderPhase::Unpaid(_) => {
                return fault(FaultCode::WRONG_STATE, "the first voucher has not come");
            }
            _ => return fault(FaultCode::SESSION_ENDED, "the session takes no work any more"),
        }
        if env.now.wall >= self.terms.work_until.timestamp() {
            return fault(FaultCode::SESSION_ENDED, "the session's time is over");
        }
        if self.waiting.len() >= WAITING_LIMIT || self.runs.len().saturating_add(self.over.len()) >= RUNS_LIMIT {
            return fault(FaultCode::BUSY, "too many jobs wait in this session, or it has run too many");
        }
        job.check().map_err(|error| Fault::new(FaultCode::TOO_LARGE, error))?;
        let Some(price) = self.terms.price(&job.tool) else {
            return fault(FaultCode::UNKNOWN_TOOL, "the session's terms do not name this tool");
        };
        (env.vet)(&job)?;
        self.check_money(&job, price, env)?;
        Ok(Some(job))
    }

    fn check_money(&self, job: &Job, price: Price, env: &ProviderEnv<'_>) -> Result<(), Fault> {
        let overflow = |error| Fault::new(FaultCode::BUDGET_EXHAUSTED, error);
        if self.room(env) == Usdc::ZERO {
            return Err(Fault::new(
                FaultCode::UNREDEEMED,
                "too much of this account waits for redemption; try again when settlement has answered",
            ));
        }
        if job.max_cost < price.call_fee {
            let missing = price.call_fee.excess_over(job.max_cost);
            return Err(Fault::new(FaultCode::BUDGET_EXHAUSTED, "maxCost does not cover the call fee").missing(missing));
        }
        let mut meter = self.live_meter().map_err(overflow)?;
        for execution in &self.waiting {
            if let Some(Run::Waiting(job, _)) = self.runs.get(execution) {
                meter.add(self.terms.price(&job.tool).unwrap_or_default(), 0).map_err(overflow)?;
            }
        }
        self.check_budget(Ok(meter), price)
    }

    /// Whether the budget covers the call fee and one interval of a run on top of `meter`.
    fn check_budget(&self, meter: Result<Meter, AmountOverflow>, price: Price) -> Result<(), Fault> {
        let missing = meter.and_then(|meter| Account::shortfall(&self.terms, meter, price, self.ceiling()));
        match missing.map_err(|error| Fault::new(FaultCode::BUDGET_EXHAUSTED, error))? {
            None => Ok(()),
            Some(missing) => {
                let text = "the budget does not cover the call fee and one metering interval of this tool";
                Err(Fault::new(FaultCode::BUDGET_EXHAUSTED, text).missing(missing))
            }
        }
    }

    fn repeat_state(&self, execution: ExecutionId, env: &ProviderEnv<'_>, fx: &mut Effects) {
        match self.runs.get(&execution) {
            Some(Run::Waiting(..)) => fx.push(ProviderEffect::Send(ProviderFrame::Waiting(execution))),
            Some(Run::Running { .. }) => fx.push(ProviderEffect::Send(ProviderFrame::Started { execution, at: env.now.wall })),
            None if matches!(self.over.get(&execution), Some(Over::Dropped(_))) => fx.push(given_back(execution)),
            None => {}
        }
    }

    /// Starts jobs in order while there is a place and credit for their call fee.
    pub(super) fn start_waiting(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        // Nothing new while too much waits for redemption; what runs may end. Nor after the time for work, which a tick will notice.
        if self.room(env) == Usdc::ZERO || env.now.wall >= self.terms.work_until.timestamp() {
            return;
        }
        while self.phase == ProviderPhase::Open
            && self.short_since.is_none()
            && self.running().count() < usize::from(self.terms.runs_at_once)
        {
            let Some(execution) = self.waiting.front().copied() else { return };
            let Some(Run::Waiting(job, _)) = self.runs.get(&execution) else { return };
            let (job, price) = (job.clone(), self.terms.price(&job.tool).unwrap_or_default());
            if self.unanswered.len() >= UNANSWERED_LIMIT || !self.fee_within_credit(execution, price, self.lead(env)) {
                return;
            }
            self.waiting.pop_front();
            // Others may have used the budget up while it waited.
            if let Err(fault) = self.check_budget(self.live_meter(), price) {
                self.drop_job(execution, fault, fx);
                continue;
            }
            let limit = time_limit(&job, price);
            fx.push(ProviderEffect::Start { job: Box::new((**job).clone()), limit });
            let run = Run::Running { job, price, usage: Usage::default(), kill: None, paused: false };
            self.runs.insert(execution, run);
        }
    }

    fn fee_within_credit(&self, execution: ExecutionId, price: Price, credit: Usdc) -> bool {
        let meter = self.account.meter_with(self.live_times().chain([(execution, price, 0)]));
        let charge = meter.and_then(|meter| self.terms.charge(&meter));
        charge.is_ok_and(|charge| self.ahead(charge) <= credit)
    }

    /// Gives back a job that credit cannot start although nothing runs and nothing is unanswered: no voucher will come that changes it.
    pub(super) fn give_up_first_waiting(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let Some(execution) = self.waiting.front().copied() else { return };
        let Some(Run::Waiting(_, since)) = self.runs.get(&execution) else { return };
        let waited = env.now.mono.0.saturating_sub(since.0) >= VOUCHER_GRACE.0;
        if waited && self.room(env) > Usdc::ZERO && self.unanswered.is_empty() && self.running().next().is_none() {
            self.waiting.pop_front();
            let text = "the tool's call fee is above the credit that this account has here now: it grows with what is redeemed, and all sessions of the account share it";
            self.drop_job(execution, Fault::new(FaultCode::BUSY, text), fx);
        }
    }

    pub(super) fn on_cancel(&mut self, execution: ExecutionId, fx: &mut Effects) {
        match self.runs.get(&execution) {
            Some(Run::Waiting(..)) => {
                self.waiting.retain(|id| *id != execution);
                self.drop_job(execution, Fault::new(FaultCode::CANCELLED, "cancelled before its turn came"), fx);
            }
            Some(Run::Running { .. }) => self.kill(execution, EndReason::Cancelled, fx),
            None if matches!(self.over.get(&execution), Some(Over::Ended(_))) => {}
            // Taken back before it arrived, or given back already.
            None => fx.push(given_back(execution)),
        }
    }

    /// Gives a waiting job back: it never ran and costs nothing.
    pub(super) fn drop_job(&mut self, execution: ExecutionId, fault: Fault, fx: &mut Effects) {
        if self.put_away(execution, Over::Dropped) {
            fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::JobDropped(execution))));
            fx.push(ProviderEffect::Send(ProviderFrame::JobRefused { execution, fault }));
        }
    }

    pub(super) fn kill(&mut self, execution: ExecutionId, reason: EndReason, fx: &mut Effects) {
        if let Some(Run::Running { kill, .. }) = self.runs.get_mut(&execution)
            && kill.is_none()
        {
            *kill = Some(reason);
            fx.push(ProviderEffect::Kill(execution));
        }
    }

    pub(super) fn kill_all(&mut self, reason: EndReason, fx: &mut Effects) {
        for execution in self.running().collect::<Vec<_>>() {
            self.kill(execution, reason, fx);
        }
    }
}

/// The least of what job and maximum cost allow. The budget is not in it: it may grow while the tool runs, and is watched with every tick.
fn time_limit(job: &Job, price: Price) -> Millis {
    let by_cost = Meter::default().affordable_ms(price, Usdc::ZERO, job.max_cost).unwrap_or(0);
    Millis(job.max_duration.0.min(by_cost))
}

fn given_back(execution: ExecutionId) -> ProviderEffect {
    let fault = Fault::new(FaultCode::CANCELLED, "the job was given back before its turn came");
    ProviderEffect::Send(ProviderFrame::JobRefused { execution, fault })
}
