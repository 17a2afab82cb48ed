//! What a caller wants of a session beside its terms, what the gateway decided about it by itself, and how it is handed over to another provider.
//!
//! Always true: a decision is on disk before anything follows from it. What a handover gives to the successor was set aside in the old session's records in the same commit, so both
//! together never cost more than the caller allowed (M8).
//!
//! It does not know how a successor is opened.

use std::collections::BTreeMap;

use orien_protocol::frame::CloseReason;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::time::{Millis, Timestamp, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::matching::Wish;
use crate::rows::Closing;

/// How often one session is handed on, its successors included: each time costs the minimum charge of one more provider.
pub(crate) const HANDOVERS_LIMIT: u8 = 8;
/// How long a provider may be out of reach before it counts as vanished: a node that is restarted is back within seconds, and whoever rents by the second does not wait for minutes.
pub(crate) const VANISHED_AFTER: Millis = Millis::from_secs(10);
/// With less time left than this a session is not worth handing over.
pub(crate) const LEAST_LEFT: Millis = Millis::from_secs(10);

/// What is wanted of a session, and what was decided about it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// The caller's own names for it.
    pub(crate) labels: BTreeMap<String, String>,
    /// When the gateway ends it; without one, when its terms do.
    pub(crate) expires_at: Option<Timestamp>,
    /// The gateway ends it when nothing was done in it for so long.
    pub(crate) idle_timeout: Option<Millis>,
    /// Whether it goes on elsewhere when its provider is lost.
    pub(crate) failover: bool,
    /// What the provider was chosen by.
    pub(crate) wish: Wish,
    /// The session that it goes on for.
    pub(crate) replaces: Option<SessionId>,
    /// How many sessions came before it in this way.
    pub(crate) hop: u8,
    /// Who ended it, once somebody did on our side.
    pub(crate) ended_by: Option<EndedBy>,
}

/// Who ended a session on our side.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum EndedBy {
    /// The caller.
    Caller,
    /// The gateway, because nothing was done in it for as long as the caller said.
    Idle,
    /// The gateway, because its time was over.
    Expiry,
}

impl Plan {
    /// When the session ends; never later than its terms say.
    pub(crate) fn expires_at(&self, work_until: UnixSeconds) -> Timestamp {
        let hard = work_until.timestamp();
        self.expires_at.map_or(hard, |soft| soft.min(hard))
    }

    /// Whether the session is to go on elsewhere if its provider is lost at this moment.
    pub(crate) fn goes_on(&self, work_until: UnixSeconds, now: Timestamp) -> bool {
        let left = self.expires_at(work_until).since(now);
        self.failover && self.ended_by.is_none() && self.hop < HANDOVERS_LIMIT && left >= LEAST_LEFT
    }
}

/// The owner's word for where a session stands.
pub(crate) fn status(closing: Option<&Closing>, plan: &Plan, handover: Option<&Handover>) -> &'static str {
    if handover.is_some() {
        // Its provider was lost: it takes no runs any more, even if nobody could say so to the provider yet.
        return "failed";
    }
    let Some(closing) = closing else { return "active" };
    match closing.reason {
        _ if closing.is_disputed() => "failed",
        CloseReason::Ended if matches!(plan.ended_by, Some(EndedBy::Idle | EndedBy::Expiry)) => "expired",
        CloseReason::Ended => "completed",
        CloseReason::Expired | CloseReason::AgentGone => "expired",
        CloseReason::NotSigned | CloseReason::Unredeemed | CloseReason::ProviderStopped | CloseReason::Dispute | CloseReason::NotOpened => {
            "failed"
        }
    }
}

/// Why a session ended: how its provider was lost, or what the gateway ended it for, or what both sides say.
pub(crate) fn end_reason(closing: Option<&Closing>, plan: &Plan, handover: Option<&Handover>) -> Option<&'static str> {
    let closed = closing.map(|closing| closing.reason);
    match (handover, plan.ended_by, closed) {
        (Some(handover), ..) => Some(handover.loss.name()),
        (None, Some(EndedBy::Idle), Some(CloseReason::Ended)) => Some("idle"),
        (None, Some(EndedBy::Expiry), Some(CloseReason::Ended)) => Some(CloseReason::Expired.name()),
        (None, _, closed) => closed.map(CloseReason::name),
    }
}

/// How a provider was lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Loss {
    /// It was out of reach for [`VANISHED_AFTER`].
    Vanished,
    /// It stopped or was restarted, and has closed the session.
    Stopped,
    /// It broke the rules, or knows nothing of the session any more.
    Dispute,
    /// Settlement does not redeem what it earned, and it risks no more.
    Unredeemed,
}

impl Loss {
    /// Whether a session that its provider closed for this reason is lost. What the agent's side brought about is not: ended, expired, not signed, agent gone.
    pub(crate) const fn of(reason: CloseReason) -> Option<Self> {
        match reason {
            CloseReason::ProviderStopped => Some(Self::Stopped),
            CloseReason::Dispute => Some(Self::Dispute),
            CloseReason::Unredeemed => Some(Self::Unredeemed),
            CloseReason::Ended | CloseReason::Expired | CloseReason::NotSigned | CloseReason::AgentGone | CloseReason::NotOpened => None,
        }
    }

    /// Stable name for people and APIs.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Vanished => "provider_vanished",
            Self::Stopped => "provider_stopped",
            Self::Dispute => "dispute",
            Self::Unredeemed => "unredeemed",
        }
    }
}

/// A session's way to its successor.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Handover {
    /// What the successor's id follows from.
    pub(crate) seed: [u8; 16],
    /// What the old session can no longer use.
    pub(crate) budget: Usdc,
    /// How the provider was lost.
    pub(crate) loss: Loss,
    /// When that was decided.
    pub(crate) at: Timestamp,
    /// How far it is.
    pub(crate) stage: Stage,
}

/// How far a handover is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Stage {
    /// A successor is being opened.
    Pending,
    /// It is open.
    Done(SessionId),
    /// There is none, and none is looked for any more.
    Failed {
        /// Stable code of why.
        code: String,
        /// In words.
        detail: String,
    },
}

impl Handover {
    /// The session that goes on for the old one.
    pub(crate) const fn successor(&self) -> Option<SessionId> {
        match self.stage {
            Stage::Done(session) => Some(session),
            Stage::Pending | Stage::Failed { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_goes_on_only_if_that_is_wanted_nobody_ended_it_and_time_and_hops_are_left() {
        let (until, now) = (UnixSeconds(1_000), Timestamp(900_000));
        let plan = Plan { failover: true, ..Plan::default() };
        assert!(plan.goes_on(until, now));
        assert!(!plan.goes_on(until, Timestamp(990_001)));
        assert!(!Plan { failover: false, ..plan.clone() }.goes_on(until, now));
        assert!(!Plan { ended_by: Some(EndedBy::Caller), ..plan.clone() }.goes_on(until, now));
        assert!(!Plan { hop: HANDOVERS_LIMIT, ..plan.clone() }.goes_on(until, now));
        assert!(!Plan { expires_at: Some(Timestamp(905_000)), ..plan }.goes_on(until, now));
    }

    #[test]
    fn no_plan_lasts_longer_than_the_terms() {
        let plan = |at| Plan { expires_at: at, ..Plan::default() }.expires_at(UnixSeconds(5));
        assert_eq!([plan(None), plan(Some(Timestamp(4_000))), plan(Some(Timestamp(6_000)))].map(|at| at.0), [5_000, 4_000, 5_000]);
    }
}
