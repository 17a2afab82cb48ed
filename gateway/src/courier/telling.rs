//! The machine's news, as others see it.

use std::mem;

use orien_bootstrap::clock;
use orien_protocol::fault::Fault;
use orien_protocol::id::ExecutionId;
use orien_protocol::receipt::Receipt;
use orien_protocol::session::agent::AgentEvent;
use orien_protocol::time::Timestamp;
use serde_json::{Value, json};

use super::Courier;
use crate::decimal::Time;
use crate::desk::{Blame, Phase, State};
use crate::rows::RunStatus;

impl Courier {
    /// Shows what happened. Everything it shows is durable.
    pub(super) fn tell(&mut self, event: AgentEvent) {
        match event {
            AgentEvent::Opened => self.show("opened", json!({}), |state| {
                state.phase = Phase::Open;
                state.opening = Some(Ok(()));
            }),
            AgentEvent::NotOpened(fault) => {
                let closing = self.closing.take();
                let blame = Blame { fault: fault.clone(), by: self.by };
                self.show("closed", json!({ "reason": "not_opened", "fault": fault_json(&fault) }), |state| {
                    state.phase = Phase::Closed;
                    state.closing = closing;
                    state.opening = Some(Err(blame));
                });
            }
            AgentEvent::ToppedUp(total) => {
                if let Some(top_up) = self.top_up.take() {
                    // Whoever asked may be gone; the budget is raised either way.
                    let _ = top_up.send(Ok(total));
                }
                self.show("topped_up", json!({ "budgetAllowance": total.to_string() }), |_| {});
            }
            AgentEvent::Waiting(execution) => self.show("waiting", json!({ "executionId": execution.to_string() }), |state| {
                state.heard.insert(execution);
            }),
            AgentEvent::Started(execution, at) => self.on_started(execution, at),
            AgentEvent::RunRefused(execution, fault) => {
                self.rows.remove(&execution);
                let data = json!({ "executionId": execution.to_string(), "fault": fault_json(&fault) });
                self.show("refused", data, |state| forget(state, execution));
                self.end_quietly(execution);
            }
            AgentEvent::Receipt(receipt) => self.on_receipt(&receipt),
            AgentEvent::Disputed(fault) => {
                tracing::warn!(session = %self.desk.id, provider = %self.provider, %fault, "the provider broke the rules; nothing is signed any more");
                self.show("disputed", json!({ "fault": fault_json(&fault) }), |state| state.dispute = Some(fault));
            }
            AgentEvent::VoucherRefused(fault) => {
                tracing::warn!(session = %self.desk.id, provider = %self.provider, %fault, "trouble with a receipt or voucher");
                self.show("voucher_refused", json!({ "fault": fault_json(&fault) }), |_| {});
            }
            AgentEvent::Closed(reason) => {
                let closing = self.closing.take();
                self.rows.clear();
                let runs = self.desk.read(|state| state.runs.keys().copied().collect::<Vec<_>>());
                self.show("closed", json!({ "reason": reason.name() }), |state| {
                    state.phase = Phase::Closed;
                    state.closing = closing;
                    state.runs.clear();
                });
                runs.into_iter().for_each(|execution| self.end_quietly(execution));
            }
        }
    }

    fn on_started(&mut self, execution: ExecutionId, at: Timestamp) {
        let data = json!({ "executionId": execution.to_string(), "startedAt": Time(at).to_string() });
        self.show("started", data, |state| {
            state.heard.insert(execution);
            if let Some(row) = state.runs.get_mut(&execution)
                && row.started_at.is_none()
            {
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
        let rows = mem::take(&mut self.rows);
        let mut over = false;
        if let Some(work) = &receipt.work {
            over = work.outcome.is_some();
            // Before anybody can see that it is over, so that whoever does can wait for the rest of its output.
            if !over || work.usage.bytes_out > 0 {
                self.follow(work.execution);
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
            for (execution, row) in rows {
                if row.is_over() {
                    forget(state, execution);
                } else {
                    state.runs.insert(execution, row);
                }
            }
        });
        if let Some(work) = receipt.work.as_ref().filter(|_| over) {
            self.end_quietly(work.execution);
        }
    }

    /// Ends the log of a run that nobody follows: it never wrote anything.
    fn end_quietly(&mut self, execution: ExecutionId) {
        if self.followed.insert(execution) {
            let (logs, store) = (std::sync::Arc::clone(&self.context.logs), self.context.store.clone());
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
            state.tell(name, data);
        });
    }
}

pub(super) fn forget(state: &mut State, execution: ExecutionId) {
    state.runs.remove(&execution);
    state.heard.remove(&execution);
}

fn fault_json(fault: &Fault) -> Value {
    json!({ "code": fault.code.name(), "detail": fault.text, "missing": fault.missing.map(|amount| amount.to_string()) })
}
