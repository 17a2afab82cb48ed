//! What the courier does about a session by itself: ends it when its time is over or nobody does anything in it, extends it, and gives it up for another when its provider is lost.
//!
//! Always true: whatever is decided here becomes durable in one commit with the machine's own record of it, and is seen only after that.

use std::collections::BTreeMap;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::session::agent::{AgentEffect, AgentInput, AgentPhase, AgentRecord};
use orien_protocol::time::{Millis, Timestamp};
use serde_json::json;
use tokio::sync::oneshot;

use super::{Courier, LAST_LOGS};
use crate::decimal::Time;
use crate::desk::Phase;
use crate::handover::dated;
use crate::plan::{EndedBy, Handover, Loss, Plan, Stage, VANISHED_AFTER};
use crate::rows::ExecutionRow;
use crate::store::{Put, StoreError};

/// What is decided and waits for its commit.
#[derive(Debug, Default)]
pub(super) struct Decided {
    plan: Option<Plan>,
    handover: Option<Handover>,
    event: Option<(&'static str, serde_json::Value)>,
}

impl Courier {
    /// Whoever opens the successor is told through this when the session is given up.
    pub(crate) fn on_giving_up(&mut self, told: oneshot::Sender<()>) {
        self.gives_up = Some(told);
    }

    /// Runs that were given up earlier: a final receipt may still come for them. The logs of those that are not `unread` have ended, and stay as they are.
    pub(crate) fn abandon_again(&mut self, rows: BTreeMap<ExecutionId, ExecutionRow>, unread: &[ExecutionId]) {
        self.followed.extend(rows.keys().filter(|run| !unread.contains(run)).map(|run| (*run, None)));
        self.abandoned.extend(rows);
    }

    /// Ends every log of a session that was given up, those of runs that never began among them: what does not come soon counts as missing. A final receipt may still come, a log no more.
    pub(super) fn give_up_logs(&mut self) {
        self.follow_unread();
        let left: Vec<ExecutionId> = self.abandoned.keys().copied().collect();
        left.into_iter().for_each(|execution| self.follow(execution));
        let limit = u64::try_from(LAST_LOGS.as_millis()).unwrap_or(u64::MAX);
        self.gone_at.get_or_insert(Millis(clock::now().mono.0.saturating_add(limit)));
    }

    fn plan(&self) -> Plan {
        self.desk.read(|state| state.plan.clone())
    }

    /// Looks whether anything has to be done.
    pub(super) fn watch(&mut self) -> Result<(), StoreError> {
        let (plan, now) = (self.plan(), clock::now());
        if self.gone_at.is_some_and(|at| now.mono >= at) {
            self.gone.cancel();
        }
        if self.machine.phase() == AgentPhase::Open
            && let Some(by) = self.is_due(&plan, now.wall)
        {
            self.end(by)?;
        } else if let Some(loss) = self.loss(&plan) {
            self.give_up(loss);
        }
        Ok(())
    }

    fn is_due(&self, plan: &Plan, now: Timestamp) -> Option<EndedBy> {
        if plan.ended_by.is_some() {
            // The process died before the machine was told.
            return plan.ended_by;
        }
        if now >= plan.expires_at(self.desk.facts.work_until) {
            return Some(EndedBy::Expiry);
        }
        if self.desk.read(|state| !state.runs.is_empty()) {
            self.desk.touch();
        }
        plan.idle_timeout.filter(|limit| self.desk.idle() >= *limit).map(|_| EndedBy::Idle)
    }

    fn loss(&self, plan: &Plan) -> Option<Loss> {
        let now = clock::now();
        let is_given_up = self.giving_up.is_some() || self.machine.sealed().is_some();
        if is_given_up || !plan.goes_on(self.desk.facts.work_until, now.wall) {
            return None;
        }
        let vanished = self.gone_since.is_some_and(|since| now.mono.0.saturating_sub(since.0) >= VANISHED_AFTER.0);
        match self.machine.phase() {
            AgentPhase::Open | AgentPhase::Ending(_) if self.machine.is_disputed() => Some(Loss::Dispute),
            AgentPhase::Open if vanished => Some(Loss::Vanished),
            _ => None,
        }
    }

    fn give_up(&mut self, loss: Loss) {
        self.giving_up = Some(loss);
        self.inputs.push_back(AgentInput::Seal);
    }

    /// Ends the session, and remembers who did.
    pub(super) fn end(&mut self, by: EndedBy) -> Result<(), StoreError> {
        let plan = self.plan();
        if plan.ended_by.is_none() {
            self.decide_plan(Plan { ended_by: Some(by), ..plan })?;
        }
        self.inputs.push_back(AgentInput::End);
        Ok(())
    }

    /// Lets the session go on, if it is open.
    pub(super) async fn on_extend(
        &mut self,
        until: Timestamp,
        answer: oneshot::Sender<Result<Timestamp, Fault>>,
    ) -> Result<(), StoreError> {
        let (plan, hard) = (self.plan(), self.desk.facts.work_until);
        let now = plan.expires_at(hard);
        let said = if self.machine.phase() != AgentPhase::Open || plan.ended_by.is_some() {
            Err(Fault::new(FaultCode::WRONG_STATE, "only an open session can be extended"))
        } else if until > hard.timestamp() {
            Err(Fault::new(FaultCode::TIMES, format_args!("the session can be extended until {} and no longer", Time(hard.timestamp()))))
        } else if until <= now {
            // It lasts so long already.
            Ok(now)
        } else {
            self.decide_plan(Plan { expires_at: Some(until), ..plan })?;
            self.decided.event = Some(("extended", json!({ "expiresAt": Time(until).to_string() })));
            self.commit().await?;
            Ok(until)
        };
        // Whoever asked may be gone; the session lasts as long either way.
        let _ = answer.send(said);
        Ok(())
    }

    fn decide_plan(&mut self, plan: Plan) -> Result<(), StoreError> {
        self.staged.push(Put::plan(&self.desk.id, &plan)?);
        self.decided.plan = Some(plan);
        Ok(())
    }

    /// In one commit with the closing: a session that its provider left goes on elsewhere.
    pub(super) fn stage_loss(&mut self, reason: orien_protocol::frame::CloseReason) -> Result<(), StoreError> {
        let Some(loss) = Loss::of(reason).filter(|_| self.plan().goes_on(self.desk.facts.work_until, clock::wall())) else { return Ok(()) };
        if self.machine.sealed().is_some() {
            return Ok(());
        }
        self.giving_up = Some(loss);
        for effect in self.machine.handle(AgentInput::Seal, clock::now()) {
            if let AgentEffect::Persist(record) = effect
                && let AgentRecord::Sealed { .. } = *record
            {
                // Its runs are over with the session itself.
                self.stage_record(&record, None)?;
            }
        }
        Ok(())
    }

    /// In one commit with the seal: what the successor may cost, what its id follows from, and that runs under way are given up.
    pub(super) fn stage_handover(&mut self) -> Result<(), StoreError> {
        let now = clock::wall();
        let seed = clock::random_id(SessionId::from_parts).map_err(|error| StoreError::Write(error.to_string()))?;
        let loss = self.giving_up.unwrap_or(Loss::Vanished);
        let handover = Handover { seed: *seed.as_bytes(), budget: self.machine.unused(), loss, at: now, stage: Stage::Pending };
        self.staged.push(Put::handover(&self.desk.id, &handover)?);
        if !matches!(self.machine.phase(), AgentPhase::Closed(_)) {
            let text =
                "the provider was lost while the run was under way; it may have been carried out in part, and is not repeated by itself";
            let mut lost = self.desk.read(|state| state.runs.clone());
            for (execution, row) in &mut lost {
                *row = row.refused(Fault::new(FaultCode::SESSION_ENDED, text), now);
                self.staged.push(Put::execution(execution, row)?);
            }
            self.abandoned.extend(lost);
        }
        let data = json!({ "reason": loss.name(), "budget": handover.budget.to_string() });
        self.decided.event = Some(("failover", data));
        self.decided.handover = Some(handover);
        Ok(())
    }

    /// Shows what is durable now.
    pub(super) fn show_decided(&mut self) {
        let Decided { plan, handover, event } = std::mem::take(&mut self.decided);
        if plan.is_none() && handover.is_none() && event.is_none() {
            return;
        }
        let is_given_up = handover.is_some();
        let abandoned: Vec<ExecutionId> = if is_given_up { self.abandoned.keys().copied().collect() } else { Vec::new() };
        self.desk.change(|state| {
            if state.phase == Phase::Open && (is_given_up || plan.as_ref().is_some_and(|plan| plan.ended_by.is_some())) {
                state.phase = Phase::Ending;
            }
            if let Some(plan) = plan {
                state.plan = plan;
            }
            if let Some(handover) = handover {
                state.handover = Some(handover);
            }
            for execution in &abandoned {
                state.forget(*execution, None);
            }
            if let Some((name, data)) = event {
                state.news.tell(name, dated(data));
            }
        });
        if is_given_up {
            self.give_up_logs();
        }
        if is_given_up && let Some(told) = self.gives_up.take() {
            // Nobody waits when the gateway stops; the next start finds it.
            let _ = told.send(());
        }
    }
}
