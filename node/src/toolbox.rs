//! From a job to what the sandbox is told, and from what the sandbox says to what a receipt says.
//!
//! Always true: only tools of the configuration run, as their templates say; the limits of a run are the least of what the tool and the job allow.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::job::{ArgumentValue, Job, Stdin};
use orien_protocol::receipt::EndReason;
use orien_protocol::time::Millis;
use orien_sandbox::{Cause, OnOutputLimit, Profile, RunLimits, RunSpec, View, WORKSPACE};

use crate::arguments;
use crate::config::{ConfiguredTool, ProviderConfig, SharedPath};

/// Open files of each process: what build tools expect of a system.
const OPEN_FILES: u32 = 1024;
/// The kernel counts processor time in whole seconds.
const CPU_MIN: Duration = Duration::from_secs(1);
/// The exit code by custom of what a signal ended.
const SIGNAL_BASE: i32 = 128;
const SIGKILL: i32 = 9;

/// The tools that run here.
#[derive(Debug)]
pub(crate) struct Toolbox {
    tools: BTreeMap<String, ConfiguredTool>,
    /// What they may do, each kind once, and which kind each tool is of.
    profiles: Vec<Profile>,
    kinds: BTreeMap<String, usize>,
    /// No single file can be larger than the workspace.
    file_bytes: u64,
}

impl Toolbox {
    pub(crate) fn new(config: &ProviderConfig) -> Self {
        let tools = config.offered().map(|tool| (tool.tool.id.clone(), tool.clone())).collect();
        let (mut profiles, mut kinds) = (Vec::new(), BTreeMap::new());
        for tool in config.offered() {
            let profile = profile(tool);
            let known = profiles.iter().position(|known| *known == profile);
            kinds.insert(tool.tool.id.clone(), known.unwrap_or(profiles.len()));
            if known.is_none() {
                profiles.push(profile);
            }
        }
        Self { tools, profiles, kinds, file_bytes: config.workspace.max_bytes }
    }

    /// The kinds of runs that a session can have.
    pub(crate) fn profiles(&self) -> Vec<Profile> {
        self.profiles.clone()
    }

    /// Whether a job fits its tool.
    pub(crate) fn vet(&self, job: &Job) -> Result<(), Fault> {
        let Some(tool) = self.tools.get(&job.tool) else {
            return Err(Fault::new(FaultCode::UNKNOWN_TOOL, "this provider does not offer the tool"));
        };
        // Where it will be for a run makes no difference to what fits.
        let bound = arguments::bind(tool, &job.arguments, Path::new(WORKSPACE));
        bound.map(drop).map_err(|fault| Fault::new(FaultCode::BAD_ARGUMENTS, fault))
    }

    /// What to start for a job in a workspace.
    pub(crate) fn spec(&self, job: &Job, limit: Millis, work: &Path) -> Result<RunSpec, String> {
        let tool = self.tools.get(&job.tool).ok_or("this provider does not offer the tool")?;
        let program = tool.program.clone()?;
        let args = arguments::bind(tool, &job.arguments, work).map_err(|fault| fault.to_string())?;
        let env = tool.env.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
        let profile = self.kinds.get(&job.tool).copied().ok_or("this provider does not offer the tool")?;
        Ok(RunSpec { program, args, env, limits: self.limits(tool, limit), profile, input: job.stdin == Stdin::Streamed })
    }

    fn limits(&self, tool: &ConfiguredTool, limit: Millis) -> RunLimits {
        let wall_ms = limit.0.min(tool.limits.duration.0).max(1);
        let cpu_ms = u128::from(wall_ms).saturating_mul(u128::from(tool.limits.cpu_millis)) / 1000;
        RunLimits {
            wall: Duration::from_millis(wall_ms),
            // One second more than the share of the time that is left, so that the kernel's whole seconds never cut a run short.
            cpu: Duration::from_millis(u64::try_from(cpu_ms).unwrap_or(u64::MAX)).saturating_add(CPU_MIN),
            cpu_millis: tool.limits.cpu_millis,
            memory_bytes: tool.limits.memory_bytes,
            processes: tool.limits.processes,
            open_files: OPEN_FILES,
            file_bytes: self.file_bytes,
            output_bytes: tool.limits.output_bytes,
            on_output_limit: OnOutputLimit::Kill,
        }
    }
}

/// What the sandbox has to permit a tool.
fn profile(tool: &ConfiguredTool) -> Profile {
    let view = |shared: &SharedPath| View { path: shared.path.clone(), execute: shared.execute };
    Profile {
        views: tool.shared.iter().map(view).collect(),
        execute_workspace: tool.exec_workspace,
        network: tool.network.clone().map(Arc::new),
    }
}

/// Bytes of arguments that a job gives to its tool.
pub(crate) fn argument_bytes(job: &Job) -> u64 {
    let bytes = job.arguments.iter().map(|argument| match &argument.value {
        ArgumentValue::Text(text) | ArgumentValue::Number(text) => text.len(),
        ArgumentValue::Integer(number) => number.to_string().len(),
        ArgumentValue::Boolean(value) => value.to_string().len(),
    });
    u64::try_from(bytes.sum::<usize>()).unwrap_or(u64::MAX)
}

/// How a run's end is reported, with its exit code.
pub(crate) fn end_of(cause: &Cause) -> (EndReason, Option<i32>) {
    let killed = Some(SIGNAL_BASE + SIGKILL);
    match cause {
        Cause::Exited(code) => (EndReason::Exited, Some(*code)),
        Cause::Signalled(signal) => (EndReason::Signalled, Some(SIGNAL_BASE.saturating_add(*signal))),
        Cause::TimedOut => (EndReason::TimedOut, killed),
        Cause::CpuLimit => (EndReason::CpuLimit, killed),
        Cause::MemoryLimit => (EndReason::MemoryLimit, killed),
        // Processes are what their memory is spent on; there is no reason of their own for them.
        Cause::ProcessLimit => (EndReason::MemoryLimit, killed),
        Cause::OutputLimit => (EndReason::OutputLimit, killed),
        Cause::DiskLimit => (EndReason::DiskLimit, killed),
        // A kill that the session asked for is reported with the session's own reason.
        Cause::Killed { .. } | Cause::Lost { .. } => (EndReason::ProviderStopped, killed),
        Cause::SetupFailed { .. } => (EndReason::SetupFailed, None),
    }
}

#[cfg(test)]
mod tests {
    use orien_protocol::id::{ExecutionId, SessionId};
    use orien_protocol::money::Usdc;
    use orien_protocol::time::Timestamp;

    use super::*;
    use crate::config::{self, HostPaths, HostPrograms};

    #[test]
    fn only_the_very_name_of_an_offered_tool_is_one() {
        let text = r#"{"providerId": "test", "pricePerMinute": "1", "tools": [
            {"id": "echo", "command": "/bin/echo", "args": []}, {"id": "absent", "command": "/no/such/program", "args": []}]}"#;
        let toolbox = Toolbox::new(&config::load(text, &HostPrograms, &HostPaths::default()).unwrap());
        let vet = |tool: &str| {
            let job = Job {
                session: SessionId::from_parts(1, 1),
                execution: ExecutionId::from_parts(1, 1),
                tool: tool.to_owned(),
                arguments: Vec::new(),
                max_cost: Usdc::ZERO,
                max_duration: Millis::from_secs(1),
                issued_at: Timestamp(0),
                stdin: Stdin::Empty,
            };
            let work = Path::new(WORKSPACE);
            assert_eq!(toolbox.spec(&job, Millis::from_secs(1), work).is_ok(), toolbox.vet(&job).is_ok(), "{tool:?}");
            toolbox.vet(&job).map_err(|fault| fault.code)
        };
        assert_eq!(vet("echo"), Ok(()));
        let tricks = [
            "",
            "absent",
            "Echo",
            "ECHO",
            "echo ",
            " echo",
            "echo\0",
            "echo\n",
            "../../bin/sh",
            "/bin/echo",
            "./echo",
            "\u{435}cho",
            "ec\u{200b}ho",
        ];
        for tool in tricks {
            assert_eq!(vet(tool), Err(FaultCode::UNKNOWN_TOOL), "{tool:?}");
        }
    }
}
