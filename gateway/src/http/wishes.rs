//! What a body of `POST /api/sessions` asks for.
//!
//! Always true: everything in it is bounded and checked before anything is looked up or begun.

use std::collections::BTreeMap;

use orien_protocol::offer::Confinement;
use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;
use serde::Deserialize;
use utoipa::ToSchema;

use super::runs::{args_text, some_cost};
use crate::arguments::Args;
use crate::decimal::{Decimal, Percent};
use crate::first_run::FirstRun;
use crate::matching::{Order, Wish, confinement};
use crate::opening::{Choice, LIFETIME, OpenRequest};
use crate::plan::Plan;
use crate::rows::Refusal;
use crate::spending::Spender;

/// Time until the gateway ends a session: shortest, and unless the caller says another. It can be extended up to the end of its terms.
const EXPIRY_SECONDS: (u64, u64) = (10, 3600);
/// Longest time for anything: that of the terms.
pub(super) const LONGEST_SECONDS: u64 = LIFETIME.0 / 1000;
/// Shortest idle time: below it a caller that thinks for a moment would lose its session.
const IDLE_SECONDS_MIN: u64 = 10;
/// Longest mission.
const MISSION_BYTES: usize = 4096;
/// Most tools that a request may name.
const TOOLS_NAMED: usize = 64;
/// Labels: how many, how long their names and values. All are read with every listing.
const LABELS: (usize, usize, usize) = (16, 64, 256);

#[derive(Deserialize, ToSchema)]
#[schema(as = SessionRequest)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct OpenBody {
    /// A provider's id or label, or `auto` for the best that fits what is wanted.
    provider_id: String,
    /// Most that the session may cost, successors after a fail-over included.
    budget_allowance: Decimal,
    /// The caller's own words.
    #[schema(max_length = 4096)]
    mission: Option<String>,
    /// The caller's own names for it; `GET /api/sessions?label=name:value` finds them.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// What a tool has to be good for.
    capability: Option<String>,
    /// Tools that must all be there.
    #[serde(default)]
    #[schema(max_items = 64)]
    tools: Vec<String>,
    max_price_per_minute: Option<Decimal>,
    /// Percent.
    min_uptime: Option<Percent>,
    region: Option<String>,
    /// At least this: `S0` to `S3`.
    #[schema(pattern = "^S[0-3]$")]
    confinement: Option<String>,
    /// Seconds until the gateway ends it: 3600 if not said, extended by `/extend`.
    #[schema(minimum = 10, maximum = 28800)]
    expiry_seconds: Option<u64>,
    /// The gateway ends it when for so many seconds no run was under way and nothing was done in it.
    #[schema(minimum = 10, maximum = 28800)]
    idle_timeout_seconds: Option<u64>,
    /// Whether it goes on elsewhere when its provider is lost: with `auto` it does unless this is false.
    failover: Option<bool>,
    /// The run that it is for: the session is opened only with a provider whose offer takes it. It is not started by that.
    first_run: Option<FirstRunBody>,
    /// Only quotes: nothing is opened.
    #[serde(default)]
    pub(super) dry_run: bool,
}

#[derive(Deserialize, ToSchema)]
#[schema(as = FirstRun)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FirstRunBody {
    tool_id: String,
    #[serde(default)]
    #[schema(value_type = Object)]
    args: Args,
    max_cost: Option<Decimal>,
}

impl FirstRunBody {
    fn checked(self) -> Result<FirstRun, Refusal> {
        args_text(&self.args)?;
        Ok(FirstRun { tool: self.tool_id, args: self.args, max_cost: self.max_cost.map(some_cost).transpose()? })
    }
}

fn invalid(detail: impl std::fmt::Display) -> Refusal {
    Refusal::invalid("invalid_body", detail)
}

/// A number of seconds within bounds.
pub(super) fn seconds(name: &str, seconds: u64, shortest: u64) -> Result<Millis, Refusal> {
    if (shortest..=LONGEST_SECONDS).contains(&seconds) {
        return Ok(Millis::from_secs(seconds));
    }
    Err(invalid(format_args!("{name} has to be from {shortest} to {LONGEST_SECONDS}")))
}

/// The time until the end, as an opening or an extension says it.
pub(super) fn expiry(seconds_asked: Option<u64>) -> Result<Millis, Refusal> {
    seconds("expirySeconds", seconds_asked.unwrap_or(EXPIRY_SECONDS.1), EXPIRY_SECONDS.0)
}

fn check_labels(labels: &BTreeMap<String, String>) -> Result<(), Refusal> {
    let (count, name_bytes, value_bytes) = LABELS;
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    let is_name = |name: &str| !name.is_empty() && name.len() <= name_bytes && name.chars().all(is_plain);
    let is_value = |value: &str| value.len() <= value_bytes && !value.chars().any(char::is_control);
    if labels.len() > count || !labels.iter().all(|(name, value)| is_name(name) && is_value(value)) {
        let text = "labels has at most {count} entries; names have 1 to {name} of the characters A-Z a-z 0-9 . _ - /, values at most {value} bytes";
        let text = text.replace("{count}", &count.to_string()).replace("{name}", &name_bytes.to_string());
        return Err(invalid(text.replace("{value}", &value_bytes.to_string())));
    }
    Ok(())
}

fn level(name: &str) -> Result<Confinement, Refusal> {
    confinement(name).ok_or_else(|| invalid(format_args!("confinement has to be S0, S1, S2 or S3, not {}", super::shown(name))))
}

impl OpenBody {
    /// What is asked for; `find` knows the provider that a name means.
    pub(super) fn request(self, find: impl FnOnce(&str) -> Result<PeerId, Refusal>) -> Result<OpenRequest, Refusal> {
        if self.mission.as_ref().is_some_and(|mission| mission.len() > MISSION_BYTES) || self.tools.len() > TOOLS_NAMED {
            return Err(invalid(format_args!("mission has at most {MISSION_BYTES} bytes, tools at most {TOOLS_NAMED}")));
        }
        check_labels(&self.labels)?;
        let expiry = expiry(self.expiry_seconds)?;
        let idle_timeout = self.idle_timeout_seconds.map(|idle| seconds("idleTimeoutSeconds", idle, IDLE_SECONDS_MIN)).transpose()?;
        let first_run = self.first_run.map(FirstRunBody::checked).transpose()?;
        let mut tools = self.tools;
        tools.extend(first_run.as_ref().map(|run| run.tool.clone()).filter(|tool| !tools.contains(tool)));
        let wish = Wish {
            capability: self.capability,
            tools,
            max_price_per_minute: self.max_price_per_minute.map(|amount| amount.0),
            min_uptime_permyriad: self.min_uptime.map(|Percent(share)| share),
            region: self.region,
            min_confinement: self.confinement.as_deref().map(level).transpose()?,
            order: Order::default(),
        };
        let choice = match self.provider_id.as_str() {
            "auto" => Choice::Auto,
            id => Choice::Named(find(id)?),
        };
        let failover = self.failover.unwrap_or(choice == Choice::Auto);
        let plan = Plan { labels: self.labels, idle_timeout, failover, wish, ..Plan::default() };
        Ok(OpenRequest {
            choice,
            avoid: None,
            budget: self.budget_allowance.0,
            mission: self.mission,
            plan,
            first_run,
            expiry,
            seed: [0; 16],
            spender: Spender::default(),
        })
    }
}
