//! Checks the documents of a reservation or a claim, as far as that needs no books: every signature, and that they all speak of one channel.
//!
//! A [`CheckedClaim`] proves that the agent promised the total for the receipt that the provider signed, under terms of both, within an allowance of this
//! settlement. Whether the channel is live, and what was redeemed before, is for the books.

use orien_protocol::codec;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{Claim, QUESTION_LIMIT};
use orien_protocol::money::Usdc;
use orien_protocol::receipt::Receipt;
use orien_protocol::signing::Verified;
use orien_protocol::terms::{SignedTerms, TermsError, VerifiedTerms};
use orien_protocol::voucher::{Allowance, Close, MoneyVerified, SignedClose, Voucher};

use crate::house::NetworkFacts;

/// A claim whose documents were all checked.
#[derive(Clone, Debug)]
pub struct CheckedClaim {
    claim: Claim,
    terms: VerifiedTerms,
    allowance: MoneyVerified<Allowance>,
    voucher: MoneyVerified<Voucher>,
    receipt: Verified<Receipt>,
    close: Option<MoneyVerified<Close>>,
}

/// A release whose documents were all checked: terms of both, and the payee's word that it will never redeem anything of their channel.
#[derive(Clone, Debug)]
pub struct CheckedRelease {
    terms: VerifiedTerms,
    close: MoneyVerified<Close>,
}

/// Checks terms: ours, signed by both, sensible.
pub fn check_terms(terms: SignedTerms, facts: &NetworkFacts) -> Result<VerifiedTerms, Fault> {
    let claimed = terms.by_agent.unverified();
    let networks = [&claimed.agent, &claimed.provider].map(|binding| &binding.unverified().network);
    if networks.into_iter().any(|network| *network != facts.network) {
        return Err(Fault::new(FaultCode::WRONG_NETWORK, format_args!("the terms are for another network than {}", facts.network)));
    }
    if claimed.domain != facts.domain || claimed.settlement_signer != facts.signer {
        return Err(Fault::new(FaultCode::WRONG_NETWORK, "the terms name another chain, escrow or settlement signer"));
    }
    terms.verify(&facts.network).map_err(|error| terms_fault(&error))
}

/// The fault that stands for refused terms.
pub fn terms_fault(error: &TermsError) -> Fault {
    let code = match error {
        TermsError::Signature(_) => FaultCode::BAD_SIGNATURE,
        TermsError::Senseless(_) => FaultCode::MALFORMED,
        TermsError::Clocks { .. } => FaultCode::CLOCKS,
        TermsError::TooLong { .. } => FaultCode::TIMES,
    };
    Fault::new(code, error)
}

impl CheckedClaim {
    /// Checks everything that the claim itself can prove.
    pub fn check(claim: Claim, facts: &NetworkFacts) -> Result<Self, Fault> {
        // It must fit a question, however it came: a larger one could not be kept.
        if codec::encode(&claim).map_or(true, |bytes| bytes.len() > QUESTION_LIMIT) {
            return Err(Fault::new(FaultCode::TOO_LARGE, format_args!("a claim has at most {QUESTION_LIMIT} bytes")));
        }
        let terms = check_terms(claim.terms.clone(), facts)?;
        let forged = |error| Fault::new(FaultCode::BAD_SIGNATURE, error);
        let allowance = claim.allowance.verify(&facts.domain, &facts.signer).map_err(forged)?;
        check_allowance(&allowance, &terms)?;
        let voucher = claim.voucher.verify(&facts.domain, &terms.spending_key()).map_err(forged)?;
        let receipt = claim.receipt.clone().verify(&facts.network, &terms.provider()).map_err(forged)?;
        check_voucher(&voucher, &receipt, &terms)?;
        if voucher.total > allowance.ceiling {
            return Err(Fault::new(FaultCode::BAD_ALLOWANCE, "the voucher promises more than the allowance covers")
                .missing(voucher.total.excess_over(allowance.ceiling)));
        }
        let close = claim.close.map(|close| close.verify(&facts.domain, &terms.claim_key())).transpose().map_err(forged)?;
        if let Some(close) = &close {
            if close.channel != terms.channel() {
                return Err(Fault::new(FaultCode::MALFORMED, "the close is for another channel"));
            }
            if close.total < voucher.total {
                return Err(Fault::new(
                    FaultCode::MALFORMED,
                    "the close ends the channel below the total that the voucher beside it claims",
                ));
            }
        }
        Ok(Self { claim, terms, allowance, voucher, receipt, close })
    }

    /// The documents as they came.
    pub const fn claim(&self) -> &Claim {
        &self.claim
    }

    /// The terms.
    pub const fn terms(&self) -> &VerifiedTerms {
        &self.terms
    }

    /// The allowance.
    pub fn allowance(&self) -> &Allowance {
        &self.allowance
    }

    /// The voucher.
    pub fn voucher(&self) -> &Voucher {
        &self.voucher
    }

    /// The receipt that the voucher answers.
    pub const fn receipt(&self) -> &Verified<Receipt> {
        &self.receipt
    }

    /// At which total the payee closes the channel.
    pub fn close_total(&self) -> Option<Usdc> {
        self.close.as_ref().map(|close| close.total)
    }
}

impl CheckedRelease {
    /// Checks everything that the documents themselves can prove.
    pub fn check(terms: SignedTerms, close: SignedClose, facts: &NetworkFacts) -> Result<Self, Fault> {
        let terms = check_terms(terms, facts)?;
        let close = close.verify(&facts.domain, &terms.claim_key()).map_err(|error| Fault::new(FaultCode::BAD_SIGNATURE, error))?;
        if close.channel != terms.channel() {
            return Err(Fault::new(FaultCode::MALFORMED, "the close is for another channel"));
        }
        if close.total > Usdc::ZERO {
            return Err(Fault::new(FaultCode::MALFORMED, "the close names a total; it counts with the claim of that total"));
        }
        Ok(Self { terms, close })
    }

    /// The terms.
    pub const fn terms(&self) -> &VerifiedTerms {
        &self.terms
    }

    /// The close.
    pub const fn close(&self) -> &SignedClose {
        self.close.signed()
    }
}

fn check_allowance(allowance: &Allowance, terms: &VerifiedTerms) -> Result<(), Fault> {
    let fits = allowance.channel == terms.channel()
        && allowance.terms == terms.hash()
        && allowance.claim_key == terms.claim_key()
        && allowance.work_until == terms.work_until
        && allowance.redeem_until == terms.redeem_until;
    if fits { Ok(()) } else { Err(Fault::new(FaultCode::BAD_ALLOWANCE, "the allowance is for another channel or for other terms")) }
}

fn check_voucher(voucher: &Voucher, receipt: &Verified<Receipt>, terms: &VerifiedTerms) -> Result<(), Fault> {
    let refused = |text: &str| Err(Fault::new(FaultCode::BAD_VOUCHER, text));
    if receipt.session != terms.session || receipt.terms != terms.hash() || receipt.number == 0 {
        return Err(Fault::new(FaultCode::BAD_RECEIPT, "the receipt belongs to another session or to other terms"));
    }
    if voucher.channel != terms.channel() {
        return refused("the voucher is for another channel");
    }
    if voucher.receipt_hash != receipt.hash() || voucher.receipt_number != receipt.number {
        return refused("the voucher answers another receipt than the one beside it");
    }
    if voucher.total != receipt.charged {
        return refused("the voucher promises another total than the receipt charges");
    }
    Ok(())
}
