//! One tool of a configuration.
//!
//! Always true of a tool that is read: its limits are whole, positive and ones the sandbox can start a program under, and its offer passes the protocol's own
//! limits. Without limits of its own a tool gets 2 CPUs, 4 GB and 300 s.

use std::collections::BTreeMap;
use std::path::PathBuf;

use orien_protocol::job::ArgumentValue;
use orien_protocol::money::Price;
use orien_protocol::offer::{LIST_LIMIT, NAME_LIMIT, ParameterKind, TEXT_LIMIT, Tool};
use orien_protocol::time::Millis;
use orien_sandbox::NetworkGrant;

use super::findings::Findings;
use super::programs::Programs;
use super::quantity::{bytes, cpu_millis, usdc};
use super::shared::{Catalogue, SharedPath};
use super::source::{Field, Fields};
use super::{confinement, environment, parameter};
use crate::command::CommandTemplate;

/// Processors of a tool that names none, in thousandths: enough for a build, and what the usual machine has to spare.
const CPU_MILLIS_DEFAULT: u32 = 2000;
/// Memory of a tool that names none.
const MEMORY_DEFAULT_BYTES: u64 = 4 << 30;
/// The sandbox starts nothing in less.
const MEMORY_MIN_BYTES: u64 = 16 << 20;
/// More than any machine has.
const MEMORY_MAX_BYTES: u64 = 64 << 40;
/// Longest run of a tool that names none.
const DURATION_DEFAULT_SECS: u64 = 300;
/// A day: longer work would outlive the time within which its charge can be collected.
const DURATION_MAX_SECS: u64 = 24 * 60 * 60;
/// Output of a tool that names none; a long build log is a tenth of it.
const OUTPUT_DEFAULT_BYTES: u64 = 10 << 20;
/// Less cuts off the first error message.
const OUTPUT_MIN_BYTES: u64 = 1 << 10;
/// Logs are kept and served; results belong into files.
const OUTPUT_MAX_BYTES: u64 = 1 << 30;
/// Processes and threads of a tool that names none; a parallel build with a helper per job stays below.
const PROCESSES_DEFAULT: u32 = 256;
/// The usual most of a whole machine.
const PROCESSES_MAX: u32 = 32_768;

const KEYS: [&str; 18] = [
    "id",
    "name",
    "description",
    "command",
    "args",
    "workspaceRequired",
    "maxDuration",
    "maxDurationSeconds",
    "resourceLimits",
    "pricePerMinute",
    "callFee",
    "capabilities",
    "maxOutputBytes",
    "maxProcesses",
    "env",
    "shared",
    "network",
    "execWorkspace",
];

/// A tool as this provider runs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfiguredTool {
    /// What is offered.
    pub tool: Tool,
    /// The absolute path of its program, or why the tool is not offered.
    pub program: Result<PathBuf, String>,
    /// How it is called.
    pub template: CommandTemplate,
    /// Values of arguments that a job leaves out.
    pub defaults: BTreeMap<String, ArgumentValue>,
    /// What one run may use.
    pub limits: ToolLimits,
    /// Variables it gets beside those that every tool gets.
    pub env: BTreeMap<String, String>,
    /// What it sees of this machine besides the system's programs, in order of path.
    pub shared: Vec<SharedPath>,
    /// What it may reach; nothing if it has no network.
    pub network: Option<NetworkGrant>,
    /// Whether programs that it finds or makes in the workspace may be started.
    pub exec_workspace: bool,
}

/// What one run of a tool may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ToolLimits {
    /// Effective time from start to end.
    pub duration: Millis,
    /// Processor share in thousandths of a CPU.
    pub cpu_millis: u32,
    /// Memory in bytes.
    pub memory_bytes: u64,
    /// Standard output and standard error together, in bytes.
    pub output_bytes: u64,
    /// Processes and threads at once.
    pub processes: u32,
}

impl Default for ToolLimits {
    fn default() -> Self {
        Self {
            duration: Millis::from_secs(DURATION_DEFAULT_SECS),
            cpu_millis: CPU_MILLIS_DEFAULT,
            memory_bytes: MEMORY_DEFAULT_BYTES,
            output_bytes: OUTPUT_DEFAULT_BYTES,
            processes: PROCESSES_DEFAULT,
        }
    }
}

/// Reads a tool; nothing if it has no usable id or command, which is a fault then.
pub(super) fn read(
    entry: &Field<'_, '_>,
    price: Price,
    programs: &dyn Programs,
    catalogue: &mut Catalogue<'_>,
    findings: &mut Findings<'_>,
) -> Option<ConfiguredTool> {
    let fields = entry.object(findings, &KEYS)?;
    let id = fields.required(findings, "id", "\"run_build\"").and_then(|field| field.id(findings)).map(str::to_owned);
    let command = fields.required(findings, "command", "\"npm run build\"");
    let text = command.and_then(|field| field.text(findings, TEXT_LIMIT)).map(str::to_owned);
    let template = command.zip(text.as_deref()).and_then(|(field, text)| template(field, text, findings));
    let parameters = parameter::read(&fields, template.as_ref(), findings);
    let limits = limits(&fields, findings);
    let price = Price {
        per_minute: fields.get("pricePerMinute").and_then(|field| usdc(field, findings)).unwrap_or(price.per_minute),
        call_fee: fields.get("callFee").and_then(|field| usdc(field, findings)).unwrap_or(price.call_fee),
    };
    let name = fields.get("name").and_then(|field| field.words(findings, NAME_LIMIT)).map(str::to_owned);
    let description = fields.get("description").and_then(|field| field.text(findings, TEXT_LIMIT)).unwrap_or_default().to_owned();
    let env = fields.get("env").map(|field| environment::read(field, findings)).unwrap_or_default();
    let takes_files = parameters.list.iter().any(|p| p.kind == ParameterKind::File);
    let workspace_required = workspace(&fields, takes_files, findings);
    let capabilities = capabilities(&fields, findings);
    let shared = catalogue.of_tool(&fields, findings);
    let network = confinement::network(&fields, findings);
    let exec_workspace = exec_workspace(&fields, template.as_ref(), findings);
    let (id, template) = (id?, template?);
    let program = programs.find(template.program());
    if let Some(command) = command {
        if let Ok(program) = &program {
            catalogue.check_program(command, program, &programs.real(program), &shared, findings);
        }
        catalogue.check_words(command, &template, &shared, findings);
    }
    let tool = Tool {
        name: name.unwrap_or_else(|| id.clone()),
        id,
        description,
        command: text.unwrap_or_default(),
        parameters: parameters.list,
        max_duration: limits.duration,
        cpu_millis: limits.cpu_millis,
        memory_bytes: limits.memory_bytes,
        price,
        workspace_required,
        capabilities,
    };
    Some(ConfiguredTool { tool, program, template, defaults: parameters.defaults, limits, env, shared, network, exec_workspace })
}

fn template(field: &Field<'_, '_>, text: &str, findings: &mut Findings<'_>) -> Option<CommandTemplate> {
    match CommandTemplate::parse(text) {
        Ok(template) => {
            if let Some(warning) = template.runs_arbitrary_code() {
                field.warn(findings, warning);
            }
            Some(template)
        }
        Err(faults) => {
            for fault in faults {
                field.fault(findings, fault.to_string(), fault.fix());
            }
            None
        }
    }
}

fn limits(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> ToolLimits {
    let mut limits = ToolLimits::default();
    let short = fields.get("maxDuration").and_then(|field| field.whole(findings, 1, DURATION_MAX_SECS));
    let long = fields.get("maxDurationSeconds").and_then(|field| field.whole(findings, 1, DURATION_MAX_SECS));
    if let (Some(one), Some(other), Some(field)) = (short, long, fields.get("maxDurationSeconds"))
        && one != other
    {
        let problem = format!("`maxDuration` says {one} s and `maxDurationSeconds` says {other} s");
        field.fault(findings, problem, "keep one of them; both mean seconds");
    }
    if let Some(seconds) = short.or(long) {
        limits.duration = Millis::from_secs(seconds);
    }
    if let Some(resources) = fields.get("resourceLimits").and_then(|field| field.object(findings, &["cpu", "memory"])) {
        let cpu = resources.get("cpu").and_then(|field| cpu_millis(field, findings));
        let memory = resources.get("memory").and_then(|field| bytes(field, findings, MEMORY_MIN_BYTES, MEMORY_MAX_BYTES));
        limits.cpu_millis = cpu.unwrap_or(limits.cpu_millis);
        limits.memory_bytes = memory.unwrap_or(limits.memory_bytes);
    }
    let output = fields.get("maxOutputBytes").and_then(|field| bytes(field, findings, OUTPUT_MIN_BYTES, OUTPUT_MAX_BYTES));
    limits.output_bytes = output.unwrap_or(limits.output_bytes);
    let processes = fields.get("maxProcesses").and_then(|field| field.whole(findings, 1, PROCESSES_MAX));
    limits.processes = processes.unwrap_or(limits.processes);
    limits
}

/// Whether the tool uses the workspace; without a word of it, it does if it takes files.
fn workspace(fields: &Fields<'_, '_>, takes_files: bool, findings: &mut Findings<'_>) -> bool {
    let Some(field) = fields.get("workspaceRequired") else { return takes_files };
    let required = field.flag(findings);
    if required == Some(false) && takes_files {
        field.fault(findings, "the tool takes files, and files are in the workspace", "write true, or give it no file argument");
    }
    required.unwrap_or(takes_files)
}

/// Whether the workspace's own programs may be started: not without a word of it.
fn exec_workspace(fields: &Fields<'_, '_>, template: Option<&CommandTemplate>, findings: &mut Findings<'_>) -> bool {
    if let Some(field) = fields.get("execWorkspace") {
        return field.flag(findings).unwrap_or(false);
    }
    if let (Some(name), Some(command)) = (template.and_then(CommandTemplate::builds), fields.get("command")) {
        let fix = "if it has to start what it finds or makes there, add \"execWorkspace\": true; if not, false";
        command.warn(findings, format!("`{name}` cannot start programs or scripts in the workspace; {fix}"));
    }
    false
}

fn capabilities(fields: &Fields<'_, '_>, findings: &mut Findings<'_>) -> Vec<String> {
    let list = fields.get("capabilities").and_then(|field| field.list(findings, LIST_LIMIT)).unwrap_or_default();
    let mut capabilities: Vec<String> = list.iter().filter_map(|entry| entry.id(findings)).map(str::to_owned).collect();
    capabilities.sort_unstable();
    capabilities.dedup();
    capabilities
}
