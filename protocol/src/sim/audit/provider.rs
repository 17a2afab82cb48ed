//! What an honest provider may write, say and start.

use super::{Audit, Auditor, Reported};
use crate::frame::ProviderFrame;
use crate::id::ExecutionId;
use crate::receipt::{EndReason, Receipt};
use crate::session::provider::ProviderRecord;
use crate::signing::Statement;
use crate::time::Timestamp;

impl Auditor {
    /// A record is on the provider's disk.
    pub(in crate::sim) fn provider_wrote(&mut self, slot: usize, record: &ProviderRecord) {
        if self.sessions[slot].provider_cheats {
            return;
        }
        match record {
            ProviderRecord::Opened { allowance, .. } | ProviderRecord::ToppedUp(allowance) => {
                let ceiling = u128::from(allowance.unverified().ceiling.micros());
                self.sessions[slot].ceiling = self.sessions[slot].ceiling.max(ceiling);
                let ours = self.sessions[slot].is_ours(allowance.unverified());
                self.check(ours, || format!("session {slot}: the provider took an allowance for something else"));
            }
            ProviderRecord::Job(job) => {
                let new = self.sessions[slot].taken.insert(job.unverified().execution);
                self.check(new, || format!("session {slot}: a job was taken twice"));
            }
            ProviderRecord::JobDropped(execution) => {
                let ran = self.sessions[slot].worked.contains_key(execution);
                self.sessions[slot].dropped.insert(*execution);
                self.check(!ran, || format!("session {slot}: {execution} was given back after it had run"));
            }
            ProviderRecord::Receipt(receipt) => self.receipt_written(slot, receipt.unverified()),
            ProviderRecord::Voucher(voucher) => {
                let (total, before) = (u128::from(voucher.unverified().total.micros()), self.sessions[slot].accepted);
                let (number, hash) = (voucher.unverified().receipt_number, voucher.unverified().receipt_hash);
                self.sessions[slot].accepted = total;
                self.sessions[slot].is_paid_for = true;
                let named = usize::try_from(number).ok().and_then(|n| self.sessions[slot].chain.get(n.wrapping_sub(1)));
                let ours = voucher.unverified().channel == self.sessions[slot].channel;
                let fits = ours && named.is_some_and(|(id, charged)| *id == hash && *charged == total);
                if usize::try_from(number).is_ok_and(|n| n == self.sessions[slot].chain.len()) {
                    self.sessions[slot].forgo();
                }
                self.check(total >= before, || format!("session {slot}: the accepted promise fell from {before} to {total}"));
                self.check(fits, || format!("session {slot}: a voucher of {total} for receipt {number} was accepted"));
            }
            ProviderRecord::Draining(_) => {}
            ProviderRecord::GivenUp { .. } => {
                let opened = self.sessions[slot].ceiling > 0;
                self.sessions[slot].close = Some(0);
                self.check(!opened, || format!("session {slot}: given up after it was opened"));
            }
            ProviderRecord::Closed { close, .. } => {
                self.sessions[slot].owes = close.is_none();
                let Some(close) = close else { return };
                let (total, accepted) = (u128::from(close.unverified().total.micros()), self.sessions[slot].accepted);
                self.sessions[slot].close = Some(total);
                self.check(total == accepted, || format!("session {slot}: closed at {total} with {accepted} promised"));
            }
        }
    }

    /// A proposal is countersigned.
    pub(in crate::sim) fn admitted(&mut self, slot: usize) {
        let (provider, account) = (self.sessions[slot].provider, self.sessions[slot].account);
        let same = |audit: &Audit| audit.provider == provider && audit.account == account && !audit.provider_cheats;
        let owes = |audit: &Audit| audit.owes && audit.chain.last().is_some_and(|(_, charged)| *charged > audit.accepted);
        let debts = self.sessions.iter().filter(|audit| same(audit) && owes(audit)).count();
        self.check(debts == 0, || format!("session {slot}: {account} was let in with {debts} sessions that owe"));
    }

    fn receipt_written(&mut self, slot: usize, receipt: &Receipt) {
        let hash = receipt.hash(&self.network);
        let charged = u128::from(receipt.charged.micros());
        let audit = &mut self.sessions[slot];
        let number = receipt.number;
        let previous = audit.chain.last().map_or(crate::hash::Hash::ZERO, |(hash, _)| *hash);
        let follows = usize::try_from(number).is_ok_and(|n| n == audit.chain.len() + 1) && receipt.previous == previous;
        audit.chain.push((hash, charged));
        let mut faults = Vec::new();
        if !follows {
            faults.push("does not follow the one before".to_owned());
        }
        if let Some(work) = &receipt.work {
            let ms = u128::from(work.usage.effective_ms);
            let end = work.outcome.map(|outcome| outcome.end);
            let really = audit.worked.get(&work.execution).map_or(0, |(_, ms)| *ms);
            let before = audit.reported.get(&work.execution).cloned().unwrap_or_default();
            if before.ended || ms < before.ms {
                faults.push(format!("reports {} again or backwards", work.execution));
            }
            if ms > really {
                faults.push(format!("charges {ms} ms of {} that worked {really} ms", work.execution));
            }
            if !audit.taken.contains(&work.execution) || audit.dropped.contains(&work.execution) {
                faults.push(format!("is for {}, which was not taken or was given back", work.execution));
            }
            let never_ran = end == Some(EndReason::SetupFailed);
            audit.reported.insert(work.execution, Reported { tool: work.tool.clone(), ms, ended: end.is_some(), never_ran });
        }
        let expected = audit.charge(&audit.reported);
        if charged != expected {
            faults.push(format!("charges {charged} where {expected} is right"));
        }
        if charged > audit.ceiling {
            faults.push(format!("charges {charged} of an allowance of {}", audit.ceiling));
        }
        for fault in faults {
            self.breach(|| format!("session {slot}: receipt {number} {fault}"));
        }
    }

    /// A frame left the provider.
    pub(in crate::sim) fn provider_said(&mut self, slot: usize, frame: &ProviderFrame) {
        let audit = &self.sessions[slot];
        if audit.provider_cheats {
            return;
        }
        match frame {
            ProviderFrame::Receipt(receipt) => {
                let hash = receipt.unverified().hash(&self.network);
                let number = receipt.unverified().number;
                let kept = usize::try_from(number).ok().and_then(|n| audit.chain.get(n.wrapping_sub(1))).is_some_and(|(id, _)| *id == hash);
                self.check(kept, || format!("session {slot}: receipt {number} was sent and is not on disk"));
            }
            ProviderFrame::Waiting(execution) => {
                let kept = audit.taken.contains(execution);
                self.check(kept, || format!("session {slot}: {execution} was accepted and is not on disk"));
            }
            ProviderFrame::Closed { close: Some(close), .. } => {
                let total = u128::from(close.unverified().total.micros());
                let kept = audit.close == Some(total);
                self.check(kept, || format!("session {slot}: a close of {total} was sent and is not on disk"));
            }
            _ => {}
        }
    }

    /// A tool starts at a provider whose clock says `wall`.
    pub(in crate::sim) fn tool_started(&mut self, slot: usize, execution: ExecutionId, tool: &str, wall: Timestamp) {
        let audit = &mut self.sessions[slot];
        let twice = audit.worked.insert(execution, (tool.to_owned(), 0)).is_some();
        audit.running.insert(execution);
        let audit = &self.sessions[slot];
        if audit.provider_cheats {
            return;
        }
        let (taken, paid_for) = (audit.taken.contains(&execution) && !audit.dropped.contains(&execution), audit.is_paid_for);
        let (in_time, cost) = (wall < audit.work_until.timestamp(), audit.accepted.max(audit.minimum));
        let floor = audit.charge(&audit.reported).max(cost);
        let affords = audit.ceiling >= floor;
        self.check(!twice, || format!("session {slot}: {execution} was started twice"));
        self.check(taken, || format!("session {slot}: {execution} was started and is not on disk"));
        self.check(paid_for, || format!("session {slot}: {execution} was started before the first voucher"));
        self.check(in_time, || format!("session {slot}: {execution} was started after the time to work"));
        self.check(affords, || format!("session {slot}: {execution} was started without a budget"));
    }

    /// Something runs although the provider has just looked at the clock.
    pub(in crate::sim) fn still_runs(&mut self, slot: usize, wall: Timestamp) {
        let audit = &self.sessions[slot];
        let in_time = audit.provider_cheats || wall < audit.work_until.timestamp();
        self.check(in_time, || format!("session {slot}: work goes on after the time to work"));
    }

    /// What a tool has worked so far.
    pub(in crate::sim) fn tool_worked(&mut self, slot: usize, execution: ExecutionId, ms: u64) {
        if let Some((_, worked)) = self.sessions[slot].worked.get_mut(&execution) {
            *worked = u128::from(ms);
        }
    }

    /// A provider's process is gone, with every tool of a session: work without a receipt is the provider's own loss (M4).
    pub(in crate::sim) fn tools_lost(&mut self, slot: usize) {
        let audit = &mut self.sessions[slot];
        audit.running.clear();
        // Nothing is known of what a cheat has on disk.
        if !audit.provider_cheats {
            let reported = &audit.reported;
            audit.worked.retain(|execution, _| reported.contains_key(execution));
            for (execution, (_, worked)) in &mut audit.worked {
                *worked = reported.get(execution).map_or(0, |run| run.ms);
            }
        }
    }

    /// A tool is gone.
    pub(in crate::sim) fn tool_ended(&mut self, slot: usize, execution: ExecutionId) {
        self.sessions[slot].running.remove(&execution);
    }
}

impl Audit {
    pub(super) const fn is_honest_provider(&self) -> bool {
        !self.provider_cheats
    }
}
