//! Recomputes a session from its file alone, without trusting whoever wrote it.
//!
//! The audit shares no arithmetic with the two sides: it meters, splits and prints in its own way, and checks every signature again. It reports everything that is wrong, not
//! just the first. Without expected facts it believes the file's own network, and says so.
//!
//! It cannot see what was left out at the end: a file that stops at an earlier receipt is a true file of an earlier time, unless the payee's close names a later total.

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::arithmetic::{Micros, Shares, decimal};
use super::chain::{Chain, Jobs};
use super::findings::{Finding, Findings};
use super::lines::{AllowanceLine, CloseLine, NetworkLine, SessionLine, TotalsLine};
use super::{FORMAT, Facts, SessionBundle};
use crate::codec::{self, VALUE_LIMIT_BYTES};
use crate::signing::MoneyDomain;
use crate::terms::{SignedTerms, VerifiedTerms};
use crate::voucher::{SignedAllowance, SignedClose};

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SessionReport {
    /// The session, as the file names it.
    pub session: String,
    /// The network, as the file names it.
    pub network: String,
    /// Whether the network was compared with facts from elsewhere.
    pub network_compared: bool,
    /// How many receipts were recomputed.
    pub receipts: usize,
    /// How many executions they are about.
    pub executions: usize,
    /// How many of those have a receipt that says how they ended.
    pub ended: usize,
    /// Recomputed, USDC.
    pub charged: String,
    /// Promised by the newest voucher, USDC.
    pub total_cost: String,
    /// Recomputed, USDC.
    pub provider_payout: String,
    /// Recomputed, USDC.
    pub platform_fee: String,
    /// Recomputed, USDC.
    pub reserve: String,
    /// Reserved at last, USDC; null when nothing ever was.
    pub ceiling: Option<String>,
    /// What the payee closed at, USDC; null while it has not.
    pub closed_at: Option<String>,
    /// How many receipts the agent refused to answer.
    pub disputed: usize,
    /// What is worth knowing and not wrong.
    pub notes: Vec<String>,
    /// Everything that is wrong; empty for clean evidence.
    pub findings: Vec<Finding>,
}

impl SessionReport {
    /// Whether nothing is wrong.
    pub fn clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Audits a bundle, against the facts of a network if there are any.
pub fn audit(bundle: &SessionBundle, expected: Option<&Facts>) -> SessionReport {
    let mut findings = Findings::default();
    let mut report = empty(bundle, expected.is_some());
    findings.same("format", &bundle.format, &FORMAT.to_owned());
    let terms = facts(&bundle.network, expected, &mut findings).and_then(|facts| terms(&bundle.session, &facts, &mut findings));
    if let Some(terms) = terms {
        let ceiling = bundle.allowance.as_ref().and_then(|line| allowance(line, &terms, &mut findings));
        let mut jobs = Jobs::read(&bundle.jobs, &terms, &mut findings);
        let mut chain = Chain::new(&terms);
        for (index, line) in bundle.receipts.iter().enumerate() {
            chain.take(&format!("receipts[{index}]"), line, &mut jobs, &mut findings);
        }
        for (index, line) in bundle.disputed.iter().enumerate() {
            let why = chain.refuse(&format!("disputed[{index}]"), line, &mut jobs, &mut findings);
            report.notes.extend(why);
        }
        jobs.report_unnamed(&mut findings);
        if chain.promised > 0 && ceiling.is_none_or(|ceiling| chain.promised > ceiling) {
            let reserved = decimal(ceiling.unwrap_or(0));
            findings.add("allowance", format_args!("{} USDC are promised and {reserved} reserved", decimal(chain.promised)));
        }
        let closed = bundle.close.as_ref().and_then(|line| close(line, &terms, &chain, &mut findings, &mut report.notes));
        (report.ceiling, report.closed_at) = (ceiling.map(decimal), closed.map(decimal));
        sums(&chain, &bundle.totals, &mut report, &mut findings);
    }
    report.findings = findings.finish();
    report
}

fn empty(bundle: &SessionBundle, network_compared: bool) -> SessionReport {
    let nothing = || decimal(0);
    SessionReport {
        session: bundle.session.id.clone(),
        network: bundle.network.id.clone(),
        network_compared,
        receipts: 0,
        executions: 0,
        ended: 0,
        charged: nothing(),
        total_cost: nothing(),
        provider_payout: nothing(),
        platform_fee: nothing(),
        reserve: nothing(),
        ceiling: None,
        closed_at: None,
        disputed: bundle.disputed.len(),
        notes: Vec::new(),
        findings: Vec::new(),
    }
}

/// Reads a document; only the one way to write it is taken, so that nothing about it can be changed unseen.
pub(super) fn document<T: DeserializeOwned + Serialize>(text: &str) -> Option<T> {
    let bytes = hex::decode(text).ok()?;
    let document: T = codec::decode(&bytes, VALUE_LIMIT_BYTES).ok()?;
    let is_the_one = codec::encode(&document).is_ok_and(|again| again == bytes) && hex::encode(&bytes) == text;
    is_the_one.then_some(document)
}

fn facts(line: &NetworkLine, expected: Option<&Facts>, findings: &mut Findings) -> Option<Facts> {
    let (Ok(network), Ok(escrow), Ok(signer)) = (line.id.parse(), line.escrow.parse(), line.settlement_signer.parse()) else {
        findings.add("network", "the network's facts cannot be read, so no signature can be checked");
        return None;
    };
    let facts = Facts { network, domain: MoneyDomain { chain_id: line.chain_id, escrow }, signer };
    findings.same("network.escrow", &line.escrow, &escrow.to_string());
    findings.same("network.settlementSigner", &line.settlement_signer, &signer.to_string());
    if facts.domain.is_ledger() && facts.domain != MoneyDomain::ledger(facts.network.as_str(), &signer) {
        findings.add("network.escrow", "it is not the one that network and signer have on the ledger rail");
    }
    if expected.is_some_and(|expected| *expected != facts) {
        findings.add("network", "the file is from another network than the one it is audited for");
    }
    Some(facts)
}

fn terms(line: &SessionLine, facts: &Facts, findings: &mut Findings) -> Option<VerifiedTerms> {
    let Some(signed) = document::<SignedTerms>(&line.evidence) else {
        findings.add("session.evidence", "the terms cannot be read, so nothing can be recomputed");
        return None;
    };
    let terms = match signed.verify(&facts.network) {
        Ok(terms) => terms,
        Err(error) => {
            findings.add("session.evidence", format_args!("{error}, so nothing can be recomputed"));
            return None;
        }
    };
    if terms.domain != facts.domain || terms.settlement_signer != facts.signer {
        findings.add("session.evidence", "the terms name another chain, escrow or settlement signer than the network");
    }
    match SessionLine::of(&terms) {
        Ok(expected) => findings.line("session", line, &expected),
        Err(error) => findings.add("session", error),
    }
    Some(terms)
}

/// What settlement reserved, if it did.
fn allowance(line: &AllowanceLine, terms: &VerifiedTerms, findings: &mut Findings) -> Option<Micros> {
    let about = "allowance.evidence";
    let Some(signed) = document::<SignedAllowance>(&line.evidence) else {
        findings.add(about, "it cannot be read");
        return None;
    };
    match AllowanceLine::of(&signed) {
        Ok(expected) => findings.line("allowance", line, &expected),
        Err(error) => findings.add(about, error),
    }
    let body = signed.unverified();
    if signed.verify(&terms.domain, &terms.settlement_signer).is_err() {
        findings.add(about, "settlement did not sign it");
        return None;
    }
    if body.channel != terms.channel() || body.terms != terms.hash() || body.claim_key != terms.claim_key() {
        findings.add(about, "it is for another channel, other terms or another claim key");
        return None;
    }
    if body.work_until != terms.work_until || body.redeem_until != terms.redeem_until {
        findings.add(about, "its times are not those of the terms");
    }
    Some(Micros::from(body.ceiling.micros()))
}

/// What the payee closed at, if it did.
fn close(line: &CloseLine, terms: &VerifiedTerms, chain: &Chain<'_>, findings: &mut Findings, notes: &mut Vec<String>) -> Option<Micros> {
    let about = "close.evidence";
    let Some(signed) = document::<SignedClose>(&line.evidence) else {
        findings.add(about, "it cannot be read");
        return None;
    };
    match CloseLine::of(&signed) {
        Ok(expected) => findings.line("close", line, &expected),
        Err(error) => findings.add(about, error),
    }
    let body = signed.unverified();
    if signed.verify(&terms.domain, &terms.claim_key()).is_err() || body.channel != terms.channel() {
        findings.add(about, "it is not the payee's close of this channel");
        return None;
    }
    let total = Micros::from(body.total.micros());
    if total > chain.promised {
        let (closed, promised) = (decimal(total), decimal(chain.promised));
        findings.add(about, format_args!("the payee closed at {closed} USDC, and the vouchers here promise {promised}: some are missing"));
    } else if total < chain.promised {
        notes.push(format!("the payee closed at {} USDC, less than the {} it was promised", decimal(total), decimal(chain.promised)));
    }
    Some(total)
}

fn sums(chain: &Chain<'_>, line: &TotalsLine, report: &mut SessionReport, findings: &mut Findings) {
    let Some(shares) = Shares::of(chain.promised) else { return findings.add("totals", "the sums leave their range") };
    let expected = TotalsLine {
        receipts: chain.receipts(),
        executions: chain.executions(),
        charged: decimal(chain.charged),
        total_cost: decimal(chain.promised),
        provider_payout: decimal(shares.provider),
        platform_fee: decimal(shares.platform),
        reserve: decimal(shares.reserve),
    };
    findings.line("totals", line, &expected);
    report.ended = chain.ended();
    if let Some(open) = report_open(chain) {
        report.notes.push(open);
    }
    (report.receipts, report.executions, report.charged) = (expected.receipts, expected.executions, expected.charged);
    (report.total_cost, report.provider_payout) = (expected.total_cost, expected.provider_payout);
    (report.platform_fee, report.reserve) = (expected.platform_fee, expected.reserve);
}

fn report_open(chain: &Chain<'_>) -> Option<String> {
    let open = chain.executions().saturating_sub(chain.ended());
    (open > 0).then(|| format!("{open} executions have no receipt that says how they ended"))
}
