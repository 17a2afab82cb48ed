//! `find_providers` and `get_provider`.

use serde_json::Value;

use super::api::{query, segment};
use super::call::Call;
use super::failure::Failure;
use super::inputs::{FindProviders, GetProvider};
use super::reply::Reply;
use super::shapes::{
    ArgumentLine, Exact, Provider, ProviderIn, ProviderLine, Providers, ProvidersIn, Rejected, RejectedIn, ToolIn, ToolLine,
};

/// Providers in an answer unless the caller says another number, and the most.
const LISTED: (u32, u32) = (10, 50);
/// Tools named with each of them.
const TOOLS_NAMED: usize = 40;
/// Providers that do not fit, in an answer with none that does.
const REJECTED_LISTED: usize = 10;
/// Longest description in a list.
const DESCRIPTION_CHARS: usize = 300;

pub(super) async fn find(call: &Call, input: FindProviders) -> Result<Reply, Failure> {
    let limit = input.limit.unwrap_or(LISTED.0).clamp(1, LISTED.1);
    let wishes = [
        ("capability", input.capability),
        ("tool", input.tool),
        ("maxPricePerMinute", input.max_price_per_minute_usdc.map(|amount| amount.0.to_string())),
        ("minUptime", input.min_uptime_percent.map(|percent| percent.to_string())),
        ("region", input.region),
        ("confinement", input.confinement),
        ("sort", input.sort),
        ("limit", Some(limit.to_string())),
        ("cursor", input.cursor),
    ];
    let mut listed: ProvidersIn = call.api.get(&format!("/api/providers{}", query(&wishes))).await?;
    if listed.providers.is_empty() {
        // Then it is worth knowing what the others lack.
        let why = [&wishes[..], &[("rejected", Some("true".to_owned()))]].concat();
        listed = call.api.get(&format!("/api/providers{}", query(&why))).await?;
    }
    let lacks = |other: RejectedIn| Rejected { provider: other.label, why: other.why };
    let rejected: Vec<Rejected> = listed.rejected.into_iter().take(REJECTED_LISTED).map(lacks).collect();
    let providers: Vec<ProviderLine> = listed.providers.iter().map(line).collect();
    let mut text = match providers.len() {
        0 => "No provider fits.".to_owned(),
        count => format!("{count} providers; open a session with one by its provider_id, or with the cheapest that fits"),
    };
    for provider in &providers {
        text.push_str(&format!(
            "\n- {} {}: {} USDC per minute; tools {}",
            provider.provider_id,
            provider.name,
            provider.price_per_minute_usdc,
            provider.tools.join(", ")
        ));
    }
    for other in &rejected {
        text.push_str(&format!("\n- not {}: {}", other.provider, other.why));
    }
    Reply::new(text, &Providers { providers, rejected, next_cursor: listed.next_cursor })
}

pub(super) async fn get(call: &Call, input: GetProvider) -> Result<Reply, Failure> {
    let provider: ProviderIn = call.api.get(&format!("/api/providers/{}", segment(&input.provider_id))).await?;
    let tools: Vec<ToolLine> = provider.tools.iter().map(tool_line).collect();
    let mut text = format!("{} at {} USDC per minute: {}", provider.name, provider.price_per_minute.0, provider.description);
    for tool in &provider.tools {
        text.push_str(&format!("\n- {}: {}", tool.id, tool.description));
    }
    Reply::new(text, &Provider { provider: line(&provider), tools })
}

fn line(provider: &ProviderIn) -> ProviderLine {
    ProviderLine {
        provider_id: provider.id.clone(),
        name: if provider.name.is_empty() { provider.label.clone() } else { provider.name.clone() },
        description: provider.description.chars().take(DESCRIPTION_CHARS).collect(),
        price_per_minute_usdc: provider.price_per_minute.0.clone(),
        minimum_charge_usdc: number(provider.minimum_charge.as_ref()),
        uptime_percent: number(provider.uptime.as_ref()),
        region: provider.region.clone(),
        confinement: provider.confinement.clone(),
        free_places: provider.capacity.as_ref().and_then(|capacity| capacity.free),
        tools: provider.tools.iter().take(TOOLS_NAMED).map(|tool| tool.id.clone()).collect(),
        why: provider.why.as_ref().and_then(sentence),
    }
}

/// A reason that is one sentence or a list of them.
fn sentence(why: &Value) -> Option<String> {
    match why {
        Value::String(text) => Some(text.clone()),
        Value::Array(parts) => Some(parts.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("; ")),
        _ => None,
    }
}

fn number(exact: Option<&Exact>) -> Option<String> {
    exact.map(|exact| exact.0.clone()).filter(|text| text != "null")
}

/// A tool with everything that is needed to run it.
pub(super) fn tool_line(tool: &ToolIn) -> ToolLine {
    let argument = |argument: &super::shapes::ArgumentIn| ArgumentLine {
        name: argument.name.clone(),
        r#type: argument.r#type.clone(),
        required: argument.required,
        description: argument.description.clone(),
        minimum: argument.minimum,
        maximum: argument.maximum,
        max_bytes: argument.max_bytes,
        choices: argument.choices.clone(),
    };
    ToolLine {
        tool_id: tool.id.clone(),
        name: tool.name.clone(),
        description: tool.description.clone(),
        args: tool.args.iter().map(argument).collect(),
        price_per_minute_usdc: number(tool.price_per_minute.as_ref()),
        call_fee_usdc: number(tool.call_fee.as_ref()),
        max_duration_seconds: number(tool.max_duration_seconds.as_ref()),
    }
}
