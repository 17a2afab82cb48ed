//! `orien bench runs`: what an agent waits for, through the gateway's HTTP, beside the floors of the same run.
//!
//! Always true: it works on a network of its own and asks as an agent would, over kept connections, each request answered when there is something to say; a run counts only if its tool exited with code 0;
//! nothing is left out of the figures because it was slow.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use serde::Serialize;
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::caller::{Caller, Place};
use super::figures::{Spread, round};
use super::floors::{self, Floors};
use super::network::{self, Network, RUNS_PER_SESSION, TOOL, Used};
use crate::client::fresh_key;
use crate::output;

/// More than any run or opening of these can cost.
const BUDGET: &str = "5";
/// Longest wait for one run: beyond it something is broken.
const WAIT_SECONDS: u64 = 60;
/// Longest wait for the provider to be found.
const FOUND_LIMIT: Duration = Duration::from_secs(20);
/// Runs before those that count.
const WARM_UP: u32 = 20;
/// Runs in one session: less than the most that it may have.
const RUNS_IN_SESSION: usize = 9_000;
/// Kinds of failure that are shown.
const REASONS_SHOWN: usize = 5;

/// What to measure.
#[derive(Debug)]
pub(crate) struct RunsPlan {
    /// At each number of callers.
    pub(crate) runs: u32,
    /// Callers at once, one measurement after the other.
    pub(crate) concurrency: Vec<u16>,
    /// Sessions opened and ended.
    pub(crate) openings: u32,
    /// Samples of each floor.
    pub(crate) floor_runs: u32,
    pub(crate) program: PathBuf,
}

/// Many runs at one number of callers.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Level {
    concurrency: u16,
    sessions: usize,
    runs: usize,
    succeeded: usize,
    success_percent: f64,
    runs_per_second: f64,
    /// From the request to its answer, which comes when the run is over; of those that succeeded.
    run: Spread,
    /// Of the four roles together, in one process.
    network: Used,
    /// Of the callers.
    callers: Used,
    /// Of everything on this machine: with the above, what confinement and the tools took, and what does not belong here.
    machine_cpu_seconds: f64,
    /// Why runs failed, and how many for each reason.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    failures: BTreeMap<String, usize>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    program: PathBuf,
    runs_per_session: usize,
    floors: Floors,
    session_open: Spread,
    session_end: Spread,
    levels: Vec<Level>,
    /// The median run of one caller, to a confined start and a question to a peer together.
    #[serde(skip_serializing_if = "Option::is_none")]
    ratio: Option<f64>,
}

/// Measures, then prints; whether every run succeeded.
pub(crate) async fn runs(plan: RunsPlan, json: bool) -> anyhow::Result<bool> {
    // From a task, not from the thread that waits for the runtime.
    let outcome = tokio::spawn(measure(plan)).await.context("the bench was interrupted")??;
    if json {
        output::json(&outcome)?;
    } else {
        print(&outcome);
    }
    Ok(outcome.levels.iter().all(|level| level.succeeded == level.runs))
}

async fn measure(plan: RunsPlan) -> anyhow::Result<Outcome> {
    output::note("- floors, before");
    let mut floors = floors::Bench::start(&plan.program).await?;
    let half = usize::try_from(plan.floor_runs.div_ceil(2))?;
    floors.half(half).await?;
    output::note("- starting settlement, bootstrap, node and gateway on loopback");
    let program = plan.program.clone();
    let network = tokio::task::spawn_blocking(move || Network::start(&program)).await??;
    let measured = through(&network, &plan).await.with_context(|| format!("the network said: {}", network.log()));
    let stopped = tokio::task::spawn_blocking(move || network.stop()).await?;
    let (session_open, session_end, levels) = measured?;
    stopped?;
    output::note("- floors, after");
    floors.half(half).await?;
    let floors = floors.finish().await?;
    let floor = floors.sandbox_spawn.p50_ms + floors.round_trip.p50_ms;
    let alone = levels.iter().find(|level| level.concurrency == 1);
    let ratio = alone.map(|level| round(level.run.p50_ms / floor, 2));
    Ok(Outcome { program: plan.program, runs_per_session: RUNS_PER_SESSION, floors, session_open, session_end, levels, ratio })
}

async fn through(network: &Network, plan: &RunsPlan) -> anyhow::Result<(Spread, Spread, Vec<Level>)> {
    let gateway = network.gateway()?;
    let mut caller = gateway.call().await?;
    until_found(&mut caller).await?;
    output::note("- opening and ending sessions");
    let (mut opens, mut ends) = (Vec::new(), Vec::new());
    for _ in 0..plan.openings {
        let before = Instant::now();
        let session = open(&mut caller).await?;
        opens.push(before.elapsed());
        let before = Instant::now();
        end(&mut caller, &session).await?;
        ends.push(before.elapsed());
    }
    let mut levels = Vec::new();
    for &concurrency in &plan.concurrency {
        output::note(format!("- {} runs, {concurrency} at once", plan.runs));
        levels.push(level(network, &gateway, &mut caller, concurrency, usize::try_from(plan.runs)?).await?);
    }
    Ok((Spread::of(opens), Spread::of(ends), levels))
}

pub(super) async fn until_found(caller: &mut Caller) -> anyhow::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < FOUND_LIMIT {
        let found = caller.get(&format!("/api/providers?tool={TOOL}")).await?.good()?;
        if found["providers"].as_array().is_some_and(|providers| !providers.is_empty()) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    bail!("the provider was not found")
}

pub(super) async fn open(caller: &mut Caller) -> anyhow::Result<String> {
    let order = json!({ "providerId": "auto", "tools": [TOOL], "budgetAllowance": BUDGET });
    let session = caller.post("/api/sessions", &order, &fresh_key()?).await?.good().context("a session did not open")?;
    session["id"].as_str().map(str::to_owned).context("the session has no id")
}

pub(super) async fn end(caller: &mut Caller, session: &str) -> anyhow::Result<()> {
    let ended = caller.post(&format!("/api/sessions/{session}/end"), &json!({}), &fresh_key()?).await?.good()?;
    ensure!(ended["status"] == "completed", "a session did not complete: {ended}");
    Ok(())
}

/// What one caller saw.
#[derive(Default)]
struct Seen {
    took: Vec<Duration>,
    failures: BTreeMap<String, usize>,
}

async fn level(network: &Network, gateway: &Place, caller: &mut Caller, concurrency: u16, runs: usize) -> anyhow::Result<Level> {
    let callers = usize::from(concurrency);
    let mut sessions = Vec::new();
    for _ in 0..callers.div_ceil(RUNS_PER_SESSION).max(runs.div_ceil(RUNS_IN_SESSION)) {
        sessions.push(open(caller).await?);
    }
    let (mut connections, mut first) = (Vec::new(), Seen::default());
    for _ in 0..callers {
        connections.push(gateway.call().await?);
    }
    for number in 0..WARM_UP.min(u32::try_from(runs)?) {
        let session = sessions.get(usize::try_from(number)? % sessions.len()).context("no session")?;
        run(caller, session, &mut first).await;
    }
    let (network_before, callers_before, machine_before) = (network.used(), network::used_here(), network::machine_busy());
    let begun = Instant::now();
    let mut working = JoinSet::new();
    for (number, connection) in connections.into_iter().enumerate() {
        // The first ones take what does not divide evenly.
        let share = runs / callers + usize::from(number < runs % callers);
        working.spawn(work(connection, sessions.get(number % sessions.len()).cloned().unwrap_or_default(), share));
    }
    let (mut took, mut failures) = (Vec::new(), BTreeMap::new());
    while let Some(seen) = working.join_next().await {
        let seen = seen.context("a caller broke off")?;
        took.extend(seen.took);
        for (reason, count) in seen.failures {
            *failures.entry(reason).or_default() += count;
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    let since =
        |now: Used, before: Used| Used { cpu_seconds: round(now.cpu_seconds - before.cpu_seconds, 2), peak_mib: round(now.peak_mib, 1) };
    let level = Level {
        concurrency,
        sessions: sessions.len(),
        runs,
        succeeded: took.len(),
        success_percent: round(took.len() as f64 * 100.0 / runs.max(1) as f64, 2),
        runs_per_second: round(took.len() as f64 / seconds, 1),
        run: Spread::of(took),
        network: since(network.used(), network_before),
        callers: since(network::used_here(), callers_before),
        machine_cpu_seconds: round(network::machine_busy() - machine_before, 2),
        failures,
    };
    for session in sessions {
        end(caller, &session).await?;
    }
    Ok(level)
}

async fn work(mut caller: Caller, session: String, runs: usize) -> Seen {
    let mut seen = Seen::default();
    for _ in 0..runs {
        run(&mut caller, &session, &mut seen).await;
    }
    seen
}

/// One run from the request to the answer that it is over.
async fn run(caller: &mut Caller, session: &str, seen: &mut Seen) {
    let before = Instant::now();
    let why = match attempt(caller, session).await {
        Ok(body) if body["status"] == "completed" && body["exitCode"] == 0 => return seen.took.push(before.elapsed()),
        Ok(body) => format!("ended as {} with exit code {}", body["status"], body["exitCode"]),
        Err(error) => format!("{error:#}"),
    };
    *seen.failures.entry(why).or_default() += 1;
}

async fn attempt(caller: &mut Caller, session: &str) -> anyhow::Result<Value> {
    let order = json!({ "sessionId": session, "toolId": TOOL, "args": {}, "wait": WAIT_SECONDS });
    caller.post("/tools/run", &order, &fresh_key()?).await?.good()
}

fn print(outcome: &Outcome) {
    let spread = |name: &str, spread: &Spread| {
        format!("  {name:<26} p50 {:>9.3}   p95 {:>9.3}   p99 {:>9.3}   n {}", spread.p50_ms, spread.p95_ms, spread.p99_ms, spread.samples)
    };
    let floors = &outcome.floors;
    output::line(format!("{}; milliseconds; all four roles in one process on loopback", outcome.program.display()));
    output::line("floors:");
    output::line(format!("{}   ({:.0} a second)", spread("fork and exec", &floors.fork_exec), floors.fork_exec_per_second));
    output::line(spread("sandbox spawn", &floors.sandbox_spawn));
    output::line(spread("libp2p question", &floors.round_trip));
    match (&floors.ssh, &floors.ssh_missing) {
        (Some(ssh), _) => output::line(spread("ssh, kept connection", ssh)),
        (None, why) => output::line(format!("  ssh, kept connection       NOT MEASURED: {}", why.as_deref().unwrap_or("no samples"))),
    }
    output::line("through the gateway's HTTP:");
    output::line(spread("session open", &outcome.session_open));
    output::line(spread("session end", &outcome.session_end));
    for level in &outcome.levels {
        output::line(spread(&format!("run, {} at once", level.concurrency), &level.run));
        output::line(format!(
            "    {} of {} succeeded ({} %), {} a second, in {} sessions of at most {} runs at once",
            level.succeeded, level.runs, level.success_percent, level.runs_per_second, level.sessions, outcome.runs_per_session
        ));
        output::line(format!(
            "    CPU seconds: network {}, callers {}, whole machine {}; peak MiB: network {}, callers {}",
            level.network.cpu_seconds, level.callers.cpu_seconds, level.machine_cpu_seconds, level.network.peak_mib, level.callers.peak_mib
        ));
        for (why, count) in level.failures.iter().take(REASONS_SHOWN) {
            output::line(format!("    FAILED {count}: {why}"));
        }
    }
    if let Some(ratio) = outcome.ratio {
        output::line(format!("a run of one caller takes {ratio} times a sandbox spawn and a libp2p question together"));
    }
}
