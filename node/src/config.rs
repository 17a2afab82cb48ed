//! `provider-config.json`: what a provider runs, at what price, and within what limits.
//!
//! Always true: a file loads whole or not at all, and if not, everything that is wrong with it is said at once, each with its place and its remedy. A tool
//! whose program is absent loads, but is not offered.
//!
//! It knows nothing of sessions, of the network, or of the machine beyond which programs and paths it has.

mod confinement;
mod environment;
mod findings;
mod parameter;
mod paths;
mod programs;
mod quantity;
mod report;
mod shared;
mod source;
mod tool;

use std::collections::HashMap;

use orien_protocol::money::{Price, Usdc};
use orien_protocol::offer::{NAME_LIMIT, OFFER_LIMIT_BYTES, ParameterKind, TEXT_LIMIT, TOOLS_LIMIT};
use orien_protocol::signing::Address;
use orien_protocol::time::Millis;

pub use confinement::{SandboxChoice, WorkspaceChoice};
pub use findings::{ConfigFault, ConfigWarning, Place};
pub use paths::{HostPaths, PathFault, Paths};
pub use programs::{HostPrograms, Programs};
pub use report::{ArgumentReport, ConfigReport, LimitsReport, NetworkReport, SandboxReport, SharedReport, ToolReport, WorkspaceReport};
pub use shared::SharedPath;
pub use tool::{ConfiguredTool, ToolLimits};

use findings::{Findings, quote};
use quantity::usdc;
use shared::Catalogue;
use source::{Field, Fields};

/// Seconds between two receipts of a run when the file does not say.
const METERING_DEFAULT_SECS: u64 = 5;
/// Longer would let an agent owe, or a provider claim, more than either can judge.
const METERING_MAX_SECS: u64 = 300;
/// Sessions at once, and runs at once in each, when the file does not say.
const CAPACITY_DEFAULT: u16 = 4;
/// Each open session keeps a workspace and a stream; one machine has no use for more.
const SESSIONS_MAX: u16 = 1024;
/// More runs at once than one session's receipts can follow.
const RUNS_MAX: u16 = 64;
/// What an offer holds beside its tools: 16 addresses of 512 bytes, the provider's own texts, keys and figures.
const OFFER_RESERVE_BYTES: usize = 12 * 1024;
/// Fixed fields of a tool or an argument as encoded, at most.
const RECORD_BYTES: usize = 64;

const KEYS: [&str; 15] = [
    "providerId",
    "name",
    "description",
    "ensName",
    "region",
    "payoutAddress",
    "pricePerMinute",
    "callFee",
    "minimumCharge",
    "meteringIntervalSeconds",
    "capacity",
    "sandbox",
    "workspace",
    "shared",
    "tools",
];

/// A loaded configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProviderConfig {
    /// The operator's own name for the provider: `providerId`.
    pub label: String,
    /// For people; the label when the file does not say.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// Ethereum name, as claimed.
    pub ens_name: Option<String>,
    /// Where the machine is, as claimed.
    pub region: Option<String>,
    /// Where earnings go; without it, to the provider's own key.
    pub payout: Option<Address>,
    /// The usual price; each tool names its own.
    pub price: Price,
    /// Charged at opening and credited against use. When the file does not say: one metering interval at the highest price per minute among the tools.
    pub minimum_charge: Usdc,
    /// Effective time between two interim receipts of a run.
    pub metering_interval: Millis,
    /// Sessions at once.
    pub sessions: u16,
    /// Runs at once within a session.
    pub runs_per_session: u16,
    /// How strongly tools are confined.
    pub sandbox: SandboxChoice,
    /// The workspace of one session.
    pub workspace: WorkspaceChoice,
    /// The tools in the order of the file, unavailable ones included.
    pub tools: Vec<ConfiguredTool>,
    /// What the provider should know.
    pub warnings: Vec<ConfigWarning>,
}

impl ProviderConfig {
    /// The tools whose program is on this machine.
    pub fn offered(&self) -> impl Iterator<Item = &ConfiguredTool> {
        self.tools.iter().filter(|tool| tool.program.is_ok())
    }

    /// The tool with this id, if its program is on this machine.
    pub fn offered_tool(&self, id: &str) -> Option<&ConfiguredTool> {
        self.offered().find(|tool| tool.tool.id == id)
    }
}

/// Reads a configuration, or says everything that is wrong with it. Looks at nothing but the text, `programs` and `paths`.
pub fn load(text: &str, programs: &dyn Programs, paths: &dyn Paths) -> Result<ProviderConfig, Vec<ConfigFault>> {
    // Some editors begin a file with a byte order mark, and nobody can see it.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut findings = Findings::new(text);
    let config = source::parse(text, &mut findings).and_then(|value| {
        let root = Field { value: &value, path: String::new() };
        let fields = root.object(&mut findings, &KEYS)?;
        provider(&fields, programs, paths, &mut findings)
    });
    let warnings = findings.finish()?;
    // Without a configuration there was a fault, so this is never empty-handed.
    config.map(|config| ProviderConfig { warnings, ..config }).ok_or_else(Vec::new)
}

fn provider(fields: &Fields<'_, '_>, programs: &dyn Programs, paths: &dyn Paths, findings: &mut Findings<'_>) -> Option<ProviderConfig> {
    let label = fields.required(findings, "providerId", "\"my_provider\"").and_then(|field| field.id(findings));
    let name = fields.get("name").and_then(|field| field.words(findings, NAME_LIMIT));
    let description = fields.get("description").and_then(|field| field.text(findings, TEXT_LIMIT)).unwrap_or_default();
    let region = fields.get("region").and_then(|field| field.words(findings, NAME_LIMIT));
    let ens_name = ens_name(fields, findings);
    let payout = fields.get("payoutAddress").and_then(|field| payout(field, findings));
    let price = Price { per_minute: amount(fields, "pricePerMinute", findings), call_fee: amount(fields, "callFee", findings) };
    let minimum = fields.get("minimumCharge").and_then(|field| usdc(field, findings));
    let metering = fields.get("meteringIntervalSeconds").and_then(|field| field.whole(findings, 1, METERING_MAX_SECS));
    let metering_interval = Millis::from_secs(metering.unwrap_or(METERING_DEFAULT_SECS));
    let capacity = fields.get("capacity").and_then(|field| field.object(findings, &["sessions", "runsPerSession"]));
    let mut places = |name: &str, max: u16| {
        let field = capacity.as_ref().and_then(|capacity| capacity.get(name));
        field.and_then(|field| field.whole(findings, 1, max)).unwrap_or(CAPACITY_DEFAULT)
    };
    let (sessions, runs_per_session) = (places("sessions", SESSIONS_MAX), places("runsPerSession", RUNS_MAX));
    let (sandbox, workspace) = (confinement::sandbox(fields, findings), confinement::workspace(fields, findings));
    let mut catalogue = Catalogue::read(fields, paths, findings);
    let tools = tools(fields, price, programs, &mut catalogue, findings);
    catalogue.finish(findings);
    let highest = tools.iter().map(|tool| tool.tool.price.per_minute).max().unwrap_or(price.per_minute);
    let interval = Price { per_minute: highest, call_fee: Usdc::ZERO }.of(metering_interval.0);
    Some(ProviderConfig {
        label: label?.to_owned(),
        name: name.or(label)?.to_owned(),
        description: description.to_owned(),
        ens_name,
        region: region.map(str::to_owned),
        payout,
        price,
        minimum_charge: minimum.or(interval.ok()).unwrap_or(Usdc::ZERO),
        metering_interval,
        sessions,
        runs_per_session,
        sandbox,
        workspace,
        tools,
        warnings: Vec::new(),
    })
}

fn amount(fields: &Fields<'_, '_>, name: &str, findings: &mut Findings<'_>) -> Usdc {
    fields.get(name).and_then(|field| usdc(field, findings)).unwrap_or(Usdc::ZERO)
}

fn ens_name(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<String> {
    let field = fields.get("ensName")?;
    let name = field.words(findings, NAME_LIMIT)?;
    let labels = name.split('.').count() > 1 && name.split('.').all(|label| !label.is_empty());
    if !labels || name.contains(char::is_whitespace) {
        field.fault(findings, "this is no ENS name", "write the whole name, such as \"renderer.eth\"");
    }
    Some(name.to_owned())
}

fn payout(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<Address> {
    let text = field.text(findings, TEXT_LIMIT)?;
    match text.parse::<Address>() {
        Ok(address) if address == Address::default() => {
            field.fault(findings, "nobody owns the zero address", "write an address of your own");
            None
        }
        Ok(address) => {
            if address.to_string() != text {
                field.warn(findings, format!("the address has no checksum, so a typing error cannot be noticed; it would be {address}"));
            }
            Some(address)
        }
        Err(error) => {
            field.fault(findings, error.to_string(), "copy the whole address from your wallet");
            None
        }
    }
}

fn tools(
    fields: &Fields<'_, '_>,
    price: Price,
    programs: &dyn Programs,
    catalogue: &mut Catalogue<'_>,
    findings: &mut Findings<'_>,
) -> Vec<ConfiguredTool> {
    let example = "[{\"id\": \"run_build\", \"command\": \"npm run build\"}]";
    let Some(field) = fields.required(findings, "tools", example) else { return Vec::new() };
    let Some(entries) = field.list(findings, TOOLS_LIMIT) else { return Vec::new() };
    if entries.is_empty() {
        field.fault(findings, "there is no tool", format!("list at least one: {example}"));
    }
    let mut tools = Vec::new();
    let mut lines = HashMap::new();
    for entry in &entries {
        // Also of tools that cannot be read otherwise.
        if let Some(id) = entry.value.as_object().and_then(|object| object.get_string("id")) {
            let at = id.range.start;
            if let Some(first) = lines.insert(id.value.clone(), findings.line(at)) {
                let problem = format!("a second tool has the id {}; the first is on line {first}", quote(&id.value));
                findings.fault(at, &format!("{}.id", entry.path), problem, "give each tool its own id");
            }
        }
        let Some(configured) = tool::read(entry, price, programs, catalogue, findings) else { continue };
        if configured.tool.price == Price::default() && !priced(entry, fields) {
            entry.warn(
                findings,
                format!(
                    "`{}` has no price and would be free of charge; add \"pricePerMinute\" here or for the provider",
                    configured.tool.id
                ),
            );
        }
        tools.push(configured);
    }
    let size = offer_bytes(&tools);
    if size > OFFER_LIMIT_BYTES {
        let fix = "shorten descriptions, commands or choices, or offer some of the tools from a second provider";
        field.fault(findings, format!("an offer of these tools has about {size} bytes; {OFFER_LIMIT_BYTES} are allowed"), fix);
    }
    tools
}

/// Whether the file says what the tool costs, even if that is nothing.
fn priced(entry: &Field<'_, '_>, provider: &Fields<'_, '_>) -> bool {
    let own = |name: &str| entry.value.as_object().is_some_and(|object| object.get(name).is_some());
    ["pricePerMinute", "callFee"].into_iter().any(|name| own(name) || provider.get(name).is_some())
}

/// An upper estimate of the encoded offer.
fn offer_bytes(tools: &[ConfiguredTool]) -> usize {
    let texts = tools.iter().flat_map(|configured| {
        let tool = &configured.tool;
        let parameters = tool.parameters.iter().map(|p| {
            let choices = if let ParameterKind::Choice(choices) = &p.kind {
                choices.iter().map(|c| c.len().saturating_add(4)).sum()
            } else {
                0_usize
            };
            [p.name.len(), p.description.len(), choices, RECORD_BYTES].into_iter().sum::<usize>()
        });
        let own = [tool.id.len(), tool.name.len(), tool.description.len(), tool.command.len(), RECORD_BYTES];
        own.into_iter().chain(parameters).chain(tool.capabilities.iter().map(|c| c.len().saturating_add(4)))
    });
    texts.fold(OFFER_RESERVE_BYTES, usize::saturating_add)
}

#[cfg(test)]
mod tests;
