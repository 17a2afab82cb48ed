//! `quote_session`: what a session would cost, and with whom it would be.
//!
//! Always true: nothing is opened, reserved or spent, so nobody is asked to agree.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::call::{Call, fresh_key};
use super::failure::Failure;
use super::inputs::QuoteSession;
use super::reply::Reply;
use super::sessions::Order;
use super::shapes::Exact;

#[derive(Debug, Deserialize)]
struct DryRunIn {
    quote: QuoteIn,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct QuoteIn {
    provider_id: String,
    provider_label: String,
    why_provider: String,
    confinement: String,
    region: Option<String>,
    budget_allowance: Exact,
    minimum_charge: Exact,
    #[serde(default)]
    tools: Vec<ToolQuoteIn>,
    funds: FundsIn,
    spend_cap: Option<SpendCapIn>,
    #[serde(default)]
    alternatives: Vec<serde::de::IgnoredAny>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ToolQuoteIn {
    tool_id: String,
    price_per_minute: Exact,
    call_fee: Exact,
    budget_buys_seconds: Option<Exact>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct FundsIn {
    covers_budget: String,
    missing: Option<Exact>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SpendCapIn {
    missing: Option<Exact>,
}

/// Result of `quote_session`.
#[derive(Serialize, JsonSchema)]
pub(super) struct Quote {
    pub(super) provider_id: String,
    pub(super) provider: String,
    pub(super) why_provider: String,
    pub(super) confinement: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) region: Option<String>,
    pub(super) budget_usdc: String,
    /// Charged when the session opens, and credited against use
    pub(super) minimum_charge_usdc: String,
    pub(super) tools: Vec<ToolQuote>,
    /// Whether the account has the budget: yes, no or unknown
    pub(super) funds: String,
    /// How much the account has too little
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) missing_usdc: Option<String>,
    /// How much is missing up to the budget within what this token may spend
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) cap_missing_usdc: Option<String>,
    /// How many other providers fit
    pub(super) others: usize,
}

/// What a tool costs.
#[derive(Serialize, JsonSchema)]
pub(super) struct ToolQuote {
    pub(super) tool_id: String,
    pub(super) price_per_minute_usdc: String,
    /// Charged for each run, in USDC
    pub(super) call_fee_usdc: String,
    /// How long one run could go on with the whole budget
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) budget_buys_seconds: Option<String>,
}

pub(super) async fn quote(call: &Call, input: QuoteSession) -> Result<Reply, Failure> {
    let order = Order {
        provider_id: input.provider_id.as_deref().unwrap_or("auto"),
        budget_allowance: input.budget_usdc.0.to_string(),
        capability: input.capability.as_deref(),
        tools: input.tools.as_deref(),
        max_price_per_minute: input.max_price_per_minute_usdc.map(|amount| amount.0.to_string()),
        min_uptime: input.min_uptime_percent,
        region: input.region.as_deref(),
        confinement: input.confinement.as_deref(),
        dry_run: true,
        ..Order::default()
    };
    let DryRunIn { quote } = call.api.post("/api/sessions", &order, &fresh_key()?).await?;
    let mut text = format!(
        "{} ({}), at least {} of {} USDC: {}",
        quote.provider_label, quote.provider_id, quote.minimum_charge.0, quote.budget_allowance.0, quote.why_provider
    );
    let tool = |tool: &ToolQuoteIn| ToolQuote {
        tool_id: tool.tool_id.clone(),
        price_per_minute_usdc: tool.price_per_minute.0.clone(),
        call_fee_usdc: tool.call_fee.0.clone(),
        budget_buys_seconds: tool.budget_buys_seconds.as_ref().map(|seconds| seconds.0.clone()),
    };
    let tools: Vec<ToolQuote> = quote.tools.iter().map(tool).collect();
    for tool in &tools {
        let buys = tool.budget_buys_seconds.as_ref().map(|seconds| format!("; the budget buys {seconds} s")).unwrap_or_default();
        let line = format!("\n- {}: {} USDC per minute, {} per run{buys}", tool.tool_id, tool.price_per_minute_usdc, tool.call_fee_usdc);
        text.push_str(&line);
    }
    let missing = quote.funds.missing.map(|missing| missing.0);
    let cap_missing = quote.spend_cap.and_then(|cap| cap.missing).map(|missing| missing.0);
    let lacks = [("The account has", &missing), ("What this token may spend is", &cap_missing)];
    for (whose, missing) in lacks.into_iter().filter_map(|(whose, missing)| missing.as_ref().map(|missing| (whose, missing))) {
        text.push_str(&format!("\n{whose} {missing} USDC too little"));
    }
    let structured = Quote {
        provider_id: quote.provider_id,
        provider: quote.provider_label,
        why_provider: quote.why_provider,
        confinement: quote.confinement,
        region: quote.region,
        budget_usdc: quote.budget_allowance.0,
        minimum_charge_usdc: quote.minimum_charge.0,
        tools,
        funds: quote.funds.covers_budget,
        missing_usdc: missing,
        cap_missing_usdc: cap_missing,
        others: quote.alternatives.len(),
    };
    Reply::new(text, &structured)
}
