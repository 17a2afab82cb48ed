//! Power fails at every operation on the disk of a provider's store; what is left is audited, picked up, and brought to its end with the agents that remember.
//!
//! Always checked: what was appended is there, and what was being appended is there wholly or not at all; every receipt that was sent is there; the chain has no gap
//! and charges what its times cost; agent and provider end with the same sums.

mod kept;
mod pair;

use orien_bootstrap::FaultyDisk;
use orien_node::store::{Handed, Store, StoreError};
use orien_protocol::frame::ChannelState;
use orien_protocol::id::SessionId;
use orien_protocol::session::provider::ProviderRecord;
use orien_protocol::time::Timestamp;

use crate::kit::{Kit, agent_keys, usdc};
use kept::Kept;
use pair::Pair;

/// What happens to the provider, in order.
#[derive(Clone, Copy, Debug)]
enum Step {
    Ran(u64),
    Open(usize),
    Run(usize),
    Pass(usize, u64),
    Finish(usize),
    TopUp(usize, u64),
    /// Settlement redeems what is promised by then, and takes the close if there is one.
    HandIn(usize),
    End(usize),
    Forget(usize),
}

const STEPS: &[Step] = &[
    Step::Ran(0),
    Step::Open(0),
    Step::Open(1),
    Step::Run(0),
    Step::Pass(0, 2_600),
    Step::Run(1),
    Step::Pass(1, 1_300),
    Step::HandIn(0),
    Step::TopUp(0, 3_000_000),
    Step::Finish(0),
    Step::Run(0),
    Step::Ran(60_000),
    Step::Pass(0, 1_100),
    Step::Finish(0),
    Step::End(0),
    Step::HandIn(0),
    Step::Forget(0),
    Step::Run(1),
    Step::Finish(1),
    Step::Pass(1, 700),
    Step::Finish(1),
    Step::End(1),
    Step::HandIn(1),
    Step::Ran(1_234),
];

/// A write that may or may not have reached the disk.
#[derive(Debug)]
struct Off;

impl From<StoreError> for Off {
    fn from(_: StoreError) -> Self {
        Self
    }
}

/// The store, what it must hold, and what it may hold besides if the last write was under way.
struct Shelf {
    store: Store,
    kept: Kept,
    under_way: Option<Kept>,
}

impl Shelf {
    async fn append(&mut self, session: SessionId, records: Vec<ProviderRecord>) -> Result<(), Off> {
        self.under_way = Some(self.kept.with(session, &records));
        self.store.append(session, records).await?;
        self.written();
        Ok(())
    }

    fn written(&mut self) {
        self.kept = self.under_way.take().unwrap();
    }

    /// What is on the disk must be one of the two.
    async fn audit(&mut self, what: &str) {
        let found = Kept::read(&self.store).await;
        if self.under_way.as_ref() == Some(&found) {
            self.written();
        }
        assert_eq!(found, self.kept, "{what}");
        self.under_way = None;
    }
}

struct World {
    kit: Kit,
    shelf: Shelf,
    pairs: [Pair; 2],
}

impl World {
    fn new(disk: &FaultyDisk) -> Result<Self, Off> {
        let kit = Kit::new();
        let pairs = [1, 2].map(|seed| Pair::new(&kit, agent_keys(seed)));
        Ok(Self { kit, pairs, shelf: Shelf { store: Store::over(disk.clone())?, kept: Kept::default(), under_way: None } })
    }

    async fn take(&mut self, step: Step) -> Result<(), Off> {
        let Self { kit, shelf, pairs } = self;
        match step {
            Step::Ran(ms) => {
                let at = Timestamp(pair::START.0 + ms);
                shelf.under_way = Some(shelf.kept.ran(at, ms));
                shelf.store.note_running(at, ms).await?;
                shelf.written();
                Ok(())
            }
            Step::Open(which) => pairs[which].open(kit, shelf).await,
            Step::Run(which) => pairs[which].run(kit, shelf).await,
            Step::Pass(which, ms) => pairs[which].pass(kit, shelf, ms).await,
            Step::Finish(which) => pairs[which].finish(kit, shelf).await,
            Step::TopUp(which, ceiling) => pairs[which].top_up(kit, shelf, ceiling).await,
            Step::End(which) => pairs[which].end(kit, shelf).await,
            Step::HandIn(which) => self.hand_in(which).await,
            Step::Forget(which) => self.forget(which).await,
        }
    }

    async fn hand_in(&mut self, which: usize) -> Result<(), Off> {
        let (shelf, session) = (&mut self.shelf, self.pairs[which].id());
        let Some(summary) = shelf.store.summary(session).await? else { return Ok(()) };
        let ceiling = summary.allowance.unverified().ceiling;
        let state = ChannelState { ceiling, redeemed: summary.promised(), closed: summary.is_over() };
        let handed = Handed { state, close_taken: summary.is_over() };
        for _ in 0..2 {
            shelf.under_way = Some(shelf.kept.handed(session, handed));
            shelf.store.note_handed(session, handed).await?;
            shelf.written();
        }
        Ok(())
    }

    async fn forget(&mut self, which: usize) -> Result<(), Off> {
        let (shelf, session) = (&mut self.shelf, self.pairs[which].id());
        let account = self.pairs[which].account();
        for _ in 0..2 {
            shelf.under_way = Some(shelf.kept.forgotten(session, account));
            shelf.store.forget(session, account).await?;
            shelf.written();
        }
        Ok(())
    }

    /// The provider starts again on what is left; its agents come back to it.
    async fn start_again(&mut self, disk: &FaultyDisk, what: &str) {
        self.shelf.store = Store::over(disk.clone()).unwrap_or_else(|error| panic!("{what}: {error}"));
        self.shelf.audit(what).await;
        self.check(what).await;
        for pair in &mut self.pairs {
            pair.crash();
        }
        for pair in &mut self.pairs {
            pair.pick_up(&self.kit, &mut self.shelf).await.unwrap();
        }
        self.shelf.audit(what).await;
        self.check(what).await;
    }

    /// Every session on the disk hangs together, and holds what was sent.
    async fn check(&self, what: &str) {
        for pair in &self.pairs {
            if let Some(records) = self.shelf.kept.records(pair.id()) {
                kept::check(records, &pair.sent, &self.kit, what);
                kept::agrees(&self.shelf.store, pair.id(), records, what).await;
            }
        }
    }
}

/// A run in which nothing fails: the operations before each step and after the last, then after closing, and what each session cost.
async fn plan() -> (Vec<u64>, [u64; 2]) {
    let disk = FaultyDisk::default();
    let mut world = World::new(&disk).unwrap();
    let mut operations = vec![disk.operations()];
    for (which, step) in STEPS.iter().enumerate() {
        world.take(*step).await.unwrap();
        world.shelf.audit(&format!("after {step:?}")).await;
        world.check(&format!("after step {which}")).await;
        operations.push(disk.operations());
    }
    let charged = [0, 1].map(|which: usize| world.pairs[which].agent.charged().micros());
    assert!(world.pairs.iter().all(Pair::is_settled));
    let receipts: Vec<usize> = world.pairs.iter().map(|pair| pair.sent.len()).collect();
    assert!(receipts.iter().all(|sent| *sent >= 5), "{receipts:?}");
    drop(world);
    operations.push(disk.operations());
    (operations, charged)
}

/// Lets the power fail at an operation, and everything go on after it.
async fn crash(operation: u64, seed: u64, charged: [u64; 2]) {
    let what = format!("crash {operation} {seed}");
    let disk = FaultyDisk::default();
    disk.cut_at(operation, seed);
    let Ok(mut world) = World::new(&disk) else {
        drop(Store::over(FaultyDisk::holding(disk.left(seed))).unwrap_or_else(|error| panic!("{what}: {error}")));
        return;
    };
    let mut done = 0;
    while done < STEPS.len() && world.take(STEPS[done]).await.is_ok() {
        done += 1;
    }
    if done < STEPS.len() {
        let operations = disk.operations();
        assert!(world.shelf.store.note_running(pair::START, 1).await.is_err(), "{what}: written after a failed write");
        assert!(world.pairs.iter().all(|pair| !pair.is_out_of_step), "{what}: something was done after a failed write");
        assert_eq!(disk.operations(), operations);
    }
    // The handle that is replaced belongs to the process that is gone.
    let mut left = disk.left(seed);
    if seed.is_multiple_of(3) {
        // It fails again while the store is opened on what is left.
        let disk = FaultyDisk::holding(left);
        disk.cut_at(seed % 11, seed);
        drop(Store::over(disk.clone()));
        left = disk.left(seed + 1);
    }
    let disk = FaultyDisk::holding(left);
    world.start_again(&disk, &what).await;
    let picked_up: Vec<usize> = (0..2).filter(|which| world.pairs[*which].was_interrupted).collect();
    for step in STEPS.iter().skip(done.saturating_add(1)) {
        world.take(*step).await.unwrap();
    }
    for which in 0..2 {
        world.take(Step::Open(which)).await.unwrap();
        world.take(Step::End(which)).await.unwrap();
        world.take(Step::HandIn(which)).await.unwrap();
    }
    world.shelf.audit(&what).await;
    world.check(&what).await;
    for (which, pair) in world.pairs.iter().enumerate() {
        assert!(pair.is_settled(), "{what}: pair {which} at {done} of {:?}: {pair:?}", STEPS.get(done));
        let cost = pair.agent.charged().micros();
        let runs_missed = matches!(STEPS.get(done), Some(Step::Run(_) | Step::Finish(_) | Step::Pass(..)));
        if !picked_up.contains(&which) && !runs_missed && pair.attempts == 1 {
            assert_eq!(cost, charged[which], "{what}: a session that was not interrupted costs the same");
        }
        assert!(cost <= charged[which], "{what}: an interrupted session costs no more");
    }
    let redeemed: u64 = world.shelf.store.history().await.unwrap().iter().map(|(_, amount)| amount.micros()).sum();
    assert!(redeemed <= charged[0] + usdc(0).micros());
}

/// Where the power fails, and the seed of what survives.
fn crashes(operations: &[u64]) -> Vec<(u64, u64)> {
    let end = *operations.last().unwrap();
    if std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all") {
        return (0..=end).flat_map(|at| [(at, at), (at, at + 7919)]).collect();
    }
    let mut crashes = vec![(end, 1)];
    let mut from = 0;
    for to in operations.iter().filter(|to| **to > 0) {
        crashes.extend((0..3).map(|n| (from + (to * 131 + n * 977) % (to - from).max(1), to * 31 + n)));
        from = *to;
    }
    crashes
}

#[tokio::test]
async fn whenever_the_power_fails_every_receipt_that_was_sent_is_kept_and_both_sides_end_with_the_same_sums() {
    let (operations, charged) = plan().await;
    for (operation, seed) in crashes(&operations) {
        crash(operation, seed, charged).await;
    }
}
