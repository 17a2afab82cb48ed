//! A storm of SIGKILLs over a real settlement process on a real local chain, at every state of its transactions: with blocks taken back, transactions dropped, blocks that
//! stay away, somebody else who redeems the same claims, and a proxy between that loses, delays, repeats and garbles.
//!
//! Every claim is redeemed exactly once, books equal chain, and no nonce is stuck. `ORIEN_KILLS=n` says how many; each process is this test program again.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use orien_bootstrap::{DoorSettings, Network, PeerConfig, RoleName, clock};
use orien_chain::anvil::FaultyRpc;
use orien_chain::{Chain, EscrowEvent, Expected, RpcUrl};
use orien_protocol::channel::ChannelId;
use orien_protocol::id::BatchId;
use orien_protocol::time::{Timestamp, UnixSeconds};
use orien_settlement::desk::{Desk, DeskError};
use orien_settlement::onchain::{Counter, Follower};
use orien_settlement::paying::CALLDATA;
use orien_settlement::{ChainConfig, Config, run};
use tokio_util::sync::CancellationToken;

use super::paying::Here;
use super::sim::Dice;
use super::site::{Session, Site, limits, open_desk, works};
use crate::kit::{micros, usdc};

const KILLS: u64 = 40;
const SESSIONS: usize = 40;
const FOLDER: &str = "ORIEN_STORM_FOLDER";
const RPC: &str = "ORIEN_STORM_RPC";
const CALLS: &str = "ORIEN_STORM_CALLS";

/// The desk of a process that kills itself before or after one of its calls.
struct Doomed {
    desk: Arc<Desk>,
    left: Arc<AtomicU64>,
}

impl Doomed {
    fn count(&self) {
        if self.left.fetch_sub(1, Ordering::Relaxed) <= 1 {
            let own = rustix::process::getpid();
            rustix::process::kill_process(own, rustix::process::Signal::KILL).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
    }
}

impl Counter for Doomed {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static) -> Result<T, DeskError> {
        self.count();
        let answer = call(&self.desk);
        self.count();
        answer
    }
}

/// One process of the storm: the whole role, or its driver until a certain call.
#[test]
#[ignore = "a process of the storm, started by it"]
fn a_process_of_the_storm() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let rpc: RpcUrl = std::env::var(RPC).unwrap().parse().unwrap();
    let calls = std::env::var(CALLS).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    if calls == 0 { runtime.block_on(whole_role(folder, rpc)) } else { runtime.block_on(doomed_driver(folder, rpc, calls)) }
}

async fn whole_role(folder: PathBuf, rpc: RpcUrl) {
    let network = Network::load(&folder.join("network.toml")).unwrap();
    let peer = PeerConfig::loopback(RoleName::Settlement, folder, network);
    let chain = ChainConfig { rpc: vec![rpc], limits: limits(), works: works(), poll: Duration::from_millis(30) };
    let door = DoorSettings::local(([127, 0, 0, 1], 0).into());
    let config = Config { peer, door, batch_interval: Duration::from_secs(1), chain };
    run(config, CancellationToken::new()).await.unwrap();
}

async fn doomed_driver(folder: PathBuf, rpc: RpcUrl, calls: u64) {
    let network = Network::load(&folder.join("network.toml")).unwrap();
    let facts = *network.chain().unwrap();
    let data = orien_bootstrap::DataDir::open(&folder, RoleName::Settlement).unwrap();
    let key = orien_bootstrap::Keys::load_or_create(&data).unwrap().money().clone();
    drop(data);
    let desk = Doomed { desk: Arc::new(open_desk(&folder)), left: Arc::new(AtomicU64::new(calls)) };
    let chain = Chain::new(facts, &[rpc], limits()).unwrap();
    let mut follower = Follower::new(chain, desk, facts, key, works());
    let expected = Expected { signer: network.settlement().signer, exit_delay: UnixSeconds(network.exit_delay().0 / 1000) };
    while follower.preflight(&expected).await.is_err() {}
    loop {
        drop(follower.step(clock::wall(), &mut || clock::random_id(BatchId::from_parts).ok()).await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

struct Storm {
    site: Site,
    proxy: FaultyRpc,
    sessions: Vec<Session>,
    dice: Dice,
    /// How often a kill found the machine in which state.
    found: BTreeMap<&'static str, u64>,
    done: BTreeMap<&'static str, u64>,
}

impl Storm {
    fn note(&mut self, what: &'static str) {
        *self.done.entry(what).or_default() += 1;
    }

    /// What happens while no process has the desk: new sessions, new claims, somebody else redeems.
    async fn business(&mut self) -> &'static str {
        let desk = self.site.desk();
        let status = desk.chain_status().unwrap();
        assert!(status.halts.is_empty(), "{:?}", status.halts);
        let stage = status.flight.as_ref().map_or("none", |flight| flight.stage.name());
        *self.found.entry(stage).or_default() += 1;
        let now = clock::wall().max(self.site.chain.now().await.unwrap().timestamp());
        if self.sessions.len() < SESSIONS && self.dice.chance(40) {
            let (agent, provider) = (self.pick(self.site.agents.len()), self.pick(self.site.providers.len()));
            self.sessions.push(self.site.open(&desk, agent, provider, usdc("5"), now));
        }
        let claims = if stage == "none" { 1 + self.dice.below(3) } else { self.dice.below(2) };
        for _ in 0..claims {
            let at = self.pick(self.sessions.len().max(1));
            self.claim(&desk, at, now);
        }
        if let Some(flight) = status.flight.filter(|_| self.dice.chance(15)) {
            // The second relayer.
            if let Some(data) = desk.raw(flight.nonce, CALLDATA).unwrap() {
                let escrow = self.site.chain.facts().escrow;
                let block = async {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    self.site.anvil().mine(1).await.unwrap();
                };
                let (sent, ()) = tokio::join!(self.site.chain.send(self.site.chain.operator(), &escrow, data), block);
                drop(sent);
                self.note("redeemed by somebody else");
            }
        }
        stage
    }

    fn claim(&mut self, desk: &Desk, at: usize, now: Timestamp) {
        let more = micros(1 + self.dice.below(90_000));
        let Some(session) = self.sessions.get_mut(at) else { return };
        let left = session.allowance.unverified().ceiling.excess_over(session.total);
        if more <= left {
            let claim = self.site.claim(session, more, false);
            desk.claim(claim, now).unwrap();
        }
    }

    fn pick(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    /// What happens to the chain while a process runs.
    async fn weather(&mut self, child: &mut Child, until: Duration) -> bool {
        let begun = std::time::Instant::now();
        while begun.elapsed() < until {
            if child.try_wait().unwrap().is_some() {
                return true;
            }
            match self.dice.below(100) {
                0..=54 => self.site.anvil().mine(1).await.unwrap(),
                55..=59 => {
                    let depth = 1 + self.dice.below(3);
                    self.site.anvil().reorganise(depth).await.unwrap();
                    self.note("blocks taken back");
                }
                60..=63 => {
                    self.site.anvil().drop_all_transactions().await.unwrap();
                    self.note("transactions dropped");
                }
                _ => {}
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
        false
    }

    /// One process, until it is killed or kills itself.
    async fn round(&mut self) {
        let stage = self.business().await;
        // Half of them die at a call of their own, half whenever it happens; a transaction that is about to be planned is what the first kind is for.
        let calls = match stage {
            "none" if self.dice.chance(70) => 8 + self.dice.below(40),
            _ if self.dice.chance(40) => 1 + self.dice.below(60),
            _ => 0,
        };
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "onchain::storm::a_process_of_the_storm", "--ignored", "--nocapture"])
            .env(FOLDER, self.site.data_dir())
            .env(RPC, self.proxy.rpc().as_str())
            .env(CALLS, calls.to_string())
            .stdout(std::process::Stdio::null())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        if self.dice.chance(20) {
            self.note("blocks stay away");
            let until = Duration::from_millis(200 + self.dice.below(600));
            tokio::time::sleep(until).await;
        }
        let until = Duration::from_millis(if calls == 0 { 300 + self.dice.below(1_200) } else { 6_000 });
        self.weather(&mut child, until).await;
        child.kill().unwrap();
        let status = child.wait().unwrap();
        let killed = std::os::unix::process::ExitStatusExt::signal(&status) == Some(9);
        assert!(killed, "a process of the storm ended by itself: {status}");
    }
}

async fn storm(kills: u64) {
    let Some(site) = Site::start(3, 4).await else { return };
    site.anvil().set_automine(false).await.unwrap();
    site.anvil().mine_every(0).await.unwrap();
    let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
    proxy.storm(7, 60);
    let (found, done) = (BTreeMap::new(), BTreeMap::new());
    let mut storm = Storm { site, proxy, sessions: Vec::new(), dice: Dice(11), found, done };
    // A desk that has never read the chain promises nothing.
    first_look(&storm.site).await;
    for _ in 0..kills {
        storm.round().await;
    }
    let Storm { site, proxy, sessions, found, done, .. } = storm;
    let faults = proxy.faults();
    proxy.calm();
    site.anvil().set_automine(true).await.unwrap();
    let chain = site.chain.chain().clone();
    let mut here = Here::over(site, chain).await;
    here.settle().await;
    here.audit(&sessions).await;
    once(&here, &sessions).await;
    let flights = here.desk.flights(None, 10_000).unwrap();
    let states: BTreeMap<&str, usize> = flights.iter().fold(BTreeMap::new(), |mut states, flight| {
        *states.entry(flight.stage.name()).or_default() += 1;
        states
    });
    let attempts: usize = flights.iter().map(|flight| flight.attempts.len()).sum();
    drop(writeln!(
        std::io::stderr(),
        "{kills} SIGKILLs, found at {found:?}; {done:?}; {faults} faults of nodes; {} transactions ({states:?}) of {attempts} signed; {} sessions",
        flights.len(),
        sessions.len(),
    ));
    assert!(
        kills < 100 || ["none", "planned", "signed", "submitted", "included"].iter().all(|stage| found.contains_key(stage)),
        "{found:?}"
    );
}

async fn first_look(site: &Site) {
    let desk = super::paying::AtDesk(Arc::new(site.desk()));
    let mut follower = site.follower(desk, site.chain.chain().clone());
    follower.step(clock::wall(), &mut || None).await.unwrap();
}

/// By the chain's own logs: what was paid of each channel is what was promised, in steps that never overlap.
async fn once(here: &Here, sessions: &[Session]) {
    let chain = here.site.chain.chain();
    let last = chain.latest_block().await.unwrap().number;
    let mut paid: BTreeMap<ChannelId, u64> = BTreeMap::new();
    for log in chain.logs(chain.facts().escrow_block, last).await.unwrap() {
        if let EscrowEvent::Redeemed { channel, paid: step, redeemed, .. } = log.event {
            let sum = paid.entry(channel).or_default();
            *sum += step.micros();
            assert_eq!(*sum, redeemed.micros());
        }
    }
    for session in sessions {
        assert_eq!(paid.get(&session.terms.channel()).copied().unwrap_or(0), session.total.micros());
    }
}

#[test]
fn every_claim_is_redeemed_once_through_kills_at_every_state() {
    let kills = std::env::var("ORIEN_KILLS").ok().and_then(|text| text.parse().ok()).unwrap_or(KILLS);
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(storm(kills));
}
