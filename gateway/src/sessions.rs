//! Every session of this gateway: the live ones with their couriers, the others as the store remembers them.
//!
//! Always true: a session that is not closed has exactly one courier, and one that is closed with something to give back an errand, also after a restart; when [`Sessions::stop`] returns, no courier is left. A courier that cannot write ends the
//! process.
//!
//! It does not know what a provider is chosen by, nor HTTP.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::Fault;
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::session::agent::{AgentEffect, AgentPhase, AgentRecord, AgentSession, RestoreError};
use orien_protocol::time::Timestamp;
use thiserror::Error;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::context::Context;
use crate::courier::{COMMANDS, Courier};
use crate::desk::{Desk, Phase, State};
use crate::directory::Directory;
use crate::errand::Errand;
use crate::experience::{Experience, Measures};
use crate::plan::{Handover, Plan};
use crate::rows::{Closing, ExecutionRow, OutputTail, SessionFacts, SessionRow, may_have_written};
use crate::spending::Spending;
use crate::store::{Store, StoreError};
use crate::wallet::{ChannelRow, Wallet};

/// Most sessions at once: each holds a control stream, and a log stream for each run.
pub(crate) const LIVE_LIMIT: usize = 256;
/// Most reservations that are being given back at once; beyond it they wait for the next start.
const ERRANDS_LIMIT: usize = 1024;
/// Most of them that ask somebody at the same moment.
const ATTEMPTS_LIMIT: usize = 8;
/// Longest orderly stop of all couriers: one commit and one frame each.
const STOP_LIMIT: Duration = Duration::from_secs(10);

/// Why the sessions of an earlier run cannot be picked up.
#[derive(Debug, Error)]
pub enum RestoreSessionsError {
    /// The store cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The records of a session contradict each other; nothing may be signed on top of them.
    #[error("the records of session {session} cannot be trusted: {reason}")]
    Records {
        /// Which session.
        session: SessionId,
        /// What is wrong.
        reason: RestoreError,
    },
}

/// One session at one moment.
#[derive(Clone, Debug)]
pub(crate) struct SessionView {
    pub(crate) id: SessionId,
    pub(crate) facts: SessionFacts,
    pub(crate) phase: Phase,
    pub(crate) connected: bool,
    pub(crate) budget: Usdc,
    pub(crate) charged: Usdc,
    /// What of the minimum charge runs can still use.
    pub(crate) minimum_unused: Usdc,
    pub(crate) effective_ms: u64,
    pub(crate) dispute: Option<Fault>,
    pub(crate) closing: Option<Closing>,
    pub(crate) plan: Plan,
    pub(crate) handover: Option<Handover>,
    /// What the chain says of its channel.
    pub(crate) channel: Option<ChannelRow>,
}

impl SessionView {
    fn live(desk: &Desk) -> Self {
        desk.read(|state| Self {
            id: desk.id,
            facts: desk.facts.clone(),
            phase: state.phase,
            connected: state.connected,
            budget: state.budget,
            charged: state.charged,
            minimum_unused: if state.phase == Phase::Closed { Usdc::ZERO } else { state.meters.minimum_unused() },
            effective_ms: state.effective_ms(),
            dispute: state.dispute.clone(),
            closing: state.closing.clone(),
            plan: state.plan.clone(),
            handover: state.handover.clone(),
            channel: None,
        })
    }

    fn stored(id: SessionId, row: SessionRow) -> Self {
        let SessionRow { facts, plan, handover } = row;
        let closing = facts.closing.clone();
        let (budget, charged, effective_ms) =
            closing.as_ref().map_or((facts.budget, Usdc::ZERO, 0), |c| (c.budget, c.charged, c.effective_ms));
        let phase = if closing.is_some() { Phase::Closed } else { Phase::Opening };
        let dispute = closing.as_ref().filter(|closing| closing.is_disputed()).and_then(|closing| closing.fault.clone());
        Self {
            id,
            facts,
            phase,
            connected: false,
            budget,
            charged,
            minimum_unused: Usdc::ZERO,
            effective_ms,
            dispute,
            closing,
            plan,
            handover,
            channel: None,
        }
    }
}

/// What a session shows about its provider, also if that was lost in it.
fn lost(handover: Option<&Handover>, measures: Measures) -> Measures {
    Measures { lost: handover.is_some(), ..measures }
}

/// Every session.
#[derive(Debug)]
pub(crate) struct Sessions {
    pub(crate) context: Arc<Context>,
    pub(crate) directory: Directory,
    live: Mutex<BTreeMap<SessionId, Arc<Desk>>>,
    pub(crate) spending: Spending,
    couriers: TaskTracker,
    errands: Semaphore,
    attempts: Semaphore,
    stop: CancellationToken,
    /// Cancelled when a courier could not write.
    failed: CancellationToken,
    failure: Mutex<Option<StoreError>>,
}

impl Sessions {
    /// No sessions yet. `failed` is cancelled when one cannot go on.
    pub(crate) fn new(context: Arc<Context>, directory: Directory, failed: CancellationToken) -> Self {
        Self {
            context,
            directory,
            live: Mutex::new(BTreeMap::new()),
            spending: Spending::new(),
            couriers: TaskTracker::new(),
            errands: Semaphore::new(ERRANDS_LIMIT),
            attempts: Semaphore::new(ATTEMPTS_LIMIT),
            stop: CancellationToken::new(),
            failed,
            failure: Mutex::new(None),
        }
    }

    fn desks(&self) -> MutexGuard<'_, BTreeMap<SessionId, Arc<Desk>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn store(&self) -> &Store {
        &self.context.store
    }

    /// Picks up every session that was not closed, and folds what the others show about their providers.
    pub(crate) async fn restore(self: &Arc<Self>) -> Result<usize, RestoreSessionsError> {
        let sessions = Arc::clone(self);
        let fold = move |open: &mut Vec<_>, id, row: SessionRow, measures| match &row.facts.closing {
            None => open.push((id, row)),
            Some(closing) => sessions.directory.note_closed(row.facts.provider, closing, &lost(row.handover.as_ref(), measures)),
        };
        let open = self.store().fold_sessions(Vec::new(), fold).await?;
        let count = open.len();
        for (session, row) in open {
            self.pick_up(session, row).await?;
        }
        for session in self.store().pending_handovers().await? {
            let sessions = Arc::clone(self);
            self.couriers.spawn(async move { sessions.hand_over(session).await });
        }
        for session in self.store().releases().await? {
            self.pick_up_release(session).await?;
        }
        Ok(count)
    }

    async fn pick_up_release(self: &Arc<Self>, session: SessionId) -> Result<(), RestoreSessionsError> {
        let row = self.store().session(session).await?.filter(|row| row.facts.closing.is_some());
        let Some(SessionRow { facts, .. }) = row else { return Ok(()) };
        let records = self.store().records(session).await?;
        let seq = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let restored = AgentSession::restore(records, self.context.network.id(), self.context.keys.clone(), clock::now());
        let (machine, effects) = restored.map_err(|reason| RestoreSessionsError::Records { session, reason })?;
        let errand = Errand::after(Arc::clone(&self.context), machine, &facts, seq, None, None);
        let sessions = Arc::clone(self);
        self.couriers.spawn(async move { sessions.carry_back(errand, effects).await });
        Ok(())
    }

    /// Gives back what a session that is over has reserved, unless too many do so already.
    async fn carry_back(&self, errand: Errand, first: Vec<AgentEffect>) {
        let session = errand.session();
        let Ok(_errand) = self.errands.try_acquire() else {
            return tracing::warn!(%session, "too many reservations are being given back; this one waits for the next start");
        };
        if let Some(Err(error)) = self.stop.run_until_cancelled(errand.run(first, &self.attempts)).await {
            self.fail(session, error);
        }
    }

    /// Goes on until the couriers are stopped.
    pub(crate) async fn until_stopped<T>(&self, work: impl Future<Output = T>) -> Option<T> {
        self.stop.run_until_cancelled(work).await
    }

    pub(crate) fn fail(&self, session: SessionId, error: StoreError) {
        tracing::error!(%session, %error, "a session cannot go on");
        self.stop_for(error);
    }

    /// What cannot be written stops the gateway.
    pub(crate) fn stop_for(&self, error: StoreError) {
        tracing::error!(%error, "the gateway stops");
        self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
        self.failed.cancel();
    }

    async fn pick_up(self: &Arc<Self>, session: SessionId, row: SessionRow) -> Result<(), RestoreSessionsError> {
        let records = self.store().records(session).await?;
        let mut runs = self.store().unfinished_of(session).await?;
        let seq = u64::try_from(records.len()).unwrap_or(u64::MAX);
        let (commands, queue) = mpsc::channel(COMMANDS);
        let desk = Arc::new(Desk::new(session, row.facts, row.plan, commands));
        let mut ended = Vec::new();
        let disputed = records.iter().any(|record| matches!(record, AgentRecord::Disputed(_)));
        for record in &records {
            if let AgentRecord::Answered { receipt, .. } = record {
                let receipt = receipt.unverified();
                desk.change(|state| state.note(receipt));
                ended.extend(
                    receipt.work.as_ref().filter(|work| work.outcome.is_some() && may_have_written(work)).map(|work| work.execution),
                );
                if let Some(work) = &receipt.work
                    && let Some(row) = runs.get_mut(&work.execution)
                {
                    *row = row.receipted(work, receipt.at);
                }
            }
        }
        let network = self.context.network.id();
        let restored = AgentSession::restore(records, network, self.context.keys.clone(), clock::now());
        let (machine, effects) = restored.map_err(|reason| RestoreSessionsError::Records { session, reason })?;
        desk.change(|state| {
            state.phase = match machine.phase() {
                AgentPhase::Open => Phase::Open,
                AgentPhase::Ending(_) => Phase::Ending,
                AgentPhase::Closed(_) => Phase::Closed,
                AgentPhase::Proposing | AgentPhase::Reserving | AgentPhase::Presenting => Phase::Opening,
            };
            if state.phase != Phase::Opening && state.phase != Phase::Closed {
                state.opening = Some(Ok(()));
            }
            (state.budget, state.promised) = (machine.budget(), machine.promised());
            if disputed {
                state.dispute =
                    Some(Fault::new(orien_protocol::fault::FaultCode::BAD_RECEIPT, "a receipt did not follow; it is kept as evidence"));
            }
            state.runs = runs;
            state.handover = row.handover;
            // Who was warned before the restart is not warned again.
            let _ = state.warning();
        });
        let is_sealed = machine.sealed().is_some();
        let abandoned = if is_sealed { self.store().abandoned_of(session).await? } else { BTreeMap::new() };
        ended.extend(abandoned.keys());
        let unread = self.store().without_output(ended).await?;
        let unfinished = desk.read(|state| state.runs.keys().copied().collect::<Vec<ExecutionId>>());
        unfinished.iter().chain(&unread).for_each(|execution| drop(self.context.logs.open_again(*execution)));
        let mut courier = Courier::new(Arc::clone(&self.context), machine, Arc::clone(&desk), queue, seq, None);
        courier.abandon_again(abandoned, &unread);
        courier.fetch_logs(unread);
        self.launch(courier, desk, effects);
        Ok(())
    }

    /// Starts a courier.
    pub(crate) fn launch(self: &Arc<Self>, mut courier: Courier, desk: Arc<Desk>, first: Vec<AgentEffect>) {
        self.desks().insert(desk.id, Arc::clone(&desk));
        let (gives_up, given_up) = oneshot::channel();
        courier.on_giving_up(gives_up);
        let (sessions, session) = (Arc::clone(self), desk.id);
        self.couriers.spawn(async move {
            // The courier drops it when it ends.
            if given_up.await.is_ok() {
                sessions.hand_over(session).await;
            }
        });
        let (sessions, stop) = (Arc::clone(self), self.stop.clone());
        self.couriers.spawn(async move {
            let ended = courier.run(first, stop).await;
            sessions.desks().remove(&desk.id);
            let over = desk.read(|state| (state.closing.clone(), lost(state.handover.as_ref(), state.measures.clone())));
            if let (Some(closing), measures) = over {
                sessions.directory.note_closed(desk.facts.provider, &closing, &measures);
            }
            match ended {
                Ok(Some(errand)) => sessions.carry_back(errand, Vec::new()).await,
                Ok(None) => {}
                Err(error) => sessions.fail(desk.id, error),
            }
        });
    }

    /// Whether one more session can be opened.
    pub(crate) fn has_room(&self) -> bool {
        self.desks().len() < LIVE_LIMIT && !self.stop.is_cancelled()
    }

    /// The desk of a live session.
    pub(crate) fn desk(&self, session: &SessionId) -> Option<Arc<Desk>> {
        self.desks().get(session).cloned()
    }

    /// The newest session that takes runs.
    pub(crate) fn newest_active(&self) -> Option<SessionId> {
        let desks: Vec<Arc<Desk>> = self.desks().values().rev().cloned().collect();
        desks.iter().find(|desk| desk.read(|state| state.phase == Phase::Open)).map(|desk| desk.id)
    }

    /// One session.
    pub(crate) async fn view(&self, session: SessionId) -> Result<Option<SessionView>, StoreError> {
        let mut view = match self.desk(&session) {
            Some(desk) => Some(SessionView::live(&desk)),
            None => self.store().session(session).await?.map(|row| SessionView::stored(session, row)),
        };
        self.add_channels(view.as_mut_slice()).await?;
        Ok(view)
    }

    /// Adds what the chain says.
    async fn add_channels(&self, views: &mut [SessionView]) -> Result<(), StoreError> {
        let Some(wallet) = self.context.wallet.as_ref().filter(|_| !views.is_empty()) else { return Ok(()) };
        let channels = wallet.channels(views.iter().map(|view| view.id).collect()).await?;
        views.iter_mut().for_each(|view| view.channel = channels.get(&view.id).copied());
        Ok(())
    }

    /// What is promised of the account beside one session, and not redeemed: all that live sessions may cost, and what the others promised.
    pub(crate) async fn promised_beside(&self, wallet: &Wallet, session: SessionId) -> Result<Usdc, StoreError> {
        let mut sum: u64 = 0;
        for (id, row) in wallet.live().await?.into_iter().filter(|(id, _)| *id != session) {
            let most = match self.desk(&id) {
                Some(desk) => desk.read(|state| state.closing.as_ref().map_or(state.budget.max(state.asked), |closing| closing.promised)),
                None => {
                    let row = self.store().session(id).await?;
                    row.and_then(|row| row.facts.closing).map_or(Usdc::ZERO, |closing| closing.promised)
                }
            };
            sum = sum.saturating_add(most.excess_over(row.redeemed).excess_over(row.locked).micros());
        }
        Ok(Usdc::from_micros(sum))
    }

    /// What this gateway lived through with providers, sessions that go on included.
    pub(crate) fn experience(&self) -> impl Fn(&PeerId) -> Experience + '_ {
        let mut live: BTreeMap<PeerId, Vec<(Timestamp, Measures, Option<Timestamp>)>> = BTreeMap::new();
        let desks: Vec<Arc<Desk>> = self.desks().values().cloned().collect();
        for desk in desks {
            let seen = |state: &State| (state.measures.clone(), state.handover.as_ref().map(|handover| handover.at));
            if let Some((measures, lost)) = desk.read(|state| (state.phase != Phase::Opening).then(|| seen(state))) {
                live.entry(desk.facts.provider).or_default().push((desk.facts.created_at, measures, lost));
            }
        }
        move |provider| {
            let mut experience = self.directory.seen(provider);
            for (at, measures, lost) in live.get(provider).into_iter().flatten() {
                experience.add_live(*at, measures);
                lost.iter().for_each(|at| experience.note_lost(*at));
            }
            experience
        }
    }

    /// The newest sessions before one that `take` wants, newest first.
    pub(crate) async fn list(
        &self,
        before: Option<SessionId>,
        limit: usize,
        take: impl Fn(&SessionView) -> bool + Send + 'static,
    ) -> Result<Vec<SessionView>, StoreError> {
        let live: BTreeMap<SessionId, SessionView> = self.desks().values().map(|desk| (desk.id, SessionView::live(desk))).collect();
        let seen = live.clone();
        let wanted = move |session: &SessionId, row: &SessionRow| match seen.get(session) {
            Some(view) => take(view),
            None => take(&SessionView::stored(*session, row.clone())),
        };
        let stored = self.store().sessions(before, limit, wanted).await?;
        let views = stored.into_iter().map(|(id, row)| live.get(&id).cloned().unwrap_or_else(|| SessionView::stored(id, row)));
        let mut views: Vec<SessionView> = views.collect();
        self.add_channels(&mut views).await?;
        Ok(views)
    }

    /// One run, as it stands now.
    pub(crate) async fn execution(&self, execution: ExecutionId) -> Result<Option<ExecutionRow>, StoreError> {
        let Some(row) = self.store().execution(execution).await? else { return Ok(None) };
        if row.is_over() {
            return Ok(Some(row));
        }
        let live = self.desk(&row.session).and_then(|desk| desk.read(|state| state.runs.get(&execution).cloned()));
        match live {
            Some(row) => Ok(Some(row)),
            // It ended between the two looks.
            None => self.store().execution(execution).await,
        }
    }

    /// What is kept of a run's output once its log is not in memory. Of a log whose end was never written down nothing is known, unless the run wrote nothing.
    pub(crate) async fn kept_output(&self, execution: ExecutionId, row: &ExecutionRow) -> Result<OutputTail, StoreError> {
        match self.store().output(execution).await? {
            Some(tail) if !tail.cut || !tail.lines.is_empty() => Ok(tail),
            _ if row.is_over() && row.may_have_written() => {
                let at = row.completed_at.unwrap_or(row.asked_at);
                Ok(OutputTail::missed(crate::lines::late_number(at), at))
            }
            _ => Ok(OutputTail::default()),
        }
    }

    /// The newest runs of a session before one, newest first, and how many there are.
    pub(crate) async fn executions(
        &self,
        session: SessionId,
        before: Option<ExecutionId>,
        limit: usize,
    ) -> Result<(Vec<(ExecutionId, ExecutionRow)>, usize), StoreError> {
        let (mut rows, all) = self.store().executions_of(session, before, limit).await?;
        if let Some(desk) = self.desk(&session) {
            desk.read(|state| {
                for (execution, row) in rows.iter_mut().filter(|(_, row)| !row.is_over()) {
                    if let Some(live) = state.runs.get(execution) {
                        row.clone_from(live);
                    }
                }
            });
        }
        Ok((rows, all))
    }

    /// Stops every courier; their sessions stay open at their providers.
    pub(crate) async fn stop(&self) -> Result<(), StoreError> {
        self.stop.cancel();
        self.couriers.close();
        if tokio::time::timeout(STOP_LIMIT, self.couriers.wait()).await.is_err() {
            tracing::warn!(left = self.couriers.len(), "some sessions did not stop in time; they are picked up at the next start");
        }
        let failure = self.failure.lock().unwrap_or_else(PoisonError::into_inner).take();
        failure.or_else(|| self.store().failure()).map_or(Ok(()), Err)
    }
}
