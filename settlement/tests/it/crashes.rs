//! Power fails at every operation on the disk, the desk opens again on what is left, and a model with its own sums says whether that can be so.
//!
//! Always checked: what was answered is there; what was not answered is there wholly or not at all; asked again, it is answered as it would have been and done once.

mod model;

use std::collections::BTreeSet;
use std::sync::Arc;

use orien_bootstrap::FaultyDisk;
use orien_protocol::fault::FaultCode;
use orien_protocol::frame::{ChannelState, Funds};
use orien_protocol::id::BatchId;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::SignedAllowance;
use orien_settlement::batch::PayoutState;
use orien_settlement::books::Grant;
use orien_settlement::desk::{Desk, DeskError, OpenDeskError};
use orien_settlement::rail::LedgerRail;

use crate::kit::{Kit, Party, REDEEM, after, batch_id, micros, request};
use model::{Model, View};

/// One thing asked of the desk.
#[derive(Clone, Copy, Debug)]
enum Step {
    Grant { name: &'static str, agent: usize, micros: u64, cap: Option<u64> },
    Reserve { request: u128, channel: usize, micros: u64 },
    Claim { channel: usize, number: u64, micros: u64, close: bool },
    Batch(&'static str),
    Export(&'static str),
    Sweep,
}

/// Channels, by agent and provider.
const CHANNELS: [(usize, usize); 5] = [(0, 0), (1, 0), (0, 1), (1, 1), (0, 1)];

/// Steps and how long after the start each is asked, in seconds.
const STEPS: &[(u64, Step)] = &[
    (0, Step::Grant { name: "a", agent: 0, micros: 10_000_007, cap: None }),
    (0, Step::Grant { name: "b", agent: 1, micros: 5_000_000, cap: None }),
    (1, Step::Reserve { request: 0, channel: 0, micros: 1_500_000 }),
    (1, Step::Reserve { request: 1, channel: 1, micros: 2_000_000 }),
    (2, Step::Reserve { request: 2, channel: 2, micros: 3_000_000 }),
    (2, Step::Reserve { request: 3, channel: 3, micros: 100_000_000 }),
    (3, Step::Claim { channel: 0, number: 1, micros: 123_457, close: false }),
    (3, Step::Claim { channel: 1, number: 1, micros: 50_000, close: false }),
    (4, Step::Reserve { request: 4, channel: 0, micros: 2_250_000 }),
    (4, Step::Reserve { request: 0, channel: 0, micros: 9_000_000 }),
    (5, Step::Claim { channel: 0, number: 3, micros: 1_999_999, close: false }),
    (5, Step::Claim { channel: 0, number: 2, micros: 700_000, close: false }),
    (6, Step::Batch("first")),
    (7, Step::Claim { channel: 1, number: 2, micros: 1_000_003, close: true }),
    (7, Step::Claim { channel: 2, number: 1, micros: 9, close: false }),
    (8, Step::Export("may")),
    (8, Step::Reserve { request: 5, channel: 3, micros: 1_000_000 }),
    (9, Step::Batch("second")),
    (9, Step::Batch("nothing new")),
    (9, Step::Grant { name: "c", agent: 0, micros: 0, cap: Some(50_000_000) }),
    (10, Step::Claim { channel: 3, number: 1, micros: 333_333, close: false }),
    (10, Step::Reserve { request: 6, channel: 4, micros: 500_000 }),
    (11, Step::Export("june")),
    (11, Step::Claim { channel: 2, number: 2, micros: 2_500_000, close: false }),
    (2 * 3600 + 10, Step::Sweep),
    (2 * 3600 + 10, Step::Claim { channel: 3, number: 2, micros: 900_000, close: false }),
    (2 * 3600 + 11, Step::Batch("third")),
    (2 * 3600 + 12, Step::Export("july")),
    (3 * 86_400, Step::Sweep),
    (3 * 86_400, Step::Grant { name: "d", agent: 1, micros: 1_000_001, cap: None }),
];

/// What the desk said.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Said {
    Funds(Funds),
    Allowance(SignedAllowance),
    Channel(ChannelState),
    Batch(Option<BatchId>),
    Payouts(Vec<(BatchId, Address, Usdc)>),
    Swept,
    Refused(FaultCode),
}

/// Everybody who asks, and what they hold whatever happens to settlement.
struct World {
    kit: Kit,
    agents: [Party; 2],
    providers: [Party; 2],
    terms: Vec<VerifiedTerms>,
    allowances: Vec<Option<SignedAllowance>>,
}

impl World {
    fn new() -> Self {
        let (kit, agents, providers) = (Kit::new(), [Party::new(1), Party::new(2)], [Party::new(3), Party::new(4)]);
        let numbers = (0_u128..).zip(CHANNELS);
        let terms = numbers.map(|(n, (agent, provider))| kit.terms(&agents[agent], &providers[provider], n)).collect();
        Self { kit, agents, providers, terms, allowances: vec![None; CHANNELS.len()] }
    }

    fn desk(&self, disk: &FaultyDisk) -> Result<Desk, OpenDeskError> {
        Desk::over(disk.clone(), Arc::clone(&self.kit.house), Arc::new(LedgerRail))
    }

    /// Asks for a step; none when the desk is shut. A batch gets another id with each attempt, as every real one does.
    fn ask(&mut self, desk: &Desk, which: usize, now: Timestamp, attempt: u128) -> Option<Said> {
        let said = match STEPS[which].1 {
            Step::Grant { name, agent, micros: amount, cap } => {
                let grant = Grant { daily_cap: cap.map(micros), ..self.agents[agent].grant(micros(amount)) };
                desk.grant(name, &grant, now).map(Said::Funds)
            }
            Step::Reserve { request: name, channel, micros: ceiling } => {
                let caller = self.agents[CHANNELS[channel].0].peer.id();
                let said = desk.reserve(caller, request(name), self.terms[channel].to_signed(), micros(ceiling), now);
                said.map(|allowance| {
                    let held = &mut self.allowances[channel];
                    if held.is_none_or(|held| held.unverified().ceiling <= allowance.unverified().ceiling) {
                        *held = Some(allowance);
                    }
                    Said::Allowance(allowance)
                })
            }
            Step::Claim { channel, number, micros: total, close } => {
                let (agent, provider) = CHANNELS[channel];
                let (terms, provider) = (&self.terms[channel], &self.providers[provider]);
                let pair = (&self.agents[agent], provider);
                let mut claim = self.kit.claim(terms, self.allowances[channel].unwrap(), pair, number, micros(total));
                if close {
                    claim = self.kit.closed(claim, provider, micros(total));
                }
                desk.claim(claim, now).map(Said::Channel)
            }
            Step::Batch(name) => desk.batch(batch_id(which as u128 * 10 + attempt), Some(name), now).map(Said::Batch),
            Step::Export(name) => desk.export(name, now).map(|payouts| {
                assert!(payouts.iter().all(|payout| matches!(payout.state, PayoutState::Exported(_))));
                Said::Payouts(payouts.iter().map(|payout| (payout.batch, payout.payee, payout.amount)).collect())
            }),
            Step::Sweep => desk.sweep(now).map(|_| Said::Swept),
        };
        match said {
            Ok(said) => Some(said),
            Err(DeskError::Refused(fault)) => Some(Said::Refused(fault.code)),
            Err(DeskError::Shut(_)) => None,
        }
    }
}

fn time(which: usize) -> Timestamp {
    after(Millis::from_secs(STEPS[which].0))
}

/// A run in which nothing fails: what is said and how things stand after each step, and how many operations each takes.
struct Plan {
    said: Vec<Said>,
    /// How things stand before the first step, and after each.
    views: Vec<View>,
    /// Operations before the first step and after each; then after the desk is closed.
    operations: Vec<u64>,
}

impl Plan {
    fn new() -> Self {
        let (mut world, disk, mut model) = (World::new(), FaultyDisk::default(), Model::default());
        let desk = world.desk(&disk).unwrap();
        let mut plan = Self { said: Vec::new(), views: vec![model.view()], operations: vec![disk.operations()] };
        for (which, (_, step)) in STEPS.iter().enumerate() {
            let said = world.ask(&desk, which, time(which), 0).unwrap();
            model.take(step, matches!(said, Said::Refused(_)), time(which) > after(REDEEM));
            let view = model.view();
            assert_eq!(View::of(&desk, &world), view, "after {:?}", STEPS[which]);
            plan.said.push(said);
            plan.views.push(view);
            plan.operations.push(disk.operations());
        }
        let refused = plan.said.iter().filter(|said| matches!(said, Said::Refused(_))).count();
        assert_eq!(refused, 3, "{:?}", plan.said);
        drop(desk);
        plan.operations.push(disk.operations());
        plan
    }

    /// Where the power fails: at every operation, or at two of each step. Each with the seed of what survives.
    fn crashes(&self) -> Vec<(u64, u64)> {
        let end = *self.operations.last().unwrap();
        if std::env::var("ORIEN_CRASHES").is_ok_and(|which| which == "all") {
            return (0..=end).flat_map(|at| [(at, at), (at, at + 7919)]).collect();
        }
        let mut from = 0;
        let mut crashes = vec![(end, 1)];
        for to in &self.operations {
            if *to > from {
                // The last operation of a commit is its sync; any other stands for the rest.
                crashes.extend([(to - 1, to * 31), (from + to * 131 % (to - from), to * 17)]);
            }
            from = *to;
        }
        crashes
    }
}

/// Lets the power fail at an operation, starts again, and goes on to the end.
fn crash(plan: &Plan, operation: u64, seed: u64) {
    let (mut world, disk) = (World::new(), FaultyDisk::default());
    disk.cut_at(operation, seed);
    let mut done = 0;
    if let Ok(desk) = world.desk(&disk) {
        while done < STEPS.len() {
            let Some(said) = world.ask(&desk, done, time(done), 0) else { break };
            assert_eq!(said, plan.said[done], "crash {operation} {seed}");
            done += 1;
        }
        if done < STEPS.len() {
            is_shut(&mut world, &desk, &disk);
        }
    }
    let mut left = disk.left(seed);
    if seed.is_multiple_of(3) {
        // It fails again while the desk is opened on what is left.
        let disk = FaultyDisk::holding(left);
        disk.cut_at(seed % 11, seed);
        drop(world.desk(&disk));
        left = disk.left(seed + 1);
    }
    let disk = FaultyDisk::holding(left);
    let desk = world.desk(&disk).unwrap_or_else(|error| panic!("crash {operation} {seed} before step {done}: {error}"));
    let view = View::of(&desk, &world);
    let was_done = view != plan.views[done];
    if was_done {
        assert_eq!(Some(&view), plan.views.get(done + 1), "crash {operation} {seed} in step {done}");
    }
    go_on(plan, &mut world, &desk, &disk, (done, was_done));
    drop(desk);
    let desk = world.desk(&FaultyDisk::holding(disk.left(seed))).unwrap();
    assert_eq!(&View::of(&desk, &world), plan.views.last().unwrap(), "crash {operation} {seed}");
}

/// A desk that could not write says nothing more and writes nothing more.
fn is_shut(world: &mut World, desk: &Desk, disk: &FaultyDisk) {
    assert!(disk.is_off() && desk.failed().is_cancelled() && desk.why_shut().is_some());
    let operations = disk.operations();
    for (which, (_, step)) in STEPS.iter().enumerate() {
        match *step {
            // Documents that contradict themselves are refused before anybody looks into the books.
            Step::Claim { channel, micros: total, .. }
                if world.allowances[channel].is_none_or(|held| held.unverified().ceiling < micros(total)) => {}
            _ => assert_eq!(world.ask(desk, which, time(which), 9), None),
        }
    }
    assert!(desk.sums().is_err() && desk.funds(&world.agents[0].principal).is_err() && desk.batches(None, 1).is_err());
    assert_eq!(disk.operations(), operations);
}

/// Repeats what was asked before the crash, then the step that it interrupted, then goes on.
fn go_on(plan: &Plan, world: &mut World, desk: &Desk, disk: &FaultyDisk, (done, was_done): (usize, bool)) {
    let (operations, now) = (disk.operations(), time(done.min(STEPS.len() - 1)));
    for which in (0..done).filter(|which| !matches!(STEPS[*which].1, Step::Sweep)) {
        let said = world.ask(desk, which, now, 3).unwrap();
        let is_kept = matches!(plan.said[which], Said::Batch(_) | Said::Payouts(_)) || now < after(REDEEM);
        if is_kept && !matches!(said, Said::Funds(_) | Said::Channel(_)) {
            assert_eq!(said, plan.said[which], "an answer changed: {:?}", STEPS[which]);
        }
    }
    assert_eq!(disk.operations(), operations, "a repeated request wrote something");
    for (which, (_, step)) in STEPS.iter().enumerate().skip(done) {
        let said = world.ask(desk, which, time(which), 1).unwrap();
        let expected = match &plan.said[which] {
            Said::Batch(Some(_)) if which > done || !was_done => Said::Batch(Some(batch_id(which as u128 * 10 + 1))),
            expected => expected.clone(),
        };
        if let (Said::Payouts(said), Said::Payouts(expected)) = (&said, &expected) {
            // Their ids follow from the batch's, and so does their order.
            let paid = |payouts: &[(BatchId, Address, Usdc)]| payouts.iter().map(|(_, payee, sum)| (*payee, *sum)).collect::<BTreeSet<_>>();
            assert_eq!(paid(said), paid(expected));
        } else {
            assert_eq!(said, expected, "{:?}", step);
        }
        let operations = disk.operations();
        assert_eq!(world.ask(desk, which, time(which), 2).unwrap(), said, "{:?}", step);
        assert_eq!(disk.operations(), operations, "{:?} was done twice", step);
        assert_eq!(View::of(desk, world), plan.views[which + 1], "{:?}", step);
    }
}

#[test]
fn whenever_the_power_fails_everything_answered_is_kept_and_everything_repeated_is_done_once() {
    let plan = Plan::new();
    for (operation, seed) in plan.crashes() {
        crash(&plan, operation, seed);
    }
}
