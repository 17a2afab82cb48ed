//! The evidence of one session as a file that anybody can check: JSON with amounts as exact decimal texts, and every signed document as hexadecimal bytes.
//!
//! The readable fields repeat what the documents prove, so a reader sees what happened and the [audit](audit::audit) compares both. Nothing is in the file that no signature
//! covers. Writing is here, judging is in the audit; neither reads a file or knows JSON.

mod arithmetic;
pub mod audit;
mod chain;
mod findings;
mod lines;

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use findings::Finding;
pub use lines::{AllowanceLine, CloseLine, JobLine, NetworkLine, PriceLine, ReceiptLine, SessionLine, TotalsLine, VoucherLine, WorkLine};

use crate::codec::CodecError;
use crate::hash::Hash;
use crate::job::Job;
use crate::money::{AmountOverflow, Split, Usdc};
use crate::network::NetworkId;
use crate::receipt::Receipt;
use crate::session::agent::AgentRecord;
use crate::signing::{Address, MoneyDomain, Signed, Statement};
use crate::terms::VerifiedTerms;
use crate::voucher::{SignedAllowance, SignedClose, SignedVoucher};

/// What a file of this kind calls itself.
pub const FORMAT: &str = "orien-session/1";

/// The facts of a network that the documents of a session hang on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// The network's id.
    pub network: NetworkId,
    /// Chain and escrow.
    pub domain: MoneyDomain,
    /// Signs allowances.
    pub signer: Address,
}

/// All evidence of one session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionBundle {
    /// [`FORMAT`].
    pub format: String,
    /// The network it happened in.
    pub network: NetworkLine,
    /// What both sides agreed on.
    pub session: SessionLine,
    /// What settlement reserved last; null when it never did.
    pub allowance: Option<AllowanceLine>,
    /// The jobs that receipts name, in the order of their executions.
    pub jobs: Vec<JobLine>,
    /// The payee's word that no more than a total will be redeemed; null while there is none.
    pub close: Option<CloseLine>,
    /// Receipts that the agent did not answer, because they did not follow.
    pub disputed: Vec<ReceiptLine>,
    /// What it comes to.
    pub totals: TotalsLine,
    /// Every receipt and the voucher that answers it, from number 1. Last, because there may be many.
    pub receipts: Vec<ReceiptLine>,
}

/// Why there is no evidence to write down.
#[derive(Debug, Error)]
pub enum WriteBundleError {
    /// Nobody but the agent signed anything.
    #[error("the provider never signed the terms of this session, so there is nothing to prove")]
    NotAgreed,
    /// A document cannot be encoded.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The sums leave their range.
    #[error(transparent)]
    Overflow(#[from] AmountOverflow),
}

/// The documents of a session, as the agent's records hold them.
#[derive(Clone, Debug)]
pub struct Documents {
    terms: VerifiedTerms,
    allowance: Option<SignedAllowance>,
    jobs: BTreeMap<Hash, Signed<Job>>,
    close: Option<SignedClose>,
    disputed: Vec<Signed<Receipt>>,
    receipts: Vec<(Signed<Receipt>, SignedVoucher)>,
}

impl Documents {
    /// Takes them out of the agent's records.
    pub fn of(records: impl IntoIterator<Item = AgentRecord>, network: &NetworkId) -> Result<Self, WriteBundleError> {
        let mut agreed = None;
        let (mut allowance, mut close) = (None, None);
        let (mut jobs, mut disputed, mut receipts) = (BTreeMap::new(), Vec::new(), Vec::new());
        for record in records {
            match record {
                AgentRecord::Agreed(terms) => agreed = terms.verify(network).ok(),
                AgentRecord::Reserved(newer) => allowance = Some(newer),
                AgentRecord::Job(job) => drop(jobs.insert(job.unverified().hash(network), job)),
                AgentRecord::Answered { receipt, voucher } => receipts.push((receipt, voucher)),
                AgentRecord::Disputed(receipt) => disputed.push(receipt),
                AgentRecord::Closed { close: Some(by_payee), .. } | AgentRecord::LetGo(by_payee) => close = Some(by_payee),
                AgentRecord::Proposed { .. }
                | AgentRecord::Cancelled(_)
                | AgentRecord::JobRefused(_)
                | AgentRecord::Ending
                | AgentRecord::Closed { close: None, .. }
                | AgentRecord::Released
                | AgentRecord::Sealed { .. } => {}
            }
        }
        let answered = receipts.iter().map(|(receipt, _): &(Signed<Receipt>, SignedVoucher)| receipt);
        let works = answered.chain(&disputed).filter_map(|receipt| receipt.unverified().work.as_ref());
        let named: BTreeSet<Hash> = works.map(|work| work.job).collect();
        jobs.retain(|hash, _| named.contains(hash));
        let terms = agreed.ok_or(WriteBundleError::NotAgreed)?;
        Ok(Self { terms, allowance, jobs, close, disputed, receipts })
    }

    /// How many receipts there are.
    pub fn receipts(&self) -> usize {
        self.receipts.len()
    }

    /// Everything but the receipts, which may be many.
    pub fn head(&self) -> Result<SessionBundle, WriteBundleError> {
        let network = self.terms.network();
        let mut jobs = self.jobs.values().map(|job| JobLine::of(job, network)).collect::<Result<Vec<_>, _>>()?;
        jobs.sort_by(|one, other| one.execution_id.cmp(&other.execution_id));
        Ok(SessionBundle {
            format: FORMAT.to_owned(),
            network: NetworkLine::of(&self.terms),
            session: SessionLine::of(&self.terms)?,
            allowance: self.allowance.as_ref().map(AllowanceLine::of).transpose()?,
            jobs,
            close: self.close.as_ref().map(CloseLine::of).transpose()?,
            disputed: self.disputed.iter().map(|receipt| ReceiptLine::of(receipt, None, network)).collect::<Result<_, _>>()?,
            totals: self.totals()?,
            receipts: Vec::new(),
        })
    }

    /// Receipts from one place in the list to another.
    pub fn lines(&self, from: usize, to: usize) -> Result<Vec<ReceiptLine>, WriteBundleError> {
        let some = self.receipts.get(from..to.min(self.receipts.len())).unwrap_or_default();
        some.iter().map(|(receipt, voucher)| Ok(ReceiptLine::of(receipt, Some(voucher), self.terms.network())?)).collect()
    }

    /// The whole bundle.
    pub fn bundle(&self) -> Result<SessionBundle, WriteBundleError> {
        Ok(SessionBundle { receipts: self.lines(0, self.receipts.len())?, ..self.head()? })
    }

    fn totals(&self) -> Result<TotalsLine, AmountOverflow> {
        let newest = self.receipts.last();
        let charged = newest.map_or(Usdc::ZERO, |(receipt, _)| receipt.unverified().charged);
        let promised = newest.map_or(Usdc::ZERO, |(_, voucher)| voucher.unverified().total);
        let mut executions: Vec<_> =
            self.receipts.iter().filter_map(|(receipt, _)| receipt.unverified().work.as_ref()).map(|work| work.execution).collect();
        executions.sort_unstable();
        executions.dedup();
        let split = Split::of(promised);
        Ok(TotalsLine {
            receipts: self.receipts.len(),
            executions: executions.len(),
            charged: charged.to_string(),
            total_cost: split.total()?.to_string(),
            provider_payout: split.provider.to_string(),
            platform_fee: split.platform.to_string(),
            reserve: split.reserve.to_string(),
        })
    }
}
