//! What a session costs by now, as far as this side can tell: receipts count, and what came after them is estimated with our own clock.
//!
//! Always true: an estimate is never below what is receipted nor above the budget, and nothing decides by it.

use std::collections::BTreeMap;

use orien_protocol::id::ExecutionId;
use orien_protocol::money::{Meter, Price, Usdc};
use orien_protocol::offer::Tool;
use orien_protocol::receipt::{EndReason, Receipt};
use orien_protocol::time::Millis;

/// Milliseconds of one execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    price: Price,
    /// By its newest receipt.
    ms: u64,
    /// When that was here, or when it started; none once it is over.
    since: Option<Millis>,
}

/// The executions of a session: one by one while they go on, and as one sum when they are over.
#[derive(Debug, Default)]
pub(crate) struct Meters {
    prices: BTreeMap<String, Price>,
    runs: BTreeMap<ExecutionId, Run>,
    over: Meter,
    /// Whether a sum went beyond what can be counted.
    is_beyond: bool,
    /// What receipt 1 charges.
    minimum: Usdc,
}

/// What a session costs at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reading {
    /// What it will have cost if everything that runs is charged up to now.
    pub(crate) estimated: Usdc,
    /// What runs costs per minute.
    pub(crate) per_minute: Usdc,
    /// How many run.
    pub(crate) running: usize,
}

impl Meters {
    /// Nothing has run.
    pub(crate) fn new(tools: &[Tool]) -> Self {
        let prices = tools.iter().map(|tool| (tool.id.clone(), tool.price)).collect();
        Self { prices, ..Self::default() }
    }

    /// A run of this tool was started just now.
    pub(crate) fn started(&mut self, execution: ExecutionId, tool: &str, now: Millis) {
        let Some(price) = self.prices.get(tool).copied() else { return };
        self.runs.entry(execution).or_insert(Run { price, ms: 0, since: Some(now) });
    }

    /// A receipt came just now.
    pub(crate) fn receipted(&mut self, receipt: &Receipt, now: Millis) {
        let Some(work) = &receipt.work else {
            self.minimum = receipt.charged;
            return;
        };
        let (price, ms) = (self.prices.get(&work.tool).copied(), work.usage.effective_ms);
        match (work.outcome.map(|outcome| outcome.end), price) {
            (None, Some(price)) => drop(self.runs.insert(work.execution, Run { price, ms, since: Some(now) })),
            (None, None) => {}
            (Some(end), price) => {
                self.runs.remove(&work.execution);
                if let Some(price) = price.filter(|_| end != EndReason::SetupFailed) {
                    self.is_beyond |= self.over.add(price, ms).is_err();
                }
            }
        }
    }

    /// A run that nobody counts on any more.
    pub(crate) fn forget(&mut self, execution: &ExecutionId) {
        if let Some(run) = self.runs.get_mut(execution) {
            run.since = None;
        }
    }

    /// What of the minimum charge the runs have not used, by their receipts: it is charged already, and credited against what they cost.
    pub(crate) fn minimum_unused(&self) -> Usdc {
        let mut meter = self.over;
        let receipted = self.runs.values().filter(|run| run.ms > 0);
        let fits = receipted.fold(!self.is_beyond, |fits, run| fits && meter.add(run.price, run.ms).is_ok());
        meter.charge(Usdc::ZERO).ok().filter(|_| fits).map_or(Usdc::ZERO, |used| self.minimum.excess_over(used))
    }

    /// Reads the meter, between what is receipted and the budget.
    pub(crate) fn read(&self, charged: Usdc, budget: Usdc, now: Millis) -> Reading {
        let mut meter = self.over;
        let (mut per_minute, mut running, mut fits) = (Usdc::ZERO, 0_usize, !self.is_beyond);
        for run in self.runs.values() {
            let more = run.since.map_or(0, |since| now.0.saturating_sub(since.0));
            if run.since.is_none() && run.ms == 0 && run.price.call_fee == Usdc::ZERO {
                continue;
            }
            if run.since.is_some() {
                running = running.saturating_add(1);
                per_minute = per_minute.plus(run.price.per_minute).unwrap_or(per_minute);
            }
            fits &= meter.add(run.price, run.ms.saturating_add(more)).is_ok();
        }
        let estimated = meter.charge(self.minimum).ok().filter(|_| fits).unwrap_or(budget);
        Reading { estimated: estimated.min(budget).max(charged), per_minute, running }
    }
}

#[cfg(test)]
mod tests {
    use orien_protocol::hash::Hash;
    use orien_protocol::id::SessionId;
    use orien_protocol::offer::Confinement;
    use orien_protocol::receipt::{Outcome, Usage, Work};
    use orien_protocol::time::Timestamp;

    use super::*;

    fn usdc(micros: u64) -> Usdc {
        Usdc::from_micros(micros)
    }

    fn receipt(charged: u64, work: Option<(ExecutionId, u64, Option<EndReason>)>) -> Receipt {
        Receipt {
            session: SessionId::from_bytes([1; 16]),
            terms: Hash::ZERO,
            number: 1,
            previous: Hash::ZERO,
            at: Timestamp(0),
            confinement: Confinement::S0,
            work: work.map(|(execution, effective_ms, end)| Work {
                execution,
                job: Hash::ZERO,
                tool: "work".to_owned(),
                usage: Usage { effective_ms, ..Usage::default() },
                charge: Usdc::ZERO,
                outcome: end.map(|end| Outcome::of(end, None)),
            }),
            charged: usdc(charged),
        }
    }

    #[test]
    fn what_runs_is_counted_on_from_its_newest_receipt_within_receipt_and_budget() {
        let price = Price { per_minute: usdc(60_000), call_fee: usdc(7) };
        let mut meters = Meters { prices: [("work".to_owned(), price)].into(), ..Meters::default() };
        meters.receipted(&receipt(500, None), Millis(0));
        let at = |meters: &Meters, charged, now| meters.read(usdc(charged), usdc(10_000), Millis(now));
        assert_eq!(meters.minimum_unused(), usdc(500));
        assert_eq!(at(&meters, 500, 9_000), Reading { estimated: usdc(500), per_minute: usdc(0), running: 0 });
        let run = ExecutionId::from_bytes([2; 16]);
        meters.started(run, "work", Millis(1_000));
        assert_eq!(at(&meters, 500, 3_000), Reading { estimated: usdc(2_007), per_minute: usdc(60_000), running: 1 });
        meters.receipted(&receipt(500, Some((run, 400, None))), Millis(1_400));
        assert_eq!(meters.minimum_unused(), usdc(93), "a fee of 7 and 400 of time are worked off");
        meters.receipted(&receipt(1_507, Some((run, 1_500, None))), Millis(3_000));
        assert_eq!(at(&meters, 1_507, 3_250).estimated, usdc(1_757));
        assert_eq!(at(&meters, 1_507, 99_000).estimated, usdc(10_000), "never above the budget");
        meters.receipted(&receipt(2_007, Some((run, 2_000, Some(EndReason::Exited)))), Millis(4_000));
        assert_eq!(at(&meters, 2_007, 99_000), Reading { estimated: usdc(2_007), per_minute: usdc(0), running: 0 });
        assert_eq!(meters.minimum_unused(), usdc(0));
        assert!(meters.runs.is_empty(), "a session may have any number of runs, one after the other");
        let never = ExecutionId::from_bytes([3; 16]);
        meters.started(never, "work", Millis(5_000));
        meters.receipted(&receipt(2_007, Some((never, 0, Some(EndReason::SetupFailed)))), Millis(5_100));
        assert_eq!(at(&meters, 2_007, 99_000).estimated, usdc(2_007), "what never ran costs nothing");
    }
}
