//! The protocol's simulated worlds with the real books as their settlement: reserved, redeemed, batched and paid by the code that runs, restarted from what it had committed.
//!
//! `ORIEN_SEEDS=n` runs more of them.

use std::collections::BTreeMap;
use std::sync::Arc;

use orien_protocol::channel::ChannelId;
use orien_protocol::fault::Fault;
use orien_protocol::frame::{ChannelState, Claim};
use orien_protocol::hash::Hash;
use orien_protocol::id::{PayoutId, RequestId};
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::signing::{Address, PeerKey};
use orien_protocol::sim::house::{AccountFacts, House as SimHouse, HouseFacts, LAG_AND_DELAY, Payment};
use orien_protocol::sim::{Scenario, Stage, run};
use orien_protocol::terms::SignedTerms;
use orien_protocol::time::Timestamp;
use orien_protocol::voucher::{SignedAllowance, SignedClose};
use orien_settlement::batch::Payout;
use orien_settlement::books::{AccountRecord, Books, Change, ChannelRecord, Grant, RequestKey, RequestRecord, Restore};
use orien_settlement::evidence::{CheckedClaim, CheckedRelease, check_terms};
use orien_settlement::house::House;
use orien_settlement::ledger::{LedgerAccount, Transfer};
use orien_settlement::rail::LedgerRail;

use crate::kit::batch_id;

const SEEDS: u64 = 90;

/// What was committed, as the store keeps it.
#[derive(Default)]
struct Disk {
    transfers: Vec<Transfer>,
    accounts: BTreeMap<Address, AccountRecord>,
    channels: BTreeMap<ChannelId, ChannelRecord>,
    claims: BTreeMap<ChannelId, Claim>,
    requests: BTreeMap<RequestKey, RequestRecord>,
    payouts: BTreeMap<PayoutId, Payout>,
    newest_batch: Option<Hash>,
}

struct RealHouse {
    house: Arc<House>,
    books: Books,
    disk: Disk,
    count: u128,
}

impl RealHouse {
    fn new(stage: &Stage) -> Self {
        let peer = Arc::new(PeerKey::from_seed(&[77; 32]));
        let (lag, delay) = LAG_AND_DELAY;
        let house = Arc::new(House::new(stage.network.clone(), stage.domain, Arc::clone(&stage.key), peer, lag, delay));
        Self { books: Books::new(Arc::clone(&house), Arc::new(LedgerRail)), house, disk: Disk::default(), count: 0 }
    }

    /// Committed, then applied, then answered.
    fn carry_out(&mut self, change: &Change) {
        let disk = &mut self.disk;
        disk.transfers.extend(change.transfers.iter().cloned());
        disk.accounts.extend(change.accounts.iter().cloned());
        disk.channels.extend(change.channels.iter().map(|record| (record.id(), record.clone())));
        disk.claims.extend(change.claims.iter().cloned());
        disk.requests.extend(change.requests.iter().cloned());
        change.forgotten.iter().for_each(|key| drop(disk.requests.remove(key)));
        disk.payouts.extend(change.payouts.iter().map(|payout| (payout.id, *payout)));
        if let Some(batch) = &change.batch {
            disk.newest_batch = Some(batch.summary.unverified().content_id(&self.house.facts().network));
        }
        self.books.apply(change).unwrap();
        for record in &change.channels {
            self.books.set_aside(&record.id());
        }
    }

    fn recall(&mut self, channel: &ChannelId) {
        if let Some(record) = self.disk.channels.get(channel).filter(|_| !self.books.holds(channel)) {
            self.books.recall(record.clone(), None);
        }
    }
}

impl SimHouse for RealHouse {
    fn grant(&mut self, account: Address, spending_key: Address, amount: Usdc, now: Timestamp) {
        self.count += 1;
        let grant = Grant { spending_key: Some(spending_key), ..Grant::of(account, amount) };
        let change = self.books.grant(&self.count.to_string(), &grant, now).unwrap();
        self.carry_out(&change);
    }

    fn reserve(
        &mut self,
        caller: PeerId,
        request: RequestId,
        terms: SignedTerms,
        ceiling: Usdc,
        now: Timestamp,
    ) -> Result<SignedAllowance, Fault> {
        let terms = check_terms(terms, self.house.facts())?;
        self.recall(&terms.channel());
        let (change, allowance) = self.books.reserve(caller, request, &terms, ceiling, now)?;
        self.carry_out(&change);
        Ok(allowance)
    }

    fn claim(&mut self, claim: Claim, now: Timestamp) -> Result<ChannelState, Fault> {
        let claim = CheckedClaim::check(claim, self.house.facts())?;
        self.recall(&claim.terms().channel());
        let (change, state) = self.books.claim(&claim, now)?;
        self.carry_out(&change);
        Ok(state)
    }

    fn release(&mut self, caller: PeerId, terms: SignedTerms, close: SignedClose, now: Timestamp) -> Result<ChannelState, Fault> {
        let release = CheckedRelease::check(terms, close, self.house.facts())?;
        self.recall(&release.terms().channel());
        let (change, state) = self.books.release(caller, &release, now)?;
        self.carry_out(&change);
        Ok(state)
    }

    fn sweep(&mut self, now: Timestamp) {
        let change = self.books.sweep(now).unwrap();
        self.carry_out(&change);
    }

    fn pay(&mut self, now: Timestamp) -> Vec<Payment> {
        self.count += 1;
        let claims = self.books.unbatched().map(|channel| self.disk.claims[&channel].clone()).collect();
        let (change, _) = self.books.batch(batch_id(self.count), None, claims, now).unwrap();
        self.carry_out(&change);
        let (change, ids) = self.books.export(&self.count.to_string(), now).unwrap();
        self.carry_out(&change);
        ids.iter()
            .map(|id| {
                let payout = self.disk.payouts[id];
                Payment { id: u128::from_be_bytes(*payout.id.as_bytes()), payee: payout.payee, amount: payout.amount }
            })
            .collect()
    }

    fn crash(&mut self) {
        let mut restore = Restore::new(Arc::clone(&self.house), Arc::new(LedgerRail));
        self.disk.transfers.iter().for_each(|transfer| restore.transfer(transfer).unwrap());
        self.disk.accounts.iter().for_each(|(address, record)| restore.account(*address, record.clone()));
        self.disk.channels.values().for_each(|record| restore.channel(record).unwrap());
        self.disk.requests.iter().for_each(|(key, record)| restore.request(key.clone(), record.clone()));
        self.disk.payouts.values().for_each(|payout| restore.payout(payout));
        self.disk.newest_batch.into_iter().for_each(|id| restore.newest_batch(id));
        self.books = restore.finish().unwrap();
    }

    fn facts(&self) -> HouseFacts {
        let (mut facts, ledger) = (HouseFacts::default(), self.books.ledger());
        for (account, record) in &self.disk.accounts {
            let funds = self.books.funds(account);
            let wide = |amount: Usdc| u128::from(amount.micros());
            let (granted, reserved, redeemed) = (wide(record.granted), wide(funds.reserved), wide(funds.redeemed));
            facts.accounts.insert(*account, AccountFacts { granted, reserved, redeemed, available: wide(funds.available) });
        }
        for record in self.disk.channels.values() {
            facts.channels.insert(record.id(), record.state());
            let (pending, settled) = (LedgerAccount::Payee(record.payout), LedgerAccount::Settled(record.payout));
            facts.payees.insert(record.payout, (ledger.balance(&pending), ledger.balance(&settled)));
        }
        facts.fees = (ledger.balance(&LedgerAccount::Platform), ledger.balance(&LedgerAccount::Reserve));
        facts
    }
}

#[test]
fn every_world_keeps_every_rule_with_the_real_books() {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let stage = Stage::new().unwrap();
    for seed in 0..number("ORIEN_SEEDS").unwrap_or(SEEDS) {
        let scenario = Scenario::of_seed(seed);
        let report = run(&scenario, &stage, &mut RealHouse::new(&stage), false);
        assert!(report.breaches.is_empty(), "seed {seed}: {:?}\n{scenario:#?}", report.breaches);
    }
}
