//! Picks a session up from its records after a restart. Every signature is checked again; an opening that was interrupted is given up.

use thiserror::Error;

use super::{AgentEffect, AgentKeys, AgentPhase, AgentRecord, AgentSession, Agreement, Effects, Run};
use crate::fault::{Fault, FaultCode};
use crate::ledger::{Account, LedgerError};
use crate::money::Usdc;
use crate::network::NetworkId;
use crate::receipt::Receipt;
use crate::signing::{SignatureError, Signed};
use crate::terms::{ProposedTerms, Terms, TermsError};
use crate::time::Now;
use crate::voucher::SignedVoucher;

/// Stored records do not form a session.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum RestoreError {
    /// The records are not in the order in which they can happen.
    #[error("the records of the session are not in order")]
    Order,
    /// A signature on disk is wrong.
    #[error(transparent)]
    Signature(#[from] SignatureError),
    /// The terms on disk are wrong.
    #[error(transparent)]
    Terms(#[from] TermsError),
    /// The receipts on disk do not follow from each other.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// An allowance on disk is wrong.
    #[error(transparent)]
    Money(#[from] Fault),
}

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
        let mut session = Self::reproposed(terms, budget, network, keys)?;
        for record in records {
            session.replay(record, network, now)?;
        }
        let mut fx = Effects::new();
        session.fail_opening(Fault::new(FaultCode::INTERNAL, "the gateway stopped while the session was opening"), &mut fx);
        Ok((session, fx))
    }

    fn reproposed(terms: Signed<Terms>, budget: Usdc, network: &NetworkId, keys: AgentKeys) -> Result<Self, RestoreError> {
        let proposal = ProposedTerms::verify(terms, network)?;
        Ok(Self {
            keys,
            agreement: Agreement::Proposed(Box::new(proposal)),
            phase: AgentPhase::Proposing,
            budget,
            allowance: None,
            account: Account::default(),
            voucher: None,
            runs: std::collections::BTreeMap::new(),
            disputed: false,
            catching_up: false,
        })
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
                self.runs.insert(job.execution, Run { job, sent: None, ended: false });
            }
            AgentRecord::JobRefused(execution) => {
                if let Some(run) = self.runs.get_mut(&execution) {
                    run.ended = true;
                }
            }
            AgentRecord::Answered { receipt, voucher } => self.replay_answer(receipt, voucher, network)?,
            AgentRecord::Disputed(_) => self.disputed = true,
            AgentRecord::Ending => self.phase = AgentPhase::Ending(now.mono),
            AgentRecord::Closed { reason, .. } => self.phase = AgentPhase::Closed(reason),
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
