//! How a session opens, from the agent's side; and how its budget grows.

use super::{AgentEffect, AgentEvent, AgentKeys, AgentPhase, AgentRecord, AgentSession, Agreement, Effects};
use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, CloseReason};
use crate::ledger::Account;
use crate::money::Usdc;
use crate::network::NetworkId;
use crate::signing::PeerSignature;
use crate::terms::{ProposedTerms, Terms, TermsError};
use crate::voucher::{Allowance, MoneyVerified, SignedAllowance, SignedClose};

impl AgentSession {
    /// Proposes a session.
    pub fn propose(terms: Terms, budget: Usdc, network: &NetworkId, keys: AgentKeys) -> Result<(Self, Vec<AgentEffect>), TermsError> {
        let proposal = ProposedTerms::make(terms, network, &keys.peer)?;
        let signed = proposal.signed().clone();
        let session = Self::proposed(proposal, budget, keys);
        let record = AgentRecord::Proposed { terms: signed.clone(), budget };
        let effects = vec![AgentEffect::Persist(Box::new(record)), AgentEffect::Send(AgentFrame::Propose(Box::new(signed)))];
        Ok((session, effects))
    }

    /// A session of which nothing but the proposal exists.
    pub(super) fn proposed(proposal: ProposedTerms, budget: Usdc, keys: AgentKeys) -> Self {
        Self {
            keys,
            agreement: Agreement::Proposed(Box::new(proposal)),
            phase: AgentPhase::Proposing,
            budget,
            allowance: None,
            account: Account::default(),
            voucher: None,
            runs: std::collections::BTreeMap::new(),
            over: std::collections::BTreeSet::new(),
            disputed: false,
            catching_up: false,
            // A session is proposed on a stream that is there.
            connected: true,
            opening_since: None,
            let_go: None,
            released: false,
            sealed: None,
            beyond_seal: false,
        }
    }

    pub(super) fn on_accepted(&mut self, signature: PeerSignature, fx: &mut Effects) {
        // One that was given up meanwhile stays so: the provider's answer may have been on its way.
        let (AgentPhase::Proposing, Agreement::Proposed(proposal)) = (self.phase, &self.agreement) else { return };
        let network = proposal.terms().agent.unverified().network.clone();
        match (**proposal).clone().countersigned(signature, &network) {
            Err(error) => self.fail_opening(Fault::new(FaultCode::BAD_SIGNATURE, error), fx),
            Ok(terms) => {
                let signed = terms.to_signed();
                self.agreement = Agreement::Agreed(Box::new(terms));
                self.phase = AgentPhase::Reserving;
                fx.push(AgentEffect::Persist(Box::new(AgentRecord::Agreed(signed.clone()))));
                fx.push(AgentEffect::Reserve { terms: Box::new(signed), ceiling: self.budget });
            }
        }
    }

    pub(super) fn on_reserved(&mut self, asked: Usdc, signed: SignedAllowance, fx: &mut Effects) {
        let allowance = match self.check_allowance(signed) {
            Ok(allowance) => allowance,
            Err(fault) if self.phase == AgentPhase::Reserving => return self.fail_opening(fault, fx),
            Err(_) => return,
        };
        match self.phase {
            AgentPhase::Reserving if allowance.ceiling > self.budget.min(asked) => {
                let text = "settlement reserved more than the budget that was asked for";
                self.fail_opening(Fault::new(FaultCode::BAD_ALLOWANCE, text), fx);
            }
            AgentPhase::Reserving => {
                self.phase = AgentPhase::Presenting;
                self.take_allowance(allowance, fx);
            }
            // Nobody but our caller raises the budget.
            AgentPhase::Open if allowance.ceiling > self.budget() && allowance.ceiling <= asked => {
                self.take_allowance(allowance, fx);
                fx.push(AgentEffect::Tell(AgentEvent::ToppedUp(allowance.ceiling)));
            }
            _ => {}
        }
    }

    fn take_allowance(&mut self, allowance: MoneyVerified<Allowance>, fx: &mut Effects) {
        self.allowance = Some(allowance);
        fx.push(AgentEffect::Persist(Box::new(AgentRecord::Reserved(*allowance.signed()))));
        fx.push(AgentEffect::Send(AgentFrame::Present(*allowance.signed())));
    }

    pub(super) fn check_allowance(&self, signed: SignedAllowance) -> Result<MoneyVerified<Allowance>, Fault> {
        let terms = self.terms().ok_or_else(|| Fault::new(FaultCode::WRONG_STATE, "no terms are agreed"))?;
        let allowance = signed.verify(&terms.domain, &terms.settlement_signer).map_err(|e| Fault::new(FaultCode::BAD_SIGNATURE, e))?;
        let parties = allowance.channel == terms.channel() && allowance.terms == terms.hash() && allowance.claim_key == terms.claim_key();
        let times = allowance.work_until == terms.work_until && allowance.redeem_until == terms.redeem_until;
        let fits = parties && times;
        if fits {
            Ok(allowance)
        } else {
            Err(Fault::new(FaultCode::BAD_ALLOWANCE, "settlement answered with an allowance for something else"))
        }
    }

    pub(super) fn on_not_reserved(&mut self, fault: Fault, fx: &mut Effects) {
        self.released |= self.phase == AgentPhase::Reserving;
        self.fail_opening(fault, fx);
    }

    pub(super) fn fail_opening(&mut self, fault: Fault, fx: &mut Effects) {
        self.fail_opening_with(fault, None, fx);
    }

    /// Gives the opening up; a close that the provider sent with the bad news may already free what settlement reserved.
    pub(super) fn fail_opening_with(&mut self, fault: Fault, close: Option<SignedClose>, fx: &mut Effects) {
        if matches!(self.phase, AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting) {
            self.phase = AgentPhase::Closed(CloseReason::NotOpened);
            self.let_go = close.filter(|close| self.is_close_of_nothing(close));
            let record = AgentRecord::Closed { reason: CloseReason::NotOpened, close: self.let_go };
            fx.push(AgentEffect::Persist(Box::new(record)));
            if self.released {
                fx.push(AgentEffect::Persist(Box::new(AgentRecord::Released)));
            }
            fx.push(AgentEffect::Send(AgentFrame::End));
            fx.push(AgentEffect::Tell(AgentEvent::NotOpened(fault)));
            self.hand_back(fx);
        }
    }

    pub(super) fn on_refused(&mut self, fault: Fault, fx: &mut Effects) {
        match self.phase {
            AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting => self.fail_opening(fault, fx),
            // It never opened: the provider has broken nothing, and what is reserved is still to be given back.
            AgentPhase::Ending(_) if self.voucher.is_none() => self.close(CloseReason::NotOpened, None, fx),
            AgentPhase::Open | AgentPhase::Ending(_) => {
                fx.push(AgentEffect::Tell(AgentEvent::Disputed(fault)));
                self.close(CloseReason::Dispute, None, fx);
            }
            AgentPhase::Closed(_) => {}
        }
    }
}
