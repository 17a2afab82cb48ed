//! What the API answers, and what a model is shown of it.
//!
//! Always true: amounts are passed on digit for digit, as decimal strings; what the API adds later is ignored, not refused.

use std::collections::BTreeMap;

use orien_protocol::money::Usdc;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use serde_json::value::RawValue;

/// A number of the API with the digits it was written with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
#[schemars(transparent)]
pub(super) struct Exact(pub(super) String);

impl<'de> Deserialize<'de> for Exact {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Box::<RawValue>::deserialize(deserializer)?;
        Ok(Self(raw.get().trim().trim_matches('"').to_owned()))
    }
}

impl Exact {
    /// The amount of USDC that it is.
    pub(super) fn usdc(&self) -> Usdc {
        self.0.parse().unwrap_or(Usdc::ZERO)
    }
}

/// Something that failed, as the API says it within a session or run.
#[derive(Clone, Debug, Deserialize)]
pub(super) struct FaultIn {
    pub(super) code: String,
    #[serde(default)]
    pub(super) detail: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProvidersIn {
    pub(super) providers: Vec<ProviderIn>,
    pub(super) next_cursor: Option<String>,
    /// Who does not fit, if that was asked for.
    #[serde(default)]
    pub(super) rejected: Vec<RejectedIn>,
}

#[derive(Debug, Deserialize)]
pub(super) struct RejectedIn {
    #[serde(default)]
    pub(super) label: String,
    #[serde(default)]
    pub(super) why: String,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ProviderIn {
    pub(super) id: String,
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) label: String,
    pub(super) price_per_minute: Exact,
    pub(super) minimum_charge: Option<Exact>,
    pub(super) uptime: Option<Exact>,
    pub(super) region: Option<String>,
    pub(super) confinement: Option<String>,
    #[serde(default)]
    pub(super) tools: Vec<ToolIn>,
    pub(super) capacity: Option<CapacityIn>,
    /// A sentence, or a list of them.
    pub(super) why: Option<Value>,
}

#[derive(Debug, Deserialize)]
pub(super) struct CapacityIn {
    pub(super) free: Option<u64>,
}

#[derive(Debug, Deserialize)]
pub(super) struct ToolsIn {
    pub(super) tools: Vec<ToolIn>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ToolIn {
    pub(super) id: String,
    #[serde(default)]
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) args: Vec<ArgumentIn>,
    pub(super) max_duration_seconds: Option<Exact>,
    pub(super) price_per_minute: Option<Exact>,
    pub(super) call_fee: Option<Exact>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ArgumentIn {
    pub(super) name: String,
    #[serde(default)]
    pub(super) description: String,
    #[serde(default)]
    pub(super) required: bool,
    pub(super) r#type: String,
    pub(super) minimum: Option<i64>,
    pub(super) maximum: Option<i64>,
    pub(super) max_bytes: Option<u32>,
    pub(super) choices: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SessionIn {
    pub(super) id: String,
    pub(super) provider_id: String,
    #[serde(default)]
    pub(super) provider_label: String,
    pub(super) why_provider: Option<String>,
    pub(super) budget_allowance: Exact,
    pub(super) budget_consumed: Exact,
    pub(super) minimum_unused: Option<Exact>,
    pub(super) status: String,
    pub(super) phase: Option<String>,
    pub(super) expires_at: Option<String>,
    pub(super) mission: Option<String>,
    #[serde(default)]
    pub(super) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(super) executions: Vec<RunIn>,
    #[serde(default)]
    pub(super) executions_total: u64,
    pub(super) end_reason: Option<String>,
    pub(super) fault: Option<FaultIn>,
    pub(super) settlement: Option<SettlementIn>,
    pub(super) replaced_by: Option<String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct SettlementIn {
    pub(super) total_cost: Exact,
    pub(super) provider_payout: Exact,
    pub(super) platform_fee: Exact,
    pub(super) reserve: Exact,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct StartedIn {
    pub(super) execution_id: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct RunIn {
    pub(super) execution_id: String,
    pub(super) session_id: String,
    pub(super) tool_id: String,
    pub(super) status: String,
    pub(super) started_at: Option<String>,
    pub(super) completed_at: Option<String>,
    pub(super) effective_duration_seconds: Option<Exact>,
    pub(super) exit_code: Option<i64>,
    pub(super) cost: Exact,
    pub(super) end_reason: Option<String>,
    pub(super) fault: Option<FaultIn>,
}

impl RunIn {
    /// Whether nothing more will happen in it.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed")
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct ListingIn {
    pub(super) files: Vec<FileIn>,
    #[serde(default)]
    pub(super) more: bool,
    pub(super) next_cursor: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(super) struct FileIn {
    pub(super) path: String,
    pub(super) size: u64,
    #[serde(default)]
    pub(super) folder: bool,
}

#[derive(Debug, Deserialize)]
pub(super) struct StoredIn {
    pub(super) size: u64,
    #[serde(default)]
    pub(super) hash: String,
}

/// A provider that does not fit.
#[derive(Serialize, JsonSchema)]
pub(super) struct Rejected {
    pub(super) provider: String,
    pub(super) why: String,
}

/// A provider in a list.
#[derive(Serialize, JsonSchema)]
pub(super) struct ProviderLine {
    /// Id to open a session with
    pub(super) provider_id: String,
    pub(super) name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    /// USDC per minute of running, unless a tool has a price of its own
    pub(super) price_per_minute_usdc: String,
    /// Charged when a session opens and credited against use, in USDC
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minimum_charge_usdc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) uptime_percent: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    /// How strongly tools are confined: S0 not at all, S3 the most
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) confinement: Option<String>,
    /// Sessions that it could take now
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) free_places: Option<u64>,
    /// Ids of its tools
    pub(super) tools: Vec<String>,
    /// Why it is listed here in this place
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why: Option<String>,
}

/// Result of `find_providers`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Providers {
    pub(super) providers: Vec<ProviderLine>,
    /// If none fits: what those that are known lack
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) rejected: Vec<Rejected>,
    /// Give this as cursor to see more; absent at the end
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
}

/// A tool with everything that is needed to run it.
#[derive(Serialize, JsonSchema)]
pub(super) struct ToolLine {
    pub(super) tool_id: String,
    pub(super) name: String,
    pub(super) description: String,
    pub(super) args: Vec<ArgumentLine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) price_per_minute_usdc: Option<String>,
    /// Charged for each run, in USDC
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) call_fee_usdc: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_duration_seconds: Option<String>,
}

/// An argument of a tool.
#[derive(Serialize, JsonSchema)]
pub(super) struct ArgumentLine {
    pub(super) name: String,
    /// text, integer, number, boolean, choice, or file: the path of a file in the workspace
    pub(super) r#type: String,
    pub(super) required: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) description: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minimum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) maximum: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) max_bytes: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) choices: Option<Vec<String>>,
}

/// Result of `get_provider`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Provider {
    pub(super) provider: ProviderLine,
    pub(super) tools: Vec<ToolLine>,
}

/// Result of `list_tools_in_session`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Tools {
    pub(super) tools: Vec<ToolLine>,
}

/// Result of the tools that look at or change a session.
#[derive(Serialize, JsonSchema)]
pub(super) struct Session {
    pub(super) session_id: String,
    /// active, completed, expired or failed
    pub(super) status: String,
    pub(super) provider_id: String,
    pub(super) provider: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) why_provider: Option<String>,
    pub(super) budget_usdc: String,
    pub(super) spent_usdc: String,
    /// Left of the budget; runs can use minimum_unused_usdc beside it
    pub(super) remaining_usdc: String,
    /// What of the minimum charge, which is spent already, runs have not used yet
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) minimum_unused_usdc: Option<String>,
    /// When it ends by itself
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) expires_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) mission: Option<String>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) labels: BTreeMap<String, String>,
    /// The newest runs
    pub(super) runs: Vec<RunLine>,
    pub(super) runs_total: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) fault: Option<String>,
    /// The session that goes on in place of this one, with another provider
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) replaced_by: Option<String>,
    /// How the cost is shared, once the session has ended
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) settlement: Option<Settlement>,
}

/// A run in a list.
#[derive(Serialize, JsonSchema)]
pub(super) struct RunLine {
    pub(super) run_id: String,
    pub(super) tool_id: String,
    pub(super) status: String,
    pub(super) cost_usdc: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i64>,
}

/// How the cost of a session is shared.
#[derive(Serialize, JsonSchema)]
pub(super) struct Settlement {
    pub(super) total_usdc: String,
    pub(super) provider_usdc: String,
    pub(super) platform_usdc: String,
    pub(super) reserve_usdc: String,
}

/// Result of the tools that start, follow or stop a run.
#[derive(Serialize, JsonSchema)]
pub(super) struct Run {
    /// Handle for get_run and cancel_run; stays valid when this connection is gone
    pub(super) run_id: String,
    pub(super) session_id: String,
    pub(super) tool_id: String,
    /// pending, running, completed or failed
    pub(super) status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) exit_code: Option<i64>,
    /// Why it ended, such as exited, cancelled, timed_out or budget_reached
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) end_reason: Option<String>,
    /// Charged so far, in USDC
    pub(super) cost_so_far_usdc: String,
    /// Seconds that are charged for
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) effective_seconds: Option<String>,
    /// Lines of output, stdout and stderr in order
    pub(super) output: String,
    /// Whether lines before these, or between them, are missing
    pub(super) truncated: bool,
    /// Whether there are lines after these already
    pub(super) more: bool,
    /// Give this to get_run for the lines after these
    pub(super) log_cursor: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) started_at: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) completed_at: Option<String>,
    /// What to do next
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) hint: Option<String>,
}

/// A file in a workspace.
#[derive(Serialize, JsonSchema)]
pub(super) struct FileLine {
    pub(super) path: String,
    pub(super) bytes: u64,
    pub(super) folder: bool,
}

/// Result of `list_files`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Files {
    pub(super) files: Vec<FileLine>,
    /// Give this as cursor to see more; absent at the end
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) next_cursor: Option<String>,
    /// Whether there are more than are listed
    pub(super) more: bool,
}

/// Result of `put_file`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Stored {
    pub(super) path: String,
    pub(super) bytes: u64,
    /// BLAKE3 of the content
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(super) hash: String,
}

/// Result of `get_file`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Piece {
    pub(super) path: String,
    /// Bytes of the whole file
    pub(super) bytes: u64,
    /// Byte that the content begins with
    pub(super) offset: u64,
    /// Whether the file goes on after this; call again with offset = next_offset
    pub(super) truncated: bool,
    pub(super) next_offset: u64,
    /// The content, if it is text
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<String>,
    /// The content, if it is not
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) base64: Option<String>,
}
