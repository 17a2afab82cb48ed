//! What the books must say, by sums that share nothing with the product's, and what a desk says.

use std::collections::BTreeMap;

use orien_protocol::hash::Hash;
use orien_protocol::money::Usdc;
use orien_protocol::signing::Address;
use orien_settlement::batch::PayoutState;
use orien_settlement::desk::Desk;

use super::{CHANNELS, Step, World};

/// How things stand, in micro-USDC. Agents, providers and channels by their place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct View {
    /// Granted, available, reserved, earned, platform, reserve, settled.
    sums: [u128; 7],
    live: usize,
    payable: usize,
    /// Funded, reserved, redeemed, available.
    funds: [[u128; 4]; 2],
    /// Earned, settled, pending.
    earnings: [[u128; 3]; 2],
    /// Ceiling, redeemed, ended.
    channels: Vec<(u128, u128, bool)>,
    /// Of each batch, by channel: from, to, and what the step adds to provider, platform and reserve.
    batches: Vec<BTreeMap<usize, [u128; 5]>>,
    /// Payee, amount, whether it left.
    payouts: Vec<(usize, u128, bool)>,
    /// What is in batches, by channel.
    settled: BTreeMap<usize, u128>,
}

/// Provider, platform and reserve of a total.
fn split(total: u128) -> [u128; 3] {
    let fee = total / 10;
    let platform = fee * 7 / 10;
    [total - fee, platform, fee - platform]
}

#[derive(Clone, Copy, Debug, Default)]
struct Channel {
    ceiling: u128,
    redeemed: u128,
    number: u64,
    ended: bool,
    batched: u128,
}

/// What was done, added up.
#[derive(Clone, Debug, Default)]
pub(super) struct Model {
    granted: [u128; 2],
    channels: [Channel; CHANNELS.len()],
    batches: Vec<BTreeMap<usize, [u128; 5]>>,
    payouts: Vec<(usize, u128, bool)>,
}

impl Model {
    /// A step that the desk took or refused.
    pub(super) fn take(&mut self, step: &Step, refused: bool, is_late: bool) {
        match *step {
            _ if refused => {}
            Step::Grant { agent, micros, .. } => self.granted[agent] += u128::from(micros),
            Step::Reserve { channel, micros, .. } => self.channels[channel].ceiling = u128::from(micros),
            Step::Claim { channel, number, micros, close } => {
                let channel = &mut self.channels[channel];
                if number > channel.number {
                    (channel.number, channel.redeemed) = (number, u128::from(micros));
                }
                channel.ended |= close;
            }
            Step::Sweep => {
                self.channels.iter_mut().filter(|channel| channel.ceiling > 0 && is_late).for_each(|channel| channel.ended = true)
            }
            Step::Batch(_) => self.batch(),
            Step::Export(_) => self.payouts.iter_mut().for_each(|payout| payout.2 = true),
        }
    }

    fn batch(&mut self) {
        let (mut entries, mut owed) = (BTreeMap::new(), [0; 2]);
        for (which, channel) in self.channels.iter_mut().enumerate().filter(|(_, channel)| channel.redeemed > channel.batched) {
            let (from, to) = (split(channel.batched), split(channel.redeemed));
            let step = [to[0] - from[0], to[1] - from[1], to[2] - from[2]];
            entries.insert(which, [channel.batched, channel.redeemed, step[0], step[1], step[2]]);
            owed[CHANNELS[which].1] += step[0];
            channel.batched = channel.redeemed;
        }
        if !entries.is_empty() {
            self.batches.push(entries);
            self.payouts.extend((0..2).filter(|which| owed[*which] > 0).map(|which| (which, owed[which], false)));
        }
    }

    pub(super) fn view(&self) -> View {
        let (mut funds, mut earnings, mut shares) = ([[0; 4]; 2], [[0; 3]; 2], [0; 3]);
        for (which, channel) in self.channels.iter().enumerate() {
            let (agent, provider) = CHANNELS[which];
            funds[agent][1] += if channel.ended { 0 } else { channel.ceiling - channel.redeemed };
            funds[agent][2] += channel.redeemed;
            let parts = split(channel.redeemed);
            earnings[provider][0] += parts[0];
            (0..3).for_each(|part| shares[part] += parts[part]);
        }
        for (agent, funds) in funds.iter_mut().enumerate() {
            funds[0] = self.granted[agent];
            assert!(funds[1] + funds[2] <= funds[0], "more is reserved and redeemed than was granted");
            funds[3] = funds[0] - funds[1] - funds[2];
        }
        for (payee, amount, _) in self.payouts.iter().filter(|payout| payout.2) {
            earnings[*payee][1] += amount;
        }
        earnings.iter_mut().for_each(|earned| earned[2] = earned[0] - earned[1]);
        let left = earnings[0][1] + earnings[1][1];
        let of_agents = |part: usize| funds[0][part] + funds[1][part];
        let mut payouts = self.payouts.clone();
        payouts.sort_unstable();
        View {
            sums: [of_agents(0), of_agents(3), of_agents(1), shares[0] - left, shares[1], shares[2], left],
            live: self.channels.iter().filter(|channel| channel.ceiling > 0 && !channel.ended).count(),
            payable: self.payouts.iter().filter(|payout| !payout.2).count(),
            funds,
            earnings,
            channels: self.channels.iter().map(|channel| (channel.ceiling, channel.redeemed, channel.ended)).collect(),
            batches: self.batches.clone(),
            payouts,
            settled: self.channels.iter().enumerate().filter(|(_, it)| it.batched > 0).map(|(which, it)| (which, it.batched)).collect(),
        }
    }
}

fn wide(amount: Usdc) -> u128 {
    u128::from(amount.micros())
}

impl View {
    /// What a desk says of everything.
    pub(super) fn of(desk: &Desk, world: &World) -> Self {
        let (sums, live, payable) = desk.sums().unwrap();
        let sums = [sums.granted, sums.available, sums.reserved, sums.earned, sums.platform, sums.reserve, sums.settled];
        assert_eq!(sums[0], sums[1..].iter().sum::<u128>(), "every micro-USDC stands somewhere, once");
        let funds = [0, 1].map(|agent| {
            let funds = desk.funds(&world.agents[agent].principal).unwrap();
            [funds.funded, funds.reserved, funds.redeemed, funds.available].map(wide)
        });
        let earnings = [0, 1].map(|provider| {
            let earnings = desk.earnings(&world.providers[provider].principal).unwrap();
            [earnings.earned, earnings.settled, earnings.pending].map(wide)
        });
        let channels = world.terms.iter().map(|terms| {
            let state = desk.channel_state(&terms.channel()).unwrap();
            (wide(state.ceiling), wide(state.redeemed), state.closed)
        });
        let provider = |payee: &Address| world.providers.iter().position(|party| party.principal == *payee).unwrap();
        let payouts = desk.payouts(None, 1_000).unwrap();
        let mut payouts: Vec<_> =
            payouts.iter().map(|it| (provider(&it.payee), wide(it.amount), it.state != PayoutState::Payable)).collect();
        payouts.sort_unstable();
        let channel = |id| world.terms.iter().position(|terms| terms.channel() == id).unwrap();
        let settlements = desk.settlements(None, 1_000).unwrap();
        let settled = settlements.iter().map(|it| (channel(it.channel), wide(it.total))).collect();
        Self { sums, live, payable, funds, earnings, channels: channels.collect(), batches: batches(desk, world), payouts, settled }
    }
}

/// Batches in their order, each checked to follow the one before and to be paid out as its entries say.
fn batches(desk: &Desk, world: &World) -> Vec<BTreeMap<usize, [u128; 5]>> {
    let (mut found, mut previous) = (Vec::new(), Hash::ZERO);
    for summary in desk.batches(None, 1_000).unwrap() {
        let summary = summary.verify(&world.kit.network, &world.kit.house.facts().peer).unwrap();
        assert_eq!(summary.previous, previous, "batches form one chain");
        previous = summary.hash();
        let batch = desk.batch_evidence(&summary.id).unwrap().unwrap();
        assert_eq!(batch.entries.len(), usize::try_from(summary.entries).unwrap());
        let (mut entries, mut owed) = (BTreeMap::new(), 0);
        for entry in &batch.entries {
            let which = world.terms.iter().position(|terms| terms.channel() == entry.channel).unwrap();
            assert_eq!(entry.evidence.voucher.unverified().total, entry.to_total, "the evidence is for what was redeemed");
            let shares = [entry.shares.provider, entry.shares.platform, entry.shares.reserve].map(wide);
            owed += shares[0];
            let twice = entries.insert(which, [wide(entry.from_total), wide(entry.to_total), shares[0], shares[1], shares[2]]);
            assert_eq!(twice, None);
        }
        assert_eq!(batch.payouts.iter().map(|payout| wide(payout.amount)).sum::<u128>(), owed);
        found.push(entries);
    }
    found
}
