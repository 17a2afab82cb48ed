//! Receipts: checked, answered with a voucher, or disputed.

use super::{AgentEffect, AgentEvent, AgentPhase, AgentRecord, AgentSession, Effects};
use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, CloseReason};
use crate::money::Usdc;
use crate::receipt::{Receipt, Work};
use crate::session::agent::AgentInput;
use crate::signing::{Signed, Verified};
use crate::time::Now;
use crate::voucher::{MoneyVerified, Voucher};

impl AgentSession {
    pub(super) fn on_receipt(&mut self, signed: Signed<Receipt>, now: Now, fx: &mut Effects) {
        // Nothing is signed before settlement has reserved, nor for a session that never opened.
        let unopened = matches!(self.phase, AgentPhase::Ending(_)) && self.voucher.is_none();
        if unopened || matches!(self.phase, AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Closed(CloseReason::NotOpened)) {
            return;
        }
        let Some(terms) = self.terms() else { return };
        let (head, head_hash) = self.account.head();
        let receipt = match signed.clone().verify(terms.network(), &terms.provider()) {
            Ok(receipt) => receipt,
            // Anyone can send bytes with a wrong signature; they prove nothing against the provider.
            Err(error) => return fx.push(AgentEffect::Tell(AgentEvent::VoucherRefused(Fault::new(FaultCode::BAD_SIGNATURE, error)))),
        };
        if receipt.number <= head {
            if receipt.number == head && receipt.hash() == head_hash && !self.disputed {
                self.resend_voucher(fx);
            }
            return;
        }
        // Nor is anything behind a receipt that is beyond the seal: asking for what comes before would bring it again and again.
        if self.disputed || self.beyond_seal {
            return;
        }
        if receipt.number > head.saturating_add(1) {
            // Once per gap: every receipt behind it would ask for the same ones again.
            if !std::mem::replace(&mut self.catching_up, true) {
                fx.push(AgentEffect::Send(AgentFrame::Resume { session: self.id(), head, head_hash }));
            }
            return;
        }
        match self.check_receipt(&receipt, now) {
            Ok(()) => match self.is_beyond_seal(receipt.charged) {
                None => self.answer(receipt, fx),
                Some(fault) => {
                    self.beyond_seal = true;
                    fx.push(AgentEffect::Tell(AgentEvent::VoucherRefused(fault)));
                }
            },
            Err(fault) => self.dispute(signed, fault, now, fx),
        }
    }

    fn resend_voucher(&self, fx: &mut Effects) {
        if let Some(voucher) = &self.voucher {
            fx.push(AgentEffect::Send(AgentFrame::Voucher(*voucher.signed())));
        }
    }

    fn check_receipt(&self, receipt: &Verified<Receipt>, now: Now) -> Result<(), Fault> {
        let bad = |text: String| Err(Fault::new(FaultCode::BAD_RECEIPT, text));
        let Some(terms) = self.terms() else { return bad("no terms are agreed".to_owned()) };
        let mut account = self.account.clone();
        account.apply(terms, receipt).map_err(|error| Fault::new(FaultCode::BAD_RECEIPT, error))?;
        if receipt.charged > self.budget() {
            return bad(format!("the receipt charges {} USDC of a budget of {} USDC", receipt.charged, self.budget()));
        }
        if receipt.confinement < terms.confinement {
            return bad("the tool was confined less than the terms say".to_owned());
        }
        match &receipt.work {
            None if receipt.number == 1 => Ok(()),
            None => bad("only receipt 1 may be without work".to_owned()),
            Some(work) => self.check_work(work, terms.time_tolerance.0, now),
        }
    }

    fn check_work(&self, work: &Work, tolerance_ms: u64, now: Now) -> Result<(), Fault> {
        let bad = |text: String| Err(Fault::new(FaultCode::BAD_RECEIPT, text));
        let Some(run) = self.runs.get(&work.execution) else {
            let known = if self.over.contains(&work.execution) { "had ended" } else { "we did not ask for" };
            return bad(format!("the receipt is for an execution that {known}"));
        };
        if run.job.hash() != work.job || run.job.tool != work.tool {
            return bad("the receipt names another job or tool".to_owned());
        }
        // Two good clocks drift by some parts in ten thousand; over hours that is more than the tolerance.
        let elapsed = run.elapsed_ms(now);
        if work.usage.effective_ms > elapsed.saturating_add(elapsed / 1000).saturating_add(tolerance_ms) {
            return bad(format!("the receipt reports {} ms of work in the {elapsed} ms since we asked", work.usage.effective_ms));
        }
        if work.charge > run.job.max_cost.max(Usdc::ZERO) {
            return bad(format!("the execution is charged {} USDC and may cost {} USDC", work.charge, run.job.max_cost));
        }
        Ok(())
    }

    fn answer(&mut self, receipt: Verified<Receipt>, fx: &mut Effects) {
        let Some(terms) = self.terms().cloned() else { return };
        if self.account.apply(&terms, &receipt).is_err() {
            return;
        }
        let voucher =
            Voucher { channel: terms.channel(), total: receipt.charged, receipt_number: receipt.number, receipt_hash: receipt.hash() };
        let voucher = MoneyVerified::sign(voucher, &terms.domain, &self.keys.spending);
        self.voucher = Some(voucher);
        let record = AgentRecord::Answered { receipt: receipt.signed().clone(), voucher: *voucher.signed() };
        fx.push(AgentEffect::Persist(Box::new(record)));
        fx.push(AgentEffect::Send(AgentFrame::Voucher(*voucher.signed())));
        self.note_end(&receipt);
        if self.phase == AgentPhase::Presenting {
            self.phase = AgentPhase::Open;
            fx.push(AgentEffect::Tell(AgentEvent::Opened));
        }
        fx.push(AgentEffect::Tell(AgentEvent::Receipt(Box::new(receipt))));
    }

    pub(super) fn note_end(&mut self, receipt: &Receipt) {
        if let Some(work) = &receipt.work
            && work.outcome.is_some()
        {
            self.end_run(work.execution);
        }
    }

    fn dispute(&mut self, receipt: Signed<Receipt>, fault: Fault, now: Now, fx: &mut Effects) {
        self.disputed = true;
        fx.push(AgentEffect::Persist(Box::new(AgentRecord::Disputed(receipt))));
        fx.push(AgentEffect::Tell(AgentEvent::Disputed(fault.clone())));
        if self.phase == AgentPhase::Presenting {
            self.fail_opening(fault, fx);
        } else {
            fx.extend(self.handle(AgentInput::End, now));
        }
    }
}
