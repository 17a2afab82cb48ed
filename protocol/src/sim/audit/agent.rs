//! What an honest agent may sign.

use super::{Asked, Auditor, MS_PER_MINUTE, Reported};
use crate::frame::AgentFrame;
use crate::money::Usdc;
use crate::receipt::EndReason;
use crate::session::agent::AgentRecord;
use crate::signing::Statement;
use crate::sim::clock::SKEW_MAX_MS;
use crate::terms::TIME_TOLERANCE;
use crate::voucher::SignedVoucher;

/// The most that a wall clock which is stepped within its skew can add to a stopwatch.
const STEPS_MS: u64 = SKEW_MAX_MS * 2;

impl Auditor {
    /// A record is on the agent's disk at true time `t`.
    pub(in crate::sim) fn agent_wrote(&mut self, slot: usize, record: &AgentRecord, t: u64) {
        if self.sessions[slot].agent_cheats {
            if let AgentRecord::Answered { voucher, .. } = record {
                let total = u128::from(voucher.unverified().total.micros());
                self.sessions[slot].signed = self.sessions[slot].signed.max(total);
            }
            return;
        }
        match record {
            AgentRecord::Proposed { budget, .. } => self.budget_asked(slot, *budget),
            AgentRecord::Reserved(allowance) => {
                let ceiling = u128::from(allowance.unverified().ceiling.micros());
                self.sessions[slot].reserved = self.sessions[slot].reserved.max(ceiling);
                let (budget, ours) = (self.sessions[slot].budget, self.sessions[slot].is_ours(allowance.unverified()));
                self.check(ceiling <= budget, || format!("session {slot}: {ceiling} was taken for a budget of {budget}"));
                self.check(ours, || format!("session {slot}: an allowance for something else was taken"));
            }
            AgentRecord::Job(job) => {
                let job = job.unverified();
                let asked = Asked { tool: job.tool.clone(), max_cost: u128::from(job.max_cost.micros()), at: t };
                self.sessions[slot].asked.insert(job.execution, asked);
            }
            AgentRecord::JobRefused(execution) => {
                let charged = self.sessions[slot].answered.contains_key(execution);
                self.check(!charged, || format!("session {slot}: {execution} was charged and then refused"));
            }
            AgentRecord::Sealed { most } => {
                let most = u128::from(most.micros());
                let (signed, reserved) = (self.sessions[slot].vouchers.last().map_or(0, |voucher| voucher.0), self.sessions[slot].reserved);
                self.check(signed <= most && most <= reserved, || {
                    format!("session {slot}: sealed at {most} of {reserved} with {signed} signed")
                });
                self.sessions[slot].sealed = Some(most);
            }
            AgentRecord::Disputed(_) => self.sessions[slot].disputed = true,
            AgentRecord::Answered { receipt, voucher } => {
                let receipt = receipt.unverified();
                if let Some(work) = &receipt.work {
                    let (ms, end) = (u128::from(work.usage.effective_ms), work.outcome.map(|outcome| outcome.end));
                    let never_ran = end == Some(EndReason::SetupFailed);
                    let reported = Reported { tool: work.tool.clone(), ms, ended: end.is_some(), never_ran };
                    self.sessions[slot].answered.insert(work.execution, reported);
                    self.check_answer(slot, work.execution, t);
                }
                let charged = u128::from(receipt.charged.micros());
                let last = self.sessions[slot].vouchers.last().map_or((0, crate::hash::Hash::ZERO), |(_, number, hash)| (*number, *hash));
                let follows = receipt.number == last.0 + 1 && receipt.previous == last.1;
                self.check(follows, || format!("session {slot}: receipt {} was signed for and does not follow", receipt.number));
                let fits = voucher.unverified().total == receipt.charged
                    && voucher.unverified().receipt_number == receipt.number
                    && voucher.unverified().receipt_hash == receipt.hash(&self.network);
                let expected = self.sessions[slot].charge(&self.sessions[slot].answered);
                self.check(fits, || format!("session {slot}: the voucher for receipt {} says something else", receipt.number));
                self.check(charged == expected, || format!("session {slot}: {charged} was promised where {expected} is right"));
                self.voucher_written(slot, voucher);
            }
            _ => {}
        }
    }

    /// A budget that an agent asks for.
    pub(in crate::sim) fn budget_asked(&mut self, slot: usize, ceiling: Usdc) {
        self.sessions[slot].budget = self.sessions[slot].budget.max(u128::from(ceiling.micros()));
    }

    /// An execution's time and cost against what was asked, and when.
    fn check_answer(&mut self, slot: usize, execution: crate::id::ExecutionId, t: u64) {
        let audit = &self.sessions[slot];
        let Some(reported) = audit.answered.get(&execution).cloned() else { return };
        let Some(asked) = audit.asked.get(&execution).cloned() else {
            return self.breach(|| format!("session {slot}: {execution} was signed for and never asked"));
        };
        let tariff = audit.tariff(&reported.tool);
        let cost = if reported.never_ran { 0 } else { tariff.per_minute * reported.ms / MS_PER_MINUTE + tariff.fee };
        let elapsed = u128::from(t.saturating_sub(asked.at));
        // The stopwatch of whoever may be stepped, its tolerance, and a whole start of the process in between.
        let most = elapsed + elapsed / 500 + u128::from(TIME_TOLERANCE.0 + if self.steps { STEPS_MS } else { 0 });
        let (same, in_time) = (reported.tool == asked.tool, reported.ms <= most);
        self.check(same, || format!("session {slot}: {execution} was signed for as another tool"));
        self.check(cost <= asked.max_cost, || format!("session {slot}: {execution} costs {cost} of at most {}", asked.max_cost));
        self.check(in_time, || format!("session {slot}: {execution} was signed for {} ms in {elapsed} ms", reported.ms));
    }

    fn voucher_written(&mut self, slot: usize, voucher: &SignedVoucher) {
        let voucher = voucher.unverified();
        let new = (u128::from(voucher.total.micros()), voucher.receipt_number, voucher.receipt_hash);
        let audit = &mut self.sessions[slot];
        let grows = audit.vouchers.last().is_none_or(|old| old.0 <= new.0 && old.1 < new.1);
        audit.vouchers.push(new);
        audit.signed = audit.signed.max(new.0);
        let (reserved, disputed, sealed) = (audit.reserved, audit.disputed, audit.sealed);
        self.check(grows, || format!("session {slot}: a voucher for receipt {} does not follow the one before", new.1));
        self.check(sealed.is_none_or(|most| new.0 <= most), || {
            format!("session {slot}: {} was promised beyond its seal {sealed:?}", new.0)
        });
        self.check(new.0 <= reserved, || format!("session {slot}: {} was promised of a budget of {reserved}", new.0));
        self.check(!disputed, || format!("session {slot}: signed in dispute"));
    }

    /// A frame left the agent.
    pub(in crate::sim) fn agent_said(&mut self, slot: usize, frame: &AgentFrame) {
        let audit = &mut self.sessions[slot];
        match frame {
            AgentFrame::Voucher(voucher) => {
                let said = voucher.unverified();
                let total = u128::from(said.total.micros());
                audit.signed = audit.signed.max(total);
                let kept = audit.vouchers.contains(&(total, said.receipt_number, said.receipt_hash));
                let honest = !audit.agent_cheats;
                self.check(kept || !honest, || format!("session {slot}: a voucher of {total} was sent and is not on disk"));
            }
            AgentFrame::Run(job) => {
                let kept = audit.asked.contains_key(&job.unverified().execution) || audit.agent_cheats;
                self.check(kept, || format!("session {slot}: a job was sent and is not on disk"));
            }
            _ => {}
        }
    }
}
