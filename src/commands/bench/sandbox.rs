//! `orien bench sandbox`: what confinement costs on this host, beside a plain start of the same program in the same run.
//!
//! Always true: the kinds take turns in small blocks and in changing order, so that whatever else the machine does hits all of them
//! alike; the ratio is of medians of the same run.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use orien_sandbox::{Cause, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionSandbox, SessionSpec};
use serde::Serialize;

use super::figures::{find, median, micros, percentile, round};
use crate::output;

/// Before anything counts.
const WARM_UP: u32 = 20;
/// Runs of one kind before it is the next one's turn.
const BLOCK: u32 = 25;
/// Sessions opened and closed.
const SESSIONS: u32 = 50;
/// Trees killed.
const KILLS: u32 = 20;
/// A page is touched this often, so that all of a large parent's memory is really there.
const PAGE: usize = 4096;

/// What to measure.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) runs: u32,
    pub(crate) program: PathBuf,
    pub(crate) parent_mib: usize,
}

/// Times of one kind, in microseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Times {
    runs: usize,
    median_us: f64,
    p99_us: f64,
    /// Of the medians, to that of the plain start in the same run.
    ratio: f64,
}

/// All kinds from one parent.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Half {
    parent_mib: usize,
    posix_spawn: Times,
    orien: Times,
    #[serde(skip_serializing_if = "Option::is_none")]
    bubblewrap: Option<Times>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    level: String,
    program: PathBuf,
    /// Ours to a plain posix_spawn, medians, from a small parent.
    ratio: f64,
    small_parent: Half,
    #[serde(skip_serializing_if = "Option::is_none")]
    large_parent: Option<Half>,
    session_open: Times,
    session_close: Times,
    /// From the order to kill a tree of 32 processes that ignore polite signals, to the report that nothing of it is left.
    kill_tree: Times,
}

/// Measures, then prints.
pub(crate) async fn sandbox(plan: Plan, json: bool) -> anyhow::Result<()> {
    let directory = tempfile::tempdir().context("cannot make a temporary directory")?;
    let sandbox = Sandbox::open(SandboxConfig::new(directory.path().join("workspaces"))).await.context("cannot confine tools here")?;
    let bench = Bench { plan, sandbox, bubblewrap: find("bwrap") };
    // As a node does it: from a task, not from the thread that waits for the runtime.
    let outcome = tokio::spawn(async move { bench.measure().await }).await.context("the bench was interrupted")??;
    if json {
        return output::json(&outcome);
    }
    output::line(format!("{} at level {}; microseconds, and times the plain start's median", outcome.program.display(), outcome.level));
    print_half(&outcome.small_parent);
    if let Some(half) = &outcome.large_parent {
        print_half(half);
    }
    if outcome.small_parent.bubblewrap.is_none() {
        output::line("bubblewrap is not installed, so it is not in the table");
    }
    output::line(row("session open", &outcome.session_open));
    output::line(row("session close", &outcome.session_close));
    output::line(row("kill 32", &outcome.kill_tree));
    Ok(())
}

fn print_half(half: &Half) {
    output::line(match half.parent_mib {
        0 => "from a small process:".to_owned(),
        size => format!("from a process that holds {size} MiB:"),
    });
    output::line(row("posix_spawn", &half.posix_spawn));
    output::line(row("orien", &half.orien));
    if let Some(times) = &half.bubblewrap {
        output::line(row("bubblewrap", times));
    }
}

fn row(name: &str, times: &Times) -> String {
    format!("  {name:<14} median {:>9.0}   p99 {:>9.0}   x {:.2}", times.median_us, times.p99_us, times.ratio)
}

struct Bench {
    plan: Plan,
    sandbox: Sandbox,
    bubblewrap: Option<PathBuf>,
}

impl Bench {
    async fn measure(&self) -> anyhow::Result<Outcome> {
        let small_parent = self.half(0).await?;
        let large_parent = match self.plan.parent_mib {
            0 => None,
            mib => {
                let ballast = ballast(mib);
                let half = self.half(mib).await?;
                drop(std::hint::black_box(ballast));
                Some(half)
            }
        };
        let (mut opens, mut closes) = (Vec::new(), Vec::new());
        for number in 0..SESSIONS {
            let before = Instant::now();
            let session = self.sandbox.session(&format!("bench-{number}"), SessionSpec::default()).await?;
            opens.push(before.elapsed());
            let before = Instant::now();
            session.close().await?;
            closes.push(before.elapsed());
        }
        let mut kills = Vec::new();
        for _ in 0..KILLS {
            kills.push(self.kill_tree().await?);
        }
        let floor = small_parent.posix_spawn.median_us;
        Ok(Outcome {
            level: self.sandbox.level().to_string(),
            program: self.plan.program.clone(),
            ratio: small_parent.orien.ratio,
            small_parent,
            large_parent,
            session_open: times(opens, floor),
            session_close: times(closes, floor),
            kill_tree: times(kills, floor),
        })
    }

    async fn half(&self, parent_mib: usize) -> anyhow::Result<Half> {
        let session = self.sandbox.session("bench", SessionSpec::default()).await?;
        let (mut plain, mut ours, mut bubblewrap) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..WARM_UP {
            self.plain(None)?;
            self.ours(&session).await?;
        }
        let kinds = if self.bubblewrap.is_some() { 3 } else { 2 };
        let blocks = self.plan.runs.div_ceil(BLOCK);
        for turn in 0..blocks {
            let runs = BLOCK.min(self.plan.runs - turn * BLOCK);
            // Each kind comes after each other one equally often, so none pays alone for what the one before it left to the kernel.
            for place in 0..kinds {
                for _ in 0..runs {
                    match (turn + place) % kinds {
                        0 => plain.push(self.plain(None)?),
                        1 => ours.push(self.ours(&session).await?),
                        _ => bubblewrap.push(self.plain(self.bubblewrap.as_deref())?),
                    }
                }
            }
        }
        session.close().await?;
        let floor = median(&mut plain);
        let bubblewrap = (!bubblewrap.is_empty()).then(|| times(bubblewrap, floor));
        Ok(Half { parent_mib, posix_spawn: times(plain, floor), orien: times(ours, floor), bubblewrap })
    }

    /// The standard library starts it by `posix_spawn`; with bubblewrap, that is what is started.
    fn plain(&self, bubblewrap: Option<&Path>) -> anyhow::Result<Duration> {
        let mut command = std::process::Command::new(bubblewrap.unwrap_or(&self.plan.program));
        if bubblewrap.is_some() {
            command.args(["--unshare-all", "--ro-bind", "/usr", "/usr", "--symlink", "usr/bin", "/bin", "--symlink", "usr/lib", "/lib"]);
            command
                .args(["--symlink", "usr/lib64", "/lib64", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"])
                .arg(&self.plan.program);
        }
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let before = Instant::now();
        let status = command.status().with_context(|| format!("cannot start {}", self.plan.program.display()))?;
        let took = before.elapsed();
        if !status.success() {
            bail!("{} ended with {status}", bubblewrap.unwrap_or(&self.plan.program).display());
        }
        Ok(took)
    }

    async fn kill_tree(&self) -> anyhow::Result<Duration> {
        let session = self.sandbox.session("bench-kill", SessionSpec::default()).await?;
        let args = vec!["-c".to_owned(), STUBBORN.to_owned()];
        let spec = RunSpec { program: "/bin/sh".into(), args, env: Vec::new(), limits: RunLimits::default(), profile: 0, input: false };
        let mut execution = session.start(spec).await?;
        let mut output = execution.output().context("a run has output")?;
        output.recv().await.context("the tree was not built")?;
        let before = Instant::now();
        execution.kill("measured").await;
        drop(output);
        let report = execution.wait().await;
        let took = before.elapsed();
        session.close().await?;
        if report.survivors > 0 {
            bail!("{} processes survived", report.survivors);
        }
        Ok(took)
    }

    async fn ours(&self, session: &SessionSandbox) -> anyhow::Result<Duration> {
        let spec = RunSpec {
            program: self.plan.program.clone(),
            args: Vec::new(),
            env: Vec::new(),
            limits: RunLimits::default(),
            profile: 0,
            input: false,
        };
        let before = Instant::now();
        let report = session.start(spec).await?.wait().await;
        let took = before.elapsed();
        if report.cause != Cause::Exited(0) {
            bail!("the confined program ended with {:?}", report.cause);
        }
        Ok(took)
    }
}

/// Not a tool: what an unfriendly one leaves to be killed.
const STUBBORN: &str = "trap '' TERM INT HUP; n=1; while [ $n -lt 32 ]; do sleep 1000 & n=$((n+1)); done; echo ready; wait";

fn ballast(mib: usize) -> Vec<u8> {
    let mut memory = vec![0u8; mib << 20];
    for byte in memory.iter_mut().step_by(PAGE) {
        *byte = 1;
    }
    memory
}

fn times(mut samples: Vec<Duration>, floor: f64) -> Times {
    let median_us = median(&mut samples);
    Times {
        runs: samples.len(),
        median_us: round(median_us, 1),
        p99_us: round(micros(percentile(&samples, 99)), 1),
        ratio: round(median_us / floor, 3),
    }
}
