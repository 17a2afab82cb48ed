//! What a dry run of `POST /api/sessions` answers.

use orien_bootstrap::clock;
use orien_protocol::money::Usdc;
use orien_protocol::offer::Tool;
use orien_protocol::peer::PeerId;
use orien_protocol::time::Millis;
use serde::Serialize;
use utoipa::ToSchema;

use crate::decimal::{Decimal, Seconds, Time};
use crate::opening::{LIFETIME, OpenRequest};
use crate::quoting::Quote;
use crate::spending::Standing;

/// A session that was not opened.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = DryRun)]
#[serde(rename_all = "camelCase")]
pub(super) struct DryRunJson {
    dry_run: bool,
    quote: QuoteJson,
}

/// What it would cost, and with whom it would be.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Quote)]
#[serde(rename_all = "camelCase")]
struct QuoteJson {
    provider_id: String,
    provider_label: String,
    why_provider: String,
    confinement: String,
    region: Option<String>,
    budget_allowance: Decimal,
    /// Charged when the session opens, and credited against use.
    minimum_charge: Decimal,
    metering_interval_seconds: Seconds,
    tools: Vec<ToolQuoteJson>,
    expires_at: Time,
    extendable_until: Time,
    failover: bool,
    funds: FundsJson,
    /// What the token that asks may commit; null if nothing limits it.
    spend_cap: Option<SpendCapJson>,
    alternatives: Vec<AlternativeJson>,
    rejected: Vec<LackJson>,
}

/// What a tool costs.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolQuote)]
#[serde(rename_all = "camelCase")]
struct ToolQuoteJson {
    tool_id: String,
    price_per_minute: Decimal,
    call_fee: Decimal,
    /// How long one run could go on with the whole budget; null for one that costs nothing by time.
    budget_buys_seconds: Option<Seconds>,
    max_duration_seconds: Seconds,
}

/// Whether the account can reserve the budget.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuoteFunds)]
#[serde(rename_all = "camelCase")]
struct FundsJson {
    /// `yes`, `no`, or `unknown` if settlement does not answer.
    covers_budget: &'static str,
    available: Option<Decimal>,
    missing: Option<Decimal>,
}

/// Whether the token may commit the budget.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuoteSpendCap)]
#[serde(rename_all = "camelCase")]
struct SpendCapJson {
    covers_budget: bool,
    cap: Decimal,
    committed: Decimal,
    missing: Option<Decimal>,
}

impl SpendCapJson {
    fn new(Standing { cap, committed }: Standing, budget: Usdc) -> Self {
        let missing = budget.excess_over(cap.excess_over(committed));
        Self {
            covers_budget: missing == Usdc::ZERO,
            cap: Decimal(cap),
            committed: Decimal(committed),
            missing: (missing > Usdc::ZERO).then_some(Decimal(missing)),
        }
    }
}

/// Another provider that fits.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuoteAlternative)]
#[serde(rename_all = "camelCase")]
struct AlternativeJson {
    provider_id: String,
    provider_label: String,
    why: String,
}

/// A provider that does not.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = QuoteRejected)]
#[serde(rename_all = "camelCase")]
struct LackJson {
    provider_id: String,
    why: String,
}

impl DryRunJson {
    /// A quote, as asked for.
    pub(super) fn new(request: &OpenRequest, quote: Quote, standing: Option<Standing>) -> Self {
        let (offer, budget, now) = (&quote.offer, request.budget, clock::wall());
        let missing = quote.funds.as_ref().map(|funds| budget.excess_over(funds.available));
        let covers_budget = match missing {
            None => "unknown",
            Some(Usdc::ZERO) => "yes",
            Some(_) => "no",
        };
        let lack = |(provider, why): (PeerId, String)| LackJson { provider_id: provider.to_string(), why };
        Self {
            dry_run: true,
            quote: QuoteJson {
                provider_id: offer.provider.to_string(),
                provider_label: offer.label.clone(),
                why_provider: quote.why,
                confinement: format!("S{}", offer.confinement.level()),
                region: offer.region.clone(),
                budget_allowance: Decimal(budget),
                minimum_charge: Decimal(offer.minimum_charge),
                metering_interval_seconds: Seconds(offer.metering_interval),
                tools: offer.tools.iter().map(|tool| of_tool(tool, budget)).collect(),
                expires_at: Time(now.plus(request.expiry)),
                extendable_until: Time(now.plus(LIFETIME)),
                failover: request.plan.failover,
                funds: FundsJson {
                    covers_budget,
                    available: quote.funds.as_ref().map(|funds| Decimal(funds.available)),
                    missing: missing.filter(|missing| *missing > Usdc::ZERO).map(Decimal),
                },
                spend_cap: standing.map(|standing| SpendCapJson::new(standing, budget)),
                alternatives: quote
                    .alternatives
                    .into_iter()
                    .map(|other| AlternativeJson { provider_id: other.provider.to_string(), provider_label: other.label, why: other.why })
                    .collect(),
                rejected: quote.rejected.into_iter().map(lack).collect(),
            },
        }
    }
}

fn of_tool(tool: &Tool, budget: Usdc) -> ToolQuoteJson {
    let price = tool.price;
    let for_time = u128::from(budget.excess_over(price.call_fee).micros());
    let ms = for_time.saturating_mul(60_000).checked_div(u128::from(price.per_minute.micros()));
    ToolQuoteJson {
        tool_id: tool.id.clone(),
        price_per_minute: Decimal(price.per_minute),
        call_fee: Decimal(price.call_fee),
        budget_buys_seconds: ms.map(|ms| Seconds(Millis(u64::try_from(ms).unwrap_or(u64::MAX)))),
        max_duration_seconds: Seconds(tool.max_duration),
    }
}
