//! Picks a session up from its records after a restart. Every signature is checked again; an opening that was interrupted is given up, and what it may have reserved
//! is given back.

use super::runs::{Run, Stopwatch};
use super::{AgentEffect, AgentKeys, AgentPhase, AgentRecord, AgentSession, Agreement, Effects};
use crate::fault::{Fault, FaultCode};
use crate::network::NetworkId;
use crate::receipt::Receipt;
use crate::session::RestoreError;
use crate::signing::Signed;
use crate::terms::ProposedTerms;
use crate::time::Now;
use crate::voucher::SignedVoucher;

impl AgentSession {
    /// Rebuilds a session; the effects give up an opening that was interrupted.
    pub fn restore(
        records: impl IntoIterator<Item = AgentRecord>,
        network: &NetworkId,
        keys: AgentKeys,
        now: Now,
    ) -> Result<(Self, Vec<AgentEffect>), RestoreError> {
        let mut records = records.into_iter();
        let Some(AgentRecord::Proposed { terms, budget }) = records.next() else {
            return Err(RestoreError::Order);
        };
        let mut session = Self::proposed(ProposedTerms::verify(terms, network)?, budget, keys);
        for record in records {
            session.replay(record, network, now)?;
        }
        session.connected = false;
        // The tolerance is added once, however often this happens: what was receipted may already lie within it.
        let tolerance_ms = session.proposed_terms().time_tolerance.0;
        for (execution, run) in &mut session.runs {
            let receipted_ms = session.account.receipted_ms(execution).saturating_sub(tolerance_ms);
            run.clock = Stopwatch::Resumed { receipted_ms, at: now.mono };
        }
        let mut fx = Effects::new();
        session.fail_opening(Fault::new(FaultCode::INTERNAL, "the gateway stopped while the session was opening"), &mut fx);
        session.hand_back(&mut fx);
        Ok((session, fx))
    }

    fn replay(&mut self, record: AgentRecord, network: &NetworkId, now: Now) -> Result<(), RestoreError> {
        match record {
            AgentRecord::Proposed { .. } => return Err(RestoreError::Order),
            AgentRecord::Agreed(terms) => {
                self.agreement = Agreement::Agreed(Box::new(terms.verify(network)?));
                self.phase = AgentPhase::Reserving;
            }
            AgentRecord::Reserved(allowance) => {
                self.allowance = Some(self.check_allowance(allowance)?);
                if self.phase == AgentPhase::Reserving {
                    self.phase = AgentPhase::Presenting;
                }
            }
            AgentRecord::Job(job) => {
                let job = job.verify(network, &self.keys.peer.id())?;
                let clock = Stopwatch::Resumed { receipted_ms: 0, at: now.mono };
                self.runs.insert(job.execution, Run { job, clock, offered: false, sent: true, cancelled: false });
            }
            AgentRecord::Cancelled(execution) => {
                if let Some(run) = self.runs.get_mut(&execution) {
                    run.cancelled = true;
                }
            }
            AgentRecord::JobRefused(execution) => {
                self.end_run(execution);
            }
            AgentRecord::Answered { receipt, voucher } => self.replay_answer(receipt, voucher, network)?,
            AgentRecord::Disputed(_) => {
                self.disputed = true;
                // A closed session may still learn that it was cheated; that does not open it again.
                if !matches!(self.phase, AgentPhase::Closed(_)) {
                    self.phase = AgentPhase::Ending(now.mono);
                }
            }
            AgentRecord::Ending => self.phase = AgentPhase::Ending(now.mono),
            AgentRecord::Closed { reason, close } => {
                self.phase = AgentPhase::Closed(reason);
                self.let_go = close.filter(|close| self.is_close_of_nothing(close));
            }
            AgentRecord::LetGo(close) => self.let_go = Some(close).filter(|close| self.is_close_of_nothing(close)),
            AgentRecord::Released => self.released = true,
            AgentRecord::Sealed { most } => self.sealed = Some(most),
        }
        Ok(())
    }

    fn replay_answer(&mut self, receipt: Signed<Receipt>, voucher: SignedVoucher, network: &NetworkId) -> Result<(), RestoreError> {
        let terms = self.terms().cloned().ok_or(RestoreError::Order)?;
        let receipt = receipt.verify(network, &terms.provider())?;
        self.account.apply(&terms, &receipt)?;
        self.voucher = Some(voucher.verify(&terms.domain, &self.keys.spending.address())?);
        self.note_end(&receipt);
        if self.phase == AgentPhase::Presenting {
            self.phase = AgentPhase::Open;
        }
        Ok(())
    }
}
