//! The provider's numbered, chained and signed statement of what happened and what it costs.
//!
//! Numbers start at 1 and have no gaps, and each receipt names the hash of the one before. Amounts and times are cumulative: per execution, and for the session. Receipt 1 has no
//! work; it charges the minimum of the terms.

use serde::{Deserialize, Serialize};

use crate::hash::Hash;
use crate::id::{ExecutionId, SessionId};
use crate::money::Usdc;
use crate::offer::Confinement;
use crate::signing::{Layout, Statement};
use crate::time::Timestamp;

/// What an execution measurably used so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Usage {
    /// Process start to now or exit on the provider's monotonic clock, without pauses, in milliseconds. The billing unit.
    pub effective_ms: u64,
    /// Processor time in milliseconds; a lower bound.
    pub cpu_ms: u64,
    /// Largest resident memory seen, in bytes; a lower bound.
    pub peak_memory_bytes: u64,
    /// Bytes of arguments given to the tool.
    pub bytes_in: u64,
    /// Bytes the tool wrote to its output streams.
    pub bytes_out: u64,
    /// BLAKE3 of those bytes in the order they were read.
    pub output_hash: Hash,
}

/// Why an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum EndReason {
    /// The tool exited by itself, with its code.
    Exited,
    /// A signal from inside ended it.
    Signalled,
    /// The agent cancelled it.
    Cancelled,
    /// It ran for as long as the tool or the job allows.
    TimedOut,
    /// The job's maximum cost was reached.
    CostReached,
    /// The session's budget was reached.
    BudgetReached,
    /// The agent stopped signing vouchers.
    CreditExhausted,
    /// It used more memory than the tool is given.
    MemoryLimit,
    /// It used more processor time than the tool is given.
    CpuLimit,
    /// It wrote more output than the tool is given.
    OutputLimit,
    /// It filled more of the workspace than the session is given.
    DiskLimit,
    /// It could not be started; nothing is charged for it.
    SetupFailed,
    /// The provider's node stopped or crashed.
    ProviderStopped,
    /// The session ended under it.
    SessionEnded,
    /// Settlement did not redeem what was promised, and the provider risks no more.
    Unredeemed,
}

/// Who brought an end about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Party {
    /// Nobody: it ended as it should.
    Nobody,
    /// The agent.
    Agent,
    /// The provider.
    Provider,
    /// The tool itself.
    Tool,
}

impl EndReason {
    /// Whose fault this end is.
    pub const fn party(self) -> Party {
        match self {
            Self::Exited => Party::Nobody,
            Self::Cancelled | Self::CostReached | Self::BudgetReached | Self::CreditExhausted | Self::SessionEnded => Party::Agent,
            Self::SetupFailed | Self::ProviderStopped | Self::Unredeemed => Party::Provider,
            Self::Signalled | Self::TimedOut | Self::MemoryLimit | Self::CpuLimit | Self::OutputLimit | Self::DiskLimit => Party::Tool,
        }
    }

    /// Stable name for people and APIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exited => "exited",
            Self::Signalled => "signalled",
            Self::Cancelled => "cancelled",
            Self::TimedOut => "timed_out",
            Self::CostReached => "cost_reached",
            Self::BudgetReached => "budget_reached",
            Self::CreditExhausted => "credit_exhausted",
            Self::MemoryLimit => "memory_limit",
            Self::CpuLimit => "cpu_limit",
            Self::OutputLimit => "output_limit",
            Self::DiskLimit => "disk_limit",
            Self::SetupFailed => "setup_failed",
            Self::ProviderStopped => "provider_stopped",
            Self::SessionEnded => "session_ended",
            Self::Unredeemed => "unredeemed",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Exited => 0,
            Self::Signalled => 1,
            Self::Cancelled => 2,
            Self::TimedOut => 3,
            Self::CostReached => 4,
            Self::BudgetReached => 5,
            Self::CreditExhausted => 6,
            Self::MemoryLimit => 7,
            Self::CpuLimit => 8,
            Self::OutputLimit => 9,
            Self::DiskLimit => 10,
            Self::SetupFailed => 11,
            Self::ProviderStopped => 12,
            Self::SessionEnded => 13,
            Self::Unredeemed => 14,
        }
    }
}

impl Party {
    /// Stable name for people and APIs.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nobody => "nobody",
            Self::Agent => "agent",
            Self::Provider => "provider",
            Self::Tool => "tool",
        }
    }

    const fn code(self) -> u8 {
        match self {
            Self::Nobody => 0,
            Self::Agent => 1,
            Self::Provider => 2,
            Self::Tool => 3,
        }
    }
}

/// How an execution ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Why.
    pub end: EndReason,
    /// Whose fault it is.
    pub party: Party,
    /// The tool's exit code, or 128 plus the signal that ended it; none when it never ran.
    pub exit_code: Option<i32>,
}

impl Outcome {
    /// An end with the party that its reason implies.
    pub const fn of(end: EndReason, exit_code: Option<i32>) -> Self {
        Self { end, party: end.party(), exit_code }
    }

    /// Whether the tool did what it should: it exited by itself with code 0.
    pub fn succeeded(&self) -> bool {
        self.end == EndReason::Exited && self.exit_code == Some(0)
    }
}

/// What one receipt says of one execution.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// Which execution.
    pub execution: ExecutionId,
    /// Content id of the agent's signed job.
    pub job: Hash,
    /// The tool that ran.
    pub tool: String,
    /// What it used so far.
    pub usage: Usage,
    /// Charge of this execution on its own, call fee included, rounded down; for information.
    pub charge: Usdc,
    /// How it ended; none while it runs.
    pub outcome: Option<Outcome>,
}

/// A numbered statement in a session's chain.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The session.
    pub session: SessionId,
    /// Content id of its terms.
    pub terms: Hash,
    /// From 1, without gaps.
    pub number: u64,
    /// Content id of the receipt before; zero for number 1.
    pub previous: Hash,
    /// The provider's clock; for people.
    pub at: Timestamp,
    /// How well the tool was confined.
    pub confinement: Confinement,
    /// What was done; none for the opening receipt.
    pub work: Option<Work>,
    /// Charge of the whole session so far.
    pub charged: Usdc,
}

impl Statement for Receipt {
    const DOMAIN: &'static str = "orien/receipt/v1";

    fn write(&self, out: &mut Layout) {
        out.fixed(self.session.as_bytes());
        out.fixed(self.terms.as_bytes());
        out.u64(self.number);
        out.fixed(self.previous.as_bytes());
        out.u64(self.at.0);
        out.u8(self.confinement.level());
        out.option(self.work.as_ref(), |out, work| {
            out.fixed(work.execution.as_bytes());
            out.fixed(work.job.as_bytes());
            out.text(&work.tool);
            out.u64(work.usage.effective_ms);
            out.u64(work.usage.cpu_ms);
            out.u64(work.usage.peak_memory_bytes);
            out.u64(work.usage.bytes_in);
            out.u64(work.usage.bytes_out);
            out.fixed(work.usage.output_hash.as_bytes());
            out.u64(work.charge.micros());
            out.option(work.outcome.as_ref(), |out, outcome| {
                out.u8(outcome.end.code());
                out.u8(outcome.party.code());
                out.option(outcome.exit_code.as_ref(), |out, code| out.i64(i64::from(*code)));
            });
        });
        out.u64(self.charged.micros());
    }
}
