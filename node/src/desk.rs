//! Where streams of agents arrive: new sessions, sessions picked up again or let go of, logs and files.
//!
//! Always true: whoever opens a stream has to say within seconds what for; nobody reaches a session but the peer that its terms name; a proposal that is refused
//! leaves nothing behind.

mod letting_go;

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_bootstrap::{FrameError, FrameStream};
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{
    AgentFrame, CONTROL_FRAME_LIMIT, FileAnswer, FileRequest, InputAnswer, InputRequest, LogFrame, LogRequest, ProviderFrame,
    STREAM_FRAME_LIMIT,
};
use orien_protocol::id::SessionId;
use orien_protocol::job::Job;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderPhase, ProviderRecord, ProviderSession, RestoreError};
use orien_protocol::signing::Signed;
use orien_protocol::terms::{ProposedTerms, Terms, TermsError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::admission;
use crate::clerk::{Clerk, Counter, SessionView, Visit};
use crate::house::{Deciding, House};
use crate::line::{Io, PeerStream};
use crate::places::Place;
use crate::store::StoreError;
use crate::{files, input, log};

/// An opener knows what it wants before it opens a stream.
const FIRST_FRAME_TIME_MAX: Duration = Duration::from_secs(10);
/// A refusal or other last word that is not read is not waited for.
const REFUSAL_TIME_MAX: Duration = Duration::from_secs(5);

/// A file stream that overtakes the first voucher waits for it as long as messages of one peer may be apart.
const VOUCHER_TIME_MAX: Duration = Duration::from_secs(5);

/// What a stream is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A session's control stream.
    Control,
    /// An execution's log.
    Log,
    /// A file of a workspace.
    File,
    /// Standard input of an execution.
    Input,
}

/// Where streams of agents arrive. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Desk {
    house: Arc<House>,
}

impl Desk {
    pub(crate) const fn new(house: Arc<House>) -> Self {
        Self { house }
    }

    /// Takes a stream that an authenticated peer opened; what follows happens on a task of the house.
    pub(crate) fn receive(&self, peer: PeerId, purpose: Purpose, io: Box<dyn Io>) {
        let desk = self.clone();
        let halt = self.house.halt.clone();
        let visit = async move {
            match purpose {
                Purpose::Control => desk.control(peer, FrameStream::new(io, CONTROL_FRAME_LIMIT)).await,
                Purpose::Log => desk.log(peer, FrameStream::new(io, STREAM_FRAME_LIMIT)).await,
                Purpose::File => desk.file(peer, FrameStream::new(io, STREAM_FRAME_LIMIT)).await,
                Purpose::Input => desk.input(peer, FrameStream::new(io, STREAM_FRAME_LIMIT)).await,
            }
        };
        self.house.tasks.spawn(async move { halt.run_until_cancelled_owned(visit).await });
    }

    async fn control(&self, peer: PeerId, mut stream: PeerStream) {
        let first = match first_frame::<AgentFrame>(&mut stream).await {
            Ok(Some(first)) => first,
            Ok(None) => return,
            Err(fault) => return say_last(stream, &ProviderFrame::Refused(fault)).await,
        };
        let resumes = matches!(first, AgentFrame::Resume { .. });
        let refused = match first {
            AgentFrame::Propose(terms) => self.propose(peer, stream, *terms).await,
            AgentFrame::Resume { session, .. } => self.resume(peer, stream, session, first).await,
            AgentFrame::LetGo(terms) => self.let_go(peer, stream, terms).await,
            _ => {
                let text = "a control stream begins with a proposal, a resumption or a letting go";
                Err((stream, Fault::new(FaultCode::WRONG_STATE, text)))
            }
        };
        if let Err((stream, fault)) = refused {
            tracing::debug!(%peer, %fault, "refused at the desk");
            // Whoever resumes takes a refusal for the end of the session, with everything that is not answered yet. One who only hears nothing comes again.
            if resumes && fault.code == FaultCode::BUSY {
                return;
            }
            say_last(stream, &ProviderFrame::Refused(fault)).await;
        }
    }

    async fn propose(&self, peer: PeerId, stream: PeerStream, terms: Signed<Terms>) -> Result<(), (PeerStream, Fault)> {
        match self.admit(peer, terms).await {
            Ok((session, effects, place, deciding)) => {
                let id = session.terms().session;
                let (mut clerk, counter) = Clerk::new(Arc::clone(&self.house), session, Some(place));
                clerk.attach(stream);
                // Only the same proposal at the same moment is in the way; its own stream is being answered.
                let _ = self.house.employ(id, clerk, counter, effects, Some(deciding));
                Ok(())
            }
            Err(fault) => Err((stream, fault)),
        }
    }

    async fn admit(&self, peer: PeerId, terms: Signed<Terms>) -> Result<(ProviderSession, Vec<ProviderEffect>, Place, Deciding), Fault> {
        let proposal = ProposedTerms::verify(terms, &self.house.standing.network).map_err(|error| malformed(&error))?;
        let id = proposal.terms().session;
        let account = proposal.terms().agent.unverified().principal;
        let now = clock::now();
        admission::check(&proposal, peer, &self.house.standing, &self.house.offers(), now.wall)?;
        self.house.book().admits(account, id)?;
        let used = || Fault::new(FaultCode::CONFLICT, "this session id was used before");
        let deciding = self.house.decide(id).ok_or_else(used)?;
        if self.house.counter(id).is_some() || self.house.store.is_used(id).await.map_err(internal)? {
            return Err(used());
        }
        let place = self.house.places.take(account, peer)?;
        let (session, effects) = ProviderSession::accept(proposal, self.house.keys.clone(), now).map_err(|error| malformed(&error))?;
        Ok((session, effects, place, deciding))
    }

    async fn resume(&self, peer: PeerId, stream: PeerStream, session: SessionId, first: AgentFrame) -> Result<(), (PeerStream, Fault)> {
        let counter = match self.find(peer, session).await {
            Ok(counter) => counter,
            Err(fault) => return Err((stream, fault)),
        };
        hand_over(&counter, stream, first).await
    }

    /// The session's counter; one that is only on disk is picked up from there.
    async fn find(&self, peer: PeerId, session: SessionId) -> Result<Counter, Fault> {
        if let Some(counter) = self.house.counter(session).filter(|counter| !counter.visits.is_closed()) {
            return theirs(counter, peer);
        }
        let first = self.house.store.read(session, |records| records.next()).await.map_err(internal)?;
        let is_theirs =
            matches!(first, Some(ProviderRecord::Opened { terms, .. }) if terms.by_agent.unverified().agent.unverified().peer == peer);
        if !is_theirs {
            return Err(unknown_session());
        }
        let _permit = self
            .house
            .restores
            .try_acquire()
            .map_err(|_| Fault::new(FaultCode::BUSY, "too many sessions are being picked up; try again"))?;
        let (clerk, counter, effects) = restore(&self.house, session).await.map_err(internal)?.map_err(|error| {
            tracing::error!(%session, %error, "a stored session cannot be picked up");
            Fault::new(FaultCode::INTERNAL, "the session cannot be picked up")
        })?;
        match self.house.employ(session, clerk, counter.clone(), effects, None) {
            Ok(()) => Ok(counter),
            // Another stream was faster.
            Err(_) => self.house.counter(session).ok_or_else(unknown_session),
        }
    }

    async fn log(&self, peer: PeerId, mut stream: PeerStream) {
        let request = match first_frame::<LogRequest>(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(fault) => return say_last(stream, &LogFrame::Refused(fault)).await,
        };
        match self.present(peer, request.session) {
            Ok(counter) => log::follow(stream, request, &counter.logs).await,
            Err(fault) => say_last(stream, &LogFrame::Refused(fault)).await,
        }
    }

    async fn input(&self, peer: PeerId, mut stream: PeerStream) {
        let request = match first_frame::<InputRequest>(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(fault) => return say_last(stream, &InputAnswer::Refused(fault)).await,
        };
        let counter = self.present(peer, request.session);
        match counter.and_then(|counter| counter.check_input(request.execution).map(|()| counter)) {
            Ok(counter) => input::serve(stream, request.execution, &counter.inputs).await,
            Err(fault) => say_last(stream, &InputAnswer::Refused(fault)).await,
        }
    }

    async fn file(&self, peer: PeerId, mut stream: PeerStream) {
        let request = match first_frame::<FileRequest>(&mut stream).await {
            Ok(Some(request)) => request,
            Ok(None) => return,
            Err(fault) => return say_last(stream, &FileAnswer::Refused(fault)).await,
        };
        let (counter, files) = match self.open_files(peer, request.session).await {
            Ok(found) => found,
            Err(fault) => return say_last(stream, &FileAnswer::Refused(fault)).await,
        };
        // A workspace that is given back takes its transfers with it.
        counter.released.run_until_cancelled(files::serve(stream, request.action, &files)).await;
    }

    async fn open_files(&self, peer: PeerId, session: SessionId) -> Result<(Counter, orien_sandbox::Files), Fault> {
        let mut counter = self.present(peer, session)?;
        // The first voucher may still be on its way on the other stream.
        let is_decided = |view: &SessionView| !matches!(view.phase, ProviderPhase::Proposed(_) | ProviderPhase::Unpaid(_));
        let _ = timeout(VOUCHER_TIME_MAX, counter.view.wait_for(is_decided)).await;
        let (answer, answered) = oneshot::channel();
        let gone = |_| Fault::new(FaultCode::SESSION_ENDED, "the session has ended");
        counter.visits.send(Visit::Files(answer)).await.map_err(|_| gone(()))?;
        let files = answered.await.map_err(|_| gone(()))??;
        Ok((counter, files))
    }

    /// A session that is here, for its agent.
    fn present(&self, peer: PeerId, session: SessionId) -> Result<Counter, Fault> {
        theirs(self.house.counter(session).ok_or_else(unknown_session)?, peer)
    }
}

/// A session read back from disk, which ends it, with what that asks for.
pub(crate) async fn restore(
    house: &Arc<House>,
    session: SessionId,
) -> Result<Result<(Clerk, Counter, Vec<ProviderEffect>), RestoreError>, StoreError> {
    let with = Arc::clone(house);
    let restored = house.store.read(session, move |records| {
        let vet = |_: &Job| Err(Fault::new(FaultCode::SESSION_ENDED, "the session has ended"));
        // No work is done any more, so there is nothing to give credit for.
        let redemption_grace = with.standing.redemption_grace();
        let env = ProviderEnv { now: clock::now(), credit: Usdc::ZERO, unredeemed_ceiling: Usdc::ZERO, redemption_grace, vet: &vet };
        ProviderSession::restore(records, &with.standing.network, with.keys.clone(), &env)
    });
    Ok(restored.await?.map(|(session, effects)| {
        let (clerk, counter) = Clerk::new(Arc::clone(house), session, None);
        (clerk, counter, effects)
    }))
}

/// Gives a stream and its first frame to the session's clerk.
async fn hand_over(counter: &Counter, stream: PeerStream, first: AgentFrame) -> Result<(), (PeerStream, Fault)> {
    let visit = Visit::Stream(Box::new(stream), first);
    match timeout(REFUSAL_TIME_MAX, counter.visits.send(visit)).await {
        // It ended at this moment: the agent tries again and gets it from disk.
        Ok(Err(error)) => match error.0 {
            Visit::Stream(stream, _) => Err((*stream, put_away())),
            Visit::Files(_) | Visit::Stop => Ok(()),
        },
        Ok(Ok(())) | Err(_) => Ok(()),
    }
}

/// The answer to who comes just when a session's clerk goes.
pub(crate) fn put_away() -> Fault {
    Fault::new(FaultCode::BUSY, "the session is being put away; try again")
}

fn theirs(counter: Counter, peer: PeerId) -> Result<Counter, Fault> {
    // Strangers learn nothing of which sessions there are.
    if counter.agent == peer { Ok(counter) } else { Err(unknown_session()) }
}

fn unknown_session() -> Fault {
    Fault::new(FaultCode::NOT_FOUND, "there is no such session of this peer here")
}

fn malformed(error: &TermsError) -> Fault {
    let code = match error {
        TermsError::Signature(_) => FaultCode::BAD_SIGNATURE,
        TermsError::Senseless(_) => FaultCode::MALFORMED,
        TermsError::Clocks { .. } => FaultCode::CLOCKS,
        TermsError::TooLong { .. } => FaultCode::TIMES,
    };
    Fault::new(code, error)
}

fn internal(error: StoreError) -> Fault {
    tracing::error!(%error, "the store cannot be read");
    Fault::new(FaultCode::INTERNAL, "the provider cannot read its store")
}

async fn first_frame<T: DeserializeOwned>(stream: &mut PeerStream) -> Result<Option<T>, Fault> {
    match timeout(FIRST_FRAME_TIME_MAX, stream.recv::<T>()).await {
        Err(_) | Ok(Ok(None) | Err(FrameError::Io(_) | FrameError::Truncated)) => Ok(None),
        Ok(Ok(first)) => Ok(first),
        Ok(Err(error)) => {
            let code = if matches!(error, FrameError::TooLarge { .. }) { FaultCode::TOO_LARGE } else { FaultCode::MALFORMED };
            Err(Fault::new(code, error))
        }
    }
}

/// Answers a stream for the last time.
pub(crate) async fn say_last(mut stream: PeerStream, frame: &impl Serialize) {
    let said = async {
        stream.send(frame).await?;
        stream.finish().await
    };
    if !matches!(timeout(REFUSAL_TIME_MAX, said).await, Ok(Ok(()))) {
        tracing::debug!("a last word was not taken");
    }
}
