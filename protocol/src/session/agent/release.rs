//! Gives back what settlement reserved for a session that never opened.
//!
//! A reservation ends early only by the payee's close (M11). So once both have signed the terms, and settlement may have been asked, a session that ends without a voucher owes its account
//! two steps: the provider signs a close of nothing, and settlement takes it. Both are repeated until they are done, over restarts too, or until `redeemUntil`, when settlement frees
//! the money by itself.

use super::{AgentEffect, AgentPhase, AgentRecord, AgentSession, Effects};
use crate::fault::{Fault, FaultCode};
use crate::frame::{AgentFrame, ChannelState};
use crate::money::Usdc;
use crate::time::Now;
use crate::voucher::SignedClose;

impl AgentSession {
    /// Whether settlement may still hold something that can be given back now: the driver goes on for as long as it does.
    pub fn owes_release(&self) -> bool {
        let never_promised = self.terms().is_some() && self.voucher.is_none();
        matches!(self.phase, AgentPhase::Closed(_)) && !self.released && (never_promised || self.let_go.is_some())
    }

    /// Whether the provider's close of nothing is here and only settlement is left to be told.
    pub const fn is_let_go(&self) -> bool {
        self.let_go.is_some()
    }

    /// Asks the provider for its close, if that is what is missing; for the first word on a stream.
    pub(super) fn ask_to_let_go(&self, fx: &mut Effects) {
        let ends_unopened = matches!(self.phase, AgentPhase::Ending(_)) && self.voucher.is_none();
        if (ends_unopened || self.owes_release())
            && self.let_go.is_none()
            && let Some(terms) = self.terms()
        {
            fx.push(AgentEffect::Send(AgentFrame::LetGo(Box::new(terms.to_signed()))));
        }
    }

    /// Takes a close that came after the session was over.
    pub(super) fn on_let_go(&mut self, close: Option<SignedClose>, fx: &mut Effects) {
        let Some(close) = close.filter(|close| self.is_close_of_nothing(close)) else { return };
        if self.owes_release() && self.let_go.is_none() {
            self.let_go = Some(close);
            fx.push(AgentEffect::Persist(Box::new(AgentRecord::LetGo(close))));
            self.hand_back(fx);
        }
    }

    /// Whether the payee says that it will never redeem anything; that binds it even where we promised more. A session that was free ends with such a close too, which comes to settlement
    /// with the voucher, from the provider.
    pub(super) fn is_close_of_nothing(&self, close: &SignedClose) -> bool {
        let was_free = self.voucher.is_some_and(|voucher| voucher.total == Usdc::ZERO);
        let Some(terms) = self.terms().filter(|_| !was_free) else { return false };
        let checked = close.verify(&terms.domain, &terms.claim_key());
        checked.is_ok_and(|close| close.channel == terms.channel() && close.total == Usdc::ZERO)
    }

    /// Hands the close on, if it is here and nobody has taken it.
    pub(super) fn hand_back(&self, fx: &mut Effects) {
        if self.owes_release()
            && let (Some(terms), Some(close)) = (self.terms(), self.let_go)
        {
            fx.push(AgentEffect::HandBack { terms: Box::new(terms.to_signed()), close });
        }
    }

    pub(super) fn on_handed_back(&mut self, answer: Result<ChannelState, Fault>, fx: &mut Effects) {
        let is_final = match answer {
            Ok(state) => state.closed,
            // Any other refusal will be the same tomorrow.
            Err(fault) => !matches!(fault.code, FaultCode::BUSY | FaultCode::INTERNAL),
        };
        if is_final && self.let_go.is_some() {
            self.end_release(fx);
        }
    }

    /// After `redeemUntil` settlement has freed the money without us.
    pub(super) fn give_up_release(&mut self, now: Now, fx: &mut Effects) {
        if now.wall >= self.proposed_terms().redeem_until.timestamp() {
            self.end_release(fx);
        }
    }

    fn end_release(&mut self, fx: &mut Effects) {
        if self.owes_release() {
            self.released = true;
            fx.push(AgentEffect::Persist(Box::new(AgentRecord::Released)));
        }
    }
}
