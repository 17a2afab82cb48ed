//! A storm of SIGKILLs over a real settlement on a real local chain, at every state of its transactions: with blocks taken back, transactions dropped, blocks that stay
//! away or revert, somebody else who redeems the same claims, and a proxy between that loses, delays, repeats and garbles.
//!
//! Every claim is redeemed exactly once, every close that was handed in happens once, books equal chain, and no nonce is stuck. `ORIEN_KILLS=n` says how many kills; from 300 on each place has to have had ten. Most
//! kills are aimed at the place that had the fewest so far, the rest come at any moment. Each process is this test program again.

mod child;
mod closing;
mod place;
mod process;
mod sky;

use std::collections::BTreeMap;
use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_chain::anvil::FaultyRpc;
use orien_chain::{EscrowEvent, Wei};
use orien_protocol::channel::ChannelId;
use orien_protocol::money::Usdc;
use orien_protocol::time::Timestamp;
use orien_settlement::desk::Desk;
use orien_settlement::paying::{CALLDATA, Flight, Stage};

use self::place::{Place, Spot};
use self::process::{Kind, Process};
use self::sky::Sky;
use super::paying::{AtDesk, Here};
use super::sim::Dice;
use super::site::{Session, Site};
use crate::kit::{micros, usdc};

const KILLS: u64 = 40;
/// Sessions that are open at once.
const SESSIONS: usize = 40;
/// What is reserved for each.
const CEILING: Usdc = Usdc::from_micros(5_000_000);
/// Claims that close their session, in percent.
const CLOSING: u64 = 15;
/// From so many kills on, so many of them have to be at each place, and so many closes have to have met an escrow that was too short.
const DEMANDED: (u64, u64) = (300, 10);
const SHORT_DEMANDED: u64 = 5;
/// Attempts after which a transaction is left to be included: the machine makes 18 at most.
const ATTEMPTS_ENOUGH: usize = 12;

#[test]
#[ignore = "a process of the storm, started by it"]
fn a_process_of_the_storm() {
    child::live();
}

struct Storm {
    sky: Sky,
    proxy: FaultyRpc,
    sessions: Vec<Session>,
    /// Of each of them, whether its close was handed in.
    closing: Vec<bool>,
    /// How many kills were at which place, by what they left on disk.
    found: BTreeMap<Place, u64>,
}

impl Storm {
    /// The transaction that a killed process left behind, after taking note of where it was killed.
    fn inquest(&mut self, desk: &Desk, seen: Option<Spot>) -> Option<Flight> {
        let status = desk.chain_status().unwrap();
        assert!(status.halts.is_empty(), "{:?}", status.halts);
        if let Some(seen) = seen {
            *self.found.entry(place_of(desk, status.flight.as_ref(), seen)).or_default() += 1;
        }
        status.flight
    }

    /// What happens while no process has the desk: new sessions, new claims, somebody else redeems.
    async fn business(&mut self, seen: Option<Spot>) -> Option<Flight> {
        let desk = self.sky.site.desk();
        let flight = self.inquest(&desk, seen);
        let now = clock::wall().max(self.sky.site.chain.now().await.unwrap().timestamp());
        self.open(&desk, now);
        // There is always something to pay, so that there is always a next transaction.
        for _ in 0..=self.sky.dice.below(3) {
            let (at, more) = (self.sky.pick(self.sessions.len()), 1 + self.sky.dice.below(50_000));
            let closes = self.sky.dice.chance(CLOSING);
            self.claim(&desk, at, more, closes, now);
        }
        if let Some(flight) = flight.as_ref().filter(|_| self.sky.dice.chance(70)) {
            self.fall_short(flight).await;
        }
        if self.sky.dice.chance(6) {
            let agent = self.sky.pick(self.sky.site.agents.len());
            self.deposit(agent).await;
        }
        if let Some(flight) = flight.as_ref().filter(|_| self.sky.dice.chance(12)) {
            self.rival(&desk, flight).await;
        }
        flight
    }

    /// Opens a session if there are few, and the account has the money for one.
    fn open(&mut self, desk: &Desk, now: Timestamp) {
        let open = self.closing.iter().filter(|closes| !**closes).count();
        let wanted = open == 0 || open < SESSIONS && self.sky.dice.chance(40);
        let (agent, provider) = (self.sky.pick(self.sky.site.agents.len()), self.sky.pick(self.sky.site.providers.len()));
        if wanted && desk.funds(&self.sky.site.agents[agent].principal).unwrap().available >= CEILING {
            self.sessions.push(self.sky.site.open(desk, agent, provider, CEILING, now));
            self.closing.push(false);
        }
    }

    fn claim(&mut self, desk: &Desk, at: usize, more: u64, closes: bool, now: Timestamp) {
        let session = &mut self.sessions[at];
        let left = session.allowance.unverified().ceiling.excess_over(session.total);
        if !self.closing[at] && micros(more) <= left {
            let claim = self.sky.site.claim(session, micros(more), closes);
            desk.claim(claim, now).unwrap();
            self.closing[at] = closes;
        }
    }

    /// The second relayer sends the same claims.
    async fn rival(&mut self, desk: &Desk, flight: &Flight) {
        let Some(data) = desk.raw(flight.nonce, CALLDATA).unwrap() else { return };
        let chain = &self.sky.site.chain;
        let block = async {
            tokio::time::sleep(Duration::from_millis(50)).await;
            chain.anvil.mine(1).await.unwrap();
        };
        let (sent, ()) = tokio::join!(chain.send(chain.operator(), &chain.facts().escrow, data), block);
        drop(sent);
        self.sky.note("redeemed by somebody else");
    }

    /// The place that had the fewest kills, or the one on the way to it; none for a kill at any moment.
    fn aim(&mut self, flight: Option<&Flight>) -> Option<Place> {
        if self.sky.dice.chance(20) {
            return None;
        }
        let rarest = Place::ALL.into_iter().min_by_key(|place| self.found.get(place).copied().unwrap_or(0));
        let (waits, is_empty, attempts) = flight.map_or((false, false, 0), |flight| {
            let waits = matches!(flight.stage, Stage::Signed | Stage::Submitted);
            (waits, flight.attempts.last().is_some_and(|last| last.is_no_op), flight.attempts.len())
        });
        let can_be_emptied = waits && !is_empty && (1..ATTEMPTS_ENOUGH).contains(&attempts);
        rarest.map(|place| match place {
            Place::Replaced if is_empty => Place::Replaced,
            Place::Emptied | Place::Replaced if can_be_emptied => Place::Emptied,
            Place::Emptied | Place::Replaced => Place::Submitted,
            place => place,
        })
    }

    /// One process, until it is killed or kills itself.
    async fn round(&mut self, seen: Option<Spot>) -> Spot {
        let flight = self.business(seen).await;
        let aim = self.aim(flight.as_ref());
        let kind = match aim {
            Some(place) if !place.lasts() || self.sky.dice.chance(60) => Kind::Driver(place, self.grace(place)),
            _ => Kind::WholeRole,
        };
        // Beyond what it offers already it may not go: the next that it signs carries nothing.
        let newest = flight.as_ref().and_then(|flight| flight.attempts.last());
        let fee_cap: Option<Wei> = newest.filter(|_| aim == Some(Place::Emptied)).map(|newest| newest.fees.max_fee);
        let mut process = Process::start(kind, self.sky.site.data_dir(), self.proxy.rpc(), fee_cap);
        match aim {
            Some(aim) => self.sky.blow_towards(aim, flight.map(|flight| flight.nonce), &mut process).await,
            None => self.sky.blow(&mut process).await,
        }
        process.end().await
    }

    /// How often a driver may come to or from its desk before it dies: not so often that it has to leave.
    fn grace(&mut self, place: Place) -> u64 {
        match place {
            Place::Nothing => self.sky.dice.below(24),
            // Four times it passes between one commit and the next: the last is after nodes were told and before that is noted.
            Place::Planned | Place::Signed => self.sky.dice.below(4),
            place if place.is_end() => 0,
            _ => self.sky.dice.below(12),
        }
    }
}

/// Where a process was killed: what is on disk says so, and what was seen of it before tells apart what looks the same there.
fn place_of(desk: &Desk, flight: Option<&Flight>, seen: Spot) -> Place {
    let left = Spot::default().moved(flight.map(child::leg).as_ref(), || None);
    match (seen.place, left.place) {
        (Place::Included | Place::TakenBack, Place::Submitted | Place::Raised | Place::Emptied) if seen.nonce == left.nonce => {
            Place::TakenBack
        }
        (end, Place::Nothing) if end.is_end() && child::ended(desk).as_deref() == Some(end.name()) => end,
        (_, place) => place,
    }
}

async fn storm(kills: u64) {
    let Some(site) = Site::start(3, 4).await else { return };
    site.anvil().set_automine(false).await.unwrap();
    site.anvil().mine_every(0).await.unwrap();
    let proxy = FaultyRpc::start(site.anvil().rpc()).await.unwrap();
    proxy.storm(7, 60);
    let sky = Sky::over(site, Dice(11));
    let (sessions, closing) = (Vec::new(), Vec::new());
    let mut storm = Storm { sky, proxy, sessions, closing, found: BTreeMap::new() };
    // A desk that has never read the chain promises nothing.
    first_look(&storm.sky.site).await;
    let mut seen = None;
    for _ in 0..kills {
        seen = Some(storm.round(seen).await);
    }
    // What was set aside because blocks reverted it is claimed anew, or taken back by its operator where it can be claimed no more.
    storm.business(seen).await;
    let desk = storm.sky.site.desk();
    let now = clock::wall().max(storm.sky.site.chain.now().await.unwrap().timestamp());
    (0..storm.sessions.len()).for_each(|at| storm.claim(&desk, at, 1, false, now));
    desk.clear_halts().unwrap();
    drop(desk);
    let Storm { sky, proxy, sessions, closing, found } = storm;
    let faults = proxy.faults();
    proxy.calm();
    sky.site.anvil().set_automine(true).await.unwrap();
    let chain = sky.site.chain.chain().clone();
    let mut here = Here::over(sky.site, chain).await;
    here.settle().await;
    // What an escrow was too short for waits for more in it.
    for agent in &here.site.agents {
        here.site.chain.deposit(&agent.money, usdc("1"), &agent.money.address()).await.unwrap();
    }
    here.site.chain.settle().await.unwrap();
    here.settle().await;
    here.audit(&sessions).await;
    once(&here, &sessions).await;
    let closed = closing::closed_once(&here, &sessions, &closing).await;
    assert!(closed as u64 >= kills / 10, "{closed} sessions closed");
    tell(kills, (&found, closed), &sky.done, faults, &here);
    let (enough, each) = DEMANDED;
    let rare: Vec<&str> =
        Place::ALL.iter().filter(|place| found.get(place).copied().unwrap_or(0) < each).map(|place| place.name()).collect();
    let short = sky.done.get(closing::TOO_SHORT).copied().unwrap_or(0);
    assert!(kills < enough || short >= SHORT_DEMANDED, "only {short} closes met an escrow that was too short");
    assert!(kills < enough || rare.is_empty(), "fewer than {each} of {kills} kills at {rare:?}");
}

fn tell(kills: u64, (found, closed): (&BTreeMap<Place, u64>, usize), done: &BTreeMap<&str, u64>, faults: u64, here: &Here) {
    let flights = here.desk.flights(None, 10_000).unwrap();
    let states: BTreeMap<&str, usize> = flights.iter().fold(BTreeMap::new(), |mut states, flight| {
        *states.entry(flight.stage.name()).or_default() += 1;
        states
    });
    let attempts: usize = flights.iter().map(|flight| flight.attempts.len()).sum();
    let table: String = found.iter().map(|(place, kills)| format!("  {:<12}{kills:>4}\n", place.name())).collect();
    drop(writeln!(
        std::io::stderr(),
        "{kills} SIGKILLs, at\n{table}{done:?}; {closed} sessions closed; {faults} faults of nodes; {} transactions ({states:?}) of {attempts} signed",
        flights.len()
    ));
}

async fn first_look(site: &Site) {
    let mut follower = site.follower(AtDesk(Arc::new(site.desk())), site.chain.chain().clone());
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
