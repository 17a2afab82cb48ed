//! Lets go of a session that never opened: the provider signs that it will never redeem anything of it, so that its agent can give the reservation back.
//!
//! Always true: a close of nothing is signed only after it is on disk that the session cannot open any more, and never for a session that has a voucher. What is on disk
//! is the session's id: the channel follows from it, so other terms under the same id are given up with it.

use super::{Effects, ProviderEffect, ProviderEnv, ProviderKeys, ProviderPhase, ProviderRecord, ProviderSession, refused};
use crate::fault::FaultCode;
use crate::frame::{CloseReason, ProviderFrame};
use crate::money::Usdc;
use crate::receipt::EndReason;
use crate::terms::{SignedTerms, VerifiedTerms};
use crate::voucher::{Close, MoneyVerified, SignedClose};

/// What gives up terms of which nothing is stored: the record to commit first, unless it is there already, and the answer to send then. The driver has checked that the terms are its own
/// and its agent's, and that no session of this id is live or stored.
pub fn let_go(terms: &VerifiedTerms, keys: &ProviderKeys) -> (ProviderRecord, ProviderFrame) {
    let record = ProviderRecord::GivenUp { redeem_until: terms.redeem_until };
    (record, ProviderFrame::Closed { reason: CloseReason::NotOpened, close: Some(close_of_nothing(terms, keys)) })
}

fn close_of_nothing(terms: &VerifiedTerms, keys: &ProviderKeys) -> SignedClose {
    let close = Close { channel: terms.channel(), total: Usdc::ZERO };
    *MoneyVerified::sign(close, &terms.domain, &keys.claim).signed()
}

impl ProviderSession {
    /// The agent will never open this session.
    pub(super) fn on_let_go(&mut self, signed: &SignedTerms, env: &ProviderEnv<'_>, fx: &mut Effects) {
        if *signed.by_agent.unverified() != *self.terms {
            return fx.push(refused(FaultCode::CONFLICT, "the session was proposed under other terms"));
        }
        if self.voucher.is_some() {
            return fx.push(refused(FaultCode::WRONG_STATE, "the session was opened; it can only be ended"));
        }
        match self.phase {
            ProviderPhase::Proposed(_) => {
                let (record, answer) = let_go(&self.terms, &self.keys);
                self.phase = ProviderPhase::Closed(CloseReason::NotOpened);
                fx.push(ProviderEffect::Persist(Box::new(record)));
                fx.push(ProviderEffect::Send(answer));
                fx.push(ProviderEffect::Release(CloseReason::NotOpened));
            }
            // The close is on disk, with the session.
            ProviderPhase::Closed(reason) if self.allowance.is_some() => {
                let close = Some(close_of_nothing(&self.terms, &self.keys));
                fx.push(ProviderEffect::Send(ProviderFrame::Closed { reason, close }));
            }
            // It ended before it left anything on disk: the driver gives it up without this machine.
            ProviderPhase::Closed(_) => fx.push(refused(FaultCode::BUSY, "the session is being put away; try again")),
            _ => {
                // No voucher was signed, says who would have signed it.
                self.may_be_paid = false;
                self.drain(CloseReason::NotOpened, EndReason::SessionEnded, env, fx);
                self.close_if_done(env, fx);
            }
        }
    }
}
