//! What the gateway remembers beside the records of the session machines: what a session was wanted for, what a run was asked and how it ended, and which requests were answered.
//!
//! Always true: no row decides about money. What was charged and promised is folded from receipts and vouchers; the sums in a row are notes for listings, written when nothing
//! can change them any more.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{CloseReason, OutputStream};
use orien_protocol::hash::Hash;
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::offer::Tool;
use orien_protocol::peer::PeerId;
use orien_protocol::receipt::{EndReason, Work};
use orien_protocol::time::{Timestamp, UnixSeconds};
use serde::{Deserialize, Serialize};

use crate::plan::{Handover, Plan};

/// What a session was opened for and with whom.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SessionFacts {
    /// The caller's own words.
    pub(crate) mission: Option<String>,
    /// Who does the work.
    pub(crate) provider: PeerId,
    /// The operator's name for it.
    pub(crate) label: String,
    /// Why it was chosen.
    pub(crate) why: String,
    /// Where it was dialled.
    pub(crate) addresses: Vec<String>,
    /// The tools as offered when the session was opened; their arguments and limits.
    pub(crate) tools: Vec<Tool>,
    /// When we proposed it.
    pub(crate) created_at: Timestamp,
    /// When its time is over.
    pub(crate) work_until: UnixSeconds,
    /// What was asked for.
    pub(crate) budget: Usdc,
    /// How it ended; none while it has not.
    pub(crate) closing: Option<Closing>,
}

/// All rows about a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SessionRow {
    /// What it was opened for and with whom.
    pub(crate) facts: SessionFacts,
    /// What is wanted of it.
    pub(crate) plan: Plan,
    /// How it goes on elsewhere, if it does.
    pub(crate) handover: Option<Handover>,
}

/// A session's last state, for listings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Closing {
    /// When, on our clock.
    pub(crate) at: Timestamp,
    /// Why.
    pub(crate) reason: CloseReason,
    /// What went wrong, if something did.
    pub(crate) fault: Option<Fault>,
    /// Most it could have cost.
    pub(crate) budget: Usdc,
    /// What answered receipts charge.
    pub(crate) charged: Usdc,
    /// What our newest voucher promises.
    pub(crate) promised: Usdc,
    /// Effective time of all executions, milliseconds.
    pub(crate) effective_ms: u64,
}

impl Closing {
    /// Whether the provider broke the rules.
    pub(crate) fn is_disputed(&self) -> bool {
        self.reason == CloseReason::Dispute || self.fault.as_ref().is_some_and(|fault| fault.code == FaultCode::BAD_RECEIPT)
    }
}

/// Where a run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum RunStatus {
    /// Asked for.
    Pending,
    /// The provider started the tool.
    Running,
    /// The tool exited by itself with code 0.
    Completed,
    /// It ended in another way, or never ran.
    Failed,
}

impl RunStatus {
    /// The owner's word for it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
        }
    }
}

/// A run, as asked for and as receipted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ExecutionRow {
    /// The session it belongs to.
    pub(crate) session: SessionId,
    /// Which tool.
    pub(crate) tool: String,
    /// With what: a JSON object.
    pub(crate) args: String,
    /// When we asked.
    pub(crate) asked_at: Timestamp,
    /// When the tool was started, on the provider's clock.
    pub(crate) started_at: Option<Timestamp>,
    /// When it ended, on the provider's clock, or was refused, on ours.
    pub(crate) completed_at: Option<Timestamp>,
    /// Where it stands.
    pub(crate) status: RunStatus,
    /// The newest receipt's word on it.
    pub(crate) work: Option<Work>,
    /// Why it never ran.
    pub(crate) fault: Option<Fault>,
}

impl ExecutionRow {
    /// Whether nothing will change any more.
    pub(crate) const fn is_over(&self) -> bool {
        matches!(self.status, RunStatus::Completed | RunStatus::Failed)
    }

    /// The row after a receipt for it.
    pub(crate) fn receipted(&self, work: &Work, at: Timestamp) -> Self {
        let mut row = Self { work: Some(work.clone()), ..self.clone() };
        match work.outcome {
            None => row.status = RunStatus::Running,
            Some(outcome) => {
                row.status = if outcome.succeeded() { RunStatus::Completed } else { RunStatus::Failed };
                row.completed_at = Some(at);
            }
        }
        let never_ran = work.outcome.is_some_and(|outcome| outcome.end == EndReason::SetupFailed);
        if row.started_at.is_none() && !never_ran {
            // Started while we were not listening: the receipt says for how long.
            row.started_at = Some(Timestamp(at.0.saturating_sub(work.usage.effective_ms)));
        }
        row
    }

    /// Whether it may have written something, as far as is known once it is over.
    pub(crate) fn may_have_written(&self) -> bool {
        match (&self.work, &self.fault) {
            (Some(work), _) => may_have_written(work),
            // Given up before any word of it came: it may have been carried out.
            (None, Some(fault)) => fault.code == FaultCode::SESSION_ENDED,
            (None, None) => true,
        }
    }

    /// Whether it was given up before it had a final receipt; one may still come.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_receipted = self.work.as_ref().is_some_and(|work| work.outcome.is_some());
        self.status == RunStatus::Failed && self.fault.is_some() && !is_receipted
    }

    /// The row after it was refused.
    pub(crate) fn refused(&self, fault: Fault, at: Timestamp) -> Self {
        Self { status: RunStatus::Failed, completed_at: Some(at), fault: Some(fault), ..self.clone() }
    }
}

/// Whether a run may have written something by the newest receipt for it: after a crash a provider counts only what it had written down, which may be less than it sent.
pub(crate) fn may_have_written(work: &Work) -> bool {
    let is_counted = work.outcome.is_some_and(|outcome| !matches!(outcome.end, EndReason::ProviderStopped | EndReason::SetupFailed));
    work.usage.bytes_out > 0 || !is_counted
}

/// One line of output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LogLine {
    /// Numbered from 1 over both streams.
    pub(crate) number: u64,
    /// When its last byte was read, on the provider's clock.
    pub(crate) at: Timestamp,
    /// Which stream.
    pub(crate) stream: OutputStream,
    /// The text, without its line end; bytes that are not UTF-8 are replaced.
    pub(crate) text: String,
    /// Whether a line end followed; otherwise the line was cut, or the output ended.
    pub(crate) ended: bool,
}

impl LogLine {
    /// Marks a place where output was missed. A line without text that nothing ended occurs in no other way.
    pub(crate) const fn gap(number: u64, at: Timestamp) -> Self {
        Self { number, at, stream: OutputStream::Stdout, text: String::new(), ended: false }
    }

    /// Whether output was missed here.
    pub(crate) const fn is_gap(&self) -> bool {
        self.text.is_empty() && !self.ended
    }
}

/// The last lines of an execution's output.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct OutputTail {
    /// In the order in which they were read, gaps among them.
    pub(crate) lines: Vec<LogLine>,
    /// Whether some of the output is not among them.
    pub(crate) cut: bool,
    /// BLAKE3 of all output, if none of it was missed.
    pub(crate) hash: Option<Hash>,
}

impl OutputTail {
    /// Of a log of which nothing is known but that something may be missing.
    pub(crate) fn missed(number: u64, at: Timestamp) -> Self {
        Self { lines: vec![LogLine::gap(number, at)], cut: true, hash: None }
    }

    /// The lines as one text without its gaps, of which at most the last `limit` bytes.
    pub(crate) fn text(&self, limit: usize) -> String {
        let mut text = String::new();
        for line in &self.lines {
            text.push_str(&line.text);
            if line.ended {
                text.push('\n');
            }
        }
        let from = text.len().saturating_sub(limit);
        let from = (from..=text.len()).find(|&at| text.is_char_boundary(at)).unwrap_or(text.len());
        text.split_off(from)
    }
}

/// A request that must not act twice.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeyRow {
    /// Of everything that the request says.
    pub(crate) request: Hash,
    /// What ids of things made by the request are derived from.
    pub(crate) seed: [u8; 16],
    /// The answer; none while it acts, or if it was interrupted.
    pub(crate) answer: Option<KeptAnswer>,
    /// Forgotten after this.
    pub(crate) until: UnixSeconds,
}

/// An answer that is given again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct KeptAnswer {
    /// HTTP status.
    pub(crate) status: u16,
    /// The body of a success.
    pub(crate) body: Option<String>,
    /// The refusal otherwise.
    pub(crate) refusal: Option<Refusal>,
}

/// Why a request was not carried out, in a form that can be kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Refusal {
    /// HTTP status.
    pub(crate) status: u16,
    /// Stable code.
    pub(crate) code: Box<str>,
    /// The same for every occurrence of the code.
    pub(crate) title: Box<str>,
    /// What was wrong this time.
    pub(crate) detail: String,
    /// How much money is short.
    pub(crate) missing: Option<Usdc>,
    /// When to try again, seconds.
    pub(crate) retry_after: Option<u32>,
    /// What was wrong with each of several things: name and problem.
    pub(crate) items: Vec<(String, String)>,
}
