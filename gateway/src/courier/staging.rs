//! What becomes durable together with a record of the machine: the rows that it changes.

use std::collections::BTreeMap;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::CloseReason;
use orien_protocol::id::ExecutionId;
use orien_protocol::receipt::{EndReason, Work};
use orien_protocol::session::agent::AgentRecord;

use super::Courier;
use crate::lines::Lines;
use crate::rows::{Closing, ExecutionRow, SessionFacts, may_have_written};
use crate::store::{Put, StoreError};

impl Courier {
    /// Stages a record, and every row that it changes. `refusal` is why, when the record says that something was refused.
    pub(super) fn stage_record(&mut self, record: &AgentRecord, refusal: Option<Fault>) -> Result<(), StoreError> {
        self.staged.push(Put::record(&self.desk.id, self.seq, record)?);
        self.seq = self.seq.saturating_add(1);
        match record {
            AgentRecord::Answered { receipt, .. } => {
                let receipt = receipt.unverified();
                if let Some(work) = &receipt.work
                    && let Some(row) = self.row(work.execution)
                    // One that was given up is over for everybody until a final receipt says how.
                    && (work.outcome.is_some() || !self.abandoned.contains_key(&work.execution))
                {
                    let row = ExecutionRow { fault: None, ..row.receipted(work, receipt.at) };
                    if row.is_over() {
                        self.staged.push(Put::execution(&work.execution, &row)?);
                        if self.is_silent(work, &row) {
                            self.stage_silence(work.execution)?;
                        }
                    }
                    self.abandoned.remove(&work.execution);
                    self.rows.insert(work.execution, row);
                }
            }
            AgentRecord::JobRefused(execution) => {
                if let Some(row) = self.row(*execution) {
                    let fault = refusal.unwrap_or_else(|| Fault::new(FaultCode::INTERNAL, "the provider refused the job"));
                    let row = row.refused(fault, clock::wall());
                    self.staged.push(Put::execution(execution, &row)?);
                    self.abandoned.remove(execution);
                    self.rows.insert(*execution, row);
                }
            }
            AgentRecord::Closed { reason, .. } => {
                self.stage_closing(*reason, refusal)?;
                if self.machine.owes_release() {
                    self.staged.push(Put::release(&self.desk.id, true));
                }
                self.stage_loss(*reason)?;
            }
            AgentRecord::Sealed { .. } => self.stage_handover()?,
            _ => {}
        }
        Ok(())
    }

    /// Whether a run that is over has written nothing. One that could not be started has not; but a provider that crashed says that also of one that it had started.
    fn is_silent(&self, work: &Work, row: &ExecutionRow) -> bool {
        let never_began = work.outcome.is_some_and(|outcome| outcome.end == EndReason::SetupFailed) && row.started_at.is_none();
        !may_have_written(work) || (never_began && self.context.logs.is_new(&work.execution))
    }

    /// Stages the end of a log to which nothing was written, unless it is being asked for already.
    fn stage_silence(&mut self, execution: ExecutionId) -> Result<(), StoreError> {
        let is_free = match self.followed.insert(execution, None) {
            None => true,
            Some(told) => told.is_some_and(|told| told.send(true).is_ok()),
        };
        if is_free {
            self.staged.push(Put::output(&execution, &Lines::default().tail())?);
            self.silent.insert(execution);
        }
        Ok(())
    }

    /// The row of an execution as it will be once everything staged is durable.
    fn row(&self, execution: ExecutionId) -> Option<ExecutionRow> {
        let known = self.rows.get(&execution).or_else(|| self.abandoned.get(&execution));
        known.cloned().or_else(|| self.desk.read(|state| state.runs.get(&execution).cloned()))
    }

    fn stage_closing(&mut self, reason: CloseReason, refusal: Option<Fault>) -> Result<(), StoreError> {
        let now = clock::wall();
        let (dispute, effective_ms, runs) = self.desk.read(|state| (state.dispute.clone(), state.effective_ms(), state.runs.clone()));
        let measures = self.desk.read(|state| state.measures.clone());
        self.staged.push(Put::measures(&self.desk.id, &measures)?);
        let mut left: BTreeMap<_, _> = runs;
        left.extend(self.rows.iter().map(|(id, row)| (*id, row.clone())));
        for (execution, row) in left.into_iter().filter(|(_, row)| !row.is_over()) {
            let row = row.refused(Fault::new(FaultCode::SESSION_ENDED, "the session ended before a final receipt came"), now);
            self.staged.push(Put::execution(&execution, &row)?);
            self.rows.insert(execution, row);
        }
        let closing = Closing {
            at: now,
            reason,
            fault: refusal.or(dispute),
            budget: self.machine.budget(),
            charged: self.machine.charged(),
            promised: self.machine.promised(),
            effective_ms,
        };
        let facts = SessionFacts { closing: Some(closing), ..self.desk.facts.clone() };
        self.closing = facts.closing.clone();
        self.staged.push(Put::session(&self.desk.id, &facts)?);
        Ok(())
    }
}
