//! How strongly tools are confined, what a session's workspace is made of, and what a tool may reach.
//!
//! Always true of what is read: identities begin above every ordinary account and never include root; a workspace has both limits; a grant of the network names
//! each host and port, because there is no other kind.

use jsonc_parser::ast::Value;
use orien_sandbox::{EGRESS_BYTES_DEFAULT, FIRST_USER_DEFAULT, HOSTS_MAX, HostRule, Level, NetworkGrant, RuleError, Storage, USERS};

use super::findings::{Findings, closest, quote};
use super::quantity::{bytes, show_bytes};
use super::source::{Field, Fields};

/// Below are the accounts of people and services, and `nobody`.
const FIRST_USER_MIN: u32 = 65_536;
/// Above, identities become negative numbers to some programs.
const FIRST_USER_MAX: u32 = (1 << 31) - USERS;
/// Less is no use to a program that fetches packages.
const NETWORK_MIN_BYTES: u64 = 1 << 20;
/// A month of a fast line.
const NETWORK_MAX_BYTES: u64 = 1 << 50;
/// Of a workspace in memory when the file does not say: a project's sources and results, on a machine with many sessions.
const MEMORY_DEFAULT_BYTES: u64 = 256 << 20;
/// The same; each entry takes about a kilobyte of memory.
const MEMORY_DEFAULT_ENTRIES: u32 = 65_536;
/// Of a workspace on disk when the file does not say.
const DISK_DEFAULT_BYTES: u64 = 1 << 30;
/// The same; a large project with its packages.
const DISK_DEFAULT_ENTRIES: u32 = 200_000;
/// A larger workspace is on disk if the file does not say where it is.
const MEMORY_UNASKED_BYTES: u64 = 1 << 30;
/// Less holds no input worth renting a tool for.
const WORKSPACE_MIN_BYTES: u64 = 1 << 20;
/// A whole large disk.
const WORKSPACE_MAX_BYTES: u64 = 16 << 40;
/// The workspace itself and a few files.
const ENTRIES_MIN: u32 = 16;
/// More takes minutes to count and to remove.
const ENTRIES_MAX: u32 = 10_000_000;
/// Longest rule that is read: a name, and as many ports as a rule may have.
const RULE_LIMIT_BYTES: usize = 512;

/// Confinement of all tools of this provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SandboxChoice {
    /// The node does not start on a machine that cannot confine this strongly.
    pub min_level: Level,
    /// The first of [`USERS`] identities that tools get when the node runs as root; otherwise they have the node's own.
    pub first_user: u32,
    /// What the tools of one session may send and receive together, if they may at all.
    pub network_bytes: u64,
}

impl Default for SandboxChoice {
    fn default() -> Self {
        Self { min_level: Level::S2, first_user: FIRST_USER_DEFAULT, network_bytes: EGRESS_BYTES_DEFAULT }
    }
}

/// The workspace of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WorkspaceChoice {
    /// Where it is.
    pub storage: Storage,
    /// Size of all its files, in bytes.
    pub max_bytes: u64,
    /// Files and directories.
    pub max_entries: u32,
}

impl Default for WorkspaceChoice {
    fn default() -> Self {
        Self { storage: Storage::Memory, max_bytes: MEMORY_DEFAULT_BYTES, max_entries: MEMORY_DEFAULT_ENTRIES }
    }
}

/// Reads `{"minLevel": "S2", "user": 1900000000, "maxNetworkBytes": "10GB"}`.
pub(super) fn sandbox(provider: &Fields<'_, '_>, findings: &mut Findings<'_>) -> SandboxChoice {
    let mut choice = SandboxChoice::default();
    let keys = ["minLevel", "user", "maxNetworkBytes"];
    let Some(fields) = provider.get("sandbox").and_then(|field| field.object(findings, &keys)) else { return choice };
    choice.min_level = fields.get("minLevel").and_then(|field| level(field, findings)).unwrap_or(choice.min_level);
    let user = fields.get("user").and_then(|field| field.whole(findings, FIRST_USER_MIN, FIRST_USER_MAX));
    choice.first_user = user.unwrap_or(choice.first_user);
    let network = fields.get("maxNetworkBytes").and_then(|field| bytes(field, findings, NETWORK_MIN_BYTES, NETWORK_MAX_BYTES));
    choice.network_bytes = network.unwrap_or(choice.network_bytes);
    choice
}

fn level(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<Level> {
    let level = match field.words(findings, orien_protocol::offer::NAME_LIMIT)? {
        "S0" => Level::S0,
        "S1" => Level::S1,
        "S2" => Level::S2,
        "S3" => Level::S3,
        other => {
            field.fault(findings, format!("{} is not a level of confinement", quote(other)), "write \"S0\", \"S1\", \"S2\" or \"S3\"");
            return None;
        }
    };
    match level {
        Level::S0 => field.warn(
            findings,
            "at S0 tools see and reach all that the node's user can: offer only what you would let a stranger run as that user",
        ),
        Level::S1 => field
            .warn(findings, "at S1 only filters keep tools from this machine's files, and nothing hides its processes and users from them"),
        Level::S2 | Level::S3 => {}
    }
    Some(level)
}

/// Reads `{"maxBytes": "256MB", "maxEntries": 65536, "storage": "memory"}`.
pub(super) fn workspace(provider: &Fields<'_, '_>, findings: &mut Findings<'_>) -> WorkspaceChoice {
    let keys = ["maxBytes", "maxEntries", "storage"];
    let Some(fields) = provider.get("workspace").and_then(|field| field.object(findings, &keys)) else { return WorkspaceChoice::default() };
    let size = fields.get("maxBytes").and_then(|field| bytes(field, findings, WORKSPACE_MIN_BYTES, WORKSPACE_MAX_BYTES));
    let entries = fields.get("maxEntries").and_then(|field| field.whole(findings, ENTRIES_MIN, ENTRIES_MAX));
    let named = fields.get("storage").and_then(|field| storage(field, findings));
    let storage = named.unwrap_or(match size {
        Some(size) if size > MEMORY_UNASKED_BYTES => Storage::Disk,
        _ => Storage::Memory,
    });
    let (bytes, most) = match storage {
        Storage::Memory => (MEMORY_DEFAULT_BYTES, MEMORY_DEFAULT_ENTRIES),
        Storage::Disk => (DISK_DEFAULT_BYTES, DISK_DEFAULT_ENTRIES),
    };
    let choice = WorkspaceChoice { storage, max_bytes: size.unwrap_or(bytes), max_entries: entries.unwrap_or(most) };
    if let Some(field) = fields.get("maxBytes").filter(|_| named.is_none() && storage == Storage::Disk) {
        let limit = show_bytes(MEMORY_UNASKED_BYTES);
        field.warn(findings, format!("above {limit} workspaces are on disk; say \"storage\": \"disk\" or \"memory\" if you mind"));
    }
    choice
}

fn storage(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<Storage> {
    match field.words(findings, orien_protocol::offer::NAME_LIMIT)? {
        "memory" => Some(Storage::Memory),
        "disk" => Some(Storage::Disk),
        other => {
            let fix = closest(other, ["memory", "disk"])
                .map_or_else(|| "write \"memory\" or \"disk\"".to_owned(), |near| format!("did you mean `{near}`?"));
            field.fault(findings, format!("{} is no place for files", quote(other)), fix);
            None
        }
    }
}

/// Reads `"none"` or `{"allow": ["pypi.org:443", "*.example.org:443"]}`; nothing is none.
pub(super) fn network(tool: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Option<NetworkGrant> {
    let field = tool.get("network")?;
    let what = "write \"none\", or {\"allow\": [\"pypi.org:443\"]} with each host and port; there is no unlimited network";
    match field.value {
        Value::StringLit(text) if text.value == "none" => None,
        Value::Object(_) => {
            let fields = field.object(findings, &["allow"])?;
            let rules = fields.required(findings, "allow", "[\"pypi.org:443\"]")?;
            grant(rules, findings)
        }
        Value::StringLit(text) => {
            field.fault(findings, format!("{} is no network", quote(&text.value)), what);
            None
        }
        _ => {
            field.fault(findings, "this is no network", what);
            None
        }
    }
}

fn grant(field: &Field<'_, '_>, findings: &mut Findings<'_>) -> Option<NetworkGrant> {
    let list = field.list(findings, HOSTS_MAX)?;
    if list.is_empty() {
        field.fault(findings, "this allows no host", "list at least one host with its port, or write \"network\": \"none\"");
        return None;
    }
    let mut hosts: Vec<HostRule> = Vec::new();
    for entry in &list {
        let Some(text) = entry.words(findings, RULE_LIMIT_BYTES) else { continue };
        match text.parse::<HostRule>() {
            Ok(rule) if hosts.contains(&rule) => entry.fault(findings, format!("{} is listed twice", quote(text)), "keep one of them"),
            Ok(rule) => {
                if rule.leads_inside() {
                    let who = "whoever rents this tool can reach it from this machine";
                    entry.warn(findings, format!("{rule} is not on the public internet: {who}"));
                }
                hosts.push(rule);
            }
            Err(error) => entry.fault(findings, format!("{} cannot be allowed: {error}", quote(text)), rule_fix(&error)),
        }
    }
    Some(NetworkGrant { hosts })
}

const fn rule_fix(error: &RuleError) -> &'static str {
    match error {
        RuleError::NoPort | RuleError::Port(_) => "write host:port, such as \"pypi.org:443\" or \"pypi.org:80,443\"",
        RuleError::Ports => "split it, or allow fewer ports",
        RuleError::Host(_) => "write the plain name of the host, or its address, then a colon and the port",
        RuleError::Star | RuleError::TooWide => "name each host, or all below one with \"*.example.org:443\"",
        RuleError::Nobody(_) => "write the address of the machine that is meant",
        RuleError::Localhost => "write the address instead, or leave it out",
    }
}
