//! Recomputes a batch from its file alone, without trusting whoever wrote it.
//!
//! The audit shares no arithmetic with the books: it splits, adds and hashes in its own way, and checks every signature again. It reports everything that is wrong, not just
//! the first. It needs no network and no store; without expected facts it believes the file's own, and says so.
//!
//! One file shows what happened between two totals of a channel. Whether a channel's `fromTotal` is the `toTotal` of its last batch is seen by auditing both.

mod arithmetic;
mod entry;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Display;

use orien_protocol::hash::Hash;
use orien_protocol::id::BatchId;
use orien_protocol::money::{Split, Usdc};
use orien_protocol::signing::{Address, MoneyDomain, PeerSignature, Signed};
use orien_protocol::time::Timestamp;
use serde::Serialize;
use thiserror::Error;

use crate::batch::{BATCH_ENTRIES_MAX, BatchSummary, payout_id};
use crate::file::{BatchFile, FORMAT, NetworkLine, PayoutLine, SummaryLine};
use crate::house::NetworkFacts;
use arithmetic::{Shares, root};

/// Largest batch file that is read: twice the evidence of a full batch in hexadecimal, with room for the rest.
pub const FILE_BYTES_MAX: usize = 64 * 1024 * 1024;

/// A file is not a batch.
#[derive(Debug, Error)]
pub enum ReadBatchFileError {
    /// Too large.
    #[error("the file has {0} bytes; a batch has at most {FILE_BYTES_MAX}")]
    TooLarge(usize),
    /// Not the JSON of a batch.
    #[error("the file is not a batch: {0}")]
    Malformed(#[from] serde_json::Error),
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Which entry, counted from 0; none for the batch as a whole.
    pub entry: Option<usize>,
    /// Which field or rule.
    pub about: String,
    /// What is wrong with it.
    pub text: String,
}

/// What an audit found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditReport {
    /// The batch, as the file names it.
    pub batch: String,
    /// The network, as the file names it.
    pub network: String,
    /// Whether the network was compared with facts from elsewhere.
    pub network_compared: bool,
    /// How many entries were recomputed.
    pub entries: usize,
    /// Recomputed, USDC.
    pub total_cost: String,
    /// Recomputed, USDC.
    pub provider_payout: String,
    /// Recomputed, USDC.
    pub platform_fee: String,
    /// Recomputed, USDC.
    pub reserve: String,
    /// Recomputed, hexadecimal.
    pub merkle_root: String,
    /// Everything that is wrong; empty for a clean batch.
    pub findings: Vec<Finding>,
}

impl AuditReport {
    /// Whether nothing is wrong.
    pub fn clean(&self) -> bool {
        self.findings.is_empty()
    }
}

/// Findings in the making.
#[derive(Debug, Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn add(&mut self, entry: Option<usize>, about: &str, text: impl Display) {
        self.0.push(Finding { entry, about: about.to_owned(), text: text.to_string() });
    }

    /// Compares a line of the file with what was recomputed.
    fn same(&mut self, entry: Option<usize>, about: &str, found: &impl Display, expected: &impl Display) {
        let (found, expected) = (found.to_string(), expected.to_string());
        if found != expected {
            self.add(entry, about, format_args!("the file says {found}, the evidence {expected}"));
        }
    }
}

/// Audits the bytes of a batch file, against the facts of a network if there are any.
pub fn audit(file: &[u8], expected: Option<&NetworkFacts>) -> Result<AuditReport, ReadBatchFileError> {
    if file.len() > FILE_BYTES_MAX {
        return Err(ReadBatchFileError::TooLarge(file.len()));
    }
    Ok(audit_file(&serde_json::from_slice(file)?, expected))
}

/// Audits a batch file that was read.
pub fn audit_file(file: &BatchFile, expected: Option<&NetworkFacts>) -> AuditReport {
    let mut findings = Findings::default();
    findings.same(None, "format", &file.format, &FORMAT);
    let facts = facts(&file.network, expected, &mut findings);
    let mut totals = Totals::default();
    if file.entries.is_empty() || file.entries.len() > BATCH_ENTRIES_MAX {
        findings.add(None, "entries", format_args!("a batch has 1 to {BATCH_ENTRIES_MAX} entries, this one {}", file.entries.len()));
    }
    if let Some(facts) = &facts {
        for (index, line) in file.entries.iter().enumerate() {
            match entry::check(index, line, facts, &mut findings) {
                Some(step) => totals.take(index, step, &mut findings),
                None => findings.add(Some(index), "entry", "it cannot be counted"),
            }
        }
        check_summary(&file.summary, facts, &totals, &mut findings);
    }
    check_payouts(&file.summary, &file.payouts, &totals, &mut findings);
    AuditReport {
        batch: file.summary.id.clone(),
        network: file.network.id.clone(),
        network_compared: expected.is_some(),
        entries: totals.receipts.len(),
        total_cost: decimal(totals.shares.total()),
        provider_payout: decimal(totals.shares.provider),
        platform_fee: decimal(totals.shares.platform),
        reserve: decimal(totals.shares.reserve),
        merkle_root: root(&totals.receipts).to_string(),
        findings: findings.0,
    }
}

/// What one entry proves.
struct Step {
    channel: String,
    payee: Address,
    receipt: Hash,
    shares: Shares,
}

/// What all entries come to.
#[derive(Default)]
struct Totals {
    channels: BTreeSet<String>,
    receipts: Vec<Hash>,
    shares: Shares,
    payees: BTreeMap<Address, u128>,
}

impl Totals {
    fn take(&mut self, index: usize, step: Step, findings: &mut Findings) {
        if !self.channels.insert(step.channel) {
            findings.add(Some(index), "channel", "the channel is in the batch twice");
        }
        self.receipts.push(step.receipt);
        self.shares = self.shares.plus(step.shares);
        let owed = self.payees.entry(step.payee).or_default();
        *owed = owed.saturating_add(step.shares.provider);
    }
}

fn facts(line: &NetworkLine, expected: Option<&NetworkFacts>, findings: &mut Findings) -> Option<NetworkFacts> {
    let domain = line.escrow.parse().map(|escrow| MoneyDomain { chain_id: line.chain_id, escrow });
    let (Ok(network), Ok(domain), Ok(signer), Ok(peer)) =
        (line.id.parse(), domain, line.settlement_signer.parse(), line.settlement_peer.parse())
    else {
        findings.add(None, "network", "the network's facts cannot be read, so no signature can be checked");
        return None;
    };
    let facts = NetworkFacts { network, domain, signer, peer };
    if domain.is_ledger() && domain != MoneyDomain::ledger(facts.network.as_str(), &signer) {
        findings.add(None, "network", "the escrow is not the one that network and signer have on the ledger rail");
    }
    if expected.is_some_and(|expected| *expected != facts) {
        findings.add(None, "network", "the file is from another network than the one it is audited for");
    }
    Some(facts)
}

fn check_summary(line: &SummaryLine, facts: &NetworkFacts, totals: &Totals, findings: &mut Findings) {
    findings.same(None, "summary.entries", &line.entries, &totals.receipts.len());
    findings.same(None, "summary.totalCost", &line.total_cost, &decimal(totals.shares.total()));
    findings.same(None, "summary.providerPayout", &line.provider_payout, &decimal(totals.shares.provider));
    findings.same(None, "summary.platformFee", &line.platform_fee, &decimal(totals.shares.platform));
    findings.same(None, "summary.reserve", &line.reserve, &decimal(totals.shares.reserve));
    findings.same(None, "summary.merkleRoot", &line.merkle_root, &root(&totals.receipts));
    match summary_of(line) {
        None => findings.add(None, "summary", "a field cannot be read, so the signature cannot be checked"),
        Some(signed) => {
            if signed.verify(&facts.network, &facts.peer).is_err() {
                findings.add(None, "summary.signature", "settlement did not sign this summary");
            }
        }
    }
}

fn summary_of(line: &SummaryLine) -> Option<Signed<BatchSummary>> {
    let mut signature = [0; 64];
    hex::decode_to_slice(&line.signature, &mut signature).ok()?;
    let amount = |text: &str| text.parse::<Usdc>().ok();
    let shares = Split { provider: amount(&line.provider_payout)?, platform: amount(&line.platform_fee)?, reserve: amount(&line.reserve)? };
    let summary = BatchSummary {
        id: line.id.parse().ok()?,
        made_at: Timestamp(line.made_at),
        previous: line.previous.parse().ok()?,
        entries: line.entries,
        shares,
        root: line.merkle_root.parse().ok()?,
    };
    Some(Signed::join(summary, PeerSignature::from_bytes(signature)))
}

fn check_payouts(summary: &SummaryLine, lines: &[PayoutLine], totals: &Totals, findings: &mut Findings) {
    let owed: Vec<(&Address, &u128)> = totals.payees.iter().filter(|(_, amount)| **amount > 0).collect();
    findings.same(None, "payouts", &lines.len(), &owed.len());
    let Ok(batch) = summary.id.parse::<BatchId>() else { return };
    for ((payee, amount), line) in owed.into_iter().zip(lines) {
        findings.same(None, "payouts.payee", &line.payee, payee);
        findings.same(None, "payouts.amount", &line.amount, &decimal(*amount));
        findings.same(None, "payouts.id", &line.id, &payout_id(&batch, Timestamp(summary.made_at), payee));
    }
}

/// An amount of micro-USDC as the file writes it.
fn decimal(micros: u128) -> String {
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let text = format!("{whole}.{fraction:06}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}
