//! An agent gives a session up that it never opened, and wants our close of nothing for it.
//!
//! Always true: we sign such a close only for terms that we countersigned, for the agent that they name, after it is on disk that a session of this id will not be opened; whether an id
//! is used is decided by one stream at a time, so that no proposal slips in between.

use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::id::SessionId;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::session::provider::{ProviderPhase, let_go};
use orien_protocol::terms::{SignedTerms, VerifiedTerms};

use super::{Desk, hand_over, internal, malformed, say_last};
use crate::clerk::Counter;
use crate::line::PeerStream;

/// Sessions that are given up and whose reservation may not have ended: some megabytes on disk. At this number agents get their reservations back by time alone.
const GIVEN_UP_MAX: u64 = 100_000;

impl Desk {
    pub(super) async fn let_go(&self, peer: PeerId, stream: PeerStream, signed: Box<SignedTerms>) -> Result<(), (PeerStream, Fault)> {
        let terms = match self.check_own(peer, &signed) {
            Ok(terms) => terms,
            Err(fault) => return Err((stream, fault)),
        };
        let session = terms.session;
        let Some(deciding) = self.house.decide(session) else { return Err((stream, decided_elsewhere())) };
        let decided = match self.standing(peer, session).await {
            Ok(Some(counter)) => self.check_unopened(session, &counter).await.map(|()| Decided::By(counter)),
            Ok(None) => self.give_up(&terms).await.map(Decided::Here),
            Err(fault) => Err(fault),
        };
        drop(deciding);
        match decided {
            Ok(Decided::By(counter)) => hand_over(&counter, stream, AgentFrame::LetGo(signed)).await,
            Ok(Decided::Here(answer)) => {
                say_last(stream, &answer).await;
                Ok(())
            }
            Err(fault) => Err((stream, fault)),
        }
    }

    /// Terms that both signed, one of them us, shown by the other.
    fn check_own(&self, peer: PeerId, signed: &SignedTerms) -> Result<VerifiedTerms, Fault> {
        let terms = signed.clone().verify(&self.house.standing.network).map_err(|error| malformed(&error))?;
        let is_ours = terms.provider() == self.house.keys.peer.id() && terms.claim_key() == self.house.keys.claim.address();
        if is_ours && terms.agent() == peer {
            Ok(terms)
        } else {
            Err(Fault::new(FaultCode::NOT_YOURS, "these are not terms of this agent with this provider and its claim key"))
        }
    }

    /// The session, if it is live or has records; those are read back.
    async fn standing(&self, peer: PeerId, session: SessionId) -> Result<Option<Counter>, Fault> {
        let is_live = self.house.counter(session).is_some_and(|counter| !counter.visits.is_closed());
        let has_records = async || self.house.store.read(session, |records| records.next().is_some()).await.map_err(internal);
        if is_live || has_records().await? { self.find(peer, session).await.map(Some) } else { Ok(None) }
    }

    /// A session that is here may end without a voucher; what it decides in the meantime it says itself.
    async fn check_unopened(&self, session: SessionId, counter: &Counter) -> Result<(), Fault> {
        let view = *counter.view.borrow();
        if view.phase == ProviderPhase::Open || view.promised > Usdc::ZERO {
            return Err(Fault::new(FaultCode::WRONG_STATE, "the session was opened; it can only be ended"));
        }
        self.is_given_up(session).await.map(drop)
    }

    /// Whether it is given up already; refused if not, and there is no room for one more.
    async fn is_given_up(&self, session: SessionId) -> Result<bool, Fault> {
        let (is_given_up, all) = self.house.store.given_up(session).await.map_err(internal)?;
        if is_given_up || all < GIVEN_UP_MAX { Ok(is_given_up) } else { Err(busy()) }
    }

    async fn give_up(&self, terms: &VerifiedTerms) -> Result<ProviderFrame, Fault> {
        let _permit = self.house.letting_go.try_acquire().map_err(|_| busy())?;
        let (record, answer) = let_go(terms, &self.house.keys);
        if self.is_given_up(terms.session).await? {
            return Ok(answer);
        }
        if let Err(error) = self.house.store.append(terms.session, vec![record]).await {
            tracing::error!(session = %terms.session, %error, "the store failed; this process ends");
            self.house.fail(error);
            return Err(Fault::new(FaultCode::INTERNAL, "the provider cannot write its store"));
        }
        tracing::info!(session = %terms.session, "a session that never opened is given up");
        Ok(answer)
    }
}

/// Who answers.
enum Decided {
    /// The session that is here.
    By(Counter),
    /// The desk: nothing is kept of the session but that it is given up.
    Here(ProviderFrame),
}

fn busy() -> Fault {
    Fault::new(FaultCode::BUSY, "too many sessions are being given up here; try again")
}

fn decided_elsewhere() -> Fault {
    Fault::new(FaultCode::BUSY, "the session is being proposed or let go of on another stream; try again")
}
