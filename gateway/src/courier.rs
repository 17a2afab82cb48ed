//! Drives one session: owns its state machine and its control stream, and carries out what the machine says.
//!
//! Always true: effects are carried out in order; after a persist nothing further happens until the commit has returned; what callers see on the [`Desk`] is already durable. A failed
//! commit ends the courier with an error, and with it the process.
//!
//! It makes no decision about money and does not know HTTP.

mod reserve;
mod staging;
mod telling;
mod watching;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use orien_bootstrap::clock;
use orien_net::NetError;
use orien_protocol::fault::{Fault, FaultCode};
use orien_protocol::frame::{AgentFrame, Question};
use orien_protocol::id::ExecutionId;
use orien_protocol::money::Usdc;
use orien_protocol::peer::PeerId;
use orien_protocol::session::agent::{AgentEffect, AgentEvent, AgentInput, AgentPhase, AgentRecord, AgentSession, RunOrder};
use orien_protocol::time::Millis;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::context::Context;
use crate::decimal::Time;
use crate::desk::{Blame, By, Command, Desk};
use crate::errand::Errand;
use crate::link::Link;
use crate::logs::{self, Source};
use crate::plan::{EndedBy, Loss};
use crate::rows::{Closing, ExecutionRow};
use crate::store::{Put, StoreError};

use reserve::Reserved;
use watching::Decided;

/// Commands that wait for a courier.
pub(crate) const COMMANDS: usize = 64;
/// How often time passes for the machine. Its graces are seconds.
const TICK: Duration = Duration::from_secs(1);
/// First and longest wait before the control stream is dialled again.
const REDIAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));
/// How long logs may take to arrive after a session is over or given up; the provider keeps them only a little longer.
const LAST_LOGS: Duration = Duration::from_secs(3);

/// Frames and commands that are taken together: what they want kept shares one commit, and none of them waits long for the others.
const TOGETHER: usize = 64;

/// Whoever waits for a top-up that settlement is asked for.
type TopUp = oneshot::Sender<Result<Usdc, Blame>>;

/// A run that is taken once its job is durable.
#[derive(Debug)]
struct Taken {
    /// What those who follow the session are told of it; none for one that was taken before.
    asked: Option<serde_json::Value>,
    /// Whoever asked for it.
    answer: oneshot::Sender<Result<(), Fault>>,
}

/// The driver of one session.
#[derive(Debug)]
pub(crate) struct Courier {
    context: Arc<Context>,
    machine: AgentSession,
    desk: Arc<Desk>,
    commands: mpsc::Receiver<Command>,
    provider: PeerId,
    link: Option<Link>,
    /// At most one attempt to get a link.
    dialling: JoinSet<Result<Link, NetError>>,
    redial: Duration,
    /// At most one question to settlement.
    asking: JoinSet<Result<Reserved, StoreError>>,
    top_up: Option<TopUp>,
    followers: JoinSet<Result<(), StoreError>>,
    /// Logs that are followed or have ended; with the way to tell a follower that still waits how its run ended.
    followed: BTreeMap<ExecutionId, Option<logs::Told>>,
    /// Logs of which the end is staged: nothing was ever written to them.
    silent: BTreeSet<ExecutionId>,
    /// Runs that are over and whose logs did not arrive before the gateway stopped.
    unread: Vec<ExecutionId>,
    /// Logs are followed until this.
    gone: CancellationToken,
    /// When that is, once the session is given up, monotonic.
    gone_at: Option<Millis>,
    inputs: VecDeque<AgentInput>,
    /// What follows from runs that were asked for, and whoever waits to hear that they are taken.
    begun: (Vec<AgentEffect>, Vec<Taken>),
    /// Number of the next record.
    seq: u64,
    staged: Vec<Put>,
    /// Rows that a staged commit makes true.
    rows: BTreeMap<ExecutionId, ExecutionRow>,
    /// How the session closed, once that is staged.
    closing: Option<Closing>,
    /// What settlement is told when it is over, if the provider gave it up.
    hand_back: Option<Question>,
    /// Whose fault a failure of the next input is.
    by: By,
    /// Since when the provider is out of reach, monotonic.
    gone_since: Option<Millis>,
    /// How the provider was lost, once the session is being given up for that.
    giving_up: Option<Loss>,
    /// Told when it is.
    gives_up: Option<oneshot::Sender<()>>,
    /// Runs that were given up and may still get a final receipt.
    abandoned: BTreeMap<ExecutionId, ExecutionRow>,
    decided: Decided,
}

impl Courier {
    /// A courier for a session whose machine has written `seq` records so far.
    pub(crate) fn new(
        context: Arc<Context>,
        machine: AgentSession,
        desk: Arc<Desk>,
        commands: mpsc::Receiver<Command>,
        seq: u64,
        link: Option<Link>,
    ) -> Self {
        let gone_since = link.is_none().then(|| clock::now().mono);
        Self {
            provider: desk.facts.provider,
            gone: CancellationToken::new(),
            gone_at: None,
            context,
            machine,
            desk,
            commands,
            link,
            dialling: JoinSet::new(),
            redial: REDIAL.0,
            asking: JoinSet::new(),
            top_up: None,
            followers: JoinSet::new(),
            followed: BTreeMap::new(),
            silent: BTreeSet::new(),
            unread: Vec::new(),
            inputs: VecDeque::new(),
            begun: Default::default(),
            seq,
            staged: Vec::new(),
            rows: BTreeMap::new(),
            closing: None,
            hand_back: None,
            by: By::Provider,
            gone_since,
            giving_up: None,
            gives_up: None,
            abandoned: BTreeMap::new(),
            decided: Decided::default(),
        }
    }

    /// Makes something durable together with the first record.
    pub(crate) fn stage(&mut self, put: Put) {
        self.staged.push(put);
    }

    /// Has the logs of runs fetched that are over, as soon as the provider is in reach.
    pub(crate) fn fetch_logs(&mut self, unread: Vec<ExecutionId>) {
        self.unread = unread;
    }

    /// Drives the session until it is over or `stop`; a session that is stopped stays open at its provider. What is left to be given back is for the errand.
    pub(crate) async fn run(mut self, first: Vec<AgentEffect>, stop: CancellationToken) -> Result<Option<Errand>, StoreError> {
        let linked = self.link.is_some();
        self.desk.change(|state| state.connected = linked);
        if self.machine.sealed().is_some() {
            self.give_up_logs();
        }
        self.carry_out(first).await?;
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            self.work_off().await?;
            if self.is_over() {
                break;
            }
            self.keep_dialling();
            tokio::select! {
                () = stop.cancelled() => break,
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command).await?,
                    None => break,
                },
                frame = next_frame(&mut self.link) => match frame {
                    Some(frame) => self.inputs.push_back(AgentInput::Frame(frame)),
                    None => self.lose_link(),
                },
                Some(linked) = self.dialling.join_next() => self.on_dialled(linked.ok()),
                Some(reserved) = self.asking.join_next() => {
                    if let Ok(reserved) = reserved {
                        self.on_reserved(reserved?);
                    }
                }
                Some(followed) = self.followers.join_next() => followed.unwrap_or(Ok(()))?,
                _ = tick.tick() => {
                    self.inputs.push_back(AgentInput::Tick);
                    self.watch()?;
                }
            }
            self.take_what_waits().await?;
        }
        self.finish().await
    }

    fn is_over(&self) -> bool {
        matches!(self.machine.phase(), AgentPhase::Closed(_))
    }

    async fn finish(mut self) -> Result<Option<Errand>, StoreError> {
        self.commands.close();
        self.dialling.shutdown().await;
        // Nothing may be reserved any more once it is given back.
        self.asking.shutdown().await;
        let is_owing = self.machine.owes_release();
        if let Some(link) = self.link.take_if(|_| !is_owing) {
            link.finish().await;
        }
        if self.is_over() {
            self.end_logs().await?;
        } else {
            // The provider keeps them: what has come is not all, and nothing of it is kept as if it were.
            self.followers.shutdown().await;
        }
        Ok(is_owing.then(|| Errand::after(self.context, self.machine, &self.desk.facts, self.seq, self.link, self.hand_back)))
    }

    async fn end_logs(&mut self) -> Result<(), StoreError> {
        let gone = self.gone.clone();
        let late = async move {
            tokio::time::sleep(LAST_LOGS).await;
            gone.cancel();
        };
        let mut followers = std::mem::take(&mut self.followers);
        let ended = async move {
            while let Some(followed) = followers.join_next().await {
                followed.unwrap_or(Ok(()))?;
            }
            Ok::<(), StoreError>(())
        };
        let mut ended = std::pin::pin!(ended);
        tokio::select! {
            ended = &mut ended => return ended,
            () = late => {}
        }
        ended.await
    }

    /// Takes what came at the same time, so that one commit is for all of it.
    async fn take_what_waits(&mut self) -> Result<(), StoreError> {
        for _ in 0..TOGETHER {
            let frame = self.link.as_mut().and_then(Link::try_next);
            let command = self.commands.try_recv().ok();
            if frame.is_none() && command.is_none() {
                break;
            }
            self.inputs.extend(frame.map(AgentInput::Frame));
            if let Some(command) = command {
                self.on_command(command).await?;
            }
        }
        Ok(())
    }

    /// Feeds the machine what has come.
    async fn work_off(&mut self) -> Result<(), StoreError> {
        loop {
            let (mut effects, taken) = std::mem::take(&mut self.begun);
            while let Some(frame) = self.inputs.pop_front_if(|input| matches!(input, AgentInput::Frame(_))) {
                effects.extend(self.machine.handle(frame, clock::now()));
            }
            if !effects.is_empty() || !taken.is_empty() {
                self.carry_out(effects).await?;
            }
            for Taken { asked, answer } in taken {
                if let Some(asked) = asked {
                    self.desk.change(|state| state.news.tell("run", asked));
                }
                // Whoever asked may be gone; the run is recorded either way.
                let _ = answer.send(Ok(()));
            }
            let Some(input) = self.inputs.pop_front() else { return Ok(()) };
            let is_reserved = matches!(input, AgentInput::Reserved { .. });
            let effects = self.machine.handle(input, clock::now());
            self.carry_out(effects).await?;
            self.by = By::Provider;
            if is_reserved && let Some(unanswered) = self.top_up.take() {
                let fault = Fault::new(FaultCode::BAD_ALLOWANCE, "settlement answered with an allowance that raises nothing");
                // Whoever asked may be gone.
                let _ = unanswered.send(Err(Blame { fault, by: By::Settlement }));
            }
        }
    }

    /// Makes durable everything that is wanted kept, in one commit, then does the rest in its order: earlier than asked is safe, later is not.
    async fn carry_out(&mut self, effects: Vec<AgentEffect>) -> Result<(), StoreError> {
        let (mut effects, mut rest) = (VecDeque::from(effects), Vec::new());
        while let Some(effect) = effects.pop_front() {
            match effect {
                AgentEffect::Persist(record) => {
                    if matches!(*record, AgentRecord::Closed { .. } | AgentRecord::Sealed { .. }) {
                        // What is kept of a session that is over, or given up, is summed up from what was told of it.
                        self.conclude(std::mem::take(&mut rest)).await?;
                    }
                    let refusal = refusal_of(&record, &effects);
                    self.stage_record(&record, refusal)?;
                }
                other => rest.push(other),
            }
        }
        self.conclude(rest).await
    }

    async fn conclude(&mut self, effects: Vec<AgentEffect>) -> Result<(), StoreError> {
        self.commit().await?;
        for effect in effects {
            match effect {
                AgentEffect::Send(frame) => self.send(&frame).await,
                AgentEffect::Reserve { terms, ceiling } => self.ask_for(*terms, ceiling),
                AgentEffect::HandBack { terms, close } => self.hand_back = Some(Question::Release { terms, close }),
                AgentEffect::Tell(event) => self.tell(event),
                // Staged before.
                AgentEffect::Persist(_) => {}
            }
        }
        Ok(())
    }

    async fn commit(&mut self) -> Result<(), StoreError> {
        if self.staged.is_empty() {
            return Ok(());
        }
        self.context.store.write(std::mem::take(&mut self.staged)).await?;
        self.show_decided();
        Ok(())
    }

    async fn send(&mut self, frame: &AgentFrame) {
        let Some(link) = &mut self.link else { return };
        if !link.send(frame).await {
            self.lose_link();
        }
    }

    fn lose_link(&mut self) {
        self.link = None;
        self.gone_since.get_or_insert(clock::now().mono);
        self.by = By::ProviderGone;
        self.inputs.push_back(AgentInput::Disconnected);
        self.desk.change(|state| {
            state.connected = false;
            state.news.tell("disconnected", serde_json::json!({ "at": Time(clock::wall()).to_string() }));
        });
    }

    fn keep_dialling(&mut self) {
        if self.link.is_some() || !self.dialling.is_empty() {
            return;
        }
        let (net, provider) = (self.context.net.clone(), self.provider);
        let addresses = self.context.addresses_of(&provider, &self.desk.facts.addresses);
        let wait = self.redial;
        self.redial = wait.saturating_mul(2).min(REDIAL.1);
        self.dialling.spawn(async move {
            tokio::time::sleep(wait).await;
            Link::open(&net, provider, &addresses).await
        });
    }

    fn on_dialled(&mut self, linked: Option<Result<Link, NetError>>) {
        match linked {
            Some(Ok(link)) => {
                self.link = Some(link);
                self.redial = REDIAL.0;
                self.gone_since = None;
                self.inputs.push_back(AgentInput::Connected);
                self.desk.change(|state| {
                    state.connected = true;
                    state.news.tell("connected", serde_json::json!({ "at": Time(clock::wall()).to_string() }));
                });
                // Runs that began before the link was lost or the gateway stopped tell nothing of themselves until their next receipt.
                let running: Vec<ExecutionId> =
                    self.desk.read(|state| state.runs.iter().filter(|(_, row)| row.started_at.is_some()).map(|(id, _)| *id).collect());
                running.into_iter().for_each(|execution| self.follow(execution));
                self.follow_unread();
            }
            Some(Err(error)) => tracing::info!(session = %self.desk.id, %error, "the provider cannot be reached"),
            None => tracing::error!(session = %self.desk.id, "an attempt to connect panicked"),
        }
    }

    async fn on_command(&mut self, command: Command) -> Result<(), StoreError> {
        match command {
            Command::Run { order, row, along, answer } => self.on_run(*order, *row, along, answer)?,
            Command::Cancel(execution) => self.inputs.push_back(AgentInput::Cancel(execution)),
            Command::TopUp { ceiling, answer } => self.on_top_up(ceiling, answer),
            Command::Extend { until, answer } => self.on_extend(until, answer).await?,
            Command::End => self.end(EndedBy::Caller)?,
        }
        Ok(())
    }

    fn on_run(
        &mut self,
        order: RunOrder,
        row: ExecutionRow,
        along: Option<Put>,
        answer: oneshot::Sender<Result<(), Fault>>,
    ) -> Result<(), StoreError> {
        let execution = order.execution;
        let effects = self.machine.handle(AgentInput::Run(order), clock::now());
        let refused = effects.iter().find_map(|effect| match effect {
            AgentEffect::Tell(AgentEvent::RunRefused(_, fault)) => Some(fault.clone()),
            _ => None,
        });
        if let Some(fault) = refused {
            // Whoever asked may be gone; nothing was done.
            let _ = answer.send(Err(fault));
            return Ok(());
        }
        let mut asked = None;
        if !effects.is_empty() {
            // In one commit with the job itself, whoever commits next.
            self.staged.push(Put::execution(&execution, &row)?);
            self.staged.extend(along);
            // Nobody finds it here before it is in the store.
            self.context.logs.begin(execution);
            asked = Some(serde_json::json!({
                "executionId": execution.to_string(), "toolId": row.tool, "status": row.status.name(), "at": Time(row.asked_at).to_string(),
            }));
            self.desk.change(|state| {
                state.runs.insert(execution, row);
            });
        }
        for effect in effects {
            match effect {
                AgentEffect::Persist(record) => self.stage_record(&record, None)?,
                other => self.begun.0.push(other),
            }
        }
        self.begun.1.push(Taken { asked, answer });
        Ok(())
    }

    fn follow_unread(&mut self) {
        std::mem::take(&mut self.unread).into_iter().for_each(|execution| self.follow(execution));
    }

    /// Follows the log of an execution, once.
    fn follow(&mut self, execution: ExecutionId) {
        if self.followed.contains_key(&execution) {
            return;
        }
        let (told, hears) = oneshot::channel();
        self.followed.insert(execution, Some(told));
        let source = Source { provider: self.provider, session: self.desk.id, execution };
        let (net, logs, store) = (self.context.net.clone(), Arc::clone(&self.context.logs), self.context.store.clone());
        self.followers.spawn(logs::follow(net, source, logs, store, hears, self.gone.clone()));
    }
}

/// Why something was refused, when a record says that it was: the machine tells it right after.
fn refusal_of(record: &AgentRecord, rest: &VecDeque<AgentEffect>) -> Option<Fault> {
    rest.iter().find_map(|effect| match (record, effect) {
        (AgentRecord::JobRefused(execution), AgentEffect::Tell(AgentEvent::RunRefused(refused, fault))) if refused == execution => {
            Some(fault.clone())
        }
        (AgentRecord::Closed { .. }, AgentEffect::Tell(AgentEvent::NotOpened(fault))) => Some(fault.clone()),
        _ => None,
    })
}

async fn next_frame(link: &mut Option<Link>) -> Option<orien_protocol::frame::ProviderFrame> {
    match link {
        Some(link) => link.next().await,
        None => std::future::pending().await,
    }
}
