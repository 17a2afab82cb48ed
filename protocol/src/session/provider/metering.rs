//! Turns usage into receipts, and stops work before it costs more than it may.
//!
//! A receipt never charges more than the allowance, nor more than was promised plus the credit: time beyond that is the provider's. Interim receipts come once per metering interval, and earlier
//! when half of the credit is used, so that an agent that answers is never paused.

use super::{Effects, Over, ProviderEffect, ProviderEnv, ProviderPhase, ProviderRecord, ProviderSession, Run, Want};
use crate::frame::{CloseReason, ProviderFrame};
use crate::id::ExecutionId;
use crate::money::{AmountOverflow, Meter, Price, Usdc};
use crate::receipt::{EndReason, Outcome, Receipt, Usage, Work};
use crate::session::UNANSWERED_LIMIT;
use crate::signing::Verified;
use crate::time::Timestamp;

impl ProviderSession {
    /// Running executions with their price and their time now.
    pub(super) fn live_times(&self) -> impl Iterator<Item = (ExecutionId, Price, u64)> + '_ {
        self.runs.iter().filter_map(|(id, run)| match run {
            Run::Running { price, usage, .. } => Some((*id, *price, usage.effective_ms)),
            _ => None,
        })
    }

    pub(super) fn live_meter(&self) -> Result<Meter, AmountOverflow> {
        self.account.meter_with(self.live_times())
    }

    /// The charge if receipts were issued for all running work now; before receipt 1 nothing.
    pub(super) fn live_charge(&self) -> Usdc {
        if self.account.head().0 == 0 {
            return Usdc::ZERO;
        }
        let charge = self.live_meter().and_then(|meter| self.terms.charge(&meter));
        charge.unwrap_or(Usdc::from_micros(u64::MAX)).min(self.ceiling()).max(self.account.charged())
    }

    pub(super) fn on_progress(&mut self, execution: ExecutionId, now_used: Usage, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let Some(Run::Running { usage, job, price, .. }) = self.runs.get_mut(&execution) else { return };
        // An executor that went backwards would make a receipt that the agent must refuse.
        if now_used.effective_ms >= usage.effective_ms {
            *usage = now_used;
        }
        let own = price.of(usage.effective_ms).unwrap_or(Usdc::from_micros(u64::MAX));
        let (out_of_time, out_of_cost) = (usage.effective_ms >= job.max_duration.0, own >= job.max_cost && own > price.call_fee);
        let charge = self.live_meter().and_then(|meter| self.terms.charge(&meter));
        if charge.is_ok_and(|charge| charge > self.terms.minimum_charge && charge >= self.ceiling()) {
            self.kill_all(EndReason::BudgetReached, fx);
        }
        if out_of_cost {
            self.kill(execution, EndReason::CostReached, fx);
        } else if out_of_time {
            self.kill(execution, EndReason::TimedOut, fx);
        }
        self.issue_interim(env, fx);
        self.pause_if_short(env, fx);
    }

    pub(super) fn issue_interim(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let half = Usdc::from_micros(self.lead(env).micros() / 2);
        let behind = self.live_charge().excess_over(self.account.charged());
        let pressed = behind > Usdc::ZERO && (behind >= half || self.short_since.is_some());
        let due: Vec<ExecutionId> = self
            .runs
            .iter()
            .filter_map(|(id, run)| match run {
                Run::Running { usage, kill: None, .. } => {
                    let since = usage.effective_ms.saturating_sub(self.account.receipted_ms(id));
                    (pressed || since >= self.terms.metering_interval.0).then_some(*id)
                }
                _ => None,
            })
            .collect();
        for execution in due {
            if self.unanswered.len() >= UNANSWERED_LIMIT {
                return;
            }
            if self.chargeable_now(execution, self.lead(env)).is_some_and(|ms| ms > self.account.receipted_ms(&execution)) {
                self.report(execution, None, env, fx);
            }
        }
    }

    /// How much more may be promised before something must be redeemed.
    pub(super) fn room(&self, env: &ProviderEnv<'_>) -> Usdc {
        env.unredeemed_ceiling.excess_over(self.promised())
    }

    /// How far work may run ahead of what was promised now: not by more than the credit, nor of what was redeemed by more than is risked with settlement.
    pub(super) fn lead(&self, env: &ProviderEnv<'_>) -> Usdc {
        env.credit.min(self.room(env))
    }

    pub(super) fn may_go_on(&self, env: &ProviderEnv<'_>) -> bool {
        self.unvouchered() <= self.lead(env) && self.room(env) > Usdc::ZERO && self.unanswered.len() < UNANSWERED_LIMIT
    }

    fn pause_if_short(&mut self, env: &ProviderEnv<'_>, fx: &mut Effects) {
        if self.may_go_on(env) {
            return;
        }
        self.note_want(env);
        for (execution, run) in &mut self.runs {
            if let Run::Running { paused, kill: None, .. } = run
                && !*paused
            {
                *paused = true;
                fx.push(ProviderEffect::Pause(*execution));
            }
        }
    }

    /// Notes for want of what work is paused, and since when.
    pub(super) fn note_want(&mut self, env: &ProviderEnv<'_>) {
        // With every receipt answered it is not the agent who keeps us waiting.
        let settlement = self.unanswered.is_empty() && self.room(env) < env.credit;
        let want = if settlement { Want::Redemption } else { Want::Voucher };
        if self.short_since.is_none_or(|(wanted, _)| wanted != want) {
            self.short_since = Some((want, env.now.mono));
        }
    }

    pub(super) fn unpause(&mut self, fx: &mut Effects) {
        self.short_since = None;
        for (execution, run) in &mut self.runs {
            if let Run::Running { paused, .. } = run
                && *paused
            {
                *paused = false;
                fx.push(ProviderEffect::Unpause(*execution));
            }
        }
    }

    pub(super) fn on_ended(
        &mut self,
        execution: ExecutionId,
        final_usage: Usage,
        end: EndReason,
        exit_code: Option<i32>,
        env: &ProviderEnv<'_>,
        fx: &mut Effects,
    ) {
        let Some(Run::Running { usage, kill, .. }) = self.runs.get_mut(&execution) else { return };
        *usage = Usage { effective_ms: final_usage.effective_ms.max(usage.effective_ms), ..final_usage };
        let kill = *kill;
        // A tool that ended by itself just before the kill arrived ended by itself.
        let end = match (end, kill) {
            (EndReason::Exited | EndReason::SetupFailed, _) => end,
            (_, Some(reason)) => reason,
            (EndReason::TimedOut, None) => self.which_deadline(execution),
            (_, None) => end,
        };
        self.report(execution, Some(Outcome::of(end, exit_code)), env, fx);
        self.put_away(execution, Over::Ended);
        self.settle_up(env, fx);
    }

    /// The executor's deadline is the least of time, maximum cost and budget: which one was it?
    fn which_deadline(&self, execution: ExecutionId) -> EndReason {
        let Some(Run::Running { job, price, usage, .. }) = self.runs.get(&execution) else { return EndReason::TimedOut };
        let next_ms = usage.effective_ms.saturating_add(1);
        let session = self.account.meter_with(self.live_times().chain([(execution, *price, next_ms)]));
        if usage.effective_ms >= job.max_duration.0 {
            EndReason::TimedOut
        } else if session.and_then(|meter| self.terms.charge(&meter)).is_ok_and(|charge| charge > self.ceiling()) {
            EndReason::BudgetReached
        } else if price.of(next_ms).is_ok_and(|own| own > job.max_cost) {
            EndReason::CostReached
        } else {
            EndReason::TimedOut
        }
    }

    /// Issues a receipt for one execution, with as much of its time as may be charged.
    pub(super) fn report(&mut self, execution: ExecutionId, outcome: Option<Outcome>, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let Some(Run::Running { job, price, usage, .. }) = self.runs.get(&execution) else { return };
        // What has a receipt did run, whatever the executor says of its set-up.
        let outcome = outcome.map(|outcome| match outcome.end {
            EndReason::SetupFailed if self.account.has_live(&execution) => Outcome::of(EndReason::ProviderStopped, outcome.exit_code),
            _ => outcome,
        });
        let never_ran = outcome.is_some_and(|outcome| outcome.end == EndReason::SetupFailed);
        let effective_ms = if never_ran { 0 } else { self.chargeable_now(execution, self.lead(env)).unwrap_or(0) };
        let written_off = if outcome.is_some() && !never_ran { self.uncharged(execution, *price, effective_ms) } else { Usdc::ZERO };
        let charge = if never_ran { Usdc::ZERO } else { price.of(effective_ms).unwrap_or_default() };
        let work = Work { execution, job: job.hash(), tool: job.tool.clone(), usage: Usage { effective_ms, ..*usage }, charge, outcome };
        self.written_off = self.written_off.plus(written_off).unwrap_or(Usdc::from_micros(u64::MAX));
        self.issue(Some(work), env.now.wall, fx);
    }

    /// What the time is worth that credit alone keeps off the last receipt of an execution, rounded up.
    fn uncharged(&self, execution: ExecutionId, price: Price, effective_ms: u64) -> Usdc {
        let due = self.chargeable_now(execution, Usdc::from_micros(u64::MAX)).unwrap_or(0).saturating_sub(effective_ms);
        let time = Price { call_fee: Usdc::from_micros(u64::from(due > 0)), ..price };
        time.of(due).unwrap_or(Usdc::from_micros(u64::MAX))
    }

    /// What a receipt for a running execution may report now.
    fn chargeable_now(&self, execution: ExecutionId, credit: Usdc) -> Option<u64> {
        let Some(Run::Running { job, price, usage, .. }) = self.runs.get(&execution) else { return None };
        Some(self.chargeable_ms(execution, *price, usage.effective_ms, job.max_cost, credit))
    }

    /// As much of `effective_ms` as maximum cost, budget and credit cover; never less than an earlier receipt said.
    fn chargeable_ms(&self, execution: ExecutionId, price: Price, effective_ms: u64, max_cost: Usdc, credit: Usdc) -> u64 {
        let by_cost = Meter::default().affordable_ms(price, Usdc::ZERO, max_cost).unwrap_or(0);
        let covered = self.promised().plus(credit).unwrap_or(Usdc::from_micros(u64::MAX)).max(self.terms.minimum_charge);
        let ceiling = self.ceiling().min(covered);
        let others = self.committed_without(&execution).unwrap_or_default();
        let by_ceiling = others.affordable_ms(price, self.terms.minimum_charge, ceiling).unwrap_or(0);
        effective_ms.min(by_cost).min(by_ceiling).max(self.account.receipted_ms(&execution))
    }

    /// What everything but one execution is receipted at, and the call fees of those that run without a receipt yet.
    fn committed_without(&self, execution: &ExecutionId) -> Result<Meter, AmountOverflow> {
        let mut meter = self.account.meter_without(execution)?;
        for (_, price, _) in self.live_times().filter(|(id, ..)| id != execution && !self.account.has_live(id)) {
            meter.add(price, 0)?;
        }
        Ok(meter)
    }

    /// Signs, persists and sends the next receipt.
    pub(super) fn issue(&mut self, work: Option<Work>, at: Timestamp, fx: &mut Effects) {
        let (number, previous) = self.account.head();
        let charged = match &work {
            None => self.account.meter_with([]).and_then(|meter| self.terms.charge(&meter)),
            Some(work) => {
                let price = self.terms.price(&work.tool).unwrap_or_default();
                self.account.charge_at(&self.terms, &work.execution, price, work.usage.effective_ms, work.outcome.map(|o| o.end))
            }
        };
        let receipt = Receipt {
            session: self.terms.session,
            terms: self.terms.hash(),
            number: number.saturating_add(1),
            previous,
            at,
            confinement: self.terms.confinement,
            work,
            charged: charged.unwrap_or(self.account.charged()),
        };
        let receipt = Verified::sign(receipt, self.terms.network(), &self.keys.peer);
        if self.account.apply(&self.terms, &receipt).is_err() {
            // Sums beyond 64 bits; nothing signed here may be wrong, so the session stops instead.
            if !matches!(self.phase, ProviderPhase::Draining(..)) {
                self.phase = ProviderPhase::Draining(CloseReason::Dispute, crate::time::Millis(0));
                fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Draining(CloseReason::Dispute))));
                self.kill_all(EndReason::ProviderStopped, fx);
            }
            return;
        }
        fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::Receipt(receipt.signed().clone()))));
        fx.push(ProviderEffect::Send(ProviderFrame::Receipt(Box::new(receipt.signed().clone()))));
        self.unanswered.insert(receipt.number, receipt);
    }
}
