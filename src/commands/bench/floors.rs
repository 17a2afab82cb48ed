//! What cannot be faster here: starting a program at all, starting it confined, asking a peer one thing, and `ssh`.
//!
//! Always true: each floor is measured before and after what it is compared with, half of its samples each time, because a machine is not the same all the time.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use orien_net::{Net, NetConfig, NetEvent, NetLimits, Role};
use orien_protocol::peer::PeerId;
use orien_sandbox::{Cause, RunLimits, RunSpec, Sandbox, SandboxConfig, SessionSandbox, SessionSpec};
use serde::Serialize;
use tempfile::TempDir;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::figures::Spread;
use super::ssh::Ssh;

/// Before anything counts.
const WARM_UP: usize = 10;
/// A question of a peer that is as small as most are.
const QUESTION_BYTES: usize = 64;
/// Our own two peers' network; nobody else is in it.
const NETWORK: &str = "bench-floor";

/// Every floor, as far as it could be measured.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Floors {
    pub(super) fork_exec: Spread,
    /// So many a second, one after the other on each processor.
    pub(super) fork_exec_per_second: f64,
    pub(super) sandbox_spawn: Spread,
    pub(super) round_trip: Spread,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ssh: Option<Spread>,
    /// Why there is no figure for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ssh_missing: Option<String>,
}

/// What floors are measured with.
pub(super) struct Bench {
    program: PathBuf,
    session: SessionSandbox,
    pair: Pair,
    ssh: Result<Ssh, String>,
    forks: Vec<Duration>,
    forks_per_second: Vec<f64>,
    spawns: Vec<Duration>,
    trips: Vec<Duration>,
    shells: Vec<Duration>,
    /// Outlives the sandbox in it.
    _folder: TempDir,
}

impl Bench {
    pub(super) async fn start(program: &Path) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("no temporary directory")?;
        let sandbox = Sandbox::open(SandboxConfig::new(folder.path().join("workspaces"))).await.context("cannot confine tools here")?;
        let session = sandbox.session("floor", SessionSpec::default()).await?;
        let mut bench = Self {
            program: program.to_owned(),
            session,
            pair: Pair::start().await?,
            ssh: Ssh::start().map_err(|error| format!("{error:#}")),
            forks: Vec::new(),
            forks_per_second: Vec::new(),
            spawns: Vec::new(),
            trips: Vec::new(),
            shells: Vec::new(),
            _folder: folder,
        };
        bench.half(WARM_UP).await?;
        for samples in [&mut bench.forks, &mut bench.spawns, &mut bench.trips, &mut bench.shells] {
            samples.clear();
        }
        bench.forks_per_second.clear();
        Ok(bench)
    }

    /// So many samples of each.
    pub(super) async fn half(&mut self, runs: usize) -> anyhow::Result<()> {
        for _ in 0..runs {
            self.spawns.push(confined(&self.session, &self.program).await?);
            self.trips.push(self.pair.ask().await?);
        }
        for _ in 0..runs {
            self.forks.push(plain(&self.program)?);
        }
        self.forks_per_second.push(rate(&self.program, runs)?);
        if let Ok(ssh) = &self.ssh {
            for _ in 0..runs {
                self.shells.push(ssh.run(&self.program)?);
            }
        }
        Ok(())
    }

    pub(super) async fn finish(self) -> anyhow::Result<Floors> {
        self.session.close().await?;
        self.pair.stop().await;
        let rates = self.forks_per_second.len().max(1);
        Ok(Floors {
            fork_exec: Spread::of(self.forks),
            fork_exec_per_second: super::figures::round(self.forks_per_second.iter().sum::<f64>() / rates as f64, 0),
            sandbox_spawn: Spread::of(self.spawns),
            round_trip: Spread::of(self.trips),
            ssh: (!self.shells.is_empty()).then(|| Spread::of(self.shells)),
            ssh_missing: self.ssh.err(),
        })
    }
}

/// One start in the sandbox, as a node does it, until nothing of it is left.
async fn confined(session: &SessionSandbox, program: &Path) -> anyhow::Result<Duration> {
    let spec =
        RunSpec { program: program.to_owned(), args: Vec::new(), env: Vec::new(), limits: RunLimits::default(), profile: 0, input: false };
    let before = Instant::now();
    let report = session.start(spec).await?.wait().await;
    let took = before.elapsed();
    ensure!(report.cause == Cause::Exited(0), "{} ended confined with {:?}", program.display(), report.cause);
    Ok(took)
}

/// One start of the plain kind.
fn plain(program: &Path) -> anyhow::Result<Duration> {
    let before = Instant::now();
    let status = std::process::Command::new(program).status().with_context(|| format!("cannot start {}", program.display()))?;
    let took = before.elapsed();
    ensure!(status.success(), "{} ended with {status}", program.display());
    Ok(took)
}

/// Starts a second, with every processor starting.
fn rate(program: &Path, runs: usize) -> anyhow::Result<f64> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let before = Instant::now();
    std::thread::scope(|scope| -> anyhow::Result<()> {
        let starting = || (0..runs).try_for_each(|_| plain(program).map(drop));
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(starting)).collect();
        all.into_iter().try_for_each(|one| one.join().unwrap_or_else(|_| anyhow::bail!("a thread panicked")))
    })?;
    Ok((runs * threads) as f64 / before.elapsed().as_secs_f64())
}

/// Two peers of this process, connected over loopback.
struct Pair {
    asker: Net,
    answerer: PeerId,
    stop: CancellationToken,
    tasks: Vec<JoinHandle<()>>,
}

impl Pair {
    async fn start() -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let (answering, mut events, answerer_task) = orien_net::start(config(1, Role::Server)?, stop.clone())?;
        let (asker, mut unused, asker_task) = orien_net::start(config(2, Role::Client)?, stop.clone())?;
        let addresses = answering.listen_addresses().await?;
        let answerer = answering.local_peer();
        let answers = tokio::spawn(async move {
            while let Some(event) = events.next().await {
                if let NetEvent::Call { request, reply, .. } = event {
                    // Whoever asked may be gone.
                    let _ = reply.send(request).await;
                }
            }
        });
        let idle = tokio::spawn(async move { while unused.next().await.is_some() {} });
        let ends = [answerer_task, asker_task].map(|task| {
            tokio::spawn(async move {
                // Stopped or broken: the next question tells.
                let _ = task.await;
            })
        });
        asker.connect(answerer, &addresses).await?;
        Ok(Self { asker, answerer, stop, tasks: [answers, idle].into_iter().chain(ends).collect() })
    }

    async fn ask(&self) -> anyhow::Result<Duration> {
        let before = Instant::now();
        self.asker.call(self.answerer, vec![0; QUESTION_BYTES]).await?;
        Ok(before.elapsed())
    }

    async fn stop(self) {
        self.stop.cancel();
        for task in self.tasks {
            // A task that panicked has ended too.
            let _ = task.await;
        }
    }
}

/// A peer that listens on loopback, by TCP only.
pub(super) fn config(seed: u8, role: Role) -> anyhow::Result<NetConfig> {
    Ok(NetConfig {
        network: NETWORK.parse()?,
        seed: [seed; 32],
        role,
        listen: vec!["/ip4/127.0.0.1/tcp/0".to_owned()],
        external: Vec::new(),
        bootstrap: Vec::new(),
        limits: NetLimits::default(),
    })
}
