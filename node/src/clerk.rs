//! Drives one session: hands its state machine what happens, and carries out what it answers.
//!
//! Always true: everything that the machine wants kept is on disk before anything else that it asked for at the same turn is done; a failed write ends the clerk and
//! with it the process; the book of credit knows where the session stands after every turn; when the clerk ends, no run of the session is left.
//!
//! It makes no decision about money and does not know why the machine wants what it wants.

mod effects;

use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, ProviderFrame};
use orien_protocol::id::{ExecutionId, SessionId};
use orien_protocol::job::Job;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::session::provider::{ProviderEffect, ProviderEnv, ProviderInput, ProviderPhase, ProviderSession};
use orien_protocol::signing::Address;
use orien_protocol::time::Millis;
use orien_sandbox::Files;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use crate::desk::{put_away, say_last};
use crate::executor::{Executor, RunEvent};
use crate::house::House;
use crate::input::Inputs;
use crate::line::{Line, PeerStream};
use crate::output::Logs;
use crate::places::Place;

/// Streams and questions on their way to one session.
const VISITS_MAX: usize = 16;
/// Frames and news of runs that are taken together: what they want kept shares one commit, and none of them waits long for the others.
const TOGETHER: usize = 64;
/// Between two turns of the clock while something runs, at most.
const TICK_RUNNING: Duration = Duration::from_millis(250);
/// Between two turns of the clock while nothing runs.
const TICK_IDLE: Duration = Duration::from_secs(1);
/// An interim receipt may be late by a quarter of its interval at most.
const TICKS_PER_INTERVAL: u64 = 4;
/// How long a session that is over stays for those who read its last output.
const LINGER_CLOSED: Duration = Duration::from_secs(30);
/// How long one that is owed something waits for the agent before it is kept on disk only.
const LINGER_OWING: Duration = Duration::from_secs(120);
/// Promises of an open session are handed in this often.
const HAND_IN_EVERY: Duration = Duration::from_secs(60);

/// What comes to a session from outside.
pub(crate) enum Visit {
    /// A control stream of the agent, with its first frame.
    Stream(Box<PeerStream>, AgentFrame),
    /// A stream of the agent that wants files of the workspace.
    Files(oneshot::Sender<Result<Files, Fault>>),
    /// The node stops.
    Stop,
}

/// What can be seen of a session from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionView {
    /// Where it stands.
    pub phase: ProviderPhase,
    /// What receipts charge.
    pub charged: Usdc,
    /// What vouchers promise.
    pub promised: Usdc,
    /// Runs at this moment.
    pub running: usize,
}

/// The outside's end of a session.
#[derive(Clone)]
pub(crate) struct Counter {
    pub(crate) agent: PeerId,
    pub(crate) visits: mpsc::Sender<Visit>,
    pub(crate) logs: Arc<Logs>,
    pub(crate) inputs: Arc<Inputs>,
    pub(crate) view: watch::Receiver<SessionView>,
    /// Cancelled when the workspace is given back.
    pub(crate) released: CancellationToken,
}

impl Counter {
    /// Whether a job is here and asked for input.
    pub(crate) fn check_input(&self, execution: ExecutionId) -> Result<(), Fault> {
        if self.inputs.is_for(execution) {
            return Ok(());
        }
        // Whatever is taken has a log.
        match self.logs.news(execution) {
            Some(_) => Err(Fault::new(FaultCode::STDIN_NOT_WANTED, "the job did not ask for standard input")),
            None => Err(Fault::new(FaultCode::NOT_FOUND, "there is no such execution; it was not taken, or its session is gone")),
        }
    }
}

/// A session with everything it needs.
pub(crate) struct Clerk {
    house: Arc<House>,
    session: ProviderSession,
    id: SessionId,
    account: Address,
    interval_charge: Usdc,
    executor: Option<Executor>,
    place: Option<Place>,
    line: Option<Line>,
    logs: Arc<Logs>,
    inputs: Arc<Inputs>,
    visits: mpsc::Receiver<Visit>,
    view: watch::Sender<SessionView>,
    released: CancellationToken,
    /// Since when it is over or owed something, and nothing of it is left but records.
    over_since: Option<Instant>,
    /// Whether there are records of it; one that is only given up has none.
    has_records: bool,
    stopping: bool,
    handed_in: (Usdc, Instant),
}

/// Why a clerk stops before its session is over.
#[derive(Debug)]
pub(super) struct Broken;

impl Clerk {
    /// A clerk for a session, and its counter. Without a place the session is one of an earlier start: it has records, but no workspace, and runs nothing.
    pub(crate) fn new(house: Arc<House>, session: ProviderSession, place: Option<Place>) -> (Self, Counter) {
        let id = session.terms().session;
        let (logs, inputs) = (Arc::new(Logs::default()), Arc::new(Inputs::default()));
        let (visits_in, visits) = mpsc::channel(VISITS_MAX);
        let (view, seen) = watch::channel(view_of(&session));
        let released = CancellationToken::new();
        let counter = Counter {
            agent: session.terms().agent(),
            visits: visits_in,
            logs: Arc::clone(&logs),
            inputs: Arc::clone(&inputs),
            view: seen,
            released: released.clone(),
        };
        let executor = place.is_some().then(|| Executor::new(Arc::clone(&house.workshop), id, Arc::clone(&logs), Arc::clone(&inputs)));
        let mut clerk = Self {
            over_since: session.is_released().then(Instant::now),
            has_records: place.is_none(),
            account: session.terms().account(),
            interval_charge: session.terms().interval_charge(),
            handed_in: (session.promised(), Instant::now()),
            house,
            session,
            id,
            executor,
            place,
            line: None,
            logs,
            inputs,
            visits,
            view,
            released,
            stopping: false,
        };
        clerk.note();
        (clerk, counter)
    }

    /// Takes over the stream on which the session was proposed.
    pub(crate) fn attach(&mut self, stream: PeerStream) {
        self.line = Some(Line::open(stream, self.id, self.house.store.clone(), &self.house.tasks, &self.house.halt));
    }

    /// Until the session is over, or the node stops. `first` is what the machine asked for when it was made.
    pub(crate) async fn work(mut self, first: Vec<ProviderEffect>) {
        let worked = self.serve(first).await;
        self.released.cancel();
        self.logs.end_all();
        self.inputs.close_all();
        if let Some(executor) = self.executor.take() {
            self.close(executor).await;
        }
        if worked.is_err() {
            tracing::error!(session = %self.id, "the session is left as it was last stored");
        }
        self.send_away().await;
    }

    /// Answers those who came when it was over already.
    async fn send_away(&mut self) {
        // From here on it is seen that nobody is here, so this is the last that is done.
        self.visits.close();
        let mut answers = JoinSet::new();
        while let Some(visit) = self.visits.recv().await {
            // A node that stops hangs up on everybody.
            if let Visit::Stream(stream, _) = visit
                && !self.house.halt.is_cancelled()
            {
                answers.spawn(async move { say_last(*stream, &ProviderFrame::Refused(put_away())).await });
            }
        }
        while answers.join_next().await.is_some() {}
    }

    async fn serve(&mut self, first: Vec<ProviderEffect>) -> Result<(), Broken> {
        self.finish_turn(first).await?;
        let mut tick_at = Instant::now() + self.tick();
        while !self.is_done() {
            tokio::select! {
                () = self.house.halt.cancelled() => return Ok(()),
                Some(visit) = self.visits.recv() => self.on_visit(visit).await?,
                frame = hear(&mut self.line) => self.on_frame(frame).await?,
                event = next_event(&mut self.executor) => self.on_run(event).await?,
                () = sleep_until(tick_at) => {
                    self.on_tick().await?;
                    tick_at = Instant::now() + self.tick();
                }
            }
            // What began to run shortens the wait.
            tick_at = tick_at.min(Instant::now() + self.tick());
        }
        Ok(())
    }

    /// Whether nothing more is to be done here; what is still owed is on disk.
    fn is_done(&self) -> bool {
        if self.stopping && self.session.is_released() {
            return true;
        }
        let Some(since) = self.over_since else { return false };
        // Of one that left no records there is nothing that anybody could come back for.
        let linger = match (self.session.is_over(), self.has_records) {
            (true, false) => Duration::ZERO,
            (true, true) => LINGER_CLOSED,
            (false, _) => LINGER_OWING,
        };
        since.elapsed() >= linger
    }

    fn tick(&self) -> Duration {
        if self.session.running().next().is_none() {
            return TICK_IDLE;
        }
        let interval = Duration::from_millis((self.session.terms().metering_interval.0 / TICKS_PER_INTERVAL).max(1));
        TICK_RUNNING.min(interval)
    }

    async fn on_visit(&mut self, visit: Visit) -> Result<(), Broken> {
        match visit {
            Visit::Stream(stream, first) => {
                // The newest stream is the agent's; an older one may hang for long before anybody notices.
                self.attach(*stream);
                self.turn(ProviderInput::Frame(first)).await
            }
            Visit::Files(answer) => {
                let files = self.files().await;
                let _ = answer.send(files);
                Ok(())
            }
            Visit::Stop => {
                self.stopping = true;
                self.turn(ProviderInput::Stop).await
            }
        }
    }

    async fn files(&mut self) -> Result<Files, Fault> {
        let Some(executor) = self.executor.as_mut().filter(|_| self.session.phase() == ProviderPhase::Open) else {
            return Err(Fault::new(FaultCode::WRONG_STATE, "the session is not open"));
        };
        executor.files().await.map_err(|error| {
            tracing::error!(session = %self.id, %error, "a workspace cannot be made");
            Fault::new(FaultCode::SETUP_FAILED, "the workspace cannot be made")
        })
    }

    async fn on_frame(&mut self, frame: Option<AgentFrame>) -> Result<(), Broken> {
        match frame {
            Some(frame) => {
                if let Err(fault) = self.vet_opening(&frame).await {
                    self.say(ProviderFrame::Refused(fault));
                    return self.turn(ProviderInput::Stop).await;
                }
                self.turns(Vec::from_iter(self.input_of(frame))).await
            }
            None => self.on_gone().await,
        }
    }

    /// Where there is a chain, it is asked whether it carries an allowance before the session has one. Later ones are bounded by what the book knows of the account.
    async fn vet_opening(&mut self, frame: &AgentFrame) -> Result<(), Fault> {
        let house = Arc::clone(&self.house);
        let (Some(chain), AgentFrame::Present(allowance)) = (&house.chain, frame) else { return Ok(()) };
        match (self.session.phase(), self.session.ceiling_of(*allowance)) {
            (ProviderPhase::Proposed(_), Ok(ceiling)) => {
                let terms = self.session.terms().clone();
                let vetted = chain.vet(&house, &terms, ceiling);
                let stopping = || Err(Fault::new(FaultCode::BUSY, "the provider is stopping"));
                house.halt.run_until_cancelled(vetted).await.unwrap_or_else(stopping)
            }
            (_, Ok(ceiling)) => {
                chain.raise(self.id, ceiling);
                Ok(())
            }
            // The machine says what is wrong with it.
            (_, Err(_)) => Ok(()),
        }
    }

    /// What a frame means to the machine.
    fn input_of(&self, frame: AgentFrame) -> Option<ProviderInput> {
        match frame {
            // The desk has not looked at this one.
            AgentFrame::LetGo(_) => {
                let fault = Fault::new(FaultCode::WRONG_STATE, "a session is let go of on a stream of its own");
                self.say(ProviderFrame::Refused(fault));
                None
            }
            frame => Some(ProviderInput::Frame(frame)),
        }
    }

    /// Hands the machine these inputs and those that have come at the same time; what all of them want kept is committed at once.
    async fn turns(&mut self, mut inputs: Vec<ProviderInput>) -> Result<(), Broken> {
        // The one that brings the allowance is looked at by itself.
        while inputs.len() < TOGETHER && !matches!(self.session.phase(), ProviderPhase::Proposed(_)) {
            let frame = self.line.as_mut().and_then(Line::heard_already).and_then(|frame| self.input_of(frame));
            let event = self.executor.as_mut().and_then(Executor::told_already).map(|event| self.input_of_run(event));
            if frame.is_none() && event.is_none() {
                break;
            }
            inputs.extend(frame.into_iter().chain(event));
        }
        let effects = inputs.into_iter().flat_map(|input| self.step(input)).collect();
        self.finish_turn(effects).await
    }

    async fn on_gone(&mut self) -> Result<(), Broken> {
        self.line = None;
        self.turn(ProviderInput::Disconnected).await?;
        if matches!(self.session.phase(), ProviderPhase::Proposed(_)) {
            // Nothing was agreed that either side could come back to, so nothing is kept for it.
            self.turn(ProviderInput::Stop).await?;
        }
        Ok(())
    }

    async fn on_run(&mut self, event: RunEvent) -> Result<(), Broken> {
        let input = self.input_of_run(event);
        self.turns(vec![input]).await
    }

    /// What news of a run mean to the machine.
    fn input_of_run(&mut self, event: RunEvent) -> ProviderInput {
        match event {
            RunEvent::Started(execution) => ProviderInput::Started(execution),
            RunEvent::Ended(run) => {
                if let Some(executor) = &mut self.executor {
                    executor.forget(run.execution);
                }
                ProviderInput::Ended { execution: run.execution, usage: run.usage, end: run.end, exit_code: run.exit_code }
            }
        }
    }

    async fn on_tick(&mut self) -> Result<(), Broken> {
        let usages = self.executor.as_ref().map(Executor::usages).unwrap_or_default();
        for (execution, usage) in usages {
            self.turn(ProviderInput::Progress(execution, usage)).await?;
        }
        self.turn(ProviderInput::Tick).await?;
        self.hand_in_now_and_then();
        Ok(())
    }

    /// Promises of an open session are handed in before they are many or old.
    fn hand_in_now_and_then(&mut self) {
        let promised = self.session.promised();
        let (handed, at) = self.handed_in;
        let fresh = promised.excess_over(handed);
        if fresh > Usdc::ZERO && !self.session.is_released() && (fresh >= self.house.hand_in_at || at.elapsed() >= HAND_IN_EVERY) {
            self.handed_in = (promised, Instant::now());
            self.house.collector.hand_in(self.id);
        }
    }

    /// One turn of the machine.
    pub(super) fn step(&mut self, input: ProviderInput) -> Vec<ProviderEffect> {
        let house = Arc::clone(&self.house);
        let barred = house.chain.as_ref().and_then(|chain| chain.bar(self.id));
        let vet = |job: &Job| barred.clone().map_or_else(|| house.workshop.toolbox.vet(job), Err);
        let (credit, unredeemed_ceiling) = {
            let book = house.book();
            (book.credit(self.account, self.id, self.interval_charge), book.unredeemed_ceiling(self.account, self.id))
        };
        let redemption_grace = house.standing.redemption_grace();
        let env = ProviderEnv { now: clock::now(), credit, unredeemed_ceiling, redemption_grace, vet: &vet };
        let effects = self.session.handle(input, &env);
        self.note();
        effects
    }

    /// Tells the book and whoever looks where the session stands.
    fn note(&mut self) {
        let (unvouchered, promised) = (self.session.unvouchered(), self.session.promised());
        // Before the first voucher there is nothing to note, and strangers must not fill the book.
        if unvouchered > Usdc::ZERO || promised > Usdc::ZERO {
            self.house.book().note(self.account, self.id, unvouchered, promised, self.session.is_released());
        }
        if let Some(place) = self.place.as_mut().filter(|_| self.session.phase() == ProviderPhase::Open) {
            place.opened();
        }
        let seen = view_of(&self.session);
        self.view.send_if_modified(|view| std::mem::replace(view, seen) != seen);
    }

    /// Starts a tool; what ended at once is the machine's next input.
    pub(super) async fn start(&mut self, job: &Job, limit: Millis) -> Option<ProviderInput> {
        let started = match &mut self.executor {
            Some(executor) => executor.start(job, limit).await,
            None => Err(crate::executor::RunEnd::never_ran(job.execution)),
        };
        let run = started.err()?;
        Some(ProviderInput::Ended { execution: run.execution, usage: run.usage, end: run.end, exit_code: run.exit_code })
    }

    pub(super) fn on_executor(&self, act: impl FnOnce(&Executor, ExecutionId), execution: ExecutionId) {
        if let Some(executor) = &self.executor {
            act(executor, execution);
        }
    }

    /// Gives the workspace back.
    pub(super) async fn close(&self, executor: Executor) {
        if let Err(error) = executor.release().await {
            tracing::error!(session = %self.id, %error, "a workspace is left behind until the next start");
        }
    }
}

fn view_of(session: &ProviderSession) -> SessionView {
    SessionView { phase: session.phase(), charged: session.charged(), promised: session.promised(), running: session.running().count() }
}

/// The agent's next frame; waits for ever without a line.
async fn hear(line: &mut Option<Line>) -> Option<AgentFrame> {
    match line {
        Some(line) => line.hear().await,
        None => std::future::pending().await,
    }
}

async fn next_event(executor: &mut Option<Executor>) -> RunEvent {
    match executor {
        Some(executor) => executor.next().await,
        None => std::future::pending().await,
    }
}
