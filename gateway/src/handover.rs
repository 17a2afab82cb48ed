//! A session whose provider is lost goes on elsewhere: another one is opened with the rest of its budget.
//!
//! Always true: what the successor may cost, and what its id follows from, was durable in one commit with the seal of the old session before anything is proposed, so it is opened once and
//! both together stay within the budget, whenever the process dies. Runs are not repeated and files are not carried over: nobody but the caller knows what may be done twice.
//!
//! It does not know how the loss was noticed.

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::id::SessionId;
use orien_protocol::time::Timestamp;
use serde_json::{Value, json};

use crate::decimal::Time;
use crate::desk::{Blame, By};
use crate::opening::{Choice, OpenError, OpenRequest};
use crate::plan::{Handover, LEAST_LEFT, Plan, Stage};
use crate::rows::{Refusal, SessionRow};
use crate::sessions::Sessions;
use crate::spending::Spender;
use crate::store::{Put, StoreError};

/// First and longest wait between two attempts.
const RETRY: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(30));
/// Attempts before it is given up: about five minutes, in which a provider that was restarted, or a busy one, is there again.
const ATTEMPTS: u32 = 14;

impl Sessions {
    /// Opens the successor of a session that was given up, unless that is done.
    pub(crate) async fn hand_over(self: &Arc<Self>, old: SessionId) {
        if let Some(Err(error)) = self.until_stopped(self.open_successor(old)).await {
            self.fail(old, error);
        }
    }

    async fn open_successor(self: &Arc<Self>, old: SessionId) -> Result<(), StoreError> {
        let Some(row) = self.context.store.session(old).await? else { return Ok(()) };
        let Some(handover) = row.handover.clone().filter(|handover| handover.stage == Stage::Pending) else { return Ok(()) };
        let mut wait = RETRY.0;
        for attempt in 1..=ATTEMPTS {
            let stage = match request(old, &row, &handover, clock::wall()) {
                Err(too_late) => failed(&Refusal::from(too_late)),
                Ok(request) => match self.open(&request).await {
                    Ok(new) => Stage::Done(new),
                    Err(OpenError::Store(error)) => return Err(error),
                    Err(error) if is_passing(&error) && attempt < ATTEMPTS => {
                        tracing::info!(session = %old, %error, "its successor cannot be opened now");
                        tokio::time::sleep(wait).await;
                        wait = wait.saturating_mul(2).min(RETRY.1);
                        continue;
                    }
                    Err(error) => failed(&Refusal::from(error)),
                },
            };
            return self.note_stage(old, Handover { stage, ..handover }).await;
        }
        Ok(())
    }

    async fn note_stage(&self, old: SessionId, handover: Handover) -> Result<(), StoreError> {
        self.context.store.write(vec![Put::handover(&old, &handover)?]).await?;
        let (name, data) = match &handover.stage {
            Stage::Done(new) => ("replaced", json!({ "replacedBy": new.to_string(), "budget": handover.budget.to_string() })),
            Stage::Failed { code, detail } => ("failover_failed", json!({ "code": code, "detail": detail })),
            Stage::Pending => return Ok(()),
        };
        tracing::info!(session = %old, event = name, %data, "a session whose provider was lost");
        if let Some(desk) = self.desk(&old) {
            desk.change(|state| {
                state.handover = Some(handover);
                state.news.tell(name, dated(data));
            });
        }
        Ok(())
    }
}

/// An event's data with its time, as all have it.
pub(crate) fn dated(mut data: Value) -> Value {
    if let Value::Object(members) = &mut data {
        members.insert("at".to_owned(), Time(clock::wall()).to_string().into());
    }
    data
}

fn failed(refusal: &Refusal) -> Stage {
    let mut detail = refusal.detail.clone();
    if let Some(missing) = refusal.missing {
        detail.push_str(&format!(" ({missing} USDC are missing; what the old session reserved is free only when its provider closes it or its time for redemption is over)"));
    }
    Stage::Failed { code: refusal.code.to_string(), detail }
}

/// What is asked for: the same as before, with what is left of the budget and the time.
fn request(old: SessionId, row: &SessionRow, handover: &Handover, now: Timestamp) -> Result<OpenRequest, Fault> {
    let left = row.plan.expires_at(row.facts.work_until).since(now);
    if left < LEAST_LEFT {
        return Err(Fault::new(FaultCode::TIMES, "the session's time was over before another could be opened"));
    }
    let mut wish = row.plan.wish.clone();
    if wish.tools.is_empty() && wish.capability.is_none() {
        // Nobody said what is needed: whatever there was.
        wish.tools = row.facts.tools.iter().map(|tool| tool.id.clone()).collect();
    }
    let plan = Plan {
        wish,
        expires_at: Some(row.plan.expires_at(row.facts.work_until)),
        replaces: Some(old),
        hop: row.plan.hop.saturating_add(1),
        ended_by: None,
        ..row.plan.clone()
    };
    Ok(OpenRequest {
        choice: Choice::Auto,
        avoid: Some(row.facts.provider),
        budget: handover.budget,
        mission: row.facts.mission.clone(),
        plan,
        first_run: None,
        expiry: left,
        seed: handover.seed,
        spender: Spender::default(),
    })
}

/// Whether the same attempt may succeed in a moment.
fn is_passing(error: &OpenError) -> bool {
    match error {
        OpenError::NoProvider { .. } | OpenError::Full => true,
        OpenError::Blame(Blame { by: By::Provider | By::ProviderGone | By::SettlementGone, .. }) => true,
        OpenError::Blame(Blame { fault, by: By::Settlement }) => matches!(fault.code, FaultCode::BUSY | FaultCode::INTERNAL),
        OpenError::Blame(Blame { fault, by: By::Us }) => fault.code == FaultCode::INTERNAL,
        OpenError::Unfit(_) | OpenError::Commit(_) | OpenError::Store(_) => false,
    }
}
