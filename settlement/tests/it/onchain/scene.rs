//! Settlement's whole driver with real books and a real store, without threads, on the chain in memory; agents and providers that do business with it; and their auditor.

use std::collections::{BTreeMap, BTreeSet};
use std::future::pending;
use std::sync::{Arc, Mutex, MutexGuard};

use futures::FutureExt;
use orien_bootstrap::FaultyDisk;
use orien_chain::ChainFacts;
use orien_protocol::id::BatchId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::{Address, MoneyKey};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::SignedAllowance;
use orien_settlement::desk::{Desk, DeskError};
use orien_settlement::onchain::{Counter, Follower, StepError, Works};
use orien_settlement::paying::{Policy, Rules};
use orien_settlement::rail::EvmRail;

use super::sim::{Dice, Faults, SimPort, World};
use crate::kit::{Kit, Party, START, micros, request};

const TICK: Millis = Millis(20_000);

/// The desk without threads; the process may die before and after each call.
pub(crate) struct Direct {
    desk: Arc<Desk>,
    world: Arc<Mutex<World>>,
}

impl Direct {
    fn dies(&self) -> bool {
        let mut world = self.world.lock().unwrap();
        let percent = world.faults.crash;
        let dies = world.dice.chance(percent);
        world.crashed |= dies;
        dies
    }
}

impl Counter for Direct {
    async fn call<T: Send + 'static>(&self, call: impl FnOnce(&Desk) -> Result<T, DeskError> + Send + 'static) -> Result<T, DeskError> {
        if self.dies() {
            pending::<()>().await;
        }
        let answer = call(&self.desk);
        if self.dies() {
            pending::<()>().await;
        }
        answer
    }
}

struct Session {
    terms: VerifiedTerms,
    agent: usize,
    provider: usize,
    allowance: Option<SignedAllowance>,
    total: u64,
    number: u64,
    closed: bool,
}

/// One network of three agents and three providers, at one moment.
pub(crate) struct Scene {
    kit: Kit,
    world: Arc<Mutex<World>>,
    disk: FaultyDisk,
    pub(crate) desk: Arc<Desk>,
    pub(crate) follower: Follower<SimPort, Direct>,
    pub(crate) agents: Vec<Party>,
    providers: Vec<Party>,
    sessions: Vec<Session>,
    dice: Dice,
    pub(crate) now: Timestamp,
    count: u128,
    pub(crate) crashes: u64,
}

fn works() -> Works {
    let policy = Policy { amount: micros(50_000), age: Millis(120_000), near: Millis(600_000), ..Policy::default() };
    Works { policy, rules: Rules { stall: Millis(60_000), ..Rules::default() }, ..Works::default() }
}

fn follower(kit: &Kit, desk: &Arc<Desk>, world: &Arc<Mutex<World>>) -> Follower<SimPort, Direct> {
    let facts = ChainFacts {
        chain_id: kit.domain.chain_id,
        escrow: kit.domain.escrow,
        token: Address::default(),
        escrow_block: 0,
        finality: orien_chain::Finality::Finalized,
    };
    let direct = Direct { desk: Arc::clone(desk), world: Arc::clone(world) };
    Follower::new(SimPort(Arc::clone(world)), direct, facts, sender(), works())
}

fn sender() -> Arc<MoneyKey> {
    Arc::new(MoneyKey::from_bytes(&[200; 32]).unwrap())
}

impl Scene {
    pub(crate) fn new(seed: u64) -> Self {
        let kit = Kit::new();
        let world = Arc::new(Mutex::new(World::new(seed, sender().address(), kit.domain, START.seconds().0)));
        let disk = FaultyDisk::default();
        let desk = Arc::new(Desk::over(disk.clone(), Arc::clone(&kit.house), Arc::new(EvmRail)).unwrap());
        let follower = follower(&kit, &desk, &world);
        let (agents, providers) = ((1..4).map(Party::new).collect(), (11..14).map(Party::new).collect());
        let (sessions, dice) = (Vec::new(), Dice(seed ^ 0x5eed));
        Self { kit, world, disk, desk, follower, agents, providers, sessions, dice, now: START, count: 0, crashes: 0 }
    }

    pub(crate) fn world(&self) -> MutexGuard<'_, World> {
        self.world.lock().unwrap()
    }

    pub(crate) fn faults(&self, faults: Faults) {
        self.world().faults = faults;
    }

    /// Every agent puts the same into the escrow.
    pub(crate) fn deposit_all(&self) {
        for agent in &self.agents {
            self.world().deposit(agent.principal, agent.money.address(), 1_000_000);
        }
    }

    /// The process starts again from what was on disk.
    fn restart(&mut self) {
        self.crashes += 1;
        let image = self.disk.left(self.dice.below(u64::MAX));
        self.disk = FaultyDisk::holding(image);
        self.desk = Arc::new(Desk::over(self.disk.clone(), Arc::clone(&self.kit.house), Arc::new(EvmRail)).unwrap());
        self.follower = follower(&self.kit, &self.desk, &self.world);
        self.world().crashed = false;
    }

    pub(crate) fn step(&mut self) {
        let count = &mut self.count;
        let mut ids = || {
            *count += 1;
            Some(BatchId::from_parts(START.0, *count))
        };
        let done = self.follower.step(self.now, &mut ids).now_or_never();
        match done {
            None => self.restart(),
            Some(Err(StepError::Desk(DeskError::Shut(why)))) => panic!("the desk shut: {why}"),
            Some(_) => {}
        }
        let now = self.now;
        self.desk.sweep(now).unwrap();
    }

    pub(crate) fn tick(&mut self) {
        self.now = self.now.plus(TICK);
        self.world().tick(self.now.seconds().0);
        self.step();
    }

    pub(crate) fn open(&mut self) {
        let n = self.sessions.len();
        let (agent, provider) = (self.pick(self.agents.len()), self.pick(self.providers.len()));
        let mut draft = self.kit.draft(&self.agents[agent], &self.providers[provider], n as u128 + 1);
        draft.issued_at = self.now;
        draft.work_until = self.now.plus(Millis::from_secs(3_600)).seconds();
        draft.redeem_until = self.now.plus(Millis::from_secs(7_200)).seconds();
        let terms = self.kit.sign(draft, &self.agents[agent], &self.providers[provider]);
        self.sessions.push(Session { terms, agent, provider, allowance: None, total: 0, number: 0, closed: false });
    }

    fn pick(&mut self, end: usize) -> usize {
        usize::try_from(self.dice.below(end as u64)).unwrap()
    }

    /// Somebody does something.
    pub(crate) fn act(&mut self) {
        match self.dice.below(11) {
            0 if self.sessions.len() < 14 => self.open(),
            1 | 2 if !self.sessions.is_empty() => self.reserve(),
            3..=6 if !self.sessions.is_empty() => self.claim(),
            7 => {
                let agent = self.pick(self.agents.len());
                let (account, key) = (self.agents[agent].principal, self.agents[agent].money.address());
                let amount = 100_000 + self.dice.below(900_000);
                self.world().deposit(account, key, amount);
            }
            8 => self.world().rival(),
            9 if self.dice.chance(10) => {
                let agent = self.pick(self.agents.len());
                let (account, amount) = (self.agents[agent].principal, 1 + self.dice.below(400_000));
                self.world().request_exit(account, amount);
            }
            // Nobody's, and no reason to stop.
            10 if self.dice.chance(20) => {
                let amount = 1 + self.dice.below(1_000);
                self.world().donate(amount);
            }
            _ => {}
        }
    }

    pub(crate) fn reserve(&mut self) {
        let at = self.pick(self.sessions.len());
        let raise = 50_000 + self.dice.below(300_000);
        self.count += 1;
        let (request, session) = (request(self.count), &mut self.sessions[at]);
        let ceiling = session.allowance.map_or(0, |allowance| allowance.unverified().ceiling.micros()) + raise;
        let caller = self.agents[session.agent].peer.id();
        match self.desk.reserve(caller, request, session.terms.to_signed(), micros(ceiling), self.now) {
            Ok(allowance) => session.allowance = Some(allowance),
            Err(DeskError::Refused(_)) => {}
            Err(DeskError::Shut(why)) => panic!("the desk shut: {why}"),
        }
    }

    pub(crate) fn claim(&mut self) {
        let at = self.pick(self.sessions.len());
        let (grows, closes) = (self.dice.below(80_000), self.dice.chance(15));
        let session = &mut self.sessions[at];
        let Some(allowance) = session.allowance.filter(|_| !session.closed) else { return };
        let total = (session.total + grows).min(allowance.unverified().ceiling.micros());
        let (agent, provider) = (&self.agents[session.agent], &self.providers[session.provider]);
        let mut claim = self.kit.claim(&session.terms, allowance, (agent, provider), session.number + 1, micros(total));
        if closes {
            claim = self.kit.closed(claim, provider, micros(total));
        }
        match self.desk.claim(claim, self.now) {
            Ok(_) => {
                (session.total, session.number) = (total, session.number + 1);
                session.closed = closes;
            }
            Err(DeskError::Refused(_)) => {}
            Err(DeskError::Shut(why)) => panic!("the desk shut: {why}"),
        }
    }

    /// M11, from outside: what is promised of an account is there, by final blocks.
    pub(crate) fn audit_promises(&self) {
        let world = self.world();
        let Some(cursor) = self.desk.standing().unwrap().cursor else { return };
        let state = world.finalized();
        let mut promised: BTreeMap<Address, u64> = BTreeMap::new();
        for session in &self.sessions {
            let Some(allowance) = session.allowance else { continue };
            let paid = state.channels.get(&session.terms.channel()).cloned().unwrap_or_default();
            if !paid.closed && session.terms.redeem_until >= cursor.time {
                *promised.entry(session.terms.account()).or_default() += allowance.unverified().ceiling.micros() - paid.redeemed;
            }
        }
        for (account, promised) in promised {
            let held = state.accounts.get(&account).cloned().unwrap_or_default();
            // An exit that is final and newer than the promise is for after the promise's time; what is promised is there until then.
            assert!(promised <= held.balance, "{promised} of {account} is promised, and {} is there", held.balance);
        }
    }

    /// Everything that was claimed is redeemed once, and books and chain say the same.
    pub(crate) fn audit_end(&mut self, seed: u64) {
        let status = self.desk.chain_status().unwrap();
        assert!(status.halts.is_empty(), "seed {seed}: {:?}", status.halts);
        assert!(status.flight.is_none() && status.waiting == 0, "seed {seed}: {status:?}");
        let found = self.follower.reconcile(self.now).now_or_never().unwrap().unwrap().unwrap();
        assert!(found.differences.is_empty(), "seed {seed}: {found:?}");
        let world = self.world();
        let state = world.head();
        assert_eq!(status.sender.next_nonce.unwrap_or(0), world.nonce(), "seed {seed}: a nonce is stuck");
        for session in &self.sessions {
            let redeemed = state.channels.get(&session.terms.channel()).map_or(0, |paid| paid.redeemed);
            assert_eq!(redeemed, session.total, "seed {seed}: session {} on chain", session.terms.session);
            let known = self.desk.channel_state(&session.terms.channel()).unwrap();
            assert_eq!(known.redeemed.micros(), redeemed, "seed {seed}: session {} in the books", session.terms.session);
        }
        self.audit_money(seed, &world);
    }

    /// Each payee got, by payouts, what the chain gave; each batch can be audited; the escrow is whole.
    fn audit_money(&self, seed: u64, world: &World) {
        let state = world.head();
        let mut paid: BTreeMap<Address, u64> = BTreeMap::new();
        for payout in self.desk.payouts(None, 10_000).unwrap() {
            assert!(payout.state.transaction().is_some(), "seed {seed}: {payout:?}");
            *paid.entry(payout.payee).or_default() += payout.amount.micros();
        }
        let mut given = state.delivered.clone();
        for (payee, credit) in &state.credits {
            *given.entry(*payee).or_default() += credit;
        }
        given.retain(|_, amount| *amount > 0);
        assert_eq!(paid, given, "seed {seed}: payouts");
        let (sums, _, _) = self.desk.sums().unwrap();
        assert!(sums.balanced());
        assert_eq!(sums.platform + sums.reserve, u128::from(state.fees), "seed {seed}: fees");
        assert_eq!(sums.withdrawn, u128::from(state.withdrawn));
        let held: u64 = state.accounts.values().map(|held| held.balance).sum();
        let out = given.values().sum::<u64>() + state.fees + state.withdrawn;
        assert_eq!(state.deposited, held + out, "seed {seed}: the escrow itself");
        let mut settled = BTreeSet::new();
        for summary in self.desk.batches(None, 10_000).unwrap() {
            let batch = self.desk.batch_evidence(&summary.unverified().id).unwrap().unwrap();
            settled.extend(batch.entries.iter().map(|entry| (entry.channel, entry.to_total)));
        }
        for session in self.sessions.iter().filter(|session| session.total > 0) {
            assert!(settled.contains(&(session.terms.channel(), Usdc::from_micros(session.total))), "seed {seed}: no evidence");
        }
    }
}
