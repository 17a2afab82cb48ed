//! Any sequence of operations keeps the rules: zero sum, M11, shares that only grow, each redemption in one batch.

use std::collections::BTreeMap;
use std::sync::Arc;

use orien_protocol::channel::ChannelId;
use orien_protocol::frame::Claim;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::time::{Millis, Timestamp};
use orien_protocol::voucher::SignedAllowance;
use orien_settlement::books::{Books, Change, Restore};
use orien_settlement::evidence::{CheckedClaim, CheckedRelease};
use orien_settlement::ledger::LedgerAccount;
use orien_settlement::rail::LedgerRail;
use proptest::prelude::*;

use crate::kit::{Kit, Party, REDEEM, START, after, apply, batch_id, micros, request};

const CHANNELS: usize = 4;

#[derive(Clone, Debug)]
enum Step {
    Grant { agent: usize, micros: u64 },
    Reserve { channel: usize, request: u128, micros: u64 },
    Claim { channel: usize, number: u64, micros: u64, close: bool },
    Replay { which: usize },
    Release { channel: usize },
    Wait { seconds: u64 },
    Sweep,
    Batch,
    Export,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        2 => (0..2_usize, 1..4_000_000_u64).prop_map(|(agent, micros)| Step::Grant { agent, micros }),
        4 => (0..CHANNELS, 0..12_u128, 1..3_000_000_u64).prop_map(|(channel, request, micros)| Step::Reserve { channel, request, micros }),
        8 => (0..CHANNELS, 1..9_u64, 0..3_000_000_u64, prop::bool::weighted(0.1)).prop_map(|(channel, number, micros, close)| Step::Claim { channel, number, micros, close }),
        3 => (0..64_usize).prop_map(|which| Step::Replay { which }),
        1 => (0..CHANNELS).prop_map(|channel| Step::Release { channel }),
        1 => (1..4_000_u64).prop_map(|seconds| Step::Wait { seconds }),
        1 => Just(Step::Sweep),
        2 => Just(Step::Batch),
        1 => Just(Step::Export),
    ];
    prop::collection::vec(step, 1..50)
}

/// The books under test, and an account of them that is kept apart.
struct World {
    kit: Kit,
    books: Books,
    agents: [Party; 2],
    providers: [Party; 2],
    terms: Vec<VerifiedTerms>,
    allowances: Vec<Option<SignedAllowance>>,
    now: Timestamp,
    count: u128,
    stored: Vec<Change>,
    claims: Vec<(usize, Claim)>,
    newest: BTreeMap<ChannelId, Claim>,
    redeemed: BTreeMap<usize, Usdc>,
    batched: BTreeMap<ChannelId, Usdc>,
    granted: u128,
}

impl World {
    fn new() -> Self {
        let kit = Kit::new();
        let (agents, providers) = ([Party::new(1), Party::new(2)], [Party::new(3), Party::new(4)]);
        let terms = (0..CHANNELS).map(|n| kit.terms(&agents[n % 2], &providers[n / 2], n as u128)).collect();
        Self {
            books: kit.books(),
            kit,
            agents,
            providers,
            terms,
            allowances: vec![None; CHANNELS],
            now: START,
            count: 0,
            stored: Vec::new(),
            claims: Vec::new(),
            newest: BTreeMap::new(),
            redeemed: BTreeMap::new(),
            batched: BTreeMap::new(),
            granted: 0,
        }
    }

    fn take(&mut self, change: Change) {
        apply(&mut self.books, &change);
        self.newest.extend(change.claims.iter().cloned());
        self.stored.push(change);
    }

    fn step(&mut self, step: &Step) {
        self.count += 1;
        match *step {
            Step::Grant { agent, micros: amount } => {
                let change = self.books.grant(&self.count.to_string(), &self.agents[agent].grant(micros(amount)), self.now).unwrap();
                self.granted += u128::from(amount);
                self.take(change);
            }
            Step::Reserve { channel, request: name, micros: ceiling } => {
                let caller = self.agents[channel % 2].peer.id();
                if let Ok((change, allowance)) = self.books.reserve(caller, request(name), &self.terms[channel], micros(ceiling), self.now)
                {
                    let newer = self.allowances[channel].is_none_or(|old| old.unverified().ceiling <= allowance.unverified().ceiling);
                    if newer {
                        self.allowances[channel] = Some(allowance);
                    }
                    self.take(change);
                }
            }
            Step::Claim { channel, number, micros: total, close } => self.make_claim(channel, number, micros(total), close),
            Step::Replay { which } => {
                if let Some((channel, claim)) = self.claims.get(which % self.claims.len().max(1)).cloned() {
                    self.claim(channel, claim);
                }
            }
            Step::Release { channel } => self.release(channel),
            Step::Wait { seconds } => self.now = self.now.plus(Millis::from_secs(seconds)),
            Step::Sweep => {
                let change = self.books.sweep(self.now).unwrap();
                self.take(change);
            }
            Step::Batch => self.batch(),
            Step::Export => {
                let (change, _) = self.books.export(&self.count.to_string(), self.now).unwrap();
                self.take(change);
            }
        }
    }

    fn make_claim(&mut self, channel: usize, number: u64, total: Usdc, close: bool) {
        let Some(allowance) = self.allowances[channel] else { return };
        let (agent, provider) = (&self.agents[channel % 2], &self.providers[channel / 2]);
        let mut claim = self.kit.claim(&self.terms[channel], allowance, (agent, provider), number, total);
        if close {
            claim = self.kit.closed(claim, provider, total);
        }
        self.claims.push((channel, claim.clone()));
        self.claim(channel, claim);
    }

    fn claim(&mut self, channel: usize, claim: Claim) {
        let total = claim.voucher.unverified().total;
        let Ok(checked) = CheckedClaim::check(claim, self.kit.house.facts()) else { return };
        let Ok((change, state)) = self.books.claim(&checked, self.now) else { return };
        let before = self.redeemed.get(&channel).copied().unwrap_or_default();
        assert!(state.redeemed == before || state.redeemed == total, "redeemed something else");
        assert!(state.redeemed >= before && state.redeemed <= state.ceiling);
        self.redeemed.insert(channel, state.redeemed);
        self.take(change);
        let (again, same) = self.books.claim(&checked, self.now).unwrap();
        assert!(again.is_empty() && same == state, "a repeated claim changed something");
    }

    fn release(&mut self, channel: usize) {
        let (caller, terms) = (self.agents[channel % 2].peer.id(), &self.terms[channel]);
        let close = self.kit.close_of(terms, &self.providers[channel / 2], micros(0));
        let release = CheckedRelease::check(terms.to_signed(), close, self.kit.house.facts()).unwrap();
        let is_redeemed = self.redeemed.get(&channel).is_some_and(|total| *total > Usdc::ZERO);
        let Ok((change, state)) = self.books.release(caller, &release, self.now) else { return };
        assert!(!is_redeemed && state.closed, "released what was redeemed from");
        self.take(change);
        let (again, same) = self.books.release(caller, &release, self.now).unwrap();
        assert!(again.is_empty() && same == state, "a repeated release changed something");
    }

    fn batch(&mut self) {
        let claims = self.books.unbatched().map(|channel| self.newest[&channel].clone()).collect();
        let (change, _) = self.books.batch(batch_id(self.count), None, claims, self.now).unwrap();
        for entry in change.batch.iter().flat_map(|batch| &batch.entries) {
            let from = self.batched.insert(entry.channel, entry.to_total).unwrap_or_default();
            assert_eq!(entry.from_total, from, "a redemption is in two batches or in none");
        }
        self.take(change);
    }

    fn check(&self) {
        let sums = self.books.sums();
        assert!(sums.balanced());
        assert_eq!(sums.granted, self.granted);
        for agent in &self.agents {
            let funds = self.books.funds(&agent.principal);
            let used = funds.reserved.plus(funds.redeemed).unwrap();
            assert!(used <= funds.funded, "M11");
            assert_eq!(used.plus(funds.available).unwrap(), funds.funded);
        }
        let mut expected = [0_u128; 4];
        for (channel, total) in &self.redeemed {
            let split = Split::of(*total);
            expected[channel / 2] += u128::from(split.provider.micros());
            expected[2] += u128::from(split.platform.micros());
            expected[3] += u128::from(split.reserve.micros());
        }
        for (which, provider) in self.providers.iter().enumerate() {
            let earnings = self.books.earnings(&provider.principal);
            assert_eq!(u128::from(earnings.earned.micros()), expected[which]);
        }
        let ledger = self.books.ledger();
        assert_eq!([ledger.balance(&LedgerAccount::Platform), ledger.balance(&LedgerAccount::Reserve)], [expected[2], expected[3]]);
    }

    /// Folds all that was stored again, as a restart does.
    fn restart(&self) {
        let mut restore = Restore::new(Arc::clone(&self.kit.house), Arc::new(LedgerRail));
        let (mut accounts, mut channels, mut payouts) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        for change in &self.stored {
            change.transfers.iter().for_each(|transfer| restore.transfer(transfer).unwrap());
            accounts.extend(change.accounts.iter().cloned());
            channels.extend(change.channels.iter().map(|record| (record.id(), record.clone())));
            payouts.extend(change.payouts.iter().map(|payout| (payout.id, *payout)));
        }
        accounts.into_iter().for_each(|(address, record)| restore.account(address, record));
        channels.values().for_each(|record| restore.channel(record).unwrap());
        payouts.values().for_each(|payout| restore.payout(payout));
        let books = restore.finish().unwrap();
        assert_eq!(books.sums(), self.books.sums());
        assert_eq!((books.live_channels(), books.payable()), (self.books.live_channels(), self.books.payable()));
        for agent in &self.agents {
            assert_eq!(books.funds(&agent.principal), self.books.funds(&agent.principal));
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_sequence_keeps_the_sums_the_reservations_and_exactly_once(steps in steps()) {
        let mut world = World::new();
        world.step(&Step::Grant { agent: 0, micros: 5_000_000 });
        world.step(&Step::Grant { agent: 1, micros: 5_000_000 });
        for channel in 0..CHANNELS {
            world.step(&Step::Reserve { channel, request: 100 + channel as u128, micros: 1_500_000 });
        }
        for step in &steps {
            world.step(step);
            world.check();
        }
        world.restart();
        // In the end everything is released or redeemed, batched and exported.
        world.now = world.now.max(after(REDEEM)).plus(Millis::from_secs(10));
        for step in [Step::Sweep, Step::Batch, Step::Export] {
            world.step(&step);
        }
        world.check();
        let sums = world.books.sums();
        prop_assert_eq!((sums.reserved, sums.earned), (0, 0));
        world.restart();
    }
}
