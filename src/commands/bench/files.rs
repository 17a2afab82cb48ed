//! `orien bench files`: how fast files go in and out of a session through the gateway's HTTP, beside the floors of the same run.
//!
//! Always true: it works on a network of its own; a transfer counts only if the bytes that arrived have the hash of those that were sent; floors are measured before and after, and each figure is the
//! mean of its rounds; how much memory the processes need is counted from the beginning of the transfers.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, ensure};
use serde::Serialize;
use tempfile::TempDir;

use super::caller::Caller;
use super::figures::round;
use super::moving::Mover;
use super::network::{self, Network};
use super::pipes::{self, Peers};
use super::runs::{end, open, until_found};
use super::ssh::Ssh;
use crate::output;

/// A file system in memory, where there is one: what is measured is moving, not a disk.
const IN_MEMORY: &str = "/dev/shm";
/// Content of each small file.
const SMALL_BYTES: usize = 1024;
/// What everything in an archive is rounded up to.
const TAR_BLOCK: usize = 512;
/// Small files in one folder of the tree.
const PER_FOLDER: u32 = 100;

/// What to measure.
#[derive(Debug)]
pub(crate) struct FilesPlan {
    /// The large file.
    pub(crate) mib: u64,
    /// Times that it goes up and down.
    pub(crate) rounds: u32,
    /// Files of the tree.
    pub(crate) small_files: u32,
}

/// MiB a second, each way.
#[derive(Clone, Copy, Debug, Default, Serialize)]
struct Rates {
    up: f64,
    down: f64,
}

impl Rates {
    fn of(bytes: u64, took: &[(Duration, Duration)]) -> Self {
        let rate = |seconds: f64| round(bytes as f64 * took.len() as f64 / seconds / f64::from(1 << 20), 1);
        let sum = |way: fn(&(Duration, Duration)) -> Duration| took.iter().map(|both| way(both).as_secs_f64()).sum();
        Self { up: rate(sum(|both| both.0)), down: rate(sum(|both| both.1)) }
    }

    fn per(self, floor: Self) -> Self {
        Self { up: round(self.up / floor.up, 3), down: round(self.down / floor.down, 3) }
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Tree {
    files: u32,
    up_seconds: f64,
    down_seconds: f64,
    up_files_per_second: f64,
    down_files_per_second: f64,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Outcome {
    mib: u64,
    rounds: u32,
    /// MiB a second.
    raw_tcp: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    scp: Option<Rates>,
    /// Why there is no figure for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    scp_missing: Option<String>,
    libp2p_stream: Rates,
    through_the_gateway: Rates,
    to_libp2p_stream: Rates,
    #[serde(skip_serializing_if = "Option::is_none")]
    to_scp: Option<Rates>,
    /// Of the four roles together, in one process; MiB.
    network_growth_mib: f64,
    /// Of the process that calls.
    caller_growth_mib: f64,
    /// Processor seconds of the four roles for all rounds.
    network_cpu_seconds: f64,
    tree: Tree,
}

/// Measures, then prints.
pub(crate) async fn files(plan: FilesPlan, json: bool) -> anyhow::Result<()> {
    // From a task, not from the thread that waits for the runtime.
    let outcome = tokio::spawn(measure(plan)).await.context("the bench was interrupted")??;
    if json {
        output::json(&outcome)?;
    } else {
        print(&outcome);
    }
    Ok(())
}

/// The large file, and what it is.
struct Source {
    folder: TempDir,
    file: PathBuf,
    bytes: u64,
    hash: String,
}

impl Source {
    fn make(mib: u64) -> anyhow::Result<Self> {
        let place = if Path::new(IN_MEMORY).is_dir() { PathBuf::from(IN_MEMORY) } else { std::env::temp_dir() };
        let folder = tempfile::Builder::new().prefix("orien-files-").tempdir_in(place).context("no temporary directory")?;
        let file = folder.path().join("large");
        let mut out = BufWriter::with_capacity(1 << 20, std::fs::File::create(&file)?);
        // No two pieces are alike, and nothing of it can be made smaller.
        let (mut stream, mut piece, mut hasher) = (blake3::Hasher::new().finalize_xof(), vec![0; 1 << 20], blake3::Hasher::new());
        for _ in 0..mib {
            stream.fill(&mut piece);
            hasher.update(&piece);
            out.write_all(&piece)?;
        }
        out.into_inner().context("the file cannot be written")?;
        Ok(Self { folder, file, bytes: mib << 20, hash: format!("blake3:{}", hasher.finalize().to_hex()) })
    }

    fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }
}

/// Times of every floor.
#[derive(Default)]
struct Floors {
    tcp: Vec<(Duration, Duration)>,
    scp: Vec<(Duration, Duration)>,
    stream: Vec<(Duration, Duration)>,
}

impl Floors {
    async fn round(&mut self, source: &Source, ssh: Option<&Ssh>) -> anyhow::Result<()> {
        let bytes = source.bytes;
        let tcp = tokio::task::spawn_blocking(move || pipes::tcp(bytes)).await??;
        self.tcp.push((tcp, tcp));
        if let Some(ssh) = ssh {
            self.scp.push(tokio::task::block_in_place(|| pipes::scp(ssh, &source.file, bytes))?);
        }
        let peers = Peers::start().await?;
        self.stream.push(peers.stream(bytes).await?);
        peers.stop().await;
        Ok(())
    }
}

async fn measure(plan: FilesPlan) -> anyhow::Result<Outcome> {
    let source = tokio::task::spawn_blocking(move || Source::make(plan.mib)).await??;
    let ssh = tokio::task::spawn_blocking(Ssh::start).await?.map_err(|error| format!("{error:#}"));
    let mut floors = Floors::default();
    output::note("- floors, before: TCP, scp, a stream between two peers");
    floors.round(&source, ssh.as_ref().ok()).await?;
    output::note("- starting settlement, bootstrap, node and gateway on loopback");
    let network = tokio::task::spawn_blocking(|| Network::start(Path::new("/bin/true"))).await??;
    let measured = through(&network, &plan, &source).await.with_context(|| format!("the network said: {}", network.log()));
    let stopped = tokio::task::spawn_blocking(move || network.stop()).await?;
    let through = measured?;
    stopped?;
    output::note("- floors, after");
    floors.round(&source, ssh.as_ref().ok()).await?;

    let rates = |took: &[(Duration, Duration)]| Rates::of(source.bytes, took);
    let (stream, ours) = (rates(&floors.stream), rates(&through.took));
    let scp = (!floors.scp.is_empty()).then(|| rates(&floors.scp));
    Ok(Outcome {
        mib: plan.mib,
        rounds: plan.rounds,
        raw_tcp: rates(&floors.tcp).up,
        scp,
        scp_missing: ssh.err(),
        libp2p_stream: stream,
        through_the_gateway: ours,
        to_libp2p_stream: ours.per(stream),
        to_scp: scp.map(|scp| ours.per(scp)),
        network_growth_mib: round(through.network_growth, 1),
        caller_growth_mib: round(through.caller_growth, 1),
        network_cpu_seconds: round(through.cpu, 2),
        tree: through.tree,
    })
}

/// What was seen through the gateway.
struct Through {
    took: Vec<(Duration, Duration)>,
    network_growth: f64,
    caller_growth: f64,
    cpu: f64,
    tree: Tree,
}

async fn through(network: &Network, plan: &FilesPlan, source: &Source) -> anyhow::Result<Through> {
    let gateway = network.gateway()?;
    let mut caller: Caller = gateway.call().await?;
    until_found(&mut caller).await?;
    let session = open(&mut caller).await?;
    let mover = gateway.mover();
    let path = format!("/api/sessions/{session}/files/large");
    let (network_before, here_before, used_before) = (network.settle(), network::settle_here(), network.used());
    let mut took = Vec::new();
    for round in 1..=plan.rounds {
        output::note(format!("- {} MiB up and down, {round} of {}", plan.mib, plan.rounds));
        took.push(tokio::task::block_in_place(|| once(&mover, &path, source))?);
    }
    let (network_after, here_after, used_after) = (network.used(), network::used_here(), network.used());
    output::note(format!("- a tree of {} small files up and down", plan.small_files));
    let tree = tokio::task::block_in_place(|| tree(&mover, &session, plan.small_files, source))?;
    // The door may have closed a connection that was quiet for as long as that took.
    end(&mut gateway.call().await?, &session).await?;
    Ok(Through {
        took,
        network_growth: network_after.peak_mib - network_before,
        caller_growth: here_after.peak_mib - here_before,
        cpu: used_after.cpu_seconds - used_before.cpu_seconds,
        tree,
    })
}

fn once(mover: &Mover, path: &str, source: &Source) -> anyhow::Result<(Duration, Duration)> {
    let (up, stored) = mover.put(path, &source.file)?;
    ensure!(stored["hash"] == source.hash.as_str(), "other bytes were stored than were sent: {stored}");
    let back = source.beside("back");
    let (down, bytes) = mover.get(path, &back)?;
    ensure!(bytes == source.bytes, "{bytes} of {} bytes came back", source.bytes);
    let mut hasher = blake3::Hasher::new();
    hasher.update_reader(std::fs::File::open(&back)?)?;
    ensure!(format!("blake3:{}", hasher.finalize().to_hex()) == source.hash, "other bytes came back than were sent");
    std::fs::remove_file(back)?;
    Ok((up, down))
}

fn tree(mover: &Mover, session: &str, files: u32, source: &Source) -> anyhow::Result<Tree> {
    let archive = source.beside("tree.tar");
    std::fs::write(&archive, small_files(files)?)?;
    let path = format!("/api/sessions/{session}/archive?path=tree");
    let (up, stored) = mover.put(&path, &archive)?;
    ensure!(stored["files"] == files, "not every small file was stored: {stored}");
    let (down, bytes) = mover.get(&path, &archive)?;
    let least = u64::from(files) * (SMALL_BYTES + TAR_BLOCK) as u64;
    ensure!(bytes >= least, "{bytes} bytes of the tree came back, and it has {least} at least");
    let rate = |took: Duration| round(f64::from(files) / took.as_secs_f64(), 0);
    Ok(Tree {
        files,
        up_seconds: round(up.as_secs_f64(), 3),
        down_seconds: round(down.as_secs_f64(), 3),
        up_files_per_second: rate(up),
        down_files_per_second: rate(down),
    })
}

/// A tar archive of small files in folders.
fn small_files(count: u32) -> anyhow::Result<Vec<u8>> {
    let mut archive = Vec::new();
    for index in 0..count {
        let mut header = [0_u8; TAR_BLOCK];
        let mut put = |at: usize, text: &[u8]| header.iter_mut().skip(at).zip(text).for_each(|(place, byte)| *place = *byte);
        put(0, format!("{:04}/{index:06}.txt", index / PER_FOLDER).as_bytes());
        put(100, b"0000644\x000000000\x000000000\0");
        put(124, format!("{SMALL_BYTES:011o}\x0000000000000\0").as_bytes());
        put(148, b"        0");
        put(257, b"ustar\x0000");
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header.iter_mut().skip(148).zip(format!("{sum:06o}\0 ").bytes()).for_each(|(place, byte)| *place = byte);
        archive.extend_from_slice(&header);
        let content = blake3::hash(&index.to_le_bytes()).to_hex();
        archive.extend(content.bytes().cycle().take(SMALL_BYTES));
    }
    archive.resize(archive.len() + 2 * TAR_BLOCK, 0);
    Ok(archive)
}

fn print(outcome: &Outcome) {
    let both = |name: &str, rates: Rates| output::line(format!("  {name:<26} up {:>9.1}   down {:>9.1}", rates.up, rates.down));
    output::line(format!("{} MiB over loopback; MiB a second, mean of {} rounds", outcome.mib, outcome.rounds));
    output::line(format!("  {:<26}    {:>9.1}", "raw TCP", outcome.raw_tcp));
    match (outcome.scp, &outcome.scp_missing) {
        (Some(scp), _) => both("scp, aes128-gcm", scp),
        (None, why) => output::line(format!("  scp, aes128-gcm            NOT MEASURED: {}", why.as_deref().unwrap_or("no samples"))),
    }
    both("libp2p stream", outcome.libp2p_stream);
    both("through the gateway", outcome.through_the_gateway);
    let Rates { up, down } = outcome.to_libp2p_stream;
    output::line(format!("of the libp2p stream: up {:.1} %, down {:.1} %", up * 100.0, down * 100.0));
    if let Some(Rates { up, down }) = outcome.to_scp {
        output::line(format!("times scp: up {up:.2}, down {down:.2}"));
    }
    output::line(format!(
        "growth of memory: network (four roles) {:.1} MiB, caller {:.1} MiB; network CPU {:.1} s",
        outcome.network_growth_mib, outcome.caller_growth_mib, outcome.network_cpu_seconds
    ));
    let tree = &outcome.tree;
    output::line(format!(
        "tree of {} files of {SMALL_BYTES} bytes: up {:.3} s ({:.0} a second), down {:.3} s ({:.0} a second)",
        tree.files, tree.up_seconds, tree.up_files_per_second, tree.down_seconds, tree.down_files_per_second
    ));
}
