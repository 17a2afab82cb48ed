//! A network of its own for a measurement: all four roles in one other process on loopback, and what that process uses.
//!
//! Always true: the process is stopped when the measurement is over, and everything that it kept is removed with it.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use orien_bootstrap::DoorFile;
use rustix::process::{Pid, Signal, kill_process};
use serde::Serialize;
use serde_json::json;
use tempfile::TempDir;

use super::caller::Place;

/// The tool that is run: the least that a program can do.
pub(super) const TOOL: &str = "nothing";
/// Runs at once in one session: the most that a provider may allow.
pub(super) const RUNS_PER_SESSION: usize = 64;
/// Sessions at once: more than any measurement has open.
const SESSIONS: usize = 64;
/// A large file, the one that replaces it, and a tree.
const WORKSPACE: &str = "12GB";
/// An orderly stop takes less.
const STOP_LIMIT: Duration = Duration::from_secs(45);
/// What is shown of the network's own words when it fails.
const LOG_SHOWN: usize = 2000;
/// In which the kernel counts processor time for everybody to read.
const TICKS_PER_SECOND: f64 = 100.0;

/// A running network.
pub(super) struct Network {
    child: Child,
    /// Open for as long as the process may say something.
    _said: BufReader<std::process::ChildStdout>,
    folder: TempDir,
}

/// What a process has used since it began.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Used {
    pub(super) cpu_seconds: f64,
    /// The most that it ever held.
    pub(super) peak_mib: f64,
}

impl Network {
    /// Starts it, with one tool and an account that is rich.
    pub(super) fn start(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::Builder::new().prefix("orien-bench-").tempdir().context("no temporary directory")?;
        let tools = folder.path().join("provider-config.json");
        std::fs::write(&tools, config(program).to_string())?;
        let log = File::create(folder.path().join("log"))?;
        let mut command = Command::new(std::env::current_exe().context("this program cannot be found")?);
        // As roles log when they are run for real.
        command.args(["dev", "--verbose", "--http", "127.0.0.1:0", "--credit", "1000000", "--tools"]).arg(&tools);
        command.arg("--data-dir").arg(folder.path().join("network")).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().context("the network does not start")?;
        let Some(stdout) = child.stdout.take() else { bail!("the network has no output") };
        let mut said = BufReader::new(stdout);
        // It says where it is once everything is there.
        let count = said.read_line(&mut String::new())?;
        let network = Self { child, _said: said, folder };
        ensure!(count > 0, "the network does not start: {}", network.log());
        Ok(network)
    }

    /// The gateway's door.
    pub(super) fn gateway(&self) -> anyhow::Result<Place> {
        let door = DoorFile::read(&self.root().join("gateway"))?;
        Place::new(door.address, &door.token_file)
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("network")
    }

    /// What the network used so far.
    pub(super) fn used(&self) -> Used {
        used(&self.child.id().to_string())
    }

    /// Counts the most that the network holds from now on; answers what it holds, in MiB.
    pub(super) fn settle(&self) -> f64 {
        settle(&self.child.id().to_string())
    }

    /// The end of what the network said.
    pub(super) fn log(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("log")).unwrap_or_default();
        let from = text.len().saturating_sub(LOG_SHOWN);
        text.get(from..).unwrap_or(&text).to_owned()
    }

    /// Stops it in order.
    pub(super) fn stop(mut self) -> anyhow::Result<()> {
        kill_process(Pid::from_child(&self.child), Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < STOP_LIMIT {
            if let Some(status) = self.child.try_wait()? {
                ensure!(status.success(), "the network ended with {status}: {}", self.log());
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the network did not stop: {}", self.log())
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        // One that has ended already is none the worse.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn config(program: &Path) -> serde_json::Value {
    json!({
        "providerId": "bench",
        "pricePerMinute": 0.06,
        "meteringIntervalSeconds": 5,
        "workspace": { "maxBytes": WORKSPACE, "storage": "memory" },
        "capacity": { "sessions": SESSIONS, "runsPerSession": RUNS_PER_SESSION },
        "tools": [{
            "id": TOOL,
            "name": "Nothing",
            "description": "Ends at once",
            "command": program,
            "maxDurationSeconds": 60,
            "capabilities": ["bench"],
            "resourceLimits": { "cpu": "1", "memory": "256MB" }
        }]
    })
}

/// What this process used so far.
pub(super) fn used_here() -> Used {
    used("self")
}

/// See [`Network::settle`]; of this process.
pub(super) fn settle_here() -> f64 {
    settle("self")
}

fn settle(process: &str) -> f64 {
    // Where it may not be reset the peak is that of all the time, and growth looks larger than it is.
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
    memory(process, "VmRSS:")
}

/// A line of what the kernel says of a process's memory, in MiB.
fn memory(process: &str, name: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let kib = status.lines().find_map(|line| line.strip_prefix(name)?.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    kib.unwrap_or(0.0) / 1024.0
}

fn used(process: &str) -> Used {
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
    // The name of the program, in brackets, may hold anything.
    let stat = read("stat");
    let after = stat.rsplit_once(')').map_or("", |(_, after)| after);
    let ticks: f64 = after.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<f64>().ok()).sum();
    Used { cpu_seconds: ticks / TICKS_PER_SECOND, peak_mib: memory(process, "VmHWM:") }
}

/// Processor seconds that all of the machine was busy, whoever was the reason.
pub(super) fn machine_busy() -> f64 {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let fields = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<f64> = fields.filter_map(|field| field.parse().ok()).collect();
    // Fourth and fifth are for idling and for waiting idly; the last two are part of the first two.
    let busy = ticks.iter().take(8).enumerate().filter(|(place, _)| !matches!(place, 3 | 4));
    busy.map(|(_, ticks)| ticks).sum::<f64>() / TICKS_PER_SECOND
}
