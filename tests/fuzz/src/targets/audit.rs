//! The auditor: recomputes from committed records, with arithmetic of its own, what either side may have charged and promised. It shares no code with the ledger.

use std::collections::{BTreeMap, BTreeSet};

use orien_protocol::hash::Hash;
use orien_protocol::id::ExecutionId;
use orien_protocol::job::Job;
use orien_protocol::receipt::{EndReason, Receipt, Work};
use orien_protocol::signing::{Signed, Statement};
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::voucher::{SignedClose, SignedVoucher};

use super::world::WORLD;

/// What one execution stands at.
#[derive(Clone, Copy, Debug)]
struct Used {
    ms: u64,
    per_minute: u64,
    fee: u64,
    ran: bool,
    ended: bool,
}

/// A chain of receipts and the promises that answer it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Chain {
    pub(crate) receipts: Vec<Signed<Receipt>>,
    hashes: Vec<Hash>,
    used: BTreeMap<ExecutionId, Used>,
    jobs: BTreeMap<ExecutionId, Signed<Job>>,
    pub(crate) newest_voucher: Option<SignedVoucher>,
}

impl Chain {
    pub(crate) fn charged(&self) -> u64 {
        self.receipts.last().map_or(0, |receipt| receipt.unverified().charged.micros())
    }

    pub(crate) fn promised(&self) -> u64 {
        self.newest_voucher.map_or(0, |voucher| voucher.unverified().total.micros())
    }

    pub(crate) fn head(&self) -> (u64, Hash) {
        (self.receipts.len() as u64, self.hashes.last().copied().unwrap_or(Hash::ZERO))
    }

    pub(crate) fn hash_of(&self, number: u64) -> Option<Hash> {
        self.hashes.get(usize::try_from(number.checked_sub(1)?).ok()?).copied()
    }

    pub(crate) fn job(&self, execution: &ExecutionId) -> Option<&Signed<Job>> {
        self.jobs.get(execution)
    }

    pub(crate) fn jobs(&self) -> impl Iterator<Item = &Signed<Job>> {
        self.jobs.values()
    }

    pub(crate) fn ms_of(&self, execution: &ExecutionId) -> u64 {
        self.used.get(execution).map_or(0, |used| used.ms)
    }

    pub(crate) fn take_job(&mut self, job: &Signed<Job>) {
        let before = self.jobs.insert(job.unverified().execution, job.clone());
        assert!(before.is_none(), "a job is taken once");
    }

    /// Numbers without gaps, each naming the one before, each charging what its work costs.
    pub(crate) fn take_receipt(&mut self, signed: &Signed<Receipt>, terms: &VerifiedTerms) {
        let receipt = signed.unverified();
        let (number, previous) = self.head();
        assert_eq!((receipt.number, receipt.previous), (number + 1, previous), "receipts have no gap and form one chain");
        assert_eq!((receipt.session, receipt.terms), (terms.session, terms.hash()));
        assert_eq!(receipt.work.is_none(), receipt.number == 1, "only the first receipt is without work");
        if let Some(work) = &receipt.work {
            self.take_work(work, terms);
        }
        assert_eq!(u128::from(receipt.charged.micros()), self.sum(terms), "the charge is what the work costs");
        self.hashes.push(receipt.hash(&WORLD.network));
        self.receipts.push(signed.clone());
    }

    fn take_work(&mut self, work: &Work, terms: &VerifiedTerms) {
        let Some(job) = self.jobs.get(&work.execution) else { panic!("a receipt for work that was never asked for") };
        let (job_hash, job) = (job.unverified().hash(&WORLD.network), job.unverified());
        assert_eq!((&work.tool, work.job), (&job.tool, job_hash));
        let price = terms.prices.iter().find(|price| price.tool == work.tool).unwrap().price;
        let ran = work.outcome.is_none_or(|outcome| outcome.end != EndReason::SetupFailed);
        let now = Used {
            ms: work.usage.effective_ms,
            per_minute: price.per_minute.micros(),
            fee: price.call_fee.micros(),
            ran,
            ended: work.outcome.is_some(),
        };
        let own = if ran { u128::from(now.per_minute) * u128::from(now.ms) / 60_000 + u128::from(now.fee) } else { 0 };
        assert_eq!(u128::from(work.charge.micros()), own);
        assert!(work.charge <= job.max_cost, "an execution never costs more than it may");
        if let Some(before) = self.used.insert(work.execution, now) {
            assert!(!before.ended, "nothing follows a final receipt");
            assert!(before.ms <= now.ms, "time never runs backwards");
            assert!(ran, "what has a receipt did run");
        }
        assert!(ran || now.ms == 0, "what never ran used no time");
    }

    /// What the next receipt has to charge if it reports this work.
    pub(crate) fn charge_with(&self, work: Option<&Work>, terms: &VerifiedTerms) -> u64 {
        let mut next = self.clone();
        if let Some(work) = work {
            let price = terms.price(&work.tool).unwrap_or_default();
            let ran = work.outcome.is_none_or(|outcome| outcome.end != EndReason::SetupFailed);
            let (per_minute, fee) = (price.per_minute.micros(), price.call_fee.micros());
            next.used.insert(work.execution, Used { ms: work.usage.effective_ms, per_minute, fee, ran, ended: false });
        }
        u64::try_from(next.sum(terms)).unwrap_or(u64::MAX)
    }

    fn sum(&self, terms: &VerifiedTerms) -> u128 {
        let ran = || self.used.values().filter(|used| used.ran);
        let products = ran().map(|used| u128::from(used.per_minute).checked_mul(u128::from(used.ms)).unwrap());
        let time = products.fold(0_u128, |sum, product| sum.checked_add(product).unwrap()) / 60_000;
        let fees: u128 = ran().map(|used| u128::from(used.fee)).sum();
        (time + fees).max(u128::from(terms.minimum_charge.micros()))
    }

    /// A promise is for exactly what a receipt charges, and only ever grows.
    pub(crate) fn take_voucher(&mut self, signed: &SignedVoucher, terms: &VerifiedTerms) {
        let voucher = signed.unverified();
        let hash = self.hash_of(voucher.receipt_number);
        assert_eq!(hash, Some(voucher.receipt_hash), "a voucher is for a receipt that exists");
        let receipt = self.receipts[voucher.receipt_number as usize - 1].unverified();
        assert_eq!((voucher.total, voucher.channel), (receipt.charged, terms.channel()));
        if let Some(before) = self.newest_voucher {
            assert!(before.unverified().rank() < voucher.rank(), "a promise only grows");
        }
        self.newest_voucher = Some(*signed);
    }
}

/// What was committed of an ending.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ends {
    pub(crate) closes: Vec<SignedClose>,
    pub(crate) closed: bool,
    pub(crate) begun: bool,
}

/// Each of these happens at most once.
#[derive(Clone, Debug, Default)]
pub(crate) struct Once(BTreeSet<ExecutionId>);

impl Once {
    pub(crate) fn note(&mut self, execution: ExecutionId, what: &str) {
        assert!(self.0.insert(execution), "{execution} was {what} twice");
    }
}
