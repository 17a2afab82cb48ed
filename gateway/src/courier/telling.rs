//! The machine's news, as others see it.

use std::collections::btree_map::Entry;
use std::sync::Arc;

use orien_bootstrap::clock;
use orien_protocol::id::ExecutionId;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::AgentEvent;
use orien_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::Courier;
use crate::artifacts;
use crate::decimal::Time;
use crate::desk::{Blame, Phase, State, end_data, fault_data};
use crate::rows::{ExecutionRow, RunStatus};

impl Courier {
    /// Shows what happened. Everything it shows is durable.
    pub(super) fn tell(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Opened => self.show("opened", json!({}), |state| {
                state.phase = Phase::Open;
                state.opening = Some(Ok(()));
            }),
            AgentEvent::NotOpened(fault) => {
                let blame = Blame { fault, by: self.by };
                self.show_end(|state| state.opening = Some(Err(blame)));
            }
            AgentEvent::ToppedUp(total) => {
                // Shown first: whoever asked looks at once.
                self.show("topped_up", json!({ "budgetAllowance": total.to_string() }), |_| {});
                if let Some(top_up) = self.top_up.take() {
                    // Whoever asked may be gone; the budget is raised either way.
                    let _ = top_up.send(Ok(total));
                }
            }
            // It is as pending as it was.
            AgentEvent::Waiting(execution) => self.desk.change(|state| {
                state.heard.insert(execution);
            }),
            AgentEvent::Started(execution, at) => self.on_started(execution, at),
            AgentEvent::RunRefused(execution, fault) => {
                self.rows.remove(&execution);
                let tool = self.desk.read(|state| state.runs.get(&execution).map(|row| row.tool.clone()));
                let data = json!({ "executionId": execution.to_string(), "toolId": tool, "status": "failed", "fault": fault_data(&fault) });
                self.show("run", data, |state| state.forget(execution, None));
                self.end_quietly(execution);
            }
            AgentEvent::Receipt(receipt) => self.on_receipt(&receipt),
            AgentEvent::Disputed(fault) => {
                tracing::warn!(session = %self.desk.id, provider = %self.provider, %fault, "the provider broke the rules; nothing is signed any more");
                self.show("disputed", json!({ "fault": fault_data(&fault) }), |state| state.dispute = Some(fault));
            }
            AgentEvent::VoucherRefused(fault) => {
                tracing::warn!(session = %self.desk.id, provider = %self.provider, %fault, "trouble with a receipt or voucher");
                self.show("voucher_refused", json!({ "fault": fault_data(&fault) }), |_| {});
            }
            AgentEvent::Closed(_) => {
                // The last chance: the provider keeps them only a little longer.
                self.follow_unread();
                self.rows.clear();
                let runs = self.desk.read(|state| state.runs.keys().copied().collect::<Vec<_>>());
                self.show_end(State::forget_all);
                // Nobody said that they wrote nothing.
                runs.into_iter().for_each(|execution| self.follow(execution));
            }
        }
    }

    fn on_started(&mut self, execution: ExecutionId, at: Timestamp) {
        let tool = self.desk.read(|state| state.runs.get(&execution).map(|row| row.tool.clone()));
        let started_at = Time(at).to_string();
        let data = json!({ "executionId": execution.to_string(), "toolId": tool, "status": "running", "startedAt": started_at });
        self.show("run", data, |state| {
            state.heard.insert(execution);
            if let Some(row) = state.runs.get_mut(&execution)
                && row.started_at.is_none()
            {
                state.meters.started(execution, &row.tool, clock::now().mono);
                // On our own clock: the provider's may differ from it by more than a start takes.
                state.measures.note_start(clock::wall().since(row.asked_at));
                row.started_at = Some(at);
                row.status = RunStatus::Running;
            }
        });
        self.follow(execution);
    }

    fn on_receipt(&mut self, receipt: &Receipt) {
        let mut data =
            json!({ "number": receipt.number, "at": Time(receipt.at).to_string(), "budgetConsumed": receipt.charged.to_string() });
        let row = receipt.work.as_ref().and_then(|work| Some((work.execution, self.rows.remove(&work.execution)?)));
        let ended = row.clone().filter(|(_, row)| row.is_over());
        if let Some(work) = &receipt.work {
            let over = work.outcome.is_some();
            // Before anybody can see that it is over, so that whoever does can wait for the rest of its output.
            if !over || !self.silent.contains(&work.execution) {
                self.follow(work.execution);
            }
            if over && self.silent.remove(&work.execution) {
                self.context.logs.end_silent(work.execution);
            } else if over && let Some(told) = self.followed.get_mut(&work.execution).and_then(Option::take) {
                // One that asks for the log already needs no telling.
                let _ = told.send(false);
            }
            if let Value::Object(members) = &mut data {
                members.insert("executionId".to_owned(), work.execution.to_string().into());
                members.insert("effectiveMs".to_owned(), work.usage.effective_ms.into());
                members.insert("cost".to_owned(), work.charge.to_string().into());
                members.insert("endReason".to_owned(), work.outcome.map_or(Value::Null, |outcome| outcome.end.name().into()));
                members.insert("exitCode".to_owned(), work.outcome.and_then(|outcome| outcome.exit_code).map_or(Value::Null, Value::from));
            }
        }
        let promised = self.machine.promised();
        self.show("receipt", data, |state| {
            state.note(receipt);
            state.promised = promised;
            match row {
                Some((execution, row)) if row.is_over() => state.forget(execution, Some(row)),
                Some((execution, row)) => drop(state.runs.insert(execution, row)),
                None => {}
            }
        });
        if let Some((execution, row)) = ended {
            self.show("run", ended_data(execution, &row), |_| {});
            self.look_for_artifacts(execution, &row);
        }
    }

    /// Tells those who follow the session what the run has left in its workspace, once somebody has looked.
    fn look_for_artifacts(&mut self, execution: ExecutionId, row: &ExecutionRow) {
        let began = row.started_at.unwrap_or(row.asked_at);
        if self.desk.change(|state| state.artifacts.ended(execution, began, clock::now().mono)) {
            self.followers.spawn(artifacts::look(Arc::clone(&self.context), Arc::clone(&self.desk)));
        }
    }

    /// Ends the log of a run that was refused: it never wrote anything.
    fn end_quietly(&mut self, execution: ExecutionId) {
        if let Entry::Vacant(entry) = self.followed.entry(execution) {
            entry.insert(None);
            let (logs, store) = (Arc::clone(&self.context.logs), self.context.store.clone());
            self.followers.spawn(async move { logs.end(execution, &store).await });
        }
    }

    fn show(&self, name: &'static str, data: Value, how: impl FnOnce(&mut State)) {
        let budget = self.machine.budget();
        let ending = matches!(self.machine.phase(), orien_protocol::session::agent::AgentPhase::Ending(_));
        let at = Time(clock::wall()).to_string();
        self.desk.change(|state| {
            how(state);
            state.budget = budget;
            if ending && state.phase == Phase::Open {
                state.phase = Phase::Ending;
            }
            let mut data = data;
            if let Value::Object(members) = &mut data {
                members.entry("at").or_insert(at.into());
            }
            state.news.tell(name, data);
            if let Some(warning) = state.warning() {
                state.news.tell("warning", warning);
            }
        });
    }

    /// Shows that the session is over.
    fn show_end(&mut self, how: impl FnOnce(&mut State)) {
        let (closing, budget) = (self.closing.take(), self.machine.budget());
        self.desk.change(|state| {
            how(state);
            state.budget = budget;
            state.phase = Phase::Closed;
            // Whoever comes back later finds the same number, made from what is stored.
            let least = closing.as_ref().map_or(0, |closing| closing.at.0);
            let data = closing.as_ref().map_or_else(|| json!({}), |closing| end_data(closing, &state.plan, state.handover.as_ref()));
            state.closing = closing;
            state.news.tell_from(least, "end", data);
        });
    }
}

/// A run that is over, as its receipt says.
fn ended_data(execution: ExecutionId, row: &ExecutionRow) -> Value {
    let outcome = row.work.as_ref().and_then(|work| work.outcome);
    json!({
        "executionId": execution.to_string(),
        "toolId": row.tool,
        "status": row.status.name(),
        "completedAt": row.completed_at.map(|at| Time(at).to_string()),
        "cost": row.work.as_ref().map(|work| work.charge.to_string()),
        "effectiveMs": row.work.as_ref().map(|work| work.usage.effective_ms),
        "endReason": outcome.map(|outcome| outcome.end.name()),
        "exitCode": outcome.and_then(|outcome| outcome.exit_code),
        "fault": row.fault.as_ref().map(fault_data),
    })
}
