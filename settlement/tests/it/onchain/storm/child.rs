//! One process of the storm: the whole role, or its driver alone, which kills itself as near to the place it was told as a call of the desk is.

use std::io::Write;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use orien_bootstrap::{DataDir, DoorSettings, Keys, Network, PeerConfig, RoleName, clock};
use orien_chain::{Chain, RpcUrl, Wei};
use orien_protocol::id::BatchId;
use orien_protocol::time::Millis;
use orien_settlement::desk::{Desk, DeskError};
use orien_settlement::onchain::{Counter, Follower, Works};
use orien_settlement::paying::{Flight, Rules};
use orien_settlement::{ChainConfig, Config, run};
use tokio_util::sync::CancellationToken;

use super::place::{Leg, Place, Spot};
use crate::onchain::site::{limits, open_desk, works};

/// Where its data is.
pub(super) const FOLDER: &str = "ORIEN_STORM_FOLDER";
/// The node of the chain that it asks.
pub(super) const RPC: &str = "ORIEN_STORM_RPC";
/// Most that it offers per gas, in wei; the usual when it is not said.
pub(super) const FEE_CAP: &str = "ORIEN_STORM_FEE_CAP";
/// Where the driver alone kills itself; without it the whole role runs.
pub(super) const AIM: &str = "ORIEN_STORM_AIM";
/// How often it may come to or from the desk there before it does.
pub(super) const GRACE: &str = "ORIEN_STORM_GRACE";

/// What begins a line that tells where the driver is.
pub(super) const AT: &str = "storm at ";
/// The line that tells that the driver has made a step.
pub(super) const STEP: &str = "storm step";

pub(super) fn leg(flight: &Flight) -> Leg<'static> {
    let is_empty = flight.attempts.last().is_some_and(|attempt| attempt.is_no_op);
    Leg { nonce: flight.nonce, stage: flight.stage.name(), attempts: flight.attempts.len(), is_empty }
}

/// The stage in which the newest transaction ended.
pub(super) fn ended(desk: &Desk) -> Option<String> {
    Some(desk.flights(None, 1).ok()?.first()?.stage.name().to_owned())
}

/// The desk of a driver that kills itself.
struct Doomed {
    desk: Arc<Desk>,
    fate: Arc<Mutex<Fate>>,
}

struct Fate {
    aim: Place,
    /// How often it may still come to or from the desk, once it is there.
    grace: u64,
    is_there: bool,
    spot: Spot,
}

impl Doomed {
    /// Before and after each call.
    fn pass(&self) {
        let mut fate = self.fate.lock().unwrap();
        let flight = self.desk.standing().unwrap().flight;
        let spot = fate.spot.moved(flight.as_ref().map(leg).as_ref(), || ended(&self.desk));
        if spot != fate.spot {
            fate.spot = spot;
            say(&format!("{AT}{} {}", spot.nonce.map_or_else(String::new, |nonce| nonce.to_string()), spot.place.name()));
        }
        let was_there = fate.is_there;
        fate.is_there |= spot.place == fate.aim;
        // Whoever is about to leave the place dies on its doorstep.
        let leaves = was_there && spot.place != fate.aim;
        if fate.is_there && (fate.grace == 0 || leaves) {
            rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL).unwrap();
            std::thread::sleep(Duration::from_secs(60));
        }
        fate.grace -= u64::from(fate.is_there);
    }
}

impl Counter for Doomed {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static) -> Result<T, DeskError> {
        self.pass();
        let answer = call(&self.desk);
        self.pass();
        answer
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).unwrap();
}

/// Transactions are sent again and raised within the time that a round takes.
fn hurried() -> Works {
    let usual = Rules { resend: Millis(150), stall: Millis(400), ..works().rules };
    let cap = std::env::var(FEE_CAP).ok().map(|text| Wei(text.parse().unwrap()));
    Works { rules: Rules { fee_cap: cap.unwrap_or(usual.fee_cap), ..usual }, ..works() }
}

/// Runs until it is killed. Nothing when this is not a process of the storm.
pub(super) fn live() {
    let Ok(folder) = std::env::var(FOLDER).map(PathBuf::from) else { return };
    let rpc: RpcUrl = std::env::var(RPC).unwrap().parse().unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match std::env::var(AIM) {
        Ok(aim) => runtime.block_on(driver(folder, rpc, Place::named(&aim).unwrap())),
        Err(_) => runtime.block_on(whole_role(folder, rpc)),
    }
}

async fn whole_role(folder: PathBuf, rpc: RpcUrl) {
    let network = Network::load(&folder.join("network.toml")).unwrap();
    let peer = PeerConfig { rpc: vec![rpc], ..PeerConfig::loopback(RoleName::Settlement, folder, network) };
    let chain = ChainConfig { works: hurried(), poll: Duration::from_millis(30) };
    let door = DoorSettings::local(([127, 0, 0, 1], 0).into());
    let config = Config { peer, door, batch_interval: Duration::from_secs(1), chain };
    run(config, CancellationToken::new()).await.unwrap();
}

async fn driver(folder: PathBuf, rpc: RpcUrl, aim: Place) {
    let network = Network::load(&folder.join("network.toml")).unwrap();
    let facts = *network.chain().unwrap();
    let data = DataDir::open(&folder, RoleName::Settlement).unwrap();
    let key = Keys::load_or_create(&data).unwrap().money().clone();
    drop(data);
    let grace = std::env::var(GRACE).unwrap().parse().unwrap();
    let fate = Fate { aim, grace, is_there: false, spot: Spot::default() };
    let desk = Doomed { desk: Arc::new(open_desk(&folder)), fate: Arc::new(Mutex::new(fate)) };
    let chain = Chain::new(facts, &[rpc], limits()).unwrap();
    let mut follower = Follower::new(chain, desk, facts, key, hurried());
    loop {
        drop(follower.step(clock::wall(), &mut || clock::random_id(BatchId::from_parts).ok()).await);
        say(STEP);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
