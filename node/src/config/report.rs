//! What a configuration would offer, or everything that is wrong with it, for people and for programs.
//!
//! Always true: amounts are exact decimals in text, sizes are given both as bytes and as people write them. It prints only what was loaded and decides nothing.

use std::fmt;
use std::path::PathBuf;

use orien_protocol::job::ArgumentValue;
use orien_protocol::offer::{Parameter, ParameterKind};
use orien_sandbox::{HostRule, Level};
use serde::Serialize;

use super::quantity::{show_bytes, show_cpu};
use super::{ConfigFault, ConfigWarning, ConfiguredTool, ProviderConfig};

/// The answer of `orien tools check`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfigReport {
    /// Whether the file loads; unavailable tools do not count against it.
    pub ok: bool,
    /// The provider's own name for itself, if the file loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider_id: Option<String>,
    /// How strongly tools are confined, if the file loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sandbox: Option<SandboxReport>,
    /// The workspace of a session, if the file loads.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workspace: Option<WorkspaceReport>,
    /// The tools in the order of the file; none if it does not load.
    pub tools: Vec<ToolReport>,
    /// What the provider should know.
    pub warnings: Vec<ConfigWarning>,
    /// Why it does not load.
    pub faults: Vec<ConfigFault>,
}

/// Confinement of all tools.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SandboxReport {
    /// `S0` to `S3`.
    pub min_level: Level,
    /// The first identity of tools when the node runs as root.
    pub user: u32,
    /// What a session's tools may transfer.
    pub max_network_bytes: u64,
}

/// The workspace of a session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkspaceReport {
    /// `memory` or `disk`.
    pub storage: &'static str,
    /// Size of all files.
    pub max_bytes: u64,
    /// Files and directories.
    pub max_entries: u32,
}

/// One path that a tool sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct SharedReport {
    /// The same here and there.
    pub path: PathBuf,
    /// Whether programs in it may be started.
    pub execute: bool,
}

/// What a tool may reach, as the file would say it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum NetworkReport {
    /// Nothing.
    None,
    /// These hosts.
    Allow(Vec<String>),
}

/// One tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ToolReport {
    /// Name in requests.
    pub id: String,
    /// For people.
    pub name: String,
    /// For people and models.
    pub description: String,
    /// Whether it is offered.
    pub available: bool,
    /// Why it is not offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unavailable_because: Option<String>,
    /// The program it starts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub program: Option<PathBuf>,
    /// The command as configured.
    pub command: String,
    /// What one run may use.
    pub limits: LimitsReport,
    /// USDC per minute of effective time.
    pub price_per_minute: String,
    /// USDC per run that started.
    pub call_fee: String,
    /// Whether it uses the session's workspace.
    pub workspace_required: bool,
    /// Whether programs in the workspace may be started.
    pub exec_workspace: bool,
    /// What it sees of the machine besides the system's programs.
    pub shared: Vec<SharedReport>,
    /// What it may reach.
    pub network: NetworkReport,
    /// What it is good for, beyond its id.
    pub capabilities: Vec<String>,
    /// What a run takes.
    pub args: Vec<ArgumentReport>,
}

/// The limits of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LimitsReport {
    /// Processors, such as `2` or `0.5`.
    pub cpu: String,
    /// Memory as people write it.
    pub memory: String,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Longest run in seconds.
    pub max_duration_seconds: u64,
    /// Output in bytes.
    pub max_output_bytes: u64,
    /// Processes and threads.
    pub max_processes: u32,
}

/// One argument of a tool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ArgumentReport {
    /// Name in requests.
    pub name: String,
    /// `text`, `integer`, `number`, `boolean`, `choice` or `file`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// Whether a run without it is refused.
    pub required: bool,
    /// For people and models.
    pub description: String,
    /// Smallest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min: Option<i64>,
    /// Largest value.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max: Option<i64>,
    /// Longest text in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_length: Option<u32>,
    /// What it may be.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub choices: Vec<String>,
    /// What it is when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
}

impl ConfigReport {
    /// Reports what [`super::load`] answered.
    pub fn of(loaded: &Result<ProviderConfig, Vec<ConfigFault>>) -> Self {
        match loaded {
            Ok(config) => Self {
                ok: true,
                provider_id: Some(config.label.clone()),
                sandbox: Some(SandboxReport {
                    min_level: config.sandbox.min_level,
                    user: config.sandbox.first_user,
                    max_network_bytes: config.sandbox.network_bytes,
                }),
                workspace: Some(WorkspaceReport {
                    storage: match config.workspace.storage {
                        orien_sandbox::Storage::Memory => "memory",
                        orien_sandbox::Storage::Disk => "disk",
                    },
                    max_bytes: config.workspace.max_bytes,
                    max_entries: config.workspace.max_entries,
                }),
                tools: config.tools.iter().map(ToolReport::of).collect(),
                warnings: config.warnings.clone(),
                faults: Vec::new(),
            },
            Err(faults) => Self {
                ok: false,
                provider_id: None,
                sandbox: None,
                workspace: None,
                tools: Vec::new(),
                warnings: Vec::new(),
                faults: faults.clone(),
            },
        }
    }
}

impl ToolReport {
    fn of(configured: &ConfiguredTool) -> Self {
        let (tool, limits) = (&configured.tool, &configured.limits);
        Self {
            id: tool.id.clone(),
            name: tool.name.clone(),
            description: tool.description.clone(),
            available: configured.program.is_ok(),
            unavailable_because: configured.program.as_ref().err().cloned(),
            program: configured.program.as_ref().ok().cloned(),
            command: tool.command.clone(),
            limits: LimitsReport {
                cpu: show_cpu(limits.cpu_millis),
                memory: show_bytes(limits.memory_bytes),
                memory_bytes: limits.memory_bytes,
                max_duration_seconds: limits.duration.0 / 1000,
                max_output_bytes: limits.output_bytes,
                max_processes: limits.processes,
            },
            price_per_minute: tool.price.per_minute.to_string(),
            call_fee: tool.price.call_fee.to_string(),
            workspace_required: tool.workspace_required,
            exec_workspace: configured.exec_workspace,
            shared: configured.shared.iter().map(|s| SharedReport { path: s.path.clone(), execute: s.execute }).collect(),
            network: configured
                .network
                .as_ref()
                .map_or(NetworkReport::None, |grant| NetworkReport::Allow(grant.hosts.iter().map(HostRule::to_string).collect())),
            capabilities: tool.capabilities.clone(),
            args: tool.parameters.iter().map(|p| ArgumentReport::of(p, configured.defaults.get(&p.name))).collect(),
        }
    }

    fn price(&self) -> String {
        match (self.price_per_minute.as_str(), self.call_fee.as_str()) {
            ("0", "0") => "free".to_owned(),
            (minute, "0") => format!("{minute} USDC per minute"),
            ("0", call) => format!("{call} USDC per call"),
            (minute, call) => format!("{minute} USDC per minute + {call} per call"),
        }
    }
}

impl ArgumentReport {
    fn of(parameter: &Parameter, default: Option<&ArgumentValue>) -> Self {
        let mut report = Self {
            name: parameter.name.clone(),
            kind: "text",
            required: parameter.required,
            description: parameter.description.clone(),
            min: None,
            max: None,
            max_length: None,
            choices: Vec::new(),
            default: default.map(|value| match value {
                ArgumentValue::Text(text) | ArgumentValue::Number(text) => text.clone(),
                ArgumentValue::Integer(number) => number.to_string(),
                ArgumentValue::Boolean(flag) => flag.to_string(),
            }),
        };
        match &parameter.kind {
            ParameterKind::Text { max_bytes } => report.max_length = Some(*max_bytes),
            ParameterKind::Integer { min, max } | ParameterKind::Number { min, max } => {
                let is_integer = matches!(parameter.kind, ParameterKind::Integer { .. });
                report.kind = if is_integer { "integer" } else { "number" };
                report.min = Some(*min).filter(|min| *min != i64::MIN);
                report.max = Some(*max).filter(|max| *max != i64::MAX);
            }
            ParameterKind::Boolean => report.kind = "boolean",
            ParameterKind::Choice(choices) => {
                report.kind = "choice";
                report.choices.clone_from(choices);
            }
            ParameterKind::File => report.kind = "file",
        }
        report
    }
}

impl fmt::Display for LimitsReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.cpu == "1" { "CPU" } else { "CPUs" };
        write!(f, "{} {unit} / {}, {} s", self.cpu, self.memory, self.max_duration_seconds)
    }
}

impl fmt::Display for ArgumentReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}", self.name, self.kind)?;
        if !self.choices.is_empty() {
            write!(f, ": {}", self.choices.join(" | "))?;
        }
        match (self.min, self.max) {
            (Some(min), Some(max)) => write!(f, ", {min} to {max}")?,
            (Some(min), None) => write!(f, ", at least {min}")?,
            (None, Some(max)) => write!(f, ", at most {max}")?,
            (None, None) => {}
        }
        match &self.default {
            Some(default) => write!(f, ", default {default})"),
            None if self.required => write!(f, ")"),
            None => write!(f, ", optional)"),
        }
    }
}

impl fmt::Display for SandboxReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "at least {:?}, users from {}, network up to {} per session",
            self.min_level,
            self.user,
            show_bytes(self.max_network_bytes)
        )
    }
}

impl fmt::Display for WorkspaceReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = if self.storage == "memory" { "in memory" } else { "on disk" };
        write!(f, "{} {place} and {} entries per session", show_bytes(self.max_bytes), self.max_entries)
    }
}

impl fmt::Display for SharedReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.path.display(), if self.execute { "read and execute" } else { "read only" })
    }
}

impl fmt::Display for ToolReport {
    /// Four lines, and one more for each: shared paths, a network, programs in the workspace.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(ArgumentReport::to_string).collect();
        let args = if args.is_empty() { "none".to_owned() } else { args.join(", ") };
        writeln!(f, "{}: {}; {}", self.id, self.limits, self.price())?;
        writeln!(f, "    command   {}", self.command)?;
        writeln!(f, "    args      {args}")?;
        if !self.shared.is_empty() {
            let shared: Vec<String> = self.shared.iter().map(SharedReport::to_string).collect();
            writeln!(f, "    sees      {}", shared.join(", "))?;
        }
        if let NetworkReport::Allow(hosts) = &self.network {
            writeln!(f, "    reaches   {}", hosts.join(", "))?;
        }
        if self.exec_workspace {
            writeln!(f, "    starts    programs in the workspace")?;
        }
        match (&self.program, &self.unavailable_because) {
            (Some(program), _) => writeln!(f, "    available {}", program.display()),
            (None, why) => writeln!(f, "    NOT OFFERED: {}", why.as_deref().unwrap_or("no program")),
        }
    }
}

impl fmt::Display for ConfigReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(provider) = &self.provider_id {
            let offered = self.tools.iter().filter(|tool| tool.available).count();
            writeln!(f, "{provider}: {offered} of {} tools would be offered", self.tools.len())?;
            if let (Some(sandbox), Some(workspace)) = (&self.sandbox, &self.workspace) {
                writeln!(f, "    sandbox   {sandbox}")?;
                writeln!(f, "    workspace {workspace}")?;
            }
        } else {
            let plural = if self.faults.len() == 1 { "fault" } else { "faults" };
            writeln!(f, "not loaded: {} {plural}", self.faults.len())?;
        }
        for tool in &self.tools {
            write!(f, "\n{tool}")?;
        }
        if !self.warnings.is_empty() {
            writeln!(f)?;
        }
        for warning in &self.warnings {
            writeln!(f, "warning: {warning}")?;
        }
        for fault in &self.faults {
            writeln!(f, "{}: {}\n    {}", fault.place, fault.problem, fault.fix)?;
        }
        Ok(())
    }
}
