//! A session that is given up for another: nothing new begins in it, it ends, and it can cost no more than is set aside for it at that moment. The rest of its budget is free for a
//! successor (M8: both together never cost more than the caller allowed).
//!
//! What is set aside is what was promised, and for each run that the provider may have begun all that it may honestly have used since: an interval and the tolerance more than our own
//! stopwatch shows, but not beyond the run's own limits. A provider that was only out of reach is so paid for its work; what it did beyond that is its own risk, as all unvouchered work is.

use super::{AgentEffect, AgentEvent, AgentPhase, AgentRecord, AgentSession, Effects};
use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, CloseReason};
use crate::id::ExecutionId;
use crate::money::{Price, Usdc};
use crate::time::Now;

/// Milliseconds of a minute, as prices have them.
const MS_PER_MINUTE: u128 = 60_000;

impl AgentSession {
    /// Most that the session may still come to cost in all, once it was given up for another.
    pub const fn sealed(&self) -> Option<Usdc> {
        self.sealed
    }

    pub(super) fn on_seal(&mut self, now: Now, fx: &mut Effects) {
        let was_open = self.voucher.is_some();
        if self.sealed.is_some() || !was_open {
            return;
        }
        let most = match self.phase {
            AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting | AgentPhase::Closed(CloseReason::NotOpened) => return,
            AgentPhase::Open | AgentPhase::Ending(_) if !self.disputed => self.worst(now),
            // Nothing is signed any more.
            AgentPhase::Open | AgentPhase::Ending(_) | AgentPhase::Closed(_) => self.promised(),
        };
        self.sealed = Some(most);
        let never_sent = self.take_back_unsent();
        fx.push(AgentEffect::Persist(Box::new(AgentRecord::Sealed { most })));
        fx.extend(never_sent.iter().map(|execution| AgentEffect::Persist(Box::new(AgentRecord::JobRefused(*execution)))));
        if self.phase == AgentPhase::Open {
            self.phase = AgentPhase::Ending(now.mono);
            fx.push(AgentEffect::Persist(Box::new(AgentRecord::Ending)));
            fx.push(AgentEffect::Send(AgentFrame::End));
        }
        let fault = Fault::new(FaultCode::SESSION_ENDED, "the provider was gone before the run was sent to it; the run never began");
        fx.extend(never_sent.into_iter().map(|execution| AgentEffect::Tell(AgentEvent::RunRefused(execution, fault.clone()))));
    }

    /// Runs that no provider has heard of end here.
    fn take_back_unsent(&mut self) -> Vec<ExecutionId> {
        let unsent: Vec<_> = self.runs.iter().filter(|(_, run)| !run.sent).map(|(execution, _)| *execution).collect();
        for execution in &unsent {
            self.end_run(*execution);
        }
        unsent
    }

    /// Most that the session may have come to cost by now.
    fn worst(&self, now: Now) -> Usdc {
        let Some(terms) = self.terms() else { return self.budget() };
        let margin = terms.time_tolerance.0.saturating_add(terms.metering_interval.0);
        let running = self.runs.iter().filter(|(_, run)| run.sent).filter_map(|(execution, run)| {
            let price = terms.price(&run.job.tool)?;
            let elapsed = run.elapsed_ms(now).min(run.job.max_duration.0);
            let ms = elapsed.saturating_add(elapsed / 1000).saturating_add(margin).min(affordable_ms(price, run.job.max_cost));
            Some((*execution, price, ms.max(self.account.receipted_ms(execution))))
        });
        let charge = self.account.meter_with(running).and_then(|meter| terms.charge(&meter));
        charge.unwrap_or(self.budget()).min(self.budget()).max(self.promised())
    }

    /// Whether a receipt charges more than was set aside; it is not answered, and nobody has broken a rule.
    pub(super) fn is_beyond_seal(&self, charged: Usdc) -> Option<Fault> {
        let most = self.sealed.filter(|most| charged > *most)?;
        let text = format!("the session was given up for another and may cost {most} USDC; a receipt charges {charged} USDC");
        Some(Fault::new(FaultCode::BUDGET_EXHAUSTED, text))
    }
}

/// The longest effective time that costs no more than `most`.
fn affordable_ms(price: Price, most: Usdc) -> u64 {
    let for_time = u128::from(most.excess_over(price.call_fee).micros());
    // Amounts are rounded down, so the last micro may be used up almost twice.
    let numerator = for_time.saturating_add(1).saturating_mul(MS_PER_MINUTE).saturating_sub(1);
    let ms = numerator.checked_div(u128::from(price.per_minute.micros())).unwrap_or(u128::MAX);
    u64::try_from(ms).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_affordable_time_costs_the_amount_and_a_millisecond_more_costs_more() {
        for (per_minute, fee, most) in [(600_000, 0, 50), (1, 0, 3), (7, 5, 1_000), (59_999, 10, 10), (60_001, 0, 1)] {
            let price = Price { per_minute: Usdc::from_micros(per_minute), call_fee: Usdc::from_micros(fee) };
            let ms = affordable_ms(price, Usdc::from_micros(most));
            assert!(price.of(ms).unwrap().micros() <= most, "{per_minute} {fee} {most}");
            assert!(price.of(ms + 1).unwrap().micros() > most, "{per_minute} {fee} {most}");
        }
        assert_eq!(affordable_ms(Price::default(), Usdc::from_micros(1)), u64::MAX);
    }
}
