//! How a session opens: proposal, allowance, receipt 1, and a higher allowance later.

use super::{Effects, ProviderEffect, ProviderEnv, ProviderKeys, ProviderPhase, ProviderRecord, ProviderSession};
use crate::fault::{Fault, FaultCode};
use crate::frame::ProviderFrame;
use crate::ledger::Account;
use crate::money::Usdc;
use crate::session::HOLD;
use crate::terms::{ProposedTerms, TermsError};
use crate::time::{Millis, Now};
use crate::voucher::{Allowance, MoneyVerified, SignedAllowance};

impl ProviderSession {
    /// Countersigns a proposal that the driver has compared with its offer and its capacity.
    pub fn accept(proposal: ProposedTerms, keys: ProviderKeys, now: Now) -> Result<(Self, Vec<ProviderEffect>), TermsError> {
        let network = proposal.terms().provider.unverified().network.clone();
        let terms = proposal.countersign(&network, &keys.peer)?;
        let by_provider = terms.to_signed().by_provider;
        let phase = ProviderPhase::Proposed(Millis(now.mono.0.saturating_add(HOLD.0)));
        let session = Self {
            keys,
            terms,
            phase,
            allowance: None,
            account: Account::default(),
            voucher: None,
            vouched: None,
            unanswered: std::collections::BTreeMap::new(),
            runs: std::collections::BTreeMap::new(),
            over: std::collections::BTreeMap::new(),
            waiting: std::collections::VecDeque::new(),
            written_off: Usdc::ZERO,
            short_since: None,
            gone_since: None,
            may_be_paid: false,
        };
        Ok((session, vec![ProviderEffect::Send(ProviderFrame::Accepted(by_provider))]))
    }

    /// Most that the session may charge.
    pub fn ceiling(&self) -> Usdc {
        self.allowance.map_or(Usdc::ZERO, |allowance| allowance.ceiling)
    }

    /// The ceiling that an allowance would give the session; for a driver that looks at the chain before it hands the allowance in.
    pub fn ceiling_of(&self, signed: SignedAllowance) -> Result<Usdc, Fault> {
        Ok(self.check_allowance(signed)?.ceiling)
    }

    pub(super) fn on_allowance(&mut self, signed: SignedAllowance, env: &ProviderEnv<'_>, fx: &mut Effects) {
        let allowance = match self.check_allowance(signed) {
            Ok(allowance) => allowance,
            Err(fault) => return fx.push(ProviderEffect::Send(ProviderFrame::Refused(fault))),
        };
        match self.phase {
            ProviderPhase::Proposed(until) => {
                self.allowance = Some(allowance);
                let record = ProviderRecord::Opened { terms: self.terms.to_signed(), allowance: signed };
                fx.push(ProviderEffect::Persist(Box::new(record)));
                // One hold for the whole opening: the reservation does not buy more time.
                self.phase = ProviderPhase::Unpaid(until);
                self.issue(None, env.now.wall, fx);
            }
            ProviderPhase::Unpaid(_) | ProviderPhase::Open if allowance.ceiling > self.ceiling() => {
                self.allowance = Some(allowance);
                fx.push(ProviderEffect::Persist(Box::new(ProviderRecord::ToppedUp(signed))));
                self.settle_up(env, fx);
            }
            // The same or an older one again, or one that crossed the session's end on the way: nothing to add.
            _ => {}
        }
    }

    pub(super) fn check_allowance(&self, signed: SignedAllowance) -> Result<MoneyVerified<Allowance>, Fault> {
        let bad = |text: &str| Err(Fault::new(FaultCode::BAD_ALLOWANCE, text));
        let allowance = signed
            .verify(&self.terms.domain, &self.terms.settlement_signer)
            .map_err(|error| Fault::new(FaultCode::BAD_SIGNATURE, error))?;
        if allowance.channel != self.terms.channel() || allowance.terms != self.terms.hash() {
            return bad("the allowance is for another channel or for other terms");
        }
        if allowance.claim_key != self.terms.claim_key() {
            return bad("the allowance names another claim key");
        }
        if allowance.work_until != self.terms.work_until || allowance.redeem_until != self.terms.redeem_until {
            return bad("the allowance has other times than the terms");
        }
        if allowance.ceiling < self.terms.minimum_charge {
            let missing = self.terms.minimum_charge.excess_over(allowance.ceiling);
            return Err(Fault::new(FaultCode::BUDGET_EXHAUSTED, "the allowance does not cover the minimum charge").missing(missing));
        }
        Ok(allowance)
    }
}
