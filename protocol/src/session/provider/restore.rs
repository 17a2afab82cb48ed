//! Picks a session up from its records after a restart.
//!
//! Every signature is checked again. The workspace is gone and no tool runs any more, so the session ends: each unfinished execution gets a final receipt at
//! its last committed time, and jobs that had none cost nothing. Its agent may answer what is out for a drain grace; that goes for receipt 1 too, although without a voucher nothing is owed.

use std::collections::BTreeMap;

use super::{Effects, Over, ProviderEnv, ProviderKeys, ProviderPhase, ProviderRecord, ProviderSession, Run};
use crate::frame::CloseReason;
use crate::id::ExecutionId;
use crate::job::Job;
use crate::ledger::Account;
use crate::money::Usdc;
use crate::network::NetworkId;
use crate::receipt::{EndReason, Outcome, Receipt, Usage};
use crate::session::RestoreError;
use crate::signing::{Signed, Verified};
use crate::terms::SignedTerms;
use crate::time::Millis;
use crate::voucher::SignedAllowance;

impl ProviderSession {
    /// Rebuilds a session and ends it; the effects are its last receipts and what follows from them.
    pub fn restore(
        records: impl IntoIterator<Item = ProviderRecord>,
        network: &NetworkId,
        keys: ProviderKeys,
        env: &ProviderEnv<'_>,
    ) -> Result<(Self, Effects), RestoreError> {
        let mut records = records.into_iter();
        let Some(ProviderRecord::Opened { terms, allowance }) = records.next() else {
            return Err(RestoreError::Order);
        };
        let mut session = Self::reopened(terms, allowance, network, keys, env)?;
        let mut usages = BTreeMap::new();
        for record in records {
            session.replay(record, &mut usages, env)?;
        }
        let mut fx = Effects::new();
        session.end_interrupted(&usages, env, &mut fx);
        Ok((session, fx))
    }

    fn reopened(
        terms: SignedTerms,
        allowance: SignedAllowance,
        network: &NetworkId,
        keys: ProviderKeys,
        env: &ProviderEnv<'_>,
    ) -> Result<Self, RestoreError> {
        let mut session = Self {
            keys,
            terms: terms.verify(network)?,
            phase: ProviderPhase::Unpaid(env.now.mono),
            allowance: None,
            account: Account::default(),
            voucher: None,
            vouched: None,
            unanswered: BTreeMap::new(),
            runs: BTreeMap::new(),
            over: BTreeMap::new(),
            waiting: std::collections::VecDeque::new(),
            written_off: Usdc::ZERO,
            short_since: None,
            gone_since: Some(env.now.mono),
            may_be_paid: true,
        };
        session.allowance = Some(session.check_allowance(allowance)?);
        Ok(session)
    }

    fn replay(
        &mut self,
        record: ProviderRecord,
        usages: &mut BTreeMap<ExecutionId, Usage>,
        env: &ProviderEnv<'_>,
    ) -> Result<(), RestoreError> {
        match record {
            ProviderRecord::Opened { .. } | ProviderRecord::GivenUp { .. } => return Err(RestoreError::Order),
            ProviderRecord::ToppedUp(allowance) => self.allowance = Some(self.check_allowance(allowance)?),
            ProviderRecord::Job(job) => self.replay_job(job)?,
            ProviderRecord::JobDropped(execution) => {
                self.put_away(execution, Over::Dropped);
            }
            ProviderRecord::Receipt(receipt) => self.replay_receipt(receipt, usages)?,
            ProviderRecord::Voucher(voucher) => {
                if let Some(voucher) = self.check_voucher(voucher)? {
                    self.take_voucher(voucher);
                }
                if matches!(self.phase, ProviderPhase::Unpaid(_)) {
                    self.phase = ProviderPhase::Open;
                }
            }
            ProviderRecord::Draining(reason) => self.phase = ProviderPhase::Draining(reason, env.now.mono),
            ProviderRecord::Closed { reason, close: Some(_) } => self.phase = ProviderPhase::Closed(reason),
            ProviderRecord::Closed { reason, close: None } => self.phase = ProviderPhase::Owing(reason),
        }
        Ok(())
    }

    fn replay_job(&mut self, job: Signed<Job>) -> Result<(), RestoreError> {
        let job = Box::new(job.verify(self.terms.network(), &self.terms.agent())?);
        self.runs.insert(job.execution, Run::Waiting(job, Millis(0)));
        Ok(())
    }

    fn replay_receipt(&mut self, receipt: Signed<Receipt>, usages: &mut BTreeMap<ExecutionId, Usage>) -> Result<(), RestoreError> {
        let receipt = receipt.verify(self.terms.network(), &self.terms.provider())?;
        self.account.apply(&self.terms, &receipt)?;
        if let Some(work) = &receipt.work {
            usages.insert(work.execution, work.usage);
            if work.outcome.is_some() {
                usages.remove(&work.execution);
                self.mark_ended(work.execution);
            }
        }
        self.unanswered.insert(receipt.number, receipt);
        Ok(())
    }

    fn mark_ended(&mut self, execution: ExecutionId) {
        self.put_away(execution, Over::Ended);
    }

    fn end_interrupted(&mut self, usages: &BTreeMap<ExecutionId, Usage>, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let interrupted: Vec<Verified<Job>> =
            self.runs.values().filter_map(|run| if let Run::Waiting(job, _) = run { Some((**job).clone()) } else { None }).collect();
        for job in interrupted {
            let (execution, price) = (job.execution, self.terms.price(&job.tool).unwrap_or_default());
            let (usage, end) =
                usages.get(&execution).map_or((Usage::default(), EndReason::SetupFailed), |usage| (*usage, EndReason::ProviderStopped));
            let run = Run::Running { job: Box::new(job), price, usage, kill: None, paused: false };
            self.runs.insert(execution, run);
            self.report(execution, Some(Outcome::of(end, None)), env, fx);
            self.mark_ended(execution);
        }
        self.drain(CloseReason::ProviderStopped, EndReason::ProviderStopped, env, fx);
        self.close_if_done(env, fx);
    }
}
