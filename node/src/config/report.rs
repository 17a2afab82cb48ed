//! What a configuration would offer, or everything that is wrong with it, for people and for programs.
//!
//! Always true: amounts are exact decimals in text, sizes are given both as bytes and as people write them. It prints only what was loaded and decides nothing.

use std::fmt;
use std::path::PathBuf;

use orien_protocol::job::ArgumentValue;
use orien_protocol::offer::{Parameter, ParameterKind};
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
    /// The tools in the order of the file; none if it does not load.
    pub tools: Vec<ToolReport>,
    /// What the provider should know.
    pub warnings: Vec<ConfigWarning>,
    /// Why it does not load.
    pub faults: Vec<ConfigFault>,
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
                tools: config.tools.iter().map(ToolReport::of).collect(),
                warnings: config.warnings.clone(),
                faults: Vec::new(),
            },
            Err(faults) => Self { ok: false, provider_id: None, tools: Vec::new(), warnings: Vec::new(), faults: faults.clone() },
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

impl fmt::Display for ToolReport {
    /// Three lines, and one more if the tool is not offered.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<String> = self.args.iter().map(ArgumentReport::to_string).collect();
        let args = if args.is_empty() { "none".to_owned() } else { args.join(", ") };
        writeln!(f, "{}: {}; {}", self.id, self.limits, self.price())?;
        writeln!(f, "    command   {}", self.command)?;
        writeln!(f, "    args      {args}")?;
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
