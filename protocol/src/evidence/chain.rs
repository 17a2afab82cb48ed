//! The audit's own fold of receipts: numbers, hashes, time and charge, each against the one before and the terms.

#![deny(clippy::arithmetic_side_effects)]

use std::collections::BTreeMap;

use super::arithmetic::{Micros, charge, decimal, time};
use super::audit::document;
use super::findings::Findings;
use super::lines::{JobLine, ReceiptLine};
use crate::hash::Hash;
use crate::id::ExecutionId;
use crate::job::Job;
use crate::money::{Price, Usdc};
use crate::receipt::{EndReason, Receipt, Work};
use crate::signing::{Signed, Verified};
use crate::terms::VerifiedTerms;
use crate::voucher::SignedVoucher;

/// The agent's jobs, and whether a receipt names them.
#[derive(Debug)]
pub(super) struct Jobs(BTreeMap<Hash, (Verified<Job>, bool)>);

impl Jobs {
    /// Reads and checks them.
    pub(super) fn read(lines: &[JobLine], terms: &VerifiedTerms, findings: &mut Findings) -> Self {
        let mut jobs = BTreeMap::new();
        let mut asked = BTreeMap::new();
        for (index, line) in lines.iter().enumerate() {
            let about = format!("jobs[{index}]");
            let Some(signed) = document::<Signed<Job>>(&line.evidence) else {
                findings.add(format_args!("{about}.evidence"), "it cannot be read");
                continue;
            };
            match JobLine::of(&signed, terms.network()) {
                Ok(expected) => findings.line(&about, line, &expected),
                Err(error) => findings.add(&about, error),
            }
            let Ok(job) = signed.verify(terms.network(), &terms.agent()) else {
                findings.add(format_args!("{about}.evidence"), "the agent did not sign it");
                continue;
            };
            if job.session != terms.session {
                findings.add(&about, "it is for another session");
            }
            if asked.insert(job.execution, index).is_some() {
                findings.add(&about, "the same execution was asked for twice");
            }
            jobs.insert(job.hash(), (job, false));
        }
        Self(jobs)
    }

    fn named(&mut self, hash: &Hash) -> Option<&Verified<Job>> {
        self.0.get_mut(hash).map(|(job, is_named)| {
            *is_named = true;
            &*job
        })
    }

    /// A job that nothing here is about has no place in the file.
    pub(super) fn report_unnamed(&self, findings: &mut Findings) {
        for (job, _) in self.0.values().filter(|(_, is_named)| !is_named) {
            findings.add("jobs", format_args!("no receipt names the job of {}", job.execution));
        }
    }
}

/// One execution so far.
#[derive(Clone, Copy, Debug)]
struct Run {
    ms: u64,
    is_over: bool,
}

/// The session so far.
#[derive(Clone, Debug)]
pub(super) struct Chain<'a> {
    terms: &'a VerifiedTerms,
    head: (u64, Hash),
    runs: BTreeMap<ExecutionId, Run>,
    time: u128,
    fees: Micros,
    /// By the newest receipt, recomputed.
    pub(super) charged: Micros,
    /// By the newest voucher.
    pub(super) promised: Micros,
}

impl<'a> Chain<'a> {
    /// Before the first receipt.
    pub(super) fn new(terms: &'a VerifiedTerms) -> Self {
        Self { terms, head: (0, Hash::ZERO), runs: BTreeMap::new(), time: 0, fees: 0, charged: 0, promised: 0 }
    }

    pub(super) fn receipts(&self) -> usize {
        usize::try_from(self.head.0).unwrap_or(usize::MAX)
    }

    pub(super) fn executions(&self) -> usize {
        self.runs.len()
    }

    pub(super) fn ended(&self) -> usize {
        self.runs.values().filter(|run| run.is_over).count()
    }

    /// Takes a receipt that the agent answered, and its voucher.
    pub(super) fn take(&mut self, about: &str, line: &ReceiptLine, jobs: &mut Jobs, findings: &mut Findings) {
        let Some(receipt) = self.genuine(about, line, findings) else { return };
        let mut wrong = Vec::new();
        self.follow(&receipt, jobs, &mut wrong);
        wrong.into_iter().for_each(|text| findings.add(about, text));
        self.voucher(about, line, &receipt, findings);
        self.head = (receipt.number, receipt.hash());
    }

    /// Looks at a receipt that the agent refused to answer, and says why it did not follow as far as that can be seen.
    pub(super) fn refuse(&self, about: &str, line: &ReceiptLine, jobs: &mut Jobs, findings: &mut Findings) -> Option<String> {
        let receipt = self.genuine(about, line, findings)?;
        if line.voucher.is_some() {
            findings.add(format_args!("{about}.voucher"), "a receipt that was answered is not disputed");
        }
        let mut why = Vec::new();
        // Only looked at: the sums stay as they are.
        self.clone().follow(&receipt, jobs, &mut why);
        let why =
            why.first().map_or("it follows; the agent had a reason that the documents do not show, such as its own stopwatch", |why| why);
        Some(format!("the provider signed receipt {}, which the agent disputed: {why}", receipt.number))
    }

    /// The receipt of a line, if the provider signed it.
    fn genuine(&self, about: &str, line: &ReceiptLine, findings: &mut Findings) -> Option<Verified<Receipt>> {
        let Some(signed) = document::<Signed<Receipt>>(&line.evidence) else {
            findings.add(format_args!("{about}.evidence"), "it cannot be read");
            return None;
        };
        match ReceiptLine::of(&signed, None, self.terms.network()) {
            Ok(expected) => {
                findings.line(about, line, &expected);
                match (&line.work, &expected.work) {
                    (Some(found), Some(expected)) => findings.line(&format!("{about}.work"), found, expected),
                    (found, expected) => findings.same(format_args!("{about}.work"), found, expected),
                }
            }
            Err(error) => findings.add(about, error),
        }
        let receipt = signed.verify(self.terms.network(), &self.terms.provider());
        if receipt.is_err() {
            findings.add(format_args!("{about}.evidence"), "the provider did not sign it");
        }
        receipt.ok()
    }

    /// Adds a receipt to the sums, and says what does not follow.
    fn follow(&mut self, receipt: &Verified<Receipt>, jobs: &mut Jobs, wrong: &mut Vec<String>) {
        let (number, hash) = self.head;
        if receipt.session != self.terms.session || receipt.terms != self.terms.hash() {
            wrong.push("it belongs to another session or to other terms".to_owned());
        }
        if Some(receipt.number) != number.checked_add(1) {
            wrong.push(format!("it has number {} after number {number}", receipt.number));
        }
        if receipt.previous != hash {
            wrong.push("it names another predecessor".to_owned());
        }
        if receipt.confinement < self.terms.confinement {
            wrong.push("the tool was confined less than the terms say".to_owned());
        }
        match &receipt.work {
            None if receipt.number == 1 => {}
            None => wrong.push("only receipt 1 may be without work".to_owned()),
            Some(work) => self.work(work, jobs, wrong),
        }
        match charge(self.time, self.fees, Micros::from(self.terms.minimum_charge.micros())) {
            None => wrong.push("the sums leave their range".to_owned()),
            Some(due) => {
                if due != Micros::from(receipt.charged.micros()) {
                    wrong.push(format!("it charges {} USDC, recomputed it is {}", receipt.charged, decimal(due)));
                }
                self.charged = due;
            }
        }
    }

    fn work(&mut self, work: &Work, jobs: &mut Jobs, wrong: &mut Vec<String>) {
        match jobs.named(&work.job) {
            None => wrong.push(format!("the agent's job of {} is not in the file", work.execution)),
            Some(job) => {
                if job.execution != work.execution || job.tool != work.tool {
                    wrong.push("its job is for another execution or tool".to_owned());
                }
                if work.charge > job.max_cost {
                    wrong.push(format!("the execution is charged {} USDC and may cost {}", work.charge, job.max_cost));
                }
            }
        }
        let Some(price) = self.terms.price(&work.tool) else {
            return wrong.push("the terms name no such tool".to_owned());
        };
        if work.outcome.is_some_and(|outcome| outcome.party != outcome.end.party()) {
            wrong.push("its end is blamed on somebody else than its reason says".to_owned());
        }
        if !self.time_of(work, price, wrong) {
            wrong.push("the sums leave their range".to_owned());
        }
    }

    /// Adds the time of a receipt. Whether the sums hold.
    fn time_of(&mut self, work: &Work, price: Price, wrong: &mut Vec<String>) -> bool {
        let (now, end) = (work.usage.effective_ms, work.outcome.map(|outcome| outcome.end));
        let before = self.runs.get(&work.execution).copied();
        let never_ran = end == Some(EndReason::SetupFailed);
        let earlier = before.map_or(0, |run| run.ms);
        if before.is_some_and(|run| run.is_over) {
            wrong.push(format!("{} had ended before", work.execution));
        }
        if now < earlier || (never_ran && (now != 0 || before.is_some())) {
            wrong.push(format!("{} went backwards", work.execution));
        }
        if end.is_none() && now == earlier {
            wrong.push("an interim receipt reports nothing new".to_owned());
        }
        let step = time(price.per_minute.micros(), now.saturating_sub(earlier));
        let fee = if before.is_none() && !never_ran { price.call_fee } else { Usdc::ZERO };
        let own = if never_ran {
            Some(0)
        } else {
            time(price.per_minute.micros(), now).and_then(|own| charge(own, Micros::from(price.call_fee.micros()), 0))
        };
        self.runs.insert(work.execution, Run { ms: now, is_over: end.is_some() });
        let sums = step.and_then(|step| self.time.checked_add(step)).zip(self.fees.checked_add(Micros::from(fee.micros())));
        let (Some((time, fees)), Some(own)) = (sums, own) else { return false };
        (self.time, self.fees) = (time, fees);
        if own != Micros::from(work.charge.micros()) {
            wrong.push(format!("the execution is charged {} USDC, recomputed it is {}", work.charge, decimal(own)));
        }
        true
    }

    fn voucher(&mut self, about: &str, line: &ReceiptLine, receipt: &Verified<Receipt>, findings: &mut Findings) {
        let about = format!("{about}.voucher");
        let Some(line) = &line.voucher else { return findings.add(about, "the receipt was not answered") };
        let Some(signed) = document::<SignedVoucher>(&line.evidence) else {
            return findings.add(format_args!("{about}.evidence"), "it cannot be read");
        };
        match super::lines::VoucherLine::of(&signed) {
            Ok(expected) => findings.line(&about, line, &expected),
            Err(error) => findings.add(&about, error),
        }
        let body = signed.unverified();
        if signed.verify(&self.terms.domain, &self.terms.spending_key()).is_err() || body.channel != self.terms.channel() {
            return findings.add(about, "the agent did not sign it for this channel");
        }
        if body.receipt_number != receipt.number || body.receipt_hash != receipt.hash() {
            findings.add(&about, "it answers another receipt");
        }
        if body.total != receipt.charged {
            findings.add(&about, format_args!("it promises {} USDC and the receipt charges {}", body.total, receipt.charged));
        }
        self.promised = Micros::from(body.total.micros());
    }
}
