//! Audits one entry: decodes its documents, checks every signature, and compares each readable field with what the documents prove.

use orien_protocol::codec::{self, VALUE_LIMIT_BYTES};
use orien_protocol::frame::Claim;
use orien_protocol::money::Usdc;
use orien_protocol::terms::VerifiedTerms;
use orien_protocol::voucher::SignedVoucher;
use serde::de::DeserializeOwned;

use super::arithmetic::Shares;
use super::{Findings, Step, decimal};
use crate::file::EntryLine;
use crate::house::NetworkFacts;

/// What the entry proves; nothing when its documents cannot be read or its terms are not genuine.
pub(super) fn check(index: usize, line: &EntryLine, facts: &NetworkFacts, findings: &mut Findings) -> Option<Step> {
    let Some(claim) = decode::<Claim>(&line.evidence) else {
        findings.add(Some(index), "evidence", "the documents cannot be read");
        return None;
    };
    let terms = match claim.terms.clone().verify(&facts.network) {
        Ok(terms) => terms,
        Err(error) => {
            findings.add(Some(index), "evidence.terms", error);
            return None;
        }
    };
    if terms.domain != facts.domain || terms.settlement_signer != facts.signer {
        findings.add(Some(index), "evidence.terms", "they name another chain, escrow or settlement signer");
    }
    check_allowance(index, &claim, &terms, facts, findings);
    check_voucher(index, &claim, &terms, facts, findings);
    check_receipt(index, &claim, &terms, facts, findings);
    check_close(index, &claim, &terms, facts, findings);
    let shares = check_step(index, line, &claim, &terms, facts, findings)?;
    check_lines(index, line, &claim, &terms, shares, findings);
    Some(Step { channel: terms.channel().to_string(), payee: terms.payout(), receipt: claim.voucher.unverified().receipt_hash, shares })
}

fn decode<T: DeserializeOwned>(text: &str) -> Option<T> {
    codec::decode(&hex::decode(text).ok()?, VALUE_LIMIT_BYTES).ok()
}

fn check_allowance(index: usize, claim: &Claim, terms: &VerifiedTerms, facts: &NetworkFacts, findings: &mut Findings) {
    let mut wrong = |text: &str| findings.add(Some(index), "evidence.allowance", text);
    let body = claim.allowance.unverified();
    if claim.allowance.verify(&facts.domain, &facts.signer).is_err() {
        wrong("settlement did not sign it");
    }
    if body.channel != terms.channel() || body.terms != terms.hash() || body.claim_key != terms.claim_key() {
        wrong("it is for another channel, other terms or another claim key");
    }
    if body.work_until != terms.work_until || body.redeem_until != terms.redeem_until {
        wrong("its times are not those of the terms");
    }
    if claim.voucher.unverified().total > body.ceiling {
        wrong("the voucher promises more than it covers");
    }
}

fn check_voucher(index: usize, claim: &Claim, terms: &VerifiedTerms, facts: &NetworkFacts, findings: &mut Findings) {
    if claim.voucher.verify(&facts.domain, &terms.spending_key()).is_err() {
        findings.add(Some(index), "evidence.voucher", "the agent did not sign it");
    }
    if claim.voucher.unverified().channel != terms.channel() {
        findings.add(Some(index), "evidence.voucher", "it is for another channel");
    }
}

fn check_receipt(index: usize, claim: &Claim, terms: &VerifiedTerms, facts: &NetworkFacts, findings: &mut Findings) {
    let mut wrong = |text: &str| findings.add(Some(index), "evidence.receipt", text);
    let voucher = claim.voucher.unverified();
    match claim.receipt.clone().verify(&facts.network, &terms.provider()) {
        Err(_) => wrong("the provider did not sign it"),
        Ok(receipt) if receipt.hash() != voucher.receipt_hash => wrong("it is not the one that the voucher answers"),
        Ok(_) => {}
    }
    let receipt = claim.receipt.unverified();
    if receipt.session != terms.session || receipt.terms != terms.hash() || receipt.number == 0 || receipt.number != voucher.receipt_number
    {
        wrong("it belongs to another session, other terms or another number");
    }
    if receipt.charged != voucher.total {
        wrong("it charges another total than the voucher promises");
    }
}

fn check_close(index: usize, claim: &Claim, terms: &VerifiedTerms, facts: &NetworkFacts, findings: &mut Findings) {
    let Some(close) = &claim.close else { return };
    let body = close.unverified();
    if close.verify(&facts.domain, &terms.claim_key()).is_err()
        || body.channel != terms.channel()
        || body.total < claim.voucher.unverified().total
    {
        findings.add(Some(index), "evidence.close", "it is not the payee's close of this channel at or above this total");
    }
}

/// Checks the two totals and gives the shares of the step between them.
fn check_step(
    index: usize,
    line: &EntryLine,
    claim: &Claim,
    terms: &VerifiedTerms,
    facts: &NetworkFacts,
    findings: &mut Findings,
) -> Option<Shares> {
    let to = claim.voucher.unverified().total;
    let from = match &line.from_voucher {
        None => Usdc::ZERO,
        Some(text) => {
            let voucher = decode::<SignedVoucher>(text);
            let genuine =
                voucher.filter(|v| v.verify(&facts.domain, &terms.spending_key()).is_ok() && v.unverified().channel == terms.channel());
            let Some(voucher) = genuine else {
                findings.add(Some(index), "fromVoucher", "it is not the agent's voucher for this channel");
                return None;
            };
            voucher.unverified().total
        }
    };
    findings.same(Some(index), "fromTotal", &line.from_total, &decimal(u128::from(from.micros())));
    findings.same(Some(index), "toTotal", &line.to_total, &decimal(u128::from(to.micros())));
    let step = Shares::of(to.micros()).since(Shares::of(from.micros())).filter(|_| from < to);
    if step.is_none() {
        findings.add(Some(index), "toTotal", "the total did not rise");
    }
    step
}

fn check_lines(index: usize, line: &EntryLine, claim: &Claim, terms: &VerifiedTerms, shares: Shares, findings: &mut Findings) {
    let at = Some(index);
    let voucher = claim.voucher.unverified();
    findings.same(at, "channel", &line.channel, &terms.channel());
    findings.same(at, "sessionId", &line.session_id, &terms.session);
    findings.same(at, "account", &line.account, &terms.account());
    findings.same(at, "provider", &line.provider, &terms.provider());
    findings.same(at, "payee", &line.payee, &terms.payout());
    findings.same(at, "receiptNumber", &line.receipt_number, &voucher.receipt_number);
    findings.same(at, "receiptHash", &line.receipt_hash, &voucher.receipt_hash);
    findings.same(at, "providerPayout", &line.provider_payout, &decimal(shares.provider));
    findings.same(at, "platformFee", &line.platform_fee, &decimal(shares.platform));
    findings.same(at, "reserve", &line.reserve, &decimal(shares.reserve));
}
